"""When training reads kept hidden states of the frozen layers, and what becomes of the files."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from lorafit.errors import TrainingInterruptedError
from lorafit.models.acceleration.prefix_cache import PrefixCache, PrefixedTexts
from lorafit.models.batching import BatchPlan
from lorafit.models.tokenization import TokenizedTexts
from lorafit.settings import TrainingConfig
from lorafit.system.progress import Progress

__all__ = ["ModelInputs", "kept_prefix"]

ModelInputs = TokenizedTexts | PrefixedTexts
"""Texts as a model reads them: their tokens, with the frozen layers' hidden states where they are kept."""


@contextmanager
def kept_prefix(
    cache: PrefixCache,
    texts: Mapping[str, tuple[TokenizedTexts, BatchPlan]],
    config: TrainingConfig,
    *,
    pad_id: int,
    remove: Path | None,
    progress: Progress,
) -> Iterator[dict[str, ModelInputs]]:
    """Give texts with the hidden states of the frozen layers, or as they are where these cannot be kept; that is said.

    Args:
        cache: Where hidden states are kept.
        texts: Tokenised texts by name, and the batches they are read in.
        config: The training section.
        pad_id: Token id of the padding.
        remove: Folder to remove after the block, unless it was interrupted; None leaves the files for later runs.
        progress: Told what is done.

    Yields:
        The texts by name.
    """
    inputs: dict[str, ModelInputs] = {name: tokens for name, (tokens, _) in texts.items()}
    interrupted = False
    try:
        inputs, obstacle = _open(cache, texts, config, pad_id, progress)
        if obstacle is not None:
            progress.say(f"the frozen layers' hidden states are not kept: {obstacle}")
        yield inputs
    except (KeyboardInterrupt, TrainingInterruptedError):
        interrupted = True
        raise
    finally:
        inputs.clear()
        if remove is not None and not interrupted:
            shutil.rmtree(remove, ignore_errors=True)


def _open(
    cache: PrefixCache,
    texts: Mapping[str, tuple[TokenizedTexts, BatchPlan]],
    config: TrainingConfig,
    pad_id: int,
    progress: Progress,
) -> tuple[dict[str, ModelInputs], str | None]:
    """Return the texts with their hidden states and None, or the texts as they are and why."""
    plain: dict[str, ModelInputs] = {name: tokens for name, (tokens, _) in texts.items()}
    inputs: dict[str, ModelInputs] = {}
    try:
        if obstacle := cache.find_obstacle(list(texts.values()), limit_bytes=int(config.prefix_cache_gb * 1e9)):
            return plain, obstacle
        size = cache.size([tokens for tokens, _ in texts.values()])
        progress.say(f"keeping the frozen layers' hidden states on disk: {size / 1e9:.2f} GB")
        for name, (tokens, plan) in texts.items():
            progress.start(f"frozen layers, {name} rows", total=len(tokens), unit="text")
            inputs[name] = cache.open(tokens, plan, pad_id, on_progress=progress.update)
            progress.finish()
    except OSError as error:
        progress.finish()
        return plain, f"they could not be written ({error.strerror})"
    return inputs, None
