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
from torch import Tensor, nn
from torch.nn import functional

HERE = Path(__file__).resolve().parent
FOLDER = HERE / "shapes-detector"
SEED = 20
STRIDES = (8, 16, 32)
SIZES = ((0, 34), (26, 54), (44, 1000))
"""Which shapes a stride learns, by their longer side in pixels of the input; the bands overlap."""
PICTURES = 3000
STEPS = 800
BATCH = 32
HELD_OUT = 200
SAMPLES = (("photo", 400, 300), ("wide", 480, 270), ("tall", 270, 400), ("square", 320, 320), ("crowd", 420, 320),
           ("small", 240, 180))  # fmt: skip


def block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.SiLU(inplace=True)
    )


class Detector(nn.Module):
    """float32 (N, 3, 128, 128), 0..1 -> (N, 4 + classes, 336): see the module."""

    cells: Tensor
    strides: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Sequential(block(3, 12, 2), block(12, 24, 2), block(24, 24), block(24, 48, 2), block(48, 48))
        self.middle = nn.Sequential(block(48, 64, 2), block(64, 64))
        self.coarse = block(64, 64, 2)
        self.laterals = nn.ModuleList([nn.Conv2d(width, 48, 1) for width in (48, 64, 64)])
        self.tower = block(48, 48)
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
        fine = self.fine(pictures)
        middle = self.middle(fine)
        coarse = self.laterals[2](self.coarse(middle))
        middle = self.laterals[1](middle) + functional.interpolate(coarse, scale_factor=2.0)
        fine = self.laterals[0](fine) + functional.interpolate(middle, scale_factor=2.0)
        levels = zip(self.heads, (fine, middle, coarse), strict=True)
        rows = torch.cat([head(self.tower(x)).flatten(2) for head, x in levels], dim=2).transpose(1, 2)
        return functional.softplus(rows[..., :4]) * self.strides, rows[..., 4:]

    def forward(self, images: Tensor) -> Tensor:
        distances, logits = self.raw(images)
        low, high = self.cells - distances[..., :2], self.cells + distances[..., 2:]
        return torch.cat([(low + high) / 2, high - low, logits.sigmoid()], dim=2).transpose(1, 2)


def grid() -> tuple[Floats, Floats]:
    """(336, 2) middles of the cells, x and y in pixels, and (336, 1) strides."""
    cells, strides = [], []
    for stride in STRIDES:
        middles = (np.arange(SIDE // stride, dtype=np.float32) + 0.5) * stride
        y, x = np.meshgrid(middles, middles, indexing="ij")
        cells.append(np.stack([x, y], axis=-1).reshape(-1, 2))
        strides.append(np.full((len(cells[-1]), 1), stride, np.float32))
    return np.concatenate(cells), np.concatenate(strides)


def targets(boxes: Floats, classes: np.ndarray) -> tuple[Floats, Floats]:
    """(336, 4) distances and (336, classes) scores that the cells are to give for boxes in pixels of the input.

    A cell answers for a box of its stride's size whose middle is at most 1.5 strides away, the smaller box first.
    """
    cells, strides = grid()
    distances, scores = np.zeros((len(cells), 4), np.float32), np.zeros((len(cells), len(LABELS)), np.float32)
    for at in np.argsort(-(boxes[:, 2:] - boxes[:, :2]).prod(axis=1)):
        low, high = boxes[at, :2], boxes[at, 2:]
        longer = float((high - low).max())
        bands = np.concatenate([np.full(n, a <= longer < b) for (a, b), n in zip(SIZES, cell_counts(), strict=True)])
        near = np.abs(cells - (low + high) / 2).max(axis=1) < 1.5 * strides[:, 0]
        inside = (cells > low).all(axis=1) & (cells < high).all(axis=1)
        mine = bands & near & inside
        distances[mine] = np.concatenate([cells[mine] - low, high - cells[mine]], axis=1)
        scores[mine] = 0.0
        scores[mine, classes[at]] = 1.0
    return distances, scores


def cell_counts() -> list[int]:
    return [(SIDE // stride) ** 2 for stride in STRIDES]


def loss(distances: Tensor, logits: Tensor, wanted: Tensor, scores: Tensor) -> Tensor:
    """Generalised IoU of the boxes (Rezatofighi et al. 2019) and focal loss of the scores (Lin et al. 2017)."""
    positive = scores.amax(dim=2) > 0
    count = positive.sum().clamp(min=1)
    plain = functional.binary_cross_entropy_with_logits(logits, scores, reduction="none")
    sure = torch.where(scores > 0, logits.sigmoid(), 1 - logits.sigmoid())
    focal = (torch.where(scores > 0, 0.4, 0.6) * (1 - sure) ** 2 * plain).sum() / count
    ours, theirs = distances[positive], wanted[positive]
    smaller, larger = torch.minimum(ours, theirs), torch.maximum(ours, theirs)

    def area(sides: Tensor) -> Tensor:
        return (sides[:, 0] + sides[:, 2]) * (sides[:, 1] + sides[:, 3])

    shared, hull = area(smaller), area(larger)
    union = area(ours) + area(theirs) - shared
    return focal + 2.0 * (1 - shared / union + (hull - union) / hull).sum() / count


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
        rate = min(1.0, (step + 1) / 60) * 0.5 * (1 + np.cos(np.pi * step / STEPS))
        for group in optimiser.param_groups:
            group["lr"] = 3e-3 * rate
        rows = random.integers(0, PICTURES, BATCH)
        batch = torch.from_numpy(pictures[rows]).float() / 255.0
        # A brightness and a contrast of its own for every picture and channel.
        batch = batch * torch.empty(BATCH, 3, 1, 1).uniform_(0.75, 1.25) + torch.empty(BATCH, 3, 1, 1).uniform_(
            -0.1, 0.1
        )
        batch = batch.clamp(0, 1)
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
