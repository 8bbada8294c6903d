"""Bytes of a text file to text, in the encodings that people's files have."""

from __future__ import annotations

import codecs

from engine.errors import InputTooLarge, UnusableInput

MAX_CHARACTERS = 1_000_000
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_CHARSETS = {
    "utf-8": "utf-8", "utf8": "utf-8", "us-ascii": "utf-8", "utf-16": "utf-16", "utf-16le": "utf-16-le",
    "utf-16be": "utf-16-be", "iso-8859-1": "cp1252", "latin1": "cp1252", "windows-1252": "cp1252",
    "iso-8859-15": "iso8859-15",
}  # fmt: skip
"""Names a Content-Type may state (the WHATWG Encoding Standard reads ISO-8859-1 as Windows-1252, and so does this)."""


def decode_text(data: bytes, charset: str | None = None) -> str:
    """The text of a file: by its byte order mark, else the stated ``charset``, else UTF-8, else UTF-16 where every
    other byte of its beginning is zero, else Windows-1252.

    Raises UnusableInput where it is none of these or holds NUL, :func:`check_text` 's errors.
    """
    stated = _CHARSETS.get(charset) if charset else None
    if charset and stated is None:
        raise UnusableInput(f"Text in the encoding {charset[:40]!r} cannot be read: send it in UTF-8.")
    marked = next((name for bom, name in _BOMS if data.startswith(bom)), None)
    candidates = (marked or stated,) if marked or stated else ("utf-8", _utf_16_half(data), "cp1252")
    for candidate in candidates:
        if candidate is None:
            continue
        try:
            text = data.decode(candidate)
        except UnicodeDecodeError:
            continue
        if "\x00" not in text:
            return check_text(text)
    expected = charset.upper() if charset and not marked else "UTF-8, UTF-16 or Windows-1252"
    raise UnusableInput(f"This is not a text: expected {expected}.")


def check_text(text: str) -> str:
    """``text`` itself. Raises UnusableInput (``nothing_to_predict``) where it holds nothing but white space,
    InputTooLarge above ``MAX_CHARACTERS``."""
    if not text.strip():
        raise UnusableInput("The text is empty.", code="nothing_to_predict")
    if len(text) > MAX_CHARACTERS:
        raise InputTooLarge(f"The text has {len(text):,} characters: at most {MAX_CHARACTERS:,} are read.")
    return text


def _utf_16_half(data: bytes) -> str | None:
    """UTF-16 without a mark: in Western text, one of the two bytes of most characters is zero."""
    head = data[:512]
    half = len(head) // 2
    if half < 2 or len(data) % 2:
        return None
    if head[1::2].count(0) > 0.7 * half:
        return "utf-16-le"
    return "utf-16-be" if head[0::2].count(0) > 0.7 * half else None
