"""ZoeDepth's way to its tensor: mirrored beyond the edges, then resized in floats, corner to corner.

Reference: ``ZoeDepthImageProcessorPil`` of transformers 5.23 (``pad_image``, ``resize``) and PyTorch's
``interpolate(mode="bilinear", align_corners=True)``. Only the four pixels under each new one are ever read, so that a
large picture is never held in floats.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.worker.tasks.placement import Placement

Floats = NDArray[np.float32]
Indices = NDArray[np.intp]


def mirrored(pixels: NDArray[np.uint8], values: Floats, placement: Placement) -> Floats:
    """The tensor (height, width, channels), or (height, width), of ``pixels``; ``values`` are what 0 to 255 become."""
    (low_rows, high_rows, down), (low_columns, high_columns, across) = (
        _corner_to_corner(pixels.shape[axis], placement.margin[1 - axis], placement.tensor[1 - axis]) for axis in (0, 1)
    )
    shape = (1, -1) + (1,) * (pixels.ndim - 2)
    share = across.reshape(shape)

    def along(rows: Indices) -> Floats:
        left, right = (np.take(values, pixels[rows[:, np.newaxis], columns]) for columns in (low_columns, high_columns))
        return np.asarray(left * (np.float32(1.0) - share) + right * share)

    weight = down.reshape((-1, 1) + (1,) * (pixels.ndim - 2))
    return np.asarray(along(low_rows) * (np.float32(1.0) - weight) + along(high_rows) * weight)


def _corner_to_corner(side: int, margin: int, length: int) -> tuple[Indices, Indices, Floats]:
    """For each of ``length`` places two indices into ``side`` pixels, and the weight of the second."""
    beyond = np.pad(np.arange(side, dtype=np.intp), margin, mode="reflect" if side > 1 else "edge")
    scale = np.float32(len(beyond) - 1) / np.float32(length - 1) if length > 1 else np.float32(0.0)
    where = np.arange(length, dtype=np.float32) * scale
    low = np.minimum(where.astype(np.intp), len(beyond) - 1)
    share = np.clip(where - low.astype(np.float32), np.float32(0.0), np.float32(1.0))
    return beyond[low], beyond[np.minimum(low + 1, len(beyond) - 1)], share
