"""image-to-image against transformers: a picture of Swin2SR, to the last bit."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.prediction import PredictRequest
from tests.engine.engine_harness import running_engine

pytestmark = pytest.mark.real
PATIENCE_S = 180.0


def test_swin2sr_makes_what_the_library_makes(tmp_path: Path) -> None:
    """The library's answer is of the picture filled up to multiples of 8; ours ends where the picture does."""
    subprocess.run(
        [sys.executable, "-m", "tests.engine.worker.make_swin2sr", str(tmp_path)],
        check=True,
        timeout=PATIENCE_S,
        cwd=Path(__file__).parents[3],
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
    )
    expected = np.load(tmp_path / "expected.npy")
    with running_engine(tmp_path) as (engine, _):
        entry = engine.load(tmp_path / "swin2sr").future.result(PATIENCE_S)
        assert (entry["task"], entry["spec"]["evidence"]["task"]) == ("image-to-image", "config.json: architectures")
        picture = (tmp_path / "photo.png").read_bytes()
        answer = engine.predict(PredictRequest("swin2sr", picture, timeout_s=PATIENCE_S)).result(PATIENCE_S)
    assert isinstance(answer.predictions, dict)
    with Image.open(io.BytesIO(answer.predictions["image"])) as image:
        found = np.asarray(image)
    assert found.shape == (112, 150, 3)
    assert ((found > 0) & (found < 255)).mean() > 0.5, "the model's answer is not all black and white"
    np.testing.assert_array_equal(found, expected[:112, :150])
