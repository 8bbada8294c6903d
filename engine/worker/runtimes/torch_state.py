"""Reading weights for PyTorch, and what the runtimes of loose weights share."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import FrameworkMissing, LoadFailed, ModelCorrupt, ModelRefused
from engine.model_spec import ModelSpec

if TYPE_CHECKING:
    import torch

_NESTED = ("state_dict", "model_state_dict", "model", "module", "net", "weights")
"""Where training programs put the weights in a checkpoint (Lightning, timm, PyTorch's own tutorials)."""
_PREFIXES = ("module.", "_orig_mod.")
"""What ``DataParallel`` and ``torch.compile`` put before every name."""
_SHOWN = 3


def read_state(file: Path) -> dict[str, Any]:
    """The tensors of a file of weights by name, on the CPU. Nothing but tensors and plain values is unpickled.

    A checkpoint's other entries are left out, and prefixes that every name has. Raises ModelCorrupt, ModelRefused.
    """
    state = _read_safetensors(file) if file.suffix.lower() == ".safetensors" else _read_torch(file)
    for prefix in _PREFIXES:
        if state and all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def _read_safetensors(file: Path) -> dict[str, Any]:
    try:
        import safetensors
        from safetensors.torch import load_file
    except ModuleNotFoundError as error:
        if error.name != "safetensors":
            raise
        raise FrameworkMissing(
            "safetensors is not installed for this Python. Install it with: pip install safetensors"
        ) from error
    try:
        return dict(load_file(str(file)))
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise ModelCorrupt(f"{file.name} is damaged or is no safetensors file.") from error


def _read_torch(file: Path) -> dict[str, Any]:
    import torch

    try:
        loaded = torch.load(file, map_location="cpu", weights_only=True)
    except (RuntimeError, OSError, EOFError, ValueError) as error:
        raise ModelCorrupt(f"{file.name} is damaged or holds no weights.") from error
    except Exception as error:
        # The restricted unpickler's own exception comes from a module that is not imported here.
        if type(error).__name__ != "UnpicklingError":
            raise
        raise ModelRefused(
            f"{file.name} is refused: it holds more than tensors and plain values, and opening it could run code."
        ) from error
    found = _tensors_in(loaded)
    if found is None:
        raise ModelCorrupt(f"{file.name} holds no weights: expected what model.state_dict() gives.")
    return found


def _tensors_in(loaded: Any) -> dict[str, Any] | None:
    """The state dict itself, or that inside a checkpoint, one level deep."""
    candidates = [loaded]
    if isinstance(loaded, dict):
        candidates += [loaded[key] for key in _NESTED if key in loaded]
    return next((dict(c) for c in candidates if _is_state(c)), None)


def _is_state(value: Any) -> bool:
    import torch

    return (
        isinstance(value, dict)
        and bool(value)
        and all(isinstance(name, str) for name in value)
        and all(isinstance(item, torch.Tensor) for item in value.values())
    )


def check_keys(spec: ModelSpec, missing: Collection[str], unexpected: Collection[str]) -> None:
    """Raises LoadFailed naming the first weights that the file lacks, or that the model does not know: with made-up
    weights it would answer, and wrongly."""
    parts = []
    for what, names in (("lack", missing), ("hold, unknown to it,", unexpected)):
        if names:
            shown = ", ".join(sorted(names)[:_SHOWN])
            more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
            parts.append(f"{what} {shown}{more}")
    if parts:
        raise LoadFailed(
            f"The weights of {spec.path.name} do not belong to {spec.architecture}: they {'; they '.join(parts)}."
        )


def placed(tensor: torch.Tensor, device: torch.device | None, dtype: torch.dtype | None) -> torch.Tensor:
    """An input on the model's device; fractions in the model's precision, where one was chosen."""
    return tensor.to(device, dtype if tensor.is_floating_point() else None)


def widened(value: Any, dtype: torch.dtype | None) -> Any:
    """An output in float32 where it is only computed in ``dtype``: callers see the types the model declares."""
    import torch

    halved = isinstance(value, torch.Tensor) and dtype is not None and value.dtype == dtype
    return value.float() if halved and dtype != torch.float64 else value


def chosen_dtype(spec: ModelSpec, device: torch.device) -> torch.dtype:
    """The precision that was asked for, float32 without a wish. Raises LoadFailed where the device does not have it."""
    import torch

    dtype: torch.dtype = getattr(torch, spec.precision or "float32")
    if (
        dtype is torch.bfloat16
        and device.type == "cuda"
        and not torch.cuda.is_bf16_supported(including_emulation=False)
    ):
        raise LoadFailed(f"{device} cannot compute in bfloat16: choose float16 or float32.")
    return dtype
