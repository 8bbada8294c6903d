"""Bodies of TensorFlow Serving's REST API: predict in rows and in columns, classify, regress. Knows no HTTP.

Format: tensorflow/serving, tensorflow_serving/g3doc/api_rest.md and util/json_tensor.cc, whose sentences are kept where
clients look for them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from engine.codecs.arrays import to_dtype
from engine.codecs.json_inputs import MAX_CONTAINERS, MAX_DEPTH
from engine.codecs.wire_inputs import ModelFace, WireInputs, base64_bytes
from engine.errors import Malformed, UnusableInput
from engine.model_spec import TensorSpec

Array = NDArray[Any]
DEFAULT_SIGNATURE = "serving_default"
_METHODS = tuple(f"tensorflow/serving/{verb}" for verb in ("predict", "classify", "regress"))
"""Names of methods, by which signatures are called too (cc/saved_model/signature_constants.h)."""
_NUMBERS = {
    "float16": "DT_HALF", "bfloat16": "DT_BFLOAT16", "float32": "DT_FLOAT", "float64": "DT_DOUBLE", "bool": "DT_BOOL",
    "int8": "DT_INT8", "int16": "DT_INT16", "int32": "DT_INT32", "int64": "DT_INT64", "uint8": "DT_UINT8",
    "uint16": "DT_UINT16", "uint32": "DT_UINT32", "uint64": "DT_UINT64", "str": "DT_STRING",
    "complex64": "DT_COMPLEX64", "complex128": "DT_COMPLEX128",
}  # fmt: skip
"""Our names of dtypes -> those of tensorflow/core/framework/types.proto."""


class _Model(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")


class PredictBody(_Model):
    """Exactly one of ``instances`` (a list of rows) and ``inputs`` (columns). ``{"b64": …}`` stands for bytes."""

    signature_name: str | None = Field(default=None, max_length=1000)
    instances: list[Any] | None = None
    inputs: Any = None


class ExamplesBody(_Model):
    """Rows of named features; ``context`` holds those that all rows share."""

    signature_name: str | None = Field(default=None, max_length=1000)
    context: dict[str, Any] = Field(default_factory=dict)
    examples: list[dict[str, Any]] = Field(min_length=1)


def dtype_name(name: str) -> str:
    """TensorFlow's word for one of our dtypes (``float32`` -> ``DT_FLOAT``)."""
    return _NUMBERS.get(name, "DT_INVALID")


def read(data: bytes, options: Mapping[str, Any], face: ModelFace) -> WireInputs:
    """What a body holds for the model; ``options["verb"]`` is ``predict``, ``classify`` or ``regress``.

    Raises Malformed for what is no request, UnusableInput for what the model does not take.
    """
    value = _parsed(data)
    if options.get("verb") == "predict":
        return _read_predict(value, face)
    return _read_examples(value, face)


def _parsed(data: bytes) -> dict[str, Any]:
    if data.count(b"[") + data.count(b"{") > MAX_CONTAINERS:
        raise Malformed(f"JSON Parse error: more than {MAX_CONTAINERS} lists and objects")
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as first:
        # TensorFlow Serving reads the bare words NaN and Infinity, which JSON has not.
        try:
            value = json.loads(data)
            if b"\\ud" in data.lower():  # half a character, which Python lets pass: no text that can be sent on
                json.dumps(value, ensure_ascii=False).encode()
        except (ValueError, RecursionError) as error:
            raise Malformed(f"JSON Parse error: {first.msg} at offset: {first.pos}") from error
    if not isinstance(value, dict):
        raise Malformed("Failed to process json as it is not an object")
    return value


def _checked(kind: type[BaseModel], value: dict[str, Any]) -> Any:
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise Malformed(f"Failed to process element: '{where}': {first['msg']}") from error


def check_signature(name: str | None, face: ModelFace) -> str:
    """The signature asked for. Raises Malformed where the model, as it is loaded, does not answer with it."""
    first = face.signatures[0] if face.signatures else DEFAULT_SIGNATURE
    if not name or name == first or (name in _METHODS and name not in face.signatures):
        return name or first
    if name in face.signatures:
        raise Malformed(f'Serving signature key "{name}" is not the one that is loaded ("{first}").')
    raise Malformed(f'Serving signature key "{name}" not found.')


# -- predict -----------------------------------------------------------------------------------------------------------
def _read_predict(value: dict[str, Any], face: ModelFace) -> WireInputs:
    has_rows, has_columns = "instances" in value, "inputs" in value
    if has_rows and has_columns:
        raise Malformed("Not formatted correctly: expecting object with one of 'instances' or 'inputs' key")
    if not has_rows and not has_columns:
        raise Malformed("Missing 'inputs' or 'instances' key")
    if has_rows and not isinstance(value["instances"], list):
        raise Malformed("Expecting 'instances' to be an list/array")
    body: PredictBody = _checked(PredictBody, value)
    check_signature(body.signature_name, face)
    if body.instances is not None:
        if not body.instances:
            raise Malformed("No values in 'instances' array")
        found = _from_named(_rows_to_columns(body.instances, face), face)
        found.echo["form"] = "instances"
        return found
    columns = body.inputs
    named = isinstance(columns, dict) and not _is_b64(columns)
    found = _from_named(columns if named else {_only_input(face): columns}, face)
    found.echo["form"] = "inputs"
    return found


def _only_input(face: ModelFace) -> str:
    if len(face.inputs) > 1:
        names = ", ".join(sorted(tensor.name for tensor in face.inputs))
        raise Malformed(f"Expecting an object with keys {names}: the model has several inputs")
    return face.inputs[0].name if face.inputs else "input"


def _rows_to_columns(rows: list[Any], face: ModelFace) -> dict[str, Any]:
    """``instances`` as a list of values for each input."""
    objects = [isinstance(row, dict) and not _is_b64(row) for row in rows]
    if not any(objects):
        return {_only_input(face): rows}
    if not all(objects):
        raise Malformed("Expecting every element of 'instances' to be an object")
    names = set(rows[0])
    for row in rows:
        if set(row) != names:
            raise Malformed("Failed to process element: instances do not all have the same inputs")
    return {name: [row[name] for row in rows] for name in rows[0]}


def _from_named(columns: dict[str, Any], face: ModelFace) -> WireInputs:
    declared = {tensor.name: tensor for tensor in face.inputs}
    if declared:
        for name in columns:
            if name not in declared:
                raise UnusableInput(f"Failed to process element: '{name}' is no input", code="unknown_input")
        if missing := sorted(set(declared) - set(columns)):
            raise UnusableInput(f"Missing named input: {missing[0]}", code="unknown_input")
    found = WireInputs()
    for name, value in columns.items():
        if (encoded := _encoded(name, value, declared.get(name), face)) is not None:
            found.encoded.extend(encoded)
        else:
            found.tensors[name] = _tensor(name, value, declared.get(name))
    return found


def _is_b64(value: Any) -> bool:
    return isinstance(value, dict) and list(value) == ["b64"]


def _encoded(name: str, value: Any, declared: TensorSpec | None, face: ModelFace) -> list[bytes] | None:
    """Encoded pictures for the task's preprocessing; None where these are the model's own values."""
    given = value if isinstance(value, list) else [value]
    if not given or not all(_is_b64(item) for item in given):
        return None
    if declared is None or declared.dtype == "str" or not face.images or len(face.inputs) != 1:
        return None
    return [base64_bytes(name, _b64_text(name, item)) for item in given]


def _b64_text(name: str, item: dict[str, Any]) -> str:
    text = item["b64"]
    if not isinstance(text, str):
        raise Malformed(f"Unable to base64 decode: the value of '{name}' is no string")
    return text


def _tensor(name: str, value: Any, declared: TensorSpec | None) -> Array:
    flat: list[Any] = []
    shape = _flatten(name, value, flat, 0)
    dtype = declared.dtype if declared is not None else ""
    if dtype == "str" or (not dtype and flat and all(isinstance(item, str) or _is_b64(item) for item in flat)):
        texts: Array = np.empty(len(flat), dtype=object)
        texts[:] = [_text(name, item) for item in flat]
        array = texts
    else:
        array = _numbers(name, flat, dtype)
    array = array.reshape(shape)
    if declared is not None:
        _check_shape(name, shape, declared.shape)
    return array


def _flatten(name: str, value: Any, flat: list[Any], depth: int) -> tuple[int, ...]:
    """``value``'s leaves, row-major, onto ``flat``; its shape. Raises Malformed for ragged lists."""
    if not isinstance(value, list):
        flat.append(value)
        return ()
    if depth >= MAX_DEPTH:
        raise Malformed(f"JSON nesting depth exceeds maximum allowed limit ({MAX_DEPTH})")
    if value and not any(isinstance(item, list) for item in value):
        flat.extend(value)
        return (len(value),)
    shapes = {_flatten(name, item, flat, depth + 1) for item in value}
    if len(shapes) > 1:
        raise Malformed(f"Encountered list at unexpected size: the lists of '{name}' differ in length")
    return (len(value), *next(iter(shapes), ()))


def _numbers(name: str, flat: list[Any], dtype: str) -> Array:
    if not all(isinstance(item, int | float) for item in flat):
        wrong = next(item for item in flat if not isinstance(item, int | float))
        kind = {str: "string", type(None): "null"}.get(type(wrong), "object")
        raise UnusableInput(
            f"JSON Value: {str(wrong)[:40]} Type: {kind} is not of expected type: {dtype or 'number'}",
            code="invalid_dtype",
        )
    target = dtype or ("float32" if any(isinstance(item, float) for item in flat) else "int64")
    booleans = [isinstance(item, bool) for item in flat]
    fits = all(booleans) if target == "bool" else not any(booleans)
    if target.startswith(("int", "uint")):
        # A whole number written as 1.0 is none here: that is TensorFlow Serving's rule.
        fits = fits and not any(isinstance(item, float) for item in flat)
    if not fits:
        raise UnusableInput(f"JSON Value of '{name}' is not of expected type: {target}", code="invalid_dtype")
    try:
        array = np.array(flat, dtype=np.float64 if target.startswith(("float", "bfloat")) else None)
    except (OverflowError, ValueError) as error:
        raise UnusableInput(
            f"JSON Value of '{name}' is not of expected type: {target}", code="invalid_dtype"
        ) from error
    return array.astype(target) if not array.size else to_dtype(name, array, target)


def _text(name: str, item: Any) -> str:
    if isinstance(item, str):
        return item
    if not _is_b64(item):
        raise UnusableInput(f"JSON Value of '{name}' is not of expected type: string", code="invalid_dtype")
    try:
        return base64_bytes(name, _b64_text(name, item)).decode("utf-8")
    except UnicodeDecodeError as error:
        raise UnusableInput(f"the bytes of '{name}' are not UTF-8 text", code="invalid_dtype") from error


def _check_shape(name: str, shape: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    if len(shape) != len(wanted) or any(want not in (-1, have) for have, want in zip(shape, wanted, strict=True)):
        given, expected = (",".join("?" if side < 0 else str(side) for side in sides) for sides in (shape, wanted))
        raise UnusableInput(f"input '{name}' must have shape [{expected}], but has [{given}]", code="invalid_shape")


# -- classify, regress -------------------------------------------------------------------------------------------------
def _read_examples(value: dict[str, Any], face: ModelFace) -> WireInputs:
    if not isinstance(value.get("examples"), list):
        raise Malformed("Expecting 'examples' value to be an array")
    if not value["examples"]:
        raise Malformed("'examples' must not be empty")
    body: ExamplesBody = _checked(ExamplesBody, value)
    check_signature(body.signature_name, face)
    if repeated := sorted({name for row in body.examples for name in row} & set(body.context)):
        raise Malformed(f"Context and example have feature name {repeated[0]} in common")
    rows = [{**body.context, **{name: _feature(v) for name, v in row.items()}} for row in body.examples]
    found = WireInputs(answers=True)
    if face.tables:
        found.rows = rows
        return found
    if face.images and all(len(row) == 1 and _is_b64(next(iter(row.values()))) for row in rows):
        found.encoded = [base64_bytes(name, _b64_text(name, item)) for row in rows for name, item in row.items()]
        return found
    raise Malformed('classify and regress take rows of named features, or a picture as {"b64": …} each')


def _feature(value: Any) -> Any:
    """A feature's value; a list of one is that one, as in a tf.Example."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value
