"""The keys network callers show: made, kept as SHA-256, renewed; and key files for headless use."""

from __future__ import annotations

import logging
import os
import secrets
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

import orjson

from embedded_server.access import KeyDigest, key_digest
from engine.errors import SettingsInvalid
from engine.serving_types import KeyInfo
from engine.settings import write_atomically

log = logging.getLogger(__name__)

ENDS = 4
"""How many of a key's last characters are kept readable, so that a person can tell keys apart."""


@dataclass(frozen=True, slots=True)
class _Stored:
    name: str
    sha256: str
    ends: str
    created_at: float


def new_secret() -> str:
    """256 random bits as 43 URL-safe characters."""
    return secrets.token_urlsafe(32)


def made_key(name: str) -> tuple[KeyInfo, KeyDigest]:
    """A fresh key that is kept nowhere."""
    secret = new_secret()
    return KeyInfo(name, secret[-ENDS:], time.time(), secret), KeyDigest(name, key_digest(secret))


class KeyStore:
    """The named keys in ``keys.json`` (mode 0600): ``{"version": 1, "keys": [{name, sha256, ends, created_at}]}``.

    Secrets are never written. The secret of a key this process made stays readable through :meth:`info`. Thread-safe.
    A file that cannot be read as keys counts as holding none (nobody gets in) and is kept beside as ``.damaged``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._secrets: dict[str, str] = {}
        self._keys: dict[str, _Stored] = {}
        self._read = False

    def digests(self) -> tuple[KeyDigest, ...]:
        """What :class:`~embedded_server.access.AccessRules` compares with. Raises OSError (file unreadable)."""
        with self._lock:
            self._load()
            return tuple(KeyDigest(key.name, bytes.fromhex(key.sha256)) for key in self._keys.values())

    def info(self, name: str) -> KeyInfo | None:
        """The key of that name, if there is one. Raises OSError (file unreadable)."""
        with self._lock:
            self._load()
            key = self._keys.get(name)
            return None if key is None else KeyInfo(key.name, key.ends, key.created_at, self._secrets.get(name))

    def renew(self, name: str) -> KeyInfo:
        """Make the key ``name`` anew; the one before it ends at once. Raises OSError (cannot be written)."""
        info, digest = made_key(name)
        stored = _Stored(name, digest.sha256.hex(), info.ends, info.created_at)
        with self._lock:
            self._load()
            keys = self._keys | {name: stored}
            data = {"version": 1, "keys": [_as_json(key) for key in keys.values()]}
            write_atomically(self.path, orjson.dumps(data, option=orjson.OPT_INDENT_2) + b"\n", mode=0o600)
            self._keys = keys
            self._secrets[name] = info.secret or ""
        return info

    def _load(self) -> None:
        if self._read:
            return
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            self._read = True
            return
        try:
            self._keys = {key.name: key for key in map(_from_json, orjson.loads(data)["keys"])}
        except (ValueError, KeyError, TypeError) as error:
            aside = self.path.with_name(self.path.name + ".damaged")
            os.replace(self.path, aside)
            log.warning("%s could not be read as keys (%s): set aside, all keys have ended", self.path.name, error)
        self._read = True


def _as_json(key: _Stored) -> dict[str, object]:
    return {"name": key.name, "sha256": key.sha256, "ends": key.ends, "created_at": key.created_at}


def _from_json(value: dict[str, object]) -> _Stored:
    digest = str(value["sha256"])
    if len(bytes.fromhex(digest)) != 32:
        raise ValueError("sha256 is not 32 bytes")
    created_at = value["created_at"]
    if not isinstance(created_at, int | float):
        raise TypeError("created_at is not a number")
    return _Stored(str(value["name"]), digest, str(value["ends"]), float(created_at))


def read_key_file(path: Path) -> tuple[KeyInfo, tuple[KeyDigest, ...]]:
    """The keys of a key file: one a line, blank lines ignored, named ``key 1``, ``key 2``…

    A missing file is created with mode 0600 and one fresh key; the result's KeyInfo (of the first key) then carries the
    secret. Raises SettingsInvalid naming the file: unreadable, not text, holds no key.
    """
    try:
        info, _ = made_key("key 1")
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            info = replace(info, secret=None)
        else:
            with os.fdopen(handle, "w", encoding="ascii") as file:
                file.write(f"{info.secret}\n")
        lines = path.read_text(encoding="utf-8").splitlines()
        created_at = path.stat().st_mtime
    except OSError as error:
        raise SettingsInvalid(f"The key file {path} cannot be used: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise SettingsInvalid(f"The key file {path} is not text: one key a line was expected.") from error
    found = [line.strip() for line in lines if line.strip()]
    if not found:
        raise SettingsInvalid(f"The key file {path} holds no key: one key a line was expected.")
    if os.name == "posix" and path.stat().st_mode & 0o077:
        log.warning("the key file %s can be read by other users of this computer", path.name)
    digests = tuple(KeyDigest(f"key {n}", key_digest(secret)) for n, secret in enumerate(found, 1))
    return replace(info, ends=found[0][-ENDS:] if len(found[0]) > 2 * ENDS else "", created_at=created_at), digests
