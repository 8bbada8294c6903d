"""Models of transformers that say something of every pixel: what their outputs are, by their class."""

from __future__ import annotations

from dataclasses import replace

from engine.model_spec import ModelSpec, Postprocessing, TensorSpec

_QUERIES = {
    "MaskFormerForInstanceSegmentation": "maskformer",
    "Mask2FormerForUniversalSegmentation": "mask2former",
    "DetrForSegmentation": "detr-masks",
}
_SEMANTIC = "ForSemanticSegmentation"
_DEPTH = tuple(f"{name}ForDepthEstimation" for name in ("DPT", "DepthAnything", "GLPN", "ZoeDepth"))
"""Those whose ``post_process_depth_estimation`` brings ``predicted_depth`` to the picture and does no more."""


def segments(architecture: str) -> bool:
    """Whether a class takes a picture alone and gives masks that can be read."""
    return architecture in _QUERIES or architecture.endswith(_SEMANTIC)


def measures_depth(architecture: str) -> bool:
    """Whether a class takes a picture alone and gives ``predicted_depth``."""
    return architecture in _DEPTH


def with_segmentation(spec: ModelSpec) -> ModelSpec:
    """``spec``, whose labels are read, as one of a model with masks."""
    head = _QUERIES.get(spec.architecture, "semantic")
    classes = spec.outputs[0].shape[1]
    outputs: tuple[TensorSpec, ...]
    if head == "semantic":
        outputs = (TensorSpec("logits", "float32", (-1, classes, -1, -1)),)
    else:
        logits, masks = (
            ("logits", "pred_masks")
            if head == "detr-masks"
            else (
                "class_queries_logits",
                "masks_queries_logits",
            )
        )
        outputs = (
            TensorSpec(logits, "float32", (-1, -1, classes + 1)),
            TensorSpec(masks, "float32", (-1, -1, -1, -1)),
        )
    source = spec.evidence["architecture"]
    post = (
        f"{source} ({spec.architecture}: post_process_{'semantic' if head == 'semantic' else 'panoptic'}_segmentation)"
    )
    return replace(
        spec,
        task="image-segmentation",
        outputs=outputs,
        postprocessing=Postprocessing(head=head),
        evidence=spec.evidence | {"task": source, "postprocessing.activation": post, "postprocessing.head": source},
    )


def with_depth(spec: ModelSpec) -> ModelSpec:
    """``spec`` as one of a model with ``predicted_depth``."""
    source = spec.evidence["architecture"]
    return replace(
        spec,
        task="depth-estimation",
        outputs=(TensorSpec("predicted_depth", "float32", (-1, -1, -1)),),
        evidence=spec.evidence | {"task": source, "outputs": source},
    )


def makes_pictures(architecture: str) -> bool:
    """Whether a class takes a picture alone and gives one (``reconstruction``)."""
    return architecture == "Swin2SRForImageSuperResolution"


def with_pictures_made(spec: ModelSpec) -> ModelSpec:
    """``spec`` as one of a model that makes pictures, with values from 0 to 1 (``pipelines/image_to_image.py``)."""
    source = spec.evidence["architecture"]
    return replace(
        spec,
        task="image-to-image",
        outputs=(TensorSpec("reconstruction", "float32", (-1, -1, -1, -1)),),
        postprocessing=Postprocessing(scaling="0..1"),
        evidence=spec.evidence | {"task": source, "outputs": source, "postprocessing.scaling": source},
    )
