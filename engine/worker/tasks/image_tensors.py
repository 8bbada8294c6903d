"""A picture to the tensor a model takes: resize, crop, channel order, value range, layout. Both doors use it."""

from __future__ import annotations

from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from engine.codecs.arrays import integer_range, numpy_dtype
from engine.errors import LoadFailed
from engine.model_spec import ModelSpec, Preprocessing, TensorSpec
from engine.worker.images import Box, DecodedImage, Size, decode_image
from engine.worker.tasks.base import scaling_range
from engine.worker.tasks.mirrored import mirrored
from engine.worker.tasks.placement import EDGES, LEAST_CHANGES, Placement, place, scaled_size

LETTERBOX_GREY = 114
"""What Ultralytics' LetterBox fills with."""
_LAYOUTS = {"nhwc": 4, "nchw": 4, "nhw": 3}
# fmt: off
_CHOICES = {
    "resize": (
        "stretch", "shortest", "longest", "letterbox", "edges", "edges-of-16", "edges-up", "least-change", "multiples",
        "mirrored", "fit", "none",
    ),
    "resample": ("bilinear", "bicubic", "lanczos", "box", "hamming", "nearest", "inter_linear"),
    "crop": ("none", "center", "square"),
    "channel_order": ("rgb", "bgr", "grayscale"),
    "layout": tuple(_LAYOUTS),
}
# fmt: on


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
    if preprocessing.multiple < 1:
        raise LoadFailed(f"preprocessing.multiple is {preprocessing.multiple}; sides are multiples of 1 or more.")
    if 0.0 in preprocessing.std:
        raise LoadFailed("preprocessing.std holds a zero; values are divided by it.")


class ImageTensors:
    """Preprocessing of one model's picture input. ``tensor`` is the declared input, None where nothing declares it."""

    def __init__(self, spec: ModelSpec, tensor: TensorSpec | None) -> None:
        check_preprocessing(spec.preprocessing)
        self._how = spec.preprocessing
        self._tensor = tensor
        self.size = self._target_size()
        """(height, width) in pixels of the tensor, None where each picture has its own."""
        if spec.preprocessing.resize == "letterbox" and self.size is None:
            raise LoadFailed("preprocessing.resize 'letterbox' needs preprocessing.size, the height and width to fill.")
        if spec.preprocessing.resize in EDGES and spec.preprocessing.resize_size is None:
            raise LoadFailed("preprocessing.resize by edges needs preprocessing.resize_size: shorter and longer edge.")
        if spec.preprocessing.resize in LEAST_CHANGES and spec.preprocessing.resize_size is None:
            raise LoadFailed(
                f"preprocessing.resize {spec.preprocessing.resize!r} needs preprocessing.resize_size: height and width."
            )
        self._values = pixel_values(spec.preprocessing.scaling)
        channels = 1 if self._how.channel_order == "grayscale" else 3
        # What each value of a pixel becomes is the same for every pixel, so it is computed once, for all 256.
        every = np.repeat(self._values[:, np.newaxis], channels, axis=1)
        self._tables = np.ascontiguousarray(self._normalise(every).T)
        """What 0 to 255 become in the tensor, by channel in the model's order."""
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

    def decode(self, data: bytes) -> DecodedImage:
        """An encoded picture with no fewer pixels than its tensor needs. Raises UnusableInput."""
        smaller = self._how.jpeg_scaled_decode and self._how.smooths
        return decode_image(data, self._needed if smaller else None)

    def _needed(self, picture: Size) -> Size:
        """The (width, height) of the whole of ``picture`` at which no side of its tensor has to be made larger."""
        how = self._how
        part = _square(picture) if how.crop == "square" else picture
        if how.resize == "fit" and self.size is not None:
            height, width = how.resize_size or self.size
        else:
            width, height = scaled_size(part, self.size, how)
        share = max(width / part[0], height / part[1])
        return ceil(picture[0] * share), ceil(picture[1] * share)

    def convert(self, decoded: DecodedImage) -> NDArray[Any]:
        """The tensor of one picture, with a first dimension of 1."""
        image = decoded.as_mode("L" if self._how.channel_order == "grayscale" else "RGB")
        if self._how.resize == "mirrored":
            placement = place(image.size, self.size, self._how)
            values = self._normalise(self._in_order(mirrored(np.asarray(image), self._values, placement)))
        else:
            return self._look_up(self._in_order(np.asarray(_fit(image, decoded, self.size, self._how))))
        if self._how.layout == "nchw":
            values = values.transpose(2, 0, 1)
        elif self._how.layout == "nhw":
            values = values[:, :, 0]
        return np.ascontiguousarray(values[np.newaxis])

    def _look_up(self, pixels: NDArray[np.uint8]) -> NDArray[Any]:
        """The tensor of (height, width, channels) pixels: one pass over each channel, into its place."""
        height, width, channels = pixels.shape
        last = self._how.layout == "nhwc"
        shape = (1, height, width, channels) if last else (1, channels, height, width)
        tensor = np.empty(shape, dtype=self._tables.dtype)
        for channel, table in enumerate(self._tables):
            plane = pixels[:, :, channel]
            if last and channels > 1:
                tensor[0, :, :, channel] = np.take(table, plane, mode="wrap")
            else:
                # Of 256 values none is out of range: "wrap" spares a buffer that "raise" takes to leave ``out`` whole.
                np.take(table, plane, out=tensor.reshape(channels, height, width)[channel], mode="wrap")
        return tensor[:, 0] if self._how.layout == "nhw" else tensor

    def place(self, decoded: DecodedImage) -> Placement:
        """Where this picture lies in its tensor. Neither for ``fit`` nor for ``crop = "square"``."""
        return place(decoded.source_size, self.size, self._how)

    def _in_order(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """(height, width, channels) in the model's order of channels."""
        if pixels.ndim == 2:
            return pixels[:, :, np.newaxis]
        return pixels[:, :, ::-1] if self._how.channel_order == "bgr" else pixels

    def _normalise(self, values: NDArray[Any]) -> NDArray[Any]:
        dtype = numpy_dtype(self._tensor.dtype) if self._tensor is not None else np.dtype(np.float32)
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


def _fit(image: Image.Image, decoded: DecodedImage, size: tuple[int, int] | None, how: Preprocessing) -> Image.Image:
    """``image``, which is ``decoded`` in the tensor's colours, in ``size`` (height, width).

    ``crop = "square"`` first cuts out the largest centred square. ``stretch`` fills ``resize_size`` and may change the
    proportions; ``shortest`` scales until the picture covers it; ``fit`` takes the largest part of its proportions from
    the middle. ``crop = "center"`` then cuts ``size`` out of the middle, adding black where the picture is smaller;
    without it what sticks out stays. ``longest`` and ``letterbox`` scale until the picture fits into ``size`` and fill
    the rest, the picture in the middle: with black, or with Ultralytics' grey. ``edges`` scales until the shorter side
    is the first number of ``resize_size`` and the longer at most the second; ``edges-of-16`` then rounds both sides
    down to multiples of 16, ``edges-up`` up to those of ``multiple``. ``least-change`` scales by the axis of
    ``resize_size`` that changes less, ``multiples`` as little as brings both sides to multiples of ``multiple``.
    """
    picture, area = decoded.source_size, decoded.area
    if how.crop == "square":
        if area is None:
            image = image.crop(_square_box(image.size))
        else:
            area = _part(area, picture, _square_box(picture))
        picture = _square(picture)
    if how.resize == "fit":
        if size is None:
            return image
        height, width = how.resize_size or size
        method = Image.Resampling[how.resample.upper()]
        if area is None:
            image = ImageOps.fit(image, (width, height), method)
        else:
            image = image.resize((width, height), method, _part(area, picture, _fitting(picture, width / height)))
        return _cut(image, size) if how.crop == "center" else image
    placement = place(picture, size, how)
    image = _resized(image, scaled_size(picture, size, how), how.resample, area)
    if how.resize == "letterbox":
        paper = Image.new(image.mode, placement.tensor, (LETTERBOX_GREY,) * len(image.getbands()))
        paper.paste(image, (placement.left, placement.top))
        return paper
    left, top = -placement.left, -placement.top
    box = (left, top, left + placement.tensor[0], top + placement.tensor[1])
    return image if box == (0, 0, *image.size) else image.crop(box)


def _square_box(picture: Size) -> tuple[int, int, int, int]:
    """The largest centred square of (width, height), as left, top, right, bottom."""
    side = min(picture)
    left, top = (picture[0] - side) / 2, (picture[1] - side) / 2
    # Each edge is rounded by itself, to even, as Pillow does: as in Lobe's code, halves make it a pixel wider.
    return round(left), round(top), round(left + side), round(top + side)


def _square(picture: Size) -> Size:
    left, top, right, bottom = _square_box(picture)
    return right - left, bottom - top


def _fitting(picture: Size, proportions: float) -> Box:
    """The largest centred part whose width is ``proportions`` of its height, as Pillow's ``ImageOps.fit`` cuts it."""
    width, height = min(picture[0], proportions * picture[1]), min(picture[1], picture[0] / proportions)
    left, top = (picture[0] - width) / 2, (picture[1] - height) / 2
    return left, top, left + width, top + height


def _part(area: Box, picture: Size, part: Box) -> Box:
    """Where ``part`` of a picture lies, of which the whole, ``picture``, lies in ``area``."""
    across, down = (area[2] - area[0]) / picture[0], (area[3] - area[1]) / picture[1]
    left, top, right, bottom = part
    return area[0] + left * across, area[1] + top * down, area[0] + right * across, area[1] + bottom * down


def _resized(image: Image.Image, size: tuple[int, int], resample: str, area: Box | None) -> Image.Image:
    """``image``, or the ``area`` of it that is all of the picture, in ``size`` (width, height)."""
    if image.size == size and area is None:
        return image
    if resample != "inter_linear":
        return image.resize(size, Image.Resampling[resample.upper()], area)
    # OpenCV's INTER_LINEAR takes the four pixels around each point also where it makes a picture smaller; Pillow's
    # resize would smooth over all that lie under the new pixel.
    across, down = image.width / size[0], image.height / size[1]
    return image.transform(size, Image.Transform.AFFINE, (across, 0.0, 0.0, 0.0, down, 0.0), Image.Resampling.BILINEAR)


def _cut(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    left, top = (image.width - size[1]) // 2, (image.height - size[0]) // 2
    return image.crop((left, top, left + size[1], top + size[0]))
