"""The native JSON bodies: ``{"image": base64}``, ``{"text": …}``, ``{"rows": [{…}]}`` and
``{"inputs": {name: nested list}}``.

Bounds (they hold before anything is converted): nesting of 100, two million values outside tensors, four million lists
and objects in all. NaN and Infinity are not JSON (RFC 8259 §6) and refused.
"""

from __future__ import annotations

import binascii
from dataclasses import dataclass
from typing import Any

import orjson

from engine.errors import Malformed, UnusableInput

MAX_DEPTH = 100
MAX_ELEMENTS = 2_000_000
MAX_CONTAINERS = 4_000_000
FORMS: dict[str, Any] = {"image": str, "rows": list[dict[str, Any]], "inputs": dict[str, Any], "text": str}
"""The bodies' one key, and what stands there."""


@dataclass(frozen=True, slots=True)
class ImageBytes:
    """An encoded picture."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Text:
    """One text."""

    text: str


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of a table, each a mapping from column to value."""

    rows: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class NestedTensors:
    """Tensors by input name, each still as nested lists: what they become depends on the declared dtype."""

    values: dict[str, Any]


JsonInput = ImageBytes | Text | Rows | NestedTensors


def parse_json(data: bytes | bytearray | memoryview) -> Any:
    """Any JSON text within the bounds on lists and objects. Raises Malformed."""
    raw = bytes(data)
    if raw.count(b"[") + raw.count(b"{") > MAX_CONTAINERS:
        raise Malformed(f"The JSON body has more than {MAX_CONTAINERS} lists and objects.")
    try:
        return orjson.loads(raw.removeprefix(b"\xef\xbb\xbf"))
    except orjson.JSONDecodeError as error:
        raise Malformed(
            f"The body is not valid JSON: {error.msg} (line {error.lineno}, column {error.colno})."
        ) from error


def parse_input(data: bytes | bytearray | memoryview) -> JsonInput:
    """A native JSON body. Raises Malformed for other shapes."""
    body = parse_json(data)
    if not isinstance(body, dict):
        raise Malformed('The JSON body must be an object with "image", "text", "rows" or "inputs".')
    forms = [key for key in body if key in FORMS]
    if len(forms) != 1 or len(body) != 1:
        surplus = next((key for key in body if key not in FORMS), None)
        what = f"it has {surplus!r}" if surplus is not None else f"it has {len(forms)} of them"
        raise Malformed(f'The JSON body must have exactly one of "image", "text", "rows" and "inputs"; {what}.')
    form, value = forms[0], body[forms[0]]
    if form == "text":
        if not isinstance(value, str):
            raise Malformed('"text" must be a text.')
        return Text(value)
    if form == "image":
        return ImageBytes(decode_base64(value))
    if form == "rows":
        return check_rows(value)
    if not isinstance(value, dict) or not value:
        raise Malformed('"inputs" must be an object from input name to nested lists.')
    return NestedTensors(value)


def check_rows(value: Any) -> Rows:
    """A list of row objects. Raises Malformed, or UnusableInput ``nothing_to_predict`` where it is empty."""
    if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
        raise Malformed('"rows" must be a list of objects from column name to value.')
    check_bounds(value)
    if not value:
        raise UnusableInput("There are no rows to predict.", code="nothing_to_predict")
    return Rows(value)


def check_bounds(value: Any) -> None:
    """Raises Malformed where ``value`` nests deeper or holds more than the bounds allow."""
    level: list[Any] = [value]
    elements = 0
    for _depth in range(MAX_DEPTH):
        deeper: list[Any] = []
        for container in level:
            elements += len(container)
            if elements > MAX_ELEMENTS:
                raise Malformed(f"The JSON body has more than {MAX_ELEMENTS} values.")
            children = container.values() if isinstance(container, dict) else container
            deeper.extend(child for child in children if isinstance(child, list | dict))
        if not deeper:
            return
        level = deeper
    raise Malformed(f"The JSON body is nested more than {MAX_DEPTH} levels deep.")


def decode_base64(value: Any) -> bytes:
    """The bytes of a base64 text (RFC 4648 §4; line breaks and a ``data:`` prefix are accepted). Raises Malformed."""
    if not isinstance(value, str):
        raise Malformed('"image" must be the picture\'s bytes as base64 text.')
    if value.startswith("data:"):
        value = value.partition(",")[2]
    try:
        return binascii.a2b_base64("".join(value.split()).encode("ascii"), strict_mode=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise Malformed('"image" is not valid base64.') from error
