"""PyTorch's files: TorchScript archives, and bare pickles, which are not opened.

``torch.jit.save`` writes a zip with ``constants.pkl`` and ``code/`` below one folder
(caffe2/serialize/inline_container.h); ``torch.save`` a zip with ``data.pkl`` but neither of these
(:mod:`engine.formats.state_dict`) or, before 1.6, bare pickles.
"""

from __future__ import annotations

from pathlib import Path

from engine.errors import ModelFormatUnknown, ModelRefused
from engine.formats import ultralytics
from engine.formats.container import LOCAL_HEADER, ZipContainer
from engine.formats.disk import EXPECTED, read_head
from engine.formats.pickles import TAR_END, is_legacy_checkpoint, is_pickle
from engine.model_spec import ASSUMED, ModelSpec, TrustClass

NAME = "torchscript"
TORCHSCRIPT = "a complete TorchScript file as torch.jit.save writes it"
MAX_PICKLE = 32 << 20
CONFIG = "config.txt"
"""The extra file in which Ultralytics' exporter says what it exported."""
_SUFFIXES = frozenset({".pt", ".pth", ".ts", ".torchscript", ".ckpt", ".bin"})


def recognise(path: Path) -> bool:
    """A zip laid out as PyTorch does, a pickle, or a file with one of PyTorch's suffixes."""
    if not path.is_file():
        return False
    head = read_head(path, 4)
    if head != LOCAL_HEADER:
        return path.suffix.lower() in _SUFFIXES or is_pickle(head)
    if path.suffix.lower() in _SUFFIXES:
        return True
    with ZipContainer(path, TORCHSCRIPT) as container:
        root = archive_root(container.names)
        return root is not None and f"{root}/data.pkl" in container.names


def describe(path: Path) -> ModelSpec:
    """A TorchScript archive; inputs are stated only where an exporter added them. Raises ModelCorrupt, ModelRefused,
    ModelFormatUnknown, ModelUnreadable."""
    head = read_head(path, TAR_END)
    if is_legacy_checkpoint(head):
        raise ModelRefused(
            f"{path.name} is refused: it is a pickle, which can run any code when it is opened, as PyTorch wrote them "
            "before 1.6; open it there with weights_only=True and write it again with torch.save(…)."
        )
    if is_pickle(head):
        raise ModelRefused(
            f"{path.name} is refused: it is a pickle, which can run any code when it is opened; expected {EXPECTED}."
        )
    with ZipContainer(path, TORCHSCRIPT) as container:
        names = container.names
        root = archive_root(names)
        if root is None or f"{root}/data.pkl" not in names:
            raise ModelFormatUnknown(f"{path.name} is not a PyTorch model: expected {EXPECTED}.")
        if f"{root}/constants.pkl" not in names or not any(n.startswith(f"{root}/code/") for n in names):
            raise container.corrupt("it lacks its code")
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


def archive_root(names: list[str]) -> str | None:
    """The one folder everything in the archive lies in."""
    roots = {name.partition("/")[0] for name in names if "/" in name}
    return roots.pop() if len(roots) == 1 and all("/" in name for name in names) else None
