"""The network as it is chosen: by interface, marked for what it leads to, and never wider when one goes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from embedded_server.addresses import InterfaceAddress, chosen_addresses, interface_kind, network_interfaces
from embedded_server.listening import bind_listeners
from engine.errors import ServerStartError
from engine.serving_types import InterfaceKind, NetworkInterface
from tests.embedded_server.conftest import listening
from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
BOUND_S = 240
HOME = InterfaceAddress("wlp2s0", "192.168.1.20")
CABLE = InterfaceAddress("eth0", "10.0.0.7")
TUNNEL = InterfaceAddress("wg0", "10.8.0.2", InterfaceKind.VPN)
BRIDGE = InterfaceAddress("docker0", "172.17.0.1", InterfaceKind.VIRTUAL)


@pytest.mark.parametrize(
    ("name", "address", "flags", "kind"),
    [
        ("eth0", "192.168.1.2", "up,broadcast,running", InterfaceKind.NETWORK),
        ("wlp0s20f3", "10.0.0.2", "up", InterfaceKind.NETWORK),
        ("Ethernet 2", "192.168.1.2", "", InterfaceKind.NETWORK),
        ("WLAN", "192.168.1.2", "", InterfaceKind.NETWORK),
        ("en0", "192.168.1.2", "up", InterfaceKind.NETWORK),
        ("bridge", "192.168.1.2", "up", InterfaceKind.NETWORK),
        ("br0", "192.168.1.2", "up", InterfaceKind.NETWORK),
        ("en0", "169.254.10.3", "up", InterfaceKind.SELF_ASSIGNED),
        ("tun0", "10.8.0.2", "up", InterfaceKind.VPN),
        ("utun4", "100.64.0.9", "up,pointopoint", InterfaceKind.VPN),
        ("wg-office", "10.8.0.2", "up", InterfaceKind.VPN),
        ("tailscale0", "100.64.0.9", "up", InterfaceKind.VPN),
        ("Tailscale", "100.64.0.9", "", InterfaceKind.VPN),
        ("ZeroTier One [a09acf02337]", "10.1.1.1", "", InterfaceKind.VPN),
        ("NordLynx", "10.5.0.2", "", InterfaceKind.VPN),
        ("Office VPN", "10.5.0.2", "", InterfaceKind.VPN),
        ("ppp0", "10.64.64.64", "up,pointopoint", InterfaceKind.VPN),
        ("anything", "10.64.64.64", "up,pointopoint,running", InterfaceKind.VPN),
        ("docker0", "172.17.0.1", "up", InterfaceKind.VIRTUAL),
        ("br-3f2a9c", "172.18.0.1", "up", InterfaceKind.VIRTUAL),
        ("virbr0", "192.168.122.1", "up", InterfaceKind.VIRTUAL),
        ("vboxnet0", "192.168.56.1", "up", InterfaceKind.VIRTUAL),
        ("vEthernet (WSL)", "172.22.0.1", "", InterfaceKind.VIRTUAL),
        ("VMware Network Adapter VMnet8", "192.168.80.1", "", InterfaceKind.VIRTUAL),
        ("bridge100", "192.168.64.1", "up", InterfaceKind.VIRTUAL),
    ],
)
def test_an_interface_is_marked_for_what_it_leads_to(name: str, address: str, flags: str, kind: InterfaceKind) -> None:
    assert interface_kind(name, address, flags) is kind


def test_without_a_choice_the_networks_are_served_and_no_vpn() -> None:
    assert chosen_addresses((TUNNEL, HOME, BRIDGE, CABLE), ()) == (HOME, CABLE)
    assert chosen_addresses((TUNNEL, HOME, BRIDGE, CABLE), ["wg0", "gone"]) == (TUNNEL,)
    assert chosen_addresses((HOME,), ["gone"]) == ()


def test_what_was_chosen_is_listed_also_while_it_is_away() -> None:
    second = InterfaceAddress("eth0", "10.0.0.8")
    assert network_interfaces((TUNNEL, HOME, CABLE, second), ()) == (
        NetworkInterface("eth0", ("10.0.0.7", "10.0.0.8"), InterfaceKind.NETWORK, True),
        NetworkInterface("wlp2s0", ("192.168.1.20",), InterfaceKind.NETWORK, True),
        NetworkInterface("wg0", ("10.8.0.2",), InterfaceKind.VPN, False),
    )
    assert network_interfaces((HOME, TUNNEL), ["wg0", "eth9"]) == (
        NetworkInterface("wlp2s0", ("192.168.1.20",), InterfaceKind.NETWORK, False),
        NetworkInterface("wg0", ("10.8.0.2",), InterfaceKind.VPN, True),
        NetworkInterface("eth9", (), InterfaceKind.AWAY, True),
    )


def test_listeners_share_a_port_and_leave_out_what_has_gone() -> None:
    before = listening()
    listeners = bind_listeners(("127.0.0.1", "127.0.0.2", "192.0.2.77"), 0)
    try:
        port = listeners["127.0.0.1"].getsockname()[1]
        assert listening() - before == {("127.0.0.1", port), ("127.0.0.2", port)}
    finally:
        for listener in listeners.values():
            listener.close()


def test_a_port_in_use_on_one_of_them_leaves_none_open() -> None:
    port = free_port()
    taken = bind_listeners(("127.0.0.2",), port)
    before = listening()
    try:
        with pytest.raises(ServerStartError) as raised:
            bind_listeners(("127.0.0.1", "127.0.0.2"), port)
        assert raised.value.code == "port_in_use"
        assert listening() == before
    finally:
        taken["127.0.0.2"].close()
    with pytest.raises(ServerStartError, match="has no address"):
        bind_listeners(("192.0.2.77", "127.0.0.1"), port)


def in_a_namespace(*command: str) -> list[str]:
    """``command`` in a network of its own; who is no root needs a namespace of users for that as well."""
    return ["unshare", "-n" if os.geteuid() == 0 else "-Urn", *command]


def namespaces() -> str:
    """Why a network of our own cannot be made here; "" where it can."""
    if sys.platform != "linux" or shutil.which("unshare") is None or shutil.which("ip") is None:
        return "needs unshare and ip (util-linux, iproute2)"
    probe = subprocess.run(
        in_a_namespace("ip", "link", "add", "a0", "type", "veth", "peer", "name", "a1"), capture_output=True
    )
    return probe.stderr.decode(errors="replace").strip()


@pytest.mark.parametrize("tls", ["off", "self-signed"])
def test_addresses_come_and_go_and_it_is_never_wider(tmp_path: Path, tls: str) -> None:
    """Twenty times an address goes and another comes, in a network namespace of its own: see network_moves.py."""
    if reason := namespaces():
        pytest.skip(f"no network namespace can be made here: {reason}")
    command = in_a_namespace(sys.executable, "-m", "tests.embedded_server.network_moves", str(tmp_path), tls)
    done = subprocess.run(command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, timeout=BOUND_S)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "moved 20 times"
