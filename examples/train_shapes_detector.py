"""Train examples/shapes-detector: a tiny detector of drawn circles, squares and triangles, exported to ONNX.

    .venv/bin/python examples/train_shapes_detector.py

About five minutes on two cores. Its head is that of YOLOv8: one row for each of 4 + classes numbers, one column for
each cell of the grids of strides 8, 16 and 32; boxes as middle, width and height in pixels of the 128 x 128 input,
scores after a sigmoid. Prints the mAP50 on held-out pictures and ends with an error where it is not above 0.8. Rewrites
the model, the samples and the golden sample; the sidecar is kept by hand.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

# Threads that spin while they wait keep each other from the cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from PIL import Image
from shapes_data import LABELS, SIDE, Floats, Random, Scene, average_precision, letterboxed, scene
from shapes_net import STRIDES, Trunk, assigned, box_loss, grid, rate_at, score_loss, varied
from torch import Tensor, nn
from torch.nn import functional

HERE = Path(__file__).resolve().parent
FOLDER = HERE / "shapes-detector"
SEED = 20
PICTURES = 3000
STEPS = 800
BATCH = 32
HELD_OUT = 200
SAMPLES = (("photo", 400, 300), ("wide", 480, 270), ("tall", 270, 400), ("square", 320, 320), ("crowd", 420, 320),
           ("small", 240, 180))  # fmt: skip


class Detector(nn.Module):
    """float32 (N, 3, 128, 128), 0..1 -> (N, 4 + classes, 336): see the module."""

    cells: Tensor
    strides: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.trunk = Trunk()
        self.heads = nn.ModuleList([nn.Conv2d(48, 4 + len(LABELS), 1) for _ in STRIDES])
        for head in self.heads:
            assert isinstance(head, nn.Conv2d)
            assert head.bias is not None
            # Most cells hold nothing: begin with a score of 1 %, so that they do not drown the others.
            nn.init.constant_(head.bias[4:], -4.6)
        cells, strides = grid()
        self.register_buffer("cells", torch.from_numpy(cells))
        self.register_buffer("strides", torch.from_numpy(strides))

    def raw(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 336, 4) distances from a cell's middle to left, top, right and bottom in pixels, and class logits."""
        levels = zip(self.heads, self.trunk(pictures), strict=True)
        rows = torch.cat([head(x).flatten(2) for head, x in levels], dim=2).transpose(1, 2)
        return functional.softplus(rows[..., :4]) * self.strides, rows[..., 4:]

    def forward(self, images: Tensor) -> Tensor:
        distances, logits = self.raw(images)
        low, high = self.cells - distances[..., :2], self.cells + distances[..., 2:]
        return torch.cat([(low + high) / 2, high - low, logits.sigmoid()], dim=2).transpose(1, 2)


def targets(boxes: Floats, classes: np.ndarray) -> tuple[Floats, Floats]:
    """(336, 4) distances and (336, classes) scores that the cells are to give for boxes in pixels of the input."""
    cells, _ = grid()
    owners = assigned(boxes)
    distances, scores = np.zeros((len(cells), 4), np.float32), np.zeros((len(cells), len(LABELS)), np.float32)
    mine = owners >= 0
    distances[mine] = np.concatenate([cells[mine] - boxes[owners[mine], :2], boxes[owners[mine], 2:] - cells[mine]], 1)
    scores[mine, classes[owners[mine]]] = 1.0
    return distances, scores


def loss(distances: Tensor, logits: Tensor, wanted: Tensor, scores: Tensor) -> Tensor:
    positive = scores.amax(dim=2) > 0
    count = positive.sum().clamp(min=1)
    return (score_loss(logits, scores) + 2.0 * box_loss(distances[positive], wanted[positive])) / count


def drawn(random: Random) -> tuple[np.ndarray, Floats, Floats]:
    """One training picture, (3, SIDE, SIDE) bytes, with what the cells are to give."""
    short = int(random.uniform(0.55, 1.0) * SIDE)
    width, height = (SIDE, short) if random.random() < 0.5 else (short, SIDE)
    made = scene(width, height, random, held_out=False)
    pixels, (scale_x, scale_y, left, top) = letterboxed(made.image)
    boxes = made.boxes * [scale_x, scale_y, scale_x, scale_y] + [left, top, left, top]
    return pixels, *targets(boxes.astype(np.float32), made.classes)


def train(random: Random) -> Detector:
    begun = time.monotonic()
    pictures, distances, scores = (
        np.stack(part) for part in zip(*(drawn(random) for _ in range(PICTURES)), strict=True)
    )
    print(f"{PICTURES} pictures drawn in {time.monotonic() - begun:.0f} s")
    model = Detector()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)
    total = 0.0
    for step in range(STEPS):
        for group in optimiser.param_groups:
            group["lr"] = rate_at(step, STEPS, 3e-3)
        rows = random.integers(0, PICTURES, BATCH)
        batch = varied(torch.from_numpy(pictures[rows]).float() / 255.0)
        value = loss(*model.raw(batch), torch.from_numpy(distances[rows]), torch.from_numpy(scores[rows]))
        optimiser.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]  # torch's stubs lack it
        nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimiser.step()
        total += float(value.detach())
        if step % 50 == 49:
            print(f"step {step + 1}/{STEPS}: loss {total / 50:.3f}, {time.monotonic() - begun:.0f} s", flush=True)
            total = 0.0
    return model.eval()


def detect(
    model: nn.Module, image: Image.Image, least: float
) -> list[tuple[int, float, tuple[float, float, float, float]]]:
    """(class, score, box in pixels of ``image``), best first, one box for boxes of a class that overlap by 45 %."""
    pixels, (scale_x, scale_y, left, top) = letterboxed(image)
    with torch.inference_mode():
        raw = model(torch.from_numpy(pixels.copy()).float()[None] / 255.0)[0].numpy().T
    kinds, best = raw[:, 4:].argmax(axis=1), raw[:, 4:].max(axis=1)
    low, high = raw[:, :2] - raw[:, 2:4] / 2, raw[:, :2] + raw[:, 2:4] / 2
    boxes = (np.concatenate([low, high], axis=1) - [left, top, left, top]) / [scale_x, scale_y, scale_x, scale_y]
    boxes = np.clip(boxes, 0, [image.width, image.height, image.width, image.height])
    kept: list[int] = []
    for row in np.argsort(-best, kind="stable"):
        if best[row] < least:
            break
        if all(kinds[row] != kinds[other] or overlap(boxes[row], boxes[other]) <= 0.45 for other in kept):
            kept.append(int(row))
    return [
        (
            int(kinds[r]),
            float(best[r]),
            (float(boxes[r, 0]), float(boxes[r, 1]), float(boxes[r, 2]), float(boxes[r, 3])),
        )
        for r in kept
    ]


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    shared = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None).prod()
    return float(shared / max((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - shared, 1e-9))


def held_out() -> list[Scene]:
    random = np.random.default_rng(SEED + 1)
    return [
        scene(int(random.integers(200, 480)), int(random.integers(200, 480)), random, held_out=True)
        for _ in range(HELD_OUT)
    ]


def export(model: Detector) -> None:
    FOLDER.mkdir(exist_ok=True)
    torch.onnx.export(
        model,
        (torch.zeros(2, 3, SIDE, SIDE),),
        FOLDER / "model.onnx",
        input_names=["images"],
        output_names=["output0"],
        dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
        external_data=False,
        verbose=False,
    )


def right_scene(model: nn.Module, width: int, height: int, random: Random, count: int) -> tuple[Scene, list[Any]]:
    """A held-out picture of ``count`` shapes that the model names rightly and clearly, with what it found above 0.05:
    a sample shows what an answer looks like, how often it is right is said by the figure in README.md."""
    while True:
        made = scene(width, height, random, held_out=True, most=count + 2)
        if len(made.classes) != count:
            continue
        found = detect(model, made.image, 0.05)
        clear = [entry for entry in found if entry[1] >= 0.4]
        unclear = any(0.3 < score < 0.5 for _, score, _ in found)
        if not unclear and sorted(kind for kind, _, _ in clear) == sorted(made.classes.tolist()):
            return made, clear


def write_samples(model: nn.Module) -> None:
    """The samples, and the golden sample with the answer this very model gives, all of held-out pictures."""
    random = np.random.default_rng(SEED + 2)
    samples, golden = FOLDER / "samples", FOLDER / "golden"
    for folder in (samples, golden):
        folder.mkdir(parents=True, exist_ok=True)
    for count, (name, width, height) in zip((2, 3, 1, 2, 4, 2), SAMPLES, strict=True):
        made, found = right_scene(model, width, height, random, count)
        made.image.save(samples / f"{name}.png", optimize=True)
        print(f"  {name}.png: {', '.join(f'{LABELS[kind]} {score:.2f}' for kind, score, _ in found)}")
    made, found_all = right_scene(model, 360, 260, random, 3)
    made.image.save(golden / "input.png", optimize=True)
    predictions = [
        {
            "label": LABELS[kind],
            "score": round(score, 6),
            "box": {name: round(edge) for name, edge in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)},
        }
        for kind, score, box in found_all
    ]
    expected = {
        "input": "input.png", "params": {"threshold": 0.4}, "predictions": predictions, "tolerance": 0.01
    }  # fmt: skip
    (golden / "expected.json").write_text(json.dumps(expected, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    started = time.monotonic()
    torch.manual_seed(SEED)
    torch.set_num_threads(2)
    model = train(np.random.default_rng(SEED))
    truths = held_out()
    precision = average_precision(truths, [detect(model, truth.image, 0.02) for truth in truths])
    mean = sum(precision.values()) / len(precision)
    print(f"held-out pictures: {len(truths)}, trained in {time.monotonic() - started:.0f} s")
    print(f"  mAP50 {mean:.3f} ({', '.join(f'{label} {value:.3f}' for label, value in precision.items())})")
    if mean <= 0.8:
        raise SystemExit("The model does not work: mAP50 is not above 0.8.")
    export(model)
    write_samples(model)


if __name__ == "__main__":
    main()
