"""``GET /metrics``: what the models and the server have done, in Prometheus' text format (version 0.0.4).

Names of a model's numbers are Triton's (triton-inference-server/server, docs/user_guide/metrics.md), whose counters do
not end in ``_total``, which Prometheus' own client library would make of them; ours begin with ``deskside_``.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from engine.events import ModelState
from engine.statistics import BATCH_SIZES, REASONS

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_DURATIONS = (
    ("request", "success", "Time from a request's arrival to its answer"),
    ("queue", "queue", "Time requests waited"),
    ("compute_input", "compute_input", "Time to read inputs"),
    ("compute_infer", "compute_infer", "Time the model ran"),
    ("compute_output", "compute_output", "Time to make answers"),
)
Labels = Mapping[str, str]


class HttpCounts:
    """Answers by protocol and status, and requests under way. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._answers: Counter[tuple[str, int]] = Counter()
        self._open = 0

    def begin(self) -> None:
        with self._lock:
            self._open += 1

    def end(self, protocol: str, status: int) -> None:
        with self._lock:
            self._open -= 1
            self._answers[(protocol, status)] += 1

    def snapshot(self) -> tuple[dict[tuple[str, int], int], int]:
        with self._lock:
            return dict(self._answers), self._open


def protocol_of(path: str) -> str:
    """Which of the three protocols a path belongs to; ``other`` is pages and what is not there."""
    if path == "/v2" or path.startswith("/v2/"):
        return "open-inference"
    if path.startswith("/v1/models"):
        return "tensorflow-serving"
    return "native" if path.startswith(("/predict/", "/models", "/health/", "/metrics")) else "other"


def metrics_text(stats: Mapping[str, Any], http: HttpCounts) -> bytes:
    """The whole page of numbers, from ``Engine.stats()`` and the server's own."""
    page = _Page()
    models = stats["models"]
    for entry in models:
        _triton(page, entry)
    for entry in models:
        _ours(page, entry)
    answers, under_way = http.snapshot()
    for (protocol, status), count in sorted(answers.items()):
        labels = {"protocol": protocol, "status": str(status)}
        page.add("deskside_http_responses_total", "counter", "Answers over HTTP", labels, count)
    page.add("deskside_http_requests_open", "gauge", "HTTP requests under way", {}, under_way)
    return page.text()


def _triton(page: _Page, entry: Mapping[str, Any]) -> None:
    told = entry["statistics"]
    labels = {"model": entry["id"], "version": entry["version"] or ""}
    page.add("nv_inference_request_success", "counter", "Requests answered", labels, told["success"]["count"])
    for reason in REASONS:
        page.add(
            "nv_inference_request_failure", "counter", "Requests that failed", labels | {"reason": reason},
            told["failures"].get(reason, 0),
        )  # fmt: skip
    page.add("nv_inference_count", "counter", "Rows the model was given", labels, told["rows"])
    page.add("nv_inference_exec_count", "counter", "Calls of the model", labels, entry["inferences"])
    for name, key, what in _DURATIONS:
        page.add(
            f"nv_inference_{name}_duration_us", "counter", f"{what}, microseconds", labels, told[key]["ns"] // 1000
        )
    page.add("nv_inference_pending_request_count", "gauge", "Requests that wait", labels, entry["waiting"])


def _ours(page: _Page, entry: Mapping[str, Any]) -> None:
    labels = {"model": entry["id"]}
    for door, count in entry["requests"].items():
        page.add("deskside_answers_total", "counter", "Answers by door", labels | {"door": door}, count)
    batches = {int(size): count for size, count in entry["statistics"]["batches"].items()}
    cumulative = 0
    for bound in BATCH_SIZES[:-1]:
        cumulative += batches.get(bound, 0)
        below = labels | {"le": str(bound)}
        page.add("deskside_batch_requests", "histogram", "Requests in one batch", below, cumulative, "_bucket")
    total = sum(batches.values())
    page.add("deskside_batch_requests", "histogram", "", labels | {"le": "+Inf"}, total, "_bucket")
    # A batch counts as the bound it lies under, so the sum is the largest that it can be.
    page.add("deskside_batch_requests", "histogram", "", labels, sum(b * n for b, n in batches.items()), "_sum")
    page.add("deskside_batch_requests", "histogram", "", labels, total, "_count")
    page.add("deskside_worker_restarts_total", "counter", "Workers started anew", labels, entry["restarts"])
    page.add("deskside_loads_total", "counter", "Loads of the model", labels, entry["loads"])
    page.add("deskside_running_requests", "gauge", "Requests the worker has", labels, entry["running"])
    ready = int(entry["state"] == ModelState.READY)
    page.add("deskside_model_ready", "gauge", "1 where the model is loaded and answers", labels, ready)


class _Page:
    """Families in the order of their first sample; the samples of one stand together, as the format asks."""

    def __init__(self) -> None:
        self._families: dict[str, list[str]] = {}

    def add(self, name: str, kind: str, what: str, labels: Labels, value: float, suffix: str = "") -> None:
        lines = self._families.setdefault(name, [f"# HELP {name} {what}", f"# TYPE {name} {kind}"])
        lines.append(f"{name}{suffix}{_braces(labels.items())} {value}")

    def text(self) -> bytes:
        return "".join(f"{line}\n" for lines in self._families.values() for line in lines).encode()


def _braces(labels: Iterable[tuple[str, str]]) -> str:
    escaped = ((name, value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")) for name, value in labels)
    inside = ",".join(f'{name}="{value}"' for name, value in escaped)
    return f"{{{inside}}}" if inside else ""
