"""image-classification: a picture in, classes with scores out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from engine.codecs.arrays import check_shape, shape_text
from engine.errors import EngineError, LoadFailed, UnusableInput
from engine.model_spec import ModelSpec
from engine.worker.images import DecodedImage
from engine.worker.tasks import classification
from engine.worker.tasks.base import Arrays, Params, TableRows, not_taken
from engine.worker.tasks.image_tensors import ImageTensors


class ImageClassification:
    """See :class:`engine.worker.tasks.base.Task`."""

    takes_images = True
    takes_tables = False

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec
        if len(spec.inputs) > 1:
            names = ", ".join(repr(t.name) for t in spec.inputs)
            raise LoadFailed(f"An image classifier takes one picture, but this model has the inputs {names}.")
        self._tensor = spec.inputs[0] if spec.inputs else None
        if self._tensor is not None and self._tensor.dtype == "str":
            raise LoadFailed(f"Input {self._tensor.name!r} takes text, not a picture.")
        self._convert = ImageTensors(spec, self._tensor)

    def check(self) -> None:
        classification.check_outputs(self._spec)
        if self._tensor is None:
            return
        # A small picture goes through the real conversion: what does not fit now would fail with every picture.
        shape = self._convert.convert(DecodedImage(Image.new("RGB", (40, 32)), (40, 32))).shape
        how = self._spec.preprocessing
        declared = (-1, *self._tensor.shape[1:])
        if how.size is None and len(shape) == len(declared):
            declared = tuple(-1 if n == have else n for n, have in zip(declared, shape, strict=True))
        if how.resize in ("shortest", "none") and how.crop != "center":
            return
        try:
            check_shape(self._tensor.name, shape, declared)
        except UnusableInput as error:
            raise LoadFailed(
                f"A picture becomes a tensor of shape {shape_text(shape)} (layout {how.layout}, {how.channel_order}), "
                f"but the model takes {shape_text(self._tensor.shape)}: correct [preprocessing] in the sidecar."
            ) from error

    def from_image(self, data: bytes) -> Arrays:
        array = self._convert.convert(self._convert.decode(data))
        if self._tensor is not None:
            check_shape(self._tensor.name, array.shape, (-1, *self._tensor.shape[1:]))
        return {self._convert.name: array}

    def from_table(self, rows: Sequence[Mapping[str, Any]], *, decimal_comma: bool = False) -> TableRows:
        raise not_taken(self._spec)

    def read_params(self, params: Params) -> Params:
        return classification.read_params(params)

    def post(self, raw: Arrays, params: Params) -> list[list[Any] | EngineError]:
        return classification.rank(raw, self._spec, params)
