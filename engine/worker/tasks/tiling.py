"""A large picture as overlapping tiles, and the tiles' answers as one picture without seams.

What a model says near the edge of a tile it says without knowing what lies beyond. So of each inner edge a quarter of
the overlap is thrown away, and over the half that follows the new tile's share grows from none to all.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

TILE = 384
"""Sides of a tile in pixels, where the model leaves them free."""
OVERLAP = 64
"""How much neighbours share, in pixels; a fixed tile gives at most a quarter of its side."""
AT_ONCE = 512 * 512
"""Pixels of a picture that a model with free sides gets whole."""


@dataclass(frozen=True, slots=True)
class Axis:
    """One side of the picture: tiles of ``side`` pixels begin at ``starts``; ``length`` is the picture's, in pixels."""

    length: int
    side: int
    starts: tuple[int, ...]
    overlap: int

    def ramp(self, number: int, scale: Fraction) -> NDArray[np.float32]:
        """How much tile ``number`` counts at each of its answer's pixels against the tiles before it, 0 to 1."""
        side = int(self.side * scale)
        ramp = np.ones(side, np.float32)
        if number:
            unused, mixed = int(self.overlap * scale) // 4, int(self.overlap * scale) // 2
            ramp[:unused] = 0.0
            ramp[unused : unused + mixed] = (np.arange(mixed, dtype=np.float32) + 0.5) / max(mixed, 1)
        return ramp


@dataclass(frozen=True, slots=True)
class Grid:
    """The tiles of a picture, row by row."""

    down: Axis
    across: Axis

    def __len__(self) -> int:
        return len(self.down.starts) * len(self.across.starts)

    def place(self, number: int) -> tuple[int, int]:
        """Which row and which column tile ``number`` stands in."""
        return divmod(number, len(self.across.starts))

    def cut(self, pixels: NDArray[Any], number: int) -> NDArray[Any]:
        """Tile ``number`` of ``pixels`` (height, width, channels); what lies beyond the picture mirrors its edge."""
        row, column = self.place(number)
        top, left = self.down.starts[row], self.across.starts[column]
        part = pixels[top : top + self.down.side, left : left + self.across.side]
        below, beside = self.down.side - part.shape[0], self.across.side - part.shape[1]
        return np.pad(part, ((0, below), (0, beside), (0, 0)), mode="symmetric") if below or beside else part


def lay_out(height: int, width: int, fixed: tuple[int, int] | None, multiple: int, fill: int = 0) -> Grid:
    """Tiles for a picture of ``height`` by ``width`` pixels: of ``fixed`` (height, width) where the model takes nothing
    else, else the whole picture or squares, their sides and places multiples of ``multiple``. A whole picture is filled
    up by at least ``fill`` pixels."""
    if fixed is not None:
        return Grid(_axis(height, fixed[0], 1), _axis(width, fixed[1], 1))
    if height * width <= AT_ONCE:
        return Grid(_whole(height, multiple, fill), _whole(width, multiple, fill))
    side = _up(TILE, multiple)
    return Grid(
        _axis(height, min(side, _up(height, multiple)), multiple),
        _axis(width, min(side, _up(width, multiple)), multiple),
    )


def assemble(tiles: Iterable[NDArray[Any]], grid: Grid, scale: Fraction) -> NDArray[Any]:
    """The tiles' answers, (height, width, channels) of one integer type in the grid's order, as one picture ``scale``
    times the size of the one that was cut. At a time one row of tiles is held beside it."""
    height, width = int(grid.down.length * scale), int(grid.across.length * scale)
    answers = iter(tiles)
    canvas: NDArray[Any] | None = None
    for row, top in enumerate(grid.down.starts):
        # First a row of tiles by itself: else the edges of its tiles would shine through where four of them meet.
        band: NDArray[Any] | None = None
        for column, left in enumerate(grid.across.starts):
            tile = next(answers)
            if band is None:
                band = np.empty((tile.shape[0], width, tile.shape[2]), tile.dtype)
            _blend(band[:, int(left * scale) :], tile, grid.across.ramp(column, scale)[np.newaxis, :, np.newaxis])
        assert band is not None
        if canvas is None:
            canvas = np.empty((height, width, band.shape[2]), band.dtype)
        _blend(canvas[int(top * scale) :], band, grid.down.ramp(row, scale)[:, np.newaxis, np.newaxis])
    assert canvas is not None
    return canvas


def _blend(room: NDArray[Any], new: NDArray[Any], share: NDArray[np.float32]) -> None:
    """Lay ``new`` over ``room``, as far as that reaches; ``share`` says along one axis how much it counts."""
    height, width = min(len(room), len(new)), min(room.shape[1], new.shape[1])
    there, new = room[:height, :width], new[:height, :width]
    axis = 0 if share.shape[0] > 1 else 1
    share = share[:height] if axis == 0 else share[:, :width]
    # Where it counts alone, which is nearly everywhere, nothing is computed.
    mixed = int((share < 1.0).sum())
    edge, rest = (slice(None, mixed), slice(mixed, None))
    if mixed:
        old = there[edge] if axis == 0 else there[:, edge]
        fresh, part = (new[edge], share[edge]) if axis == 0 else (new[:, edge], share[:, edge])
        old[:] = np.rint(old + (fresh.astype(np.float32) - old) * part).astype(old.dtype)
    if axis == 0:
        there[rest] = new[rest]
    else:
        there[:, rest] = new[:, rest]


def _whole(length: int, multiple: int, fill: int) -> Axis:
    return Axis(length, _up(length + fill, multiple), (0,), 0)


def _axis(length: int, side: int, multiple: int) -> Axis:
    padded = max(_up(length, multiple), side)
    overlap = min(OVERLAP, side // 4) // multiple * multiple
    if padded == side:
        return Axis(length, side, (0,), overlap)
    step = side - overlap
    starts = [*range(0, padded - side, step), padded - side]
    return Axis(length, side, tuple(starts), overlap)


def _up(length: int, multiple: int) -> int:
    return ceil(length / multiple) * multiple
