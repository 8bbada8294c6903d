"""What one row of the formats table is proved by: a model that its own library writes, and that library's own answers.

A case is a function marked ``@case(...)`` in a module of ``tests/e2e/format_writers``; :mod:`tests.e2e.format_cases`
gathers them. It runs in a child process (``python -m tests.e2e.format_cases WRITER FOLDER``), one for all cases of the
same ``writer``, and imports its framework inside itself: the test process imports every module of cases and none of
the frameworks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Ask:
    """One question and the framework's own answer.

    ``file`` lies in the case's folder; ``content_type`` is what it is sent as. ``predictions`` (the native HTTP shape,
    best first) or ``outputs`` (name -> nested list) is what must come back: the same words, numbers within 1e-4.
    ``params`` are the task's parameters (``top_k``).
    """

    file: str
    content_type: str
    predictions: list[Any] | None = None
    outputs: dict[str, Any] | None = None
    params: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Written:
    """A written model. ``open`` is what a person opens, relative to the case's folder.

    ``spec`` is what must be read from it, by the names of ``ModelSpec.evidence_rows`` (``preprocessing.size``), and
    ``evidence`` where from: a text that the field's source must contain.
    """

    open: str
    asks: list[Ask]
    spec: dict[str, Any] = field(default_factory=dict)
    evidence: dict[str, str] = field(default_factory=dict)


Write = Callable[[Path], Written]


@dataclass(frozen=True, slots=True)
class Case:
    """``source`` is the row of the formats table it stands for."""

    name: str
    writer: str
    source: str
    write: Write
    slow: bool = False


CASES: dict[str, Case] = {}


def case(name: str, *, writer: str, source: str, slow: bool = False) -> Callable[[Write], Write]:
    """Register a function that fills the folder it is given. Cases of one ``writer`` share a child process; a slow one
    is written and tested only by ``make test-all``."""

    def register(write: Write) -> Write:
        if name in CASES:
            raise ValueError(f"two cases are named {name!r}")
        CASES[name] = Case(name, writer, source, write, slow)
        return write

    return register
