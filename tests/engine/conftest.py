"""Files of Keras 2 and LiteRT, written once per test session by their libraries in a child process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tensorflow_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of files nobody changes (:mod:`tests.engine.make_tensorflow_files`)."""
    folder = tmp_path_factory.mktemp("tensorflow-files")
    command = [sys.executable, str(Path(__file__).with_name("make_tensorflow_files.py")), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder
