"""How long the window stands still: the gaps of a 5 ms timer on the GUI thread, idle and while everything happens.

The real window, engine, worker processes and server in one process, offscreen. ``python -m benchmarks.responsiveness``
prints one row a phase, each with its ratio to the idle window of the same run. Frozen phases stop the process that does
the work (SIGSTOP) for five seconds, or hold the hashing thread: the window must not notice.
"""

from __future__ import annotations

import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
os.environ.setdefault("DESKSIDE_HOME", tempfile.mkdtemp(prefix="deskside-bench-"))

import psutil
from PySide6.QtCore import QElapsedTimer, QEventLoop, Qt, QTimer
from PySide6.QtWidgets import QApplication

from embedded_server import ServerController
from engine import Engine, consent
from engine.events import LoadStage
from engine.settings import Settings, data_dir
from gui import build_window
from gui.actions import PREDICT, SERVER
from gui.app import create_application
from gui.intake import MAX_FILES
from gui.predict_queue import ItemState
from tests.e2e.drive_window import Driver, workers
from tests.e2e.program import DIGITS_KERAS, DIGITS_TORCH, ROOT
from tests.e2e.test_window import MAKE_LARGE_MODEL

QUICK = bool(os.environ.get("QUICK"))
IDLE_S = 3.0 if QUICK else 10.0
LOAD_S = 5.0 if QUICK else 20.0
FROZEN_S = 5.0
CLIENTS = 32

CLIENT = """
import http.client, sys, threading, time
host, path, file, clients, seconds = sys.argv[1:]
body = open(file, "rb").read()
counts = []
def ask():
    connection = http.client.HTTPConnection(host, timeout=60)
    until, n = time.monotonic() + float(seconds), 0
    while time.monotonic() < until:
        connection.request("POST", path, body, {"Content-Type": "image/png"})
        response = connection.getresponse()
        response.read()
        if response.status != 200: raise SystemExit(f"status {response.status}")
        n += 1
    counts.append(n)
threads = [threading.Thread(target=ask) for _ in range(int(clients))]
for t in threads: t.start()
for t in threads: t.join()
assert len(counts) == int(clients), "a client failed"
print(sum(counts) / float(seconds))
"""


class Gaps:
    """Milliseconds between the beats of a precise 5 ms timer, less the 5 ms."""

    INTERVAL_MS = 5

    def __init__(self) -> None:
        self.late_ms: list[float] = []
        self._clock = QElapsedTimer()
        self._timer = QTimer()
        self._timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._timer.setInterval(self.INTERVAL_MS)
        self._timer.timeout.connect(self._beat)

    def start(self) -> None:
        self.late_ms = []
        self._clock.start()
        self._timer.start()

    def stop(self) -> list[float]:
        self._beat()
        self._timer.stop()
        return self.late_ms

    def _beat(self) -> None:
        self.late_ms.append(max(0.0, self._clock.nsecsElapsed() / 1e6 - self.INTERVAL_MS))
        self._clock.restart()


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def pause(seconds: float) -> None:
    """Let the event loop run. (QTest.qWait would sleep between its turns and be measured itself.)"""
    loop = QEventLoop()
    QTimer.singleShot(int(seconds * 1000), loop.quit)
    loop.exec()


class Report:
    """Prints a Markdown row for each phase as it ends."""

    def __init__(self) -> None:
        self._gaps = Gaps()
        self._idle_p99 = 0.0
        print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
        print("| phase | beats | p50 ms | p99 ms | max ms | p99 above idle | note |\n|---|---|---|---|---|---|---|")

    @contextmanager
    def phase(self, name: str) -> Iterator[list[str]]:
        """Measure what happens inside; the list takes notes for the row."""
        note: list[str] = []
        self._gaps.start()
        yield note
        late = self._gaps.stop()
        p99 = percentile(late, 0.99)
        if not self._idle_p99:
            self._idle_p99 = p99
        print(
            f"| {name} | {len(late)} | {percentile(late, 0.5):.2f} | {p99:.2f} | {max(late):.1f} "
            f"| {p99 - self._idle_p99:+.2f} | {', '.join(note)} |",
            flush=True,
        )


def frozen(driver: Driver, process: psutil.Process) -> None:
    """Stop a process for five seconds; the window goes on."""
    process.send_signal(signal.SIGSTOP)
    pause(FROZEN_S)
    process.send_signal(signal.SIGCONT)


def until_stage(driver: Driver, stage: LoadStage) -> None:
    driver.until(lambda: str(stage) in driver.stages, str(stage))


def open_by_drop(driver: Driver, path: Path, key: str, *, trust: bool = False) -> None:
    driver.stages, driver.stage_model = [], key
    driver.window.load_model(path, trust)


def eject(driver: Driver, key: str) -> None:
    driver.window.eject(key)
    driver.until(lambda: all(card.key != key for card in driver.window.shelf.cards), f"{key} closed")


def loads(driver: Driver, report: Report) -> None:
    for folder in (DIGITS_KERAS, DIGITS_TORCH):
        with report.phase(f"load {folder.name}") as note:
            began = time.monotonic()
            open_by_drop(driver, folder, folder.name)
            driver.model_ready(folder.name)
            note.append(f"ready in {time.monotonic() - began:.1f} s")


def large_load(driver: Driver, report: Report, large: Path) -> None:
    with report.phase("load 320 MB TorchScript") as note:
        began = time.monotonic()
        open_by_drop(driver, large, "large", trust=True)
        driver.model_ready("large")
        note.append(f"ready in {time.monotonic() - began:.1f} s")
    eject(driver, "large")
    rss = psutil.Process().memory_info().rss
    before = workers()
    with report.phase("the same, cancelled while reading") as note:
        open_by_drop(driver, large, "large")
        until_stage(driver, LoadStage.READING)
        (worker,) = [w for w in workers() if w not in before]
        began = time.monotonic()
        driver.window.loader.cancel(driver.window.shelf.loading.token)  # type: ignore[union-attr]
        driver.until(lambda: not psutil.pid_exists(worker.pid), "the worker's end")
        note.append(f"worker gone after {(time.monotonic() - began) * 1000:.0f} ms")
        driver.until(lambda: not driver.window.loader.is_loading, "the load's end")
        note.append(f"app memory {(psutil.Process().memory_info().rss - rss) / 1e6:+.1f} MB")


def frozen_loads(driver: Driver, report: Report) -> None:
    key = DIGITS_TORCH.name

    def inspector() -> psutil.Process:
        return next(c for c in psutil.Process().children() if "--inspect" in c.cmdline())

    eject(driver, key)
    with report.phase("recognition and description frozen 5 s"):
        process = inspector()
        process.send_signal(signal.SIGSTOP)
        open_by_drop(driver, DIGITS_TORCH, key)
        pause(FROZEN_S)
        process.send_signal(signal.SIGCONT)
        driver.model_ready(key)
    eject(driver, key)
    with report.phase("hashing frozen 5 s"):
        hash_file: Callable[..., str] = consent.hash_file

        def slow(*arguments: object) -> str:
            time.sleep(FROZEN_S)
            return hash_file(*arguments)

        consent.hash_file = slow
        open_by_drop(driver, DIGITS_TORCH, key)
        driver.model_ready(key)
        consent.hash_file = hash_file
    for stage in (LoadStage.IMPORTING, LoadStage.READING):
        eject(driver, key)
        before = workers()
        with report.phase(f"{stage} frozen 5 s"):
            open_by_drop(driver, DIGITS_TORCH, key)
            until_stage(driver, stage)
            frozen(driver, next(w for w in workers() if w not in before))
            driver.model_ready(key)


def dropped(driver: Driver, report: Report, folder: Path) -> None:
    """A folder of pictures on the window: until all are listed, and while they are answered."""
    samples = sorted((DIGITS_TORCH / "samples").glob("*.png"))
    for number in range(MAX_FILES):
        shutil.copyfile(samples[number % len(samples)], folder / f"picture-{number:04}.png")
    page, queue = driver.window.predict_page, driver.window.queue
    before = len(queue.items)
    with report.phase(f"{MAX_FILES} files dropped, until listed") as note:
        began = time.monotonic()
        page.take_paths([folder])
        driver.until(lambda: len(queue.items) == before + MAX_FILES, "the files in the list")
        note.append(f"after {time.monotonic() - began:.1f} s")
    with report.phase("while they are answered") as note:
        began, done = time.monotonic(), queue.counts[ItemState.DONE]
        pause(LOAD_S)
        note.append(f"{(queue.counts[ItemState.DONE] - done) / (time.monotonic() - began):.0f} answers a second")
    with report.phase("the list cleared"):
        page.clear()
        pause(1.0)


def saturated(driver: Driver, report: Report, shown: int, name: str) -> None:
    driver.window.show_page(SERVER)
    url = driver.switch_on("computer")
    driver.window.show_page(shown)
    for folder in (DIGITS_TORCH, DIGITS_KERAS):
        with report.phase(f"{CLIENTS} clients ask {folder.name}, {name} shown") as note:
            file = folder / "samples" / "digit-3.png"
            command = [
                sys.executable, "-c", CLIENT, url.removeprefix("http://"), f"/predict/{folder.name}", str(file),
                str(CLIENTS), str(LOAD_S),
            ]  # fmt: skip
            box: list[subprocess.CompletedProcess[str]] = []
            thread = threading.Thread(
                target=lambda command=command, box=box: box.append(
                    subprocess.run(command, capture_output=True, text=True, check=False)
                )
            )
            thread.start()
            driver.until(lambda thread=thread: not thread.is_alive(), "the clients' end")
            done = box[0]
            if done.returncode:
                raise SystemExit(f"a client was not answered: {done.stderr}")
            note.append(f"{float(done.stdout):.0f} answers a second")
    driver.window.show_page(SERVER)
    driver.click_switch("off")
    switch = driver.window.server_page.switch
    driver.until(lambda: switch.value == "off" and not switch.busy, "the switch at off")


def main() -> None:
    settings = Settings()
    create_application(settings)
    with tempfile.TemporaryDirectory() as scratch, Engine(settings, folder=data_dir()) as engine:
        large = Path(scratch) / "large.pt"
        subprocess.run([sys.executable, "-W", "ignore", "-c", MAKE_LARGE_MODEL, str(large)], check=True, cwd=ROOT)
        server = ServerController(engine, settings.server, data_dir())
        window = build_window(engine, server, settings)
        window.show()
        driver = Driver(window)
        report = Report()
        pause(0.5)
        with report.phase("idle"):
            pause(IDLE_S)
        loads(driver, report)
        large_load(driver, report, large)
        frozen_loads(driver, report)
        pictures = Path(scratch) / "pictures"
        pictures.mkdir()
        dropped(driver, report, pictures)
        saturated(driver, report, SERVER, "Server page")
        saturated(driver, report, PREDICT, "Predict")
        driver.close()
    QApplication.quit()


if __name__ == "__main__":
    main()
