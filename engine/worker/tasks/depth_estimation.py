"""depth-estimation: a picture in, a number for each of its pixels out.

The shape is that of Hugging Face's ``depth-estimation`` pipeline, ``{"depth", "predicted_depth"}``, with ``minimum``
and ``maximum`` of the numbers. Reference: ``post_process_depth_estimation`` of transformers 5.23 (DPT, Depth Anything,
GLPN, ZoeDepth): the model's map is brought to the picture by PyTorch's bicubic filter, then to 0..255 between its least
and its greatest value. Whether the numbers are metres or only an order, and whether near is small or large, is the
model's.

Memory: the map is brought to the picture twice, in blocks of rows, once for its least and greatest value and once for
the PNG, of which there is one array of whole numbers. The numbers themselves are told at a size of at most
``MOST_NUMBERS``.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engine.codecs.arrays import shape_text
from engine.errors import EngineError, LoadFailed, Malformed, UnusableInput
from engine.model_spec import ModelSpec
from engine.viridis import VIRIDIS
from engine.worker.tasks.base import CONTEXT, Arrays, Params, TableRows, not_taken
from engine.worker.tasks.class_maps import not_numbers
from engine.worker.tasks.interpolation import Axis, Floats, axes, sampled
from engine.worker.tasks.placed_pictures import PlacedPictures
from engine.worker.tasks.placement import Placement

MOST_NUMBERS = 4_000_000
FORMS = ("grey", "grey16", "viridis")
_LEVELS = {"grey": 255, "grey16": 65535, "viridis": 255}


class DepthEstimation:
    """See :class:`engine.worker.tasks.base.Task`."""

    takes_images = True
    takes_tables = False

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec
        self._pictures = PlacedPictures(spec, "A depth model")

    def check(self) -> None:
        self._pictures.check()
        how = self._spec.preprocessing
        if how.crop == "center" and how.resize != "longest":
            raise LoadFailed("What a crop cuts off has no depth: set crop to none.")
        shapes = {t.name: t.shape for t in self._spec.outputs}
        if shapes and depth_output(shapes) is None and not any(-1 in shape[1:] for shape in shapes.values()):
            raise LoadFailed(_unfit(shapes))

    def from_image(self, data: bytes) -> Arrays:
        return self._pictures.from_image(data)

    def from_table(self, rows: Sequence[Mapping[str, Any]], *, decimal_comma: bool = False) -> TableRows:
        raise not_taken(self._spec)

    def read_params(self, params: Params) -> Params:
        """``depth``: ``grey`` (8 bits), ``grey16`` (16 bits) or ``viridis`` (colours). Raises Malformed."""
        form = params.get("depth", FORMS[0])
        if form not in FORMS:
            raise Malformed(f"depth must be one of {', '.join(FORMS)}.")
        return {"depth": form}

    def post(self, raw: Arrays, params: Params) -> list[dict[str, Any] | EngineError]:
        placements: list[Placement] = list(raw[CONTEXT])
        outputs = {name: a for name, a in raw.items() if name != CONTEXT and a.dtype.kind in "iuf"}
        name = depth_output({name: array.shape for name, array in outputs.items()})
        answers: list[dict[str, Any] | EngineError] = []
        for row, placement in enumerate(placements):
            try:
                if name is None:
                    shapes = {n: a.shape for n, a in raw.items() if n != CONTEXT}
                    raise UnusableInput(_unfit(shapes), code="model_error")
                answers.append(_answer(_map(outputs[name][row]), placement, params["depth"]))
            except UnusableInput as error:
                answers.append(error)
        return answers


def depth_output(shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """The first output with one number a pixel: (rows, height, width), also with a dimension of 1 before or behind."""
    if "predicted_depth" in shapes:
        shapes = {"predicted_depth": shapes["predicted_depth"]}
    for name, shape in shapes.items():
        sides = shape[1:]
        if len(sides) == 3 and sides[0] == 1:
            sides = sides[1:]
        elif len(sides) == 3 and sides[2] == 1:
            sides = sides[:2]
        if len(sides) == 2 and 1 not in sides and 0 not in sides:
            return name
    return None


def _map(row: NDArray[Any]) -> Floats:
    """One picture's map (height, width), finite. Raises UnusableInput."""
    if row.ndim == 3:
        row = row[0] if row.shape[0] == 1 else row[:, :, 0]
    if not np.isfinite(row).all():
        raise not_numbers()
    return row.astype(np.float32, copy=False)


def _answer(numbers: Floats, placement: Placement, form: str) -> dict[str, Any]:
    down, across = axes(placement, (numbers.shape[0], numbers.shape[1]))
    told = _told(numbers, placement)
    same = numbers.min() == numbers.max()
    if same:
        # The filter's own rounding would make a pattern of what is the same everywhere.
        told.fill(numbers.flat[0])
        least = most = float(numbers.flat[0])
    else:
        least, most = _span(numbers, down, across)
    answer: dict[str, Any] = {
        "depth": _picture(numbers, down, across, (least, most), form),
        "predicted_depth": told,
        "minimum": least,
        "maximum": most,
    }
    if same:
        answer["note"] = f"The model gives every pixel the same depth, {least:g}: the picture of it is black."
    return answer


def _span(numbers: Floats, down: Axis, across: Axis) -> tuple[float, float]:
    """The least and the greatest number of the picture. Raises UnusableInput where the filter leaves float32."""
    least, most = np.inf, -np.inf
    for _, block in sampled(numbers, down, across, cubic=True):
        least, most = min(least, float(block.min())), max(most, float(block.max()))
    if not np.isfinite([least, most]).all():
        raise not_numbers()
    return least, most


def _picture(numbers: Floats, down: Axis, across: Axis, span: tuple[float, float], form: str) -> bytes:
    """A PNG of the picture's size, the least number darkest."""
    levels = np.zeros((down.length, across.length), dtype=np.uint16 if form == "grey16" else np.uint8)
    least, width = np.float32(span[0]), np.float32(span[1]) - np.float32(span[0])
    if width > 0:
        for begin, block in sampled(numbers, down, across, cubic=True):
            # In the order and the precision of the pipeline, whose conversion cuts fractions off.
            block -= least
            block /= width
            block *= np.float32(_LEVELS[form])
            levels[begin : begin + len(block)] = block.astype(levels.dtype)
    image = Image.fromarray(levels)
    if form == "viridis":
        image.putpalette(VIRIDIS.tobytes())
    stream = io.BytesIO()
    image.save(stream, format="PNG")
    return stream.getvalue()


def _told(numbers: Floats, placement: Placement) -> Floats:
    """The numbers at the picture's size, or in its proportions at a size of at most ``MOST_NUMBERS``."""
    width, height = placement.picture
    size = (height, width)
    if width * height > MOST_NUMBERS:
        factor = sqrt(MOST_NUMBERS / (width * height))
        size = (max(1, int(height * factor)), max(1, int(width * factor)))
        if 1 in size:
            size = (min(height, MOST_NUMBERS // size[1]), min(width, MOST_NUMBERS // size[0]))
    down, across = axes(placement, (numbers.shape[0], numbers.shape[1]), size)
    told = np.empty(size, dtype=np.float32)
    for begin, block in sampled(numbers, down, across, cubic=True):
        told[begin : begin + len(block)] = block
    return told


def _unfit(shapes: Mapping[str, tuple[int, ...]]) -> str:
    given = ", ".join(f"{name} {shape_text(shape)}" for name, shape in shapes.items()) or "nothing numeric"
    return f"The model's outputs, {given}, hold no map of depth: one number for each pixel was expected."
