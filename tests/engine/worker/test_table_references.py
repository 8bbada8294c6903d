"""Tables against the libraries that made the models: Keras with words inside, a scikit-learn pipeline's ONNX."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow.csv
import pyarrow.parquet
import pytest

from engine.engine import Engine
from engine.prediction import PredictRequest
from tests.engine.engine_harness import quick_settings

pytestmark = pytest.mark.real
PATIENCE_S = 180.0
MODELS = ("shop.keras", "visits.onnx")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("tables")
    command = [sys.executable, "-m", "tests.engine.worker.make_tables", str(made)]
    subprocess.run(command, check=True, timeout=PATIENCE_S, cwd=Path(__file__).parents[3])
    return made


@pytest.fixture(scope="module")
def engine(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with Engine(quick_settings(), folder=tmp_path_factory.mktemp("engine")) as running:
        for load in [running.load(folder / name, trust=True) for name in MODELS]:
            load.future.result(PATIENCE_S)
        yield running


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_a_row_gets_the_librarys_scores(engine: Engine, folder: Path, name: str, packed: bool) -> None:
    data, content_type = (folder / "table.csv").read_bytes(), "text/csv"
    if packed:
        options = pyarrow.csv.ParseOptions(delimiter=";")
        commas = pyarrow.csv.ConvertOptions(decimal_point=",")
        table = pyarrow.csv.read_csv(folder / "table.csv", parse_options=options, convert_options=commas)
        pyarrow.parquet.write_table(table, folder / "table.parquet")
        data, content_type = (folder / "table.parquet").read_bytes(), "application/vnd.apache.parquet"
    request = PredictRequest(name.partition(".")[0], data, content_type, timeout_s=PATIENCE_S)
    results = engine.predict(request).result(PATIENCE_S).results
    expected = json.loads((folder / "answers.json").read_text())[name]
    labels = {"shop.keras": ["low", "high"], "visits.onnx": ["leaves", "stays"]}[name]
    assert results is not None
    assert len(results) == len(expected)
    for row, scores in zip(results, expected, strict=True):
        found = {entry["label"]: entry["score"] for entry in row["predictions"]}
        assert [found[label] for label in labels] == pytest.approx(scores, abs=1e-5)


def test_a_preview_shows_the_head_of_a_parquet_table(engine: Engine, folder: Path, tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.table({"age": [1, None], "colour": ["red", "blue"]}), tmp_path / "t.parquet")
    preview = engine.preview_table(tmp_path / "t.parquet").result(PATIENCE_S)
    assert preview.columns == ("age", "colour")
    assert preview.rows == (("1", "red"), ("", "blue"))
    assert preview.total_rows == 2
