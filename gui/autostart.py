"""Start with the desktop: the system's own place for it, this user's alone.

Linux and other XDG desktops: a ``.desktop`` file (Desktop Application Autostart Specification). Windows: a value of the
``Run`` key. macOS: a launch agent. The last two were not run here.
"""

from __future__ import annotations

import os
import plistlib
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from PySide6.QtCore import QSettings

from engine.settings import write_atomically

NAME = "deskside"
LABEL = "org.deskside.Deskside"
RUN_KEY = r"HKEY_CURRENT_USER\Software\Microsoft\Windows\CurrentVersion\Run"


class Autostart(Protocol):
    """Both ask the disk (or the registry): off the GUI thread. Raise OSError."""

    def is_on(self) -> bool: ...

    def set_on(self, on: bool) -> None: ...


class _FileAutostart:
    """On where the file is there."""

    def __init__(self, path: Path, content: bytes) -> None:
        self.path, self._content = path, content

    def is_on(self) -> bool:
        return self.path.is_file()

    def set_on(self, on: bool) -> None:
        if on:
            write_atomically(self.path, self._content)
        else:
            self.path.unlink(missing_ok=True)


class _RegistryAutostart:
    def __init__(self, command: Sequence[str]) -> None:
        self._command = " ".join(f'"{word}"' for word in command)

    def is_on(self) -> bool:
        return bool(QSettings(RUN_KEY, QSettings.Format.NativeFormat).value("Deskside"))

    def set_on(self, on: bool) -> None:
        run = QSettings(RUN_KEY, QSettings.Format.NativeFormat)
        if on:
            run.setValue("Deskside", self._command)
        else:
            run.remove("Deskside")
        run.sync()
        if run.status() is not QSettings.Status.NoError:
            raise OSError("the registry did not take it")


def autostart(command: Sequence[str], platform: str = sys.platform, home: Path | None = None) -> Autostart:
    """The way of this system to run ``command`` when the person logs in."""
    home = home or Path.home()
    if platform == "win32":
        return _RegistryAutostart(command)
    if platform == "darwin":
        return _FileAutostart(home / "Library" / "LaunchAgents" / f"{LABEL}.plist", launch_agent(command))
    config = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
    return _FileAutostart(config / "autostart" / f"{NAME}.desktop", desktop_entry(command))


def desktop_entry(command: Sequence[str]) -> bytes:
    """Quoted as the Desktop Entry Specification has it ("The Exec key"): a percent sign is doubled."""
    line = " ".join(_quoted(word) for word in command)
    return (
        "[Desktop Entry]\nType=Application\nName=Deskside\nComment=Your own models, at your desk\n"
        f"Exec={line}\nTerminal=false\nX-GNOME-Autostart-enabled=true\n"
    ).encode()


def _quoted(word: str) -> str:
    word = word.replace("%", "%%")
    if shlex.quote(word) == word:
        return word
    escaped = "".join(f"\\{c}" if c in '"`$\\' else c for c in word)
    return f'"{escaped}"'.replace("\\", "\\\\")


def launch_agent(command: Sequence[str]) -> bytes:
    return plistlib.dumps({"Label": LABEL, "ProgramArguments": list(command), "RunAtLoad": True})
