"""A second start hands its models over: with real sockets, the second start as a process of its own."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PySide6.QtNetwork import QLocalSocket
from pytestqt.qtbot import QtBot

from gui.single_instance import MAX_MESSAGE, MeetingPoint, hand_over, meeting_point

ROOT = Path(__file__).resolve().parent.parent.parent
SECOND_START = """
import sys
from pathlib import Path
from PySide6.QtCore import QCoreApplication
from gui.single_instance import hand_over
app = QCoreApplication([])
sys.exit(0 if hand_over(sys.argv[1], [Path(p) for p in sys.argv[2:]]) else 1)
"""


@pytest.fixture
def window(qtbot: QtBot, tmp_path: Path) -> Iterator[tuple[str, MeetingPoint]]:
    name = meeting_point(tmp_path)
    point = MeetingPoint(name)
    yield name, point
    point.close()


def test_models_of_a_second_start_arrive(qtbot: QtBot, window: tuple[str, MeetingPoint], tmp_path: Path) -> None:
    name, point = window
    command = [sys.executable, "-c", SECOND_START, name, "models/näht.keras", "/abs/model.pt"]
    with qtbot.waitSignal(point.models_handed_over, timeout=30_000) as arrived:
        second = subprocess.Popen(command, cwd=ROOT)
    assert arrived.args == [[ROOT / "models/näht.keras", Path("/abs/model.pt")]]
    assert second.wait(30) == 0


def test_the_first_start_finds_nobody(qtbot: QtBot, tmp_path: Path) -> None:
    assert not hand_over(meeting_point(tmp_path), [])


def test_what_a_killed_window_left_is_no_obstacle(qtbot: QtBot, tmp_path: Path) -> None:
    name = meeting_point(tmp_path)
    code = f"from gui.single_instance import *; p = MeetingPoint({name!r}); assert p.is_listening; os._exit(9)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, timeout=60)
    assert not hand_over(name, [])
    point = MeetingPoint(name)
    assert point.is_listening
    point.close()


@pytest.mark.skipif(os.name != "posix", reason="file modes")
def test_only_the_owner_may_connect(window: tuple[str, MeetingPoint]) -> None:
    mode = Path(window[0]).stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) & 0o077 == 0


@pytest.mark.parametrize("message", [b"not json\n", b'{"a": 1}\n', b"[1]\n", b"x" * (2 * MAX_MESSAGE)])
def test_nonsense_is_hung_up_on(qtbot: QtBot, window: tuple[str, MeetingPoint], message: bytes) -> None:
    name, point = window
    seen: list[object] = []
    point.models_handed_over.connect(seen.append)
    socket = QLocalSocket()
    socket.connectToServer(name)
    assert socket.waitForConnected(5000)
    socket.write(message)
    qtbot.waitUntil(lambda: socket.state() == QLocalSocket.LocalSocketState.UnconnectedState, timeout=10_000)
    assert seen == []
    assert point.is_listening


def test_a_long_folder_still_has_a_meeting_point() -> None:
    name = meeting_point(Path("/" + "x" * 120))
    assert "/" not in name
    assert name != meeting_point(Path("/" + "y" * 120))
