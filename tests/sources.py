"""Source files as syntax trees, and scripts that belong to no package as modules."""

from __future__ import annotations

import ast
import gc
import importlib.util
from pathlib import Path
from types import ModuleType


def syntax_tree(path: Path) -> ast.Module:
    """The tree of one file. CPython 3.11 counts its recursion wrongly where the collector runs finalisers amid parsing
    ("AST constructor recursion depth mismatch", python/cpython#106905), so it does not run meanwhile."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        return ast.parse(path.read_text(encoding="utf-8"))
    finally:
        if was_enabled:
            gc.enable()


def load_script(path: Path) -> ModuleType:
    """The script at ``path`` as a module of its own; what it imports from beside itself has to be on ``sys.path``."""
    found = importlib.util.spec_from_file_location(f"script_{path.stem}", path)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module
