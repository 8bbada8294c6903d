"""Models that were opened before: what the picker offers, kept in a file of the data folder."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from engine.settings import write_atomically

log = logging.getLogger(__name__)

MOST = 30
FILE = "recent.json"


@dataclass(frozen=True, slots=True)
class RecentModel:
    """``opened_at`` in Unix seconds."""

    path: str
    name: str
    task: str
    format: str
    opened_at: float


class RecentModels:
    """The last :data:`MOST`, newest first. ``file`` None keeps them for this run only. :meth:`read` and :meth:`write`
    ask the disk; the rest is memory. A file that cannot be read as such counts as empty, and is said in the log."""

    def __init__(self, file: Path | None = None, now: Callable[[], float] = time.time) -> None:
        self._file = file
        self._now = now
        self._writing = threading.Lock()
        self.models: tuple[RecentModel, ...] = ()

    def read(self) -> tuple[RecentModel, ...]:
        """What the file holds; [] where there is none."""
        if self._file is None:
            return ()
        try:
            data = json.loads(self._file.read_bytes())
            return tuple(_checked(entry) for entry in data["models"])[:MOST]
        except FileNotFoundError:
            return ()
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("%s could not be read as recent models: %s", self._file.name, error)
            return ()

    def write(self) -> None:
        """Keep the list as it is now; threads take turns, so that an older one never ends up in the file.

        Raises OSError (cannot be written).
        """
        if self._file is not None:
            with self._writing:
                data = {"version": 1, "models": [asdict(model) for model in self.models]}
                write_atomically(self._file, json.dumps(data, indent=1).encode() + b"\n")

    def opened(self, path: Path, name: str, task: str, format_: str) -> None:
        """``path`` was opened now."""
        model = RecentModel(str(path), name, task, format_, self._now())
        self.models = (model, *(m for m in self.models if m.path != model.path))[:MOST]

    def remove(self, path: str) -> RecentModel | None:
        """Take one out; the result can be put back."""
        found = next((model for model in self.models if model.path == path), None)
        self.models = tuple(model for model in self.models if model.path != path)
        return found

    def put_back(self, model: RecentModel) -> None:
        others = (m for m in self.models if m.path != model.path)
        self.models = tuple(sorted((model, *others), key=lambda m: -m.opened_at))[:MOST]


def _checked(entry: object) -> RecentModel:
    """Raises KeyError, TypeError."""
    if not isinstance(entry, dict):
        raise TypeError("an entry that is none")
    path, name, task, format_ = (entry[field] for field in ("path", "name", "task", "format"))
    if not all(isinstance(text, str) for text in (path, name, task, format_)):
        raise TypeError("a field that is no text")
    return RecentModel(path, name, task, format_, float(entry["opened_at"]))
