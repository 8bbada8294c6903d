"""Signals reach a window whose loop runs in C++."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from gui.interrupts import closing_on_signals

ROOT = Path(__file__).resolve().parent.parent.parent
PROGRAM = """
import sys
from PySide6.QtCore import QCoreApplication, QTimer
from gui.interrupts import closing_on_signals
app = QCoreApplication([])
with closing_on_signals(lambda: app.exit(7)):
    QTimer.singleShot(0, lambda: print("running", flush=True))
    sys.exit(app.exec())
"""


def wait_until_idle(pid: int) -> None:
    """Until the process sleeps in its loop: a signal that comes while Python code runs is heard in any case."""
    process, deadline = psutil.Process(pid), time.monotonic() + 30
    while process.status() != psutil.STATUS_SLEEPING:
        assert time.monotonic() < deadline


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no way to send these to one process")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_idle_loop_hears_the_signal(number: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", PROGRAM], cwd=ROOT, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "running\n"
        wait_until_idle(program.pid)
        program.send_signal(number)
        try:
            assert program.wait(30) == 7
        finally:
            program.kill()


def test_the_handlers_before_come_back(qapp: object) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with closing_on_signals(lambda: None):
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] != before
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
