"""CSV as spreadsheets write it becomes a table; anything else is a table_invalid that names the row."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.codecs import tables
from engine.codecs.tables import parse_csv, parse_number
from engine.errors import UnusableInput


def refused(data: bytes) -> str:
    with pytest.raises(UnusableInput) as caught:
        parse_csv(data)
    assert caught.value.code == "table_invalid"
    return caught.value.message


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_each_delimiter_is_found(delimiter: str) -> None:
    table = parse_csv(f"a{delimiter}b\r\n1{delimiter}2\r\n3{delimiter}4\r\n".encode())
    assert table.columns == ("a", "b")
    assert table.rows == (("1", "2"), ("3", "4"))
    assert table.delimiter == delimiter
    assert table.decimal_comma is (delimiter != ",")


def test_decimal_commas_do_not_hide_the_semicolon() -> None:
    table = parse_csv("höhe, cm;gewicht, kg;alter\n1,5;2,5;3\n1;2;3\n".encode())
    assert table.columns == ("höhe, cm", "gewicht, kg", "alter")
    assert table.rows == (("1,5", "2,5", "3"), ("1", "2", "3"))


def test_sep_line_of_excel() -> None:
    assert parse_csv(b"sep=|\r\na|b\r\n1,2,3|4\r\n").rows == (("1,2,3", "4"),)


@pytest.mark.parametrize(
    ("data", "encoding"),
    [
        ("ä,b\n1,2\n".encode(), "utf-8"),
        ("ä,b\n1,2\n".encode("utf-8-sig"), "utf-8-sig"),
        ("ä,b\n1,2\n".encode("utf-16"), "utf-16"),
        ("ä,b\n1,2\n".encode("cp1252"), "cp1252"),
    ],
)
def test_encodings_are_recognised_and_stated(data: bytes, encoding: str) -> None:
    table = parse_csv(data)
    assert table.columns == ("ä", "b")
    assert table.encoding == encoding


def test_quoted_newlines_quotes_and_blank_lines() -> None:
    table = parse_csv(b'name,note\n\n"a, b","two\nlines and ""quotes"""\n\n')
    assert table.rows == (("a, b", 'two\nlines and "quotes"'),)


def test_one_column() -> None:
    assert parse_csv(b"x\n1\n2\n").rows == (("1",), ("2",))


def test_ragged_row_is_named_with_its_line() -> None:
    assert "Row 2 of the table (line 3) has 1 value, expected 2" in refused(b"a,b\n1,2\n3\n4,5\n")
    assert "has 3 values" in refused(b"a,b\n1,2,3\n")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"\n \n", "empty"),
        (b"\xef\xbb\xbf", "empty"),
        (b"a,b\n", "no rows"),
        (b"a,b,a\n1,2,3\n", "two columns named 'a'"),
        (b"\x00\x01\x02", "not a table"),
        (b"\xff\xfeabc", "not a table"),
        (b'a,b\n"1,2\n', "never closed"),
        (b"a\n" + b"x" * 200_000 + b"\n", "longer than"),
    ],
)
def test_what_is_no_table_is_refused(data: bytes, words: str) -> None:
    assert words in refused(data)


def test_cells_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MAX_CELLS", 4)
    assert len(parse_csv(b"a,b\n1,2\n3,4\n").rows) == 2
    assert "more than 4 cells" in refused(b"a,b\n1,2\n3,4\n5,6\n")


@pytest.mark.parametrize(
    ("text", "comma", "value"),
    [("1", False, 1.0), (" -2.5 ", False, -2.5), ("1e3", False, 1000.0), (".5", False, 0.5), ("1,5", True, 1.5),
     ("1.5", True, 1.5), ("+3", True, 3.0)],
)  # fmt: skip
def test_numbers(text: str, comma: bool, value: float) -> None:
    assert parse_number(text, comma) == value


@pytest.mark.parametrize(
    ("text", "comma"),
    [("", False), ("1,5", False), ("1.234,5", True), ("nan", False), ("inf", False), ("1e999", False), ("1_000", False),
     ("٣", False), ("0x10", False), ("1 2", False), ("abc" * 100, False)],
)  # fmt: skip
def test_not_numbers(text: str, comma: bool) -> None:
    with pytest.raises(ValueError, match="is not a number") as caught:
        parse_number(text, comma)
    assert len(str(caught.value)) < 90


@settings(max_examples=100, deadline=None)
@given(st.one_of(st.binary(max_size=200), st.text("ab,;\"\n\r\t|'0 é", max_size=200).map(lambda t: t.encode())))
def test_any_bytes_give_a_table_or_a_sentence(data: bytes) -> None:
    try:
        table = parse_csv(data)
    except UnusableInput:
        return
    assert all(len(row) == len(table.columns) for row in table.rows)
