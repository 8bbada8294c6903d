"""Exporting a network that keeps its picture's size, and its golden sample in tensors: a picture's bytes depend on who
packs it, numbers do not.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from shapes_data import SIDE, Random, scene
from torch import nn

GOLDEN_SIDE = 32
STEP = 16
"""Sides that the networks take are multiples of this (pixels): they halve four times."""


def export(model: nn.Module, folder: Path, output: str) -> None:
    """Write ``model.onnx``: ``image`` float32 (batch, 3, height, width), both multiples of 16, to ``output``."""
    folder.mkdir(exist_ok=True)
    sides = {2: STEP * torch.export.Dim("rows"), 3: STEP * torch.export.Dim("columns")}
    torch.onnx.export(
        model,
        (torch.zeros(2, 3, SIDE, SIDE + STEP),),
        folder / "model.onnx",
        input_names=["image"],
        output_names=[output],
        dynamic_shapes={"image": {0: torch.export.Dim("batch"), **sides}},
        external_data=False,
        verbose=False,
    )


def write_golden(model: nn.Module, folder: Path, output: str, random: Random) -> None:
    """A small held-out picture as the model takes it, and what this very model answers."""
    golden = folder / "golden"
    golden.mkdir(exist_ok=True)
    picture = scene(GOLDEN_SIDE, GOLDEN_SIDE, random, held_out=True).image
    given = (np.asarray(picture).transpose(2, 0, 1)[None] / np.float32(255.0)).astype(np.float32)
    with torch.inference_mode():
        answer = model(torch.from_numpy(given)).numpy()
    np.save(golden / "input.npy", given)
    data = np.round(answer.astype(np.float64), 4).tolist()
    expected = {
        "input": "input.npy",
        "outputs": {output: {"dtype": "float32", "shape": list(answer.shape), "data": data}},
        "tolerance": 0.01,
    }
    (golden / "expected.json").write_text(json.dumps(expected) + "\n", encoding="utf-8")
