"""The pictures and numbers of answers as files."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from engine.answer_files import AnswerFolder, files_of
from engine.prediction import Prediction

PNG = b"\x89PNG\r\n\x1a\n"


def answer(task: str = "image-segmentation", **kinds: Any) -> Prediction:
    return Prediction("1", "m", task, {}, **kinds)


def loaded(content: bytes) -> Any:
    return np.load(io.BytesIO(content), allow_pickle=False)


def test_masks_are_named_by_their_number_and_label() -> None:
    found = answer(predictions=[{"label": "cat", "score": 0.9, "mask": PNG}, {"label": "../ö dog", "mask": PNG}])
    assert [ending for ending, _ in files_of(found)] == ["-1-cat-mask.png", "-2-dog-mask.png"]


def test_a_depth_map_is_a_picture_and_an_array() -> None:
    depth = np.arange(6, dtype=np.float32).reshape(2, 3)
    files = dict(files_of(answer(predictions={"depth": PNG, "predicted_depth": depth})))
    assert files["-depth.png"] == PNG
    np.testing.assert_array_equal(loaded(files["-predicted_depth.npy"]), depth)


def test_a_vector_is_an_array() -> None:
    ((ending, content),) = files_of(answer("feature-extraction", predictions=[[[0.5, 1.0], [2.0, 3.0]]]))
    assert ending == ".npy"
    np.testing.assert_array_equal(loaded(content), np.array([[[0.5, 1.0], [2.0, 3.0]]], np.float32))


def test_raw_tensors_are_one_file_text_among_them() -> None:
    outputs = {"y": np.ones((2, 2), np.int64), "names": np.array(["a", "bc"], dtype=object)}
    ((ending, content),) = files_of(answer("raw-tensors", outputs=outputs))
    assert ending == ".npz"
    read = loaded(content)
    assert read["y"].dtype == np.int64
    assert read["names"].tolist() == ["a", "bc"]


def test_rows_are_numbered_from_one_and_failed_ones_have_no_file() -> None:
    rows = [{"input": 0, "error": {"code": "x", "message": "y"}}, {"input": 1, "predictions": {"image": PNG}}]
    assert dict(files_of(answer("image-to-image", results=rows))) == {"-2-image.png": PNG}


def test_words_alone_make_no_file() -> None:
    assert list(files_of(answer("image-classification", predictions=[{"label": "cat", "score": 1.0}]))) == []


def test_files_lie_in_the_folder_whatever_the_input_is_called(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "answers"
    found = answer("image-to-image", predictions={"image": PNG})
    (path,) = AnswerFolder(folder).write("/somewhere/../ünder 1.jpeg", found)
    assert (path.parent, path.name) == (folder, "nder_1-image.png")
    assert path.read_bytes() == PNG
    assert AnswerFolder(folder).write("/somewhere/../ünder 1.jpeg", found) == [path]


def test_inputs_with_equal_names_do_not_overwrite_each_other(tmp_path: Path) -> None:
    folder = AnswerFolder(tmp_path)
    names = [
        path.name
        for source in ("a/x.png", "b/x.jpg", "c/X.png")
        for path in folder.write(source, answer("image-to-image", predictions={"image": source.encode()}))
    ]
    assert names == ["x-image.png", "x(2)-image.png", "X(3)-image.png"]
    assert (tmp_path / "x(2)-image.png").read_bytes() == b"b/x.jpg"
