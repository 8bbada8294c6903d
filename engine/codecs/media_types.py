"""What a body is: by its Content-Type, or by its first bytes where that says nothing."""

from __future__ import annotations

CSV = "text/csv"
TEXT = "text/plain"
JSON = "application/json"
PARQUET = "application/vnd.apache.parquet"
NPY = "application/x-npy"
NPZ = "application/x-npz"
MULTIPART = "multipart/form-data"
OCTET_STREAM = "application/octet-stream"

_ALIASES = {
    "application/csv": CSV,
    "text/comma-separated-values": CSV,
    "application/x-parquet": PARQUET,
    "application/parquet": PARQUET,
    "application/npy": NPY,
    "application/npz": NPZ,
    # What Windows browsers name a .csv file where Excel is installed: the bytes decide.
    "application/vnd.ms-excel": OCTET_STREAM,
    "binary/octet-stream": OCTET_STREAM,
}

# Signatures as the formats' own specifications give them, in the order of how common they are.
_SIGNATURES = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
    (b"BM", "image/bmp"),
    (b"\x93NUMPY", NPY),
    (b"PAR1", PARQUET),
    (b"PK\x03\x04", NPZ),
    (b"PK\x05\x06", NPZ),
    (b"fLaC", "audio/flac"),
    (b"OggS", "audio/ogg"),
)
_HEIF_BRANDS = {b"heic": "image/heic", b"heix": "image/heic", b"mif1": "image/heif", b"msf1": "image/heif"}
_AVIF_BRANDS = {b"avif": "image/avif", b"avis": "image/avif"}


def media_type(content_type: str | None) -> str | None:
    """The type without its parameters, lower-cased and with common aliases resolved; None for None or an empty text."""
    if content_type is None:
        return None
    essence = content_type.partition(";")[0].strip().lower()
    return _ALIASES.get(essence, essence) or None


def charset(content_type: str | None) -> str | None:
    """The ``charset`` parameter of a Content-Type, lower-cased; None where it states none."""
    for parameter in (content_type or "").split(";")[1:]:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset":
            return value.strip().strip('"').lower() or None
    return None


def recognise(data: bytes | bytearray | memoryview) -> str | None:
    """The media type that the first bytes of ``data`` name, ``application/json`` for an object, None where they name
    nothing. A ZIP archive counts as npz: no other archive is an input."""
    head = bytes(memoryview(data)[:64])
    for signature, name in _SIGNATURES:
        if head.startswith(signature):
            return name
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image/webp"
    if head[:4] in (b"RIFF", b"RF64") and head[8:12] == b"WAVE":
        return "audio/wav"
    if head[4:8] == b"ftyp":
        return (_HEIF_BRANDS | _AVIF_BRANDS).get(head[8:12])
    if head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{"):
        return JSON
    return None


def looks_like_text(data: bytes | bytearray | memoryview) -> bool:
    """Whether the first 4 KiB of ``data`` could be a text file: no control bytes but tab, line ends and form feed.

    UTF-16 with a byte order mark counts as text.
    """
    head = bytes(memoryview(data)[:4096])
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return True
    return not any(byte < 32 and byte not in b"\t\r\n\x0c" for byte in head)
