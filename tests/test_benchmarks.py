"""The benchmark's honesty: a wrong, refused, lost or doubled answer fails a run, and verdicts say what was found."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from benchmarks import environments, models, parts, report
from benchmarks.engine_alone import closed_loop
from benchmarks.load import BadAnswers, Checker, Generator, Load, Outcome
from benchmarks.parts import Part
from benchmarks.servers import CORES, PEERS, Server, Settings
from benchmarks.sweep import Sweep, left_out
from benchmarks.verdicts import PROMISES, ROWS, Promise, Row, is_peer, number, rows_of, verdict
from benchmarks.where_time_goes import Process, by_area, stacks, table, waited_s
from engine.prediction import Prediction, PredictRequest

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


# -- parts and what is composed of them --------------------------------------------------------------------------------
MACHINE = "A processor, 2 cores."


def a_part(name: str = "s", machine: str = MACHINE, **more: object) -> Part:
    return Part(name, "standard", "2026-01-02 03:04", 60.0, "abc", machine, 3, 3.0, [1.0, 2.0], **more)  # type: ignore[arg-type]


def outcome(rate: float) -> Outcome:
    return Outcome(int(rate), 1.0, 1.0, 2.0, 0.5)


def test_ratios_are_taken_within_a_round() -> None:
    part = a_part()
    for turn, (ours, theirs) in enumerate([(10.0, 5.0), (100.0, 20.0), (30.0, 10.0)]):
        part.add("json c=32", "Deskside", turn, ours)
        if turn != 1:  # did not start that time: what it did in another round is no match for ours
            part.add("json c=32", "a peer", turn, theirs)
        part.add("json c=32", "a slow peer", turn, 1.0)
        part.add("json c=32", "bare loop, all cores", turn, 1e6)
    found = part.ratio("json c=32", "Deskside", is_peer)
    assert found is not None
    assert found[0] == 2.5
    assert "a peer" in found[1]
    assert part.ratio("raw c=32", "Deskside", is_peer) is None


def test_a_row_says_what_nothing_could_exceed() -> None:
    part = a_part()
    for turn in range(3):
        part.add("json c=32", "Deskside", turn, 40.0)
        part.add("json c=32", "a peer", turn, 50.0)
        part.add("json c=32", "bare door", turn, 90.0)
    row = next(row for row in rows_of({"s": part}) if row.promise is PROMISES["s-c32"])
    assert (row.value, row.verdict) == (0.8, "not met")
    assert row.note.endswith("the bare door itself: 1.80x, 90/s")


def test_a_part_is_read_as_it_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "RESULTS", tmp_path)
    part = a_part(sweep=[("a peer", "workers 2", 12.0)], figures={"x": 1.5})
    part.add("json c=32", "Deskside", 0, 10.0)
    part.details["json c=32"] = {"Deskside": outcome(10)}
    assert parts.read(parts.write(part)) == part
    quick = replace(part, kind="quick")
    parts.write(quick)
    assert parts.kept("standard") == {"s": part}, "a short try took the place of a measurement"
    assert parts.kept("quick") == {"s": quick}


def test_parts_of_two_machines_make_no_report(tmp_path: Path) -> None:
    found = {"s": a_part(), "m": a_part("m", "Another one.")}
    with pytest.raises(parts.Mixed, match=r"s: A processor, 2 cores\.; m: Another one\."):
        report.write(found, tmp_path / "performance.md")
    assert not (tmp_path / "performance.md").exists()


def composed(tmp_path: Path, *found: Part) -> str:
    report.write({part.name: part for part in found}, tmp_path / "performance.md")
    return (tmp_path / "performance.md").read_text(encoding="utf-8")


def test_the_report_is_composed_with_its_pictures(tmp_path: Path) -> None:
    part = a_part(
        failures=["Deskside: 1 wrong."], answers=7, failed_answers=1, left_out={"a slow peer": "1/s at best"},
        sweep=[("a peer", "workers 2", 12.0)], swept="2026-01-01, abc",
    )  # fmt: skip
    part.add("json c=32", "Deskside", 0, 12.0)
    part.add("json c=32", "a peer", 0, 2.0)
    text = composed(tmp_path, part)
    assert "best peer, constant headers | 5.00x | 8.00x | 6.00x | **must met** | 12/s against 2/s of a peer" in text
    assert "1 | **not met** | of 7 answers" in text
    assert "**This run failed:**" in text
    assert "- a slow peer: 1/s at best" in text
    assert "| s | a peer | workers 2 | 12 |" in text
    assert "Taken: s 2026-01-01, abc." in text
    assert "| s | 2026-01-02 03:04 | standard, 3 rounds of 3 s a cell | 1.0 | abc | 2 % (2 % at most) |" in text
    assert "| m | not taken |" in text
    ElementTree.parse(tmp_path / "performance" / "s-json-c32.svg")


def test_every_promise_has_its_row_whatever_was_taken(tmp_path: Path) -> None:
    text = composed(tmp_path, a_part())
    for promise in PROMISES.values():
        assert f"| {promise.name} |" in text
    assert "| **not run: no GPU here** |" in text
    assert "| **not run: part window was not taken** |" in text
    assert {row.key for row in ROWS} | {"gpu", "wrong"} == set(PROMISES)


def test_what_was_taken_on_a_busy_machine_is_marked(tmp_path: Path) -> None:
    quiet = a_part("footprint", figures={"memory": 70.0, "app_mb": 150.0, "app_alone_mb": 140.0, "bare_mb": 80.0})
    assert "busy" not in composed(tmp_path, quiet)
    text = composed(tmp_path, replace(quiet, busy=[60.0, 3.0, 70.0]))
    assert "60 % (70 % at most) **busy** |" in text
    assert "140 MB and 80 MB; with every process of ours 150 MB; **taken on a busy machine** |" in text


def test_a_part_without_a_figure_of_today_s_is_to_be_taken_anew(tmp_path: Path) -> None:
    text = composed(tmp_path, a_part("footprint", figures={"memory": 70.0}))
    assert "**not run: part footprint was taken by a program that had no 'app_alone_mb'**" in text


def test_a_row_that_is_not_met_stands_beside_the_profile(tmp_path: Path) -> None:
    heavy = a_part("footprint", figures={"memory": 90.0, "app_mb": 170.0, "app_alone_mb": 140.0, "bare_mb": 80.0})
    text = composed(tmp_path, heavy, a_part("profile", tables=["| **the app** | all | **136** | |"]))
    after = text.partition("## Where the time goes")[2]
    assert "- app's memory without a model, above a bare PySide6 window: 140 MB and 80 MB" in after
    assert "| **the app** | all | **136** | |" in after
    assert "The profile was not taken." in composed(tmp_path, heavy)


def test_bodies_rotate_over_256_inputs_and_more() -> None:
    assert models.INPUTS >= 256


# -- the sweep ---------------------------------------------------------------------------------------------------------
PLAIN, TWO, BATCH = (
    Settings("as documented"),
    Settings("workers 2"),
    Settings("batch 32", {"BENCH_BATCH": "32"}, models="s"),
)
PEER = Server("a peer", "x", (), {}, PLAIN, (TWO, BATCH))


def test_a_sweep_is_kept_and_goes_on_where_it_ended(tmp_path: Path) -> None:
    path, asked = tmp_path / "sweep.json", []
    rates = {"as documented": 10.0, "workers 2": 30.0, "batch 32": 20.0}

    def measure(peer: Server, way: Settings) -> float | None:
        asked.append(way.name)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return rates[way.name]

    with pytest.raises(KeyboardInterrupt):
        Sweep(path, "here").best("s", PEER, PEER.ways("s"), measure)
    assert Sweep(path, "here").best("s", PEER, PEER.ways("s"), measure) == (TWO, 30.0)
    assert asked == ["as documented", "workers 2", "workers 2", "batch 32"]
    assert Sweep(path, "here").best("s", PEER, PEER.ways("s"), measure) == (TWO, 30.0)
    assert len(asked) == 4
    assert Sweep(path, "here").rates("s") == [("a peer", name, rate) for name, rate in rates.items()]
    Sweep(path, "elsewhere").best("s", PEER, PEER.ways("s"), measure)
    assert len(asked) == 7, "another machine's sweep was taken"
    Sweep(path, "elsewhere", anew=("m",)).best("s", PEER, PEER.ways("s"), measure)
    assert len(asked) == 7
    Sweep(path, "elsewhere", anew=("s",)).best("s", PEER, PEER.ways("s"), measure)
    assert len(asked) == 10


def test_what_did_not_start_is_tried_again(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path / "sweep.json", "here")
    assert sweep.best("s", PEER, PEER.ways("s"), lambda peer, way: None) is None
    assert sweep.best("s", PEER, PEER.ways("s"), lambda peer, way: 1.0) == (PLAIN, 1.0)


def test_a_second_model_tries_what_won_with_the_first(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path / "sweep.json", "here")
    assert PEER.ways("l") == (PLAIN, TWO)
    assert sweep.ways("l", PEER, "m") == (PLAIN, TWO)
    sweep.best("m", PEER, PEER.ways("m"), lambda peer, way: 2.0 if way is PLAIN else 1.0)
    assert sweep.ways("l", PEER, "m") == (PLAIN,)


def test_only_peers_far_behind_are_left_out() -> None:
    assert left_out({}) == {}
    assert left_out({"a": 100.0, "b": 50.0, "c": 49.0}) == {
        "c": "49/s at best in the sweep, below half of the 100/s of a"
    }


def test_the_settings_that_are_tried_suit_the_model_and_the_machine() -> None:
    for peer in PEERS:
        for model in "sml":
            ways = peer.ways(model)
            assert ways[0] == peer.documented
            assert len({way.name for way in ways}) == len(ways)
            for way in ways:
                assert int(way.env.get("BENCH_WORKERS", 1)) <= max(CORES, 2)
        prepared = peer.ways("m", prepared=True)
        assert prepared
        assert all(way.prepared for way in prepared)


# -- the profile -------------------------------------------------------------------------------------------------------
RAW = """\
thread (11): server-loop;_run (threading.py:9);poll2 (waitress/wasyncore.py:213) 60
thread (11): server-loop;_run (threading.py:9);poll2 (waitress/wasyncore.py:204) 4
thread (11): server-loop;answer (embedded_server/lane_loop.py:1);dispatcher.send (waitress/wasyncore.py:392) 16
thread (11): server-loop;answer (embedded_server/lane_loop.py:1);_json (json/encoder.py:2) 20
thread (12): waitress-0;handler (waitress/task.py:1);Condition.wait (threading.py:327) 100
"""


def test_a_thread_s_time_is_shared_out_over_what_it_did_and_not_over_its_rest() -> None:
    process = Process("the app", {11: 1.0, 13: 0.5}, stacks(RAW), 2.0)
    spent = by_area(process)
    assert spent == pytest.approx({
        "waiting on sockets (poll)": 0.1, "socket send": 0.4, "request and answer in HTTP": 0.5,
        "threads of the libraries (OpenMP)": 0.5,
    })  # fmt: skip
    assert waited_s(process) == 0.0
    assert waited_s(replace(process, cpu_s={11: 0.3})) == pytest.approx(0.5)
    lines = table("S", [process], 1000)
    assert "| **the app** | all | **1500** | |" in lines
    assert "| | socket send | 400 | 27% |" in lines


# -- the engine alone --------------------------------------------------------------------------------------------------
def asked_directly(values: Callable[[int], list[float]]) -> tuple[int, int]:
    """Answers, and how many questions were under way at most."""
    asked = [PredictRequest("m", str(number).encode()) for number in range(INPUTS)]
    waiting: list[Future[Prediction]] = []
    most, pool = [0], ThreadPoolExecutor(1)

    def ask(request: PredictRequest) -> Future[Prediction]:
        future: Future[Prediction] = Future()
        waiting.append(future)
        most[0] = max(most[0], len(waiting))

        def answer() -> None:
            waiting.remove(future)
            number = int(bytes(request.data))  # type: ignore[arg-type]
            outputs = {"y": np.asarray(values(number), np.float32)}
            future.set_result(Prediction("1", "m", "raw-tensors", {}, outputs=outputs))

        pool.submit(answer)
        return future

    with pool:
        answers = closed_loop(ask, asked, [np.asarray(row, np.float32) for row in REFERENCES], 3, 0.05)
    return answers, most[0]


def test_the_engine_is_asked_with_so_many_under_way_and_its_answers_checked() -> None:
    answers, most = asked_directly(lambda number: REFERENCES[number])
    assert answers > 10
    assert 1 <= most <= 3
    with pytest.raises(SystemExit, match="wrong answer to input 5"):
        asked_directly(lambda number: [9.0, 9.0] if number == 5 else REFERENCES[number])


# -- the peers' environments -------------------------------------------------------------------------------------------
def test_environments_that_another_checkout_made_are_taken_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environments, "ENVIRONMENTS", tmp_path)
    commands: list[list[str | Path]] = []
    monkeypatch.setattr(environments, "_run", commands.append)
    (tmp_path / "flask").mkdir()
    made = environments.environment("flask")
    assert made == tmp_path / "flask" / "bin" / "python"
    assert len(commands) == 3
    stamp = tmp_path / "flask" / "requirements.txt"
    assert environments.environment("flask") == made
    assert len(commands) == 3
    stamp.write_text("flask==0.1\n")
    environments.environment("flask")
    assert len(commands) == 6
