"""Every protocol's own error shape and status, for every way a request can fail: one table over all of them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from engine import errors
from engine.events import ModelState
from engine.prediction import Prediction, PredictRequest
from tests.embedded_server.wsgi import KEYED, LAN, Door2Client
from tests.fakes import TIMING, FakeEngine, spec

V2 = "/v2/models/digits-keras/infer"
TFS = "/v1/models/digits-keras:predict"
NATIVE = "/predict/digits-keras"
BODIES = {
    NATIVE: b"picture",
    V2: json.dumps({"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [1.0]}]}).encode(),
    TFS: json.dumps({"instances": [1.0]}).encode(),
}


@dataclass(frozen=True)
class Case:
    """Statuses of the native route, the Open Inference Protocol and TensorFlow Serving, and what the latter two
    say: None is the error's own sentence."""

    error: errors.EngineError
    statuses: tuple[int, int, int]
    v2: str | None = None
    tfs: str | None = None
    retry: bool = False


CASES = {
    "unusable": Case(errors.UnusableInput("It is a cat.", code="invalid_shape"), (422, 400, 400)),
    "wrong dtype": Case(errors.UnusableInput("It is a dog.", code="invalid_dtype"), (422, 400, 400)),
    "malformed": Case(errors.Malformed("It is torn."), (400, 400, 400)),
    "media type": Case(errors.UnsupportedMediaType("It is a song."), (415, 400, 400)),
    "oversized": Case(errors.InputTooLarge("It is a whale."), (413, 413, 413)),
    "quarantined": Case(errors.Quarantined("It kills."), (422, 400, 400)),
    "queue full": Case(errors.Busy("Too many."), (503, 503, 503), "Exceeds maximum queue size", retry=True),
    "not ready": Case(
        errors.Loading("Not yet."), (503, 503, 503),
        "Request for unknown model: 'digits-keras' is not at ready state",
        "Servable not available for request: Latest(digits-keras)", retry=True,
    ),
    "failed": Case(
        errors.ModelFailed("Never."), (503, 503, 503),
        "Request for unknown model: 'digits-keras' is not at ready state",
        "Servable not available for request: Latest(digits-keras)", retry=True,
    ),
    "restarted": Case(errors.WorkerRestarted("It died."), (503, 503, 503), retry=True),
    "draining": Case(
        errors.Draining("Off."), (503, 503, 503),
        "Server is stopping, scheduler for model has stopped accepting new inference requests", retry=True,
    ),
    "deadline": Case(
        errors.DeadlineExceeded("Too late."), (504, 503, 504), "Request timeout expired", "Deadline exceeded"
    ),
    "memory": Case(errors.DeviceOutOfMemory("Full."), (507, 500, 500)),
    "fault": Case(
        errors.InternalError("A secret of ours."), (500, 500, 500),
        *["Something went wrong inside the server. Its log names this request."] * 2,
    ),
}  # fmt: skip


def sentence(path: str, body: Any) -> str:
    """The sentence of an error answer, whose shape is checked."""
    assert list(body) == ["error"]
    if path != NATIVE:
        assert isinstance(body["error"], str)
        return str(body["error"])
    assert set(body["error"]) == {"code", "message", "request_id"}
    return str(body["error"]["message"])


@pytest.fixture
def http(engine: FakeEngine) -> Door2Client:
    return Door2Client(engine)


def ask(http: Door2Client, path: str, **options: Any) -> Any:
    return http.ask("POST", path, data=options.pop("data", BODIES.get(path, b"x")), **options)


@pytest.mark.parametrize("path", [NATIVE, V2, TFS])
@pytest.mark.parametrize("name", CASES)
def test_the_engines_errors(http: Door2Client, engine: FakeEngine, name: str, path: str) -> None:
    case = CASES[name]

    def fail(_: PredictRequest) -> Prediction:
        raise case.error

    engine.answer = fail
    response = ask(http, path)
    at = [NATIVE, V2, TFS].index(path)
    assert response.status_code == case.statuses[at]
    assert response.content_type == "application/json"
    said = sentence(path, response.get_json())
    wanted = (None, case.v2, case.tfs)[at] or case.error.message
    assert said == wanted if name != "fault" else "secret" not in said
    assert ("Retry-After" in response.headers) is case.retry


@pytest.mark.parametrize(
    ("method", "path", "status", "words"),
    [
        ("POST", "/v2/models/nobody/infer", 404, "Request for unknown model: 'nobody' is not found"),
        ("POST", "/v2/models/digits-keras/versions/9/infer", 404,
         "Request for unknown model: 'digits-keras' version 9 is not found"),
        ("GET", "/v2/models/nobody", 404, "Request for unknown model: 'nobody' is not found"),
        ("GET", "/v2/models/nobody/ready", 404, "Request for unknown model: 'nobody' is not found"),
        ("GET", "/v2/models/nobody/config", 404, "Request for unknown model: 'nobody' is not found"),
        ("GET", "/v2/models/nobody/stats", 404, "Request for unknown model: 'nobody' is not found"),
        ("GET", "/v2/nothing", 404, "Not Found"),
        ("GET", "/v2/models//infer", 404, "Not Found"),
        ("DELETE", "/v2/models/digits-keras/infer", 405, "Method Not Allowed"),
        ("GET", V2, 405, "Method Not Allowed"),
        ("POST", "/v2/repository/index", 403, "explicit model load / unload is not allowed"),
        ("POST", "/v2/repository/models/digits-keras/unload", 403, "explicit model load / unload is not allowed"),
        ("POST", "/v1/models/nobody:predict", 404, "Servable not found for request: Latest(nobody)"),
        ("POST", "/v1/models/digits-keras/versions/9:predict", 404,
         "Servable not found for request: Specific(digits-keras, 9)"),
        ("GET", "/v1/models/nobody", 404, "Servable not found for request: Latest(nobody)"),
        ("GET", "/v1/models", 400, "Missing model name in request."),
        ("GET", "/v1/models/digits-keras/nothing", 400, "Malformed request: GET /v1/models/digits-keras/nothing"),
        ("DELETE", "/v1/models/digits-keras", 400, "Malformed request: DELETE /v1/models/digits-keras"),
    ],
)  # fmt: skip
def test_what_is_not_there(
    http: Door2Client, engine: FakeEngine, method: str, path: str, status: int, words: str
) -> None:
    response = http.ask(method, path, data=BODIES[V2] if method == "POST" else None)
    assert response.status_code == status
    assert sentence(path, response.get_json()).startswith(words)
    assert engine.requests == []


@pytest.mark.parametrize("path", [V2, TFS])
def test_bodies_that_are_none(http: Door2Client, engine: FakeEngine, path: str) -> None:
    small = Door2Client(engine, body_bytes=2048)
    packed = {"Content-Encoding": "gzip"}
    bomb = gzip.compress(b" " * 100_000)
    for client, data, headers, status, words in (
        (http, b"", {}, 400, "The request has no body."),
        (small, b" " * 3000, {}, 413, "The body is larger than 2048 bytes."),
        (small, bomb, packed, 413, "The body is larger than 2048 bytes once it is unpacked."),
        (http, b"plain", packed, 400, "The body is not gzip data."),
        (http, bomb[:40], packed, 400, "The body's gzip data are cut short."),
        (http, b"x", {"Content-Encoding": "br"}, 501, "Unsupported Content-Encoding: br"),
    ):
        response = ask(client, path, data=data, headers=headers)
        assert (response.status_code, sentence(path, response.get_json())) == (status, words)
    assert engine.requests == []


@pytest.mark.parametrize("length", ["x", "-1", "1.5", "9" * 11, ""])
def test_a_header_length_that_is_none(http: Door2Client, length: str) -> None:
    response = ask(http, V2, headers={"Inference-Header-Content-Length": length})
    assert response.status_code == 400
    assert "Inference-Header-Content-Length" in response.get_json()["error"]


@pytest.mark.parametrize("path", [V2, TFS, "/v2", "/v2/models/digits-keras", "/v1/models/digits-keras"])
def test_the_doors_refusals_have_the_protocols_shape(engine: FakeEngine, path: str) -> None:
    http = Door2Client(engine, rules=KEYED)
    method = "POST" if path in BODIES else "GET"
    refusals: list[tuple[Callable[[], Any], int]] = [
        (lambda: http.ask(method, path, data=b"x", environ_overrides=LAN), 401),
        (lambda: http.ask(method, path, data=b"x", headers={"Origin": "http://evil.example"}), 403),
        (lambda: http.client.open(path, method=method, base_url="http://evil.example", data=b"x"), 403),
    ]
    for refused, status in refusals:
        response = refused()
        assert (response.status_code, list(response.get_json())) == (status, ["error"])
        assert isinstance(response.get_json()["error"], str)
    http.door.draining = True
    response = http.ask(method, path, data=b"x")
    assert (response.status_code, list(response.get_json())) == (503, ["error"])
    assert response.headers["Retry-After"]


def test_a_model_that_nobody_has_described_yet_has_no_metadata(engine: FakeEngine, http: Door2Client) -> None:
    engine.add(spec("later"), state=ModelState.UNLOADED)["spec"] = None
    assert http.ask("GET", "/v2/models/later/ready").status_code == 200  # the first request loads it
    for path in ("/v2/models/later", "/v2/models/later/config", "/v1/models/later/metadata"):
        response = http.ask("GET", path)
        assert (response.status_code, list(response.get_json())) == (503, ["error"])


def test_readiness_is_400_until_every_model_can_answer(engine: FakeEngine, http: Door2Client) -> None:
    assert http.ask("GET", "/v2/health/ready").get_json() == {"ready": True}
    engine.add(spec("slow"), state=ModelState.LOADING)
    response = http.ask("GET", "/v2/health/ready")
    assert (response.status_code, response.get_json()) == (400, {"ready": False})
    response = http.ask("GET", "/v2/models/slow/ready")
    assert (response.status_code, response.get_json()) == (400, {"name": "slow", "ready": False})


def test_what_is_asked_reaches_the_engine_as_it_came(engine: FakeEngine, http: Door2Client) -> None:
    outputs = {"y": np.array([[0.25, 0.75]], np.float32)}
    engine.answer = lambda request: Prediction("p", request.model, "raw-tensors", TIMING, outputs=outputs)
    body = {"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [1.0]}],
            "parameters": {"priority": 2, "timeout": 1_500_000}}  # fmt: skip
    response = ask(http, V2, data=json.dumps(body).encode(), content_type="text/weird")
    assert response.get_json() == {
        "model_name": "digits-keras", "model_version": "1",
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [0.25, 0.75]}],
    }  # fmt: skip
    asked = engine.requests[0]
    assert (asked.wire, asked.priority, asked.timeout_s, asked.lane) == ("open-inference", 2, 1.5, "loopback")
    assert json.loads(bytes(asked.data)) == body  # type: ignore[arg-type]
    ask(http, V2, headers={"X-Request-Timeout-Ms": "700"})
    assert engine.requests[1].timeout_s == 0.7


def test_the_first_question_of_an_offered_model_has_its_labels(engine: FakeEngine, http: Door2Client) -> None:
    entry = engine.add(spec("later", labels=("cat", "dog")), state=ModelState.UNLOADED)
    told, entry["spec"], entry["versions"] = entry["spec"], None, []

    def answer(request: PredictRequest) -> Prediction:
        entry["spec"], entry["versions"] = told, ["1"]
        return Prediction(
            "p", request.model, "raw-tensors", TIMING, outputs={"y": np.array([[0.25, 0.75]], np.float32)},
            echo={"outputs": [{"name": "y", "parameters": {"classification": 1}}]},
        )  # fmt: skip

    engine.answer = answer
    response = ask(http, "/v2/models/later/versions/1/infer", data=BODIES[V2])
    assert response.get_json()["outputs"][0]["data"] == ["0.750000:1:dog"]
