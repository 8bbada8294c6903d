"""One model's process: receives messages, decodes, executes, answers. The protocol is in :mod:`engine.protocol`.

Threads: the receiving one (the caller of :meth:`WorkerLoop.run`) never waits for work, so the channel is always
drained, but reads a small batch itself where none is ahead of it: to hand it on would take longer. One decodes
(pictures with helpers, :mod:`engine.worker.decoding`), one executes, so that a batch computes while the next is
decoded; one refines, so that a slider does not wait for a batch; one measures the device's memory, for which it may
have to wait; one, once it is told to, tries faster ways to run the model, and ends. Where it finds a way without state,
that is run by several executing threads at once (*streams*). The model is loaded by the first of them: a framework's
thread settings hold for the thread that makes them.
"""

from __future__ import annotations

import logging
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn, Protocol

from engine.errors import EngineError, InputTooLarge, InternalError
from engine.events import LoadStage
from engine.model_spec import ModelSpec
from engine.preparation import Preparation, PreparationState, Reason
from engine.protocol import PROTOCOL_VERSION, Buffer, Message, ProtocolError
from engine.worker.allocator import give_back_freed_memory, keep_freed_memory
from engine.worker.answers import KeptResults, answer, error_json
from engine.worker.channel import Channel
from engine.worker.decoding import PictureDecoding
from engine.worker.device_memory import device_memory
from engine.worker.drawing import draw
from engine.worker.execution import DeviceLost
from engine.worker.line import Line
from engine.worker.loading import DEFAULT_MAX_BATCH, LoadedModel, last_lines, load_model
from engine.worker.sandbox import Reached
from engine.worker.work import RawResult, Work

log = logging.getLogger(__name__)

DEVICE_LOST_CODE = 75
"""Exit code of a worker whose device can run nothing any more (sysexits' EX_TEMPFAIL: try again)."""
LIGHT_BYTES = 1 << 14
"""Bytes of a batch that is read where it is received."""
FAULT_CODE = 70
"""Exit code after a fault of the worker itself (sysexits' EX_SOFTWARE)."""


class Sender(Protocol):
    def send(self, header: dict[str, Any], buffers: Sequence[Buffer] = ()) -> None: ...


@dataclass(slots=True)
class _Batch:
    """A batch from its arrival to its ``done``. ``works`` holds, for each item, what it became."""

    id: Any
    items: list[dict[str, Any]]
    buffers: list[Sequence[Buffer]]
    works: list[Work | EngineError] = field(default_factory=list)
    is_lone: bool = False
    """The parent had nothing else with us when it sent it, and counts it as started."""
    started: bool = False
    recalled: bool = False


def leave_process(code: int) -> NoReturn:
    """End at once, whatever other threads compute: a framework may be busy for minutes in code that cannot stop."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


class WorkerLoop:
    """See the module. ``leave`` ends the process; a test may pass another."""

    def __init__(
        self, channel: Channel, leave: Callable[[int], NoReturn] = leave_process, *, reached: Reached = Reached()
    ) -> None:
        self._channel = channel
        self._reached = reached
        self._sender: Sender = channel
        self._leave = leave
        self._lock = threading.Lock()
        self._batches: dict[Any, _Batch] = {}
        self._to_execute: Line[_Batch] = Line(self._may_share, lambda batch: batch.recalled)
        self._to_decode: queue.SimpleQueue[_Batch] = queue.SimpleQueue()
        self._in_decoding = 0
        """Batches that the decoding thread has, or is to have."""
        self._to_measure: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._to_refine: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._ready = threading.Event()
        self._loading = False
        self._model: LoadedModel | None = None
        self._kept = KeptResults()
        self._told_fits: int | None = None
        self._keeps_memory = False
        self._preparing = False
        self._telling = threading.Lock()
        self._preparation: Preparation | None = None
        """As the parent was told it. Under ``_telling``: one thread prepares, several executing ones may withdraw."""

    def run(self) -> int:
        """Serve until ``stop`` or the end of the channel; the result is the exit code. Raises ProtocolError."""
        self._sender.send(
            {"type": "hello", "protocol": PROTOCOL_VERSION, "pid": os.getpid(), "sandbox": self._reached.to_json()}
        )
        for target in (self._decode_batches, self._refine_results, self._measure_device):
            threading.Thread(target=self._guard, args=(target,), name=target.__name__.strip("_"), daemon=True).start()
        while (message := self._channel.receive()) is not None:
            if message.type == "stop":
                break
            self._accept(message)
        return 0

    # -- the receiving thread --------------------------------------------------------------------------------------
    def _accept(self, message: Message) -> None:
        header = message.header
        if message.type == "load":
            if self._loading:
                raise ProtocolError("a worker loads one model, once")
            self._loading = True
            threading.Thread(
                target=self._guard, args=(self._load_and_execute, header), name="execute", daemon=True
            ).start()
        elif message.type == "batch":
            batch = _read_batch(message)
            with self._lock:
                self._batches[batch.id] = batch
                read_here = not self._in_decoding and self._model is not None and _weight(batch) <= LIGHT_BYTES
                read_here = read_here and self._to_execute.has_room
                self._in_decoding += not read_here
            if read_here:
                batch.works = [
                    self._decode(item, buffers) for item, buffers in zip(batch.items, batch.buffers, strict=True)
                ]
                self._hand_on(batch)
            else:
                self._to_decode.put(batch)
        elif message.type == "recall":
            self._recall(header["batch"])
        elif message.type == "limit":
            if self._model is None:
                raise ProtocolError("a limit for a model that is not ready")
            self._model.executor.limit = max(1, int(header["max_batch_size"]))
        elif message.type == "prepare":
            if self._model is None or self._preparing:
                raise ProtocolError("a model is prepared once it is ready, once")
            self._preparing = True
            arguments = (self._model, header.get("golden"), message.buffers)
            threading.Thread(target=self._guard, args=(self._prepare, *arguments), name="prepare", daemon=True).start()
        elif message.type == "memory":
            self._to_measure.put(None)
        elif message.type == "refine":
            self._to_refine.put(header)
        else:
            raise ProtocolError(f"a worker knows no message {message.type!r}")

    def _recall(self, batch_id: Any) -> None:
        with self._lock:
            batch = self._batches.get(batch_id)
            given_back = batch is not None and not batch.started
            if batch is not None and given_back:
                batch.recalled = True
                del self._batches[batch_id]
        self._to_execute.look_again()
        self._sender.send({"type": "recalled", "batch": batch_id, "ok": given_back})

    # -- the decoding thread ---------------------------------------------------------------------------------------
    def _decode_batches(self) -> None:
        self._ready.wait()
        decoding = PictureDecoding(self._decode)
        while True:
            batch = self._to_decode.get()
            batch.works = decoding.decode_all(batch)
            self._hand_on(batch)
            with self._lock:
                self._in_decoding -= 1

    def _hand_on(self, batch: _Batch) -> None:
        batch.buffers.clear()
        if not batch.recalled:
            self._to_execute.put(batch)

    def _decode(self, item: dict[str, Any], buffers: Sequence[Buffer]) -> Work | EngineError:
        assert self._model is not None
        begun = time.perf_counter()
        try:
            work = self._model.prepared_by(item.get("preprocessing")).reader.read(item, buffers)
        except EngineError as error:
            return error
        except MemoryError:
            return InputTooLarge("The input does not fit in memory once it is unpacked.")
        except Exception as error:
            log.exception("an input could not be decoded")
            return InternalError(
                "The input could not be read because of a fault in Deskside.", details=last_lines(error)
            )
        work.preprocessing = item.get("preprocessing")
        work.decode_ms = _milliseconds(begun)
        return work

    # -- the executing thread --------------------------------------------------------------------------------------
    def _load_and_execute(self, header: dict[str, Any]) -> None:
        try:
            model = self._load(header)
        except EngineError as error:
            self._sender.send({"type": "failed", "error": error_json(error)})
            self._leave(0)
        model.executor.is_alone = lambda: len(self._batches) <= 1
        self._model = model
        self._sender.send({"type": "ready", "info": model.info() | {"keeps_memory": self._keeps_memory}})
        self._ready.set()
        self._execute_batches(model, 0)

    def _execute_batches(self, model: LoadedModel, number: int) -> None:
        """Stream ``number``: run batches as long as it is one of them."""
        while (taken := self._to_execute.take(number)) is not None:
            batch, has_run = taken
            with self._lock:
                batch.started = not batch.recalled
            if batch.started:
                if not batch.is_lone:
                    self._sender.send({"type": "started", "batch": batch.id})
                self._execute(model, batch)
            has_run()

    def _may_share(self, batch: _Batch) -> bool:
        """Whether a batch may run beside others: each of its calls is one that the prepared model takes."""
        assert self._model is not None
        executor = self._model.executor
        prepared = executor.prepared
        if prepared is None or prepared.streams == 1:
            return False
        return prepared.takes_all((work for work in batch.works if isinstance(work, Work)), executor.max_rows)

    def _load(self, header: dict[str, Any]) -> LoadedModel:
        try:
            spec = ModelSpec.from_json(header["spec"])
            limits = header.get("limits") or {}
            max_batch_size = int(limits.get("max_batch_size", DEFAULT_MAX_BATCH))
            device, threads = str(header["device"]), int(header["threads"])
        except (KeyError, TypeError, ValueError) as error:
            raise InternalError("The model's description could not be read.", details=last_lines(error)) from error
        keeps_memory = keep_freed_memory()
        model = load_model(spec, device, threads, max_batch_size, self._send_stage)
        self._keeps_memory = keeps_memory
        if spec.runtime == "fake" and "lie" in spec.options:
            from engine.worker.runtimes.fake import FakeRuntime
            from engine.worker.runtimes.fake_lies import LyingChannel

            assert isinstance(model.runtime, FakeRuntime)
            runtime = model.runtime
            self._sender = LyingChannel(self._channel, spec.options, lambda: runtime.may_fail("lie"))
        return model

    def _send_stage(self, stage: LoadStage, total_bytes: int | None) -> None:
        header: dict[str, Any] = {"type": "stage", "stage": stage.value}
        if total_bytes is not None:
            header["total_bytes"] = total_bytes
        self._sender.send(header)

    def _execute(self, model: LoadedModel, batch: _Batch) -> None:
        works = [work for work in batch.works if isinstance(work, Work)]
        fault: EngineError | None = None
        try:
            model.executor.execute(works)
        except DeviceLost:
            log.error("the device is lost: the worker ends")
            self._leave(DEVICE_LOST_CODE)
        except Exception as error:
            log.exception("a batch could not be executed")
            fault = InternalError(
                "The model could not be run because of a fault in Deskside.", details=last_lines(error)
            )
        items: list[dict[str, Any]] = []
        buffers: list[Buffer] = []
        for item, work in zip(batch.items, batch.works, strict=True):
            entry, packed = self._finish(model, str(item["id"]), fault or work)
            items.append({"id": item["id"], **entry})
            buffers.extend(packed)
        done: dict[str, Any] = {
            "type": "done", "batch": batch.id, "items": items, "inferences": model.executor.inferences,
        }  # fmt: skip
        with self._lock:
            if model.executor.fits != self._told_fits:
                done["max_batch_size"] = self._told_fits = model.executor.fits
            del self._batches[batch.id]
        self._sender.send(done, buffers)
        if model.executor.has_withdrawn:
            self._withdraw()

    def _finish(
        self, model: LoadedModel, item_id: str, work: Work | EngineError
    ) -> tuple[dict[str, Any], list[Buffer]]:
        """One item of ``done``, without its id, and its buffers."""
        if isinstance(work, EngineError):
            return {"error": error_json(work), "timing": {"decode": 0.0, "infer": 0.0, "post": 0.0}}, []
        begun = time.perf_counter()
        raw = work.finish()
        entry, packed = _answer(model.prepared_by(work.preprocessing), raw, work.params, work.picture)
        if "result" in entry:
            self._kept.keep(item_id, raw)
            entry["rows"] = work.rows
            if work.echo:
                entry["echo"] = work.echo
        entry["timing"] = {"decode": work.decode_ms, "infer": work.infer_ms, "post": _milliseconds(begun)}
        return entry, packed

    # -- the preparing thread --------------------------------------------------------------------------------------
    def _prepare(self, model: LoadedModel, golden: dict[str, Any] | None, buffers: Sequence[Buffer]) -> None:
        from engine.worker.preparing import prepare  # not before the model answers

        work = self._decode(golden, buffers) if golden is not None else None
        preparation, prepared = prepare(model, work if isinstance(work, Work) else None)
        # Whoever is told of it may rely on it; what withdraws it waits until it was told.
        with self._telling:
            model.executor.knee = preparation.batch
            self._to_execute.streams = preparation.streams
            model.executor.prepared = prepared
            for number in range(1, preparation.streams):
                arguments = (self._execute_batches, model, number)
                threading.Thread(target=self._guard, args=arguments, name=f"execute-{number}", daemon=True).start()
            self._preparation = preparation
            self._sender.send({"type": "prepared", "preparation": preparation.to_json()})
        give_back_freed_memory()

    def _withdraw(self) -> None:
        """Tell, once, that the prepared model is not used any more; batches run one at a time again."""
        with self._telling:
            told = self._preparation
            if told is None or told.state is not PreparationState.USED:
                return
            self._preparation = withdrawn = told.withdrawn(Reason.FAILED)
            self._to_execute.streams = 1
            self._sender.send({"type": "prepared", "preparation": withdrawn.to_json()})

    # -- the refining thread ---------------------------------------------------------------------------------------
    def _refine_results(self) -> None:
        self._ready.wait()
        while True:
            header = self._to_refine.get()
            assert self._model is not None
            packed: list[Buffer] = []
            try:
                raw = self._kept.get(str(header["prediction"]))
                params = self._model.task.read_params(header.get("params") or {})
            except EngineError as error:
                entry: dict[str, Any] = {"error": error_json(error)}
            else:
                entry, packed = _answer(self._model, raw, params)
            refined = {"type": "refined", "id": header["id"], "inferences": self._model.executor.inferences}
            self._sender.send(refined | entry, packed)

    # -- the measuring thread --------------------------------------------------------------------------------------
    def _measure_device(self) -> None:
        self._ready.wait()
        while True:
            self._to_measure.get()
            assert self._model is not None
            self._sender.send({"type": "memory", "memory": device_memory(self._model.runtime.device)})

    # -- every thread but the receiving one ------------------------------------------------------------------------
    def _guard(self, target: Callable[..., None], *args: Any) -> None:
        """Run a thread's target; the process ends with it: half a worker would leave requests without an answer."""
        try:
            target(*args)
        except OSError as error:
            log.warning("the channel is gone: %s", error)
            self._leave(0)
        except BaseException:
            log.exception("a worker thread ended")
            self._leave(FAULT_CODE)


def _answer(
    model: LoadedModel, raw: RawResult, params: Any, picture: bytes | None = None
) -> tuple[dict[str, Any], list[Buffer]]:
    try:
        over = None if picture is None else lambda found: draw(picture, found, model.spec)
        result, buffers = answer(raw, model.task, params, over)
    except EngineError as error:
        return {"error": error_json(error)}, []
    except Exception as error:
        log.exception("an answer could not be made")
        fault = InternalError("The answer could not be made because of a fault in Deskside.", details=last_lines(error))
        return {"error": error_json(fault)}, []
    return {"result": result}, buffers


def _read_batch(message: Message) -> _Batch:
    """The batch of a ``batch`` message, its buffers shared out. Raises ProtocolError where they do not add up."""
    try:
        items = list(message.header["items"])
        buffers: list[Sequence[Buffer]] = []
        first = 0
        for item in items:
            count = int(item["buffers"])
            buffers.append(message.buffers[first : first + count])
            first += count
        if first != len(message.buffers):
            raise ProtocolError(f"a batch with {len(message.buffers)} buffers where its items have {first}")
        return _Batch(message.header["batch"], items, buffers, is_lone=message.header.get("lone") is True)
    except (KeyError, TypeError, ValueError) as error:
        raise ProtocolError(f"a batch that is not one: {error}") from error


def _weight(batch: _Batch) -> int:
    return sum(len(buffer) for buffers in batch.buffers for buffer in buffers)


def _milliseconds(begun: float) -> float:
    return round((time.perf_counter() - begun) * 1000.0, 3)
