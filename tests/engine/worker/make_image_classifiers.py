"""Tiny random picture classifiers of transformers, and what its pipeline says of two pictures.

``python -m tests.engine.worker.make_image_classifiers FOLDER`` leaves a folder of ``save_pretrained`` for each model,
``wide.png``, ``tall.png`` and ``expected.json``: model -> picture -> ``[{"label", "score"}…]``, best first.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import (
    ConvNextConfig,
    ConvNextForImageClassification,
    ConvNextImageProcessor,
    ResNetConfig,
    ResNetForImageClassification,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
    pipeline,
)

LABELS = {0: "cat", 1: "dog", 2: "bird", 3: "fish"}
PICTURES = {"wide": (60, 95), "tall": (90, 50)}


def models() -> dict[str, tuple[Any, Any]]:
    vit = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    vit |= {"image_size": 32, "patch_size": 8, "initializer_range": 0.3}
    small = ViTImageProcessor(size={"height": 32, "width": 32})
    several = ViTConfig(id2label=LABELS, problem_type="multi_label_classification", **vit)
    convnext = ConvNextConfig(hidden_sizes=[8, 16], depths=[1, 1], num_stages=2, id2label=LABELS, initializer_range=0.5)
    resnet = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], id2label=LABELS)
    return {
        "vit": (ViTForImageClassification(ViTConfig(id2label=LABELS, **vit)), small),
        "vit-several": (ViTForImageClassification(several), small),
        # Resized to the shorter side and then cut, as its crop_pct says.
        "convnext": (ConvNextForImageClassification(convnext), ConvNextImageProcessor(size={"shortest_edge": 64})),
        "resnet": (ResNetForImageClassification(resnet), ConvNextImageProcessor(size={"shortest_edge": 48})),
    }


def main(folder: Path) -> None:
    torch.manual_seed(8)
    pictures = {}
    for name, (height, width) in PICTURES.items():
        rows, columns = np.mgrid[:height, :width]
        waves = [128 + 110 * np.sin(rows / 7 + k * 2) * np.cos(columns / (5 + 3 * k)) for k in range(3)]
        pictures[name] = Image.fromarray(np.stack(waves, axis=2).astype(np.uint8))
        pictures[name].save(folder / f"{name}.png")
    expected = {}
    for name, (model, processor) in models().items():
        model.eval().save_pretrained(folder / name)
        processor.save_pretrained(folder / name)
        ask = pipeline("image-classification", model=model, image_processor=processor, top_k=4)
        expected[name] = {picture: ask(image) for picture, image in pictures.items()}
    (folder / "expected.json").write_text(json.dumps(expected))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
