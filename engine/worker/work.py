"""What an item of a batch becomes once it is decoded, and what it becomes once it has run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import EngineError
from engine.worker.tasks.base import CONTEXT, Arrays, Params


class Form(StrEnum):
    """The ``kind`` of a result in :mod:`engine.protocol`."""

    PREDICTIONS = "predictions"
    RESULTS = "results"
    OUTPUTS = "outputs"


@dataclass(slots=True)
class Block:
    """Rows of one item with equal shapes. ``slots`` holds, for each row, which input of the item it is.

    ``whole``: the rows belong together and run in one call alone (the model's first dimension is not a count of rows,
    or nothing says that it is). ``row_by_row``: one row's error leaves the others their answers. ``parts`` are the
    outputs so far, by first row; ``row_errors`` by row. ``windows``: the rows of one input answer together. ``context``
    (one object a row) goes to postprocessing with the outputs. Where ``source`` is set it makes the rows from one to
    another, and ``arrays`` only tell their shapes; where ``reduce`` is, it makes of the outputs what is kept of them.
    """

    arrays: Arrays
    rows: int
    slots: list[int]
    whole: bool = False
    row_by_row: bool = True
    parts: dict[int, Arrays] = field(default_factory=dict)
    row_errors: dict[int, EngineError] = field(default_factory=dict)
    infer_ms: float = 0.0
    windows: bool = False
    context: NDArray[Any] | None = None
    source: Callable[[int, int], Arrays] | None = None
    reduce: Callable[[Arrays], Arrays] | None = None

    def key(self) -> tuple[Any, ...]:
        """Blocks with equal keys may run in one call: equal names, dtypes and shapes but for the rows."""
        if self.whole:
            return ("whole", id(self))
        return tuple((name, a.dtype.str, a.shape[1:]) for name, a in self.arrays.items())


@dataclass(slots=True)
class Work:
    """One item, decoded: its blocks, and the errors of the inputs that could not be used, by input.

    ``inputs`` counts what the item holds (pictures, rows), usable or not.
    """

    id: str
    form: Form
    params: Params
    blocks: list[Block] = field(default_factory=list)
    errors: dict[int, EngineError] = field(default_factory=dict)
    inputs: int = 0
    decode_ms: float = 0.0
    preprocessing: dict[str, Any] | None = None
    """How its pictures were prepared, where not as the model's spec says."""
    draw: bool = False
    picture: bytes | None = None
    """The picture over which the answer is to be drawn, as it came."""
    echo: dict[str, Any] = field(default_factory=dict)
    """What a public protocol's body said of its answer."""

    @property
    def rows(self) -> int:
        """How many rows the model is given."""
        return sum(block.rows for block in self.blocks)

    @property
    def infer_ms(self) -> float:
        return sum(block.infer_ms for block in self.blocks)

    def finish(self) -> RawResult:
        """The raw result, once every block has run."""
        errors = dict(self.errors)
        slots: list[int] = []
        pieces: list[Arrays] = []
        for block in self.blocks:
            for row, error in block.row_errors.items():
                errors[block.slots[row]] = error
            for first in sorted(block.parts):
                part = block.parts[first]
                if not block.whole:
                    rows = len(next(iter(part.values()), ()))
                    slots.extend(block.slots[first : first + rows])
                    if block.context is not None:
                        part = part | {CONTEXT: block.context[first : first + rows]}
                pieces.append(part)
        windowed = any(block.windows for block in self.blocks)
        return RawResult(self.form, slots, _join(pieces), errors, windowed)


@dataclass(frozen=True, slots=True)
class RawResult:
    """What the model answered one item, before postprocessing: row i of ``outputs`` answers input ``slots[i]``."""

    form: Form
    slots: list[int]
    outputs: list[Arrays]
    errors: dict[int, EngineError]
    windowed: bool = False

    def by_input(self) -> Iterator[tuple[list[int], Arrays]]:
        """The outputs as pieces to ask :meth:`Task.post` about, each with the inputs it answers: as many as its rows,
        or, where inputs come in windows, a single one whose windows the rows are."""
        first = 0
        for piece in self.outputs:
            rows = len(next(iter(piece.values()), ()))
            slots = self.slots[first : first + rows]
            first += rows
            if not self.windowed:
                yield slots, piece
                continue
            starts = [at for at in range(rows) if at == 0 or slots[at] != slots[at - 1]]
            for start, end in zip(starts, [*starts[1:], rows], strict=True):
                yield [slots[start]], {name: array[start:end] for name, array in piece.items()}

    @property
    def nbytes(self) -> int:
        """What it holds in memory, the rows' context included as far as that tells its own size."""
        size = 0
        noted: dict[int, Any] = {}
        for piece in self.outputs:
            for array in piece.values():
                size += array.nbytes
                if array.dtype.hasobject:
                    noted |= {id(note): note for note in array.ravel()}
        return size + sum(getattr(note, "nbytes", 0) for note in noted.values())


def _join(pieces: list[Arrays]) -> list[Arrays]:
    """Neighbours whose rows have equal shapes as one piece, the others as they are (a free output differs by input)."""
    if len(pieces) < 2 or any(a.ndim == 0 for piece in pieces for a in piece.values()):
        return pieces
    joined = []
    for _, run in groupby(pieces, key=lambda piece: tuple((name, a.shape[1:]) for name, a in piece.items())):
        parts = list(run)
        joined.append({name: np.concatenate([part[name] for part in parts]) for name in parts[0]})
    return joined
