"""Train examples/shapes-segmenter: which pixels are circle, square or triangle, exported to ONNX.

    .venv/bin/python examples/train_shapes_segmenter.py

About four minutes on two cores. A small U-Net on the detector's pictures; its answer are logits of four classes, the
ground first, for each 2 x 2 pixels; pictures become 128 x 128 pixels. Prints the IoU of each class on held-out
pictures and ends with an error where the mean is not above 0.8. Rewrites the model, the samples and the golden
sample; the sidecar is kept by hand.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

# Threads that spin while they wait keep each other from the cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from PIL import Image
from shapes_data import LABELS, SIDE, Random, Scene, letterboxed, scene
from shapes_golden import export, write_golden
from shapes_net import UNet, rate_at, varied
from torch import nn
from torch.nn import functional

HERE = Path(__file__).resolve().parent
FOLDER = HERE / "shapes-segmenter"
SEED = 41
CLASSES = ("ground", *LABELS)
PICTURES = 2400
STEPS = 1200
BATCH = 32
WIDTHS = (24, 40, 56, 64)
HELD_OUT = 150
SAMPLES = (("photo", 400, 300, 2), ("tall", 270, 400, 3), ("wide", 480, 270, 4))


def drawn(random: Random) -> tuple[np.ndarray, np.ndarray]:
    """One training picture, (3, SIDE, SIDE) bytes, and the class of each of its pixels; 255 beside it."""
    short = int(random.uniform(0.55, 1.0) * SIDE)
    width, height = (SIDE, short) if random.random() < 0.5 else (short, SIDE)
    made = scene(width, height, random, held_out=False)
    pixels, (_, _, left, top) = letterboxed(made.image)
    classes = np.full((SIDE, SIDE), 255, np.uint8)
    classes[int(top) : int(top) + height, int(left) : int(left) + width] = made.class_map()
    return pixels, classes


def train(random: Random) -> UNet:
    begun = time.monotonic()
    pictures, classes = (np.stack(part) for part in zip(*(drawn(random) for _ in range(PICTURES)), strict=True))
    print(f"{PICTURES} pictures drawn in {time.monotonic() - begun:.0f} s", flush=True)
    model = UNet(len(CLASSES), WIDTHS, stride=2)
    # The ground is most of every picture.
    weights = torch.tensor([0.3, *[1.0] * len(LABELS)])
    optimiser = torch.optim.AdamW(model.parameters(), weight_decay=0.01)
    total = 0.0
    for step in range(STEPS):
        for group in optimiser.param_groups:
            group["lr"] = rate_at(step, STEPS, 4e-3)
        rows = random.integers(0, PICTURES, BATCH)
        batch = varied(torch.from_numpy(pictures[rows]).float() / 255.0)
        wanted = torch.from_numpy(classes[rows]).long()
        logits = functional.interpolate(model(batch), scale_factor=2.0, mode="bilinear", align_corners=False)
        value = functional.cross_entropy(logits, wanted, weights, ignore_index=255)
        optimiser.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]  # torch's stubs lack it
        nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimiser.step()
        total += float(value.detach())
        if step % 50 == 49:
            print(f"step {step + 1}/{STEPS}: loss {total / 50:.3f}, {time.monotonic() - begun:.0f} s", flush=True)
            total = 0.0
    return model.eval()


def segment(model: nn.Module, image: Image.Image) -> np.ndarray:
    """The class of each pixel of ``image``, (height, width): logits enlarged linearly, the highest wins."""
    pixels, (scale_x, scale_y, left, top) = letterboxed(image)
    with torch.inference_mode():
        logits = model(torch.from_numpy(pixels.copy()).float()[None] / 255.0)
        logits = functional.interpolate(logits, scale_factor=2.0, mode="bilinear", align_corners=False)
        width, height = round(image.width * scale_x), round(image.height * scale_y)
        inside = logits[:, :, int(top) : int(top) + height, int(left) : int(left) + width]
        grown = functional.interpolate(inside, (image.height, image.width), mode="bilinear", align_corners=False)
    return grown[0].argmax(dim=0).numpy()


def overlaps(model: nn.Module, truths: list[Scene]) -> dict[str, float]:
    """IoU of every class over all pixels of all pictures."""
    shared, either = np.zeros(len(CLASSES)), np.zeros(len(CLASSES))
    for truth in truths:
        found, wanted = segment(model, truth.image), truth.class_map()
        for number in range(len(CLASSES)):
            shared[number] += ((found == number) & (wanted == number)).sum()
            either[number] += ((found == number) | (wanted == number)).sum()
    # A class that is nowhere and is found nowhere is right.
    return dict(zip(CLASSES, np.where(either > 0, shared / np.maximum(either, 1), 1.0).tolist(), strict=True))


def write_samples(model: nn.Module, random: Random) -> None:
    """Held-out pictures that the model reads rightly: a sample shows what an answer looks like, how often it is right
    is said by the figure in README.md."""
    samples = FOLDER / "samples"
    samples.mkdir(exist_ok=True)
    for name, width, height, count in SAMPLES:
        made = scene(width, height, random, held_out=True, most=count + 2)
        while len(made.classes) != count or min(overlaps(model, [made]).values()) < 0.9:
            made = scene(width, height, random, held_out=True, most=count + 2)
        made.image.save(samples / f"{name}.png", optimize=True)


def main() -> None:
    started = time.monotonic()
    torch.manual_seed(SEED)
    torch.set_num_threads(2)
    model = train(np.random.default_rng(SEED))
    random = np.random.default_rng(SEED + 1)
    sides = random.integers(200, 480, (HELD_OUT, 2))
    found = overlaps(model, [scene(int(w), int(h), random, held_out=True) for w, h in sides])
    mean = sum(found.values()) / len(found)
    print(f"held-out pictures: {HELD_OUT}, trained in {time.monotonic() - started:.0f} s")
    print(f"  mean IoU {mean:.3f} ({', '.join(f'{label} {value:.3f}' for label, value in found.items())})")
    if mean <= 0.8:
        raise SystemExit("The model does not work: its mean IoU is not above 0.8.")
    export(model, FOLDER, "logits")
    write_samples(model, random)
    write_golden(model, FOLDER, "logits", random)


if __name__ == "__main__":
    main()
