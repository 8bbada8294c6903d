"""A controller over the fake engine on a free port, and what the tests look at from outside."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from embedded_server.controller import ServeOptions, ServerController
from engine.settings import ServerSettings
from tests.fakes import FakeEngine, spec

BOUND_S = 20.0
"""How long a test waits for what must happen; never asserted as a speed."""


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for ``condition``; fail naming ``what`` after :data:`BOUND_S` seconds."""
    deadline = time.monotonic() + BOUND_S
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, f"never happened: {what}"
        pause.wait(0.01)


def server_threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith(("waitress-", "server-"))]


def listening() -> set[tuple[str, int]]:
    """(address, port) of every listening TCP socket of this process."""
    return {(c.laddr.ip, c.laddr.port) for c in psutil.Process().net_connections("tcp") if c.status == "LISTEN"}


def settings(**changes: object) -> ServerSettings:
    return ServerSettings.model_validate(changes)


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine((spec("digits-keras"), spec("wine", task="tabular-classification")))


@pytest.fixture
def hot_lane() -> bool:
    """Whether questions go by the hot lane. Modules in which the way may matter run both: ``BOTH_WAYS``."""
    return True


BOTH_WAYS = pytest.fixture(name="hot_lane", params=[True, False], ids=["lane", "view"])(lambda request: request.param)


@pytest.fixture
def make_controller(engine: FakeEngine, tmp_path: Path, hot_lane: bool) -> Iterator[Callable[..., ServerController]]:
    """Makes controllers with changed settings; every one is stopped afterwards and must leave nothing behind."""
    made: list[ServerController] = []

    def make(**changes: object) -> ServerController:
        controller = ServerController(engine, settings(**{"hot_lane": hot_lane} | changes), tmp_path / "data")
        made.append(controller)
        return controller

    yield make
    for controller in made:
        controller.stop()
    assert server_threads() == []


@pytest.fixture
def controller(make_controller: Callable[..., ServerController]) -> ServerController:
    return make_controller()


@pytest.fixture
def port(controller: ServerController) -> int:
    """The port of a running loopback server."""
    return controller.start_at(ServeOptions(port=0)).port
