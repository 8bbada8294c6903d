"""The benchmark's honesty: a wrong, refused, lost or doubled answer fails a run, and verdicts say what was found."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks import report
from benchmarks.compare import Results, is_peer
from benchmarks.load import BadAnswers, Checker, Generator, Load, Outcome
from benchmarks.verdicts import PROMISES, Promise, Row, number, verdict

INPUTS = 8
REFERENCES = [[float(number), number / 2] for number in range(INPUTS)]

Answer = Callable[[int, int], bytes]
"""What a server sends to input ``number`` in its ``turn``-th request; nothing: it hangs up."""


def reply(scores: list[float], status: str = "200 OK") -> bytes:
    body = json.dumps({"scores": scores}).encode()
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def right(number: int, turn: int) -> bytes:
    return reply(REFERENCES[number])


def serve(answer: Answer) -> tuple[socket.socket, list[str]]:
    """A server of one thread a connection. The list takes the heads it was sent."""
    listener = socket.create_server(("127.0.0.1", 0))
    heads: list[str] = []
    turns = iter(range(10**9))

    def talk(connection: socket.socket) -> None:
        data = b""
        with connection:
            while True:
                while b"\r\n\r\n" not in data or not data.partition(b"\r\n\r\n")[2]:
                    received = connection.recv(65536)
                    if not received:
                        return
                    data += received
                head, _, body = data.partition(b"\r\n\r\n")
                heads.append(head.decode())
                sent = answer(int(body[:1]), next(turns))
                if not sent:
                    return
                connection.sendall(sent)
                data = body[1:]

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return  # closed: the test is over
            threading.Thread(target=talk, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return listener, heads


def asked(tmp_path: Path, answer: Answer, patience_s: float = 2.0, **more: object) -> tuple[Outcome, list[str]]:
    """What the generator makes of a server that answers so."""
    bodies = tmp_path / "bodies.bin"
    bodies.write_bytes(b"".join(str(number).encode() for number in range(INPUTS)))
    listener, heads = serve(answer)
    spans = [(number, number + 1) for number in range(INPUTS)]
    with listener, pytest.MonkeyPatch.context() as patch:
        patch.setattr("benchmarks.load.PATIENCE_S", patience_s)
        port = int(listener.getsockname()[1])
        load = Load(
            port, "/", str(bodies), spans, REFERENCES, "scores", 1e-3, connections=3, seconds=0.2, warm_s=0.05,
            **more,  # type: ignore[arg-type]
        )  # fmt: skip
        return Generator(load).run(), heads


def fails(found: Outcome, what: str) -> None:
    assert getattr(found, what) > 0
    with pytest.raises(BadAnswers, match=what):
        found.check("a server")


def test_right_answers_pass(tmp_path: Path) -> None:
    found, _ = asked(tmp_path, right)
    found.check("a server")
    assert found.answers > 10
    assert found.failed == 0


def test_one_wrong_number_among_many_answers_fails(tmp_path: Path) -> None:
    found, _ = asked(
        tmp_path, lambda number, turn: reply([number + 0.002, number / 2] if turn == 20 else REFERENCES[number])
    )
    fails(found, "wrong")
    assert found.wrong == 1


def test_another_input_s_answer_fails(tmp_path: Path) -> None:
    found, _ = asked(tmp_path, lambda number, turn: reply(REFERENCES[(number + (turn == 20)) % INPUTS]))
    fails(found, "wrong")


@pytest.mark.parametrize("scores", [[float("nan"), 0.0], [], [0.0], [0.0, 0.0, 0.0]])
def test_what_is_no_answer_fails(scores: list[float]) -> None:
    assert not Checker([[0.0, 0.0]], "scores", 1e-3).is_right(0, json.dumps({"scores": scores}).encode())


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"not JSON", b'{"scores": [null, null]}'])
def test_a_body_of_another_shape_is_wrong(body: bytes) -> None:
    assert not Checker([[0.0, 0.0]], "scores", 1e-3).is_right(0, body)


def test_what_was_right_for_one_input_is_not_taken_for_another() -> None:
    checker = Checker([[0.0], [1.0]], "scores", 1e-3)
    assert checker.is_right(0, b'{"scores": [0.0]}')
    assert not checker.is_right(1, b'{"scores": [0.0]}')


def test_a_refusal_fails(tmp_path: Path) -> None:
    found, _ = asked(tmp_path, lambda number, turn: reply(REFERENCES[number], "503 Busy" if turn == 20 else "200 OK"))
    fails(found, "refused")
    assert "503 Busy" in found.example


def test_a_connection_that_ends_before_its_answer_fails(tmp_path: Path) -> None:
    found, _ = asked(tmp_path, lambda number, turn: b"" if turn == 20 else right(number, turn))
    fails(found, "lost")


def test_an_answer_that_never_comes_fails(tmp_path: Path) -> None:
    waits = b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n"
    found, _ = asked(tmp_path, lambda number, turn: waits if turn == 20 else right(number, turn), patience_s=0.3)
    fails(found, "lost")


def test_an_answer_sent_twice_fails(tmp_path: Path) -> None:
    found, _ = asked(tmp_path, lambda number, turn: right(number, turn) * (2 if turn == 20 else 1))
    fails(found, "doubled")


def test_a_server_that_never_answers_rightly_measures_nothing(tmp_path: Path) -> None:
    found, _ = asked(tmp_path, lambda number, turn: reply([9.0, 9.0]))
    assert found.answers == 0
    fails(found, "wrong")


def test_chunked_answers_and_closed_connections_are_read(tmp_path: Path) -> None:
    def chunked(number: int, turn: int) -> bytes:
        body = json.dumps({"scores": REFERENCES[number]}).encode()
        parts = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:5], body[5:]))
        return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + parts + b"0\r\n\r\n"

    asked(tmp_path, chunked)[0].check("a server that answers in chunks")


def test_a_slow_server_is_given_time_for_some_answers(tmp_path: Path) -> None:
    pause = threading.Event()

    def slow(number: int, turn: int) -> bytes:
        pause.wait(0.1)
        return right(number, turn)

    found, _ = asked(tmp_path, slow, least=12)
    found.check("a slow server")
    assert found.answers >= 12
    assert found.seconds > 0.3


def test_unique_headers_are_unique_and_a_key_is_sent(tmp_path: Path) -> None:
    _, heads = asked(tmp_path, right, unique="x-request-id", headers={"Authorization": "Bearer k"})
    ids = [line for head in heads for line in head.splitlines() if line.startswith("x-request-id")]
    assert len(heads) > 10
    assert len(set(ids)) == len(heads)
    assert all("Authorization: Bearer k" in head for head in heads)


@pytest.mark.parametrize(
    ("least", "value", "expected"),
    [
        (True, 7.9, "must met"), (True, 8.0, "aim met"), (True, 4.99, "not met"), (True, None, "not run: why"),
        (False, 8.1, "not met"), (False, 8.0, "must met"), (False, 5.0, "aim met"),
    ],
)  # fmt: skip
def test_verdicts(least: bool, value: float | None, expected: str) -> None:
    must, aim = (5.0, 8.0) if least else (8.0, 5.0)
    assert verdict(Promise("x", must, aim, least=least), value, "why") == expected


def test_no_wrong_answer_is_the_only_good_number() -> None:
    assert verdict(PROMISES["wrong"], 0) == "aim met"
    assert verdict(PROMISES["wrong"], 1) == "not met"


def test_a_row_that_was_not_run_says_why() -> None:
    assert "not run: no spare" in Row(PROMISES["load-spare"], None, "no spare").markdown()
    assert number(1.234, "x") == "1.23x"


def test_ratios_are_taken_within_a_round() -> None:
    results = Results()
    for turn, (ours, theirs) in enumerate([(10.0, 5.0), (100.0, 20.0), (30.0, 10.0)]):
        results.add("s", "json c=32", "Deskside", turn, ours)
        if turn != 1:  # did not start that time: what it did in another round is no match for ours
            results.add("s", "json c=32", "a peer", turn, theirs)
        results.add("s", "json c=32", "a slow peer", turn, 1.0)
        results.add("s", "json c=32", "bare loop, all cores", turn, 1e6)
    found = results.ratio("s", "json c=32", "Deskside", is_peer)
    assert found is not None
    assert found[0] == 2.5
    assert "a peer" in found[1]
    assert results.ratio("m", "json c=32", "Deskside", is_peer) is None


def test_the_report_is_written_with_its_pictures(tmp_path: Path) -> None:
    results = Results()
    results.add("s", "json c=32", "Deskside", 0, 10.0)
    results.rows.append(Row(PROMISES["s-c32"], 6.0, "10/s against 2/s"))
    results.failures.append("Deskside: 1 wrong.")
    report.write(results, tmp_path / "performance.md")
    text = (tmp_path / "performance.md").read_text(encoding="utf-8")
    assert (
        "| S JSON c=32, best peer, constant headers | 5.00x | 8.00x | 6.00x | **must met** | 10/s against 2/s |" in text
    )
    assert "**This run failed:**" in text
    ElementTree.parse(tmp_path / "performance" / "s-json-c32.svg")
