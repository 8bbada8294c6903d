"""Pictures as arrays, with all the bits they have: 16 a channel where the file has them, alpha kept apart.

Pillow, which opens every picture here, has no colours of 16 bits; those of PNG and TIFF are read by libpng and libtiff
through imagecodecs, after Pillow has looked at size and kind.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engine.errors import UnusableInput
from engine.worker.images import DecodedImage, decode_image, sniff_image

COMPRESSION = 3
"""Of written PNG files, from 0 to 9: above it files shrink little and take long."""
_ORIENTATION = 0x0112
_BITS_PER_SAMPLE, _SAMPLE_FORMAT = 0x0102, 0x0153
_UNSIGNED = 1


@dataclass(frozen=True, slots=True)
class Pixels:
    """An upright picture: ``colour`` is (height, width, 1 or 3), ``alpha`` (height, width) or None, both uint8 or both
    uint16. ``note`` tells what was left out, or is empty."""

    colour: NDArray[Any]
    alpha: NDArray[Any] | None
    note: str = ""

    @property
    def top(self) -> int:
        """What white is: 255 or 65535."""
        return int(np.iinfo(self.colour.dtype).max)


def decode_pixels(data: bytes, *, deep: bool) -> Pixels:
    """An encoded picture's first frame, in 16 bits a channel where it has them and ``deep`` is set.

    Raises UnusableInput as :func:`engine.worker.images.decode_image` does.
    """
    decoded = decode_image(data)
    if deep and (wide := _wide(data, decoded)) is not None:
        return _split(wide, _note_of_depth(decoded, data))
    image = decoded.image
    return _split(np.asarray(image)[..., np.newaxis] if image.mode == "L" else np.asarray(image), decoded.note)


def encode_png(colour: NDArray[Any], alpha: NDArray[Any] | None = None) -> bytes:
    """(height, width, 1 or 3) uint8 or uint16, with its ``alpha`` (height, width) of the same type, as PNG."""
    whole = colour if alpha is None else np.concatenate([colour, alpha[..., np.newaxis]], axis=2)
    if whole.shape[2] == 1:
        whole = whole[..., 0]
    whole = np.ascontiguousarray(whole)
    if whole.dtype == np.uint16:
        import imagecodecs

        return bytes(imagecodecs.png_encode(whole, level=COMPRESSION))
    packed = io.BytesIO()
    Image.fromarray(whole).save(packed, "PNG", compress_level=COMPRESSION)
    return packed.getvalue()


def _split(whole: NDArray[Any], note: str) -> Pixels:
    channels = whole.shape[2]
    alpha = whole[..., -1] if channels in (2, 4) else None
    return Pixels(whole[..., : channels - 1] if alpha is not None else whole, alpha, note)


def _note_of_depth(decoded: DecodedImage, data: bytes) -> str:
    with Image.open(io.BytesIO(data)) as image:
        profile = image.info.get("icc_profile")
    unused = "colour profile is not used at 16 bits" if profile else ""
    return "; ".join(part for part in (decoded.note, unused) if part)


def _wide(data: bytes, decoded: DecodedImage) -> NDArray[np.uint16] | None:
    """(height, width, channels) of a PNG or TIFF of 16 bits a channel, upright; None for any other picture.

    ``decoded`` is what Pillow made of it."""
    kind = sniff_image(data)
    with Image.open(io.BytesIO(data)) as image:
        orientation = image.getexif().get(_ORIENTATION, 1)
        if not _has_16_bits(kind, image, data):
            return None
    import imagecodecs

    try:
        whole: NDArray[Any] = imagecodecs.png_decode(data) if kind == "PNG" else imagecodecs.tiff_decode(data)
    except (imagecodecs.PngError, imagecodecs.TiffError, ValueError, RuntimeError) as error:
        raise UnusableInput(
            f"The picture starts like {kind}, but is damaged or cut off.", code="image_invalid"
        ) from error
    if whole.ndim == 2:
        whole = whole[..., np.newaxis]
    if whole.dtype == np.uint16 and whole.ndim == 3 and whole.shape[2] in (1, 2, 3, 4):
        upright = _upright(whole, orientation)
        if upright.shape[1::-1] == decoded.image.size:
            return upright
    raise UnusableInput(
        f"The picture has samples of a kind that is not read here ({whole.dtype} {list(whole.shape)}).",
        code="image_format",
    )


def _has_16_bits(kind: str | None, image: Image.Image, data: bytes) -> bool:
    if kind == "PNG":
        # IHDR's bit depth (PNG specification §11.2.2); a palette has never 16.
        return data[24] == 16
    if kind != "TIFF":
        return False
    tags: Any = getattr(image, "tag_v2", {})
    bits, kinds = tags.get(_BITS_PER_SAMPLE, (1,)), tags.get(_SAMPLE_FORMAT, (_UNSIGNED,))
    return set(bits) == {16} and set(kinds) == {_UNSIGNED} and image.mode != "CMYK"


def _upright(whole: NDArray[np.uint16], orientation: Any) -> NDArray[np.uint16]:
    """EXIF 2.32 §4.6.4 A: what is stored in row 0 and column 0, turned back."""
    turns: dict[Any, Any] = {
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: a.transpose(1, 0, 2)[:, ::-1],
        7: lambda a: a.transpose(1, 0, 2)[::-1, ::-1],
        8: lambda a: a.transpose(1, 0, 2)[::-1],
    }
    turned: NDArray[np.uint16] = turns[orientation](whole) if orientation in turns else whole
    return turned
