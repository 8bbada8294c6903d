"""What the program weighs without a model, in megabytes: its window against a bare PySide6 window.

``python -m benchmarks.footprint``. PSS, so that shared pages count once. What is promised is the weight of the
program's own process; that of all its processes (reader of files, spare process of a framework) stands beside it. The
last line that is printed is JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

from benchmarks.servers import ROOT, family, pss

START_S = 120.0
SETTLED_TURNS = 6
"""Seconds in a row in which a program's memory changed by less than a hundredth: it has come to rest."""

BARE_WINDOW = """
import sys
from PySide6.QtWidgets import QApplication, QMainWindow
app = QApplication(sys.argv)
window = QMainWindow()
window.resize(1100, 720)
window.show()
app.exec()
"""


@contextmanager
def at_rest(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """A window that no longer grows, closed at the end."""
    with tempfile.TemporaryDirectory(prefix="deskside-bench-") as home:
        env = os.environ | {"QT_QPA_PLATFORM": "offscreen", "DESKSIDE_HOME": home}
        process = subprocess.Popen(command, env=env, cwd=home, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            settle(process)
            yield process
        finally:
            members = family(process.pid)
            process.terminate()
            _, alive = psutil.wait_procs(members, timeout=15)
            for member in alive:
                member.kill()
            process.wait()


def own_mb(process: subprocess.Popen[bytes]) -> float:
    return pss(psutil.Process(process.pid)) / 1e6


def settle(process: subprocess.Popen[bytes]) -> None:
    """Wait until a program and its children no longer grow."""
    before, turns, until = 0, 0, time.monotonic() + START_S
    while time.monotonic() < until:
        time.sleep(1.0)
        if process.poll() is not None:
            raise SystemExit(f"a window ended with {process.returncode}")
        now = sum(pss(member) for member in family(process.pid))
        turns = turns + 1 if abs(now - before) < before / 100 else 0
        if turns == SETTLED_TURNS:
            return
        before = now
    raise SystemExit(f"a window did not come to rest within {START_S:g} s")


def main() -> None:
    found: dict[str, float] = {}
    with at_rest([sys.executable, str(ROOT / "main.py")]) as app:
        found["app_mb"] = sum(pss(member) for member in family(app.pid)) / 1e6
        # Both at one moment: PSS divides Qt's pages among all that have them now, other programs' windows as well.
        with at_rest([sys.executable, "-c", BARE_WINDOW]) as bare:
            found["app_alone_mb"], found["bare_mb"] = own_mb(app), own_mb(bare)
    found["memory"] = found["app_alone_mb"] - found["bare_mb"]
    print(json.dumps(found))


if __name__ == "__main__":
    main()
