"""Restarts, suspects, ids, the children's environment: policy as data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from engine.identity import base_id, model_location, unique_id
from engine.settings import EngineLimits, WorkerSettings
from engine.supervisor import RestartPolicy, child_command, child_environment
from engine.suspects import Suspects


@dataclass
class Asked:
    """An input by its hash; ``size`` decides whether it is remembered by that or by itself."""

    content_hash: bytes
    size: int = 10


A, B = Asked(b"a"), Asked(b"b")


def test_pauses_double_up_to_the_last_and_stop_after_five() -> None:
    policy = RestartPolicy(EngineLimits, jitter=0.0)
    assert [policy.after_death(t) for t in range(6)] == [0.5, 1.0, 2.0, 4.0, 8.0, None]
    assert policy.after_death(30.0) is None


def test_old_deaths_are_forgotten() -> None:
    policy = RestartPolicy(EngineLimits, jitter=0.0)
    for t in range(5):
        policy.after_death(float(t))
    assert policy.after_death(65.0) == 0.5


def test_asking_again_forgets_every_death() -> None:
    policy = RestartPolicy(EngineLimits, jitter=0.0)
    for t in range(6):
        policy.after_death(float(t))
    policy.reset()
    assert policy.after_death(6.0) == 0.5


def test_an_input_is_suspected_once_and_kept_out_after_the_second_death() -> None:
    suspects = Suspects()
    suspects.died_with(A, alone=False, outside=False)
    assert suspects.is_suspect(A)
    assert not suspects.is_quarantined(A)
    suspects.died_with(A, alone=True, outside=False)
    assert suspects.is_quarantined(A)


def test_an_answered_suspect_is_cleared() -> None:
    suspects = Suspects()
    suspects.died_with(A, alone=False, outside=True)
    suspects.answered(A)
    assert not suspects.is_suspect(A)


def test_a_kill_from_outside_does_not_condemn_an_input_that_was_answered_before() -> None:
    suspects = Suspects()
    suspects.answered(A)
    for input_ in (A, B):
        suspects.died_with(input_, alone=False, outside=True)
        suspects.died_with(input_, alone=True, outside=True)
    assert suspects.is_suspect(A)
    assert not suspects.is_quarantined(A)
    assert suspects.is_quarantined(B)


def test_a_large_input_is_not_hashed_before_a_death_asks_for_it() -> None:
    class Large:
        size = 1 << 20
        hashed = 0

        @property
        def content_hash(self) -> bytes:
            self.hashed += 1
            return b"large"

    asked, again = Large(), Large()
    suspects = Suspects()
    assert not suspects.is_suspect(asked)
    assert not suspects.is_quarantined(asked)
    suspects.answered(asked)
    assert asked.hashed == 0
    suspects.died_with(again, alone=False, outside=True)
    assert suspects.is_suspect(asked)
    suspects.died_with(again, alone=True, outside=True)
    assert not suspects.is_quarantined(again), "it was answered before, and that input is still at hand"
    del asked
    suspects.died_with(again, alone=True, outside=True)
    assert suspects.is_quarantined(again)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("orchids/model.keras", "orchids"),
        ("orchids/best.pt", "orchids"),
        ("orchids/Saved_Model.pb", "orchids"),
        ("Flowers V3.pt", "flowers-v3"),
        ("Ünïcode.keras", "n-code"),
        ("resnet.v2.torchscript", "resnet.v2"),
        ("日本.pt", "model"),
        ("x" * 100 + ".pt", "x" * 64),
    ],
)
def test_ids_follow_the_contract(tmp_path: Path, path: str, expected: str) -> None:
    file = tmp_path / path
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"")
    assert base_id(file) == expected


def test_a_folder_gives_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "My Model.v2"
    folder.mkdir()
    assert base_id(folder) == "my-model.v2"


def test_a_folder_and_its_single_model_are_one_model(tmp_path: Path) -> None:
    folder = tmp_path / "digits"
    folder.mkdir()
    (folder / "model.keras").write_bytes(b"")
    (folder / "labels.txt").write_bytes(b"")
    link = tmp_path / "link"
    link.symlink_to(folder)
    assert model_location(folder) == model_location(folder / "model.keras") == model_location(link)
    (folder / "other.pt").write_bytes(b"")
    assert model_location(folder) == folder


def test_a_saved_model_is_its_folder(tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").write_bytes(b"")
    assert model_location(tmp_path / "saved_model.pb") == model_location(tmp_path) == tmp_path


def test_clashing_ids_are_numbered() -> None:
    taken = {"a", "a-2", "b" * 64}
    assert unique_id("a", taken.__contains__) == "a-3"
    assert unique_id("c", taken.__contains__) == "c"
    assert len(unique_id("b" * 64, taken.__contains__)) == 64


def test_a_child_gets_no_token_proxy_or_home(tmp_path: Path) -> None:
    parent = {
        "PATH": "/bin", "HOME": "/home/ana", "HF_TOKEN": "t", "https_proxy": "p", "AWS_SECRET_ACCESS_KEY": "k",
        "PYTHONSTARTUP": "x", "LD_PRELOAD": "evil.so", "CUDA_VISIBLE_DEVICES": "1", "LANG": "de_DE.UTF-8",
    }  # fmt: skip
    env = child_environment(WorkerSettings(), 2, tmp_path, parent)
    assert not {"HF_TOKEN", "https_proxy", "AWS_SECRET_ACCESS_KEY", "PYTHONSTARTUP", "LD_PRELOAD"} & set(env)
    assert env["HOME"] == str(tmp_path)
    assert env["CUDA_VISIBLE_DEVICES"] == "1"
    assert env["OMP_NUM_THREADS"] == "2"
    assert env["OMP_WAIT_POLICY"] == "PASSIVE"


def test_the_command_is_data_and_names_the_worker() -> None:
    assert "engine.worker" in child_command(WorkerSettings())
    assert child_command(WorkerSettings(command=["/opt/frozen", "engine.worker"]), "--inspect") == [
        "/opt/frozen", "engine.worker", "--inspect",
    ]  # fmt: skip
