"""What a pickle would import, read from its opcodes. Nothing is ever unpickled here.

``pickletools.genops`` reads the opcodes and runs none. What torch's own restricted unpickler allows
(``torch/_weights_only_unpickler.py``, ``_get_allowed_globals``, torch 2.13) is listed here, so that a file it would
refuse is refused before a framework is started.
"""

from __future__ import annotations

import pickletools
import re

MAX_OPCODES = 500_000
UNKNOWN = ("?", "?")
"""Stands for a name that cannot be told from the opcodes."""

_ALLOWED = frozenset(
    {
        ("collections", "OrderedDict"), ("collections", "Counter"), ("torch.nn.parameter", "Parameter"),
        ("torch.serialization", "_get_layout"), ("torch", "Size"), ("torch", "Tensor"), ("torch", "device"),
        ("_codecs", "encode"), ("builtins", "bytearray"), ("builtins", "set"), ("builtins", "complex"),
        # Protocol 2 writes the names of Python 2, which the unpickler maps.
        ("__builtin__", "bytearray"), ("__builtin__", "set"), ("__builtin__", "complex"),
        ("torch.storage", "TypedStorage"), ("torch.storage", "UntypedStorage"), ("torch.storage", "_TypedStorage"),
        ("torch.storage", "_UntypedStorage"), ("torch._tensor", "_rebuild_from_type_v2"),
    }
)  # fmt: skip
_REBUILD = frozenset(
    {
        "_rebuild_parameter", "_rebuild_parameter_with_state", "_rebuild_qtensor", "_rebuild_tensor",
        "_rebuild_tensor_v2", "_rebuild_tensor_v3", "_rebuild_sparse_tensor", "_rebuild_meta_tensor_no_storage",
        "_rebuild_nested_tensor", "_rebuild_wrapper_subclass", "_rebuild_device_tensor_from_numpy",
        "_rebuild_device_tensor_from_cpu_tensor",
    }
)  # fmt: skip
_DTYPE_OR_STORAGE = re.compile(
    r"(?:u?int[1-8]|u?int(?:8|16|32|64)|float(?:16|32|64)|float(?:8|4)_\w{1,20}|bfloat16|complex(?:32|64|128)|bool|half|"
    r"q(?:u)?int\w{1,6}|bits\w{1,8}|per_(?:tensor|channel)_\w{1,30}|[A-Z][A-Za-z0-9]{1,20}Storage|"
    r"(?:Float|Double|Half|BFloat16|Long|Int|Short|Char|Byte|Bool)Tensor)",
    re.ASCII,
)


TAR_END = 512
"""Bytes from a file's beginning that :func:`is_legacy_checkpoint` looks at."""
_LEGACY_MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."


def is_legacy_checkpoint(head: bytes) -> bool:
    """Whether a file begins as ``torch.save`` wrote it before 1.6: a pickled magic number (torch/serialization.py,
    ``MAGIC_NUMBER``) or, before 0.1.10, a tar."""
    return head[2 : 2 + len(_LEGACY_MAGIC)] == _LEGACY_MAGIC or head[257:262] == b"ustar"


def is_pickle(head: bytes) -> bool:
    """Whether bytes begin as a pickle of protocol 2 to 5 does; older ones have no mark of their own."""
    return len(head) >= 2 and head[0] == 0x80 and 2 <= head[1] <= 5


def rebuilds_tensors(module: str, name: str) -> bool:
    """Whether torch's restricted unpickler would take this name."""
    if (module, name) in _ALLOWED:
        return True
    if module == "torch._utils":
        return name in _REBUILD
    return module in ("torch", "torch.cuda") and _DTYPE_OR_STORAGE.fullmatch(name) is not None


def pickled_globals(pickled: bytes) -> set[tuple[str, str]]:
    """The (module, name) pairs a pickle would import; ``UNKNOWN`` is among them where one cannot be told."""
    found: set[tuple[str, str]] = set()
    memo: dict[int, str | None] = {}
    pushed: tuple[str | None, str | None] = (None, None)  # the last two values on the stack, where they are text
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(pickled)):
            name = opcode.name
            if count > MAX_OPCODES:
                return found | {UNKNOWN}
            if name == "MEMOIZE":
                memo[len(memo)] = pushed[1]
            elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
                memo[int(str(argument))] = pushed[1]
            elif name in ("GET", "BINGET", "LONG_BINGET"):
                pushed = (pushed[1], memo.get(int(str(argument))))
            elif "UNICODE" in name or "STRING" in name:
                pushed = (pushed[1], argument if isinstance(argument, str) else None)
            else:
                if name in ("GLOBAL", "INST"):
                    module, _, attribute = str(argument).partition(" ")
                    found.add((module, attribute))
                elif name == "STACK_GLOBAL":
                    module_name, attribute_name = pushed
                    found.add(
                        UNKNOWN if module_name is None or attribute_name is None else (module_name, attribute_name)
                    )
                elif name in ("EXT1", "EXT2", "EXT4"):
                    found.add(UNKNOWN)
                pushed = (None, None)
    except (ValueError, IndexError, UnicodeDecodeError):
        return found | {UNKNOWN}
    return found
