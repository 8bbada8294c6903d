"""One session at a real desktop: pointer and keys go through the X server, files come from another program.

Started by ``test_desktop_session.py`` as ``python -m tests.e2e.drive_desktop FOLDER`` on a display of its own. The
program is the real one, as in ``drive_window``; only where a person's hand is, there is xdotool.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from PySide6.QtCore import QPoint
from PySide6.QtWidgets import QApplication, QWidget

from engine.events import LoadProgress
from gui.actions import SERVER
from gui.predict_queue import Item, ItemState
from gui.widgets.drop_area import DropState
from gui.widgets.progress import ProgressBar
from tests.e2e import drive_window
from tests.e2e.program import DIGITS_TORCH, PATIENCE_S, Client, picture

SOURCE_AT = (1320, 60, 240, 240)
"""Beside the window, which is 1280 wide, on a screen of 1600."""


class Neighbour:
    """The other program: ``drag_source`` in a process of its own."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "tests.e2e.drag_source", *map(str, SOURCE_AT)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as stream:
            self.lines += (line.strip() for line in iter(stream.readline, ""))

    def tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def end(self) -> int:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._reader.join(PATIENCE_S)
        return self._process.wait(PATIENCE_S)


class Hands:
    """A person's hands, as the X server sees them."""

    def __init__(self, driver: drive_window.Driver, neighbour: Neighbour) -> None:
        self.driver, self.neighbour = driver, neighbour

    def do(self, *words: object) -> None:
        """One xdotool command, run beside the event loop."""
        command = ["xdotool", *map(str, words)]
        done = self.driver.ask(lambda: subprocess.run(command, capture_output=True, text=True, check=False))
        assert done.returncode == 0, f"{command}: {done.stderr}"

    def click(self, widget: QWidget, at: QPoint) -> None:
        spot = widget.mapToGlobal(at)
        self.do("mousemove", spot.x(), spot.y(), "click", 1)

    def key(self, keys: str) -> None:
        """Press ``keys`` with the keyboard in the window, as a window manager would have put it there."""
        window = self.driver.window
        self.do("windowfocus", int(window.winId()))
        self.driver.until(window.isActiveWindow, "the keyboard in the window")
        self.do("key", keys)

    def ask_neighbour(self, verb: str, path: Path) -> None:
        self.neighbour.tell(f"{verb} {path}")
        self.driver.until(lambda: f"{verb} {path.name}" in self.neighbour.lines, f"the other program's {verb}")

    def drag(self, path: Path) -> list[str]:
        """Drag ``path`` from the other program's window onto ours; what the other program was told of it."""
        window, lines = self.driver.window, self.neighbour.lines
        self.ask_neighbour("offer", path)
        before = len(lines)
        left, top, width, height = SOURCE_AT
        x, y = left + width // 2, top + height // 2
        self.do("mousemove", x, y, "mousedown", 1)
        over = window.mapToGlobal(window.predict_page.rect().center() + window.predict_page.pos())
        for n in range(1, 13):
            self.do("mousemove", x + (over.x() - x) * n // 12, y + (over.y() - y) * n // 12)
        # The hand keeps moving a little: only at a movement does the source ask again whether it may let go.
        deadline, nudge = time.monotonic() + PATIENCE_S, 0
        while window.predict_page.drop_state is not DropState.OVER or lines[before:][-1:] != ["would CopyAction"]:
            assert time.monotonic() < deadline, f"what is dragged is not taken: {lines[before:]}"
            nudge = 1 - nudge
            self.do("mousemove", over.x() + nudge, over.y())
        self.do("mouseup", 1)
        self.driver.until(lambda: lines[-1].startswith("did "), "the end of the drag")
        return lines[before:]


def shown_answer(driver: drive_window.Driver, item: Item) -> dict[str, Any]:
    """Wait for the model's answer to ``item``, and for the page to show it."""
    driver.until(lambda: item.state not in (ItemState.QUEUED, ItemState.RUNNING), "the answer")
    assert item.prediction is not None, item.error
    predictions = item.prediction.predictions
    bars = driver.window.predict_page.work.dock.bars
    expected = [(p["label"], p["score"]) for p in predictions]
    driver.until(lambda: bars.isVisible() and bars.answers == expected, "the answer on the page")
    return {"label": bars.best_label.text(), "model": item.model, "predictions": predictions}


def session(driver: drive_window.Driver) -> None:
    """Drag a model in, drag a picture in, paste another by keyboard, serve, be asked over HTTP, quit by keyboard."""
    window, seen = driver.window, driver.seen
    window.move(0, 0)
    seen["platform"] = QApplication.platformName()
    neighbour = Neighbour()
    try:
        work(driver, Hands(driver, neighbour))
    finally:
        seen["neighbour"] = neighbour.end()


def work(driver: drive_window.Driver, hands: Hands) -> None:
    window, seen = driver.window, driver.seen
    driver.until(lambda: "shown" in hands.neighbour.lines, "the other program's window")
    driver.until(lambda: window.pos() == QPoint(0, 0) and window.predict_page.start.isVisible(), "the window")

    bars_shown: list[int] = []

    def on_progress(_event: LoadProgress) -> None:
        loading = window.predict_page.loading
        bars_shown.append(sum(bar.isVisible() for bar in loading.findChildren(ProgressBar)))

    driver.stage_model = "digits-torch"
    window.loader.progressed.connect(on_progress)
    seen["drag_model"] = hands.drag(DIGITS_TORCH)
    driver.model_ready("digits-torch")
    seen["stages"], seen["bars_shown"] = driver.stages, bars_shown

    seen["drag_picture"] = hands.drag(DIGITS_TORCH / "samples" / "digit-7.png")
    driver.until(lambda: len(window.queue.items) == 1, "the dragged picture in the list")
    seen["dragged"] = shown_answer(driver, window.queue.items[0])
    seen["dragged"]["path"] = str(window.queue.items[0].source.path)

    hands.ask_neighbour("copy", DIGITS_TORCH / "samples" / "digit-4.png")
    driver.until(lambda: QApplication.clipboard().mimeData().hasImage(), "the picture on the clipboard")
    hands.key("ctrl+v")
    driver.until(lambda: len(window.queue.items) == 2, "the pasted picture in the list")
    seen["pasted"] = shown_answer(driver, window.queue.items[1])

    hands.key("ctrl+2")
    switch = window.server_page.switch
    driver.until(lambda: window.pages.currentIndex() == SERVER and switch.isVisible(), "the Server page")
    hands.click(switch, driver.switch_spot("computer"))
    driver.until(lambda: switch.value == "computer", "the server on")
    client = Client(window.server_page.rows[-1].url)
    seen["http"] = driver.ask(lambda: client.post("/predict/digits-torch", picture(DIGITS_TORCH, 7), "image/png"))
    seen["workers"] = len(drive_window.model_workers(driver.ask(client.models)))
    client.close()

    hands.key("ctrl+q")
    driver.until(lambda: window.is_closed, "the window closed")


if __name__ == "__main__":
    drive_window.SCENARIOS["desktop"] = (session, [])
    drive_window.run("desktop", Path(sys.argv[1]))
