"""TLS in front of the server, over real sockets: who gets in, who does not, what passes, and what is left behind."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import shlex
import shutil
import socket
import ssl
import stat
import struct
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from embedded_server import private_socket, tls_server, tls_terminator
from embedded_server.addresses import lan_addresses, loopback_rules
from embedded_server.body_budget import BodyBudget
from embedded_server.certificates import ServerCertificate, public_key_pin, self_signed
from embedded_server.controller import ServeOptions, ServerController
from embedded_server.door import Door
from embedded_server.listening import bind_listener
from embedded_server.own_connection import connect_to_self
from embedded_server.private_socket import PrivateSocket, open_private_socket
from embedded_server.tls_server import TlsServer
from embedded_server.tls_terminator import BUFFER, TlsTerminator, tls_context
from embedded_server.waitress_adapter import adjustments
from engine.errors import ServerStartError, SettingsInvalid
from engine.prediction import PredictRequest
from engine.serving_types import CertificateInfo, ServerPhase, ServerScope, ServerState
from tests.embedded_server.conftest import listening, server_threads, settings, until
from tests.embedded_server.test_drain import Stop, release
from tests.embedded_server.wire import TIMEOUT_S, Answer, Wire
from tests.fakes import FakeEngine, answer_three

PREDICT = "/predict/digits-keras"
OTHER = "127.0.0.2"
"""An address of this computer that counts as one of the network."""
MakeController = Callable[..., ServerController]

pytestmark = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="the tests look at Unix sockets")


def trusting_nobody() -> ssl.SSLContext:
    """What ``curl --insecure`` does; the tests then look at the pin."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class TlsWire(Wire):
    """A connection over TLS; ``socket`` is the TLS socket."""

    def __init__(self, port: int, source: str | None = None, context: ssl.SSLContext | None = None) -> None:
        super().__init__(port, source=source)
        try:
            tls = (context or trusting_nobody()).wrap_socket(self.socket, server_hostname="localhost")
        except BaseException:
            self.socket.close()
            raise
        self.socket = tls
        self.tls = tls

    @property
    def pin(self) -> str:
        return public_key_pin(self.tls.getpeercert(binary_form=True) or b"")


@pytest.fixture(autouse=True)
def inner_folders(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the private sockets lie; empty and no descriptor more in the end. Short: a Unix socket's path is."""
    folder = Path(tempfile.mkdtemp(prefix="tls-"))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    before = psutil.Process().num_fds()
    yield folder
    assert list(folder.iterdir()) == []
    until(lambda: psutil.Process().num_fds() <= before, "every descriptor is closed")
    assert server_threads() == []
    folder.rmdir()


@pytest.fixture
def certificate(tmp_path: Path) -> ServerCertificate:
    return self_signed(tmp_path / "tls", ["192.168.1.24"])


def serve(controller: ServerController, **options: Any) -> ServerState:
    return controller.start_at(ServeOptions(port=0, tls=True, **options))


def shown(state: ServerState) -> CertificateInfo:
    assert state.certificate is not None
    return state.certificate


# -- through the whole server -----------------------------------------------------------------------------------------
def test_a_request_is_answered_over_tls_by_the_key_that_was_shown(
    controller: ServerController, inner_folders: Path, tmp_path: Path
) -> None:
    state = serve(controller)
    assert [url.url for url in state.urls] == [f"https://127.0.0.1:{state.port}"]
    with TlsWire(state.port) as wire:
        assert wire.pin == shown(state).pin
        assert wire.tls.version() == "TLSv1.3"
        assert wire.tls.compression() is None
        der = wire.tls.getpeercert(binary_form=True) or b""
        assert shown(state).fingerprint.replace(":", "").lower() == hashlib.sha256(der).hexdigest()
        for _ in range(3):  # kept alive
            assert wire.request("POST", PREDICT, b"picture", Content_Type="image/png").answer().status == 200
    (folder,) = inner_folders.iterdir()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / private_socket.SOCKET_NAME).stat().st_mode) == 0o600
    assert (tmp_path / "data" / "tls").is_dir()


def test_a_client_that_checks_names_takes_it_where_it_was_told_to_trust_it(
    controller: ServerController, tmp_path: Path
) -> None:
    port = serve(controller).port
    context = ssl.create_default_context(cafile=tmp_path / "data" / "tls" / "certificate.pem")
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    for name in ("localhost", "127.0.0.1", socket.gethostname()):
        with (
            socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S) as plain,
            context.wrap_socket(plain, server_hostname=name) as tls,
        ):
            assert tls.version() is not None
    with (
        socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S) as plain,
        pytest.raises(ssl.SSLCertVerificationError),
    ):
        context.wrap_socket(plain, server_hostname="elsewhere.example")


def test_curl_takes_the_line_that_is_shown_and_no_other_pin(controller: ServerController) -> None:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("curl is not on this machine")
    line = shlex.split(shown(serve(controller)).curl)
    line[0] = curl
    told = subprocess.run([*line, "--silent", "--show-error"], capture_output=True, timeout=60, check=False)
    assert (told.returncode, told.stderr) == (0, b"")
    assert json.loads(told.stdout)
    at = line.index("--pinnedpubkey") + 1
    line[at] = "sha256//" + "A" * 43 + "="
    told = subprocess.run([*line, "--silent"], capture_output=True, timeout=60, check=False)
    assert told.returncode == 90  # CURLE_SSL_PINNEDPUBKEYNOTMATCH


def test_tls_1_2_is_spoken_with_forward_secrecy_and_http_1_1_alone(controller: ServerController) -> None:
    context = trusting_nobody()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2", "http/1.1"])
    with TlsWire(serve(controller).port, context=context) as wire:
        cipher = wire.tls.cipher()
        assert cipher is not None
        assert cipher[0].startswith("ECDHE-ECDSA-")
        assert wire.tls.selected_alpn_protocol() == "http/1.1"
        assert wire.request("GET", "/models").answer().status == 200


def test_the_server_sees_the_client_s_address(make_controller: MakeController, tmp_path: Path) -> None:
    controller = make_controller(request_log="file")
    state = serve(controller, host="0.0.0.0")
    with TlsWire(state.port) as own, TlsWire(state.port, OTHER) as other:
        assert own.request("GET", "/models").answer().status == 200  # loopback needs no key
        refused = other.request("GET", "/models").answer()
        assert (refused.status, refused.code) == (401, "key_required")
        assert state.key is not None
        key = {"Authorization": f"Bearer {state.key.secret}"}
        assert other.request("POST", PREDICT, b"x", Content_Type="image/png", **key).answer().status == 200
    assert OTHER in controller.state.callers
    assert [(record.client, record.code) for record in controller.state.refusals] == [(OTHER, "key_required")]
    clients = [json.loads(line)["client"] for line in controller.log_lines()]
    assert {OTHER, "127.0.0.1"} <= set(clients)
    controller.block(OTHER, True)
    with TlsWire(state.port, OTHER) as other:
        assert other.request("GET", "/health/live").answer().code == "not_allowed"


def test_what_a_client_writes_itself_is_no_proxy_line(controller: ServerController) -> None:
    with TlsWire(serve(controller).port, OTHER) as wire:
        answer = wire.send(b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\nGET /models HTTP/1.1\r\n\r\n").answer()
        assert (answer.status, answer.code) == (400, "malformed")


def test_host_and_origin_are_those_of_https(controller: ServerController) -> None:
    port = serve(controller).port
    with TlsWire(port) as wire:
        assert wire.request("GET", "/models", Origin=f"https://localhost:{port}").answer().status == 200
        assert wire.request("GET", "/models", Origin=f"http://localhost:{port}").answer().code == "bad_origin"
        assert wire.request("GET", "/models", Host="evil.example").answer().code == "bad_host"


def test_one_address_too_many_reads_busy_and_loopback_does_not(make_controller: MakeController) -> None:
    port = serve(make_controller(connections_per_address=2)).port
    held = [TlsWire(port, OTHER) for _ in range(2)]
    try:
        for wire in held:
            assert wire.request("GET", "/models").answer().status == 200
        with TlsWire(port, OTHER) as third:
            answer = third.request("GET", "/models").answer()
            assert (answer.status, answer.code) == (503, "busy")
            assert third.closed()
        held += [TlsWire(port) for _ in range(5)]
        assert all(wire.request("GET", "/models").answer().status == 200 for wire in held[2:])
    finally:
        for wire in held:
            wire.socket.close()


def test_the_refusal_of_a_body_is_read_in_mid_upload(make_controller: MakeController) -> None:
    with TlsWire(serve(make_controller(body_bytes=2048)).port) as wire:
        head = f"POST {PREDICT} HTTP/1.1\r\nHost: localhost:{wire.port}\r\nContent-Length: 9000000\r\n\r\n"
        wire.send(head.encode())
        sent = 0
        try:
            for _ in range(40):
                wire.send(bytes(65_536))
                sent += 65_536
        except OSError:
            assert sent > 0  # told while it still sent: what came before must be readable
        assert wire.answer().code == "body_too_large"
        assert wire.closed()


def test_a_client_that_leaves_gives_its_request_up(controller: ServerController, engine: FakeEngine) -> None:
    engine.hold = True
    wire = TlsWire(serve(controller).port)
    wire.request("POST", PREDICT, b"x", Content_Type="image/png")
    until(lambda: len(engine.held) == 1, "the request is inside")
    wire.socket.close()
    until(engine.held[0][1].cancelled, "the engine was told that the client left")


# -- the controller's part --------------------------------------------------------------------------------------------
def test_the_network_is_served_as_the_settings_say_and_this_computer_plainly(make_controller: MakeController) -> None:
    controller = make_controller(tls="self-signed")
    state = controller.start(ServerScope.NETWORK, 0)
    assert all(url.url.startswith("https://") for url in state.urls)
    assert shown(state).self_signed
    assert shown(state).curl.endswith(f"{state.urls[0].url}/health/live")
    with TlsWire(state.port) as wire:
        assert wire.request("GET", "/health/live").answer().status == 200
    state = controller.start(ServerScope.COMPUTER, 0)
    assert state.certificate is None
    with Wire(state.port) as plain:
        assert plain.request("GET", "/health/live").answer().status == 200
    assert controller.stop().certificate is None


def test_switching_tls_on_while_serving_opens_the_listener_anew(make_controller: MakeController) -> None:
    controller = make_controller()
    state = controller.start(ServerScope.NETWORK, 0)
    assert state.certificate is None
    first = controller.apply(settings(tls="self-signed"))
    assert (first.phase, first.port) == (ServerPhase.RUNNING, state.port)
    again = controller.apply(settings(tls="self-signed", keep_awake=False))
    assert shown(again).pin == shown(first).pin
    assert controller.apply(settings()).certificate is None


def test_this_computer_reaches_itself_over_tls(make_controller: MakeController) -> None:
    if not lan_addresses():
        pytest.skip("this machine has no address but loopback")
    controller = make_controller(tls="self-signed")
    controller.start(ServerScope.NETWORK, 0)
    assert controller.check_reach().failed == ()


def test_own_files_are_served_or_said_to_be_wrong(
    make_controller: MakeController, certificate: ServerCertificate
) -> None:
    cert, key = certificate.certificate_file, certificate.key_file
    controller = make_controller()
    state = controller.start_at(ServeOptions(port=0, certificate=cert, certificate_key=key))
    assert (shown(state).pin, shown(state).self_signed) == (certificate.pin, False)
    controller = make_controller(tls="own", tls_certificate=str(cert), tls_key=str(key))
    assert shown(controller.start(ServerScope.NETWORK, 0)).pin == certificate.pin
    for changes in ({"tls_key": str(cert)}, {"tls_key": ""}, {"tls_certificate": "/nowhere/mine.pem"}):
        broken = make_controller(**({"tls": "own", "tls_certificate": str(cert), "tls_key": str(key)} | changes))
        with pytest.raises(SettingsInvalid):
            broken.start(ServerScope.NETWORK, 0)
        assert broken.state.phase is ServerPhase.FAILED
        assert broken.state.problem is not None
    with pytest.raises(ValueError, match="go together"):
        ServeOptions(certificate=cert)


def test_another_key_than_its_own_is_not_believed(controller: ServerController) -> None:
    port = serve(controller).port
    connection = connect_to_self("127.0.0.1", port, TIMEOUT_S, "sha256//" + "A" * 43 + "=")
    with pytest.raises(ssl.SSLCertVerificationError):
        connection.request("GET", "/health/live")
    connection.close()


def test_a_self_check_that_fails_leaves_nothing(
    make_controller: MakeController, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls_terminator, "proxy_line", lambda *_: b"PROXY UNKNOWN\r\n")
    before = listening()
    with pytest.raises(ServerStartError) as caught:
        serve(make_controller())
    assert caught.value.code == "server_self_check"
    assert listening() == before


# -- the drain --------------------------------------------------------------------------------------------------------
def test_running_requests_finish_and_new_ones_read_draining(controller: ServerController, engine: FakeEngine) -> None:
    port = serve(controller).port
    engine.hold = True
    busy = [TlsWire(port) for _ in range(8)]
    for wire in busy:
        wire.request("POST", PREDICT, b"x", Content_Type="image/png")
    idle = TlsWire(port)
    idle.request("GET", "/health/live").answer()
    until(lambda: len(engine.held) == 8, "eight requests inside")
    stop = Stop(controller)
    refused = idle.request("POST", PREDICT, b"x", Content_Type="image/png").answer()
    assert (refused.status, refused.code) == (503, "draining")
    assert idle.closed()
    until(lambda: ("127.0.0.1", port) not in listening(), "the listener is closed")
    assert stop.phase is None
    release(engine)
    assert [(a.status, a.headers["connection"]) for a in (w.answer() for w in busy)] == [(200, "close")] * 8
    assert all(wire.closed() for wire in busy)
    stop.join()
    for wire in (*busy, idle):
        wire.socket.close()
    bind_listener("127.0.0.1", port).close()


@pytest.mark.parametrize("keep_alive", [True, False])
def test_switched_off_under_load_nobody_who_was_shaken_hands_with_is_cut_off(
    controller: ServerController, engine: FakeEngine, keep_alive: bool
) -> None:
    port = serve(controller).port
    slow = threading.Event()

    def answer(request: PredictRequest) -> Any:
        slow.wait(0.01)
        return answer_three(request)

    engine.answer = answer
    statuses: list[int] = []
    cut_off: list[str] = []

    def client() -> None:
        while True:
            try:
                wire = TlsWire(port)
            except OSError:
                return  # switched off: the port is closed
            with wire:
                if not one_connection(wire):
                    return

    def one_connection(wire: TlsWire) -> bool:
        while True:
            try:
                found: Answer | None = wire.request("POST", PREDICT, b"x" * 5000, Content_Type="image/png").read()
            except OSError as error:
                cut_off.append(repr(error))
                return False
            if found is None:
                cut_off.append("closed without an answer")
                return False
            statuses.append(found.status)
            if found.headers.get("connection") == "close" or not keep_alive:
                return True

    threads = [threading.Thread(target=client) for _ in range(8)]
    for thread in threads:
        thread.start()
    until(lambda: len(statuses) > 60, "load")
    controller.stop()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    assert cut_off == []
    assert set(statuses) <= {200, 503}


def test_silent_and_stalled_connections_do_not_hold_the_stop(controller: ServerController) -> None:
    port = serve(controller).port
    with Wire(port) as silent, Wire(port) as stalled, TlsWire(port) as used:
        stalled.send(b"\x16\x03\x01")
        used.request("GET", "/models").answer()
        controller.stop()
        assert used.closed()
        assert silent.closed()
        assert stalled.closed()


def test_stopping_twice_and_never_started(certificate: ServerCertificate) -> None:
    for started in (True, False):
        with Front(certificate) as front:
            if started:
                front.terminator.start()
            for _ in range(2):
                front.terminator.stop_accepting()
                assert front.terminator.stop(1.0)


# -- bytes, through waitress and back ---------------------------------------------------------------------------------
class Echo:
    """A WSGI application that gives its body back, and keeps what it was told of the client."""

    def __init__(self) -> None:
        self.environ: dict[str, Any] = {}

    def __call__(self, environ: Any, start_response: Callable[..., Any]) -> list[bytes]:
        self.environ = dict(environ)
        body = environ["wsgi.input"].read()
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]


@pytest.fixture
def echo(certificate: ServerCertificate) -> Iterator[tuple[Echo, int]]:
    app, server, port = make_echo(certificate)
    server.start()
    yield app, port
    assert server.stop(5.0, lambda: None)


def make_echo(certificate: ServerCertificate) -> tuple[Echo, TlsServer, int]:
    listener = bind_listener("127.0.0.1", 0)
    port = int(listener.getsockname()[1])
    app = Echo()
    server = TlsServer(
        app,
        listener,
        adjustments(settings(requests_inside=4)),
        tls_context(certificate.certificate_file, certificate.key_file),
        connections=16,
        connections_per_address=16,
        on_refused=lambda *_: None,
        on_death=lambda: None,
        check=Door(loopback_rules(port)).check,
        budget=BodyBudget(1 << 30),
    )
    return app, server, port


def test_twenty_megabytes_come_back_byte_for_byte(echo: tuple[Echo, int]) -> None:
    _, port = echo
    body = os.urandom(20_000_000)
    with TlsWire(port) as wire:
        for _ in range(2):
            answer = wire.request("POST", PREDICT, body).answer()
            assert answer.status == 200
            assert answer.body == body


def test_the_application_is_told_of_https_and_of_the_client(echo: tuple[Echo, int]) -> None:
    app, port = echo
    with TlsWire(port, OTHER) as wire:
        wire.request("GET", "/", X_Forwarded_For="10.9.8.7", X_Forwarded_Proto="http").answer()
        own_port = str(wire.socket.getsockname()[1])
    told = {name: app.environ[name] for name in ("wsgi.url_scheme", "REMOTE_ADDR", "REMOTE_PORT", "SERVER_PORT")}
    assert told == {
        "wsgi.url_scheme": "https", "REMOTE_ADDR": OTHER, "REMOTE_PORT": own_port, "SERVER_PORT": str(port),
    }  # fmt: skip


def test_windows_has_a_loopback_port_and_a_secret(
    certificate: ServerCertificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def option(platform: str) -> int:  # the one that Windows has is none here
        asked.append(platform)
        return socket.SO_REUSEADDR

    monkeypatch.setattr(private_socket, "sharing_option", option)
    made: list[PrivateSocket] = []

    def windows() -> PrivateSocket:
        made.append(open_private_socket("win32"))
        return made[0]

    monkeypatch.setattr(tls_server, "open_private_socket", windows)
    app, server, port = make_echo(certificate)
    server.start()
    try:
        assert asked == ["win32"]
        assert made[0].folder is None
        assert made[0].address[0] == "127.0.0.1"
        with TlsWire(port, OTHER) as wire:
            assert wire.request("POST", PREDICT, b"x" * 100_000).answer().body == b"x" * 100_000
        assert app.environ["REMOTE_ADDR"] == OTHER
        for first in (b"", bytes(len(made[0].secret))):
            with Wire(made[0].address[1]) as stranger:
                line = b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n"
                stranger.send(first + line + b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" + bytes(64))
                assert stranger.closed()
    finally:
        assert server.stop(5.0, lambda: None)


def test_secrets_differ_and_are_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(private_socket, "sharing_option", lambda platform: socket.SO_REUSEADDR)
    both = [open_private_socket("win32") for _ in range(2)]
    for one in both:
        one.close()
    assert len({one.secret for one in both}) == 2
    assert all(len(bytes.fromhex(one.secret.decode().strip())) == 32 for one in both)


def test_an_inner_socket_that_cannot_be_had_is_said(monkeypatch: pytest.MonkeyPatch, inner_folders: Path) -> None:
    monkeypatch.setattr(private_socket, "SOCKET_NAME", "x" * 200)  # longer than sun_path
    with pytest.raises(ServerStartError, match="inner connection") as caught:
        open_private_socket()
    assert caught.value.code == "server_self_check"
    assert list(inner_folders.iterdir()) == []


# -- the terminator alone ---------------------------------------------------------------------------------------------
class Front:
    """A terminator before a private socket whose server the test plays itself."""

    def __init__(self, certificate: ServerCertificate, **options: Any) -> None:
        listener = bind_listener("127.0.0.1", 0)
        self.port = int(listener.getsockname()[1])
        self.behind = open_private_socket()
        self.behind.listener.settimeout(TIMEOUT_S)
        self.refused: list[tuple[str, str, str]] = []
        self.died = threading.Event()
        context = tls_context(certificate.certificate_file, certificate.key_file)
        limits = {"connections": 64, "connections_per_address": 64} | options
        self.terminator = TlsTerminator(
            listener, context, self.behind, on_refused=self._on_refused, on_death=self.died.set, **limits
        )

    def _on_refused(self, request_id: str, code: str, lane: Any, client: str) -> None:
        self.refused.append((code, str(lane), client))

    def __enter__(self) -> Front:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            assert self.terminator.stop(2.0)
        finally:
            self.behind.close()

    def start(self) -> Front:
        self.terminator.start()
        return self

    def taken(self) -> tuple[socket.socket, bytes]:
        """The next connection of the terminator, and its first line."""
        conn, _ = self.behind.listener.accept()
        conn.settimeout(TIMEOUT_S)
        line = b""
        while not line.endswith(b"\r\n"):
            line += conn.recv(1)
        return conn, line


def test_the_first_line_names_both_ends(certificate: ServerCertificate) -> None:
    with Front(certificate).start() as front, TlsWire(front.port, OTHER) as wire:
        conn, line = front.taken()
        with conn:
            own = wire.socket.getsockname()[1]
            assert line == f"PROXY TCP4 {OTHER} 127.0.0.1 {own} {front.port}\r\n".encode()
            wire.send(b"hello")
            assert conn.recv(100) == b"hello"


def test_ipv6_clients_are_named(certificate: ServerCertificate) -> None:
    try:
        listener = bind_listener("::1", 0)
    except ServerStartError:
        pytest.skip("this machine has no IPv6")
    with Front(certificate) as front:
        front.terminator.stop(0.0)
        context = tls_context(certificate.certificate_file, certificate.key_file)
        six = TlsTerminator(listener, context, front.behind, connections=4, connections_per_address=4)
        port = listener.getsockname()[1]
        six.start()
        with (
            socket.create_connection(("::1", port), timeout=TIMEOUT_S) as plain,
            trusting_nobody().wrap_socket(plain, server_hostname="localhost") as tls,
        ):
            conn, line = front.taken()
            conn.close()
            assert line == f"PROXY TCP6 ::1 ::1 {tls.getsockname()[1]} {port}\r\n".encode()
        assert six.stop(2.0)


def test_each_side_may_end_its_sending_first(certificate: ServerCertificate) -> None:
    with Front(certificate).start() as front:
        with Wire(front.port) as plain:  # close_notify from the client, then an answer still comes
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            tls = trusting_nobody().wrap_bio(incoming, outgoing, server_hostname="localhost")
            step(plain, tls.do_handshake, incoming, outgoing)
            tls.write(b"all I have to say")
            with pytest.raises(ssl.SSLWantReadError):
                tls.unwrap()
            plain.send(outgoing.read())
            conn, _ = front.taken()
            with conn:
                said = b""
                while data := conn.recv(100):
                    said += data
                assert said == b"all I have to say"
                conn.sendall(b"an answer")
            assert step(plain, lambda: tls.read(100), incoming, outgoing) == b"an answer"
            assert step(plain, lambda: tls.read(100), incoming, outgoing) == b""  # close_notify, not a mere FIN
        with TlsWire(front.port) as wire:  # and the server first, in the middle of what the client sends
            conn, _ = front.taken()
            with conn:
                conn.sendall(b"x" * 100_000)
                conn.shutdown(socket.SHUT_WR)
                got = 0
                while data := wire.socket.recv(65_536):
                    got += len(data)
                assert got == 100_000
        until(lambda: front.terminator.open_connections == 0, "both are closed")


def step(plain: Wire, act: Callable[[], Any], incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO) -> Any:
    """Do ``act`` of a TLS object, moving its bytes; b"" where the other side said close_notify."""
    while True:
        try:
            result = act()
        except ssl.SSLWantReadError:
            if outgoing.pending:
                plain.send(outgoing.read())
            data = plain.socket.recv(65_536)
            if data:
                incoming.write(data)
            else:
                incoming.write_eof()
        except ssl.SSLZeroReturnError:
            return b""
        else:
            if outgoing.pending:
                plain.send(outgoing.read())
            return result


def test_an_answer_is_read_though_the_server_closed_with_bytes_unread(certificate: ServerCertificate) -> None:
    with Front(certificate).start() as front, TlsWire(front.port) as wire:
        conn, _ = front.taken()
        wire.send(b"y" * 300_000)
        until(lambda: front.terminator.buffered_bytes > 0, "the way up is full")
        conn.sendall(b"no, thank you")
        conn.close()  # a Unix socket closed so answers ECONNRESET to who reads on
        got = b""
        while data := wire.socket.recv(100):
            got += data
        assert got == b"no, thank you"


@pytest.mark.parametrize("way", ["down", "up"])
def test_who_does_not_read_holds_a_bounded_amount(certificate: ServerCertificate, way: str) -> None:
    total = 48 << 20
    chunk = os.urandom(1 << 16)
    with Front(certificate).start() as front, TlsWire(front.port) as wire:
        conn, _ = front.taken()
        sender, reader = (conn, wire.socket) if way == "down" else (wire.socket, conn)
        sent = 0

        def send() -> None:
            nonlocal sent
            while sent < total:
                sender.sendall(chunk)
                sent += len(chunk)
            if way == "down":
                conn.shutdown(socket.SHUT_WR)

        thread = threading.Thread(target=send)
        thread.start()
        stalled, pause, before = 0, threading.Event(), -1
        while stalled < 20:
            pause.wait(0.02)
            stalled, before = (stalled + 1 if sent == before and sent else 0), sent
            assert front.terminator.buffered_bytes <= 2 * BUFFER + tls_terminator._RECORD
            assert sent < total, "nothing held the sender back"
        assert front.terminator.buffered_bytes > BUFFER // 2
        want, got = hashlib.sha256(), hashlib.sha256()
        received = 0
        while received < total:
            data = reader.recv(1 << 16)
            received += len(data)
            got.update(data)
            assert data
        for _ in range(total // len(chunk)):
            want.update(chunk)
        thread.join(TIMEOUT_S)
        assert got.digest() == want.digest()
        conn.close()


# -- who does not get in ----------------------------------------------------------------------------------------------
def client_hello(version: int) -> bytes:
    """A ClientHello of TLS before 1.3: ``version`` is 0x0301 for TLS 1.0 (RFC 5246 §7.4.1.2)."""
    suites = (0xC02B, 0xC02F, 0xC009, 0xC013, 0xC00A, 0xC014, 0x002F)
    groups = struct.pack(">HHHH", 10, 4, 2, 23)  # supported_groups: secp256r1
    signatures = struct.pack(">HHHHHH", 13, 8, 6, 0x0403, 0x0401, 0x0804)
    points = struct.pack(">HHBB", 11, 2, 1, 0)
    extensions = groups + signatures + points
    body = struct.pack(">H", version) + os.urandom(32) + b"\0"
    body += struct.pack(">H", 2 * len(suites)) + b"".join(struct.pack(">H", suite) for suite in suites)
    body += b"\x01\x00" + struct.pack(">H", len(extensions)) + extensions
    message = b"\x01" + struct.pack(">I", len(body))[1:] + body
    return b"\x16" + struct.pack(">HH", 0x0301, len(message)) + message


@pytest.mark.parametrize(
    ("version", "alerts"),
    [(0x0300, {40, 70}), (0x0301, {70}), (0x0302, {70}), (0x0303, None)],
    ids=["SSL 3", "TLS 1.0", "TLS 1.1", "TLS 1.2"],
)
def test_c20_old_tls_is_refused(certificate: ServerCertificate, version: int, alerts: set[int] | None) -> None:
    """Alerts of RFC 5246 §7.2: 70 protocol_version, 40 handshake_failure (an OpenSSL that never heard of SSL 3)."""
    with Front(certificate).start() as front, Wire(front.port) as wire:
        wire.send(client_hello(version))
        reply = wire.socket.recv(4096)
        if alerts is None:
            assert reply[0] == 0x16  # ServerHello: the same hello is taken where it says TLS 1.2
            return
        assert reply[0] == 0x15
        assert reply[-1] in alerts
        assert wire.closed()


def test_c20_plain_http_is_told_to_speak_https(certificate: ServerCertificate) -> None:
    with Front(certificate).start() as front, Wire(front.port, source=OTHER) as wire:
        answer = wire.request("POST", PREDICT, b"x" * 200_000).answer()
        assert (answer.status, answer.code) == (400, "malformed")
        assert "https" in answer.json["error"]["message"]
        assert set(answer.json["error"]) == {"code", "message", "request_id"}
        assert answer.headers["connection"] == "close"
        assert wire.closed()
        assert front.refused == [("malformed", "lan", OTHER)]


@pytest.mark.parametrize(
    "sent", [b"\x00\x01\x02", b"\x80\x2e\x01", b"\x16\x03\x01\x00\x05nonse", b"\x16\xff\xff\xff\xff" * 50]
)
def test_c20_what_is_neither_tls_nor_http_is_closed(certificate: ServerCertificate, sent: bytes) -> None:
    with Front(certificate).start() as front, Wire(front.port) as wire:
        wire.send(sent)
        until(lambda: front.terminator.open_connections == 0, "it is closed")
        assert not front.died.is_set()


@pytest.mark.parametrize("sent", [b"", b"\x16", b"\x16\x03\x01\x02\x00\x01"], ids=["nothing", "a byte", "a beginning"])
def test_c20_a_handshake_that_stalls_is_closed_in_time(certificate: ServerCertificate, sent: bytes) -> None:
    with Front(certificate, handshake_s=0.3).start() as front, Wire(front.port) as wire:
        if sent:
            wire.send(sent)
        assert wire.closed()
        assert front.terminator.open_connections == 0


def test_the_limit_is_of_the_handshake_only(certificate: ServerCertificate) -> None:
    with Front(certificate, handshake_s=0.3).start() as front, TlsWire(front.port) as wire, Wire(front.port) as later:
        conn, _ = front.taken()
        assert later.closed()  # its own limit, which began after the other's, is over
        with conn:
            wire.send(b"still here")
            assert conn.recv(100) == b"still here"


def test_c20_two_hundred_stalled_handshakes_hold_nobody_up(make_controller: MakeController) -> None:
    controller = make_controller(connections_per_address=150)
    port = serve(controller).port
    running: Any = controller._running
    terminator: TlsTerminator = running.http.terminator
    stalled: list[Wire] = []
    try:
        for number in range(200):
            stalled.append(Wire(port, source=OTHER))
            if number % 2:
                stalled[-1].send(client_hello(0x0303)[: 1 + number // 4])
        until(lambda: terminator.open_connections >= 200, "all are taken in")
        for source in (None, "127.0.0.3"):
            with TlsWire(port, source) as wire:
                answer = wire.request("POST", PREDICT, b"picture", Content_Type="image/png").answer()
                assert answer.status == 200
        assert all(wire.closed() for wire in stalled)
        until(lambda: terminator.open_connections == 0, "none is left")
    finally:
        for wire in stalled:
            wire.socket.close()


def test_beyond_its_share_an_address_is_closed_at_once(certificate: ServerCertificate) -> None:
    with Front(certificate, connections_per_address=3, connections=8).start() as front:
        held = [Wire(front.port, source=OTHER) for _ in range(3)]
        until(lambda: front.terminator.open_connections == 3, "three are in")
        with Wire(front.port, source=OTHER) as fourth:
            assert fourth.closed()
        held += [Wire(front.port, source="127.0.0.3") for _ in range(3)]
        held += [Wire(front.port, source="127.0.0.4") for _ in range(2)]
        until(lambda: front.terminator.open_connections == 8, "eight are in")
        with Wire(front.port, source="127.0.0.5") as ninth:
            assert ninth.closed()
        held += [Wire(front.port) for _ in range(tls_terminator.KEPT_FOR_LOOPBACK)]
        until(lambda: front.terminator.open_connections == 12, "this computer's are in")
        with Wire(front.port) as one_more:
            assert one_more.closed()
        for wire in held:
            wire.socket.close()
        until(lambda: front.terminator.open_connections == 0, "the shares are given back")
        with TlsWire(front.port, OTHER):
            front.taken()[0].close()


def test_without_descriptors_it_waits_and_goes_on(
    certificate: ServerCertificate, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    front = Front(certificate)
    real, failing = front.terminator._listeners[0], threading.Event()
    failing.set()

    class Starved:
        """The listener of a process that has no descriptor left."""

        def accept(self) -> Any:
            if failing.is_set():
                raise OSError(24, "Too many open files")
            return real.accept()

        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

    with front:
        terminator: Any = front.terminator
        terminator._selector.unregister(real)
        terminator._listeners = [Starved()]
        terminator._selector.register(terminator._listeners[0], tls_terminator._READ)
        front.start()
        with Wire(front.port) as wire:
            until(lambda: "no connection could be taken in" in caplog.text, "it was said")
            failing.clear()
            tls = trusting_nobody().wrap_socket(wire.socket, server_hostname="localhost")
            wire.socket = tls
            front.taken()[0].close()
        assert caplog.text.count("no connection could be taken in") < 10


def test_a_server_behind_that_is_gone_costs_the_connection_only(certificate: ServerCertificate) -> None:
    with Front(certificate).start() as front:
        front.behind.listener.close()
        with TlsWire(front.port) as wire:
            assert wire.closed()
        assert not front.died.is_set()


def test_an_error_of_its_own_ends_one_connection_and_is_logged(
    certificate: ServerCertificate, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with Front(certificate).start() as front:
        with monkeypatch.context() as patch, TlsWire(front.port) as wire:
            conn, _ = front.taken()
            patch.setattr(tls_terminator, "_send", lambda *_: 1 // 0)
            wire.send(b"x")
            assert wire.closed()
            conn.close()
        assert "was ended by an error" in caplog.text
        with TlsWire(front.port):
            front.taken()[0].close()


def test_a_thread_that_dies_says_so_and_closes_everything(
    certificate: ServerCertificate, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with Front(certificate) as front:
        monkeypatch.setattr(front.terminator, "_sweep", lambda now: 1 // 0)
        front.start()
        with Wire(front.port) as wire:
            assert front.died.wait(TIMEOUT_S)
            assert wire.closed()
        assert "the TLS thread ended by an error" in caplog.text


def test_python_s_own_client_and_keep_alive(controller: ServerController, tmp_path: Path) -> None:
    port = serve(controller).port
    context = ssl.create_default_context(cafile=tmp_path / "data" / "tls" / "certificate.pem")
    connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=TIMEOUT_S, context=context)
    for _ in range(3):
        connection.request("GET", "/models")
        answer = connection.getresponse()
        assert answer.status == 200
        answer.read()
    connection.close()
