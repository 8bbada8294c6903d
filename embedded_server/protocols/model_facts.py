"""What protocols tell of a model, out of the engine's entry of it."""

from __future__ import annotations

from typing import Any

from embedded_server.data_plane import DataPlane
from embedded_server.protocols.bodies import MODEL_ID
from engine.errors import Loading, ModelNotFound
from engine.events import ModelState
from engine.model_spec import TensorSpec

CANNOT_ANSWER = frozenset(
    {ModelState.STARTING, ModelState.LOADING, ModelState.WARMING, ModelState.STOPPING, ModelState.FAILED}
)


def find_model(plane: DataPlane, model: str, version: str | None = None) -> dict[str, Any]:
    """The model's entry of ``stats()``. Raises ModelNotFound, for a version that there is not too."""
    entries = plane.engine.stats()["models"] if MODEL_ID.fullmatch(model) else []
    entry: dict[str, Any] | None = next((entry for entry in entries if entry["id"] == model), None)
    if entry is None:
        raise ModelNotFound("No such model is open.")
    # Of a model that nothing has described yet no version is known; the engine says whether there is that one.
    if version is not None and entry["versions"] and version not in entry["versions"]:
        raise ModelNotFound(f"{model} has no such version.")
    return entry


def asked_model(plane: DataPlane, model: str, version: str | None = None) -> dict[str, Any]:
    """:func:`find_model` for a question: an entry a moment old will do, since the engine looks again. Raises as it."""
    entry = plane.recent_entry(model)
    if entry is None or (version is not None and version not in entry["versions"]):
        return find_model(plane, model, version)
    return entry


def described(entry: dict[str, Any]) -> dict[str, Any]:
    """The JSON of the model's spec. Raises Loading where nothing has described it yet."""
    spec: dict[str, Any] | None = entry["spec"]
    if spec is None:
        raise Loading("The model has not been loaded yet.")
    return spec


def tensors(spec: dict[str, Any], which: str) -> tuple[TensorSpec, ...]:
    """The model's own ``inputs`` or ``outputs``."""
    return tuple(TensorSpec.from_json(tensor) for tensor in spec[which])


def can_answer(entry: dict[str, Any]) -> bool:
    """Whether a request would be answered without waiting for more than a first load."""
    return bool(entry["offered"]) and entry["state"] not in CANNOT_ANSWER
