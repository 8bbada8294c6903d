"""Several batches at once in one worker: which of them run beside others, in what order they come back, and how many
threads each takes. The fake runtime waits at gates, so that nothing depends on this machine's pace."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from engine.model_spec import TensorSpec
from engine.preparation import Preparation, PreparationState, Reason, Step
from engine.protocol import Buffer, Message
from engine.worker.channel import Channel
from engine.worker.loop import WorkerLoop
from tests.engine.worker.process import PATIENCE_S, WorkerProcess, item_of, make_spec, read_done

X = (TensorSpec("x", "float32", (-1, 2)),)


class Gates:
    """The folder of the runtime's gates, by the first value of a row."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.option = {"gates_file": str(folder / "gates")}

    def close(self, *values: int) -> None:
        for value in values:
            (self.folder / f"{value}.closed").touch()

    def open(self, value: int) -> None:
        (self.folder / f"{value}.closed").unlink()

    def threads_of(self, value: int) -> int:
        """How many threads the run of this row may use; waits until it runs."""
        begun = self.folder / f"{value}.begun"
        turns = threading.Event()
        for _ in range(int(PATIENCE_S / 0.01)):
            if begun.exists() and (text := begun.read_text()):
                return int(text)
            turns.wait(0.01)
        raise AssertionError(f"{value} was not run")

    def has_begun(self, value: int) -> bool:
        return (self.folder / f"{value}.begun").exists()


@pytest.fixture
def gates(tmp_path: Path) -> Gates:
    return Gates(tmp_path)


@pytest.fixture
def worker(gates: Gates) -> Iterator[WorkerProcess]:
    """One that runs two batches at once."""
    with WorkerProcess() as process:
        options = gates.option | {"streams": True, "delay_s": 0.03, "stream_file": str(gates.folder / "broken")}
        message = process.load(make_spec(inputs=X, options=options), threads=2, limits={"max_batch_size": 4})
        assert message.type == "ready", message.header
        process.send({"type": "prepare", "golden": None})
        told = preparation_of(process.receive())
        assert (told.state, told.steps, told.streams) == (PreparationState.USED, (Step.FROZEN,), 2)
        yield process


def preparation_of(message: Message) -> Preparation:
    assert message.type == "prepared", message.header
    return Preparation.read(message.header["preparation"])


def send(worker: WorkerProcess, first: int, rows: int = 1) -> None:
    """A batch named like the first value of its first row; further rows begin with 0."""
    x = np.zeros((rows, 2), np.float32)
    x[0] = first, 1
    worker.send_batch(first, item_of(f"r{first}", {"x": x}))


def started(worker: WorkerProcess) -> int:
    message = worker.receive()
    assert message.type == "started", message.header
    return int(message.header["batch"])


def done(worker: WorkerProcess) -> int:
    """The batch whose answer comes next, which is its own."""
    message = worker.receive()
    (item,) = read_done(message)
    number = int(message.header["batch"])
    assert item["id"] == f"r{number}"
    assert item["outputs"]["checksum"][0] == number + 1
    return number


def recalled(worker: WorkerProcess, batch: int) -> bool:
    worker.send({"type": "recall", "batch": batch})
    message = worker.receive()
    assert (message.type, message.header["batch"]) == ("recalled", batch)
    return bool(message.header["ok"])


def test_two_batches_run_at_once_and_come_back_as_they_end(worker: WorkerProcess, gates: Gates) -> None:
    gates.close(1, 2)
    send(worker, 1)
    send(worker, 2)
    assert {started(worker), started(worker)} == {1, 2}
    gates.threads_of(1)
    assert gates.threads_of(2) == 1  # beside another one
    send(worker, 3)
    assert recalled(worker, 3)
    assert not recalled(worker, 1)
    assert not recalled(worker, 2)
    gates.open(2)
    assert done(worker) == 2
    gates.open(1)
    assert done(worker) == 1


class Told:
    """A worker's channel in this process. While it is told of a preparation, two batches come, which wait at gates."""

    def __init__(self, gates: Gates) -> None:
        self._gates = gates
        self._messages: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._both_started = threading.Semaphore(0)
        self.kept_its_word = False
        spec = make_spec(inputs=X, options=gates.option | {"streams": True, "delay_s": 0.03}).to_json()
        self._put({"type": "load", "spec": spec, "device": "cpu", "threads": 2})

    def _put(self, header: dict[str, Any], buffers: Sequence[Buffer] = ()) -> None:
        self._messages.put(Message(header, [memoryview(buffer) for buffer in buffers]))

    def receive(self) -> Message | None:
        return self._messages.get()

    def send(self, header: dict[str, Any], buffers: Sequence[Buffer] = ()) -> None:
        if header["type"] == "ready":
            self._put({"type": "prepare", "golden": None})
        elif header["type"] == "started":
            self._both_started.release()
        elif header["type"] == "prepared":
            self._gates.close(1, 2)
            for number in (1, 2):
                item, own = item_of(f"r{number}", {"x": np.array([[number, 1]], np.float32)})
                self._put({"type": "batch", "batch": number, "items": [item]}, own)
            self.kept_its_word = all(self._both_started.acquire(timeout=PATIENCE_S) for _ in range(2))
            self._gates.open(1)
            self._gates.open(2)
            self._messages.put(None)


def test_what_is_told_as_prepared_is_in_use(gates: Gates) -> None:
    channel = Told(gates)
    assert WorkerLoop(cast(Channel, channel)).run() == 0
    assert channel.kept_its_word


def test_a_batch_alone_takes_every_thread(worker: WorkerProcess, gates: Gates) -> None:
    for number in (1, 2, 3):
        send(worker, number)
        assert started(worker) == number
        assert done(worker) == number
        assert gates.threads_of(number) == 2
    gates.close(4)
    send(worker, 4)
    send(worker, 5)
    assert {started(worker), started(worker)} == {4, 5}
    assert done(worker) == 5
    assert gates.threads_of(5) == 1
    gates.open(4)
    assert done(worker) == 4
    send(worker, 6)
    assert started(worker) == 6
    assert done(worker) == 6
    assert gates.threads_of(6) == 2


def test_the_untouched_model_runs_one_batch_at_a_time(worker: WorkerProcess, gates: Gates) -> None:
    worker.send({"type": "limit", "max_batch_size": 16})
    gates.close(1, 2, 3)
    send(worker, 3)
    assert started(worker) == 3
    gates.threads_of(3)
    send(worker, 1, rows=9)  # more rows than were compared
    assert started(worker) == 1  # beside one of the prepared model
    assert gates.threads_of(1) == 1
    gates.open(3)
    assert done(worker) == 3
    send(worker, 2, rows=9)
    send(worker, 5)
    # Its own line holds good for whoever came later.
    assert recalled(worker, 5)
    assert recalled(worker, 2)
    assert not gates.has_begun(2)
    send(worker, 6)
    assert started(worker) == 6
    assert done(worker) == 6
    gates.open(1)
    assert done(worker) == 1


def test_what_is_withdrawn_runs_one_batch_at_a_time(worker: WorkerProcess, gates: Gates) -> None:
    gates.close(1, 2)
    send(worker, 1)
    send(worker, 2)
    assert {started(worker), started(worker)} == {1, 2}
    gates.threads_of(1)
    gates.threads_of(2)
    (gates.folder / "broken").touch()
    gates.open(1)
    gates.open(2)
    # Both fail; the untouched model answers both; it is told once.
    messages = [worker.receive() for _ in range(3)]
    (told,) = (preparation_of(m) for m in messages if m.type == "prepared")
    assert (told.state, told.reason, told.streams) == (PreparationState.WITHDRAWN, Reason.FAILED, 1)
    assert sorted(m.header["batch"] for m in messages if m.type == "done") == [1, 2]
    gates.close(3)
    send(worker, 3)
    assert started(worker) == 3
    assert gates.threads_of(3) == 2
    send(worker, 4)
    assert recalled(worker, 4)
    gates.open(3)
    assert done(worker) == 3
    send(worker, 5)
    assert started(worker) == 5
    assert done(worker) == 5


def test_no_answer_goes_to_another(worker: WorkerProcess) -> None:
    random = np.random.default_rng(4)
    asked: dict[int, dict[str, np.ndarray]] = {}
    open_ = 0
    for number in range(200):
        items = {f"{number}-{k}": random.normal(size=(int(random.integers(1, 4)), 2)) for k in range(3)}
        asked[number] = {name: x.astype(np.float32) for name, x in items.items()}
        worker.send_batch(number, *(item_of(name, {"x": x}) for name, x in asked[number].items()))
        open_ += 1
        while open_ == 4 or (number == 199 and open_):
            open_ -= check(worker, asked)
    assert not asked


def check(worker: WorkerProcess, asked: dict[int, dict[str, Any]]) -> bool:
    """Whether the next message is an answer, which is then right."""
    message = worker.receive()
    if message.type == "started":
        return False
    expected = asked.pop(message.header["batch"])
    items = read_done(message)
    assert [item["id"] for item in items] == list(expected)
    for item in items:
        np.testing.assert_array_equal(item["outputs"]["y"], 2 * expected[item["id"]])
    return True
