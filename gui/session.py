"""What outlives a run: that it ended properly, and what was open. Two small files in the data folder.

``running.json`` stands there while a window runs; one that is found at a start was left by a run that did not end
properly. ``session.json`` holds the open models and the server's switch.
"""

from __future__ import annotations

import faulthandler
import json
import logging
import os
import platform
import re
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import IO

from engine.serving_types import ServerScope
from engine.settings import write_atomically

log = logging.getLogger(__name__)

MARKER, SESSION, FAULTS, LOG = "running.json", "session.json", "faults.log", "deskside.log"
LOG_LINES = 60
MOST_MODELS = 32


@dataclass(frozen=True, slots=True)
class Session:
    """``models`` are their files, in the order of their chips."""

    models: tuple[str, ...] = ()
    scope: ServerScope = ServerScope.OFF
    port: int = 8765


@dataclass(frozen=True, slots=True)
class LastRun:
    """A run that did not end properly. ``report`` is what a person may send to those who mend it."""

    started_at: float
    report: str


class SessionFiles:
    """Only the one window of a data folder may use this (:mod:`gui.single_instance`)."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._faults: IO[bytes] | None = None
        self._writing = threading.Lock()

    def begin(self) -> LastRun | None:
        """Mark that a run began; the run before where it left its mark. Raises OSError (cannot be written)."""
        last = self._last_run()
        self._folder.mkdir(parents=True, exist_ok=True)
        write_atomically(
            self._folder / MARKER, json.dumps({"pid": os.getpid(), "started_at": time.time()}).encode() + b"\n"
        )
        return last

    def collect_faults(self) -> None:
        """Let a fault of native code leave its stack in the folder. Raises OSError (cannot be written)."""
        self._faults = (self._folder / FAULTS).open("wb")
        faulthandler.enable(self._faults)

    def end(self) -> None:
        """The run ended as it should."""
        if self._faults is not None:
            faulthandler.disable()
            self._faults.close()
            self._faults = None
        (self._folder / MARKER).unlink(missing_ok=True)

    def save(self, newest: Callable[[], Session]) -> None:
        """Keep what ``newest`` says when its turn has come: threads take turns, so that an older session never ends up
        in the file. Raises OSError (cannot be written)."""
        with self._writing:
            data = asdict(newest()) | {"version": 1}
            write_atomically(self._folder / SESSION, json.dumps(data, indent=1).encode() + b"\n")

    def load(self) -> Session:
        """What was open; nothing where there is no such file or it cannot be read as one (then the log says so)."""
        try:
            data = json.loads((self._folder / SESSION).read_bytes())
            models, port = data["models"], data["port"]
            if not (isinstance(models, list) and all(isinstance(path, str) for path in models)):
                raise TypeError("models that are none")
            if not (isinstance(port, int) and 0 <= port <= 65535):
                raise TypeError("a port that is none")
            return Session(tuple(models[:MOST_MODELS]), ServerScope(data["scope"]), port)
        except FileNotFoundError:
            return Session()
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("%s could not be read as a session: %s", SESSION, error)
            return Session()

    def _last_run(self) -> LastRun | None:
        try:
            data = (self._folder / MARKER).read_bytes()
        except FileNotFoundError:
            return None
        try:
            started_at = float(json.loads(data)["started_at"])
        except (ValueError, KeyError, TypeError):
            started_at = 0.0
        return LastRun(started_at, self._report())

    def _report(self) -> str:
        faults = _lines(self._folder / FAULTS)
        parts = [_versions(), "", "Last lines of the log:", *_lines(self._folder / LOG)[-LOG_LINES:]]
        if faults:
            parts += ["", "Fault:", *faults[-LOG_LINES:]]
        return without_names("\n".join(parts))


def without_names(text: str, home: str | None = None, secrets: Sequence[str] = ()) -> str:
    """``text`` without the person's folder (its name is theirs), and with whatever looks like a key cut out."""
    home = home if home is not None else str(Path.home())
    if len(home) > 1:
        text = text.replace(home, "~")
    for secret in secrets:
        text = text.replace(secret, "…")
    return re.sub(r"[A-Za-z0-9_-]{43,}", "…", text)


def _versions() -> str:
    names = ("pyside6-essentials", "tensorflow", "torch", "flask", "waitress")
    known = []
    for name in names:
        try:
            known.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            known.append(f"{name} not installed")
    return "\n".join((f"Python {platform.python_version()} on {platform.platform()}", ", ".join(known)))


def _lines(path: Path) -> list[str]:
    try:
        with path.open("rb") as handle:
            size = handle.seek(0, os.SEEK_END)
            handle.seek(max(0, size - (256 << 10)))
            return handle.read().decode("utf-8", "replace").splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        return [f"({path.name} cannot be read: {error.strerror or error})"]


def program_command() -> list[str]:
    """How this program is started again, without a terminal."""
    script = Path(sys.argv[0]).resolve()
    return [sys.executable, str(script)] if script.suffix == ".py" else [str(script)]
