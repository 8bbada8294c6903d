"""Folders of transformers and loose weights, written and answered by transformers and torch."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from tests.e2e.format_case import Ask, Written, case
from tests.e2e.format_writers.keras_files import photo

FOLDER = "Hugging Face folder"
STATE_DICT = "state dict"
LABELS = {0: "heron", 1: "kite", 2: "owl"}


def _vit(folder: Path) -> Any:
    """A tiny ViT with random weights and its processor, saved in ``folder``."""
    import torch
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(5)
    config = ViTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        image_size=48,
        patch_size=8,
        initializer_range=0.6,
        id2label=LABELS,
        label2id={name: number for number, name in LABELS.items()},
    )
    model = ViTForImageClassification(config).eval()
    model.save_pretrained(folder)
    _vit_processor().save_pretrained(folder)
    return model


def _vit_processor() -> Any:
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    return ViTImageProcessorPil(
        size={"height": 48, "width": 48}, image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.3, 0.25]
    )


def _ask_pipeline(folder: Path, model: Any, processor: Any) -> Ask:
    """What the library's own pipeline answers to a photo in ``folder``."""
    from transformers import pipeline

    image = photo(folder, "photo.png", (91, 67))
    answers = pipeline("image-classification", model=model, image_processor=processor, device="cpu")(image, top_k=5)
    return Ask("photo.png", "image/png", predictions=[dict(answer) for answer in answers])


@case("hf-vit", writer="transformers", source=FOLDER)
def hf_vit(folder: Path) -> Written:
    model = _vit(folder / "birds")
    return Written(
        "birds",
        [_ask_pipeline(folder, model, _vit_processor())],
        spec={
            "format": "hugging_face",
            "runtime": "transformers",
            "trust_class": "data",
            "task": "image-classification",
            "labels": list(LABELS.values()),
            "architecture": "ViTForImageClassification",
            "preprocessing.size": [48, 48],
            "preprocessing.mean": [0.4, 0.5, 0.6],
            "preprocessing.resample": "bilinear",
            "postprocessing.activation": "softmax",
        },
        evidence={
            "labels": "config.json: id2label",
            "preprocessing.size": "preprocessor_config.json: size",
            "preprocessing.mean": "preprocessor_config.json: image_mean",
            "task": "config.json: architectures",
        },
    )


@case("hf-resnet-sharded", writer="transformers", source=FOLDER)
def hf_resnet_sharded(folder: Path) -> Written:
    """ResNet takes ConvNeXT's processor: a larger picture, of which the middle is cut out."""
    import torch
    from transformers import ResNetConfig, ResNetForImageClassification
    from transformers.models.convnext.image_processing_pil_convnext import ConvNextImageProcessorPil

    torch.manual_seed(6)
    config = ResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 16],
        depths=[1, 1],
        id2label=LABELS,
        problem_type="multi_label_classification",
    )
    model = ResNetForImageClassification(config).eval()
    model.save_pretrained(folder / "shards", max_shard_size="4KB")
    processor = ConvNextImageProcessorPil(size={"shortest_edge": 56}, crop_pct=0.8)
    processor.save_pretrained(folder / "shards")
    assert len(list((folder / "shards").glob("model-*.safetensors"))) > 1
    return Written(
        "shards",
        [_ask_pipeline(folder, model, processor)],
        spec={
            "preprocessing.size": [56, 56],
            "preprocessing.resize_size": [70, 70],
            "preprocessing.resize": "shortest",
            "preprocessing.crop": "center",
            "preprocessing.resample": "bicubic",
            "postprocessing.activation": "sigmoid",
        },
        evidence={"preprocessing.resize_size": "crop_pct", "postprocessing.activation": "problem_type"},
    )


@case("hf-pytorch-bin", writer="transformers", source=FOLDER)
def hf_pytorch_bin(folder: Path) -> Written:
    import torch

    model = _vit(folder / "birds")
    (folder / "birds" / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "birds" / "pytorch_model.bin")
    return Written(
        "birds/pytorch_model.bin",
        [_ask_pipeline(folder, model, _vit_processor())],
        spec={"format": "hugging_face", "trust_class": "data"},
    )


@case("hf-text", writer="transformers", source=FOLDER)
def hf_text(folder: Path) -> Written:
    """A model of text: its tokens in, its scores out."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(7)
    config = BertConfig(
        vocab_size=40, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, num_labels=3,
        initializer_range=0.5,
    )  # fmt: skip
    model = BertForSequenceClassification(config).eval()
    model.save_pretrained(folder / "moods")
    (folder / "moods" / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "fine"]))
    tokens = {"input_ids": [[2, 5, 1, 3], [2, 5, 3, 0]], "attention_mask": [[1, 1, 1, 1], [1, 1, 1, 0]]}
    with torch.inference_mode():
        logits = model(**{name: torch.tensor(rows) for name, rows in tokens.items()}).logits
    (folder / "tokens.json").write_text(json.dumps({"inputs": tokens}))
    return Written(
        "moods",
        [Ask("tokens.json", "application/json", outputs={"logits": logits.tolist()})],
        spec={
            "task": "text-classification",
            "inputs": [{"name": n, "dtype": "int64", "shape": [-1, -1]} for n in tokens],
        },
        evidence={"task": "BertForSequenceClassification: text-classification"},
    )


@case("state-dict-config", writer="transformers", source=STATE_DICT)
def state_dict_config(folder: Path) -> Written:
    """A training program's checkpoint beside the config: the weights lie inside it, and every name has a prefix."""
    import torch

    model = _vit(folder / "run")
    (folder / "run" / "model.safetensors").unlink()
    state = {f"module.{name}": tensor for name, tensor in model.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": state}, folder / "run" / "epoch3.pth")
    return Written(
        "run/epoch3.pth",
        [_ask_pipeline(folder, model, _vit_processor())],
        spec={"format": "state_dict", "runtime": "transformers", "trust_class": "data"},
        evidence={"format": "data.pkl"},
    )


_CODE = """
import torch


class Net(torch.nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = torch.nn.Linear(3, width)
        self.last = torch.nn.Linear(width, 2)

    def forward(self, x, shift=None):
        hidden = torch.relu(self.first(x))
        return self.last(hidden if shift is None else hidden + shift), hidden
"""
_SIDECAR = """
architecture = "net.py:Net"
[architecture_kwargs]
width = 4
[[inputs]]
name = "x"
dtype = "float32"
shape = [-1, 3]
[[outputs]]
name = "scores"
dtype = "float32"
shape = [-1, 2]
[[outputs]]
name = "hidden"
dtype = "float32"
shape = [-1, 4]
"""


@case("state-dict-class", writer="transformers", source=STATE_DICT)
def state_dict_class(folder: Path) -> Written:
    import torch
    from safetensors.torch import save_file

    opened = folder / "own"
    opened.mkdir()
    (opened / "net.py").write_text(_CODE)
    (opened / "deskside.toml").write_text(_SIDECAR)
    names: dict[str, Any] = {}
    exec(_CODE, names)
    torch.manual_seed(8)
    net = names["Net"](4).eval()
    save_file(net.state_dict(), opened / "net.safetensors")
    x = np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)
    np.save(folder / "x.npy", x)
    with torch.inference_mode(), warnings.catch_warnings():
        scores, hidden = net(torch.from_numpy(x))
    return Written(
        "own",
        [Ask("x.npy", "application/x-npy", outputs={"scores": scores.tolist(), "hidden": hidden.tolist()})],
        spec={"format": "state_dict", "runtime": "state_dict", "trust_class": "program", "architecture": "net.py:Net"},
        evidence={"architecture": "sidecar", "format": "4 tensors"},
    )
