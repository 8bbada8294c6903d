"""The real window while its server is saturated: gaps of a 5 ms timer, p99 above the idle window's.

``python -m benchmarks.window``: the window, engine, workers and server in one process, offscreen; the generator in its
own, checking every answer. The last line printed is JSON. ``benchmarks.responsiveness`` covers everything else that
happens in a window.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
os.environ.setdefault("DESKSIDE_HOME", tempfile.mkdtemp(prefix="deskside-bench-"))

from benchmarks.load import Outcome, outcome, start
from benchmarks.models import opened
from benchmarks.responsiveness import Gaps, pause, percentile
from benchmarks.servers import Running, deskside
from embedded_server import ServerController
from engine import Engine
from engine.settings import Settings, data_dir
from gui import build_window
from gui.actions import PREDICT, SERVER
from gui.app import create_application
from tests.e2e.drive_window import Driver

QUICK = bool(os.environ.get("QUICK"))
IDLE_S = 3.0 if QUICK else 10.0
LOAD_S = 4.0 if QUICK else 15.0
CASES = (("s", "s", "json", 32), ("m", "m", "jpeg", 32), ("json", "m", "json", 8))
"""A name, the model, the kind of body, connections. M's JSON is 3 MB a body."""


def measured(gaps: Gaps, what: str) -> float:
    late = gaps.stop()
    p99 = percentile(late, 0.99)
    print(f"  window, {what}: p50 {percentile(late, 0.5):.2f}, p99 {p99:.2f}, max {max(late):.1f} ms", file=sys.stderr)
    return p99


def main() -> None:
    settings = Settings()
    create_application(settings)
    found: dict[str, float] = {}
    with Engine(settings, folder=data_dir()) as engine:
        window = build_window(engine, ServerController(engine, settings.server, data_dir()), settings)
        window.show()
        driver, gaps = Driver(window), Gaps()
        for model in ("s", "m"):
            driver.stages, driver.stage_model = [], f"bench-{model}"
            window.load_model(opened(model), True)
            driver.model_ready(f"bench-{model}")
        window.show_page(SERVER)
        port = int(driver.switch_on("computer").rpartition(":")[2])
        window.show_page(PREDICT)
        pause(1.0)
        gaps.start()
        pause(IDLE_S)
        found["idle"] = measured(gaps, "idle")
        for name, model, kind, connections in CASES:
            answers = saturated(gaps, deskside(model), model, kind, connections, port)
            found[f"gap-{name}"] = max(0.0, measured(gaps, f"{kind} of {model}, c={connections}") - found["idle"])
            answers.check(f"the window's server, {kind} of {model}")
            found[f"rate-{name}"] = answers.rate
            found["answers"] = found.get("answers", 0) + answers.answers
        window.show_page(SERVER)
        driver.click_switch("off")
        switch = window.server_page.switch
        driver.until(lambda: switch.value == "off" and not switch.busy, "the switch at off")
        driver.close()
    print(json.dumps(found))


def saturated(gaps: Gaps, server: object, model: str, kind: str, connections: int, port: int) -> Outcome:
    """Ask until the generator ends; gaps count from when its connections are warm."""
    running = Running(server, model, port, subprocess.Popen([sys.executable, "-c", ""]))  # type: ignore[arg-type]
    generator = start(running.load(kind, connections, LOAD_S))
    pause(2.0)
    gaps.start()
    while generator.poll() is None:
        pause(0.05)
    return outcome(generator)


if __name__ == "__main__":
    main()
