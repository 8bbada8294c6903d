"""A picture to the tensor a model takes: resize, crop, channel order, value range, layout. Both doors use it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engine.codecs.arrays import integer_range, numpy_dtype
from engine.errors import LoadFailed
from engine.model_spec import ModelSpec, Preprocessing, TensorSpec
from engine.worker.images import DecodedImage
from engine.worker.tasks.base import scaling_range

_LAYOUTS = {"nhwc": 4, "nchw": 4, "nhw": 3}
_CHOICES = {
    "resize": ("stretch", "shortest", "longest"),
    "crop": ("none", "center"),
    "channel_order": ("rgb", "bgr", "grayscale"),
    "layout": tuple(_LAYOUTS),
}


def check_preprocessing(preprocessing: Preprocessing) -> None:
    """Raises LoadFailed for a word or a number that is not one of those :class:`Preprocessing` names."""
    for name, choices in _CHOICES.items():
        value = getattr(preprocessing, name)
        if value not in choices:
            raise LoadFailed(f"preprocessing.{name} is {value!r}; it must be one of {', '.join(choices)}.")
    try:
        scaling_range(preprocessing.scaling)
    except ValueError as error:
        raise LoadFailed(f"preprocessing.scaling: {error}.") from error
    channels = 1 if preprocessing.channel_order == "grayscale" else 3
    if preprocessing.layout == "nhw" and channels != 1:
        raise LoadFailed("preprocessing.layout 'nhw' has no place for colours; channel_order must be 'grayscale'.")
    for name in ("mean", "std"):
        count = len(getattr(preprocessing, name))
        if count not in (0, 1, channels):
            raise LoadFailed(f"preprocessing.{name} has {count} numbers for {channels} channels.")
    if 0.0 in preprocessing.std:
        raise LoadFailed("preprocessing.std holds a zero; values are divided by it.")


class ImageTensors:
    """Preprocessing of one model's picture input. ``tensor`` is the declared input, None where nothing declares it."""

    def __init__(self, spec: ModelSpec, tensor: TensorSpec | None) -> None:
        check_preprocessing(spec.preprocessing)
        self._how = spec.preprocessing
        self._tensor = tensor
        self._size = self._target_size()
        self._range = scaling_range(spec.preprocessing.scaling)
        self.name = tensor.name if tensor is not None else "image"

    def _target_size(self) -> tuple[int, int] | None:
        """(height, width) in pixels: as stated, else as the input's shape says, else the picture's own."""
        if self._how.size is not None:
            height, width = self._how.size
            if height < 1 or width < 1:
                raise LoadFailed(f"preprocessing.size is {height} x {width} pixels.")
            return height, width
        if self._tensor is None or len(self._tensor.shape) != _LAYOUTS[self._how.layout]:
            return None
        shape = self._tensor.shape
        height, width = shape[1:3] if self._how.layout in ("nhwc", "nhw") else shape[2:4]
        return None if height < 1 or width < 1 else (height, width)

    def convert(self, decoded: DecodedImage) -> NDArray[Any]:
        """The tensor of one picture, with a first dimension of 1."""
        image = decoded.as_mode("L" if self._how.channel_order == "grayscale" else "RGB")
        pixels = np.asarray(_fit(image, self._size, self._how), dtype=np.uint8)
        if pixels.ndim == 2:
            pixels = pixels[:, :, np.newaxis]
        if self._how.channel_order == "bgr":
            pixels = pixels[:, :, ::-1]
        values = self._scale(pixels)
        if self._how.layout == "nchw":
            values = values.transpose(2, 0, 1)
        elif self._how.layout == "nhw":
            values = values[:, :, 0]
        return np.ascontiguousarray(values[np.newaxis])

    def _scale(self, pixels: NDArray[np.uint8]) -> NDArray[Any]:
        dtype = numpy_dtype(self._tensor.dtype) if self._tensor is not None else np.dtype(np.float32)
        low, high = self._range
        values: NDArray[Any] = pixels.astype(np.float32)
        if (low, high) != (0.0, 255.0):
            values = values * np.float32((high - low) / 255.0) + np.float32(low)
        if self._how.mean:
            values = values - np.asarray(self._how.mean, dtype=np.float32)
        if self._how.std:
            values = values / np.asarray(self._how.std, dtype=np.float32)
        if dtype.kind in "iu":
            low, high = integer_range(dtype)
            values = np.clip(np.rint(values), low, high)
        return values.astype(dtype, copy=False)


def _fit(image: Image.Image, size: tuple[int, int] | None, how: Preprocessing) -> Image.Image:
    """``image`` in ``size`` (height, width).

    ``stretch`` fills it and may change the proportions. ``shortest`` scales until the picture covers it, and
    ``crop = "center"`` then cuts out the middle; without the crop what sticks out stays. ``longest`` scales until the
    picture fits into it and fills the rest with black, the picture in the middle.
    """
    if size is None:
        return image
    height, width = size
    if how.resize == "stretch":
        return _resize(image, width, height)
    ratios = width / image.width, height / image.height
    ratio = max(ratios) if how.resize == "shortest" else min(ratios)
    image = _resize(image, max(1, round(image.width * ratio)), max(1, round(image.height * ratio)))
    left, top = round((image.width - width) / 2.0), round((image.height - height) / 2.0)
    if how.resize == "shortest":
        return image.crop((left, top, left + width, top + height)) if how.crop == "center" else image
    padded = Image.new(image.mode, (width, height))
    padded.paste(image, (-left, -top))
    return padded


def _resize(image: Image.Image, width: int, height: int) -> Image.Image:
    if image.size == (width, height):
        return image
    return image.resize((width, height), Image.Resampling.BILINEAR)
