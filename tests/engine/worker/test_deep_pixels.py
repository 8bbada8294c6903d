"""Pictures as arrays: 16 bits a channel kept, transparency apart, orientation applied, and files back."""

from __future__ import annotations

import io
from typing import Any

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from engine.errors import UnusableInput
from engine.worker.deep_pixels import decode_pixels, encode_png
from engine.worker.images import decode_image

RANDOM = np.random.default_rng(5)


def deep(*shape: int) -> np.ndarray:
    return RANDOM.integers(0, 65536, shape).astype(np.uint16)


def png(array: np.ndarray) -> bytes:
    return bytes(imagecodecs.png_encode(np.ascontiguousarray(array)))


def tiff(array: np.ndarray, orientation: int = 1) -> bytes:
    packed = io.BytesIO()
    if array.ndim == 2:
        Image.fromarray(array).save(packed, "TIFF", tiffinfo={274: orientation})
        return packed.getvalue()
    # Pillow writes no colours of 16 bits: baseline TIFF 6.0 by hand, one strip.
    height, width, channels = array.shape
    data = array.astype("<u2").tobytes()
    bits_at = 8 + len(data)
    entries = [
        (256, 4, 1, width), (257, 4, 1, height), (258, 3, channels, bits_at), (259, 3, 1, 1), (262, 3, 1, 2),
        (273, 4, 1, 8), (274, 3, 1, orientation), (277, 3, 1, channels), (278, 4, 1, height), (279, 4, 1, len(data)),
    ]  # fmt: skip
    bits = b"".join((16).to_bytes(2, "little") for _ in range(channels))
    directory = len(entries).to_bytes(2, "little") + b"".join(
        tag.to_bytes(2, "little")
        + kind.to_bytes(2, "little")
        + count.to_bytes(4, "little")
        + value.to_bytes(4, "little")
        for tag, kind, count, value in entries
    )
    head = b"II*\x00" + (bits_at + len(bits)).to_bytes(4, "little")
    return head + data + bits + directory + bytes(4)


@pytest.mark.parametrize("shape", [(9, 7), (9, 7, 2), (9, 7, 3), (9, 7, 4)])
def test_sixteen_bits_of_png_are_kept(shape: tuple[int, ...]) -> None:
    array = deep(*shape)
    pixels = decode_pixels(png(array), deep=True)
    whole = array if array.ndim == 3 else array[..., None]
    has_alpha = whole.shape[2] in (2, 4)
    np.testing.assert_array_equal(pixels.colour, whole[..., :-1] if has_alpha else whole)
    assert (pixels.alpha is not None) == has_alpha
    if has_alpha:
        np.testing.assert_array_equal(pixels.alpha, whole[..., -1])
    assert pixels.top == 65535
    np.testing.assert_array_equal(imagecodecs.png_decode(encode_png(pixels.colour, pixels.alpha)), array)


@pytest.mark.parametrize("shape", [(6, 8), (6, 8, 3)])
def test_sixteen_bits_of_tiff_are_kept(shape: tuple[int, ...]) -> None:
    array = deep(*shape)
    np.testing.assert_array_equal(decode_pixels(tiff(array), deep=True).colour.reshape(shape), array)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 3)])
def test_orientation_is_that_of_eight_bits(orientation: int, shape: tuple[int, ...]) -> None:
    """The reference is what the one decoder gives, which is Pillow's own transposition."""
    array = (RANDOM.integers(0, 256, shape) * 257).astype(np.uint16)
    data = tiff(array, orientation)
    deep_pixels, plain = decode_pixels(data, deep=True).colour, np.asarray(decode_image(data).image)
    np.testing.assert_array_equal(deep_pixels.squeeze() // 257, plain)


def test_eight_bits_are_read_as_they_are_and_deep_ones_where_they_are_of_no_use() -> None:
    array = RANDOM.integers(0, 256, (5, 5, 4)).astype(np.uint8)
    pixels = decode_pixels(png(array), deep=True)
    assert pixels.colour.dtype == np.uint8
    np.testing.assert_array_equal(pixels.colour, array[..., :3])
    np.testing.assert_array_equal(pixels.alpha, array[..., 3])
    assert decode_pixels(png(deep(5, 5, 3)), deep=False).colour.dtype == np.uint8


def test_a_colour_profile_that_is_not_used_is_told() -> None:
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    packed = io.BytesIO()
    Image.fromarray(deep(4, 4)).save(packed, "PNG", icc_profile=profile)
    assert "profile" in decode_pixels(packed.getvalue(), deep=True).note


@pytest.mark.parametrize("data", [png(deep(50, 50, 3))[:400], tiff(deep(50, 50, 3))[:3000]])
def test_what_is_cut_off_is_told(data: bytes) -> None:
    with pytest.raises(UnusableInput) as caught:
        decode_pixels(data, deep=True)
    assert caught.value.code == "image_invalid"


@pytest.mark.parametrize("shape", [(3, 4, 1), (3, 4, 3)])
@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_written_pictures_are_read_back(shape: tuple[int, ...], alpha: bool, dtype: Any) -> None:
    top = int(np.iinfo(dtype).max)
    colour = RANDOM.integers(0, top + 1, shape).astype(dtype)
    cover = RANDOM.integers(0, top + 1, shape[:2]).astype(dtype) if alpha else None
    back = decode_pixels(encode_png(colour, cover), deep=True)
    np.testing.assert_array_equal(back.colour, colour)
    if alpha:
        np.testing.assert_array_equal(back.alpha, cover)
    else:
        assert back.alpha is None
