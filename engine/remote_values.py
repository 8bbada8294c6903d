"""The engine's arguments, answers and events as they cross between processes: JSON and raw buffers, never a pickle.

What is no plain JSON stands as ``{"$kind": …}``; only the types named here can come out of it again. Arrays and bytes
are parts (:mod:`engine.answer_parts`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np

from engine.answer_parts import PLACE, pack_parts, unpack_parts
from engine.errors import ConsentRequired, EngineError, InternalError, Unavailable, error_from_code
from engine.events import LoadProgress, LoadStage, ModelState, ModelStateChanged, Notice, Snapshot
from engine.golden import GoldenReport, GoldenSample
from engine.model_spec import ModelSpec
from engine.prediction import (
    AudioPreview,
    Convention,
    ImagePreview,
    Lane,
    Prediction,
    PredictRequest,
    TablePreview,
    Wire,
)
from engine.protocol import Buffer, ProtocolError
from engine.serving_types import RequestRecord, RequestState
from engine.settings import EngineLimits

DATACLASSES: dict[str, type[Any]] = {
    cls.__name__: cls
    for cls in (
        PredictRequest, Prediction, Convention, ImagePreview, TablePreview, AudioPreview, GoldenReport, GoldenSample,
        RequestRecord, ModelStateChanged, LoadProgress, Snapshot, Notice,
    )
}  # fmt: skip
ENUMS: dict[str, type[StrEnum]] = {cls.__name__: cls for cls in (Lane, Wire, RequestState, ModelState, LoadStage)}
_MOST_LEVELS = 60


def pack(value: Any) -> tuple[dict[str, Any], list[Buffer]]:
    """``{"value", "parts"}`` and the buffers of the parts. Raises TypeError for what cannot cross."""
    tree, parts, buffers = pack_parts(_encoded(value, 0))
    return {"value": tree, "parts": parts}, buffers


def unpack(packed: Mapping[str, Any], buffers: Iterator[Buffer]) -> Any:
    """Inverse of :func:`pack`. Raises ProtocolError for what :func:`pack` does not make."""
    try:
        return _decoded(unpack_parts(packed.get("value"), packed.get("parts"), buffers), 0)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise ProtocolError(f"a value that is none: {error}") from error


def _encoded(value: Any, level: int) -> Any:
    if level > _MOST_LEVELS:
        raise TypeError(f"values of more than {_MOST_LEVELS} levels cannot be sent")
    if isinstance(value, StrEnum):
        # Those that stand in JSON already (stats) are text there.
        known = ENUMS.get(type(value).__name__) is type(value)
        return {"$enum": [type(value).__name__, str(value)]} if known else str(value)
    if value is None or isinstance(value, bool | int | str | bytes | np.ndarray):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"$float": repr(value)}
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    if isinstance(value, np.generic):
        return _encoded(value.item(), level)
    if isinstance(value, EngineError):
        return {"$error": _error(value)}
    if isinstance(value, ModelSpec):
        return {"$spec": value.to_json()}
    if isinstance(value, Path):
        return {"$path": str(value)}
    if isinstance(value, EngineLimits):
        return {"$limits": _encoded(value.model_dump(), level + 1)}
    if is_dataclass(value) and type(value).__name__ in DATACLASSES:
        inner = {each.name: _encoded(getattr(value, each.name), level + 1) for each in fields(value)}
        return {"$data": [type(value).__name__, inner]}
    if isinstance(value, Mapping):
        plain = all(isinstance(key, str) and not key.startswith("$") for key in value)
        if plain:
            return {key: _encoded(inner, level + 1) for key, inner in value.items()}
        return {"$map": [[_encoded(key, level + 1), _encoded(inner, level + 1)] for key, inner in value.items()]}
    if isinstance(value, tuple):
        return {"$tuple": [_encoded(inner, level + 1) for inner in value]}
    if isinstance(value, list):
        return [_encoded(inner, level + 1) for inner in value]
    raise TypeError(f"a {type(value).__name__} cannot be sent to another process")


def _decoded(value: Any, level: int) -> Any:
    if level > 2 * _MOST_LEVELS:
        raise ProtocolError("a value of too many levels")
    if isinstance(value, list):
        return [_decoded(inner, level + 1) for inner in value]
    if not isinstance(value, dict):
        return value
    kind = next(iter(value), "")
    if len(value) != 1 or not kind.startswith("$") or kind == PLACE:
        return {key: _decoded(inner, level + 1) for key, inner in value.items()}
    inner = value[kind]
    if kind == "$enum":
        return ENUMS[inner[0]](inner[1])
    if kind == "$float":
        return float(inner)
    if kind == "$error":
        return _error_of(inner)
    if kind == "$spec":
        return ModelSpec.from_json(inner)
    if kind == "$path":
        return Path(inner)
    if kind == "$limits":
        return EngineLimits.model_validate(_decoded(inner, level + 1))
    if kind == "$data":
        return DATACLASSES[inner[0]](**{name: _decoded(field, level + 1) for name, field in inner[1].items()})
    if kind == "$map":
        return {_decoded(key, level + 1): _decoded(held, level + 1) for key, held in inner}
    if kind == "$tuple":
        return tuple(_decoded(item, level + 1) for item in inner)
    raise ProtocolError(f"a value of unknown kind {kind!r}")


def _error(error: EngineError) -> dict[str, Any]:
    told: dict[str, Any] = {"code": error.code, "message": error.message, "details": error.details}
    if isinstance(error, Unavailable):
        told["retry_after_s"] = error.retry_after_s
    if isinstance(error, ConsentRequired):
        told["fingerprint"] = error.fingerprint
    return told


def _error_of(told: Mapping[str, Any]) -> EngineError:
    error = error_from_code(str(told["code"]), str(told["message"]), str(told["details"]))
    if isinstance(error, Unavailable):
        error.retry_after_s = float(told.get("retry_after_s", 1.0))
    if isinstance(error, ConsentRequired):
        error.fingerprint = str(told.get("fingerprint", ""))
    return error


def as_engine_error(error: BaseException) -> EngineError:
    """What crosses in place of an exception that is none of the engine's."""
    if isinstance(error, EngineError):
        return error
    return InternalError(f"{type(error).__name__}: {error}")
