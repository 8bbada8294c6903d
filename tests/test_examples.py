"""The bundled examples: complete, small, described truly, and answering as their golden samples say."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from engine.consent import bundled_fingerprints, fingerprint
from engine.model_spec import ModelSpec, TrustClass

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
MODELS = {"digits-keras": "model.keras", "digits-torch": "model.pt", "wine": "model.keras"}
DIGITS = ("digits-keras", "digits-torch")


def sidecar(name: str) -> dict[str, Any]:
    return tomllib.loads((EXAMPLES / name / "deskside.toml").read_text(encoding="utf-8"))


def expected(name: str) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads((EXAMPLES / name / "golden" / "expected.json").read_text(encoding="utf-8"))
    return answer


def png_size(path: Path) -> tuple[int, int]:
    """(width, height) from a PNG's IHDR chunk (PNG specification §11.2.2)."""
    head = path.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    return int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")


@pytest.mark.parametrize("name", MODELS)
def test_every_folder_is_complete(name: str) -> None:
    folder = EXAMPLES / name
    assert (folder / MODELS[name]).is_file()
    assert (folder / "golden" / expected(name)["input"]).is_file()
    assert any((folder / "samples").iterdir())


def test_they_are_small() -> None:
    sizes = {name: sum(p.stat().st_size for p in (EXAMPLES / name).rglob("*") if p.is_file()) for name in MODELS}
    assert {name: size for name, size in sizes.items() if size > 2_000_000} == {}
    assert sum(sizes.values()) < 8_000_000


@pytest.mark.parametrize("name", DIGITS)
def test_sample_pictures_have_the_size_of_a_persons_picture(name: str) -> None:
    pictures = sorted((EXAMPLES / name / "samples").glob("*.png"))
    assert len(pictures) >= 8
    for picture in pictures:
        width, height = png_size(picture)
        assert 200 <= width <= 500
        assert 200 <= height <= 500


@pytest.mark.parametrize("name", MODELS)
def test_the_sidecar_states_every_tensor(name: str) -> None:
    stated = sidecar(name)
    for tensor in (*stated["inputs"], *stated["outputs"]):
        assert tensor["name"]
        assert tensor["dtype"] == "float32"
        assert tensor["shape"][0] == -1
        assert all(side > 0 for side in tensor["shape"][1:])
    assert stated["outputs"][0]["shape"][-1] == len(stated["labels"])


def test_the_tables_have_the_sidecars_columns() -> None:
    columns = sidecar("wine")["columns"]
    assert sidecar("wine")["inputs"][0]["shape"] == [-1, len(columns)]
    tables = [*sorted((EXAMPLES / "wine" / "samples").glob("*.csv")), EXAMPLES / "wine" / "golden" / "input.csv"]
    assert len(tables) >= 3
    for table in tables:
        with table.open(newline="", encoding="utf-8") as handle:
            header, *rows = csv.reader(handle)
        assert header == columns
        assert rows
        assert all(len(row) == len(columns) for row in rows)
    assert len(rows) == len(expected("wine")["results"])


def test_program_class_examples_are_consented_by_their_present_hash() -> None:
    model = EXAMPLES / "digits-torch" / "model.pt"
    spec = ModelSpec(
        path=model.parent,
        model_file=model,
        format="torchscript",
        runtime="torchscript",
        task="image-classification",
        trust_class=TrustClass.PROGRAM,
        files=(model,),
    )
    assert bundled_fingerprints() == {fingerprint(spec): "digits-torch"}


def scores(name: str) -> list[dict[str, float]]:
    """The golden answer as one {label: score} per input."""
    answer = expected(name)
    rows = [row["predictions"] for row in answer["results"]] if "results" in answer else [answer["predictions"]]
    return [{entry["label"]: entry["score"] for entry in row} for row in rows]


@pytest.mark.parametrize("name", MODELS)
def test_golden_answers_are_complete_and_far_from_a_tie(name: str) -> None:
    for row in scores(name):
        assert set(row) == set(sidecar(name)["labels"])
        assert sum(row.values()) == pytest.approx(1.0, abs=1e-4)
        best, second = sorted(row.values(), reverse=True)[:2]
        assert best - second > 10 * expected(name)["tolerance"]


RUN_KERAS = """
import json, sys
import keras, numpy as np
model = keras.models.load_model(sys.argv[1])
batch = np.asarray(json.load(sys.stdin), dtype="float32")
shape = [-1 if side is None else side for side in model.inputs[0].shape]
print(json.dumps({
    "inputs": [model.inputs[0].name], "outputs": list(model.output_names), "shape": shape,
    "answers": [np.asarray(model.predict_on_batch(rows)).tolist() for rows in (batch, np.concatenate([batch, batch]))],
}))
"""
RUN_TORCH = """
import json, sys
import torch
model = torch.jit.load(sys.argv[1])
batch = torch.tensor(json.load(sys.stdin), dtype=torch.float32)
with torch.inference_mode():
    print(json.dumps({"answers": [model(rows).tolist() for rows in (batch, torch.cat([batch, batch]))]}))
"""
READ_PICTURE = """
import json, sys
from digits_data import Path, model_input
print(json.dumps(model_input(Path(sys.argv[1])).tolist()))
"""


def child(code: str, *arguments: str, stdin: str = "") -> Any:
    """JSON printed by a child: this process stays free of frameworks."""
    environment = {
        **os.environ, "OMP_WAIT_POLICY": "PASSIVE", "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(EXAMPLES)
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def golden_tensor(name: str) -> Any:
    path = EXAMPLES / name / "golden" / expected(name)["input"]
    if name == "wine":
        with path.open(newline="", encoding="utf-8") as handle:
            return [[float(value) for value in row] for row in list(csv.reader(handle))[1:]]
    grey = child(READ_PICTURE, str(path))
    return [[[[value] for value in row] for row in grey[0]]] if name == "digits-keras" else [grey]


@pytest.mark.real
@pytest.mark.parametrize("name", MODELS)
def test_the_bare_model_gives_the_golden_answer(name: str) -> None:
    code = RUN_TORCH if name == "digits-torch" else RUN_KERAS
    told = child(code, str(EXAMPLES / name / MODELS[name]), stdin=json.dumps(golden_tensor(name)))
    stated, labels = sidecar(name), sidecar(name)["labels"]
    if "inputs" in told:
        assert told["inputs"] == [tensor["name"] for tensor in stated["inputs"]]
        assert told["outputs"] == [tensor["name"] for tensor in stated["outputs"]]
        assert told["shape"] == stated["inputs"][0]["shape"]
    wanted, tolerance = scores(name), expected(name)["tolerance"]
    for answers, repeats in zip(told["answers"], (1, 2), strict=True):
        assert len(answers) == len(wanted) * repeats
        for row, want in zip(answers, wanted * repeats, strict=True):
            assert dict(zip(labels, row, strict=True)) == pytest.approx(want, abs=tolerance)
