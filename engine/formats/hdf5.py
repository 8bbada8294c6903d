"""HDF5 files, walked and measured before a framework reads them (HDF5 File Format Specification 3.0).

HDF5 can say more than it holds: a dataset of any size over a few bytes, a link into another file, data kept elsewhere,
a filter that is a library on the disk. None of that belongs into a model; each is refused here, from the file's own
descriptions alone: no dataset is ever read.
"""

from __future__ import annotations

import io
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod
from typing import Any, BinaryIO

from engine.errors import ModelCorrupt, ModelError, ModelRefused

SIGNATURE = b"\x89HDF\r\n\x1a\n"
MAX_RATIO = 20
SMALL = 16 << 20
"""A file may declare this many bytes whatever its size: zeros compress well."""
MAX_TOTAL = 64 << 30
MAX_OBJECTS = 100_000
MAX_DEPTH = 64

Corrupt = Callable[[str, str], ModelCorrupt]
"""Makes the error from a reason that follows a comma ("it is cut off") and details."""


@contextmanager
def opened(source: BinaryIO | io.IOBase, name: str, size: int, corrupt: Corrupt) -> Iterator[Any]:
    """The checked ``h5py.File`` in ``source``, a seekable file of ``size`` bytes that is called ``name``.

    Raises what ``corrupt`` makes, also for damage met while the block reads; ModelRefused for data in other files.
    """
    # h5py asks for the processor's name when it is imported, and Python would start a process for that (uname).
    vars(platform.uname()).setdefault("processor", platform.machine())
    import h5py

    try:
        with h5py.File(source, "r", driver="fileobj") as file:
            _Walk(name, size, corrupt).check(file)
            yield file
    except ModelError:
        raise
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, UnicodeDecodeError) as error:
        # h5py raises these, without a kind of its own, for whatever the HDF5 library finds wrong.
        raise corrupt("it is cut off or damaged", str(error)) from error


def attribute_text(holder: Any, name: str, limit: int) -> str | None:
    """A text attribute of a group, None where it is missing. Raises ValueError where it is no text of at most
    ``limit`` bytes."""
    if name not in holder.attrs:
        return None
    attribute = holder.attrs.get_id(name)
    if attribute.shape != () or attribute.dtype.itemsize > limit:
        raise ValueError(f"the attribute {name} is no single text")
    value = holder.attrs[name]
    text = value.decode("utf-8") if isinstance(value, bytes) else value
    if not isinstance(text, str) or len(text) > limit:
        raise ValueError(f"the attribute {name} is no text")
    return text


class _Walk:
    """One pass over every group, dataset and attribute of a file."""

    def __init__(self, name: str, size: int, corrupt: Corrupt) -> None:
        self._name = name
        self._corrupt = corrupt
        self._most = min(max(size * MAX_RATIO, SMALL), MAX_TOTAL)
        self._declared = 0
        self._seen: set[Any] = set()

    def check(self, file: Any) -> None:
        pending = [(file["/"].id, 1)]
        while pending:
            group, depth = pending.pop()
            self._attributes(group)
            for child in self._children(group, depth):
                pending.append((child, depth + 1))

    def _children(self, group: Any, depth: int) -> Iterator[Any]:
        """The groups in ``group``; its datasets are checked on the way."""
        import h5py

        if depth > MAX_DEPTH:
            raise self._corrupt(f"its groups lie more than {MAX_DEPTH} deep", "")
        for index in range(group.get_num_objs()):
            name = group.get_objname_by_idx(index)
            kind = group.links.get_info(name).type
            if kind != h5py.h5l.TYPE_HARD:
                raise ModelRefused(
                    f"{self._name} is refused: {_shown(name)} in it is a link, and could lead to another file."
                )
            found = h5py.h5o.open(group, name)
            info = h5py.h5o.get_info(found)
            if (info.fileno, info.addr) in self._seen:
                continue
            self._seen.add((info.fileno, info.addr))
            if len(self._seen) > MAX_OBJECTS:
                raise self._corrupt(f"it holds more than {MAX_OBJECTS:,} entries", "")
            if isinstance(found, h5py.h5d.DatasetID):
                self._dataset(name, found)
            elif isinstance(found, h5py.h5g.GroupID):
                yield found

    def _dataset(self, name: bytes, dataset: Any) -> None:
        import h5py

        properties = dataset.get_create_plist()
        if properties.get_layout() == h5py.h5d.VIRTUAL or properties.get_external_count():
            raise ModelRefused(f"{self._name} is refused: {_shown(name)} in it takes its values from another file.")
        built_in = (h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32)
        for index in range(properties.get_nfilters()):
            if properties.get_filter(index)[0] not in built_in:
                raise ModelRefused(f"{self._name} is refused: {_shown(name)} in it is packed in an unusual way.")
        self._count(name, dataset.shape, dataset.dtype)
        self._attributes(dataset)

    def _attributes(self, holder: Any) -> None:
        import h5py

        for index in range(h5py.h5a.get_num_attrs(holder)):
            attribute = h5py.h5a.open(holder, index=index)
            self._count(attribute.name, attribute.shape, attribute.dtype)

    def _count(self, name: bytes, shape: tuple[int, ...] | None, dtype: Any) -> None:
        """Add what is declared, empty dataspaces (None) being nothing; raise beyond the bound."""
        self._declared += 0 if shape is None else prod(shape) * max(int(dtype.itemsize), 1)
        if self._declared > self._most:
            raise self._corrupt(
                f"{_shown(name)} in it declares more than {MAX_RATIO} times as many bytes as the file has", ""
            )


def _shown(name: bytes) -> str:
    return repr(name.decode("utf-8", "replace")[:60])
