"""Spoiled requests of every protocol over a real socket to the real server; the engine is a fake one that reads its
inputs as a worker does.

Whatever comes, cut however: every answer is HTTP (h11 reads it) with a status of the contract, names nothing of this
computer, and is one that a request was sent for, as a second reader of HTTP counts them; the server goes on answering,
and keeps no thread and no descriptor. A case is a number:
``FUZZ_CASE=4711 python -m pytest tests/fuzz/test_requests.py`` sends that one again.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import random
import re
import select
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h11
import numpy as np
import psutil
import pytest
from waitress.adjustments import Adjustments

from embedded_server.controller import ServeOptions, ServerController
from embedded_server.waitress_adapter import adjustments
from engine.errors import EngineError, InputTooLarge
from engine.model_spec import Preprocessing, TensorSpec
from engine.prediction import Prediction, PredictRequest
from engine.protocol import encode_frame
from engine.settings import ServerSettings
from engine.worker.answers import error_json
from engine.worker.inputs import InputReader
from engine.worker.tasks import create_task
from engine.worker.work import Form
from tests.embedded_server.conftest import until
from tests.embedded_server.wire import Wire
from tests.fakes import TIMING, FakeEngine, spec
from tests.fuzz.budget import SECONDS
from tests.fuzz.framing import Reading, ours, pieces, theirs
from tests.fuzz.test_framing import LOOSER
from tests.fuzz.wire_requests import COLUMNS, HOST, KEY, NOT_200, SMUGGLED, VALID, Case, make
from tests.trust.catalogue import picture

ROOT = Path(__file__).resolve().parents[2]
STATUSES = frozenset({200, 204, 400, 401, 403, 404, 405, 408, 413, 414, 415, 422, 429, 431, 501, 503, 504, 507})
"""What the contract knows ("HTTP, native routes"), and design.md §8 of heads: 408, 414, 431, 501. No 500."""
SETTINGS = ServerSettings.model_validate(
    {"body_bytes": 32_768, "header_bytes": 4096, "requests_inside": 4, "allowed_hosts": [HOST], "request_log": "off"}
)
ADJUSTMENTS = Adjustments(**adjustments(SETTINGS))
GOOD_WITHIN_S = 10.0
"""Five times the promise of two seconds, so that a busy machine ends the wait and not the test."""
QUICK = 400


class ReadingEngine(FakeEngine):
    """Reads what it is asked as a worker does, and answers in the form that was asked for; runs no model."""

    def __init__(self) -> None:
        picture_ = spec(
            inputs=(TensorSpec("image", "float32", (-1, 8, 8, 1)),),
            preprocessing=Preprocessing(size=(8, 8), channel_order="grayscale"),
        )
        table = spec(
            "wine", "tabular-classification", columns=COLUMNS, labels=("a", "b"),
            inputs=(TensorSpec("features", "float32", (-1, 3)),), outputs=(TensorSpec("p", "float32", (-1, 2)),),
        )  # fmt: skip
        super().__init__((picture_, table, spec(SMUGGLED, "raw-tensors")))
        self.readers = {model.id: InputReader(create_task(model), model) for model in (picture_, table)}
        self.smuggled = 0
        self.answer = self.read

    def read(self, request: PredictRequest) -> Prediction:
        if request.model == SMUGGLED:
            self.smuggled += 1
            return Prediction("p", request.model, "raw-tensors", TIMING, outputs={})
        item: dict[str, Any] = {
            "id": "r", "kind": "bytes", "content_type": request.content_type, "params": dict(request.params),
            "draw": request.draw,
        }  # fmt: skip
        if request.wire is not None:
            item["wire"] = {"protocol": str(request.wire), **request.wire_options}
        assert isinstance(request.data, bytes)
        try:
            work = self.readers[request.model].read(item, [request.data])
        except MemoryError:  # as the worker's loop has it
            raise InputTooLarge("The input does not fit in memory once it is unpacked.") from None
        except EngineError as error:
            encode_frame(error_json(error))
            raise
        encode_frame({"type": "done", "items": [{"id": "r", "echo": work.echo}]})  # it has to travel
        classes = [{"label": "one", "score": 0.5}]
        parts: dict[str, Any] = {}
        if work.form is Form.OUTPUTS:
            name = "probabilities" if request.model != "wine" else "p"
            parts = {"outputs": {name: np.full((max(1, work.rows), 10), 0.1, np.float32)}}
        elif work.form is Form.RESULTS:
            parts = {"results": [{"input": n, "predictions": classes} for n in range(work.inputs)]}
        else:
            parts = {"predictions": {"image": picture("L", "PNG")} if work.draw else classes}
        return Prediction("p", request.model, "x", TIMING, echo=work.echo, **parts)


class Faults(logging.Handler):
    """Everything that the server calls an error."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.said: list[str] = []
        self.setFormatter(logging.Formatter("%(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(self.format(record))


@dataclass
class Server:
    port: int
    engine: ReadingEngine
    faults: Faults
    home: Path

    def good(self) -> None:
        """A good request is answered, and in time."""
        began = time.monotonic()
        with Wire(self.port) as wire:
            answer = wire.send(VALID["json-rows"].wire()).answer()
        assert answer.status == 200, answer.body
        assert time.monotonic() - began < GOOD_WITHIN_S

    def descriptors(self) -> int:
        return psutil.Process().num_fds() if hasattr(psutil.Process, "num_fds") else psutil.Process().num_handles()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("requests-home")
    keys = home / "keys.txt"
    keys.write_text(KEY)
    keys.chmod(0o600)
    engine, faults = ReadingEngine(), Faults()
    controller = ServerController(engine, SETTINGS, home / "data")
    logging.getLogger().addHandler(faults)
    try:
        port = controller.start_at(ServeOptions(port=0, key_file=keys)).port
        made = Server(port, engine, faults, home)
        made.good()
        threads, descriptors = threading.active_count(), made.descriptors()
        yield made
        until(lambda: made.descriptors() <= descriptors, "every connection closed")
        assert threading.active_count() <= threads
    finally:
        controller.stop()
        logging.getLogger().removeHandler(faults)


# -- reading what comes back -------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Got:
    status: int
    headers: dict[str, str]
    body: bytes


class Answers:
    """h11's client over all that a connection sends: one answer for each of ``methods``, then for GET."""

    def __init__(self, methods: list[bytes]) -> None:
        self._methods = iter([*methods, *itertools.repeat(b"GET", 20)])
        self.got: list[Got] = []
        self.continued = 0
        self.ended = "at the end of input"
        self._begin(b"")

    def _begin(self, rest: bytes) -> None:
        self._http = h11.Connection(h11.CLIENT)
        method = next(self._methods)
        known = method if method in (b"HEAD", b"CONNECT") else b"GET"
        self._http.send(h11.Request(method=known, target="/", headers=[("Host", "a")]))
        self._http.send(h11.EndOfMessage())
        self._response: h11.Response | None = None
        self._body = b""
        if rest:
            self.feed(rest)

    def feed(self, data: bytes) -> None:
        """Raises h11.RemoteProtocolError."""
        self._http.receive_data(data)
        while True:
            event = self._http.next_event()
            if isinstance(event, h11.InformationalResponse):
                assert event.status_code == 100
                self.continued += 1
            elif isinstance(event, h11.Response):
                self._response = event
            elif isinstance(event, h11.Data):
                self._body += event.data
            elif isinstance(event, h11.EndOfMessage):
                assert self._response is not None
                headers = {name.decode(): value.decode("latin-1") for name, value in self._response.headers}
                self.got.append(Got(self._response.status_code, headers, self._body))
                rest = self._http.trailing_data[0]
                assert not (rest and headers.get("connection") == "close"), (
                    f"bytes after the last answer: {rest[:80]!r}"
                )
                self._begin(rest)
                return
            else:
                return

    @property
    def between(self) -> bool:
        return self._response is None and not self._http.trailing_data[0]

    @property
    def rest(self) -> object:
        return self._response, self._body, self._http.trailing_data[0]


def exchange(server: Server, case: Case, mine: Reading) -> Answers:
    """Send it, read every answer that it is owed, end the connection; fails where that takes too long."""
    answers = Answers([*(seen.method for seen in mine.requests), mine.last_method])
    owed = len(mine.requests) + (mine.end == "refused")
    with Wire(server.port) as wire:
        sock = wire.socket
        sock.settimeout(GOOD_WITHIN_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        open_, left = True, False

        def read() -> bool:
            try:
                data = sock.recv(65_536)
            except ConnectionResetError:
                data, answers.ended = b"", "by a reset"
            if data:
                answers.feed(data)
            return bool(data)

        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it has answered, and wants no more
            for piece in pieces(case.data, case.cuts):
                sock.sendall(piece)
                if select.select([sock], [], [], 0.002)[0]:  # what an early answer means to it is the server's to say
                    open_ = open_ and read()
        while open_ and len(answers.got) < owed:
            open_ = read()
        if open_ and mine.end == "open" and not mine.partial:
            # Nothing is owed and nothing half sent: the connection is as good as new.
            sock.sendall(f"GET /health/live HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode())
            owed += 1
        elif open_ and mine.end == "open":
            # Who leaves within a request is written to no more, within an answer too.
            sock.shutdown(socket.SHUT_WR)
            left = True
        while open_:
            open_ = read()
    early = bool(answers.got) and answers.got[-1].headers.get("connection") == "close"
    assert answers.between or left, f"an answer is cut off {answers.ended}: {answers.rest!r}"
    assert len(answers.got) <= owed + mine.partial, f"{len(answers.got)} answers where {owed} are owed"
    assert len(answers.got) >= owed or early, f"{len(answers.got)} answers where {owed} are owed"
    return answers


def check(server: Server, case: Case) -> Counter[int]:
    """One case, and all that has to hold after it; how often each status came."""
    server.engine.smuggled = 0
    server.engine.requests.clear()
    server.engine.records.clear()
    server.faults.said.clear()
    mine, other = ours(case.data, case.cuts, ADJUSTMENTS), theirs(case.data, most_head=SETTINGS.header_bytes)
    answers = exchange(server, case, mine)
    for got in answers.got:
        assert got.status in STATUSES, got
        assert got.headers["cache-control"] == "no-store", got
        assert "server" not in got.headers
        assert not any(name.startswith("access-control") for name in got.headers)
        text = got.body.decode("utf-8", "replace") + str(got.headers)
        for secret in (KEY, str(server.home), str(ROOT), str(Path.home()), "Traceback", "site-packages"):
            assert secret not in text, got
        assert re.search(r"\b0x[0-9a-f]{6,}", text) is None, got
        if got.status == 503:
            assert "retry-after" in got.headers
    assert server.faults.said == []
    seen = sum(SMUGGLED.encode() in request.target for request in other.requests)
    judged = other.end != "refused" or not any(re.search(pattern, other.reason) for pattern, _ in LOOSER)
    assert server.engine.smuggled <= seen or not judged, "a body was answered as if it were a request"
    server.good()
    return Counter(got.status for got in answers.got)


def run(server: Server, seeds: Iterator[int]) -> Counter[int]:
    statuses: Counter[int] = Counter()
    for seed in seeds:
        case = make(seed)
        try:
            statuses += check(server, case)
        except Exception as error:
            parts = "\n".join(repr(piece) for piece in pieces(case.data, case.cuts))
            pytest.fail(f"FUZZ_CASE={seed} ({', '.join(case.names)}): {type(error).__name__}: {error}\n{parts}")
    return statuses


# -- the tests ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", VALID)
def test_a_valid_request_is_answered(server: Server, name: str) -> None:
    """Without this, every change would end at the first check."""
    statuses = check(server, Case(0, (name,), VALID[name].wire(), ()))
    # And one more on the same connection, which closes it.
    assert statuses == Counter([NOT_200.get(name, 200), 200])


def test_a_case_follows_from_its_number() -> None:
    assert [make(seed) for seed in range(50)] == [make(seed) for seed in range(50)]
    assert len({make(seed).data for seed in range(50)}) > 45


def test_spoiled_requests_cost_an_answer_each(server: Server) -> None:
    if (one := os.environ.get("FUZZ_CASE")) is not None:
        run(server, iter([int(one)]))
        return
    statuses = run(server, iter(range(QUICK)))
    # It reaches behind the first checks, and every kind of them.
    assert statuses[200] > QUICK // 4
    assert {400, 403, 404, 413, 415, 422} <= set(statuses), statuses


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_spoiled_requests_cost_an_answer_each_for_long(server: Server) -> None:
    first = random.SystemRandom().randrange(1 << 40)
    until_s = time.monotonic() + SECONDS
    statuses = run(server, itertools.takewhile(lambda _: time.monotonic() < until_s, itertools.count(first)))
    print(f"from FUZZ_CASE={first}: {dict(statuses)}")  # noqa: T201  # what the long form has done
