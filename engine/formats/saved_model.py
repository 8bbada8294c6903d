"""TensorFlow's SavedModel: a folder of ``saved_model.pb``, ``variables/``, ``assets/`` and ``fingerprint.pb``.

Format: tensorflow/python/saved_model (constants.py), messages in :mod:`engine.formats.saved_model_proto`. Class
*program*: TensorFlow runs its graph with the rights of its process. One that could do more than compute is refused
(:mod:`engine.formats.saved_model_graph`).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from engine.errors import ModelCorrupt, ModelRefused, ModelUnreadable
from engine.formats.disk import read_bounded, walk_files
from engine.formats.saved_model_graph import first_refusal
from engine.formats.saved_model_proto import DTYPES, parse_saved_model
from engine.model_spec import TENSOR_SIGNATURE, ModelSpec, TensorSpec, TrustClass

NAME = "saved_model"
PB = "saved_model.pb"
_TWINS = ("saved_model.pbtxt", "saved_model.cpb")
EXPECTED = "a complete TensorFlow SavedModel folder"
MAX_PB = 512 << 20
_PARTS = ("variables", "assets", "assets.extra")
_FILES = (PB, "keras_metadata.pb", "fingerprint.pb")
_INTERNAL = "__saved_model_"


def recognise(path: Path) -> bool:
    """A folder that holds ``saved_model.pb`` (whatever that is)."""
    return path.is_dir() and (path / PB).exists()


def describe(path: Path, signature: str | None = None) -> ModelSpec:
    """Inputs and outputs of ``signature`` (default: ``serving_default``, else the first), and the names of all.

    ``signatures[0]`` of the result is the one described. Raises ModelCorrupt, ModelRefused, ModelUnreadable; KeyError
    where ``signature`` is not in the model.
    """
    for twin in _TWINS:
        if (path / twin).exists():
            raise ModelRefused(f"{path.name} is refused: it holds {twin} beside {PB}, and so two graphs.")
    files = _files(path)
    message = _parsed(path, read_bounded(path / PB, MAX_PB))
    _check_operations(path, message)
    graph = next((g for g in message.meta_graphs if "serve" in g.meta_info_def.tags), message.meta_graphs[0])
    found = {entry.key: entry.value for entry in graph.signature_def if not entry.key.startswith(_INTERNAL)}
    names = sorted(found, key=lambda name: (name != "serving_default", name))
    if signature is not None:
        names = [signature, *(n for n in names if n != signature)]
    chosen = found[names[0]] if names else None
    version = graph.meta_info_def.tensorflow_version[:20] or "unknown"
    evidence = {"format": f"{PB}: tensorflow_version {version}", "runtime": PB + ": meta_graphs"}
    spec = ModelSpec(
        path=path,
        model_file=path,
        format=NAME,
        runtime="saved_model",
        task="raw-tensors",
        trust_class=TrustClass.PROGRAM,
        signatures=tuple(names),
        files=files,
    )
    if chosen is not None:
        spec = replace(spec, inputs=_tensors(chosen.inputs), outputs=_tensors(chosen.outputs))
        evidence |= dict.fromkeys(("inputs", "outputs"), TENSOR_SIGNATURE)
        evidence["signatures"] = f"{PB}: signature_def"
    return replace(spec, evidence=evidence)


def _files(path: Path) -> tuple[Path, ...]:
    variables = path / "variables"
    if not variables.is_dir():
        raise ModelCorrupt(f"{path.name} has no variables folder: expected {EXPECTED}.")
    files = [path / name for name in _FILES if (path / name).is_file()]
    for part in _PARTS:
        folder = path / part
        if folder.is_symlink():
            raise ModelUnreadable(f"{part} in {path.name} is a link to another folder: expected {EXPECTED}.")
        if folder.is_dir():
            files.extend(walk_files(folder))
    index = variables / "variables.index"
    shards = list(variables.glob("variables.data-*"))
    if not index.is_file() or index.stat().st_size == 0 or not shards:
        raise ModelCorrupt(f"The variables folder of {path.name} is not complete: expected {EXPECTED}.")
    # variables.data-00000-of-00002: a shard that is missing shows in the names of the others.
    stated = shards[0].name.rpartition("-of-")[2]
    if not stated.isdigit() or int(stated) != len(shards):
        raise ModelCorrupt(f"The variables folder of {path.name} lacks files: expected {EXPECTED}.")
    return tuple(sorted(files))


def _parsed(path: Path, data: bytes) -> Any:
    try:
        message = parse_saved_model(data)
    except ValueError as error:
        raise ModelCorrupt(f"{PB} in {path.name} is damaged: expected {EXPECTED}.", details=str(error)) from error
    if not message.meta_graphs:
        raise ModelCorrupt(f"{PB} in {path.name} is empty or cut off: expected {EXPECTED}.")
    return message


def _check_operations(path: Path, message: Any) -> None:
    """Raise ModelRefused where any graph could do more than compute, ModelCorrupt where one is too large."""
    folder = path / "assets"
    assets = [f.relative_to(folder).as_posix() for f in walk_files(folder)] if folder.is_dir() else []
    for graph in message.meta_graphs:
        try:
            refusal = first_refusal(graph, assets)
        except ValueError as error:
            raise ModelCorrupt(f"{PB} in {path.name} is damaged: expected {EXPECTED}.", details=str(error)) from error
        if refusal is not None:
            raise ModelRefused(f"{path.name} is refused: {refusal}.")


def _tensors(entries: Any) -> tuple[TensorSpec, ...]:
    by_name = {entry.key: entry.value for entry in entries}
    return tuple(
        TensorSpec(
            name,
            DTYPES.get(info.dtype, f"tensorflow-{info.dtype}"),
            (-1,) if info.tensor_shape.unknown_rank else tuple(max(d.size, -1) for d in info.tensor_shape.dim),
        )
        for name, info in sorted(by_name.items())
    )
