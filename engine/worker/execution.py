"""Running decoded work on the model: rows of several requests in one call, and what happens when a call fails.

Rows with equal dtypes and shapes run together, at most ``max_rows`` of them. A call that raises is tried again item by
item, then row by row, once: so a poison row fails alone. Out of device memory halves the rows and remembers (``fits``).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import DeviceOutOfMemory, EngineError, UnusableInput
from engine.worker.runtimes.base import FailureKind, Runtime, Threaded
from engine.worker.tasks.base import Arrays
from engine.worker.work import Block, Work

log = logging.getLogger(__name__)


class DeviceLost(Exception):
    """The runtime can run nothing any more; only a new process helps."""


Shape = tuple[tuple[str, str, tuple[int, ...]], ...]


def shape_of(arrays: Arrays) -> Shape:
    """What two calls of a model have in common beside their rows: names, dtypes and shapes but for the rows."""
    return tuple(sorted((name, array.dtype.str, array.shape[1:]) for name, array in arrays.items()))


@dataclass(frozen=True, slots=True)
class Prepared:
    """A faster way to run the model, for calls like those on which it was compared with it: of these shapes, and of at
    most so many rows. ``streams``: how many threads may run it at once."""

    run: Callable[[Arrays], Arrays]
    shapes: frozenset[Shape]
    rows: int
    streams: int = 1

    def takes(self, batch: Arrays) -> bool:
        fits = all(array.ndim and len(array) <= self.rows for array in batch.values())
        return fits and shape_of(batch) in self.shapes

    def takes_all(self, works: Iterable[Work], most: int) -> bool:
        """Whether every call is one of its own that ``works`` are run in, of ``most`` rows each."""
        blocks = [block for work in works for block in work.blocks]
        if any(block.whole or shape_of(block.arrays) not in self.shapes for block in blocks):
            return False
        return min(most, sum(block.rows for block in blocks)) <= self.rows


class Turns:
    """One thread at a time runs the untouched model, which may have a state; executing ones go before others."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._taken = False
        self._first_wait = 0

    @contextmanager
    def taken(self, *, first: bool = False) -> Iterator[None]:
        with self._changed:
            self._first_wait += first
            while self._taken or (self._first_wait and not first):
                self._changed.wait()
            self._first_wait -= first
            self._taken = True
        try:
            yield
        finally:
            with self._changed:
                self._taken = False
                self._changed.notify_all()


@dataclass(frozen=True, slots=True)
class _Piece:
    """Rows ``first`` to ``last`` (not included) of a block."""

    block: Block
    first: int
    last: int

    @property
    def rows(self) -> int:
        return self.last - self.first

    @property
    def is_whole_block(self) -> bool:
        return self.rows == self.block.rows

    def arrays(self) -> Arrays:
        if self.block.source is not None:
            return self.block.source(self.first, self.last)
        if self.is_whole_block:
            return self.block.arrays
        return {name: a[self.first : self.last] for name, a in self.block.arrays.items()}

    def keep(self, outputs: Arrays) -> None:
        """Leave what the model answered in the block, or what the block wants kept of it."""
        if self.block.reduce is None:
            self.block.parts[self.first] = outputs
            return
        try:
            self.block.parts[self.first] = self.block.reduce(outputs)
        except EngineError as error:
            self.fail(error)

    def fail(self, error: EngineError) -> None:
        for row in range(self.first, self.last):
            self.block.row_errors[row] = error


class Executor:
    """Runs work on one loaded model, in one thread, or in as many as the prepared model may be run by at once.

    ``fixed_rows``: the model's first dimension where it is a constant; calls are filled up to it by repeating a row,
    and what those rows answer is dropped. ``threads``: those of one operator, where a call has nothing beside it.
    """

    def __init__(
        self, runtime: Runtime, signature: str, max_rows: int, fixed_rows: int | None = None, threads: int = 1
    ) -> None:
        self._runtime = runtime
        self._signature = signature
        self._fixed_rows = fixed_rows
        self._lock = threading.Lock()
        self._prepared_calls = 0
        """Calls of the prepared model that compute now."""
        self.threads = threads
        self.threads_from = 1
        """A call of fewer rows takes one thread, even alone: a probe found that more hold each other up. Another thread
        may set it."""
        self.is_alone: Callable[[], bool] = lambda: True
        """Whether the work that runs now is all there is."""
        self.inferences = 0
        """How often the model was run."""
        self.limit = max_rows
        """Rows of one call at most, as is wanted. Another thread may change it: the next call keeps to it."""
        self.fits: int | None = None
        """Rows of one call that the device's memory was found to allow; None: nothing was found."""
        self.knee: int | None = None
        """Rows of one call beyond which a probe found nothing to win. Another thread may set it."""
        self.prepared: Prepared | None = None
        """What runs instead of the untouched model, where it may. Another thread may set it: the next call has it."""
        self.has_withdrawn = False
        """Whether a prepared model has failed where the untouched one answered."""
        self.turns = Turns()

    @property
    def max_rows(self) -> int:
        """Rows of one call."""
        return self._fixed_rows or min(n for n in (self.limit, self.fits, self.knee) if n is not None)

    @property
    def fixed_rows(self) -> int | None:
        return self._fixed_rows

    def run_untouched(self, batch: Arrays) -> Arrays:
        """The model as it was loaded, for a thread that has taken its turn. Raises whatever the framework raises."""
        return self._runtime.run(batch, self._signature)

    def execute(self, works: Iterable[Work]) -> None:
        """Run every block of ``works``; outputs and errors are left in the blocks. Raises DeviceLost."""
        groups: dict[tuple[Any, ...], list[Block]] = {}
        for work in works:
            for block in work.blocks:
                groups.setdefault(block.key(), []).append(block)
        for blocks in groups.values():
            self._run_all([_Piece(block, 0, block.rows) for block in blocks])

    def _run_all(self, pieces: list[_Piece]) -> None:
        """Run ``pieces`` in calls of at most ``max_rows`` rows. The limit may fall while they run."""
        waiting = pieces[::-1]
        while waiting:
            call: list[_Piece] = []
            room = self.max_rows
            while waiting and room:
                piece = waiting.pop()
                if piece.rows > room and not piece.block.whole:
                    waiting.append(_Piece(piece.block, piece.first + room, piece.last))
                    piece = _Piece(piece.block, piece.first, piece.first + room)
                call.append(piece)
                room = max(0, room - piece.rows)
            self._run_call(call)

    def _run_call(self, pieces: list[_Piece]) -> None:
        try:
            self._infer(pieces)
        except _RowsNotKept as error:
            if len(pieces) > 1:
                for piece in pieces:
                    self._run_call([piece])
            else:
                pieces[0].fail(error.answer)
        except Exception as error:  # noqa: BLE001  # what a model may raise is not bounded; every kind is answered
            self._recover(pieces, error)

    def _recover(self, pieces: list[_Piece], error: Exception) -> None:
        kind = self._runtime.failure(error)
        rows = sum(piece.rows for piece in pieces)
        log.warning("a call of %d rows failed (%s)", rows, kind.value, exc_info=error)
        if kind is FailureKind.DEVICE_LOST:
            raise DeviceLost(str(error)) from error
        if kind is FailureKind.OUT_OF_MEMORY:
            if rows > 1 and self._fixed_rows is None and not pieces[0].block.whole:
                self.fits = max(1, min(self.max_rows, rows) // 2)
                self._run_all(pieces)
                return
            for piece in pieces:
                piece.fail(DeviceOutOfMemory("The device has not enough memory for this input.", details=str(error)))
            return
        if len(pieces) > 1:
            for piece in pieces:
                self._run_call([piece])
        elif rows > 1 and pieces[0].block.row_by_row:
            piece = pieces[0]
            for row in range(piece.first, piece.last):
                self._run_call([_Piece(piece.block, row, row + 1)])
        else:
            answer = UnusableInput(
                f"The model failed on this input with {type(error).__name__}.", code="model_error", details=str(error)
            )
            pieces[0].fail(answer)

    def _infer(self, pieces: list[_Piece]) -> None:
        """One call of the model; its outputs are shared out among the pieces."""
        batch = pieces[0].arrays()
        if len(pieces) > 1:
            parts = [piece.arrays() for piece in pieces]
            batch = {name: np.concatenate([part[name] for part in parts]) for name in batch}
        rows = sum(piece.rows for piece in pieces)
        if self._fixed_rows is not None and not pieces[0].block.whole:
            batch = {name: fill_rows(array, self._fixed_rows) for name, array in batch.items()}
        with self._lock:
            self.inferences += 1
        begun = time.perf_counter()
        try:
            outputs = self._call(batch, whole=pieces[0].block.whole)
        finally:
            spent = round((time.perf_counter() - begun) * 1000.0, 3)
            for piece in pieces:
                piece.block.infer_ms += spent
        if pieces[0].block.whole:
            pieces[0].block.parts[0] = outputs
            return
        answered = len(next(iter(batch.values())))
        for name, array in outputs.items():
            if array.ndim == 0 or len(array) != answered:
                if len(pieces) == 1 and pieces[0].is_whole_block and not pieces[0].block.row_by_row:
                    pieces[0].block.whole = True
                    pieces[0].block.parts[0] = outputs
                    return
                raise _RowsNotKept(name, array.shape, answered)
        offset = 0
        for piece in pieces:
            part = {name: a[offset : offset + piece.rows] for name, a in outputs.items()}
            piece.keep(part if rows == piece.rows else {n: a.copy() for n, a in part.items()})
            offset += piece.rows

    def _call(self, batch: Arrays, *, whole: bool) -> Arrays:
        """By the prepared model, where that may; where it fails and the untouched one does not, never again."""
        prepared = self.prepared
        if prepared is None or whole or not prepared.takes(batch):
            return self._call_untouched(batch)
        try:
            return self._call_prepared(prepared, batch)
        except Exception as error:  # whatever it is, the untouched model says whose fault it is
            outputs = self._call_untouched(batch)
            log.warning("the prepared model failed and is not used any more", exc_info=error)
            self.prepared, self.has_withdrawn = None, True
            return outputs

    def _call_untouched(self, batch: Arrays) -> Arrays:
        with self.turns.taken(first=True):
            self.use_threads(1 if self._prepared_calls else self._threads_alone(batch))
            return self.run_untouched(batch)

    def _call_prepared(self, prepared: Prepared, batch: Arrays) -> Arrays:
        """Several calls at once take one thread each, one alone takes all: threads of one operator wait for each other,
        and a call that has a core to itself waits for nobody."""
        with self._lock:
            self._prepared_calls += 1
        try:
            is_alone = prepared.streams == 1 or self.is_alone()
            self.use_threads(self._threads_alone(batch) if is_alone else 1)
            return prepared.run(batch)
        finally:
            with self._lock:
                self._prepared_calls -= 1

    def _threads_alone(self, batch: Arrays) -> int:
        if self.threads_from == 1:
            return self.threads
        return self.threads if all(a.ndim and len(a) >= self.threads_from for a in batch.values()) else 1

    def use_threads(self, threads: int) -> None:
        """Of one operator, for what the calling thread runs next, where the runtime lets that change."""
        if isinstance(self._runtime, Threaded):
            self._runtime.use_threads(threads)


class _RowsNotKept(Exception):
    """An output has not one row for each row of input, so nobody can say which rows are whose."""

    def __init__(self, name: str, shape: tuple[int, ...], rows: int) -> None:
        super().__init__(name)
        self.answer = UnusableInput(
            f"The model's output {name!r} has shape {list(shape)} for {rows} rows of input.", code="model_error"
        )


def fill_rows(array: NDArray[Any], rows: int) -> NDArray[Any]:
    missing = rows - len(array)
    return array if missing <= 0 else np.concatenate([array, np.repeat(array[-1:], missing, axis=0)])
