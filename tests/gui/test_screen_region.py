"""A part of the screen as a picture: by mouse and by keyboard, and where the desktop does not let a program look."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image
from PySide6.QtCore import QPoint, QRect, QSize, Qt
from PySide6.QtGui import QColor, QImage, QPainter, QPixmap
from PySide6.QtTest import QTest
from pytestqt.qtbot import QtBot

from gui.frames import SourceOrder
from gui.main_window import MainWindow
from gui.panels.screen_region import FINE, REFUSED, SMALLEST, STEP, RegionPicker, is_blank
from gui.predict_queue import ItemState
from tests.fakes import FakeEngine
from tests.gui.conftest import WAIT_MS
from tests.gui.test_frames import clip_folder

SIZE = QSize(800, 800)
"""Of the offscreen platform's screen."""


def screenshot(scale: int = 1) -> QPixmap:
    """Left half red, right half blue, ``scale`` pixels for each of the screen's."""
    shot = QPixmap(SIZE * scale)
    shot.fill(QColor("blue"))
    painter = QPainter(shot)
    painter.fillRect(QRect(0, 0, SIZE.width() * scale // 2, SIZE.height() * scale), QColor("red"))
    painter.end()
    return shot


def begin(qtbot: QtBot, window: MainWindow, scale: int = 1) -> RegionPicker:
    """Ask for a part of the screen; the window was away when the screen was looked at."""
    region = window.predict_page.screen_region
    away: list[bool] = []

    def grab(screen: object) -> QPixmap:
        away.append(not window.isVisible())
        return screenshot(scale)

    region.grab = grab
    next(a for a in window.actions() if a.text() == "Ask about a part of the screen…").trigger()
    qtbot.waitUntil(lambda: region.picker is not None, timeout=WAIT_MS)
    assert away == [True]
    assert window.isVisible(), "it is back, behind the picker"
    picker = region.picker
    assert picker is not None
    assert picker.isVisible()
    assert picker.size() == SIZE
    return picker


def taken(qtbot: QtBot, window: MainWindow, engine: FakeEngine) -> Image.Image:
    """The picture that came into the list, as its bytes say."""
    qtbot.waitUntil(lambda: len(window.queue.items) == 1, timeout=WAIT_MS)
    (item,) = window.queue.items
    assert (item.source.name, item.source.content_type) == ("Part of the screen 1", "image/png")
    assert item.source.data is not None
    qtbot.waitUntil(lambda: item.state is ItemState.DONE, timeout=WAIT_MS)
    assert engine.requests[0].data == item.source.data
    assert window.predict_page.screen_region.picker is None
    return Image.open(io.BytesIO(item.source.data))


def drag(picker: RegionPicker, start: QPoint, end: QPoint) -> None:
    QTest.mousePress(picker, Qt.MouseButton.LeftButton, pos=start)
    QTest.mouseMove(picker, (start + end) / 2)
    QTest.mouseMove(picker, end)
    QTest.mouseRelease(picker, Qt.MouseButton.LeftButton, pos=end)


@pytest.mark.parametrize("scale", [1, 2])
def test_a_dragged_rectangle_is_taken_like_a_pasted_picture(
    qtbot: QtBot, ready_window: MainWindow, engine: FakeEngine, scale: int
) -> None:
    drag(begin(qtbot, ready_window, scale), QPoint(500, 320), QPoint(300, 200))
    picture = taken(qtbot, ready_window, engine)
    assert picture.size in ((200 * scale, 120 * scale), (201 * scale, 121 * scale))
    assert picture.getpixel((5, 5))[:3] == (255, 0, 0)  # type: ignore[index]  # colours
    assert picture.getpixel((picture.width - 5, 5))[:3] == (0, 0, 255)  # type: ignore[index]  # colours
    assert picture.getpixel((100 * scale - 2, 5))[:3] == (255, 0, 0)  # type: ignore[index]  # colours


def test_the_keyboard_alone_marks_and_takes(qtbot: QtBot, ready_window: MainWindow, engine: FakeEngine) -> None:
    picker = begin(qtbot, ready_window)
    assert picker.region == QRect(200, 200, 400, 400)
    shift, control = Qt.KeyboardModifier.ShiftModifier, Qt.KeyboardModifier.ControlModifier
    QTest.keyClick(picker, Qt.Key.Key_Right)
    QTest.keyClick(picker, Qt.Key.Key_Up, control)
    assert picker.region.topLeft() == QPoint(200 + STEP, 200 - FINE)
    QTest.keyClick(picker, Qt.Key.Key_Left, shift)
    QTest.keyClick(picker, Qt.Key.Key_Down, shift | control)
    assert picker.region == QRect(210, 199, 400 - STEP, 400 + FINE)
    assert picker.accessibleDescription().startswith("390 by 401 pixels at 210, 199.")
    QTest.keyClick(picker, Qt.Key.Key_Return)
    assert taken(qtbot, ready_window, engine).size == (390, 401)


def test_the_rectangle_stays_on_the_screen(qtbot: QtBot, ready_window: MainWindow) -> None:
    picker = begin(qtbot, ready_window)
    for _ in range(50):
        QTest.keyClick(picker, Qt.Key.Key_Right)
    assert picker.region == QRect(400, 200, 400, 400)
    for _ in range(50):
        QTest.keyClick(picker, Qt.Key.Key_Right, Qt.KeyboardModifier.ShiftModifier)
        QTest.keyClick(picker, Qt.Key.Key_Up, Qt.KeyboardModifier.ShiftModifier)
    assert picker.region == QRect(400, 200, 400, SMALLEST)
    QTest.keyClick(picker, Qt.Key.Key_Escape)


def test_escape_takes_nothing(qtbot: QtBot, ready_window: MainWindow, engine: FakeEngine) -> None:
    picker = begin(qtbot, ready_window)
    QTest.keyClick(picker, Qt.Key.Key_Escape)
    assert ready_window.predict_page.screen_region.picker is None
    assert not picker.isVisible()
    assert ready_window.queue.items == []
    assert engine.requests == []
    begin(qtbot, ready_window).close()  # and by the desktop's own way
    assert ready_window.predict_page.screen_region.picker is None


def test_a_click_marks_nothing(qtbot: QtBot, ready_window: MainWindow) -> None:
    picker = begin(qtbot, ready_window)
    before = picker.region
    QTest.mouseClick(picker, Qt.MouseButton.LeftButton, pos=QPoint(100, 100))
    assert picker.isVisible()
    assert picker.region == before
    QTest.keyClick(picker, Qt.Key.Key_Escape)


def test_only_what_is_marked_is_bright(qtbot: QtBot, ready_window: MainWindow) -> None:
    picker = begin(qtbot, ready_window)
    seen = picker.grab().toImage()
    assert seen.pixelColor(250, 300) == QColor("red")
    assert seen.pixelColor(100, 300).red() < 140
    QTest.keyClick(picker, Qt.Key.Key_Escape)


def test_where_the_desktop_forbids_it_a_sentence_says_so(qtbot: QtBot, ready_window: MainWindow) -> None:
    page = ready_window.predict_page
    page.screen_region.platform = lambda: "wayland-egl"
    page.ask_about_screen()
    assert ready_window.isVisible(), "the window does not go for nothing"
    assert page.banner.isVisible()
    assert page.banner.sentence == REFUSED
    assert "paste it here" in page.banner._second.text()


@pytest.mark.parametrize("empty", ["null", "black"])
def test_an_empty_screenshot_is_no_picture(qtbot: QtBot, ready_window: MainWindow, empty: str) -> None:
    page = ready_window.predict_page
    shot = QPixmap() if empty == "null" else QPixmap(SIZE)
    if empty == "black":
        shot.fill(QColor("black"))
    page.screen_region.grab = lambda screen: shot
    page.ask_about_screen()
    qtbot.waitUntil(lambda: page.banner.isVisible(), timeout=WAIT_MS)
    assert page.banner.sentence == REFUSED
    assert ready_window.isVisible()
    assert page.screen_region.picker is None
    begin(qtbot, ready_window)  # and it can be asked again
    page.screen_region.cancel()


def test_one_bright_pixel_is_a_picture() -> None:
    image = QImage(33, 9, QImage.Format.Format_ARGB32)
    image.fill(QColor(0, 0, 0, 0))
    assert is_blank(image)
    image.setPixelColor(32, 8, QColor(20, 20, 20))
    assert not is_blank(image)
    assert is_blank(QImage())


def test_the_window_closes_while_a_part_is_marked(qtbot: QtBot, ready_window: MainWindow) -> None:
    begin(qtbot, ready_window)
    ready_window.close()
    qtbot.waitUntil(lambda: ready_window.is_closed, timeout=WAIT_MS)
    assert ready_window.predict_page.screen_region.picker is None


def test_the_window_closes_while_it_steps_aside(qtbot: QtBot, ready_window: MainWindow) -> None:
    ready_window.predict_page.ask_about_screen()
    assert not ready_window.isVisible()
    ready_window.close()
    qtbot.waitUntil(lambda: ready_window.is_closed, timeout=WAIT_MS)


def test_a_camera_is_let_go_when_the_window_steps_aside(qtbot: QtBot, ready_window: MainWindow, tmp_path: Path) -> None:
    live = ready_window.predict_page.live
    live.play(SourceOrder("clip", str(clip_folder(tmp_path / "clip")), "clip"))
    qtbot.waitUntil(lambda: live.session.frame is not None, timeout=WAIT_MS)
    picker = begin(qtbot, ready_window)
    assert not live.is_on
    QTest.keyClick(picker, Qt.Key.Key_Escape)
