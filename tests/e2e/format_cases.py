"""Every case of the formats suite, and the child process that writes them.

``python -m tests.e2e.format_cases WRITER FOLDER [NAME…]`` writes the cases of WRITER (or those named) into
``FOLDER/NAME``, each with ``case.json``: what :class:`~tests.e2e.format_case.Written` says, or
``{"error": traceback}``.
"""

from __future__ import annotations

import json
import pkgutil
import sys
import traceback
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

from tests.e2e import format_writers
from tests.e2e.format_case import CASES

__all__ = ["CASES", "write_cases"]

for _module in pkgutil.iter_modules(format_writers.__path__):
    import_module(f"{format_writers.__name__}.{_module.name}")


def write_cases(writer: str, folder: Path, names: list[str]) -> None:
    """Write the cases of ``writer`` that are named, each into a folder of its own; one that fails says so in its file
    and stops no other."""
    for case in CASES.values():
        if case.writer != writer or case.name not in names:
            continue
        target = folder / case.name
        target.mkdir(parents=True)
        try:
            record = asdict(case.write(target))
        except Exception:
            record = {"error": traceback.format_exc()}
        (target / "case.json").write_text(json.dumps(record))


if __name__ == "__main__":
    write_cases(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
