"""What the owner's page changes while the server runs: keys, pauses, blocks; and what it is told of callers."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from embedded_server import controller as controller_module
from embedded_server.addresses import InterfaceAddress, lan_addresses
from embedded_server.controller import GOLDEN_KEY, ServeOptions, ServerController
from embedded_server.door import CALLERS, Door
from embedded_server.keys import NAME, KeyStore
from embedded_server.reach import check_reach, read_firewall
from engine.errors import SettingsInvalid
from engine.serving_types import ServerPhase, ServerScope, ServerState
from engine.settings import ServerSettings
from tests.embedded_server.conftest import until
from tests.embedded_server.test_controller import get
from tests.embedded_server.wire import Answer, Wire
from tests.embedded_server.wsgi import KEYED, LAN, RULES, SECRET, Door2Client, code
from tests.fakes import FakeEngine
from tests.ports import free_port

AUTH = {"Authorization": f"Bearer {SECRET}"}


@pytest.fixture
def lan() -> InterfaceAddress:
    addresses = lan_addresses()
    if not addresses:
        pytest.skip("this machine has no address but loopback")
    return addresses[0]


@pytest.fixture
def network(controller: ServerController, lan: InterfaceAddress) -> ServerState:
    return controller.start(ServerScope.NETWORK, free_port())


def ask(state: ServerState, lan: InterfaceAddress, secret: str | None, host: str = "") -> Answer:
    """A question from this computer's own address on the network, which counts as the network."""
    with Wire(state.port, host or lan.address) as wire:
        headers = {"Host": f"{host or lan.address}:{state.port}", "Content-Type": "image/png"}
        if secret is not None:
            headers["Authorization"] = f"Bearer {secret}"
        return wire.request("POST", "/predict/digits-keras", b"picture", **headers).answer()


def test_a_key_made_on_the_page_lets_in_at_once_and_ends_at_once(
    controller: ServerController, network: ServerState, lan: InterfaceAddress
) -> None:
    assert controller.named_keys() == ()
    info = controller.add_key("lab 1", models=("digits-keras",), per_minute=60)
    assert ask(network, lan, info.secret).status == 200
    (listed,) = controller.named_keys()
    assert (listed.name, listed.ends, listed.models, listed.per_minute) == ("lab 1", info.ends, ("digits-keras",), 60)
    assert listed.last_used is not None
    assert controller.remove_key("lab 1")
    assert ask(network, lan, info.secret).status == 401
    assert not controller.remove_key("lab 1")
    assert controller.restore_key("lab 1")
    assert ask(network, lan, info.secret).status == 200, "a removal can be taken back"
    assert not controller.restore_key("lab 1")
    with pytest.raises(SettingsInvalid, match="already"):
        controller.add_key("lab 1")


def test_a_paused_key_asks_nothing_and_the_others_go_on(
    controller: ServerController, network: ServerState, lan: InterfaceAddress
) -> None:
    one, two = controller.add_key("one"), controller.add_key("two")
    controller.pause_key("one", True)
    refused = ask(network, lan, one.secret)
    assert (refused.status, refused.code) == (403, "key_rights")
    assert ask(network, lan, two.secret).status == 200
    assert controller.state.paused_keys == ("one",)
    assert controller.state.refusals[0].code == "key_paused"
    controller.pause_key("one", False)
    assert ask(network, lan, one.secret).status == 200


def test_a_paused_network_is_told_to_come_back_and_this_computer_is_answered(
    controller: ServerController, network: ServerState, lan: InterfaceAddress
) -> None:
    assert network.key is not None
    secret = network.key.secret
    controller.pause(True)
    refused = ask(network, lan, secret)
    assert (refused.status, refused.code, refused.headers["retry-after"]) == (503, "busy", "10")
    assert ask(network, lan, None, host="127.0.0.1").status == 200
    address = f"{lan.address}:{network.port}"
    assert get(network.port, "/models", host=lan.address, Host=address, **auth_of(secret)).status == 200
    assert controller.state.paused
    controller.pause(False)
    assert ask(network, lan, secret).status == 200


def auth_of(secret: str | None) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def test_what_is_held_back_outlives_a_change_of_port(controller: ServerController, lan: InterfaceAddress) -> None:
    state = controller.start(ServerScope.NETWORK, free_port())
    controller.block(lan.address, True)
    assert ask(state, lan, None).code == "not_allowed"
    state = controller.start(ServerScope.NETWORK, free_port())
    assert ask(state, lan, None).code == "not_allowed"
    assert get(state.port, "/health/live", host=lan.address, Host=f"{lan.address}:{state.port}").status == 403
    assert controller.state.blocked == (lan.address,)
    controller.block(lan.address, False)
    assert ask(state, lan, None).code == "key_required"


def test_a_block_and_a_pause_hold_for_every_protocol(engine: FakeEngine) -> None:
    for path in ("/predict/digits-keras", "/v2/models/digits-keras/infer", "/v1/models/digits-keras:predict"):
        shut_out = Door2Client(engine, replace(KEYED, denied=frozenset({LAN["REMOTE_ADDR"]})))
        assert shut_out.ask("POST", path, data=b"x", headers=AUTH, environ_overrides=LAN).status_code == 403
        paused = Door2Client(engine, replace(KEYED, paused=True))
        response = paused.ask("POST", path, data=b"x", headers=AUTH, environ_overrides=LAN)
        assert (response.status_code, response.headers["Retry-After"]) == (503, "10")
        assert paused.ask("POST", path, data=b"x").status_code != 503, "this computer is not the network"


def test_the_golden_key_of_the_server_is_no_name_of_a_kept_key() -> None:
    assert NAME.fullmatch(GOLDEN_KEY) is None


def test_a_caller_from_elsewhere_is_seen_and_this_computer_is_none(
    make_controller: Callable[..., ServerController], lan: InterfaceAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    controller = make_controller(allowed_hosts=[lan.address])
    state = controller.start(ServerScope.NETWORK, free_port())
    assert state.key is not None
    assert ask(state, lan, state.key.secret).status == 200
    assert (controller.state.callers, controller.state.reached_at) == ((), None), "its own address proves nothing"
    monkeypatch.setattr(controller_module, "lan_addresses", lambda: ())
    state = controller.start_at(ServeOptions("0.0.0.0", free_port()))
    assert state.started_at is not None
    assert ask(state, lan, "wrong").status in (401, 403)
    assert controller.state.callers == (), "who was refused was not reached"
    assert state.key is not None
    secret = state.key.secret or ""
    with Wire(state.port, lan.address) as wire:
        answer = wire.request("GET", "/models", Host=f"{lan.address}:{state.port}", **auth_of(secret)).answer()
    assert answer.status == 200
    assert controller.state.callers == (lan.address,)
    assert controller.state.reached_at is not None
    assert controller.state.reached_at >= state.started_at


def test_callers_are_bounded() -> None:
    door = Door(RULES)
    for number in range(CALLERS + 10):
        door.note_caller(f"10.0.{number // 250}.{number % 250}")
    assert len(door.callers()) == CALLERS
    assert "10.0.0.0" not in door.callers()


def test_the_newest_log_lines_are_kept_where_no_file_is_written(
    make_controller: Callable[..., ServerController], tmp_path: Path
) -> None:
    controller = make_controller(request_log="off")
    state = controller.start(ServerScope.COMPUTER, free_port())
    assert get(state.port, "/models").status == 200
    lines = [orjson.loads(line) for line in controller.log_lines()]
    assert [line["path"] for line in lines] == ["/health/live", "/models"]
    assert not (tmp_path / "data" / "logs").exists()


def test_reach_asks_each_address(controller: ServerController, network: ServerState, lan: InterfaceAddress) -> None:
    assert controller.check_reach().failed == ()
    gone = f"http://127.0.0.1:{free_port()}"
    assert check_reach([network.urls[0].url, gone], network.port).failed == (gone,)


RULE = "### tuple ### {} tcp {} {} any {} {}\n"


@pytest.mark.parametrize(
    ("rules", "policy", "let_in"),
    [
        (RULE.format("allow", 8765, "0.0.0.0/0", "0.0.0.0/0", "in"), "DROP", True),
        (RULE.format("limit", "8000:9000", "0.0.0.0/0", "0.0.0.0/0", "in"), "DROP", True),
        (RULE.format("deny", 8765, "0.0.0.0/0", "0.0.0.0/0", "in"), "ACCEPT", False),
        (RULE.format("allow", 8765, "0.0.0.0/0", "0.0.0.0/0", "out"), "DROP", False),
        (RULE.format("allow", 8765, "0.0.0.0/0", "192.168.1.7", "in"), "DROP", None),
        (RULE.format("allow", 8765, "0.0.0.0/0", "0.0.0.0/0", "in_eth0"), "DROP", None),
        (RULE.format("allow", 22, "0.0.0.0/0", "0.0.0.0/0", "in"), "DROP", False),
        ("### tuple ### allow any 8765 0.0.0.0/0 any 0.0.0.0/0 Deskside - in\n", "DROP", True),
        ("### tuple ### allow_log tcp 8765 0.0.0.0/0 any 0.0.0.0/0 in comment=6c6162\n", "DROP", True),
        ("", "ACCEPT", True),
        ("", "DROP", False),
        ("", None, None),
        (None, "DROP", None),
    ],
    ids=["open", "range", "shut", "out", "one caller", "one card", "other port", "by profile", "logged",
         "open by default", "shut by default", "default unread", "rules unread"],
)  # fmt: skip
def test_ufw_is_read_where_it_may_be(
    tmp_path: Path, rules: str | None, policy: str | None, let_in: bool | None
) -> None:
    ufw = tmp_path / "ufw"
    ufw.mkdir()
    (ufw / "ufw.conf").write_text("# comment\nENABLED=yes\n")
    if rules is not None:
        (ufw / "user.rules").write_text(rules)
    if policy is not None:
        (tmp_path / "default").mkdir()
        (tmp_path / "default" / "ufw").write_text(f'IPV6=yes\nDEFAULT_INPUT_POLICY="{policy}"\n')
    assert read_firewall(8765, ufw) == ("ufw", let_in)


@pytest.mark.skipif(os.name == "nt", reason="a shell script stands in for firewall-cmd")
@pytest.mark.parametrize(("status", "let_in"), [(0, True), (1, False), (252, None)])
def test_firewalld_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, let_in: bool | None) -> None:
    command = tmp_path / "firewall-cmd"
    command.write_text(f'#!/bin/sh\n[ "$1" = --state ] && exit 0\n[ "$1" = --query-port=8765/tcp ] && exit {status}\n')
    command.chmod(command.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert read_firewall(8765, tmp_path / "no ufw") == ("firewalld", let_in)


def test_no_firewall_is_not_called_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert read_firewall(8765, tmp_path) == ("", None)


def test_refusals_of_the_owner_have_our_shape(engine: FakeEngine) -> None:
    http = Door2Client(engine, replace(RULES, denied=frozenset({LAN["REMOTE_ADDR"]})))
    assert code(http.ask("GET", "/models", environ_overrides=LAN)) == "not_allowed"


def test_other_settings_reopen_the_listener_and_nothing_else(
    controller: ServerController, network: ServerState, lan: InterfaceAddress, engine: FakeEngine
) -> None:
    assert network.key is not None
    secret = network.key.secret
    smaller = ServerSettings.model_validate({"body_bytes": 1024, "cors_origins": ["https://lab.example"]})
    state = controller.apply(smaller)
    assert (state.phase, state.scope, state.port) == (ServerPhase.RUNNING, ServerScope.NETWORK, network.port)
    assert ask(state, lan, secret).status == 200
    with Wire(state.port, lan.address) as wire:
        headers = {"Host": f"{lan.address}:{state.port}", **auth_of(secret)}
        large = wire.request("POST", "/predict/digits-keras", b"x" * 2000, **headers).answer()
    assert (large.status, large.code) == (413, "body_too_large")
    assert engine.unloaded == []
    open_door = controller.apply(ServerSettings.model_validate({"require_key": False}))
    assert not open_door.key_required
    assert ask(open_door, lan, None).status == 200
    asked = [orjson.loads(line)["key"] for line in controller.log_lines() if b"/predict/" in line.encode()]
    assert asked == ["window", None], "the log goes on"


def test_settings_of_a_server_that_is_off_wait_for_its_start(controller: ServerController) -> None:
    state = controller.apply(ServerSettings.model_validate({"body_bytes": 1024}))
    assert state.phase is ServerPhase.STOPPED
    port = controller.start(ServerScope.COMPUTER, free_port()).port
    with Wire(port) as wire:
        assert wire.request("POST", "/predict/digits-keras", b"x" * 2000).answer().status == 413


def test_keys_of_the_command_line_hold_in_a_running_server(
    controller: ServerController, network: ServerState, lan: InterfaceAddress, tmp_path: Path
) -> None:
    """Another process makes and ends keys in the same file; neither side writes over the other's."""
    elsewhere = KeyStore(tmp_path / "data" / "keys.json")
    theirs = elsewhere.add("from a terminal")

    def known() -> set[str]:
        assert controller._running is not None
        return {key.name for key in controller._running.door.rules.keys}

    until(lambda: "from a terminal" in known(), "the new key is read")
    assert ask(network, lan, theirs.secret).status == 200
    ours = controller.add_key("from the window")
    assert {info.name for info in elsewhere.infos()} == {"window", "from a terminal", "from the window"}
    assert ask(network, lan, ours.secret).status == 200
    assert network.key is not None
    assert ask(network, lan, network.key.secret).status == 200, "the window's own key goes on"
    elsewhere.remove("from the window")
    until(lambda: "from the window" not in known(), "the end is read")
    assert ask(network, lan, ours.secret).status == 401
    renewed = elsewhere.renew("window")
    until(lambda: controller.state.key is not None and controller.state.key.ends == renewed.ends, "it is read")
    assert ask(network, lan, renewed.secret).status == 200
    assert controller.state.key is not None
    assert controller.state.key.secret is None, "it is not known here"


def test_blocks_asked_at_once_all_hold_and_need_no_key_file(
    controller: ServerController, network: ServerState, tmp_path: Path
) -> None:
    """Both wait for the switch; and the key file cannot be read meanwhile."""
    keys = tmp_path / "data" / "keys.json"
    keys.unlink()
    keys.mkdir()
    addresses = [f"10.0.0.{number}" for number in range(1, 5)]
    askers = [threading.Thread(target=controller.block, args=(address, True)) for address in addresses]
    with controller._switch:
        for asker in askers:
            asker.start()
    for asker in askers:
        asker.join(20)
    assert controller.state.blocked == tuple(addresses)
    assert controller._running is not None
    assert controller._running.door.rules.denied == frozenset(addresses)


def test_a_pause_is_of_the_key_and_not_of_its_name(controller: ServerController) -> None:
    controller.add_key("lab")
    controller.pause_key("lab", True)
    assert controller.state.paused_keys == ("lab",)
    controller.remove_key("lab")
    assert controller.state.paused_keys == ()
    controller.add_key("lab")
    assert controller.state.paused_keys == ()


def test_the_window_s_own_name_is_no_key_of_others(controller: ServerController) -> None:
    with pytest.raises(SettingsInvalid, match="choose another name"):
        controller.add_key("window")
