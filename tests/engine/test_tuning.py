"""The sidecar written from the window, conventions tried side by side, precision and threads of a worker."""

from __future__ import annotations

import io
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine import sidecar_file
from engine.engine import Engine
from engine.errors import Malformed, ModelNotFound, SidecarInvalid, UnusableInput
from engine.events import ModelState
from engine.model_spec import ASSUMED, SIDECAR, TENSOR_SIGNATURE, ModelSpec, Preprocessing, TensorSpec
from engine.prediction import Convention, PredictRequest
from engine.settings import Settings, WorkerSettings
from engine.sidecar_file import changed_text, find_sidecar, full_keys, write_sidecar
from engine.supervisor import intra_op_threads, share_of_cores
from tests.engine.engine_harness import PATIENCE_S, Watch, fake, loaded, running_engine

LABELS = tuple("abcdefghij")


def picture(red: int = 200, green: int = 40, blue: int = 10) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (2, 2), (red, green, blue)).save(stream, "PNG")
    return stream.getvalue()


def pictures(path: Path, **stated: str) -> ModelSpec:
    """A fake that reads pictures: its class is the sum of the four pixels' numbers, modulo ten."""
    evidence = {"preprocessing.size": TENSOR_SIGNATURE, "preprocessing.layout": TENSOR_SIGNATURE} | stated
    return replace(
        fake(),
        path=path,
        model_file=path,
        task="image-classification",
        inputs=(TensorSpec("image", "float32", (-1, 2, 2, 3)),),
        outputs=(),
        labels=LABELS,
        preprocessing=Preprocessing(size=(2, 2)),
        evidence=evidence,
    )


def best(engine: Engine, data: bytes = picture(), **more: Any) -> str:
    request = PredictRequest("fake", data, "image/png", timeout_s=PATIENCE_S, **more)
    predictions = engine.predict(request).result(PATIENCE_S).predictions
    assert predictions is not None
    return str(predictions[0]["label"])


def label_of(total: float) -> str:
    return LABELS[int(abs(total)) % 10]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    return tmp_path / "model"


@pytest.fixture
def opened(tmp_path: Path, folder: Path) -> Iterator[tuple[Engine, Watch]]:
    with running_engine(tmp_path / "data") as (engine, watch):
        loaded(engine, pictures(folder))
        yield engine, watch


# -- conventions ----------------------------------------------------------------------------------------------------
def test_one_picture_is_answered_under_every_convention_that_is_only_assumed(opened: tuple[Engine, Watch]) -> None:
    engine, _ = opened
    found = engine.try_conventions("fake", picture(), "image/png").result(PATIENCE_S)
    assert len(found) == 10  # five ranges, two orders of the channels
    by_words = {c.words: c for c in found}
    plain = by_words["values 0..255, RGB"]
    assert plain.changes == {"scaling": "0..255", "channel_order": "rgb"}
    assert plain.predictions[0]["label"] == label_of(4 * 250)
    assert by_words["values 0..1, RGB"].predictions[0]["label"] == label_of(4 * 250 / 255)
    assert [c.words for c in found if c.current] == ["values 0..1, RGB"]
    mean = by_words["values 0..255 less ImageNet mean, BGR"]
    assert mean.changes["mean"] == [103.939, 116.779, 123.68]  # in the order the model has its channels
    # What was only tried changes nothing, and is nobody's request.
    assert best(engine) == label_of(4 * 250 / 255)
    assert engine.stats()["models"][0]["requests"] == {"window": 1, "network": 0}


@pytest.mark.parametrize(
    ("stated", "words"),
    [
        ({"scaling": SIDECAR}, ["RGB", "BGR"]),
        ({"channel_order": SIDECAR, "mean": SIDECAR}, ["values 0..255", "values 0..1", "values -1..1"]),
    ],
)
def test_what_is_stated_is_not_doubted(tmp_path: Path, folder: Path, stated: dict[str, str], words: list[str]) -> None:
    spec = pictures(folder, **{f"preprocessing.{name}": source for name, source in stated.items()})
    with running_engine(tmp_path / "data") as (engine, _):
        loaded(engine, spec)
        found = engine.try_conventions("fake", picture()).result(PATIENCE_S)
        assert [c.words for c in found] == words


def test_a_layout_in_which_no_picture_fits_is_left_out(tmp_path: Path, folder: Path) -> None:
    spec = pictures(
        folder,
        **{
            "preprocessing.scaling": SIDECAR,
            "preprocessing.channel_order": SIDECAR,
            "preprocessing.layout": ASSUMED,
        },
    )
    with running_engine(tmp_path / "data") as (engine, _):
        loaded(engine, spec)
        found = engine.try_conventions("fake", picture()).result(PATIENCE_S)
        assert [c.words for c in found] == ["channels last"]


def test_where_nothing_can_be_tried_it_is_said(tmp_path: Path, opened: tuple[Engine, Watch]) -> None:
    engine, _ = opened
    with pytest.raises(UnusableInput):
        engine.try_conventions("fake", b"no picture", "image/png").result(PATIENCE_S)
    with pytest.raises(ModelNotFound):
        engine.try_conventions("nobody", picture()).result(PATIENCE_S)
    loaded(engine, fake("table"))
    with pytest.raises(UnusableInput, match="nothing to try"):
        engine.try_conventions("table", picture()).result(PATIENCE_S)


def test_the_convention_chosen_holds_at_once_after_a_death_and_in_the_sidecar(
    opened: tuple[Engine, Watch], folder: Path
) -> None:
    engine, watch = opened
    found: list[Convention] = engine.try_conventions("fake", picture()).result(PATIENCE_S)
    chosen = next(c for c in found if c.words == "values 0..255, RGB")
    assert chosen.predictions[0]["label"] != best(engine)
    spec = engine.apply_preprocessing("fake", chosen.changes).result(PATIENCE_S)
    assert (spec.preprocessing.scaling, spec.evidence["preprocessing.scaling"]) == ("0..255", SIDECAR)
    for lane in ("owner", "lan"):
        assert best(engine, lane=lane) == chosen.predictions[0]["label"]
    assert engine.save_sidecar("fake", chosen.changes).result(PATIENCE_S) == folder / "deskside.toml"
    assert (folder / "deskside.toml").read_text() == '[preprocessing]\nscaling = "0..255"\nchannel_order = "rgb"\n'
    (entry,) = engine.stats()["models"]
    assert entry["spec"]["preprocessing"]["scaling"] == "0..255"
    os.kill(entry["worker_pid"], signal.SIGKILL)
    watch.until_state(ModelState.READY, times=2)
    assert best(engine) == chosen.predictions[0]["label"]


def test_a_choice_that_is_taken_back_is_assumed_again(opened: tuple[Engine, Watch]) -> None:
    engine, _ = opened
    before = best(engine)
    found: list[Convention] = engine.try_conventions("fake", picture()).result(PATIENCE_S)
    chosen = next(c for c in found if c.words == "values 0..255, RGB")
    was = engine.stats()["models"][0]["spec"]
    engine.apply_preprocessing("fake", chosen.changes).result(PATIENCE_S)
    spec = engine.apply_preprocessing("fake", dict.fromkeys(chosen.changes)).result(PATIENCE_S)
    assert spec.to_json()["preprocessing"] == was["preprocessing"]
    for name in chosen.changes:
        assert spec.evidence[f"preprocessing.{name}"] == was["evidence"].get(f"preprocessing.{name}", ASSUMED)
    assert best(engine) == before
    again = engine.try_conventions("fake", picture()).result(PATIENCE_S)
    assert [c.words for c in again] == [c.words for c in found]


def test_no_request_can_say_how_its_picture_is_prepared(opened: tuple[Engine, Watch]) -> None:
    engine, _ = opened
    how = {"preprocessing": {"scaling": "0..255"}}
    assert best(engine, params=how, lane="lan") == best(engine)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"scaling": "blue"}, "preprocessing.scaling: expected a range"),
        ({"preprocessing.colour": "red"}, "colour: only the keys of"),
        ({"labels": ["a"]}, "labels: only the keys of"),
    ],
)
def test_preprocessing_that_is_none_changes_nothing(
    opened: tuple[Engine, Watch], changes: dict[str, Any], words: str
) -> None:
    engine, _ = opened
    before = best(engine)
    with pytest.raises(SidecarInvalid, match=words):
        engine.apply_preprocessing("fake", changes).result(PATIENCE_S)
    assert best(engine) == before


# -- the sidecar ----------------------------------------------------------------------------------------------------
HAND_WRITTEN = """# What we measured in May.
task = "image-classification"  # not tabular

[preprocessing]
# Ask Anna before you change this.
scaling = "0..1"  # bytes / 255
size = [2, 2]
"""


def test_comments_and_order_stay_as_the_person_wrote_them(opened: tuple[Engine, Watch], folder: Path) -> None:
    engine, _ = opened
    path = folder / "deskside.toml"
    path.write_text(HAND_WRITTEN)
    changes = {"preprocessing.scaling": "0..255", "labels": ["x", "y"], "size": None, "postprocessing.threshold": 0.5}
    assert engine.save_sidecar("fake", changes).result(PATIENCE_S) == path
    text = path.read_text()
    for comment in ("# What we measured in May.", "# not tabular", "# Ask Anna before you change this."):
        assert comment in text
    assert 'scaling = "0..255"' in text
    assert 'labels = ["x", "y"]' in text
    assert "size" not in text
    assert "threshold = 0.5" in text
    assert list(folder.iterdir()) == [path]  # nothing temporary is left


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"preprocessing.scaling": "blue"}, "deskside.toml: preprocessing.scaling: expected a range"),
        ({"colour": "red"}, "deskside.toml: colour: unknown key"),
        ({"paint.colour": "red"}, r"there is no section \[paint\]"),
        ({"labels": object()}, "could not be changed"),
    ],
)
def test_a_wrong_change_is_named_and_not_written(
    opened: tuple[Engine, Watch], folder: Path, changes: dict[str, Any], words: str
) -> None:
    engine, _ = opened
    path = folder / "deskside.toml"
    path.write_text(HAND_WRITTEN)
    with pytest.raises(SidecarInvalid, match=words):
        engine.save_sidecar("fake", changes).result(PATIENCE_S)
    assert path.read_text() == HAND_WRITTEN


def test_a_sidecar_that_is_no_toml_is_left_alone(opened: tuple[Engine, Watch], folder: Path) -> None:
    engine, _ = opened
    (folder / "deskside.toml").write_text("= nonsense")
    with pytest.raises(SidecarInvalid):
        engine.save_sidecar("fake", {"scaling": "0..1"}).result(PATIENCE_S)
    assert (folder / "deskside.toml").read_text() == "= nonsense"


def test_a_single_files_sidecar_lies_beside_it_and_a_read_only_ones_in_the_data_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, data = tmp_path / "net.pt", tmp_path / "data"
    model.touch()
    assert write_sidecar(model, model, data, "") == tmp_path / "net.pt.deskside.toml"
    (tmp_path / "net.pt.deskside.toml").unlink()
    real = sidecar_file.write_atomically

    def read_only(path: Path, content: bytes) -> None:
        if data not in path.parents:
            raise PermissionError(13, "Permission denied")
        real(path, content)

    monkeypatch.setattr(sidecar_file, "write_atomically", read_only)
    written = write_sidecar(model, model, data, 'task = "raw-tensors"\n')
    assert written.parent == data / "sidecars"
    assert find_sidecar(model, model, data) == written
    assert write_sidecar(model, model, data, "") == written
    (tmp_path / "net.pt.deskside.toml").touch()
    with pytest.raises(PermissionError):  # the one beside the model would be read, and not the other
        write_sidecar(model, model, data, "")


def test_fields_of_preprocessing_need_no_section() -> None:
    assert full_keys({"scaling": "0..1", "labels": []}) == {"preprocessing.scaling": "0..1", "labels": []}
    assert changed_text("", {"scaling": "0..1", "mean": (), "std": (0.5,)}) == (
        '[preprocessing]\nscaling = "0..1"\nstd = [0.5]\n'
    )


# -- precision and threads ------------------------------------------------------------------------------------------
def test_another_precision_comes_as_a_version_of_its_own(tmp_path: Path) -> None:
    with running_engine(tmp_path) as (engine, _):
        with pytest.raises(Malformed, match="float8"):
            engine.load(fake(), precision="float8").future.result(PATIENCE_S)
        entry = engine.load(fake(), precision="bfloat16").future.result(PATIENCE_S)
        assert (entry["precision"], entry["version"]) == ("bfloat16", "1")
        assert engine.load(fake()).future.result(PATIENCE_S)["worker_pid"] == entry["worker_pid"]
        entry = engine.load(fake(), precision="float32").future.result(PATIENCE_S)
        assert (entry["precision"], entry["version"]) == ("float32", "2")
        assert engine.reload("fake").future.result(PATIENCE_S)["precision"] == "float32"
        entry = engine.rollback("fake").result(PATIENCE_S)
        assert (entry["precision"], entry["version"]) == ("float32", "2")


def test_workers_share_the_cores(tmp_path: Path) -> None:
    cores = intra_op_threads(0)
    assert [share_of_cores(WorkerSettings(), n) for n in (1, cores, cores + 1, 1000)] == [cores, 1, 1, 1]
    assert share_of_cores(WorkerSettings(threads=3), 8) == 3
    assert share_of_cores(WorkerSettings(share_cores=False), 8) == cores
    with running_engine(tmp_path) as (engine, _):
        assert loaded(engine, fake())["threads"] == cores
        assert loaded(engine, fake("other"))["threads"] == max(1, cores // 2)
        # The next version takes its own model's place, and so its share.
        engine.unload("other").result(PATIENCE_S)
        assert engine.reload("fake").future.result(PATIENCE_S)["threads"] == cores


def test_threads_that_are_set_are_what_a_worker_gets(tmp_path: Path) -> None:
    settings = Settings(worker=WorkerSettings(threads=3))
    with Engine(settings, folder=tmp_path) as engine:
        assert loaded(engine, fake())["threads"] == 3
        environment = Path(f"/proc/{engine.stats()['models'][0]['worker_pid']}/environ")
        if environment.exists():
            assert b"OMP_NUM_THREADS=3" in environment.read_bytes().split(b"\0")


def test_the_numbers_of_the_fake_are_what_the_tests_say() -> None:
    values = np.asarray(Image.open(io.BytesIO(picture())))
    assert values.sum() == 4 * 250
