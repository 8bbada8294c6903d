"""A picture to a model's tensor, remembering where it lies in it: for tasks that answer in pixels of the picture."""

from __future__ import annotations

import numpy as np
from PIL import Image

from engine.codecs.arrays import check_shape, shape_text
from engine.errors import LoadFailed, UnusableInput
from engine.model_spec import ModelSpec
from engine.worker.images import DecodedImage
from engine.worker.tasks.base import CONTEXT, Arrays
from engine.worker.tasks.image_tensors import ImageTensors
from engine.worker.tasks.placement import OWN_SIZES


class PlacedPictures:
    """The picture input of one model. ``who`` names the model in sentences: "A detector".

    Raises LoadFailed where the model takes anything but one picture, or one cut by fractions of pixels.
    """

    def __init__(self, spec: ModelSpec, who: str) -> None:
        if len(spec.inputs) > 1:
            names = ", ".join(repr(t.name) for t in spec.inputs)
            raise LoadFailed(f"{who} takes one picture, but this model has the inputs {names}.")
        self._spec = spec
        self._who = who
        self._tensor = spec.inputs[0] if spec.inputs else None
        if self._tensor is not None and self._tensor.dtype == "str":
            raise LoadFailed(f"Input {self._tensor.name!r} takes text, not a picture.")
        self._convert = ImageTensors(spec, self._tensor)

    @property
    def size(self) -> tuple[int, int] | None:
        """(height, width) of the tensor in pixels, None where each picture has its own."""
        how = self._spec.preprocessing
        return None if how.resize in OWN_SIZES and how.crop != "center" else self._convert.size

    def check(self) -> None:
        """Raises LoadFailed where no picture would fit the model as ``[preprocessing]`` describes it."""
        how = self._spec.preprocessing
        if how.resize == "fit" or how.crop == "square":
            raise LoadFailed(f"{self._who}'s picture cannot be cut by fractions of pixels: set resize or crop.")
        if self._tensor is None or how.resize in OWN_SIZES:
            return
        # A small picture goes through the real conversion: what does not fit now would fail with every picture.
        shape = self._convert.convert(DecodedImage(Image.new("RGB", (40, 32)), (40, 32))).shape
        try:
            check_shape(self._tensor.name, shape, (-1, *self._tensor.shape[1:]))
        except UnusableInput as error:
            raise LoadFailed(
                f"A picture becomes a tensor of shape {shape_text(shape)} (layout {how.layout}, {how.channel_order}), "
                f"but the model takes {shape_text(self._tensor.shape)}: correct [preprocessing] in the sidecar."
            ) from error

    def from_image(self, data: bytes) -> Arrays:
        """The tensor of an encoded picture, one row, and its :class:`Placement` under ``CONTEXT``. Raises
        UnusableInput."""
        decoded = self._convert.decode(data)
        array = self._convert.convert(decoded)
        if self._tensor is not None:
            check_shape(self._tensor.name, array.shape, (-1, *self._tensor.shape[1:]))
        placements = np.empty(1, dtype=object)
        placements[0] = self._convert.place(decoded)
        return {self._convert.name: array, CONTEXT: placements}
