"""A session at a real desktop: an X server, a drag from another program, keys and clicks as the server sends them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from engine.events import LoadStage
from tests.e2e.desktop import require_desktop, x_server
from tests.e2e.program import DIGITS_TORCH, PATIENCE_S, ROOT, environment, same_answer

pytestmark = pytest.mark.real


def test_a_session_at_a_real_desktop(tmp_path: Path) -> None:
    require_desktop()
    with x_server() as display:
        done = subprocess.run(
            [sys.executable, "-m", "tests.e2e.drive_desktop", str(tmp_path)],
            cwd=ROOT,
            env=environment(tmp_path / "home", QT_QPA_PLATFORM="xcb", DISPLAY=display),
            capture_output=True,
            text=True,
            timeout=2 * PATIENCE_S,
            check=False,
        )
    assert (tmp_path / "left.json").exists(), done.stderr
    seen = json.loads((tmp_path / "seen.json").read_text())
    assert "error" not in seen, seen["error"] + done.stderr
    assert "unexpected error" not in done.stderr, done.stderr
    assert seen["platform"] == "xcb"

    # Both drags were real: the other program heard that its files would be copied, and then that they were.
    for drag in (seen["drag_model"], seen["drag_picture"]):
        assert drag[-2:] == ["would CopyAction", "did CopyAction"]
    assert seen["stages"] == [str(stage) for stage in LoadStage]
    assert set(seen["bars_shown"]) == {1}, "each step of the load was to be seen on the page"

    assert seen["dragged"]["path"] == str(DIGITS_TORCH / "samples" / "digit-7.png")
    assert seen["dragged"]["model"] == "digits-torch"
    assert seen["dragged"]["label"] == "7"
    assert seen["pasted"]["label"] == "4"
    status, answer = seen["http"]
    assert status == 200
    assert same_answer(answer["predictions"], seen["dragged"]["predictions"])

    assert seen["workers"] == 1
    assert seen["neighbour"] == 0
    assert json.loads((tmp_path / "left.json").read_text()) == {"exit": 0, "threads": [], "children": []}
