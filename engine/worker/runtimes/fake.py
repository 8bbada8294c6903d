"""A runtime without a framework, for tests: it computes what a test can check, and fails as it is told.

It is reached only by ``runtime="fake"`` in code; its faults come only from ``spec.options``, which no file can set.

Without ``spec.inputs`` it takes one input ``x`` of shape [any, any], float32. It answers ``y`` = 2·x of the first input
and ``checksum`` = the sum of each row (float64), by which a test sees that no answer went to another request. With
labels (``spec.labels`` or option ``labels``), or with a classification task, it also answers ``scores`` (rows, labels):
0.9 for label number ``int(abs(checksum)) % labels``, the rest shared evenly.

Options; "on" values compare with the first element of a row:

========================  ============================================================================================
``labels``                list of class names
``scale``                 what ``y`` is of ``x``; 2 without it
``options_file``          path of a JSON object of more options, read by each load: a model file that changes
``load_s``                seconds the load takes, spread evenly over its stages
``load_hang``             true: the load never ends (it hangs in "importing framework")
``stage_hang``            value of a LoadStage in which the load never ends
``load_error``            sentence with which the load fails (``load_failed``)
``load_crash``            true: the process dies with exit code 9 in "reading weights"
``read_files``            true: "reading weights" reads every byte of ``spec.files``, 1 MiB at a time
``read_s``                seconds that reading takes in all, spread evenly over the chunks
``big_mb``                MiB that are allocated, and touched, by the load and kept
``delay_s``               seconds each run takes
``crash_on_value``        the process dies with exit code 9
``hang_on_value``         the run never ends
``raise_on_value``        the run raises ValueError
``nan_on_value``          every output of that row is NaN
``oom_above_rows``        a run of more rows is out of memory
``lost_on_value``         the run fails as a lost device does: the worker ends
``leak_mb``               MiB that each run allocates, touches and keeps
``on_device``             the device that it says it runs on; PyTorch is imported for it
``noise``                 true: each run prints 8 KiB to standard output and standard error
``act``, ``act_on``       what each run does first, and with what: see engine.worker.runtimes.fake_acts
``lie``                   how the reply to the next batch breaks the protocol: see engine.worker.runtimes.fake_lies
``crash_times``           how often ``crash_on_value`` and ``load_crash`` happen at most, over all processes
``lie_times``             the same for ``lie``
``hang_times``            the same for ``hang_on_value``
``counter_file``          path of the file, made where missing, that counts for these; needed with them
``started_file``          path of a file that is made when a run begins (a test waits for it)
``gate_file``             path of a file: a run waits until it exists
``gates_file``            path of any file: a run with first value 3 makes ``3.begun`` beside it, which has the number
                          of threads it may use, and waits as long as there is ``3.closed``. Only whole numbers have
                          gates: made-up inputs, which are timed, touch no disk
``streams``               true: it knows a faster way to run itself, which several threads may run at once: without
                          ``delay_s``, each run taking 3 ms. Both are then the processor's time, and what several
                          threads run together takes none: a probe finds the same on a busy machine
``stream_file``           path of a file: that way fails as soon as it exists
========================  ============================================================================================
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import threading
import time
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import LoadFailed
from engine.events import LoadStage
from engine.model_spec import ModelSpec, TensorSpec
from engine.preparation import Reason, Step
from engine.worker.runtimes.base import Arrays, FailureKind, LoadedSignature, NotPrepared, ReportStage, Variant

CRASH_CODE = 9
_STAGES = (LoadStage.IMPORTING, LoadStage.READING, LoadStage.BUILDING, LoadStage.MOVING)
_CHUNK = 1 << 20
_DEFAULT_LABELS = 3
_STREAM_S = 0.003


class FakeOutOfMemory(MemoryError):
    """More rows than ``oom_above_rows``."""


class FakeDeviceLost(RuntimeError):
    """What a CUDA context is after an assertion on the device."""


class FakeRuntime:
    """See the module. Imports nothing but NumPy."""

    warm_up_runs = 0
    computes_in_caller = True

    def __init__(self) -> None:
        self._options: dict[str, Any] = {}
        self._labels = 0
        self._kept: list[NDArray[Any]] = []
        self._first_input = "x"
        self._threads = threading.local()

    @property
    def device(self) -> str:
        return str(self._options.get("on_device", "cpu"))

    def load(self, spec: ModelSpec, device: str, threads: int, report: ReportStage) -> LoadedSignature:
        self._options = spec.options
        if (more := spec.options.get("options_file")) is not None:
            self._options = spec.options | json.loads(Path(more).read_text(encoding="utf-8"))
        if spec.options.get("stage_hang") == LoadStage.WARMING.value:
            self.warm_up_runs = 1
        inputs = spec.inputs or (TensorSpec("x", "float32", (-1, -1)),)
        self._first_input = inputs[0].name
        self._labels = len(spec.options.get("labels", spec.labels))
        if not self._labels and spec.task.endswith("classification"):
            self._labels = _DEFAULT_LABELS
        for stage in _STAGES:
            report(stage)
            self._load_stage(spec, stage)
        outputs = [TensorSpec("y", inputs[0].dtype, inputs[0].shape), TensorSpec("checksum", "float64", (-1,))]
        if self._labels:
            outputs.insert(0, TensorSpec("scores", "float32", (-1, self._labels)))
        return LoadedSignature(inputs, tuple(outputs))

    def _load_stage(self, spec: ModelSpec, stage: LoadStage) -> None:
        options = self._options
        time.sleep(float(options.get("load_s", 0.0)) / len(_STAGES))
        if (options.get("load_hang") and stage is LoadStage.IMPORTING) or options.get("stage_hang") == stage.value:
            _hang()
        if stage is LoadStage.IMPORTING and "on_device" in options:
            importlib.import_module("torch")
        if stage is LoadStage.READING:
            if options.get("load_crash") and self.may_fail("crash"):
                os._exit(CRASH_CODE)
            if options.get("read_files"):
                self._read_files(spec.files)
            if (error := options.get("load_error")) is not None:
                raise LoadFailed(str(error))
        if stage is LoadStage.BUILDING:
            self._keep(float(options.get("big_mb", 0)))

    def _read_files(self, files: tuple[Path, ...]) -> None:
        total = sum(path.stat().st_size for path in files)
        pause = float(self._options.get("read_s", 0.0)) / max(1, total // _CHUNK)
        for path in files:
            with path.open("rb", buffering=0) as handle:
                while handle.read(_CHUNK):
                    time.sleep(pause)

    def run(self, inputs: Mapping[str, NDArray[Any]], signature: str) -> Arrays:
        options = self._options
        if (name := options.get("act")) is not None:
            from engine.worker.runtimes.fake_acts import act

            act(str(name), str(options.get("act_on", "")))
        if options.get("stage_hang") == LoadStage.WARMING.value:
            _hang()
        if (started := options.get("started_file")) is not None:
            Path(started).touch()
        if (gate := options.get("gate_file")) is not None:
            while not Path(gate).exists():
                time.sleep(0.005)
        return self._run(inputs, float(options.get("delay_s", 0.0)))

    def variants(self, sample: Mapping[str, NDArray[Any]]) -> Generator[Variant | NotPrepared, bool, None]:
        if not self._options.get("streams"):
            raise NotPrepared(Reason.UNKNOWN)

        def run(inputs: Mapping[str, NDArray[Any]]) -> Arrays:
            outputs = self._run(inputs, _STREAM_S)
            if (broken := self._options.get("stream_file")) is not None and Path(broken).exists():
                raise RuntimeError(f"{broken} exists")
            return outputs

        yield Variant((Step.FROZEN,), run, is_shared=True)

    def use_threads(self, threads: int) -> None:
        self._threads.of_one_call = threads

    def _run(self, inputs: Mapping[str, NDArray[Any]], seconds: float) -> Arrays:
        options = self._options
        if options.get("streams"):
            if getattr(self._threads, "of_one_call", 1) == 1:
                _spend(seconds)
        else:
            time.sleep(seconds)
        x = inputs[self._first_input]
        rows = len(x)
        flat = x.reshape(rows, -1) if x.size else x.reshape(rows, 0)
        if (gates := options.get("gates_file")) is not None and flat.shape[1]:
            _pass_gates(Path(gates).parent, flat[:, 0], getattr(self._threads, "of_one_call", 0))
        if rows > int(options.get("oom_above_rows", rows)):
            raise FakeOutOfMemory(f"{rows} rows")
        self._fail_on(flat)
        self._keep(float(options.get("leak_mb", 0)))
        if options.get("noise"):
            sys.stdout.write("noise on standard output " * 330 + "\n")
            sys.stderr.write("noise on standard error " * 340 + "\n")
        return self._answer(x, flat)

    def _fail_on(self, flat: NDArray[Any]) -> None:
        options = self._options

        def hit(name: str) -> bool:
            return name in options and flat.shape[1] > 0 and bool((flat[:, 0] == options[name]).any())

        if hit("crash_on_value") and self.may_fail("crash"):
            os._exit(CRASH_CODE)
        if hit("hang_on_value") and self.may_fail("hang"):
            _hang()
        if hit("raise_on_value"):
            raise ValueError(f"the value {options['raise_on_value']} is poison")
        if hit("lost_on_value"):
            raise FakeDeviceLost("device-side assert triggered")

    def _answer(self, x: NDArray[Any], flat: NDArray[Any]) -> Arrays:
        checksum = flat.sum(axis=1, dtype=np.float64)
        outputs: Arrays = {}
        if self._labels:
            scores = np.full((len(x), self._labels), 0.1 / max(1, self._labels - 1), dtype=np.float32)
            scores[np.arange(len(x)), np.abs(checksum).astype(np.int64) % self._labels] = 0.9
            outputs["scores"] = scores
        outputs["y"] = x * self._options.get("scale", 2)
        outputs["checksum"] = checksum
        if "nan_on_value" in self._options and flat.shape[1]:
            bad = flat[:, 0] == self._options["nan_on_value"]
            for array in outputs.values():
                if array.dtype.kind == "f":
                    array[bad] = np.nan
        return outputs

    def failure(self, error: Exception) -> FailureKind:
        if isinstance(error, MemoryError):
            return FailureKind.OUT_OF_MEMORY
        if isinstance(error, FakeDeviceLost):
            return FailureKind.DEVICE_LOST
        return FailureKind.INPUT

    def _keep(self, mebibytes: float) -> None:
        if mebibytes:
            self._kept.append(np.ones(int(mebibytes * (1 << 20)), dtype=np.uint8))

    def may_fail(self, fault: str) -> bool:
        """Whether ``fault`` (``crash``, ``hang``, ``lie``) may happen now; counts it in ``counter_file``."""
        limit = int(self._options.get(f"{fault}_times", 0))
        if not limit:
            return True
        counter = Path(self._options["counter_file"])
        with counter.open("ab+") as handle:
            handle.seek(0)
            happened = handle.read().decode("ascii").split().count(fault)
            if happened >= limit:
                return False
            handle.write(f"{fault}\n".encode("ascii"))
        return True


def _spend(seconds: float) -> None:
    """Of the processor."""
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


def _pass_gates(folder: Path, values: NDArray[Any], threads: int) -> None:
    for value in (value for value in values.tolist() if value.is_integer()):
        (folder / f"{value:g}.begun").write_text(f"{threads}")
        while (folder / f"{value:g}.closed").exists():
            time.sleep(0.005)


def _hang() -> None:
    threading.Event().wait()
