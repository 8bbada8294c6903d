"""What sentence-transformers leaves beside a model of transformers: how its tokens become one vector.

``modules.json`` lists the steps in order, each with a folder of its own: ``Transformer`` (with
``sentence_bert_config.json``: ``max_seq_length``, ``do_lower_case``), ``Pooling`` (``config.json``), ``Normalize``
(``sentence_transformers/SentenceTransformer.py``, ``models/Pooling.py``).
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from engine.errors import ModelCorrupt
from engine.formats.disk import read_bounded
from engine.model_spec import ASSUMED, ModelSpec

MODULES = "modules.json"
TRANSFORMER = "sentence_bert_config.json"
_MAX_BYTES = 1 << 20
_MODES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""Keys of the pooling's config in the order in which several are put behind one another."""


def with_sentence_steps(spec: ModelSpec, folder: Path) -> ModelSpec:
    """``spec`` with the steps ``modules.json`` in ``folder`` states, as ``{"name": "tokenize" | "pooling" |
    "normalize", …}``; raw tensors where it asks for one that is not known. Raises ModelCorrupt, ModelUnreadable."""
    file = folder / MODULES
    if not file.is_file():
        return spec
    modules = _read(file)
    if not isinstance(modules, list) or not modules or not all(isinstance(m, dict) for m in modules):
        raise ModelCorrupt(f"{MODULES} in {folder.name} is damaged: expected a list of modules.")
    kinds = [str(module.get("type", "")).rsplit(".", 1)[-1] for module in modules]
    known = [["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]]
    if kinds not in known or str(modules[0].get("path", "")) not in ("", "."):
        why = f"{ASSUMED} ({MODULES}: {', '.join(kinds)[:80]} is more than pooling and normalising)"
        return replace(spec, task="raw-tensors", evidence=spec.evidence | {"task": why})
    file = _inside(folder, str(modules[1].get("path", "")))
    steps: list[dict[str, Any]] = [*_tokenize(folder), {"name": "pooling", "modes": _modes(file)}]
    if len(kinds) > 2:
        steps.append({"name": "normalize"})
    own = [folder / MODULES, file] + [f for f in (folder / TRANSFORMER,) if f.is_file()]
    evidence = spec.evidence | {"steps": f"{MODULES}, {file.parent.name}/{file.name}"}
    return replace(spec, steps=tuple(steps), files=(*spec.files, *own), evidence=evidence)


def _inside(folder: Path, name: str) -> Path:
    """The ``config.json`` of a module's folder, which lies in the model's."""
    file = folder / name / "config.json"
    if not name or Path(name).name != name or not file.is_file():
        raise ModelCorrupt(f"{folder.name} lacks the pooling that {MODULES} names: {name[:60] or 'no folder'}.")
    return file


def _modes(file: Path) -> list[str]:
    config = _read(file)
    if not isinstance(config, dict):
        raise ModelCorrupt(f"{file.parent.name}/{file.name} is not a JSON object.")
    stated = config.get("pooling_mode")
    if isinstance(stated, str):
        stated = [stated]
    modes = [mode for key, mode in _MODES.items() if config.get(key) is True]
    modes = modes or [str(mode) for mode in stated or ()]
    if not modes or not set(modes) <= set(_MODES.values()):
        raise ModelCorrupt(f"{file.parent.name}/{file.name} names no way of pooling that is known.")
    return modes


def _tokenize(folder: Path) -> list[dict[str, Any]]:
    file = folder / TRANSFORMER
    config = _read(file) if file.is_file() else {}
    if not isinstance(config, dict):
        raise ModelCorrupt(f"{TRANSFORMER} in {folder.name} is not a JSON object.")
    step: dict[str, Any] = {}
    length = config.get("max_seq_length")
    if isinstance(length, int) and not isinstance(length, bool) and length > 0:
        step["max_length"] = length
    if config.get("do_lower_case") is True:
        step["lower"] = True
    return [{"name": "tokenize", **step}] if step else []


def _read(file: Path) -> Any:
    try:
        return json.loads(read_bounded(file, _MAX_BYTES))
    except (ValueError, RecursionError) as error:
        raise ModelCorrupt(f"{file.name} in {file.parent.name} is not JSON.", details=str(error)) from error
