"""Folders of transformers: ``config.json``, weights, and what prepares their input. Only JSON and headers are read.

Layout: transformers 5.23, ``utils/__init__.py`` (file names) and ``modeling_utils.py`` (which weights are taken first).
Class *data*: the library's own classes are used, code that lies in the folder never (``trust_remote_code`` is off).
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from engine.errors import ModelCorrupt, ModelRefused
from engine.formats import image_processors
from engine.formats.disk import read_bounded
from engine.formats.hugging_face_dense import (
    makes_pictures,
    measures_depth,
    segments,
    with_depth,
    with_pictures_made,
    with_segmentation,
)
from engine.formats.hugging_face_detection import detects, with_detector
from engine.formats.hugging_face_tasks import Kind, kind_of, task_of
from engine.formats.safetensors_file import read_tensors
from engine.formats.sentence_transformers import with_sentence_steps
from engine.formats.torch_weights import check_torch_weights
from engine.identity import HUGGING_FACE_WEIGHTS, is_hugging_face_folder
from engine.model_spec import ASSUMED, ModelSpec, Postprocessing, Preprocessing, TensorSpec, TrustClass

NAME = "hugging_face"
RUNTIME = "transformers"
CONFIG = "config.json"
EXPECTED = "a folder as save_pretrained writes it"
MAX_JSON = 32 << 20
MAX_TOKENIZER = 512 << 20
MAX_LABELS = 100_000
MAX_SHARDS = 1000
TOKENIZERS = ("tokenizer.json", "vocab.txt", "vocab.json", "spiece.model", "sentencepiece.bpe.model", "tokenizer.model")
_BESIDE = (
    "generation_config.json", "preprocessor_config.json", "processor_config.json", "tokenizer_config.json",
    "special_tokens_map.json", "added_tokens.json", "merges.txt", *TOKENIZERS,
)  # fmt: skip
OTHER_WEIGHTS = {"tf_model.h5": "TensorFlow", "flax_model.msgpack": "Flax", "adapter_model.safetensors": "an adapter"}
_CLASS = re.compile(r"[A-Z][A-Za-z0-9_]{2,99}", re.ASCII)


@dataclass(frozen=True, slots=True)
class _Folder:
    """A folder's ``config.json`` with what it says of the model's class."""

    path: Path
    config: dict[str, Any]
    architecture: str

    @property
    def kind(self) -> Kind:
        return kind_of(self.architecture, self.config)


def recognise(path: Path) -> bool:
    """A folder with weights under the library's names, or whose ``config.json`` names a model's class."""
    return path.is_dir() and (is_hugging_face_folder(path) or names_a_model(path / CONFIG))


def names_a_model(config: Path) -> bool:
    """Whether a ``config.json`` is one of transformers: it names ``architectures`` or a ``model_type``."""
    if not config.is_file():
        return False
    try:
        table = json.loads(read_bounded(config, MAX_JSON))
    except (ValueError, RecursionError, ModelCorrupt):
        return False
    return isinstance(table, dict) and ("architectures" in table or "model_type" in table)


def describe(path: Path) -> ModelSpec:
    """A folder and its own weights. Raises ModelCorrupt naming what is missing, ModelRefused, ModelUnreadable."""
    weights = _weights(path)
    return describe_with(path, weights)


def describe_with(folder: Path, weights: tuple[Path, ...]) -> ModelSpec:
    """What ``config.json`` and its neighbours in ``folder`` say of the model that ``weights`` belong to.

    Raises ModelCorrupt naming what is missing or damaged, ModelRefused for a model that brings its own code.
    """
    opened = _open(folder)
    task = task_of(opened.architecture, opened.kind)
    key = f"{CONFIG}: architectures"
    spec = ModelSpec(
        path=folder,
        model_file=folder,
        format=NAME,
        runtime=RUNTIME,
        task="raw-tensors",
        trust_class=TrustClass.DATA,
        architecture=opened.architecture,
        files=(folder / CONFIG, *weights, *(folder / n for n in _BESIDE if (folder / n).is_file())),
        evidence={
            "format": f"{CONFIG}: model_type {str(opened.config.get('model_type', 'unknown'))[:60]}",
            "runtime": key,
            "architecture": key,
            "task": f"{key} ({opened.architecture}: {task})",
        },
    )
    if opened.kind is Kind.TEXT:
        return _with_text_task(_with_text(spec, opened), opened, str(task))
    if task == "audio-classification":
        return _with_recordings(spec, opened)
    if opened.kind is not Kind.IMAGE:
        return spec
    spec = _with_pictures(spec, opened)
    if detects(opened.architecture):
        return with_detector(_with_classes(spec, opened))
    if segments(opened.architecture):
        return with_segmentation(_with_classes(spec, opened))
    if measures_depth(opened.architecture):
        return with_depth(spec)
    if makes_pictures(opened.architecture):
        return with_pictures_made(spec)
    return _with_classes(spec, opened) if task == "image-classification" else spec


# -- the parts of a folder ---------------------------------------------------------------------------------------------
def _open(folder: Path) -> _Folder:
    if not (folder / CONFIG).is_file():
        raise ModelCorrupt(f"{folder.name} has weights but no {CONFIG}: expected {EXPECTED}.")
    config = read_json(folder / CONFIG)
    if any(
        isinstance(table, dict) and table.get("auto_map")
        for table in (config, _optional(folder, image_processors.FILE))
    ):
        raise ModelRefused(
            f"{folder.name} is refused: its model is Python code of its own ({CONFIG}: auto_map), which is never run; "
            "expected a model of a class that transformers has."
        )
    _refuse_downloads(folder, config)
    named = config.get("architectures")
    if not isinstance(named, list) or not named or not isinstance(named[0], str):
        raise ModelCorrupt(f"{CONFIG} in {folder.name} names no architectures, so the model's class is not known.")
    if not _CLASS.fullmatch(named[0]) or task_of(named[0], kind_of(named[0], config)) is None:
        raise ModelRefused(
            f"{CONFIG} in {folder.name} names the class {named[0][:80]!r}, which is none of the models of transformers "
            "that can be opened."
        )
    return _Folder(folder, config, named[0])


def _refuse_downloads(folder: Path, config: dict[str, Any]) -> None:
    """An attention or expert kernel with a slash is a repository whose code would be fetched and run."""
    pending: list[Any] = [config]
    while pending:
        item = pending.pop()
        if isinstance(item, list):
            pending.extend(item)
        elif isinstance(item, dict):
            pending.extend(item.values())
            for key, value in item.items():
                if key.lstrip("_") in ("attn_implementation", "experts_implementation") and "/" in str(value):
                    raise ModelRefused(f"{folder.name} is refused: {CONFIG}: {key} asks for code from the network.")


def _weights(folder: Path) -> tuple[Path, ...]:
    """The files of weights in the library's order of preference, checked. Raises ModelCorrupt, ModelRefused."""
    for name in HUGGING_FACE_WEIGHTS:
        file = folder / name
        if not file.is_file():
            continue
        if file.suffix == ".json":
            return (file, *_shards(folder, file))
        _check_weights(file)
        return (file,)
    other = next(
        (f"only those of {what} ({name})" for name, what in OTHER_WEIGHTS.items() if (folder / name).is_file()), ""
    )
    raise ModelCorrupt(
        f"{folder.name} has a {CONFIG} but no weights{', ' + other if other else ''}: expected model.safetensors or "
        "pytorch_model.bin in it."
    )


def _check_weights(file: Path) -> Collection[str] | None:
    """The names of the tensors in it, None where only its framework can tell them."""
    if file.suffix == ".safetensors":
        return read_tensors(file).keys()
    check_torch_weights(file)
    return None


def _shards(folder: Path, index: Path) -> list[Path]:
    """The files an index names, each of them there and whole. Raises ModelCorrupt naming the one that is not."""
    table = read_json(index).get("weight_map")
    if not isinstance(table, dict) or not table or not all(isinstance(n, str) for n in table.values()):
        raise ModelCorrupt(f"{index.name} in {folder.name} is damaged: it has no weight_map.")
    names = sorted(set(table.values()))
    if len(names) > MAX_SHARDS:
        raise ModelCorrupt(f"{index.name} in {folder.name} names more than {MAX_SHARDS:,} files.")
    files = []
    for name in names:
        file = folder / name
        if Path(name).name != name or file.suffix not in (".safetensors", ".bin"):
            raise ModelCorrupt(f"{index.name} in {folder.name} names {name[:80]!r}, which is no file of weights in it.")
        if not file.is_file():
            raise ModelCorrupt(f"{folder.name} lacks {name}, one of the {len(names)} files of its weights.")
        held = _check_weights(file)
        lost = next(
            (key for key, where in table.items() if where == name and held is not None and key not in held), None
        )
        if lost is not None:
            raise ModelCorrupt(f"{name} in {folder.name} lacks {lost[:80]!r}, which {index.name} says it holds.")
        files.append(file)
    return files


def read_json(path: Path) -> dict[str, Any]:
    """One JSON object. Raises ModelCorrupt, ModelUnreadable."""
    try:
        value = json.loads(read_bounded(path, MAX_JSON))
    except (ValueError, RecursionError) as error:
        raise ModelCorrupt(f"{path.name} in {path.parent.name} is not JSON.", details=str(error)) from error
    if not isinstance(value, dict):
        raise ModelCorrupt(f"{path.name} in {path.parent.name} is not a JSON object.")
    return value


def _optional(folder: Path, name: str) -> dict[str, Any] | None:
    return read_json(folder / name) if (folder / name).is_file() else None


# -- what they say -----------------------------------------------------------------------------------------------------
def _with_text(spec: ModelSpec, opened: _Folder) -> ModelSpec:
    if not any((opened.path / name).is_file() for name in TOKENIZERS):
        raise ModelCorrupt(
            f"{opened.path.name} has no tokenizer, without which {opened.architecture} understands no text: expected "
            "tokenizer.json or vocab.txt in it."
        )
    config = _optional(opened.path, "tokenizer_config.json") or {}
    names = config.get("model_input_names")
    if isinstance(names, list) and names and all(isinstance(n, str) and n.isidentifier() for n in names):
        source = "tokenizer_config.json: model_input_names"
    else:
        names, source = ["input_ids", "attention_mask"], f"{CONFIG}: architectures"
    inputs = tuple(TensorSpec(name, "int64", (-1, -1)) for name in dict.fromkeys(names))
    return replace(spec, inputs=inputs, evidence=spec.evidence | {"inputs": source})


def _with_text_task(spec: ModelSpec, opened: _Folder, task: str) -> ModelSpec:
    if task == "text-classification":
        spec = _with_classes(spec, opened, task)
        if opened.config.get("problem_type") != "regression":
            return spec
        numbers = ({"name": "regression"},)
        evidence = spec.evidence | {"steps": f"{CONFIG}: problem_type"}
        return replace(spec, postprocessing=Postprocessing(), steps=numbers, evidence=evidence)
    if task == "token-classification":
        spec = _with_classes(spec, opened, task)
        tokens = TensorSpec("logits", "float32", (-1, -1, spec.outputs[0].shape[1]))
        return replace(spec, outputs=(tokens,), postprocessing=Postprocessing(activation="softmax"))
    if task == "feature-extraction":
        return with_sentence_steps(replace(spec, task=task), opened.path)
    return spec


def _with_recordings(spec: ModelSpec, opened: _Folder) -> ModelSpec:
    if not (opened.path / image_processors.FILE).is_file():
        why = f"{ASSUMED} ({image_processors.FILE} is missing, which tells how a recording is prepared)"
        return replace(spec, evidence=spec.evidence | {"task": why})
    return _with_classes(spec, opened, "audio-classification")


def _with_pictures(spec: ModelSpec, opened: _Folder) -> ModelSpec:
    channels = opened.config.get("num_channels", 3)
    channels = channels if channels in (1, 3) else -1
    spec = replace(
        spec,
        inputs=(TensorSpec("pixel_values", "float32", (-1, channels, -1, -1)),),
        evidence=spec.evidence | {"inputs": f"{CONFIG}: architectures, num_channels"},
    )
    table = _optional(opened.path, image_processors.FILE)
    if table is None:
        return _without_processor(spec, opened)
    try:
        reading = image_processors.read_image_processor(table, 1 if channels == 1 else 3)
    except image_processors.NotUnderstood as error:
        raise ModelCorrupt(f"{image_processors.FILE} in {opened.path.name}: {error}.") from error
    evidence = {f"preprocessing.{key}": source for key, source in reading.evidence.items()}
    return replace(spec, preprocessing=reading.preprocessing, evidence=spec.evidence | evidence)


def _without_processor(spec: ModelSpec, opened: _Folder) -> ModelSpec:
    missing = f"{ASSUMED} ({image_processors.FILE} is missing)"
    size, source = opened.config.get("image_size"), f"{CONFIG}: image_size"
    if not isinstance(size, int) or isinstance(size, bool) or not 0 < size <= 30_000:
        size, source = 224, missing
    channel_order = "grayscale" if opened.config.get("num_channels") == 1 else "rgb"
    evidence = dict.fromkeys(("channel_order", "resize", "scaling", "mean", "std"), missing)
    evidence |= {"size": source, "layout": f"{CONFIG}: architectures"}
    return replace(
        spec,
        preprocessing=Preprocessing(size=(size, size), layout="nchw", channel_order=channel_order),
        evidence=spec.evidence | {f"preprocessing.{key}": where for key, where in evidence.items()},
    )


def _with_classes(spec: ModelSpec, opened: _Folder, task: str = "image-classification") -> ModelSpec:
    """Labels in class order, the output's width, and the activation the library's pipeline applies."""
    config, evidence = opened.config, dict(spec.evidence)
    labels = _labels(config.get("id2label"))
    count, key = len(labels), f"{CONFIG}: id2label"
    if not labels:
        stated = config.get("num_labels", 2)
        count = stated if isinstance(stated, int) and not isinstance(stated, bool) and stated > 0 else 2
        key = f"{CONFIG}: num_labels" if "num_labels" in config else f"{ASSUMED} ({CONFIG} names no classes)"
    else:
        evidence["labels"] = key
    several = config.get("problem_type") == "multi_label_classification" or count == 1
    evidence |= {
        "outputs": key,
        "postprocessing.activation": f"{CONFIG}: problem_type" if config.get("problem_type") else key,
    }
    return replace(
        spec,
        task=task,
        labels=labels,
        outputs=(TensorSpec("logits", "float32", (-1, count)),),
        postprocessing=Postprocessing(activation="sigmoid" if several else "softmax"),
        evidence=evidence,
    )


def _labels(table: Any) -> tuple[str, ...]:
    """``id2label`` in the order of its numbers; empty where they are not 0, 1, 2… without a gap."""
    if not isinstance(table, dict) or not 0 < len(table) <= MAX_LABELS:
        return ()
    names = [table.get(str(number)) for number in range(len(table))]
    return tuple(str(name) for name in names) if all(isinstance(name, str | int) for name in names) else ()
