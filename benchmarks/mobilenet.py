"""MobileNetV2 (width 0.5) in PyTorch, as the paper has it: a model of the size people open, with random weights."""

from __future__ import annotations

import torch
from torch import nn

# Expansion, channels at width 1, repeats, stride.
_BLOCKS = (
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
)  # fmt: skip


def _convolution(given: int, made: int, kernel: int, stride: int, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(given, made, kernel, stride, (kernel - 1) // 2, groups=groups, bias=False),
        nn.BatchNorm2d(made),
        nn.ReLU6(),
    )


class _Block(nn.Module):
    def __init__(self, given: int, made: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = given * expansion
        widen = [] if expansion == 1 else [_convolution(given, hidden, 1, 1)]
        self.layers = nn.Sequential(
            *widen,
            _convolution(hidden, hidden, 3, stride, hidden),
            nn.Conv2d(hidden, made, 1, bias=False),
            nn.BatchNorm2d(made),
        )
        self.adds = stride == 1 and given == made

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.layers(x)
        return x + answer if self.adds else answer


class MobileNetV2(nn.Module):
    """(rows, 3, 224, 224) -> (rows, 1000) logits."""

    def __init__(self, width: float = 0.5) -> None:
        super().__init__()
        channels = int(32 * width)
        layers: list[nn.Module] = [_convolution(3, channels, 3, 2)]
        for expansion, wide, repeats, stride in _BLOCKS:
            made = int(wide * width)
            for number in range(repeats):
                layers.append(_Block(channels, made, stride if number == 0 else 1, expansion))
                channels = made
        layers.append(_convolution(channels, 1280, 1, 1))
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(1280, 1000)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.features(x).mean((2, 3)))
        return logits
