"""The main job in the real program: window, engine, worker processes and socket, driven by drops and clicks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from engine.events import LoadStage
from tests.e2e.program import PATIENCE_S, ROOT, environment

pytestmark = pytest.mark.real


def drive(scenario: str, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Run a scenario of ``drive_window``; what it saw, and what was left after it."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.e2e.drive_window", scenario, str(folder)],
        cwd=ROOT,
        env=environment(folder / "home"),
        capture_output=True,
        text=True,
        timeout=3 * PATIENCE_S,
        check=False,
    )
    assert (folder / "seen.json").exists(), done.stderr
    seen = json.loads((folder / "seen.json").read_text())
    assert "error" not in seen, seen["error"] + done.stderr
    assert "unexpected error" not in done.stderr, done.stderr
    return seen, json.loads((folder / "left.json").read_text())


def test_the_main_job(tmp_path: Path) -> None:
    seen, left = drive("main_job", tmp_path)
    assert seen["stages"] == [str(stage) for stage in LoadStage]
    assert seen["window"]["label"] == "7"
    assert seen["window_keras"]["label"] == "4"

    for door, window in (("http", "window"), ("http_keras", "window_keras")):
        status, body = seen[door]
        assert status == 200
        assert body["predictions"] == seen[window]["predictions"]

    assert set(seen["models"]) == {"digits-keras", "digits-torch"}
    for entry in seen["models"].values():
        assert entry["state"] == "READY"
        assert entry["loads"] == 1
        assert entry["requests"] == {"window": 1, "network": 1}
    assert sorted(m["worker_pid"] for m in seen["models"].values()) == seen["worker_pids"]

    statuses = [status for status, _ in seen["after_kill"]]
    assert statuses in ([200, 200], [503, 200])  # told once where the death was not yet known
    assert seen["after_kill"][1][1]["predictions"] == seen["http"][1]["predictions"]
    assert seen["window_after_kill"]["label"] == "7"

    assert set(seen["off"]["statuses"]) <= {200, 503}
    assert seen["off"]["answered"] >= 24
    assert seen["off"]["answered"] == seen["off"]["answered_by_engine"]
    assert seen["off"]["threads"] == []
    assert seen["foreign"] == []
    assert left == {"exit": 0, "threads": [], "children": []}
