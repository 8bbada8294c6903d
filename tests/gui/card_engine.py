"""A FakeEngine whose answer depends on how it reads a picture, with kept answers and versions."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

from engine.errors import EngineError
from engine.golden import GoldenReport
from engine.model_spec import ModelSpec, Preprocessing
from engine.prediction import Convention, LoadTicket, Prediction, PredictRequest
from tests.fakes import TIMING, FakeEngine, FakeServer, spec

ANSWERS = {"0..1": ("ranunculus", 0.384), "-1..1": ("dahlia", 0.941), "0..255": ("sunflower", 0.999)}
IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
WAYS: tuple[tuple[dict[str, Any], str], ...] = (
    ({"scaling": "0..1"}, "values 0..1"),
    ({"scaling": "-1..1"}, "values -1..1"),
    ({"scaling": "0..1"} | IMAGENET, "ImageNet mean and deviation"),
    ({"scaling": "0..255"}, "values 0..255"),
)
"""Every scaling that the engine tries, with its words."""


def flowers(model_id: str = "flowers", **changes: Any) -> ModelSpec:
    """A classifier whose file says all but how pixels are scaled."""
    path = Path(f"/models/{model_id}")
    keys = ("size", "resize", "crop", "channel_order", "layout", "resample")
    values: dict[str, Any] = {
        "labels": ("dahlia", "ranunculus", "sunflower", "zinnia"),
        "preprocessing": Preprocessing(size=(224, 224), resize="shortest", crop="center"),
        "evidence": {
            "format": "config.json: class_name",
            "runtime": "config.json: class_name",
            "task": "config.json: labels, 4 scores",
            "labels": "labels.txt: line order",
            "inputs": "tensor signature",
            "outputs": "tensor signature",
            "postprocessing.activation": "model.keras: last layer softmax",
            **{f"preprocessing.{key}": "training_config.json: image_size" for key in keys},
        },
        "files": (path / "model.keras", path / "labels.txt"),
        "model_file": path / "model.keras",
    }
    return replace(spec(model_id), **(values | changes))


class CardEngine(FakeEngine):
    """``given`` are the pictures that were compared, ``stated`` what each sidecar holds, ``refuse`` errors by call."""

    def __init__(self) -> None:
        super().__init__()
        self.answer = self._answer
        self.given: list[bytes] = []
        self.stated: dict[str, dict[str, Any]] = {}
        self.refuse: dict[str, EngineError] = {}
        self.reloads: list[tuple[str | None, str | None, bool]] = []

    def _answer(self, request: PredictRequest) -> Prediction:
        return self._under(request.model, self._models[request.model]["spec"]["preprocessing"])

    @staticmethod
    def _under(model_id: str, how: Mapping[str, Any]) -> Prediction:
        label, score = ("zinnia", 0.512) if how.get("mean") else ANSWERS[str(how["scaling"])]
        best = [{"label": label, "score": score}, {"label": "violet", "score": (1 - score) / 2}]
        return Prediction("p1", model_id, "image-classification", dict(TIMING), predictions=best)

    def _refused(self, name: str) -> Future[Any] | None:
        if name not in self.refuse:
            return None
        future: Future[Any] = Future()
        future.set_exception(self.refuse[name])
        return future

    def try_conventions(self, model_id: str, data: bytes, content_type: str | None = None) -> Future[list[Convention]]:
        future: Future[list[Convention]] = Future()
        self.given.append(data)
        read = self._models[model_id]["spec"]
        orders = ("rgb", "bgr") if read["evidence"].get("preprocessing.channel_order") == "assumed" else ("",)
        found = []
        for order in orders:
            for changes, words in WAYS:
                more = {"channel_order": order} if order else {}
                prediction = self._under(model_id, changes)
                name = f"{words}, {order.upper()}" if order else words
                found.append(Convention(changes | more, name, prediction.predictions or [], prediction))
        future.set_result(found)
        return self._refused("try_conventions") or future

    def apply_preprocessing(self, model_id: str, changes: Mapping[str, Any]) -> Future[ModelSpec]:
        return self._refused("apply_preprocessing") or super().apply_preprocessing(model_id, changes)

    def save_sidecar(self, model_id: str, changes: Mapping[str, Any]) -> Future[Path]:
        refused = self._refused("save_sidecar")
        if refused is not None:
            return refused
        stated = self.stated.setdefault(model_id, {}) | changes
        self.stated[model_id] = {key: value for key, value in stated.items() if value is not None}
        entry = self._models[model_id]
        sources = {f"preprocessing.{key}": "assumed" for key, value in changes.items() if value is None}
        entry["spec"] = entry["spec"] | {"evidence": entry["spec"]["evidence"] | sources}
        return super().save_sidecar(model_id, changes)

    def check_golden(self, model_id: str) -> Future[GoldenReport]:
        return self._refused("check_golden") or super().check_golden(model_id)

    def check_network(self, model_id: str, agreed: bool = True) -> None:
        """What the server tells the engine after it asked itself."""
        sample = self.golden[model_id]
        label = "three" if not agreed else str(sample.expected["predictions"][0]["label"])
        answer = [dict(sample.expected["predictions"][0], label=label), *sample.expected["predictions"][1:]]
        self.record_golden(model_id, sample.compare({"predictions": answer}, door="network", version="1"))

    def reload(
        self, model_id: str, trust: bool = False, device: str | None = None, precision: str | None = None
    ) -> LoadTicket:
        self.reloads.append((device, precision, trust))
        return super().reload(model_id, trust, device, precision)

    def finish_swap(self, error: EngineError | None = None) -> None:
        """The reload that is held back ends."""
        model_id, held = self.held_loads.pop()
        self.hold_loads, self.load_error = False, error
        ended = super().reload(model_id).future
        failed = ended.exception()
        if failed is not None:
            held.set_exception(failed)
        else:
            held.set_result(ended.result())


class CardServer(FakeServer):
    """Its network door gives the kept answer."""

    def __init__(self, engine: CardEngine) -> None:
        super().__init__()
        self._engine = engine
        self.asked: list[str] = []

    def check_golden(self, model_id: str) -> None:
        self.asked.append(model_id)
        self._engine.check_network(model_id)
