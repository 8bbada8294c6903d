"""The frames between the app and its children: a small JSON header and raw buffers, every size checked.

A frame is ``MAGIC (4 bytes) | u32 header length | u32 buffer count | u64 length of each buffer | header | buffers``,
integers big-endian. The header is a JSON object with a ``type``. Nothing is ever unpickled. The parent treats every
byte from a child as hostile: lengths are checked before anything is allocated, and a frame that breaks a rule raises
:class:`ProtocolError`, which ends the child.

Messages to a worker (``type`` and its fields; buffers in brackets)::

    load     spec, device, threads                       once, first
    batch    batch, items: [{id, content_type, params, kind, buffers: n, tensors?}]   [each item's buffers in order]
             lone (true where set): it is the only one the worker has and counts as started, which is not told
             kind is "bytes" (one buffer), "rows" (one buffer: JSON list) or "tensors"
             (tensors: [{name, dtype, shape}], one buffer each); bytes that are a public protocol's body have
             wire: {protocol, …}, as :mod:`engine.codecs` reads it; draw: the answer is wanted as a picture
    recall   batch                                       give back a batch that has not started
    limit    max_batch_size                              rows of one run from now on
    prepare  golden: item as in a batch | null           once, when ready: try faster ways to run the model, beside
             [the item's buffers]                        its answers
    memory                                               what has this process of its device's memory?
    refine   id, prediction, params                      postprocess a kept raw result again
    stop                                                 end; closing the channel means the same

Messages from a worker::

    hello    protocol, pid
    stage    stage (LoadStage value), total_bytes?
    ready    info: {device, inputs, outputs, signatures, labels, max_batch_size, evidence, keeps_memory}
    failed   error: {code, message, details}             the load failed; the process ends
    started  batch
    done     batch, items: [{id, result | error, timing, rows?, echo?}], inferences, max_batch_size?
                                                         [buffers of results, in order]
    prepared preparation                                 what came of it (engine.preparation), and when that changes
    recalled batch, ok                                   ok false: it had started, its "done" will come
    memory   memory: {device, allocated, reserved, free, total} | null
    refined  id, result | error, inferences              [buffers]

A result is ``{"kind": "predictions", "value": […] | {…}}``, ``{"kind": "results", "value": […]}``, both with ``parts``
(:mod:`engine.answer_parts`, one buffer a part) where pictures or arrays are in them, or ``{"kind": "outputs",
"tensors": [{name, dtype, shape}]}`` with one buffer a tensor. ``timing`` is ``{decode, infer, post}`` in milliseconds.
An error is ``{code, message, details}``. ``rows`` is how many the model was given for the item, ``echo`` what a public
protocol's body said of its answer. ``inferences`` counts how often the process has run its model for requests;
``max_batch_size`` in ``done`` is what the device's memory was found to allow, told when that changes.

Messages to the inspector: ``call`` id, op, args [buffers]; from it: ``reply`` id, result | error [buffers].
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Protocol

import orjson

PROTOCOL_VERSION = 1
MAGIC = b"DSK1"
_FIXED = struct.Struct("!4sII")
_LENGTH = struct.Struct("!Q")
_TOUCHED_AT_ONCE = 1 << 16

Buffer = bytes | bytearray | memoryview


class ProtocolError(Exception):
    """The other end broke a rule of the frame format; the channel is of no further use."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on one incoming frame, in bytes and counts."""

    header_bytes: int = 64 << 20
    buffers: int = 100_000
    total_bytes: int = 1 << 30


@dataclass(slots=True)
class Message:
    header: dict[str, Any]
    buffers: list[Buffer] = field(default_factory=list)

    @property
    def type(self) -> str:
        return str(self.header.get("type", ""))


class Readable(Protocol):
    def readinto(self, buffer: memoryview, /) -> int | None: ...


def encode_frame(header: dict[str, Any], buffers: Sequence[Buffer] = ()) -> list[Buffer]:
    """The frame as pieces to write one after the other (buffers are not copied)."""
    head = orjson.dumps(header, option=orjson.OPT_SERIALIZE_NUMPY)
    views = [memoryview(b).cast("B") for b in buffers]
    lengths = b"".join(_LENGTH.pack(len(v)) for v in views)
    return [_FIXED.pack(MAGIC, len(head), len(views)) + lengths + head, *views]


def write_frame(stream: BinaryIO, header: dict[str, Any], buffers: Sequence[Buffer] = ()) -> None:
    """Write one frame and flush. Raises OSError when the other end is gone."""
    for piece in encode_frame(header, buffers):
        write_all(stream, piece)
    stream.flush()


def write_all(stream: BinaryIO, piece: Buffer) -> None:
    """Write every byte of ``piece`` to a raw or buffered stream (a raw pipe may take less than it is given)."""
    view = memoryview(piece).cast("B")
    while view:
        written = stream.write(view)
        if not written:
            raise BrokenPipeError("channel closed while writing")
        view = view[written:]


def _untouched(size: int) -> memoryview:
    """NumPy leaves large memory untouched until bytes arrive: a child that only claims a length costs nothing."""
    import numpy as np  # here, so that a window that has no model yet does without

    return np.empty(size, np.uint8).data


def _read_exactly(stream: Readable, size: int, *, eof_ok: bool = False) -> memoryview | None:
    view = _untouched(size) if size > _TOUCHED_AT_ONCE else memoryview(bytearray(size))
    got = 0
    while got < size:
        n = stream.readinto(view[got:])
        if not n:
            if eof_ok and got == 0:
                return None
            raise ProtocolError(f"channel closed after {got} of {size} bytes")
        got += n
    return view


def read_frame(stream: Readable, limits: Limits = Limits()) -> Message | None:
    """The next message, or None at a clean end of the channel. Raises ProtocolError on anything that is not a frame."""
    fixed = _read_exactly(stream, _FIXED.size, eof_ok=True)
    if fixed is None:
        return None
    magic, header_length, n_buffers = _FIXED.unpack(fixed)
    if magic != MAGIC:
        raise ProtocolError(f"not a frame: starts with {bytes(magic)!r}")
    if header_length > limits.header_bytes:
        raise ProtocolError(f"header of {header_length} bytes")
    if n_buffers > limits.buffers:
        raise ProtocolError(f"{n_buffers} buffers")
    raw_lengths = _read_exactly(stream, _LENGTH.size * n_buffers)
    assert raw_lengths is not None
    lengths = [_LENGTH.unpack_from(raw_lengths, i * _LENGTH.size)[0] for i in range(n_buffers)]
    if sum(lengths) > limits.total_bytes:
        raise ProtocolError(f"{sum(lengths)} bytes of buffers")
    raw = _read_exactly(stream, header_length)
    assert raw is not None
    try:
        header = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise ProtocolError(f"header is not JSON: {error}") from error
    if not isinstance(header, dict) or not isinstance(header.get("type"), str):
        raise ProtocolError("header is not an object with a type")
    buffers: list[Buffer] = []
    for length in lengths:
        data = _read_exactly(stream, length)
        assert data is not None
        buffers.append(data)
    return Message(header, buffers)
