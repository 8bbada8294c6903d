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


def weights_mb(command: list[str]) -> tuple[float, float]:
    """Of a window that has come to rest: with all its processes, and of its own process alone."""
    with tempfile.TemporaryDirectory(prefix="deskside-bench-") as home:
        env = os.environ | {"QT_QPA_PLATFORM": "offscreen", "DESKSIDE_HOME": home}
        process = subprocess.Popen(command, env=env, cwd=home, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            everything = settled(process)
            return everything / 1e6, pss(psutil.Process(process.pid)) / 1e6
        finally:
            members = family(process.pid)
            process.terminate()
            _, alive = psutil.wait_procs(members, timeout=15)
            for member in alive:
                member.kill()
            process.wait()


def settled(process: subprocess.Popen[bytes]) -> int:
    """Bytes of a program and its children once they no longer grow."""
    before, turns, until = 0, 0, time.monotonic() + START_S
    while time.monotonic() < until:
        time.sleep(1.0)
        if process.poll() is not None:
            raise SystemExit(f"a window ended with {process.returncode}")
        now = sum(pss(member) for member in family(process.pid))
        turns = turns + 1 if abs(now - before) < before / 100 else 0
        if turns == SETTLED_TURNS:
            return now
        before = now
    raise SystemExit(f"a window did not come to rest within {START_S:g} s")


def main() -> None:
    found: dict[str, float] = {}
    found["app_mb"], found["app_alone_mb"] = weights_mb([sys.executable, str(ROOT / "main.py")])
    found["bare_mb"], _ = weights_mb([sys.executable, "-c", BARE_WINDOW])
    found["memory"] = found["app_alone_mb"] - found["bare_mb"]
    print(json.dumps(found))


if __name__ == "__main__":
    main()
