"""The inspector: describes model files and decodes previews in a process of its own, without a framework.

It serves ``call`` frames one after the other (:mod:`engine.protocol`) and ends on ``stop`` or when the channel closes::

    inspect        {path, data_dir?}              -> {spec}                                (ModelSpec.to_json)
    check_sidecar  {name} [bytes]                 -> {}                       (a sidecar that is about to be written)
    preview_image  {max_side, path?} [bytes]      -> {width, height, source_size, note} [rgb]
    preview_table  {max_rows, path?} [bytes]      -> {columns, rows, total_rows}

A file that makes it fail costs one answer; one that kills it, the parent's next call starts a new one.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from engine.codecs.parquet import MAGIC, parse_parquet
from engine.codecs.tables import parse_csv
from engine.errors import EngineError, InternalError, Malformed, ModelUnreadable, UnusableInput
from engine.formats import describe_model
from engine.formats.disk import NotRegular, open_regular, reason
from engine.formats.sidecar import parse_sidecar
from engine.protocol import Buffer, Message, ProtocolError
from engine.sidecar_file import FOLDER_NAME
from engine.worker.audio import outline
from engine.worker.images import decode_image
from engine.worker.limits import inspector_limits
from engine.worker.sandbox import Reached

MAX_INPUT_BYTES = 256 << 20
MAX_PREVIEW_SIDE = 8192
MAX_PREVIEW_ROWS = 100_000
MAX_PREVIEW_POINTS = 10_000

Answer = tuple[dict[str, Any], list[Buffer]]


class InspectorChannel(Protocol):
    """The part of :class:`engine.worker.channel.Channel` used here."""

    def receive(self) -> Message | None: ...

    def send(self, header: dict[str, Any], buffers: Sequence[Buffer] = ()) -> None: ...


class Inspector:
    """Answers calls until the channel ends."""

    def __init__(self, channel: InspectorChannel, reached: Reached = Reached()) -> None:
        self._channel = channel
        self._reached = reached
        self._operations: dict[str, Callable[[dict[str, Any], list[Buffer]], Answer]] = {
            "inspect": _inspect,
            "check_sidecar": _check_sidecar,
            "preview_image": _preview_image,
            "preview_table": _preview_table,
            "preview_audio": _preview_audio,
        }

    def run(self) -> int:
        """Serve until ``stop`` or the end of the channel. Returns the exit status: 0, or 1 after a broken frame."""
        inspector_limits().apply()
        while True:
            try:
                message = self._channel.receive()
            except ProtocolError as error:
                print(f"inspector: {error}", file=sys.stderr)  # noqa: T201  # standard error is the parent's log
                return 1
            if message is None or message.type == "stop":
                return 0
            if message.type != "call":
                print(f"inspector: unknown message {message.type!r}", file=sys.stderr)  # noqa: T201  # as above
                return 1
            header, buffers = self._answer(message)
            try:
                self._channel.send(header, buffers)
            except OSError:
                return 0  # the parent is gone, and nobody waits for the answer

    def _answer(self, message: Message) -> tuple[dict[str, Any], list[Buffer]]:
        reply: dict[str, Any] = {"type": "reply", "id": message.header.get("id")}
        arguments = message.header.get("args")
        operation = self._operations.get(str(message.header.get("op")))
        try:
            if operation is None or not isinstance(arguments, dict):
                raise Malformed(f"The inspector does not know {message.header.get('op')!r}.")
            result, buffers = operation(arguments, message.buffers)
        except EngineError as error:
            return reply | {"error": _as_json(error)}, []
        except MemoryError:
            too_big = ModelUnreadable("The file needs more memory to be read than the inspector may use.")
            return reply | {"error": _as_json(too_big)}, []
        except Exception:  # noqa: BLE001  # one file's surprise is one answer; the traceback goes to "Details"
            failed = InternalError("The file could not be read because of a fault in the program.")
            return reply | {"error": _as_json(failed) | {"details": traceback.format_exc()}}, []
        if message.header.get("op") == "inspect":
            result = result | {"sandbox": self._reached.to_json()}
        return reply | {"result": result}, buffers


def _as_json(error: EngineError) -> dict[str, Any]:
    return {"code": error.code, "message": error.message, "details": error.details}


def _inspect(arguments: dict[str, Any], _: list[Buffer]) -> Answer:
    data_dir = arguments.get("data_dir")
    spec = describe_model(_path(arguments), None if data_dir is None else Path(str(data_dir)))
    return {"spec": spec.to_json()}, []


def _check_sidecar(arguments: dict[str, Any], buffers: list[Buffer]) -> Answer:
    parse_sidecar(Path(str(arguments.get("name") or FOLDER_NAME)), _input(arguments, buffers))
    return {}, []


def _preview_image(arguments: dict[str, Any], buffers: list[Buffer]) -> Answer:
    max_side = _whole(arguments, "max_side", MAX_PREVIEW_SIDE)
    decoded = decode_image(_input(arguments, buffers))
    preview = decoded.as_mode("RGB")
    if max(preview.size) > max_side:
        preview = preview.copy() if preview is decoded.image else preview
        preview.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    result = {
        "width": preview.width,
        "height": preview.height,
        "source_size": list(decoded.source_size),
        "note": decoded.note,
    }
    return result, [preview.tobytes()]


def _preview_table(arguments: dict[str, Any], buffers: list[Buffer]) -> Answer:
    max_rows = _whole(arguments, "max_rows", MAX_PREVIEW_ROWS)
    data = _input(arguments, buffers)
    if data.startswith(MAGIC):
        packed = parse_parquet(data, max_rows)
        shown = [["" if cell is None else str(cell) for cell in row] for row in packed.rows]
        return {"columns": list(packed.columns), "rows": shown, "total_rows": packed.total_rows}, []
    table = parse_csv(data)
    rows = [list(row) for row in table.rows[:max_rows]]
    return {"columns": list(table.columns), "rows": rows, "total_rows": len(table.rows)}, []


def _preview_audio(arguments: dict[str, Any], buffers: list[Buffer]) -> Answer:
    found = outline(_input(arguments, buffers), _whole(arguments, "points", MAX_PREVIEW_POINTS))
    result = {"seconds": found.seconds, "rate": found.rate, "channels": found.channels}
    return result, [found.low.astype("<f4").tobytes(), found.high.astype("<f4").tobytes()]


def _path(arguments: dict[str, Any]) -> Path:
    path = arguments.get("path")
    if not isinstance(path, str) or not path or "\x00" in path:
        raise Malformed("The inspector was given no path.")
    return Path(path)


def _whole(arguments: dict[str, Any], key: str, most: int) -> int:
    value = arguments.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise Malformed(f"{key} must be a whole number from 1 to {most}.")
    return value


def _input(arguments: dict[str, Any], buffers: list[Buffer]) -> bytes:
    """The one buffer of a call, else the file its path names, at most ``MAX_INPUT_BYTES``."""
    if buffers:
        return bytes(buffers[0])
    path = _path(arguments)
    try:
        with open_regular(path) as handle:
            data = handle.read(MAX_INPUT_BYTES + 1)
    except OSError as error:
        why = "it is not a regular file" if isinstance(error, NotRegular) else reason(error)
        raise UnusableInput(f"{path.name} cannot be read: {why}.") from error
    if len(data) > MAX_INPUT_BYTES:
        raise UnusableInput(f"{path.name} is larger than {MAX_INPUT_BYTES >> 20} MiB.", code="image_too_large")
    return data
