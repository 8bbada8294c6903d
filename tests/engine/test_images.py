"""Pictures of every accepted kind come out upright, 8-bit and sRGB; everything else is an UnusableInput with a code."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from engine.errors import UnusableInput
from engine.worker.images import decode_image, sniff_image, supported_formats


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def half_red() -> Image.Image:
    """40 x 20, left half red, right half blue."""
    image = Image.new("RGB", (40, 20), "blue")
    image.paste((255, 0, 0), (0, 0, 20, 20))
    return image


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF"])
def test_every_accepted_format_gives_its_pixels(kind: str) -> None:
    if kind not in supported_formats():
        pytest.skip(f"this Pillow has no {kind}")
    data = encoded(half_red(), kind)
    assert sniff_image(data) == kind
    decoded = decode_image(data)
    assert decoded.source_size == (40, 20)
    rgb = np.asarray(decoded.as_mode("RGB")).astype(int)
    assert rgb.shape == (20, 40, 3)
    assert rgb[10, 5] == pytest.approx([255, 0, 0], abs=12)
    assert rgb[10, 35] == pytest.approx([0, 0, 255], abs=12)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_exif_orientation_is_applied(kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its left side
    decoded = decode_image(encoded(half_red(), kind, exif=exif))
    assert decoded.source_size == (20, 40)
    rgb = np.asarray(decoded.as_mode("RGB")).astype(int)
    assert rgb[5, 10] == pytest.approx([255, 0, 0], abs=12)
    assert rgb[35, 10] == pytest.approx([0, 0, 255], abs=12)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_stands_upright(orientation: int) -> None:
    """Corners of four colours, laid down as a camera of that orientation does, stand where they were seen."""
    upright = Image.new("RGB", (40, 20))
    corners = {(5, 5): (255, 0, 0), (35, 5): (0, 255, 0), (5, 15): (0, 0, 255), (35, 15): (255, 255, 255)}
    for (x, y), colour in corners.items():
        upright.paste(colour, (x - 5, y - 5, x + 5, y + 5))
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }  # fmt: skip
    laid = upright.transpose(undo[orientation]) if orientation in undo else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    decoded = decode_image(encoded(laid, "PNG", exif=exif))
    assert decoded.source_size == (40, 20)
    for place, colour in corners.items():
        assert decoded.as_mode("RGB").getpixel(place) == colour


def test_cmyk_photographs_have_their_colours() -> None:
    """Also those of Adobe's programs, whose four channels are stored the other way round: Pillow's own JPEGs are."""
    yellow = encoded(Image.new("CMYK", (16, 16), (0, 0, 255, 0)), "JPEG", quality=95)
    assert b"Adobe" in yellow[:64]
    red, green, blue = np.asarray(decode_image(yellow).as_mode("RGB"))[8, 8].tolist()
    assert min(red, green) > 180
    assert blue < 80


def test_heic_without_its_plug_in_is_told_what_to_do() -> None:
    if "HEIC" in supported_formats():
        pytest.skip("this installation has the plug-in for HEIC")
    with pytest.raises(UnusableInput) as caught:
        decode_image(b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic")
    assert caught.value.message == (
        "HEIC pictures cannot be opened by this installation: save it as JPEG or PNG, or install pillow-heif."
    )


def test_transparency_lies_on_white() -> None:
    clear = Image.new("RGBA", (4, 4), (10, 20, 30, 0))
    assert decode_image(encoded(clear, "PNG")).as_mode("RGB").getpixel((0, 0)) == (255, 255, 255)
    assert decode_image(encoded(clear, "PNG")).as_mode("L").getpixel((0, 0)) == 255
    grey = Image.new("LA", (4, 4), (0, 128))
    assert decode_image(encoded(grey, "PNG")).as_mode("L").getpixel((0, 0)) == pytest.approx(127, abs=1)


def test_palette_transparency_and_colour_key_lie_on_white() -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 200, 0, 0])
    assert decode_image(encoded(image, "PNG")).as_mode("RGB").getpixel((0, 0)) == (200, 0, 0)
    assert decode_image(encoded(image, "PNG", transparency=1)).as_mode("RGB").getpixel((0, 0)) == (255, 255, 255)
    keyed = encoded(Image.new("RGB", (4, 4), (1, 2, 3)), "PNG", transparency=(1, 2, 3))
    assert decode_image(keyed).as_mode("RGB").getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_not_clipped(kind: str) -> None:
    ramp = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    decoded = decode_image(encoded(Image.fromarray(ramp), kind))
    assert np.asarray(decoded.as_mode("L")).tolist() == [[0, 1, 128, 255]]


def test_float_samples_of_unit_range_are_scaled_and_others_refused() -> None:
    unit = np.array([[0.0, 0.5, 1.0]], dtype=np.float32)
    assert np.asarray(decode_image(encoded(Image.fromarray(unit), "TIFF")).as_mode("L")).tolist() == [[0, 128, 255]]
    with pytest.raises(UnusableInput, match="floating-point") as caught:
        decode_image(encoded(Image.fromarray(unit * 4000), "TIFF"))
    assert caught.value.code == "image_format"


def test_cmyk_and_bilevel_become_rgb() -> None:
    cyan = Image.new("CMYK", (8, 8), (255, 0, 0, 0))
    red, green, blue = np.asarray(decode_image(encoded(cyan, "TIFF")).as_mode("RGB"))[4, 4].tolist()
    assert red < 60
    assert green > 150
    assert blue > 150
    white = Image.new("1", (8, 8), 1)
    assert decode_image(encoded(white, "PNG")).as_mode("L").getpixel((0, 0)) == 255


def test_icc_profile_is_converted_and_a_broken_one_is_said() -> None:
    lab_like = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    image = Image.new("RGB", (4, 4), (120, 60, 200))
    converted = decode_image(encoded(image, "PNG", icc_profile=lab_like))
    plain = decode_image(encoded(image, "PNG"))
    assert converted.note or converted.as_mode("RGB").getpixel((0, 0)) != plain.as_mode("RGB").getpixel((0, 0))
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert decode_image(encoded(image, "PNG", icc_profile=srgb)).as_mode("RGB").getpixel((0, 0)) == (120, 60, 200)
    broken = decode_image(encoded(image, "PNG", icc_profile=b"not a profile"))
    assert broken.note == "colour profile could not be used"
    assert broken.as_mode("RGB").getpixel((0, 0)) == (120, 60, 200)


def test_only_the_first_frame_is_used_and_the_note_says_so() -> None:
    frames = [Image.new("RGB", (6, 6), colour) for colour in ("red", "green", "blue")]
    for kind, note in (
        ("GIF", "first of 3 frames"),
        ("TIFF", "first of 3 pages"),
        ("WEBP", "first of 3 frames"),
        ("PNG", "first of 3 frames"),
    ):
        decoded = decode_image(encoded(frames[0], kind, save_all=True, append_images=frames[1:]))
        assert decoded.note == note
        assert np.asarray(decoded.as_mode("RGB"))[3, 3].astype(int) == pytest.approx([255, 0, 0], abs=12)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "image_invalid"),
        (b"height,width\n1,2\n", "image_format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "image_format"),
        (b"8BPS\x00\x01", "image_format"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image_format"),
        (b"SIMPLE  =                    T", "image_format"),
        (b"BMW,Audi\n1,2\n", "image_format"),
        (b"\xff\xd8\xff", "image_invalid"),
    ],
)
def test_what_is_no_picture_is_refused(data: bytes, code: str) -> None:
    with pytest.raises(UnusableInput) as caught:
        decode_image(data)
    assert caught.value.code == code
    assert caught.value.message.endswith(".")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"])
def test_a_cut_off_picture_is_refused(kind: str) -> None:
    rng = np.random.default_rng(0)
    noisy = Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8))
    data = encoded(noisy, kind)
    with pytest.raises(UnusableInput) as caught:
        decode_image(data[: len(data) // 2])
    assert caught.value.code == "image_invalid"


def png_claiming(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack("!I", len(body)) + kind + body + struct.pack("!I", zlib.crc32(kind + body))

    header = struct.pack("!IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("width", "height"), [(30_001, 1), (1, 30_001), (16_000, 8_001), (30_000, 30_000)])
def test_a_picture_too_large_is_refused_before_its_pixels_are_read(width: int, height: int) -> None:
    with pytest.raises(UnusableInput) as caught:
        decode_image(png_claiming(width, height))
    assert caught.value.code == "image_too_large"


def test_the_largest_sides_are_accepted() -> None:
    assert decode_image(encoded(Image.new("L", (30_000, 1)), "PNG")).source_size == (30_000, 1)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(["JPEG", "PNG", "GIF", "TIFF", "BMP", "WEBP"]), st.data())
def test_a_damaged_picture_never_raises_anything_else(kind: str, draw: st.DataObject) -> None:
    data = bytearray(encoded(half_red(), kind))
    for at in draw.draw(st.lists(st.integers(0, len(data) - 1), min_size=1, max_size=6)):
        data[at] = draw.draw(st.integers(0, 255))
    try:
        decoded = decode_image(bytes(data))
    except UnusableInput:
        return
    assert decoded.as_mode("RGB").size == decoded.source_size


def photograph(size: tuple[int, int], **options: Any) -> bytes:
    """A JPEG with large shapes and fine grain, as a camera makes them."""
    random = np.random.default_rng(7)
    large = Image.fromarray(random.integers(0, 256, (6, 8, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)
    grain = Image.fromarray(random.integers(0, 256, (size[1], size[0], 3), np.uint8))
    return encoded(Image.blend(large, grain, 0.1), "JPEG", quality=90, **options)


@pytest.mark.parametrize(("kind", "options"), [("JPEG", {"subsampling": "4:2:0"}), ("JPEG", {"progressive": True})])
def test_unless_smaller_is_allowed_the_pixels_are_the_references(kind: str, options: dict[str, Any]) -> None:
    data = photograph((500, 375), **options)
    assert np.array_equal(np.asarray(decode_image(data).image), np.asarray(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize(
    ("needed", "decoded"),
    [
        ((400, 300), (400, 300)),
        ((201, 150), (400, 300)),
        ((200, 150), (200, 150)),
        ((60, 90), (200, 150)),
        ((9, 9), (50, 38)),
    ],
)
def test_a_jpeg_is_decoded_smaller_where_enough_is_left(needed: tuple[int, int], decoded: tuple[int, int]) -> None:
    asked: list[tuple[int, int]] = []
    found = decode_image(photograph((400, 300)), lambda size: asked.append(size) or needed)
    assert asked == [(400, 300)]
    assert (found.image.size, found.source_size) == (decoded, (400, 300))
    assert found.area == (None if decoded == (400, 300) else (0, 0, *(side * decoded[0] / 400 for side in (400, 300))))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_side_that_does_not_divide_ends_where_it_ends_in_the_whole_picture(orientation: int) -> None:
    """Resized by where it lies, a picture decoded smaller is the whole one; without, it would be moved by a pixel."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    ramps = np.zeros((113, 201, 3), np.uint8)
    ramps[:, :, 0], ramps[:, :, 1] = np.linspace(0, 255, 201), np.linspace(0, 255, 113)[:, np.newaxis]
    data = encoded(Image.fromarray(ramps), "JPEG", quality=95, subsampling="4:4:4", exif=exif)
    whole = decode_image(data)
    smaller = decode_image(data, lambda _size: (12, 12))
    assert smaller.source_size == whole.image.size
    assert sorted(smaller.image.size) == [15, 26]
    found, expected = (
        np.asarray(each.image.resize((10, 10), Image.Resampling.BILINEAR, each.area)).astype(int)
        for each in (smaller, whole)
    )
    assert np.abs(found - expected).max() <= 3


def test_what_is_needed_is_told_of_the_picture_as_it_stands() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for sides in ((400, 300), (400, 400)):
        upright = sides[::-1]
        found = decode_image(photograph(sides, exif=exif), lambda size: (size[0] // 2, size[1] // 8))
        assert (found.image.size, found.source_size) == ((upright[0] // 2, upright[1] // 2), upright)


def test_of_other_formats_every_pixel_is_decoded() -> None:
    def never(size: tuple[int, int]) -> tuple[int, int]:
        raise AssertionError("only a JPEG can be decoded smaller")

    found = decode_image(encoded(half_red(), "PNG"), never)
    assert found.image.size == found.source_size == (40, 20)


def test_the_largest_picture_is_no_larger_where_it_could_be_decoded_smaller() -> None:
    data = bytearray(encoded(Image.new("L", (8, 8)), "JPEG"))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", 29_000, 29_000)
    with pytest.raises(UnusableInput, match="too large") as caught:
        decode_image(bytes(data), lambda _size: (8, 8))
    assert caught.value.code == "image_too_large"
