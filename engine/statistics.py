"""What a model has done so far, counted as Triton counts it: requests, rows, calls, and where their time went.

Names and meaning: triton-inference-server/server, docs/protocol/extension_statistics.md and docs/user_guide/metrics.md.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, fields
from typing import Any

REASONS = ("REJECTED", "CANCELED", "BACKEND", "OTHER")
"""Why requests failed: turned away before they ran, given up by their caller, the model's own error, the rest."""
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
"""Upper bounds of the counted sizes of calls, in requests; what is larger counts under the last."""
_CODES = {
    **dict.fromkeys(
        ("busy", "loading", "draining", "model_failed", "quarantined", "deadline_exceeded", "closed"), "REJECTED"
    ),
    "cancelled": "CANCELED",
    **dict.fromkeys(("model_error", "device_oom", "worker_restarted"), "BACKEND"),
}


@dataclass(slots=True)
class Duration:
    """How often, and nanoseconds altogether."""

    count: int = 0
    ns: int = 0

    def add(self, milliseconds: float) -> None:
        self.count += 1
        self.ns += int(milliseconds * 1e6)

    def __add__(self, other: Duration) -> Duration:
        return Duration(self.count + other.count, self.ns + other.ns)


@dataclass(slots=True)
class Statistics:
    """Of one version of a model. ``rows``: what the model was given, ``last_at`` milliseconds since 1970 of the last
    answer. ``failures`` by :data:`REASONS`; ``batches`` by :data:`BATCH_SIZES`."""

    success: Duration = field(default_factory=Duration)
    fail: Duration = field(default_factory=Duration)
    queue: Duration = field(default_factory=Duration)
    compute_input: Duration = field(default_factory=Duration)
    compute_infer: Duration = field(default_factory=Duration)
    compute_output: Duration = field(default_factory=Duration)
    rows: int = 0
    last_at: int = 0
    failures: dict[str, int] = field(default_factory=dict)
    batches: dict[int, int] = field(default_factory=dict)

    def answered(self, timing: dict[str, float], wait_ms: float, total_ms: float, rows: int) -> None:
        """One request was answered; ``timing`` has ``decode``, ``infer`` and ``post`` in milliseconds."""
        self.success.add(total_ms)
        self.queue.add(wait_ms)
        self.compute_input.add(timing["decode"])
        self.compute_infer.add(timing["infer"])
        self.compute_output.add(timing["post"])
        self.rows += rows
        self.last_at = int(time.time() * 1000)

    def failed(self, code: str, total_ms: float) -> None:
        self.fail.add(total_ms)
        reason = _CODES.get(code, "OTHER")
        self.failures[reason] = self.failures.get(reason, 0) + 1

    def ran(self, requests: int) -> None:
        """One batch of ``requests`` came back from the worker."""
        size = next((bound for bound in BATCH_SIZES if requests <= bound), BATCH_SIZES[-1])
        self.batches[size] = self.batches.get(size, 0) + 1

    def __add__(self, other: Statistics) -> Statistics:
        summed: dict[str, Any] = {}
        for each in fields(self):
            mine, theirs = getattr(self, each.name), getattr(other, each.name)
            if isinstance(mine, dict):
                summed[each.name] = {key: mine.get(key, 0) + theirs.get(key, 0) for key in (mine | theirs)}
            else:
                summed[each.name] = max(mine, theirs) if each.name == "last_at" else mine + theirs
        return Statistics(**summed)

    def to_json(self) -> dict[str, Any]:
        """As ``stats()["models"][i]["statistics"]`` shows it."""
        out: dict[str, Any] = {"rows": self.rows, "last_at": self.last_at}
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, Duration):
                out[each.name] = {"count": value.count, "ns": value.ns}
        return out | {"failures": dict(self.failures), "batches": {str(k): n for k, n in sorted(self.batches.items())}}
