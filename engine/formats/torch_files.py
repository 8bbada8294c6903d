"""PyTorch's files: TorchScript archives, and those that are weights or pickles and so are not opened.

``torch.jit.save`` writes a zip with ``constants.pkl`` and ``code/`` below one folder
(caffe2/serialize/inline_container.h); ``torch.save`` a zip with ``data.pkl`` but no code or, before 1.6, bare pickles.
Nothing is ever unpickled here: ``pickletools.genops`` reads the opcodes and runs none.
"""

from __future__ import annotations

import pickletools
from pathlib import Path

from engine.errors import ModelFormatUnknown, ModelRefused
from engine.formats import ultralytics
from engine.formats.container import LOCAL_HEADER, ZipContainer
from engine.formats.disk import EXPECTED, read_head
from engine.model_spec import ASSUMED, ModelSpec, TrustClass

NAME = "torchscript"
TORCHSCRIPT = "a complete TorchScript file as torch.jit.save writes it"
MAX_PICKLE = 32 << 20
CONFIG = "config.txt"
"""The extra file in which Ultralytics' exporter says what it exported."""
MAX_OPCODES = 500_000
_SUFFIXES = frozenset({".pt", ".pth", ".ts", ".torchscript", ".ckpt", ".bin"})
_TENSOR_MODULES = ("torch._utils", "torch.storage", "collections", "torch.serialization", "numpy", "_codecs")
"""Modules whose functions rebuild tensors and dicts; any other module named in a pickle is somebody's class."""


def recognise(path: Path) -> bool:
    """A zip laid out as PyTorch does, a pickle, or a file with one of PyTorch's suffixes."""
    if not path.is_file():
        return False
    head = read_head(path, 4)
    if head != LOCAL_HEADER:
        return path.suffix.lower() in _SUFFIXES or _is_pickle(head)
    if path.suffix.lower() in _SUFFIXES:
        return True
    with ZipContainer(path, TORCHSCRIPT) as container:
        root = _root(container.names)
        return root is not None and f"{root}/data.pkl" in container.names


def describe(path: Path) -> ModelSpec:
    """A TorchScript archive; inputs are stated only where an exporter added them. Raises ModelCorrupt, ModelRefused,
    ModelFormatUnknown, ModelUnreadable."""
    head = read_head(path, 4)
    if _is_pickle(head):
        raise ModelRefused(
            f"{path.name} is refused: it is a pickle, which can run any code when it is opened; expected {EXPECTED}."
        )
    with ZipContainer(path, TORCHSCRIPT) as container:
        names = container.names
        root = _root(names)
        if root is None or f"{root}/data.pkl" not in names:
            if root is not None and f"{root}/archive_format" in names:
                raise ModelFormatUnknown(
                    f"{path.name} is a torch.export program, a format that is not opened yet: expected {EXPECTED}."
                )
            raise ModelFormatUnknown(f"{path.name} is not a PyTorch model: expected {EXPECTED}.")
        if f"{root}/constants.pkl" not in names or not any(n.startswith(f"{root}/code/") for n in names):
            raise _without_code(path, container.read(f"{root}/data.pkl", MAX_PICKLE))
        container.read(f"{root}/constants.pkl", MAX_PICKLE)
        evidence = {
            "format": f"{path.name}: {root}/constants.pkl, {root}/code",
            "runtime": f"{path.name}: {root}/code",
        }
        extra = [n.removeprefix(f"{root}/extra/") for n in names if n.startswith(f"{root}/extra/")]
        config = None
        if CONFIG in extra and container.size_of(f"{root}/extra/{CONFIG}") <= ultralytics.MAX_TEXT:
            config = ultralytics.from_json(container.read(f"{root}/extra/{CONFIG}", ultralytics.MAX_TEXT))
    evidence["inputs"] = f"{ASSUMED} (a TorchScript graph carries no input shape)"
    if extra:
        evidence["extra_files"] = f"{path.name}: " + ", ".join(extra[:20])
    spec = ModelSpec(
        path=path,
        model_file=path,
        format=NAME,
        runtime="torchscript",
        task="raw-tensors",
        trust_class=TrustClass.PROGRAM,
        files=(path,),
        evidence=evidence,
    )
    return spec if config is None else ultralytics.with_config(spec, config, f"{path.name}: extra/{CONFIG}")


def _is_pickle(head: bytes) -> bool:
    # Protocols 2 to 5 start with PROTO; older ones have no mark of their own.
    return len(head) >= 2 and head[0] == 0x80 and 2 <= head[1] <= 5


def _root(names: list[str]) -> str | None:
    """The one folder everything in the archive lies in."""
    roots = {name.partition("/")[0] for name in names if "/" in name}
    return roots.pop() if len(roots) == 1 and all("/" in name for name in names) else None


def _without_code(path: Path, pickled: bytes) -> ModelRefused:
    if all(_rebuilds_tensors(module) for module in pickled_modules(pickled)):
        return ModelRefused(
            f"{path.name} holds weights, but not the model they belong to: expected a TorchScript file, "
            "which torch.jit.script(model).save(…) writes."
        )
    return ModelRefused(
        f"{path.name} is refused: it is a pickled Python object, which can run any code when it is opened; "
        "save the model with torch.jit.script(model).save(…) instead."
    )


def _rebuilds_tensors(module: str) -> bool:
    return module == "torch" or any(module == known or module.startswith(known + ".") for known in _TENSOR_MODULES)


def pickled_modules(pickled: bytes) -> set[str]:
    """The modules a pickle would import, read from its opcodes. ``{"?"}`` is among them where they cannot be told."""
    modules: set[str] = set()
    memo: dict[int, str | None] = {}
    pushed: tuple[str | None, str | None] = (None, None)  # the last two values on the stack, where they are text
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(pickled)):
            name = opcode.name
            if count > MAX_OPCODES:
                return modules | {"?"}
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
                    modules.add(str(argument).partition(" ")[0])
                elif name == "STACK_GLOBAL":
                    modules.add("?" if None in pushed else str(pushed[0]))
                elif name in ("EXT1", "EXT2", "EXT4"):
                    modules.add("?")
                pushed = (None, None)
    except (ValueError, IndexError, UnicodeDecodeError):
        return modules | {"?"}
    return modules
