"""The switch over real sockets: states, scopes, keys, failures, toggling, and what listens when."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from embedded_server import controller as controller_module
from embedded_server import hosting
from embedded_server.addresses import InterfaceAddress, chosen_addresses, lan_addresses
from embedded_server.controller import ServeOptions, ServerController
from engine.errors import EngineError, ServerStartError, SettingsInvalid
from engine.serving_types import ServerPhase, ServerScope, ServerState
from tests.embedded_server.conftest import listening, server_threads, until
from tests.embedded_server.wire import Answer, Wire
from tests.fakes import FakeEngine
from tests.ports import free_port

MakeController = Callable[..., ServerController]


def get(port: int, target: str = "/models", host: str = "127.0.0.1", **headers: str) -> Answer:
    with Wire(port, host) as wire:
        return wire.request("GET", target, **headers).answer()


@pytest.fixture
def lan() -> InterfaceAddress:
    addresses = lan_addresses()
    if not addresses:
        pytest.skip("this machine has no address but loopback")
    return addresses[0]


def test_p1_each_position_listens_where_it_says_and_nowhere_else(controller: ServerController) -> None:
    before = listening()
    port = free_port()
    assert controller.state.phase is ServerPhase.STOPPED
    chosen = {address.address for address in chosen_addresses(lan_addresses(), ())}
    for scope, addresses in (
        (ServerScope.COMPUTER, {"127.0.0.1"}),
        (ServerScope.NETWORK, {"127.0.0.1", *chosen}),
        (ServerScope.COMPUTER, {"127.0.0.1"}),
    ):
        state = controller.start(scope, port)
        assert (state.phase, state.scope, state.port) == (ServerPhase.RUNNING, scope, port)
        assert listening() - before == {(address, port) for address in addresses}
    state = controller.start(ServerScope.OFF, port)
    assert (state.phase, state.scope, state.urls, state.key) == (ServerPhase.STOPPED, ServerScope.OFF, (), None)
    assert listening() == before
    assert server_threads() == []


def test_computer_needs_no_key_and_names_itself(controller: ServerController) -> None:
    state = controller.start(ServerScope.COMPUTER, free_port())
    assert [(u.url, u.label, u.is_loopback) for u in state.urls] == [
        (f"http://127.0.0.1:{state.port}", "this computer", True)
    ]
    assert not state.key_required
    assert state.key is None
    assert get(state.port).status == 200


def test_network_lists_every_address_and_needs_the_key(controller: ServerController, lan: InterfaceAddress) -> None:
    state = controller.start(ServerScope.NETWORK, free_port())
    assert [u.url for u in state.urls] == [
        *(f"http://{a.address}:{state.port}" for a in chosen_addresses(lan_addresses(), ())),
        f"http://127.0.0.1:{state.port}",
    ]
    assert (state.urls[0].label, state.urls[0].is_loopback) == (lan.name, False)
    assert state.key is not None
    assert state.key.secret is not None
    host = f"{lan.address}:{state.port}"
    assert get(state.port).status == 200  # this computer is exempt
    assert get(state.port, host=lan.address, Host=host).status == 401
    keyed = get(state.port, host=lan.address, Host=host, Authorization=f"Bearer {state.key.secret}")
    assert keyed.status == 200
    assert "worker_pid" not in keyed.json["models"][0]
    assert get(state.port, host=lan.address, Host=f"{socket.gethostname().upper()}.local:{state.port}").status == 401
    assert get(state.port, host=lan.address, Host="evil.example").code == "bad_host"
    assert get(state.port, "/health/live", host=lan.address, Host=host).status == 200


def test_the_network_key_stays_until_it_is_renewed(controller: ServerController, lan: InterfaceAddress) -> None:
    port = free_port()
    first = controller.start(ServerScope.NETWORK, port).key
    controller.stop()
    state = controller.start(ServerScope.NETWORK, port)
    assert state.key == first
    assert first is not None
    host = f"{lan.address}:{port}"
    renewed = controller.renew_key()
    assert controller.state.key == renewed
    old = get(port, host=lan.address, Host=host, Authorization=f"Bearer {first.secret}")
    new = get(port, host=lan.address, Host=host, Authorization=f"Bearer {renewed.secret}")
    assert (old.status, new.status) == (401, 200)


def test_the_owner_can_waive_the_key_in_the_settings(make_controller: MakeController, lan: InterfaceAddress) -> None:
    state = make_controller(require_key=False).start(ServerScope.NETWORK, free_port())
    assert (state.key, state.key_required) == (None, False)
    assert get(state.port, host=lan.address, Host=f"{lan.address}:{state.port}").status == 200


# -- headless ---------------------------------------------------------------------------------------------------
def test_serve_on_a_loopback_host_needs_no_key(controller: ServerController) -> None:
    state = controller.start_at(ServeOptions(port=0))
    assert state.port > 0
    assert state.urls[0].url == f"http://127.0.0.1:{state.port}"
    assert (state.key, state.key_required) == (None, False)


def test_serve_elsewhere_makes_a_key_and_exempts_this_computer(
    controller: ServerController, lan: InterfaceAddress
) -> None:
    state = controller.start_at(ServeOptions(host="0.0.0.0", port=0))
    assert state.key is not None
    assert state.key.secret
    assert state.urls[0].url == f"http://{lan.address}:{state.port}"
    assert get(state.port).status == 200
    host = f"{lan.address}:{state.port}"
    assert get(state.port, host=lan.address, Host=host).status == 401
    assert get(state.port, host=lan.address, Host=host, Authorization=f"Bearer {state.key.secret}").status == 200


def test_serve_without_a_key_when_told_so(controller: ServerController, lan: InterfaceAddress) -> None:
    state = controller.start_at(ServeOptions(host=lan.address, port=0, no_key=True))
    assert [u.url for u in state.urls] == [f"http://{lan.address}:{state.port}"]
    assert state.key is None
    assert get(state.port, host=lan.address, Host=f"{lan.address}:{state.port}").status == 200


def test_a_key_file_holds_on_this_computer_too(controller: ServerController, tmp_path: Path) -> None:
    path = tmp_path / "keys.txt"
    state = controller.start_at(ServeOptions(port=0, key_file=path))
    assert state.key is not None
    assert path.read_text().strip() == state.key.secret
    assert get(state.port).status == 401
    assert get(state.port, Authorization=f"Bearer {state.key.secret}").status == 200
    assert get(state.port, "/health/live").status == 200


def test_no_key_and_a_key_file_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="exclude"):
        ServeOptions(no_key=True, key_file=tmp_path / "k")


def test_an_unusable_key_file_starts_nothing(controller: ServerController, tmp_path: Path) -> None:
    before = listening()
    with pytest.raises(SettingsInvalid, match=tmp_path.name):
        controller.start_at(ServeOptions(port=0, key_file=tmp_path))
    assert controller.state.phase is ServerPhase.FAILED
    assert listening() == before


def test_ipv6_loopback(controller: ServerController) -> None:
    try:
        state = controller.start_at(ServeOptions(host="::1", port=0))
    except ServerStartError as error:
        pytest.skip(f"this machine has no IPv6: {error}")
    assert state.urls[0].url == f"http://[::1]:{state.port}"
    assert get(state.port, host="::1", Host=f"[::1]:{state.port}").status == 200


# -- failures ---------------------------------------------------------------------------------------------------
def test_r13_a_taken_port_is_named_and_the_next_free_one_offered(controller: ServerController) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        before = listening()
        with pytest.raises(ServerStartError) as caught:
            controller.start(ServerScope.COMPUTER, port)
        error = caught.value
        assert (error.code, error.port) == ("port_in_use", port)
        assert error.free_port is not None
        assert error.free_port > port
        assert str(error) == f"Port {port} is in use by another program. {error.free_port} is free."
        state = controller.state
        assert (state.phase, state.scope, state.urls) == (ServerPhase.FAILED, ServerScope.OFF, ())
        assert state.problem is not None
        assert (state.problem.code, state.problem.free_port) == ("port_in_use", error.free_port)
        assert listening() == before
        assert server_threads() == []
        assert controller.start(ServerScope.COMPUTER, error.free_port).phase is ServerPhase.RUNNING
        assert controller.state.problem is None


def test_an_address_that_is_not_ours(controller: ServerController) -> None:
    for host in ("203.0.113.7", "no-such-host.invalid"):
        with pytest.raises(ServerStartError, match=host) as caught:
            controller.start_at(ServeOptions(host=host, port=0))
        assert caught.value.code == "address_unavailable"


def test_running_is_said_only_after_the_self_check(
    controller: ServerController, monkeypatch: pytest.MonkeyPatch
) -> None:
    phases: list[ServerPhase] = []
    checks: list[ServerPhase] = []
    real = controller_module._check_answers

    def check(host: str, port: int, pin: str | None) -> None:
        checks.append(controller.state.phase)
        real(host, port, pin)

    monkeypatch.setattr(controller_module, "_check_answers", check)
    controller.subscribe(lambda state: phases.append(state.phase))
    controller.start_at(ServeOptions(port=0))
    assert checks == [ServerPhase.STARTING]
    until(lambda: phases[-1:] == [ServerPhase.RUNNING], "RUNNING was told")
    assert phases[0] is ServerPhase.STARTING


def test_a_server_that_does_not_answer_itself_is_not_running(
    controller: ServerController, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = listening()

    def broken(*_: object, **__: object) -> Any:
        def app(environ: object, start_response: Callable[..., object]) -> list[bytes]:
            start_response("500 Internal Server Error", [("Content-Length", "0")])
            return []

        return app

    monkeypatch.setattr(hosting, "create_app", broken)
    with pytest.raises(ServerStartError) as caught:
        controller.start_at(ServeOptions(port=0))
    assert caught.value.code == "server_self_check"
    assert controller.state.phase is ServerPhase.FAILED
    assert listening() == before
    assert server_threads() == []


def test_a_loop_that_dies_is_told_and_can_be_started_again(
    controller: ServerController, caplog: pytest.LogCaptureFixture
) -> None:
    port = controller.start_at(ServeOptions(port=0)).port
    running = controller._running
    assert running is not None

    def die(_: float) -> None:
        raise OSError("the loop's own error")

    running.http._server.readable = die  # type: ignore[assignment, method-assign]
    with Wire(port) as wire:
        until(lambda: controller.state.phase is ServerPhase.FAILED, "the death was told")
        assert controller.state.problem is not None
        assert wire is not None
    assert "ended by an error" in caplog.text
    assert controller.start(ServerScope.COMPUTER, port).phase is ServerPhase.RUNNING
    assert get(port).status == 200


# -- toggling ---------------------------------------------------------------------------------------------------
def test_start_and_stop_are_idempotent(controller: ServerController) -> None:
    port = free_port()
    assert controller.stop().phase is ServerPhase.STOPPED
    first = controller.start(ServerScope.COMPUTER, port)
    before = set(threading.enumerate())
    assert controller.start(ServerScope.COMPUTER, port) == first
    assert set(threading.enumerate()) == before
    assert controller.stop() == controller.stop()


def test_c36_fifty_fast_toggles_end_where_the_last_click_says(controller: ServerController) -> None:
    before = listening()
    port = free_port()
    for n in range(50):
        if n % 2:
            controller.stop()
        else:
            controller.start(ServerScope.COMPUTER if n % 4 else ServerScope.NETWORK, port)
    assert listening() == before
    assert server_threads() == []
    controller.start(ServerScope.COMPUTER, port)
    assert listening() - before == {("127.0.0.1", port)}
    assert get(port).status == 200


def test_toggling_from_many_threads_never_leaves_two_listeners(controller: ServerController) -> None:
    before = listening()
    port = free_port()

    def toggle(n: int) -> ServerState:
        return controller.stop() if n % 3 == 0 else controller.start(ServerScope.COMPUTER, port)

    with ThreadPoolExecutor(8) as pool:
        states = list(pool.map(toggle, range(24)))
    assert {state.phase for state in states} == {ServerPhase.RUNNING, ServerPhase.STOPPED}
    assert len(listening() - before) <= 1
    controller.stop()
    assert listening() == before


def test_what_was_turned_away_and_served_is_shown(controller: ServerController, engine: FakeEngine) -> None:
    port = controller.start_at(ServeOptions(port=0)).port
    seen: list[ServerState] = []
    controller.subscribe(seen.append)
    get(port, Host="evil.example")
    with Wire(port) as wire:
        assert wire.request("POST", "/predict/digits-keras", b"x").answer().status == 200
        wire.send(b"nonsense\r\n\r\n")
        assert wire.answer().code == "malformed"
    until(lambda: bool(seen) and seen[-1].served == 1 and len(seen[-1].refusals) == 2, "told")
    assert [record.code for record in controller.state.refusals] == ["malformed", "bad_host"]


def test_errors_of_a_start_are_the_engines(controller: ServerController) -> None:
    with pytest.raises(EngineError):
        controller.start_at(ServeOptions(host="203.0.113.7", port=0))
