"""Keras' own file, ``.keras``: a zip of ``metadata.json``, ``config.json`` and ``model.weights.h5``.

Format: keras/src/saving/saving_lib.py, the same in the last releases of Keras 2. Class *data* where every object the
config names is one of Keras' own (:mod:`engine.formats.keras_objects`); refused otherwise.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from engine.errors import ModelRefused
from engine.formats import hdf5
from engine.formats.container import LOCAL_HEADER, ZipContainer
from engine.formats.disk import read_head
from engine.formats.keras_config import MAX_CONFIG, WrittenBy, parse_config, spec_of_config
from engine.formats.keras_objects import first_refusal
from engine.identity import MODEL_SUFFIXES
from engine.model_spec import ModelSpec, TrustClass

NAME = "keras"
EXPECTED = "a complete .keras file as keras.Model.save writes it"
MAX_PACKED = 512 << 20
"""Bytes of weights that are read into memory to be checked; Keras stores them unpacked, where they are not read."""
_WEIGHTS = "model.weights.h5"


def recognise(path: Path) -> bool:
    """A zip that holds ``config.json``, or a zip named ``.keras``. Raises ModelCorrupt, ModelUnreadable."""
    if not path.is_file() or read_head(path, 4) != LOCAL_HEADER:
        return path.suffix.lower() == ".keras"
    if path.suffix.lower() == ".keras":
        return True
    if path.suffix.lower() in MODEL_SUFFIXES:
        return False  # another format's file that is cut off is that format's to name
    with ZipContainer(path, EXPECTED) as container:
        return "config.json" in container.names and "metadata.json" in container.names


def describe(path: Path) -> ModelSpec:
    """What the file says of itself. Raises ModelCorrupt, ModelUnreadable, ModelRefused."""
    with ZipContainer(path, EXPECTED) as container:
        metadata = _json(container, "metadata.json", 1 << 20)
        config = _json(container, "config.json", MAX_CONFIG)
        _check_weights(container)
    written_by = WrittenBy(str(metadata.get("keras_version") or ""), f"{path.name}: metadata.json")
    refusal = first_refusal(config, legacy=written_by.is_legacy)
    if refusal is not None:
        raise ModelRefused(f"{path.name} is refused: {refusal}.")
    return spec_of_config(path, NAME, config, "config.json:", written_by, TrustClass.DATA)


def _json(container: ZipContainer, name: str, limit: int) -> dict[str, Any]:
    try:
        return parse_config(container.read(name, limit))
    except ValueError as error:
        raise container.corrupt(f"{name} in it {error}", str(error.__cause__ or "")) from error


def _check_weights(container: ZipContainer) -> None:
    """The weights are there, and are an HDF5 file that holds what it declares."""
    if _WEIGHTS not in container.names:
        raise container.corrupt(f"it holds no weights ({_WEIGHTS})")
    size = container.size_of(_WEIGHTS)
    if container.read_head(_WEIGHTS, len(hdf5.SIGNATURE)) != hdf5.SIGNATURE:
        raise container.corrupt(f"{_WEIGHTS} in it is not an HDF5 file")

    def corrupt(why: str, details: str) -> Any:
        return container.corrupt(f"in its {_WEIGHTS}, {why}", details)

    member = container.stored(_WEIGHTS) or io.BytesIO(container.read(_WEIGHTS, MAX_PACKED))
    with hdf5.opened(member, f"{_WEIGHTS} in {container.path.name}", size, corrupt):
        pass
