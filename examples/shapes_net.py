"""What the examples' networks on 128 x 128 pictures share: layers, the grid of cells of three strides, losses."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from shapes_data import SIDE, Floats
from torch import Tensor, nn
from torch.nn import functional

STRIDES = (8, 16, 32)
SIZES = ((0, 34), (26, 54), (44, 1000))
"""Which things a stride learns, by their longer side in pixels of the input; the bands overlap."""


def block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.SiLU(inplace=True)
    )


class Trunk(nn.Module):
    """float32 (N, 3, 128, 128), 0..1 -> features (N, 48, side / stride, side / stride) of the three strides."""

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Sequential(block(3, 12, 2), block(12, 24, 2), block(24, 24), block(24, 48, 2), block(48, 48))
        self.middle = nn.Sequential(block(48, 64, 2), block(64, 64))
        self.coarse = block(64, 64, 2)
        self.laterals = nn.ModuleList([nn.Conv2d(width, 48, 1) for width in (48, 64, 64)])
        self.tower = block(48, 48)

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        fine = self.fine(pictures)
        middle = self.middle(fine)
        coarse = self.laterals[2](self.coarse(middle))
        middle = self.laterals[1](middle) + functional.interpolate(coarse, scale_factor=2.0)
        fine = self.laterals[0](fine) + functional.interpolate(middle, scale_factor=2.0)
        return self.tower(fine), self.tower(middle), self.tower(coarse)


class UNet(nn.Module):
    """float32 (N, 3, height, width), 0..1 -> (N, ``outputs``, height / stride, width / stride)."""

    def __init__(self, outputs: int, widths: tuple[int, ...] = (12, 24, 32, 48, 48), stride: int = 1) -> None:
        super().__init__()
        self.down = nn.ModuleList([nn.Sequential(block(3, widths[0], stride), block(widths[0], widths[0]))])
        for above, below in pairwise(widths):
            self.down.append(nn.Sequential(block(above, below, 2), block(below, below)))
        self.up = nn.ModuleList(
            [block(below + above, above) for above, below in zip(widths[-2::-1], widths[:0:-1], strict=True)]
        )
        self.last = nn.Conv2d(widths[0], outputs, 1)

    def forward(self, image: Tensor) -> Tensor:
        levels = [image]
        for layer in self.down:
            levels.append(layer(levels[-1]))
        found = levels.pop()
        for layer in self.up:
            grown = functional.interpolate(found, scale_factor=2.0)
            found = layer(torch.cat([grown, levels.pop()], dim=1))
        answer: Tensor = self.last(found)
        return answer


def grid() -> tuple[Floats, Floats]:
    """(336, 2) middles of the cells, x and y in pixels, and (336, 1) strides."""
    cells, strides = [], []
    for stride in STRIDES:
        middles = (np.arange(SIDE // stride, dtype=np.float32) + 0.5) * stride
        y, x = np.meshgrid(middles, middles, indexing="ij")
        cells.append(np.stack([x, y], axis=-1).reshape(-1, 2))
        strides.append(np.full((len(cells[-1]), 1), stride, np.float32))
    return np.concatenate(cells), np.concatenate(strides)


def cell_counts() -> list[int]:
    return [(SIDE // stride) ** 2 for stride in STRIDES]


def assigned(boxes: Floats, sizes: tuple[tuple[int, int], ...] = SIZES) -> NDArray[np.int64]:
    """(336,) which of ``boxes`` (N, 4) in pixels of the input a cell answers for, -1 for none.

    A cell answers for a box of its stride's size (``sizes``, as :data:`SIZES`) whose middle is at most 1.5 strides away, the smaller box first.
    """
    cells, strides = grid()
    owners = np.full(len(cells), -1, np.int64)
    for at in np.argsort(-(boxes[:, 2:] - boxes[:, :2]).prod(axis=1)):
        low, high = boxes[at, :2], boxes[at, 2:]
        longer = float((high - low).max())
        bands = np.concatenate([np.full(n, a <= longer < b) for (a, b), n in zip(sizes, cell_counts(), strict=True)])
        near = np.abs(cells - (low + high) / 2).max(axis=1) < 1.5 * strides[:, 0]
        inside = (cells > low).all(axis=1) & (cells < high).all(axis=1)
        owners[bands & near & inside] = at
    return owners


def box_loss(distances: Tensor, wanted: Tensor) -> Tensor:
    """1 - generalised IoU (Rezatofighi et al. 2019) of boxes as (N, 4) distances of a point to their edges; sum."""
    smaller, larger = torch.minimum(distances, wanted), torch.maximum(distances, wanted)

    def area(sides: Tensor) -> Tensor:
        return (sides[:, 0] + sides[:, 2]) * (sides[:, 1] + sides[:, 3])

    shared, hull = area(smaller), area(larger)
    union = area(distances) + area(wanted) - shared
    return (1 - shared / union + (hull - union) / hull).sum()


def score_loss(logits: Tensor, scores: Tensor) -> Tensor:
    """Focal loss (Lin et al. 2017), summed."""
    plain = functional.binary_cross_entropy_with_logits(logits, scores, reduction="none")
    sure = torch.where(scores > 0, logits.sigmoid(), 1 - logits.sigmoid())
    return (torch.where(scores > 0, 0.4, 0.6) * (1 - sure) ** 2 * plain).sum()


def varied(pictures: Tensor) -> Tensor:
    """Each picture and channel with a brightness and a contrast of its own."""
    rows = len(pictures)
    contrast = torch.empty(rows, 3, 1, 1).uniform_(0.75, 1.25)
    return (pictures * contrast + torch.empty(rows, 3, 1, 1).uniform_(-0.1, 0.1)).clamp(0, 1)


def rate_at(step: int, steps: int, highest: float) -> float:
    """A short rise, then half a cosine down to nothing."""
    return float(highest * min(1.0, (step + 1) / 60) * 0.5 * (1 + np.cos(np.pi * step / steps)))
