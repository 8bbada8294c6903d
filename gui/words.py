"""Values as people read them: tasks, formats, sizes, times, percentages."""

from __future__ import annotations

import sys
import time

from PySide6.QtCore import QDate, QDateTime, QLocale

from engine.events import LoadStage
from engine.serving_types import ServerState
from gui.language import counted, mark, tr

THIN = "\u2009"
AUTOMATIC = "auto"
DEVICES = (AUTOMATIC, "cpu", "mps" if sys.platform == "darwin" else "cuda")
"""What a model can be asked to run on."""

_FORMATS = {
    "bioimage_io": "BioImage.IO",
    "hugging_face": "Hugging Face",
    "keras": "Keras",
    "keras_h5": "Keras HDF5",
    "onnx": "ONNX",
    "saved_model": "SavedModel",
    "state_dict": mark("PyTorch weights"),
    "tflite": "LiteRT",
    "torch_export": mark("PyTorch export"),
    "torchscript": "TorchScript",
    "fake": "test model",
}

_TASKS = {
    "audio-classification": mark("Audio classification"),
    "automatic-speech-recognition": mark("Automatic speech recognition"),
    "depth-estimation": mark("Depth estimation"),
    "feature-extraction": mark("Feature extraction"),
    "image-classification": mark("Image classification"),
    "image-feature-extraction": mark("Image feature extraction"),
    "image-segmentation": mark("Image segmentation"),
    "image-to-image": mark("Image to image"),
    "keypoint-detection": mark("Keypoint detection"),
    "mask-generation": mark("Mask generation"),
    "object-detection": mark("Object detection"),
    "tabular-classification": mark("Tabular classification"),
    "tabular-regression": mark("Tabular regression"),
    "text-classification": mark("Text classification"),
    "token-classification": mark("Token classification"),
}

STAGES: dict[LoadStage, tuple[str, str]] = {
    LoadStage.RECOGNISING: (mark("Look at the file"), mark("Looking at the file")),
    LoadStage.HASHING: (mark("Check the file"), mark("Checking the file")),
    LoadStage.STARTING: (mark("Start the worker"), mark("Starting the worker")),
    LoadStage.IMPORTING: (mark("Import the framework"), mark("Importing the framework")),
    LoadStage.READING: (mark("Read weights"), mark("Reading weights")),
    LoadStage.BUILDING: (mark("Build the model"), mark("Building the model")),
    LoadStage.MOVING: (mark("Move to the device"), mark("Moving to the device")),
    LoadStage.WARMING: (mark("Warm up"), mark("Warming up")),
}
"""Stage -> (what is to do, what is being done), both to be looked up."""


def task_words(task: str) -> str:
    """``image-classification`` -> ``Image classification``, in the window's language where it is one that is known."""
    return tr(_TASKS.get(task, task.replace("-", " ").capitalize())) if task else tr("Model")


def format_words(name: str) -> str:
    return tr(_FORMATS.get(name, name))


def size_words(count: int) -> str:
    """Bytes in KB or MB (powers of ten)."""
    if count < 1000:
        return f"{count}{THIN}B"
    if count < 1_000_000:
        return f"{count / 1000:.0f}{THIN}KB"
    if count < 1_000_000_000:
        return f"{count / 1e6:.1f}{THIN}MB" if count < 10_000_000 else f"{count / 1e6:.0f}{THIN}MB"
    return f"{count / 1e9:.1f}{THIN}GB"


def gb_words(count: int) -> str:
    """Gigabytes as a bare number: ``5.2``, ``128``."""
    value = count / 1e9
    return f"{value:.1f}" if value < 10 else f"{value:.0f}"


def ms_words(value: float | None) -> str:
    """Milliseconds below 1 s, seconds above; nothing for None."""
    if value is None:
        return ""
    if value < 10:
        return f"{value:.1f}{THIN}ms"
    return f"{value:.0f}{THIN}ms" if value < 1000 else f"{value / 1000:.1f}{THIN}s"


def seconds_words(value: float) -> str:
    return f"{value:.1f}{THIN}s"


def percent_words(score: float) -> str:
    """A score of 0..1 as per cent, never 100.0 % for what is less than certain, nor 0.0 % for what is possible."""
    percent = score * 100
    if 99.95 <= percent < 100:
        return f">{THIN}99.9{THIN}%"
    if 0 < percent < 0.05:
        return f"<{THIN}0.1{THIN}%"
    return f"{percent:.1f}{THIN}%"


def served_words(state: ServerState) -> list[str]:
    """Since when the server runs, and how many other computers are asking now."""
    words = (
        []
        if state.started_at is None
        else [tr("Since {clock}").format(clock=time.strftime("%H:%M", time.localtime(state.started_at)))]
    )
    if state.callers:
        words.append(counted("{count} caller now", "{count} callers now", len(state.callers)))
    return words


def device_words(device: str) -> str:
    """``cuda:0`` -> ``GPU 0``; the engine's own word where there is none better."""
    name, _, index = device.partition(":")
    known = {"cpu": "CPU", "cuda": "GPU", "mps": tr("Apple GPU"), "gpu": "GPU"}
    word = known.get(name.lower(), device)
    return f"{word} {index}".strip() if name.lower() in known else word


def device_choice_words(device: str) -> str:
    """One of :data:`DEVICES`."""
    return tr("Automatic") if device == AUTOMATIC else device_words(device)


def moment_words(at: float) -> str:
    """Unix seconds as the clock shows them, with the day before where it was another one, its month in the language."""
    then = QDateTime.fromSecsSinceEpoch(int(at))
    return QLocale().toString(then, "HH:mm" if then.date() == QDate.currentDate() else "d MMM HH:mm")


def day_words(at: float) -> str:
    """Unix seconds as a day."""
    return QLocale().toString(QDateTime.fromSecsSinceEpoch(int(at)), "d MMM yyyy")
