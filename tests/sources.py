"""Source files as syntax trees."""

from __future__ import annotations

import ast
import gc
from pathlib import Path


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
