"""What the body of a public protocol holds for a model, whichever protocol it was."""

from __future__ import annotations

import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from engine.errors import UnusableInput
from engine.model_spec import TensorSpec


@dataclass(frozen=True, slots=True)
class ModelFace:
    """What a codec needs to know of the model. ``images`` and ``texts``: whether its task takes encoded ones."""

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...] = ()
    signatures: tuple[str, ...] = ()
    images: bool = False
    texts: bool = False
    tables: bool = False


@dataclass(slots=True)
class WireInputs:
    """Exactly one of ``tensors`` (the model's own inputs, unchanged), ``encoded`` (pictures), ``texts`` and ``rows`` is
    set. ``echo`` is what else the body said that its answer needs, as JSON. ``answers``: the task's answer is wanted
    and not the model's own outputs."""

    tensors: dict[str, NDArray[Any]] = field(default_factory=dict)
    encoded: list[bytes] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    rows: Sequence[Mapping[str, Any]] = ()
    echo: dict[str, Any] = field(default_factory=dict)
    answers: bool = False


def base64_bytes(name: str, text: str | bytes) -> bytes:
    """The bytes of a base64 text (RFC 4648 §4; line breaks and a ``data:`` prefix pass). Raises UnusableInput."""
    raw = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    if raw.startswith(b"data:"):
        raw = raw.partition(b",")[2]
    try:
        return binascii.a2b_base64(b"".join(raw.split()), strict_mode=True)
    except binascii.Error as error:
        raise UnusableInput(f"input {name!r} is not valid base64", code="image_invalid") from error
