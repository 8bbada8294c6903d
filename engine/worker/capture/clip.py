"""A recorded clip: a folder of JPEG pictures, or one animated picture."""

from __future__ import annotations

import io
import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from PIL import Image

from engine.formats.disk import NotRegular, open_regular, reason
from engine.worker.capture.source import CaptureFailed, Facts, Shot
from engine.worker.images import DecodedImage, sniff_image

FOLDER_RATE = 25.0
"""Pictures a second of a folder, which states none."""
MAX_BYTES = 256 << 20
MIN_PERIOD_S = 0.01
DEFAULT_PERIOD_S = 0.1
"""Of an animation that states none, as viewers play it."""
_ANIMATED = {"GIF": "GIF", "WEBP": "WEBP", "PNG": "PNG", "AVIF": "AVIF"}


class Clip:
    """Plays ``path`` over and over; ``rate`` is a folder's."""

    def __init__(self, path: Path, rate: float = FOLDER_RATE) -> None:
        self._path, self._rate = path, rate

    def run(self, opened: Callable[[Facts], None], deliver: Callable[[Shot], None]) -> None:
        shots = self._folder() if self._path.is_dir() else self._animation()
        first, period = next(shots)
        width, height = first.size if isinstance(first, Image.Image) else _size_of(first, self._path.name)
        opened(Facts(self._path.name, width, height, 1.0 / period))
        due = time.monotonic()
        for shot, lasts in itertools.chain([(first, period)], shots):
            deliver(shot)
            # A clip that fell behind goes on from now; it never hurries to catch up.
            due = max(due + lasts, time.monotonic())
            time.sleep(max(0.0, due - time.monotonic()))

    def _folder(self) -> Iterator[tuple[Shot, float]]:
        name = self._path.name
        try:
            paths = sorted(p for p in self._path.iterdir() if p.suffix.lower() in (".jpg", ".jpeg"))
        except OSError as error:
            raise CaptureFailed("clip_unreadable", f"{name} cannot be read: {reason(error)}.") from error
        if not paths:
            raise CaptureFailed("clip_unreadable", f"{name} holds no JPEG pictures.")
        for path in itertools.cycle(paths):
            yield _read(path), 1.0 / self._rate

    def _animation(self) -> Iterator[tuple[Shot, float]]:
        name, data = self._path.name, _read(self._path)
        kind = _ANIMATED.get(sniff_image(data) or "")
        if kind is None:
            raise CaptureFailed("clip_unreadable", f"{name} is not an animated picture: expected GIF, WEBP or PNG.")
        try:
            with Image.open(io.BytesIO(data), formats=[kind]) as image:
                count = int(getattr(image, "n_frames", 1))
                if count < 2:
                    raise CaptureFailed("clip_unreadable", f"{name} holds one picture, not a clip.")
                for at in itertools.cycle(range(count)):
                    image.seek(at)
                    plain = DecodedImage(image.convert("RGBA"), image.size).as_mode("RGB")
                    lasts = float(image.info.get("duration") or 0) / 1000
                    yield plain, max(MIN_PERIOD_S, lasts or DEFAULT_PERIOD_S)
        except CaptureFailed:
            raise
        except Exception as error:
            raise CaptureFailed("clip_unreadable", f"{name} is damaged, cut off or too large.") from error


def _read(path: Path) -> bytes:
    try:
        with open_regular(path) as handle:
            data = handle.read(MAX_BYTES + 1)
    except OSError as error:
        why = "it is not a regular file" if isinstance(error, NotRegular) else reason(error)
        raise CaptureFailed("clip_unreadable", f"{path.name} cannot be read: {why}.") from error
    if len(data) > MAX_BYTES:
        raise CaptureFailed("clip_unreadable", f"{path.name} is larger than {MAX_BYTES >> 20} MiB.")
    return data


def _size_of(jpeg: bytes, name: str) -> tuple[int, int]:
    try:
        with Image.open(io.BytesIO(jpeg), formats=["JPEG"]) as image:
            return image.size
    except Exception as error:
        raise CaptureFailed("clip_unreadable", f"The first picture of {name} is not a JPEG picture.") from error
