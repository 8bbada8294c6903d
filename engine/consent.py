"""Consent to *program* class models, bound to the hash of every file their load may read.

The fingerprint is SHA-256 over each file's name (relative to the model's folder) and its own SHA-256, sorted by name,
so that a renamed, added or changed file asks again. Bundled examples are consented by fingerprint in package data.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

from engine.errors import ModelUnreadable
from engine.model_spec import ModelSpec
from engine.settings import write_atomically

CHUNK = 1 << 20


def fingerprint(spec: ModelSpec, check_cancelled: Callable[[], None] = lambda: None) -> str:
    """Hex SHA-256 over ``spec.files``. ``check_cancelled`` is called every MiB and ends the hashing by raising.

    Raises ModelUnreadable naming the file.
    """
    root = spec.model_file if spec.model_file.is_dir() else spec.model_file.parent
    total = hashlib.sha256()
    for path in sorted(spec.files):
        name = path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
        total.update(f"{len(name)}:{name}:{hash_file(path, check_cancelled)}\n".encode())
    if spec.architecture:
        # Which class of the file is made, and from what: other words run other code.
        total.update(json.dumps([spec.architecture, spec.architecture_kwargs], sort_keys=True).encode())
    return total.hexdigest()


def hash_file(path: Path, check_cancelled: Callable[[], None] = lambda: None) -> str:
    """Hex SHA-256 of one file. Raises ModelUnreadable naming it."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as handle:
            while chunk := handle.read(CHUNK):
                check_cancelled()
                digest.update(chunk)
    except OSError as error:
        raise ModelUnreadable(f"{path.name} cannot be read: {error.strerror or error}.") from error
    return digest.hexdigest()


def bundled_fingerprints() -> dict[str, str]:
    """Fingerprint -> name of the examples shipped with the program (written by the training scripts)."""
    text = resources.files("engine").joinpath("data/bundled_models.json").read_text(encoding="utf-8")
    return {str(k): str(v) for k, v in json.loads(text).items()}


def kind_of_code(spec: ModelSpec) -> str:
    """What consent lets run, in words: "native code" of a compiled package reaches everything the person can."""
    return "native code" if spec.runtime == "aot_inductor" else "code"


class ConsentStore:
    """Consents in one JSON file, written atomically. Thread-safe."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._bundled = bundled_fingerprints()

    def is_consented(self, fingerprint_: str) -> bool:
        if fingerprint_ in self._bundled:
            return True
        with self._lock:
            return fingerprint_ in self._read()

    def consent(self, fingerprint_: str, spec: ModelSpec) -> None:
        """Store consent. Raises OSError where it cannot be written: the model is then not loaded."""
        with self._lock:
            entries = self._read()
            entries[fingerprint_] = {"name": spec.model_file.name, "format": spec.format, "at": int(time.time())}
            write_atomically(self.path, json.dumps(entries, indent=2).encode(), mode=0o600)

    def _read(self) -> dict[str, Any]:
        try:
            entries = json.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError):
            # A consent file that cannot be read consents to nothing: the owner is asked again.
            return {}
        return entries if isinstance(entries, dict) else {}
