"""One validated settings file, shared by the window and headless mode.

``settings.json`` in the platform's configuration folder; unknown keys are refused, wrong types too. Writes are atomic
(temporary file, fsync, rename) and keep the last good copy as ``settings.json.bak``. A damaged file is set aside and
answered with the last good copy or the defaults, and a notice: never silently.
"""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path
from typing import Any, Literal

from platformdirs import PlatformDirs
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from engine.errors import SettingsInvalid

_DIRS = PlatformDirs("deskside", appauthor=False)


class EngineLimits(BaseModel):
    """Bounds and patience of the engine. Sizes in bytes, times in seconds."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    waiting_requests: int = Field(256, ge=1, le=100_000)
    waiting_bytes: int = Field(256 << 20, ge=1 << 20)
    lan_share: float = Field(0.75, gt=0.0, le=1.0)
    ageing_s: float = Field(2.0, gt=0.0)
    """Waiting work climbs one lane every ``ageing_s`` seconds."""
    max_batch_size: int = Field(8, ge=1, le=1024)
    hang_after_s: float = Field(120.0, gt=0.0)
    load_stall_s: float = Field(300.0, gt=0.0)
    """A load that shows no progress for this long is ended."""
    inspect_timeout_s: float = Field(20.0, gt=0.0)
    restarts: int = Field(5, ge=0)
    restart_window_s: float = Field(60.0, gt=0.0)
    backoff_first_s: float = Field(0.5, gt=0.0)
    backoff_last_s: float = Field(8.0, gt=0.0)
    keep_previous_s: float = Field(600.0, ge=0.0)
    """A version that no longer answers by default keeps its worker this long, for a rollback at once."""
    memory_budget_mb: int = Field(0, ge=0)
    """Memory of all models together (10^6 bytes): beyond it those nobody uses are closed until they are asked again. 0:
    no budget."""
    unload_idle_s: float = Field(0.0, ge=0.0)
    """A model nobody asked for this long is closed until it is asked again. 0: never."""


class WorkerSettings(BaseModel):
    """How a worker is started. ``command`` replaces the interpreter and its arguments; empty: this interpreter."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    command: list[str] = []
    python_path: list[str] = []
    threads: int = Field(0, ge=0, le=1024)
    """Intra-operation threads per worker; 0: one per physical core, eight at most."""
    share_cores: bool = True
    """Where ``threads`` is 0: divide the cores among the models that are loaded when a worker starts."""
    device: str = "auto"
    sandbox: bool = True
    """Keep model and inspector from files, network and programs, as far as this system can."""
    prepare: bool = True
    """Try faster ways to run a model while it answers already, and use those that answer the same."""
    memory_mb: int = Field(0, ge=0)
    """Private memory of one worker at most (10^6 bytes); 0: as much as this computer has."""
    spare: bool | None = None
    """Keep a process with the framework imported for the next load. None: as the program thinks fit, which is yes for
    the window and no for all else. Never on a computer with less than 8 GB of memory."""


_ORIGIN = re.compile(r"https?://(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\])(?::[0-9]{1,5})?")


class ServerSettings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    port: int = Field(8765, ge=0, le=65535)
    require_key: bool = True
    allowed_hosts: list[str] = []
    body_bytes: int = Field(32 << 20, ge=1024)
    bodies_bytes: int = Field(1 << 30, ge=1024)
    """Memory for the bodies of all requests together, from their heads to their answers."""
    header_bytes: int = Field(16 << 10, ge=1024)
    head_timeout_s: float = Field(10.0, gt=0.0)
    body_timeout_s: float = Field(60.0, gt=0.0)
    """A body that takes longer, or after five seconds brings less than 16 KiB a second, is answered 408."""
    reply_timeout_s: float = Field(30.0, gt=0.0)
    """An answer that is not read at 16 KiB a second after so long is cut off."""
    connections: int = Field(512, ge=8)
    connections_per_address: int = Field(16, ge=1)
    requests_inside: int = Field(256, ge=1)
    hot_lane: bool = True
    """Questions reach the engine without a thread of the server waiting for each; false: Flask's view answers them."""
    drain_s: float = Field(10.0, gt=0.0)
    cors_origins: list[str] = []
    """Web sites of others whose pages may ask: exact origins (``https://lab.example``), never ``*``."""
    request_log: Literal["off", "file", "stderr"] = "file"
    """Where a line for each request goes: who, what, when and how it ended; never what was sent."""
    keep_awake: bool = True
    """Whether the window keeps this computer from falling asleep while it serves the network."""
    interfaces: list[str] = []
    """Names of those that the window serves. None named: all but those of VPNs, virtual machines and containers."""
    tls: Literal["off", "self-signed", "own"] = "off"
    """Whether the network is served over https: with a certificate made here, or with the one named below."""
    tls_certificate: str = ""
    """PEM file of the owner's certificate, its chain behind it."""
    tls_key: str = ""
    """PEM file of that certificate's key, not encrypted."""
    repository_control: bool = False
    """Whether programs on this computer may load and unload models by the Open Inference Protocol."""

    @field_validator("cors_origins")
    @classmethod
    def _exact_origins(cls, origins: list[str]) -> list[str]:
        for origin in origins:
            if _ORIGIN.fullmatch(origin) is None:
                raise ValueError(f"{origin[:80]!r} is no origin such as https://lab.example or http://10.0.0.7:3000")
        return origins


class WindowSettings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    language: str = Field("", pattern="^(|en|de|es|zh)$")
    """What the window speaks from its next start: "" is the desktop's, where the window knows it."""
    theme: str = Field("system", pattern="^(system|light|dark)$")
    doubtful_below: float = Field(0.7, ge=0.0, le=1.0)
    """Answers whose best score is below this are marked as a close call."""
    close_to_tray: bool = False
    """Closing the window leaves it beside the clock, where the desktop has a place for that."""
    restore: bool = False
    """A start without models opens those of the last run again, and puts the server's switch where it stood."""


class Settings(BaseModel):
    """Everything a person may set, with its defaults."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    version: int = 1
    limits: EngineLimits = EngineLimits()  # type: ignore[call-arg]
    worker: WorkerSettings = WorkerSettings()  # type: ignore[call-arg]
    server: ServerSettings = ServerSettings()  # type: ignore[call-arg]
    window: WindowSettings = WindowSettings()  # type: ignore[call-arg]


def config_dir() -> Path:
    """Where ``settings.json`` lives. ``DESKSIDE_HOME`` puts configuration and data under one folder instead."""
    home = os.environ.get("DESKSIDE_HOME")
    return Path(home) if home else Path(_DIRS.user_config_dir)


def data_dir() -> Path:
    """Where consents, keys and the journal live."""
    home = os.environ.get("DESKSIDE_HOME")
    return Path(home) / "data" if home else Path(_DIRS.user_data_dir)


def write_atomically(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Replace ``path`` by ``data`` so that a crash leaves the old or the new content, never a mixture.

    Raises OSError (disk full, read-only folder); the old file is then untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    fd, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(fd, "wb") as handle:
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
        os.chmod(name, mode)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    if os.name == "posix":  # Windows cannot open a folder to sync it; its rename is journalled by NTFS
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


class SettingsStore:
    """Reads and writes the settings file. ``notice`` says, in a sentence, when the file could not be used as it was."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or config_dir() / "settings.json"
        self.notice: str | None = None

    @property
    def backup(self) -> Path:
        return self.path.with_name(self.path.name + ".bak")

    def load(self) -> Settings:
        """The settings in the file, else its last good copy, else the defaults (then ``notice`` is set)."""
        self.notice = None
        try:
            return self._read(self.path)
        except FileNotFoundError:
            return Settings()
        except (SettingsInvalid, OSError) as error:
            reason = str(error)
        try:
            settings = self._read(self.backup)
            self.notice = f"The settings file could not be used ({reason}). The last good copy is in use."
            return settings
        except (SettingsInvalid, OSError):
            self.notice = f"The settings file could not be used ({reason}). The defaults are in use."
            return Settings()

    def save(self, settings: Settings) -> None:
        """Write ``settings``; the file they replace becomes the last good copy. Raises OSError."""
        try:
            previous: bytes | None = self.path.read_bytes()
            self._read(self.path)
        except (SettingsInvalid, OSError):
            previous = None
        if previous is not None:
            write_atomically(self.backup, previous)
        write_atomically(self.path, settings.model_dump_json(indent=2).encode() + b"\n")

    @staticmethod
    def _read(path: Path) -> Settings:
        data = path.read_bytes()
        try:
            return parse_settings(data)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "the file"
            raise SettingsInvalid(f"{path.name}: {where}: {first['msg']}") from error


def parse_settings(data: bytes) -> Settings:
    """Settings from JSON text. Raises pydantic.ValidationError naming the key."""
    return Settings.model_validate_json(data)


def replace_setting(settings: Settings, section: str, **values: Any) -> Settings:
    """A copy with ``values`` changed in ``section``, validated. Raises SettingsInvalid naming the key."""
    data = settings.model_dump()
    data[section] |= values
    try:
        return Settings.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        raise SettingsInvalid(f"{'.'.join(str(p) for p in first['loc'])}: {first['msg']}") from error
