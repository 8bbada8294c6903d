"""Tiny random detectors of transformers, and what its own processor and ``post_process_object_detection`` answer.

``python -m tests.engine.worker.make_detectors FOLDER`` leaves a folder of ``save_pretrained`` for each, ``photo.png``
and ``answers.json``: for each folder the size of the tensor, and the boxes above a threshold in the middle of a gap.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import ConditionalDetrConfig, ConditionalDetrForObjectDetection, YolosConfig, YolosForObjectDetection
from transformers.models.conditional_detr.image_processing_pil_conditional_detr import ConditionalDetrImageProcessorPil
from transformers.models.resnet import ResNetConfig
from transformers.models.yolos.image_processing_pil_yolos import YolosImageProcessorPil

LABELS = {0: "cat", 1: "dog", 2: "bird"}


def yolos() -> Any:
    return YolosForObjectDetection(
        YolosConfig(
            hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48, image_size=[64, 96],
            num_detection_tokens=12, id2label=LABELS, label2id={name: n for n, name in LABELS.items()},
            initializer_range=0.4,
        )
    )  # fmt: skip


def conditional_detr() -> Any:
    backbone = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], out_features=["stage2"])
    return ConditionalDetrForObjectDetection(
        ConditionalDetrConfig(
            use_timm_backbone=False, use_pretrained_backbone=False, backbone=None, backbone_config=backbone, d_model=32,
            encoder_layers=1, decoder_layers=2, encoder_attention_heads=2, decoder_attention_heads=2,
            encoder_ffn_dim=32, decoder_ffn_dim=32, num_queries=12, id2label=LABELS,
            label2id={name: n for n, name in LABELS.items()}, init_std=0.4,
        )
    )  # fmt: skip


def main(folder: Path) -> None:
    torch.manual_seed(3)
    image = Image.fromarray(np.random.default_rng(3).integers(0, 255, (150, 230, 3)).astype(np.uint8))
    image.save(folder / "photo.png")
    answers = {}
    size = {"shortest_edge": 70, "longest_edge": 100}
    makers = {
        "yolos": (yolos, YolosImageProcessorPil(size=size)),
        "conditional-detr": (conditional_detr, ConditionalDetrImageProcessorPil(size=size)),
    }
    for name, (make, processor) in makers.items():
        model = make().eval()
        with torch.no_grad():
            for key, parameter in model.named_parameters():
                # Zeros at the start, and without training every query would find the same.
                if "embeddings" in key:
                    parameter.normal_(std=1.0)
        model.save_pretrained(folder / name)
        processor.save_pretrained(folder / name)
        prepared = processor(image, return_tensors="pt")
        with torch.inference_mode():
            outputs = model(pixel_values=prepared["pixel_values"])
        (all_of_them,) = processor.post_process_object_detection(outputs, threshold=0.0, target_sizes=[(150, 230)])
        scores = sorted(all_of_them["scores"].tolist(), reverse=True)[:10]
        # A threshold in the widest gap among the best: what is found does not hang on the last digit.
        gap = max(range(3, len(scores) - 1), key=lambda n: scores[n] - scores[n + 1])
        threshold = (scores[gap] + scores[gap + 1]) / 2
        (found,) = processor.post_process_object_detection(outputs, threshold=threshold, target_sizes=[(150, 230)])
        order = found["scores"].argsort(descending=True)
        answers[name] = {
            "shape": list(prepared["pixel_values"].shape),
            "threshold": threshold,
            "found": [
                [LABELS[int(found["labels"][n])], float(found["scores"][n]), found["boxes"][n].tolist()] for n in order
            ],
        }
    (folder / "answers.json").write_text(json.dumps(answers), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
