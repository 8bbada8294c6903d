"""What is promised: one row a promise, each with what it must reach and what it aims at."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Promise:
    """``must`` and ``aim`` are ratios, shares, milliseconds or megabytes; ``least``: more is better."""

    name: str
    must: float
    aim: float
    unit: str = "x"
    least: bool = True


PROMISES = {
    "s-c32": Promise("S JSON c=32, best peer, constant headers", 5, 8),
    "s-c32-unique": Promise("S JSON c=32, best peer, unique headers", 3, 5),
    "s-c32-key": Promise("S JSON c=32, best peer, with a key", 3, 5),
    "s-c1": Promise("S JSON c=1, best peer", 1.1, 1.5),
    "m-raw": Promise("M raw c=32, best peer as documented", 3.5, 6),
    "m-jpeg": Promise("M JPEG c=32, best peer as documented", 2.5, 4),
    "m-prepared": Promise("M raw c=32, best peer with our prepared model and batch cap", 2, 2.6),
    "m-floor-one": Promise("M raw c=32, share of the best bare loop, one core", 90, 95, "%"),
    "m-floor-all": Promise("M raw c=32, share of the best bare loop, all cores", 80, 95, "%"),
    "l-peer": Promise("L raw c=8, best peer", 1, 1.2),
    "l-floor": Promise("L raw c=8, share of the best bare loop, all cores", 85, 92, "%"),
    "keras": Promise("Keras M JPEG c=8, model.predict tutorial server", 10, 20),
    "gap-s": Promise("window's timer gap p99 above idle, S saturated", 3, 1, "ms", least=False),
    "gap-m": Promise("window's timer gap p99 above idle, M saturated", 5, 3, "ms", least=False),
    "gap-json": Promise("window's timer gap p99 above idle, 3 MB JSON saturated", 5, 3, "ms", least=False),
    "load": Promise("load to first answer, against a bare script", 1.15, 1.05, "x", least=False),
    "load-spare": Promise("the same with a spare process", 0.6, 0.4, "x", least=False),
    "memory": Promise("app's memory without a model, above a bare PySide6 window", 80, 50, "MB", least=False),
    "wrong": Promise("wrong, refused, lost or doubled answers", 0, 0, "", least=False),
}  # fmt: skip


def verdict(promise: Promise, value: float | None, why: str = "") -> str:
    """ "must met", "aim met", "not met", or "not run" and why."""
    if value is None:
        return f"not run: {why}"
    sign = 1 if promise.least else -1
    if value * sign >= promise.aim * sign:
        return "aim met"
    return "must met" if value * sign >= promise.must * sign else "not met"


@dataclass(frozen=True)
class Row:
    """A promise and what was found. ``note`` says against what."""

    promise: Promise
    value: float | None
    note: str = ""

    @property
    def verdict(self) -> str:
        return verdict(self.promise, self.value, self.note)

    def markdown(self) -> str:
        promise = self.promise
        found = "" if self.value is None else number(self.value, promise.unit)
        note = "" if self.value is None else self.note
        goals = f"{number(promise.must, promise.unit)} | {number(promise.aim, promise.unit)}"
        return f"| {promise.name} | {goals} | {found} | **{self.verdict}** | {note} |"


HEAD = "| what | must | aim | found | verdict | |\n|---|---|---|---|---|---|"


def number(value: float, unit: str) -> str:
    text = f"{value:.2f}" if unit == "x" else f"{value:.1f}" if unit == "ms" else f"{value:.0f}"
    return text + (unit if unit in ("x", "%") else f" {unit}" if unit else "")
