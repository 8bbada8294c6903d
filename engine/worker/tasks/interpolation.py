"""A map at a model's resolution, sampled at the pixels of a picture, row by row.

The arithmetic is that of PyTorch's ``interpolate(align_corners=False)`` on a CPU, in float32 and in its order (first
along a row, then down): ATen's ``UpSample.h`` (``area_pixel_compute_source_index``, ``cubic_convolution1`` and ``2``)
and ``UpSampleKernel.cpp`` (``HelperInterpLinear``, ``HelperInterpCubic``). No framework is needed for it.

Memory: nothing of the picture's size is made here but what a caller collects. :func:`sampled` gives blocks of whole
rows of at most ``BLOCK_BYTES`` each (one row where a single one is larger).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import ceil, floor

import numpy as np
from numpy.typing import NDArray

from engine.worker.tasks.placement import Placement

BLOCK_BYTES = 32 << 20
_A = -0.75
"""The coefficient of PyTorch's bicubic filter."""

Floats = NDArray[np.float32]
Indices = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis of a map of ``size`` values and of the ``length`` places it is sampled at.

    Place ``x`` lies at ``(x + 0.5 + offset) * scale - 0.5`` in the map. ``first`` to ``last`` are the values that show
    anything of the picture; beyond them the nearest counts. Places from ``begin`` to ``end`` (not included) are seen by
    the model at all, the others were cut off.
    """

    length: int
    size: int
    scale: float
    offset: float
    first: int
    last: int
    begin: int
    end: int

    def part(self, begin: int, end: int) -> Axis:
        """The same axis, of whose places only those from ``begin`` to ``end`` (not included) are seen."""
        begin = max(begin, self.begin)
        return replace(self, begin=begin, end=max(begin, min(end, self.end)))

    def linear(self) -> tuple[Indices, Floats]:
        """For each seen place two indices (places, 2) and their weights (places, 2)."""
        where = np.maximum(self._middles(), np.float32(0.0))
        low = np.minimum(np.floor(where).astype(np.intp), self.size - 1)
        share = np.clip(where - low.astype(np.float32), np.float32(0.0), np.float32(1.0))
        high = np.minimum(low + 1, self.size - 1)
        return self._bounded(np.stack([low, high], axis=1)), np.stack([np.float32(1.0) - share, share], axis=1)

    def cubic(self) -> tuple[Indices, Floats]:
        """For each seen place four indices (places, 4) and their weights (places, 4)."""
        where = self._middles()
        low = np.minimum(np.floor(where), np.float32(self.size - 1))
        share = np.clip(where - low, np.float32(0.0), np.float32(1.0))
        rest = np.float32(1.0) - share
        one = np.float32(1.0)
        weights = np.stack([_far(share + one), _near(share), _near(rest), _far(rest + one)], axis=1)
        indices = low.astype(np.intp)[:, np.newaxis] + np.arange(-1, 3)
        return self._bounded(np.clip(indices, 0, self.size - 1)), weights

    def nearest(self) -> Indices:
        """For each seen place the index that PyTorch's mode ``nearest`` takes: that of the place's beginning."""
        places = np.arange(self.begin, self.end, dtype=np.float32)
        scale = np.float32(self.scale)
        where = places * scale if not self.offset else (places + self.offset) * scale
        return self._bounded(np.floor(where).astype(np.intp))

    def middle(self) -> Indices:
        """For each seen place the index of the value its middle lies in."""
        return self._bounded(np.floor(self._middles() + np.float32(0.5)).astype(np.intp))

    def _middles(self) -> Floats:
        """Where the middles of the seen places lie in the map. PyTorch's compilers fuse product and difference, so
        that only the result is rounded to float32: as computed in float64, where both are exact."""
        places = np.arange(self.begin, self.end, dtype=np.float64)
        scale = float(np.float32(self.scale)) if not self.offset else self.scale
        return ((places + 0.5 + self.offset) * scale - 0.5).astype(np.float32)

    def _bounded(self, indices: Indices) -> Indices:
        return np.clip(indices, self.first, self.last)


def axes(placement: Placement, shape: tuple[int, int], size: tuple[int, int] | None = None) -> tuple[Axis, Axis]:
    """The axes (down, across) of a map of ``shape`` (height, width) that covers the whole tensor of ``placement``, for
    the pixels of the picture, or for a picture brought to ``size`` (height, width)."""
    width, height = placement.picture
    wanted = size or (height, width)
    down = _axis(placement, 1, height, shape[0], wanted[0])
    across = _axis(placement, 0, width, shape[1], wanted[1])
    return down, across


def _axis(placement: Placement, at: int, pixels: int, size: int, length: int) -> Axis:
    scaled, tensor = placement.scaled[at], placement.tensor[at]
    start = (placement.left, placement.top)[at]
    margin = placement.margin[at]
    # The picture with its margins covers ``scaled`` pixels of the tensor from ``start`` on.
    whole = length * (pixels + 2 * margin) / pixels
    scale = scaled * size / (tensor * whole)
    offset = start * whole / scaled + margin * length / pixels
    first = max(0, floor(start * size / tensor))
    last = min(size, ceil((start + scaled) * size / tensor)) - 1
    middles = (np.arange(length, dtype=np.float64) + 0.5 + offset) * scaled / whole
    seen = np.flatnonzero((middles >= 0) & (middles <= tensor))
    begin, end = (int(seen[0]), int(seen[-1]) + 1) if len(seen) else (0, 0)
    return Axis(length, size, scale, offset, min(first, size - 1), max(last, 0), begin, end)


def sampled(values: Floats, down: Axis, across: Axis, *, cubic: bool = False) -> Iterator[tuple[int, Floats]]:
    """``values`` (…, map height, map width) at the seen places: (first row, block (…, rows, seen columns)), downwards.

    Rows are counted from ``down.begin`` on, columns from ``across.begin`` on.
    """
    (rows, row_weights), (columns, weights) = ((a.cubic() if cubic else a.linear()) for a in (down, across))
    maps = max(1, int(np.prod(values.shape[:-2])))
    taps = rows.shape[1]
    # What a block of r rows needs: its rows, one product beside them, and the rows of the map under it.
    share = max(1.0, taps * down.scale if down.scale > 1 else 1.0)
    step = max(1, int(BLOCK_BYTES / (4 * maps * max(1, len(columns)) * (2 + share))))
    for begin in range(0, len(rows), step):
        end = begin + step
        # What float32 cannot hold becomes infinite, which the caller sees.
        with np.errstate(over="ignore", invalid="ignore"):
            block = _mixed(values, rows[begin:end], row_weights[begin:end], columns, weights)
        yield begin, block


def _mixed(values: Floats, rows: Indices, row_weights: Floats, columns: Indices, weights: Floats) -> Floats:
    """``values`` (…, height, width) sampled at ``rows`` (places, taps) and ``columns``."""
    under, places = np.unique(rows, return_inverse=True)
    places = places.reshape(rows.shape)
    wide = _along(values[..., under, :], columns, weights)
    block = wide[..., places[:, 0], :]
    block *= row_weights[:, 0, np.newaxis]
    for tap in range(1, rows.shape[1]):
        part = wide[..., places[:, tap], :]
        part *= row_weights[:, tap, np.newaxis]
        block += part
    return block


def _along(values: Floats, columns: Indices, weights: Floats) -> Floats:
    """``values`` (…, width) sampled along its last axis."""
    values = values.astype(np.float32, copy=False)
    total = values[..., columns[:, 0]] * weights[:, 0]
    for tap in range(1, columns.shape[1]):
        part = values[..., columns[:, tap]]
        part *= weights[:, tap]
        total += part
    return np.asarray(total, dtype=np.float32)


def _near(x: Floats) -> Floats:
    """The filter within one value's distance (``cubic_convolution1``)."""
    a = np.float32(_A)
    return ((a + np.float32(2.0)) * x - (a + np.float32(3.0))) * x * x + np.float32(1.0)


def _far(x: Floats) -> Floats:
    """The filter from one to two values' distance (``cubic_convolution2``)."""
    a = np.float32(_A)
    return ((a * x - np.float32(5.0) * a) * x + np.float32(8.0) * a) * x - np.float32(4.0) * a
