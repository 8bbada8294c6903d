"""Models for the tests on a GPU, written on the CPU: this process never touches the device."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch

WIDTH = 4096


class Wide(torch.nn.Module):
    """About ``layers`` times 64 MiB of weights, and answers that depend on all of them."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList([torch.nn.Linear(WIDTH, WIDTH) for _ in range(layers)])
        self.head = torch.nn.Linear(WIDTH, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = torch.relu(layer(x))
        return self.head(x)


class Hungry(torch.nn.Module):
    """Needs ``gib_a_row`` GiB of device memory for each row that it answers, unless all of them are zeros, as those of
    a warm-up are."""

    def __init__(self, gib_a_row: int) -> None:
        super().__init__()
        self.numbers = gib_a_row << 28

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if bool(x.max() > 0):
            return x + torch.zeros([x.shape[0], self.numbers], device=x.device)[:, :1]
        return x


class Slow(torch.nn.Module):
    """Works for seconds on a GPU: a hundred products of 8192 x 8192 matrices."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.eye(8192) * 0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        grown = self.weight
        for _ in range(100):
            grown = torch.mm(grown, self.weight)
        return x + grown[0, 0]


def save(module: torch.nn.Module, folder: Path, width: int, outputs: int) -> Path:
    """``module`` as TorchScript with a sidecar that states its tensors. Returns the folder to open."""
    folder.mkdir(parents=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(module.eval()).save(str(folder / "model.pt"))
    (folder / "deskside.toml").write_text(
        f"""task = "raw-tensors"
[[inputs]]
name = "x"
dtype = "float32"
shape = [-1, {width}]
[[outputs]]
name = "y"
dtype = "float32"
shape = [-1, {outputs}]
"""
    )
    return folder
