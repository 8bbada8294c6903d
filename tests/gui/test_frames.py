"""Sources of pictures in a process of their own: one contract for cameras and clips, and the ways they end."""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from PIL import Image

from engine.settings import WorkerSettings
from gui.error_text import CAMERA_CODES, FrameProblem, error_text
from gui.frames import CaptureSources, FrameSource, FrameSources, SourceOrder, SourceState, capture
from gui.frames.capture import OPEN_WITHIN_S, STALLS_AFTER_S, CaptureSource, problem_of
from gui.frames.rate import Rate, rate_words

PATIENCE_S = 60.0
CAMERA = SourceOrder("camera", "/dev/video7", "Desk camera")


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        threading.Event().wait(0.005)


def camera_settings(mode: str) -> WorkerSettings:
    """The capture child over a stand-in for the kernel."""
    command = [sys.executable, "-P", "-m", "tests.engine.worker.fake_kernel", mode]
    return WorkerSettings(command=command)  # type: ignore[call-arg]  # the rest has defaults


def clip_folder(folder: Path, count: int = 12) -> Path:
    """JPEG pictures of 80 by 60, each grey of its own."""
    folder.mkdir()
    for at in range(count):
        Image.new("RGB", (80, 60), (20 * at,) * 3).save(folder / f"{at:02d}.jpg")
    return folder


def clip_file(path: Path) -> Path:
    first, *others = (Image.new("RGB", (80, 60), (20 * at,) * 3) for at in range(12))
    first.save(path, save_all=True, append_images=others, duration=20)
    return path


@pytest.fixture(autouse=True)
def _nothing_left(no_leaks: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No child, no thread, no folder of a child."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(capture.tempfile, "tempdir", str(scratch))
    yield
    assert [child for child in psutil.Process().children() if "--capture" in child.cmdline()] == []
    assert list(scratch.iterdir()) == []


Opened = Callable[[SourceOrder, WorkerSettings], CaptureSource]


@pytest.fixture
def opened() -> Iterator[Opened]:
    sources: list[CaptureSource] = []

    def make(order: SourceOrder, settings: WorkerSettings) -> CaptureSource:
        source = CaptureSource(order, settings)
        sources.append(source)
        source.open()
        return source

    yield make
    for source in sources:
        source.close()


@pytest.fixture(params=["folder", "animation", "camera of JPEG", "camera of pixels"])
def order_and_settings(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[SourceOrder, WorkerSettings]:
    if request.param == "folder":
        return SourceOrder("clip", str(clip_folder(tmp_path / "clip")), "clip"), WorkerSettings()  # type: ignore[call-arg]  # defaults
    if request.param == "animation":
        return SourceOrder("clip", str(clip_file(tmp_path / "a.gif")), "a.gif"), WorkerSettings()  # type: ignore[call-arg]  # defaults
    return CAMERA, camera_settings("jpeg" if request.param == "camera of JPEG" else "yuyv")


def test_every_source_keeps_the_contract(order_and_settings: tuple[SourceOrder, WorkerSettings]) -> None:
    source: FrameSource = CaptureSource(*order_and_settings)
    assert (source.state, source.problem, source.facts, source.latest()) == (SourceState.OPENING, None, None, None)
    source.open()
    source.open()  # once is enough
    try:
        until(lambda: source.latest() is not None)
        facts, frame = source.facts, source.latest()
        assert source.state is SourceState.RUNNING
        assert facts is not None
        assert frame is not None
        assert frame.preview.source_size == (facts.width, facts.height)
        with Image.open(io.BytesIO(frame.jpeg)) as picture:
            assert picture.format == "JPEG"
            assert picture.size == (facts.width, facts.height)
            middle = picture.convert("RGB").getpixel((30, 30))
        preview = Image.frombytes("RGB", (frame.preview.width, frame.preview.height), frame.preview.rgb)
        shown = preview.getpixel((30, 30))
        assert isinstance(middle, tuple)
        assert isinstance(shown, tuple)
        assert max(abs(one - other) for one, other in zip(middle, shown, strict=True)) <= 2
        numbers: list[int] = []
        until(
            lambda: (latest := source.latest()) is not None and not numbers.append(latest.number) and latest.number > 8
        )
        assert numbers == sorted(numbers), "never an older one after a newer"
    finally:
        source.close()
    assert (source.state, source.problem, source.latest()) == (SourceState.ENDED, None, None)
    source.close()
    source.open()
    assert source.state is SourceState.ENDED


def test_the_rate_is_the_cameras_own(opened: Opened) -> None:
    source = opened(CAMERA, camera_settings("jpeg"))
    until(lambda: source.facts is not None)
    assert source.facts is not None
    assert (source.facts.width, source.facts.height, source.facts.rate) == (64, 48, 25.0)


@pytest.mark.parametrize(
    ("mode", "code"),
    [
        ("refused", "camera_refused"),
        ("busy", "camera_busy"),
        ("gone", "camera_missing"),
        ("unplugged", "camera_lost"),
        ("h264", "camera_support"),
        ("silent", "camera_lost"),
    ],
)
def test_a_camera_that_cannot_be_used_says_so(opened: Opened, mode: str, code: str) -> None:
    source = opened(CAMERA, camera_settings(mode))
    until(lambda: source.state is SourceState.ENDED)
    problem = source.problem
    assert problem is not None
    assert problem.code == code
    text = error_text(problem)
    assert text.sentence.endswith(".")
    assert text.advice


def test_a_killed_child_is_told_and_the_last_picture_is_not_shown_as_new(opened: Opened, tmp_path: Path) -> None:
    order = SourceOrder("clip", str(clip_folder(tmp_path / "clip")), "clip")
    source = opened(order, WorkerSettings())  # type: ignore[call-arg]  # defaults
    until(lambda: source.latest() is not None)
    assert source.pid is not None
    os.kill(source.pid, signal.SIGKILL)
    until(lambda: source.state is SourceState.ENDED)
    assert source.problem is not None
    assert (source.problem.code, source.problem.message) == ("camera_ended", "The process for cameras ended.")
    assert source.latest() is None


def test_a_child_that_lies_about_a_picture_is_ended(opened: Opened) -> None:
    source = opened(CAMERA, camera_settings("liar"))
    until(lambda: source.state is SourceState.ENDED)
    assert source.latest() is None
    assert source.problem is not None
    assert source.problem.message == "The camera's process sent what is no picture."
    assert source.pid is not None
    until(lambda: not psutil.pid_exists(source.pid or 0))


def test_a_driver_that_hangs_is_ended_after_a_while() -> None:
    now = [time.monotonic()]
    source = CaptureSource(CAMERA, camera_settings("hangs"), clock=lambda: now[0])
    source.open()
    try:
        until(lambda: source.facts is not None)
        now[0] += STALLS_AFTER_S
        assert source.state is SourceState.RUNNING
        now[0] += 1.0
        assert source.state is SourceState.ENDED
        assert source.problem is not None
        assert (source.problem.code, source.problem.message) == ("camera_lost", "Desk camera gives no pictures.")
        until(lambda: not psutil.pid_exists(source.pid or 0))
        assert source.problem.code == "camera_lost", "its end is no news"
    finally:
        source.close()


def test_a_source_that_never_opens_is_ended_as_well() -> None:
    now = [0.0]
    command = [sys.executable, "-P", "-c", "import sys; sys.stdin.buffer.read()"]
    settings = WorkerSettings(command=command)  # type: ignore[call-arg]  # the rest has defaults
    source = CaptureSource(CAMERA, settings, clock=lambda: now[0])
    source.open()
    try:
        now[0] = OPEN_WITHIN_S
        assert source.state is SourceState.OPENING
        now[0] += 1.0
        assert source.state is SourceState.ENDED
    finally:
        source.close()


def test_a_child_that_cannot_be_started_is_told(opened: Opened, tmp_path: Path) -> None:
    settings = WorkerSettings(command=[str(tmp_path / "nothing")])  # type: ignore[call-arg]  # the rest has defaults
    source = opened(CAMERA, settings)
    assert source.state is SourceState.ENDED
    assert source.problem is not None
    assert source.problem.message.startswith("The process for cameras could not be started: No such file")
    with pytest.raises(FrameProblem, match="could not be started"):
        CaptureSources(settings).cameras()


def test_closed_before_it_was_opened_it_stays_closed() -> None:
    source = CaptureSource(CAMERA, camera_settings("jpeg"))
    source.close()
    source.open()
    assert (source.pid, source.state) == (None, SourceState.ENDED)


def test_closed_while_its_child_starts_it_leaves_no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    source = CaptureSource(CAMERA, camera_settings("jpeg"))
    start = capture.start_child

    def close_meanwhile(*args: object) -> object:
        child = start(*args)  # type: ignore[arg-type]  # as they came
        source.close()
        return child

    monkeypatch.setattr(capture, "start_child", close_meanwhile)
    source.open()
    assert source.pid is not None
    assert not psutil.pid_exists(source.pid)
    assert (source.state, source.problem) == (SourceState.ENDED, None)


# -- listing ----------------------------------------------------------------------------------------------------------
def test_cameras_are_listed_by_a_child() -> None:
    sources: FrameSources = CaptureSources(camera_settings("jpeg"))
    assert sources.cameras() == [CAMERA]
    assert CaptureSources(camera_settings("none")).cameras() == []
    assert isinstance(sources.source(CAMERA), CaptureSource)


@pytest.mark.parametrize(
    ("mode", "code", "words"),
    [("unsupported", "camera_support", "Qt Multimedia"), ("dies", "camera_ended", "could not be listed")],
)
def test_a_listing_that_fails_says_why(mode: str, code: str, words: str) -> None:
    with pytest.raises(FrameProblem, match=words) as told:
        CaptureSources(camera_settings(mode)).cameras()
    assert told.value.code == code


def test_closing_ends_a_listing_that_hangs() -> None:
    command = [sys.executable, "-P", "-c", "import sys; sys.stdin.buffer.read()"]
    sources = CaptureSources(WorkerSettings(command=command))  # type: ignore[call-arg]  # the rest has defaults
    errors: list[BaseException] = []

    def list_them() -> None:
        try:
            sources.cameras()
        except FrameProblem as error:
            errors.append(error)

    thread = threading.Thread(target=list_them)
    thread.start()
    until(lambda: sources._listing is not None)
    sources.close()
    thread.join(PATIENCE_S)
    assert len(errors) == 1
    assert sources.cameras() == [], "nothing is started any more"
    late = sources.source(CAMERA)
    late.open()
    assert (late.pid, late.state) == (None, SourceState.ENDED)


def test_words_of_a_child_are_bounded_and_its_code_is_known() -> None:
    problem = problem_of({"code": "<b>", "message": "x" * 5000})
    assert problem.code == "camera_ended"
    assert len(problem.message) == 400
    assert problem_of({"code": 7}).message == "The camera cannot be used."
    assert all(error_text(FrameProblem("It is so.", code=code)).advice for code in CAMERA_CODES)


# -- rates ------------------------------------------------------------------------------------------------------------
def test_a_rate_counts_the_last_seconds() -> None:
    rate = Rate()
    assert rate.per_second(0.0) is None
    rate.add(0.0, 10)
    assert rate.per_second(0.0) is None
    rate.add(0.5, 15)
    assert rate.per_second(0.5) == 10.0
    for at in range(1, 9):
        rate.add(0.5 + at, 15 + 2 * at)
    assert rate.per_second(8.5) == 2.0, "the fast beginning is forgotten"
    assert rate.per_second(20.0) == 0.0
    rate.clear()
    assert rate.per_second(20.0) is None


def test_a_rate_slower_than_the_window_is_still_known() -> None:
    rate = Rate()
    for at in range(3):
        rate.add(4.0 * at, at)
    assert rate.per_second(8.5) == 0.25
    assert rate.per_second(15.9) == 0.25
    assert rate.per_second(16.1) == 0.0


@pytest.mark.parametrize(("value", "words"), [(29.97, "30"), (12.4, "12"), (9.94, "9.9"), (1.0, "1"), (0.42, "0.4")])
def test_a_rate_in_words(value: float, words: str) -> None:
    assert rate_words(value) == words
