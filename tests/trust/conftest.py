"""An engine with its inspector, and hostile models that the frameworks write in a process of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.engine import Engine
from engine.settings import Settings

QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "", "OMP_WAIT_POLICY": "PASSIVE"}


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """One engine for all cases: what one file does to its inspector, the next would notice."""
    with Engine(Settings(), folder=tmp_path_factory.mktemp("trust-home")) as started:
        yield started


@pytest.fixture(scope="session")
def canary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a hostile model would write; it must never exist."""
    return tmp_path_factory.mktemp("canary") / "canary"


@pytest.fixture(scope="session")
def saved_models(tmp_path_factory: pytest.TempPathFactory, canary: Path) -> Path:
    """SavedModels that nobody changes, by :mod:`tests.trust.write_saved_models`."""
    return written_by("write_saved_models.py", tmp_path_factory.mktemp("saved-models"), canary)


def written_by(script: str, folder: Path, canary: Path) -> Path:
    command = [sys.executable, str(Path(__file__).with_name(script)), str(folder), str(canary)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=os.environ | QUIET, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder
