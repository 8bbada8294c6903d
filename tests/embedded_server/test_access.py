"""The head check as tables: Host, Origin, Fetch Metadata, keys, paths."""

from __future__ import annotations

import ast
import base64
import inspect
from dataclasses import replace

import pytest

from embedded_server import access
from embedded_server.access import (
    AccessRules,
    BadKeyLog,
    Decision,
    KeyDigest,
    check_head,
    key_digest,
    network_of,
    normal_peer,
)
from embedded_server.addresses import host_rules
from engine.prediction import Lane

SECRET = "s3cret-" + "x" * 36
HOSTS, ORIGINS = host_rules(("localhost", "127.0.0.1", "[::1]", "192.168.1.24", "desk.local"), 8765)
OPEN = AccessRules(HOSTS, ORIGINS)
KEYED = replace(OPEN, keys=(KeyDigest("old", b"\0" * 32), KeyDigest("phones", key_digest(SECRET))), key_required=True)
HOST = ("Host", "localhost:8765")
LAN_PEER = "192.168.1.77"


def head(
    *headers: tuple[str, str],
    method: str = "GET",
    target: str = "/models",
    peer: str = "127.0.0.1",
    rules: AccessRules = OPEN,
) -> Decision:
    return check_head(method, target, headers, peer, rules)


@pytest.mark.parametrize(
    "host",
    ["localhost:8765", "LOCALHOST:8765", "127.0.0.1:8765", "[::1]:8765", "192.168.1.24:8765", "desk.local:8765"],
)
def test_own_host_passes(host: str) -> None:
    assert head(("Host", host)).allowed


@pytest.mark.parametrize(
    ("hosts", "status"),
    [
        ((), 400),
        (("",), 400),
        ((" ",), 400),
        (("localhost:8765", "localhost:8765"), 400),
        (("localhost:8765", "evil.example"), 400),
        (("localhost:8765, evil.example",), 400),
        (("localhost:8765,localhost:8765",), 400),
        (("evil.example",), 403),
        (("evil.example:8765",), 403),
        (("localhost",), 403),
        (("localhost:1",), 403),
        (("localhost.:8765",), 403),
        (("localhost.evil.example:8765",), 403),
        (("localhost:8765@evil.example",), 403),
        (("localhost@evil:8765",), 403),
        (("127.0.0.1:8765 ",), 403),
        (("0.0.0.0:8765",), 403),
    ],
)
@pytest.mark.parametrize("rules", [OPEN, KEYED], ids=["loopback", "lan"])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "OPTIONS"])
def test_c1_c2_c3_other_hosts_are_refused(hosts: tuple[str, ...], status: int, rules: AccessRules, method: str) -> None:
    decision = head(*(("host", value) for value in hosts), method=method, rules=rules)
    assert (decision.allowed, decision.status, decision.code) == (False, status, "bad_host")


def test_a_bare_host_is_ours_on_port_80_only() -> None:
    hosts, origins = host_rules(("localhost",), 80)
    assert hosts == {"localhost:80", "localhost"}
    assert origins == {"http://localhost:80", "http://localhost"}


@pytest.mark.parametrize("origin", ["http://localhost:8765", "http://192.168.1.24:8765", "HTTP://desk.local:8765"])
def test_own_origins_pass(origin: str) -> None:
    assert head(HOST, ("Origin", origin), method="POST").allowed


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "null",
        "file://",
        "http://localhost:1",
        "http://localhost",
        "https://localhost:8765",
        "http://localhost:8765.evil.example",
        "http://localhost:8765, http://evil.example",
        "",
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("target", ["/models", "/", "/health/live"])
def test_c4_foreign_origins_are_refused(origin: str, method: str, target: str) -> None:
    decision = head(HOST, ("Origin", origin), method=method, target=target)
    assert (decision.status, decision.code) == (403, "bad_origin")


@pytest.mark.parametrize("site", ["cross-site", "same-site", "something-new"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_c5_cross_site_is_refused_without_an_origin(site: str, method: str) -> None:
    decision = head(HOST, ("Sec-Fetch-Site", site), method=method)
    assert (decision.status, decision.code) == (403, "bad_origin")


@pytest.mark.parametrize("site", ["same-origin", "none"])
def test_own_fetches_pass(site: str) -> None:
    assert head(HOST, ("Sec-Fetch-Site", site), method="POST").allowed


@pytest.mark.parametrize(
    ("target", "method", "mode", "dest", "allowed"),
    [
        ("/", "GET", "navigate", "document", True),
        ("/docs", "GET", "navigate", "document", True),
        ("/?x=1", "GET", "navigate", None, True),
        ("/", "GET", "navigate", "iframe", False),
        ("/", "GET", "no-cors", "image", False),
        ("/", "POST", "navigate", "document", False),
        ("/models", "GET", "navigate", "document", False),
        ("/page.js", "GET", "no-cors", "script", False),
    ],
)
def test_a_link_elsewhere_opens_the_pages_only(
    target: str, method: str, mode: str, dest: str | None, allowed: bool
) -> None:
    headers = [HOST, ("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", mode)]
    if dest:
        headers.append(("Sec-Fetch-Dest", dest))
    assert head(*headers, method=method, target=target).allowed is allowed


def test_c7_preflights_are_refused_even_from_our_own_origin() -> None:
    preflight = (HOST, ("Origin", "http://localhost:8765"), ("Access-Control-Request-Method", "POST"))
    assert head(*preflight, method="OPTIONS").status == 403


def bearer(secret: str) -> tuple[str, str]:
    return ("Authorization", f"Bearer {secret}")


def basic(secret: str) -> tuple[str, str]:
    return ("Authorization", "Basic " + base64.b64encode(f"anyone:{secret}".encode()).decode())


@pytest.mark.parametrize("header", [bearer(SECRET), basic(SECRET), ("authorization", f"bearer  {SECRET}")])
def test_the_key_lets_in_and_names_the_client(header: tuple[str, str]) -> None:
    decision = head(HOST, header, peer=LAN_PEER, rules=KEYED)
    assert decision == Decision(True, 200, "", "", Lane.LAN, LAN_PEER, KEYED.keys[1], "read")
    assert decision.key_name == "phones"


@pytest.mark.parametrize(
    ("headers", "target", "reason"),
    [
        ((), "/models", "key_required"),
        ((), f"/models?key={SECRET}&api_key={SECRET}&access_token={SECRET}", "key_required"),
        ((bearer("wrong"),), "/models", "key_invalid"),
        ((bearer(""),), "/models", "key_invalid"),
        (((("Authorization", "Bearer")),), "/models", "key_invalid"),
        ((bearer(SECRET[:-1]),), "/models", "key_invalid"),
        ((bearer(SECRET + "x"),), "/models", "key_invalid"),
        ((bearer("s\xe9cret\udcff"),), "/models", "key_invalid"),
        ((("Authorization", SECRET),), "/models", "key_invalid"),
        ((("Authorization", f"Digest {SECRET}"),), "/models", "key_invalid"),
        ((("Authorization", "Basic !!!"),), "/models", "key_invalid"),
        ((basic(""),), "/models", "key_invalid"),
        ((bearer(SECRET), bearer(SECRET)), "/models", "key_invalid"),
        ((("X-API-Key", SECRET), ("Cookie", f"key={SECRET}")), "/models", "key_required"),
    ],
)
def test_c35_everything_else_reads_the_same_401(headers: tuple[tuple[str, str], ...], target: str, reason: str) -> None:
    decision = head(HOST, *headers, target=target, peer=LAN_PEER, rules=KEYED)
    assert decision == Decision(False, 401, "key_required", reason, Lane.LAN, LAN_PEER)


@pytest.mark.parametrize("peer", ["127.0.0.1", "::1", "::ffff:127.0.0.1"])
def test_this_computer_is_exempt_where_the_rules_say_so(peer: str) -> None:
    assert head(HOST, peer=peer, rules=KEYED).allowed
    assert head(HOST, peer=peer, rules=KEYED).lane is Lane.LOOPBACK
    assert head(HOST, peer=peer, rules=replace(KEYED, loopback_exempt=False)).status == 401


@pytest.mark.parametrize("peer", ["127.0.0.2", "192.168.1.24", "fe80::1%eth0", ""])
def test_other_peers_are_the_lan(peer: str) -> None:
    decision = head(HOST, peer=peer, rules=KEYED)
    assert (decision.status, decision.lane) == (401, Lane.LAN)


def test_peers_are_compared_in_one_form() -> None:
    assert normal_peer("::ffff:10.0.0.1") == "10.0.0.1"
    assert normal_peer("FE80::1%eth0") == "fe80::1"


@pytest.mark.parametrize(
    ("method", "target", "keyless"),
    [
        ("GET", "/", True),
        ("GET", "/docs", True),
        ("GET", "/page.js", True),
        ("GET", "/page.css", True),
        ("GET", "/icon.svg", True),
        ("GET", "/health/live", True),
        ("GET", "/health/ready?x=1", True),
        ("GET", "/v2/health/live", True),
        ("POST", "/pair", True),
        ("GET", "/pair", False),
        ("GET", "/models", False),
        ("POST", "/predict/x", False),
        ("GET", "/v2", False),
        ("GET", "/v2/models/x/ready", False),
        ("GET", "/page.js/x", False),
        ("GET", "//", False),
        ("GET", "/health", False),
        ("GET", "/admin", False),
    ],
)
def test_the_keyless_list_is_this_one(method: str, target: str, keyless: bool) -> None:
    assert (head(HOST, method=method, target=target, peer=LAN_PEER, rules=KEYED).status != 401) is keyless


@pytest.mark.parametrize(
    "target",
    [
        "//models", "/models/", "/models//", "/./models", "/models/..", "/predict/../models", "/predict/a%2fb",
        "/predict/%2e%2e", "/predict/%252e", "/predict/a\\b", "/predict/a%5cb", "/predict/x%00", "/predict/a;b",
        "http://evil.example/models", "*", "", "models", "/models#x", "/predict/é", "/predict/a:b", "evil:443",
    ],
)  # fmt: skip
def test_c9_a_path_is_written_one_way_or_not_at_all(target: str) -> None:
    decision = head(HOST, target=target)
    assert (decision.status, decision.code) == (
        404,
        "model_not_found" if target.startswith("/predict/") else "not_found",
    )


def test_ten_wrong_keys_block_an_address_for_a_minute() -> None:
    now = 100.0
    log = BadKeyLog(lambda: now)
    for _ in range(access.BAD_KEYS):
        assert LAN_PEER not in log
        log.add(LAN_PEER)
    assert LAN_PEER in log
    assert "192.168.1.78" not in log
    now += access.BAD_KEY_WINDOW_S
    assert LAN_PEER not in log


def test_wrong_keys_spread_over_more_than_a_minute_block_nobody() -> None:
    now = 0.0
    log = BadKeyLog(lambda: now)
    for _ in range(3 * access.BAD_KEYS):
        log.add(LAN_PEER)
        now += 7.0
    assert LAN_PEER not in log


def test_the_log_of_wrong_keys_is_bounded() -> None:
    log = BadKeyLog(lambda: 0.0)
    for n in range(access.BAD_KEY_ADDRESSES + 1):
        for _ in range(access.BAD_KEYS):
            log.add(str(n))
    assert "0" not in log
    assert str(access.BAD_KEY_ADDRESSES) in log


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.168.1.7", "192.168.1.7"),
        ("::ffff:192.168.1.7", "192.168.1.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        ("not:an:address", "not:an:address"),
    ],
)
def test_an_ipv6_address_counts_as_its_network(address: str, network: str) -> None:
    assert network_of(address) == network
    log = BadKeyLog()
    for last in range(10):
        log.add(f"2001:db8::{last}")
    assert "2001:db8::ffff" in log
    assert "2001:db8:0:1::1" not in log


def test_a_blocked_address_gets_429_with_any_key_and_still_reaches_health() -> None:
    rules = replace(KEYED, blocked=frozenset({LAN_PEER, "127.0.0.1"}), loopback_exempt=False)
    assert head(HOST, bearer(SECRET), peer=LAN_PEER, rules=rules).status == 429
    assert head(HOST, target="/health/live", peer=LAN_PEER, rules=rules).allowed
    assert head(HOST, bearer(SECRET), peer="127.0.0.1", rules=rules).allowed


def test_no_key_material_is_compared_with_equals() -> None:
    tree = ast.parse(inspect.getsource(access))
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare) and any(isinstance(op, ast.Eq | ast.NotEq) for op in node.ops):
            text = ast.unparse(node)
            assert not any(word in text for word in ("secret", "sha256", "digest")), text
