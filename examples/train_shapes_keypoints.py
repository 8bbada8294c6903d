"""Train examples/shapes-keypoints: the joints of drawn figures of sticks, exported to ONNX.

    .venv/bin/python examples/train_shapes_keypoints.py

About ten minutes on two cores. Its head is that of Ultralytics' pose models: one row for each of 4 + 1 + 7 x 3
numbers, one column for each cell of the grids of strides 8, 16 and 32; the box as middle, width and height, then a
score, then x, y and how sure it is to be seen of every point, in pixels of the 128 x 128 input. The file's metadata
are those of their exports. Prints how many points of held-out pictures are found within a tenth of their figure's
height (PCK@0.1), and ends with an error where that is not above 0.9. Rewrites the model, the samples and the golden
sample; the sidecar is kept by hand.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

# Threads that spin while they wait keep each other from the cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import onnx
import torch
from PIL import Image
from shapes_data import SIDE, Floats, Random, letterboxed
from shapes_figures import POINTS, SKELETON, SWAPPED, Figures, figures
from shapes_net import STRIDES, Trunk, assigned, block, box_loss, grid, rate_at, score_loss, varied
from torch import Tensor, nn
from torch.nn import functional

HERE = Path(__file__).resolve().parent
FOLDER = HERE / "shapes-keypoints"
SEED = 61
PICTURES = 9000
STEPS = 4200
SIZES = ((0, 84), (64, 1000), (1000, 1001))
"""Which figures a stride learns, by their longer side in pixels of the input: none the coarsest, to which a hand is
nothing."""
BATCH = 32
HELD_OUT = 150
SAMPLES = (("two", 400, 300, 2), ("tall", 270, 400, 1), ("three", 480, 300, 3))


class PoseNet(nn.Module):
    """float32 (N, 3, 128, 128), 0..1 -> (N, 26, 336): see the module."""

    cells: Tensor
    strides: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.trunk = Trunk()
        self.tower = nn.Sequential(block(48, 64), block(64, 64))
        self.heads = nn.ModuleList([nn.Conv2d(64, 5 + 3 * len(POINTS), 1) for _ in STRIDES])
        for head in self.heads:
            assert isinstance(head, nn.Conv2d)
            assert head.bias is not None
            # Most cells hold nothing: begin with a score of 1 %, so that they do not drown the others.
            nn.init.constant_(head.bias[4:5], -4.6)
        cells, strides = grid()
        self.register_buffer("cells", torch.from_numpy(cells))
        self.register_buffer("strides", torch.from_numpy(strides))

    def raw(self, pictures: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(N, 336, 4) distances to the box's edges in pixels, (N, 336, 1) score logits, (N, 336, 7, 2) points in
        pixels, (N, 336, 7) logits of being seen."""
        levels = zip(self.heads, self.trunk(pictures), strict=True)
        rows = torch.cat([head(self.tower(x)).flatten(2) for head, x in levels], dim=2).transpose(1, 2)
        distances = functional.softplus(rows[..., :4]) * self.strides
        points = rows[..., 5:].unflatten(2, (len(POINTS), 3))
        places = points[..., :2] * 2.0 * self.strides[:, :, None] + self.cells[:, None]
        return distances, rows[..., 4:5], places, points[..., 2]

    def forward(self, images: Tensor) -> Tensor:
        distances, score, places, seen = self.raw(images)
        low, high = self.cells - distances[..., :2], self.cells + distances[..., 2:]
        points = torch.cat([places, seen.sigmoid()[..., None]], dim=3).flatten(2)
        return torch.cat([(low + high) / 2, high - low, score.sigmoid(), points], dim=2).transpose(1, 2)


def drawn(random: Random) -> tuple[np.ndarray, ...]:
    """One training picture, (3, SIDE, SIDE) bytes, and of each cell: distances to its box's edges, whether it has one,
    its points, and which can be seen."""
    short = int(random.uniform(0.45, 1.0) * SIDE)
    width, height = (SIDE, short) if random.random() < 0.5 else (short, SIDE)
    made = figures(width, height, random, held_out=False)
    while not len(made.boxes):
        made = figures(width, height, random, held_out=False)
    pixels, (scale_x, scale_y, left, top) = letterboxed(made.image)
    boxes = (made.boxes * [scale_x, scale_y, scale_x, scale_y] + [left, top, left, top]).astype(np.float32)
    places = made.points * [scale_x, scale_y] + [left, top]
    seen = made.visible
    if random.random() < 0.5:
        pixels = pixels[:, :, ::-1]
        boxes = np.stack([SIDE - boxes[:, 2], boxes[:, 1], SIDE - boxes[:, 0], boxes[:, 3]], axis=1)
        places = places * [-1, 1] + [SIDE, 0]
        places, seen = places[:, SWAPPED], seen[:, SWAPPED]
    owners = assigned(boxes, SIZES)
    mine, cells = owners >= 0, grid()[0]
    distances = np.zeros((len(cells), 4), np.float32)
    distances[mine] = np.concatenate([cells[mine] - boxes[owners[mine], :2], boxes[owners[mine], 2:] - cells[mine]], 1)
    return pixels, distances, mine.astype(np.float32), places[owners].astype(np.float32), seen[owners]


def loss(found: tuple[Tensor, ...], distances: Tensor, mine: Tensor, places: Tensor, seen: Tensor) -> Tensor:
    """Of boxes, scores, points (by the size of their box) and of what can be seen."""
    positive = mine > 0
    count = positive.sum().clamp(min=1)
    ours, score, points, sure = found
    sides = distances[positive].reshape(-1, 2, 2).sum(dim=1)
    offsets = (points[positive] - places[positive]) / sides.amax(dim=1)[:, None, None]
    wanted = seen[positive]
    # What is covered can only be guessed, from where the rest of the limb points.
    far = functional.smooth_l1_loss(offsets, torch.zeros_like(offsets), beta=0.02, reduction="none").sum(dim=2)
    shown = functional.binary_cross_entropy_with_logits(sure[positive], wanted, reduction="none").mean(dim=1)
    total = score_loss(score, mine[..., None]) + 2.0 * box_loss(ours[positive], distances[positive])
    return (total + 12.0 * (far * (0.3 + 0.7 * wanted)).mean(dim=1).sum() + 0.3 * shown.sum()) / count


def train(random: Random) -> PoseNet:
    begun = time.monotonic()
    parts = [np.stack(part) for part in zip(*(drawn(random) for _ in range(PICTURES)), strict=True)]
    print(f"{PICTURES} pictures drawn in {time.monotonic() - begun:.0f} s", flush=True)
    pictures, others = parts[0], [torch.from_numpy(part) for part in parts[1:]]
    model = PoseNet()
    optimiser = torch.optim.AdamW(model.parameters(), weight_decay=0.01)
    total = 0.0
    for step in range(STEPS):
        for group in optimiser.param_groups:
            group["lr"] = rate_at(step, STEPS, 5e-3)
        rows = random.integers(0, PICTURES, BATCH)
        batch = varied(torch.from_numpy(pictures[rows]).float() / 255.0)
        value = loss(model.raw(batch), *(part[rows] for part in others))
        optimiser.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]  # torch's stubs lack it
        nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimiser.step()
        total += float(value.detach())
        if step % 50 == 49:
            print(f"step {step + 1}/{STEPS}: loss {total / 50:.3f}, {time.monotonic() - begun:.0f} s", flush=True)
            total = 0.0
    return model.eval()


def best_of(model: nn.Module, image: Image.Image) -> tuple[Floats, Floats]:
    """The scores (cells,) and the points (cells, 7, 2) in pixels of ``image``."""
    pixels, (scale_x, scale_y, left, top) = letterboxed(image)
    with torch.inference_mode():
        raw = model(torch.from_numpy(pixels.copy()).float()[None] / 255.0)[0].numpy().T
    points = raw[:, 5:].reshape(len(raw), len(POINTS), 3)[..., :2]
    return raw[:, 4], (points - [left, top]) / [scale_x, scale_y]


def share_found(model: nn.Module, truths: list[Figures]) -> float:
    """The share of all points that lie within a tenth of their figure's height of where they belong (Yang and Ramanan's
    PCK@0.1), each figure's best cell inside its box answering for it."""
    right, total = 0, 0
    for truth in truths:
        scores, points = best_of(model, truth.image)
        for box, wanted, seen in zip(truth.boxes, truth.points, truth.visible, strict=True):
            middle = points[:, 2]
            inside = ((middle > box[:2]) & (middle < box[2:])).all(axis=1) & (scores > 0.3)
            total += int(seen.sum())
            if inside.any():
                found = points[np.where(inside, scores, 0).argmax()]
                right += int((np.linalg.norm(found - wanted, axis=1) < 0.1 * (box[3] - box[1]))[seen > 0].sum())
    return right / total


def export(model: nn.Module) -> None:
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
    saved = onnx.load(FOLDER / "model.onnx")
    facts = {"task": "pose", "names": "{0: 'figure'}", "kpt_shape": f"[{len(POINTS)}, 3]", "imgsz": f"[{SIDE}, {SIDE}]"}
    onnx.helper.set_model_props(saved, facts | {"stride": "32", "batch": "1"})
    onnx.save(saved, FOLDER / "model.onnx")


def write_samples(model: nn.Module, random: Random) -> None:
    """Held-out pictures whose figures the model finds, and a golden sample in tensors: all the 336 cells' numbers,
    rounded."""
    samples, golden = FOLDER / "samples", FOLDER / "golden"
    for folder in (samples, golden):
        folder.mkdir(exist_ok=True)
    for name, width, height, count in SAMPLES:
        made = figures(width, height, random, held_out=True, most=count)
        while len(made.boxes) != count or share_found(model, [made]) < 1.0:
            made = figures(width, height, random, held_out=True, most=count)
        made.image.save(samples / f"{name}.png", optimize=True)
    given = letterboxed(figures(SIDE, SIDE, random, held_out=True).image)[0][None] / np.float32(255.0)
    np.save(golden / "input.npy", given.astype(np.float16).astype(np.float32))
    with torch.inference_mode():
        answer = model(torch.from_numpy(np.load(golden / "input.npy"))).numpy()
    data = np.round(answer.astype(np.float64), 2).tolist()
    outputs = {"output0": {"dtype": "float32", "shape": list(answer.shape), "data": data}}
    expected = {"input": "input.npy", "outputs": outputs, "tolerance": 0.02}
    (golden / "expected.json").write_text(json.dumps(expected) + "\n", encoding="utf-8")


def main() -> None:
    started = time.monotonic()
    torch.manual_seed(SEED)
    torch.set_num_threads(2)
    model = train(np.random.default_rng(SEED))
    random = np.random.default_rng(SEED + 1)
    sides = random.integers(240, 480, (HELD_OUT, 2))
    share = share_found(model, [figures(int(w), int(h), random, held_out=True) for w, h in sides])
    print(f"held-out pictures: {HELD_OUT}, trained in {time.monotonic() - started:.0f} s")
    print(f"  PCK@0.1 {share:.3f}; bones {len(SKELETON)}")
    if share <= 0.9:
        raise SystemExit("The model does not work: not nine of ten points are found.")
    export(model)
    write_samples(model, random)


if __name__ == "__main__":
    main()
