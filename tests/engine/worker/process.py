"""A real worker process on pipes, spoken to in frames: what the engine does, without the engine."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any, BinaryIO, Self, cast

import numpy as np
import orjson

from engine.answer_parts import unpack_parts
from engine.model_spec import ModelSpec, TrustClass
from engine.protocol import Buffer, Message, Readable, read_frame, write_frame
from engine.tensors import pack_tensor, unpack_tensor

PATIENCE_S = 120.0
"""How long a test waits before it calls a worker dead; far above what any step takes."""


def make_spec(task: str = "raw-tensors", /, **changes: Any) -> ModelSpec:
    """A spec of the fake runtime; ``options`` are its faults."""
    values: dict[str, Any] = {
        "path": Path("/nowhere/fake"),
        "model_file": Path("/nowhere/fake"),
        "format": "fake",
        "runtime": "fake",
        "task": task,
        "trust_class": TrustClass.DATA,
        "id": "fake",
    }
    return ModelSpec(**(values | changes))


class WorkerProcess:
    """One ``python -m engine.worker``. Messages are read by a thread, so that nothing the worker sends blocks it."""

    def __init__(self) -> None:
        environment = dict(os.environ, OMP_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE", TF_CPP_MIN_LOG_LEVEL="2")
        self.stderr = tempfile.TemporaryFile()  # noqa: SIM115  # closed in close()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "engine.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.stderr,
            env=environment,
            cwd=Path(__file__).parents[3],
        )
        self._messages: queue.SimpleQueue[Message | Exception | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._next = 0

    def _read(self) -> None:
        try:
            while (message := read_frame(cast(Readable, self.process.stdout))) is not None:
                self._messages.put(message)
            self._messages.put(None)
        except Exception as error:
            self._messages.put(error)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        self.process.kill()
        self.process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        for stream in (self.process.stdin, self.process.stdout, self.stderr):
            cast(BinaryIO, stream).close()

    def send(self, header: dict[str, Any], buffers: list[Buffer] | None = None) -> None:
        write_frame(cast(BinaryIO, self.process.stdin), header, buffers or [])

    def receive(self) -> Message:
        """The next message. Fails the test where the channel ends or breaks."""
        message = self._messages.get(timeout=PATIENCE_S)
        assert isinstance(message, Message), f"{message!r}; standard error: {self.errors()}"
        return message

    def receive_end(self) -> Exception | None:
        """How the channel ends: None for a clean end, else the exception. Messages before it are dropped."""
        while isinstance(message := self._messages.get(timeout=PATIENCE_S), Message):
            pass
        return message

    def errors(self) -> str:
        """What the worker has written on standard error."""
        self.stderr.seek(0)
        return self.stderr.read().decode("utf-8", "replace")

    def exit_code(self) -> int:
        return self.process.wait(PATIENCE_S)

    def load(self, spec: ModelSpec, device: str = "cpu", **extra: Any) -> Message:
        """Load ``spec``; the answer is ``ready`` or ``failed``. Stages are kept in ``stages``."""
        assert self.receive().type == "hello"
        self.stages: list[dict[str, Any]] = []
        self.send({"type": "load", "spec": spec.to_json(), "device": device, "threads": 1, **extra})
        while (message := self.receive()).type == "stage":
            self.stages.append(message.header)
        return message

    def send_batch(self, batch: int, *items: tuple[dict[str, Any], list[Buffer]]) -> None:
        buffers = [buffer for _, own in items for buffer in own]
        self.send({"type": "batch", "batch": batch, "items": [header for header, _ in items]}, buffers)

    def run_batch(self, *items: tuple[dict[str, Any], list[Buffer]]) -> list[dict[str, Any]]:
        """Send a batch and wait for it; the items of ``done``, raw tensors as arrays under ``outputs``."""
        self._next += 1
        self.send_batch(self._next, *items)
        assert self.receive().header == {"type": "started", "batch": self._next}
        return read_done(self.receive())

    def predict(self, data: Any, content_type: str | None = None, **params: Any) -> dict[str, Any]:
        """One request alone: its item of ``done``."""
        (item,) = self.run_batch(item_of("r", data, content_type, **params))
        return item


def item_of(
    item_id: str, data: Any, content_type: str | None = None, **params: Any
) -> tuple[dict[str, Any], list[Buffer]]:
    """An item of a batch: bytes, rows (a list) or tensors (a dict of arrays)."""
    header: dict[str, Any] = {"id": item_id, "content_type": content_type, "params": params}
    if isinstance(data, bytes):
        return header | {"kind": "bytes", "buffers": 1}, [data]
    if isinstance(data, list):
        return header | {"kind": "rows", "buffers": 1}, [orjson.dumps(data)]
    packed = [pack_tensor(name, np.asarray(array)) for name, array in data.items()]
    tensors = [meta for meta, _ in packed]
    return header | {"kind": "tensors", "tensors": tensors, "buffers": len(packed)}, [b for _, b in packed]


def read_done(message: Message) -> list[dict[str, Any]]:
    """The items of a ``done`` message; tensors are unpacked under ``outputs``, an answer with its pictures and arrays
    put back under ``answer``."""
    assert message.type == "done", message.header
    buffers = list(message.buffers)
    items = []
    for item in message.header["items"]:
        if (tensors := item.get("result", {}).get("tensors")) is not None:
            item = item | {"outputs": dict(unpack_tensor(meta, buffers.pop(0)) for meta in tensors)}
        elif (result := item.get("result")) is not None:
            taken = (buffers.pop(0) for _ in result.get("parts", []))
            item = item | {"answer": unpack_parts(result["value"], result.get("parts", []), taken)}
        items.append(item)
    assert not buffers
    return items
