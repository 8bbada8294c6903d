"""A program is opened after consent to exactly these files, and never again as other files."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from engine.errors import ConsentRequired, ModelChanged, ModelRefused
from engine.events import LoadStage, ModelState
from engine.model_spec import ModelSpec, TrustClass
from tests.engine.engine_harness import PATIENCE_S, assert_answers, fake, loaded, running_engine


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "model.pt"
    path.write_bytes(b"code" * 1000)
    return path


def as_program(path: Path, **options: object) -> ModelSpec:
    return replace(fake(**options), trust_class=TrustClass.PROGRAM, files=(path,), model_file=path, path=path)


def test_a_program_asks_first_and_remembers_the_consent(tmp_path: Path, program: Path) -> None:
    with running_engine(tmp_path) as (engine, _):
        with pytest.raises(ConsentRequired) as asked:
            engine.load(as_program(program)).future.result(PATIENCE_S)
        assert len(asked.value.fingerprint) == 64
        assert program.name in asked.value.message
        assert engine.load(as_program(program), trust=True).future.result(PATIENCE_S)["state"] == "READY"
    with running_engine(tmp_path) as (engine, _):
        loaded(engine, as_program(program))


def test_a_changed_program_asks_again(tmp_path: Path, program: Path) -> None:
    with running_engine(tmp_path) as (engine, _):
        engine.load(as_program(program), trust=True).future.result(PATIENCE_S)
        engine.unload("fake").result(PATIENCE_S)
        program.write_bytes(b"other code")
        with pytest.raises(ConsentRequired):
            engine.load(as_program(program)).future.result(PATIENCE_S)


def test_what_is_refused_is_refused_with_consent_too(tmp_path: Path, program: Path) -> None:
    refused = replace(as_program(program), trust_class=TrustClass.REFUSED)
    with running_engine(tmp_path) as (engine, _), pytest.raises(ModelRefused):
        engine.load(refused, trust=True).future.result(PATIENCE_S)


def test_a_file_that_changes_while_it_is_loaded_is_not_used(tmp_path: Path, program: Path) -> None:
    with running_engine(tmp_path) as (engine, watch):
        ticket = engine.load(as_program(program, load_s=2.0), trust=True)
        watch.until(lambda _: str(LoadStage.IMPORTING) in watch.stages())
        program.write_bytes(b"swapped under the loader")
        with pytest.raises(ModelChanged):
            ticket.future.result(PATIENCE_S)
        assert engine.stats()["models"] == []


def test_a_restart_never_runs_another_file(tmp_path: Path, program: Path) -> None:
    with running_engine(tmp_path) as (engine, watch):
        entry = engine.load(as_program(program), trust=True).future.result(PATIENCE_S)
        program.write_bytes(b"swapped behind the running model")
        assert_answers(engine, 1.0)
        os.kill(entry["worker_pid"], signal.SIGKILL)
        watch.until_state(ModelState.FAILED)
        assert engine.stats()["models"][0]["error"]["code"] == "model_changed"


def test_a_touched_but_equal_file_restarts(tmp_path: Path, program: Path) -> None:
    with running_engine(tmp_path) as (engine, watch):
        entry = engine.load(as_program(program), trust=True).future.result(PATIENCE_S)
        os.utime(program, (1, 1))
        os.kill(entry["worker_pid"], signal.SIGKILL)
        watch.until_state(ModelState.READY, times=2)
        assert_answers(engine, 1.0)


def test_a_file_cannot_ask_for_the_fake_runtime(tmp_path: Path) -> None:
    folder = tmp_path / "sneaky"
    folder.mkdir()
    (folder / "deskside.toml").write_text('runtime = "fake"\ntask = "raw-tensors"\n')
    (folder / "model.keras").write_bytes(b"PK\x05\x06" + bytes(18))
    with running_engine(tmp_path) as (engine, _):
        error = engine.load(folder).future.exception(PATIENCE_S)
        assert error is not None
        assert engine.stats()["models"] == []
