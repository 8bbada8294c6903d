"""Files of a ``multipart/form-data`` body (RFC 7578). File names are dropped: nothing on disk is ever named by them."""

from __future__ import annotations

from dataclasses import dataclass

from engine.errors import InputTooLarge, Malformed, UnusableInput

MAX_PARTS = 1_000


@dataclass(frozen=True, slots=True)
class FilePart:
    """One uploaded file: its bytes and the Content-Type its sender gave it, if any."""

    data: bytes
    content_type: str | None


def parse_files(body: bytes, content_type: str) -> list[FilePart]:
    """The files of ``body`` in order; form fields that are not files are skipped.

    Raises Malformed for a body that is not multipart, InputTooLarge above 1000 parts, UnusableInput
    (``nothing_to_predict``) where no part is a file.
    """
    # Imported on use: it takes a tenth of the start of a worker, and few workers ever see a form.
    from werkzeug.exceptions import RequestEntityTooLarge
    from werkzeug.http import parse_options_header
    from werkzeug.sansio.multipart import Data, Epilogue, Field, File, MultipartDecoder

    boundary = parse_options_header(content_type)[1].get("boundary", "")
    if not boundary or len(boundary) > 70 or not boundary.isascii():
        raise Malformed("The multipart body names no usable boundary in its Content-Type.")
    decoder = MultipartDecoder(boundary.encode("ascii"), max_parts=MAX_PARTS)
    files: list[FilePart] = []
    chunks: list[bytes] | None = None
    kind: str | None = None
    finished = False
    try:
        decoder.receive_data(body)
        decoder.receive_data(None)
        while not finished:
            event = decoder.next_event()
            if isinstance(event, File):
                chunks, kind = [], event.headers.get("Content-Type")
            elif isinstance(event, Field):
                chunks = None
            elif isinstance(event, Data) and chunks is not None:
                chunks.append(event.data)
                if not event.more_data:
                    files.append(FilePart(b"".join(chunks), kind))
                    chunks = None
            elif isinstance(event, Epilogue):
                finished = True
    except RequestEntityTooLarge as error:
        raise InputTooLarge(f"The form has more than {MAX_PARTS} parts.") from error
    except (ValueError, LookupError) as error:
        raise Malformed("The body is not a complete multipart form.") from error
    if not files:
        raise UnusableInput("The form holds no file.", code="nothing_to_predict")
    return files
