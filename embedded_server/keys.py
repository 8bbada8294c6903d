"""The keys network callers show: made, kept as SHA-256, renewed, limited; and key files for headless use."""

from __future__ import annotations

import logging
import os
import re
import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from embedded_server.access import RIGHTS, KeyDigest, key_digest
from engine.errors import SettingsInvalid
from engine.serving_types import KeyInfo
from engine.settings import write_atomically

log = logging.getLogger(__name__)

ENDS = 4
"""How many of a key's last characters are kept readable, so that a person can tell keys apart."""
WINDOW_KEY = "window"
"""The key that the window makes and shows; it is renewed, never added."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,39}")
MOST_KEYS = 1000


@dataclass(frozen=True, slots=True)
class _Stored:
    name: str
    sha256: str
    ends: str
    created_at: float
    rights: tuple[str, ...] = tuple(sorted(RIGHTS))
    models: tuple[str, ...] | None = None
    per_minute: int | None = None
    at_once: int | None = None
    last_used: float | None = None

    def digest(self) -> KeyDigest:
        models = None if self.models is None else frozenset(self.models)
        return KeyDigest(
            self.name, bytes.fromhex(self.sha256), frozenset(self.rights), models, self.per_minute, self.at_once
        )

    def info(self, secret: str | None = None) -> KeyInfo:
        return KeyInfo(
            self.name, self.ends, self.created_at, secret, self.rights, self.models, self.per_minute, self.at_once,
            self.last_used,
        )  # fmt: skip


def new_secret() -> str:
    """256 random bits as 43 URL-safe characters."""
    return secrets.token_urlsafe(32)


def made_key(name: str) -> tuple[KeyInfo, KeyDigest]:
    """A fresh key that is kept nowhere."""
    secret = new_secret()
    return KeyInfo(name, secret[-ENDS:], time.time(), secret), KeyDigest(name, key_digest(secret))


class KeyStore:
    """The named keys in ``keys.json`` (mode 0600): ``{"version": 1, "keys": [{name, sha256, ends, created_at, rights,
    models, per_minute, at_once, last_used}]}``.

    Secrets are never written. The secret of a key this process made stays readable through :meth:`info`. Thread-safe;
    what another process wrote (``deskside keys``) is read before anything is said or written.
    A file that cannot be read as keys counts as holding none (nobody gets in) and is kept beside as ``.damaged``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._secrets: dict[str, str] = {}
        self._keys: dict[str, _Stored] = {}
        self._ended: _Stored | None = None
        self._seen: tuple[int, int, int] | None = None
        """The file as it was read or written last: modified at (ns), size, inode; None where there was none."""
        self._read = False

    def has_changed(self) -> bool:
        """Whether the file is another one than what was read last. Raises OSError."""
        with self._lock:
            return self._signature() != self._seen

    def digests(self) -> tuple[KeyDigest, ...]:
        """What :class:`~embedded_server.access.AccessRules` compares with. Raises OSError (file unreadable)."""
        with self._lock:
            self._load()
            return tuple(key.digest() for key in self._keys.values())

    def info(self, name: str) -> KeyInfo | None:
        """The key of that name, if there is one. Raises OSError (file unreadable)."""
        with self._lock:
            self._load()
            key = self._keys.get(name)
            return None if key is None else key.info(self._secrets.get(name))

    def infos(self) -> tuple[KeyInfo, ...]:
        """Every key. Raises OSError (file unreadable)."""
        with self._lock:
            self._load()
            return tuple(key.info(self._secrets.get(key.name)) for key in self._keys.values())

    def renew(self, name: str) -> KeyInfo:
        """Make the key ``name`` anew, with the rights and limits it had; the one before it ends at once. Raises OSError
        (cannot be written)."""
        info, digest = made_key(name)
        with self._lock:
            self._load()
            before = self._keys.get(name) or _Stored(name, "", "", 0.0)
            stored = replace(before, sha256=digest.sha256.hex(), ends=info.ends, created_at=info.created_at)
            self._write(self._keys | {name: stored})
            self._secrets[name] = info.secret or ""
            return stored.info(info.secret)

    def add(
        self,
        name: str,
        *,
        rights: frozenset[str] = RIGHTS,
        models: tuple[str, ...] | None = None,
        per_minute: int | None = None,
        at_once: int | None = None,
    ) -> KeyInfo:
        """Make a key with rights and limits of its own. Raises SettingsInvalid for a name that is taken or none, for
        unknown rights and for limits below 1; OSError (cannot be written)."""
        if NAME.fullmatch(name) is None:
            raise SettingsInvalid(f"{name[:60]!r} is no name for a key: letters, digits, spaces, '.', '_' and '-'.")
        if name == WINDOW_KEY:
            raise SettingsInvalid(f"{name!r} is the window's own key: choose another name.")
        if not rights or not rights <= RIGHTS:
            raise SettingsInvalid(f"A key's rights are {' and '.join(sorted(RIGHTS))}, or one of them.")
        if any(limit is not None and limit < 1 for limit in (per_minute, at_once)):
            raise SettingsInvalid("A key's limits are whole numbers from 1.")
        info, digest = made_key(name)
        stored = _Stored(
            name, digest.sha256.hex(), info.ends, info.created_at, tuple(sorted(rights)), models, per_minute, at_once
        )
        with self._lock:
            self._load()
            if name in self._keys:
                raise SettingsInvalid(f"There is a key {name!r} already.")
            if len(self._keys) >= MOST_KEYS:
                raise SettingsInvalid(f"There are {MOST_KEYS} keys already.")
            self._write(self._keys | {name: stored})
            self._secrets[name] = info.secret or ""
        return stored.info(info.secret)

    def remove(self, name: str) -> bool:
        """End a key; False where there is none of that name. Raises OSError (cannot be written)."""
        with self._lock:
            self._load()
            if name not in self._keys:
                return False
            ended = self._keys[name]
            self._write({other: key for other, key in self._keys.items() if other != name})
            self._secrets.pop(name, None)
            self._ended = ended
            return True

    def restore(self, name: str) -> bool:
        """Take back the last :meth:`remove` of this process, where it was of ``name`` and the name is free. Raises
        OSError (cannot be written)."""
        with self._lock:
            self._load()
            if self._ended is None or self._ended.name != name or name in self._keys:
                return False
            self._write(self._keys | {name: self._ended})
            self._ended = None
            return True

    def note_use(self, last_used: Mapping[str, float]) -> None:
        """Remember when keys were used last (Unix seconds by name). Raises OSError (cannot be written)."""
        with self._lock:
            self._load()
            keys = {
                name: replace(key, last_used=max(last_used.get(name, 0.0), key.last_used or 0.0) or None)
                for name, key in self._keys.items()
            }
            if keys != self._keys:
                self._write(keys)

    def _write(self, keys: dict[str, _Stored]) -> None:
        data = {"version": 1, "keys": [_as_json(key) for key in keys.values()]}
        write_atomically(self.path, orjson.dumps(data, option=orjson.OPT_INDENT_2) + b"\n", mode=0o600)
        self._keys = keys
        self._seen = self._signature()

    def _signature(self) -> tuple[int, int, int] | None:
        try:
            facts = self.path.stat()
        except FileNotFoundError:
            return None
        return facts.st_mtime_ns, facts.st_size, facts.st_ino

    def _load(self) -> None:
        seen = self._signature()
        if self._read and seen == self._seen:
            return
        before, self._keys = self._keys, {}
        self._seen = seen
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            self._read = True
            self._secrets.clear()
            return
        try:
            self._keys = {key.name: key for key in map(_from_json, orjson.loads(data)["keys"])}
        except (ValueError, KeyError, TypeError) as error:
            aside = self.path.with_name(self.path.name + ".damaged")
            os.replace(self.path, aside)
            log.warning("%s could not be read as keys (%s): set aside, all keys have ended", self.path.name, error)
            self._seen = None
        self._read = True
        for name in [n for n in self._secrets if before.get(n) != self._keys.get(n)]:
            del self._secrets[name]  # of a key that was made anew, or ended, elsewhere


def _as_json(key: _Stored) -> dict[str, object]:
    return {
        "name": key.name, "sha256": key.sha256, "ends": key.ends, "created_at": key.created_at,
        "rights": list(key.rights), "models": None if key.models is None else list(key.models),
        "per_minute": key.per_minute, "at_once": key.at_once, "last_used": key.last_used,
    }  # fmt: skip


def _from_json(value: dict[str, Any]) -> _Stored:
    """Raises ValueError, KeyError, TypeError. A key of before rights and limits has all rights and no limits."""
    digest = str(value["sha256"])
    if len(bytes.fromhex(digest)) != 32:
        raise ValueError("sha256 is not 32 bytes")
    created_at = value["created_at"]
    if not isinstance(created_at, int | float):
        raise TypeError("created_at is not a number")
    rights = frozenset(str(right) for right in value.get("rights", sorted(RIGHTS)))
    if not rights or not rights <= RIGHTS:
        raise ValueError("a right that is none")
    models = value.get("models")
    last_used = value.get("last_used")
    return _Stored(
        str(value["name"]),
        digest,
        str(value["ends"]),
        float(created_at),
        tuple(sorted(rights)),
        None if models is None else tuple(str(model) for model in models),
        _limit(value.get("per_minute")),
        _limit(value.get("at_once")),
        None if last_used is None else float(last_used),
    )


def _limit(value: Any) -> int | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise ValueError("a limit that is none")
    return value


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
