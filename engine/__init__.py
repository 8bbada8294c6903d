"""The one object both doors share, and the plain types that go in and out of it.

Looked up when they are asked for: a child process imports ``engine.worker``, and so this module, and needs none.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.engine import Engine
    from engine.errors import EngineError
    from engine.model_spec import ModelSpec
    from engine.ports import EnginePort
    from engine.prediction import Lane, LoadTicket, Prediction, PredictRequest

__all__ = ["Engine", "EngineError", "EnginePort", "Lane", "LoadTicket", "ModelSpec", "PredictRequest", "Prediction"]
_MODULES = {
    "Engine": "engine", "EngineError": "errors", "EnginePort": "ports", "Lane": "prediction",
    "LoadTicket": "prediction", "ModelSpec": "model_spec", "PredictRequest": "prediction", "Prediction": "prediction",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    return value
