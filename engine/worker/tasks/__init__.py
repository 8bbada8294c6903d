"""The tasks by Hugging Face's names. A task's module is imported when a model has it."""

from __future__ import annotations

from importlib import import_module

from engine.errors import LoadFailed
from engine.model_spec import ModelSpec
from engine.worker.tasks.base import Task

_TASKS = {
    "image-classification": ("engine.worker.tasks.image_classification", "ImageClassification"),
    "tabular-classification": ("engine.worker.tasks.tabular_classification", "TabularClassification"),
    "tabular-regression": ("engine.worker.tasks.tabular_regression", "TabularRegression"),
    "text-classification": ("engine.worker.tasks.text_classification", "TextClassification"),
    "token-classification": ("engine.worker.tasks.token_classification", "TokenClassification"),
    "feature-extraction": ("engine.worker.tasks.feature_extraction", "FeatureExtraction"),
    "object-detection": ("engine.worker.tasks.object_detection", "ObjectDetection"),
    "image-segmentation": ("engine.worker.tasks.image_segmentation", "ImageSegmentation"),
    "depth-estimation": ("engine.worker.tasks.depth_estimation", "DepthEstimation"),
    "keypoint-detection": ("engine.worker.tasks.keypoint_detection", "KeypointDetection"),
    "image-to-image": ("engine.worker.tasks.image_to_image", "ImageToImage"),
    "audio-classification": ("engine.worker.tasks.audio_classification", "AudioClassification"),
    "raw-tensors": ("engine.worker.tasks.raw_tensors", "RawTensors"),
}


def create_task(spec: ModelSpec) -> Task:
    """The task of ``spec``, checked against its tensors. Raises LoadFailed."""
    if spec.task not in _TASKS:
        raise LoadFailed(f"The task {spec.task!r} is not one of {', '.join(sorted(_TASKS))}.")
    module, attribute = _TASKS[spec.task]
    task: Task = getattr(import_module(module), attribute)(spec)
    task.check()
    return task
