"""Hidden states of the frozen layers below the first adapter, computed once and read from then on.

Layers without an adapter give the same hidden states in every epoch, with every seed and in every trial. They are
written to a file of their own, in the dtype that the next layer reads anyway, so that training on them gives the same
numbers (Liu et al. 2021, AutoFreeze, arXiv:2102.01386).
"""

import contextlib
import hashlib
import json
import mmap
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from peft import PeftModel
from transformers import PreTrainedModel

from lorafit.models.acceleration.encoder_block import at_precision, compute_prefix, frozen_depth
from lorafit.models.acceleration.precision import PrecisionChoice
from lorafit.models.batching import BatchPlan
from lorafit.models.tokenization import TokenizedTexts, find_inputs
from lorafit.system.atomic import compute_digest, replace_file, write_atomic

_DTYPES: dict[str, np.dtype[Any]] = {"bf16": np.dtype(np.int16), "fp32": np.dtype(np.float32)}
"""How each precision lies in the file; numpy knows no bfloat16, so its bits stand as integers."""

_IRRELEVANT = {
    "_name_or_path",
    "architectures",
    "dtype",
    "id2label",
    "label2id",
    "problem_type",
    "transformers_version",
}
"""What of a model's config the hidden states do not depend on."""


@dataclass(frozen=True)
class PrefixedTexts:
    """Tokenised texts with the hidden states that the frozen layers make of them.

    Attributes:
        tokens: The n inputs, texts or windows of them.
        states: Shape (total tokens, width), mapped from the file: fp32, or bfloat16 as int16.
        starts: Shape (n,), int64: the first line of each input in `states`.
        mapped: The file in memory.
    """

    tokens: TokenizedTexts
    states: NDArray[Any]
    starts: NDArray[np.int64]
    mapped: mmap.mmap

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens an input, shape (n,)."""
        return self.tokens.lengths

    @property
    def windows(self) -> NDArray[np.int64] | None:
        """How many of the inputs are windows of each text, or None, as `TokenizedTexts` has it."""
        return self.tokens.windows

    def select(self, texts: NDArray[np.int64]) -> "PrefixedTexts":
        """Return some texts, by their places, in that order; their hidden states stay where they are."""
        starts = self.starts[find_inputs(texts, self.windows)]
        return PrefixedTexts(self.tokens.select(texts), self.states, starts, self.mapped)

    def pad(self, rows: Sequence[int] | NDArray[np.int64], pad_id: int) -> dict[str, Any]:
        """Put some inputs into one rectangle.

        Args:
            rows: Which inputs, in this order.
            pad_id: Token id of the padding.

        Returns:
            What `TokenizedTexts.pad` gives, and `prefix_hidden_states` of shape (rows, longest, width); those of
            padding are finite and mean nothing.
        """
        batch = self.tokens.pad(rows, pad_id)
        mask = batch["attention_mask"]
        last = mask.sum(axis=1, keepdims=True) - 1
        lines = self.starts[np.asarray(rows)][:, None] + np.minimum(np.arange(mask.shape[1]), last)
        states = torch.from_numpy(self.states[lines])
        if hasattr(mmap, "MADV_DONTNEED"):  # what was read counts as the system's memory again, not the process's
            self.mapped.madvise(mmap.MADV_DONTNEED)
        batch["prefix_hidden_states"] = states if states.dtype == torch.float32 else states.view(torch.bfloat16)
        return batch


class PrefixCache:
    """Files of hidden states in one folder, for one model."""

    def __init__(
        self, model: PeftModel | PreTrainedModel, precision: PrecisionChoice, *, base_digest: str, folder: Path
    ) -> None:
        self._model = model
        self._precision = precision
        self._base_digest = base_digest
        self._folder = folder
        config: Any = model.config
        self._width: int = config.hidden_size
        settings = {name: value for name, value in config.to_dict().items() if name not in _IRRELEVANT}
        self._config_digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()

    def find_obstacle(self, texts: Sequence[tuple[TokenizedTexts, BatchPlan]], *, limit_bytes: int) -> str | None:
        """Say why the hidden states of some texts cannot be kept, or return None.

        Args:
            texts: All texts that are to be kept, and their batches.
            limit_bytes: The most that they may take.

        Returns:
            A clause for people: no frozen layers, too large, or no room on the disk.

        Raises:
            OSError: The folder cannot be made.
        """
        if frozen_depth(self._model) == 0:
            return "every layer is trained, or the encoder has no fused blocks"
        size = self.size([tokens for tokens, _ in texts])
        if size > limit_bytes:
            return f"they take {size / 1e9:.1f} GB, more than training.prefix_cache_gb={limit_bytes / 1e9:g} allows"
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._remove_oldest(limit_bytes - size, keep={self._path(tokens, plan) for tokens, plan in texts})
        missing = self.size([tokens for tokens, plan in texts if not self._path(tokens, plan).is_file()])
        free = shutil.disk_usage(self._folder).free
        if missing > free:
            return f"they take {missing / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free in {self._folder}"
        return None

    def size(self, texts: Sequence[TokenizedTexts]) -> int:
        """Return how many bytes the hidden states of some texts take."""
        return sum(len(part.ids) for part in texts) * self._width * _DTYPES[self._precision.name].itemsize

    def open(
        self, tokens: TokenizedTexts, plan: BatchPlan, pad_id: int, *, on_progress: Callable[[int], None]
    ) -> PrefixedTexts:
        """Read the hidden states of some texts, computing them first if the file is not there, damaged or another's.

        Args:
            tokens: The texts.
            plan: Batches in which they are computed: those they will be read in, so that rounding is the same.
            pad_id: Token id of the padding.
            on_progress: Called after each batch with the number of texts done.

        Returns:
            The texts with their hidden states.

        Raises:
            OSError: The file could not be written; nothing is left of it.
        """
        key, path = self._key(tokens, plan), self._path(tokens, plan)
        if not _is_intact(path, key):
            self._compute(path, tokens, plan, pad_id, on_progress)
            write_atomic(_sidecar(path), json.dumps({**key, "sha256": compute_digest(path)}, indent=2) + "\n")
        with contextlib.suppress(OSError):
            os.utime(path)
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        states = np.frombuffer(mapped, dtype=_DTYPES[self._precision.name]).reshape(len(tokens.ids), self._width)
        lengths = tokens.lengths[plan.order]
        starts = np.empty_like(lengths)
        starts[plan.order] = np.cumsum(lengths) - lengths
        return PrefixedTexts(tokens, states, starts, mapped)

    def _key(self, tokens: TokenizedTexts, plan: BatchPlan) -> dict[str, str | int]:
        """Return what the hidden states depend on."""
        parts = (tokens.ids, tokens.offsets, plan.bounds, *(() if tokens.type_ids is None else (tokens.type_ids,)))
        texts = hashlib.sha256(b"".join(part.tobytes() for part in parts))
        return {
            "torch": str(torch.__version__),
            "base_digest": self._base_digest,
            "config_digest": self._config_digest,
            "layers": frozen_depth(self._model),
            "width": self._width,
            "precision": self._precision.name,
            "texts_digest": texts.hexdigest(),
        }

    def _path(self, tokens: TokenizedTexts, plan: BatchPlan) -> Path:
        key = json.dumps(self._key(tokens, plan)).encode()
        return self._folder / f"{hashlib.sha256(key).hexdigest()[:24]}.bin"

    def _remove_oldest(self, room: int, *, keep: set[Path]) -> None:
        """Remove the files that were not used for longest, until others fill no more than `room` bytes."""
        others = [path for path in self._folder.glob("*.bin") if path not in keep]
        for path in sorted(others, key=lambda path: path.stat().st_mtime, reverse=True):
            room -= path.stat().st_size
            if room < 0:
                path.unlink(missing_ok=True)
                _sidecar(path).unlink(missing_ok=True)

    def _compute(
        self, path: Path, tokens: TokenizedTexts, plan: BatchPlan, pad_id: int, on_progress: Callable[[int], None]
    ) -> None:
        """Write the hidden states batch by batch, in the plan's order and without padding."""
        with (
            replace_file(path) as whole,
            whole.open("wb") as file,
            torch.inference_mode(),
            at_precision(self._model, self._precision),
        ):
            for batch in range(len(plan)):
                inputs = {name: torch.from_numpy(part) for name, part in tokens.pad(plan[batch], pad_id).items()}
                states = compute_prefix(self._model, **inputs)[inputs["attention_mask"].bool()]
                file.write(_as_numpy(states).data)
                on_progress(int(plan.bounds[batch + 1]))


def _as_numpy(states: torch.Tensor) -> NDArray[Any]:
    return states.view(torch.int16).numpy() if states.dtype == torch.bfloat16 else states.numpy()


def _sidecar(path: Path) -> Path:
    return path.with_suffix(".json")


def _is_intact(path: Path, key: dict[str, str | int]) -> bool:
    with contextlib.suppress(OSError, ValueError):
        noted = json.loads(_sidecar(path).read_text(encoding="utf-8"))
        return bool(noted == {**key, "sha256": compute_digest(path)})
    return False
