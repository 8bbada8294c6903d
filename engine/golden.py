"""Golden samples: one stored input and the answer it is known to have, by which a model shows that it still is itself.

A sample comes with the model's package (``golden/expected.json`` and the file its ``input`` names, in the model's
folder) or is an answer the owner kept, which lies in the data folder and comes before the package's::

    {"input": "input.png", "params": {"top_k": 10}, "predictions" | "results" | "outputs": …, "tolerance": 0.01}

The answer has the shape of the native HTTP answer (``Prediction.to_json``), so that both doors are held to the same.
A folder named ``golden`` may hold pictures of people: nothing here is ever sent anywhere.

NumPy is imported where tensors are met: a window without a model does without.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import stat
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import orjson

from engine.answer_text import CONTENT_TYPES, content_type_of
from engine.errors import EngineError, Malformed
from engine.model_spec import ModelSpec
from engine.prediction import Prediction, PredictRequest
from engine.settings import write_atomically

if TYPE_CHECKING:
    from numpy.typing import NDArray

FOLDER = "golden"
EXPECTED = "expected.json"
KEPT = "kept answer"
DEFAULT_TOLERANCE = 1e-3
MAX_INPUT_BYTES = 64 << 20
MAX_EXPECTED_BYTES = 16 << 20
_DEFAULT_TOP_K = 5
_KINDS = ("predictions", "results", "outputs")
_SUFFIXES = {content_type: suffix for suffix, content_type in reversed(CONTENT_TYPES.items())}


class GoldenInvalid(ValueError):
    """There is a golden sample, and it cannot be used: the sentence says why."""


@dataclass(frozen=True, slots=True)
class GoldenReport:
    """What one check of a golden sample found. ``door`` is ``window`` or ``network``.

    ``agreed`` is None where the question was not answered; ``difference`` is the largest between two scores (or two
    numbers of an output), None where the answers cannot be compared; ``checked_at`` is in Unix seconds.
    """

    door: str
    agreed: bool | None
    difference: float | None
    tolerance: float
    checked_at: float
    version: str
    source: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class GoldenSample:
    """``expected`` is one of Prediction's answers in JSON: ``{"predictions": …}``, ``{"results": …}`` or ``outputs``.

    ``classes`` is how many the model has, where that is known: a list of them all is then compared as one.
    """

    data: bytes
    content_type: str
    params: Mapping[str, Any]
    expected: Mapping[str, Any]
    tolerance: float
    source: str
    classes: int | None = None

    def request(self, model: str, *, timeout_s: float, version: str | None = None) -> PredictRequest:
        """The question as the batch lane asks it."""
        return PredictRequest(
            model, self.data, self.content_type, dict(self.params), lane="batch", client="golden",
            timeout_s=timeout_s, version=version,
        )  # fmt: skip

    def compare(self, answer: Mapping[str, Any], *, door: str, version: str) -> GoldenReport:
        """``answer`` is a prediction in JSON (``Prediction.to_json``, or the body of an HTTP answer)."""
        top_k = self.params.get("top_k", _DEFAULT_TOP_K)
        most = int(top_k) if _is_number(top_k) else _DEFAULT_TOP_K
        # One list of all classes is complete, however many were asked for.
        complete = self.classes is not None and most >= self.classes
        comparison = _Comparison(self.tolerance, most + 1 if complete else most)
        kind = next(iter(self.expected))
        if kind == "outputs" and kind in answer:
            comparison.outputs(self.expected[kind], answer[kind])
        elif kind in answer:
            comparison.values(kind, self.expected[kind], answer[kind])
        else:
            found = ", ".join(name for name in _KINDS if name in answer) or "no answer"
            comparison.fail(f"It answers with {found} instead of {kind}.")
        agreed = not comparison.message
        largest = comparison.largest if math.isfinite(comparison.largest) else None
        return GoldenReport(
            door, agreed, largest, self.tolerance, time.time(), version, self.source, comparison.message
        )

    def unanswered(self, error: BaseException, *, door: str, version: str) -> GoldenReport:
        """The report of a question that got no answer."""
        return GoldenReport(door, None, None, self.tolerance, time.time(), version, self.source, str(error))


def golden_entry(reports: Mapping[str, GoldenReport]) -> dict[str, Any] | None:
    """What ``stats()`` tells of the checks: ``window`` and ``network`` are true, false or None (not checked)."""
    if not reports:
        return None
    newest = max(reports.values(), key=lambda report: report.checked_at)
    differences = [r.difference for r in reports.values() if r.difference is not None]
    agreed = {door: reports[door].agreed if door in reports else None for door in ("window", "network")}
    return agreed | {
        "difference": max(differences, default=None),
        "tolerance": newest.tolerance,
        "checked_at": newest.checked_at,
        "version": newest.version,
        "source": newest.source,
        "message": next((r.message for r in reports.values() if r.message), ""),
    }


# -- where samples lie ----------------------------------------------------------------------------------------------
def kept_folder(data_dir: Path, location: Path) -> Path:
    """Where the kept answer of the model at ``location`` lies: by its place, so that a new version is held to it."""
    name = f"{location.name}-{hashlib.sha256(str(location).encode()).hexdigest()[:16]}"
    return data_dir / FOLDER / name


def package_folder(spec: ModelSpec) -> Path:
    """Where a package's own sample lies: in the model's folder. A single file among others has none."""
    return spec.path / FOLDER


def find_golden(spec: ModelSpec, location: Path, data_dir: Path) -> GoldenSample | None:
    """The model's sample, the kept one first; None where there is none. Reads disk. Raises GoldenInvalid."""
    kept = kept_folder(data_dir, location)
    if (kept / EXPECTED).is_file():
        return read_golden(kept, KEPT)
    for package in (package_folder(spec), location / FOLDER):
        if (package / EXPECTED).is_file():
            return read_golden(package, f"{FOLDER}/{EXPECTED}")
    return read_test_tensors(spec)


def read_golden(folder: Path, source: str) -> GoldenSample:
    """The sample in ``folder``. Raises GoldenInvalid naming what is wrong."""
    try:
        stated = orjson.loads(_read_regular(folder / EXPECTED, MAX_EXPECTED_BYTES))
    except ValueError as error:
        raise GoldenInvalid(f"{source} is not JSON: {error}.") from error
    kinds = [kind for kind in _KINDS if isinstance(stated, dict) and kind in stated]
    if len(kinds) != 1:
        raise GoldenInvalid(f"{source}: expected an object with one of {', '.join(_KINDS)}.")
    name, params = stated.get("input"), stated.get("params", {})
    if not isinstance(name, str) or Path(name).name != name or "\\" in name or name in ("", ".", ".."):
        raise GoldenInvalid(f"{source}: input: expected the name of a file beside it.")
    if not isinstance(params, dict):
        raise GoldenInvalid(f"{source}: params: expected an object.")
    tolerance = stated.get("tolerance", DEFAULT_TOLERANCE)
    if isinstance(tolerance, bool) or not isinstance(tolerance, int | float) or not 0 <= tolerance < 1e9:
        raise GoldenInvalid(f"{source}: tolerance: expected a number from 0.")
    content_type = stated.get("content_type") or content_type_of(Path(name).suffix)
    data = _read_regular(folder / name, MAX_INPUT_BYTES)
    return GoldenSample(data, str(content_type), params, {kinds[0]: stated[kinds[0]]}, float(tolerance), source)


def read_test_tensors(spec: ModelSpec) -> GoldenSample | None:
    """The test tensors of a BioImage.IO package, as its description found them; None where there are none.

    They stand in the spec's evidence as ``rdf.yaml: test tensors in.npy -> out.npy``. Raises GoldenInvalid.
    """
    source, _, named = spec.evidence.get("golden", "").partition(": test tensors ")
    given, _, answers = named.partition(" -> ")
    if not answers:
        return None
    inputs = _tensors(spec, given, tuple(tensor.name for tensor in spec.inputs))
    outputs = _tensors(spec, answers, tuple(tensor.name for tensor in spec.outputs))
    expected = {
        name: {"dtype": str(array.dtype), "shape": list(array.shape), "data": array.tolist()}
        for name, array in outputs.items()
    }
    return GoldenSample(_npz(inputs), "application/x-npz", {}, {"outputs": expected}, DEFAULT_TOLERANCE, source)


def _tensors(spec: ModelSpec, files: str, names: tuple[str, ...]) -> dict[str, NDArray[Any]]:
    from engine.codecs.arrays import read_npy

    paths = [spec.path / PurePosixPath(file).name for file in files.split(", ")]
    if len(paths) != len(names):
        raise GoldenInvalid(f"The package has {len(paths)} test tensors where the model has {len(names)}.")
    try:
        read = [read_npy(_read_regular(path, MAX_INPUT_BYTES)) for path in paths]
    except EngineError as error:
        raise GoldenInvalid(f"The package's test tensors cannot be read: {error}") from error
    return dict(zip(names, read, strict=True))


def keep_golden(folder: Path, request: PredictRequest, prediction: Prediction, fingerprint: str) -> None:
    """Store a question and its answer as the golden sample in ``folder``. Raises OSError, Malformed."""
    data, content_type = _encoded(request)
    name = "input" + _SUFFIXES.get((content_type or "").partition(";")[0].strip(), ".bin")
    answer = prediction.to_json()
    kind = next(kind for kind in _KINDS if kind in answer)
    stated = {
        "input": name, "content_type": content_type, "params": dict(request.params), kind: answer[kind],
        "tolerance": DEFAULT_TOLERANCE, "version": prediction.version, "fingerprint": fingerprint,
        "kept_at": int(time.time()),
    }  # fmt: skip
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    # The input first: without the other file, nothing refers to it.
    write_atomically(folder / name, data, mode=0o600)
    write_atomically(folder / EXPECTED, orjson.dumps(stated, option=orjson.OPT_INDENT_2), mode=0o600)


def forget_golden(folder: Path) -> None:
    """Remove a kept sample. Raises OSError."""
    (folder / EXPECTED).unlink(missing_ok=True)
    for path in folder.glob("input.*"):
        path.unlink(missing_ok=True)


def _encoded(request: PredictRequest) -> tuple[bytes, str | None]:
    """The question as bytes that both doors take, and their type."""
    data = request.data
    if isinstance(data, bytes | bytearray | memoryview):
        return bytes(data), request.content_type
    if isinstance(data, list):
        return orjson.dumps({"rows": data}, option=orjson.OPT_SERIALIZE_NUMPY), "application/json"
    import numpy as np

    if any(np.asarray(array).dtype.hasobject for array in data.values()):
        raise Malformed("This input holds objects, which cannot be stored.")
    return _npz(data), "application/x-npz"


def _npz(tensors: Mapping[str, NDArray[Any]]) -> bytes:
    import numpy as np

    packed = io.BytesIO()
    arrays: dict[str, Any] = {str(name): np.asarray(array) for name, array in tensors.items()}
    np.savez(packed, **arrays)
    return packed.getvalue()


def _read_regular(path: Path, limit: int) -> bytes:
    """The whole file. A FIFO or a device is never opened for long: its kind is checked on the open handle."""
    try:
        fd = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with os.fdopen(fd, "rb") as handle:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise GoldenInvalid(f"{path.name} of the golden sample is not a regular file.")
            data = handle.read(limit + 1)
    except OSError as error:
        raise GoldenInvalid(f"{path.name} of the golden sample cannot be read: {error.strerror or error}.") from error
    if len(data) > limit:
        raise GoldenInvalid(f"{path.name} of the golden sample is larger than {limit >> 20} MiB.")
    return data


# -- comparing ------------------------------------------------------------------------------------------------------
class _Comparison:
    """Of two answers in JSON: words must be equal, numbers within the tolerance (relative above 1).

    A list of ``cut_at`` classes or more may have been cut off there.
    """

    def __init__(self, tolerance: float, cut_at: int) -> None:
        self._tolerance = tolerance
        self._cut_at = cut_at
        self.largest = 0.0
        self.message = ""

    def fail(self, sentence: str) -> None:
        self.message = self.message or sentence

    def outputs(self, expected: Any, found: Any) -> None:
        """Raw tensors as ``{name: {dtype, shape, data}}``: their numbers, in whichever precision they were computed."""
        if not isinstance(expected, dict) or not isinstance(found, dict) or set(expected) != set(found):
            self.fail(f"The outputs are {_names(found)} instead of {_names(expected)}.")
            return
        import numpy as np

        for name, tensor in expected.items():
            try:
                one, other = (np.array(t["data"], dtype=np.float64) for t in (tensor, found[name]))
            except (ValueError, TypeError, KeyError):
                self.values(name, tensor, found[name])  # no numbers: text, or rows that differ in length
                continue
            if one.shape != other.shape:
                self.fail(f"{name} has the shape {list(other.shape)} instead of {list(one.shape)}.")
                continue
            difference = np.where(np.isnan(one) & np.isnan(other), 0.0, np.abs(one - other))
            largest = float(difference.max(initial=0.0, where=np.isfinite(difference)))
            self.largest = max(self.largest, largest)
            # A number where none was expected, or none where one was, compares as false.
            if not (difference <= self._tolerance * np.fmax(1.0, np.abs(one))).all():
                self.fail(f"{name} differs by up to {largest:g}.")

    def values(self, where: str, expected: Any, found: Any) -> None:
        if _is_number(expected) and _is_number(found):
            self._numbers(where, float(expected), float(found))
        elif isinstance(expected, dict) and isinstance(found, dict):
            if set(expected) != set(found):
                self.fail(f"{where} has {_names(found)} instead of {_names(expected)}.")
                return
            for name, value in expected.items():
                self.values(f"{where}.{name}", value, found[name])
        elif isinstance(expected, list) and isinstance(found, list):
            self._lists(where, expected, found)
        elif expected != found:
            self.fail(f"{where} is {_short(found)} instead of {_short(expected)}.")

    def _lists(self, where: str, expected: list[Any], found: list[Any]) -> None:
        if _are_classes(expected) and _are_classes(found):
            self._classes(where, expected, found)
        elif len(expected) != len(found):
            self.fail(f"{where} has {len(found)} entries instead of {len(expected)}.")
        else:
            for number, (one, other) in enumerate(zip(expected, found, strict=True)):
                self.values(f"{where}[{number}]", one, other)

    def _numbers(self, where: str, expected: float, found: float) -> None:
        difference = abs(expected - found)
        self.largest = max(self.largest, difference)
        if not difference <= self._tolerance * max(1.0, abs(expected)):
            self.fail(f"{where} is {found:g} instead of {expected:g}.")

    def _classes(self, where: str, expected: list[Any], found: list[Any]) -> None:
        """Ranked classes: equal by name, whatever the order among scores nearer than the tolerance.

        A class that only one of the two lists is compared with the least score of the other: it was cut off there.
        """
        ours = {entry["label"]: float(entry["score"]) for entry in expected}
        theirs = {entry["label"]: float(entry["score"]) for entry in found}
        strange = ours.keys() ^ theirs.keys()
        if strange and (len(ours) != len(theirs) or len(ours) < self._cut_at):
            self.fail(f"{where} names {_names(theirs)} instead of {_names(ours)}.")
            return
        for label in sorted(ours.keys() | theirs.keys()):
            one = ours.get(label, min(ours.values()))
            other = theirs.get(label, min(theirs.values()))
            if label not in strange or (label in ours) == (one > other):
                self._numbers(f"The score of {_short(label)}", one, other)
        if ours and found[0]["label"] != expected[0]["label"]:
            runner_up = ours.get(found[0]["label"], min(ours.values()))
            if float(expected[0]["score"]) - runner_up > self._tolerance:
                self.message = f"It answers {_short(found[0]['label'])} instead of {_short(expected[0]['label'])}."


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _are_classes(entries: list[Any]) -> bool:
    """Whether this is a list of ``{"label", "score"}``, each class once."""
    if not all(isinstance(e, dict) and set(e) == {"label", "score"} and _is_number(e["score"]) for e in entries):
        return False
    return bool(entries) and len({str(e["label"]) for e in entries}) == len(entries)


def _names(value: Any) -> str:
    return _short(", ".join(sorted(map(str, value)))) if isinstance(value, dict) and value else "nothing"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:59] + "…"
