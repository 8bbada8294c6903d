"""Who may import whom (pyproject.toml, [tool.importlinter]), and what the application process never has in memory."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sources import syntax_tree

ROOT = Path(__file__).resolve().parent.parent
PRODUCT = [ROOT / "main.py", *(p for name in ("engine", "embedded_server", "gui") for p in (ROOT / name).rglob("*.py"))]
FRAMEWORKS = ("torch", "tensorflow", "keras")


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_the_import_contracts_hold() -> None:
    done = run("-c", "from importlinter.cli import lint_imports_command; lint_imports_command()", "--no-cache")
    assert done.returncode == 0, done.stdout + done.stderr


def test_importing_everything_imports_no_framework() -> None:
    code = (
        "import sys, main, gui, embedded_server\n"
        "from engine import *\n"
        f"loaded = set({FRAMEWORKS!r}) & set(sys.modules)\n"
        "assert not loaded, loaded"
    )
    done = run("-c", code)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("module", ["engine.worker.loop", "engine.worker.inspector"])
def test_a_child_imports_nothing_of_its_parent(module: str) -> None:
    """It would be a good part of the time in which a worker starts."""
    code = f"import sys, {module}\nassert not {{'engine.engine', 'engine.model_host', 'sqlite3'}} & set(sys.modules)"
    done = run("-c", code)
    assert done.returncode == 0, done.stderr


def imports(path: Path) -> set[str]:
    """The top-level packages a file imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(syntax_tree(path)):
        if isinstance(node, ast.Import):
            found.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.partition(".")[0])
    return found


@pytest.mark.parametrize("module", ["pickle", "multiprocessing", "shelve", "marshal", "dill", "cloudpickle"])
def test_nothing_of_ours_is_pickled(module: str) -> None:
    assert [str(path.relative_to(ROOT)) for path in PRODUCT if module in imports(path)] == []


def imported_modules(path: Path) -> set[str]:
    """Full names of everything a file imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(syntax_tree(path)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def test_the_composition_root_reaches_no_further_than_the_three_rooms() -> None:
    """import-linter knows packages only, and main.py is a module: its rules are held here."""
    modules = imported_modules(ROOT / "main.py")
    packages = {name.partition(".")[0] for name in modules} - sys.stdlib_module_names
    assert packages == {"gui", "embedded_server", "engine", "click", "orjson"}
    assert not [name for name in modules if name.startswith(("engine.worker", "engine.formats"))]


def test_nothing_imports_the_composition_root() -> None:
    assert [str(path.relative_to(ROOT)) for path in PRODUCT if "main" in imports(path)] == []
