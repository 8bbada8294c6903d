"""Numbers to pixels and pixels to QImage: pure functions, made for the task threads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PySide6.QtGui import QColor, QImage

from engine.viridis import VIRIDIS
from gui.widgets.histogram import BINS

MOST_SIDE = 2048
Bytes = NDArray[np.uint8]


def image_of_rgb(pixels: Bytes) -> QImage:
    """(height, width, 3) as a QImage that owns its pixels."""
    height, width, _ = pixels.shape
    data = np.ascontiguousarray(pixels).tobytes()
    return QImage(data, width, height, width * 3, QImage.Format.Format_RGB888).copy()


def image_of_grey(pixels: Bytes) -> QImage:
    """(height, width) as a QImage that owns its pixels."""
    height, width = pixels.shape
    data = np.ascontiguousarray(pixels).tobytes()
    return QImage(data, width, height, width, QImage.Format.Format_Grayscale8).copy()


def colour_map(values: NDArray[Any]) -> tuple[QImage, float, float, tuple[int, ...]]:
    """A map (height, width) in viridis from its least to its largest value; those two, and how often values occur.

    What is no number is black. Raises ValueError for a map without any number.
    """
    known = np.isfinite(values)
    if not known.any():
        raise ValueError("a map without a number")
    low, high = float(values[known].min()), float(values[known].max())
    span = high - low if high > low else 1.0
    places = np.clip((values - low) / span * 255, 0, 255)
    pixels = VIRIDIS[np.nan_to_num(places).astype(np.uint8)]
    if not known.all():
        pixels = np.where(known[..., None], pixels, 0).astype(np.uint8)
    counts, _ = np.histogram(values[known], bins=BINS, range=(low, low + span))
    return image_of_rgb(pixels), low, high, tuple(int(count) for count in counts)


def unrolled(mask: Mapping[str, Any], height: int, width: int) -> NDArray[np.bool_]:
    """COCO's uncompressed runs as (``height``, ``width``) pixels, nearest ones of the mask's own size.

    Raises ValueError where the runs do not fill that size.
    """
    rows, columns = (int(side) for side in mask["size"])
    runs = np.asarray(mask["counts"], dtype=np.int64)
    if rows < 1 or columns < 1 or (runs < 0).any() or int(runs.sum()) != rows * columns:
        raise ValueError("runs that do not fill the mask")
    values = np.repeat((np.arange(len(runs)) % 2).astype(bool), runs).reshape(columns, rows)
    down = (np.arange(height) * rows // height).clip(0, rows - 1)
    across = (np.arange(width) * columns // width).clip(0, columns - 1)
    return np.ascontiguousarray(values[across[:, None], down[None, :]].T)


def numbered(masks: Sequence[Mapping[str, Any]], height: int, width: int) -> NDArray[np.uint16]:
    """(height, width): whose each pixel is, counted from 1; of several the first. 0 for nobody's."""
    whose = np.zeros((height, width), np.uint16)
    for number, mask in enumerate(masks, 1):
        free = whose == 0
        whose[free & unrolled(mask, height, width)] = number
    return whose


def tinted(whose: NDArray[np.uint16], colours: Sequence[QColor | None], opacity: float) -> QImage:
    """The entries of ``whose`` in their ``colours``, None for those that are not shown; edges full."""
    table = np.zeros((len(colours) + 1, 4), np.uint8)
    for number, colour in enumerate(colours, 1):
        if colour is not None:
            table[number] = (colour.red(), colour.green(), colour.blue(), round(opacity * 255))
    pixels = table[whose]
    edges = np.zeros(whose.shape, bool)
    edges[:, 1:] |= whose[:, 1:] != whose[:, :-1]
    edges[1:] |= whose[1:] != whose[:-1]
    pixels[edges & (pixels[..., 3] > 0), 3] = 255
    height, width = whose.shape
    data = np.ascontiguousarray(pixels).tobytes()
    return QImage(data, width, height, width * 4, QImage.Format.Format_RGBA8888).copy()


def slice_of(array: NDArray[np.generic], down: int, across: int, indices: list[int]) -> NDArray[np.uint8]:
    """(height, width) greys of two axes of ``array``, least black and most white; of many values, every n-th."""
    if array.ndim < 2:
        flat = array.reshape(1, -1)
    else:
        pick = tuple(slice(None) if axis in (down, across) else index for axis, index in enumerate(indices))
        flat = array[pick]
        if down > across:
            flat = flat.T
    step = tuple(slice(None, None, max(1, -(-size // MOST_SIDE))) for size in flat.shape)
    values = flat[step].astype(np.float64)
    known = np.isfinite(values)
    if not known.any():
        return np.zeros(values.shape, np.uint8)
    low, high = values[known].min(), values[known].max()
    scaled = np.where(known, (values - low) / (high - low if high > low else 1.0), 0.0)
    return np.ascontiguousarray(np.rint(scaled * 255).astype(np.uint8))
