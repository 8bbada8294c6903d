"""The acceptance catalogue over the real socket of the real program: what each case costs, and that nothing else does.

After every case a good request is answered within two seconds by the same worker, and no answer, no line of any log and
no error holds a path of this computer, the key or what was sent.
"""

from __future__ import annotations

import contextlib
import random
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from embedded_server.keys import new_secret
from tests.e2e.program import DIGITS_KERAS, ROOT, WINE, Client, Program, picture
from tests.embedded_server.wire import Answer, Wire
from tests.trust.catalogue import BODY_CANARY, CASES, DIGITS, ELSEWHERE, HOST, Case
from tests.trust.evidence import missing_tests

pytestmark = pytest.mark.real

GOOD_WITHIN_S = 10.0
"""Five times the promise of two seconds, so that a busy machine ends the wait and not the test."""


@dataclass
class Server:
    program: Program
    port: int
    key: str
    home: Path
    worker: int
    answers: list[bytes]

    def good(self) -> None:
        client = Client(f"http://127.0.0.1:{self.port}", self.key)
        client.connection.timeout = GOOD_WITHIN_S
        try:
            status, answer = client.post(DIGITS, picture(DIGITS_KERAS, 3), "image/png")
            assert (status, answer["predictions"][0]["label"]) == (200, "3")
            assert client.models()["digits-keras"]["worker_pid"] == self.worker
        finally:
            client.close()

    def logs(self) -> str:
        files = [p for p in (self.home / "data").rglob("*") if p.suffix == ".log"]
        return "\n".join([*self.program.stderr, *(p.read_text(errors="replace") for p in files)])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("catalogue-home")
    keys = home / "keys.txt"
    key = new_secret()
    keys.write_text(key)
    keys.chmod(0o600)
    program = Program(["serve", DIGITS_KERAS, WINE, "--port", "0", "--key-file", keys], home)
    port = int(program.url().rpartition(":")[2])
    client = Client(f"http://127.0.0.1:{port}", key)
    worker = client.models()["digits-keras"]["worker_pid"]
    client.close()
    yield Server(program, port, key, home, worker, [])
    assert program.stop() == 0


def ask(server: Server, case: Case) -> tuple[Answer, bool]:
    """The answer, and whether the connection ended with it."""
    with Wire(server.port, source=case.sender) as wire:
        # Where it has answered already it stops reading what it does not want.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            wire.send(request_bytes(server, case))
        answer = wire.answer()
        return answer, case.closes and wire.closed()


def request_bytes(server: Server, case: Case) -> bytes:
    authorization = f"Bearer {server.key}"
    if case.raw:
        data = case.raw.replace(HOST, f"localhost:{server.port}".encode())
        return data.replace(b"\r\n", f"\r\nAuthorization: {authorization}\r\n".encode(), 1)
    fields = {"Host": f"localhost:{server.port}"} | ({"Authorization": authorization} if case.keyed else {})
    if case.body or case.method == "POST":
        fields["Content-Length"] = str(len(case.body))
    target = case.target.replace("@KEY@", server.key)
    lines = [f"{case.method} {target} HTTP/1.1", *(f"{k}: {v}" for k, v in (fields | case.headers).items()), "", ""]
    return "\r\n".join(lines).encode("latin-1") + case.body


def assert_nothing_leaks(server: Server, text: str) -> None:
    for secret in (server.key, BODY_CANARY.decode(), str(server.home), str(ROOT), str(Path.home()), "Traceback"):
        assert secret not in text
    assert re.search(r"\b0x[0-9a-f]{6,}", text) is None, "an address of memory"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_case(server: Server, case: Case) -> None:
    answer, closed = ask(server, case)
    assert answer.status == case.status, answer.body
    assert answer.headers["cache-control"] == "no-store"
    assert not any(name.startswith("access-control") for name in answer.headers)
    if case.code:
        assert set(answer.json) == {"error"}
        assert set(answer.json["error"]) == {"code", "message", "request_id"}
        assert answer.code == case.code
    if case.closes:
        assert closed
    assert_nothing_leaks(server, answer.body.decode("utf-8", "replace") + str(answer.headers))
    server.good()


def test_c9_unknown_and_malformed_names_read_the_same(server: Server) -> None:
    bodies = set()
    for case in CASES:
        if case.number == 9 and case.code == "model_not_found":
            answer, _ = ask(server, case)
            bodies.add(answer.body.replace(answer.json["error"]["request_id"].encode(), b"ID"))
    assert len(bodies) == 1


def test_c35_the_eleventh_wrong_key_is_429(server: Server) -> None:
    try:
        answers = [guess(server, "127.0.0.3") for _ in range(12)]
    except OSError as error:
        pytest.skip(f"this system has one loopback address only: {error}")
    assert [answer.status for answer in answers] == [401] * 10 + [429] * 2
    assert answers[-1].headers["retry-after"] == "60"
    assert len({re.sub(rb'"request_id":"\w+"', b"", answer.body) for answer in answers[:10]}) == 1
    assert guess(server, "127.0.0.4").status == 401  # another address has its own ten
    server.good()


def guess(server: Server, sender: str) -> Answer:
    with Wire(server.port, source=sender) as wire:
        return wire.request("POST", DIGITS, b"x", Authorization="Bearer guess").answer()


def test_c19_a_crowd_of_idle_callers_leaves_room(server: Server) -> None:
    wires: list[Wire] = []
    refused = 0
    try:
        for number in range(100 + 40 * 16):
            address = "127.0.0.9" if number < 100 else f"127.0.1.{(number - 100) // 16 + 1}"
            try:
                wires.append(Wire(server.port, source=address))
            except OSError as error:
                pytest.skip(f"this system has one loopback address only: {error}")
        for wire in wires:
            wire.socket.setblocking(False)
        server.good()
        for wire in wires:
            try:
                refused += wire.socket.recv(12, socket.MSG_PEEK) == b"HTTP/1.1 503"
            except BlockingIOError:
                continue
        # 16 of the first address, 40 times 16 of the others, and of the 512 places four are not the network's.
        assert len(wires) - refused == 512 - 4
    finally:
        for wire in wires:
            wire.socket.close()
    server.good()


def damaged(data: bytes, rng: random.Random) -> bytes:
    """``data`` with some bytes changed, cut off, or twice."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    at = rng.randrange(len(changed))
    return bytes(rng.choice([changed, changed[:at], changed[:at] + changed[at // 2 :]]))


@pytest.mark.slow
def test_c22_damaged_pictures_cost_an_error_each(server: Server) -> None:
    rng = random.Random(22)
    seeds = [case.body for case in CASES if case.number == 21 and case.status == 200]
    statuses: set[int] = set()
    client = Client(f"http://127.0.0.1:{server.port}", server.key)
    for _ in range(500):
        status, answer = client.post(DIGITS, damaged(rng.choice(seeds), rng), "image/png")
        statuses.add(status)
        assert status in (200, 422), answer
        assert_nothing_leaks(server, str(answer))
    client.close()
    assert 422 in statuses
    server.good()


def test_no_log_holds_what_was_sent(server: Server) -> None:
    """Last: over everything that the cases above made the program write."""
    text = server.logs()
    assert '"status":' in text
    for secret in (server.key, BODY_CANARY.decode(), "Traceback"):
        assert secret not in text
    requests = "\n".join(p.read_text() for p in (server.home / "data" / "logs").iterdir())
    assert str(server.home) not in requests
    assert str(ROOT) not in requests


def test_every_case_of_the_catalogue_has_its_test() -> None:
    held: dict[int, tuple[str, ...]] = {case.number: () for case in CASES} | ELSEWHERE
    assert sorted(held) == list(range(1, 41))
    assert missing_tests([name for names in ELSEWHERE.values() for name in names]) == []


def test_every_case_is_named_once() -> None:
    names: list[Any] = [case.id for case in CASES]
    assert len(names) == len(set(names))
