"""C32 and C25's weights: files that change under the loader, and weights shorter than they say, in real workers."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from engine.engine import Engine
from engine.errors import ConsentRequired, ModelChanged, ModelCorrupt, ModelError
from engine.events import LoadStage
from engine.model_spec import ModelSpec, TrustClass
from tests.engine.engine_harness import PATIENCE_S, Watch, assert_answers, fake, loaded, running_engine

SEEDS = Path(__file__).parents[1] / "fuzz" / "seeds"
Change = Callable[[Path], None]


def _replace(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(b"evil" * 1000)
    other.replace(path)


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:10])


CHANGES: dict[str, Change] = {"replaced": _replace, "truncated": _truncate, "deleted": Path.unlink}


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "model.pt"
    path.write_bytes(b"code" * 1000)
    return path


def as_program(path: Path, name: str = "fake", **options: object) -> ModelSpec:
    spec = fake(name, **options)
    return replace(spec, trust_class=TrustClass.PROGRAM, files=(path,), model_file=path, path=path)


@pytest.mark.parametrize("how", CHANGES)
def test_a_file_that_changes_during_its_load_is_not_used(tmp_path: Path, program: Path, how: str) -> None:
    with running_engine(tmp_path) as (engine, _):
        loaded(engine, fake("good"))
        watch = Watch(engine)
        ticket = engine.load(as_program(program, load_s=6.0), trust=True)
        watch.until(lambda _: str(LoadStage.IMPORTING) in watch.stages())
        CHANGES[how](program)
        with pytest.raises(ModelChanged) as caught:
            ticket.future.result(PATIENCE_S)
        assert program.name in caught.value.message
        assert [entry["id"] for entry in engine.stats()["models"]] == ["good"]


@pytest.mark.parametrize("how", CHANGES)
def test_a_file_that_changed_after_consent_is_another_model(tmp_path: Path, program: Path, how: str) -> None:
    with running_engine(tmp_path) as (engine, _):
        loaded_once = engine.load(as_program(program), trust=True).future.result(PATIENCE_S)
        engine.unload(loaded_once["id"]).result(PATIENCE_S)
        CHANGES[how](program)
        with pytest.raises(ModelError) as caught:
            engine.load(as_program(program)).future.result(PATIENCE_S)
        assert caught.value.code == ("model_unreadable" if how == "deleted" else "needs_consent")
        assert isinstance(caught.value, ConsentRequired) == (how != "deleted")


@pytest.mark.parametrize("how", CHANGES)
def test_a_model_that_runs_keeps_answering(tmp_path: Path, program: Path, how: str) -> None:
    with running_engine(tmp_path) as (engine, _):
        engine.load(as_program(program), trust=True).future.result(PATIENCE_S)
        CHANGES[how](program)
        assert_answers(engine, 3.0)


# -- weights shorter than their pickle says ----------------------------------------------------------------------------
NET = """\
import torch

class Net(torch.nn.Sequential):
    def __init__(self):
        super().__init__(torch.nn.Conv2d(3, 2, 3), torch.nn.Flatten(), torch.nn.Linear(72, 3))
"""


def shortened(path: Path, keep: int) -> None:
    """The largest tensor of a file of ``torch.save`` with ``keep`` bytes, in a zip that is whole."""
    with zipfile.ZipFile(path) as old:
        members = [(info.filename, old.read(info)) for info in old.infolist()]
    longest = max(members, key=lambda member: len(member[1]) if "/data/" in member[0] else 0)[0]
    with zipfile.ZipFile(path, "w") as new:
        for name, data in members:
            new.writestr(zipfile.ZipInfo(name), data[:keep] if name == longest else data)


@pytest.mark.real
@pytest.mark.parametrize("keep", [8, pytest.param(0, marks=pytest.mark.slow)])
def test_weights_shorter_than_they_say_are_corrupt(tmp_path: Path, keep: int) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    path = Path(shutil.copy(SEEDS / "weights.pth", folder / "weights.pth"))
    (folder / "net.py").write_text(NET)
    inputs = '[[inputs]]\nname = "input"\ndtype = "float32"\nshape = [-1, 3, 8, 8]\n'
    (folder / "deskside.toml").write_text(f'architecture = "net.py:Net"\n{inputs}')
    shortened(path, keep)
    with Engine(folder=tmp_path / "home") as engine, pytest.raises(ModelCorrupt) as caught:
        engine.load(path, device="cpu", trust=True).future.result(PATIENCE_S * 2)
    assert "weights.pth" in caught.value.message or "files" in caught.value.message
