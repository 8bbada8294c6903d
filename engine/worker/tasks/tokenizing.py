"""Texts to tokens, in overlapping windows where a text is longer than the model takes.

The tokenizer is the one that lies in the model's folder, opened by transformers without the network and without code
of the folder's own. Only those of the library's Rust kind tell where in the text a token lies; others are refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.codecs.arrays import numpy_dtype
from engine.errors import InputTooLarge, LoadFailed, UnusableInput
from engine.model_spec import ModelSpec, TensorSpec
from engine.worker.runtimes.transformers_runtime import import_transformers
from engine.worker.tasks.base import Arrays

ASSUMED_LENGTH = 512
"""Tokens a model takes where neither its tokenizer nor its config says how many."""
OVERLAP = 0.25
"""The share of a window that the next one repeats, so that no word is read without what stands around it."""
MAX_WINDOWS = 256
_UNBOUNDED = 1_000_000
"""transformers writes 1e30 for a tokenizer without a limit."""
_POSITIONS_BEHIND_PADDING = frozenset(
    {"bridgetower", "camembert", "data2vec-text", "esm", "ibert", "layoutlmv3", "longformer", "luke", "mpnet",
     "roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod"}
)  # fmt: skip
"""Families whose first position is the one behind the padding's: so many fewer tokens fit (``modeling_roberta.py``)."""


@dataclass(frozen=True, slots=True)
class TokenWindow:
    """One row of tokens. ``offsets`` is (tokens, 2): start and end of each in the text, in characters; ``special``
    tells those that stand for nothing in it (padding too). ``first`` is the number, in the whole text, of the first
    token that is not special."""

    text: str
    ids: NDArray[np.int64]
    offsets: NDArray[np.int64]
    special: NDArray[np.bool_]
    attended: NDArray[np.bool_]
    first: int


@dataclass(frozen=True, slots=True)
class TokenRows:
    """A text as the model's tensors, one row a window, and what each row holds."""

    arrays: Arrays
    windows: tuple[TokenWindow, ...]


class TextTokenizer:
    """The tokenizer of one model. ``max_length`` (tokens, special ones counted) may be lowered by what a package says.

    Raises LoadFailed where the folder's tokenizer cannot be used for the model's inputs.
    """

    def __init__(self, spec: ModelSpec, max_length: int | None = None) -> None:
        folder = spec.model_file if spec.model_file.is_dir() else spec.model_file.parent
        transformers = import_transformers()
        try:
            self._tokenizer: Any = transformers.AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False, use_fast=True
            )
        except (OSError, ValueError, TypeError, KeyError, AttributeError, ImportError) as error:
            raise LoadFailed(
                f'The tokenizer of {spec.path.name} could not be opened by transformers; with task = "raw-tensors" in '
                "a sidecar the model opens without it."
            ) from error
        if not self._tokenizer.is_fast:
            raise LoadFailed(
                f"The tokenizer of {spec.path.name} tells not where its tokens lie: expected a tokenizer.json."
            )
        self._tokenizer.truncation_side = self._tokenizer.padding_side = "right"
        self._inputs = spec.inputs or (TensorSpec("input_ids", "int64", (-1, -1)),)
        config = None
        if (folder / "config.json").is_file():
            config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        self.max_length = _max_length(self._tokenizer, config, self._inputs, max_length)
        self._room = self.max_length - self._tokenizer.num_special_tokens_to_add()
        if self._room < 1:
            raise LoadFailed(f"{spec.path.name} takes {self.max_length} tokens, which leaves no room for a text.")

    def encode(self, text: str, *, windows: bool) -> TokenRows:
        """``text`` as rows of at most ``max_length`` tokens. Raises InputTooLarge where it does not fit (more than
        ``MAX_WINDOWS``, or one without ``windows``), UnusableInput where it has no tokens, or words the model's inputs
        cannot hold."""
        overlap = int(self._room * OVERLAP)
        padded = self._tokenizer.pad_token_id is not None
        encoded = self._tokenizer(
            text,
            truncation=True,
            max_length=self.max_length,
            stride=overlap,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
            return_special_tokens_mask=True,
            return_attention_mask=True,
            return_token_type_ids=any(tensor.name == "token_type_ids" for tensor in self._inputs),
            padding="longest" if padded else False,
        )
        rows = len(encoded["input_ids"])
        if rows > 1 and not (windows and padded):
            raise InputTooLarge(f"The text is too long: this model takes at most {self.max_length} tokens.")
        if rows > MAX_WINDOWS:
            raise InputTooLarge(
                f"The text is too long: it makes {rows} windows of {self.max_length} tokens, and at most "
                f"{MAX_WINDOWS} are read."
            )
        found = self._windows(text, encoded, overlap)
        if all(window.special.all() for window in found):
            raise UnusableInput("The text holds nothing this model has tokens for.", code="nothing_to_predict")
        return TokenRows({tensor.name: self._array(encoded, tensor) for tensor in self._inputs}, found)

    def _windows(self, text: str, encoded: Any, overlap: int) -> tuple[TokenWindow, ...]:
        found: list[TokenWindow] = []
        first = 0
        for row, ids in enumerate(encoded["input_ids"]):
            attended = np.array(encoded["attention_mask"][row], dtype=bool)
            special = np.array(encoded["special_tokens_mask"][row], dtype=bool) | ~attended
            offsets = np.array(encoded["offset_mapping"][row], dtype=np.int64).reshape(-1, 2)
            found.append(TokenWindow(text, np.array(ids, dtype=np.int64), offsets, special, attended, first))
            first += int((~special).sum()) - overlap
        return tuple(found)

    @staticmethod
    def _array(encoded: Any, tensor: TensorSpec) -> NDArray[Any]:
        if tensor.name not in encoded:
            raise UnusableInput(f"The tokenizer gives no {tensor.name!r}, which the model takes.", code="unknown_input")
        return np.array(encoded[tensor.name]).astype(numpy_dtype(tensor.dtype))

    def token(self, window: TokenWindow, at: int) -> str:
        """A token as the library's pipeline shows it: an unknown one as it stands in the text."""
        if int(window.ids[at]) == self._tokenizer.unk_token_id:
            start, end = window.offsets[at]
            return window.text[start:end]
        return str(self._tokenizer.convert_ids_to_tokens(int(window.ids[at])))

    def words(self, tokens: list[str]) -> str:
        """Tokens that stand together as one text."""
        return str(self._tokenizer.convert_tokens_to_string(tokens))


def _max_length(tokenizer: Any, config: Any, inputs: tuple[TensorSpec, ...], stated: int | None) -> int:
    limits = [tensor.shape[1] for tensor in inputs if len(tensor.shape) == 2 and tensor.shape[1] > 0]
    if stated is not None:
        limits.append(stated)
    if isinstance(tokenizer.model_max_length, int) and 0 < tokenizer.model_max_length < _UNBOUNDED:
        limits.append(tokenizer.model_max_length)
    positions = getattr(config, "max_position_embeddings", None)
    if isinstance(positions, int) and positions > 0:
        behind = 0
        if config.model_type in _POSITIONS_BEHIND_PADDING:
            behind = (config.pad_token_id if isinstance(config.pad_token_id, int) else 1) + 1
        limits.append(positions - behind)
    return min(limits, default=ASSUMED_LENGTH)
