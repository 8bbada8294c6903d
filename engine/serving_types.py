"""The plain types that cross between server, engine and window."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class RequestState(StrEnum):
    WAITING = "waiting"
    RUNNING = "running"
    ANSWERED = "answered"
    LATE = "late"
    REFUSED = "refused"
    FAILED = "failed"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """One request for the live table. Times in milliseconds, ``size`` in bytes, ``received_at`` in Unix seconds."""

    id: str
    received_at: float
    lane: str
    client: str
    model: str
    state: RequestState
    size: int
    wait_ms: float | None = None
    run_ms: float | None = None
    code: str = ""
    """The error's stable code where ``state`` is LATE, REFUSED or FAILED."""
    key: str = ""
    """The name of the key that was shown."""
    position: int | None = None
    """How many are before it in the line, where it waits."""


class ServerScope(StrEnum):
    """The three positions of the switch."""

    OFF = "off"
    COMPUTER = "computer"
    NETWORK = "network"


class ServerPhase(StrEnum):
    STOPPED = "STOPPED"
    STARTING = "STARTING"
    RUNNING = "RUNNING"
    STOPPING = "STOPPING"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True)
class ServerUrl:
    """A reachable address. ``label`` is a person's word for it: an interface's name, "this computer"."""

    url: str
    label: str
    is_loopback: bool


class InterfaceKind(StrEnum):
    """What a network interface leads to."""

    NETWORK = "network"
    SELF_ASSIGNED = "self-assigned"
    """Up, but no router gave it an address."""
    VPN = "vpn"
    VIRTUAL = "virtual"
    """Of virtual machines and containers on this computer."""
    AWAY = "away"
    """Chosen, and without an address at the moment."""


@dataclass(frozen=True, slots=True)
class NetworkInterface:
    """One that the network may be served by. ``chosen``: it is, whenever it has an address."""

    name: str
    addresses: tuple[str, ...]
    kind: InterfaceKind
    chosen: bool


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """``secret`` is there only while this process made the key itself; at rest only its SHA-256 is kept. ``models``:
    the only ones it may ask, None for all. Limits None: none of its own. Times are Unix seconds."""

    name: str
    ends: str
    created_at: float
    secret: str | None = field(default=None, repr=False)
    rights: tuple[str, ...] = ("infer", "read")
    models: tuple[str, ...] | None = None
    per_minute: int | None = None
    at_once: int | None = None
    last_used: float | None = None


@dataclass(frozen=True, slots=True)
class CertificateInfo:
    """The certificate that a server shows. ``ends_at`` is Unix seconds, ``notices`` are sentences for the owner."""

    fingerprint: str
    """SHA-256 of the certificate, in hexadecimal with colons."""
    pin: str
    """SHA-256 of its public key, as ``curl --pinnedpubkey`` takes it."""
    ends_at: float
    self_signed: bool
    curl: str
    """A line for a terminal that asks this server and accepts this key only."""
    notices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ServerProblem:
    code: str
    message: str
    port: int = 0
    free_port: int | None = None


@dataclass(frozen=True, slots=True)
class ReachReport:
    """Whether this computer answers at its own addresses, and what its firewall says of the port.

    ``failed``: addresses that do not even answer from here. ``firewall`` names one that was found on, "" for none;
    ``let_in`` whether it lets the port in, None where that cannot be read.
    """

    failed: tuple[str, ...] = ()
    firewall: str = ""
    let_in: bool | None = None


@dataclass(frozen=True, slots=True)
class ServerState:
    """What the window shows of the server. ``served`` counts answered HTTP predictions since it was switched on."""

    phase: ServerPhase = ServerPhase.STOPPED
    scope: ServerScope = ServerScope.OFF
    port: int = 0
    urls: tuple[ServerUrl, ...] = ()
    key: KeyInfo | None = None
    key_required: bool = False
    problem: ServerProblem | None = None
    served: int = 0
    refusals: tuple[RequestRecord, ...] = ()
    """The last requests that the door turned away before the engine saw them, newest first."""
    started_at: float | None = None
    callers: tuple[str, ...] = ()
    """Addresses of other computers that were answered in the last five minutes, the latest first."""
    reached_at: float | None = None
    """When another computer was answered last, in Unix seconds."""
    paused: bool = False
    """No questions from the network, for now."""
    paused_keys: tuple[str, ...] = ()
    blocked: tuple[str, ...] = ()
    """Addresses that the owner shut out."""
    certificate: CertificateInfo | None = None
    """Where the server speaks https."""
