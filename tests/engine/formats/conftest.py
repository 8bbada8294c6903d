"""Real model files, written once per test session by the frameworks in a child process."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models nobody changes."""
    folder = tmp_path_factory.mktemp("models")
    script = Path(__file__).with_name("make_models.py")
    done = subprocess.run([sys.executable, str(script), str(folder)], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.fixture
def copied(models: Path, tmp_path: Path) -> Callable[..., Path]:
    """``copied("script.pt")`` or ``copied("script.pt", "model.pt")``: a copy alone in a folder of its own."""

    def copy(name: str, new_name: str | None = None) -> Path:
        folder = tmp_path / "opened"
        folder.mkdir(exist_ok=True)
        target = folder / (new_name or name)
        if (models / name).is_dir():
            shutil.copytree(models / name, target)
        else:
            shutil.copy(models / name, target)
        return target

    return copy
