"""The key store and key files: only digests at rest, renewed at once, damaged files let nobody in."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from embedded_server.access import key_digest
from embedded_server.keys import KeyStore, read_key_file
from engine.errors import SettingsInvalid

posix_only = pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_made_key_is_kept_as_its_digest_only(tmp_path: Path) -> None:
    store = KeyStore(tmp_path / "keys.json")
    assert (store.digests(), store.info("window")) == ((), None)
    made = store.renew("window")
    assert made.secret is not None
    assert len(made.secret) == 43
    assert made.ends == made.secret[-4:]
    text = store.path.read_text()
    assert made.secret not in text
    assert json.loads(text)["keys"][0]["sha256"] == key_digest(made.secret).hex()
    assert made.secret not in repr(made)
    assert store.info("window") == made


@posix_only
def test_the_file_is_the_owners_only(tmp_path: Path) -> None:
    store = KeyStore(tmp_path / "data" / "keys.json")
    store.renew("window")
    assert mode(store.path) == 0o600


def test_another_process_knows_the_key_but_not_its_secret(tmp_path: Path) -> None:
    made = KeyStore(tmp_path / "keys.json").renew("window")
    later = KeyStore(tmp_path / "keys.json")
    info = later.info("window")
    assert info is not None
    assert (info.ends, info.created_at, info.secret) == (made.ends, made.created_at, None)
    assert [digest.sha256 for digest in later.digests()] == [key_digest(made.secret or "")]


def test_renewing_ends_the_key_before_and_leaves_the_others(tmp_path: Path) -> None:
    store = KeyStore(tmp_path / "keys.json")
    first, other, second = store.renew("window"), store.renew("phones"), store.renew("window")
    assert first.secret != second.secret
    assert {digest.sha256 for digest in store.digests()} == {key_digest(k.secret or "") for k in (other, second)}


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"keys": [{}]}', '{"keys": [{"name": "w", "sha256": "00", "ends": "", "created_at": 1}]}', "\xff"],
)
def test_a_damaged_file_lets_nobody_in_and_is_kept(tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "keys.json"
    path.write_text(text, encoding="latin-1")
    store = KeyStore(path)
    assert store.digests() == ()
    assert path.with_name("keys.json.damaged").read_text(encoding="latin-1") == text
    assert "all keys have ended" in caplog.text
    store.renew("window")
    assert len(KeyStore(path).digests()) == 1


def test_a_missing_key_file_is_made_with_one_key(tmp_path: Path) -> None:
    path = tmp_path / "key.txt"
    info, keys = read_key_file(path)
    assert path.read_text() == f"{info.secret}\n"
    assert [key.sha256 for key in keys] == [key_digest(info.secret or "")]
    again, same = read_key_file(path)
    assert again.secret is None
    assert same == keys
    if os.name == "posix":
        assert mode(path) == 0o600


def test_a_key_file_holds_a_key_a_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "keys.txt"
    path.write_text("first-key-of-mine\n\n  second  \r\n")
    info, keys = read_key_file(path)
    assert [(key.name, key.sha256) for key in keys] == [
        ("key 1", key_digest("first-key-of-mine")),
        ("key 2", key_digest("second")),
    ]
    assert (info.ends, info.secret) == ("mine", None)
    if os.name == "posix":
        path.chmod(0o644)
        read_key_file(path)
        assert "can be read by other users" in caplog.text
    assert "first-key" not in caplog.text


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xff\xfe\x00"])
def test_a_key_file_without_keys_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "keys.txt"
    path.write_bytes(content)
    with pytest.raises(SettingsInvalid, match=r"keys\.txt"):
        read_key_file(path)


def test_a_key_file_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsInvalid, match="no-such-folder"):
        read_key_file(tmp_path / "no-such-folder" / "keys.txt")
    with pytest.raises(SettingsInvalid, match=tmp_path.name):
        read_key_file(tmp_path)
