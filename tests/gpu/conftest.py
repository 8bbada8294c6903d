"""What a test on a real GPU gets: an engine with a home of its own."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@pytest.fixture(scope="session", autouse=True)
def gpu() -> None:
    if shutil.which("nvidia-smi") is None:
        pytest.skip("there is no NVIDIA GPU here: nvidia-smi was not found")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "home"
    monkeypatch.setenv("DESKSIDE_HOME", str(folder))
    return folder


@pytest.fixture
def engine(home: Path) -> Iterator[object]:
    from engine.engine import Engine

    with Engine(folder=home / "data") as running:
        yield running
