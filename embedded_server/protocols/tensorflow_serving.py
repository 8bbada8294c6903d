"""TensorFlow Serving's REST API: a thin adapter over the DataPlane.

Formats: tensorflow/serving, tensorflow_serving/g3doc/api_rest.md; apis/get_model_status.proto and
get_model_metadata.proto in their JSON form; util/json_tensor.cc for how answers are written.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import orjson
from flask import Blueprint, Response
from numpy.typing import NDArray
from werkzeug.wrappers import Request

from embedded_server.data_plane import DataPlane
from embedded_server.protocols.bodies import TIMEOUT, caller, header, json_response, read_body, timeout_ms
from embedded_server.protocols.model_facts import asked_model, described, find_model, tensors
from embedded_server.protocols.questions import Question, Reply, question_view
from engine.codecs.datatypes import as_bytes
from engine.codecs.tensorflow_serving import DEFAULT_SIGNATURE, dtype_name
from engine.errors import EngineError, Malformed, ModelNotFound, UnusableInput
from engine.events import ModelState
from engine.model_spec import TensorSpec
from engine.prediction import Prediction, PredictRequest, Wire

VERBS = ("predict", "classify", "regress")
STABLE = "stable"
"""The label of the version that serves. A version whose name is no number is found by its name as a label."""
_ALL_CLASSES = 100_000
_STATES = {
    ModelState.READY: "AVAILABLE",
    ModelState.UNLOADED: "AVAILABLE",
    ModelState.STARTING: "LOADING",
    ModelState.LOADING: "LOADING",
    ModelState.WARMING: "LOADING",
    ModelState.STOPPING: "UNLOADING",
    ModelState.FAILED: "END",
}
"""A model that the first request loads can answer, and counts as available."""


class NoSuchRoute(EngineError):
    """A path that is none of the protocol's."""

    code = "not_found"


def tensorflow_serving_routes(plane: DataPlane, body_bytes: int) -> Blueprint:
    """The blueprint of ``/v1/models`` over ``plane``; bodies of at most ``body_bytes`` bytes."""
    routes = Blueprint("tensorflow_serving", __name__)

    @routes.get("/v1/models")
    def no_name() -> Response:
        raise Malformed("Missing model name in request.")

    @routes.get("/v1/models/<model>")
    @routes.get("/v1/models/<model>/versions/<version>")
    @routes.get("/v1/models/<model>/labels/<label>")
    def status(model: str, version: str | None = None, label: str | None = None) -> Response:
        entry, named = _find(plane, model, version, label)
        return json_response({"model_version_status": _statuses(entry, named)})

    @routes.get("/v1/models/<model>/metadata")
    @routes.get("/v1/models/<model>/versions/<version>/metadata")
    @routes.get("/v1/models/<model>/labels/<label>/metadata")
    def metadata(model: str, version: str | None = None, label: str | None = None) -> Response:
        entry, named = _find(plane, model, version, label)
        return json_response(_metadata(entry, named or entry["version"] or "1"))

    def ask(request: Request, model: str, verb: str, version: str | None = None, label: str | None = None) -> Question:
        if verb not in VERBS:
            raise NoSuchRoute("There is nothing at this address.")
        entry, named = _find(plane, model, version, label, asked_model)
        asker = caller(request)
        question = PredictRequest(
            model=model,
            data=read_body(request, body_bytes, packed=True),
            params={} if verb == "predict" else {"top_k": _ALL_CLASSES},
            lane=asker.lane,
            client=asker.client,
            key=asker.key_name,
            timeout_s=timeout_ms(header(request, TIMEOUT)) / 1000,
            version=named,
            wire=Wire.TENSORFLOW_SERVING,
            wire_options={"verb": verb},
        )
        _check_verb(verb, entry)
        return Question(question, partial(_reply, verb))

    view = question_view(plane, ask)
    for place in ("", "/versions/<version>", "/labels/<label>"):
        routes.add_url_rule(f"/v1/models/<model>{place}:<verb>", "ask", view, methods=["POST"])

    return routes


def _find(
    plane: DataPlane,
    model: str,
    version: str | None,
    label: str | None,
    find: Callable[[DataPlane, str, str | None], dict[str, Any]] = find_model,
) -> tuple[dict[str, Any], str | None]:
    """The model's entry, and the version asked for. Raises ModelNotFound, Malformed."""
    if (version is not None and not version.isdecimal()) or ":" in model:
        raise NoSuchRoute("There is nothing at this address.")
    if label is None:
        return find(plane, model, version), version
    entry = find_model(plane, model, version)
    if label == STABLE:
        return entry, None
    if label not in entry["versions"] or label.isdecimal():
        raise ModelNotFound(f"{model} has no version of that label.")
    return entry, label


def _check_verb(verb: str, entry: dict[str, Any]) -> None:
    """Raises Malformed where the model's task has no such answer."""
    task = str(entry["task"] or "")
    if verb == "classify" and task and not task.endswith("-classification"):
        raise Malformed(f"Expected classification signature method_name, but the model's task is {task}")
    if verb == "regress" and task and not task.endswith("-regression"):
        raise Malformed(f"Expected regression signature method_name, but the model's task is {task}")


def _statuses(entry: dict[str, Any], version: str | None) -> list[dict[str, Any]]:
    serving = entry["version"] or "1"
    versions = [version] if version is not None else list(reversed(entry["versions"])) or [serving]
    told = []
    for name in versions:
        state = _STATES.get(ModelState(entry["state"]), "UNKNOWN") if name == serving else "AVAILABLE"
        error = entry["error"] if name == serving else None
        outcome = {
            "error_code": "OK" if error is None else "UNKNOWN",
            "error_message": (error or {}).get("message", ""),
        }
        told.append({"version": name, "state": state, "status": outcome})
    return told


def _metadata(entry: dict[str, Any], version: str) -> dict[str, Any]:
    spec = described(entry)
    names = spec["signatures"] or [DEFAULT_SIGNATURE]
    signature = {
        "inputs": {tensor.name: _tensor(tensor) for tensor in tensors(spec, "inputs")},
        "outputs": {tensor.name: _tensor(tensor) for tensor in tensors(spec, "outputs")},
        "method_name": "tensorflow/serving/predict",
        "defaults": {},
    }
    return {
        "model_spec": {"name": entry["id"], "signature_name": "", "version": version},
        "metadata": {"signature_def": {"signature_def": {names[0]: signature}}},
    }


def _tensor(tensor: TensorSpec) -> dict[str, Any]:
    dims = [{"size": str(side), "name": ""} for side in tensor.shape]
    shape = {"dim": dims, "unknown_rank": False}
    return {"dtype": dtype_name(tensor.dtype), "tensor_shape": shape, "name": f"{tensor.name}:0"}


# -- answers -----------------------------------------------------------------------------------------------------------
def _reply(verb: str, prediction: Prediction) -> Reply:
    return Reply(_dumps(_predicted(prediction) if verb == "predict" else {"results": _results(prediction, verb)}))


def _predicted(prediction: Prediction) -> dict[str, Any]:
    outputs = {name: _values(name, array) for name, array in (prediction.outputs or {}).items()}
    if prediction.echo.get("form") != "instances":
        return {"outputs": next(iter(outputs.values())) if len(outputs) == 1 else outputs}
    arrays = (prediction.outputs or {}).values()
    if len({len(array) if array.ndim else -1 for array in arrays}) > 1 or any(not array.ndim for array in arrays):
        raise UnusableInput("Tensor name: outputs do not have the same first dimension", code="model_error")
    if len(outputs) == 1:
        return {"predictions": next(iter(outputs.values()))}
    rows = len(next(iter(outputs.values())))
    return {"predictions": [{name: values[row] for name, values in outputs.items()} for row in range(rows)]}


def _values(name: str, array: NDArray[Any]) -> Any:
    """Nested lists; bytes as text, or as ``{"b64": …}`` where the output's name ends in ``_bytes``."""
    if array.dtype.kind != "O":
        return np.ascontiguousarray(array)
    texts = np.empty(array.shape, dtype=object)
    for at, value in np.ndenumerate(array):
        raw = as_bytes(value)
        if name.endswith("_bytes"):
            texts[at] = {"b64": base64.b64encode(raw).decode("ascii")}
        else:
            texts[at] = raw.decode("utf-8", "replace")
    return texts.tolist()


def _results(prediction: Prediction, verb: str) -> list[Any]:
    """A list of ``[label, score]`` for each example, or a number for each. Raises UnusableInput for one that failed."""
    told: list[Any] = []
    for result in prediction.results or [{"predictions": prediction.predictions}]:
        if "error" in result:
            raise UnusableInput(str(result["error"]["message"]), code=str(result["error"]["code"]))
        entries = result["predictions"]
        if verb == "classify":
            told.append([[entry["label"], entry["score"]] for entry in entries])
        else:
            told.append(entries[0]["value"])
    return told


def _dumps(body: Any) -> bytes:
    """JSON; with the bare words NaN and Infinity where numbers are none, as TensorFlow Serving writes them."""
    text = orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
    if b"null" not in text:
        return text
    return json.dumps(body, allow_nan=True, default=lambda array: array.tolist()).encode()
