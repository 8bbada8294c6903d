"""Tiny random models of transformers that say something of every pixel, and what the library makes of their outputs.

``python -m tests.engine.worker.make_dense FOLDER`` leaves a folder of ``save_pretrained`` for each model, ``photo.png``
and, for each case of :mod:`dense_cases`, ``<case>.npz`` with what the library's own pipeline answers: ``labels``
(numbers), ``scores``, ``masks`` (each as 0 and 255) and ``margin`` (how far the best class of a pixel lies above the
next), or ``depth`` and ``predicted_depth``; ``<model>-input.npz`` with the tensor its processor makes; ``queries.npz``
and ``interpolated.npz`` with outputs and maps made by hand.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import interpolate
from transformers import (
    BeitConfig,
    DepthAnythingConfig,
    DepthAnythingForDepthEstimation,
    DetrConfig,
    DetrForSegmentation,
    Dinov2Config,
    DPTConfig,
    DPTForDepthEstimation,
    DPTForSemanticSegmentation,
    GLPNConfig,
    GLPNForDepthEstimation,
    Mask2FormerConfig,
    Mask2FormerForUniversalSegmentation,
    MaskFormerConfig,
    MaskFormerForInstanceSegmentation,
    SegformerConfig,
    SegformerForSemanticSegmentation,
    SwinConfig,
    ZoeDepthConfig,
    ZoeDepthForDepthEstimation,
)
from transformers.models.detr.image_processing_pil_detr import DetrImageProcessorPil
from transformers.models.dpt.image_processing_pil_dpt import DPTImageProcessorPil
from transformers.models.glpn.image_processing_pil_glpn import GLPNImageProcessorPil
from transformers.models.mask2former.image_processing_pil_mask2former import Mask2FormerImageProcessorPil
from transformers.models.maskformer.image_processing_pil_maskformer import MaskFormerImageProcessorPil
from transformers.models.resnet import ResNetConfig
from transformers.models.segformer.image_processing_pil_segformer import SegformerImageProcessorPil
from transformers.models.zoedepth.image_processing_pil_zoedepth import ZoeDepthImageProcessorPil

from tests.engine.worker.dense_cases import CASES, NAMES, SIZE

LABELS: dict[str, Any] = {
    "id2label": dict(enumerate(NAMES)),
    "label2id": {name: number for number, name in enumerate(NAMES)},
}


def segformer() -> Any:
    return SegformerForSemanticSegmentation(
        SegformerConfig(
            num_encoder_blocks=2, depths=[1, 1], sr_ratios=[2, 1], hidden_sizes=[16, 24], patch_sizes=[7, 3],
            strides=[4, 2], num_attention_heads=[1, 2], mlp_ratios=[2, 2], decoder_hidden_size=24,
            initializer_range=0.3, **LABELS,
        )
    )  # fmt: skip


def _dpt(**more: Any) -> DPTConfig:
    return DPTConfig(
        hidden_size=32, num_hidden_layers=4, num_attention_heads=2, intermediate_size=48, image_size=64, patch_size=16,
        backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[8, 16, 24, 32], fusion_hidden_size=16, is_hybrid=False,
        initializer_range=0.3, use_auxiliary_head=False, **more,
    )  # fmt: skip


def dpt_segmentation() -> Any:
    return DPTForSemanticSegmentation(_dpt(**LABELS))


def _swin() -> SwinConfig:
    return SwinConfig(
        embed_dim=16, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=4, image_size=64,
        out_features=["stage1", "stage2", "stage3", "stage4"], initializer_range=0.3,
    )  # fmt: skip


def maskformer() -> Any:
    small = DetrConfig(
        use_timm_backbone=False, use_pretrained_backbone=False, backbone=None, backbone_config=ResNetConfig(),
        d_model=32, encoder_layers=1, decoder_layers=2, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=32, decoder_ffn_dim=32, num_queries=12, init_std=0.4,
    )  # fmt: skip
    return MaskFormerForInstanceSegmentation(
        MaskFormerConfig(
            fpn_feature_size=32, mask_feature_size=32, backbone_config=_swin(), decoder_config=small, init_std=0.4,
            **LABELS,
        )
    )  # fmt: skip


def mask2former() -> Any:
    return Mask2FormerForUniversalSegmentation(
        Mask2FormerConfig(
            backbone_config=_swin(), feature_size=32, mask_feature_size=32, hidden_dim=32, encoder_feedforward_dim=32,
            encoder_layers=1, decoder_layers=2, num_attention_heads=2, dim_feedforward=32, num_queries=12, init_std=0.4,
            **LABELS,
        )
    )  # fmt: skip


def detr() -> Any:
    backbone = ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1],
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip
    return DetrForSegmentation(
        DetrConfig(
            use_timm_backbone=False, use_pretrained_backbone=False, backbone=None, backbone_config=backbone,
            d_model=128, encoder_layers=1, decoder_layers=2, encoder_attention_heads=8, decoder_attention_heads=8,
            encoder_ffn_dim=32, decoder_ffn_dim=32, num_queries=12, init_std=0.4, **LABELS,
        )
    )  # fmt: skip


def depth_anything() -> Any:
    backbone = Dinov2Config(
        hidden_size=32, num_hidden_layers=4, num_attention_heads=2, image_size=56, patch_size=14,
        reshape_hidden_states=False, apply_layernorm=True, out_features=["stage1", "stage2", "stage3", "stage4"],
        initializer_range=0.3,
    )  # fmt: skip
    return DepthAnythingForDepthEstimation(
        DepthAnythingConfig(
            backbone_config=backbone, reassemble_hidden_size=32, patch_size=14, neck_hidden_sizes=[8, 16, 24, 32],
            fusion_hidden_size=16, head_hidden_size=8,
        )
    )  # fmt: skip


def glpn() -> Any:
    return GLPNForDepthEstimation(
        GLPNConfig(
            num_encoder_blocks=4, depths=[1, 1, 1, 1], hidden_sizes=[8, 16, 24, 32], decoder_hidden_size=16,
            num_attention_heads=[1, 1, 2, 2], initializer_range=0.3, max_depth=10,
        )
    )  # fmt: skip


def zoedepth() -> Any:
    backbone = BeitConfig(
        hidden_size=32, num_hidden_layers=4, num_attention_heads=2, intermediate_size=48, image_size=[64, 96],
        patch_size=16, out_features=["stage1", "stage2", "stage3", "stage4"], reshape_hidden_states=False,
        use_relative_position_bias=True, add_fpn=False, initializer_range=0.3,
    )  # fmt: skip
    return ZoeDepthForDepthEstimation(
        ZoeDepthConfig(
            backbone_config=backbone, backbone=None, neck_hidden_sizes=[8, 16, 24, 32], fusion_hidden_size=16,
            bottleneck_features=16, num_relative_features=8, bin_embedding_dim=16, num_attractors=[4, 2, 2, 1],
            bin_configurations=[{"n_bins": 16, "min_depth": 0.001, "max_depth": 10.0, "name": "nyu"}],
        )
    )  # fmt: skip


EDGES = {"shortest_edge": 70, "longest_edge": 100}
MODELS: dict[str, tuple[Any, Any]] = {
    "segformer": (segformer, SegformerImageProcessorPil(size={"height": 64, "width": 96}, do_reduce_labels=True)),
    "dpt-segmentation": (
        dpt_segmentation,
        DPTImageProcessorPil(size={"height": 70, "width": 70}, ensure_multiple_of=32),
    ),
    "maskformer": (maskformer, MaskFormerImageProcessorPil(size=EDGES)),
    "mask2former": (mask2former, Mask2FormerImageProcessorPil(size=EDGES)),
    "detr": (detr, DetrImageProcessorPil(size=EDGES)),
    "dpt": (
        lambda: DPTForDepthEstimation(_dpt()),
        DPTImageProcessorPil(size={"height": 64, "width": 64}),
    ),
    "depth-anything": (
        depth_anything,
        DPTImageProcessorPil(size={"height": 70, "width": 70}, keep_aspect_ratio=True, ensure_multiple_of=14),
    ),
    "glpn": (glpn, GLPNImageProcessorPil()),
    "zoedepth": (zoedepth, ZoeDepthImageProcessorPil(size={"height": 64, "width": 96}, ensure_multiple_of=32)),
}
SPREAD = {
    "detr": ("bbox_attention", "mask_head"),
    "zoedepth": ("metric_head", "relative_head", "neck"),
    "depth-anything": ("head", "neck"),
}
"""The parts of models that are too even at random."""
INTERPOLATED = (
    ((17, 23), (101, 207)), ((50, 60), (20, 31)), ((7, 9), (300, 3)), ((384, 384), (777, 403)), ((8, 8), (8, 8)),
    ((1, 5), (40, 11)),
)  # fmt: skip


def main(folder: Path) -> None:
    rng = np.random.default_rng(3)
    image = Image.fromarray(rng.integers(0, 255, (*SIZE, 3)).astype(np.uint8)).resize((23, 15)).resize(SIZE[::-1])
    image.save(folder / "photo.png")
    outputs: dict[str, Any] = {}
    for name, (make, processor) in MODELS.items():
        torch.manual_seed(3)
        model = make().eval()
        with torch.no_grad():
            for key, parameter in model.named_parameters():
                # Zeros at the start, and without training every query would find the same, every pixel be as deep.
                if "embed" in key and parameter.ndim > 1:
                    parameter.normal_(std=1.0)
                if name in SPREAD and parameter.ndim > 1 and key.startswith(SPREAD[name]):
                    parameter.normal_(std=0.3)
                if key.endswith(("class_labels_classifier.bias", "class_predictor.bias")):
                    parameter[-1] -= 6.0 if name == "detr" else 2.0  # the class that is nothing
        model.save_pretrained(folder / name)
        processor.save_pretrained(folder / name)
        with torch.inference_mode():
            prepared = processor(image, return_tensors="pt")
            outputs[name] = model(pixel_values=prepared["pixel_values"])
        np.savez(folder / f"{name}-input.npz", pixels=prepared["pixel_values"].numpy())
    for case, (name, params) in CASES.items():
        np.savez(folder / f"{case}.npz", **answers(MODELS[name][1], name, outputs[name], params))
    np.savez(folder / "interpolated.npz", **interpolated())
    for case, arrays in synthetic(folder).items():
        np.savez(folder / f"{case}.npz", **arrays)


def synthetic(folder: Path) -> dict[str, dict[str, Any]]:
    """Queries made by hand, which overlap, vanish and are nothing: ``queries.npz``, and what the library finds."""
    rng = np.random.default_rng(5)
    y, x = np.mgrid[0:30, 0:40]
    middles, widths = rng.uniform((4, 4), (26, 36), (14, 2)), rng.uniform(3, 14, 14)
    masks = np.stack([w - np.hypot(y - m[0], x - m[1]) for m, w in zip(middles, widths, strict=True)])
    logits = rng.normal(size=(14, len(NAMES) + 1)) * 4
    logits[3:6] = logits[3]  # several things of one class
    queries = {"logits": logits.astype(np.float32), "masks": (masks * 0.4).astype(np.float32)}
    np.savez(folder / "queries.npz", **queries)
    tensors = {key: torch.from_numpy(array)[np.newaxis] for key, array in queries.items()}
    made = {}
    for kind, processor in (
        ("maskformer", MaskFormerImageProcessorPil()),
        ("mask2former", Mask2FormerImageProcessorPil()),
        ("detr-masks", DetrImageProcessorPil()),
    ):
        outputs = SimpleNamespace(
            class_queries_logits=tensors["logits"], masks_queries_logits=tensors["masks"], logits=tensors["logits"],
            pred_masks=tensors["masks"],
        )  # fmt: skip
        for subtask in ("panoptic", "instance", "semantic"):
            if (kind, subtask) != ("detr-masks", "instance"):
                made[f"{kind}-{subtask}-by-hand"] = answers(
                    processor, "", outputs, {"subtask": subtask, "threshold": 0.5}
                )
    return made


def interpolated() -> dict[str, Any]:
    """Maps of odd sizes, larger and smaller than what they are brought to, by PyTorch."""
    rng = np.random.default_rng(7)
    made: dict[str, Any] = {"count": len(INTERPOLATED)}
    for number, (shape, size) in enumerate(INTERPOLATED):
        values = rng.normal(size=(3, *shape)).astype(np.float32)
        made[f"{number}-values"] = values
        for mode in ("bilinear", "bicubic", "nearest"):
            corners = {} if mode == "nearest" else {"align_corners": False}
            made[f"{number}-{mode}"] = interpolate(torch.from_numpy(values)[None], size, mode=mode, **corners)[
                0
            ].numpy()
    return made


def answers(processor: Any, name: str, outputs: Any, params: dict[str, Any]) -> dict[str, Any]:
    if name == "zoedepth":
        # The library's own needs torchvision for the same two calls (resize without antialiasing, and a cut).
        height, width = SIZE
        down, across = int(np.sqrt(height / 2) * 3), int(np.sqrt(width / 2) * 3)
        whole = interpolate(
            outputs.predicted_depth[:, None],
            (height + 2 * down, width + 2 * across),
            mode="bicubic",
            align_corners=False,
        )
        return depth(whole[0, 0, down:-down, across:-across])
    if hasattr(outputs, "predicted_depth"):
        (found,) = processor.post_process_depth_estimation(outputs, [SIZE])
        return depth(found["predicted_depth"])
    subtask = params.get("subtask") or (
        "panoptic" if hasattr(processor, "post_process_panoptic_segmentation") else "semantic"
    )
    if subtask == "semantic":
        (found,) = processor.post_process_semantic_segmentation(outputs, [SIZE], return_segmentation_scores=True)
        best = found["segmentation_scores"].topk(2, dim=0).values
        segmentation = found["segmentation"].numpy()
        numbers = np.unique(segmentation)
        masks = [(segmentation == number) * 255 for number in numbers]
        return {"labels": numbers, "scores": [], "masks": masks, "margin": (best[0] - best[1]).numpy()}
    # What ImageSegmentationPipeline.postprocess hands on.
    thresholds = {"threshold": 0.9, "mask_threshold": 0.5, "overlap_mask_area_threshold": 0.5} | {
        key: value for key, value in params.items() if key == "threshold"
    }
    post = getattr(processor, f"post_process_{subtask}_segmentation")
    if subtask == "instance":
        (found,) = post(outputs, target_sizes=[SIZE], return_binary_maps=True, **thresholds)
        masks = [mask.numpy() * 255 for mask in found["segmentation"]]
    else:
        (found,) = post(outputs, target_sizes=[SIZE], **thresholds)
        masks = [(found["segmentation"].numpy() == info["id"]) * 255 for info in found["segments_info"]]
    infos = found["segments_info"]
    order = sorted(range(len(infos)), key=lambda n: -infos[n]["score"]) if subtask == "instance" else range(len(infos))
    return {
        "labels": [infos[n]["label_id"] for n in order],
        "scores": [infos[n]["score"] for n in order],
        "masks": np.array([masks[n] for n in order], dtype=np.uint8),
    }


def depth(predicted: Any) -> dict[str, Any]:
    """What DepthEstimationPipeline.postprocess makes of it."""
    numbers = predicted.numpy()
    shares = (numbers - numbers.min()) / (numbers.max() - numbers.min())
    return {"predicted_depth": numbers, "depth": (shares * 255).astype("uint8")}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
