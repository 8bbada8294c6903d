"""The repository itself: complete, small, set up by nothing but Python and make, and its tests free of sleeps."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.sources import load_script, syntax_tree

ROOT = Path(__file__).resolve().parent.parent
TESTS = sorted((ROOT / "tests").rglob("*.py"))


def tracked() -> list[Path]:
    """Files under version control, or every file outside hidden folders where this is no clone."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        return [p for p in ROOT.rglob("*") if p.is_file() and not p.relative_to(ROOT).parts[0].startswith(".")]
    # A clone made by another user is refused by git unless named safe; this only lists names.
    command = ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
    return [ROOT / os.fsdecode(name) for name in listed.split(b"\0") if name]


@pytest.mark.parametrize(
    "name",
    [
        "README.md", "CHANGELOG.md", "LICENSE", "Makefile", "pyproject.toml", "SECURITY.md", "main.py", ".ci/run",
        "docs/architecture.md", "packaging/setup_env.py", "examples/README.md",
    ],
)  # fmt: skip
def test_the_repository_has(name: str) -> None:
    assert (ROOT / name).stat().st_size > 0


def test_it_is_small() -> None:
    assert sum(path.stat().st_size for path in tracked() if path.is_file()) < 40_000_000


def test_the_licence_is_apache_2() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_decisions_are_numbered_without_gaps() -> None:
    numbers = [path.name.split("-")[0] for path in sorted((ROOT / "docs" / "decisions").glob("*.md"))]
    assert numbers == [f"{number:03d}" for number in range(1, len(numbers) + 1)]
    assert len(numbers) >= 7


def test_links_inside_the_documents_lead_somewhere() -> None:
    documents = [ROOT / "README.md", ROOT / "examples" / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    broken = []
    for document in documents:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text(encoding="utf-8")):
            if "://" not in target and not (document.parent / target).exists():
                broken.append(f"{document.relative_to(ROOT)}: {target}")
    assert broken == []


# -- Makefile and set-up ------------------------------------------------------------------------------------------
def test_make_help_lists_every_target() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    assert phony is not None
    documented = re.findall(r"^([a-z][a-z-]*):.*## ", text, re.MULTILINE)
    assert documented == phony.group(1).split()
    if shutil.which("make"):
        helped = subprocess.run(
            ["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout
        assert [line.split()[1] for line in helped.splitlines()] == documented


def test_ci_runs_make_test() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert "make test" in script.read_text(encoding="utf-8")


@pytest.fixture
def setup_env() -> ModuleType:
    return load_script(ROOT / "packaging" / "setup_env.py")


def test_setting_up_needs_only_the_standard_library() -> None:
    tree = ast.parse((ROOT / "packaging" / "setup_env.py").read_text(encoding="utf-8"), feature_version=(3, 8))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in names} <= sys.stdlib_module_names


def test_without_root_the_one_line_to_run_is_said(setup_env: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup_env, "is_root", lambda: False)
    monkeypatch.setattr(setup_env.shutil, "which", lambda program: f"/usr/bin/{program}")
    monkeypatch.setattr(setup_env.subprocess, "run", lambda *a, **k: pytest.fail("nothing may be run"))
    with pytest.raises(setup_env.SetupError) as told:
        setup_env.install_packages(["libgl1", "python3.11-venv"])
    assert "\n    sudo apt-get install -y --no-install-recommends libgl1 python3.11-venv" in str(told.value)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Debian's packages")
@pytest.mark.parametrize(
    ("purpose", "display", "root", "wanted"),
    [
        ("app", "", True, set()),
        ("app", ":0", True, set()),
        ("run", "", True, set()),
        ("run", ":0", True, {"libgl1", "libxcb-cursor0"}),
        ("test", "", False, {"libgl1"}),
        (
            "test",
            "",
            True,
            {"libgl1", "libxcb-cursor0", "xvfb", "xauth", "xdotool", "dbus", "at-spi2-core", "iproute2", "curl"},
        ),
    ],
)
def test_the_libraries_each_purpose_needs(
    setup_env: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    purpose: str,
    display: str,
    root: bool,
    wanted: set[str],
) -> None:
    monkeypatch.setenv("DISPLAY", display)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr(setup_env, "is_root", lambda: root)
    monkeypatch.setattr(setup_env, "lacks_library", lambda name: True)
    monkeypatch.setattr(setup_env, "VENV_PYTHON", Path(sys.executable))
    monkeypatch.setattr(setup_env.shutil, "which", lambda program: None)
    packages = set(setup_env.missing_packages(purpose, sys.executable))
    told_apart = {"libgl1", "libxcb-cursor0", "xvfb", "xauth", "xdotool", "dbus", "at-spi2-core", "iproute2", "curl"}
    assert set(setup_env.DESKTOP_PROGRAMS.values()) <= told_apart
    assert packages & told_apart == wanted


def test_a_stamp_saves_the_second_installation(
    setup_env: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls: list[list[str]] = []
    locks = tmp_path / "locks"
    locks.mkdir()
    for name in ("app", "test", "cpu", "cuda"):
        (locks / f"{name}.txt").write_text("click==1\n")

    def pip(command: list[str], **options: object) -> subprocess.CompletedProcess[bytes]:
        calls.append(command)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(setup_env, "VENV", tmp_path)
    monkeypatch.setattr(setup_env, "VENV_PYTHON", Path(sys.executable))
    monkeypatch.setattr(setup_env, "LOCKS", locks)
    monkeypatch.setattr(setup_env.subprocess, "run", pip)
    monkeypatch.setattr(setup_env.subprocess, "check_output", lambda *a, **k: b"3.11")
    setup_env.install_requirements("test", "cuda")
    made = len(calls)
    setup_env.install_requirements("test", "cuda")
    setup_env.install_requirements("app", "cuda")  # the tests' installation has all of it
    assert len(calls) == made > 0
    (locks / "cpu.txt").write_text("click==2\n")  # no part of it
    setup_env.install_requirements("app", "cuda")
    assert len(calls) == made
    for times, changed in enumerate(("test", "cuda"), start=2):
        (locks / f"{changed}.txt").write_text("click==2\n")
        setup_env.install_requirements("test", "cuda")
        assert len(calls) == made * times


# -- the tests ----------------------------------------------------------------------------------------------------
def called(node: ast.Call) -> str:
    function = node.func
    if isinstance(function, ast.Attribute):
        owner = function.value.id if isinstance(function.value, ast.Name) else ""
        return f"{owner}.{function.attr}"
    return function.id if isinstance(function, ast.Name) else ""


def test_no_test_sleeps() -> None:
    """A test waits for a condition or an event; one that sleeps is slow when it passes and flaky when it does not."""
    sleeps = []
    for path in TESTS:
        for node in ast.walk(syntax_tree(path)):
            if isinstance(node, ast.Call) and (
                called(node) in ("time.sleep", "sleep") or called(node).endswith(".qWait")
            ):
                sleeps.append(f"{path.relative_to(ROOT)}:{node.lineno}")
            if (
                isinstance(node, ast.ImportFrom)
                and node.module == "time"
                and any(a.name == "sleep" for a in node.names)
            ):
                sleeps.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert sleeps == []


def test_test_packages_are_packages() -> None:
    folders = {path.parent for path in TESTS}
    assert [str(f.relative_to(ROOT)) for f in folders if not (f / "__init__.py").exists()] == []
