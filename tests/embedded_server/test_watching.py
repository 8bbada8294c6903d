"""Numbers for Prometheus, the request log, records with cancel, and callers that hang up."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from embedded_server import request_log
from embedded_server.access import Decision
from embedded_server.controller import ServeOptions, ServerController
from embedded_server.request_log import LOG_FILE, RequestLog
from engine.engine import Engine
from engine.errors import ModelFailed
from engine.prediction import Lane
from engine.serving_types import RequestState
from engine.settings import ServerSettings
from tests.embedded_server.conftest import until
from tests.embedded_server.wire import Wire
from tests.embedded_server.wsgi import KEYED, LAN, SECRET, Door2Client
from tests.engine.engine_harness import PATIENCE_S, fake, running_engine
from tests.fakes import FakeEngine

TRITON = (
    "nv_inference_request_success", "nv_inference_request_failure", "nv_inference_count", "nv_inference_exec_count",
    "nv_inference_request_duration_us", "nv_inference_queue_duration_us", "nv_inference_compute_input_duration_us",
    "nv_inference_compute_infer_duration_us", "nv_inference_compute_output_duration_us",
    "nv_inference_pending_request_count",
)  # fmt: skip
ROW = json.dumps({"inputs": {"x": [[1, 2, 3, 4]]}}).encode()
JSON = {"Content-Type": "application/json"}


def metrics(text: str) -> dict[tuple[str, ...], float]:
    """Samples by name and labels. The parser calls every counter ``…_total``, as Prometheus' own libraries do."""
    return {
        (
            sample.name.removesuffix("_total") if sample.name.startswith("nv_") else sample.name,
            *(f"{k}={v}" for k, v in sorted(sample.labels.items())),
        ): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


# -- metrics -----------------------------------------------------------------------------------------------------------
def test_the_numbers_have_tritons_names_and_are_those_of_the_model(tmp_path: Path) -> None:
    with running_engine(tmp_path) as (engine, _):
        engine.load(fake()).future.result(PATIENCE_S)
        server = ServerController(engine, ServerSettings(), tmp_path)  # type: ignore[call-arg]
        port = server.start_at(ServeOptions(port=0)).port
        try:
            with Wire(port) as wire:
                for body in (ROW, ROW, b'{"inputs": {"x": [[1]]}}'):
                    wire.request("POST", "/predict/fake", body, **JSON).answer()
                wire.request("GET", "/nothing").answer()
                page = wire.request("GET", "/metrics").answer()
        finally:
            server.stop()
    assert page.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    text = page.body.decode()
    found = metrics(text)
    of = ("model=fake", "version=1")
    assert found[("nv_inference_request_success", *of)] == 2
    assert found[("nv_inference_count", *of)] == 2
    assert found[("nv_inference_exec_count", *of)] == 2
    assert found[("nv_inference_request_failure", "model=fake", "reason=OTHER", "version=1")] == 1
    assert found[("nv_inference_request_duration_us", *of)] > found[("nv_inference_compute_infer_duration_us", *of)]
    assert found[("deskside_answers_total", "door=network", "model=fake")] == 2
    assert found[("deskside_batch_requests_bucket", "le=1", "model=fake")] == 3
    assert found[("deskside_batch_requests_count", "model=fake")] == 3
    # Two answers, and the server's own look at itself.
    assert found[("deskside_http_responses_total", "protocol=native", "status=200")] == 3
    assert found[("deskside_http_responses_total", "protocol=other", "status=404")] == 1
    assert found[("deskside_http_requests_open",)] == 1
    for name in TRITON:
        assert f"# TYPE {name} " in text
    assert '\nnv_inference_request_success{model="fake",version="1"} 2\n' in text
    assert str(tmp_path) not in text


def test_metrics_need_a_key_that_may_read(engine: FakeEngine) -> None:
    http = Door2Client(engine, rules=KEYED)
    assert http.ask("GET", "/metrics", environ_overrides=LAN).status_code == 401
    headers = {"Authorization": f"Bearer {SECRET}"}
    assert http.ask("GET", "/metrics", headers=headers, environ_overrides=LAN).status_code == 200


# -- the request log ---------------------------------------------------------------------------------------------------
def test_a_line_for_each_request_and_nothing_that_was_sent(
    make_controller: Callable[..., ServerController], engine: FakeEngine, tmp_path: Path
) -> None:
    canary = "canary-9d1f"
    controller = make_controller(request_log="file")
    port = controller.start_at(ServeOptions(port=0)).port
    with Wire(port) as wire:
        wire.request("POST", "/predict/wine?top_k=1&note=" + canary, canary.encode(), **{"User-Agent": canary}).answer()
        wire.request("GET", "/predict/" + canary + "%2f..%2f", Authorization=f"Bearer {canary}").answer()
        wire.request("GET", "/v2/models/wine", Authorization=f"Bearer {canary}").answer()
    controller.stop()
    text = (tmp_path / "data" / "logs" / LOG_FILE).read_text()
    assert canary not in text
    lines = [json.loads(line) for line in text.splitlines() if "/health/" not in line]
    assert [(line["method"], line["path"], line["status"], line["model"]) for line in lines] == [
        ("POST", "/predict/wine", 200, "wine"),
        ("GET", "?", 404, None),
        ("GET", "/v2/models/wine", 200, "wine"),
    ]
    first = lines[0]
    assert (first["client"], first["lane"], first["key"], first["received"]) == (
        "127.0.0.1",
        "loopback",
        None,
        len(canary),
    )
    assert first["sent"] > 50
    assert first["ms"] >= 0
    assert len(first["id"]) == 16


def test_the_key_is_named_and_not_shown(engine: FakeEngine, tmp_path: Path) -> None:
    http = Door2Client(engine, rules=KEYED)
    http.door.log = RequestLog("file", tmp_path)
    http.post(headers={"Authorization": f"Bearer {SECRET}"}, environ_overrides=LAN)
    http.post(environ_overrides=LAN)
    http.door.log.close()
    text = (tmp_path / LOG_FILE).read_text()
    assert SECRET not in text
    lines = [json.loads(line) for line in text.splitlines()]
    assert [(line["key"], line["status"], line["reason"]) for line in lines] == [
        ("window", 200, None),
        (None, 401, "key_required"),
    ]


def line(log: RequestLog, path: str) -> None:
    decision = Decision(True, 200, "", "", Lane.LOOPBACK, "127.0.0.1")
    log.write("0" * 16, decision, "GET", path, 200, received=0, sent=0, seconds=0.0)


def test_lines_are_written_soon_in_order_and_again_after_a_close(tmp_path: Path) -> None:
    log, path = RequestLog("file", tmp_path), tmp_path / LOG_FILE

    def paths() -> list[str]:
        return [json.loads(text)["path"] for text in path.read_text().splitlines()] if path.exists() else []

    asked = [f"/{number}" for number in range(450)]
    for name in asked:
        line(log, name)
    until(lambda: paths() == asked, "every line is in the file")
    log.close()
    line(log, "/later")
    until(lambda: paths() == [*asked, "/later"], "a line after the close")
    log.close()
    log.close()


def test_a_log_that_is_far_behind_costs_lines_and_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_log, "MOST_WAITING", 10)
    log = RequestLog("file", tmp_path)
    stuck = threading.Event()
    assert log._handler is not None
    handle = log._handler.handle
    monkeypatch.setattr(log._handler, "handle", lambda record: stuck.wait(20) and handle(record))
    for number in range(100):
        line(log, f"/{number}")
    stuck.set()
    log.close()
    assert 1 <= len((tmp_path / LOG_FILE).read_text().splitlines()) <= 21
    assert len(log.newest()) == 100


def test_off_writes_nothing(engine: FakeEngine, tmp_path: Path) -> None:
    RequestLog("off", tmp_path / "logs")
    assert not (tmp_path / "logs").exists()


# -- records, cancel, hanging up ---------------------------------------------------------------------------------------
@pytest.fixture
def slow(tmp_path: Path) -> Any:
    """A real engine whose model takes a while, and a server before it."""
    with running_engine(tmp_path) as (engine, _):
        engine.load(fake(delay_s=0.4, max_batch_size=1)).future.result(PATIENCE_S)
        server = ServerController(engine, ServerSettings(), tmp_path)  # type: ignore[call-arg]
        port = server.start_at(ServeOptions(port=0)).port
        try:
            yield engine, port
        finally:
            server.stop()


def waiting(engine: Engine) -> list[Any]:
    return [record for record in engine.requests() if record.state is RequestState.WAITING]


def test_records_tell_the_place_in_line_and_one_can_be_given_up(slow: tuple[Engine, int]) -> None:
    engine, port = slow
    wires = [Wire(port).request("POST", "/predict/fake", ROW, **JSON) for _ in range(6)]
    until(lambda: len(waiting(engine)) >= 3, "requests in line")
    last = next(record for record in engine.requests() if record.state is RequestState.WAITING)
    places = sorted(record.position for record in waiting(engine) if record.position is not None)
    assert places == list(range(len(places)))
    assert (last.client, last.key, last.model, last.size) == ("127.0.0.1", "", "fake", len(ROW))
    assert engine.cancel(last.id)
    assert not engine.cancel("m1-999")
    answers = [wire.answer() for wire in wires]
    assert sorted(answer.status for answer in answers) == [200] * 5 + [503]
    refused = next(answer for answer in answers if answer.status == 503)
    assert refused.code == "cancelled"
    record = next(record for record in engine.requests() if record.id == last.id)
    assert record.state is RequestState.GONE
    assert not engine.cancel(last.id)
    for wire in wires:
        wire.socket.close()


def test_a_caller_that_hangs_up_costs_nothing_any_more(slow: tuple[Engine, int]) -> None:
    engine, port = slow
    first = Wire(port).request("POST", "/predict/fake", ROW, **JSON)
    second = Wire(port).request("POST", "/predict/fake", ROW, **JSON)
    until(lambda: len(engine.requests()) == 2, "two requests")
    gone = [Wire(port).request("POST", "/predict/fake", ROW, **JSON) for _ in range(4)]
    until(lambda: len(waiting(engine)) == 4, "four in line")
    for wire in gone:
        wire.socket.close()
    until(lambda: not waiting(engine), "nobody in line")
    assert [wire.answer().status for wire in (first, second)] == [200, 200]
    states = sorted(str(record.state) for record in engine.requests())
    assert states == ["answered"] * 2 + ["gone"] * 4
    entry = engine.stats()["models"][0]
    assert entry["inferences"] == 2
    assert entry["statistics"]["failures"] == {"CANCELED": 4}
    for wire in (first, second):
        wire.socket.close()


def test_a_failed_model_is_no_reason_for_the_door_to_fall(engine: FakeEngine) -> None:
    def fail(_: Any) -> Any:
        raise ModelFailed("It has failed.")

    engine.answer = fail
    http = Door2Client(engine)
    assert http.post().status_code == 503
    assert http.door.http_counts.snapshot() == ({("native", 503): 1}, 0)
