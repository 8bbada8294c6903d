"""What the checks at the door cost: requests a second at 32 connections with them and without.

``python -m benchmarks.front_door``. One process serves, another asks. "Bare" is waitress with its own parser and
channel and the same application, log and counters, told of every request that it may; it exists in this file only.
"Checked" is the server with every check and Flask's view, "shipped" the same with the hot lane before the view. Rounds
alternate, so that what else the machine does falls on all. Beside the rates stands what a request costs this process
(the server's and the engine's threads) of a processor: neighbours on the machine move it less. The engine and its
worker are real, the model is the smallest of the examples: with a larger one the checks' share is smaller.

A loss below zero means that what this server saves elsewhere (one write for an answer, fewer rounds of the loop, a
faster reader of heads) is more than its checks cost.
"""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from waitress.adjustments import Adjustments
from waitress.server import create_server

from embedded_server.access import Decision, KeyDigest, key_digest
from embedded_server.addresses import loopback_rules
from embedded_server.app import create_app
from embedded_server.body_budget import BodyBudget
from embedded_server.door import DECISION, Door
from embedded_server.hot_lane import hot_lane
from embedded_server.listening import bind_listener
from embedded_server.waitress_adapter import HttpServer, adjustments
from engine import Engine
from engine.prediction import Lane
from engine.settings import ServerSettings
from tests.e2e.program import ROOT

QUICK = bool(os.environ.get("QUICK"))
ROUNDS = 3 if QUICK else 6
SECONDS = 3.0 if QUICK else 8.0
CONNECTIONS = 32
SECRET = "k" * 43
SAMPLE = ROOT / "examples" / "wine" / "samples" / "one-bottle.csv"
MOST_LOST = 0.05

CLIENT = """
import socket, sys, threading, time
port, connections, seconds, key = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), sys.argv[4]
body = open(sys.argv[5], "rb").read()
authorization = f"Authorization: Bearer {key}\\r\\n" if key else ""
request = (f"POST /predict/wine HTTP/1.1\\r\\nHost: localhost:{port}\\r\\nContent-Type: text/csv\\r\\n{authorization}"
           f"Content-Length: {len(body)}\\r\\n\\r\\n").encode() + body
counts, until = [], time.monotonic() + seconds
def received(connection):
    if data := connection.recv(65536):
        return data
    raise SystemExit("the server hung up")
def ask():
    connection = socket.create_connection(("127.0.0.1", port))
    n, data = 0, b""
    while time.monotonic() < until:
        connection.sendall(request)
        while b"\\r\\n\\r\\n" not in data:
            data += received(connection)
        head, _, data = data.partition(b"\\r\\n\\r\\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise SystemExit(head.decode())
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\\r\\n")[0])
        while len(data) < length:
            data += received(connection)
        if b'"results"' not in data[:length] or b'"error"' in data[:length]:
            raise SystemExit("a wrong answer")
        data, n = data[length:], n + 1
    counts.append(n)
threads = [threading.Thread(target=ask) for _ in range(connections)]
[t.start() for t in threads]; [t.join() for t in threads]
assert len(counts) == connections, "a client failed"
print(sum(counts) / seconds)
"""


def application(engine: Engine, settings: ServerSettings, port: int, keyed: bool) -> tuple[Any, Door]:
    rules = loopback_rules(port)
    if keyed:
        rules = type(rules)(rules.hosts, rules.origins, (KeyDigest("k", key_digest(SECRET)),), True, False)
    door = Door(rules)
    return create_app(engine, settings, door=door), door


@contextmanager
def checked(engine: Engine, keyed: bool, *, lane: bool = False) -> Iterator[int]:
    """The server with all its checks; with ``lane`` as it ships."""
    settings = ServerSettings.model_validate({})
    listener = bind_listener("127.0.0.1", 0)
    port = int(listener.getsockname()[1])
    app, door = application(engine, settings, port, keyed)
    server = HttpServer(
        app, listener, adjustments(settings), connections=512, connections_per_address=16,
        on_refused=lambda *_: None, on_death=lambda: None, check=door.check, budget=BodyBudget(settings.bodies_bytes),
        lane=hot_lane(app) if lane else None,
    )  # fmt: skip
    server.start()
    try:
        yield port
    finally:
        server.stop(5.0, lambda: None)


@contextmanager
def bare(engine: Engine, keyed: bool) -> Iterator[int]:
    """waitress as it comes, and nobody asked anything."""
    settings = ServerSettings.model_validate({})
    listener = bind_listener("127.0.0.1", 0)
    port = int(listener.getsockname()[1])
    app, _ = application(engine, settings, port, keyed)
    key = KeyDigest("k", key_digest(SECRET)) if keyed else None
    allowed = Decision(True, 200, "", "", Lane.LOOPBACK, "127.0.0.1", key, "infer")

    def let_in(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        environ[DECISION] = allowed  # what stands there already is not asked for again
        answer: Iterable[bytes] = app.wsgi_app(environ, start_response)
        return answer

    server: Any = create_server(let_in, sockets=[listener], **adjustments(settings))
    assert isinstance(server.adj, Adjustments)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        yield port
    finally:
        server.trigger.pull_trigger(lambda: server.asyncore.close_all(server._map))
        thread.join(10)
        server.task_dispatcher.shutdown()


def rate(port: int, key: str) -> tuple[float, float]:
    """Requests a second, and microseconds of a processor that this process took for each."""
    command = [sys.executable, "-c", CLIENT, str(port), str(CONNECTIONS), str(SECONDS), key, str(SAMPLE)]
    before = time.process_time()
    found = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return found, (time.process_time() - before) / (found * SECONDS) * 1e6


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="deskside-bench-") as folder, Engine(folder=Path(folder)) as engine:
        engine.load(ROOT / "examples" / "wine").future.result(120)
        return compare(engine)


def compare(engine: Engine) -> int:
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(f"{CONNECTIONS} connections, one row of a table each, {ROUNDS} rounds of {SECONDS:g} s each, medians")
    print("| | bare /s, us | checked /s, us | shipped /s, us | lost, median of rounds, of /s and us | verdict |")
    print("|---|---|---|---|---|---|")
    failed = False
    for name, key in (("without a key", ""), ("with a key", SECRET)):
        keyed = bool(key)
        with (
            bare(engine, keyed) as bare_port,
            checked(engine, keyed) as checked_port,
            checked(engine, keyed, lane=True) as shipped_port,
        ):
            ports = (bare_port, checked_port, shipped_port)
            for port in ports:
                rate(port, key)  # warm
            rounds = []
            for number in range(ROUNDS):
                turn = [(number + at) % len(ports) for at in range(len(ports))]
                found = {at: rate(ports[at], key) for at in turn}
                rounds.append([found[at] for at in range(len(ports))])
        lost = statistics.median(1 - with_checks[0] / without[0] for without, with_checks, _ in rounds)
        costs = statistics.median(1 - without[1] / with_checks[1] for without, with_checks, _ in rounds)
        failed |= lost >= MOST_LOST
        columns = [
            f"{statistics.median(r for r, _ in column):.0f}, {statistics.median(us for _, us in column):.0f}"
            for column in zip(*rounds, strict=True)
        ]
        verdict = "holds" if lost < MOST_LOST else "too much"
        print(f"| {name} | {' | '.join(columns)} | {lost:.1%}, {costs:.1%} | {verdict} (under {MOST_LOST:.0%}) |")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
