"""The inspector as a process: it answers, refuses, survives, ends, and holds no framework."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import soundfile
from PIL import Image

from engine.protocol import Buffer, Message, ProtocolError, read_frame, write_frame
from engine.worker import limits
from engine.worker.inspector import Inspector
from engine.worker.limits import ResourceLimits, inspector_limits

EXAMPLES = Path(__file__).parents[2] / "examples"


class Child:
    """The real inspector, asked over its pipes."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "engine.worker", "--inspect"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self._next = 0

    def call(self, op: str, args: dict[str, Any], buffers: Sequence[Buffer] = ()) -> Message:
        self._next += 1
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        write_frame(self.process.stdin, {"type": "call", "id": self._next, "op": op, "args": args}, buffers)  # type: ignore[arg-type]  # a pipe is a binary stream
        message = read_frame(self.process.stdout)  # type: ignore[arg-type]  # as above
        assert message is not None
        assert (message.type, message.header["id"]) == ("reply", self._next)
        return message

    def result(self, op: str, args: dict[str, Any], buffers: Sequence[Buffer] = ()) -> dict[str, Any]:
        reply = self.call(op, args, buffers).header
        assert "error" not in reply, reply["error"]
        return dict(reply["result"])

    def error(self, op: str, args: dict[str, Any], buffers: Sequence[Buffer] = ()) -> dict[str, Any]:
        reply = self.call(op, args, buffers).header
        assert set(reply["error"]) == {"code", "message", "details"}
        return dict(reply["error"])

    def close(self) -> int:
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()
        return self.process.wait(30)


@pytest.fixture(scope="module")
def child() -> Iterator[Child]:
    started = Child()
    yield started
    assert started.close() == 0


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "format_", "task"),
    [
        ("digits-keras", "keras", "image-classification"),
        ("digits-torch", "torchscript", "image-classification"),
        ("wine", "keras", "tabular-classification"),
    ],
)
def test_inspects_the_examples(child: Child, name: str, format_: str, task: str) -> None:
    spec = child.result("inspect", {"path": str(EXAMPLES / name)})["spec"]
    assert (spec["format"], spec["task"]) == (format_, task)
    assert spec["evidence"]["labels"] == "sidecar"
    assert spec["path"] == str((EXAMPLES / name).resolve())


def test_previews_a_picture_from_bytes_and_from_a_file(child: Child, tmp_path: Path) -> None:
    image = Image.new("RGB", (400, 100), "red")
    reply = child.call("preview_image", {"max_side": 40}, [png(image)])
    assert reply.header["result"] == {"width": 40, "height": 10, "source_size": [400, 100], "note": ""}
    pixels = np.frombuffer(reply.buffers[0], np.uint8).reshape(10, 40, 3)
    assert (pixels == [255, 0, 0]).all()
    (tmp_path / "a.png").write_bytes(png(image))
    assert child.result("preview_image", {"max_side": 8192, "path": str(tmp_path / "a.png")})["width"] == 400


def test_previews_a_table(child: Child) -> None:
    data = b"a;b\n" + b"1;2\n" * 500
    result = child.result("preview_table", {"max_rows": 2}, [data])
    assert result == {"columns": ["a", "b"], "rows": [["1", "2"], ["1", "2"]], "total_rows": 500}


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG"])
def test_previews_a_recording(child: Child, kind: str) -> None:
    """Silence, then a tone on one of two channels: the outline is that of the widest."""
    tone = np.zeros((16_000, 2), np.float32)
    tone[8_000:, 0] = np.sin(np.arange(8_000) * 0.3)
    file = io.BytesIO()
    soundfile.write(file, tone, 16_000, format=kind)
    message = child.call("preview_audio", {"points": 100}, [file.getvalue()])
    found = message.header["result"]
    assert (found["seconds"], found["rate"], found["channels"]) == (1.0, 16_000, 2)
    low, high = (np.frombuffer(buffer, "<f4") for buffer in message.buffers)
    assert (len(low), len(high)) == (100, 100)
    assert max(abs(low[:48]).max(), high[:48].max()) < 0.02
    assert high[52:98].min() > 0.8
    assert low[52:98].max() < -0.8


def test_a_silent_and_a_tiny_recording_have_an_outline(child: Child) -> None:
    for samples, points in ((np.zeros(800), 50), (np.full(3, 0.25), 3)):
        file = io.BytesIO()
        soundfile.write(file, samples, 8_000, format="WAV")
        message = child.call("preview_audio", {"points": 50}, [file.getvalue()])
        assert len(np.frombuffer(message.buffers[0], "<f4")) == points


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"RIFF\x24\x00\x00\x00WAVEfmt ", "This is not a recording that can be opened"),
        (b"\x89PNG\r\n\x1a\n", "This is not a recording that can be opened"),
        (b"", "This is not a recording that can be opened"),
    ],
)
def test_what_is_no_recording_has_no_outline(child: Child, data: bytes, words: str) -> None:
    assert words in child.error("preview_audio", {"points": 10}, [data])["message"]


def test_a_recording_without_samples_is_told(child: Child) -> None:
    file = io.BytesIO()
    soundfile.write(file, np.zeros(0), 8_000, format="WAV")
    assert "no" in child.error("preview_audio", {"points": 10}, [file.getvalue()])["message"]
    for points in (0, True, 10**9, "x"):
        assert child.error("preview_audio", {"points": points}, [file.getvalue()])["code"] == "malformed"


def test_refusals_have_code_and_sentence_and_the_next_call_is_answered(child: Child, tmp_path: Path) -> None:
    assert child.error("inspect", {"path": str(tmp_path / "no.keras")})["code"] == "model_unreadable"
    assert child.error("preview_image", {"max_side": 40}, [b"\x89PNG\r\n\x1a\n"])["code"] == "image_invalid"
    assert child.error("preview_table", {"max_rows": 5}, [b"a,a\n1,2\n"])["code"] == "table_invalid"
    missing = child.error("preview_image", {"max_side": 40, "path": str(tmp_path / "no.png")})
    assert missing["message"] == "no.png cannot be read: no such file or directory."
    assert child.error("preview_image", {"max_side": 0}, [b"x"])["code"] == "malformed"
    assert child.error("preview_image", {"max_side": 40})["code"] == "malformed"
    assert child.error("inspect", {"path": "a\x00b"})["code"] == "malformed"
    assert child.error("format_disk", {})["code"] == "malformed"
    assert child.result("inspect", {"path": str(EXAMPLES / "wine")})["spec"]["format"] == "keras"


@pytest.mark.skipif(os.name != "posix", reason="needs a FIFO")
def test_a_fifo_is_refused_without_opening_it(child: Child, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pt")
    error = child.error("inspect", {"path": str(tmp_path / "pipe.pt")})
    assert error["code"] == "model_unreadable"
    assert "not a regular file" in error["message"]
    assert (
        "not a regular file"
        in child.error("preview_image", {"max_side": 9, "path": str(tmp_path / "pipe.pt")})["message"]
    )


@pytest.mark.skipif(sys.platform != "linux", reason="reads the memory map as Linux shows it")
def test_the_process_holds_no_framework_and_dumps_no_core(child: Child) -> None:
    child.result("inspect", {"path": str(EXAMPLES / "digits-torch")})
    maps = {region.path.lower() for region in psutil.Process(child.process.pid).memory_maps(grouped=True)}
    libraries = {Path(path).name for path in maps} | {part for path in maps for part in Path(path).parts}
    assert not {"torch", "tensorflow", "keras", "jax"} & libraries
    assert not [path for path in maps if "libtorch" in path or "libtensorflow" in path]
    import resource

    assert resource.prlimit(child.process.pid, resource.RLIMIT_CORE) == (0, 0)
    soft, _ = resource.prlimit(child.process.pid, resource.RLIMIT_AS)
    assert limits.HEADROOM < soft < 4 * limits.HEADROOM


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is set on Linux")
def test_running_out_of_memory_is_one_answer() -> None:
    code = (
        "import sys; from engine.worker import limits, inspector; limits.HEADROOM = 200 << 20\n"
        "inspector.inspector_limits = lambda: limits.ResourceLimits(200 << 20, core_dumps=False)\n"
        "from engine.worker.__main__ import main; sys.exit(main(['--inspect']))"
    )
    small = Child.__new__(Child)
    small._next = 0
    small.process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        error = small.error("preview_image", {"max_side": 9}, [png(Image.new("L", (11_000, 11_000)))])
        assert error["code"] in ("image_too_large", "model_unreadable")
        assert "memory" in error["message"]
        assert small.result("preview_image", {"max_side": 9}, [png(Image.new("L", (9, 9)))])["width"] == 9
    finally:
        assert small.close() == 0


def test_ends_when_told_and_when_the_parent_is_gone_and_on_garbage() -> None:
    for bytes_in, status in ((b"", 0), (b"garbage" * 10, 1)):
        child = Child()
        out, _ = child.process.communicate(bytes_in, timeout=30)
        assert (out, child.process.returncode) == (b"", status)
    child = Child()
    assert child.process.stdin is not None
    write_frame(child.process.stdin, {"type": "stop"})  # type: ignore[arg-type]  # a pipe is a binary stream
    assert child.process.wait(30) == 0
    child.close()


class Script:
    """A channel that plays messages and keeps replies."""

    def __init__(self, *messages: Message | Exception, gone: bool = False) -> None:
        self.messages = list(messages)
        self.sent: list[dict[str, Any]] = []
        self.gone = gone

    def receive(self) -> Message | None:
        message = self.messages.pop(0) if self.messages else None
        if isinstance(message, Exception):
            raise message
        return message

    def send(self, header: dict[str, Any], buffers: Sequence[Buffer] = ()) -> None:
        if self.gone:
            raise BrokenPipeError
        self.sent.append(header)


@pytest.fixture
def no_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.worker.inspector.inspector_limits", lambda: ResourceLimits(None, core_dumps=True))


@pytest.mark.usefixtures("no_limits")
def test_a_fault_in_the_program_is_one_answer_with_details(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise ZeroDivisionError("bug")

    monkeypatch.setattr("engine.worker.inspector.describe_model", broken)
    channel = Script(Message({"type": "call", "id": 7, "op": "inspect", "args": {"path": "x"}}))
    assert Inspector(channel).run() == 0
    error = channel.sent[0]["error"]
    assert (channel.sent[0]["id"], error["code"]) == (7, "internal")
    assert "ZeroDivisionError" in error["details"]
    assert "ZeroDivisionError" not in error["message"]


@pytest.mark.usefixtures("no_limits")
def test_a_broken_channel_ends_it() -> None:
    call = Message({"type": "call", "id": 1, "op": "inspect", "args": {"path": "x"}})
    assert Inspector(Script(call, gone=True)).run() == 0
    assert Inspector(Script(ProtocolError("garbage"))).run() == 1
    assert Inspector(Script(Message({"type": "batch"}))).run() == 1


def test_limits_are_chosen_by_platform() -> None:
    assert inspector_limits("linux") == ResourceLimits(limits.HEADROOM, core_dumps=False)
    assert inspector_limits("darwin") == ResourceLimits(None, core_dumps=False)
    windows = inspector_limits("win32")
    assert windows == ResourceLimits(None, core_dumps=True)
    windows.apply()  # touches nothing that Windows lacks
