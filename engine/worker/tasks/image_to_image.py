"""image-to-image: a picture in, a picture out: larger, sharper, without noise, in another style.

The answer is ``{"image": PNG}`` of the picture's size times what the model enlarges by (Hugging Face's pipeline gives
the picture), and its ``width`` and ``height``. Large pictures go through the model in overlapping tiles
(:mod:`engine.worker.tasks.tiling`). Where the sidecar or the package says that pictures are resized, they are, and the
answer is brought back to the picture's proportions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engine.codecs.arrays import integer_range, numpy_dtype, shape_text
from engine.errors import EngineError, InputTooLarge, LoadFailed, UnusableInput
from engine.model_spec import ASSUMED, ModelSpec, TensorSpec
from engine.prediction import Predictions
from engine.worker.deep_pixels import Pixels, decode_pixels, encode_png
from engine.worker.images import MAX_PIXELS, MAX_SIDE
from engine.worker.tasks.base import CONTEXT, Arrays, Params, TableRows, Windows, not_taken, scaling_range
from engine.worker.tasks.image_tensors import check_preprocessing
from engine.worker.tasks.tiling import Grid, assemble, lay_out

MULTIPLE = 16
"""What the sides of a picture are filled up to multiples of, for a model with free sides that states no other: it may
halve its picture four times."""
TILES = "deskside:tiles"
"""What is kept of each tile's answer: (rows, height, width, channels), uint8 or uint16."""
_LARGEST_SCALE = 16
_LAYOUTS = ("nchw", "nhwc")


@dataclass(frozen=True, slots=True)
class Cut:
    """How a picture was cut: its grid, its transparency, and its (width, height) where it was resized for the model."""

    grid: Grid
    alpha: NDArray[Any] | None
    resized_from: tuple[int, int] | None
    note: str

    @property
    def nbytes(self) -> int:
        return self.alpha.nbytes if self.alpha is not None else 0


class ImageToImage:
    """See :class:`engine.worker.tasks.base.Task`."""

    takes_images = True
    takes_tables = False

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec
        if len(spec.inputs) > 1:
            names = ", ".join(repr(t.name) for t in spec.inputs)
            raise LoadFailed(f"A model of pictures takes one picture, but this one has the inputs {names}.")
        check_preprocessing(spec.preprocessing)
        how = spec.preprocessing
        if how.layout not in _LAYOUTS:
            raise LoadFailed(f"preprocessing.layout is {how.layout!r}; a model of pictures takes nchw or nhwc.")
        self._channel_axis = 1 if how.layout == "nchw" else 3
        free = TensorSpec("image", "float32", (-1, -1, -1, -1))
        self._tensor = spec.inputs[0] if spec.inputs else free
        if numpy_dtype(self._tensor.dtype).kind not in "uf" or len(self._tensor.shape) != 4:
            raise LoadFailed(
                f"Input {self._tensor.name!r} takes {self._tensor.dtype} {shape_text(self._tensor.shape)}, no picture."
            )
        self._channels = self._count_channels()
        self._is_float = numpy_dtype(self._tensor.dtype).kind == "f"
        self._low, self._high = scaling_range(how.scaling)
        stated = spec.postprocessing.scaling or how.scaling
        self._out_low, self._out_high = scaling_range(stated)
        self._resizes = how.resize != "none" and spec.evidence.get("preprocessing.resize", ASSUMED) != ASSUMED
        if self._resizes and (how.size is None or how.resize != "stretch"):
            raise LoadFailed("A model of pictures is given them whole: preprocessing.resize must be stretch or none.")

    def _count_channels(self) -> int:
        declared = self._tensor.shape[self._channel_axis]
        channels = declared if declared > 0 else 1 if self._spec.preprocessing.channel_order == "grayscale" else 3
        if channels not in (1, 3, 4):
            raise LoadFailed(f"The model's pictures have {channels} channels; 1, 3 or 4 were expected.")
        return channels

    def check(self) -> None:
        if not self._spec.outputs:
            return
        if not any(self._fits(tensor.shape, tensor.dtype) for tensor in self._spec.outputs):
            given = ", ".join(f"{t.name} {t.dtype} {shape_text(t.shape)}" for t in self._spec.outputs)
            raise LoadFailed(f"The model gives {given}; a picture of 1, 3 or 4 channels was expected.")

    def _fits(self, shape: tuple[int, ...], dtype: str) -> bool:
        return len(shape) == 4 and shape[self._channel_axis] in (-1, 1, 3, 4) and numpy_dtype(dtype).kind in "uf"

    @property
    def _fixed(self) -> tuple[int, int] | None:
        """(height, width) of the only pictures the model takes."""
        sides = self._tensor.shape[2:4] if self._channel_axis == 1 else self._tensor.shape[1:3]
        return None if min(sides) < 1 else (sides[0], sides[1])

    # -- a picture in ------------------------------------------------------------------------------------------------
    def from_image(self, data: bytes) -> Windows:
        pixels = decode_pixels(data, deep=self._is_float and not self._resizes)
        resized_from = None
        if self._resizes:
            height, width = self._spec.preprocessing.size or (0, 0)
            resized_from = pixels.colour.shape[1], pixels.colour.shape[0]
            small = Image.fromarray(_with_channels(pixels, 3).colour).resize(
                (width, height), Image.Resampling[self._spec.preprocessing.resample.upper()]
            )
            whole = np.asarray(small)
            whole = _with_channels(Pixels(whole, None), self._channels).colour
        else:
            whole = _with_channels(pixels, self._channels).colour
        stated = self._spec.evidence.get("preprocessing.multiple", ASSUMED) != ASSUMED
        multiple = self._spec.preprocessing.multiple if stated else MULTIPLE
        # Its processor fills up what is a multiple already, too (``image_processing_pil_swin2sr.py``: ``pad``).
        fill = 1 if stated and self._spec.architecture.startswith("Swin2SR") else 0
        grid = lay_out(whole.shape[0], whole.shape[1], self._fixed, multiple, fill)
        kept = pixels.alpha if self._channels != 4 else None
        cut = Cut(grid, kept, resized_from, pixels.note)

        def source(first: int, last: int) -> Arrays:
            return {self._tensor.name: np.concatenate([self._tile(grid.cut(whole, n)) for n in range(first, last)])}

        shapes = {name: array[:0] for name, array in source(0, 1).items()}
        top = pixels.top

        def reduce(outputs: Arrays) -> Arrays:
            return {TILES: self._answers(outputs, grid, top)}

        return Windows(shapes, len(grid), context=[cut] * len(grid), source=source, reduce=reduce)

    def _tile(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """(1, …) tensor of (height, width, channels)."""
        how = self._spec.preprocessing
        top = float(np.iinfo(pixels.dtype).max)
        spread = top / (self._high - self._low)
        values: NDArray[Any] = (pixels.astype(np.float64) / spread).astype(np.float32) + np.float32(self._low)
        if how.channel_order == "bgr" and self._channels == 3:
            values = values[..., ::-1]
        if how.mean:
            values = values - np.asarray(how.mean, dtype=np.float32)
        if how.std:
            values = values / np.asarray(how.std, dtype=np.float32)
        dtype = numpy_dtype(self._tensor.dtype)
        if dtype.kind == "u":
            low, high = integer_range(dtype)
            values = np.clip(np.rint(values), low, high)
        values = values.astype(dtype, copy=False)
        return np.ascontiguousarray((values.transpose(2, 0, 1) if self._channel_axis == 1 else values)[np.newaxis])

    # -- a picture out -----------------------------------------------------------------------------------------------
    def _answers(self, outputs: Arrays, grid: Grid, top: int) -> NDArray[Any]:
        """The model's answer to some tiles, (rows, height, width, channels), in whole numbers from 0 to ``top``.

        Raises UnusableInput where it is no picture of the right size.
        """
        array = next((a for a in outputs.values() if self._fits(a.shape, a.dtype.name)), None)
        if array is None:
            given = ", ".join(f"{name} {a.dtype} {list(a.shape)}" for name, a in outputs.items())
            raise UnusableInput(f"The model answered with {given}; a picture was expected.", code="model_error")
        tiles = array.transpose(0, 2, 3, 1) if self._channel_axis == 1 else array
        self._scale(tiles.shape[1:3], grid)
        kind = np.uint16 if top > 255 else np.uint8
        if tiles.dtype.kind == "u":
            return tiles.astype(kind)
        if not np.isfinite(tiles).all():
            raise UnusableInput("The model answered this picture with values that are not numbers.", code="model_error")
        if self._spec.preprocessing.channel_order == "bgr" and tiles.shape[3] == 3:
            tiles = tiles[..., ::-1]
        span = self._out_high - self._out_low
        scaled = (tiles.astype(np.float32) - np.float32(self._out_low)) * np.float32(top / span)
        whole: NDArray[Any] = np.clip(np.rint(scaled, out=scaled), 0, top).astype(kind)
        return whole

    def _scale(self, sides: tuple[int, ...], grid: Grid) -> Fraction:
        """What the model enlarges by. Raises UnusableInput, InputTooLarge."""
        down, across = Fraction(sides[0], grid.down.side), Fraction(sides[1], grid.across.side)
        if down != across or not Fraction(1, _LARGEST_SCALE) <= down <= _LARGEST_SCALE:
            raise UnusableInput(
                f"The model made {sides[0]} x {sides[1]} pixels of {grid.down.side} x {grid.across.side}; the same "
                "proportions were expected.",
                code="model_error",
            )
        height, width = int(grid.down.length * down), int(grid.across.length * down)
        if height * width > MAX_PIXELS or max(height, width) > MAX_SIDE:
            raise InputTooLarge(
                f"The answer would have {height} x {width} pixels: at most {MAX_PIXELS // 1_000_000} million, and "
                f"{MAX_SIDE:,} a side, are made."
            )
        if any(start * down % 1 for axis in (grid.down, grid.across) for start in axis.starts) or not height * width:
            raise UnusableInput("The picture is too small for this model.", code="image_too_small")
        return down

    def from_table(self, rows: Sequence[Mapping[str, Any]], *, decimal_comma: bool = False) -> TableRows:
        raise not_taken(self._spec)

    def read_params(self, params: Params) -> Params:
        return {}

    def post(self, raw: Arrays, params: Params) -> list[Predictions | EngineError]:
        cut: Cut = raw[CONTEXT][0]
        tiles = raw[TILES]
        try:
            scale = self._scale(tiles.shape[1:3], cut.grid)
        except (UnusableInput, InputTooLarge) as error:
            return [error]
        whole = assemble(tiles, cut.grid, scale)
        if cut.resized_from is not None:
            whole = _resized(whole, tuple(int(side * scale) for side in cut.resized_from))
        alpha = cut.alpha
        if alpha is not None:
            alpha = _resized(alpha[..., np.newaxis], (whole.shape[1], whole.shape[0]))[..., 0]
        answer: dict[str, Any] = {
            "image": encode_png(whole, alpha if whole.shape[2] != 4 else None),
            "width": whole.shape[1],
            "height": whole.shape[0],
        }
        return [answer | ({"note": cut.note} if cut.note else {})]


def _with_channels(pixels: Pixels, channels: int) -> Pixels:
    """The picture in as many channels as a model takes: grey from colours by Pillow's weights (ITU-R 601), and four of
    what has no transparency with full cover."""
    colour = pixels.colour
    if channels == 1 and colour.shape[2] == 3:
        weights = np.array([0.299, 0.587, 0.114])
        colour = np.rint(colour @ weights)[..., np.newaxis].astype(colour.dtype)
    elif channels >= 3 and colour.shape[2] == 1:
        colour = np.repeat(colour, 3, axis=2)
    if channels == 4:
        alpha = pixels.alpha if pixels.alpha is not None else np.full(colour.shape[:2], pixels.top, colour.dtype)
        colour = np.concatenate([colour, alpha[..., np.newaxis]], axis=2)
    return Pixels(colour, pixels.alpha, pixels.note)


def _resized(pixels: NDArray[Any], size: tuple[int, ...]) -> NDArray[Any]:
    """(height, width, channels) in ``size`` (width, height), channel by channel, bicubic."""
    if (pixels.shape[1], pixels.shape[0]) == size:
        return pixels
    top = float(np.iinfo(pixels.dtype).max)
    planes = []
    for number in range(pixels.shape[2]):
        plane = Image.fromarray(pixels[..., number].astype(np.float32))
        grown = np.asarray(plane.resize((size[0], size[1]), Image.Resampling.BICUBIC))
        planes.append(np.clip(np.rint(grown), 0.0, top).astype(pixels.dtype))
    return np.stack(planes, axis=2)
