"""Who may ask what: one pure decision over a request's head, made before routing.

Rules of ``contract.md`` ("HTTP, native routes") and of design.md §6 and §8:

- Host: missing, repeated or with a comma is 400, foreign is 403. It is compared whole, port included.
- Origin: the server's own origins pass, every other (``null`` too) is 403; no Origin passes.
- ``Sec-Fetch-Site`` (Fetch Metadata, W3C) other than ``same-origin`` and ``none`` is 403, except a top-level navigation
  GET of the two pages. CORS preflights are 403 and get no ``Access-Control-*`` header.
- Origins that the owner named (``cors_origins``, exact; none by default) may ask all the same, and preflight (Fetch
  standard, "CORS protocol").
- Keys: ``Authorization: Bearer KEY`` or the password of Basic (RFC 7617); never a query string. A key that is sent
  counts with its rights and models wherever it is sent from: 403 for what it may not do.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import ipaddress
import re
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass
from functools import lru_cache

from engine.prediction import Lane

PAGE_PATHS = frozenset({"/", "/docs"})
"""What a link on another site may open."""
ASSET_PATHS = frozenset({"/page.css", "/page.js", "/icon.svg", "/openapi.json"})
KEYLESS_PATHS = PAGE_PATHS | ASSET_PATHS
KEYLESS_PREFIXES = ("/health/", "/v2/health/")
KEYLESS_POSTS = frozenset({"/pair"})
LOOPBACK_PEERS = frozenset({"127.0.0.1", "::1"})

BAD_KEYS = 10
BAD_KEY_WINDOW_S = 60.0
BAD_KEY_ADDRESSES = 4096

DECIDING = (
    "host", "origin", "sec-fetch-site", "sec-fetch-mode", "sec-fetch-dest", "authorization",
    "access-control-request-method",
)  # fmt: skip
"""The header fields that :func:`check_head` reads; all others are nothing to it."""

_PATHS = 256
"""The paths of which it is remembered what they are; a request line has a bound, and so has what this keeps."""
_MODEL = re.compile(r"/(?:predict|v1/models|v2/models|v2/repository/models)/([^/:]+)")
_CANONICAL = re.compile(r"/|(?:/[A-Za-z0-9._~-]+)+|/v1/models(?:/[A-Za-z0-9._~-]+)+:[a-z]+")


RIGHTS = frozenset({"infer", "read"})
"""``infer``: ask models. ``read``: see which there are, what they are, and what the server has done."""


@dataclass(frozen=True, slots=True)
class KeyDigest:
    """A key as it is kept: its name and the SHA-256 of its secret (32 bytes), what it may do (:data:`RIGHTS`), which
    models it may ask (None: all), how often a minute and how many at once (None: no limit of its own)."""

    name: str
    sha256: bytes
    rights: frozenset[str] = RIGHTS
    models: frozenset[str] | None = None
    per_minute: int | None = None
    at_once: int | None = None


@dataclass(frozen=True, slots=True)
class AccessRules:
    """What one running server allows. ``hosts`` are complete Host values in lower case (``192.168.1.24:8765``),
    ``origins`` complete origins, its own; ``cors_origins`` those of others that may ask; ``blocked`` are addresses that
    sent too many wrong keys. What the owner holds back by hand: ``paused`` (no questions from the network),
    ``paused_keys`` (their names) and ``denied`` (addresses that get no answer at all)."""

    hosts: frozenset[str]
    origins: frozenset[str]
    keys: tuple[KeyDigest, ...] = ()
    key_required: bool = False
    loopback_exempt: bool = True
    blocked: Container[str] = frozenset()
    cors_origins: frozenset[str] = frozenset()
    paused: bool = False
    paused_keys: frozenset[str] = frozenset()
    denied: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Decision:
    """The verdict over one head. ``code`` and ``status`` are what the client reads; ``reason`` is what the owner reads:
    it also tells a wrong key from a missing one, which the answer never does. ``client`` is the caller's address,
    ``key`` the key it sent, where that is one. ``right`` is what was asked for, "" for what everybody may.
    ``cors_origin``: the foreign origin that asks and may; ``preflight``: it only asks whether it may."""

    allowed: bool
    status: int
    code: str
    reason: str
    lane: Lane
    client: str
    key: KeyDigest | None = None
    right: str = ""
    cors_origin: str = ""
    preflight: bool = False
    retry_after_s: float | None = None

    @property
    def key_name(self) -> str:
        return self.key.name if self.key is not None else ""

    def may_see(self, model: str) -> bool:
        """Whether the caller's key, where it showed one, is for this model."""
        return self.key is None or _may_ask(self.key, model)


class BadKeyLog:
    """Addresses that sent :data:`BAD_KEYS` wrong keys within a minute are ``in`` it for a minute. Thread-safe.

    IPv6 addresses count by their network (:func:`network_of`). At most :data:`BAD_KEY_ADDRESSES` are remembered;
    beyond that the one longest silent is forgotten.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._seen: OrderedDict[str, deque[float]] = OrderedDict()

    def add(self, peer: str) -> None:
        peer = network_of(peer)
        with self._lock:
            times = self._seen.setdefault(peer, deque(maxlen=BAD_KEYS))
            times.append(self._clock())
            self._seen.move_to_end(peer)
            while len(self._seen) > BAD_KEY_ADDRESSES:
                self._seen.popitem(last=False)

    def __contains__(self, peer: object) -> bool:
        with self._lock:
            times = self._seen.get(network_of(peer)) if isinstance(peer, str) else None
            if times is None or len(times) < BAD_KEYS:
                return False
            return times[-1] - times[0] <= BAD_KEY_WINDOW_S and self._clock() - times[-1] < BAD_KEY_WINDOW_S


def key_digest(secret: str) -> bytes:
    """SHA-256 of the key as sent. Keys are 256 random bits, so no slow hash is needed."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()


def normal_peer(address: str) -> str:
    """An address without its zone and, where it is IPv4 inside IPv6, as IPv4."""
    address = address.partition("%")[0].lower()
    return address.removeprefix("::ffff:") if address.startswith("::ffff:") and "." in address else address


def network_of(address: str) -> str:
    """Whose address it is, for counting: an IPv6 address stands for its /64, all of which one computer can have."""
    address = normal_peer(address)
    if ":" not in address:
        return address
    try:
        return str(ipaddress.IPv6Network((address, 64), strict=False))
    except ValueError:
        return address


def target_path(target: str) -> str:
    """The path of a request target as it was sent, undecoded."""
    return target.partition("?")[0]


@lru_cache(_PATHS)
def is_canonical(path: str) -> bool:
    """Whether ``path`` is written the one way a route is: no doubled, trailing or encoded slash, no dot segment.

    No route holds a character that needs percent-encoding, so a ``%`` is refused as a whole; a colon stands only before
    the verb of TensorFlow Serving's routes.
    """
    return _CANONICAL.fullmatch(path) is not None and not {".", ".."} & set(path.split("/"))


def check_head(method: str, target: str, headers: Iterable[tuple[str, str]], peer: str, rules: AccessRules) -> Decision:
    """Decide over a request by its head alone.

    ``target`` is the request target as sent (origin form, undecoded), ``headers`` (name, value) pairs, repeated ones
    repeated or joined by a comma, ``peer`` the address of the other end of the connection. Never raises.
    """
    fields: dict[str, list[str]] = {}
    for name, value in headers:
        name = name.lower()
        if name in fields:
            fields[name].append(value)
        else:
            fields[name] = [value]
    if peer not in LOOPBACK_PEERS:  # as they are written already
        peer = normal_peer(peer)
    lane = Lane.LOOPBACK if peer in LOOPBACK_PEERS else Lane.LAN
    path = target_path(target)
    key = _find_key(fields, rules.keys)
    known = key if isinstance(key, KeyDigest) else None
    origin = fields["origin"][0].lower() if "origin" in fields else ""
    foreign = origin if origin in rules.cors_origins and origin not in rules.origins else ""

    def refuse(status: int, code: str, reason: str | None = None) -> Decision:
        return Decision(False, status, code, reason or code, lane, peer, known, cors_origin=foreign)

    if (status := _host_status(fields.get("host", []), rules.hosts)) is not None:
        return refuse(status, "bad_host")
    if peer in rules.denied:
        return refuse(403, "not_allowed", "blocked")
    if foreign and len(fields["origin"]) == 1:
        if method == "OPTIONS" and "access-control-request-method" in fields:
            return Decision(True, 204, "", "", lane, peer, known, cors_origin=foreign, preflight=True)
    elif not _same_site(method, path, fields, rules.origins):
        return refuse(403, "bad_origin")
    if _needs_key(method, path, lane, rules):
        if lane is Lane.LAN and peer in rules.blocked:
            return refuse(429, "key_limit")
        if not isinstance(key, KeyDigest):
            return refuse(401, "key_required", "key_invalid" if key == "wrong" else "key_required")
    if not is_canonical(path):
        return refuse(404, "model_not_found" if path.startswith("/predict/") else "not_found")
    right, model = needed_right(method, path)
    if known is not None and right and (right not in known.rights or not _may_ask(known, model)):
        return refuse(403, "key_rights")
    if known is not None and right and known.name in rules.paused_keys:
        return refuse(403, "key_rights", "key_paused")
    if rules.paused and lane is Lane.LAN and right == "infer":
        return refuse(503, "busy", "paused")
    if known is None and not foreign:
        return _let_in(lane, peer, right)
    return Decision(True, 200, "", "", lane, peer, known, right, foreign)


@lru_cache(_PATHS)
def _let_in(lane: Lane, peer: str, right: str) -> Decision:
    """What most verdicts are, made once: nothing of it was sent."""
    return Decision(True, 200, "", "", lane, peer, right=right)


@lru_cache(_PATHS)
def needed_right(method: str, path: str) -> tuple[str, str]:
    """Which of :data:`RIGHTS` a request needs, "" where none, and the model it names, "" for none."""
    if path in KEYLESS_PATHS or path.startswith(KEYLESS_PREFIXES) or (method == "POST" and path in KEYLESS_POSTS):
        return "", ""
    match = _MODEL.match(path)
    asks = method == "POST" and not path.startswith("/v2/repository/")
    # A model may be called "stats" as well: only the route of that very path names none.
    return "infer" if asks else "read", match[1] if match and path != "/v2/models/stats" else ""


def _may_ask(key: KeyDigest, model: str) -> bool:
    return key.models is None or not model or model in key.models


def _host_status(values: list[str], allowed: frozenset[str]) -> int | None:
    if len(values) != 1 or not values[0].strip() or "," in values[0]:
        return 400
    return None if values[0].lower() in allowed else 403


def _same_site(method: str, path: str, fields: dict[str, list[str]], origins: frozenset[str]) -> bool:
    if method == "OPTIONS" and "access-control-request-method" in fields:
        return False
    if "origin" not in fields and "sec-fetch-site" not in fields:
        return True
    if any(origin.lower() not in origins for origin in fields.get("origin", [])):
        return False
    if all(site in ("same-origin", "none") for site in fields.get("sec-fetch-site", [])):
        return True
    # A link elsewhere may open the pages: nothing is sent with it, and frames are closed by Sec-Fetch-Dest and CSP.
    return (
        method == "GET"
        and path in PAGE_PATHS
        and fields.get("sec-fetch-mode") == ["navigate"]
        and fields.get("sec-fetch-dest", ["document"]) == ["document"]
    )


def _needs_key(method: str, path: str, lane: Lane, rules: AccessRules) -> bool:
    if not rules.key_required or (lane is Lane.LOOPBACK and rules.loopback_exempt):
        return False
    if path in KEYLESS_PATHS or path.startswith(KEYLESS_PREFIXES):
        return False
    return not (method == "POST" and path in KEYLESS_POSTS)


def _find_key(fields: dict[str, list[str]], keys: tuple[KeyDigest, ...]) -> KeyDigest | str | None:
    """The key that was sent, ``"wrong"`` where what was sent is no key, None where nothing was sent."""
    values = fields.get("authorization", [])
    if not values:
        return None
    secret = _secret(values[0]) if len(values) == 1 else None
    digest = key_digest(secret or "")
    found: KeyDigest | None = None
    for key in keys:  # no early end: the time tells nothing about which key is near
        if hmac.compare_digest(key.sha256, digest) and secret:
            found = key
    return found or "wrong"


def _secret(authorization: str) -> str | None:
    scheme, _, value = authorization.strip().partition(" ")
    value = value.strip()
    if scheme.lower() == "bearer":
        return value or None
    if scheme.lower() != "basic":
        return None
    try:
        decoded = base64.b64decode(value, validate=True).decode("utf-8")
    except (binascii.Error, ValueError):
        return None
    return decoded.partition(":")[2] or None
