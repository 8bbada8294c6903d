"""Where a model's sidecar lies, and changing it: comments and order stay as the person wrote them.

Reading and checking one is :mod:`engine.formats.sidecar`'s, in the inspector.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import SidecarInvalid
from engine.model_spec import Preprocessing
from engine.settings import write_atomically

if TYPE_CHECKING:
    from tomlkit import TOMLDocument

FOLDER_NAME = "deskside.toml"
SUFFIX = ".deskside.toml"
MAX_BYTES = 1 << 20
_SECTIONS = ("preprocessing", "postprocessing")
_PREPROCESSING = frozenset(f.name for f in fields(Preprocessing))


def sidecar_in_data_folder(model: Path, data_dir: Path) -> Path:
    """Where the sidecar of a model in a read-only place lies: named after the model and the hash of its whole path."""
    return data_dir / "sidecars" / f"{model.name}-{hashlib.sha256(str(model).encode()).hexdigest()[:16]}{SUFFIX}"


def find_sidecar(path: Path, model_file: Path, data_dir: Path) -> Path | None:
    """The sidecar of a model: beside the single file first, then in its folder, then in the data folder."""
    candidates = [
        model_file.parent / (model_file.name + SUFFIX),
        model_file.parent / (model_file.stem + SUFFIX),
    ]
    if model_file.is_dir():
        candidates.append(model_file / FOLDER_NAME)
    if path.is_dir():
        candidates.append(path / FOLDER_NAME)
    candidates.append(sidecar_in_data_folder(path, data_dir))
    return next((candidate for candidate in candidates if candidate.exists()), None)


def new_sidecar(path: Path, model_file: Path) -> Path:
    """Where a first sidecar is written: in the model's folder, or beside the single file."""
    return path / FOLDER_NAME if path.is_dir() else model_file.parent / (model_file.name + SUFFIX)


def read_text(path: Path | None) -> str:
    """The sidecar's text, "" where there is none yet. Raises SidecarInvalid."""
    if path is None:
        return ""
    try:
        if not path.is_file():
            raise SidecarInvalid(f"{path.name} is not a regular file.")
        with path.open("rb") as handle:
            data = handle.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise SidecarInvalid(f"{path.name} is larger than 1 MiB, which no sidecar should be.")
        return data.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SidecarInvalid(f"{path.name} cannot be read, and so not be changed: {error}.") from error


def full_keys(changes: Mapping[str, Any]) -> dict[str, Any]:
    """``changes`` under the sidecar's dotted keys: a field of [preprocessing] may be named without its section."""
    return {f"preprocessing.{key}" if key in _PREPROCESSING else key: value for key, value in changes.items()}


def preprocessing_fields(changes: Mapping[str, Any]) -> dict[str, Any]:
    """``changes`` by field of Preprocessing; None for what is taken back.

    Raises SidecarInvalid naming a key of another kind.
    """
    names = {f.name for f in fields(Preprocessing)}
    found = {}
    for key, value in full_keys(changes).items():
        section, _, name = key.partition(".")
        if section != "preprocessing" or name not in names:
            raise SidecarInvalid(f"{key}: only the keys of [preprocessing] can be changed while a model is loaded.")
        found[name] = value
    return {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}


def changed_text(text: str, changes: Mapping[str, Any]) -> str:
    """``text`` with ``changes`` made: dotted keys (``preprocessing.scaling``, ``labels``), a field of [preprocessing]
    also without its section. None, or an empty list, takes a key out.

    Raises SidecarInvalid where ``text`` is no TOML, or a value is none that TOML has.
    """
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    try:
        document = tomlkit.parse(text)
        for key, value in full_keys(changes).items():
            _change(document, key, None if value in ([], ()) else value)
        return tomlkit.dumps(document)
    except (TOMLKitError, ValueError, TypeError) as error:
        raise SidecarInvalid(f"The sidecar could not be changed: {error}.") from error


def _change(document: TOMLDocument, key: str, value: Any) -> None:
    import tomlkit

    section, _, name = key.rpartition(".")
    if section and section not in _SECTIONS:
        raise SidecarInvalid(f"{key}: there is no section [{section}] in a sidecar.")
    table: Any = document
    if section:
        if section not in document:
            if value is None:
                return
            document[section] = tomlkit.table()
        table = document[section]
        if not hasattr(table, "unwrap") or not isinstance(table.unwrap(), dict):
            raise SidecarInvalid(f"{section}: expected a section, [{section}].")
    if value is None:
        table.pop(name, None)
    else:
        table[name] = list(value) if isinstance(value, tuple) else value


def write_sidecar(path: Path, model_file: Path, data_dir: Path, text: str) -> Path:
    """Replace the model's sidecar by ``text``, or make one: in the data folder where its own place is read-only.

    The result is the file written. Raises OSError where neither can be written.
    """
    target = find_sidecar(path, model_file, data_dir) or new_sidecar(path, model_file)
    elsewhere = sidecar_in_data_folder(path, data_dir)
    try:
        write_atomically(target, text.encode())
    except OSError:
        if target == elsewhere or target.exists():
            # What lies beside the model is read first: a second sidecar elsewhere would say nothing.
            raise
        target = elsewhere
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(target, text.encode())
    return target
