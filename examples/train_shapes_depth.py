"""Train examples/shapes-depth: how near is what a drawn landscape shows, exported to ONNX.

    .venv/bin/python examples/train_shapes_depth.py

About four minutes on two cores. Shapes stand on a plain in a haze: what is further away is smaller, higher in the
picture, paler, and covered by what stands before it. A small U-Net answers with nearness (1 / distance, 1 at the
lower edge, 0.1 at the horizon) for each pixel; pictures become 128 x 128 pixels. Prints how well it orders the pixels
of held-out pictures (Spearman's rank correlation) and how many distances are right within a quarter, and ends with an
error where the former is not above 0.9. Rewrites the model, the samples and the golden sample; the sidecar is kept by
hand.
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
from scipy.stats import spearmanr
from shapes_data import SIDE, Random
from shapes_golden import export, write_golden
from shapes_landscape import FARTHEST, landscape
from shapes_net import UNet, rate_at, varied
from torch import Tensor, nn
from torch.nn import functional

HERE = Path(__file__).resolve().parent
FOLDER = HERE / "shapes-depth"
SEED = 51
PICTURES = 2400
STEPS = 700
BATCH = 24
HELD_OUT = 150
SAMPLES = (("plain", 400, 300), ("wide", 480, 270), ("square", 320, 320))


class DepthNet(nn.Module):
    """float32 (N, 3, height, width), 0..1 -> nearness (N, height, width), 0.1..1."""

    def __init__(self) -> None:
        super().__init__()
        self.net = UNet(1)

    def forward(self, image: Tensor) -> Tensor:
        least = 1.0 / FARTHEST
        answer: Tensor = least + (1.0 - least) * self.net(image)[:, 0].sigmoid()
        return answer


def train(random: Random) -> DepthNet:
    begun = time.monotonic()
    pictures = np.empty((PICTURES, 3, SIDE, SIDE), np.uint8)
    nearness = np.empty((PICTURES, SIDE, SIDE), np.float32)
    for number in range(PICTURES):
        image, distance = landscape(SIDE, SIDE, random, held_out=False)
        pictures[number], nearness[number] = np.asarray(image).transpose(2, 0, 1), 1.0 / distance
    print(f"{PICTURES} pictures drawn in {time.monotonic() - begun:.0f} s", flush=True)
    model = DepthNet()
    optimiser = torch.optim.AdamW(model.parameters(), weight_decay=0.01)
    total = 0.0
    for step in range(STEPS):
        for group in optimiser.param_groups:
            group["lr"] = rate_at(step, STEPS, 4e-3)
        rows = random.integers(0, PICTURES, BATCH)
        batch = varied(torch.from_numpy(pictures[rows]).float() / 255.0)
        wanted = torch.from_numpy(nearness[rows])
        # Of logarithms: an error of a tenth counts the same near and far.
        value = functional.smooth_l1_loss(model(batch).log(), wanted.log(), beta=0.1)
        optimiser.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]  # torch's stubs lack it
        nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimiser.step()
        total += float(value.detach())
        if step % 50 == 49:
            print(f"step {step + 1}/{STEPS}: loss {total / 50:.4f}, {time.monotonic() - begun:.0f} s", flush=True)
            total = 0.0
    return model.eval()


def nearness_of(model: nn.Module, image: Image.Image) -> np.ndarray:
    """(height, width) of ``image``, from its form of 128 x 128 pixels."""
    small = np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BILINEAR)).transpose(2, 0, 1).copy()
    with torch.inference_mode():
        answer = model(torch.from_numpy(small).float()[None] / 255.0)[:, None]
        grown = functional.interpolate(answer, (image.height, image.width), mode="bilinear", align_corners=False)
    return grown[0, 0].numpy()


def measure(model: nn.Module, random: Random) -> tuple[float, float]:
    """Mean rank correlation over held-out pictures, and the share of distances within a quarter of the true ones."""
    ranks, right = [], []
    for width, height in random.integers(200, 480, (HELD_OUT, 2)):
        image, distance = landscape(int(width), int(height), random, held_out=True)
        found = nearness_of(model, image)
        ranks.append(spearmanr(found.ravel(), (1.0 / distance).ravel()).statistic)
        ratio = found * distance
        right.append(float((np.maximum(ratio, 1.0 / ratio) < 1.25).mean()))
    return float(np.mean(ranks)), float(np.mean(right))


def main() -> None:
    started = time.monotonic()
    torch.manual_seed(SEED)
    torch.set_num_threads(2)
    model = train(np.random.default_rng(SEED))
    random = np.random.default_rng(SEED + 1)
    correlation, within = measure(model, random)
    print(f"held-out pictures: {HELD_OUT}, trained in {time.monotonic() - started:.0f} s")
    print(f"  rank correlation {correlation:.3f}, {within:.1%} of distances within a quarter")
    if correlation <= 0.9:
        raise SystemExit("The model does not work: its rank correlation is not above 0.9.")
    export(model, FOLDER, "nearness")
    samples = FOLDER / "samples"
    samples.mkdir(exist_ok=True)
    for name, width, height in SAMPLES:
        landscape(width, height, random, held_out=True)[0].save(samples / f"{name}.png", optimize=True)
    write_golden(model, FOLDER, "nearness", random)


if __name__ == "__main__":
    main()
