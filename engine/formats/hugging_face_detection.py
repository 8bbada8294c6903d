"""A detector of transformers: how its class turns logits into scores."""

from __future__ import annotations

from dataclasses import replace

from engine.model_spec import ModelSpec, Postprocessing

THRESHOLD = 0.5
"""The default of the library's ``object-detection`` pipeline."""
_SOFTMAX = ("DetrForObjectDetection", "YolosForObjectDetection", "TableTransformerForObjectDetection")
_SIGMOID = tuple(
    f"{name}ForObjectDetection"
    for name in (
        "ConditionalDetr",
        "DabDetr",
        "Deimv2",
        "DeformableDetr",
        "DFine",
        "LwDetr",
        "RfDetr",
        "RTDetr",
        "RTDetrV2",
    )
)
"""What their ``post_process_object_detection`` takes: a softmax whose last class is nothing, or a sigmoid."""


def detects(architecture: str) -> bool:
    """Whether a class takes a picture alone and gives ``logits`` and ``pred_boxes``."""
    return architecture in _SOFTMAX + _SIGMOID


def with_detector(spec: ModelSpec) -> ModelSpec:
    """``spec``, whose labels are read, as one of a detector with ``logits`` and ``pred_boxes``."""
    softmax = spec.architecture in _SOFTMAX
    source = spec.evidence["architecture"]
    return replace(
        spec,
        task="object-detection",
        outputs=(),
        postprocessing=Postprocessing(activation="softmax" if softmax else "sigmoid", threshold=THRESHOLD, head="detr"),
        evidence={key: value for key, value in spec.evidence.items() if key != "outputs"}
        | {
            "task": source,
            "postprocessing.activation": f"{source} ({spec.architecture}: post_process_object_detection)",
            "postprocessing.threshold": f"{source} (the default of the library's pipeline)",
            "postprocessing.head": source,
        },
    )
