"""Whether tests that a document names are there."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from pathlib import Path

from tests.sources import syntax_tree

TESTS = Path(__file__).resolve().parents[1]


def missing_tests(names: Iterable[str]) -> list[str]:
    """Which of ``names`` (``folder/test_file.py::test_function``, below ``tests``) are no tests."""
    functions: dict[str, set[str]] = {}
    missing = []
    for name in names:
        file, _, function = name.partition("::")
        if file not in functions:
            functions[file] = _functions(TESTS / file)
        if function not in functions[file]:
            missing.append(name)
    return missing


def _functions(path: Path) -> set[str]:
    if not path.is_file():
        return set()
    return {node.name for node in ast.walk(syntax_tree(path)) if isinstance(node, ast.FunctionDef)}
