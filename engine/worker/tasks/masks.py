"""One mask of a picture, and its three forms in an answer: a PNG, run lengths, or polygons.

Polygons come from contourpy (BSD-3-Clause, NumPy alone beneath it), which traces the line between ones and zeros as
marching squares does. OpenCV and scikit-image trace them too, but bring 60 and 100 MB of what is not needed here.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import contourpy
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engine.errors import Malformed, UnusableInput
from engine.worker.tasks.base import Params

FORMS = ("png", "rle", "polygons")
MOST_NUMBERS = 500_000
"""How many numbers the run lengths or polygons of one answer may have: they travel as JSON."""
MOST_PNG_BYTES = 256 << 20
MOST_TRACED = 32_000_000
"""Polygons are traced in float64: above this many pixels that would take gigabytes."""

Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Mask:
    """The pixels of one thing: ``pixels`` (height, width) from (``left``, ``top``) on, nothing outside. ``picture`` is
    (width, height)."""

    pixels: Bools
    picture: tuple[int, int]
    left: int = 0
    top: int = 0

    def area(self) -> float:
        """The share of the picture, 0 to 1."""
        return int(np.count_nonzero(self.pixels)) / (self.picture[0] * self.picture[1])

    def png(self) -> bytes:
        """A PNG of the whole picture's size, 8 bits a pixel, 0 or 255."""
        width, height = self.picture
        whole = np.zeros((height, width), dtype=np.uint8)
        rows, columns = self.pixels.shape
        inside = whole[self.top : self.top + rows, self.left : self.left + columns]
        np.multiply(self.pixels.view(np.uint8), np.uint8(255), out=inside)
        stream = io.BytesIO()
        Image.fromarray(whole).save(stream, format="PNG")
        return stream.getvalue()

    def run_lengths(self) -> NDArray[np.int64]:
        """How many zeros, ones, zeros… follow one another, column by column, zeros first: COCO's uncompressed RLE
        (``pycocotools/_mask.pyx``: ``frUncompressedRLE``). Raises UnusableInput above ``MOST_NUMBERS``."""
        width, height = self.picture
        rows, columns = self.pixels.shape
        changes = np.zeros((columns, rows + 1), dtype=bool)
        across = self.pixels.T
        if rows:
            changes[:, 0] = across[:, 0]
            np.not_equal(across[:, 1:], across[:, :-1], out=changes[:, 1:-1])
            changes[:, -1] = across[:, -1]
        if np.count_nonzero(changes) > MOST_NUMBERS:
            raise _too_much("rle")
        column, row = np.divmod(np.flatnonzero(changes), rows + 1)
        edges = (column + self.left) * height + row + self.top
        begins, ends = edges[0::2], edges[1::2]
        # A run that ends with one column and begins again with the next is one.
        apart = begins[1:] != ends[:-1]
        edges = np.empty(2 * (int(np.count_nonzero(apart)) + min(1, len(begins))), dtype=np.int64)
        if len(edges):
            edges[0::2] = begins[np.concatenate([[True], apart])]
            edges[1::2] = ends[np.concatenate([apart, [True]])]
        total = width * height
        end = [total] if not len(edges) or edges[-1] < total else []
        bounds: NDArray[np.int64] = np.concatenate([np.array([0]), edges, np.array(end, dtype=np.int64)])
        return np.asarray(bounds[1:] - bounds[:-1])

    def polygons(self) -> list[NDArray[np.float64]]:
        """Closed rings [x, y, x, y…] in pixels of the picture, pixel (0, 0) reaching from 0 to 1; a hole is a ring too
        (even-odd rule). Each ring runs through the middles between a pixel inside and one outside, so that the middles
        of exactly the mask's pixels lie inside. Raises UnusableInput above ``MOST_TRACED`` pixels."""
        if self.pixels.size > MOST_TRACED:
            raise UnusableInput(
                f"A mask of {self.pixels.shape[1]} x {self.pixels.shape[0]} pixels is too large for polygons: ask for "
                "masks as png or rle.",
                code="masks_too_large",
            )
        padded = np.pad(self.pixels, 1).astype(np.float64)
        lines = contourpy.contour_generator(z=padded, name="serial", line_type="Separate").lines(0.5)
        shift = np.array([self.left - 0.5, self.top - 0.5])
        return [(_corners(np.asarray(line)[:-1]) + shift).ravel() for line in lines]


def _corners(ring: NDArray[np.float64]) -> NDArray[np.float64]:
    """``ring`` (points, 2), closed, without the points that lie straight between their neighbours."""
    before, after = ring - np.roll(ring, 1, axis=0), np.roll(ring, -1, axis=0) - ring
    bent: NDArray[np.bool_] = before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]
    return np.asarray(ring[bent])


def whole(pixels: Bools) -> Mask:
    """The mask of a whole picture, cut to what lies within its outermost pixels."""
    height, width = pixels.shape
    rows, columns = np.flatnonzero(pixels.any(axis=1)), np.flatnonzero(pixels.any(axis=0))
    if not len(rows):
        return Mask(pixels[:0, :0], (width, height))
    top, left = int(rows[0]), int(columns[0])
    return Mask(pixels[top : int(rows[-1]) + 1, left : int(columns[-1]) + 1], (width, height), left, top)


@dataclass(frozen=True, slots=True)
class Segment:
    """One entry of an answer: ``score`` is None where a class alone is told."""

    label: str
    score: float | None
    mask: Mask


def read_form(params: Params) -> str:
    """The parameter ``masks``, ``png`` where not given. Raises Malformed."""
    form = params.get("masks", FORMS[0])
    if form not in FORMS:
        raise Malformed(f"masks must be one of {', '.join(FORMS)}.")
    return str(form)


def entries(segments: Iterable[Segment], form: str) -> list[dict[str, Any]]:
    """``[{"label", "score", "mask", "area"}]`` of what ``segments`` gives, one mask in memory at a time; those without
    a pixel are left out. Raises UnusableInput where the masks become more than an answer can hold."""
    told: list[dict[str, Any]] = []
    size = 0
    for segment in segments:
        area = segment.mask.area()
        if not area:
            continue
        mask, added = _encoded(segment.mask, form)
        size += added
        if size > (MOST_PNG_BYTES if form == "png" else MOST_NUMBERS):
            raise _too_much(form)
        told.append({"label": segment.label, "score": segment.score, "mask": mask, "area": area})
    return told


def _too_much(form: str) -> UnusableInput:
    most = f"{MOST_PNG_BYTES >> 20} MiB" if form == "png" else f"{MOST_NUMBERS:,} numbers"
    others = " or ".join(other for other in FORMS if other != form)
    return UnusableInput(
        f"The masks of this picture take more than {most} as {form}: raise the threshold, or ask for {others}.",
        code="masks_too_large",
    )


def _encoded(mask: Mask, form: str) -> tuple[Any, int]:
    """The mask in a form, and its size: bytes or numbers."""
    if form == "png":
        picture = mask.png()
        return picture, len(picture)
    if form == "rle":
        counts = mask.run_lengths()
        width, height = mask.picture
        return {"size": [height, width], "counts": counts.tolist()}, len(counts)
    rings = mask.polygons()
    return [ring.tolist() for ring in rings], sum(len(ring) for ring in rings)
