"""Drawn figures of sticks whose joints are known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from shapes_data import Floats, Random, ground

POINTS = ("head", "neck", "hip", "right_hand", "left_hand", "right_foot", "left_foot")
"""As the figure itself would say it, facing the viewer: its right hand is on the left of the picture."""
SKELETON = ((0, 1), (1, 2), (1, 3), (1, 4), (2, 5), (2, 6))
SWAPPED = (0, 1, 2, 4, 3, 6, 5)
"""Which point becomes which in a mirror."""
_SUPERSAMPLING = 2


@dataclass(frozen=True, slots=True)
class Figures:
    """A picture with its figures: ``boxes`` (N, 4) and ``points`` (N, 7, 2) in its pixels; ``visible`` (N, 7)
    is 0 where something covers a point."""

    image: Image.Image
    boxes: Floats
    points: Floats
    visible: Floats


def figures(width: int, height: int, random: Random, *, held_out: bool, most: int = 3) -> Figures:
    """One to ``most`` figures that do not touch, on a ground, ``width`` by ``height`` pixels."""
    size = (width * _SUPERSAMPLING, height * _SUPERSAMPLING)
    image = ground(size, random, held_out)
    boxes: list[NDArray[np.float64]] = []
    points: list[NDArray[np.float64]] = []
    visible: list[NDArray[np.float64]] = []
    wanted = int(random.integers(1, most + 1))
    for _ in range(4 * wanted):
        if len(boxes) == wanted:
            break
        joints, radius = _figure(size, random)
        around = joints.copy()
        around[0] -= [0, radius]
        low, high = around.min(axis=0) - 0.4 * radius, around.max(axis=0) + 0.4 * radius
        if (low < 1).any() or (high > np.array(size) - 2).any():
            continue
        if any((np.minimum(high, b[2:]) > np.maximum(low, b[:2])).all() for b in boxes):
            continue
        _draw(image, joints, radius, random)
        boxes.append(np.concatenate([low, high]))
        points.append(joints)
        visible.append(_cover(image, joints, radius, random))
    small = image.resize((width, height), Image.Resampling.BOX)
    return Figures(
        small,
        np.array(boxes, np.float32).reshape(-1, 4) / _SUPERSAMPLING,
        np.array(points, np.float32).reshape(-1, len(POINTS), 2) / _SUPERSAMPLING,
        np.array(visible, np.float32).reshape(-1, len(POINTS)),
    )


def _figure(size: tuple[int, int], random: Random) -> tuple[NDArray[np.float64], float]:
    """(7, 2) points somewhere in the picture, and the radius of the head."""
    tall = random.uniform(0.5, 0.9) * min(size)
    radius = 0.11 * tall
    lean = random.uniform(-0.12, 0.12)
    hip = np.array([random.uniform(0.15, 0.85) * size[0], random.uniform(0.45, 0.7) * size[1]])
    neck = hip + tall * np.array([np.sin(lean) * 0.32, -np.cos(lean) * 0.32])
    head = neck + 1.25 * radius * np.array([np.sin(lean), -np.cos(lean)])

    def limb(start: NDArray[np.float64], length: float, low: float, high: float, side: int) -> NDArray[np.float64]:
        angle = random.uniform(low, high)  # from straight down towards the side
        return start + tall * length * np.array([side * np.sin(angle), np.cos(angle)])

    hands = [limb(neck, 0.34, 0.25, 2.6, side) for side in (-1, 1)]
    feet = [limb(hip, 0.36, 0.12, 0.8, side) for side in (-1, 1)]
    return np.stack([head, neck, hip, *hands, *feet]), radius


def _draw(image: Image.Image, joints: NDArray[np.float64], radius: float, random: Random) -> None:
    left, top = np.maximum(joints.min(axis=0), 0)
    right, bottom = joints.max(axis=0)
    under = np.asarray(image.crop((int(left), int(top), int(right) + 1, int(bottom) + 1)), np.float64).mean(axis=(0, 1))
    colour = random.uniform(0, 255, 3)
    while np.abs(colour - under).sum() < 240:
        colour = random.uniform(0, 255, 3)
    paint = tuple(int(c) for c in colour)
    draw = ImageDraw.Draw(image)
    thick = max(3, int(radius * random.uniform(0.35, 0.6)))
    for start, end in SKELETON:
        draw.line([tuple(joints[start]), tuple(joints[end])], fill=paint, width=thick)
    for point in joints[1:]:
        x, y = point
        draw.ellipse((x - thick / 2, y - thick / 2, x + thick / 2, y + thick / 2), fill=paint)
    x, y = joints[0]
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=paint)


def _cover(image: Image.Image, joints: NDArray[np.float64], radius: float, random: Random) -> NDArray[np.float64]:
    """Now and then a spot over a hand or a foot; which points can still be seen."""
    seen = np.ones(len(joints))
    if random.random() < 0.3:
        hidden = int(random.integers(3, len(joints)))
        x, y = joints[hidden]
        spot = 1.1 * radius
        paint = tuple(int(c) for c in random.uniform(0, 255, 3))
        ImageDraw.Draw(image).ellipse((x - spot, y - spot, x + spot, y + spot), fill=paint)
        seen[hidden] = 0.0
    return seen
