"""The Open Inference Protocol (V2) with Triton's extensions: a thin adapter over the DataPlane.

Formats and sources: :mod:`engine.codecs.open_inference` for bodies; triton-inference-server/server, docs/protocol/
extension_{model_configuration,statistics,model_repository}.md for the rest. Content-Type is ignored: ``tritonclient``
sends none.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import replace
from importlib.metadata import version as package_version
from typing import Any

from flask import Blueprint, Response, request
from werkzeug.wrappers import Request

from embedded_server.data_plane import DataPlane
from embedded_server.protocols.bodies import TIMEOUT, caller, header, json_response, read_body, timeout_ms
from embedded_server.protocols.model_facts import asked_model, can_answer, described, find_model, tensors
from embedded_server.protocols.open_inference_answers import encode_answer
from embedded_server.protocols.questions import Question, Reply, question_view
from embedded_server.protocols.repository import Repository
from engine.codecs.datatypes import DATATYPES
from engine.codecs.open_inference import scheduling
from engine.errors import Malformed
from engine.model_spec import TensorSpec
from engine.prediction import Prediction, PredictRequest, Wire
from engine.settings import ServerSettings

HEADER_LENGTH = "Inference-Header-Content-Length"
EXTENSIONS = (
    "classification", "model_repository", "model_configuration", "schedule_policy", "binary_tensor_data", "parameters",
    "statistics",
)  # fmt: skip
PLATFORMS = {
    "saved_model": "tensorflow_savedmodel", "keras": "tensorflow_keras", "keras_h5": "tensorflow_keras",
    "torchscript": "pytorch_torchscript", "torch_export": "pytorch_export", "state_dict": "pytorch_state_dict",
    "onnx": "onnx_onnxv1", "tflite": "tensorflow_lite",
}  # fmt: skip
"""The protocol's words for frameworks (``<project>_<format>``, inference_rest.md, "Platforms")."""
_DURATIONS = ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output")


def open_inference_routes(plane: DataPlane, settings: ServerSettings) -> Blueprint:
    """The blueprint of ``/v2`` over ``plane``."""
    routes = Blueprint("open_inference", __name__)
    repository = Repository(plane.engine, enabled=settings.repository_control)

    @routes.get("/v2")
    def server() -> Response:
        name, number = "deskside", package_version("deskside")
        return json_response({"name": name, "version": number, "extensions": list(EXTENSIONS)})

    @routes.get("/v2/health/live")
    def live() -> Response:
        return json_response({"live": True})

    @routes.get("/v2/health/ready")
    def ready() -> Response:
        entries = plane.engine.stats()["models"]
        is_ready = all(can_answer(entry) for entry in entries if entry["offered"])
        return _ready({"ready": is_ready}, is_ready)

    @routes.get("/v2/models/<model>")
    @routes.get("/v2/models/<model>/versions/<version>")
    def metadata(model: str, version: str | None = None) -> Response:
        entry = find_model(plane, model, version)
        return json_response(_metadata(entry))

    @routes.get("/v2/models/<model>/ready")
    @routes.get("/v2/models/<model>/versions/<version>/ready")
    def model_ready(model: str, version: str | None = None) -> Response:
        entry = find_model(plane, model, version)
        return _ready({"name": entry["id"], "ready": can_answer(entry)}, can_answer(entry))

    @routes.get("/v2/models/<model>/config")
    @routes.get("/v2/models/<model>/versions/<version>/config")
    def config(model: str, version: str | None = None) -> Response:
        return json_response(_config(find_model(plane, model, version)))

    @routes.get("/v2/models/stats")
    def all_statistics() -> Response:
        return json_response(
            {"model_stats": [_statistics(entry) for entry in plane.visible_stats(caller(request))["models"]]}
        )

    @routes.get("/v2/models/<model>/stats")
    @routes.get("/v2/models/<model>/versions/<version>/stats")
    def statistics(model: str, version: str | None = None) -> Response:
        return json_response({"model_stats": [_statistics(find_model(plane, model, version))]})

    def infer(request: Request, model: str, version: str | None = None) -> Question:
        asked_model(plane, model, version)
        data = read_body(request, settings.body_bytes, packed=True)

        def reply(prediction: Prediction) -> Reply:
            # Looked up afterwards: the first question may have loaded the model, and so told its labels.
            answer = encode_answer(prediction, lambda: _labels(find_model(plane, model)))
            length = () if answer.header_bytes is None else ((HEADER_LENGTH, str(answer.header_bytes)),)
            return _packed(request, Reply(answer.body, answer.content_type, headers=length))

        return Question(_question(request, model, version, data), reply)

    infer_view = question_view(plane, infer)
    for rule in ("/v2/models/<model>/infer", "/v2/models/<model>/versions/<version>/infer"):
        routes.add_url_rule(rule, "infer", infer_view, methods=["POST"])

    @routes.post("/v2/repository/index")
    def index() -> Response:
        return json_response(repository.index(caller(request), read_body(request, settings.body_bytes, empty=True)))

    @routes.post("/v2/repository/models/<model>/load")
    def load(model: str) -> Response:
        repository.load(caller(request), model, read_body(request, settings.body_bytes, empty=True))
        return Response(b"", content_type="application/json")

    @routes.post("/v2/repository/models/<model>/unload")
    def unload(model: str) -> Response:
        read_body(request, settings.body_bytes, empty=True)
        repository.unload(caller(request), model)
        return Response(b"", content_type="application/json")

    return routes


def _question(request: Request, model: str, version: str | None, data: bytes) -> PredictRequest:
    asker = caller(request)
    header_bytes = _header_bytes(header(request, "HTTP_INFERENCE_HEADER_CONTENT_LENGTH"))
    priority, stated_s = scheduling(data, header_bytes)
    timeout_s = timeout_ms(header(request, TIMEOUT)) / 1000
    return PredictRequest(
        model=model,
        data=data,
        lane=asker.lane,
        client=asker.client,
        key=asker.key_name,
        timeout_s=min(timeout_s, stated_s) if stated_s else timeout_s,
        version=version,
        wire=Wire.OPEN_INFERENCE,
        wire_options={} if header_bytes is None else {"header_bytes": header_bytes},
        priority=priority,
    )


def _header_bytes(header: str | None) -> int | None:
    if header is None:
        return None
    if not re.fullmatch(r"[0-9]{1,10}", header):
        raise Malformed(f"Unable to parse {HEADER_LENGTH}, got: {header[:40]}")
    return int(header)


def _ready(body: dict[str, Any], is_ready: bool) -> Response:
    response = json_response(body)
    response.status_code = 200 if is_ready else 400
    return response


def _labels(entry: dict[str, Any]) -> list[str]:
    return list((entry["spec"] or {}).get("labels") or ())


def _packed(request: Request, reply: Reply) -> Reply:
    """Compressed where the request asks for it, as Triton does; the header's length is that of the plain bytes."""
    if not header(request, "HTTP_ACCEPT_ENCODING"):
        return reply
    wanted = request.accept_encodings
    coding = next((name for name in ("gzip", "deflate") if wanted[name] > 0 and name in wanted.values()), None)
    if coding is None:
        return reply
    packer = zlib.compressobj(1, wbits=16 + zlib.MAX_WBITS if coding == "gzip" else zlib.MAX_WBITS)
    body = packer.compress(reply.body) + packer.flush()
    return replace(reply, body=body, headers=(*reply.headers, ("Content-Encoding", coding)))


# -- what is told of a model -------------------------------------------------------------------------------------------
def _metadata(entry: dict[str, Any]) -> dict[str, Any]:
    spec = described(entry)
    return {
        "name": entry["id"],
        "versions": entry["versions"],
        "platform": PLATFORMS.get(spec["format"], f"{spec['runtime']}_{spec['format']}"),
        "inputs": [_tensor(tensor) for tensor in tensors(spec, "inputs")],
        "outputs": [_tensor(tensor) for tensor in tensors(spec, "outputs")],
    }


def _tensor(tensor: TensorSpec) -> dict[str, Any]:
    return {"name": tensor.name, "datatype": _datatype(tensor), "shape": list(tensor.shape)}


def _datatype(tensor: TensorSpec) -> str:
    return DATATYPES.get(tensor.dtype, tensor.dtype.upper())


def _config(entry: dict[str, Any]) -> dict[str, Any]:
    """Triton's ModelConfig (model_config.proto) as far as it says something here. ``max_batch_size`` is 0 where the
    first dimension of some tensor is no count of rows; ``dims`` are then whole shapes."""
    spec = described(entry)
    inputs, outputs = tensors(spec, "inputs"), tensors(spec, "outputs")
    batched = bool(inputs) and all(t.shape and t.shape[0] == -1 for t in (*inputs, *outputs))

    def side(tensor: TensorSpec) -> dict[str, Any]:
        kind = _datatype(tensor)
        dims = list(tensor.shape[1:] if batched else tensor.shape)
        return {"name": tensor.name, "data_type": "TYPE_STRING" if kind == "BYTES" else f"TYPE_{kind}", "dims": dims}

    device = str(entry["device"])
    return {
        "name": entry["id"],
        "platform": PLATFORMS.get(spec["format"], f"{spec['runtime']}_{spec['format']}"),
        "backend": spec["runtime"],
        "version_policy": {"latest": {"num_versions": 1}},
        "max_batch_size": entry.get("max_batch_size") or 1 if batched else 0,
        "input": [side(tensor) for tensor in inputs],
        "output": [side(tensor) for tensor in outputs],
        "instance_group": [
            {"name": entry["id"], "kind": "KIND_GPU" if device.startswith("cuda") else "KIND_CPU", "count": 1}
        ],
        "dynamic_batching": {"priority_levels": 0, "preserve_ordering": False},
    }


def _statistics(entry: dict[str, Any]) -> dict[str, Any]:
    told = entry["statistics"]
    return {
        "name": entry["id"],
        "version": entry["version"] or "",
        "last_inference": told["last_at"],
        "inference_count": told["rows"],
        "execution_count": entry["inferences"],
        "inference_stats": {name: told[name] for name in _DURATIONS}
        | {"cache_hit": {"count": 0, "ns": 0}, "cache_miss": {"count": 0, "ns": 0}},
        "response_stats": {},
        "batch_stats": [],
        "memory_usage": [],
    }
