"""The hot lane: the same answers as Flask's view, and nothing lost, doubled or crossed on the way."""

from __future__ import annotations

import gc
import gzip
import json
import random
import re
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask import Flask

from embedded_server import data_plane, hot_lane
from embedded_server import hosting as hosting_module
from embedded_server.controller import ServeOptions, ServerController
from embedded_server.hot_lane import READ_AT_ONCE, LaneParts, Passage
from embedded_server.keys import KeyStore
from embedded_server.protocols.questions import ASK
from embedded_server.waitress_adapter import channel as channel_module
from embedded_server.waitress_adapter import lane_loop
from engine import errors
from engine.engine import RECORDS
from engine.jobs import Job
from engine.prediction import Prediction, PredictRequest
from tests.embedded_server.conftest import settings, until
from tests.embedded_server.wire import Answer, Wire
from tests.embedded_server.wsgi import Door2Client
from tests.engine.engine_harness import PATIENCE_S, fake, running_engine
from tests.fakes import FakeEngine, answer_three

Make = Callable[..., ServerController]
PREDICT = "/predict/digits-keras"
INFER = "/v2/models/digits-keras/infer"
ASK_TFS = "/v1/models/digits-keras:predict"
JSON = {"Content-Type": "application/json"}
V2_BODY = json.dumps(
    {"id": "7", "inputs": [{"name": "image", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]}
).encode()
WAYS = ("lane", "view")


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths that the lane answered."""
    finished: list[str] = []
    finish = Passage.finish

    def noted(passage: Passage) -> Any:
        finished.append(passage._request.path)
        return finish(passage)

    monkeypatch.setattr(Passage, "finish", noted)
    return finished


def echo(request: PredictRequest) -> Prediction:
    """An answer that tells what was asked."""
    assert isinstance(request.data, bytes)
    return replace(answer_three(request), predictions=[{"label": request.data.decode("latin-1"), "score": 1.0}])


def tensors(request: PredictRequest) -> Prediction:
    told = {"listed": [{"name": "scores", "parameters": {"classification": 2}}], "binary": None}
    outputs = {"scores": np.array([[0.25, 0.5, np.nan]], np.float32), "words": np.array([["ä", "b"]], dtype=object)}
    body = json.loads(request.data) if request.data[:1] == b"{" else {}  # type: ignore[index, arg-type]
    parameters = body.get("parameters", {})
    kept: dict[str, Any] = {"id": body["id"]} if "id" in body else {}
    kept |= {"form": "instances"} if "instances" in body else {}
    if parameters.get("best"):
        kept["outputs"] = told["listed"]
    if parameters.get("binary_data_output"):
        kept["binary_data_output"] = True
    return replace(answer_three(request), predictions=None, outputs=outputs, echo=kept)


def picture(request: PredictRequest) -> Prediction:
    return replace(answer_three(request), predictions={"image": b"\x89PNG" + bytes(range(256))})


def rows(request: PredictRequest) -> Prediction:
    found = [{"input": 0, "predictions": [{"label": "a", "score": 0.5}, {"label": "b", "score": 0.25}]}]
    return replace(answer_three(request), predictions=None, results=found)


def failing(error: BaseException) -> Callable[[PredictRequest], Prediction]:
    def fail(_: PredictRequest) -> Prediction:
        raise error

    return fail


@dataclass(frozen=True)
class Case:
    """``lane``: whether the lane is to answer it. ``raw`` stands for the whole request, PORT for the port."""

    name: str
    target: str = PREDICT
    body: bytes = b"picture"
    headers: tuple[tuple[str, str], ...] = ()
    answer: Callable[[PredictRequest], Prediction] = answer_three
    status: int = 200
    lane: bool = True
    method: str = "POST"
    version: str = "1.1"
    chunked: bool = False
    changes: tuple[tuple[str, Any], ...] = ()

    def wire(self, port: int) -> bytes:
        fields = [("Host", f"localhost:{port}"), *self.headers]
        body = self.body
        if self.chunked:
            fields.append(("Transfer-Encoding", "chunked"))
            body = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:3], body[3:])) + b"0\r\n\r\n"
        elif body or self.method == "POST":
            fields.append(("Content-Length", str(len(body))))
        head = [f"{self.method} {self.target} HTTP/{self.version}", *(f"{k}: {v}" for k, v in fields), "", ""]
        return "\r\n".join(head).encode("latin-1") + body


def header(**fields: str) -> tuple[tuple[str, str], ...]:
    return tuple((name.replace("_", "-"), value) for name, value in fields.items())


ENGINE_ERRORS: list[tuple[BaseException, int, int, int]] = [
    (errors.Malformed("No /home/me/x."), 400, 400, 400),
    (errors.ModelNotFound("No."), 404, 404, 404),
    (errors.InputTooLarge("No."), 413, 413, 413),
    (errors.UnsupportedMediaType("No."), 415, 400, 400),
    (errors.UnusableInput("No.", code="image_invalid"), 422, 400, 400),
    (errors.Quarantined("No."), 422, 400, 400),
    (errors.Busy("No.", retry_after_s=2.2), 503, 503, 503),
    (errors.Loading("No."), 503, 503, 503),
    (errors.WorkerRestarted("No."), 503, 503, 503),
    (errors.Draining("No."), 503, 503, 503),
    (errors.ModelFailed("No."), 503, 503, 503),
    (errors.ModelCorrupt("No."), 503, 503, 503),
    (errors.RequestCancelled("No."), 503, 503, 503),
    (errors.DeadlineExceeded("No."), 504, 503, 504),
    (errors.DeviceOutOfMemory("No."), 507, 500, 500),
    (errors.InternalError("secret"), 500, 500, 500),
    (ValueError("secret"), 500, 500, 500),
]
V2_VERSION, TFS_VERSION = "/v2/models/digits-keras/versions/1/infer", "/v1/models/digits-keras/versions/1:predict"
CASES = [
    Case("native"),
    Case("native-json", body=b'{"image": "aGk="}', headers=header(**{"Content-Type": "application/json"})),
    Case("native-query", f"{PREDICT}?top_k=2&threshold=0.5&masks=rle&version=1"),
    Case("native-rows", answer=rows, headers=header(Content_Type="text/csv")),
    Case("native-outputs", answer=tensors),
    Case("native-drawn", answer=picture, headers=header(Accept="image/png")),
    Case("native-not-drawn", answer=answer_three, headers=header(Accept="image/png")),
    Case("native-deadline", headers=header(X_Request_Timeout_Ms="5000")),
    Case("v2", INFER, V2_BODY, answer=tensors),
    Case("v2-version", V2_VERSION, V2_BODY, answer=tensors),
    Case("v2-binary", INFER, b'{"id":"7","parameters":{"binary_data_output":true}}', answer=tensors),
    Case("v2-classes", INFER, b'{"parameters":{"best":true}}', answer=tensors),
    Case("v2-packed-answer", INFER, V2_BODY, header(Accept_Encoding="gzip"), tensors),
    Case("v2-deflated-answer", INFER, V2_BODY, header(Accept_Encoding="deflate"), tensors),
    Case("v2-packed-body", INFER, gzip.compress(V2_BODY, mtime=0), header(Content_Encoding="gzip"), tensors),
    Case("v2-header-length", INFER, V2_BODY, header(Inference_Header_Content_Length=str(len(V2_BODY))), tensors),
    Case("v2-priority", INFER, V2_BODY[:-1] + b',"parameters":{"priority":1,"timeout":5000000}}', answer=tensors),
    Case("tfs-rows", ASK_TFS, b'{"instances": [[1]]}', answer=tensors),
    Case("tfs-columns", ASK_TFS, b'{"inputs": [[1]]}', answer=tensors),
    Case("tfs-version", TFS_VERSION, b'{"instances": [[1]]}', answer=tensors),
    Case("tfs-label", "/v1/models/digits-keras/labels/stable:predict", b'{"instances": [[1]]}', answer=tensors),
    Case("tfs-classify", "/v1/models/digits-keras:classify", b'{"examples": [{}]}', answer=rows),
    # -- how it comes
    Case("chunked", chunked=True),
    Case("v2-chunked", INFER, V2_BODY, answer=tensors, chunked=True),
    Case("large", body=b"x" * 100_000),
    Case("large-answer", answer=lambda r: replace(answer_three(r), predictions=[{"label": "x" * 300_000, "score": 1}])),
    Case("http-1.0", version="1.0"),
    Case("http-1.0-keep-alive", version="1.0", headers=header(Connection="keep-alive")),
    Case("close", headers=header(Connection="close")),
    Case("expected", headers=header(Expect="100-continue")),
    Case("another-site", headers=header(Origin="https://lab.example"), changes=(("cors_origins", ("https://lab.example",)),)),
    Case("other-headers", headers=header(X_Forwarded_For="1.2.3.4", Cookie="a=b", Accept="*/*", User_Agent="x")),
    # -- what is no question, or is refused by its head
    Case("head", method="HEAD", body=b"", status=405, lane=False),
    Case("get", INFER, b"", method="GET", status=405, lane=False),
    Case("foreign-host", headers=header(Origin="https://evil.example"), status=403, lane=False),
    Case("odd-path", "/predict//x", status=404, lane=False),
    Case("tfs-no-verb", "/v1/models/digits-keras:explain", b"{}", status=400),
    Case("load", "/v2/repository/models/digits-keras/load", b"", status=403, lane=False),
    # -- errors before the engine
    *(Case(f"unknown-{target[:4]}", target.replace("digits-keras", "nobody"), status=404)
      for target in (PREDICT, INFER, ASK_TFS, V2_VERSION, TFS_VERSION)),
    Case("v2-no-such-version", V2_VERSION.replace("/1/", "/9/"), V2_BODY, status=404),
    Case("tfs-no-such-label", "/v1/models/digits-keras/labels/old:predict", b"{}", status=404),
    Case("odd-name", "/predict/Nobody", status=404),
    *(Case(f"empty-{target[:4]}", target, b"", status=status)
      for target, status in ((PREDICT, 422), (INFER, 400), (ASK_TFS, 400))),
    *(Case(f"{value}-deadline-{target[:4]}", target, V2_BODY, header(X_Request_Timeout_Ms=value), status=400)
      for value in ("0", "x", "60001") for target in (PREDICT, INFER, ASK_TFS)),
    Case("bad-query", f"{PREDICT}?top_k=0", status=400),
    Case("packed-native", headers=header(Content_Encoding="gzip"), status=415),
    Case("not-packed", INFER, b"nonsense", header(Content_Encoding="gzip"), status=400),
    Case("unknown-packing", INFER, V2_BODY, header(Content_Encoding="br"), status=501),
    Case("v2-bad-length", INFER, V2_BODY, header(Inference_Header_Content_Length="x"), status=400),
    Case("v2-bad-priority", INFER, b'{"inputs":[],"parameters":{"priority":-1}}', status=400),
    Case("tfs-bad-verb", "/v1/models/digits-keras:regress", b'{"examples": [{}]}', status=400),
    # -- errors of the engine, and of the answer
    *(Case(f"{type(error).__name__}-{target[:4]}", target, V2_BODY, answer=failing(error), status=statuses[at])
      for error, *statuses in ENGINE_ERRORS for at, target in enumerate((PREDICT, INFER, ASK_TFS))),
    Case("v2-unknown-output", INFER, V2_BODY, status=400, answer=lambda r: replace(
        tensors(r), echo={"outputs": [{"name": "nothing"}]})),
    Case("v2-bad-classes", INFER, V2_BODY, status=400, answer=lambda r: replace(
        tensors(r), echo={"outputs": [{"name": "scores", "parameters": {"classification": -1}}]})),
    Case("tfs-uneven-rows", ASK_TFS, b"{}", status=400, answer=lambda r: replace(
        tensors(r), outputs={"a": np.zeros(2), "b": np.zeros(3)}, echo={"form": "instances"})),
    Case("an-answer-that-cannot-be-told", status=500, answer=lambda r: replace(
        answer_three(r), predictions=[object()])),
    Case("cors-error", headers=header(Origin="https://lab.example"), answer=failing(errors.Busy("No.")), status=503,
         changes=(("cors_origins", ("https://lab.example",)),)),
]  # fmt: skip


def masked(data: bytes) -> bytes:
    data = re.sub(rb"Date: [^\r]+", b"Date: *", data)
    return re.sub(rb'"request_id":"[0-9a-f]{16}"', b'"request_id":"*"', data)


def whole(port: int, data: bytes, *, answers: int = 1) -> bytes:
    """Every byte the server sends until so many answers are there, and whether it closes after them."""
    with Wire(port) as wire:
        wire.send(data)
        got = b""
        while answers:
            head_end = got.find(b"\r\n\r\n")
            got += wire.socket.recv(1 << 20) if head_end < 0 else b""
            if head_end < 0:
                continue
            head = got[:head_end].decode("latin-1").lower()
            length = 0 if head.startswith("http/1.1 100") or data.startswith(b"HEAD") else int(
                head.partition("content-length: ")[2].partition("\r\n")[0]
            )  # fmt: skip
            while len(got) < head_end + 4 + length:
                got += wire.socket.recv(1 << 20)
            if not head.startswith("http/1.1 100"):
                answers -= 1
                return got + (b"<closed>" if "connection: close" in head and not wire.socket.recv(1) else b"")
            got = got[head_end + 4 :]
    return got


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_lane_and_the_view_answer_byte_for_byte_the_same(
    make_controller: Make, engine: FakeEngine, taken: list[str], case: Case, caplog: pytest.LogCaptureFixture
) -> None:
    seen: dict[str, Any] = {}

    def answer(request: PredictRequest) -> Prediction:
        try:
            return case.answer(request)
        except errors.EngineError:
            raise
        except Exception as error:
            # The engine's own surprise comes through its future.
            raise errors.InternalError("secret", details=str(error)) from error

    engine.answer = answer if case.name != "ValueError-/pre" else case.answer
    for way in WAYS:
        taken.clear()
        engine.requests.clear()
        caplog.clear()
        changes = {key: list(value) for key, value in case.changes}
        controller = make_controller(hot_lane=way == "lane", **changes)
        port = controller.start_at(ServeOptions(port=0)).port
        data = whole(port, case.wire(port))
        running = controller._running
        assert running is not None
        door = running.door
        until(lambda: door.http_counts.snapshot()[1] == 0, "the request has ended")  # noqa: B023
        until(lambda: len(door.log.newest()) >= 2, "its line in the log")  # noqa: B023
        until(lambda: running.http._server.budget.used == 0, "its memory is given back")  # noqa: B023
        assert bool(taken) is (way == "lane" and case.lane), "who answered"
        line = json.loads(door.log.newest()[-1])
        seen[way] = {
            "answer": masked(data).replace(str(port).encode(), b"PORT"),
            "asked": list(engine.requests),
            "counts": door.http_counts.snapshot()[0],
            "line": {k: v for k, v in line.items() if k not in ("time", "id", "ms")},
            "served": door.served,
            "inside": door.inside,
            "refused": [(r.code, r.model, r.size) for r in controller.state.refusals],
            "logged": sorted((r.name, r.levelname) for r in caplog.records if r.name.startswith("embedded_server")),
        }
        controller.stop()
    assert int(seen["view"]["answer"].split(b" ", 2)[1]) == case.status
    assert seen["lane"] == seen["view"]


def test_every_question_of_every_protocol_is_on_the_lane(engine: FakeEngine) -> None:
    app = Door2Client(engine).app
    lane = hot_lane.hot_lane(app)
    assert lane is not None
    assert set(lane._asks) == {"native.predict", "open_inference.infer", "tensorflow_serving.ask"}
    rules = {str(rule) for rule in app.url_map.iter_rules() if hasattr(app.view_functions[rule.endpoint], ASK)}
    posts = {str(rule) for rule in app.url_map.iter_rules() if "POST" in (rule.methods or ())}
    assert posts - rules == {str(r) for r in app.url_map.iter_rules() if str(r).startswith("/v2/repository")}


# -- keys --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("way", WAYS)
def test_keys_their_quota_and_their_end_hold_on_one_connection(
    make_controller: Make, engine: FakeEngine, tmp_path: Path, taken: list[str], way: str
) -> None:
    store = KeyStore(tmp_path / "data" / "keys.json")
    fast = store.add("fast").secret
    slow = store.add("slow", per_minute=2).secret
    reader = store.add("reader", rights=frozenset({"read"})).secret
    other = store.add("other", models=("wine",)).secret
    controller = make_controller(hot_lane=way == "lane")
    port = controller.start_at(ServeOptions(port=0, named_keys=True)).port
    with Wire(port) as wire:

        def ask(key: str | None) -> tuple[int, str]:
            answer = wire.request("POST", PREDICT, b"x", Authorization=f"Bearer {key}").answer()
            return answer.status, "" if answer.status == 200 else answer.code

        assert [ask(slow) for _ in range(3)] == [(200, ""), (200, ""), (429, "key_quota")]
        assert ask(reader) == (403, "key_rights")
        assert ask(other) == (403, "key_rights")
        assert ask("nonsense") == (401, "key_required")
        assert ask(fast) == (200, "")
        assert controller.remove_key("fast")
        assert ask(fast) == (401, "key_required")
    running = controller._running
    assert running is not None
    limits = running.door.key_limits
    assert set(limits.last_used()) == {"fast", "slow"} | ({"reader", "other"} & set(limits.last_used()))
    until(lambda: set(limits._inside.values()) <= {0}, "nobody inside")
    assert [request.key for request in engine.requests] == ["slow", "slow", "fast"]
    assert len(taken) == (3 if way == "lane" else 0)


@pytest.mark.parametrize("way", WAYS)
def test_a_full_house_is_told_and_noted(make_controller: Make, engine: FakeEngine, way: str) -> None:
    controller = make_controller(requests_inside=1, hot_lane=way == "lane")
    port = controller.start_at(ServeOptions(port=0)).port
    engine.hold = True
    with Wire(port) as first, Wire(port) as second:
        first.request("POST", PREDICT, b"x")
        until(lambda: len(engine.held) == 1, "one inside")
        answer = second.request("POST", PREDICT, b"x").answer()
        assert (answer.status, answer.code, answer.headers["retry-after"]) == (503, "busy", "1")
        assert [record.code for record in controller.state.refusals] == ["busy"]
        release(engine)
        assert first.answer().status == 200


# -- order, and whose answer it is -------------------------------------------------------------------------------------
def release(engine: FakeEngine, order: list[int] | None = None) -> None:
    held, engine.held = engine.held, []
    for at in order or range(len(held)):
        request, future = held[at]
        future.set_result(echo(request))


def label(answer: Answer) -> str:
    return str(answer.json["predictions"][0]["label"])


def test_pipelined_requests_are_answered_in_their_order(port: int, engine: FakeEngine, taken: list[str]) -> None:
    engine.answer = echo
    with Wire(port) as wire:
        data = b""
        for number in range(20):
            data += Case("", body=f"n{number}".encode()).wire(port)
            data += f"GET /v2/models/m{number} HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n".encode()
        threading.Thread(target=wire.send, args=(data,), daemon=True).start()
        for number in range(20):
            assert label(wire.answer()) == f"n{number}"
            assert f"'m{number}'" in wire.answer().json["error"]
    assert len(taken) == 20


def test_a_pipelined_request_waits_for_the_one_before_it(port: int, engine: FakeEngine) -> None:
    engine.hold = True
    with Wire(port) as wire, Wire(port) as other:
        wire.send(Case("", body=b"first").wire(port) + Case("", body=b"second").wire(port))
        until(lambda: len(engine.held) == 1, "the first is inside")
        other.request("GET", "/health/live").answer()
        assert len(engine.held) == 1, "the second came before the first was answered"
        release(engine)
        assert label(wire.answer()) == "first"
        until(lambda: len(engine.held) == 1, "the second is inside")
        release(engine)
        assert label(wire.answer()) == "second"


def test_no_answer_goes_to_another_connection(
    make_controller: Make, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers settle in a random order, from several threads at once. The loop is woken for each: of itself it would
    look again after ten minutes."""
    adjustments = hosting_module.adjustments
    monkeypatch.setattr(
        hosting_module, "adjustments", lambda settings: adjustments(settings) | {"asyncore_loop_timeout": 600}
    )
    port = make_controller().start_at(ServeOptions(port=0)).port
    engine.hold = True
    order = random.Random(7)
    wires = [Wire(port) for _ in range(24)]
    for turn in range(12):
        for number, wire in enumerate(wires):
            wire.request("POST", PREDICT, f"{turn}-{number}".encode())
        until(lambda: len(engine.held) == len(wires), "all inside")
        held, engine.held = engine.held, []
        order.shuffle(held)
        parts = [held[at::3] for at in range(3)]
        threads = [
            threading.Thread(target=lambda part=part: [future.set_result(echo(r)) for r, future in part])
            for part in parts
        ]
        for thread in threads:
            thread.start()
        for number, wire in enumerate(wires):
            assert label(wire.answer()) == f"{turn}-{number}"
        for thread in threads:
            thread.join(20)
    for wire in wires:
        wire.socket.close()


def test_no_answer_goes_astray_through_a_real_engine(tmp_path: Path) -> None:
    """Every row has its own sum; batches form and part again on the way."""
    with running_engine(tmp_path) as (engine, _):
        engine.load(fake()).future.result(PATIENCE_S)
        server = ServerController(engine, settings(), tmp_path)
        port = server.start_at(ServeOptions(port=0)).port
        wrong: list[Any] = []
        answered = Counter[str]()

        def client(number: int) -> None:
            with Wire(port) as wire:
                for turn in range(25):
                    value = number * 1000 + turn
                    if turn % 2:
                        body = json.dumps({"inputs": {"x": [[value, 1, 0, 0]]}}).encode()
                        answer = wire.request("POST", "/predict/fake", body, **JSON).answer()
                        got = answer.json["outputs"]["y"]["data"] if answer.status == 200 else answer.body
                    else:
                        tensor = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [value, 1, 0, 0]}
                        body = json.dumps({"inputs": [tensor], "outputs": [{"name": "y"}]}).encode()
                        answer = wire.request("POST", "/v2/models/fake/infer", body).answer()
                        got = [answer.json["outputs"][0]["data"]] if answer.status == 200 else answer.body
                    answered["lane"] += 1
                    if got != [[value * 2, 2, 0, 0]]:
                        wrong.append((number, turn, got))

        threads = [threading.Thread(target=client, args=(number,)) for number in range(14)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        entry = engine.stats()["models"][0]
        server.stop()
    assert wrong == []
    assert answered["lane"] == 14 * 25 == entry["requests"]["network"]


def test_nothing_of_an_answered_request_waits_for_the_garbage_collector(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ring for each request had it walk the whole heap every second: half a second in which nobody was answered."""
    alive: dict[type, weakref.WeakSet[Any]] = {}
    for kind in (Passage, lane_loop._Ride, channel_module.ReplyTask, Job):
        alive[kind] = weakref.WeakSet()
        monkeypatch.setattr(kind, "__init__", _noting(kind.__init__, alive[kind]))
    with running_engine(tmp_path) as (engine, _):
        engine.load(fake()).future.result(PATIENCE_S)
        server = ServerController(engine, settings(), tmp_path)
        port = server.start_at(ServeOptions(port=0)).port
        gc.disable()
        try:
            with Wire(port) as wire:
                for number in range(RECORDS + 50):
                    body = json.dumps({"inputs": {"x": [[number, 1, 0, 0]]}}).encode()
                    assert wire.request("POST", "/predict/fake", body, **JSON).answer().status == 200
            until(lambda: [len(left) for left in alive.values()] == [0, 0, 0, RECORDS], "only what is shown is left")
        finally:
            gc.enable()
            server.stop()


def _noting(init: Callable[..., None], made: weakref.WeakSet[Any]) -> Callable[..., None]:
    def noting(each: Any, *args: Any, **more: Any) -> None:
        init(each, *args, **more)
        made.add(each)

    return noting


# -- bodies ------------------------------------------------------------------------------------------------------------
def test_a_continue_is_said_after_the_answer_before_it(port: int, engine: FakeEngine, taken: list[str]) -> None:
    engine.hold = True
    with Wire(port) as wire:
        wire.send(Case("", body=b"first").wire(port))
        until(lambda: len(engine.held) == 1, "the first is inside")
        wire.request("POST", PREDICT, Content_Length="6", Expect="100-continue")
        release(engine)
        assert label(wire.answer()) == "first"
        said = wire._rest or wire.socket.recv(100)  # it may have come together with the answer
        assert said == b"HTTP/1.1 100 Continue\r\n\r\n"
        wire._rest = b""
        wire.send(b"second")
        until(lambda: len(engine.held) == 1, "the second is inside")
        release(engine)
        assert label(wire.answer()) == "second"
    assert len(taken) == 2


@pytest.mark.parametrize("chunked", [False, True])
def test_a_request_in_single_bytes_is_one_question(port: int, engine: FakeEngine, chunked: bool) -> None:
    engine.answer = echo
    with Wire(port) as wire:
        for byte in Case("", body=b"slowly", chunked=chunked).wire(port):
            wire.send(bytes([byte]))
        assert label(wire.answer()) == "slowly"
    assert len(engine.requests) == 1


def test_what_takes_long_to_read_or_write_is_left_to_a_thread(
    port: int, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    written: list[str] = []
    finish = Passage.finish

    def answer(request: PredictRequest) -> Prediction:
        asked.append(threading.current_thread().name.partition("-")[0])
        size = int(request.data[:8])  # type: ignore[index]
        return replace(answer_three(request), predictions=[{"label": "x" * size, "score": 1.0}])

    def noted(passage: Passage) -> Any:
        written.append(threading.current_thread().name.partition("-")[0])
        return finish(passage)

    monkeypatch.setattr(Passage, "finish", noted)
    engine.answer = answer
    with Wire(port) as wire:
        for body in (b"00000001", b"00000001" + b"x" * 70_000, b"00000001" + b"x" * READ_AT_ONCE, b"00070000"):
            assert wire.request("POST", PREDICT, body).answer().status == 200
    assert asked == ["server", "server", "waitress", "server"]
    assert written == ["server", "server", "server", "waitress"]


def test_an_answer_that_nobody_reads_holds_nobody_else(make_controller: Make, engine: FakeEngine) -> None:
    """More than waitress keeps for one connection: whoever writes on waits for the client, and that is not the loop."""
    engine.answer = lambda r: replace(
        answer_three(r), predictions=[{"label": "x" * (20 << 20 if r.data == b"much" else 1), "score": 1.0}]
    )
    port = make_controller().start_at(ServeOptions(port=0)).port
    with Wire(port) as wire, Wire(port) as other:
        wire.send(Case("", body=b"much").wire(port) + Case("", body=b"less").wire(port))
        until(lambda: len(engine.requests) >= 1, "the long answer")
        for _ in range(50):
            assert other.request("POST", PREDICT, b"x").answer().status == 200
        assert len(label(wire.answer())) == 20 << 20
        assert label(wire.answer()) == "x"


# -- clients and engines that let go -----------------------------------------------------------------------------------
@pytest.mark.parametrize("way", WAYS)
def test_a_client_that_left_costs_nothing_any_more(make_controller: Make, engine: FakeEngine, way: str) -> None:
    controller = make_controller(hot_lane=way == "lane")
    port = controller.start_at(ServeOptions(port=0)).port
    running = controller._running
    assert running is not None
    door, budget = running.door, running.http._server.budget
    engine.hold = True
    wires = [Wire(port).send(Case("", body=b"x" * size).wire(port)) for size in (10, 500_000)]
    until(lambda: len(engine.held) == 2, "two inside")
    assert door.inside == 2
    for wire in wires:
        wire.socket.close()
    until(lambda: all(future.cancelled() for _, future in engine.held), "both cancelled")
    until(lambda: door.inside == 0 and door.http_counts.snapshot()[1] == 0, "nobody inside")
    until(lambda: budget.used == 0, "the memory of the bodies is given back")
    lines = [json.loads(line) for line in door.log.newest()][-2:]
    assert [(line["status"], line["path"]) for line in lines] == [(503, PREDICT)] * 2
    assert door.served == 0
    assert len(engine.requests) == 2
    with Wire(port) as wire:
        engine.hold = False
        assert wire.request("POST", PREDICT, b"x").answer().status == 200


def test_an_engine_that_forgets_a_deadline_is_not_waited_for(
    port: int, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_plane, "DEADLINE_GRACE_S", 0.0)
    engine.hold = True
    with Wire(port) as wire, Wire(port) as stubborn:
        wire.request("POST", PREDICT, b"x", X_Request_Timeout_Ms="1")
        until(lambda: len(engine.held) == 1, "inside")
        stubborn.request("POST", PREDICT, b"x", X_Request_Timeout_Ms="1")
        until(lambda: len(engine.held) == 2, "inside")
        running: Future[Prediction] = engine.held[1][1]
        running.set_running_or_notify_cancel()  # can be cancelled no more
        for asked in (wire, stubborn):
            answer = asked.answer()
            assert (answer.status, answer.code) == (504, "deadline_exceeded")
        assert engine.held[0][1].cancelled()
        running.set_result(answer_three(engine.held[1][0]))  # too late: it goes nowhere
        engine.hold = False
        engine.answer = echo
        assert label(stubborn.request("POST", PREDICT, b"next").answer()) == "next"


def test_a_future_that_somebody_else_cancels_is_answered(port: int, engine: FakeEngine) -> None:
    engine.hold = True
    with Wire(port) as wire:
        wire.request("POST", PREDICT, b"x")
        until(lambda: len(engine.held) == 1, "inside")
        engine.held[0][1].cancel()
        answer = wire.answer()
        assert (answer.status, answer.code) == (503, "cancelled")


def test_no_thread_waits_for_the_engine(controller: ServerController, engine: FakeEngine, port: int) -> None:
    engine.hold = True
    running = controller._running
    assert running is not None
    wires = [Wire(port).request("POST", PREDICT, b"x") for _ in range(40)]
    until(lambda: len(engine.held) == 40, "forty inside")
    threads: Any = running.http._server.task_dispatcher
    until(lambda: threads.active_count == 0, "every thread is idle")
    release(engine)
    assert [wire.answer().status for wire in wires] == [200] * 40
    for wire in wires:
        wire.socket.close()


def test_the_end_of_the_drain_answers_who_waits_and_nothing_is_left(make_controller: Make, engine: FakeEngine) -> None:
    controller = make_controller(drain_s=0.3)
    port = controller.start_at(ServeOptions(port=0)).port
    running = controller._running
    assert running is not None
    engine.hold = True
    wires = [Wire(port).send(Case("", body=b"x" * size).wire(port)) for size in (1, 90_000, 1)]
    until(lambda: len(engine.held) == 3, "three inside")
    engine.held[2][1].set_running_or_notify_cancel()
    stopping = threading.Thread(target=controller.stop)
    stopping.start()
    for wire in wires:
        answer = wire.answer()
        assert (answer.status, answer.code, answer.headers["connection"]) == (503, "draining", "close")
        assert wire.closed()
        wire.socket.close()
    stopping.join(20)
    assert (running.door.inside, running.http._server.budget.used) == (0, 0)
    engine.held[2][1].set_result(answer_three(engine.held[2][0]))  # of a server that is no more


def test_a_batch_that_ends_during_the_drain_is_answered(make_controller: Make, engine: FakeEngine) -> None:
    controller = make_controller()
    port = controller.start_at(ServeOptions(port=0)).port
    engine.hold = True
    wires = [Wire(port).request("POST", PREDICT, str(number).encode()) for number in range(8)]
    until(lambda: len(engine.held) == 8, "eight inside")
    stopping = threading.Thread(target=controller.stop)
    stopping.start()
    running = controller._running
    assert running is not None
    until(lambda: running.http._server.draining, "the drain has begun")
    held = [(request.data, at) for at, (request, _) in enumerate(engine.held)]
    release(engine, [at for _, at in reversed(held)])
    for number, wire in enumerate(wires):
        answer = wire.answer()
        assert (answer.status, label(answer), answer.headers["connection"]) == (200, str(number), "close")
        assert wire.closed()
        wire.socket.close()
    stopping.join(20)


# -- what goes wrong ---------------------------------------------------------------------------------------------------
def test_an_answer_that_cannot_be_written_is_500_and_the_loop_goes_on(
    port: int, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with Wire(port) as wire, Wire(port) as other:
        monkeypatch.setattr(channel_module.ReplyTask, "execute", failing(RuntimeError("broken")))
        assert wire.request("POST", PREDICT, b"x").answer().status == 500
        assert wire.closed()
        assert "broken" in caplog.text
        monkeypatch.undo()
        assert other.request("POST", PREDICT, b"x").answer().status == 200


def test_a_lane_that_cannot_take_a_request_leaves_it_to_the_view(
    port: int, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(hot_lane.HotLane, "open", lambda *_: failing(RuntimeError("broken"))(None))
    with Wire(port) as wire:
        assert wire.request("POST", PREDICT, b"x").answer().status == 200
    assert "Flask's view answers it" in caplog.text
    assert len(engine.requests) == 1


def test_an_answer_that_cannot_be_made_is_500(
    port: int, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Passage, "finish", lambda _: failing(RuntimeError("broken"))(None))
    with Wire(port) as wire:
        assert wire.request("POST", PREDICT, b"x").answer().status == 500
        assert wire.closed()
    assert "broken" in caplog.text
    monkeypatch.undo()
    with Wire(port) as wire:
        assert wire.request("POST", PREDICT, b"x").answer().status == 200


def test_a_loop_that_dies_answers_who_waits(
    controller: ServerController, engine: FakeEngine, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.hold = True
    with Wire(port) as wire:
        wire.request("POST", PREDICT, b"x")
        until(lambda: len(engine.held) == 1, "inside")
        running = controller._running
        assert running is not None
        monkeypatch.setattr(running.http._server, "readable", failing(RuntimeError("a bug")))
        answer = wire.answer()
        assert (answer.status, answer.code) == (503, "draining")
        assert engine.held[0][1].cancelled()
        assert running.door.inside == 0


# -- falling back to the view ------------------------------------------------------------------------------------------
def hooked(monkeypatch: pytest.MonkeyPatch, register: Callable[[Flask], None]) -> None:
    """Let ``register`` have the application before the server does."""
    create = hosting_module.create_app

    def made(*args: Any, **more: Any) -> Flask:
        app = create(*args, **more)
        register(app)
        return app

    monkeypatch.setattr(hosting_module, "create_app", made)


def _wrapped(app: Flask) -> None:
    inner = app.wsgi_app
    app.wsgi_app = lambda environ, start: inner(environ, start)  # type: ignore[method-assign]


def _view_replaced(app: Flask) -> None:
    view = app.view_functions["native.predict"]
    app.view_functions["native.predict"] = lambda **parts: view(**parts)


REGISTER: dict[str, Callable[[Flask], Any]] = {
    "before_request_funcs": lambda app: app.before_request(lambda: None),
    "after_request_funcs": lambda app: app.after_request(lambda response: response),
    "teardown_request_funcs": lambda app: app.teardown_request(lambda error: None),
    "url_value_preprocessors": lambda app: app.url_value_preprocessor(lambda endpoint, values: None),
    "teardown_appcontext_funcs": lambda app: app.teardown_appcontext(lambda error: None),
    "error_handler_spec": lambda app: app.register_error_handler(418, lambda error: ("", 418)),
    "wsgi_app": _wrapped,
}


@pytest.mark.parametrize("name", REGISTER)
def test_a_hook_of_flasks_sends_every_question_to_the_view(
    make_controller: Make,
    taken: list[str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    name: str,
) -> None:
    hooked(monkeypatch, REGISTER[name])
    port = make_controller().start_at(ServeOptions(port=0)).port
    with Wire(port) as wire:
        assert wire.request("POST", PREDICT, b"x").answer().status == 200
    assert taken == []
    assert f"no hot lane for native.predict: there are hooks of Flask's ({name})" in caplog.text


def test_a_hook_of_one_protocol_leaves_the_others_their_lane(
    make_controller: Make, engine: FakeEngine, taken: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    hooked(
        monkeypatch,
        lambda app: app.before_request_funcs.setdefault("open_inference", []).append(lambda: seen.append("hook")),
    )
    engine.answer = tensors
    port = make_controller().start_at(ServeOptions(port=0)).port
    with Wire(port) as wire:
        for target in (PREDICT, INFER, ASK_TFS):
            assert wire.request("POST", target, V2_BODY).answer().status == 200
    assert seen == ["hook"]
    assert taken == [PREDICT, ASK_TFS]


def test_a_view_that_was_replaced_is_asked(
    make_controller: Make, taken: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hooked(monkeypatch, _view_replaced)
    port = make_controller().start_at(ServeOptions(port=0)).port
    with Wire(port) as wire:
        assert wire.request("POST", PREDICT, b"x").answer().status == 200
    assert taken == []


@pytest.mark.parametrize("part", ["waitress", "flask"])
def test_a_missing_name_is_told_and_the_view_answers(
    make_controller: Make,
    taken: list[str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    part: str,
) -> None:
    if part == "waitress":
        monkeypatch.setattr(lane_loop, "RELIES_ON", (*lane_loop.RELIES_ON, (lane_loop.HTTPChannel, "sing")))
        told = "no hot lane: this waitress has no HTTPChannel.sing"
    else:
        monkeypatch.setattr(hot_lane, "_HOOKS", (*hot_lane._HOOKS, "sing"))
        monkeypatch.setattr(LaneParts, "__init__", lambda parts, *_: setattr(parts, "hooks", {}))
        told = "no hot lane: Flask is not as it is known here"
    port = make_controller().start_at(ServeOptions(port=0)).port
    with Wire(port) as wire:
        assert wire.request("POST", PREDICT, b"x").answer().status == 200
    assert taken == []
    assert told in caplog.text


def test_this_waitress_has_every_name() -> None:
    assert lane_loop.missing_names() == []


def test_the_setting_turns_it_off(make_controller: Make, taken: list[str], engine: FakeEngine) -> None:
    port = make_controller(hot_lane=False).start_at(ServeOptions(port=0)).port
    with Wire(port) as wire:
        assert wire.request("POST", PREDICT, b"x").answer().status == 200
    assert taken == []
    assert len(engine.requests) == 1


@pytest.fixture(autouse=True)
def _nothing_stumbled(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    assert "the hot lane stumbled" not in caplog.text
