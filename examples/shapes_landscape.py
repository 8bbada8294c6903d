"""Drawn landscapes whose depth is known: shapes that stand on a plain, in a haze."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from shapes_data import Floats, Random, ground

FARTHEST = 10.0
"""The distance of the horizon and of all behind it; that of the plain at the lower edge is 1."""
_SUPERSAMPLING = 2
_HAZE = 6.0
"""The distance within which a colour loses two thirds to the haze."""


def landscape(width: int, height: int, random: Random, *, held_out: bool) -> tuple[Image.Image, Floats]:
    """A picture and the distance of each of its pixels, (height, width), 1 to ``FARTHEST``."""
    wide, high = width * _SUPERSAMPLING, height * _SUPERSAMPLING
    horizon = int(random.uniform(0.2, 0.45) * high)
    rows = np.maximum(np.arange(high) - horizon, 1e-3)
    plain = np.clip((high - 1 - horizon) / rows, 1.0, FARTHEST)
    distance = np.repeat(np.where(np.arange(high) <= horizon, FARTHEST, plain)[:, None], wide, axis=1)
    pixels = np.asarray(ground((wide, high), random, held_out)).astype(np.float64)
    sky, soil = random.uniform(90, 255, 3), random.uniform(20, 200, 3)
    pixels[:horizon] = 0.3 * pixels[:horizon] + 0.7 * sky
    pixels[horizon:] = 0.5 * pixels[horizon:] + 0.5 * soil
    for away in sorted(np.exp(random.uniform(0.1, np.log(FARTHEST * 0.8), int(random.integers(3, 9)))), reverse=True):
        covered = _card((wide, high), horizon, float(away), random)
        pixels[covered] = random.uniform(0, 255, 3)
        distance[covered] = away
    kept = np.exp(-(distance - 1.0) / _HAZE)[..., None]
    pixels = pixels * kept + sky * (1.0 - kept) + random.normal(0, 4, pixels.shape)
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8), "RGB")
    small = image.resize((width, height), Image.Resampling.BOX)
    # Not averaged: between two things there is nothing.
    return small, distance[::_SUPERSAMPLING, ::_SUPERSAMPLING].astype(np.float32)


def _card(size: tuple[int, int], horizon: int, away: float, random: Random) -> NDArray[np.bool_]:
    """Where a circle, a square or a triangle of one true height stands at a distance of ``away``, (height, width)."""
    wide, high = size
    foot = horizon + (high - 1 - horizon) / away
    tall = random.uniform(0.55, 0.75) * high / away
    broad = tall * random.uniform(0.7, 1.2)
    left = random.uniform(-0.3 * broad, wide - 0.7 * broad)
    box = (left, foot - tall, left + broad, foot)
    mask = Image.new("1", size)
    draw = ImageDraw.Draw(mask)
    kind = int(random.integers(3))
    if kind == 0:
        draw.ellipse(box, fill=1)
    elif kind == 1:
        draw.rectangle(box, fill=1)
    else:
        draw.polygon([(left, foot), (left + broad, foot), (left + broad / 2, foot - tall)], fill=1)
    return np.asarray(mask)
