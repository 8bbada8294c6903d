"""What only a real GPU shows: one context behind both doors, memory that comes back, precision, memory that runs out.

Run by ``make test-gpu``: PyTorch is enough, without a screen, Qt or TensorFlow.
"""

from __future__ import annotations

import http.client
import io
import json
import logging
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from engine.engine import Engine
from engine.errors import DeviceOutOfMemory, EngineError
from engine.events import ModelState, ModelStateChanged, Snapshot
from engine.prediction import PredictRequest
from tests.gpu.device import PATIENCE_S, device_gib, used_mib
from tests.gpu.models import WIDTH, Hungry, Slow, Wide, save

torch = pytest.importorskip("torch", reason="PyTorch is not installed")


log = logging.getLogger(__name__)


def opened(engine: Engine, folder: Path, **options: Any) -> dict[str, Any]:
    return engine.load(folder, device="cuda", trust=True, **options).future.result(PATIENCE_S)


def answer(engine: Engine, model: str, x: np.ndarray) -> np.ndarray:
    prediction = engine.predict(PredictRequest(model, {"x": x}, timeout_s=PATIENCE_S)).result(PATIENCE_S)
    assert prediction.outputs is not None
    (output,) = prediction.outputs.values()
    return output


def rows(count: int, width: int = WIDTH) -> np.ndarray:
    return np.random.default_rng(7).standard_normal((count, width)).astype(np.float32)


def test_both_doors_are_answered_by_one_process_and_unloading_gives_the_memory_back(
    engine: Engine, home: Path, tmp_path: Path
) -> None:
    from embedded_server import ServerController
    from engine.serving_types import ServerScope
    from engine.settings import ServerSettings

    folder = save(Wide(20), tmp_path / "wide", WIDTH, 8)
    before = used_mib()
    entry = opened(engine, folder)
    assert entry["device"] == "cuda:0"
    x = rows(3)
    at_the_desk = answer(engine, "wide", x)
    server = ServerController(engine, ServerSettings(), home / "data")
    try:
        state = server.start(ServerScope.COMPUTER, 0)
        packed = io.BytesIO()
        np.savez(packed, x=x)
        connection = http.client.HTTPConnection("127.0.0.1", state.port, timeout=PATIENCE_S)
        connection.request("POST", "/predict/wide", packed.getvalue(), {"Content-Type": "application/x-npz"})
        response = connection.getresponse()
        body = json.loads(response.read())
        connection.request("GET", "/models")
        (model,) = json.loads(connection.getresponse().read())["models"]
        connection.close()
    finally:
        server.stop()
    assert response.status == 200, body
    (output,) = body["outputs"].values()
    np.testing.assert_allclose(np.array(output["data"], np.float32), at_the_desk, rtol=1e-5, atol=1e-6)
    assert model["worker_pid"] == entry["worker_pid"]
    assert (model["loads"], model["requests"]) == (1, {"window": 1, "network": 1})
    loaded = used_mib()
    assert loaded - before > 20 * 64
    # The one child beside the inspector: there is no second context.
    workers = [c for c in psutil.Process().children() if "engine.worker" in " ".join(c.cmdline())]
    assert [c.pid for c in workers if "--inspect" not in c.cmdline()] == [entry["worker_pid"]]
    engine.unload("wide").result(PATIENCE_S)
    after = used_mib()
    log.info("%s: %s", "MiB on the device before, loaded, after unloading", (before, loaded, after))
    assert after - before < 50
    assert "torch.cuda" not in sys.modules or not torch.cuda.is_initialized()


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-4), ("bfloat16", 5e-2), ("float16", 1e-2)])
def test_a_precision_is_computed_in_and_answers_stay_near(
    engine: Engine, tmp_path: Path, precision: str, tolerance: float
) -> None:
    module = Wide(2)
    folder = save(module, tmp_path / "wide", WIDTH, 8)
    x = rows(4)
    with torch.inference_mode():
        expected = module(torch.from_numpy(x)).numpy()
    before = used_mib()
    entry = opened(engine, folder, precision=precision)
    assert entry["precision"] == precision
    found = answer(engine, "wide", x)
    assert found.dtype == np.float32
    difference = float(np.abs(found - expected).max() / np.abs(expected).max())
    log.info("%s: %s", f"{precision}: difference, MiB", (difference, used_mib() - before))
    assert difference < tolerance


def test_a_batch_that_does_not_fit_is_halved_and_remembered(engine: Engine, tmp_path: Path) -> None:
    # Two rows fit, four do not.
    folder = save(Hungry(int(device_gib() * 0.3)), tmp_path / "hungry", 4, 4)
    opened(engine, folder)
    futures = [
        engine.predict(PredictRequest("hungry", {"x": np.full((1, 4), n, np.float32)}, timeout_s=PATIENCE_S))
        for n in range(1, 9)
    ]
    for n, future in enumerate(futures, 1):
        outputs = future.result(PATIENCE_S).outputs
        assert outputs is not None
        np.testing.assert_array_equal(next(iter(outputs.values())), np.full((1, 4), n, np.float32))
    (entry,) = engine.stats()["models"]
    log.info("%s: %s", "batch after running out of memory", entry["max_batch_size"])
    assert entry["max_batch_size"] <= 3
    assert entry["restarts"] == 0


def test_a_row_that_never_fits_is_told_so_and_the_next_is_answered(engine: Engine, tmp_path: Path) -> None:
    opened(engine, save(Hungry(device_gib() * 2), tmp_path / "hungry", 4, 4))
    opened(engine, save(Wide(1), tmp_path / "wide", WIDTH, 8))
    with pytest.raises(DeviceOutOfMemory):
        answer(engine, "hungry", np.ones((1, 4), np.float32))
    assert answer(engine, "wide", rows(1)).shape == (1, 8)
    assert [m["restarts"] for m in engine.stats()["models"]] == [0, 0]


def test_a_models_share_of_the_device_is_told_and_goes_with_it(engine: Engine, tmp_path: Path) -> None:
    told = threading.Condition()
    stats: list[dict[str, Any]] = []

    def heard(event: object) -> None:
        if isinstance(event, Snapshot):
            with told:
                stats.append(event.stats)
                told.notify_all()

    engine.subscribe(heard)
    opened(engine, save(Wide(20), tmp_path / "wide", WIDTH, 8))
    assert answer(engine, "wide", rows(3)).shape == (3, 8)
    with told:
        assert told.wait_for(lambda: stats and stats[-1]["models"][0]["device_memory"], PATIENCE_S)
        (model,), (device,) = stats[-1]["models"], stats[-1]["memory"]["devices"]
    log.info("%s: %s", "the model's share, the device", (model["device_memory"], device))
    assert 20 * (64 << 20) <= model["device_memory"]["allocated"] <= model["device_memory"]["reserved"]
    assert (device["device"], device["models"]) == ("cuda:0", model["device_memory"]["reserved"])
    assert device["total"] >> 30 in range(device_gib() - 2, device_gib() + 2)
    assert 0 < device["free"] <= device["total"] - device["models"]
    engine.unload("wide").result(PATIENCE_S)
    with told:
        assert told.wait_for(lambda: stats and not stats[-1]["memory"]["devices"], PATIENCE_S)


def test_a_killed_worker_gives_its_memory_back_and_comes_again(engine: Engine, tmp_path: Path) -> None:
    ready = threading.Semaphore(0)

    def heard(event: object) -> None:
        if isinstance(event, ModelStateChanged) and event.state is ModelState.READY:
            ready.release()

    engine.subscribe(heard)
    before = used_mib()
    entry = opened(engine, save(Slow(), tmp_path / "slow", 4, 4))
    assert ready.acquire(timeout=PATIENCE_S)
    request = PredictRequest("slow", {"x": np.zeros((1, 4), np.float32)}, timeout_s=PATIENCE_S)
    running = engine.predict(request)
    os.kill(entry["worker_pid"], signal.SIGKILL)
    with pytest.raises(EngineError) as caught:
        running.result(PATIENCE_S)
    assert caught.value.code == "worker_restarted"
    assert ready.acquire(timeout=PATIENCE_S)
    assert engine.predict(request).result(PATIENCE_S).outputs is not None
    engine.unload("slow").result(PATIENCE_S)
    after = used_mib()
    log.info("%s: %s", "MiB before, after a kill, a restart and unloading", (before, after))
    assert after - before < 50
