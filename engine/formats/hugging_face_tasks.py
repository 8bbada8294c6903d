"""From a class of transformers to its task, by the library's own naming: a body, ``For`` and a head.

Names of tasks: ``transformers/pipelines/__init__.py`` (``SUPPORTED_TASKS``); heads: ``models/auto/modeling_auto.py``.
"""

from __future__ import annotations

from enum import Enum
from typing import Any


class Kind(Enum):
    """What a model takes."""

    IMAGE = "image"
    TEXT = "text"
    AUDIO = "audio"
    OTHER = "other"


_HEADS = {
    "ForImageClassification": (Kind.IMAGE, "image-classification"),
    "ForImageClassificationWithTeacher": (Kind.IMAGE, "image-classification"),
    "ForObjectDetection": (Kind.IMAGE, "object-detection"),
    "ForSemanticSegmentation": (Kind.IMAGE, "image-segmentation"),
    "ForImageSegmentation": (Kind.IMAGE, "image-segmentation"),
    "ForInstanceSegmentation": (Kind.IMAGE, "image-segmentation"),
    "ForUniversalSegmentation": (Kind.IMAGE, "image-segmentation"),
    "ForSegmentation": (Kind.IMAGE, "image-segmentation"),
    "ForDepthEstimation": (Kind.IMAGE, "depth-estimation"),
    "ForImageToImage": (Kind.IMAGE, "image-to-image"),
    "ForImageSuperResolution": (Kind.IMAGE, "image-to-image"),
    "ForMaskedImageModeling": (Kind.IMAGE, "image-feature-extraction"),
    "ForAudioClassification": (Kind.AUDIO, "audio-classification"),
    "ForCTC": (Kind.AUDIO, "automatic-speech-recognition"),
    "ForSpeechSeq2Seq": (Kind.AUDIO, "automatic-speech-recognition"),
    "ForTokenClassification": (Kind.TEXT, "token-classification"),
    "ForQuestionAnswering": (Kind.TEXT, "question-answering"),
    "ForMaskedLM": (Kind.TEXT, "fill-mask"),
    "ForMultipleChoice": (Kind.TEXT, "multiple-choice"),
    "ForCausalLM": (Kind.TEXT, "text-generation"),
    "LMHeadModel": (Kind.TEXT, "text-generation"),
    "ForVideoClassification": (Kind.OTHER, "video-classification"),
    "ForZeroShotObjectDetection": (Kind.OTHER, "zero-shot-object-detection"),
    "ForConditionalGeneration": (Kind.OTHER, "text-generation"),
}
_AUDIO_MARKS = frozenset({"feature_size", "conv_dim", "num_mel_bins", "conv_kernel", "max_source_positions"})


def kind_of(architecture: str, config: dict[str, Any]) -> Kind:
    """What a class takes, told by its head or, for bare bodies, by the keys of its configuration."""
    head = _head(architecture)
    if head is not None:
        return _HEADS[head][0]
    translates = config.get("is_encoder_decoder") and not architecture.endswith("Classification")
    if "vision_config" in config or translates:
        return Kind.OTHER
    if _AUDIO_MARKS & set(config):
        return Kind.AUDIO
    if "vocab_size" in config:
        return Kind.TEXT
    return Kind.IMAGE if {"image_size", "num_channels"} & set(config) else Kind.OTHER


def task_of(architecture: str, kind: Kind) -> str | None:
    """The library's name of the task, or None where the class is no model that can be run by its forward."""
    head = _head(architecture)
    if head is not None:
        return _HEADS[head][1]
    if architecture.endswith("ForSequenceClassification"):
        return "audio-classification" if kind is Kind.AUDIO else "text-classification"
    if architecture.endswith(("Model", "Backbone")):
        return "image-feature-extraction" if kind is Kind.IMAGE else "feature-extraction"
    return None


def _head(architecture: str) -> str | None:
    return next((head for head in _HEADS if architecture.endswith(head)), None)
