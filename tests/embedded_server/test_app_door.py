"""Keys at the door, headers, pages, health and waiting, over the fake engine."""

from __future__ import annotations

import logging
import threading
from dataclasses import replace
from typing import Any

import pytest
from werkzeug.test import TestResponse

from embedded_server.access import KEYLESS_PATHS, KEYLESS_PREFIXES
from embedded_server.app import create_app
from engine import errors
from engine.events import ModelState
from engine.prediction import Prediction, PredictRequest
from tests.embedded_server.conftest import until
from tests.embedded_server.wsgi import BASE, KEYED, LAN, SECRET, Door2Client, code
from tests.fakes import FakeEngine, answer_three, spec


@pytest.fixture
def http(engine: FakeEngine) -> Door2Client:
    return Door2Client(engine)


SECURE = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


# -- keys -------------------------------------------------------------------------------------------------------------
def test_every_route_but_the_keyless_ones_needs_a_key(engine: FakeEngine) -> None:
    http = Door2Client(engine, KEYED)
    for rule in http.app.url_map.iter_rules():
        for method in rule.methods or ():
            response = http.ask(method, rule.rule.replace("<model>", "digits-keras"), environ_base=LAN)
            keyless = rule.rule in KEYLESS_PATHS or rule.rule.startswith(KEYLESS_PREFIXES)
            assert (response.status_code != 401) is keyless, (method, rule.rule)
            assert ("WWW-Authenticate" in response.headers) is not keyless
    assert engine.requests == []


def test_wrong_and_missing_keys_read_the_same_but_the_owner_sees_which(engine: FakeEngine) -> None:
    http = Door2Client(engine, KEYED)
    missing = http.post(environ_base=LAN)
    wrong = http.post(environ_base=LAN, headers={"Authorization": "Bearer nope"})
    for response in (missing, wrong):
        assert (response.status_code, code(response)) == (401, "key_required")
        assert response.headers["WWW-Authenticate"] == 'Bearer realm="deskside"'
    assert missing.get_json()["error"]["message"] == wrong.get_json()["error"]["message"]
    records = http.door.refusals.newest_first()
    assert [(r.code, r.client, r.model, r.state, r.size) for r in records] == [
        ("key_invalid", "192.168.1.77", "digits-keras", "refused", 7),
        ("key_required", "192.168.1.77", "digits-keras", "refused", 7),
    ]


def test_the_eleventh_wrong_key_of_an_address_is_429_and_loopback_is_exempt(engine: FakeEngine) -> None:
    http = Door2Client(engine, replace(KEYED, loopback_exempt=False))
    bad = {"Authorization": "Bearer nope"}
    for peer, last in ((LAN, 429), ({"REMOTE_ADDR": "127.0.0.1"}, 401), ({"REMOTE_ADDR": "192.168.1.78"}, 401)):
        times = 1 if peer["REMOTE_ADDR"].endswith("78") else 11
        statuses = [http.post(environ_base=peer, headers=bad).status_code for _ in range(times)]
        assert statuses == [401] * (times - 1) + [last]
    response = http.post(environ_base=LAN, headers={"Authorization": f"Bearer {SECRET}"})
    assert (response.status_code, code(response), response.headers["Retry-After"]) == (429, "key_limit", "60")


def test_a_client_with_a_key_is_known_by_its_name_and_address(engine: FakeEngine) -> None:
    http = Door2Client(engine, KEYED)
    assert http.post(environ_base=LAN, headers={"Authorization": f"Bearer {SECRET}"}).status_code == 200
    asked = engine.requests[0]
    assert (asked.lane, asked.client, asked.key) == ("lan", "192.168.1.77", "window")


def test_p26_keys_and_bodies_are_never_logged(engine: FakeEngine, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    http = Door2Client(engine, KEYED)
    canary = b"canary-body-" + b"b" * 20

    def fail(_: PredictRequest) -> Prediction:
        raise errors.InternalError("The worker answered nonsense.")

    for answer in (answer_three, fail):
        engine.answer = answer
        for path in ("/predict/digits-keras", "/predict/nope", "/models", "/nope", f"/predict/digits-keras?k={SECRET}"):
            for header in (f"Bearer {SECRET}", f"Bearer {SECRET}-wrong", f"Basic {SECRET}", SECRET):
                for peer in (LAN, {"REMOTE_ADDR": "127.0.0.1"}):
                    response = http.post(path, canary, environ_base=peer, headers={"Authorization": header})
                    assert SECRET.encode() not in response.data
    assert "request" in caplog.text  # the failures were logged
    assert SECRET not in caplog.text
    assert canary.decode() not in caplog.text
    assert all(SECRET not in repr(record) for record in http.door.refusals.newest_first())


# -- headers, pages, health -------------------------------------------------------------------------------------------
def test_every_answer_is_uncached_unsniffed_and_sized(http: Door2Client) -> None:
    asked = [
        ("GET", "/"), ("HEAD", "/"), ("GET", "/docs"), ("GET", "/page.js"), ("GET", "/page.css"), ("GET", "/icon.svg"),
        ("GET", "/health/live"), ("GET", "/health/ready"), ("GET", "/models"), ("HEAD", "/models"),
        ("POST", "/predict/digits-keras"), ("POST", "/predict/x"), ("GET", "/nope"), ("PUT", "/"), ("GET", "//"),
    ]  # fmt: skip
    for method, path in asked:
        response = http.ask(method, path, data=b"x" if method == "POST" else None)
        assert {name: response.headers[name] for name in SECURE} == SECURE, path
        assert "frame-ancestors 'none'" in response.headers["Content-Security-Policy"]
        assert response.headers["Content-Length"].isdecimal()
        if method != "HEAD":
            assert int(response.headers["Content-Length"]) == len(response.data)
        assert "Set-Cookie" not in response.headers
        assert not any(name.startswith("Access-Control") for name in response.headers.keys())  # noqa: SIM118  # pairs


def test_pages_load_nothing_from_elsewhere(http: Door2Client) -> None:
    for path in ("/", "/docs"):
        response = http.ask("GET", path)
        assert response.content_type == "text/html; charset=utf-8"
        text = response.get_data(as_text=True)
        assert "http://" not in text
        assert "https://" not in text
        assert "<script>" not in text
        assert " style=" not in text
        assert " onclick" not in text
    assert http.ask("GET", "/page.js").content_type.startswith("text/javascript")


def test_the_page_puts_nothing_from_outside_into_html(http: Door2Client) -> None:
    script = http.ask("GET", "/page.js").get_data(as_text=True)
    for dangerous in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "localStorage"):
        assert dangerous not in script
    assert "history.replaceState" in script


def test_models_shows_the_worker_to_this_computer_only(http: Door2Client) -> None:
    here = http.ask("GET", "/models").get_json()["models"]
    there = http.ask("GET", "/models", environ_base=LAN).get_json()["models"]
    fields = {
        "id",
        "task",
        "format",
        "runtime",
        "device",
        "state",
        "loads",
        "requests",
        "version",
        "versions",
        "golden",
    }
    assert [set(entry) for entry in there] == [fields, fields]
    assert [set(entry) for entry in here] == [fields | {"worker_pid"}] * 2
    assert here[0]["worker_pid"] == 4242
    assert here[0]["requests"] == {"window": 0, "network": 0}


@pytest.mark.parametrize(
    ("state", "status", "shown"),
    [
        (ModelState.READY, 200, None),
        (ModelState.UNLOADED, 200, None),
        (ModelState.STARTING, 503, "loading"),
        (ModelState.LOADING, 503, "loading"),
        (ModelState.WARMING, 503, "loading"),
        (ModelState.FAILED, 503, "model_failed"),
    ],
)
def test_ready_means_every_offered_model_can_answer(
    http: Door2Client, engine: FakeEngine, state: ModelState, status: int, shown: str | None
) -> None:
    engine.add(spec("second"), state)
    response = http.ask("GET", "/health/ready")
    assert response.status_code == status
    if shown:
        assert code(response) == shown
        assert response.headers["Retry-After"]
    assert http.ask("GET", "/health/live").status_code == 200


def test_a_model_that_is_not_offered_does_not_count_for_ready(http: Door2Client, engine: FakeEngine) -> None:
    engine.add(spec("second"), ModelState.LOADING)["offered"] = False
    assert http.ask("GET", "/health/ready").status_code == 200


# -- waiting ----------------------------------------------------------------------------------------------------------
class InThread:
    """A request on a thread of its own."""

    def __init__(self, http: Door2Client, **options: Any) -> None:
        self.response: TestResponse | None = None
        self._thread = threading.Thread(target=self._run, args=(http, options))
        self._thread.start()

    def _run(self, http: Door2Client, options: dict[str, Any]) -> None:
        client = http.app.test_client()
        self.response = client.post("/predict/digits-keras", base_url=BASE, data=b"x", **options)

    def join(self) -> TestResponse:
        self._thread.join(20)
        assert self.response is not None
        return self.response


def test_a_full_house_answers_busy_at_once(engine: FakeEngine) -> None:
    http = Door2Client(engine, requests_inside=2)
    engine.hold = True
    inside = [InThread(http) for _ in range(2)]
    until(lambda: len(engine.held) == 2, "two requests inside")
    response = http.post()
    assert (response.status_code, code(response), response.headers["Retry-After"]) == (503, "busy", "1")
    assert [record.code for record in http.door.refusals.newest_first()] == ["busy"]
    for request, future in engine.held:
        future.set_result(answer_three(request))
    assert [one.join().status_code for one in inside] == [200, 200]
    engine.hold = False
    assert http.post().status_code == 200
    assert http.door.inside == 0


def test_a_client_that_left_cancels_its_request(http: Door2Client, engine: FakeEngine) -> None:
    engine.hold = True
    gone = threading.Event()
    one = InThread(http, environ_overrides={"waitress.client_disconnected": gone.is_set})
    until(lambda: len(engine.held) == 1, "the request is inside")
    gone.set()
    assert one.join().status_code == 503
    assert engine.held[0][1].cancelled()
    assert http.door.served == 0


def test_the_end_of_the_drain_answers_who_still_waits(http: Door2Client, engine: FakeEngine) -> None:
    engine.hold = True
    one = InThread(http)
    until(lambda: len(engine.held) == 1, "the request is inside")
    http.door.draining = True
    assert code(http.ask("GET", "/health/live")) == "draining"
    http.door.expired = True
    response = one.join()
    assert (response.status_code, code(response)) == (503, "draining")
    assert engine.held[0][1].cancelled()


def test_an_engine_that_forgets_a_deadline_is_not_waited_for(http: Door2Client, engine: FakeEngine) -> None:
    engine.hold = True
    response = http.post(headers={"X-Request-Timeout-Ms": "1"})
    assert (response.status_code, code(response)) == (504, "deadline_exceeded")
    assert engine.held[0][1].cancelled()


def test_the_app_is_safe_without_a_controller(engine: FakeEngine) -> None:
    client = create_app(engine).test_client()
    assert client.get("/models", base_url=BASE).status_code == 200
    assert client.get("/models", base_url="http://evil.example:8765").status_code == 403
