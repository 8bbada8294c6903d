"""Keras 3's ``.keras`` file: a zip of ``metadata.json``, ``config.json`` and ``model.weights.h5``.

Format: keras/src/saving/saving_lib.py. Class *data* where every object the config names is one of Keras' own
(:mod:`engine.formats.keras_objects`); refused otherwise.
"""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

from engine.errors import ModelRefused
from engine.formats.container import LOCAL_HEADER, ZipContainer
from engine.formats.disk import read_head
from engine.formats.guesses import picture_of
from engine.formats.keras_graph import read_graph
from engine.formats.keras_objects import first_refusal
from engine.model_spec import ModelSpec, Postprocessing, Preprocessing, TrustClass

NAME = "keras"
EXPECTED = "a complete .keras file as keras.Model.save writes it"
MAX_CONFIG = 64 << 20
MAX_NESTING = 200
_WEIGHTS = "model.weights.h5"
_HDF5 = b"\x89HDF\r\n\x1a\n"


def recognise(path: Path) -> bool:
    """A zip that holds ``config.json``, or a zip named ``.keras``. Raises ModelCorrupt, ModelUnreadable."""
    if not path.is_file() or read_head(path, 4) != LOCAL_HEADER:
        return path.suffix.lower() == ".keras"
    if path.suffix.lower() == ".keras":
        return True
    with ZipContainer(path, EXPECTED) as container:
        return "config.json" in container.names and "metadata.json" in container.names


def describe(path: Path) -> ModelSpec:
    """What the file says of itself. Raises ModelCorrupt, ModelUnreadable, ModelRefused."""
    with ZipContainer(path, EXPECTED) as container:
        metadata = _json(container, "metadata.json", 1 << 20)
        config = _json(container, "config.json", MAX_CONFIG)
        _check_weights(container)
    refusal = first_refusal(config)
    if refusal is not None:
        raise ModelRefused(f"{path.name} is refused: {refusal}.")
    facts = read_graph(config)
    spec = ModelSpec(
        path=path,
        model_file=path,
        format=NAME,
        runtime="keras",
        task="raw-tensors",
        trust_class=TrustClass.DATA,
        inputs=facts.inputs,
        outputs=facts.outputs,
        files=(path,),
    )
    evidence = {
        "format": f"{path.name}: metadata.json keras_version {str(metadata.get('keras_version', 'unknown'))[:20]}",
        "runtime": f"{path.name}: metadata.json",
    }
    if facts.inputs:
        evidence["inputs"] = "config.json: batch_shape"
    if facts.outputs:
        evidence["outputs"] = facts.output_key
    if facts.output_activation in ("softmax", "sigmoid"):
        # The model has applied it already; applying it again would flatten every score.
        evidence["postprocessing.activation"] = facts.output_key
    elif facts.output_activation == "none" and facts.outputs:
        classes = facts.outputs[0].shape[-1]
        activation = "sigmoid" if classes == 1 else "softmax"
        spec = replace(spec, postprocessing=Postprocessing(activation=activation))
        evidence["postprocessing.activation"] = facts.output_key
    if facts.scaling and len(facts.inputs) == 1 and picture_of(facts.inputs[0]) is not None:
        spec = replace(spec, preprocessing=Preprocessing(scaling=facts.scaling))
        evidence["preprocessing.scaling"] = facts.scaling_key
    return replace(spec, evidence=evidence)


def _json(container: ZipContainer, name: str, limit: int) -> dict[str, Any]:
    data = container.read(name, limit)
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise container.corrupt(f"{name} in it is not JSON", str(error)) from error
    if not isinstance(value, dict):
        raise container.corrupt(f"{name} in it is not a JSON object")
    if _depth_exceeds(value, MAX_NESTING):
        raise container.corrupt(f"{name} in it is nested too deeply")
    return value


def _depth_exceeds(value: Any, limit: int) -> bool:
    level = [value]
    for _ in range(limit):
        level = [
            child
            for item in level
            for child in (item.values() if isinstance(item, dict) else item)
            if isinstance(child, dict | list)
        ]
        if not level:
            return False
    return True


def _check_weights(container: ZipContainer) -> None:
    """The weights are there, are HDF5, and are as long as their superblock says (HDF5 File Format 3.0, II.A)."""
    if _WEIGHTS not in container.names:
        raise container.corrupt(f"it holds no weights ({_WEIGHTS})")
    head = container.read_head(_WEIGHTS, 64)
    if not head.startswith(_HDF5) or len(head) < 64:
        raise container.corrupt(f"{_WEIGHTS} in it is not an HDF5 file")
    version = head[8]
    if version > 3:
        raise container.corrupt(f"{_WEIGHTS} in it is an HDF5 file of an unknown version")
    # Versions 0 and 1 state the size of an address at byte 13, 2 and 3 at byte 9; the end of the file comes third.
    size_of_address, end_at = (head[13], {0: 40, 1: 44}[version]) if version < 2 else (head[9], 28)
    if size_of_address != 8:
        raise container.corrupt(f"{_WEIGHTS} in it is an HDF5 file of an unusual kind")
    (end,) = struct.unpack_from("<Q", head, end_at)
    if end > container.size_of(_WEIGHTS):
        raise container.corrupt(f"{_WEIGHTS} in it is cut off")
