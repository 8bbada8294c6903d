"""What is known of a model as rows a person reads: field, value, and where it was read.

Built from an entry of ``stats()["models"]``. A row is *found* (a file says so), *changed* (the sidecar beside the model
says so), *assumed* (nothing says so), or *unused* (it has no part in this model's answers).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from engine.model_spec import ASSUMED, SIDECAR, ModelSpec, TrustClass
from gui.language import counted, mark, tr
from gui.words import device_words, format_words, size_words, task_words

ANSWERS, TAKES, FILES, RUNS = mark("What it answers"), mark("What it takes"), mark("The file"), mark("Where it runs")
GROUPS = (ANSWERS, TAKES, FILES, RUNS)

_FIELDS = {
    "task": (ANSWERS, mark("Task")),
    "labels": (ANSWERS, mark("Classes")),
    "outputs": (ANSWERS, mark("Output")),
    "postprocessing.activation": (ANSWERS, mark("Scores")),
    "postprocessing.threshold": (ANSWERS, mark("Least score")),
    "postprocessing.iou": (ANSWERS, mark("Box overlap")),
    "inputs": (TAKES, mark("Input")),
    "columns": (TAKES, mark("Columns")),
    "preprocessing.scaling": (TAKES, mark("Scaling")),
    "preprocessing.mean": (TAKES, mark("Mean")),
    "preprocessing.std": (TAKES, mark("Deviation")),
    "preprocessing.channel_order": (TAKES, mark("Colour")),
    "preprocessing.layout": (TAKES, mark("Layout")),
    "preprocessing.size": (TAKES, mark("Size")),
    "preprocessing.resize": (TAKES, mark("Resize")),
    "preprocessing.resize_size": (TAKES, mark("Resized to")),
    "preprocessing.multiple": (TAKES, mark("Sides in multiples of")),
    "preprocessing.resample": (TAKES, mark("Filter")),
    "preprocessing.crop": (TAKES, mark("Crop")),
    "preprocessing.jpeg_scaled_decode": (TAKES, mark("Large photographs")),
    "format": (FILES, mark("Format")),
    "runtime": (FILES, mark("Runtime")),
    "version": (FILES, mark("Version")),
    "signatures": (FILES, mark("Signatures")),
}
COMPARED = frozenset(f"preprocessing.{name}" for name in ("scaling", "mean", "std", "channel_order", "layout"))
"""Fields that are chosen by looking at answers."""

_DECISIVE = frozenset({"task", "labels", "columns", "inputs", "preprocessing.size", "postprocessing.activation"})

_WORDS: dict[str, dict[str, str]] = {
    "preprocessing.channel_order": {"rgb": "RGB", "bgr": "BGR", "grayscale": mark("Greyscale")},
    "preprocessing.resize": {
        "stretch": mark("Stretched to the size"),
        "shortest": mark("Until the shorter side fits"),
        "longest": mark("Until the longer side fits"),
        "fit": mark("Largest centred part"),
        "none": mark("Not resized"),
    },
    "preprocessing.crop": {"none": mark("Not cropped"), "center": mark("Centre crop"), "square": mark("Centre square")},
    "preprocessing.jpeg_scaled_decode": {
        "True": mark("JPEG decoded smaller: faster, pixels differ slightly"),
        "False": mark("Decoded in full"),
    },
    "preprocessing.layout": {
        "nhwc": mark("Height, width, channels"),
        "nchw": mark("Channels, height, width"),
        "nhw": mark("Height, width"),
    },
    "postprocessing.activation": {
        "none": mark("As the model gives them"),
        "softmax": mark("Softmax, they add to 1"),
        "sigmoid": mark("Sigmoid, each by itself"),
    },
}
_TRUST = {
    TrustClass.DATA: (mark("Data only, no code runs"), mark("checked before it was opened")),
    TrustClass.PROGRAM: (mark("A program, run with your consent"), mark("asked once for these exact files")),
    TrustClass.REFUSED: (mark("Refused"), mark("never opened")),
}
_STEPS = {
    "channels-last": mark("channels last"),
    "traced": mark("traced"),
    "frozen": mark("frozen"),
    "optimised": mark("optimised"),
}
_REASONS = {
    "slower": mark("nothing faster was found"),
    "differs": mark("faster ways gave other answers"),
    "random": mark("it answers the same question differently"),
    "depends": mark("its code looks at the values it is given"),
    "failed": mark("a faster way failed"),
    "no sample": mark("nothing tells the size of its input"),
    "too large": mark("it is too large to be held twice"),
    "unknown": mark("no faster way is known for it"),
    "died": mark("its process ended with it"),
}
_TABLE_TASKS = ("tabular", "text", "token", "raw", "feature")


class Evidence(StrEnum):
    FOUND = "found"
    CHANGED = mark("changed by you")
    ASSUMED = "assumed"
    UNUSED = mark("not used")


@dataclass(frozen=True, slots=True)
class EvidenceRow:
    """``key`` is the sidecar's ("" for what is no field of it); ``value`` fits a line, ``full`` is all of it."""

    key: str
    group: str
    name: str
    value: str
    full: str
    source: str
    kind: Evidence
    is_asked: bool = False
    """Whether the right value is to be found by comparing answers."""


def evidence_rows(entry: Mapping[str, Any]) -> list[EvidenceRow]:
    """Every row of one model, in the order of :data:`GROUPS`; the fields of :meth:`ModelSpec.evidence_rows`, its trust
    class and files, and what was measured of this copy. Empty for a model that was never read."""
    if not entry.get("spec"):
        return []
    spec = ModelSpec.from_json(dict(entry["spec"]))
    rows = [_field_row(spec, key, value, source) for key, value, source in spec.evidence_rows()]
    rows += [_trust_row(spec), _files_row(spec), *_running_rows(entry)]
    order = {key: i for i, key in enumerate(_FIELDS)}
    return sorted(rows, key=lambda row: (GROUPS.index(row.group), order.get(row.key, len(order))))


def found_of(rows: Sequence[EvidenceRow]) -> tuple[int, int]:
    """(fields that a file or the sidecar states, fields that count)."""
    counting = [row for row in rows if row.key and row.kind is not Evidence.UNUSED]
    return sum(row.kind is not Evidence.ASSUMED for row in counting), len(counting)


def found_words(rows: Sequence[EvidenceRow]) -> str:
    """``8 of 9 fields found in the files``."""
    found, fields = found_of(rows)
    return tr("{found} of {fields} found in the files").format(
        found=found, fields=counted("{count} field", "{count} fields", fields)
    )


def assumed_rows(rows: Sequence[EvidenceRow]) -> list[EvidenceRow]:
    return [row for row in rows if row.kind is Evidence.ASSUMED]


def is_doubtful(rows: Sequence[EvidenceRow]) -> bool:
    """Whether something is assumed that may make answers wrong; a resizing filter, say, hardly does."""
    return any(row.kind is Evidence.ASSUMED and (row.is_asked or row.key in _DECISIVE) for row in rows)


def as_text(rows: Sequence[EvidenceRow]) -> str:
    """The whole card as lines, values in full."""
    lines: list[str] = []
    for group in GROUPS:
        lines += ["", tr(group)] if lines else [tr(group)]
        lines += [f"  {row.name}: {row.full} ({row.source or tr(row.kind)})" for row in rows if row.group == group]
    return "\n".join(lines)


def scaling_words(scaling: str) -> str:
    """``-1..1`` -> ``−1 … 1``."""
    return scaling.replace("..", " … ").replace("-", "\u2212")


# -- one row -----------------------------------------------------------------------------------------------------------
def _field_row(spec: ModelSpec, key: str, value: Any, source: str) -> EvidenceRow:
    group, name = _FIELDS.get(key, (FILES, key.rpartition(".")[2].replace("_", " ").capitalize()))
    name = tr(name)
    short, full = _value_words(key, value)
    kind = _kind(spec, key, value, source)
    where = _source_words(source, kind)
    if key == "labels" and kind is Evidence.ASSUMED and not value:
        short = full = tr("Numbers, not names")
    # Of one channel there is one order, and no other place to put it.
    asked = key in COMPARED and kind is Evidence.ASSUMED and value not in ("grayscale", "nhw")
    return EvidenceRow(key, group, name, short, full, where, kind, asked)


def _kind(spec: ModelSpec, key: str, value: Any, source: str) -> Evidence:
    assumed = source.startswith(ASSUMED)
    if key.startswith("preprocessing.") and spec.task.startswith(_TABLE_TASKS):
        return Evidence.UNUSED
    if key.startswith("postprocessing.") and assumed and not spec.labels:
        return Evidence.UNUSED
    if key == "preprocessing.jpeg_scaled_decode" and not spec.may_decode_smaller:
        return Evidence.UNUSED
    if not value and key in ("preprocessing.mean", "preprocessing.std"):
        return Evidence.UNUSED  # whoever says so: nothing is subtracted
    if not value and assumed and not (key == "labels" and "classification" in spec.task):
        return Evidence.UNUSED
    if key in ("version", "preprocessing.multiple") and assumed:
        return Evidence.UNUSED
    if source.startswith(SIDECAR):
        return Evidence.CHANGED
    return Evidence.ASSUMED if assumed else Evidence.FOUND


def _source_words(source: str, kind: Evidence) -> str:
    if kind is Evidence.UNUSED:
        return ""
    if kind is Evidence.ASSUMED:
        _, _, why = source.partition("(")
        if why:
            return tr("Found nowhere, so assumed ({why})").format(why=why.removesuffix(")"))
        return tr("Found nowhere, so assumed")
    return tr("{source} beside the model").format(source=source) if source == SIDECAR else source


def _value_words(key: str, value: Any) -> tuple[str, str]:
    """(for the line, in full)."""
    if key in ("inputs", "outputs"):
        shapes = [_tensor_words(tensor) for tensor in value]
        full = "; ".join(f"{t['name']}: {words}" for t, words in zip(value, shapes, strict=True))
        return (shapes[0] if len(shapes) == 1 else counted("{count} tensor", "{count} tensors", len(shapes))), full
    if key in ("labels", "columns"):
        names = ", ".join(str(name) for name in value)
        number = counted("{count} name", "{count} names", len(value))
        return (f"{number}: {names[:400]}" if value else tr("none")), names or tr("none")
    if isinstance(value, list | tuple):
        words = _list_words(key, value)
    elif value is None or value == "":
        words = tr("none")
    elif key == "task":
        words = task_words(str(value))
    elif key in ("format", "runtime"):
        words = format_words(str(value))
    elif key == "preprocessing.scaling":
        words = scaling_words(str(value))
    else:
        words = tr(_WORDS.get(key, {}).get(str(value), str(value)))
    return words, words


def _list_words(key: str, value: Sequence[Any]) -> str:
    if not value:
        return tr("none")
    if key.endswith("size") and len(value) == 2:
        return tr("{width} × {height} pixels").format(width=value[1], height=value[0])
    return ", ".join(f"{v:.4g}" if isinstance(v, float) else str(v) for v in value)


def _tensor_words(tensor: Mapping[str, Any]) -> str:
    shape = list(tensor["shape"])
    if shape and shape[0] == -1:
        shape = shape[1:]  # the batch: every model here takes several
    dims = " × ".join(tr("any") if n == -1 else str(n) for n in shape)
    if len(shape) == 1:
        dims = tr("{dims} values").format(dims=dims)
    return f"{dims}, {tensor['dtype']}" if dims else str(tensor["dtype"])


def _trust_row(spec: ModelSpec) -> EvidenceRow:
    words, source = map(tr, _TRUST[spec.trust_class])
    return EvidenceRow("", FILES, tr("Trust"), words, words, spec.evidence.get("trust_class", source), Evidence.FOUND)


def _files_row(spec: ModelSpec) -> EvidenceRow:
    files = spec.files or (spec.model_file,)
    first = files[0].name
    words = first if len(files) == 1 else tr("{first} and {count} more").format(first=first, count=len(files) - 1)
    return EvidenceRow(
        "", FILES, tr("Files"), words, ", ".join(map(str, files)), _folder_words(spec.path), Evidence.FOUND
    )


def _folder_words(path: Path) -> str:
    home = Path.home()
    return f"~/{path.relative_to(home)}" if path.is_relative_to(home) else str(path)


def _running_rows(entry: Mapping[str, Any]) -> list[EvidenceRow]:
    """What this copy runs on and with, as far as the engine says it."""
    rows = []
    device = entry.get("device")
    if device:
        rows.append((tr("Device"), device_words(str(device)), tr("where its process runs")))
    if entry.get("memory"):
        rows.append((tr("Memory"), size_words(int(entry["memory"])), tr("measured, of its process")))
    if entry.get("precision"):
        rows.append((tr("Precision"), str(entry["precision"]), tr("number type of its weights")))
    if entry.get("threads"):
        rows.append((tr("Threads"), str(entry["threads"]), tr("of this computer's cores, for one answer")))
    prepared = entry.get("preparation")
    if entry.get("max_batch_size"):
        is_probed = prepared is not None and prepared["batch"] == entry["max_batch_size"]
        source = tr("more at once won nothing in a probe") if is_probed else tr("as its memory allows")
        rows.append((tr("Batch"), tr("up to {count} at once").format(count=entry["max_batch_size"]), source))
    if prepared:
        rows.append((tr("Preparation"), *_preparation_words(prepared)))
    if prepared and prepared["streams"] > 1:
        words = tr("{count} batches at once").format(count=prepared["streams"])
        rows.append((tr("Streams"), words, tr("each on one core; a batch alone has all where that is faster")))
    if entry.get("keeps_memory"):
        rows.append((tr("Heap"), tr("freed memory is kept for the next answer"), tr("set when its process started")))
    if entry.get("sandbox"):
        rows.append((tr("Sandbox"), _sandbox_words(entry["sandbox"]), tr("what this system offers")))
    return [EvidenceRow("", RUNS, name, words, words, source, Evidence.FOUND) for name, words, source in rows]


def _preparation_words(told: Mapping[str, Any]) -> tuple[str, str]:
    """(what came of trying faster ways to run the model, where that is known from)."""
    state = told["state"]
    if state == "used":
        steps = ", ".join(tr(_STEPS[step]) for step in told["steps"])
        if told["gain"] is None:
            return steps, tr("compared with the untouched model")
        words = tr("{steps}: {gain} times as fast").format(steps=steps, gain=f"{told['gain']:.1f}")
        return words, tr("in a probe, and compared with the untouched model")
    if state == "running":
        return tr("Faster ways are being tried"), tr("it answers meanwhile")
    if state == "off":
        return tr("Off"), tr("your settings")
    why = tr(_REASONS.get(told["reason"] or "", _REASONS["failed"]))
    return (tr("Taken back") if state == "withdrawn" else tr("None")), why


def _sandbox_words(reached: Mapping[str, Any]) -> str:
    kept = {"files": tr("your files"), "network": tr("the network"), "processes": tr("other programs")}
    names = [words for key, words in kept.items() if reached.get(key)]
    return tr("kept from {what}").format(what=", ".join(names)) if names else tr("not kept from anything")
