"""Switching off under load: every accepted request is answered, then nothing is left."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from embedded_server.controller import ServeOptions, ServerController
from embedded_server.waitress_adapter import channel
from engine.prediction import PredictRequest
from engine.serving_types import ServerPhase
from tests.embedded_server.conftest import BOTH_WAYS, listening, server_threads, until
from tests.embedded_server.wire import Answer, Wire
from tests.fakes import FakeEngine, answer_three

hot_lane = BOTH_WAYS

PREDICT = "/predict/digits-keras"


class Stop:
    """The switch being moved to Off on a thread of its own."""

    def __init__(self, controller: ServerController) -> None:
        self.phase: ServerPhase | None = None
        self._thread = threading.Thread(target=self._run, args=(controller,))
        self._thread.start()
        until(lambda: controller.state.phase is ServerPhase.STOPPING or self.phase is not None, "stopping")

    def _run(self, controller: ServerController) -> None:
        self.phase = controller.stop().phase

    def join(self) -> None:
        self._thread.join(30)
        assert self.phase is ServerPhase.STOPPED


def release(engine: FakeEngine) -> None:
    for request, future in engine.held:
        future.set_result(answer_three(request))


def test_running_requests_finish_and_new_ones_read_draining(
    controller: ServerController, engine: FakeEngine, port: int
) -> None:
    engine.hold = True
    busy = [Wire(port).request("POST", PREDICT, b"x") for _ in range(20)]
    idle = Wire(port)
    idle.request("GET", "/health/live").answer()
    until(lambda: len(engine.held) == 20, "twenty requests inside")
    stop = Stop(controller)
    refused = idle.request("POST", PREDICT, b"x").answer()
    assert (refused.status, refused.code) == (503, "draining")
    assert refused.headers["connection"] == "close"
    assert refused.headers["retry-after"]
    assert idle.closed()
    until(lambda: ("127.0.0.1", port) not in listening(), "the listener is closed")
    assert stop.phase is None
    release(engine)
    answers = [wire.answer() for wire in busy]
    assert [(a.status, a.headers["connection"]) for a in answers] == [(200, "close")] * 20
    assert all(wire.closed() for wire in busy)
    stop.join()
    assert server_threads() == []
    for wire in (*busy, idle):
        wire.socket.close()
    controller.start_at(ServeOptions(port=port))


def test_the_drain_is_bounded_and_still_answers(
    make_controller: Callable[..., ServerController], engine: FakeEngine
) -> None:
    controller = make_controller(drain_s=0.3)
    port = controller.start_at(ServeOptions(port=0)).port
    engine.hold = True
    with Wire(port) as wire:
        wire.request("POST", PREDICT, b"x")
        until(lambda: len(engine.held) == 1, "the request is inside")
        stop = Stop(controller)
        answer = wire.answer()
        assert (answer.status, answer.code) == (503, "draining")
        assert engine.held[0][1].cancelled()
        stop.join()
    assert server_threads() == []


def test_a_request_in_mid_upload_is_answered(controller: ServerController, engine: FakeEngine, port: int) -> None:
    engine.hold = True
    with Wire(port) as inside, Wire(port) as uploading:
        inside.request("POST", PREDICT, b"x")
        until(lambda: len(engine.held) == 1, "the request is inside")
        head = f"POST {PREDICT} HTTP/1.1\r\nHost: localhost:{port}\r\nContent-Length: 4\r\n\r\n"
        uploading.send(head.encode() + b"ab")
        stop = Stop(controller)
        uploading.send(b"cd")
        answer = uploading.answer()
        assert (answer.status, answer.code) == (503, "draining")
        release(engine)
        assert inside.answer().status == 200
        stop.join()


@pytest.mark.parametrize("sent_before", [0, 30, 90])
def test_who_has_just_connected_or_begun_is_answered(
    controller: ServerController, port: int, monkeypatch: pytest.MonkeyPatch, sent_before: int
) -> None:
    monkeypatch.setattr(channel, "QUIET_S", 20.0)
    body = b"x" * 60
    head = f"POST {PREDICT} HTTP/1.1\r\nHost: localhost:{port}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with Wire(port) as wire:
        wire.send((head + body)[:sent_before])
        stop = Stop(controller)
        until(lambda: ("127.0.0.1", port) not in listening(), "the listener is closed")
        answer = wire.send((head + body)[sent_before:]).answer()
        assert (answer.status, answer.code) == (503, "draining")
        stop.join()


def test_who_waits_in_the_backlog_is_taken_in(controller: ServerController, port: int) -> None:
    running = controller._running
    assert running is not None
    knocked: list[Wire] = []

    def knock() -> None:  # on the loop's thread: it cannot accept meanwhile
        knocked.append(Wire(port))
        running.http._server.stop_accepting()

    running.http._on_loop(knock)
    with knocked[0] as wire:
        assert wire.request("GET", "/models").answer().status == 200


def test_idle_and_silent_connections_do_not_hold_the_stop(controller: ServerController, port: int) -> None:
    with Wire(port) as used, Wire(port) as silent:
        used.request("GET", "/models").answer()
        controller.stop()
        assert used.closed()
        assert silent.closed()


def test_a_client_that_left_does_not_hold_the_stop(controller: ServerController, engine: FakeEngine, port: int) -> None:
    engine.hold = True
    wire = Wire(port)
    wire.request("POST", PREDICT, b"x")
    until(lambda: len(engine.held) == 1, "the request is inside")
    wire.socket.close()
    until(engine.held[0][1].cancelled, "the engine was told that the client left")
    controller.stop()


@pytest.mark.parametrize("keep_alive", [True, False])
def test_r5_switched_off_under_load_nobody_is_cut_off(
    controller: ServerController, engine: FakeEngine, port: int, keep_alive: bool
) -> None:
    """Clients in a closed loop: every request that was sent on an accepted connection gets a whole answer."""
    slow = threading.Event()

    def answer(request: PredictRequest) -> Any:
        slow.wait(0.01)
        return answer_three(request)

    engine.answer = answer
    statuses: list[int] = []
    cut_off: list[str] = []

    def client() -> None:
        while True:
            try:
                wire = Wire(port)
            except OSError:
                return  # switched off: the port is closed
            with wire:
                if not one_connection(wire):
                    return

    def one_connection(wire: Wire) -> bool:
        while True:
            try:
                found: Answer | None = wire.request("POST", PREDICT, b"x" * 5000).read()
            except OSError as error:
                cut_off.append(repr(error))
                return False
            if found is None:
                cut_off.append("closed without an answer")
                return False
            statuses.append(found.status)
            if found.headers.get("connection") == "close" or not keep_alive:
                return True

    threads = [threading.Thread(target=client) for _ in range(8)]
    for thread in threads:
        thread.start()
    until(lambda: len(statuses) > 100, "load")
    controller.stop()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    assert cut_off == []
    assert set(statuses) <= {200, 503}
    assert server_threads() == []
    assert ("127.0.0.1", port) not in listening()
