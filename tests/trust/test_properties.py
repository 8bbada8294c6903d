"""Properties of the whole that no other test holds: P6, P23, P24, P25 and P27 of docs/security.md."""

from __future__ import annotations

import ast
import json
import os
import re
import signal
import sys
import threading
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from embedded_server.controller import ServeOptions, ServerController
from embedded_server.keys import KeyStore
from engine.engine import Engine
from engine.floors import FLOORS
from engine.serving_types import ServerScope
from engine.settings import ServerSettings
from tests.embedded_server.wire import Wire
from tests.engine.engine_harness import fake, loaded, running_engine
from tests.fakes import FakeEngine, spec
from tests.sources import syntax_tree
from tests.trust.catalogue import CASES, HOST

ROOT = Path(__file__).resolve().parents[2]
WATCHED = frozenset(
    {"open", "socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.system", "os.exec", "import"}
)
Event = tuple[str, tuple[Any, ...]]


class Auditor:
    """What the server's threads do, while it is on. An audit hook stays for the life of the interpreter (PEP 578)."""

    def __init__(self) -> None:
        self.events: list[Event] | None = None
        sys.addaudithook(self._on_event)

    def _on_event(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.events is None or event not in WATCHED:
            return
        if threading.current_thread().name.startswith(("waitress-", "server-")):
            self.events.append((event, arguments))

    @contextmanager
    def watching(self) -> Iterator[list[Event]]:
        self.events = events = []
        try:
            yield events
        finally:
            self.events = None


@pytest.fixture(scope="module")
def auditor() -> Auditor:
    return Auditor()


# -- P6 ---------------------------------------------------------------------------------------------------------------
def test_p6_requests_open_no_file_no_connection_and_no_program(auditor: Auditor, tmp_path: Path) -> None:
    settings = ServerSettings.model_validate({"request_log": "off"})
    controller = ServerController(FakeEngine((spec("digits-keras"), spec("wine"))), settings, tmp_path)
    port = controller.start_at(ServeOptions(port=0)).port
    paths = ["/etc/passwd", "file:///etc/passwd", "http://127.0.0.1:1/x", "\\\\host\\share", "/dev/random"]
    bodies = [json.dumps({name: path}).encode() for path in paths for name in ("image", "url", "path", "text", "model")]
    try:
        ask(port, b"x")  # what is imported at the first request
        with auditor.watching() as events:
            for body in bodies:
                ask(port, body)
            for path in paths:
                ask(port, b"x", f"/predict/{path}")
            for case in CASES:
                if case.raw:
                    with Wire(port) as wire, suppress(OSError, AssertionError):
                        wire.send(case.raw.replace(HOST, f"localhost:{port}".encode())).answer()
    finally:
        controller.stop()
    # Modules that a rare error loads come out of the interpreter's own folders, by its own names.
    assert [e for e in events if e[0] != "import" and not is_own_code(e)] == []


def test_the_auditor_sees_what_it_is_for(auditor: Auditor, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("x")
    with auditor.watching() as events:
        thread = threading.Thread(target=lambda: (tmp_path / "x").read_text(), name="waitress-0")
        thread.start()
        thread.join()
    assert [event for event, _ in events] == ["open"]
    assert not is_own_code(events[0])


def is_own_code(event: Event) -> bool:
    name, arguments = event
    return name == "open" and str(arguments[0]).endswith((".py", ".pyc", ".so"))


def ask(port: int, body: bytes, target: str = "/predict/digits-keras") -> int:
    with Wire(port) as wire:
        return wire.request("POST", target, body, Content_Type="application/json").answer().status


# -- P23, P24, P25 ----------------------------------------------------------------------------------------------------
def test_p23_qt_reads_no_picture_and_no_drawing_from_outside() -> None:
    readers = {"QImageReader", "QMovie", "QSvgRenderer", "QSvgWidget", "QWebEngineView", "QQuickView"}
    allowed = {("icons.py", "QSvgRenderer")}
    found = set()
    for path in (ROOT / "gui").rglob("*.py"):
        for node in ast.walk(syntax_tree(path)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("PySide6"):
                found |= {(path.name, alias.name) for alias in node.names if alias.name in readers}
            if isinstance(node, ast.Attribute) and node.attr in ("fromData", "loadFromData"):
                found.add((path.name, node.attr))
    assert found == allowed


def test_p24_nothing_is_announced(tmp_path: Path) -> None:
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert not [d for d in dependencies if "zeroconf" in d.lower()]
    before = datagram_sockets()
    controller = ServerController(FakeEngine((spec("wine"),)), ServerSettings.model_validate({"port": 0}), tmp_path)
    try:
        controller.start(ServerScope.NETWORK, 0)
        assert datagram_sockets() == before
    finally:
        controller.stop()


def datagram_sockets() -> set[tuple[str, int]]:
    return {(c.laddr.ip, c.laddr.port) for c in psutil.Process().net_connections("udp") if c.laddr}


def test_p25_pins_are_exact_and_above_the_floors() -> None:
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    pins = {}
    for dependency in dependencies:
        match = re.fullmatch(r"([A-Za-z0-9-]+)==([0-9]+(?:\.[0-9]+)*)", dependency)
        assert match is not None, f"{dependency} is not pinned"
        pins[match[1]] = tuple(map(int, match[2].split(".")))
    for floor in FLOORS:
        assert pins[floor.package] >= floor.lowest, floor.package


# -- P27 --------------------------------------------------------------------------------------------------------------
@pytest.mark.real
def test_p27_nobody_reads_anybody_elses_answer(tmp_path: Path) -> None:
    mixed_requests(tmp_path, 800)


@pytest.mark.real
@pytest.mark.slow
def test_p27_ten_thousand_requests(tmp_path: Path) -> None:
    mixed_requests(tmp_path, 10_000)


def mixed_requests(tmp_path: Path, count: int) -> None:
    """Two keys ask in random shapes, one with numbers above zero, one below, and the worker is killed again and again.

    The model doubles its input and sums it up: an answer that is not of these very numbers is somebody else's.
    """
    clients, every = 8, max(1, count // 8 // 5)
    with running_engine(tmp_path, restarts=1000, ageing_s=0.1) as (engine, _):
        loaded(engine, fake())
        store = KeyStore(tmp_path / "served" / "keys.json")
        keys = [store.add("above").secret, store.add("below").secret]
        controller = ServerController(engine, ServerSettings.model_validate({}), tmp_path / "served")
        port = controller.start_at(ServeOptions(port=0, named_keys=True)).port

        def client(number: int) -> tuple[int, int]:
            rng = np.random.default_rng(number)
            answered = refused = 0
            with Wire(port) as wire:
                for turn in range(count // clients):
                    if number == 0 and turn % every == every // 2:
                        kill_worker(engine)
                    rows = int(rng.integers(1, 6))
                    sign = 1 if number % 2 == 0 else -1
                    sent = (sign * rng.uniform(1, 2, size=(rows, 4))).astype(np.float32)
                    tensor = {"name": "x", "shape": [rows, 4], "datatype": "FP32", "data": sent.ravel().tolist()}
                    body = json.dumps({"id": f"{number}-{turn}", "inputs": [tensor]}).encode()
                    answer = wire.request(
                        "POST", "/v2/models/fake/infer", body, Authorization=f"Bearer {keys[number % 2]}"
                    ).answer()
                    if answer.status == 503:
                        refused += 1
                        if answer.headers.get("connection") == "close":
                            break
                        continue
                    assert answer.status == 200, answer.body
                    said = answer.json
                    assert said["id"] == f"{number}-{turn}"
                    outputs = {o["name"]: np.array(o["data"], np.float64).reshape(o["shape"]) for o in said["outputs"]}
                    assert np.array_equal(outputs["y"].astype(np.float32), 2 * sent)
                    assert np.allclose(outputs["checksum"].ravel(), sent.astype(np.float64).sum(axis=1))
                    answered += 1
            return answered, refused

        try:
            with ThreadPoolExecutor(clients) as pool:
                totals = list(pool.map(client, range(clients)))
        finally:
            controller.stop()
        answered, refused = (sum(column) for column in zip(*totals, strict=True))
        assert answered + refused == count // clients * clients
        assert answered > count // 2
        assert engine.stats()["models"][0]["restarts"] >= 1


def kill_worker(engine: Engine) -> None:
    pid = engine.stats()["models"][0]["worker_pid"]
    if pid is not None:
        with suppress(ProcessLookupError):  # it may have been killed a moment ago
            os.kill(pid, signal.SIGKILL)
