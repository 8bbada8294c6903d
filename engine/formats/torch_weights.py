"""Weights that ``torch.save`` wrote: a zip whose pickle may rebuild tensors and plain values, and nothing else."""

from __future__ import annotations

from pathlib import Path

from engine.errors import ModelRefused
from engine.formats.container import LOCAL_HEADER, ZipContainer
from engine.formats.disk import read_head
from engine.formats.pickles import TAR_END, is_legacy_checkpoint, pickled_globals, rebuilds_tensors
from engine.formats.torch_files import MAX_PICKLE, archive_root

EXPECTED = "a complete file of weights as torch.save writes it"


def check_torch_weights(path: Path) -> None:
    """Raises ModelCorrupt for what is no whole zip of ``torch.save``; ModelRefused where its pickle names anything that
    torch's restricted unpickler does not take, and for the bare pickles of PyTorch before 1.6."""
    head = read_head(path, TAR_END)
    if is_legacy_checkpoint(head):
        raise ModelRefused(
            f"{path.name} is refused: it is a pickle as PyTorch wrote them before 1.6; open it there with "
            "weights_only=True and write it again with torch.save(…)."
        )
    if head[:2] == b"\x80\x02" or not head.startswith(LOCAL_HEADER):
        raise ModelRefused(f"{path.name} is refused: it is no zip of weights; expected {EXPECTED}.")
    with ZipContainer(path, EXPECTED) as container:
        root = archive_root(container.names)
        if root is None or f"{root}/data.pkl" not in container.names:
            raise container.corrupt("it holds no data.pkl")
        pickled = container.read(f"{root}/data.pkl", MAX_PICKLE)
    foreign = sorted(name for name in pickled_globals(pickled) if not rebuilds_tensors(*name))
    if foreign:
        names = ", ".join(f"{module}.{name}"[:80] for module, name in foreign[:3])
        raise ModelRefused(
            f"{path.name} is refused: it is a pickled Python object ({names}), which can run any code when it is "
            "opened; save model.state_dict(), or the model with torch.jit.script(model).save(…), instead.",
        )
