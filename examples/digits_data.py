"""Handwritten digits for both digit examples: the data, the pictures made of it, and what every example folder holds.

The data is scikit-learn's ``load_digits``: 1,797 digits written by 43 people, 8×8 pixels with values 0..16 (the test
part of UCI's "Optical Recognition of Handwritten Digits", CC BY 4.0). Every fifth digit is held out, class by class.

A model trained on bare 8×8 pixels is lost on a photograph, so it is trained on 32×32 pictures that vary as photographs
do: ink darker or lighter than the ground, thin and thick strokes, off-centre, turned, small in the frame, uneven light.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from sklearn.datasets import load_digits

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Predict = Callable[[Floats], Floats]
"""(N, 32, 32) grey pictures with values 0..255 -> (N, 10) probabilities."""

SIDE = 32
MAP_SIDE = 40
SEED = 20
LABELS = tuple(str(digit) for digit in range(10))
HERE = Path(__file__).resolve().parent
SAMPLE_SIDES = (320, 280, 360, 300, 240, 400, 320, 340, 300, 260)
"""Sample n is this many pixels high; its width follows from ``SAMPLE_ASPECTS``."""
SAMPLE_ASPECTS = (1.0, 1.0, 1.1, 1.0, 1.0, 0.9, 1.0, 1.0, 1.0, 1.0)
INKS = ((34, 40, 66), (28, 28, 30), (58, 42, 36), (24, 46, 84), (40, 40, 44))
PAPERS = ((246, 243, 234), (250, 250, 248), (236, 238, 240), (244, 236, 220), (252, 249, 240))


def split() -> tuple[Floats, Ints, Floats, Ints]:
    """(train ink, train classes, held-out ink, held-out classes); ink is (N, 8, 8), 0 paper .. 1 ink."""
    bunch = load_digits()
    ink, classes = (bunch.images / 16.0).astype(np.float32), bunch.target.astype(np.int64)
    held = np.zeros(len(classes), dtype=bool)
    for digit in range(10):
        held[np.flatnonzero(classes == digit)[::5]] = True
    return ink[~held], classes[~held], ink[held], classes[held]


def smooth(ink: Floats, side: int) -> Floats:
    """One 8×8 digit as a (side, side) map of ink, 0..1, its strokes upscaled without steps."""
    padded = np.pad(ink, 1)
    large: Floats = ndimage.zoom(padded, side / padded.shape[0], order=3, mode="grid-constant", grid_mode=True)
    return np.clip(large, 0.0, 1.0)


def stroke(density: Floats, threshold: float, hardness: float) -> Floats:
    """Ink density to a pen's line: a higher ``threshold`` is a thinner line, a higher ``hardness`` a sharper edge."""
    line: Floats = 1.0 / (1.0 + np.exp(-hardness * (density - threshold)))
    return line


def augmented(maps: Floats, random: np.random.Generator) -> Floats:
    """(N, 40, 40) maps of ink -> (N, 32, 32) grey values 0..255, every picture varied on its own."""
    return np.stack([_photograph(_placed(density, random), random) for density in maps])


def _placed(density: Floats, random: np.random.Generator) -> Floats:
    """The digit turned, sheared, scaled and moved inside a 32×32 frame; 40 % to all of the frame high."""
    height = random.uniform(0.42, 1.02) * SIDE
    scale = density.shape[0] / height
    angle, shear = np.deg2rad(random.uniform(-14, 14)), random.uniform(-0.18, 0.18)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = scale * turn @ np.array([[1.0, 0.0], [shear, 1.0]]) @ np.diag([1.0, random.uniform(0.8, 1.25)])
    room = max(2.0, (SIDE - height) / 2)
    middle = SIDE / 2 - 0.5 + random.uniform(-room, room, size=2) * 0.8
    offset = np.full(2, density.shape[0] / 2 - 0.5) - matrix @ middle
    # A frame smaller than the map would skip pixels of a thin stroke: blur as an antialiased resize does.
    softened = ndimage.gaussian_filter(density, max(0.0, scale - 1.0) * 0.5)
    line = stroke(softened, random.uniform(0.28, 0.6), random.uniform(6, 22))
    placed: Floats = ndimage.affine_transform(line, matrix, offset, (SIDE, SIDE), order=1)
    return placed


def _photograph(line: Floats, random: np.random.Generator) -> Floats:
    """Ink on a ground, dark on light or light on dark, under uneven light, with some blur and noise."""
    ground, mark = random.uniform(150, 255), random.uniform(0, 90)
    if random.random() < 0.5:
        ground, mark = 255 - ground, 255 - mark
    picture = ground + (mark - ground) * ndimage.gaussian_filter(line, random.uniform(0, 0.7))
    slope = np.linspace(-1, 1, SIDE)
    tilt = random.uniform(-20, 20, size=2)
    picture = picture + tilt[0] * slope[:, None] + tilt[1] * slope[None, :]
    picture = picture + random.normal(0, random.uniform(0, 8), size=picture.shape)
    return np.clip(picture, 0, 255).astype(np.float32)


def plain(ink: Floats, inverted: bool = False) -> Floats:
    """The held-out pictures of the stated accuracy: centred digits, nothing varied; black on white unless inverted."""
    out = np.stack([stroke(_fitted(digit), 0.45, 12.0) for digit in ink])
    return ((out if inverted else 1.0 - out) * 255).astype(np.float32)


def _fitted(digit: Floats) -> Floats:
    frame: Floats = np.pad(smooth(digit, 26), 3)
    return frame


def epochs(
    ink: Floats, classes: Ints, count: int, copies: int, random: np.random.Generator
) -> Iterator[tuple[Floats, Ints]]:
    """``count`` times: ``copies`` freshly varied pictures of every digit, shuffled."""
    maps = np.stack([smooth(digit, MAP_SIDE) for digit in ink])
    for _ in range(count):
        pictures = np.concatenate([augmented(maps, random) for _ in range(copies)])
        order = random.permutation(len(pictures))
        yield pictures[order], np.tile(classes, copies)[order]


def model_input(path: Path) -> Floats:
    """A picture file as the engine feeds it to the model: grey, stretched to 32×32 with bilinear antialiasing."""
    with Image.open(path) as image:
        grey = image.convert("L").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return np.asarray(grey, dtype=np.float32)[None]


def render(digit: Floats, index: int, random: np.random.Generator) -> Image.Image:
    """A held-out digit as a scan a person might have: coloured ink on tinted paper with grain, RGB, 240–400 px."""
    height = SAMPLE_SIDES[index % len(SAMPLE_SIDES)]
    width = round(height * SAMPLE_ASPECTS[index % len(SAMPLE_ASPECTS)])
    inner = round(min(width, height) * random.uniform(0.72, 0.86))
    density = ndimage.rotate(smooth(digit, inner), random.uniform(-6, 6), reshape=False, order=1)
    top, left = (height - inner) // 2, (width - inner) // 2
    line = np.zeros((height, width), dtype=np.float32)
    line[top : top + inner, left : left + inner] = stroke(density, 0.5, 30.0)
    ink, paper = np.array(INKS[index % len(INKS)]), np.array(PAPERS[index % len(PAPERS)])
    rgb = paper + (ink - paper) * line[..., None]
    light = np.linspace(0, -10, width)[None, :, None] + np.linspace(0, -6, height)[:, None, None]
    grain = ndimage.gaussian_filter(random.normal(0, 6, size=(height, width)), 1.5)[..., None]
    return Image.fromarray(np.clip(rgb + light + grain, 0, 255).astype(np.uint8), "RGB")


def accuracy(predict: Predict, pictures: Floats, classes: Ints) -> float:
    return float((predict(pictures).argmax(axis=1) == classes).mean())


def report(predict: Predict, ink: Floats, classes: Ints, started: float) -> None:
    """Print the figures that README.md states."""
    maps = np.stack([smooth(digit, MAP_SIDE) for digit in ink])
    random = np.random.default_rng(SEED + 1)
    print(f"held-out digits: {len(classes)}, trained in {time.monotonic() - started:.0f} s")
    print(f"  dark on light     {accuracy(predict, plain(ink), classes):.1%}")
    print(f"  light on dark     {accuracy(predict, plain(ink, inverted=True), classes):.1%}")
    print(f"  varied as a photo {accuracy(predict, augmented(maps, random), classes):.1%}")


def write_samples(folder: Path, ink: Floats, classes: Ints, predict: Predict, nth: int, golden_nth: int) -> None:
    """Ten samples, the ``nth`` held-out writing of every digit, and the golden sample, the ``golden_nth`` three, with
    the answer this model gives."""
    random = np.random.default_rng(SEED + nth)
    samples, golden = folder / "samples", folder / "golden"
    for target in (samples, golden):
        target.mkdir(parents=True, exist_ok=True)
    for digit in range(10):
        rows = np.flatnonzero(classes == digit)
        render(ink[rows[nth]], digit, random).save(samples / f"digit-{digit}.png", optimize=True)
    rows = np.flatnonzero(classes == 3)
    render(ink[rows[golden_nth]], 3, random).save(golden / "input.png", optimize=True)
    scores = predict(model_input(golden / "input.png"))[0]
    order = np.argsort(-scores)
    expected: dict[str, Any] = {
        "input": "input.png",
        "params": {"top_k": 10},
        "predictions": [{"label": LABELS[i], "score": round(float(scores[i]), 6)} for i in order],
        "tolerance": 0.01,
    }
    (golden / "expected.json").write_text(json.dumps(expected, indent=2) + "\n", encoding="utf-8")
    for path in sorted(samples.glob("*.png")):
        best = int(predict(model_input(path))[0].argmax())
        print(f"  {path.name}: {LABELS[best]}")
