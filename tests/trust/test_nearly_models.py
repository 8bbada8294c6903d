"""What is nearly a model costs one sentence that names what is missing; so does a framework that is not installed."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.engine import Engine
from engine.errors import FrameworkMissing, ModelError
from engine.settings import Settings, WorkerSettings
from tests.e2e import program
from tests.trust import hostile

SEEDS = Path(__file__).parents[1] / "fuzz" / "seeds"
PATIENCE_S = 60.0

Write = Callable[[Path], Path]


def seed(name: str) -> Write:
    return lambda folder: Path(shutil.copy(SEEDS / name, folder / name))


def cut(name: str, keep: float) -> Write:
    def write(folder: Path) -> Path:
        data = (SEEDS / name).read_bytes()
        (folder / name).write_bytes(data[: int(len(data) * keep)])
        return folder / name

    return write


def bert(folder: Path, *, tokenizer: bool = True, weights: bool = True, config: bool = True) -> Path:
    """A folder of transformers, as complete as asked for."""
    model = folder / "bert"
    model.mkdir()
    table = {"model_type": "bert", "architectures": ["BertForSequenceClassification"], "vocab_size": 100}
    if config:
        (model / "config.json").write_text(json.dumps(table))
    if tokenizer:
        (model / "tokenizer.json").write_text("{}")
    if weights:
        hostile.safetensors(model / "model.safetensors", {"w": hostile.tensor([4], 0, 16)}, bytes(16))
    return model


def vit(folder: Path) -> Path:
    model = folder / "vit"
    model.mkdir()
    table = {"model_type": "vit", "architectures": ["ViTForImageClassification"], "id2label": {"0": "a", "1": "b"}}
    (model / "config.json").write_text(json.dumps(table))
    prepared = {"size": {"height": 8, "width": 8}, "image_processor_type": "ViTImageProcessor", "do_resize": True}
    (model / "preprocessor_config.json").write_text(json.dumps(prepared))
    hostile.safetensors(model / "model.safetensors", {"w": hostile.tensor([4], 0, 16)}, bytes(16))
    return model


def saved_model(folder: Path, *parts: str) -> Path:
    model = folder / "exported"
    model.mkdir()
    shutil.copy(SEEDS / "saved_model.pb", model)
    for part in parts:
        (model / part).parent.mkdir(exist_ok=True)
        (model / part).write_bytes(b"x")
    return model


def empty(folder: Path) -> Path:
    (folder / "m.onnx").touch()
    return folder / "m.onnx"


def sparse(folder: Path) -> Path:
    """64 GiB that take no room on the disk, behind the first bytes of a safetensors file."""
    with (folder / "m.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", 1 << 34))
        file.truncate(64 << 30)
    return folder / "m.safetensors"


def index_without_shards(folder: Path) -> Path:
    model = bert(folder, weights=False)
    table = {"weight_map": {"w": "model-00001-of-00002.safetensors"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(table))
    return model


NEARLY: dict[str, tuple[Write, str, str]] = {
    "truncated-keras": (cut("model.keras", 0.7), "model_corrupt", "expected a complete .keras file"),
    "truncated-torchscript": (cut("script.pt", 0.7), "model_corrupt", "cut off or damaged"),
    "truncated-export": (cut("program.pt2", 0.7), "model_corrupt", "cut off or damaged"),
    "truncated-h5": (cut("model.h5", 0.7), "model_corrupt", "cut off or damaged"),
    "truncated-tflite": (cut("model.tflite", 0.5), "model_corrupt", "expected a complete .tflite file"),
    "truncated-onnx": (cut("model.onnx", 0.7), "model_corrupt", "expected a complete ONNX file"),
    "truncated-safetensors": (cut("weights.safetensors", 0.9), "model_corrupt", "cut off"),
    "empty": (empty, "model_corrupt", "empty (0 bytes)"),
    "huge-hdf5": (lambda f: _written(f / "m.h5", hostile.hdf5(1 << 50)), "model_corrupt", "declares more than"),
    "huge-sparse-file": (sparse, "model_corrupt", "header is larger than"),
    "pt-that-is-a-pickle": (lambda f: _written(f / "m.pt", b"\x80\x04N."), "model_refused", "it is a pickle"),
    "weights-without-model": (seed("weights.pth"), "model_refused", "Put its config.json beside it"),
    "saved-model-without-variables": (saved_model, "model_corrupt", "has no variables folder"),
    "saved-model-without-a-shard": (
        lambda f: saved_model(f, "variables/variables.index", "variables/variables.data-00000-of-00002"),
        "model_corrupt",
        "lacks files",
    ),
    "config-and-no-weights": (lambda f: bert(f, weights=False), "model_corrupt", "weights"),
    "weights-and-no-config": (lambda f: bert(f, config=False), "model_refused", "config.json"),
    "no-tokenizer": (lambda f: bert(f, tokenizer=False), "model_corrupt", "tokenizer"),
    "index-without-shards": (index_without_shards, "model_corrupt", "model-00001-of-00002.safetensors"),
    "onnx-without-its-data": (
        lambda f: hostile.onnx(f / "m.onnx", weights=hostile.external_weights("m.onnx.data")),
        "model_corrupt",
        "keeps its weights in m.onnx.data, which is missing",
    ),
    "a-text-file": (lambda f: _written(f / "notes.txt", b"hello"), "model_format_unknown", "is not a model"),
    "an-empty-folder": (lambda f: f, "model_format_unknown", "holds no model"),
    "nothing": (lambda f: f / "gone.keras", "model_unreadable", "does not exist"),
}


def _written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("name", NEARLY)
def test_the_sentence_names_what_is_missing(engine: Engine, tmp_path: Path, name: str) -> None:
    write, code, words = NEARLY[name]
    folder = tmp_path / "files"
    folder.mkdir()
    path = write(folder)
    with pytest.raises(ModelError) as caught:
        engine.inspect(path).result(PATIENCE_S)
    error = caught.value
    assert (error.code, words in error.message) == (code, True), f"{error.code}: {error.message}"
    assert path.name in error.message or (path.is_dir() and any(p.name in error.message for p in path.iterdir()))
    assert "\n" not in error.message
    assert "took longer" not in error.message


@pytest.mark.real
@pytest.mark.parametrize("name", ["truncated-keras", "saved-model-without-variables", "nothing"])
def test_the_command_line_says_the_same(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    path = NEARLY[name][0](folder)
    done = program.run(["inspect", path], tmp_path)
    assert done.process.returncode == 2
    assert not done.stdout
    assert len(done.stderr) == 1
    assert NEARLY[name][2] in done.stderr[0]
    assert str(path) in done.stderr[0]


# -- a framework that is not there -------------------------------------------------------------------------------------
def keras_2_file(folder: Path) -> Path:
    import h5py

    file = Path(shutil.copy(SEEDS / "model.h5", folder / "model.h5"))
    with h5py.File(file, "a") as opened:
        opened.attrs["keras_version"] = "2.15.0"
    return file


def whole_saved_model(folder: Path) -> Path:
    return saved_model(folder, "variables/variables.index", "variables/variables.data-00000-of-00001")


MISSING: dict[str, tuple[str, str, Write]] = {
    "keras": ("tensorflow", "pip install tensorflow", seed("model.keras")),
    "keras-2": ("tf_keras", "pip install tf-keras", keras_2_file),
    "saved-model": ("tensorflow", "pip install tensorflow", whole_saved_model),
    "litert": ("ai_edge_litert", "pip install ai-edge-litert", seed("model.tflite")),
    "torchscript": ("torch", "pip install torch", seed("script.pt")),
    "torch-export": ("torch", "pip install torch", seed("program.pt2")),
    "onnx": ("onnxruntime", "pip install onnxruntime", seed("model.onnx")),
    "transformers": ("transformers", "pip install transformers", vit),
}


@pytest.mark.real
@pytest.mark.parametrize("name", MISSING)
def test_a_framework_that_is_not_installed_is_named_with_its_command(tmp_path: Path, name: str) -> None:
    package, command, write = MISSING[name]
    shadow = tmp_path / "shadow" / package
    shadow.mkdir(parents=True)
    (shadow / "__init__.py").write_text(f'raise ModuleNotFoundError("No module named {package}", name="{package}")\n')
    folder = tmp_path / "files"
    folder.mkdir()
    path = write(folder)
    worker: Any = WorkerSettings(python_path=[str(shadow.parent)])
    with Engine(Settings(worker=worker), folder=tmp_path / "home") as engine, pytest.raises(FrameworkMissing) as caught:
        engine.load(path, device="cpu", trust=True).future.result(PATIENCE_S)
    assert caught.value.code == "framework_missing"
    assert command in caught.value.message
    assert "not installed" in caught.value.message
    assert "\n" not in caught.value.message
