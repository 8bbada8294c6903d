"""Changed files through the real inspector: each costs one error or is described, and never costs the program.

120 files in ``make test``, the same ones every time; 2,000 in ``make test-all``, others every time, and
as many as ``DESKSIDE_FUZZ`` says where it is set. What hypothesis finds becomes a case of
:mod:`tests.trust.test_model_files`.
"""

from __future__ import annotations

import os
import shutil
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import HealthCheck, event, given, settings

from engine.engine import Engine
from engine.errors import EngineError
from engine.model_spec import ModelSpec
from engine.settings import Settings
from tests.fuzz.mutations import mutations

SEEDS = Path(__file__).with_name("seeds")
EXAMPLES = Path(__file__).parents[2] / "examples"
NAMES = sorted(seed.name for seed in SEEDS.iterdir())
PATIENCE_S = 60.0
APP_GROWTH = 64 << 20
REMEMBERED = 64 << 10
"""Bytes of one example that hypothesis itself keeps."""
QUICK, MANY = 120, int(os.environ.get("DESKSIDE_FUZZ", "2000"))


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with Engine(Settings(), folder=tmp_path_factory.mktemp("home")) as started:
        yield started


@pytest.mark.parametrize("name", NAMES)
def test_a_seed_is_read(engine: Engine, tmp_path: Path, name: str) -> None:
    """Without this, every change would end at the first check."""
    path = opened_as(tmp_path, name)
    if name == "picture.png":
        assert (asked(engine, path).result(PATIENCE_S).width, name) == (24, name)
    elif name.startswith("weights"):
        with pytest.raises(EngineError, match="holds weights, but not the model"):
            asked(engine, path).result(PATIENCE_S)
    else:
        assert asked(engine, path).result(PATIENCE_S).format


@pytest.mark.parametrize("name", NAMES)
def test_a_changed_file_costs_at_most_an_error(engine: Engine, tmp_path: Path, name: str) -> None:
    fuzz(engine, tmp_path, name, settings(max_examples=QUICK // len(NAMES) + 1, derandomize=True))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", NAMES)
def test_many_changed_files_cost_at_most_an_error(engine: Engine, tmp_path: Path, name: str) -> None:
    fuzz(engine, tmp_path, name, settings(max_examples=MANY // len(NAMES) + 1))


def fuzz(engine: Engine, folder: Path, name: str, how_many: settings) -> None:
    path = opened_as(folder, name)
    seed = path.read_bytes()
    other = b"".join((SEEDS / n).read_bytes()[:4000] for n in NAMES)
    before, threads = psutil.Process().memory_info().rss, threading.active_count()

    @settings(how_many, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(mutations(seed, other))
    def run(data: bytes) -> None:
        path.write_bytes(data)
        check(asked(engine, path))

    run()
    assert psutil.Process().memory_info().rss - before < APP_GROWTH + how_many.max_examples * REMEMBERED
    assert threading.active_count() <= threads + 4
    assert engine.inspect(EXAMPLES / "wine").result(PATIENCE_S).format == "keras"


def opened_as(folder: Path, name: str) -> Path:
    """A copy of a seed, with what has to lie beside it."""
    if name != "saved_model.pb":
        return Path(shutil.copy(SEEDS / name, folder / name))
    model = folder / "exported"
    (model / "variables").mkdir(parents=True)
    (model / "variables" / "variables.index").write_bytes(b"x")
    (model / "variables" / "variables.data-00000-of-00001").write_bytes(b"x")
    return Path(shutil.copy(SEEDS / name, model / name))


def asked(engine: Engine, path: Path) -> Future[Any]:
    return engine.preview_image(path) if path.suffix == ".png" else engine.inspect(path)


def check(asked_for: Future[Any]) -> None:
    """One answer: a description, or an error a person can read that is no fault of the program."""
    error = asked_for.exception(PATIENCE_S)
    if error is not None:
        check_error(error)
        return
    found = asked_for.result()
    event("described")
    if isinstance(found, ModelSpec):
        assert ModelSpec.from_json(found.to_json()) == found
        assert found.format


def check_error(error: BaseException) -> None:
    assert isinstance(error, EngineError), repr(error)
    event(error.code)
    assert error.code != "internal", error.details
    assert error.message.strip()
    assert "\n" not in error.message
    assert "Traceback" not in error.message
    assert len(error.message) < 1000
    if "ended the inspector" in error.message or "took longer" in error.message:
        warnings.warn(f"{error.message} {error.details[-500:]}", stacklevel=2)
