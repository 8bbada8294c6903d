"""Drawn shapes for the detector example: pictures with circles, squares and triangles, and where they are.

The grounds are plain colours, slopes, stripes, noise and cuttings of the two photographs that scikit-learn ships
(``load_sample_images``: china.jpg and flower.jpg, CC BY 2.0). Held-out pictures are cut from parts of the photographs
that no training picture shows.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter
from sklearn.datasets import load_sample_images

Floats = NDArray[np.float32]
Random = np.random.Generator

LABELS = ("circle", "square", "triangle")
SIDE = 128
"""Height and width of the model's input in pixels."""
PAD = 114
_HELD_OUT = 0.72
"""Where the held-out part of a photograph begins, as a share of its width."""
_SUPERSAMPLING = 2


@dataclass(frozen=True, slots=True)
class Scene:
    """A picture with its shapes: ``boxes`` is (N, 4), xmin, ymin, xmax, ymax in its pixels; ``classes`` is (N,);
    ``outlines`` holds the corners of each, (points, 2)."""

    image: Image.Image
    boxes: Floats
    classes: NDArray[np.int64]
    outlines: tuple[Floats, ...] = ()

    def class_map(self) -> NDArray[np.uint8]:
        """(height, width): 0 for the ground, 1 + class where a shape is."""
        drawn = Image.new("L", (self.image.width * _SUPERSAMPLING, self.image.height * _SUPERSAMPLING))
        draw = ImageDraw.Draw(drawn)
        for kind, outline in zip(self.classes, self.outlines, strict=True):
            draw.polygon([tuple(point) for point in outline * _SUPERSAMPLING], fill=int(kind) + 1)
        return np.asarray(drawn.resize(self.image.size, Image.Resampling.NEAREST))


@cache
def photographs() -> tuple[Image.Image, ...]:
    return tuple(Image.fromarray(pixels) for pixels in load_sample_images().images)


def scene(width: int, height: int, random: Random, *, held_out: bool, most: int = 5) -> Scene:
    """One to ``most`` shapes on a ground, ``width`` by ``height`` pixels."""
    large = (width * _SUPERSAMPLING, height * _SUPERSAMPLING)
    image = ground(large, random, held_out)
    boxes: list[tuple[float, float, float, float]] = []
    classes: list[int] = []
    outlines: list[Floats] = []
    for _ in range(int(random.integers(1, most + 1))):
        kind = int(random.integers(len(LABELS)))
        points = _place(kind, large, random)
        box = (*points.min(axis=0), *points.max(axis=0))
        if any(_touch(box, other) for other in boxes):
            continue
        _draw(image, points, random)
        boxes.append(box)
        classes.append(kind)
        outlines.append(points.astype(np.float32) / _SUPERSAMPLING)
    small = image.resize((width, height), Image.Resampling.BOX)
    corners = np.array(boxes, np.float32).reshape(-1, 4) / _SUPERSAMPLING
    return Scene(small, corners, np.array(classes, np.int64), tuple(outlines))


def _touch(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return min(a[2], b[2]) > max(a[0], b[0]) and min(a[3], b[3]) > max(a[1], b[1])


def _place(kind: int, size: tuple[int, int], random: Random) -> NDArray[np.float64]:
    """The outline of a shape inside the picture, 20 % to 50 % of its longer side across, as (points, 2)."""
    corners = (72, 4, 3)[kind]
    turn = random.uniform(-0.35, 0.35) + (np.pi / 4 if kind == 1 else -np.pi / 2)
    angles = turn + np.arange(corners) * 2 * np.pi / corners
    outline = np.stack([np.cos(angles), np.sin(angles)], axis=1) * [1.0, random.uniform(0.85, 1.15)]
    outline -= outline.min(axis=0)
    outline *= random.uniform(0.2, 0.5) * max(size) / outline.max()
    outline *= min(1.0, 0.9 * min(size) / outline.max())
    room = np.maximum(np.array(size) - outline.max(axis=0) - 2, 0)
    return outline + 1 + random.uniform(0, 1, 2) * room


def _draw(image: Image.Image, points: NDArray[np.float64], random: Random) -> None:
    """The shape filled, in a colour that differs from what lies under it; some have a rim."""
    left, top, right, bottom = (int(n) for n in (*points.min(axis=0), *points.max(axis=0)))
    under = np.asarray(image.crop((left, top, right + 1, bottom + 1)), dtype=np.float64).mean(axis=(0, 1))
    colour = random.uniform(0, 255, 3)
    while np.abs(colour - under).sum() < 200:
        colour = random.uniform(0, 255, 3)
    outline = [tuple(point) for point in points]
    draw = ImageDraw.Draw(image)
    draw.polygon(outline, fill=tuple(int(c) for c in colour))
    if random.random() < 0.3:
        rim = tuple(int(c) for c in random.uniform(0, 255, 3))
        draw.line([*outline, outline[0]], fill=rim, width=max(2, max(image.size) // 160))


def ground(size: tuple[int, int], random: Random, held_out: bool) -> Image.Image:
    """What shapes lie on, (width, height) pixels: a part of a photograph, a slope of colours or stripes, with noise."""
    width, height = size
    if random.random() < 0.5:
        return _cutting(size, random, held_out)
    low, high = random.uniform(0, 255, (2, 3))
    across = np.linspace(0, 1, width)[None, :, None] * random.uniform(0, 1)
    down = np.linspace(0, 1, height)[:, None, None] * random.uniform(0, 1)
    share = (across + down) / 2
    if random.random() < 0.3:
        waves = random.uniform(3, 12)
        share = 0.5 + 0.5 * np.sin(2 * np.pi * waves * share)
    pixels = low + (high - low) * share + random.normal(0, random.uniform(0, 14), (height, width, 1))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8), "RGB")


def _cutting(size: tuple[int, int], random: Random, held_out: bool) -> Image.Image:
    """A part of a photograph in the proportions of ``size``, sometimes mirrored, sometimes out of focus."""
    photograph = photographs()[int(random.integers(2))]
    border = int(photograph.width * _HELD_OUT)
    first, last = (border, photograph.width) if held_out else (0, border)
    scale = min((last - first) / size[0], photograph.height / size[1]) * random.uniform(0.5, 1.0)
    width, height = int(size[0] * scale), int(size[1] * scale)
    left = int(random.integers(first, last - width + 1))
    top = int(random.integers(0, photograph.height - height + 1))
    cut = photograph.crop((left, top, left + width, top + height)).resize(size, Image.Resampling.BILINEAR)
    if random.random() < 0.5:
        cut = cut.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return cut.filter(ImageFilter.GaussianBlur(random.uniform(0.5, 4))) if random.random() < 0.4 else cut


def letterboxed(image: Image.Image) -> tuple[NDArray[np.uint8], tuple[float, float, float, float]]:
    """``image`` as the engine feeds it with ``resize = "letterbox"``: (3, SIDE, SIDE), and (scale x, scale y, left,
    top): a point (x, y) of the picture lies at (x * scale x + left, y * scale y + top)."""
    ratio = min(SIDE / image.width, SIDE / image.height)
    width, height = max(1, round(image.width * ratio)), max(1, round(image.height * ratio))
    left, top = round((SIDE - width) / 2 - 0.1), round((SIDE - height) / 2 - 0.1)
    paper = Image.new("RGB", (SIDE, SIDE), (PAD, PAD, PAD))
    paper.paste(image.resize((width, height), Image.Resampling.BILINEAR), (left, top))
    return np.asarray(paper).transpose(2, 0, 1), (width / image.width, height / image.height, left, top)


def average_precision(
    truths: list[Scene], found: list[list[tuple[int, float, tuple[float, float, float, float]]]]
) -> dict[str, float]:
    """AP at an IoU of 0.5 of every class: COCO's 101-point interpolation, each true box matched once, best score first.

    ``found`` holds for each scene (class, score, (xmin, ymin, xmax, ymax)) in the scene's pixels.
    """
    return {label: _class_precision(number, truths, found) for number, label in enumerate(LABELS)}


def _class_precision(
    kind: int, truths: list[Scene], found: list[list[tuple[int, float, tuple[float, float, float, float]]]]
) -> float:
    wanted = [truth.boxes[truth.classes == kind] for truth in truths]
    total = sum(len(boxes) for boxes in wanted)
    claims = sorted(
        ((score, at, box) for at, boxes in enumerate(found) for number, score, box in boxes if number == kind),
        key=lambda claim: -claim[0],
    )
    taken = [np.zeros(len(boxes), dtype=bool) for boxes in wanted]
    right = np.zeros(len(claims))
    for row, (_, at, box) in enumerate(claims):
        overlaps = np.where(taken[at], 0.0, _overlaps(np.array(box), wanted[at]))
        if len(overlaps) and overlaps.max() >= 0.5:
            taken[at][overlaps.argmax()] = True
            right[row] = 1.0
    hits = np.cumsum(right)
    recall, precision = hits / max(total, 1), hits / np.arange(1, len(claims) + 1)
    best_from_here = np.maximum.accumulate(precision[::-1])[::-1]
    places = np.searchsorted(recall, np.linspace(0, 1, 101), side="left")
    return float(np.mean([best_from_here[p] if p < len(claims) else 0.0 for p in places]))


def _overlaps(box: NDArray[np.float64], boxes: Floats) -> NDArray[np.float64]:
    """IoU of one box with each of (N, 4)."""
    sides = np.clip(np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2]), 0, None)
    shared = sides.prod(axis=1)
    union: NDArray[np.float64] = (box[2:] - box[:2]).prod() + (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) - shared
    return shared / union
