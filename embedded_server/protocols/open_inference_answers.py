"""Answers of the Open Inference Protocol: the model's own outputs as JSON, in binary, or as the best classes.

Formats: triton-inference-server/server, docs/protocol/extension_binary_data.md and extension_classification.md, and
what src/http_server.cc does where they differ: an output that a request lists is binary only where it says so itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from engine.codecs.datatypes import BINARY_ONLY, BYTES, DATATYPES, as_bytes, to_wire
from engine.errors import Malformed, UnusableInput
from engine.prediction import Prediction

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class EncodedAnswer:
    """``header_bytes`` is how much of the body is JSON, None where all of it is."""

    body: bytes
    content_type: str
    header_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class _Wanted:
    name: str
    binary: bool
    classes: int


def encode_answer(prediction: Prediction, labels: Callable[[], Sequence[str]]) -> EncodedAnswer:
    """The body of an answer, as the request wanted it (``prediction.echo``); ``labels`` where it wants classes.

    Raises Malformed for parameters that are none, UnusableInput for an output that the model does not give.
    """
    outputs, echo = prediction.outputs or {}, prediction.echo
    told: list[dict[str, Any]] = []
    binary: list[bytes] = []
    for wanted in _wanted(echo, outputs):
        array = outputs[wanted.name]
        datatype = DATATYPES.get("str" if array.dtype.kind == "O" else array.dtype.name)
        if datatype is None:
            raise UnusableInput(f"output '{wanted.name}' is {array.dtype}, which the protocol does not know")
        if wanted.classes:
            array, datatype = best_classes(wanted.name, array, wanted.classes, labels()), BYTES
        entry: dict[str, Any] = {"name": wanted.name, "datatype": datatype, "shape": list(array.shape)}
        if wanted.binary:
            part = to_wire(datatype, array)
            entry["parameters"] = {"binary_data_size": len(part)}
            binary.append(part)
        elif datatype in BINARY_ONLY:
            raise Malformed(
                f"sending {datatype} data via JSON is not supported. Please use the binary data format for output "
                f"{wanted.name}"
            )
        else:
            entry["data"] = _flat(array)
        told.append(entry)
    head: dict[str, Any] = {"id": echo["id"]} if "id" in echo else {}
    head |= {"model_name": prediction.model, "model_version": prediction.version, "outputs": told}
    text = orjson.dumps(head, option=orjson.OPT_SERIALIZE_NUMPY)
    if not any(binary):
        return EncodedAnswer(text, "application/json")
    return EncodedAnswer(b"".join([text, *binary]), "application/octet-stream", len(text))


def _wanted(echo: Any, outputs: dict[str, Array]) -> list[_Wanted]:
    listed = echo.get("outputs")
    if not listed:
        return [_Wanted(name, echo.get("binary_data_output") is True, 0) for name in outputs]
    found = []
    for output in listed:
        name, parameters = output["name"], output.get("parameters") or {}
        if name not in outputs:
            raise UnusableInput(f"unexpected inference output '{name}' for this model", code="unknown_input")
        classes = parameters.get("classification", 0)
        if isinstance(classes, bool) or not isinstance(classes, int) or classes < 0:
            raise Malformed("Unable to parse 'classification': expected an unsigned integer")
        found.append(_Wanted(name, parameters.get("binary_data") is True, classes))
    return found


def _flat(array: Array) -> Any:
    """Elements, row-major. NaN and infinities become null: JSON has no token for them."""
    if array.dtype.kind == "O":
        return [as_bytes(value).decode("utf-8", "replace") for value in array.ravel()]
    return np.ascontiguousarray(array).reshape(-1)


def best_classes(name: str, array: Array, most: int, labels: Sequence[str]) -> Array:
    """``value:index[:label]`` of the ``most`` greatest of each row, greatest first; (rows, n), or (n,) of one row.

    Raises UnusableInput where the output holds no numbers.
    """
    if array.dtype.kind not in "biuf" or not array.ndim:
        raise UnusableInput(f"output '{name}' holds no class scores", code="invalid_dtype")
    rows = array.reshape(len(array), -1) if array.ndim > 1 else array[np.newaxis]
    best = np.argsort(-rows.astype(np.float64), axis=1, kind="stable")[:, :most]
    told = np.empty(best.shape, dtype=object)
    for row, column in np.ndindex(*best.shape):
        at = int(best[row, column])
        label = f":{labels[at]}" if len(labels) == rows.shape[1] else ""
        told[row, column] = f"{float(rows[row, at]):.6f}:{at}{label}"
    return told if array.ndim > 1 else told[0]
