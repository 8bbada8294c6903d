"""Encoded pictures to upright 8-bit pixels: the one decoder, for previews in the inspector and input in a worker.

The format is chosen by the first bytes, never by a name, from a fixed list; the size is checked before a pixel is
decoded. A picture that is damaged, cut off or of another kind raises :class:`~engine.errors.UnusableInput`.
"""

from __future__ import annotations

import importlib
import io
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

import numpy as np
from PIL import ExifTags, Image, ImageCms, ImageOps, features
from PIL.JpegImagePlugin import JpegImageFile

from engine.errors import UnusableInput

MAX_PIXELS = 128_000_000
MAX_SIDE = 30_000
COUNT_FRAMES_BELOW = 4 << 20
"""Counting the frames of an animation walks the whole file; above this many bytes the note says "several"."""

Image.MAX_IMAGE_PIXELS = MAX_PIXELS
warnings.simplefilter("error", Image.DecompressionBombWarning)

_HEIC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})
_AVIF_BRANDS = frozenset({b"avif", b"avis"})
_BMP_HEADERS = frozenset({12, 16, 40, 52, 56, 64, 108, 124})
_PLAIN_MODES = frozenset({"L", "LA", "RGB", "RGBA"})
_ROWS_AT_ONCE = 256
_ALWAYS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
_PLUGINS = {"HEIC": "HEIF"}
"""Our name of a format -> Pillow's, where they differ."""
# EXIF orientations (TIFF 6.0, tag 274) of pictures stored with width and height exchanged, and of those whose right or
# lower end, as stored or after that, is seen at the left or at the top.
_LYING, _ENDS_LEFT, _ENDS_ABOVE = frozenset({5, 6, 7, 8}), frozenset({2, 3, 6, 7}), frozenset({3, 4, 7, 8})

Size = tuple[int, int]
Box = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels."""


class PixelBudget:
    """How many pixels several threads hold decoded at once. A thread holds one picture at a time; a picture of ``most``
    pixels waits until it is alone. What is decoded outside of :meth:`shared` is not counted."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._changed = threading.Condition()
        self._held: dict[int, int] = {}

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Count what this thread decodes, each picture until its next one or until the end."""
        me = threading.get_ident()
        with self._changed:
            self._held[me] = 0
        try:
            yield
        finally:
            with self._changed:
                del self._held[me]
                self._changed.notify_all()

    def claim(self, pixels: int) -> None:
        """Wait until a picture of ``pixels`` fits beside those of the other threads, and count it."""
        me = threading.get_ident()
        if me not in self._held:
            return
        with self._changed:
            self._held[me] = 0
            self._changed.notify_all()
            self._changed.wait_for(lambda: sum(self._held.values()) + pixels <= self._most)
            self._held[me] = pixels


PIXELS = PixelBudget(MAX_PIXELS)


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """A picture as people see it. ``image`` has mode L, LA, RGB or RGBA, 8 bits a channel, sRGB, orientation applied.

    ``source_size`` is the (width, height) of the whole picture in pixels; ``image`` is smaller only where that was
    asked for, and ``area`` then is where the picture lies in it: its last column and row may be but partly covered.
    ``note`` tells what was left out ("first of 12 frames"), or is empty.
    """

    image: Image.Image
    source_size: Size
    note: str = ""
    area: Box | None = None

    def as_mode(self, mode: Literal["RGB", "L"]) -> Image.Image:
        """The picture in ``mode``; transparent parts lie on white."""
        image = self.image
        if image.mode in ("LA", "RGBA"):
            alpha = image.getchannel("A")
            opaque = image.convert(image.mode[:-1])
            paper = Image.new(opaque.mode, image.size, "white")
            paper.paste(opaque, mask=alpha)
            image = paper
        return image if image.mode == mode else image.convert(mode)


def sniff_image(data: bytes) -> str | None:
    """The picture format ``data`` starts like: JPEG, PNG, WEBP, BMP, GIF, TIFF, AVIF, HEIC; None for anything else.

    Signatures: ITU T.81 (JPEG SOI), RFC 2083 §3.1 (PNG), RFC 9649 (WebP in RIFF), GIF89a §17, TIFF 6.0 §2,
    ISO 14496-12 §4.3 (``ftyp`` brands of HEIF and AVIF), BITMAPINFOHEADER sizes (BMP).
    """
    head = bytes(data[:64])
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WEBP"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if head.startswith((b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")):
        return "TIFF"
    if head.startswith(b"BM") and int.from_bytes(head[14:18], "little") in _BMP_HEADERS:
        return "BMP"
    if head[4:8] == b"ftyp":
        end = min(int.from_bytes(head[:4], "big"), len(head))
        brands = {head[8:12]} | {head[at : at + 4] for at in range(16, end - 3, 4)}
        if brands & _AVIF_BRANDS:
            return "AVIF"
        if brands & _HEIC_BRANDS:
            return "HEIC"
    return None


def supported_formats() -> tuple[str, ...]:
    """The formats this installation decodes (AVIF and HEIC depend on how Pillow was built and on ``pillow_heif``)."""
    formats = list(_ALWAYS)
    if features.check("avif"):
        formats.append("AVIF")
    if find_spec("pillow_heif") is not None:
        formats.append("HEIC")
    return tuple(formats)


def decode_image(data: bytes, needed: Callable[[Size], Size] | None = None) -> DecodedImage:
    """The first frame of an encoded picture, upright, 8 bits a channel, in sRGB.

    ``needed`` allows a JPEG to be decoded smaller, at 1/2, 1/4 or 1/8 of its sides: of its upright (width, height) it
    tells the least that is to be left of them. Fewer pixels are then computed, which differ slightly from those of the
    whole picture made as small.

    Raises UnusableInput: ``image_format`` (no picture, or a kind not opened here), ``image_too_large`` (more than
    ``MAX_PIXELS`` or a side above ``MAX_SIDE``), ``image_invalid`` (empty, damaged or cut off).
    """
    name = _format_of(data)
    try:
        image = Image.open(io.BytesIO(data), formats=[_PLUGINS.get(name, name)])
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnusableInput(
            f"The picture is too large: at most {MAX_PIXELS // 1_000_000} million pixels are opened.",
            code="image_too_large",
        ) from error
    except Exception as error:
        raise _damaged(name) from error
    _check_size(*image.size)
    try:
        smaller = None
        if needed is not None and isinstance(image, JpegImageFile):
            smaller = _decode_smaller(image, needed)
        PIXELS.claim(image.width * image.height)
        image.load()
        note = _frames_note(image, name, len(data))
        upright, orientation_note = _upright(image)
        plain = _to_eight_bits(upright)
        result, profile_note = _to_srgb(plain, image.info.get("icc_profile"))
    except UnusableInput:
        raise
    except MemoryError as error:
        width, height = image.size
        raise UnusableInput(
            f"The picture ({width} x {height} pixels) does not fit in memory.", code="image_too_large"
        ) from error
    except Exception as error:
        raise _damaged(name) from error
    notes = "; ".join(n for n in (note, orientation_note, profile_note) if n)
    return (
        DecodedImage(result, result.size, notes)
        if smaller is None
        else DecodedImage(result, smaller[0], notes, smaller[1])
    )


def _format_of(data: bytes) -> str:
    if not data:
        raise UnusableInput("The picture is empty (0 bytes).", code="image_invalid")
    name = sniff_image(data)
    if name in _ALWAYS:  # without a look for what may be installed besides, which searches the path
        return name
    formats = supported_formats()
    if name is None:
        expected = ", ".join(formats[:-1]) + " or " + formats[-1]
        raise UnusableInput(f"This is not a picture that can be opened: expected {expected}.", code="image_format")
    if name not in formats:
        remedy = ", or install pillow-heif" if name == "HEIC" else ""
        raise UnusableInput(
            f"{name} pictures cannot be opened by this installation: save it as JPEG or PNG{remedy}.",
            code="image_format",
        )
    if name == "HEIC":
        importlib.import_module("pillow_heif").register_heif_opener()
    return name


def _damaged(name: str) -> UnusableInput:
    return UnusableInput(f"The picture starts like {name}, but is damaged or cut off.", code="image_invalid")


def _check_size(width: int, height: int) -> None:
    if width < 1 or height < 1:
        raise UnusableInput(f"The picture has no pixels ({width} x {height}).", code="image_invalid")
    if width > MAX_SIDE or height > MAX_SIDE or width * height > MAX_PIXELS:
        raise UnusableInput(
            f"The picture is too large ({width} x {height} pixels): at most {MAX_PIXELS // 1_000_000} million pixels "
            f"and {MAX_SIDE:,} a side are opened.",
            code="image_too_large",
        )


def _frames_note(image: Image.Image, name: str, size: int) -> str:
    # A JPEG with a second picture inside (MPO, from phones) is one photo to people.
    if name == "JPEG" or not getattr(image, "is_animated", False):
        return ""
    word = "pages" if name == "TIFF" else "frames"
    if size > COUNT_FRAMES_BELOW:
        return f"first of several {word}"
    first = image.copy()
    count = int(getattr(image, "n_frames", 1))
    # Counting may have moved the file on; what was decoded stays what is shown.
    image.seek(0)
    image.load()
    if image.size != first.size:
        raise ValueError("the first frame changed its size")
    return f"first of {count} {word}"


def _decode_smaller(image: JpegImageFile, needed: Callable[[Size], Size]) -> tuple[Size, Box] | None:
    """Let ``image`` be decoded smaller, if that leaves what is ``needed``: its whole upright size, and where it then
    lies in what is decoded. None where all of it is decoded."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001  # such a picture is shown as it is stored, see _upright
        orientation = None
    lies = orientation in _LYING
    stored = image.size
    whole = stored[::-1] if lies else stored
    least = needed(whole)
    drafted = image.draft(None, least[::-1] if lies else least)
    if drafted is None or image.size == stored:
        return None
    # Sides that 2, 4 or 8 do not divide end within a pixel.
    covered, decoded = (side[::-1] if lies else side for side in (drafted[1][2:], image.size))
    left = decoded[0] - covered[0] if orientation in _ENDS_LEFT else 0.0
    top = decoded[1] - covered[1] if orientation in _ENDS_ABOVE else 0.0
    return whole, (left, top, left + covered[0], top + covered[1])


def _upright(image: Image.Image) -> tuple[Image.Image, str]:
    try:
        # In place: otherwise a picture that stands upright already would be copied.
        ImageOps.exif_transpose(image, in_place=True)
        return image, ""
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001  # Pillow's EXIF reader raises many kinds; viewers show such photos as stored
        return image, "orientation could not be read"


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """``image`` in one of L, LA, RGB, RGBA or CMYK. Raises UnusableInput where samples have no known range."""
    if image.mode in ("L", "RGB") and "transparency" in image.info:
        return image.convert(image.mode + "A")
    if image.mode in _PLAIN_MODES or image.mode == "CMYK":
        return image
    if image.mode.startswith("I") or image.mode == "F":
        return _from_wide_samples(image)
    if image.mode in ("P", "PA"):
        return image.convert("RGBA" if image.has_transparency_data else "RGB")
    if image.mode == "1":
        return image.convert("L")
    if image.mode in ("La", "RGBa"):
        return image.convert("LA" if image.mode == "La" else "RGBA")
    return image.convert("RGB")


def _from_wide_samples(image: Image.Image) -> Image.Image:
    samples = np.asarray(image)
    low, high = float(samples.min()), float(samples.max())
    kind, top, factor = ("floating-point", 1.0, 255.0) if image.mode == "F" else ("32-bit", 65535.0, 255.0 / 65535.0)
    if not (low >= 0.0 and high <= top):
        raise UnusableInput(
            f"The picture has {kind} samples outside 0 to {top:.0f}, whose brightness range is not known.",
            code="image_format",
        )
    scaled = np.empty(samples.shape, np.uint8)
    for row in range(0, len(samples), _ROWS_AT_ONCE):
        part = samples[row : row + _ROWS_AT_ONCE]
        scaled[row : row + _ROWS_AT_ONCE] = np.rint(part * factor)
    return Image.fromarray(scaled)


def _to_srgb(image: Image.Image, profile: bytes | None) -> tuple[Image.Image, str]:
    note = ""
    if profile and image.mode in (*_PLAIN_MODES, "CMYK"):
        try:
            return _apply_profile(image, profile), ""
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            note = "colour profile could not be used"
    return (image.convert("RGB") if image.mode == "CMYK" else image), note


def _apply_profile(image: Image.Image, profile: bytes) -> Image.Image:
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    if "srgb" in (ImageCms.getProfileDescription(source) or "").lower():
        return image.convert("RGB") if image.mode == "CMYK" else image
    alpha = image.getchannel("A") if image.mode in ("LA", "RGBA") else None
    opaque = image if alpha is None else image.convert(image.mode[:-1])
    converted = ImageCms.profileToProfile(opaque, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    if converted is None:
        raise ValueError("colour conversion gave no picture")
    if alpha is not None:
        converted.putalpha(alpha)
    return converted
