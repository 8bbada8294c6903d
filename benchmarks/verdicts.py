"""What is promised: one row a promise, with what it must reach and what it aims at; and what the parts say to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from benchmarks.parts import Part


@dataclass(frozen=True)
class Cell:
    """One question: a kind of body, how many connections, and whether each request's head differs."""

    kind: str
    connections: int
    unique: bool = False

    @property
    def name(self) -> str:
        return f"{self.kind} c={self.connections}{', unique headers' if self.unique else ''}"


S_C32, S_UNIQUE, S_C1 = Cell("json", 32), Cell("json", 32, True), Cell("json", 1)
M_RAW, M_JPEG = Cell("raw", 32), Cell("jpeg", 32)
L_RAW, KERAS_JPEG = Cell("raw", 8), Cell("jpeg", 8)
OURS, OURS_KEYED, OURS_ONE_CORE = "Deskside", "Deskside with a key", "Deskside on one core"
FLOOR, FLOOR_ONE, FLOOR_JPEG = "bare loop, all cores", "bare loop, one core", "bare loop with Pillow, all cores"
DOOR = "bare door"
"""Deskside's server with a table of answers behind it."""


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
    "gpu": Promise("GPU: ResNet-50 JPEG c=64, share of min(bare loop, bare decoding)", 80, 92, "%"),
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


# -- what the parts say -----------------------------------------------------------------------------------------------
def is_prepared(name: str) -> bool:
    return name.endswith("prepared model")


def is_peer(name: str) -> bool:
    return not name.startswith(("Deskside", "bare ")) and not is_prepared(name)


@dataclass(frozen=True)
class Ratio:
    """A promise of the model's part that is a ratio within each round. ``limit``: who was asked, or looped, beside
    them with less to do than any product has; what it reaches, no product could exceed."""

    key: str
    part: str
    cell: Cell
    others: Callable[[str], bool]
    ours: str = OURS
    limit: str = ""

    def row(self, parts: Mapping[str, Part]) -> Row:
        promise = PROMISES[self.key]
        if self.part not in parts:
            return missing(self.key, self.part)
        part = parts[self.part]
        found = part.ratio(self.cell.name, self.ours, self.others)
        if found is None:
            return Row(promise, None, "; ".join(part.not_run.values())[:300] or "one of the two sides was not measured")
        note = found[1]
        if self.limit and (most := part.ratio(self.cell.name, self.limit, self.others)) is not None:
            note += f"; the {self.limit} itself: {number(most[0], promise.unit)}, {most[1].partition(' against')[0]}"
        return Row(promise, found[0] * (100 if promise.unit == "%" else 1), remarked(part, note))


@dataclass(frozen=True)
class Figure:
    """A promise that a part's own program measured. ``note`` is filled in with its figures."""

    key: str
    part: str
    note: str

    def row(self, parts: Mapping[str, Part]) -> Row:
        if self.part not in parts:
            return missing(self.key, self.part)
        part = parts[self.part]
        value = part.figures.get(self.key)
        if value is None:
            return Row(PROMISES[self.key], None, "; ".join(part.failures)[:300] or "its program printed no such figure")
        try:
            note = self.note.format(**part.figures)
        except KeyError as error:
            return Row(PROMISES[self.key], None, f"part {self.part} was taken by a program that had no {error}")
        return Row(PROMISES[self.key], value, remarked(part, note))


GAP = "idle p99 {idle:.1f} ms, "
ROWS: tuple[Ratio | Figure, ...] = (
    Ratio("s-c32", "s", S_C32, is_peer, limit=DOOR),
    Ratio("s-c32-unique", "s", S_UNIQUE, is_peer, limit=DOOR),
    Ratio("s-c32-key", "s", S_C32, is_peer, OURS_KEYED, limit=DOOR),
    Ratio("s-c1", "s", S_C1, is_peer, limit=DOOR),
    Ratio("m-raw", "m", M_RAW, is_peer, limit=FLOOR),
    Ratio("m-jpeg", "m", M_JPEG, is_peer, limit=FLOOR_JPEG),
    Ratio("m-prepared", "m", M_RAW, is_prepared, limit=FLOOR),
    Ratio("m-floor-one", "m", M_RAW, FLOOR_ONE.__eq__, OURS_ONE_CORE),
    Ratio("m-floor-all", "m", M_RAW, FLOOR.__eq__),
    Ratio("l-peer", "l", L_RAW, is_peer),
    Ratio("l-floor", "l", L_RAW, FLOOR.__eq__),
    Ratio("keras", "keras", KERAS_JPEG, is_peer),
    Figure("gap-s", "window", GAP + "{rate-s:.0f} answers/s meanwhile"),
    Figure("gap-m", "window", GAP + "{rate-m:.0f} answers/s meanwhile"),
    Figure("gap-json", "window", GAP + "{rate-json:.0f} answers/s meanwhile"),
    Figure("load", "load", "the worst of three models: M {load-m:.2f}x, digits in PyTorch {load-digits-torch:.2f}x, "
           "in Keras {load-digits-keras:.2f}x"),
    Figure("load-spare", "load", "the worst of three models: M {spare-m:.2f}x, digits in PyTorch "
           "{spare-digits-torch:.2f}x, in Keras {spare-digits-keras:.2f}x"),
    Figure("memory", "footprint", "{app_alone_mb:.0f} MB and {bare_mb:.0f} MB; with every process of ours "
           "{app_mb:.0f} MB"),
)  # fmt: skip


def missing(key: str, part: str) -> Row:
    return Row(PROMISES[key], None, f"part {part} was not taken")


def remarked(part: Part, note: str) -> str:
    return note + ("; **taken on a busy machine**" if part.is_busy else "")


def rows_of(parts: Mapping[str, Part]) -> list[Row]:
    """The rows of the parts that are there."""
    return [row.row(parts) for row in ROWS if row.part in parts]


def all_rows(parts: Mapping[str, Part]) -> list[Row]:
    """Every promise's row; what was not taken says so."""
    answers = sum(part.answers for part in parts.values())
    note = f"of {answers} answers of Deskside's, each checked in the timed run"
    wrong = float(sum(part.failed_answers for part in parts.values())) if answers else None
    return [
        *(row.row(parts) for row in ROWS),
        Row(PROMISES["gpu"], None, "no GPU here"),
        Row(PROMISES["wrong"], wrong, note if answers else "Deskside was not asked"),
    ]
