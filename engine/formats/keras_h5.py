"""Whole models of Keras in HDF5, ``.h5`` and ``.hdf5``: the config in the attribute ``model_config``, the weights in
the group ``model_weights``.

Format: keras/src/legacy/saving/legacy_h5_format.py, in Keras 2 tf_keras/src/saving/legacy/hdf5_format.py. Class
*program*: nothing in such a file says what its layers may be made of, and a Lambda layer holds Python code.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from engine.errors import ModelCorrupt, ModelFormatUnknown, ModelRefused
from engine.formats import hdf5
from engine.formats.disk import EXPECTED, open_regular, read_head
from engine.formats.keras_config import MAX_CONFIG, WrittenBy, parse_config, spec_of_config
from engine.formats.keras_objects import code_layer
from engine.model_spec import ModelSpec, TrustClass

NAME = "keras_h5"
COMPLETE = "a complete .h5 file as keras.Model.save writes it"
SUFFIXES = (".h5", ".hdf5")
_CONFIG = "model_config"
_WEIGHTS = "model_weights"


def recognise(path: Path) -> bool:
    """A file that starts as HDF5 does, or is named so. Raises ModelUnreadable."""
    if not path.is_file():
        return False
    return path.suffix.lower() in SUFFIXES or read_head(path, len(hdf5.SIGNATURE)) == hdf5.SIGNATURE


def describe(path: Path) -> ModelSpec:
    """What the file says of itself. Raises ModelCorrupt, ModelUnreadable, ModelRefused (weights alone, links into other
    files) and ModelFormatUnknown (an HDF5 file of another kind)."""

    def corrupt(why: str, details: str) -> ModelCorrupt:
        return ModelCorrupt(f"{path.name} cannot be opened, {why}: expected {COMPLETE}.", details=details)

    with open_regular(path) as handle, hdf5.opened(handle, path.name, path.stat().st_size, corrupt) as file:
        text = hdf5.attribute_text(file, _CONFIG, MAX_CONFIG)
        version = hdf5.attribute_text(file, "keras_version", 1000)
        if text is None:
            raise _without_config(path, file)
        if _WEIGHTS not in file and "layer_names" not in file.attrs:
            raise corrupt("it holds a model without its weights", "")
    try:
        config = parse_config(text)
    except ValueError as error:
        raise corrupt(f"{_CONFIG} in it {error}", str(error.__cause__ or "")) from error
    written_by = WrittenBy(version or "", f"{path.name}:")
    spec = spec_of_config(path, NAME, config, f"{path.name}: {_CONFIG}", written_by, TrustClass.PROGRAM)
    code = code_layer(config)
    why = f"{path.name}: {_CONFIG} " + (f"{code} holds Python code" if code else "may name any layer")
    return replace(spec, evidence=spec.evidence | {"trust_class": why})


def _without_config(path: Path, file: Any) -> ModelRefused | ModelFormatUnknown:
    # Keras 2 names the layers in an attribute; Keras 3 and the last of 2 nest their variables in groups named vars.
    if (
        "layer_names" in file.attrs
        or _WEIGHTS in file
        or {"layers", "vars", "_layer_checkpoint_dependencies"} & set(file)
    ):
        return ModelRefused(
            f"{path.name} holds weights, but not the model they belong to: expected {COMPLETE}, "
            "which model.save (not model.save_weights) writes."
        )
    return ModelFormatUnknown(f"{path.name} is an HDF5 file, but no Keras model: expected {EXPECTED}.")
