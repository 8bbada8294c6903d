"""The real program as a screen reader meets it: on the accessibility bus of a desktop of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.e2e.desktop import require_desktop, x_server
from tests.e2e.program import PATIENCE_S, ROOT

pytestmark = pytest.mark.real


def test_a_screen_reader_finds_the_window_and_a_name_on_everything(tmp_path: Path) -> None:
    require_desktop()
    home = tmp_path / "home"
    home.mkdir()
    # Not below tmp_path: the bus has its socket there, and a socket's path may be 108 bytes long.
    with x_server() as display, tempfile.TemporaryDirectory(prefix="bus-") as runtime:
        done = subprocess.run(
            ["dbus-run-session", "--", sys.executable, "-m", "tests.e2e.screen_reader", str(tmp_path)],
            cwd=ROOT,
            env=os.environ
            | {
                "DISPLAY": display,
                "XDG_RUNTIME_DIR": runtime,
                "QT_ACCESSIBILITY": "1",
                "QT_LINUX_ACCESSIBILITY_ALWAYS_ON": "1",
            },
            capture_output=True,
            text=True,
            timeout=2 * PATIENCE_S,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert "unexpected error" not in (tmp_path / "stderr.txt").read_text()
    seen = json.loads((tmp_path / "seen.json").read_text())
    assert seen["window"] == "Deskside"
    assert seen["answer"] == "7"
    assert len(seen["pages"]) == 3
    for page in seen["pages"]:
        assert page["focusable"] > 10, "the walk has to find something"
        assert page["nameless"] == []
    assert seen["exit"] == 0


def test_a_control_without_a_name_would_be_found() -> None:
    from tests.e2e.screen_reader import FOCUSABLE, SHOWING, Node, nameless

    usable = 1 << FOCUSABLE | 1 << SHOWING
    button = Node(":1", "/b", "", "push button", usable)
    hidden = Node(":1", "/h", "", "push button", 1 << FOCUSABLE)
    ground = Node(":1", "/g", "Deskside", "filler", usable, [button, hidden])
    application = Node(":1", "/a", "Deskside", "application", 0, [Node(":1", "/w", "Deskside", "frame", 0, [ground])])
    assert nameless(application) == ["push button at /b"]
