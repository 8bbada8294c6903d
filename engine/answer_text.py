"""Answers as lines of text: what ``deskside predict`` prints, for people and as JSON.

Knows the plain types only; what a file is, is said by a fixed table of suffixes.
"""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

import orjson

from engine.prediction import Prediction, Predictions

MOST_BOXES = 8
"""How many boxes are named in a line."""

# A fixed table, not the mimetypes module: that one reads the machine's registry and differs between machines.
CONTENT_TYPES = {
    ".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp", ".bmp": "image/bmp",
    ".gif": "image/gif", ".tif": "image/tiff", ".tiff": "image/tiff", ".heic": "image/heic", ".avif": "image/avif",
    ".csv": "text/csv", ".parquet": "application/vnd.apache.parquet", ".txt": "text/plain", ".json": "application/json",
    ".npy": "application/x-npy", ".npz": "application/x-npz",
    ".wav": "audio/wav", ".flac": "audio/flac", ".mp3": "audio/mpeg", ".ogg": "audio/ogg",
}  # fmt: skip


def content_type_of(suffix: str) -> str:
    """The media type of a file with this suffix; ``application/octet-stream`` leaves it to the first bytes."""
    return CONTENT_TYPES.get(suffix.lower(), "application/octet-stream")


def has_failed(answer: Prediction | Exception) -> bool:
    """Whether the input, or any row of it, got no answer."""
    return isinstance(answer, Exception) or any("error" in row for row in answer.results or ())


def shown(name: str) -> str:
    """A file name as text, whatever bytes it has."""
    return os.fsencode(name).decode("utf-8", "replace")


def sentence_of(error: Exception) -> str:
    """One sentence; an OSError without the path, which stands in the line already."""
    return f"{error.strerror or error}." if isinstance(error, OSError) else str(error)


def as_json_line(name: str, answer: Prediction | Exception) -> str:
    """The network's shape (``contract.md``) and ``input``; an input that failed has ``error`` instead of an answer."""
    if isinstance(answer, Exception):
        code = str(getattr(answer, "code", "input_unreadable"))
        body: dict[str, Any] = {"error": {"code": code, "message": sentence_of(answer)}}
    else:
        body = answer.to_json()
    return orjson.dumps({"input": shown(name), **body}).decode()


def as_text_line(name: str, answer: Prediction | Exception) -> str:
    """``input  label  score`` for one answer, counts for a table, shapes for raw tensors."""
    start = " ".join(shown(name).splitlines())  # a text given in place of a file may have several lines
    if isinstance(answer, Exception):
        return f"{start}  error: {sentence_of(answer)}"
    if answer.results is not None:
        return f"{start}  {_summary(answer.results)}"
    if answer.outputs is not None:
        tensors = (f"{key} {value.dtype} {list(value.shape)}" for key, value in answer.outputs.items())
        return f"{start}  {', '.join(tensors)}"
    return f"{start}  {_best(answer.predictions or [])}"


def _best(predictions: Predictions) -> str:
    if isinstance(predictions, dict):
        if "depth" in predictions and all(isinstance(predictions.get(n), float) for n in ("minimum", "maximum")):
            return _depth(predictions)
        if isinstance(predictions.get("image"), bytes) and isinstance(predictions.get("width"), int):
            return _picture(predictions)
        return ", ".join(f"{name} {_part(part)}" for name, part in predictions.items())
    if not predictions:
        return "nothing found"
    best = predictions[0]
    if isinstance(best, dict) and isinstance(best.get("box"), dict):
        return _boxes(predictions)
    if isinstance(best, dict) and isinstance(best.get("keypoints"), list):
        return _points(best["keypoints"])
    if all(isinstance(entry, dict) and isinstance(entry.get("area"), float) for entry in predictions):
        return _masks(predictions)
    if isinstance(best, dict) and "label" in best and isinstance(best.get("score"), float):
        score = best["score"]
        return f"{best['label']}  {_percent(score) if 0.0 <= score <= 1.0 else f'{score:g}'}"
    if isinstance(best, dict) and "entity_group" in best:
        return ", ".join(f"{found['word']} ({found['entity_group']})" for found in predictions)
    if isinstance(best, dict) and "value" in best:
        return ", ".join(f"{found['value']:g}" for found in predictions)
    if isinstance(best, float | list):
        return f"numbers {_nested_shape(predictions)}"
    return str(best)


def _part(part: Any) -> str:
    if isinstance(part, bytes):
        return f"a picture of {len(part)} bytes"
    return f"{part.dtype} {list(part.shape)}" if hasattr(part, "dtype") else str(part)


def _nested_shape(numbers: Any) -> list[int]:
    shape = []
    while isinstance(numbers, list):
        shape.append(len(numbers))
        numbers = numbers[0] if numbers else 0.0
    return shape


def _boxes(found: list[dict[str, Any]]) -> str:
    """``cat  91.0% at 20,10-70,60``, best first, as many as a line holds."""
    told = []
    for entry in found[:MOST_BOXES]:
        edges = [entry["box"][name] for name in ("xmin", "ymin", "xmax", "ymax")]
        told.append("{}  {} at {},{}-{},{}".format(entry["label"], _percent(entry["score"]), *edges))
    more = len(found) - len(told)
    return "; ".join([*told, f"and {more} more"] if more else told)


def _points(found: list[dict[str, Any]]) -> str:
    """``nose 12,40; left_eye 14,38``, in the answer's order, as many as a line holds."""
    told = [f"{point['label']} {point['x']:g},{point['y']:g}" for point in found[:MOST_BOXES]]
    more = len(found) - len(told)
    return "; ".join([*told, f"and {more} more"] if more else told)


def _masks(found: list[dict[str, Any]]) -> str:
    """``circle  98.1%, 12.4% of the picture``, in the answer's order, as many as a line holds; a class alone has no
    score."""
    told = []
    for entry in found[:MOST_BOXES]:
        score = f"{_percent(entry['score'])}, " if isinstance(entry.get("score"), float) else ""
        told.append(f"{entry.get('label')}  {score}{_share(entry['area'])} of the picture")
    more = len(found) - len(told)
    return "; ".join([*told, f"and {more} more"] if more else told)


def _depth(answer: dict[str, Any]) -> str:
    """``depth 0.3 to 4.2``; what else there is to say of it comes with it."""
    said = f"depth {answer['minimum']:.4g} to {answer['maximum']:.4g}"
    return f"{said}  {answer['note']}" if answer.get("note") else said


def _picture(answer: dict[str, Any]) -> str:
    """``picture of 112 x 256 pixels``; what else there is to say of it comes with it."""
    said = f"picture of {answer['width']} x {answer['height']} pixels"
    return f"{said}  {answer['note']}" if answer.get("note") else said


def _share(area: float) -> str:
    return "<0.1%" if 0.0 < area < 0.0005 else f"{area:.1%}"


def _percent(score: float) -> str:
    """As the window shows it: only what is certain is 100 %."""
    return ">99.9%" if 0.9995 <= score < 1.0 else f"{score:.1%}"


def _summary(results: list[dict[str, Any]]) -> str:
    """A table in one line: how many rows, and how often each answer."""
    if len(results) == 1 and "error" not in results[0]:
        return _best(results[0]["predictions"])
    failed = sum("error" in row for row in results)
    labels = Counter(
        str(row["predictions"][0].get("label", ""))
        for row in results
        if row.get("predictions") and isinstance(row["predictions"][0], dict)
    )
    counted = ", ".join(f"{label} × {count}" for label, count in labels.most_common() if label)
    parts = [f"{len(results)} rows", counted, f"{failed} failed" if failed else ""]
    return "  ".join(part for part in parts if part)
