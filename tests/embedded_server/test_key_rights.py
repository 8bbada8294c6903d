"""What a key may do, which models, how often and how many at once; and who shares with whom."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from embedded_server.access import RIGHTS, KeyDigest, check_head, key_digest, needed_right
from embedded_server.controller import ServeOptions, ServerController
from embedded_server.key_limits import KeyLimits
from embedded_server.keys import KeyStore
from embedded_server.openapi import operations
from engine.errors import SettingsInvalid
from tests.embedded_server.conftest import BOTH_WAYS, until
from tests.embedded_server.test_drain import release
from tests.embedded_server.wire import Wire
from tests.embedded_server.wsgi import KEYED, LAN, SECRET, Door2Client
from tests.fakes import FakeEngine

hot_lane = BOTH_WAYS

AUTH = {"Authorization": f"Bearer {SECRET}"}


def door(engine: FakeEngine, **facts: Any) -> Door2Client:
    key = KeyDigest("class", key_digest(SECRET), **facts)
    return Door2Client(engine, rules=replace(KEYED, keys=(key,)))


def ask(http: Door2Client, method: str, path: str) -> Any:
    return http.ask(method, path, data=b"x" if method == "POST" else None, headers=AUTH, environ_overrides=LAN)


def test_every_route_needs_the_right_that_fits_it(engine: FakeEngine) -> None:
    for op in operations():
        path = op.path.replace("{model}", "digits-keras").replace("{version}", "1").replace("{label}", "stable")
        right, model = needed_right(op.method, path)
        if op.keyless:
            assert right == ""
            continue
        asks = op.method == "POST" and "repository" not in path
        assert right == ("infer" if asks else "read"), path
        assert model == ("digits-keras" if "{model}" in op.path else "")
        other = door(engine, rights=RIGHTS - {right})
        refused = ask(other, op.method, path)
        assert refused.status_code == 403, path
        assert "key may not" in refused.get_data(as_text=True)
        assert other.door.refusals.newest_first()[0].key == "class"


def test_a_key_is_for_its_models_alone(engine: FakeEngine) -> None:
    http = door(engine, models=frozenset({"wine"}))
    assert [entry["id"] for entry in ask(http, "GET", "/models").get_json()["models"]] == ["wine"]
    stats = ask(http, "GET", "/v2/models/stats").get_json()["model_stats"]
    assert [entry["name"] for entry in stats] == ["wine"]
    assert b'model="digits-keras"' not in ask(http, "GET", "/metrics").data
    assert ask(http, "POST", "/predict/wine").status_code == 200
    for path in ("/predict/stats", "/v2/models/stats/infer", "/v1/models/stats:predict"):
        assert ask(http, "POST", path).status_code == 403, "a model may be called stats, and is none of this key's"
    for method, path in (
        ("POST", "/predict/digits-keras"), ("POST", "/predict/nobody"), ("GET", "/v2/models/digits-keras"),
        ("POST", "/v2/models/digits-keras/infer"), ("GET", "/v1/models/digits-keras"),
        ("POST", "/v1/models/digits-keras:predict"), ("GET", "/v1/models/digits-keras/versions/1/metadata"),
        ("POST", "/v2/repository/models/digits-keras/unload"),
    ):  # fmt: skip
        assert ask(http, method, path).status_code == 403, path
    assert len(engine.requests) == 1


def test_a_key_that_is_shown_counts_where_none_is_needed(engine: FakeEngine) -> None:
    key = KeyDigest("class", key_digest(SECRET), models=frozenset())
    open_ = Door2Client(engine, rules=replace(KEYED, keys=(key,), key_required=False))
    assert open_.post().status_code == 200
    assert open_.post(headers=AUTH).status_code == 403


def test_so_many_a_minute(engine: FakeEngine) -> None:
    http = door(engine, per_minute=2)
    assert [ask(http, "POST", "/predict/wine").status_code for _ in range(3)] == [200, 200, 429]
    response = ask(http, "POST", "/predict/wine")
    assert (response.get_json()["error"]["code"], 1 <= int(response.headers["Retry-After"]) <= 60) == (
        "key_quota",
        True,
    )
    assert ask(http, "GET", "/models").status_code == 200  # reading is no question
    assert http.door.refusals.newest_first()[0].code == "key_quota"
    response = ask(http, "POST", "/v2/models/wine/infer")
    assert (response.status_code, list(response.get_json())) == (429, ["error"])


def test_the_minute_slides() -> None:
    now = 0.0
    limits = KeyLimits(lambda: now)
    key = KeyDigest("k", b"", per_minute=2)
    for second, wait in ((0.0, None), (30.0, None), (59.0, 1.0), (60.0, None), (61.0, 29.0)):
        now = second
        assert limits.enter(key) == wait
        if wait is None:
            limits.leave(key)


def test_so_many_at_once(make_controller: Callable[..., ServerController], engine: FakeEngine, tmp_path: Path) -> None:
    store = KeyStore(tmp_path / "data" / "keys.json")
    secret = store.add("robot", at_once=2).secret
    controller = make_controller()
    port = controller.start_at(ServeOptions(port=0, named_keys=True)).port
    headers = {"Authorization": f"Bearer {secret}"}
    engine.hold = True
    first = [Wire(port).request("POST", "/predict/wine", b"x", **headers) for _ in range(2)]
    until(lambda: len(engine.held) == 2, "two questions inside")
    with Wire(port) as third:
        answer = third.request("POST", "/predict/wine", b"x", **headers).answer()
        assert (answer.status, answer.code, answer.headers["retry-after"]) == (429, "key_quota", "1")
        with Wire(port) as without:
            assert without.request("GET", "/models").answer().status == 401
    release(engine)
    engine.hold = False
    assert [wire.answer().status for wire in first] == [200, 200]

    def answered() -> bool:
        with Wire(port) as later:
            return later.request("POST", "/predict/wine", b"x", **headers).answer().status == 200

    until(answered, "room again")
    for wire in first:
        wire.socket.close()
    controller.stop()
    (info,) = KeyStore(tmp_path / "data" / "keys.json").infos()
    assert (info.name, info.at_once) == ("robot", 2)
    assert info.last_used is not None
    assert info.last_used >= info.created_at


def test_a_keys_facts_survive_and_its_secret_does_not(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    store = KeyStore(path)
    made = store.add("lab 1", rights=frozenset({"infer"}), models=("wine",), per_minute=60, at_once=4)
    assert made.secret is not None
    assert made.secret not in path.read_text()
    assert path.stat().st_mode & 0o077 == 0
    (digest,) = KeyStore(path).digests()
    facts = (digest.rights, digest.models, digest.per_minute, digest.at_once)
    assert facts == (frozenset({"infer"}), frozenset({"wine"}), 60, 4)
    again = store.renew("lab 1")
    assert (again.rights, again.models, again.per_minute, again.at_once) == (("infer",), ("wine",), 60, 4)
    assert again.secret != made.secret
    assert store.remove("lab 1")
    assert not store.remove("lab 1")
    assert KeyStore(path).digests() == ()


def test_a_file_of_before_rights_has_all_of_them(tmp_path: Path) -> None:
    old = {"name": "window", "sha256": "00" * 32, "ends": "abcd", "created_at": 1.0}
    (tmp_path / "keys.json").write_bytes(orjson.dumps({"version": 1, "keys": [old]}))
    (digest,) = KeyStore(tmp_path / "keys.json").digests()
    assert (digest.rights, digest.models, digest.per_minute, digest.at_once) == (RIGHTS, None, None, None)


@pytest.mark.parametrize(
    "changes", [{"rights": ["all"]}, {"rights": []}, {"per_minute": 0}, {"at_once": True}, {"per_minute": "5"}]
)
def test_a_file_with_facts_that_are_none_lets_nobody_in(tmp_path: Path, changes: dict[str, Any]) -> None:
    entry = {"name": "x", "sha256": "00" * 32, "ends": "", "created_at": 1.0} | changes
    (tmp_path / "keys.json").write_bytes(orjson.dumps({"version": 1, "keys": [entry]}))
    assert KeyStore(tmp_path / "keys.json").digests() == ()
    assert (tmp_path / "keys.json.damaged").exists()


@pytest.mark.parametrize(
    ("name", "options"),
    [("", {}), ("../x", {}), ("a" * 41, {}), ("a\nb", {}), ("a", {"rights": frozenset({"all"})}),
     ("a", {"per_minute": 0}), ("a", {"rights": frozenset()})],
)  # fmt: skip
def test_keys_that_cannot_be_are_refused(tmp_path: Path, name: str, options: dict[str, Any]) -> None:
    with pytest.raises(SettingsInvalid):
        KeyStore(tmp_path / "keys.json").add(name, **options)
    assert not (tmp_path / "keys.json").exists()


def test_two_keys_cannot_have_one_name(tmp_path: Path) -> None:
    store = KeyStore(tmp_path / "keys.json")
    store.add("a")
    with pytest.raises(SettingsInvalid, match="already"):
        store.add("a")


def test_named_keys_need_one(make_controller: Callable[..., ServerController]) -> None:
    with pytest.raises(SettingsInvalid, match="deskside keys add"):
        make_controller().start_at(ServeOptions(port=0, named_keys=True))


def test_a_wrong_key_has_no_rights_to_look_up() -> None:
    headers = (("Host", "localhost:8765"), ("Authorization", "Bearer wrong"))
    decision = check_head("GET", "/models", headers, "192.168.1.77", KEYED)
    assert (decision.status, decision.key, decision.key_name) == (401, None, "")
