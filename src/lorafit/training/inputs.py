"""The texts of a run, with what the frozen layers make of them where that is kept."""

from collections import ChainMap
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lorafit.inference.predictor import plan_prediction
from lorafit.models.batching import plan_batches
from lorafit.models.builtin import cache_folder
from lorafit.runs.journal import Journal
from lorafit.system.progress import Progress
from lorafit.training.prepare import Prepared

if TYPE_CHECKING:
    from lorafit.training.prefix import ModelInputs

__all__ = ["open_inputs"]


@contextmanager
def open_inputs(
    prepared: Prepared,
    journal: Journal,
    progress: Progress,
    *,
    prefix_folder: Path | None = None,
    keeps_measured: bool = False,
) -> "Iterator[Mapping[str, ModelInputs]]":
    """Open the texts of a run, with the frozen layers' hidden states where that pays.

    Args:
        prepared: Data and model.
        journal: Keeps the run's record.
        progress: Told what is done.
        prefix_folder: Where the hidden states are kept for several runs; None for this one alone, after which they go.
        keeps_measured: Whether calibration and test rows' are kept, too, for runs that share them; not where all take
            more than half of `training.prefix_cache_gb`, so that there is room for another method's.

    Yields:
        The texts by split.
    """
    from lorafit.models.acceleration.encoder_block import frozen_depth
    from lorafit.models.acceleration.prefix_cache import PrefixCache
    from lorafit.training.prefix import kept_prefix

    config, tokens, model = prepared.config, prepared.tokens, prepared.adapted.model
    limits = {"max_rows": config.training.batch_size, "max_tokens": config.training.batch_tokens}
    plans = {name: plan_prediction(texts.lengths) for name, texts in tokens.items() if name != "train"}
    plans["train"] = plan_batches(tokens["train"].lengths, **limits)
    steps, again = len(plans["train"]), prefix_folder is not None
    if not config.wants_prefix_cache(steps_per_epoch=steps, frozen=frozen_depth(model), again=again):
        yield tokens
        return
    shared = config.training.prefix_cache == "shared"
    folder = cache_folder() / "prefix_cache" if shared else prefix_folder or journal.layout.prefix_cache
    cache = PrefixCache(model, prepared.precision, base_digest=prepared.encoder.digest(), folder=folder)
    groups: list[tuple[str, ...]] = [("train", "validation")]
    if keeps_measured and cache.size(list(tokens.values())) <= config.training.prefix_cache_gb * 1e9 / 2:
        groups.append(tuple(name for name in tokens if name not in groups[0]))
    inputs: ChainMap[str, ModelInputs] = ChainMap(dict(tokens))
    with ExitStack() as stack:
        with journal.stage("frozen layers"):
            for names in groups:
                states = stack.enter_context(
                    kept_prefix(
                        cache,
                        {name: (tokens[name], plans[name]) for name in names},
                        config.training,
                        pad_id=prepared.pad_id,
                        remove=None if shared or prefix_folder else folder,
                        progress=progress,
                    )
                )
                inputs = inputs.new_child(states)
        yield inputs
