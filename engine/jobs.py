"""One request inside the engine: what it takes to the worker, and what its answer becomes.

The worker's answers are hostile until checked here: a result that breaks a rule raises ProtocolError, which ends the
worker and costs its requests a 503.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

from engine.answer_parts import unpack_parts
from engine.errors import EngineError, Malformed, error_from_code
from engine.prediction import Lane, Prediction, Predictions, PredictRequest
from engine.protocol import Buffer, ProtocolError
from engine.serving_types import RequestRecord, RequestState

if TYPE_CHECKING:
    from numpy.typing import NDArray

_TIMINGS = ("decode", "infer", "post")


@dataclass(slots=True, eq=False, weakref_slot=True)
class Job:
    """A request on its way: its input as buffers, its future, and what the live table shows of it."""

    id: str
    request: PredictRequest
    model: str
    lane: Lane
    client: str
    kind: str
    buffers: list[Buffer]
    tensors: list[dict[str, Any]] | None
    size: int
    future: Future[Prediction] = field(default_factory=Future)
    received_at: float = field(default_factory=time.time)
    state: RequestState = RequestState.WAITING
    wait_ms: float | None = None
    run_ms: float | None = None
    code: str = ""
    settled: bool = False
    """Answered, refused or gone: whatever still comes for it is dropped."""
    own: bool = False
    """Asked by the engine itself (a golden sample, a convention tried out): neither counted nor recorded."""
    preprocessing: dict[str, Any] | None = None
    """Prepare the picture so, and not as the model's spec says. Set in code only: no request carries it."""

    deadline: float | None = None
    """On the engine's clock, from its first admission on: a request that changes hands keeps it."""

    _content_hash: bytes = b""

    @property
    def content_hash(self) -> bytes:
        """SHA-256 of all that the model is asked. Made when it is asked for first: of 600 KB it takes 0.4 ms."""
        if not self._content_hash:
            request = self.request
            told = [dict(request.params), str(request.wire or ""), dict(request.wire_options), request.draw]
            params = orjson.dumps(told, option=orjson.OPT_SORT_KEYS)
            digest = hashlib.sha256(f"{self.kind}\0{request.content_type}\0".encode() + params)
            for buffer in self.buffers:
                digest.update(buffer)
            self._content_hash = digest.digest()
        return self._content_hash

    def message_item(self, preprocessing: dict[str, Any] | None = None) -> dict[str, Any]:
        """Its entry in a ``batch``; ``preprocessing`` holds where the job itself names none."""
        item: dict[str, Any] = {
            "id": self.id,
            "content_type": self.request.content_type,
            "params": dict(self.request.params),
            "kind": self.kind,
            "buffers": len(self.buffers),
        }
        if self.tensors is not None:
            item["tensors"] = self.tensors
        if self.request.wire is not None:
            item["wire"] = {"protocol": str(self.request.wire), **self.request.wire_options}
        if self.request.draw:
            item["draw"] = True
        if (how := self.preprocessing or preprocessing) is not None:
            item["preprocessing"] = how
        return item

    def record(self) -> RequestRecord:
        return RequestRecord(
            self.id, self.received_at, str(self.lane), self.client, self.model, self.state, self.size, self.wait_ms,
            self.run_ms, self.code, self.request.key,
        )  # fmt: skip


def make_job(
    job_id: str, request: PredictRequest, *, own: bool = False, preprocessing: dict[str, Any] | None = None
) -> Job:
    """Pack a request for the worker. ``own`` and ``preprocessing`` as in :class:`Job`.

    Raises Malformed where its data or parameters cannot be packed.
    """
    data = request.data
    tensors: list[dict[str, Any]] | None = None
    buffers: list[Buffer]
    try:
        lane = Lane(request.lane)
        if isinstance(data, bytes | bytearray | memoryview):
            kind, buffers = "bytes", [bytes(data)]
        elif isinstance(data, Mapping):
            import numpy as np  # here, so that a window that has no model yet does without

            from engine.tensors import pack_tensor

            kind, buffers, tensors = "tensors", [], []
            for name, array in data.items():
                meta, buffer = pack_tensor(str(name), np.asarray(array))
                tensors.append(meta)
                buffers.append(buffer)
        elif isinstance(data, list) and all(isinstance(row, dict) for row in data):
            kind, buffers = "rows", [orjson.dumps(data, option=orjson.OPT_SERIALIZE_NUMPY)]
        else:
            raise Malformed("The input must be bytes, a list of rows or arrays by input name.")
        if request.wire is not None and kind != "bytes":
            raise Malformed("A protocol's body is bytes.")
        # What could not be written into the frame is to fail here, where its caller is told.
        if request.params or request.wire_options:
            orjson.dumps([dict(request.params), dict(request.wire_options)])
        if request.content_type:
            request.content_type.encode()
    except (TypeError, ValueError) as error:
        raise Malformed(f"The input cannot be sent to the model: {error}.") from error
    return Job(
        job_id, request, request.model, lane, request.client or str(lane), kind, buffers, tensors,
        sum(map(_nbytes, buffers)), own=own, preprocessing=preprocessing,
    )  # fmt: skip


def _nbytes(buffer: Buffer) -> int:
    return buffer.nbytes if isinstance(buffer, memoryview) else len(buffer)


@dataclass(frozen=True, slots=True)
class Answer:
    """A checked entry of a worker's ``done``: a result of one of three kinds, or an error; times in milliseconds."""

    id: str
    timing: dict[str, float]
    error: EngineError | None = None
    predictions: Predictions | None = None
    results: list[dict[str, Any]] | None = None
    outputs: dict[str, NDArray[Any]] | None = None
    echo: dict[str, Any] = field(default_factory=dict)
    rows: int = 0

    def prediction(self, model: str, version: str, task: str, total_ms: float) -> Prediction:
        """The answer as both doors see it. Whatever was neither decoding, running nor postprocessing was waiting."""
        timing = {name: round(self.timing[name], 3) for name in _TIMINGS}
        wait = max(0.0, total_ms - sum(timing.values()))
        return Prediction(
            id=self.id,
            model=model,
            task=task,
            timing_ms={
                "decode": timing["decode"], "wait": round(wait, 3), "infer": timing["infer"], "post": timing["post"],
                "total": round(total_ms, 3),
            },
            predictions=self.predictions,
            results=self.results,
            outputs=self.outputs,
            version=version,
            echo=self.echo,
        )  # fmt: skip


def read_answer(entry: Any, buffers: Iterator[Buffer]) -> Answer:
    """Check one entry of ``done`` (or a ``refined``) and take its buffers. Raises ProtocolError."""
    if not isinstance(entry, dict) or not isinstance(entry.get("id"), str):
        raise ProtocolError("an answer without an id")
    timing = entry.get("timing") or {}
    if not isinstance(timing, dict):
        raise ProtocolError("timing is not an object")
    times = {name: _duration(timing.get(name, 0.0)) for name in _TIMINGS}
    error = entry.get("error")
    if error is not None:
        if not isinstance(error, dict) or not isinstance(error.get("code"), str):
            raise ProtocolError("an error without a code")
        message, details = str(error.get("message", ""))[:2000], str(error.get("details", ""))[:20_000]
        return Answer(entry["id"], times, error=error_from_code(error["code"], message, details))
    result = entry.get("result")
    if not isinstance(result, dict):
        raise ProtocolError("an answer with neither result nor error")
    echo, rows = entry.get("echo", {}), entry.get("rows", 0)
    if not isinstance(echo, dict) or isinstance(rows, bool) or not isinstance(rows, int) or not 0 <= rows < 1 << 31:
        raise ProtocolError("an answer with an echo, or a count of rows, that is none")
    kind, value = result.get("kind"), result.get("value")
    if result.get("parts"):
        value = unpack_parts(value, result["parts"], buffers)
    if kind == "predictions" and isinstance(value, list | dict):
        return Answer(entry["id"], times, predictions=value, rows=rows)
    if kind == "results" and isinstance(value, list) and all(isinstance(row, dict) for row in value):
        return Answer(entry["id"], times, results=value, echo=echo, rows=rows)
    if kind == "outputs" and isinstance(result.get("tensors"), list):
        from engine.tensors import unpack_tensor  # here, with NumPy, as a window that has no model yet does without

        outputs: dict[str, NDArray[Any]] = {}
        for meta in result["tensors"]:
            try:
                buffer = next(buffers)
            except StopIteration:
                raise ProtocolError("an answer with fewer buffers than tensors") from None
            if not isinstance(meta, dict):
                raise ProtocolError("a tensor without a description")
            name, array = unpack_tensor(meta, buffer)
            outputs[name] = array
        return Answer(entry["id"], times, outputs=outputs, echo=echo, rows=rows)
    raise ProtocolError(f"a result of unknown kind {kind!r}")


def _duration(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e9:
        raise ProtocolError("a duration that is none")
    return float(value)
