"""What a source of pictures is, and what becomes of one picture before it is sent."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from PIL import Image, ImageOps

from engine.protocol import Buffer
from engine.worker import images

PREVIEW_SIDE = 960
"""Pixels on the longer side of what the window shows."""
JPEG_QUALITY = 92
CODES = ("camera_missing", "camera_refused", "camera_busy", "camera_lost", "camera_support", "clip_unreadable")

Shot = bytes | Image.Image
"""One picture: JPEG as the source gave it, or RGB pixels."""


class CaptureFailed(Exception):
    """The source gives nothing (any more). ``code`` is one of :data:`CODES`, the message one sentence."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        assert code in CODES
        self.code, self.message = code, message


@dataclass(frozen=True, slots=True)
class Facts:
    """``rate`` in pictures a second, 0 where the source does not say."""

    name: str
    width: int
    height: int
    rate: float


class Source(Protocol):
    """A camera or a clip."""

    def run(self, opened: Callable[[Facts], None], deliver: Callable[[Shot], None]) -> None:
        """Call ``opened`` once, then ``deliver`` for every picture, and never return. Raises CaptureFailed."""


def prepare(shot: Shot) -> tuple[dict[str, Any], list[Buffer]]:
    """A picture as the header's fields and its two buffers: JPEG, and an upright RGB preview.

    Raises ValueError where it is no whole JPEG.
    """
    if isinstance(shot, bytes):
        if images.sniff_image(shot) != "JPEG":
            raise ValueError("not a JPEG picture")
        jpeg = shot
        try:
            preview, size = _preview_of(jpeg)
        except Exception as error:
            raise ValueError(f"not a whole picture: {error}") from error
    else:
        stream = io.BytesIO()
        shot.save(stream, "JPEG", quality=JPEG_QUALITY)
        jpeg, preview, size = stream.getvalue(), shot.copy(), shot.size
    preview.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE), Image.Resampling.BILINEAR)
    return {"width": preview.width, "height": preview.height, "source_size": list(size)}, [jpeg, preview.tobytes()]


def _preview_of(jpeg: bytes) -> tuple[Image.Image, tuple[int, int]]:
    """The picture at about the preview's size, and its own size as people see it."""
    image = Image.open(io.BytesIO(jpeg), formats=["JPEG"])
    width, height = image.size
    # The model gets every pixel; only what is looked at is decoded smaller, where the format makes that cheap.
    image.draft("RGB", (PREVIEW_SIDE, PREVIEW_SIDE))
    image.load()
    upright = ImageOps.exif_transpose(image)
    turned = (upright.width > upright.height) != (image.width > image.height)
    return upright.convert("RGB"), (height, width) if turned else (width, height)
