"""The load: a process of its own that asks in a closed loop over c connections and checks every answer.

``run(Load(...))`` starts ``python -m benchmarks.load`` (this file alone: standard library, no package of a peer's or
ours), which sends each input in turn, one request at a time on each connection, and holds every answer against the
reference of the input that was asked on that connection. What may be wrong is counted, never skipped: a refusal
(another status than 200), a wrong answer, a lost one (the connection ended, or nothing came), a doubled one (more bytes
than were asked for). ``Outcome.check`` raises on any of them.

An answer whose bytes equal those of an answer that was already held against this input's reference is right without
reading its numbers again; that is what makes checking all of them cheap. Nothing else is remembered.

Two cores serve both sides, so the generator's own cost matters: every outcome says how much processor time it took, and
``python -m benchmarks.load ceiling`` prints what it reaches against a peer that answers at once.
"""

from __future__ import annotations

import gc
import json
import mmap
import os
import select
import socket
import subprocess
import sys
import threading
import time
from array import array
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

PATIENCE_S = 60.0
"""How long an answer may take after the measured time is over, before it counts as lost."""
KNOWN_FORMS = 512
RECEIVE = 262_144
FAILURES = ("refused", "wrong", "lost", "doubled")


@dataclass(frozen=True)
class Load:
    """Whom to ask what. ``bodies`` is the file of all bodies, ``spans`` where each lies in it."""

    port: int
    path: str
    bodies: str
    spans: list[tuple[int, int]]
    references: list[list[float]]
    form: str  # of the answer: a key of FORMS
    tolerance: float
    headers: dict[str, str] = field(default_factory=dict)
    unique: str = ""  # the name of a header with another value in every request
    connections: int = 32
    seconds: float = 3.0
    warm_s: float = 1.0
    least: int = 1  # answers: a slow server's time goes on until it gave so many, or patience ends
    cpu: int | None = None  # the only core it may use


@dataclass(frozen=True)
class Outcome:
    answers: int
    seconds: float
    p50_ms: float
    p99_ms: float
    cpu_share: float  # of one core, by the generator itself
    refused: int = 0
    wrong: int = 0
    lost: int = 0
    doubled: int = 0
    example: str = ""  # of what failed first

    @property
    def rate(self) -> float:
        return self.answers / self.seconds

    @property
    def failed(self) -> int:
        return self.refused + self.wrong + self.lost + self.doubled

    def check(self, whom: str) -> None:
        """Raise ``BadAnswers`` unless every answer came, once, and was right."""
        if self.failed or not self.answers:
            counts = ", ".join(f"{getattr(self, name)} {name}" for name in FAILURES if getattr(self, name))
            raise BadAnswers(f"{whom}: {counts or 'no answer at all'}. {self.example}")


class BadAnswers(Exception):
    """A run that must not count."""


# -- what an answer says ----------------------------------------------------------------------------------------------
def _flat(value: Any) -> list[float]:
    while isinstance(value, list) and len(value) == 1 and isinstance(value[0], list):
        value = value[0]
    return [float(number) for number in value]


def _tensors(body: bytes) -> list[float]:
    return _flat(next(iter(json.loads(body)["outputs"].values()))["data"])


def _v2(body: bytes) -> list[float]:
    return _flat(json.loads(body)["outputs"][0]["data"])


def _v2_binary(body: bytes) -> list[float]:
    head_end = body.index(b"]}") + 2  # the one output's head has no nested list but its shape
    start = len(body) - (len(body) - head_end) // 4 * 4
    return list(array("f", body[start:]))


def _labelled(body: bytes) -> list[float]:
    found = {str(item["label"]): float(item["score"]) for item in json.loads(body)["predictions"]}
    return [found[f"LABEL_{number}"] for number in range(len(found))]


def _scores(body: bytes) -> list[float]:
    return _flat(json.loads(body)["scores"])


def _rows(body: bytes) -> list[float]:
    return _flat(json.loads(body))


FORMS: dict[str, Callable[[bytes], list[float]]] = {
    "tensors": _tensors, "v2": _v2, "v2-binary": _v2_binary, "labelled": _labelled, "scores": _scores, "rows": _rows,
}  # fmt: skip
VARIABLE = b'"timing_ms"'
"""From here on an answer of Deskside's differs from request to request."""


class Checker:
    """Holds answers against references."""

    def __init__(self, references: list[list[float]], form: str, tolerance: float) -> None:
        self._references = references
        self._read = FORMS[form]
        self._tolerance = tolerance
        self._known: list[set[bytes]] = [set() for _ in references]

    def is_right(self, number: int, body: bytes) -> bool:
        same = body.partition(VARIABLE)[0]
        known = self._known[number]
        if same in known:
            return True
        try:
            values = self._read(body)
        except (ValueError, KeyError, IndexError, TypeError, StopIteration):
            return False
        expected = self._references[number]
        # "not above" rather than "below": NaN is wrong.
        right = len(values) == len(expected) and all(
            abs(a - b) <= self._tolerance for a, b in zip(values, expected, strict=True)
        )
        if right and len(known) < KNOWN_FORMS:
            known.add(same)
        return right


# -- asking -----------------------------------------------------------------------------------------------------------
class Connection:
    __slots__ = ("asked", "began", "number", "received", "rest", "socket", "wanted")

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.asked = False
        self.number = 0
        self.began = 0.0
        self.received = b""
        self.wanted = 0  # bytes of the whole answer, once its head is known
        self.rest: memoryview | None = None  # of the request, where the socket did not take it at once


class Generator:
    """One event loop over all connections."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._checker = Checker(load.references, load.form, load.tolerance)
        file = os.open(load.bodies, os.O_RDONLY)
        self._bodies = memoryview(mmap.mmap(file, 0, prot=mmap.PROT_READ))
        os.close(file)
        self._prebuilt = [self._request(*span) for span in load.spans]
        self._next = 0
        self._poll = select.epoll()
        self._connections: dict[int, Connection] = {}
        self._counting = False
        self._asking = True
        self._latencies = array("d")
        self.counts = dict.fromkeys(FAILURES, 0)
        self.example = ""

    def _request(self, start: int, end: int) -> tuple[bytes, bytes, memoryview]:
        """The head, up to where a unique header may stand; the end of the head with a small body; a large body."""
        load = self._load
        lines = [
            f"POST {load.path} HTTP/1.1",
            f"Host: localhost:{load.port}",
            *(f"{k}: {v}" for k, v in load.headers.items()),
        ]
        head = ("\r\n".join(lines) + f"\r\nContent-Length: {end - start}\r\n").encode()
        body = self._bodies[start:end]
        if end - start > 65_536:
            return head, b"\r\n", body
        return head, b"\r\n" + bytes(body), self._bodies[0:0]

    def _failed(self, what: str, example: str) -> None:
        self.counts[what] += 1
        self.example = self.example or f"First: {what}: {example[:400]}"

    def _ask(self, connection: Connection) -> None:
        number = self._next
        self._next = (number + 1) % len(self._prebuilt)
        head, end, body = self._prebuilt[number]
        if self._load.unique:
            head += f"{self._load.unique}: {os.getpid():x}-{time.monotonic_ns():x}\r\n".encode()
        connection.number, connection.asked = number, True
        connection.received, connection.wanted = b"", 0
        data = head + end
        connection.began = time.perf_counter()
        try:
            sent = connection.socket.send(data)
            if sent < len(data):
                connection.rest = memoryview(data[sent:] + bytes(body))
            elif body:
                connection.rest = body
            if connection.rest is not None:
                self._send_rest(connection)
        except BlockingIOError:
            connection.rest = memoryview(data + bytes(body))
            self._poll.modify(connection.socket.fileno(), select.EPOLLIN | select.EPOLLOUT)
        except OSError:
            pass  # closed meanwhile: reading says so, and the answer counts as lost there

    def _send_rest(self, connection: Connection) -> None:
        rest = connection.rest
        try:
            while rest:
                rest = rest[connection.socket.send(rest) :]
        except BlockingIOError:
            connection.rest = rest
            self._poll.modify(connection.socket.fileno(), select.EPOLLIN | select.EPOLLOUT)
            return
        except OSError:
            pass  # as above
        connection.rest = None
        self._poll.modify(connection.socket.fileno(), select.EPOLLIN)

    def _open(self) -> None:
        connection = Connection(self._load.port)
        self._connections[connection.socket.fileno()] = connection
        self._poll.register(connection.socket.fileno(), select.EPOLLIN)
        if self._asking:
            self._ask(connection)

    def _close(self, connection: Connection) -> None:
        number = connection.socket.fileno()
        self._poll.unregister(number)
        del self._connections[number]
        connection.socket.close()

    def _readable(self, connection: Connection) -> None:
        try:
            data = connection.socket.recv(RECEIVE)
        except BlockingIOError:
            return
        except OSError as error:
            data = b""
            self.example = self.example or f"First: {error}"
        if not data:
            if connection.asked:
                self._failed("lost", "the connection ended before its answer")
            self._close(connection)
            if self._asking:
                self._open()
            return
        if not connection.asked:
            self._failed("doubled", repr(data))
            return
        received = connection.received + data if connection.received else data
        connection.received = received
        if not connection.wanted:
            end = received.find(b"\r\n\r\n")
            if end < 0:
                return
            length = _content_length(received[:end])
            if length < 0:  # in chunks, as Ray Serve answers: put together, they go on as a whole
                whole = _unchunked(received, end)
                if whole is None:
                    return
                received, length = whole, len(whole) - end - 4
            connection.wanted = end + 4 + length
        if len(received) < connection.wanted:
            return
        self._answered(connection, received)

    def _answered(self, connection: Connection, received: bytes) -> None:
        connection.asked = False
        took = time.perf_counter() - connection.began
        head, _, body = received.partition(b"\r\n\r\n")
        if len(received) > connection.wanted:
            self._failed("doubled", repr(received[connection.wanted :]))
            body = body[: connection.wanted - len(head) - 4]
        if not head.startswith((b"HTTP/1.1 200", b"HTTP/1.0 200")):
            self._failed("refused", received.decode("latin-1"))
        elif not self._checker.is_right(connection.number, body):
            self._failed("wrong", f"input {connection.number}: {body.decode('latin-1')}")
        elif self._counting:
            self._latencies.append(took)
        if head.startswith(b"HTTP/1.0") or b"onnection: close" in head:
            self._close(connection)
            if self._asking:
                self._open()
        elif self._asking:
            self._ask(connection)

    def _turn_until(self, end: float, until_idle: bool = False) -> None:
        poll, connections = self._poll.poll, self._connections
        while time.perf_counter() < end:
            for number, event in poll(0.1):
                connection = connections.get(number)
                if connection is None:
                    continue  # closed by an event before this one
                if event & select.EPOLLOUT and connection.rest is not None:
                    self._send_rest(connection)
                if event & ~select.EPOLLOUT:
                    self._readable(connection)
            if until_idle and not any(connection.asked for connection in connections.values()):
                return

    def run(self) -> Outcome:
        try:
            return self._run()
        finally:
            for connection in list(self._connections.values()):
                self._close(connection)
            self._poll.close()

    def _run(self) -> Outcome:
        load = self._load
        for _ in range(load.connections):
            self._open()
        self._turn_until(time.perf_counter() + load.warm_s)
        self._counting = True
        began, cpu = time.perf_counter(), time.process_time()
        self._turn_until(began + load.seconds)
        while len(self._latencies) < load.least and time.perf_counter() < began + PATIENCE_S:
            self._turn_until(time.perf_counter() + 0.5)
        seconds, used = time.perf_counter() - began, time.process_time() - cpu
        self._counting, self._asking = False, False
        self._turn_until(time.perf_counter() + PATIENCE_S, until_idle=True)
        for connection in self._connections.values():
            if connection.asked:
                self._failed("lost", f"input {connection.number} was not answered within {PATIENCE_S:g} s")
        self._turn_until(time.perf_counter() + 0.2)  # what comes now was not asked for
        ordered = sorted(self._latencies)
        return Outcome(
            len(ordered), seconds, _percentile(ordered, 0.5) * 1e3, _percentile(ordered, 0.99) * 1e3, used / seconds,
            example=self.example if any(self.counts.values()) else "", **self.counts,
        )  # fmt: skip


def _content_length(head: bytes) -> int:
    """-1 where the head says none."""
    start = head.find(b"ontent-Length: ")
    if start < 0:
        start = head.find(b"ontent-length: ")
    if start < 0:
        return -1
    return int(head[start + 15 :].split(b"\r\n", 1)[0])


def _unchunked(received: bytes, end: int) -> bytes | None:
    """Head and body without the chunks' sizes, and whatever follows; None: not all of it is there yet."""
    at, parts = end + 4, [received[: end + 4]]
    while True:
        line = received.find(b"\r\n", at)
        if line < 0:
            return None
        size = int(received[at:line].partition(b";")[0], 16)
        at = line + 2
        if len(received) < at + size + 2:
            return None
        if size == 0:
            if len(received) > at + 2:
                parts.append(received[at + 2 :])  # more than was asked for: found to be so by whoever checks
            return b"".join(parts)
        parts.append(received[at : at + size])
        at += size + 2


def _percentile(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


# -- as a process of its own ------------------------------------------------------------------------------------------
def start(load: Load) -> subprocess.Popen[str]:
    """The generator at work; ``outcome`` waits for it."""
    process = subprocess.Popen(
        [sys.executable, "-E", "-s", str(Path(__file__)), "run"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdin is not None
    process.stdin.write(json.dumps(asdict(load)))
    process.stdin.close()
    process.stdin = None  # so that communicate() does not look at it
    return process


def outcome(process: subprocess.Popen[str]) -> Outcome:
    printed, _ = process.communicate()
    if process.returncode:
        raise BadAnswers(f"the generator itself failed (exit {process.returncode})")
    return Outcome(**json.loads(printed))


def run(load: Load) -> Outcome:
    return outcome(start(load))


# -- its ceiling ------------------------------------------------------------------------------------------------------
def _answer_at_once(listener: socket.socket, answer: bytes) -> None:
    """A server that reads nothing of what it is sent: what the generator reaches against it is its own limit."""
    poll = select.epoll()
    poll.register(listener.fileno(), select.EPOLLIN)
    connections: dict[int, socket.socket] = {}
    while True:
        for number, _ in poll.poll():
            if number == listener.fileno():
                connection, _ = listener.accept()
                connections[connection.fileno()] = connection
                poll.register(connection.fileno(), select.EPOLLIN)
            elif connections[number].recv(RECEIVE):
                connections[number].send(answer)
            else:
                poll.unregister(number)
                connections.pop(number).close()


def ceiling(seconds: float, connections: int = 32, unique: str = "") -> Outcome:
    """The generator against a server in another process that costs next to nothing."""
    body = json.dumps({"scores": [0.5, 0.25, 0.125]}).encode()
    reply = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    server = subprocess.Popen(
        [sys.executable, "-E", "-s", str(Path(__file__)), "answer", reply.decode()], stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        question = Path(__file__)  # any bytes of a small request's size
        return run(
            Load(port, "/", str(question), [(n, n + 200) for n in range(256)], [[0.5, 0.25, 0.125]] * 256, "scores",
                 1e-6, {"Content-Type": "application/json"}, unique, connections, seconds)
        )  # fmt: skip
    finally:
        server.kill()
        server.wait()


def main(arguments: list[str]) -> None:
    if arguments[0] == "run":
        given = json.load(sys.stdin)
        load = Load(**given)
        if load.cpu is not None:
            os.sched_setaffinity(0, {load.cpu})
        gc.disable()  # nothing here is a cycle, and a collection would stand in somebody's p99
        print(json.dumps(asdict(Generator(load).run())))
    elif arguments[0] == "answer":
        listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        print(listener.getsockname()[1], flush=True)
        threading.Thread(target=_answer_at_once, args=(listener, arguments[1].encode()), daemon=True).start()
        threading.Event().wait()
    else:
        for unique in ("", "x-request-id"):
            found = ceiling(3.0, unique=unique)
            print(
                f"{found.rate:.0f}/s at {found.cpu_share:.0%} of a core, "
                f"{found.cpu_share / found.rate * 1e6:.1f} us each{', unique headers' if unique else ''}"
            )


if __name__ == "__main__":
    main(sys.argv[1:] or ["ceiling"])
