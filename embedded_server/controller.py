"""The switch: starts and stops the HTTP server, for the window and headless, and says what state it is in.

STOPPED -> STARTING -> RUNNING -> STOPPING -> STOPPED; a start that fails ends in FAILED, where nothing listens.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from embedded_server.access import AccessRules, KeyDigest
from embedded_server.addresses import (
    WILDCARDS,
    InterfaceAddress,
    chosen_addresses,
    host_rules,
    is_address,
    is_loopback,
    lan_addresses,
    network_interfaces,
    own_names,
    server_urls,
    url_host,
)
from embedded_server.door import CALLER_FOR_S, Door, Refusals
from embedded_server.keys import WINDOW_KEY, KeyStore, made_key, read_key_file
from embedded_server.listening import bind_listener, bind_listeners
from embedded_server.notifier import CoalescingNotifier
from embedded_server.request_log import RequestLog
from engine.errors import Draining, EngineError, ServerStartError, SettingsInvalid, UnusableInput
from engine.golden import GoldenReport
from engine.ports import EnginePort
from engine.prediction import Lane
from engine.serving_types import (
    CertificateInfo,
    KeyInfo,
    NetworkInterface,
    ReachReport,
    ServerPhase,
    ServerProblem,
    ServerScope,
    ServerState,
    ServerUrl,
)
from engine.settings import ServerSettings

if TYPE_CHECKING:
    from embedded_server.certificates import ServerCertificate
    from embedded_server.tls_server import TlsServer
    from embedded_server.waitress_adapter import HttpServer

log = logging.getLogger(__name__)

GOLDEN_KEY = "(golden)"
"""Of one question that the server asks itself; no name that a kept key could have."""
SELF_CHECK_S = 10.0
WATCH_JOIN_S = 5.0
WATCH_EVERY_S = 1.0
"""How often the key file and this computer's addresses are looked at."""
CERTIFICATE_EVERY_S = 3600.0
"""How often the certificate is looked at, which may end while the server runs."""
LOOPBACK = "127.0.0.1"
EVERY_ADDRESS = "0.0.0.0"


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """What ``deskside serve`` asks for. Port 0 picks a free one; ``no_key``, ``key_file`` and ``named_keys``
    exclude each other."""

    host: str = "127.0.0.1"
    port: int = 8765
    no_key: bool = False
    key_file: Path | None = None
    named_keys: bool = False
    """Take the keys of ``deskside keys``; on this computer's own address callers then need one too."""
    tls: bool = False
    """Speak https on every address; without it the settings decide, for addresses of the network."""
    certificate: Path | None = None
    certificate_key: Path | None = None
    """The owner's own certificate and its key, both or neither, in place of those in the settings."""

    def __post_init__(self) -> None:
        if self.no_key + self.named_keys + (self.key_file is not None) > 1:
            raise ValueError("no_key, key_file and named_keys exclude each other")
        if (self.certificate is None) != (self.certificate_key is None):
            raise ValueError("a certificate and its key go together")


@dataclass(frozen=True, slots=True)
class _Plan:
    """A start as it was asked for; the same plan again is no second start."""

    scope: ServerScope
    options: ServeOptions
    from_window: bool

    @property
    def chooses(self) -> bool:
        """Whether it serves the interfaces that were chosen, each by its own listener, and this computer."""
        return self.from_window and self.scope is ServerScope.NETWORK

    @property
    def follows(self) -> bool:
        """Whether its addresses come and go with those of this computer."""
        return self.options.host in WILDCARDS


@dataclass(frozen=True, slots=True)
class _Access:
    """Who needs a key, and which."""

    keys: tuple[KeyDigest, ...] = ()
    required: bool = False
    loopback_exempt: bool = True
    shown: KeyInfo | None = None


@dataclass(frozen=True, slots=True)
class _Held:
    """What the owner holds back by hand, until this program ends."""

    paused: bool = False
    keys: frozenset[str] = frozenset()
    addresses: frozenset[str] = frozenset()

    def applied(self, rules: AccessRules) -> AccessRules:
        return replace(rules, paused=self.paused, paused_keys=self.keys, denied=self.addresses)


@dataclass(slots=True)
class _Network:
    """This computer's addresses as they were looked at last, and what is served of them."""

    own: tuple[InterfaceAddress, ...] = ()
    served: tuple[InterfaceAddress, ...] = ()
    bound: set[str] = field(default_factory=set)
    """Addresses that have a listener of their own beside the first one."""
    refused: set[str] = field(default_factory=set)
    """Addresses that could not be listened on, which was said."""


@dataclass(frozen=True, slots=True)
class _Running:
    """``pin``: that of the certificate, where it speaks https; the same for as long as it runs."""

    plan: _Plan
    http: HttpServer | TlsServer
    door: Door
    network: _Network
    pin: str | None = None
    ended: threading.Event = field(default_factory=threading.Event)


class ServerController:
    """The embedded server as the window and the command line see it (the shape of ``gui.ports.ServerPort``).

    Thread-safe. ``start``, ``start_at`` and ``stop`` block and wait for each other; the last call decides.
    """

    def __init__(self, engine: EnginePort, settings: ServerSettings, data_dir: Path) -> None:
        self._engine = engine
        self._settings = settings
        self._keys = KeyStore(data_dir / "keys.json")
        self._log_folder = data_dir / "logs"
        self._tls_folder = data_dir / "tls"
        self._log = RequestLog(settings.request_log, self._log_folder)
        self._switch = threading.RLock()
        self._lock = threading.Lock()
        self._base = ServerState(port=settings.port)
        self._running: _Running | None = None
        self._watcher: threading.Thread | None = None
        self._notifier = CoalescingNotifier(lambda: self.state)
        self._refusals = Refusals(self._notifier.changed)
        self._held = _Held()

    @property
    def state(self) -> ServerState:
        """The newest state; never blocks."""
        with self._lock:
            base, running, held = self._base, self._running, self._held
        served, callers = 0, {}
        if running is not None:
            served = running.door.served
            own = {address.address for address in running.network.own}
            callers = {a: at for a, at in running.door.callers().items() if a not in own}
        since = time.time() - CALLER_FOR_S
        return replace(
            base,
            served=served,
            refusals=self._refusals.newest_first(),
            callers=tuple(address for address, at in reversed(callers.items()) if at >= since),
            reached_at=max(callers.values(), default=None),
            paused=held.paused,
            paused_keys=tuple(sorted(held.keys)),
            blocked=tuple(sorted(held.addresses)),
        )

    def subscribe(self, listener: Callable[[ServerState], None]) -> Callable[[], None]:
        """Call ``listener`` (on any thread, at most ten times a second) with each new state; the result ends that."""
        return self._notifier.subscribe(listener)

    def start(self, scope: ServerScope, port: int) -> ServerState:
        """Serve this computer or the network, as the window's switch asks; ``OFF`` stops.

        Blocks until the server has answered itself. Raises ServerStartError; nothing listens then.
        """
        if scope is ServerScope.OFF:
            return self.stop()
        host = EVERY_ADDRESS if scope is ServerScope.NETWORK else LOOPBACK
        no_key = scope is ServerScope.NETWORK and not self._settings.require_key
        return self._start(_Plan(scope, ServeOptions(host, port, no_key), True))

    def start_at(self, options: ServeOptions) -> ServerState:
        """Serve headless. The state has the real port, every URL, and in ``key.secret`` a key that was made.

        Raises ServerStartError (nothing listens then) and SettingsInvalid (the key file cannot be used).
        """
        scope = ServerScope.COMPUTER if is_loopback(options.host) else ServerScope.NETWORK
        return self._start(_Plan(scope, options, False))

    def stop(self) -> ServerState:
        """Answer everybody, close, return the STOPPED state. Idempotent."""
        with self._switch:
            self._stop()
            self._set(ServerState(port=self._base.port))
            self._notifier.flush()
            return self.state

    def renew_key(self) -> KeyInfo:
        """Make a new network key and end the old one at once. Raises OSError (the key file cannot be written)."""
        with self._switch:
            info = self._keys.renew(WINDOW_KEY)
            self._release(WINDOW_KEY)
            running = self._running
            if running is not None and running.plan.from_window and self._base.key_required:
                self._renew_rules()
                self._set(replace(self._base, key=info))
            return info

    def interfaces(self) -> tuple[NetworkInterface, ...]:
        """The network interfaces of this computer and which of them the window's switch serves."""
        return network_interfaces(lan_addresses(), self._settings.interfaces)

    # -- what the owner's page changes while the server runs: it holds at once -------------------------------------
    def named_keys(self) -> tuple[KeyInfo, ...]:
        """Every key but the window's own. Raises OSError (the key file cannot be read)."""
        running = self._running
        used = running.door.key_limits.last_used() if running is not None else {}
        return tuple(
            replace(info, last_used=used.get(info.name, info.last_used))
            for info in self._keys.infos()
            if info.name != WINDOW_KEY
        )

    def add_key(self, name: str, *, models: tuple[str, ...] | None = None, per_minute: int | None = None) -> KeyInfo:
        """Make a key that lets in at once. Raises SettingsInvalid (name or limit), OSError (cannot be written)."""
        with self._switch:
            info = self._keys.add(name, models=models, per_minute=per_minute)
            self._release(name)
            self._renew_rules()
            return info

    def remove_key(self, name: str) -> bool:
        """End a key at once; False where there is none. Raises OSError (cannot be written)."""
        with self._switch:
            found = self._keys.remove(name)
            self._release(name)
            self._renew_rules()
            return found

    def restore_key(self, name: str) -> bool:
        """Let the key that was removed last under ``name`` in again. Raises OSError (cannot be written)."""
        with self._switch:
            found = self._keys.restore(name)
            self._renew_rules()
            return found

    def pause(self, paused: bool) -> None:
        """Take no questions from the network, or take them again; the window and this computer are not touched."""
        self._hold(lambda held: replace(held, paused=paused))

    def pause_key(self, name: str, paused: bool) -> None:
        """Let a key ask nothing for now, or again."""
        self._hold(lambda held: replace(held, keys=held.keys | {name} if paused else held.keys - {name}))

    def block(self, address: str, blocked: bool) -> None:
        """Answer an address nothing at all, or again; until this program ends."""

        def change(held: _Held) -> _Held:
            return replace(held, addresses=held.addresses | {address} if blocked else held.addresses - {address})

        self._hold(change)

    def check_reach(self) -> ReachReport:
        """Ask this server at each of its own addresses and look at the firewall. Blocks for some seconds."""
        from embedded_server.reach import check_reach  # http and ssl are for a server that is on

        state = self.state
        pin = state.certificate.pin if state.certificate is not None else None
        return check_reach([url.url for url in state.urls if not url.is_loopback], state.port, pin)

    def apply(self, settings: ServerSettings) -> ServerState:
        """Serve with ``settings`` from now on; a running server opens its listener anew, on the port it has.

        Raises ServerStartError; nothing listens then.
        """
        with self._switch:
            running, port = self._running, self._base.port
            serving = running is not None and self._base.phase is ServerPhase.RUNNING
            if serving:
                self._stop()
            self._settings = settings
            self._log = RequestLog(settings.request_log, self._log_folder, self._log.newest())
            if running is None or not serving:
                return self.state
            plan = replace(running.plan, options=replace(running.plan.options, port=port))
            if plan.from_window:
                no_key = plan.scope is ServerScope.NETWORK and not settings.require_key
                plan = replace(plan, options=replace(plan.options, no_key=no_key))
            return self._start(plan)

    def log_lines(self) -> tuple[str, ...]:
        """The newest lines of the request log, oldest first."""
        return self._log.newest()

    def _hold(self, change: Callable[[_Held], _Held]) -> None:
        """What is held back needs no key file: it holds even where that cannot be read."""
        with self._switch:
            with self._lock:
                self._held = change(self._held)
            if (running := self._running) is not None:
                running.door.rules = self._held.applied(running.door.rules)
        self._notifier.changed()

    def _release(self, key: str) -> None:
        """A pause was of the key that had this name, not of the next one."""
        with self._lock:
            self._held = replace(self._held, keys=self._held.keys - {key})

    def _renew_rules(self) -> None:
        """Under the switch's lock: give the running door the keys and what is held back."""
        running = self._running
        if running is None:
            return
        rules = self._held.applied(running.door.rules)
        if self._base.key_required and (running.plan.from_window or running.plan.options.named_keys):
            passing = tuple(key for key in rules.keys if key.name == GOLDEN_KEY)
            rules = replace(rules, keys=(*self._keys.digests(), *passing))
        running.door.rules = rules

    def check_golden(self, model_id: str) -> GoldenReport:
        """Ask a model its golden sample over this server's own socket; the engine's entry then has the result.

        Blocks for at most about a minute. Raises UnusableInput where the model has no sample, ModelNotFound, Loading,
        Draining where the server is off.
        """
        sample = self._engine.golden_sample(model_id).result()
        if sample is None:
            raise UnusableInput(f"{model_id} has no golden sample.", code="no_golden_sample")
        version = next((str(m["version"]) for m in self._engine.stats()["models"] if m["id"] == model_id), "")
        # A key of this one question: the server's own are known to it by their digests only.
        info, key = made_key(GOLDEN_KEY)
        running = self._running
        if running is None or self._base.phase is not ServerPhase.RUNNING:
            raise Draining("The server is off: nothing can be asked over the network.")
        from embedded_server.golden_door import ask_golden

        self._let_in(running, (key,))
        try:
            report = ask_golden(
                running.plan.options.host, self._base.port, info.secret or "", model_id, version, sample, running.pin
            )
        finally:
            self._let_in(running, without=key)
        self._engine.record_golden(model_id, report)
        return report

    def _let_in(self, running: _Running, more: tuple[KeyDigest, ...] = (), without: KeyDigest | None = None) -> None:
        with self._switch:
            rules = running.door.rules
            running.door.rules = replace(rules, keys=(*(k for k in rules.keys if k != without), *more))

    # -- under the switch's lock -------------------------------------------------------------------------------------
    def _start(self, plan: _Plan) -> ServerState:
        with self._switch:
            if self._running is not None and self._running.plan == plan and self._base.phase is ServerPhase.RUNNING:
                return self.state
            self._stop()
            self._set(ServerState(ServerPhase.STARTING, plan.scope, plan.options.port))
            try:
                running, state = self._serve(plan)
            except EngineError as error:
                free_port = error.free_port if isinstance(error, ServerStartError) else None
                problem = ServerProblem(error.code, error.message, plan.options.port, free_port)
                self._set(ServerState(ServerPhase.FAILED, ServerScope.OFF, plan.options.port, problem=problem))
                raise
            except BaseException:
                self._set(ServerState(port=plan.options.port))
                raise
            self._set(state, running)
            self._watcher = threading.Thread(target=self._watch, args=(running,), name="server-watch", daemon=True)
            self._watcher.start()
            return self.state

    def _watch(self, running: _Running) -> None:
        """Let in whom ``deskside keys`` let in meanwhile, and nobody it ended; follow this computer's addresses."""
        keyed = running.plan.from_window or running.plan.options.named_keys
        certificate_at = time.monotonic() + CERTIFICATE_EVERY_S
        while not running.ended.wait(WATCH_EVERY_S):
            due = running.pin is not None and time.monotonic() >= certificate_at
            try:
                keys_changed = keyed and self._keys.has_changed()
            except OSError as error:
                log.warning("the keys could not be looked at: %s", error)
                keys_changed = False
            moved = running.plan.follows and self._has_moved(running)
            # A switch under way reads all of it itself, and may wait for this thread's end.
            if not (keys_changed or moved or due) or not self._switch.acquire(blocking=False):
                continue
            try:
                if keys_changed:
                    self._read_keys_again(running)
                if moved or due:
                    certificate_at = time.monotonic() + CERTIFICATE_EVERY_S
                    self._follow(running)
            finally:
                self._switch.release()

    def _read_keys_again(self, running: _Running) -> None:
        try:
            self._renew_rules()
            shown = self._base.key
            if shown is not None and running.plan.from_window:
                self._set(replace(self._base, key=self._keys.info(shown.name)))
        except OSError as error:
            log.warning("the keys could not be read again: %s", error)

    # -- this computer's addresses while the server runs -------------------------------------------------------------
    def _served(self, plan: _Plan, own: tuple[InterfaceAddress, ...]) -> tuple[InterfaceAddress, ...]:
        return chosen_addresses(own, self._settings.interfaces) if plan.chooses else own

    def _has_moved(self, running: _Running) -> bool:
        own, network = lan_addresses(), running.network
        waits = running.plan.chooses and {a.address for a in self._served(running.plan, own)} != network.bound
        return own != network.own or waits

    def _follow(self, running: _Running) -> None:
        """Under the switch's lock: listen where the chosen interfaces are now, and nowhere else; say so, and let
        callers name us by the addresses we have."""
        plan, network, port = running.plan, running.network, self._base.port
        network.own = lan_addresses()
        network.served = self._served(plan, network.own)
        if plan.chooses:
            self._move_listeners(running, port)
        scheme = "http" if running.pin is None else "https"
        hosts, origins = _names(plan.options.host, port, network.served, self._settings, scheme)
        running.door.rules = replace(running.door.rules, hosts=hosts, origins=origins)
        listening = tuple(a for a in network.served if not plan.chooses or a.address in network.bound)
        urls = server_urls(plan.options.host, port, listening, scheme)
        shown = self._renewed(running, urls, port)
        self._set(replace(self._base, urls=urls, certificate=shown))

    def _move_listeners(self, running: _Running, port: int) -> None:
        network = running.network
        wanted = {address.address for address in network.served}
        for address in network.bound - wanted:
            running.http.leave(address)
        network.bound &= wanted
        for address in sorted(wanted - network.bound):
            try:
                listener = bind_listener(address, port)
            except ServerStartError as error:  # asked again a second later
                if address not in network.refused:
                    network.refused.add(address)
                    log.warning("%s is not served: %s", address, error.message)
                continue
            network.refused.discard(address)
            running.http.listen(listener)
            network.bound.add(address)

    def _renewed(self, running: _Running, urls: tuple[ServerUrl, ...], port: int) -> CertificateInfo | None:
        """The certificate for the addresses there are now; the old one where that cannot be had, and why."""
        from embedded_server.tls_server import TlsServer
        from embedded_server.tls_terminator import tls_context

        old = self._base.certificate
        if old is None or not isinstance(running.http, TlsServer):
            return None
        try:
            new = self._certificate(running.plan, running.network.served)
            if new is None or new.pin != running.pin:
                raise SettingsInvalid("The certificate's key was changed. Switch the server off and on to use it.")
            if new.fingerprint != old.fingerprint:
                running.http.renew(tls_context(new.certificate_file, new.key_file))
        except EngineError as error:
            log.warning("the certificate was not renewed: %s", error.message)
            return replace(old, notices=(error.message,))
        return new.info(urlsplit(urls[0].url).hostname or "", port)

    def _stop(self) -> None:
        running = self._running
        if running is None:
            return
        running.ended.set()
        if self._watcher is not None:
            self._watcher.join(WATCH_JOIN_S)
            self._watcher = None
        self._set(replace(self._base, phase=ServerPhase.STOPPING), running)
        _close(running, self._settings.drain_s)
        if (used := running.door.key_limits.last_used()) and self._keys.path.exists():
            try:
                self._keys.note_use(used)
            except OSError as error:
                log.warning("when keys were used last could not be kept: %s", error)
        with self._lock:
            self._running = None

    def _serve(self, plan: _Plan) -> tuple[_Running, ServerState]:
        host = plan.options.host
        own = lan_addresses()
        network = _Network(own, self._served(plan, own))
        if plan.chooses:
            listeners = bind_listeners((LOOPBACK, *(a.address for a in network.served)), plan.options.port)
            network.bound = set(listeners) - {LOOPBACK}
        else:
            listeners = {host: bind_listener(host, plan.options.port)}
        first, *more = listeners.values()
        running: _Running | None = None
        try:
            port = int(first.getsockname()[1])
            access = self._access(plan)
            certificate = self._certificate(plan, network.served)
            scheme = "http" if certificate is None else "https"
            rules = self._held.applied(_rules(host, port, network.served, access, self._settings, scheme))
            running = self._host(plan, first, rules, network, certificate)
            while more:
                running.http.listen(more.pop(0))
            running.http.start()
            _check_answers(host, port, running.pin)
        except BaseException as error:
            for listener in more:
                listener.close()
            if running is None:
                first.close()
            else:
                _close(running, 0.0)
            if isinstance(error, RuntimeError):
                raise ServerStartError(
                    "The server could not start its threads.", code="server_self_check", details=str(error)
                ) from error
            raise
        listening = tuple(a for a in network.served if not plan.chooses or a.address in network.bound)
        urls = server_urls(host, port, listening, scheme)
        shown = certificate.info(urlsplit(urls[0].url).hostname or host, port) if certificate is not None else None
        state = ServerState(
            ServerPhase.RUNNING, plan.scope, port, urls, access.shown, access.required,
            started_at=time.time(), certificate=shown,
        )  # fmt: skip
        return running, state

    def _certificate(self, plan: _Plan, lan: tuple[InterfaceAddress, ...]) -> ServerCertificate | None:
        """The certificate to serve with, None for plain HTTP. Raises SettingsInvalid, ServerStartError."""
        options, settings = plan.options, self._settings
        if not options.tls and options.certificate is None and (settings.tls == "off" or is_loopback(options.host)):
            return None
        from embedded_server.certificates import own_certificate, self_signed  # cryptography is not for every start

        if options.certificate is not None and options.certificate_key is not None:
            return own_certificate(options.certificate, options.certificate_key)
        if settings.tls == "own":
            if not settings.tls_certificate or not settings.tls_key:
                raise SettingsInvalid("No certificate is named to serve https with (tls_certificate, tls_key).")
            return own_certificate(Path(settings.tls_certificate), Path(settings.tls_key))
        given = () if options.host in WILDCARDS or not is_address(options.host) else (options.host,)
        return self_signed(self._tls_folder, (*given, *(address.address for address in lan)))

    def _host(
        self,
        plan: _Plan,
        listener: socket.socket,
        rules: AccessRules,
        network: _Network,
        certificate: ServerCertificate | None,
    ) -> _Running:
        settings = self._settings
        door = Door(
            rules,
            requests_inside=settings.requests_inside,
            refusals=self._refusals,
            changed=self._notifier.changed,
            log_=self._log,
        )
        # Here: what it brings along is not needed before a server is switched on.
        from embedded_server.hosting import host

        http_server = host(
            self._engine, settings, listener, door, certificate, on_refused=self._on_refused, on_death=self._on_death
        )
        return _Running(plan, http_server, door, network, certificate.pin if certificate is not None else None)

    def _access(self, plan: _Plan) -> _Access:
        options = plan.options
        if options.key_file is not None:
            info, keys = read_key_file(options.key_file)
            return _Access(keys, required=True, loopback_exempt=False, shown=info)
        if options.named_keys:
            return _Access(self._named_keys(options.port), required=True, loopback_exempt=False)
        if is_loopback(options.host) or options.no_key:
            return _Access()
        if not plan.from_window:
            info, key = made_key("serve")
            return _Access((key,), required=True, shown=info)
        try:
            shown = self._keys.info(WINDOW_KEY) or self._keys.renew(WINDOW_KEY)
            return _Access(self._keys.digests(), required=True, shown=shown)
        except OSError as error:
            raise ServerStartError(
                "The network key cannot be kept: its file cannot be read or written.",
                code="permission_denied",
                port=options.port,
                details=str(error),
            ) from error

    def _named_keys(self, port: int) -> tuple[KeyDigest, ...]:
        try:
            keys = self._keys.digests()
        except OSError as error:
            raise ServerStartError(
                "The keys cannot be read.", code="permission_denied", port=port, details=str(error)
            ) from error
        if not keys:
            raise SettingsInvalid("There are no keys yet: make one with `deskside keys add NAME`.")
        return keys

    # -- reports -----------------------------------------------------------------------------------------------------
    def _set(self, state: ServerState, running: _Running | None = None) -> None:
        with self._lock:
            self._base = state
            if running is not None:
                self._running = running
        self._notifier.changed()

    def _on_refused(self, request_id: str, code: str, lane: Lane, client: str) -> None:
        self._refusals.add(request_id, code, lane=lane, client=client)

    def _on_death(self) -> None:
        message = "The server ended by an error of its own. Switch it on again."
        port = self._base.port
        problem = ServerProblem("internal", message, port)
        self._set(ServerState(ServerPhase.FAILED, ServerScope.OFF, port, problem=problem))


def _names(
    host: str, port: int, lan: tuple[InterfaceAddress, ...], settings: ServerSettings, scheme: str
) -> tuple[frozenset[str], frozenset[str]]:
    return host_rules(own_names(host, lan), port, settings.allowed_hosts, scheme)


def _rules(
    host: str, port: int, lan: tuple[InterfaceAddress, ...], access: _Access, settings: ServerSettings, scheme: str
) -> AccessRules:
    hosts, origins = _names(host, port, lan, settings, scheme)
    cors = frozenset(origin.lower() for origin in settings.cors_origins)
    return AccessRules(hosts, origins, access.keys, access.required, access.loopback_exempt, cors_origins=cors)


def _close(running: _Running, drain_s: float) -> None:
    door = running.door

    def expire() -> None:
        door.expired = True

    door.draining = True
    running.http.stop(drain_s, expire)
    door.log.close()


def _check_answers(host: str, port: int, pin: str | None) -> None:
    """Ask the server for its health over the network. Raises ServerStartError (``server_self_check``)."""
    import http.client  # with ssl, which is for a server that is on

    from embedded_server.own_connection import connect_to_self

    target = ("::1" if host == "::" else "127.0.0.1") if host in WILDCARDS else host
    connection = connect_to_self(target, port, SELF_CHECK_S, pin)
    try:
        headers = {"Host": f"{url_host(target)}:{port}", "Connection": "close"}
        connection.request("GET", "/health/live", headers=headers)
        answer = connection.getresponse()
        answer.read()
        failure = "" if answer.status == 200 else f"status {answer.status}"
    except (OSError, http.client.HTTPException) as error:
        failure = str(error) or type(error).__name__
    finally:
        connection.close()
    if failure:
        raise ServerStartError(
            "The server was started but did not answer itself.", code="server_self_check", port=port, details=failure
        )
