"""Who may import whom (pyproject.toml, [tool.importlinter]), and what the application process never has in memory."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.sources import syntax_tree

ROOT = Path(__file__).resolve().parent.parent
PRODUCT = [ROOT / "main.py", *(p for name in ("engine", "embedded_server", "gui") for p in (ROOT / name).rglob("*.py"))]
FRAMEWORKS = ("torch", "tensorflow", "keras")


def run(*command: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, timeout=120, env=env)


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


EMPTY_WINDOW = """
import sys
from contextlib import ExitStack
import main
from gui import app, single_instance
from gui.main_window import MainWindow

with ExitStack() as stack:
    settings = main.load_settings()
    engine = main.open_engine(stack, settings)
    server = main.open_server(stack, engine, settings)
    application, switch = app.create_application(settings)
    window = MainWindow(engine, server, settings, None, main.bundled_examples(), switch)
    window.closed.connect(application.quit)
    window.show()
    window.bridge.run(window, engine.stats, lambda _stats: window.quit(), sys.exit)
    application.exec()
    print(*sorted({name.partition(".")[0] for name in sys.modules} | {name for name in sys.modules if "." in name}))
    print(*(sorted(vars(window)) + sorted(vars(window.predict_page))))
"""
LATE_MODULES = {
    "numpy", "flask", "werkzeug", "waitress", "cryptography", "segno", "http", "ssl", "urllib.request", "xml.sax",
    "engine.tensors", "gui.views.tensors", "gui.panels.live_view", "gui.panels.model_card_page",
    "gui.panels.server_page", "gui.panels.work_view",
}  # fmt: skip


def test_a_window_without_a_model_does_without_what_is_heavy(tmp_path: Path) -> None:
    """Each of these was in every window's memory once, or would be with one import too early."""
    env = os.environ | {"QT_QPA_PLATFORM": "offscreen", "DESKSIDE_HOME": str(tmp_path)}
    done = run("-c", EMPTY_WINDOW, env=env)
    assert done.returncode == 0, done.stderr
    modules, parts = (set(line.split()) for line in done.stdout.splitlines())
    assert {"PySide6.QtWidgets", "engine.engine", "embedded_server.controller"} <= modules
    assert modules & LATE_MODULES == set()
    assert {"settings_page", "loading"} <= parts
    assert parts & {"server_page", "card_page", "live", "work"} == set()
