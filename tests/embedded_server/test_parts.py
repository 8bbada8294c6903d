"""Binding, addresses and the notifier, each alone."""

from __future__ import annotations

import errno
import socket
import threading
from types import SimpleNamespace

import psutil
import pytest

from embedded_server import listening
from embedded_server.addresses import InterfaceAddress, host_rules, is_loopback, lan_addresses, own_names, server_urls
from embedded_server.listening import bind_listener, sharing_option
from embedded_server.notifier import CoalescingNotifier
from engine.errors import ServerStartError
from tests.embedded_server.conftest import until


# -- binding ----------------------------------------------------------------------------------------------------
def test_the_port_is_never_shared_on_windows() -> None:
    assert sharing_option("win32") == ~socket.SO_REUSEADDR  # winsock2.h's SO_EXCLUSIVEADDRUSE
    assert sharing_option("linux") == sharing_option("darwin") == socket.SO_REUSEADDR


@pytest.mark.parametrize(
    ("platform", "number", "code"),
    [
        ("linux", errno.EADDRINUSE, "port_in_use"),
        ("linux", errno.EACCES, "permission_denied"),
        ("linux", errno.EADDRNOTAVAIL, "address_unavailable"),
        ("darwin", errno.EACCES, "permission_denied"),
        ("win32", 10048, "port_in_use"),
        ("win32", 10013, "port_in_use"),
        ("win32", errno.EACCES, "port_in_use"),
        ("win32", 10049, "address_unavailable"),
    ],
)
def test_bind_errors_by_platform(monkeypatch: pytest.MonkeyPatch, platform: str, number: int, code: str) -> None:
    options: list[int] = []

    class Socket(SimpleNamespace):
        def setsockopt(self, _: int, option: int, value: int) -> None:
            options.append(option)

        def bind(self, address: tuple[str, int]) -> None:
            if address[1] == 80:
                raise OSError(number, "no")

        def listen(self, backlog: int) -> None: ...

        def close(self) -> None: ...

    monkeypatch.setattr(listening.socket, "socket", lambda *_: Socket())
    with pytest.raises(ServerStartError) as caught:
        bind_listener("127.0.0.1", 80, platform)
    assert (caught.value.code, caught.value.port) == (code, 80)
    assert caught.value.free_port == (81 if code == "port_in_use" else None)
    assert set(options) == {sharing_option(platform)}


def test_a_port_is_bound_again_at_once_and_not_twice() -> None:
    first = bind_listener("127.0.0.1", 0)
    port = first.getsockname()[1]
    with pytest.raises(ServerStartError, match=f"Port {port} is in use"):
        bind_listener("127.0.0.1", port)
    client = socket.create_connection(("127.0.0.1", port))
    server, _ = first.accept()
    server.close()
    first.close()
    bind_listener("127.0.0.1", port).close()
    client.close()


def test_the_last_port_has_no_next(monkeypatch: pytest.MonkeyPatch) -> None:
    error = OSError(errno.EADDRINUSE, "no")

    def taken(*_: object) -> socket.socket:
        raise error

    monkeypatch.setattr(listening, "_listen", taken)
    for port in (65_535, 65_000):
        with pytest.raises(ServerStartError, match=f"^Port {port} is in use by another program.$") as caught:
            bind_listener("127.0.0.1", port)
        assert caught.value.free_port is None


# -- addresses --------------------------------------------------------------------------------------------------
def test_lan_addresses_are_ipv4_up_and_not_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    def address(family: int, text: str) -> SimpleNamespace:
        return SimpleNamespace(family=family, address=text)

    interfaces = {
        "lo": [address(socket.AF_INET, "127.0.0.1")],
        "eth0": [address(socket.AF_INET, "192.168.1.24"), address(socket.AF_INET6, "fe80::1")],
        "wlan0": [address(socket.AF_INET, "10.0.0.9")],
        "down0": [address(socket.AF_INET, "172.16.0.1")],
    }
    stats = {name: SimpleNamespace(isup=name != "down0", flags="up") for name in interfaces}
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: interfaces)
    monkeypatch.setattr(psutil, "net_if_stats", lambda: stats)
    assert lan_addresses() == (InterfaceAddress("eth0", "192.168.1.24"), InterfaceAddress("wlan0", "10.0.0.9"))


def test_urls_and_names() -> None:
    lan = (InterfaceAddress("eth0", "192.168.1.24"),)
    assert [(u.url, u.label) for u in server_urls("0.0.0.0", 8765, lan)] == [
        ("http://192.168.1.24:8765", "eth0"),
        ("http://127.0.0.1:8765", "this computer"),
    ]
    assert [(u.url, u.label) for u in server_urls("192.168.1.24", 80, lan)] == [("http://192.168.1.24:80", "eth0")]
    assert [u.url for u in server_urls("::", 1, lan)] == ["http://[::1]:1"]
    assert "192.168.1.24" not in own_names("127.0.0.1", lan)
    assert "192.168.1.24" in own_names("0.0.0.0", lan)
    assert f"{socket.gethostname()}.local" in own_names("0.0.0.0", lan)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("localhost", True), ("127.0.0.1", True), ("127.1.2.3", True), ("::1", True), ("0.0.0.0", False), ("::", False),
     ("192.168.1.24", False), ("desk.lan", False), ("", False)],
)  # fmt: skip
def test_loopback_hosts(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


def test_allowed_hosts_stand_with_our_port_or_their_own() -> None:
    hosts, origins = host_rules((), 8765, ["Desk.Example", "proxy.example:443", "[fd00::1]", "[fd00::1]:9", " "])
    assert hosts == {"desk.example:8765", "proxy.example:443", "[fd00::1]:8765", "[fd00::1]:9"}
    assert origins == {f"http://{host}" for host in hosts}


# -- notifier ---------------------------------------------------------------------------------------------------
def test_changes_are_coalesced_and_the_last_one_is_told() -> None:
    value = 0
    told: list[int] = []
    notifier = CoalescingNotifier(lambda: value)
    end = notifier.subscribe(told.append)
    for value in range(1, 1001):  # noqa: B007  # read by the notifier
        notifier.changed()
    notifier.flush()
    assert told[0] == 1
    assert told[-1] == 1000
    assert len(told) < 100
    end()
    end()
    notifier.changed()
    assert told[-1] == 1000


def test_a_failing_listener_keeps_nobody_from_hearing(caplog: pytest.LogCaptureFixture) -> None:
    told: list[str] = []

    def fail(_: str) -> None:
        raise RuntimeError("no")

    notifier = CoalescingNotifier(lambda: "state", interval_s=0.0)
    notifier.subscribe(fail)
    notifier.subscribe(told.append)
    notifier.changed()
    notifier.changed()
    assert told == ["state", "state"]
    assert "a listener of the server failed" in caplog.text


def test_a_flush_leaves_no_thread() -> None:
    notifier = CoalescingNotifier(lambda: None)
    notifier.subscribe(lambda _: None)
    for _ in range(3):
        notifier.changed()
    notifier.flush()
    until(lambda: not [t for t in threading.enumerate() if t.name == "server-notify"], "the timer has ended")
