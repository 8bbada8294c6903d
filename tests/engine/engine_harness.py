"""An engine with real worker processes on the fake runtime, and its events to wait for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from engine.engine import Engine
from engine.events import Event, LoadProgress, ModelState, ModelStateChanged
from engine.model_spec import ModelSpec, fake_spec
from engine.prediction import PredictRequest
from engine.settings import EngineLimits, Settings

PATIENCE_S = 30.0
"""The bound of every wait: generous, only so that a test ends."""


class Watch:
    """Every event of an engine, to wait for."""

    def __init__(self, engine: Engine) -> None:
        self.events: list[Event] = []
        self._condition = threading.Condition()
        self._unsubscribe = engine.subscribe(self._on_event)

    def _on_event(self, event: Event) -> None:
        with self._condition:
            self.events.append(event)
            self._condition.notify_all()

    def until(self, wanted: Callable[[list[Event]], Any], timeout_s: float = PATIENCE_S) -> Any:
        """The first true value of ``wanted(events)``; AssertionError when it does not come."""
        with self._condition:
            assert self._condition.wait_for(lambda: wanted(self.events), timeout_s), "the event did not come"
            return wanted(self.events)

    def until_state(self, state: ModelState, times: int = 1) -> None:
        self.until(lambda _: self.states().count(state) >= times)

    def states(self) -> list[ModelState]:
        return [e.state for e in self.events if isinstance(e, ModelStateChanged)]

    def stages(self) -> list[str]:
        seen: list[str] = []
        for event in self.events:
            if isinstance(event, LoadProgress) and (not seen or seen[-1] != event.stage):
                seen.append(str(event.stage))
        return seen


def quick_settings(**limits: Any) -> Settings:
    """Defaults with short pauses between restarts."""
    values = {"backoff_first_s": 0.05, "backoff_last_s": 0.1} | limits
    return Settings(limits=EngineLimits.model_validate(values))


@contextmanager
def running_engine(folder: Path, **limits: Any) -> Iterator[tuple[Engine, Watch]]:
    with Engine(quick_settings(**limits), folder=folder) as engine:
        yield engine, Watch(engine)


def limit(engine: Engine, **changes: Any) -> None:
    """Change the limits of an engine that runs."""
    engine.limit(engine.settings.limits.model_copy(update=changes))


def fake(name: str = "fake", **options: Any) -> ModelSpec:
    return fake_spec(Path(f"/nowhere/{name}"), name, **options)


def loaded(engine: Engine, spec: ModelSpec) -> dict[str, Any]:
    return engine.load(spec).future.result(PATIENCE_S)


def row(value: float, **more: Any) -> PredictRequest:
    """A request of one row whose first element is ``value``."""
    return PredictRequest("fake", {"x": np.array([[value, 1, 2, 3]], np.float32)}, **({"timeout_s": PATIENCE_S} | more))


def assert_answers(engine: Engine, value: float, **more: Any) -> None:
    """The model answers this row, with this row's numbers."""
    prediction = engine.predict(row(value, **more)).result(PATIENCE_S)
    assert prediction.outputs is not None
    assert prediction.outputs["y"].tolist() == [[2 * value, 2, 4, 6]]
    assert prediction.outputs["checksum"].tolist() == [value + 6]


def gone(pid: int) -> bool:
    """Whether this process has ended (a zombie that nobody reaped counts as a failure)."""
    return not psutil.pid_exists(pid)


def workers_of_this_process() -> list[psutil.Process]:
    found = []
    for child in psutil.Process().children():
        try:
            line = child.cmdline()
        except psutil.Error:
            continue
        if "engine.worker" in line and "--inspect" not in line:
            found.append(child)
    return found
