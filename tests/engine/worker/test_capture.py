"""The capture child: clips and cameras, what it says of those that give nothing, and that it always ends."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine.protocol import Message, read_frame, write_frame
from engine.worker.capture import cameras, v4l2
from engine.worker.capture.clip import Clip
from engine.worker.capture.loop import MOST_BAD, Newest
from engine.worker.capture.source import CODES, PREVIEW_SIDE, CaptureFailed, Facts, Shot, prepare
from engine.worker.capture.v4l2 import V4l2Camera, list_cameras, rgb_of_yuyv
from tests.engine.worker.fake_kernel import CAMERA, HEIGHT, WIDTH, FakeKernel

PATIENCE_S = 60.0
ROOT = Path(__file__).parents[3]


class EnoughError(Exception):
    """Ends a source that never returns by itself."""


class Taker:
    """Takes ``count`` pictures, then stops the source."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.facts: list[Facts] = []
        self.shots: list[Shot] = []

    def opened(self, facts: Facts) -> None:
        assert not self.shots
        self.facts.append(facts)

    def deliver(self, shot: Shot) -> None:
        self.shots.append(shot)
        if len(self.shots) >= self.count:
            raise EnoughError

    def run(self, source: Any) -> None:
        with pytest.raises(EnoughError):
            source.run(self.opened, self.deliver)
        assert len(self.facts) == 1


def jpeg(width: int, height: int, colour: str = "red", **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(stream, "JPEG", **options)
    return stream.getvalue()


def folder_of(path: Path, *colours: str) -> Path:
    path.mkdir()
    for at, colour in enumerate(colours):
        (path / f"{at}.jpg").write_bytes(jpeg(40, 30, colour))
    (path / "notes.txt").write_text("not a picture", encoding="utf-8")
    return path


def animation(path: Path, kind: str, durations: Sequence[int], colours: Sequence[str] = ("red", "lime")) -> Path:
    first, *others = (Image.new("RGB", (40, 30), colour) for colour in colours)
    first.save(path, kind, save_all=True, append_images=others, duration=list(durations), loop=0, lossless=True)
    return path


# -- clips ------------------------------------------------------------------------------------------------------------
def test_a_folder_is_played_over_and_over_in_the_order_of_names(tmp_path: Path) -> None:
    taker = Taker(5)
    taker.run(Clip(folder_of(tmp_path / "clip", "red", "lime"), rate=500))
    assert taker.facts == [Facts("clip", 40, 30, 500.0)]
    files = [(tmp_path / "clip" / f"{at}.jpg").read_bytes() for at in (0, 1)]
    assert taker.shots == [files[0], files[1], files[0], files[1], files[0]], "JPEG goes on as it was"


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_an_animation_is_played_at_its_own_rate(tmp_path: Path, kind: str) -> None:
    taker = Taker(3)
    taker.run(Clip(animation(tmp_path / "a.bin", kind, (20, 40))))
    assert taker.facts == [Facts("a.bin", 40, 30, 50.0)]
    seen = [shot.getpixel((5, 5)) for shot in taker.shots if isinstance(shot, Image.Image)]
    assert seen == [(255, 0, 0), (0, 255, 0), (255, 0, 0)]


def test_a_clip_keeps_its_pace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, slept = [100.0], []

    def sleep(seconds: float) -> None:
        slept.append(round(seconds, 3))
        now[0] += seconds

    monkeypatch.setattr("engine.worker.capture.clip.time.monotonic", lambda: now[0])
    monkeypatch.setattr("engine.worker.capture.clip.time.sleep", sleep)
    Taker(4).run(Clip(folder_of(tmp_path / "clip", "red", "lime"), rate=25))
    assert slept == [0.04, 0.04, 0.04]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty", None, "empty holds no JPEG pictures."),
        ("missing.gif", b"", "missing.gif cannot be read: no such file or directory."),
        ("one.gif", "one", "one.gif holds one picture, not a clip."),
        ("text.gif", b"words", "text.gif is not an animated picture: expected GIF, WEBP or PNG."),
        ("cut.gif", "cut", "cut.gif is damaged, cut off or too large."),
    ],
)
def test_what_is_no_clip_is_told_in_a_sentence(tmp_path: Path, name: str, content: Any, words: str) -> None:
    path = tmp_path / name
    if content is None:
        path.mkdir()
    elif content == "one":
        animation(path, "GIF", (20,), ("red",))
    elif content == "cut":
        whole = animation(path, "GIF", (20, 20, 20), ("red", "lime", "blue")).read_bytes()
        path.write_bytes(whole[:40])
    elif content:
        path.write_bytes(content)
    with pytest.raises(CaptureFailed) as told:
        Clip(path).run(lambda facts: None, lambda shot: None)
    assert (told.value.code, told.value.message) == ("clip_unreadable", words)


# -- pictures ---------------------------------------------------------------------------------------------------------
def test_a_large_picture_goes_on_whole_with_a_smaller_preview() -> None:
    data = jpeg(2000, 1000)
    header, (sent, rgb) = prepare(data)
    assert sent == data
    assert header == {"width": PREVIEW_SIDE, "height": PREVIEW_SIDE // 2, "source_size": [2000, 1000]}
    pixels = np.frombuffer(rgb, np.uint8).reshape(PREVIEW_SIDE // 2, PREVIEW_SIDE, 3)
    assert np.abs(pixels.astype(int) - [254, 0, 0]).max() <= 2


def test_a_preview_stands_upright_as_the_model_sees_the_picture() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    header, _ = prepare(jpeg(80, 40, exif=exif.tobytes()))
    assert header == {"width": 40, "height": 80, "source_size": [40, 80]}


def test_motion_jpeg_without_its_huffman_tables_is_read() -> None:
    """Cameras leave them out: they are always the standard ones."""
    data, kept, at = jpeg(40, 30), bytearray(b"\xff\xd8"), 2
    while data[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        kept += data[at:end] if data[at + 1] != 0xC4 else b""
        at = end
    shortened = bytes(kept + data[at:])
    assert len(shortened) < len(data)
    _, (_, rgb) = prepare(shortened)
    assert bytes(rgb) == bytes(prepare(data)[1][1])


@pytest.mark.parametrize("data", [b"", b"\x89PNG\r\n\x1a\n", jpeg(200, 200)[:300]])
def test_what_is_no_whole_jpeg_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="picture"):
        prepare(data)


def test_only_the_newest_picture_waits() -> None:
    place = Newest()
    for shot in (b"1", b"2", b"3"):
        place.put(shot)
    assert place.take() == (3, b"3")
    place.put(b"4")
    assert place.take() == (4, b"4")


# -- cameras of Linux -------------------------------------------------------------------------------------------------
def test_a_camera_that_makes_jpeg() -> None:
    kernel, taker = FakeKernel("jpeg"), Taker(6)
    taker.run(V4l2Camera("/dev/video7", kernel))
    assert taker.facts == [Facts("/dev/video7", WIDTH, HEIGHT, 25.0)]
    assert kernel.opened == ["/dev/video7"]
    greys = [Image.open(io.BytesIO(shot)).getpixel((3, 3)) for shot in taker.shots if isinstance(shot, bytes)]
    assert greys == [(grey,) * 3 for grey in (40, 42, 43, 44, 45, 46)], "each picture once, in order"


def test_a_camera_that_gives_plain_pixels_and_states_no_rate() -> None:
    taker = Taker(2)
    taker.run(V4l2Camera("/dev/video7", FakeKernel("yuyv")))
    assert taker.facts == [Facts("/dev/video7", WIDTH, HEIGHT, 0.0)]
    first = taker.shots[0]
    assert isinstance(first, Image.Image)
    assert first.size == (WIDTH, HEIGHT)
    assert first.getpixel((9, 9)) == (28,) * 3  # luma 40 of 16 to 235


def test_colours_of_plain_pixels() -> None:
    """BT.601's own figures for white, black, red and blue, in rows longer than the picture."""
    pairs = [(235, 128, 128), (16, 128, 128), (81, 90, 240), (41, 240, 110)]
    row = b"".join(bytes([y, u, y, v]) for y, u, v in pairs) + b"\0" * 16
    pixels = rgb_of_yuyv(row * 2, 8, 2, len(row))
    assert pixels.shape == (2, 8, 3)
    wanted = [(255, 255, 255), (0, 0, 0), (255, 0, 0), (0, 0, 255)]
    for at, colour in enumerate(wanted):
        assert np.abs(pixels[1, 2 * at].astype(int) - colour).max() <= 2
        assert (pixels[1, 2 * at] == pixels[0, 2 * at + 1]).all()


def test_pictures_that_the_driver_calls_bad_are_left_out() -> None:
    taker = Taker(3)
    taker.run(V4l2Camera("/dev/video7", FakeKernel("marked")))
    greys = [Image.open(io.BytesIO(shot)).getpixel((3, 3)) for shot in taker.shots if isinstance(shot, bytes)]
    assert greys == [(41,) * 3, (43,) * 3, (45,) * 3]


@pytest.mark.parametrize(
    ("mode", "code", "words"),
    [
        ("refused", "camera_refused", "Deskside may not use this camera."),
        ("busy", "camera_busy", "Another program is using this camera."),
        ("gone", "camera_missing", "This camera is not there any more."),
        ("unplugged", "camera_lost", "The camera was unplugged, or stopped answering."),
        ("silent", "camera_lost", "The camera is open, but gives no pictures."),
        ("h264", "camera_support", "The camera gives neither JPEG nor YUYV, the two kinds that are read."),
    ],
)
def test_a_camera_that_gives_nothing_says_why(mode: str, code: str, words: str) -> None:
    with pytest.raises(CaptureFailed) as told:
        V4l2Camera("/dev/video7", FakeKernel(mode)).run(lambda facts: None, lambda shot: None)
    assert (told.value.code, told.value.message) == (code, words)
    assert code in CODES


def test_listing_takes_what_gives_pictures(tmp_path: Path) -> None:
    for name, words in (("video10", "Second\n"), ("video2", "First\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "name").write_text(words, encoding="utf-8")
    kernel = FakeKernel()
    listed = list_cameras(tmp_path, kernel)
    assert listed == [{"id": "/dev/video2", "name": "First"}, {"id": "/dev/video10", "name": "Second"}]
    assert len(kernel.closed) == 2, "listing holds no camera"
    assert list_cameras(tmp_path, FakeKernel("metadata")) == []
    assert list_cameras(tmp_path, FakeKernel("refused")) == listed, "opening it says why"
    assert list_cameras(tmp_path, FakeKernel("gone")) == []
    assert list_cameras(tmp_path / "nothing", kernel) == []


def test_elsewhere_cameras_need_what_the_extra_installs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PySide6.QtMultimedia", None)
    monkeypatch.delitem(sys.modules, "engine.worker.capture.qt_camera", raising=False)
    for platform in ("win32", "darwin"):
        for ask in (lambda p=platform: cameras.list_cameras(p), lambda p=platform: cameras.open_camera("a", p)):
            with pytest.raises(CaptureFailed) as told:
                ask()
            assert told.value.code == "camera_support"
    assert isinstance(cameras.open_camera("/dev/video7", "linux"), V4l2Camera)


def test_the_numbers_are_the_kernels() -> None:
    """Where its header is there: the structures' sizes are part of these numbers."""
    header = Path("/usr/include/linux/videodev2.h")
    if not header.exists():
        pytest.skip("linux/videodev2.h is not installed")
    text = header.read_text(encoding="utf-8")
    for name in ("QUERYCAP", "S_FMT", "REQBUFS", "QUERYBUF", "QBUF", "DQBUF", "STREAMON", "S_PARM"):
        found = re.search(rf"#define\s+VIDIOC_{name}\s+(_IOW?R?)\s*\('V',\s*(\d+),", text)
        assert found is not None, name
        way, number = {"_IOR": 2, "_IOW": 1, "_IOWR": 3}[found.group(1)], getattr(v4l2, name)
        assert (number >> 30, number >> 8 & 0xFF, number & 0xFF) == (way, ord("V"), int(found.group(2))), name


# -- the process ------------------------------------------------------------------------------------------------------
class Child:
    def __init__(self, *command: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"PYTHONPATH": str(ROOT)},
        )

    def ask(self, **header: Any) -> None:
        assert self.process.stdin is not None
        write_frame(self.process.stdin, header)  # type: ignore[arg-type]  # a pipe is a binary stream
        self.process.stdin.flush()

    def next(self) -> Message | None:
        assert self.process.stdout is not None
        return read_frame(self.process.stdout)  # type: ignore[arg-type]  # as above

    def messages(self) -> Iterator[Message]:
        while (message := self.next()) is not None:
            yield message

    def end(self) -> int:
        """Close its input, and wait for its end."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        code = self.process.wait(PATIENCE_S)
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()
        return code


def camera_child(mode: str) -> Child:
    return Child("tests.engine.worker.fake_kernel", mode, "--capture")


def test_a_clip_comes_out_of_the_real_process(tmp_path: Path) -> None:
    child = Child("engine.worker", "--capture")
    child.ask(type="open", kind="clip", id=str(folder_of(tmp_path / "clip", "red", "lime")))
    messages = child.messages()
    opened = next(messages)
    assert opened.header == {"type": "opened", "name": "clip", "width": 40, "height": 30, "rate": 25.0}
    pictures = [next(messages) for _ in range(4)]
    numbers = [message.header["number"] for message in pictures]
    assert numbers == sorted(set(numbers))
    assert {bytes(m.buffers[0]) for m in pictures} <= {p.read_bytes() for p in (tmp_path / "clip").glob("*.jpg")}
    assert child.end() == 0


def test_the_end_of_its_input_ends_a_child_whose_driver_hangs() -> None:
    child = camera_child("hangs")
    child.ask(type="open", kind="camera", id="/dev/video7")
    opened = child.next()
    assert opened is not None
    assert opened.type == "opened"
    assert child.process.poll() is None
    assert child.end() == 0


@pytest.mark.parametrize("mode", ["jpeg", "none"])
def test_listing_answers_once_and_ends(mode: str) -> None:
    child = camera_child(mode)
    child.ask(type="list")
    assert [message.header for message in child.messages()] == [
        {"type": "cameras", "cameras": [CAMERA] if mode == "jpeg" else []}
    ]
    assert child.end() == 0


def test_a_failure_is_the_last_word() -> None:
    child = camera_child("unplugged")
    child.ask(type="open", kind="camera", id="/dev/video7")
    last = list(child.messages())[-1]
    assert (last.type, last.header["code"]) == ("failed", "camera_lost")
    assert child.end() == 0


def test_torn_pictures_are_passed_over() -> None:
    child = camera_child("torn")
    child.ask(type="open", kind="camera", id="/dev/video7")
    messages = child.messages()
    assert next(messages).type == "opened"
    numbers = [next(messages).header["number"] for _ in range(3)]
    assert all(number % 2 for number in numbers), "every second one is cut off"
    assert child.end() == 0


def test_a_source_of_torn_pictures_only_is_given_up() -> None:
    child = camera_child("damaged")
    child.ask(type="open", kind="camera", id="/dev/video7")
    opened, failed = child.messages()
    assert (opened.type, failed.type, failed.header["code"]) == ("opened", "failed", "camera_lost")
    assert failed.header["message"] == "The pictures that come cannot be read."
    assert child.process.stderr is not None
    assert child.process.stderr.read().count(b"not a whole picture") == MOST_BAD
    assert child.end() == 0


def test_a_question_it_does_not_know_ends_it() -> None:
    child = camera_child("jpeg")
    child.ask(type="load")
    assert list(child.messages()) == []
    assert child.end() == 1
