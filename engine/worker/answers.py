"""From a raw result to the result of a ``done`` or ``refined`` message, and the raw results kept for refining."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from engine.answer_parts import pack_parts
from engine.errors import EngineError, PredictionExpired, UnusableInput
from engine.prediction import Predictions
from engine.protocol import Buffer
from engine.tensors import pack_tensor
from engine.worker.tasks.base import CONTEXT, Params, Task
from engine.worker.work import Form, RawResult

KEPT_RESULTS = 64
KEPT_BYTES = 256 << 20

Answer = tuple[dict[str, Any], list[Buffer]]


def error_json(error: EngineError) -> dict[str, Any]:
    """``error`` as it travels to the parent."""
    return {"code": error.code, "message": error.message, "details": error.details}


def answer(raw: RawResult, task: Task, params: Params, over: Callable[[Predictions], bytes] | None = None) -> Answer:
    """The result object and its buffers; ``over`` makes a picture of the answer. Raises the EngineError of an item that
    has one input, or tensors."""
    if raw.form is Form.OUTPUTS:
        return _outputs(raw)
    by_slot: dict[int, Predictions | EngineError] = {}
    for slots, piece in raw.by_input():
        by_slot.update(zip(slots, task.post(piece, params), strict=True))
    by_slot.update(raw.errors)  # an input has no answer where one of its windows has none
    if raw.form is Form.PREDICTIONS:
        (only,) = by_slot.values()
        if isinstance(only, EngineError):
            raise only
        return _packed("predictions", only if over is None else {"image": over(only)})
    return _packed("results", [_entry(slot, by_slot[slot]) for slot in sorted(by_slot)])


def _packed(kind: str, value: Any) -> Answer:
    tree, parts, buffers = pack_parts(value)
    return {"kind": kind, "value": tree} | ({"parts": parts} if parts else {}), buffers


def _entry(slot: int, value: Predictions | EngineError) -> dict[str, Any]:
    if isinstance(value, EngineError):
        return {"input": slot, "error": {"code": value.code, "message": value.message}}
    return {"input": slot, "predictions": value}


def _outputs(raw: RawResult) -> Answer:
    if raw.errors:
        raise next(iter(raw.errors.values()))
    if len(raw.outputs) != 1:
        raise UnusableInput("The model's outputs differ in shape between rows of one input.", code="model_error")
    tensors: list[dict[str, Any]] = []
    buffers: list[Buffer] = []
    for name, array in raw.outputs[0].items():
        if name == CONTEXT:
            continue
        try:
            meta, buffer = pack_tensor(name, array)
        except (TypeError, UnicodeDecodeError) as error:
            raise UnusableInput(f"The model's output {name!r} cannot be sent: {error}.", code="model_error") from error
        tensors.append(meta)
        buffers.append(buffer)
    return {"kind": "outputs", "tensors": tensors}, buffers


class KeptResults:
    """The last raw results by request id, at most 64 and 256 MiB in all. Thread-safe."""

    def __init__(self, max_results: int = KEPT_RESULTS, max_bytes: int = KEPT_BYTES) -> None:
        self._max_results = max_results
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._results: OrderedDict[str, tuple[RawResult, int]] = OrderedDict()
        self._bytes = 0

    def keep(self, request_id: str, raw: RawResult) -> None:
        """Remember ``raw`` as the newest; the oldest go where there are too many."""
        size = raw.nbytes
        with self._lock:
            if (old := self._results.pop(request_id, None)) is not None:
                self._bytes -= old[1]
            self._results[request_id] = raw, size
            self._bytes += size
            while len(self._results) > self._max_results or (self._bytes > self._max_bytes and self._results):
                self._bytes -= self._results.popitem(last=False)[1][1]

    def get(self, request_id: str) -> RawResult:
        """The raw result of a request. Raises PredictionExpired where it is no longer kept."""
        with self._lock:
            kept = self._results.get(request_id)
        if kept is None:
            raise PredictionExpired("The raw result of this prediction is no longer kept; predict again.")
        return kept[0]
