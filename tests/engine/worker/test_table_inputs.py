"""Tables as people have them: Parquet, names written otherwise, missing values, words for categories, mixed columns."""

from __future__ import annotations

import datetime
import decimal
import io
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from engine.codecs.parquet import MAX_UNPACKED, parse_parquet
from engine.errors import EngineError, LoadFailed, UnusableInput
from engine.model_spec import ModelSpec, TensorSpec
from engine.worker.inputs import InputReader
from engine.worker.tasks import create_task
from engine.worker.tasks.base import TableRows
from engine.worker.tasks.table_inputs import TableInputs
from engine.worker.work import Work
from tests.engine.worker.process import make_spec

COLUMNS = ("age", "height_cm", "colour")
COLOURS = ("red", "green", "blue")


def model(width: int = 3, **facts: Any) -> ModelSpec:
    values: dict[str, Any] = {"columns": COLUMNS, "inputs": (TensorSpec("x", "float32", (-1, width)),)}
    return make_spec("tabular-classification", **(values | facts))


def rows_of(table: TableRows, name: str = "x") -> list[list[float]]:
    found: list[list[float]] = table.arrays[name].tolist()
    return found


def read(spec: ModelSpec, data: bytes, content_type: str | None = None) -> Work:
    return InputReader(create_task(spec), spec).read({"id": "r", "kind": "bytes", "content_type": content_type}, [data])


def parquet(**columns: Any) -> bytes:
    packed = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), packed)
    return packed.getvalue()


# -- categories and missing values -------------------------------------------------------------------------------------
def test_a_category_becomes_its_number_or_a_one_among_zeros() -> None:
    rows = [{"age": 30, "height_cm": "180", "colour": "green"}, {"age": 40, "height_cm": 170, "colour": " blue "}]
    plain = TableInputs(model(categories={"colour": COLOURS}))
    assert rows_of(plain.rows(rows, decimal_comma=False)) == [[30, 180, 1], [40, 170, 2]]
    spread = TableInputs(model(5, categories={"colour": COLOURS}, one_hot=("colour",)))
    spread.check()
    assert rows_of(spread.rows(rows, decimal_comma=False)) == [[30, 180, 0, 1, 0], [40, 170, 0, 0, 1]]


def test_a_word_that_is_no_category_fails_its_own_row() -> None:
    rows = [{"age": 1, "height_cm": 2, "colour": "pink"}, {"age": 1, "height_cm": 2, "colour": "red"}]
    table = TableInputs(model(categories={"colour": COLOURS})).rows(rows, decimal_comma=False)
    assert table.numbers == [1]
    assert str(table.errors[0]) == "Row 1, column 'colour': 'pink' is none of its categories (red, green, blue)."


@pytest.mark.parametrize("word", ["", "  ", "NA", "n/a", "NaN", "null", "None", "-", "?", None, float("nan")])
def test_what_people_write_for_nothing_is_nothing(word: Any) -> None:
    rows = [{"age": word, "height_cm": 2, "colour": "red"}]
    bare = TableInputs(model(categories={"colour": COLOURS})).rows(rows, decimal_comma=False)
    assert str(bare.errors[0]) == "Row 1, column 'age': there is no value."
    filled = TableInputs(model(categories={"colour": COLOURS}, missing={"age": 41.5}))
    assert rows_of(filled.rows(rows, decimal_comma=False)) == [[41.5, 2, 0]]


def test_every_column_may_have_what_stands_for_nothing() -> None:
    spec = model(categories={"colour": COLOURS}, missing={"*": "nan", "height_cm": -1.0})
    (row,) = rows_of(TableInputs(spec).rows([{"age": "", "height_cm": "", "colour": "?"}], decimal_comma=False))
    assert np.isnan(row[0])
    assert row[1] == -1
    assert np.isnan(row[2])
    whole = TableInputs(model(missing={"*": "nan"}, inputs=(TensorSpec("x", "int64", (-1, 3)),)))
    told = whole.rows([{"age": "", "height_cm": 1, "colour": 2}], decimal_comma=False).errors[0]
    assert "knows no nan" in str(told)


def test_a_category_may_be_a_word_for_nothing() -> None:
    spec = model(categories={"colour": ("none", "red")})
    assert rows_of(TableInputs(spec).rows([{"age": 1, "height_cm": 2, "colour": "none"}], decimal_comma=False)) == [
        [1, 2, 0]
    ]


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"categories": {"hair": COLOURS}}, "'hair'"),
        ({"missing": {"hair": 1.0}}, "'hair'"),
        ({"one_hot": ("colour",)}, "categories are not stated"),
        ({"categories": {"colour": COLOURS}, "one_hot": ("colour",)}, "5 columns"),
        ({"inputs": (TensorSpec("x", "str", (-1, 3)),)}, "not a table's numbers"),
    ],
)
def test_what_is_stated_of_no_column_is_refused_when_loaded(facts: dict[str, Any], words: str) -> None:
    with pytest.raises(LoadFailed, match=words):
        create_task(model(**facts)).check()


# -- names -------------------------------------------------------------------------------------------------------------
def test_case_and_spaces_of_a_name_do_not_matter_where_one_column_can_be_meant() -> None:
    rows = [{" Age": 1, "Height cm": 2, "COLOUR": 3, "more": 9}]
    assert rows_of(TableInputs(model()).rows(rows, decimal_comma=False)) == [[1, 2, 3]]
    with pytest.raises(UnusableInput, match="no column 'age'"):
        TableInputs(model()).rows([{"Age": 1, "AGE": 5, "height_cm": 2, "colour": 3}], decimal_comma=False)


def test_every_miss_is_named_with_what_was_perhaps_meant() -> None:
    with pytest.raises(UnusableInput) as caught:
        TableInputs(model()).rows([{"agee": 1, "weight": 2, "colour": 3}], decimal_comma=False)
    assert caught.value.code == "column_missing"
    assert str(caught.value) == (
        "The table has no columns 'age' (is 'agee' meant?), 'height_cm', which the model needs."
    )


# -- a column, an input ------------------------------------------------------------------------------------------------
MIXED = (
    TensorSpec("age", "float32", (-1, 1)), TensorSpec("colour", "str", (-1, 1)), TensorSpec("visits", "int64", (-1,)),
    TensorSpec("member", "bool", (-1, 1)),
)  # fmt: skip


def test_columns_go_to_the_inputs_of_their_names() -> None:
    spec = make_spec("tabular-regression", inputs=MIXED)
    rows = [
        {"colour": "red", "age": "30,5", "visits": "4", "member": 1},
        {"colour": 7, "age": 1, "visits": 2, "member": 0},
    ]
    table = TableInputs(spec).rows(rows, decimal_comma=True)
    assert {name: (array.dtype.name, array.shape) for name, array in table.arrays.items()} == {
        "age": ("float32", (2, 1)), "colour": ("object", (2, 1)), "visits": ("int64", (2,)), "member": ("bool", (2, 1)),
    }  # fmt: skip
    assert table.arrays["colour"].tolist() == [["red"], ["7"]]
    assert table.arrays["age"].tolist() == [[30.5], [1.0]]
    assert table.arrays["member"].tolist() == [[True], [False]]


def test_a_cell_that_fits_not_its_input_fails_its_row() -> None:
    spec = make_spec("tabular-regression", inputs=MIXED)
    row = {"colour": "red", "age": 1, "visits": 2.5, "member": True}
    assert str(TableInputs(spec).rows([row], decimal_comma=False).errors[0]) == (
        "Row 1, column 'visits': 2.5 does not fit int64."
    )


def test_an_input_that_is_no_column_is_refused() -> None:
    with pytest.raises(LoadFailed, match="no column of a table"):
        create_task(make_spec("tabular-regression", inputs=(MIXED[0], TensorSpec("picture", "float32", (-1, 8, 8, 3)))))


# -- Parquet -----------------------------------------------------------------------------------------------------------
def test_parquet_is_read_as_the_same_table_as_csv() -> None:
    spec = model(categories={"colour": COLOURS}, missing={"*": 0.0})
    packed = parquet(
        age=pyarrow.array([30, None, 50], pyarrow.int16()),
        height_cm=pyarrow.array([decimal.Decimal("180.5"), None, decimal.Decimal("170.0")]),
        colour=pyarrow.array(["red", "blue", None]).dictionary_encode(),
        more=pyarrow.array([datetime.date(2020, 1, 1)] * 3),
    )
    written = b"age;height_cm;colour;more\n30;180,5;red;x\n;;blue;x\n50;170,0;;x\n"
    for content_type in ("application/vnd.apache.parquet", "application/x-parquet", None):
        found = read(spec, packed, content_type)
        expected = read(spec, written, "text/csv")
        np.testing.assert_array_equal(found.blocks[0].arrays["x"], expected.blocks[0].arrays["x"])
        assert found.form == expected.form


def test_parquet_values_are_plain() -> None:
    when = datetime.datetime(2020, 1, 2, 3, 4, 5)
    table = parse_parquet(parquet(a=[True, None], b=[when, when], c=[1.5, 2.0]))
    assert table.columns == ("a", "b", "c")
    assert table.rows == [(1, "2020-01-02T03:04:05", 1.5), (None, "2020-01-02T03:04:05", 2.0)]


def test_the_head_of_a_large_table_is_enough_for_a_preview() -> None:
    table = parse_parquet(parquet(a=list(range(1000))), max_rows=3)
    assert (table.rows, table.total_rows) == ([(0,), (1,), (2,)], 1000)


BAD = {
    "cut off": (parquet(a=[1, 2, 3])[:-30], "damaged or cut off"),
    "no parquet at all": (b"PAR1 and nothing more", "damaged or cut off"),
    "no rows": (parquet(a=pyarrow.array([], pyarrow.int64())), "no rows"),
    "nested values": (parquet(a=[[1], [2]]), "'a' holds list"),
    "binary values": (parquet(a=[b"x", b"y"]), "'a' holds binary"),
}


@pytest.mark.parametrize("what", BAD)
def test_parquet_that_is_no_table_is_told(what: str) -> None:
    data, words = BAD[what]
    with pytest.raises(UnusableInput, match=words) as caught:
        parse_parquet(data)
    assert caught.value.code == "table_invalid"


def test_a_small_file_that_holds_too_much_is_never_unpacked() -> None:
    with pytest.raises(EngineError, match="cells"):
        parse_parquet(parquet(a=np.zeros(2_000_001, np.int8)))
    long = "x" * 1_000_000
    packed = io.BytesIO()
    groups = 600
    writer = pyarrow.parquet.ParquetWriter(packed, pyarrow.schema([("a", pyarrow.string())]), use_dictionary=False,
                                           compression="zstd")  # fmt: skip
    batch = pyarrow.table({"a": [long]})
    for _ in range(groups):
        writer.write_table(batch)
    writer.close()
    assert len(packed.getvalue()) < 2_000_000
    assert groups * len(long) > MAX_UNPACKED
    with pytest.raises(EngineError, match="unpacked"):
        parse_parquet(packed.getvalue())
