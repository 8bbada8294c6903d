"""Trying faster ways to run a model that answers already: each is used only if it is as right, and faster.

As right: on the golden sample, where there is one, and on made-up inputs of several kinds and numbers of rows, every
output is that of the untouched model within ``TOLERANCE`` of its largest number. Faster: in a short probe, in which
both run in turn. What was compared binds what is used: calls of other shapes, or of more rows, stay with the untouched
model, so that a graph that holds for one size never answers for another.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import inf, prod
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.codecs.arrays import numpy_dtype
from engine.model_spec import ModelSpec, TensorSpec
from engine.preparation import MAX_STREAMS, Preparation, PreparationState, Reason
from engine.worker.execution import Executor, Prepared, Shape, fill_rows, shape_of
from engine.worker.loading import LoadedModel, sample_shape
from engine.worker.runtimes.base import NotPrepared, Preparable, Threaded, Variant
from engine.worker.tasks.base import Arrays
from engine.worker.work import Work

log = logging.getLogger(__name__)

TOLERANCE = 2e-4
"""Of an output's largest number. A bound below what float32 rounds anyway refuses what is as right: a MobileNetV2 is
itself 1.1e-5 off what it answers in float64 where pixels go from 0 to 255, and its frozen graph 1.5e-5; a ResNet-50's
answers to a dark picture, 500 times smaller than to others, differ by 1.2e-4. Exporters of models compare at 1e-3."""
_ABSOLUTE = 1e-7
"""What a number may move in an output that is all but zero."""
LEAST_GAIN = 1.05
"""Below it nothing is won that a probe can tell from noise."""
_MOST_LOST = 0.9
"""At no number of rows may it be slower than that."""
_ROWS = (2, 1, 3, 4, 8, 16, 32)
_CHECK_S = 10.0
"""The comparison takes no further numbers of rows after so long."""
_LONG_CALL_S = 0.5
"""Nor numbers of rows that would take so long: they are past any gain, and each try holds up an answer as long."""
_SLOWEST_S = 5.0
"""A model that takes longer for one answer is left alone: trying would hold up its answers."""
_PROBE_S = 0.5
_LEAST_ROUNDS = 5
_SLOW_PROBE_S = 2.0
"""After so long fewer rounds must do: of long calls the least is found soon."""
_MOST_ROUNDS = 50
_MOST_BYTES = 64 << 20
"""Of one made-up input."""
_BESIDE_S = 0.0005
"""What a batch costs beside the model's run."""
_KNEE = 0.9
"""The fewest rows that reach this share of the best throughput are as many as are worth waiting for."""
STREAM_FROM_S = 0.002
"""A model that takes less for a full batch on one thread runs one batch at a time: what lies beside the model holds
Python's lock, and threads that wait for that win nothing."""

_LEAST_SHARED = 1.1
"""How many times as fast all threads together have to be as one, so that a call alone takes them."""
_THREAD_ROUNDS = 7

Run = Callable[[Arrays], Arrays]


@dataclass(frozen=True, slots=True)
class _Case:
    """An input, and what the untouched model answers it."""

    batch: Arrays
    rows: int
    expected: Arrays


def prepare(model: LoadedModel, golden: Work | None = None) -> tuple[Preparation, Prepared | None]:
    """Try what the model's runtime knows, and how many rows of one run pay; for a thread beside the executing one.

    The result is what to tell, and what to run from now on, if anything. Never raises for what a model or a framework
    does.
    """
    try:
        return _Trial(model.executor, model.runtime, model.spec, golden).run()
    except NotPrepared as refusal:
        return Preparation(PreparationState.UNUSED, reason=refusal.reason), None
    except Exception as error:  # the model answers without
        log.warning("the model could not be prepared", exc_info=error)
        return Preparation(PreparationState.UNUSED, reason=Reason.FAILED), None


class _Trial:
    def __init__(self, executor: Executor, runtime: Any, spec: ModelSpec, golden: Work | None) -> None:
        self._executor = executor
        self._runtime = runtime
        self._spec = spec
        self._golden = golden
        self._cases: list[_Case] = []
        self._by_rows: dict[int, Arrays] = {}
        """An input of each number of rows that was compared, to probe with."""
        self._gained = 1.0
        """How many times as fast what was kept is."""
        self._seconds: dict[int, float] = {}
        """The least time of a call of so many rows, of the way that is used from now on."""
        self._row_s = inf
        """What the untouched model took for a row, at best."""

    def run(self) -> tuple[Preparation, Prepared | None]:
        self._collect_cases()
        variant, reason = self._try_variants()
        self._executor.threads_from = self._threads_from(variant.run if variant else self._executor.run_untouched)
        if variant is None:
            knee = self._knee(self._executor.run_untouched)
            return Preparation(PreparationState.UNUSED, reason=reason, batch=knee), None
        batch = self._knee(variant.run) or self._most_compared()
        # Only where its threads can be told: several batches take one each.
        streams = self._streams(variant.run, batch) if variant.is_shared and self._is_threaded else 1
        shapes: frozenset[Shape] = frozenset(shape_of(case.batch) for case in self._cases)
        told = Preparation(PreparationState.USED, variant.steps, round(self._gained, 2), batch=batch, streams=streams)
        return told, Prepared(variant.run, shapes, max(self._by_rows), streams)

    # -- what to compare on ----------------------------------------------------------------------------------------
    def _collect_cases(self) -> None:
        """Raises NotPrepared where there is nothing to compare on, or the model answers one question in two ways."""
        begun = time.perf_counter()
        for batch, is_needed in self._inputs():
            rows = rows_of(batch)
            if not is_needed and (time.perf_counter() - begun > _CHECK_S or rows * self._row_s > _LONG_CALL_S):
                break
            started = time.perf_counter()
            try:
                expected = self._run_untouched(batch)
                again = self._run_untouched(batch) if is_needed else expected
            except Exception as error:  # a made-up input may be one that the model refuses
                log.info("the model refuses a made-up input", exc_info=error)
                continue
            if time.perf_counter() - started > 2 * _SLOWEST_S:
                raise NotPrepared(Reason.TOO_LARGE)
            if not agree(expected, again):
                raise NotPrepared(Reason.RANDOM)
            self._cases.append(_Case(batch, rows, expected))
            self._by_rows.setdefault(rows, batch)
        if not self._cases:
            raise NotPrepared(Reason.NO_SAMPLE)

    def _run_untouched(self, batch: Arrays) -> Arrays:
        with self._executor.turns.taken():
            begun = time.perf_counter()
            outputs = self._executor.run_untouched(batch)
            self._row_s = min(self._row_s, (time.perf_counter() - begun) / rows_of(batch))
            return outputs

    def _inputs(self) -> Iterator[tuple[Arrays, bool]]:
        """Inputs to compare on, and whether they are needed: several kinds of numbers, then several numbers of rows."""
        golden = list(self._golden_inputs())
        for batch in golden:
            yield batch, True
        tensors = self._tensors(golden[0] if golden else None)
        if tensors is None:
            return
        fixed = self._executor.fixed_rows
        most = self._executor.limit
        numbers = [fixed] if fixed is not None else [n for n in _ROWS if n <= most]
        if fixed is None and 1 < most <= max(_ROWS) and most not in numbers:
            numbers.append(most)
        row_bytes = max(prod(shape) * dtype.itemsize for _, dtype, shape in tensors)
        numbers = [n for n in numbers if n * row_bytes <= _MOST_BYTES]
        generator = np.random.default_rng(0)
        for kind in _KINDS:
            if numbers:
                yield _made_up(tensors, numbers[0], kind, generator), True
        for number in numbers[1:]:
            yield _made_up(tensors, number, _KINDS[0], generator), False

    def _golden_inputs(self) -> Iterator[Arrays]:
        most = self._executor.limit
        fixed = self._executor.fixed_rows
        for block in self._golden.blocks if self._golden is not None else ():
            if block.whole or not block.rows:
                continue
            last = min(block.rows, most)
            arrays = block.source(0, last) if block.source is not None else block.arrays
            cut = {name: array[:last] for name, array in arrays.items()}
            yield {n: fill_rows(a[:fixed], fixed) for n, a in cut.items()} if fixed is not None else cut

    def _tensors(self, golden: Arrays | None) -> list[tuple[str, np.dtype[Any], tuple[int, ...]]] | None:
        """Name, dtype and shape but for the rows of each input; None where nothing tells them, or an input is text."""
        if golden is not None:
            told = [(name, array.dtype, array.shape[1:]) for name, array in golden.items()]
        else:
            told = []
            for tensor in self._spec.inputs:
                shape = sample_shape(tensor, self._spec)
                if shape is None or not _has_rows(tensor, self._executor.fixed_rows):
                    return None
                told.append((tensor.name, numpy_dtype(tensor.dtype), shape[1:]))
        return None if not told or any(dtype.kind not in "biuf" for _, dtype, _ in told) else told

    # -- comparing -------------------------------------------------------------------------------------------------
    def _try_variants(self) -> tuple[Variant | None, Reason]:
        """The fastest way that is right (None: the untouched model), and why not more."""
        best: Variant | None = None
        reason = Reason.UNKNOWN
        if not isinstance(self._runtime, Preparable):
            return best, reason
        variants = self._runtime.variants(self._cases[0].batch)
        keep = None
        try:
            while True:
                variant = variants.send(keep)  # type: ignore[arg-type]  # the first is None, as generators want it
                before = self._executor.run_untouched if best is None else best.run
                refusal = variant.reason if isinstance(variant, NotPrepared) else self._refusal(variant, before)
                keep = refusal is None
                if refusal is not None:
                    reason = refusal
                elif isinstance(variant, Variant):
                    best = variant
        except StopIteration:
            return best, reason
        except NotPrepared as refused:
            return best, refused.reason
        finally:
            variants.close()

    def _refusal(self, variant: Variant, best: Run) -> Reason | None:
        """Why ``variant`` is not to run instead of ``best``; None where it is."""
        words = ", ".join(variant.steps)
        try:
            for number, case in enumerate(self._cases):
                # In turn with one thread and with all: either way it will be asked.
                self._executor.use_threads(1 if number % 2 else self._executor.threads)
                try:
                    found = variant.run(case.batch)
                except Exception as error:  # what a model may raise is not bounded
                    log.info("%s: fails for %d rows", words, case.rows, exc_info=error)
                    return Reason.FAILED
                if not agree(case.expected, found):
                    log.info("%s: answers %d rows differently", words, case.rows)
                    return Reason.DIFFERS
        finally:
            self._executor.use_threads(self._executor.threads)
        gain = self._gain(best, variant.run)
        if gain is None:
            return Reason.SLOWER
        self._gained *= gain
        return None

    def _gain(self, old: Run, new: Run) -> float | None:
        """How many times as fast ``new`` is, the mean over one row and many; None where it is not worth it."""
        ratios = []
        for rows in {min(self._by_rows), max(self._by_rows)}:
            before, after = self._least_seconds([(old, self._by_rows[rows]), (new, self._by_rows[rows])], self._clock)
            ratios.append(before / after)
        mean = float(np.exp(np.mean(np.log(ratios))))
        return mean if mean >= LEAST_GAIN and min(ratios) >= _MOST_LOST else None

    @property
    def _is_threaded(self) -> bool:
        return self._runtime.device == "cpu" and isinstance(self._runtime, Threaded)

    @property
    def _clock(self) -> Callable[[], float]:
        """By which calls are compared. Where it can be had, what the processor worked for the one thread that a call
        then takes, or for the whole process where another thread computes: with threads that wait for each other, on a
        machine that does something else, every way seems slow, and a graph twice as fast was refused for it."""
        if not self._is_threaded or sys.platform == "win32":  # there it moves in steps of a sixty-fourth of a second
            return time.perf_counter
        return time.thread_time if self._runtime.computes_in_caller else time.process_time

    def _knee(self, run: Run) -> int | None:
        """The rows of one run that are worth waiting for; None where all that were tried are."""
        numbers = sorted(n for n in self._by_rows if n.bit_count() == 1)
        if self._executor.fixed_rows is not None or len(numbers) < 2:
            return None
        # On a busy machine a long run is interrupted more often than a short one: what the processor worked is told.
        clock = time.process_time if self._runtime.device == "cpu" else time.perf_counter
        if self._is_threaded:
            clock = self._clock
        least = self._least_seconds([(run, self._by_rows[rows]) for rows in numbers], clock)
        self._seconds = dict(zip(numbers, least, strict=True))
        each = {rows: (seconds + _BESIDE_S) / rows for rows, seconds in self._seconds.items()}
        best = min(each.values())
        knee = next(rows for rows in numbers if each[rows] * _KNEE <= best)
        return None if knee == numbers[-1] else knee

    def _most_compared(self) -> int | None:
        """The rows beyond which a call would fall to the untouched model; None where there are no such calls."""
        most = max(self._by_rows)
        return most if self._executor.fixed_rows is None and most < self._executor.limit else None

    def _streams(self, run: Run, batch: int | None) -> int:
        """How many batches are worth running at once: one a core, unless what is beside the model outweighs it."""
        rows = max(n for n in self._seconds or self._by_rows if n <= (batch or n))
        least = self._seconds.get(rows)
        if least is None:
            (least,) = self._least_seconds([(run, self._by_rows[rows])], self._clock)
        return min(self._executor.threads, MAX_STREAMS) if least >= STREAM_FROM_S else 1

    def _threads_from(self, run: Run) -> int:
        """From how many rows of a call on all threads together are faster than one; one more than the most that were
        tried where they never are. By the clock on the wall, and the median: what makes them slow is waiting for each
        other, which a processor's clock does not see and the best of many rounds hides."""
        threads = self._executor.threads
        if not self._is_threaded or threads == 1:
            return 1
        found = max(self._by_rows) + 1
        for rows, batch in sorted(self._by_rows.items(), reverse=True):
            begun = time.perf_counter()
            ones: list[float] = []
            alls: list[float] = []
            while len(ones) < _THREAD_ROUNDS and (not ones or time.perf_counter() - begun < _PROBE_S):
                for number, times in ((1, ones), (threads, alls)):
                    with self._executor.turns.taken():
                        self._executor.use_threads(number)
                        times.append(seconds_of(run, batch, time.perf_counter))
            self._executor.use_threads(threads)
            if median(ones) < _LEAST_SHARED * median(alls):
                break
            found = rows
        log.info("a call takes %d threads from %d rows on", threads, found)
        return found

    def _least_seconds(self, calls: Sequence[tuple[Run, Arrays]], clock: Callable[[], float]) -> list[float]:
        """The least time of each call, none with an answer computed beside it. They alternate: what else the machine
        does falls on all."""
        if self._is_threaded:
            self._executor.use_threads(1)
        least = [inf] * len(calls)
        begun = time.perf_counter()
        for number in range(_MOST_ROUNDS):
            spent = time.perf_counter() - begun
            if spent > (_PROBE_S if number >= _LEAST_ROUNDS else _SLOW_PROBE_S):
                break
            for i, (run, batch) in enumerate(calls):
                with self._executor.turns.taken():
                    least[i] = min(least[i], seconds_of(run, batch, clock))
        if self._is_threaded:
            self._executor.use_threads(self._executor.threads)
        return least


def rows_of(batch: Arrays) -> int:
    return len(next(iter(batch.values())))


def seconds_of(run: Run, batch: Arrays, clock: Callable[[], float]) -> float:
    """What one call takes, by ``clock``."""
    begun = clock()
    run(batch)
    return clock() - begun


def agree(expected: Arrays, found: Arrays) -> bool:
    """Whether two answers are the same: names, shapes, dtypes, every word and whole number, and every other number
    within ``TOLERANCE`` of the largest of its output; what is not finite stands in the same places."""
    return list(expected) == list(found) and all(_equal(one, found[name]) for name, one in expected.items())


def _equal(one: NDArray[Any], other: NDArray[Any]) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if one.dtype.kind != "f":
        return bool((one == other).all())
    finite = np.isfinite(one)
    if not np.array_equal(finite, np.isfinite(other)):
        return False
    if not np.array_equal(one[~finite], other[~finite], equal_nan=True):
        return False
    largest = float(np.abs(one).max(initial=0.0, where=finite))
    difference = np.abs(np.subtract(one, other, where=finite, out=np.zeros_like(one)))
    return float(difference.max(initial=0.0)) <= max(TOLERANCE * largest, _ABSOLUTE)


def _has_rows(tensor: TensorSpec, fixed: int | None) -> bool:
    return bool(tensor.shape) and (tensor.shape[0] == -1 or fixed is not None)


_KINDS = ("normal", "unit", "bytes", "negative", "zeros")


def _made_up(
    tensors: list[tuple[str, np.dtype[Any], tuple[int, ...]]], rows: int, kind: str, generator: np.random.Generator
) -> Arrays:
    """Numbers of the sizes that inputs come in: around zero, from 0 to 1, from 0 to 255, all below zero, nothing.

    Whole numbers may be positions in a table of any length: they are 0 and 1.
    """
    batch: Arrays = {}
    for name, dtype, shape in tensors:
        size = (rows, *shape)
        numbers: NDArray[Any]
        if dtype.kind != "f":
            numbers = generator.integers(0, 2, size)
        elif kind == "normal":
            numbers = generator.standard_normal(size)
        elif kind == "bytes":
            numbers = generator.integers(0, 256, size)
        elif kind == "negative":
            numbers = -3.0 * generator.random(size)
        else:
            numbers = generator.random(size)
        batch[name] = (numbers * (kind != "zeros")).astype(dtype)
    return batch
