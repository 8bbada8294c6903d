"""Predict, errors, paths and methods over the fake engine."""

from __future__ import annotations

import inspect
import io
import logging
from collections.abc import Iterator
from concurrent.futures import Future
from urllib.parse import unquote

import numpy as np
import pytest
from werkzeug.test import create_environ, run_wsgi_app

from embedded_server.errors import STATUS, engine_error, without_paths
from engine import errors
from engine.prediction import Prediction, PredictRequest
from tests.embedded_server.wsgi import BASE, Door2Client, code
from tests.fakes import TIMING, FakeEngine, answer_three


@pytest.fixture
def http(engine: FakeEngine) -> Door2Client:
    return Door2Client(engine)


# -- predict ----------------------------------------------------------------------------------------------------------
def test_a_picture_reaches_the_engine_as_it_came(http: Door2Client, engine: FakeEngine) -> None:
    response = http.post("/predict/digits-keras?top_k=2&threshold=0.5", b"\x89PNG\x00", content_type="image/png")
    assert response.status_code == 200
    assert response.get_json() == {
        "model": "digits-keras",
        "version": "1",
        "task": "image-classification",
        "predictions": answer_three(engine.requests[0]).predictions,
        "timing_ms": TIMING,
    }
    asked = engine.requests[0]
    assert (asked.model, asked.data, asked.content_type) == ("digits-keras", b"\x89PNG\x00", "image/png")
    assert asked.params == {"top_k": 2, "threshold": 0.5}
    assert (asked.lane, asked.client, asked.timeout_s) == ("loopback", "127.0.0.1", 30.0)
    assert http.door.served == 1


@pytest.mark.parametrize("content_type", ["text/csv", "multipart/form-data; boundary=x", "weird/type", None])
def test_every_content_type_is_the_engines_business(
    http: Door2Client, engine: FakeEngine, content_type: str | None
) -> None:
    http.post(data=b"a,b\n1,2\n", content_type=content_type)
    assert (engine.requests[0].data, engine.requests[0].content_type) == (b"a,b\n1,2\n", content_type)


def test_raw_tensors_and_rows_have_the_native_shape(http: Door2Client, engine: FakeEngine) -> None:
    engine.answer = lambda r: Prediction("p", r.model, "raw", TIMING, outputs={"y": np.array([[1.5, np.nan]], "f4")})
    assert http.post().get_json()["outputs"] == {"y": {"dtype": "float32", "shape": [1, 2], "data": [[1.5, None]]}}
    rows = [{"input": 0, "predictions": []}, {"input": 1, "error": {"code": "value_invalid", "message": "No."}}]
    engine.answer = lambda r: Prediction("p", r.model, "tabular-classification", TIMING, results=rows)
    assert http.post("/predict/wine").get_json()["results"] == rows


@pytest.mark.parametrize("value", ["1", "60000", "00250"])
def test_the_deadline_travels_with_the_request(http: Door2Client, engine: FakeEngine, value: str) -> None:
    assert http.post(headers={"X-Request-Timeout-Ms": value}).status_code == 200
    assert engine.requests[0].timeout_s == int(value) / 1000


@pytest.mark.parametrize("value", ["0", "60001", "-1", "1.5", "", "abc", "1e3", "٣", "999999999999"])
def test_a_bad_deadline_is_400(http: Door2Client, engine: FakeEngine, value: str) -> None:
    response = http.post(headers={"X-Request-Timeout-Ms": value})
    assert (response.status_code, code(response)) == (400, "malformed")
    assert engine.requests == []


def test_every_parameter_of_a_task_can_stand_in_the_query(http: Door2Client, engine: FakeEngine) -> None:
    query = "iou=0.4&masks=rle&depth=grey16&subtask=instance&aggregation_strategy=none&unknown=1"
    assert http.post(f"/predict/digits-keras?{query}").status_code == 200
    assert engine.requests[0].params == {
        "iou": 0.4, "masks": "rle", "depth": "grey16", "subtask": "instance", "aggregation_strategy": "none",
    }  # fmt: skip


@pytest.mark.parametrize(
    "query",
    [
        "top_k=0", "top_k=-1", "top_k=x", "top_k=1.0", "top_k=", "threshold=2", "threshold=nan", "threshold=x",
        "iou=-0.1", "iou=", "masks=", "masks=RLE", "depth=a%20b", "subtask=%3Cb%3E", f"masks={'x' * 33}",
    ],
)  # fmt: skip
def test_bad_parameters_are_400(http: Door2Client, query: str) -> None:
    response = http.post(f"/predict/digits-keras?{query}")
    assert (response.status_code, code(response)) == (400, "malformed")


def test_an_empty_body_is_422(http: Door2Client) -> None:
    response = http.post(data=b"")
    assert (response.status_code, code(response)) == (422, "nothing_to_predict")


def test_a_compressed_body_is_415(http: Door2Client, engine: FakeEngine) -> None:
    response = http.post(headers={"Content-Encoding": "gzip"})
    assert (response.status_code, code(response)) == (415, "unsupported_media_type")
    assert engine.requests == []


def test_bodies_are_bounded_where_the_host_tells_no_length(engine: FakeEngine) -> None:
    http = Door2Client(engine, body_bytes=2048)
    for size, status in ((2048, 200), (2049, 413)):
        environ = create_environ("/predict/digits-keras", BASE, method="POST", input_stream=io.BytesIO(b"x" * size))
        del environ["CONTENT_LENGTH"]
        environ |= {"wsgi.input_terminated": True, "REMOTE_ADDR": "127.0.0.1"}
        chunks, line, _ = run_wsgi_app(http.app, environ)
        assert line.startswith(str(status))
    assert b"body_too_large" in b"".join(chunks)
    assert len(engine.requests) == 1


def test_a_body_that_is_too_long_or_cut_short_is_refused(engine: FakeEngine) -> None:
    http = Door2Client(engine, body_bytes=2048)
    assert code(http.post(data=b"x" * 2049)) == "body_too_large"
    cut = http.ask(
        "POST", "/predict/digits-keras", input_stream=io.BytesIO(b"xx"), environ_overrides={"CONTENT_LENGTH": "3"}
    )
    assert (cut.status_code, code(cut)) == (400, "malformed")
    assert engine.requests == []


# -- errors -----------------------------------------------------------------------------------------------------------
def engine_errors() -> Iterator[type[errors.EngineError]]:
    pending = [errors.EngineError]
    while pending:
        cls = pending.pop()
        pending.extend(sub for sub in cls.__subclasses__() if sub.__module__ == errors.__name__)
        yield cls


@pytest.mark.parametrize(
    ("error", "status", "shown"),
    [
        (errors.Malformed("No."), 400, "malformed"),
        (errors.ModelNotFound("No."), 404, "model_not_found"),
        (errors.InputTooLarge("No."), 413, "input_too_large"),
        (errors.UnsupportedMediaType("No."), 415, "unsupported_media_type"),
        (errors.UnusableInput("No."), 422, "unusable_input"),
        (errors.UnusableInput("No.", code="image_invalid"), 422, "image_invalid"),
        (errors.Quarantined("No."), 422, "quarantined"),
        (errors.Busy("No.", retry_after_s=2.2), 503, "busy"),
        (errors.Loading("No."), 503, "loading"),
        (errors.WorkerRestarted("No."), 503, "worker_restarted"),
        (errors.Draining("No."), 503, "draining"),
        (errors.ModelFailed("No."), 503, "model_failed"),
        (errors.ConsentRequired("No."), 503, "model_failed"),
        (errors.ModelCorrupt("No."), 503, "model_failed"),
        (errors.RequestCancelled("No."), 503, "cancelled"),
        (errors.DeadlineExceeded("No."), 504, "deadline_exceeded"),
        (errors.DeviceOutOfMemory("No."), 507, "device_oom"),
        (errors.InternalError("secret"), 500, "internal"),
        (errors.EngineError("secret", code="never heard of"), 500, "internal"),
    ],
)
def test_engine_errors_have_their_status(
    http: Door2Client, engine: FakeEngine, error: errors.EngineError, status: int, shown: str
) -> None:
    def fail(_: PredictRequest) -> Prediction:
        raise error

    engine.answer = fail
    response = http.post()
    assert (response.status_code, code(response)) == (status, shown)
    assert ("Retry-After" in response.headers) is (status == 503)
    assert b"secret" not in response.data
    if shown == "busy":
        assert response.headers["Retry-After"] == "3"


def test_every_code_of_the_engine_has_an_answer() -> None:
    for cls in engine_errors():
        error = cls("No.") if "message" in inspect.signature(cls).parameters else cls()  # type: ignore[call-arg]
        answer = engine_error(error)
        assert answer.status == STATUS[answer.code]


def test_an_unknown_exception_is_logged_and_not_told(
    http: Door2Client, engine: FakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: PredictRequest) -> Prediction:
        raise ZeroDivisionError("secret at /home/ada/model.keras")

    def predict(_: PredictRequest) -> Future[Prediction]:
        return fail(_)  # type: ignore[return-value]

    engine.predict = predict  # type: ignore[method-assign]
    with caplog.at_level(logging.ERROR):
        response = http.post()
    assert (response.status_code, code(response)) == (500, "internal")
    assert b"secret" not in response.data
    assert response.get_json()["error"]["request_id"] in caplog.text
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/home/ada/models/m.keras is damaged.", "m.keras is damaged."),
        (r"C:\Users\Ada\m.pt is damaged.", "m.pt is damaged."),
        ("'/home/ada/m.pt' is damaged.", "'m.pt' is damaged."),
        ("image/png or text/csv was expected, 3/4 given.", "image/png or text/csv was expected, 3/4 given."),
    ],
)
def test_the_network_reads_no_paths(text: str, shown: str) -> None:
    assert without_paths(text) == shown


def test_a_failed_load_names_the_file_but_not_its_folder(http: Door2Client, engine: FakeEngine) -> None:
    def fail(_: PredictRequest) -> Prediction:
        raise errors.ModelCorrupt("/home/ada/digits.keras is cut short: a zip archive was expected.", details="secret")

    engine.answer = fail
    message = http.post().get_json()["error"]["message"]
    assert message == "digits.keras is cut short: a zip archive was expected."


# -- paths and methods ------------------------------------------------------------------------------------------------
UNKNOWN_MODELS = ["/predict/nope", "/predict/CON", "/predict/.x", "/predict/" + "a" * 65, "/predict/" + "a" * 10_000]
NOT_CANONICAL = [
    "/predict/digits-keras/", "/predict//digits-keras", "/predict/%64igits-keras", "/predict/..%2fdigits-keras",
    "/predict/../digits-keras", "/predict/./digits-keras", "/predict/digits-keras%00", "/predict/a\\b", "/predict/a;b",
]  # fmt: skip


@pytest.mark.parametrize("path", [*UNKNOWN_MODELS, *NOT_CANONICAL])
def test_unknown_and_malformed_models_read_the_same_404(http: Door2Client, engine: FakeEngine, path: str) -> None:
    reference = http.post("/predict/unknown-model").get_json()["error"]
    response = http.client.post("/", base_url=BASE, data=b"x", environ_overrides=raw_target(path))
    error = response.get_json()["error"]
    assert response.status_code == 404
    assert {**error, "request_id": ""} == {**reference, "request_id": ""}
    assert all(asked.model in ("nope", "unknown-model") or "a" * 65 in asked.model for asked in engine.requests)


@pytest.mark.parametrize("path", ["/models/", "//models", "/health/live/", "/nope", "/admin", "/shutdown", "/v3", "//"])
def test_no_route_redirects(http: Door2Client, path: str) -> None:
    response = http.client.get("/", base_url=BASE, environ_overrides=raw_target(path))
    assert (response.status_code, code(response)) == (404, "not_found")
    assert "Location" not in response.headers


def raw_target(path: str) -> dict[str, str]:
    """The environment as waitress makes it: the target as sent, the path decoded and its leading slashes merged."""
    return {"REQUEST_URI": path, "RAW_URI": path, "PATH_INFO": "/" + unquote(path).lstrip("/")}


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/predict/digits-keras", "POST"),
        ("PUT", "/predict/digits-keras", "POST"),
        ("OPTIONS", "/predict/digits-keras", "POST"),
        ("POST", "/models", "GET, HEAD"),
        ("DELETE", "/models", "GET, HEAD"),
        ("TRACE", "/", "GET, HEAD"),
    ],
)
def test_c8_other_methods_are_405(http: Door2Client, method: str, path: str, allow: str) -> None:
    response = http.ask(method, path)
    assert (response.status_code, code(response), response.headers["Allow"]) == (405, "method_not_allowed", allow)


def test_the_url_map_is_this_one(http: Door2Client) -> None:
    routes = {(rule.rule, *sorted(rule.methods or ())) for rule in http.app.url_map.iter_rules()}
    assert routes == {
        ("/", "GET", "HEAD"),
        ("/docs", "GET", "HEAD"),
        ("/page.js", "GET", "HEAD"),
        ("/page.css", "GET", "HEAD"),
        ("/icon.svg", "GET", "HEAD"),
        ("/openapi.json", "GET", "HEAD"),
        ("/health/live", "GET", "HEAD"),
        ("/health/ready", "GET", "HEAD"),
        ("/models", "GET", "HEAD"),
        ("/metrics", "GET", "HEAD"),
        ("/predict/<model>", "POST"),
        *(("/v2" + path, "GET", "HEAD") for path in ("", "/health/live", "/health/ready", "/models/stats")),
        *(
            (f"/v2/models/<model>{version}{verb}", "GET", "HEAD")
            for version in ("", "/versions/<version>")
            for verb in ("", "/ready", "/config", "/stats")
        ),
        ("/v2/models/<model>/infer", "POST"),
        ("/v2/models/<model>/versions/<version>/infer", "POST"),
        ("/v2/repository/index", "POST"),
        ("/v2/repository/models/<model>/load", "POST"),
        ("/v2/repository/models/<model>/unload", "POST"),
        ("/v1/models", "GET", "HEAD"),
        *(
            (f"/v1/models/<model>{which}{tail}", *methods)
            for which in ("", "/versions/<version>", "/labels/<label>")
            for tail, methods in (("", ("GET", "HEAD")), ("/metadata", ("GET", "HEAD")), (":<verb>", ("POST",)))
        ),
    }


def test_no_static_folder_no_session_no_secret(http: Door2Client) -> None:
    assert http.app.static_folder is None
    assert http.app.secret_key is None
    assert not http.app.debug
