"""A picture to the tensor a model takes: resize, crop, channel order, value range, layout. Both doors use it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from engine.codecs.arrays import integer_range, numpy_dtype
from engine.errors import LoadFailed
from engine.model_spec import ModelSpec, Preprocessing, TensorSpec
from engine.worker.images import DecodedImage
from engine.worker.tasks.base import scaling_range

_LAYOUTS = {"nhwc": 4, "nchw": 4, "nhw": 3}
_CHOICES = {
    "resize": ("stretch", "shortest", "longest", "fit", "none"),
    "resample": ("bilinear", "bicubic", "lanczos", "box", "hamming", "nearest"),
    "crop": ("none", "center", "square"),
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
        self._values = pixel_values(spec.preprocessing.scaling)
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
        values: NDArray[Any] = np.take(self._values, pixels)
        if self._how.mean:
            values = values - np.asarray(self._how.mean, dtype=np.float32)
        if self._how.std:
            values = values / np.asarray(self._how.std, dtype=np.float32)
        if dtype.kind in "iu":
            low, high = integer_range(dtype)
            values = np.clip(np.rint(values), low, high)
        return values.astype(dtype, copy=False)


def pixel_values(scaling: str) -> NDArray[np.float32]:
    """What each of the 256 values of a pixel becomes: ``low + pixel * (high - low) / 255``.

    To the last bit as the references compute it: Keras' ``preprocess_input`` and Teachable Machine divide by 127.5
    and subtract 1 in float32, transformers multiplies in float64 and rounds to float32 before any offset.
    """
    low, high = scaling_range(scaling)
    scaled = (np.arange(256, dtype=np.float64) / (255.0 / (high - low))).astype(np.float32)
    return scaled + np.float32(low)


def _fit(image: Image.Image, size: tuple[int, int] | None, how: Preprocessing) -> Image.Image:
    """``image`` in ``size`` (height, width).

    ``crop = "square"`` first cuts out the largest centred square. ``stretch`` fills ``resize_size`` and may change the
    proportions; ``shortest`` scales until the picture covers it; ``fit`` takes the largest part of its proportions from
    the middle. ``crop = "center"`` then cuts ``size`` out of the middle, adding black where the picture is smaller;
    without it what sticks out stays. ``longest`` scales until the picture fits into ``size`` and fills the rest with
    black, the picture in the middle.
    """
    if how.crop == "square":
        side = min(image.size)
        left, top = (image.width - side) / 2, (image.height - side) / 2
        # Pillow rounds each edge by itself, to even: as in Lobe's code, halves make it a pixel wider.
        image = image.crop((left, top, left + side, top + side))
    if size is None:
        return image
    height, width = size
    image = _resized(image, how.resize_size or size, how)
    if how.crop == "center" or how.resize == "longest":
        # Rounded down, as transformers does; torchvision rounds to even.
        return _cut(image, (image.width - width) // 2, (image.height - height) // 2, width, height)
    return image


def _resized(image: Image.Image, size: tuple[int, int], how: Preprocessing) -> Image.Image:
    height, width = size
    filter_ = Image.Resampling[how.resample.upper()]
    if how.resize == "none":
        return image
    if how.resize == "fit":
        return ImageOps.fit(image, (width, height), filter_)
    if how.resize == "stretch":
        return image.resize((width, height), filter_)
    # The side that decides gets its size exactly, the other is rounded down: transformers' and torchvision's rule.
    by_width = image.width * height <= image.height * width
    if how.resize == "longest":
        by_width = not by_width
    if by_width:
        height = max(1, int(width * image.height / image.width))
    else:
        width = max(1, int(height * image.width / image.height))
    return image.resize((width, height), filter_)


def _cut(image: Image.Image, left: int, top: int, width: int, height: int) -> Image.Image:
    return image.crop((left, top, left + width, top + height))
