"""Folders of transformers and files of safetensors, made of bytes alone."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

VIT = {
    "architectures": ["ViTForImageClassification"],
    "model_type": "vit",
    "image_size": 32,
    "num_channels": 3,
    "id2label": {"1": "dog", "0": "cat", "10": "yak", "2": "eel", "3": "fox", "4": "gnu", "5": "hen", "6": "ibis",
                 "7": "jay", "8": "kite", "9": "lynx"},
}  # fmt: skip
BERT = {"architectures": ["BertForSequenceClassification"], "model_type": "bert", "vocab_size": 30}
PROCESSOR = {
    "image_processor_type": "ViTImageProcessor",
    "size": {"height": 48, "width": 40},
    "image_mean": [0.1, 0.2, 0.3],
}


def entry(shape: list[int], start: int, dtype: str = "F32", size: int = 4) -> dict[str, Any]:
    length = size
    for n in shape:
        length *= n
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, start + length]}


def safetensors(header: Any, buffer: bytes) -> bytes:
    """A file with this header, whatever it says."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + buffer


WEIGHTS = safetensors({"__metadata__": {"format": "pt"}, "w": entry([2, 3], 0), "b": entry([2], 24)}, bytes(32))


def folder_of(folder: Path, config: Any = VIT, **files: Any) -> Path:
    """A folder with ``config.json``, ``model.safetensors`` and ``files`` (``__`` for a dot; None leaves one out)."""
    folder.mkdir()
    contents = {"config.json": config, "model.safetensors": WEIGHTS} | {
        k.replace("__", "."): v for k, v in files.items()
    }
    for name, content in contents.items():
        if content is not None:
            (folder / name).write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return folder
