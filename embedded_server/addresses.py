"""Where this computer can be reached: interface addresses, URLs for people, and the Host values that name us."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass

import psutil

from embedded_server.access import AccessRules
from engine.serving_types import InterfaceKind, NetworkInterface, ServerUrl

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
THIS_COMPUTER = "this computer"
DEFAULT_PORTS = {"http": 80, "https": 443}
WILDCARDS = frozenset({"0.0.0.0", "::", ""})


# Names as Linux, macOS and Windows give them, and the programs that make such interfaces.
_VPN = re.compile(
    r"tun|tap|utun|wg|wireguard|ppp|ipsec|vpn|openvpn|nordlynx|proton|mullvad|tailscale|zt|zerotier|warp|gpd|cscotun",
    re.IGNORECASE,
)
_VIRTUAL = re.compile(
    r"docker|br-|veth|virbr|vnet|vmnet|vboxnet|virtualbox|vmware|vethernet|hyper-v|lxc|lxd|incus|cni|flannel|calico|"
    r"cali|podman|bridge\d|vmenet|awdl|llw|dummy|kube|waydroid",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class InterfaceAddress:
    """An IPv4 address of this computer, the name of the interface that has it, and what that leads to."""

    name: str
    address: str
    kind: InterfaceKind = InterfaceKind.NETWORK


def lan_addresses() -> tuple[InterfaceAddress, ...]:
    """The IPv4 addresses of every interface that is up, without loopback, in the system's order."""
    up = {name: stats.flags for name, stats in psutil.net_if_stats().items() if stats.isup}
    return tuple(
        InterfaceAddress(name, address.address, interface_kind(name, address.address, up[name]))
        for name, addresses in psutil.net_if_addrs().items()
        if name in up
        for address in addresses
        if address.family == socket.AF_INET and not ipaddress.ip_address(address.address).is_loopback
    )


def interface_kind(name: str, address: str, flags: str = "") -> InterfaceKind:
    """What an interface leads to, by its name and by ``flags`` (psutil's, empty on Windows): no system says it plainly.

    A link from point to point is a VPN's or a modem's: neither is the room that a person means by "network".
    """
    if _VPN.match(name) or "vpn" in name.lower() or "pointopoint" in flags.split(","):
        return InterfaceKind.VPN
    if _VIRTUAL.match(name):
        return InterfaceKind.VIRTUAL
    return InterfaceKind.SELF_ASSIGNED if ipaddress.ip_address(address).is_link_local else InterfaceKind.NETWORK


def chosen_addresses(lan: Iterable[InterfaceAddress], interfaces: Iterable[str]) -> tuple[InterfaceAddress, ...]:
    """Those of ``interfaces``, by name; where none is named, those of networks: no VPN's, no virtual machine's."""
    names = frozenset(interfaces)
    return tuple(a for a in lan if (a.name in names if names else a.kind is InterfaceKind.NETWORK))


def network_interfaces(lan: Iterable[InterfaceAddress], interfaces: Iterable[str]) -> tuple[NetworkInterface, ...]:
    """Every interface that there is or that was chosen, those of networks first."""
    named = tuple(dict.fromkeys(interfaces))
    found: dict[str, list[InterfaceAddress]] = {name: [] for name in named}
    for address in lan:
        found.setdefault(address.name, []).append(address)
    served = {address.name for address in chosen_addresses(lan, named)}
    listed = [
        NetworkInterface(
            name,
            tuple(address.address for address in addresses),
            addresses[0].kind if addresses else InterfaceKind.AWAY,
            name in served or name in named,
        )
        for name, addresses in found.items()
    ]
    return tuple(sorted(listed, key=lambda interface: (tuple(InterfaceKind).index(interface.kind), interface.name)))


def is_loopback(host: str) -> bool:
    """Whether ``host`` (a name or an address, IPv6 without brackets) is this computer only."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False


def is_address(host: str) -> bool:
    """Whether ``host`` is an IP address (IPv6 without brackets, with or without a zone)."""
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def url_host(host: str) -> str:
    """``host`` as it stands in a URL: IPv6 in brackets (RFC 3986 §3.2.2)."""
    return f"[{host}]" if ":" in host else host


def server_urls(host: str, port: int, lan: Iterable[InterfaceAddress], scheme: str = "http") -> tuple[ServerUrl, ...]:
    """Every address a person can type. For a wildcard ``host``: each of ``lan``, then this computer."""
    if host not in WILDCARDS:
        label = THIS_COMPUTER if is_loopback(host) else next((a.name for a in lan if a.address == host), host)
        return (ServerUrl(f"{scheme}://{url_host(host)}:{port}", label, is_loopback(host)),)
    own = "[::1]" if host == "::" else "127.0.0.1"
    urls = [ServerUrl(f"{scheme}://{a.address}:{port}", a.name, False) for a in lan if host != "::"]
    return (*urls, ServerUrl(f"{scheme}://{own}:{port}", THIS_COMPUTER, True))


def host_rules(
    names: Iterable[str], port: int, extra: Iterable[str] = (), scheme: str = "http"
) -> tuple[frozenset[str], frozenset[str]]:
    """(allowed Host values, own origins) for ``names`` on ``port``.

    Each name stands with the port; without it only on the scheme's own port, 80 or 443 (RFC 9110 §4.2). An entry of
    ``extra`` that has a port of its own stands as it is, for a proxy in front.
    """
    hosts: set[str] = set()
    for name in (*names, *extra):
        name = name.strip().lower()
        if not name:
            continue
        if _has_port(name):
            hosts.add(name)
            continue
        hosts.add(f"{name}:{port}")
        if port == DEFAULT_PORTS[scheme]:
            hosts.add(name)
    return frozenset(hosts), frozenset(f"{scheme}://{host}" for host in hosts)


def loopback_rules(port: int, allowed_hosts: Iterable[str] = ()) -> AccessRules:
    """This computer only, no key."""
    hosts, origins = host_rules(LOOPBACK_NAMES, port, allowed_hosts)
    return AccessRules(hosts, origins)


def own_names(host: str, lan: Iterable[InterfaceAddress]) -> tuple[str, ...]:
    """The names a client may put in Host where the server listens on ``host``: never more than loopback's for a
    loopback host."""
    if is_loopback(host):
        return (*LOOPBACK_NAMES, url_host(host))
    name = socket.gethostname()
    addresses = tuple(a.address for a in lan)
    given = () if host in WILDCARDS else (url_host(host),)
    return (*LOOPBACK_NAMES, *given, *addresses, name, f"{name}.local")


def _has_port(name: str) -> bool:
    head, colon, tail = name.rpartition(":")
    return bool(colon) and tail.isdecimal() and (head.endswith("]") or ":" not in head)
