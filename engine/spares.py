"""Worker processes that import a framework before it is known for which model: a load then needs not wait for that.

Two uses. A *head start* belongs to one load: the name of a file suggests a framework, whose process starts while the
file is still recognised and hashed. A *warm spare* waits for the next load: at most one for each framework that was
used here, where somebody asked for spares and this computer has the memory. A spare that is not what would be started
now (other threads, other settings) is ended instead of taken; one that dies is missed by nobody.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from engine.identity import HUGGING_FACE_WEIGHTS
from engine.memory import computer_memory
from engine.model_spec import FAKE_RUNTIME
from engine.protocol import Message
from engine.settings import WorkerSettings
from engine.supervisor import child_command, child_environment
from engine.worker_client import Exit, WorkerClient

log = logging.getLogger(__name__)

LEAST_MEMORY = 8_000_000_000
"""Bytes a computer must have for warm spares: below, half a gigabyte that waits is missed elsewhere."""
LEAST_AVAILABLE = 2_000_000_000
"""Bytes that must be free when one is started."""
REFILL_AFTER_S = 3.0
"""From the end of a load to the start of the next spare: importing would slow down the first answers."""

_FRAMEWORKS = {
    "torchscript": "torch", "torch_export": "torch", "state_dict": "torch", "transformers": "torch",
    "keras": "tensorflow", "keras_legacy": "tensorflow", "saved_model": "tensorflow", FAKE_RUNTIME: "numpy",
}  # fmt: skip
"""By runtime. Not ONNX Runtime, which starts a thread when it is imported (and in 0.2 s), nor LiteRT (0.1 s); nor
AOTInductor, whose packages open outside of the sandbox."""
_SUFFIXES = {
    ".keras": "tensorflow", ".h5": "tensorflow", ".hdf5": "tensorflow", ".pt": "torch", ".pth": "torch",
    ".torchscript": "torch", ".pt2": "torch", ".safetensors": "torch",
}  # fmt: skip

Taker = tuple[Callable[[Message], None], Callable[[Exit], None]]
StartSpare = Callable[[str, int, Callable[[Message], None], Callable[[Exit], None]], WorkerClient]


def framework_of(runtime: str) -> str | None:
    """What a spare would have to have imported for this runtime; None where spares do not help."""
    return _FRAMEWORKS.get(runtime)


def likely_framework(path: Path) -> str | None:
    """The framework that names suggest, nothing opened. A wrong guess costs a process that is ended again."""
    if (found := _SUFFIXES.get(path.suffix.lower())) is not None:
        return found
    if (path / "saved_model.pb").exists():
        return "tensorflow"
    return "torch" if any((path / name).exists() for name in HUGGING_FACE_WEIGHTS) else None


def can_narrow(settings: WorkerSettings, system: str = sys.platform) -> bool:
    """Whether a process can be held to the files of a load once that is known. macOS takes one profile, for good."""
    return system != "darwin" or not settings.sandbox


def kind_of_start(settings: WorkerSettings, threads: int) -> object:
    """Equal for starts of workers that differ in nothing but their folders, and in what they may read."""
    environment = child_environment(settings, threads, Path())
    return child_command(settings), environment, settings.sandbox, settings.memory_mb


class Spare:
    """One such process, on its own until :meth:`take`. Raises OSError where it cannot be started."""

    def __init__(self, framework: str, kind: object, threads: int, start: StartSpare) -> None:
        self.framework = framework
        self.kind = kind
        self.threads = threads
        self.is_warm = threading.Event()
        """Set once its framework is imported, and where it has ended."""
        self._lock = threading.Lock()
        self._exit: Exit | None = None
        self._taker: Taker | None = None
        self.client = start(framework, threads, self._on_message, self._on_exit)

    @property
    def alive(self) -> bool:
        return self._exit is None

    def take(self, on_message: Callable[[Message], None], on_exit: Callable[[Exit], None]) -> WorkerClient | None:
        """From now on it is the caller's; None where it has ended."""
        with self._lock:
            if self._exit is not None:
                return None
            self._taker = (on_message, on_exit)
            return self.client

    def end(self, reason: str) -> None:
        """Kill it; returns at once."""
        self.client.kill(reason)

    def _on_message(self, message: Message) -> None:
        if message.type == "warm" and not self.is_warm.is_set():
            self.is_warm.set()
            return
        with self._lock:
            taker = self._taker
        if taker is None:
            self.client.kill("A spare said what nobody asked.")
        else:
            taker[0](message)

    def _on_exit(self, exit_: Exit) -> None:
        with self._lock:
            self._exit = exit_
            taker = self._taker
        self.is_warm.set()
        if taker is not None:
            taker[1](exit_)
        elif not exit_.reason:
            log.info("a spare for %s ended: %s %s", self.framework, exit_.sentence(), exit_.last_words[-500:])


@dataclass(frozen=True, slots=True)
class SparePolicy:
    """What :class:`Spares` asks of its engine; each is asked anew."""

    settings: Callable[[], WorkerSettings]
    threads: Callable[[], int]
    """Of a worker that starts now for one more model."""
    start: StartSpare
    later: Callable[[Callable[[], None]], None]
    """Calls it soon, on another thread."""
    clock: Callable[[], float]
    wake: Callable[[float], None]
    """Have :meth:`Spares.tick` called at this clock time."""


class Spares:
    """Every method may be called from any thread, and none waits for a process, but :meth:`close`."""

    def __init__(self, policy: SparePolicy) -> None:
        self._policy = policy
        self._lock = threading.Lock()
        self._asked = False
        self._closed = False
        self._kept: dict[str, Spare] = {}
        self._due: dict[str, float] = {}
        """Clock time at which a framework's spare is to be started."""
        self._ended: list[Spare] = []
        """Those that we end; :meth:`close` waits for them."""

    @property
    def on(self) -> bool:
        """Whether loads are followed by a spare: as the settings say, else since :meth:`keep` was called."""
        settings = self._policy.settings()
        wanted = self._asked if settings.spare is None else settings.spare
        return wanted and can_narrow(settings) and computer_memory()[0] >= LEAST_MEMORY

    @property
    def pids(self) -> tuple[int, ...]:
        """Of those that wait."""
        with self._lock:
            return tuple(spare.client.pid for spare in self._kept.values() if spare.alive)

    def kept(self, framework: str) -> Spare | None:
        """That which waits for a load, for looking at."""
        with self._lock:
            return self._kept.get(framework)

    # -- warm spares -----------------------------------------------------------------------------------------------
    def keep(self, framework: str | None) -> None:
        """Follow loads by a spare from now on, and have one for ``framework`` soon."""
        self._asked = True
        self.used(framework, after_s=0.0)

    def used(self, framework: str | None, after_s: float = REFILL_AFTER_S) -> None:
        """A model of this framework is there; in a while another one may come."""
        if framework is None or not self.on:
            return
        due = self._policy.clock() + after_s
        with self._lock:
            self._due[framework] = due
        self._policy.wake(due)

    def look_again(self) -> None:
        """What a load would start has changed, as it does with the number of models: replace those that do not fit."""
        with self._lock:
            kept = list(self._kept)
        for framework in kept:
            self.used(framework)

    def tick(self) -> float | None:
        """Start what is due; the result is when to call again."""
        now = self._policy.clock()
        with self._lock:
            due = [framework for framework, at in self._due.items() if at <= now]
            for framework in due:
                del self._due[framework]
            next_at = min(self._due.values(), default=None)
        for framework in due:
            self._policy.later(lambda framework=framework: self._refill(framework))  # type: ignore[misc]
        return next_at

    def _refill(self, framework: str) -> None:
        if not self.on or computer_memory()[1] < LEAST_AVAILABLE:
            return
        threads = self._policy.threads()
        if self._is_kept(framework, threads):
            return
        try:
            spare = self._start(framework, threads)
        except OSError as error:
            log.warning("a spare for %s could not be started: %s", framework, error)
            return
        self.offer(spare)

    def offer(self, spare: Spare) -> None:
        """Let one that is not needed wait for the next load, where one is wanted; else it is ended."""
        with self._lock:
            other = self._kept.get(spare.framework)
            fits = not self._closed and self.on and spare.alive
            if fits:
                self._kept[spare.framework] = spare
        if not fits:
            self._end(spare, "It is not needed.")
        elif other is not None and other is not spare:
            self._end(other, "Another one took its place.")

    def end(self, reason: str) -> None:
        """Give back the memory of those that wait; the next load of a framework brings its spare again."""
        with self._lock:
            ended = list(self._kept.values())
            self._kept.clear()
            self._due.clear()
        for spare in ended:
            self._end(spare, reason)

    # -- loads -----------------------------------------------------------------------------------------------------
    def head_start(self, framework: str | None, threads: int) -> Spare | None:
        """A process for a load that begins; None where there is one that waits, or none would help."""
        if self._closed or framework is None or not can_narrow(self._policy.settings()):
            return None
        if self._is_kept(framework, threads):
            return None
        try:
            return self._start(framework, threads)
        except OSError as error:
            log.warning("a process for %s could not be started ahead: %s", framework, error)
            return None

    def take(
        self,
        ahead: Spare | None,
        framework: str | None,
        threads: int,
        on_message: Callable[[Message], None],
        on_exit: Callable[[Exit], None],
    ) -> WorkerClient | None:
        """The process for a load: its head start, else one that waits, where that is what would be started now."""
        kind = kind_of_start(self._policy.settings(), threads)
        taken: WorkerClient | None = None
        with self._lock:
            # One of another kind stays: the next look at what is kept judges it by what a load would need then.
            kept = self._kept.get(framework) if framework is not None else None
            if kept is not None and kept.kind == kind:
                del self._kept[kept.framework]
                taken = kept.take(on_message, on_exit)
        if ahead is not None and taken is None and ahead.framework == framework and ahead.kind == kind:
            return ahead.take(on_message, on_exit)
        if ahead is not None:
            self.offer(ahead)
        return taken

    def close(self) -> None:
        """End them, and wait until they are gone."""
        with self._lock:
            self._closed = True
        self.end("The engine is closed.")
        with self._lock:
            ended, self._ended = self._ended, []
        for spare in ended:
            spare.client.join(5.0)

    # -- inside ----------------------------------------------------------------------------------------------------
    def _is_kept(self, framework: str, threads: int) -> bool:
        kind = kind_of_start(self._policy.settings(), threads)
        with self._lock:
            kept = self._kept.get(framework)
        return kept is not None and kept.alive and kept.kind == kind

    def _start(self, framework: str, threads: int) -> Spare:
        """Raises OSError."""
        return Spare(framework, kind_of_start(self._policy.settings(), threads), threads, self._policy.start)

    def _end(self, spare: Spare, reason: str) -> None:
        spare.end(reason)
        with self._lock:
            self._ended = [other for other in self._ended if other.alive]
            self._ended.append(spare)
            closed = self._closed
        if closed:
            spare.client.join(5.0)
