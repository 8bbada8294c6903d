"""An answer drawn over its picture, for callers that want to see it: boxes, masks, joints, names.

The picture is upright and of its own size. Masks lie over it in half their colour; what is a picture itself (depth, a
new picture) is given as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageDraw, ImageFont

from engine.errors import UnusableInput
from engine.model_spec import ModelSpec
from engine.palette import CLASS_COLOURS, TEXT_ON_CLASS
from engine.prediction import Predictions
from engine.worker.deep_pixels import encode_png
from engine.worker.images import decode_image

PARAMS = {"masks": "rle", "depth": "viridis"}
"""The forms of an answer that are drawn."""
_OPACITY = 0.5
_LEAST = 0.01
"""Names with less are not drawn, but for the best."""
_LARGEST_FONT, _SMALLEST_FONT = 48, 11


def draw(data: bytes, answer: Predictions, spec: ModelSpec) -> bytes:
    """The picture ``data`` with ``answer`` drawn over it, as PNG. Raises UnusableInput where nothing can be drawn."""
    if isinstance(answer, dict):
        picture = next((answer[name] for name in ("image", "depth") if isinstance(answer.get(name), bytes)), None)
        if picture is None:
            raise UnusableInput("This answer has nothing that can be drawn.", code="unsupported_media_type")
        return bytes(picture)
    image = decode_image(data).as_mode("RGB").copy()
    canvas = _Canvas(image, spec)
    masks = [entry for entry in answer if isinstance(entry, dict) and isinstance(entry.get("mask"), dict)]
    if masks:
        return encode_png(_tinted(np.asarray(image), masks, canvas))
    for entry in answer:
        if not isinstance(entry, dict):
            raise UnusableInput("This answer has nothing that can be drawn.", code="unsupported_media_type")
        canvas.draw(entry)
    return encode_png(np.asarray(image))


class _Canvas:
    def __init__(self, image: Image.Image, spec: ModelSpec) -> None:
        self._pen = ImageDraw.Draw(image)
        self._spec = spec
        self._width = max(2, min(image.size) // 200)
        self._size = min(_LARGEST_FONT, max(_SMALLEST_FONT, min(image.size) // 28))
        self._font = ImageFont.load_default(self._size)
        self._strange: dict[str, int] = {}
        self._line = 0

    def colour(self, label: str) -> str:
        labels = self._spec.labels
        at = labels.index(label) if label in labels else self._strange.setdefault(label, len(self._strange))
        return CLASS_COLOURS[at % len(CLASS_COLOURS)]

    def draw(self, entry: Mapping[str, Any]) -> None:
        label = str(entry.get("label") or "")
        colour = self.colour(label)
        box = entry.get("box")
        if isinstance(box, dict):
            corners = [(box["xmin"], box["ymin"]), (box["xmax"], box["ymax"])]
            self._pen.rectangle(corners, outline=colour, width=self._width)
            self._write(corners[0], _words(entry), colour)
        if isinstance(entry.get("keypoints"), list):
            self._joints(entry["keypoints"], colour)
        elif not isinstance(box, dict) and label and not (self._line and entry.get("score", 1.0) < _LEAST):
            self._line += self._write((0, self._line), _words(entry), colour, above=False)

    def _joints(self, points: Sequence[Mapping[str, Any]], colour: str) -> None:
        places = {str(point["label"]): (point["x"], point["y"]) for point in points}
        for first, second in self._spec.skeleton:
            if first in places and second in places:
                bone = [places[first], places[second]]
                self._pen.line(bone, fill=TEXT_ON_CLASS, width=self._width + 2)
                self._pen.line(bone, fill=colour, width=self._width)
        for x, y in places.values():
            radius = self._width * 2
            self._pen.ellipse([x - radius, y - radius, x + radius, y + radius], fill=colour, outline=TEXT_ON_CLASS)

    def _write(self, place: tuple[float, float], words: str, colour: str, *, above: bool = True) -> int:
        """``words`` on their colour, above ``place`` where there is room, else below; how high they are."""
        left, top, right, bottom = self._pen.textbbox((0, 0), words, font=self._font)
        x, y = place
        height = bottom - top + 2 * self._width
        y = y - height if above and y >= height else y
        self._pen.rectangle([x, y, x + right - left + 2 * self._width, y + height], fill=colour)
        self._pen.text((x + self._width - left, y + self._width - top), words, fill=TEXT_ON_CLASS, font=self._font)
        return int(height)


def _words(entry: Mapping[str, Any]) -> str:
    """``cat 91%``. The font that is always there has Latin letters only; other names are left to the JSON answer."""
    label, score = str(entry.get("label") or ""), entry.get("score")
    known = label if label.isascii() or all(ord(letter) < 0x180 for letter in label) else "?"
    return f"{known} {score:.0%}" if isinstance(score, float) and 0.0 <= score <= 1.0 else known


def _tinted(pixels: NDArray[np.uint8], masks: Sequence[Mapping[str, Any]], canvas: _Canvas) -> NDArray[np.uint8]:
    tinted = pixels.copy()
    for entry in reversed(masks):  # the first lies on top
        seen = _unrolled(entry["mask"], pixels.shape[:2])
        colour = np.array(ImageColor.getrgb(canvas.colour(str(entry.get("label") or ""))), np.float32)
        tinted[seen] = (pixels[seen] * (1 - _OPACITY) + colour * _OPACITY).astype(np.uint8)
    return tinted


def _unrolled(mask: Mapping[str, Any], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """COCO's uncompressed run lengths, column by column, as (height, width)."""
    height, width = mask["size"]
    values = np.repeat((np.arange(len(mask["counts"])) % 2).astype(bool), mask["counts"])
    whole: NDArray[np.bool_] = values.reshape(width, height).T
    assert whole.shape == shape
    return whole
