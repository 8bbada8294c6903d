"""Processes that import a framework before their model is known: taken by a load, and missed by nobody."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import engine.spares as spares_module
from engine.engine import Engine
from engine.errors import LoadCancelled, ModelUnreadable
from engine.memory import MemoryWatch, Policy
from engine.protocol import Message
from engine.settings import Settings, WorkerSettings
from engine.spares import Spare, SparePolicy, Spares, can_narrow, framework_of, kind_of_start, likely_framework
from engine.worker_client import Exit, WorkerClient
from tests.engine.engine_harness import (
    PATIENCE_S,
    Watch,
    assert_answers,
    fake,
    gone,
    limit,
    loaded,
    workers_of_this_process,
)

GB = 1_000_000_000
FRAMEWORK = "numpy"
"""What a spare has imported that takes models of the tests' runtime."""


@pytest.fixture(autouse=True)
def enough_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the computer has that runs this."""
    monkeypatch.setattr(spares_module, "computer_memory", lambda: (16 * GB, 8 * GB))


def running(folder: Path, **worker: Any) -> Engine:
    return Engine(Settings(worker=WorkerSettings.model_validate({"spare": True} | worker)), folder=folder)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with running(tmp_path) as engine:
        yield engine
    assert workers_of_this_process() == []


def warm_spare(engine: Engine, framework: str = FRAMEWORK) -> Spare:
    """That of the engine, started now where there is none, once its framework is imported."""
    spares = engine._spares
    spares._refill(framework)
    spare = spares.kept(framework)
    assert spare is not None
    assert spare.is_warm.wait(PATIENCE_S)
    return spare


# -- loads ---------------------------------------------------------------------------------------------------------
def test_a_load_takes_the_spare_which_is_a_worker_like_others(engine: Engine) -> None:
    spare = warm_spare(engine)
    entry = loaded(engine, fake())
    assert entry["worker_pid"] == spare.client.pid
    process = psutil.Process(entry["worker_pid"])
    assert process.ppid() == os.getpid()
    assert "engine.worker" in process.cmdline()
    assert entry["sandbox"]["level"] == ("full" if sys.platform == "linux" else entry["sandbox"]["level"])
    assert_answers(engine, 3.0)
    assert engine._spares.kept(FRAMEWORK) is None


def test_after_a_load_another_one_waits(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Spares.used, "__defaults__", (0.0,))
    watch = Watch(engine)
    loaded(engine, fake("first"))
    watch.until(lambda _: engine._spares.kept(FRAMEWORK))
    spare = engine._spares.kept(FRAMEWORK)
    assert spare is not None
    assert loaded(engine, fake("second"))["worker_pid"] == spare.client.pid


def test_one_that_was_killed_is_missed_by_nobody(engine: Engine) -> None:
    spare = warm_spare(engine)
    os.kill(spare.client.pid, signal.SIGKILL)
    assert spare.client.join(PATIENCE_S)
    entry = loaded(engine, fake())
    assert entry["worker_pid"] != spare.client.pid
    assert_answers(engine, 1.0)


@pytest.mark.skipif(os.name == "nt", reason="a process is stopped by a signal")
def test_one_that_dies_as_it_is_taken_is_replaced_within_the_load(engine: Engine) -> None:
    spare = warm_spare(engine)
    psutil.Process(spare.client.pid).suspend()
    watch = Watch(engine)
    ticket = engine.load(fake())
    watch.until(lambda _: "importing framework" in watch.stages())
    os.kill(spare.client.pid, signal.SIGKILL)
    entry = ticket.future.result(PATIENCE_S)
    assert entry["worker_pid"] != spare.client.pid
    assert entry["restarts"] == 0
    assert_answers(engine, 2.0)


def test_of_two_loads_at_once_one_takes_it(tmp_path: Path) -> None:
    with running(tmp_path, threads=1) as engine:
        spare = warm_spare(engine)
        tickets = [engine.load(fake(name)) for name in ("one", "two")]
        pids = [ticket.future.result(PATIENCE_S)["worker_pid"] for ticket in tickets]
        assert pids.count(spare.client.pid) == 1
        assert len(set(pids)) == 2
        assert {model["state"] for model in engine.stats()["models"]} == {"READY"}
    assert workers_of_this_process() == []


def test_what_had_waited_teaches_nothing_of_how_long_an_import_takes(engine: Engine) -> None:
    def learnt() -> set[str]:
        return set(engine._journal.learnt_stages(str(fake().model_file)))

    warm_spare(engine)
    loaded(engine, fake())
    assert {"starting", "reading weights"} <= learnt()
    assert "importing framework" not in learnt()
    engine.unload("fake").result(PATIENCE_S)
    loaded(engine, fake())
    assert "importing framework" in learnt()


@pytest.mark.parametrize("change", [{"threads": 3}, {"sandbox": False}, {"memory_mb": 5000}, {"python_path": ["/opt"]}])
def test_other_settings_never_get_a_process_of_before(engine: Engine, change: dict[str, Any]) -> None:
    spare = warm_spare(engine)
    worker = engine.settings.worker.model_copy(update=change)
    engine.settings = engine.settings.model_copy(update={"worker": worker})
    assert loaded(engine, fake())["worker_pid"] != spare.client.pid
    engine._spares._refill(FRAMEWORK)
    assert spare.client.join(PATIENCE_S)
    assert gone(spare.client.pid)


def test_a_cancelled_load_ends_what_it_took(engine: Engine) -> None:
    spare = warm_spare(engine)
    watch = Watch(engine)
    ticket = engine.load(fake(load_hang=True))
    watch.until(lambda _: "importing framework" in watch.stages())
    ticket.cancel()
    with pytest.raises(LoadCancelled):
        ticket.future.result(PATIENCE_S)
    assert spare.client.join(PATIENCE_S)
    assert gone(spare.client.pid)


def test_a_model_that_writes_beside_its_folder_gets_its_own_process(engine: Engine, tmp_path: Path) -> None:
    spare = warm_spare(engine)
    entry = loaded(engine, fake(started_file=str(tmp_path / "started")))
    assert entry["worker_pid"] != spare.client.pid
    assert_answers(engine, 1.0)


def test_close_leaves_no_process(tmp_path: Path) -> None:
    with running(tmp_path) as engine:
        spare = warm_spare(engine)
    assert gone(spare.client.pid)
    engine._spares._refill(FRAMEWORK)
    assert workers_of_this_process() == []


# -- who keeps one -------------------------------------------------------------------------------------------------
def test_a_bare_engine_keeps_none_until_it_is_asked_to(tmp_path: Path) -> None:
    with Engine(Settings(), folder=tmp_path) as engine:
        assert not engine._spares.on
        loaded(engine, fake())
        engine._spares._refill(FRAMEWORK)
        assert len(workers_of_this_process()) == 1
        watch = Watch(engine)
        engine.keep_spares("/nowhere/model.keras")
        watch.until(lambda _: engine._spares.kept("tensorflow"))
    assert workers_of_this_process() == []


def test_the_settings_forbid_them(tmp_path: Path) -> None:
    with running(tmp_path, spare=False) as engine:
        engine._spares.keep(FRAMEWORK)
        assert not engine._spares.on


@pytest.mark.parametrize(("total", "available"), [(7.9 * GB, 7 * GB), (16 * GB, 1.9 * GB)])
def test_none_where_memory_is_small_or_used_up(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, total: int, available: int
) -> None:
    monkeypatch.setattr(spares_module, "computer_memory", lambda: (total, available))
    engine._spares._refill(FRAMEWORK)
    assert engine._spares.kept(FRAMEWORK) is None


def test_those_that_wait_count_and_give_way_first(engine: Engine) -> None:
    entry = loaded(engine, fake(big_mb=50))
    alone = engine._memory
    spare = warm_spare(engine)
    alone.look()
    measured = alone.measured
    assert measured.spares > 0
    assert measured.models == measured.spares + dict(measured.by_model)["fake"]
    limit(engine, memory_budget_mb=measured.models // 1_000_000 - 1)
    alone.look()
    assert spare.client.join(PATIENCE_S)
    assert gone(spare.client.pid)
    assert psutil.pid_exists(entry["worker_pid"])
    assert alone.measured.spares == 0


class Waiting:
    def __init__(self) -> None:
        self.pids: tuple[int, ...] = (500,)
        self.reasons: list[str] = []

    def end(self, reason: str) -> None:
        self.reasons.append(reason)
        self.pids = ()


def test_a_short_computer_and_a_load_without_room_end_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def watch(waiting: Waiting, policy: Policy) -> MemoryWatch:
        return MemoryWatch(
            list, lambda: 0.0, lambda: None, lambda sentence: None, policy, measure=lambda pid: pid * 1_000_000,
            spares=waiting,
        )  # fmt: skip

    monkeypatch.setattr("engine.memory.computer_memory", lambda: (10 * GB, 2 * GB))
    waiting = Waiting()
    watch(waiting, Policy()).look()
    assert waiting.reasons == []
    monkeypatch.setattr("engine.memory.computer_memory", lambda: (10 * GB, GB // 2))
    watch(waiting, Policy()).look()
    assert len(waiting.reasons) == 1
    waiting = Waiting()
    with watch(waiting, Policy(budget_bytes=GB)).room_for("small", GB // 4):
        assert waiting.reasons == []
    with watch(waiting, Policy(budget_bytes=GB)).room_for("large", 3 * GB // 4):
        assert len(waiting.reasons) == 1


# -- the sandbox ---------------------------------------------------------------------------------------------------
@pytest.mark.skipif(sys.platform != "linux", reason="the sandbox is written for Linux")
def test_a_framework_that_starts_threads_is_no_spare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread from before the rules would not be bound by them: the load then starts a process of its own."""
    package = tmp_path / "packages" / "torch"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(
        "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n"
    )
    monkeypatch.setitem(spares_module._FRAMEWORKS, "fake", "torch")
    with running(tmp_path / "data", python_path=[str(package.parent)]) as engine:
        spare = warm_spare(engine, "torch")
        entry = loaded(engine, fake())
        assert entry["worker_pid"] != spare.client.pid
        assert entry["sandbox"]["level"] == "full"
        assert gone(spare.client.pid)


@pytest.mark.real
@pytest.mark.skipif(sys.platform != "linux", reason="tasks and descriptors are counted in /proc")
@pytest.mark.parametrize("framework", ["torch", "tensorflow"])
def test_a_warm_one_has_one_thread_no_open_file_and_no_gpu(engine: Engine, framework: str) -> None:
    spare = warm_spare(engine, framework)
    process = psutil.Process(spare.client.pid)
    assert process.num_threads() == 1
    assert process.open_files() == []
    assert not [m.path for m in process.memory_maps() if m.path.startswith("/dev/nvidia")]


# -- the head start of a load ------------------------------------------------------------------------------------------
def test_names_suggest_a_framework(tmp_path: Path) -> None:
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "saved_model.pb").touch()
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / "model.safetensors").touch()
    names = {"a.keras": "tensorflow", "a.H5": "tensorflow", "a.pt": "torch", "a.pt2": "torch", "a.onnx": None}
    assert {name: likely_framework(tmp_path / name) for name in names} == names
    assert likely_framework(tmp_path / "saved") == "tensorflow"
    assert likely_framework(tmp_path / "hub") == "torch"
    assert likely_framework(tmp_path) is None
    assert framework_of("onnxruntime") is None
    assert framework_of("aot_inductor") is None


def test_a_refused_load_ends_its_head_start(tmp_path: Path) -> None:
    with Engine(Settings(), folder=tmp_path) as engine:
        with pytest.raises(ModelUnreadable):
            engine.load(tmp_path / "nothing.pt").future.result(PATIENCE_S)
        engine._spares.close()
        assert workers_of_this_process() == []


class Client:
    """A process that only says what became of it."""

    pid = 1

    def __init__(self, framework: str, threads: int) -> None:
        self.framework, self.threads = framework, threads
        self.reasons: list[str] = []

    def kill(self, reason: str) -> None:
        self.reasons.append(reason)

    def join(self, timeout_s: float) -> bool:
        return True


class Started:
    """Spares without processes."""

    def __init__(self, **worker: Any) -> None:
        self.settings = WorkerSettings.model_validate({"spare": True} | worker)
        self.clients: list[Any] = []
        self.threads = 1
        self.now = 0.0
        self.spares = Spares(
            SparePolicy(
                settings=lambda: self.settings, threads=lambda: self.threads, start=self.start,
                later=lambda call: call(), clock=lambda: self.now, wake=lambda at: None,
            )
        )  # fmt: skip

    def start(
        self, framework: str, threads: int, on_message: Callable[[Message], None], on_exit: Callable[[Exit], None]
    ) -> WorkerClient:
        self.clients.append(Client(framework, threads))
        client: WorkerClient = self.clients[-1]
        return client

    def take(self, ahead: Spare | None, framework: str, threads: int = 1) -> Any:
        return self.spares.take(ahead, framework, threads, lambda message: None, lambda exit_: None)


def test_a_head_start_is_taken_where_the_guess_was_right() -> None:
    started = Started(spare=False)
    ahead = started.spares.head_start("torch", 1)
    assert started.take(ahead, "torch") is started.clients[0]
    ahead = started.spares.head_start("torch", 1)
    assert started.take(ahead, "tensorflow") is None
    assert len(started.clients[1].reasons) == 1
    ahead = started.spares.head_start("torch", 1)
    assert started.take(ahead, "torch", threads=2) is None
    assert len(started.clients[2].reasons) == 1


def test_a_head_start_that_was_not_needed_waits_where_spares_do() -> None:
    started = Started()
    ahead = started.spares.head_start("torch", 1)
    assert ahead is not None
    started.spares.offer(ahead)
    assert started.spares.kept("torch") is ahead
    assert started.spares.head_start("torch", 1) is None
    assert started.take(None, "torch") is started.clients[0]


def test_what_waits_is_replaced_once_a_load_would_need_another() -> None:
    started = Started()
    started.spares.used("torch", 1.0)
    assert started.spares.tick() == 1.0
    started.now = 1.0
    assert started.spares.tick() is None
    started.threads = 2
    # A load that needs another kind leaves it; so many models may be there again when the load is over.
    assert started.take(None, "torch", threads=2) is None
    assert started.clients[0].reasons == []
    started.spares.look_again()
    started.now = 100.0
    started.spares.tick()
    assert [client.threads for client in started.clients] == [1, 2]
    assert len(started.clients[0].reasons) == 1


def test_macos_keeps_none_in_a_sandbox() -> None:
    """Its profile is taken on once, for good. Never run there."""
    assert not can_narrow(WorkerSettings(), "darwin")
    assert can_narrow(WorkerSettings(sandbox=False), "darwin")
    assert can_narrow(WorkerSettings(), "win32")


def test_what_a_start_depends_on(monkeypatch: pytest.MonkeyPatch) -> None:
    kind = kind_of_start(WorkerSettings(), 1)
    assert kind == kind_of_start(WorkerSettings(device="cuda"), 1)
    assert kind != kind_of_start(WorkerSettings(), 2)
    assert kind != kind_of_start(WorkerSettings(command=["other"]), 1)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert kind != kind_of_start(WorkerSettings(), 1)
