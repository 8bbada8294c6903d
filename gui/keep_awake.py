"""Keeps this computer from falling asleep while it serves: through the desktop's own means, and only for that long."""

from __future__ import annotations

import ctypes
import os
import shutil
import sys

from PySide6.QtCore import QObject, QProcess, Signal

_ES_CONTINUOUS, _ES_SYSTEM_REQUIRED = 0x80000000, 0x00000001
END_MS = 2000


def inhibitor_command(platform: str = sys.platform) -> list[str]:
    """The program that holds sleep off for as long as its standard input is open or we live; [] where there is none.

    Linux: ``systemd-inhibit`` (logind's inhibitor locks) around a ``cat`` that ends with us. macOS: ``caffeinate -w``;
    not run here.
    """
    if platform == "darwin":
        command = shutil.which("caffeinate")
        return [command, "-i", "-w", str(os.getpid())] if command else []
    command, cat = shutil.which("systemd-inhibit"), shutil.which("cat")
    if command is None or cat is None:
        return []
    why = "Models are answering the network"
    return [command, "--what=sleep:idle", "--who=Deskside", f"--why={why}", "--mode=block", cat]


class KeepAwake(QObject):
    """``changed`` when :attr:`is_held` did; it is true only while sleep is really held off."""

    changed = Signal()

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.is_held = False
        self._process: QProcess | None = None
        self._refused = False
        """It ended by itself, as where nobody may inhibit: not asked again before it is let go."""

    def hold(self, on: bool) -> None:
        """Hold sleep off, or let it come again."""
        if sys.platform == "win32":
            self._hold_windows(on)
        elif on and self._process is None and not self._refused:
            self._start()
        elif not on:
            self._refused = False
            self._end()

    def _start(self) -> None:
        command = inhibitor_command()
        if not command:
            return
        process = QProcess(self)
        process.setProgram(command[0])
        process.setArguments(command[1:])
        process.started.connect(lambda: self._set(True))
        process.errorOccurred.connect(self._on_error)
        process.finished.connect(self._on_finished)
        self._process = process
        process.start()

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        self._set(False)
        process.closeWriteChannel()
        if sys.platform == "darwin":  # caffeinate waits for this program, not for its input
            process.terminate()
        if process.state() is not QProcess.ProcessState.NotRunning and not process.waitForFinished(END_MS):
            process.kill()
            process.waitForFinished(END_MS)
        process.deleteLater()

    def _on_error(self, error: QProcess.ProcessError) -> None:
        if error is QProcess.ProcessError.FailedToStart:  # no ``finished`` follows
            self._on_finished()

    def _on_finished(self) -> None:
        """It ended by itself: it was refused, as where nobody may inhibit."""
        if self._process is not None:
            self._refused = True
            self._process.deleteLater()
            self._process = None
        self._set(False)

    def _hold_windows(self, on: bool) -> None:
        """``SetThreadExecutionState`` (Win32); of the calling thread, which is the window's. Not run here."""
        flags = _ES_CONTINUOUS | (_ES_SYSTEM_REQUIRED if on else 0)
        done = ctypes.windll.kernel32.SetThreadExecutionState(flags)  # type: ignore[attr-defined]
        self._set(on and bool(done))

    def _set(self, held: bool) -> None:
        if held != self.is_held:
            self.is_held = held
            self.changed.emit()
