"""What is dropped ends up in exactly one place: models, inputs, or the refused with a reason."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path

import pytest

from engine.errors import ModelFormatUnknown
from engine.model_spec import ModelSpec
from gui import intake
from gui.error_text import FileProblem
from gui.intake import InputFile, kind_of_name, read_input, take_in
from tests.fakes import FakeEngine


class NoModel(FakeEngine):
    """Whose inspector knows nothing."""

    def inspect(self, path: str | Path) -> Future[ModelSpec]:
        future: Future[ModelSpec] = Future()
        future.set_exception(ModelFormatUnknown("No model here."))
        return future


def folder(path: Path, *names: str) -> Path:
    path.mkdir(parents=True)
    for name in names:
        (path / name).write_bytes(b"x")
    return path


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.PNG", "image"), ("b.csv", "table"), ("c.npz", "tensor"), ("d.keras", "model"), ("e.docx", "other"),
        ("saved", "folder?"), ("trailing.pt/", "model"), ("日本語.jpeg", "image"),
    ],
)  # fmt: skip
def test_names_tell_the_kind(name: str, kind: str) -> None:
    assert kind_of_name(name) == kind


def test_a_folder_with_a_model_is_a_model_though_it_holds_pictures(tmp_path: Path) -> None:
    model = folder(tmp_path / "digits", "model.keras", "sample.png")
    found = take_in([model], FakeEngine(), lambda: True)
    assert (found.models, found.inputs, found.refused) == ([model], [], [])


def test_a_folder_whose_model_is_none_gives_its_pictures(tmp_path: Path) -> None:
    found = take_in([folder(tmp_path / "mixed", "weights.pt", "a.png", "b.jpg")], NoModel(), lambda: True)
    assert [item.name for item in found.inputs] == ["a.png", "b.jpg"]
    assert [name for name, _ in found.refused] == ["weights.pt"]


def test_a_folder_of_nothing_says_what_the_inspector_said(tmp_path: Path) -> None:
    found = take_in([folder(tmp_path / "empty", "plan.docx")], NoModel(), lambda: True)
    assert (found.models, found.inputs) == ([], [])
    [(name, problem)] = found.refused
    assert name == "empty"
    assert "model_format_unknown" in problem.details


def test_a_saved_model_folder_is_asked_about(tmp_path: Path) -> None:
    saved = folder(tmp_path / "saved", "fingerprint")
    assert take_in([saved], FakeEngine(), lambda: True).models == [saved]


def test_a_drop_is_bounded_and_the_rest_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "MAX_FILES", 3)
    found = take_in([folder(tmp_path / "many", *(f"{i}.png" for i in range(5)))], FakeEngine(), lambda: True)
    assert len(found.inputs) == 3
    assert [name for name, _ in found.refused] == ["2 more"]


def test_a_walk_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "MAX_FILES", 2)
    found = take_in([folder(tmp_path / "many", *(f"{i}.txt" for i in range(9)), "a.png")], NoModel(), lambda: True)
    assert any("more than 4 files" in problem.message for _, problem in found.refused)


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    found = take_in([tmp_path / "gone.png"], FakeEngine(), lambda: True)
    assert [(name, problem.message) for name, problem in found.refused] == [("gone.png", "gone.png is not there.")]


def test_an_inspection_nobody_waits_for_is_given_up(tmp_path: Path) -> None:
    class Silent(FakeEngine):
        def inspect(self, path: str | Path) -> Future[ModelSpec]:
            return Future()

    found = take_in([folder(tmp_path / "slow", "model.keras")], Silent(), lambda: False)
    assert found.models == []
    assert len(found.refused) == 1


def test_an_unreadable_file_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(FileProblem, match="cannot be read") as caught:
        read_input(InputFile("gone.png", "image", tmp_path / "gone.png"))
    assert caught.value.code == "file_unreadable"
