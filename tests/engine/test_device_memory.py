"""A GPU's memory, as workers report it; here PyTorch only pretends, with a real one it is asked in tests/gpu."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine.engine import Engine
from engine.memory import DeviceMemory, MemoryWatch, Policy
from engine.protocol import ProtocolError
from engine.settings import Settings, WorkerSettings
from engine.worker.device_memory import device_memory
from tests.engine.engine_harness import PATIENCE_S, fake, loaded, running_engine
from tests.engine.test_memory import MB, entry, until

FAKE_TORCH = """
class cuda:
    def is_initialized():
        return True

    def mem_get_info(index):
        return (6_000_000_000 + index, 8_000_000_000)

    def memory_allocated(index):
        return 1_000_000_000

    def memory_reserved(index):
        return 1_500_000_000
"""


def pretend_torch(monkeypatch: pytest.MonkeyPatch, **cuda: Any) -> None:
    values = {
        "is_initialized": lambda: True, "mem_get_info": lambda index: (5 * MB, 9 * MB),
        "memory_allocated": lambda index: 2 * MB + index, "memory_reserved": lambda index: 3 * MB,
    } | cuda  # fmt: skip
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=SimpleNamespace(**values)))  # type: ignore[arg-type]


def test_a_worker_tells_what_pytorch_counts_on_its_device(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_torch(monkeypatch)
    assert device_memory("cuda:1") == {
        "device": "cuda:1", "allocated": 2 * MB + 1, "reserved": 3 * MB, "free": 5 * MB, "total": 9 * MB,
    }  # fmt: skip
    assert device_memory("cpu") is None
    assert device_memory("mps") is None


def test_a_device_that_is_not_in_use_is_not_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    def touched(index: int) -> tuple[int, int]:
        raise AssertionError("that makes a context")

    pretend_torch(monkeypatch, is_initialized=lambda: False, mem_get_info=touched)
    assert device_memory("cuda:0") is None
    monkeypatch.delitem(sys.modules, "torch")
    assert device_memory("cuda:0") is None


def test_a_device_that_no_longer_answers_is_told_in_the_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def lost(index: int) -> tuple[int, int]:
        raise RuntimeError("CUDA error: device-side assert triggered")

    pretend_torch(monkeypatch, mem_get_info=lost)
    assert device_memory("cuda:0") is None
    assert "device-side assert" in caplog.text


@dataclass
class OnDevice:
    """A resident with reports of its workers."""

    id: str
    device_memory: tuple[DeviceMemory, ...]
    pids: tuple[int, ...] = (1,)
    used_at: float = 0.0
    pinned: bool = False
    asked: int = 0

    def rest(self) -> bool:
        return False

    def ask_device_memory(self) -> None:
        self.asked += 1


def test_each_device_is_told_once_whoever_reports_it() -> None:
    first = OnDevice("a", (DeviceMemory("cuda:0", 1 * MB, 2 * MB, free=50 * MB, total=80 * MB),))
    second = OnDevice(
        "b",
        (
            DeviceMemory("cuda:0", 3 * MB, 4 * MB, free=49 * MB, total=80 * MB),
            DeviceMemory("cuda:1", 5 * MB, 6 * MB, free=70 * MB, total=80 * MB),
        ),
    )
    changes: list[None] = []
    looked = MemoryWatch(
        lambda: [first, second, OnDevice("c", ())], lambda: 0.0, lambda: changes.append(None), lambda sentence: None,
        Policy(), measure=lambda pid: MB,
    )  # fmt: skip
    looked.look()
    assert (first.asked, second.asked) == (1, 1)
    assert looked.measured.to_json(Policy())["devices"] == [
        {"device": "cuda:0", "total": 80 * MB, "free": 49 * MB, "models": 6 * MB, "others": 25 * MB},
        {"device": "cuda:1", "total": 80 * MB, "free": 70 * MB, "models": 6 * MB, "others": 4 * MB},
    ]
    assert looked.measured.of_device("b") == {"allocated": 8 * MB, "reserved": 10 * MB}
    assert looked.measured.of_device("c") is None
    told = len(changes)
    first.device_memory = ()
    looked.look()
    assert len(changes) == told + 1
    assert looked.measured.of_device("a") is None


@pytest.mark.parametrize(
    "told",
    [
        None,
        {},
        {"device": "cuda:0", "allocated": -1, "reserved": 0, "free": 0, "total": 0},
        {"device": "cuda:0", "allocated": True, "reserved": 0, "free": 0, "total": 0},
        {"device": "cuda:0", "allocated": 0, "reserved": 0, "free": 1 << 80, "total": 0},
        {"device": "x" * 100, "allocated": 0, "reserved": 0, "free": 0, "total": 0},
        {"device": 7, "allocated": 0, "reserved": 0, "free": 0, "total": 0},
    ],
)
def test_a_report_that_is_none_is_refused(told: Any) -> None:
    with pytest.raises(ProtocolError):
        DeviceMemory.read(told)


def test_what_a_worker_has_of_its_device_reaches_the_figures(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text(FAKE_TORCH, encoding="utf-8")
    settings = Settings(worker=WorkerSettings(python_path=[str(tmp_path)]))  # type: ignore[call-arg]
    with Engine(settings, folder=tmp_path / "data") as engine:
        loaded(engine, fake(on_device="cuda:1"))
        loaded(engine, fake("desk"))
        until(lambda: entry(engine)["device_memory"], "the worker reports")
        assert entry(engine)["device_memory"] == {"allocated": 1_000_000_000, "reserved": 1_500_000_000}
        assert entry(engine, "desk")["device_memory"] is None
        assert engine.stats()["memory"]["devices"] == [
            {
                "device": "cuda:1", "total": 8_000_000_000, "free": 6_000_000_001, "models": 1_500_000_000,
                "others": 499_999_999,
            }
        ]  # fmt: skip
        engine.unload("fake").result(PATIENCE_S)
        until(lambda: not engine.stats()["memory"]["devices"], "it is gone with its process")


def test_without_a_gpu_there_is_no_device(tmp_path: Path) -> None:
    with running_engine(tmp_path) as (engine, _):
        loaded(engine, fake())
        until(lambda: entry(engine)["memory"], "it is measured")
        assert (entry(engine)["device_memory"], engine.stats()["memory"]["devices"]) == (None, [])
