"""What the engine writes: settings, consents, journal. Killed half-way, damaged, read-only, full."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import threading
from pathlib import Path

import pytest

from engine import journal as journal_module
from engine.consent import ConsentStore, fingerprint
from engine.errors import ModelUnreadable, SettingsInvalid
from engine.journal import AGGREGATE_ABOVE, Journal
from engine.model_spec import ModelSpec, fake_spec
from engine.serving_types import RequestRecord, RequestState
from engine.settings import Settings, SettingsStore, replace_setting, write_atomically


def test_settings_survive_a_round_trip(tmp_path: Path) -> None:
    store = SettingsStore(tmp_path / "settings.json")
    changed = replace_setting(Settings(), "server", port=9000)
    store.save(changed)
    assert store.load() == changed
    assert store.notice is None


def test_no_file_means_the_defaults_without_a_notice(tmp_path: Path) -> None:
    store = SettingsStore(tmp_path / "settings.json")
    assert store.load() == Settings()
    assert store.notice is None


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'{"server": {"port": "8765"}}', b'{"server": {"port": 70000}}', b'{"colour": 1}', b"\xff\xfe"],
)
def test_a_damaged_file_falls_back_to_the_last_good_copy_and_says_so(tmp_path: Path, content: bytes) -> None:
    store = SettingsStore(tmp_path / "settings.json")
    first, second = replace_setting(Settings(), "server", port=9000), replace_setting(Settings(), "server", port=9001)
    store.save(first)
    store.save(second)
    store.path.write_bytes(content)
    assert store.load() == first
    assert store.notice
    assert "last good copy" in store.notice
    store.backup.unlink()
    assert store.load() == Settings()
    assert store.notice
    assert "defaults" in store.notice


def test_a_damaged_file_never_becomes_the_last_good_copy(tmp_path: Path) -> None:
    store = SettingsStore(tmp_path / "settings.json")
    good = replace_setting(Settings(), "server", port=9000)
    store.save(good)
    store.save(good)
    store.path.write_bytes(b"{")
    store.save(Settings())
    assert SettingsStore._read(store.backup) == good


def test_a_wrong_setting_names_its_key() -> None:
    with pytest.raises(SettingsInvalid, match=r"server\.port"):
        replace_setting(Settings(), "server", port=-1)


def test_a_write_that_fails_leaves_the_old_file_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f"
    write_atomically(path, b"old")

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def spec_of(*files: Path) -> ModelSpec:
    values = fake_spec(files[0]).to_json() | {"files": [str(f) for f in files], "model_file": str(files[0])}
    return ModelSpec.from_json(values)


def test_consent_is_bound_to_every_byte_and_name(tmp_path: Path) -> None:
    one, two = tmp_path / "m.pt", tmp_path / "extra.bin"
    one.write_bytes(b"a" * 3_000_000)
    two.write_bytes(b"b")
    both = fingerprint(spec_of(one, two))
    assert both == fingerprint(spec_of(two, one))
    store = ConsentStore(tmp_path / "consents.json")
    assert not store.is_consented(both)
    store.consent(both, spec_of(one, two))
    assert ConsentStore(tmp_path / "consents.json").is_consented(both)
    two.write_bytes(b"c")
    assert not store.is_consented(fingerprint(spec_of(one, two)))
    two.write_bytes(b"b")
    two.rename(tmp_path / "renamed.bin")
    assert not store.is_consented(fingerprint(spec_of(one, tmp_path / "renamed.bin")))


def test_a_consent_file_nobody_can_read_consents_to_nothing(tmp_path: Path) -> None:
    path = tmp_path / "consents.json"
    path.write_text("[1, 2")
    assert not ConsentStore(path).is_consented("ab" * 32)


def test_hashing_names_the_file_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(ModelUnreadable, match=r"gone\.pt"):
        fingerprint(spec_of(tmp_path / "gone.pt"))


def record(number: int, at: float = 1000.0, state: RequestState = RequestState.ANSWERED) -> RequestRecord:
    return RequestRecord(f"r{number}", at, "lan", "ana", "digits", state, 10, 1.0, 2.0)


def test_the_journal_keeps_requests_and_learns_stages(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite3"
    journal = Journal(path)
    journal.record_request(record(1))
    journal.record_load("digits", "/m", "ready", {"building": 1.5})
    journal.record_load("digits", "/m", "load_failed", {"building": 9.0})
    assert journal.learnt_stages("/m") == {"building": 1.5}
    journal.close()
    again = Journal(path)
    assert again.learnt_stages("/m") == {"building": 1.5}
    assert again.learnt_stages("/other") == {}
    again.close()
    with sqlite3.connect(path) as db:
        assert db.execute("SELECT request, state FROM requests").fetchall() == [("r1", "answered")]
    db.close()


def test_above_two_hundred_a_second_the_journal_keeps_sums(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite3"
    journal = Journal(path)
    for number in range(AGGREGATE_ABOVE + 50):
        journal.record_request(record(number, state=RequestState.LATE if number % 2 else RequestState.ANSWERED))
    journal.close()
    db = sqlite3.connect(path)
    rows = db.execute("SELECT count(*) FROM requests").fetchone()[0]
    sums = db.execute("SELECT sum(answered), sum(failed) FROM seconds").fetchone()
    db.close()
    assert rows == AGGREGATE_ABOVE
    assert sums == (25, 25)


def test_sums_are_written_while_the_journal_runs_and_add_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "SECONDS_EVERY_S", 0.05)
    path = tmp_path / "journal.sqlite3"
    journal = Journal(path)

    def told() -> list[tuple[int, int]]:
        with contextlib.closing(sqlite3.connect(path)) as db:
            try:
                return db.execute("SELECT answered, failed FROM seconds").fetchall()
            except sqlite3.OperationalError:
                return []  # not made yet

    pause = threading.Event()
    sent = 0
    for expected in (7, 12):
        while sent < AGGREGATE_ABOVE + expected:
            journal.record_request(record(sent))
            sent += 1
        for _ in range(400):
            if told() == [(expected, 0)]:
                break
            pause.wait(0.05)
        assert told() == [(expected, 0)]
    journal.close()
    assert told() == [(12, 0)]


def test_a_journal_that_cannot_be_written_says_so_once(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    told: list[str] = []
    heard = threading.Event()
    journal = Journal(blocked / "journal.sqlite3", lambda sentence: (told.append(sentence), heard.set())[0])
    assert heard.wait(10)
    for number in range(5):
        journal.record_request(record(number))
    journal.close()
    assert len(told) == 1


def test_a_damaged_journal_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite3"
    path.write_bytes(b"this is no database" * 100)
    journal = Journal(path)
    journal.record_request(record(1))
    journal.close()
    db = sqlite3.connect(path)
    assert db.execute("SELECT count(*) FROM requests").fetchone() == (1,)
    db.close()
    assert (tmp_path / "journal.sqlite3.damaged").exists()


def test_the_bundled_fingerprints_are_hex() -> None:
    from engine.consent import bundled_fingerprints

    for key in bundled_fingerprints():
        assert len(key) == 64
        assert json.dumps(key)
