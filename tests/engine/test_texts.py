"""Text files in the encodings people have."""

from __future__ import annotations

import pytest

from engine.codecs.media_types import charset
from engine.codecs.texts import MAX_CHARACTERS, decode_text
from engine.errors import InputTooLarge, UnusableInput

TEXT = "Crème brûlée für 3 €, naïve."


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"])
def test_an_encoding_is_recognised(encoding: str) -> None:
    assert decode_text(TEXT.encode(encoding)) == TEXT


@pytest.mark.parametrize(
    ("stated", "encoding"),
    [("utf-8", "utf-8"), ("windows-1252", "cp1252"), ("iso-8859-15", "iso8859-15"), ("utf-16be", "utf-16-be")],
)
def test_a_stated_encoding_holds(stated: str, encoding: str) -> None:
    assert decode_text(TEXT.encode(encoding), stated) == TEXT


def test_a_mark_in_the_text_wins_over_what_is_stated() -> None:
    assert decode_text(TEXT.encode("utf-8-sig"), "windows-1252") == TEXT


def test_a_text_that_is_not_what_it_states_is_refused_rather_than_guessed() -> None:
    with pytest.raises(UnusableInput, match="expected UTF-8"):
        decode_text(TEXT.encode("cp1252"), "utf-8")
    with pytest.raises(UnusableInput, match="encoding 'klingon' cannot be read"):
        decode_text(b"nuqneH", "klingon")


@pytest.mark.parametrize("data", [b"\x00\x01\x02", b"\x81\x8d", b"text\x00text", b"\xff\xfea"])
def test_what_is_no_text_is_told(data: bytes) -> None:
    with pytest.raises(UnusableInput, match="This is not a text"):
        decode_text(data)


@pytest.mark.parametrize("data", [b"", b" \r\n\t", "\ufeff".encode(), "\u2003".encode()])
def test_an_empty_text_is_told(data: bytes) -> None:
    with pytest.raises(UnusableInput, match="The text is empty") as told:
        decode_text(data)
    assert told.value.code == "nothing_to_predict"


def test_the_limit_counts_characters() -> None:
    assert len(decode_text(("ü" * MAX_CHARACTERS).encode())) == MAX_CHARACTERS
    with pytest.raises(InputTooLarge, match="1,000,001 characters"):
        decode_text(b"a" * (MAX_CHARACTERS + 1))


@pytest.mark.parametrize(
    ("content_type", "found"),
    [
        ("text/plain", None),
        ("text/plain; charset=UTF-8", "utf-8"),
        ('text/plain; format=flowed; Charset="Windows-1252"', "windows-1252"),
        ("text/plain; charset=", None),
        (None, None),
    ],
)
def test_the_charset_of_a_content_type(content_type: str | None, found: str | None) -> None:
    assert charset(content_type) == found
