"""The one object both doors share, and the plain types that go in and out of it."""

from engine.engine import Engine
from engine.errors import EngineError
from engine.model_spec import ModelSpec
from engine.ports import EnginePort
from engine.prediction import Lane, LoadTicket, Prediction, PredictRequest

__all__ = ["Engine", "EngineError", "EnginePort", "Lane", "LoadTicket", "ModelSpec", "PredictRequest", "Prediction"]
