"""Drives the real program: its own composition, window, engine and socket, in a process of its own.

Started by ``test_window.py`` as ``python -m tests.e2e.drive_window SCENARIO FOLDER``; writes what it saw as JSON to
``FOLDER/seen.json``. Imports no Pillow and no framework, because the process's memory map is part of what is checked.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
from PySide6.QtCore import QEvent, QEventLoop, QMimeData, QPoint, QPointF, Qt, QTimer, QUrl
from PySide6.QtGui import QDragEnterEvent, QDropEvent
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication

import main
from engine.events import LoadProgress, LoadStage
from engine.settings import EngineLimits, ServerSettings, Settings, SettingsStore
from gui.main_window import MainWindow
from gui.model_shelf import ChipPhase
from gui.predict_queue import ItemState
from tests.e2e.program import DIGITS_KERAS, DIGITS_TORCH, PATIENCE_S, Client, picture
from tests.ports import free_port

FOREIGN = re.compile(r"torch|tensorflow|onnxruntime|h5py|PIL|Pillow|pillow", re.IGNORECASE)


class Driver:
    """What a person does with the window, and what the test sees of it."""

    def __init__(self, window: MainWindow) -> None:
        self.window = window
        self.seen: dict[str, Any] = {}
        self.stages: list[str] = []
        self.stage_model = ""
        window.loader.progressed.connect(self._on_progress)

    def _on_progress(self, event: LoadProgress) -> None:
        if event.model_id == self.stage_model and (not self.stages or self.stages[-1] != event.stage):
            self.stages.append(str(event.stage))

    def until(self, condition: Callable[[], Any], what: str) -> Any:
        """Run the event loop until ``condition`` holds."""
        deadline = time.monotonic() + PATIENCE_S
        loop = QEventLoop()
        timer = QTimer()
        timer.setInterval(5)

        def check() -> None:
            try:
                over = bool(condition()) or time.monotonic() > deadline
            except Exception:
                over = True  # raised again below, where the scenario sees it
            if over:
                timer.stop()
                loop.quit()

        timer.timeout.connect(check)
        timer.start()
        loop.exec()
        value = condition()
        assert value, f"did not come: {what}"
        return value

    def drop(self, *paths: Path) -> None:
        """A real drag-enter and drop event on the window."""
        mime = QMimeData()
        mime.setUrls([QUrl.fromLocalFile(str(path)) for path in paths])
        centre = self.window.rect().center()
        actions, left, none = Qt.DropAction.CopyAction, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
        enter = QDragEnterEvent(centre, actions, mime, left, none)
        QApplication.sendEvent(self.window, enter)
        assert enter.isAccepted()
        drop = QDropEvent(QPointF(centre), actions, mime, left, none, QEvent.Type.Drop)
        QApplication.sendEvent(self.window, drop)
        assert drop.isAccepted()

    def model_ready(self, key: str) -> None:
        def ready() -> bool:
            return any(c.key == key and c.phase is ChipPhase.READY and not c.token for c in self.window.shelf.cards)

        self.until(ready, f"{key} ready")

    def load_by_drop(self, path: Path, key: str) -> list[str]:
        self.stages, self.stage_model = [], key
        self.drop(path)
        self.model_ready(key)
        self.until(lambda: self.window.shelf.active is not None and self.window.shelf.active.key == key, "active")
        return list(self.stages)

    def answer_by_drop(self, path: Path) -> dict[str, Any]:
        """Drop one picture; what the window shows of its answer."""
        count = len(self.window.queue.items)
        self.drop(path)
        self.until(lambda: len(self.window.queue.items) > count, "the item in the list")
        item = self.window.queue.items[-1]
        self.until(lambda: item.state not in (ItemState.QUEUED, ItemState.RUNNING), "the answer")
        assert item.prediction is not None, item.error
        bars = self.window.predict_page.work.dock.bars
        self.until(lambda: bars.isVisible() and bars.answers == _pairs(item.prediction.predictions), "bars")
        return {
            "label": bars.best_label.text(),
            "shown_score": bars.best_score.text(),
            "predictions": item.prediction.predictions,
        }

    def switch_spot(self, value: str) -> QPoint:
        """Where on the three-way switch its position ``value`` is."""
        switch = self.window.server_page.switch
        return switch._rects()[[choice[0] for choice in switch._choices].index(value)].center().toPoint()

    def click_switch(self, value: str) -> None:
        """A mouse click on one position of the three-way switch."""
        self.window.show_page(1)
        QTest.mouseClick(self.window.server_page.switch, Qt.MouseButton.LeftButton, pos=self.switch_spot(value))

    def switch_on(self, value: str) -> str:
        self.click_switch(value)
        self.until(lambda: self.window.server_page.switch.value == value, f"the switch at {value}")
        return self.window.server_page.rows[-1].url

    def ask(self, call: Callable[[], Any]) -> Any:
        """Run a blocking HTTP call beside the event loop; its result."""
        box: list[Any] = []
        thread = threading.Thread(target=lambda: box.append(call()))
        thread.start()
        self.until(lambda: box or not thread.is_alive(), "the answer over the network")
        thread.join()
        return box[0]

    def close(self) -> None:
        self.window.close()
        self.until(lambda: self.window.is_closed, "the window closed")


def _pairs(predictions: list[dict[str, Any]]) -> list[tuple[str, float]]:
    return [(p["label"], p["score"]) for p in predictions]


def workers() -> list[psutil.Process]:
    found = []
    for child in psutil.Process().children():
        line = child.cmdline()
        if "engine.worker" in line and "--inspect" not in line:
            found.append(child)
    return found


def model_workers(models: dict[str, Any]) -> list[int]:
    """The pids of :func:`workers` but for a spare one that has no model yet; ``models`` as the API tells them."""
    pids = {entry["worker_pid"] for entry in models.values()}
    return sorted(w.pid for w in workers() if w.pid in pids or "--spare" not in w.cmdline())


def foreign_in_memory_map() -> list[str]:
    """Libraries of frameworks and decoders mapped into this process (Linux)."""
    lines = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    paths = {line.split(maxsplit=5)[5] for line in lines if len(line.split(maxsplit=5)) == 6}
    return sorted(p for p in paths if FOREIGN.search(p.rpartition("site-packages")[2] or p))


def main_job(driver: Driver) -> None:
    """Open real models, drop a picture, switch the server on, get the same answer from the network; kill; off."""
    seen = driver.seen
    driver.model_ready("digits-keras")
    seen["stages"] = driver.load_by_drop(DIGITS_TORCH, "digits-torch")
    seen["window"] = driver.answer_by_drop(DIGITS_TORCH / "samples" / "digit-7.png")
    driver.window.shelf.set_active("digits-keras")
    seen["window_keras"] = driver.answer_by_drop(DIGITS_KERAS / "samples" / "digit-4.png")
    url = driver.switch_on("computer")
    client = Client(url)
    seen["http"] = driver.ask(lambda: client.post("/predict/digits-torch", picture(DIGITS_TORCH, 7), "image/png"))
    four = picture(DIGITS_KERAS, 4)
    seen["http_keras"] = driver.ask(lambda: client.post("/predict/digits-keras", four, "image/png"))
    seen["models"] = driver.ask(client.models)
    seen["worker_pids"] = model_workers(seen["models"])

    pid = seen["models"]["digits-torch"]["worker_pid"]
    os.kill(pid, signal.SIGKILL)
    seen["after_kill"] = [
        driver.ask(lambda: client.post("/predict/digits-torch", picture(DIGITS_TORCH, 7), "image/png"))
        for _ in range(2)
    ]
    driver.window.shelf.set_active("digits-torch")
    driver.window.show_page(0)
    driver.model_ready("digits-torch")
    seen["window_after_kill"] = driver.answer_by_drop(DIGITS_TORCH / "samples" / "digit-7.png")
    client.close()
    off_under_load(driver, url)
    seen["foreign"] = foreign_in_memory_map()


def server_threads() -> list[str]:
    return sorted(t.name for t in threading.enumerate() if t.name.startswith(("waitress", "server")))


def network_answers(stats: dict[str, Any]) -> int:
    return sum(int(m["requests"]["network"]) for m in stats["models"])


def off_under_load(driver: Driver, url: str) -> None:
    """Eight clients ask without a pause while the switch goes to Off."""
    outcomes: list[int] = []
    refused: list[str] = []
    engine = driver.window.bridge.engine
    before = network_answers(engine.stats())

    def keep_asking() -> None:
        client = Client(url)
        data = picture(DIGITS_TORCH, 1)
        while True:
            try:
                status, _ = client.post("/predict/digits-torch", data, "image/png")
            except OSError as error:  # nobody listens any more; whether it had been taken is counted below
                refused.append(type(error).__name__)
                return
            finally:
                client.close()
            outcomes.append(status)
            if status != 200:
                return

    threads = [threading.Thread(target=keep_asking) for _ in range(8)]
    for thread in threads:
        thread.start()
    driver.until(lambda: len(outcomes) >= 24, "the clients under way")
    driver.click_switch("off")
    driver.until(lambda: driver.window.server_page.switch.value == "off", "the switch at off")
    driver.until(lambda: not any(t.is_alive() for t in threads), "the clients' end")
    host, port = url.removeprefix("http://").split(":")
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind((host, int(port)))
    # The thread that tells the window of the server's end may itself be ending when the window has heard it.
    driver.until(lambda: not server_threads(), "the server's threads' end")
    driver.seen["off"] = {
        "statuses": sorted(set(outcomes)),
        "answered": outcomes.count(200),
        "answered_by_engine": network_answers(engine.stats()) - before,
        "refused": refused,
        "threads": server_threads(),
    }


def cancel_a_large_load(driver: Driver) -> None:
    """Consent to a 300 MB TorchScript file, cancel while its weights are read, go on with the model before it."""
    large = Path(os.environ["LARGE_MODEL"])
    driver.model_ready("digits-torch")
    before = workers()
    rss = psutil.Process().memory_info().rss
    driver.drop(large)
    dialog = driver.until(lambda: getattr(driver.window, "consent_dialog", None), "the consent dialog")
    driver.seen["safe_has_focus"] = dialog.safe_button.isDefault()
    beat = Heartbeat()
    driver.stage_model = large.stem
    QTest.mouseClick(dialog.run_button, Qt.MouseButton.LeftButton)
    driver.until(lambda: str(LoadStage.READING) in driver.stages, "the weights being read")
    (worker,) = [w for w in workers() if w not in before]
    chip = next(c for c in driver.window.header.chips if c.card is not None and c.card.token)
    began = time.monotonic()
    QTest.mouseClick(chip.cancel, Qt.MouseButton.LeftButton)
    driver.until(lambda: not psutil.pid_exists(worker.pid), "the worker's end")
    driver.seen["gone_after_s"] = time.monotonic() - began
    driver.until(lambda: not driver.window.loader.is_loading, "the load's end in the window")
    driver.seen["longest_gap_s"] = beat.stop()
    driver.seen["grown_bytes"] = psutil.Process().memory_info().rss - rss
    driver.seen["cards"] = [card.key for card in driver.window.shelf.cards]
    driver.seen["after"] = driver.answer_by_drop(DIGITS_TORCH / "samples" / "digit-2.png")["label"]


def bad_files(driver: Driver) -> None:
    """Files that are no model, one after the other; then the port that is taken."""
    folder = Path(os.environ["BAD_FILES"])
    driver.model_ready("digits-torch")
    page = driver.window.predict_page
    told = {}
    for path in sorted(folder.iterdir()):
        driver.window.load_model(path)
        driver.until(lambda: page.error.isVisible(), "the error")
        told[path.name] = [page.error.sentence.text(), page.error.still_text.text()]
        page.leave_error()
        driver.until(lambda: not page.error.isVisible(), "the page behind the error")
    driver.seen["told"] = told
    driver.seen["answer"] = driver.answer_by_drop(DIGITS_TORCH / "samples" / "digit-6.png")["label"]
    server_page = driver.window.server_page
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", server_page.port.value()))
        taken.listen()
        driver.click_switch("computer")
        driver.until(lambda: server_page.banner.isVisible(), "the banner")
        driver.seen["switch"] = server_page.switch.value
        driver.seen["banner"] = server_page.banner.sentence
        QTest.mouseClick(server_page.banner.action, Qt.MouseButton.LeftButton)
        driver.until(lambda: server_page.switch.value == "computer", "the server at the free port")
        url = server_page.rows[-1].url
        driver.seen["free_port_answers"] = driver.ask(lambda: Client(url).get("/health/live")[0])


class Heartbeat:
    """A timer of the GUI thread; its longest gap is how long the window stood still."""

    def __init__(self) -> None:
        self._last = time.monotonic()
        self._longest = 0.0
        self._timer = QTimer()
        self._timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._timer.setInterval(5)
        self._timer.timeout.connect(self._beat)
        self._timer.start()

    def _beat(self) -> None:
        now = time.monotonic()
        self._longest = max(self._longest, now - self._last)
        self._last = now

    def stop(self) -> float:
        self._beat()
        self._timer.stop()
        return self._longest


SCENARIOS: dict[str, tuple[Callable[[Driver], None], list[str]]] = {
    "main_job": (main_job, [str(DIGITS_KERAS)]),
    "cancel_a_large_load": (cancel_a_large_load, [str(DIGITS_TORCH)]),
    "bad_files": (bad_files, [str(DIGITS_TORCH)]),
}


def begin(scenario: Callable[[Driver], None], folder: Path) -> None:
    window = next(w for w in QApplication.topLevelWidgets() if isinstance(w, MainWindow))
    driver = Driver(window)
    try:
        scenario(driver)
    except BaseException:
        driver.seen["error"] = traceback.format_exc()
    try:
        driver.close()
    except BaseException:
        driver.seen.setdefault("error", traceback.format_exc())
        QApplication.exit(1)
    (folder / "seen.json").write_text(json.dumps(driver.seen, default=str), encoding="utf-8")


def run(name: str, folder: Path) -> None:
    scenario, arguments = SCENARIOS[name]
    SettingsStore().save(
        Settings(server=ServerSettings(port=free_port()), limits=EngineLimits(backoff_first_s=0.1))  # type: ignore[call-arg]
    )
    QApplication([sys.argv[0]])
    QTimer.singleShot(0, lambda: begin(scenario, folder))
    code = 0
    try:
        main.main(arguments, standalone_mode=False)
    except SystemExit as end:
        code = int(end.code or 0)
    left = {
        "exit": code,
        "threads": sorted(t.name for t in threading.enumerate() if t is not threading.main_thread()),
        "children": [child.pid for child in psutil.Process().children(recursive=True)],
    }
    (folder / "left.json").write_text(json.dumps(left), encoding="utf-8")


if __name__ == "__main__":
    run(sys.argv[1], Path(sys.argv[2]))
