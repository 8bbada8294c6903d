"""How a rogue worker breaks the protocol, for tests of the parent: reached only through the fake runtime's ``lie``.

========================  ============================================================================================
``wrong_length``          a tensor's shape claims more bytes than its buffer has
``wrong_shape``           every tensor comes back with one row too many, shape and buffer agreeing
``wrong_id``              items with ids that nobody sent
``missing_item``          the last item of the batch is left out
``not_a_result``          results that are numbers instead of objects
``garbage``               64 KiB that are no frame
``pickle``                bytes that, were they unpickled, would make the file of option ``pickle_file``
``flood``                 100 000 replies to batches that nobody sent, then the true one
``partial_frame``         half of the reply, then the process dies
``stalled_frame``         half of the reply, then silence
``huge_header``           a frame whose header claims four gigabytes
``huge_buffer``           a frame whose one buffer claims 2^60 bytes
``duplicate_done``        the reply twice
``started_twice``         the batch starts once more before its reply
``many_streams``          before the reply, a preparation that runs more batches at once than there are threads
========================  ============================================================================================
"""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Callable, Sequence
from typing import Any

from engine.preparation import Preparation, PreparationState, Step
from engine.protocol import MAGIC, Buffer, encode_frame
from engine.worker.channel import Channel

_FLOOD = 100_000


class LyingChannel:
    """The channel of a worker that lies when it answers a batch; every other message goes out as it is."""

    def __init__(self, channel: Channel, options: dict[str, Any], may_lie: Callable[[], bool]) -> None:
        self._channel = channel
        self._options = options
        self._may_lie = may_lie

    def send(self, header: dict[str, Any], buffers: Sequence[Buffer] = ()) -> None:
        if header["type"] != "done" or not self._may_lie():
            self._channel.send(header, buffers)
            return
        lie = str(self._options["lie"])
        if lie in _RAW:
            _RAW[lie](self._channel, header, buffers, self._options)
        else:
            self._channel.send(*_ALTERED[lie](header, list(buffers)))


def _tensors(header: dict[str, Any]) -> list[dict[str, Any]]:
    return [t for item in header["items"] for t in item.get("result", {}).get("tensors", [])]


def _wrong_length(header: dict[str, Any], buffers: list[Buffer]) -> tuple[dict[str, Any], list[Buffer]]:
    for tensor in _tensors(header):
        tensor["shape"] = [1000, *tensor["shape"][1:]]
    return header, buffers


def _wrong_shape(header: dict[str, Any], buffers: list[Buffer]) -> tuple[dict[str, Any], list[Buffer]]:
    for i, tensor in enumerate(_tensors(header)):
        rows = tensor["shape"][0]
        data = bytes(buffers[i])
        buffers[i] = data + data[: len(data) // rows]
        tensor["shape"][0] = rows + 1
    return header, buffers


def _wrong_id(header: dict[str, Any], buffers: list[Buffer]) -> tuple[dict[str, Any], list[Buffer]]:
    for item in header["items"]:
        item["id"] = f"nobody-{item['id']}"
    return header, buffers


def _missing_item(header: dict[str, Any], buffers: list[Buffer]) -> tuple[dict[str, Any], list[Buffer]]:
    dropped = header["items"].pop()
    kept = len(buffers) - len(dropped.get("result", {}).get("tensors", []))
    return header, buffers[:kept]


def _not_a_result(header: dict[str, Any], buffers: list[Buffer]) -> tuple[dict[str, Any], list[Buffer]]:
    for item in header["items"]:
        item.pop("error", None)
        item["result"] = 42
    return header, []


def _garbage(channel: Channel, header: dict[str, Any], buffers: Sequence[Buffer], options: dict[str, Any]) -> None:
    channel.send_bytes(bytes(i * 37 % 251 for i in range(1 << 16)))


def _pickle(channel: Channel, header: dict[str, Any], buffers: Sequence[Buffer], options: dict[str, Any]) -> None:
    # Protocol 0 of Python's pickle, written by hand: posix.mkdir(path).
    channel.send_bytes(f"cposix\nmkdir\n(V{options['pickle_file']}\ntR.".encode() + b"\x00" * 4096)


def _flood(channel: Channel, header: dict[str, Any], buffers: Sequence[Buffer], options: dict[str, Any]) -> None:
    for i in range(_FLOOD):
        channel.send({"type": "done", "batch": 10**9 + i, "items": []})
    channel.send(header, buffers)


def _half(header: dict[str, Any], buffers: Sequence[Buffer]) -> bytes:
    frame = b"".join(bytes(piece) for piece in encode_frame(header, buffers))
    return frame[: len(frame) // 2]


def _partial_frame(
    channel: Channel, header: dict[str, Any], buffers: Sequence[Buffer], options: dict[str, Any]
) -> None:
    channel.send_bytes(_half(header, buffers))
    os._exit(3)


def _stalled_frame(
    channel: Channel, header: dict[str, Any], buffers: Sequence[Buffer], options: dict[str, Any]
) -> None:
    channel.send_bytes(_half(header, buffers))
    threading.Event().wait()


def _huge_header(channel: Channel, header: dict[str, Any], buffers: Sequence[Buffer], options: dict[str, Any]) -> None:
    channel.send_bytes(MAGIC + struct.pack("!II", 0xFFFFFFFF, 0) + b"{" * 4096)


def _huge_buffer(channel: Channel, header: dict[str, Any], buffers: Sequence[Buffer], options: dict[str, Any]) -> None:
    head = b'{"type":"done"}'
    channel.send_bytes(MAGIC + struct.pack("!IIQ", len(head), 1, 1 << 60) + head)


def _duplicate_done(
    channel: Channel, header: dict[str, Any], buffers: Sequence[Buffer], options: dict[str, Any]
) -> None:
    channel.send(header, buffers)
    channel.send(header, buffers)


def _started_twice(
    channel: Channel, header: dict[str, Any], buffers: Sequence[Buffer], options: dict[str, Any]
) -> None:
    channel.send({"type": "started", "batch": header["batch"]})
    channel.send(header, buffers)


def _many_streams(channel: Channel, header: dict[str, Any], buffers: Sequence[Buffer], options: dict[str, Any]) -> None:
    told = Preparation(PreparationState.USED, (Step.FROZEN,), 2.0, streams=3)
    channel.send({"type": "prepared", "preparation": told.to_json()})
    channel.send(header, buffers)


_ALTERED = {
    "wrong_length": _wrong_length,
    "wrong_shape": _wrong_shape,
    "wrong_id": _wrong_id,
    "missing_item": _missing_item,
    "not_a_result": _not_a_result,
}
_RAW = {
    "garbage": _garbage,
    "pickle": _pickle,
    "flood": _flood,
    "partial_frame": _partial_frame,
    "stalled_frame": _stalled_frame,
    "huge_header": _huge_header,
    "huge_buffer": _huge_buffer,
    "duplicate_done": _duplicate_done,
    "started_twice": _started_twice,
    "many_streams": _many_streams,
}
LIES = (*_ALTERED, *_RAW)
