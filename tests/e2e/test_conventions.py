"""A real model that does not say what its numbers mean: tried side by side, and right at both doors afterwards."""

from __future__ import annotations

import json
import shutil
import urllib.request
from pathlib import Path

import pytest

from embedded_server.controller import ServeOptions, ServerController
from engine.engine import Engine
from engine.model_spec import ASSUMED, SIDECAR
from engine.prediction import PredictRequest
from engine.settings import Settings, parse_settings
from tests.e2e.program import DIGITS_TORCH, PATIENCE_S, ROOT

pytestmark = pytest.mark.real


def window(engine: Engine, model_id: str, data: bytes) -> tuple[str, float]:
    request = PredictRequest(model_id, data, "image/png", timeout_s=PATIENCE_S)
    predictions = engine.predict(request).result(PATIENCE_S).predictions
    assert predictions is not None
    return predictions[0]["label"], predictions[0]["score"]


def network(port: int, model_id: str, data: bytes) -> tuple[str, float]:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/predict/{model_id}?preprocessing=bgr", data, {"Content-Type": "image/png"}
    )
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as response:
        best = json.load(response)["predictions"][0]
    return best["label"], best["score"]


def test_an_unknown_scaling_is_chosen_by_looking_and_stays_right(tmp_path: Path) -> None:
    source, folder = ROOT / DIGITS_TORCH, tmp_path / "digits"
    folder.mkdir()
    shutil.copy(source / "model.pt", folder)
    lines = (source / "deskside.toml").read_text().splitlines(keepends=True)
    (folder / "deskside.toml").write_text("".join(line for line in lines if not line.startswith("scaling")))
    shutil.copytree(source / "golden", folder / "golden")
    digit = (source / "golden" / "input.png").read_bytes()
    settings: Settings = parse_settings(b"{}")
    with Engine(settings, folder=tmp_path / "data") as engine:
        entry = engine.load(folder, trust=True).future.result(PATIENCE_S)
        model_id = entry["id"]
        assert entry["spec"]["evidence"]["preprocessing.scaling"] == ASSUMED
        assert engine.check_golden(model_id).result(PATIENCE_S).agreed is False
        found = engine.try_conventions(model_id, digit, "image/png").result(PATIENCE_S)
        assert {c.words for c in found} == {"values 0..255", "values 0..1", "values -1..1"}
        chosen = max(found, key=lambda c: c.predictions[0]["score"])
        assert (chosen.words, chosen.predictions[0]["label"]) == ("values 0..255", "3")
        engine.apply_preprocessing(model_id, chosen.changes).result(PATIENCE_S)
        engine.save_sidecar(model_id, chosen.changes).result(PATIENCE_S)
        right = window(engine, model_id, digit)
        assert right[0] == "3"
        server = ServerController(engine, settings.server, tmp_path / "data")
        port = server.start_at(ServeOptions(port=0)).port
        try:
            assert network(port, model_id, digit) == right
            assert server.check_golden(model_id).agreed is True
        finally:
            server.stop()
        assert engine.check_golden(model_id).result(PATIENCE_S).agreed is True
    with Engine(settings, folder=tmp_path / "data") as engine:
        # The sidecar is no part of what was consented to: nothing is asked again.
        entry = engine.load(folder).future.result(PATIENCE_S)
        assert entry["spec"]["evidence"]["preprocessing.scaling"] == SIDECAR
        assert window(engine, model_id, digit) == right
