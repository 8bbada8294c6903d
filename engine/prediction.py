"""What goes into the engine and what comes out: request, answer, load ticket."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from engine.answer_parts import array_json, as_json

if TYPE_CHECKING:
    from numpy.typing import NDArray

Tensors = Mapping[str, "NDArray[Any]"]
Predictions = list[Any] | dict[str, Any]
"""The answer to one input: a list for most tasks, a dict for those whose answer is a picture or a map."""


class Lane(StrEnum):
    """Who waits in which line, highest first."""

    OWNER = "owner"
    LOOPBACK = "loopback"
    LAN = "lan"
    BATCH = "batch"

    @property
    def door(self) -> str:
        """The counter a request of this lane adds to: ``window`` or ``network``."""
        return "window" if self in (Lane.OWNER, Lane.BATCH) else "network"


LANES = (Lane.OWNER, Lane.LOOPBACK, Lane.LAN, Lane.BATCH)


class Wire(StrEnum):
    """A public protocol, whose bodies the worker reads (:mod:`engine.codecs`): numbers go unchanged into the model's
    own inputs and its own outputs come back; only encoded pictures and texts pass the task's preprocessing."""

    OPEN_INFERENCE = "open-inference"
    TENSORFLOW_SERVING = "tensorflow-serving"


@dataclass(frozen=True, slots=True)
class PredictRequest:
    """One question to one model.

    ``data`` is encoded bytes (a picture, CSV, JSON, .npy; ``content_type`` says which, or None to recognise it by its
    first bytes), rows of a table as dicts, or raw tensors by input name. ``params`` are the task's parameters
    (``top_k``, ``threshold``). ``client`` names the caller, ``key`` the key it showed: inside a lane keys share
    fairly, and the callers of one key among themselves. ``timeout_s``: seconds. ``version``: the version that is to
    answer; None is the one that serves. ``wire``: the protocol whose body ``data`` is, with what its codec needs to
    know besides in ``wire_options``. ``priority`` orders the requests of one key (of one client, where there is none)
    among themselves: 1 first, 0 (none stated) last.
    """

    model: str
    data: bytes | list[dict[str, Any]] | Tensors
    content_type: str | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    lane: Lane | str = Lane.OWNER
    client: str | None = None
    key: str = ""
    timeout_s: float = 30.0
    version: str | None = None
    wire: Wire | None = None
    wire_options: Mapping[str, Any] = field(default_factory=dict)
    priority: int = 0
    draw: bool = False
    """The answer is wanted as a picture: what was asked about, with the answer drawn over it."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """One answer. Exactly one of ``predictions`` (one input), ``results`` (several) and ``outputs`` (raw) is set.

    ``results`` entries are ``{"input": index, "predictions": …}`` or ``{"input": index, "error": {…}}``. In both,
    pictures are ``bytes`` (PNG) and maps are arrays, which JSON has as :func:`engine.answer_parts.as_json` says.
    ``timing_ms`` has ``decode``, ``wait``, ``infer``, ``post`` and ``total`` in milliseconds.
    ``version`` is the version of the model that answered. ``echo``: what a protocol's body said of its answer (its id,
    the outputs it wants), as its codec read it.
    ``id`` stays good for :meth:`engine.Engine.refine` while the worker keeps the raw result (the last 64).
    """

    id: str
    model: str
    task: str
    timing_ms: Mapping[str, float]
    predictions: Predictions | None = None
    outputs: dict[str, NDArray[Any]] | None = None
    results: list[dict[str, Any]] | None = None
    version: str = "1"
    echo: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The native HTTP shape (``contract.md``): pictures in base64, arrays as ``{"dtype", "shape", "data"}``."""
        out: dict[str, Any] = {"model": self.model, "version": self.version, "task": self.task}
        if self.predictions is not None:
            out["predictions"] = as_json(self.predictions)
        elif self.results is not None:
            out["results"] = as_json(self.results)
        else:
            out["outputs"] = {name: array_json(array) for name, array in (self.outputs or {}).items()}
        out["timing_ms"] = dict(self.timing_ms)
        return out


@dataclass(frozen=True, slots=True)
class Convention:
    """One way to prepare a picture, and what the model answers to it.

    ``changes`` are values by field of :class:`~engine.model_spec.Preprocessing` (``{"scaling": "0..1"}``), as
    ``Engine.apply_preprocessing`` and ``Engine.save_sidecar`` take them; ``words`` say them to a person; ``current``:
    the model prepares its pictures so now.
    """

    changes: dict[str, Any]
    words: str
    predictions: Predictions
    prediction: Prediction
    current: bool = False


class LoadTicket:
    """A load under way: ``future`` resolves to the model's entry of ``stats()["models"]``; ``cancel()`` ends it.

    ``future`` raises the :class:`~engine.errors.ModelError` that ended the load, :class:`~engine.errors.LoadCancelled`
    after a cancel.
    """

    def __init__(self, model_id: str, future: Future[dict[str, Any]], cancel: Callable[[], None]) -> None:
        self.model_id = model_id
        self.future = future
        self._cancel = cancel
        self._lock = threading.Lock()
        self._cancelled = False

    def cancel(self) -> None:
        """End the load in whatever stage it is, the worker included. Idempotent, returns at once."""
        with self._lock:
            if self._cancelled:
                return
            self._cancelled = True
        self._cancel()


@dataclass(frozen=True, slots=True)
class ImagePreview:
    """A picture decoded by the inspector: ``rgb`` is height*width*3 bytes, row-major, no padding.

    ``source_size`` is the (width, height) of the picture as people see it (EXIF orientation applied).
    """

    width: int
    height: int
    rgb: bytes
    source_size: tuple[int, int]
    note: str = ""


@dataclass(frozen=True, slots=True)
class TablePreview:
    """The head of a table: ``columns`` and at most the asked-for number of ``rows``; ``total_rows`` counts them all."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    total_rows: int


@dataclass(frozen=True, slots=True)
class AudioPreview:
    """The outline of a recording: ``low`` and ``high`` (-1 to 1, all channels together) of equal parts of its
    ``seconds``; ``rate`` in samples a second, ``channels`` how many there are."""

    seconds: float
    rate: int
    channels: int
    low: tuple[float, ...]
    high: tuple[float, ...]
