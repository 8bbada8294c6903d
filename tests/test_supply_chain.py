"""What is installed: locked by hash, judged by an advisory database, and listed. No test here needs the network."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from tests.sources import load_script

ROOT = Path(__file__).resolve().parent.parent
NAMES = ["app", "cpu", "cuda", "fuzz", "test"]
ENTRY = re.compile(r"(?P<name>[a-z0-9-]+)==(?P<version>[a-z0-9.+]+)(?: ; (?P<marker>[^\\;]+))?")


def text_of(lock: str) -> str:
    return (ROOT / "locks" / f"{lock}.txt").read_text(encoding="utf-8")


def entries(lock: str) -> list[tuple[str, str, str, frozenset[str]]]:
    """Name, version, marker and hashes of each requirement of a lock. Fails on a line that is none of them."""
    logical = re.sub(r"^ *#.*\n", "", text_of(lock), flags=re.MULTILINE).replace("\\\n", "").splitlines()
    found = []
    for line in logical:
        first, *hashes = line.split(" --hash=")
        match = ENTRY.fullmatch(first.strip())
        assert match is not None, line
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", value.strip()) for value in hashes), line
        found.append((match["name"], match["version"], match["marker"] or "", frozenset(map(str.strip, hashes))))
    return found


def project() -> dict[str, list[str]]:
    """The requirements of pyproject.toml, by the name of their extra; "" is the application."""
    table = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return {"": table["dependencies"], **table["optional-dependencies"]}


def script(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A script of ``packaging``, which the others import as it is run: from its own folder."""
    monkeypatch.syspath_prepend(str(ROOT / "packaging"))
    return load_script(ROOT / "packaging" / f"{name}.py")


# -- locks --------------------------------------------------------------------------------------------------------
def test_the_locks_are_these() -> None:
    assert sorted(path.stem for path in (ROOT / "locks").iterdir()) == NAMES


@pytest.mark.parametrize("lock", NAMES)
def test_every_locked_package_has_hashes(lock: str) -> None:
    found = entries(lock)
    assert found
    assert [name for name, _, _, hashes in found if not hashes] == []
    named = [(name, marker) for name, _, marker, _ in found]
    assert len(named) == len(set(named))


@pytest.mark.parametrize("lock", NAMES)
def test_a_lock_names_no_place_to_fetch_from(lock: str) -> None:
    assert re.findall(r"://|^ *-{1,2}(?!hash)\w.*|@", text_of(lock), flags=re.MULTILINE) == []


@pytest.mark.parametrize(("extra", "locks"), [("", ["app", "cpu"]), ("", ["app", "cuda"]), ("test", ["test"])])
def test_every_pin_of_the_project_is_locked(extra: str, locks: list[str]) -> None:
    locked = {(name, version.split("+")[0]) for lock in locks for name, version, _, _ in entries(lock)}
    named = {(name.lower().replace("_", "-"), version) for name, version in map(pin, project()[extra])}
    assert named - locked == set()


def pin(requirement: str) -> tuple[str, str]:
    name, version = re.sub(r"\[.*?\]", "", requirement).split("==")
    return name, version


def test_one_version_and_the_same_files_in_every_lock() -> None:
    app, test, cuda = (
        {name: (version, hashes) for name, version, _, hashes in entries(lock)} for lock in ("app", "test", "cuda")
    )
    assert [name for name in app if app[name] != test.get(name)] == []
    assert set(app) & set(cuda) == set(), "what stands in app.txt is not repeated"
    assert set(test) & set(cuda) == set()


def test_pytorch_without_cuda_brings_nothing_of_cuda() -> None:
    for_gpus = re.compile(r"(nvidia|cuda)-.*|triton|torch")
    assert [name for lock in ("app", "test") for name, *_ in entries(lock) if for_gpus.fullmatch(name)] == []
    version = dict(map(pin, project()[""]))["torch"]
    on_linux, elsewhere = entries("cpu")
    assert on_linux[:3] == ("torch", f"{version}+cpu", "sys_platform == 'linux'")
    assert elsewhere[:3] == ("torch", version, "sys_platform != 'linux'")
    assert len(on_linux[3]) == 6, "three Pythons on two machines"
    assert ("torch", version, "", elsewhere[3]) in entries("cuda")
    assert all(for_gpus.fullmatch(name) for name, *_ in entries("cuda"))


PAGE = """<a href="/whl/cpu/torch-2.0.0%2Bcpu-cp312-cp312-manylinux_2_28_x86_64.whl#sha256={b}">torch</a>
<a href="https://elsewhere/torch-2.0.0%2Bcpu-cp311-cp311-manylinux_2_28_aarch64.whl#sha256={a}" x-metadata="y">torch</a>
<a href="/whl/cpu/torch-2.0.0%2Bcpu-cp313-cp313t-win_amd64.whl#sha256={c}">another system</a>
<a href="/whl/cpu/torch-2.0.0-cp311-none-macosx_11_0_arm64.whl#sha256={c}">another system</a>
<a href="/whl/cpu/torch-2.0.0%2Bcpu-cp310-cp310-manylinux_2_28_x86_64.whl#sha256={c}">another Python</a>
<a href="/whl/cpu/torch-2.0.1%2Bcpu-cp311-cp311-manylinux_2_28_x86_64.whl#sha256={c}">another version</a>
""".format(**{letter: letter * 64 for letter in "abc"})


def test_hashes_of_cpu_builds_are_read_from_pytorchs_index(monkeypatch: pytest.MonkeyPatch) -> None:
    lock = script("lock", monkeypatch)
    assert lock.cpu_hashes(PAGE, "2.0.0") == ["a" * 64, "b" * 64]


def test_locking_again_asks_nobody_for_the_cpu_build(monkeypatch: pytest.MonkeyPatch) -> None:
    lock = script("lock", monkeypatch)
    monkeypatch.setattr(lock.urllib.request, "urlopen", lambda *a, **k: pytest.fail("it is locked already"))
    version = dict(map(pin, project()[""]))["torch"]
    assert lock.cpu_build(version) + "torch==" in text_of("cpu")


def test_a_new_pytorch_is_not_locked_without_its_index(monkeypatch: pytest.MonkeyPatch) -> None:
    lock = script("lock", monkeypatch)

    def silent(*arguments: object, **options: object) -> None:
        raise lock.urllib.error.URLError("no route")

    monkeypatch.setattr(lock.urllib.request, "urlopen", silent)
    with pytest.raises(SystemExit, match=r"torch 99\.0 is not locked"):
        lock.cpu_build("99.0")


# -- installing ---------------------------------------------------------------------------------------------------
Pip = Callable[[list[str]], int]


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., list[list[str]]]:
    """Runs an installation with a pip that only notes what it is called with; it answers by ``status``."""
    setup_env = script("setup_env", monkeypatch)
    monkeypatch.setattr(setup_env, "VENV", tmp_path)
    monkeypatch.setattr(setup_env, "VENV_PYTHON", Path(sys.executable))
    monkeypatch.setattr(setup_env.subprocess, "check_output", lambda *a, **k: b"3.11")

    def install(torch: str, platform: str = "linux", status: Pip = lambda command: 0) -> list[list[str]]:
        calls: list[list[str]] = []

        def pip(command: list[str], **options: object) -> subprocess.CompletedProcess[bytes]:
            calls.append(command)
            return subprocess.CompletedProcess(command, status(command), b"what pip says\n")

        monkeypatch.setattr(setup_env.subprocess, "run", pip)
        monkeypatch.setattr(setup_env.sys, "platform", platform)
        try:
            setup_env.install_requirements("app", torch)
        except setup_env.SetupError as error:
            calls.append(["SetupError", str(error)])
        return calls

    return install


def requirements(call: list[str]) -> list[str]:
    return [Path(after).name for word, after in pairwise(call) if word == "--requirement"]


@pytest.mark.parametrize(
    ("torch", "platform", "wanted"),
    [
        ("cpu", "linux", [["cpu.txt"], ["app.txt", "cpu.txt"], []]),
        ("cpu", "darwin", [["app.txt", "cpu.txt"], []]),
        ("cuda", "linux", [["app.txt", "cuda.txt"], []]),
    ],
)
def test_what_is_fetched_is_held_to_its_hash(
    installed: Callable[..., list[list[str]]], torch: str, platform: str, wanted: list[list[str]]
) -> None:
    calls = installed(torch, platform)
    assert [requirements(call) for call in calls] == wanted
    *fetching, checkout = calls
    assert all("--require-hashes" in call and "--only-binary" in call for call in fetching)
    assert {"--no-deps", "--no-build-isolation"} <= set(checkout), "the checkout brings nothing in that has no hash"


def test_pytorchs_index_is_asked_for_pytorch_alone_and_only_where_pip_finds_none(
    installed: Callable[..., list[list[str]]],
) -> None:
    calls = installed(
        "cpu", status=lambda command: requirements(command) == ["cpu.txt"] and "--index-url" not in command
    )
    assert ["--index-url" in call for call in calls] == [False, True, False, False]
    assert requirements(calls[1]) == ["cpu.txt"]


def test_without_a_cpu_build_the_two_ways_on_are_said(
    installed: Callable[..., list[list[str]]], capfd: pytest.CaptureFixture[str]
) -> None:
    *_, told = installed("cpu", status=lambda command: requirements(command) == ["cpu.txt"])
    assert told[0] == "SetupError"
    assert "PIP_EXTRA_INDEX_URL" in told[1]
    assert "DESKSIDE_TORCH=cuda" in told[1]
    assert capfd.readouterr().err.count("what pip says") == 2


@pytest.mark.parametrize(
    ("asked", "platform", "driver", "torch"),
    [
        ("", "linux", True, "cuda"),
        ("", "linux", False, "cpu"),
        ("", "darwin", True, "cpu"),
        ("cpu", "linux", True, "cpu"),
        ("cuda", "linux", False, "cuda"),
    ],
)
def test_which_pytorch(monkeypatch: pytest.MonkeyPatch, asked: str, platform: str, driver: bool, torch: str) -> None:
    setup_env = script("setup_env", monkeypatch)
    monkeypatch.setenv("DESKSIDE_TORCH", asked)
    monkeypatch.setattr(setup_env.sys, "platform", platform)
    monkeypatch.setattr(setup_env, "lacks_library", lambda name: not driver)
    assert setup_env.wanted_torch() == torch
    monkeypatch.setenv("DESKSIDE_TORCH", "rocm")
    with pytest.raises(setup_env.SetupError):
        setup_env.wanted_torch()


@pytest.mark.parametrize(
    ("stamp", "anew"), [(".installed-test-cpu", False), (".installed-app-cuda", True), (".installed-test", True)]
)
def test_an_environment_with_the_other_pytorch_or_without_hashes_is_made_anew(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stamp: str, anew: bool
) -> None:
    setup_env = script("setup_env", monkeypatch)
    calls: list[list[str]] = []
    (tmp_path / stamp).touch()
    monkeypatch.setattr(setup_env, "VENV", tmp_path)
    monkeypatch.setattr(setup_env, "VENV_PYTHON", Path(sys.executable))
    monkeypatch.setattr(
        setup_env.subprocess, "run", lambda command, **k: calls.append(command) or SimpleNamespace(returncode=0)
    )
    setup_env.ensure_venv(sys.executable, "cpu")
    assert any("--clear" in call for call in calls) is anew


# -- make audit ---------------------------------------------------------------------------------------------------
FINE = {"name": "a", "version": "1", "vulns": []}
HOLED = {"name": "a", "version": "1", "vulns": [{"id": "CVE-1", "fix_versions": ["1.1", "2"]}]}
HOPELESS = {"name": "a", "version": "1", "vulns": [{"id": "CVE-2", "fix_versions": []}]}
SKIPPED = {"name": "b", "skip_reason": "Dependency not found"}


@pytest.mark.parametrize(
    ("report", "status", "said"),
    [
        ([FINE, {**FINE, "name": "b"}], 0, "None of the 2 locked packages"),
        ([HOLED, {**FINE, "name": "b"}], 1, "a 1: CVE-1; mended in 1.1, 2"),
        ([HOPELESS, {**FINE, "name": "b"}], 1, "a 1: CVE-2; mended in no version yet"),
        ([FINE, SKIPPED], 2, "nothing about 1 of 2 packages: b==1."),
        ([FINE], 2, "nothing about 1 of 2 packages: b==1."),
        ([HOLED, SKIPPED], 2, "a 1: CVE-1"),
        ([], 2, "nothing about 2 of 2 packages"),
    ],
)
def test_an_audit_passes_only_where_every_package_was_judged(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    report: list[dict[str, object]],
    status: int,
    said: str,
) -> None:
    audit = script("audit", monkeypatch)
    answer = json.dumps({"dependencies": report, "fixes": []})
    monkeypatch.setattr(audit, "pins", lambda: ["a==1", "b==1"])
    monkeypatch.setattr(
        audit.subprocess, "run", lambda command, **k: SimpleNamespace(returncode=0, stdout=answer, stderr="")
    )
    monkeypatch.setattr(audit.sys, "argv", ["audit.py"])
    assert audit.main() == status
    assert said in capsys.readouterr().out


def test_an_audit_without_a_network_fails_and_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Really run: its requests end at a proxy that is not there."""
    audit = script("audit", monkeypatch)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(audit, "pins", lambda: ["waitress==3.0.2"])
    monkeypatch.setattr(audit.sys, "argv", ["audit.py", "--service", "osv"])
    assert audit.main() == 2
    assert "could not be asked" in capsys.readouterr().out


def test_every_lock_is_audited(monkeypatch: pytest.MonkeyPatch) -> None:
    pins = script("audit", monkeypatch).pins()
    wanted = {f"{name}=={version.split('+')[0]}" for lock in NAMES for name, version, _, _ in entries(lock)}
    assert pins == sorted(wanted, key=lambda pin: pin.split("=="))
    assert len(pins) == len({pin.split("==")[0] for pin in pins}), "pip-audit refuses a name with two versions"


# -- make sbom ----------------------------------------------------------------------------------------------------
def test_what_is_inside_is_listed_as_the_schema_wants(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sbom = script("sbom", monkeypatch)
    output = tmp_path / "build" / "inside.json"
    monkeypatch.setattr(sbom.sys, "argv", ["sbom.py", "--output", str(output)])
    assert sbom.main() == 0  # it ends with 1 where the schema is not met
    listed = json.loads(output.read_text(encoding="utf-8"))
    assert (listed["bomFormat"], listed["specVersion"]) == ("CycloneDX", "1.6")
    assert listed["metadata"]["component"]["name"] == "deskside"
    components = {component["name"]: component for component in listed["components"]}
    locked = {name: (version, hashes) for name, version, _, hashes in [*entries("app"), *reversed(entries("cpu"))]}
    assert {name for name, _ in map(pin, project()[""])} - set(components) == set()
    for name, component in components.items():
        version, hashes = locked[name]
        assert component["version"].split("+")[0] == version.split("+")[0]
        assert component["purl"].startswith(f"pkg:pypi/{name}@")
        if name != "torch":
            (files,) = component["externalReferences"]
            assert {f"sha256:{entry['content']}" for entry in files["hashes"]} == hashes
    assert sum("licenses" in component for component in components.values()) > 0.9 * len(components)
    assert components["flask"]["licenses"] == [{"license": {"acknowledgement": "declared", "id": "BSD-3-Clause"}}]


def test_everything_inside_is_there_because_something_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    bom = script("sbom", monkeypatch).build("cpu")
    needs = {str(entry.ref): {str(needed.ref) for needed in entry.dependencies} for entry in bom.dependencies}
    reached: set[str] = set()
    todo = ["deskside"]
    while todo:
        reference = todo.pop()
        if reference not in reached:
            reached.add(reference)
            todo.extend(needs.get(reference, ()))
    assert {str(component.bom_ref) for component in bom.components} - reached == set()
