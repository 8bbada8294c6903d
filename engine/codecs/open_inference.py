"""Bodies of the Open Inference Protocol (V2) with Triton's extensions. Knows no HTTP.

Formats: kserve/open-inference-protocol, specification/protocol/inference_rest.md; triton-inference-server/server,
docs/protocol/extension_{binary_data,classification,schedule_policy,parameters}.md and src/http_server.cc. Content
types: MLServer, docs/user-guide/content-type.md. Sentences that other people's clients look for are Triton's.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from engine.codecs import media_types
from engine.codecs.arrays import to_dtype
from engine.codecs.datatypes import BINARY_ONLY, BYTES, DATATYPES, NUMPY_NAMES, SIZES, from_wire
from engine.codecs.json_inputs import MAX_CONTAINERS, MAX_DEPTH
from engine.codecs.wire_inputs import ModelFace, WireInputs, base64_bytes
from engine.errors import Malformed, UnusableInput
from engine.model_spec import TensorSpec

Array = NDArray[Any]
Parameters = dict[str, str | int | float | bool]

MOST_TENSORS = 1000
ENCODED = frozenset({"base64", "image", "img", "pil_image", "pillow_image", "hf"})
"""Content types under which a BYTES element is an encoded picture in base64, as MLServer's codecs write it."""
STRINGS = frozenset({"str", "hf_str"})
_RESERVED = "triton_"


class _Model(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", populate_by_name=True)


class RequestInput(_Model):
    """One tensor. ``data`` is nested or flat; without it the bytes follow the JSON (``binary_data_size``)."""

    name: str = Field(min_length=1, max_length=1000)
    shape: list[int] = Field(max_length=32)
    datatype: str
    parameters: dict[str, Any] = Field(default_factory=dict)
    data: Any = None


class RequestOutput(_Model):
    """One wanted output. ``parameters``: ``binary_data`` (bool), ``classification`` (how many of the best classes)."""

    name: str = Field(min_length=1, max_length=1000)
    parameters: dict[str, Any] = Field(default_factory=dict)


class InferRequest(_Model):
    """``parameters``: ``priority`` (1 is the highest), ``timeout`` (microseconds), ``binary_data_output`` (bool)."""

    id: str | None = Field(default=None, max_length=1000)
    parameters: dict[str, Any] = Field(default_factory=dict)
    inputs: list[RequestInput] = Field(min_length=1, max_length=MOST_TENSORS)
    outputs: list[RequestOutput] | None = Field(default=None, max_length=MOST_TENSORS)


# -- reading -----------------------------------------------------------------------------------------------------------
def split(data: bytes, header_bytes: int | None) -> tuple[memoryview, memoryview]:
    """The JSON and the binary tensors behind it. Raises Malformed where the header's length is none."""
    whole = memoryview(data)
    if header_bytes is None:
        return whole, whole[:0]
    if not 0 < header_bytes <= len(whole):
        raise Malformed(f"inference header size should be in range (0, {len(whole)}), got: {header_bytes}")
    return whole[:header_bytes], whole[header_bytes:]


def parse(text: memoryview) -> InferRequest:
    """A request's JSON, checked. Raises Malformed."""
    raw = bytes(text)
    if raw.count(b"[") + raw.count(b"{") > MAX_CONTAINERS:
        raise Malformed(f"the request has more than {MAX_CONTAINERS} lists and objects")
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        nested = "depth" in error.msg or "recursion" in error.msg
        raise Malformed(
            f"JSON nesting depth exceeds maximum allowed limit ({MAX_DEPTH})"
            if nested
            else f"failed to parse the request JSON buffer: {error.msg} at {error.pos}"
        ) from error
    try:
        request = InferRequest.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "request"
        raise Malformed(f"Unable to parse '{where}': {first['msg']}") from error
    for key in request.parameters:
        if key.startswith(_RESERVED):
            raise Malformed(
                f"parameter keys starting with '{_RESERVED}' are reserved for Triton usage and should not be specified."
            )
    return request


def scheduling(data: bytes, header_bytes: int | None) -> tuple[int, float | None]:
    """``priority`` (0 is the default) and ``timeout`` in seconds, None where none is stated.

    A large body is parsed here only where it may state one of them: its tensors are the worker's to read. Raises
    Malformed.
    """
    if header_bytes == 0:
        return 0, None
    text, _ = split(data, header_bytes)
    raw = bytes(text)
    if not any(word in raw for word in (b'"priority"', b'"timeout"', b"\\u")):
        return 0, None
    parameters = parse(text).parameters
    priority, timeout = parameters.get("priority", 0), parameters.get("timeout", 0)
    for name, value in (("priority", priority), ("timeout", timeout)):
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 63:
            raise Malformed(f"Unable to parse '{name}': expected an unsigned integer")
    return priority, timeout / 1e6 if timeout else None


def read(data: bytes, options: Mapping[str, Any], face: ModelFace) -> WireInputs:
    """The tensors, or the encoded pictures or texts, of a request's body.

    Raises Malformed for what is no request, UnusableInput (``unknown_input``, ``invalid_shape``, ``invalid_dtype``) for
    what the model does not take.
    """
    header_bytes = options.get("header_bytes")
    if header_bytes == 0:
        return _read_raw(data, face)
    text, rest = split(data, header_bytes)
    request = parse(text)
    _check_depth(request)
    _check_names(request, face)
    declared = {tensor.name: tensor for tensor in face.inputs}
    found = WireInputs(echo=_echo(request))
    for given in request.inputs:
        array, rest = _elements(given, rest, face)
        _take(given, array, declared.get(given.name), request, face, found)
    if len(rest):
        raise Malformed(f"unexpected additional input data for model '{face.name}'")
    return found


def _read_raw(data: bytes, face: ModelFace) -> WireInputs:
    """A raw binary request: the whole body is the one input, of one row."""
    if len(face.inputs) != 1:
        raise Malformed(
            f"Raw request must only have 1 input (found {len(face.inputs)}) to be deduced but model '{face.name}' "
            "takes several"
        )
    (tensor,) = face.inputs
    found = WireInputs(echo={"binary_data_output": True})
    kind = media_types.recognise(data)
    if face.images and tensor.dtype != "str" and kind is not None and kind.startswith("image/"):
        found.encoded.append(data)
        return found
    datatype = DATATYPES.get(tensor.dtype, "")
    if datatype == BYTES:
        array: Array = np.empty(1, dtype=object)
        array[0] = data
        shape = (1,) * max(1, len(tensor.shape))
        found.tensors[tensor.name] = _texts(tensor.name, array).reshape(shape)
        return found
    free = [at for at, side in enumerate(tensor.shape) if side < 0 and at > 0]
    sides = [1 if at == 0 and side < 0 else side for at, side in enumerate(tensor.shape)]
    size = SIZES.get(datatype, 0)
    if len(free) > 1 or not size:
        raise Malformed(f"the shape of input '{tensor.name}' for model '{face.name}' cannot be deduced from its size")
    known = prod(side for at, side in enumerate(sides) if at not in free) * size
    if free and known and len(data) % known == 0:
        sides[free[0]] = len(data) // known
    if len(data) != prod(sides) * size or min(sides, default=1) < 1:
        raise Malformed(
            f"unexpected size for input '{tensor.name}', expecting {prod(max(s, 1) for s in sides) * size} bytes for "
            f"model '{face.name}', got {len(data)}"
        )
    found.tensors[tensor.name] = from_wire(datatype, memoryview(data)).reshape(sides)
    return found


def _echo(request: InferRequest) -> dict[str, Any]:
    echo: dict[str, Any] = {}
    if request.id is not None:
        echo["id"] = request.id
    if request.parameters.get("binary_data_output") is True:
        echo["binary_data_output"] = True
    if request.outputs is not None:
        echo["outputs"] = [_wanted(output) for output in request.outputs]
    return echo


def _wanted(output: RequestOutput) -> dict[str, Any]:
    """What an answer needs to know of it; other parameters may hold anything, at any depth."""
    classes = output.parameters.get("classification", 0)
    if isinstance(classes, bool) or not isinstance(classes, int) or classes < 0:
        raise Malformed("Unable to parse 'classification': expected an unsigned integer")
    binary = output.parameters.get("binary_data") is True
    return {"name": output.name, "parameters": {"binary_data": binary, "classification": classes}}


def _check_depth(request: InferRequest) -> None:
    for given in request.inputs:
        value, depth = given.data, 0
        while isinstance(value, list):
            depth += 1
            if depth > MAX_DEPTH:
                raise Malformed(f"JSON nesting depth exceeds maximum allowed limit ({MAX_DEPTH})")
            value = value[0] if value else None


def _check_names(request: InferRequest, face: ModelFace) -> None:
    names = [given.name for given in request.inputs]
    if len(set(names)) != len(names):
        raise Malformed("an input is given twice")
    known = {tensor.name for tensor in face.inputs}
    if known:
        for name in names:
            if name not in known:
                raise UnusableInput(
                    f"unexpected inference input '{name}' for model '{face.name}'", code="unknown_input"
                )
        if missing := sorted(known - set(names)):
            raise UnusableInput(
                f"expected {len(known)} inputs but got {len(names)} inputs for model '{face.name}'. Got input(s) "
                f"{names}, but missing required input(s) {missing}. Please provide all required input(s).",
                code="unknown_input",
            )
    outputs = {tensor.name for tensor in face.outputs}
    for output in request.outputs or ():
        if outputs and output.name not in outputs:
            raise UnusableInput(
                f"unexpected inference output '{output.name}' for model '{face.name}'", code="unknown_input"
            )


def _elements(given: RequestInput, rest: memoryview, face: ModelFace) -> tuple[Array, memoryview]:
    """A tensor's elements, flat, and what follows them in the binary part."""
    if given.datatype not in NUMPY_NAMES:
        raise Malformed(f"Unable to parse 'datatype': '{given.datatype}' is no datatype (input '{given.name}')")
    if any(isinstance(side, bool) or side < 0 for side in given.shape):
        raise Malformed(f"Unable to parse 'shape': negative dimension (input '{given.name}')")
    count = prod(given.shape)
    if given.data is not None and "binary_data_size" not in given.parameters:
        return _from_json(given, count), rest
    if given.data is not None:
        raise Malformed(f"input '{given.name}' has both 'data' and 'binary_data_size'")
    stated = given.parameters.get("binary_data_size")
    if stated is None:
        # As OpenVINO's server has it: a number's size follows from its shape, one BYTES element is all that is left.
        stated = len(rest) if given.datatype == BYTES else count * SIZES[given.datatype]
        if not stated or not len(rest):
            raise Malformed(f"Unable to parse 'data': input '{given.name}' has none")
    if isinstance(stated, bool) or not isinstance(stated, int) or stated < 0:
        raise Malformed(f"Unable to parse 'binary_data_size': expected an unsigned integer (input '{given.name}')")
    if stated > len(rest):
        raise Malformed(
            f"unexpected size for input '{given.name}', expecting {stated - len(rest)} additional bytes for model "
            f"'{face.name}'"
        )
    part = rest[:stated]
    if given.datatype != BYTES and stated != count * SIZES[given.datatype]:
        raise Malformed(
            f"input byte size mismatch for input '{given.name}' for model '{face.name}'. Expected "
            f"{count * SIZES[given.datatype]}, got {stated}"
        )
    if given.datatype == BYTES and count == 1 and "binary_data_size" not in given.parameters:
        array: Array = np.empty(1, dtype=object)
        array[0] = bytes(part)
    else:
        array = from_wire(given.datatype, part)
    if array.size != count:
        raise Malformed(
            f"unexpected number of string elements {array.size} for inference input '{given.name}', expecting {count}"
        )
    return array, rest[stated:]


def _from_json(given: RequestInput, count: int) -> Array:
    if given.datatype in BINARY_ONLY:
        raise Malformed(
            f"receiving {given.datatype} data via JSON is not supported. Please use the binary data format for input "
            f"{given.name}"
        )
    flat: list[Any] = []
    _flatten(given.data, flat, count)
    if len(flat) != count:
        raise Malformed(
            f"Unable to parse 'data': Shape does not match true shape of 'data' field (input '{given.name}')"
        )
    if given.datatype == BYTES:
        if not all(isinstance(value, str) for value in flat):
            raise Malformed(f"Unable to parse 'data': expected strings (input '{given.name}')")
        texts: Array = np.empty(count, dtype=object)
        texts[:] = [value.encode("utf-8", "surrogatepass") for value in flat]
        return texts
    if given.datatype.startswith("FP"):
        # NaN has no token in JSON; as MLServer, null stands for it.
        flat = [np.nan if value is None else value for value in flat]
    wanted = bool if given.datatype == "BOOL" else (int, float) if given.datatype.startswith("FP") else int
    if not all(isinstance(value, wanted) and (wanted is bool or not isinstance(value, bool)) for value in flat):
        raise Malformed(f"Unable to parse 'data': expected {given.datatype} (input '{given.name}')")
    name = NUMPY_NAMES[given.datatype]
    try:
        if given.datatype == "UINT64":
            return np.array(flat, dtype=np.uint64)
        array = np.array(flat, dtype=np.float64 if given.datatype.startswith("FP") else None)
    except (OverflowError, ValueError, TypeError) as error:
        raise Malformed(f"Unable to parse 'data': {error} (input '{given.name}')") from error
    if not array.size:
        return array.astype(name)
    return to_dtype(given.name, array, name)


def _flatten(value: Any, flat: list[Any], most: int) -> None:
    """``value``'s leaves, row-major, onto ``flat``: however they are nested, as Triton reads them."""
    if not isinstance(value, list):
        raise Malformed("Unable to parse 'data': attempt to access JSON non-array as array")
    waiting = [iter(value)]
    while waiting:
        for item in waiting[-1]:
            if isinstance(item, list):
                waiting.append(iter(item))
                break
            flat.append(item)
        else:
            waiting.pop()
        if len(flat) > most:
            return


def _take(
    given: RequestInput,
    array: Array,
    declared: TensorSpec | None,
    request: InferRequest,
    face: ModelFace,
    found: WireInputs,
) -> None:
    """Put one input where it belongs: into the model as it is, or, encoded, into the task's preprocessing."""
    content = str(given.parameters.get("content_type") or request.parameters.get("content_type") or "")
    takes_numbers = declared is not None and declared.dtype != "str"
    if given.datatype == BYTES and takes_numbers and len(face.inputs) == 1 and face.images:
        found.encoded.extend(_picture(given.name, value, content) for value in array)
    elif given.datatype == BYTES and takes_numbers and face.texts and (content in STRINGS or not content):
        found.texts.extend(_texts(given.name, array))
    else:
        _check_tensor(given, declared, face)
        shaped = _texts(given.name, array) if given.datatype == BYTES else array
        found.tensors[given.name] = shaped.reshape(given.shape)


def _picture(name: str, value: bytes, content: str) -> bytes:
    """An encoded picture: as it is where it begins like one, else out of base64."""
    if content not in ENCODED and media_types.recognise(value) is not None:
        return value
    if content and content not in ENCODED:
        raise UnusableInput(f"content type '{content}' of input '{name}' is not known", code="invalid_dtype")
    return base64_bytes(name, value)


def _texts(name: str, array: Array) -> Array:
    texts: Array = np.empty(array.shape, dtype=object)
    for at, value in enumerate(array.ravel()):
        try:
            texts.flat[at] = value.decode("utf-8")
        except UnicodeDecodeError as error:
            raise UnusableInput(f"input '{name}' holds bytes that are not UTF-8 text", code="invalid_dtype") from error
    return texts


def _check_tensor(given: RequestInput, declared: TensorSpec | None, face: ModelFace) -> None:
    if declared is None:
        return
    expected = DATATYPES.get(declared.dtype, declared.dtype)
    if given.datatype != expected:
        raise UnusableInput(
            f"inference input '{given.name}' data-type is '{given.datatype}', but model '{face.name}' expects "
            f"'{expected}'",
            code="invalid_dtype",
        )
    shape, wanted = tuple(given.shape), declared.shape
    if len(shape) != len(wanted) or any(want not in (-1, have) for have, want in zip(shape, wanted, strict=True)):
        raise UnusableInput(
            f"unexpected shape for input '{given.name}' for model '{face.name}'. Expected {_brackets(wanted)}, got "
            f"{_brackets(shape)}.",
            code="invalid_shape",
        )


def _brackets(shape: tuple[int, ...]) -> str:
    return "[" + ",".join(str(side) for side in shape) + "]"
