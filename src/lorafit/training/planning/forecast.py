"""How long the stages of a run will take, from what its batches cost."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, inf
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lorafit.cheap_baselines import cheap_baselines_for
from lorafit.config import Config
from lorafit.inference.mistakes import list_explained_lengths
from lorafit.inference.predictor import plan_prediction
from lorafit.models.batching import plan_batches

if TYPE_CHECKING:
    from lorafit.training.planning.costs import Costs
    from lorafit.training.prepare import Prepared

__all__ = ["Ground", "forecast_run", "frozen_layers", "measure_ground"]

_SAVING = 6.0
_REPORT = 3.0
_CHECKPOINT = 0.1
_RESAMPLED_ROW = 1e-8
_CHARACTER = 8e-7
"""Seconds: a fresh process that opens the adapter; the report; a checkpoint; a row in a bootstrap sample; a character
of the texts that the cheap baselines read."""


@dataclass(frozen=True)
class Ground:
    """What forecasts for one encoder and one data set rest on.

    Attributes:
        lengths: Tokens a text of each split, cut at the `max_length` asked for.
        costs: What batches cost.
        width: The encoder's width.
        precision: Arithmetic of the encoder, which decides how large its hidden states are on disk.
        free_bytes: Room on the disk for them.
        characters: Of all training and test texts; the cheap baselines' time goes by it.
        fits: Models that each of these trains: one a label where a text may have several.
    """

    lengths: Mapping[str, NDArray[np.int64]]
    costs: "Costs"
    width: int
    precision: str
    free_bytes: float = inf
    characters: int = 0
    fits: int = 1

    @property
    def rows(self) -> int:
        """Training and test rows there are."""
        return len(self.lengths["train"]) + len(self.lengths["test"])


def measure_ground(prepared: "Prepared", *, free_bytes: float = inf) -> Ground:
    """Measure what forecasts for one run rest on.

    Args:
        prepared: Data and model.
        free_bytes: Room on the disk for hidden states.

    Returns:
        Lengths and costs.
    """
    from lorafit.training.inputs import TrainingRows
    from lorafit.training.planning.costs import measure_costs
    from lorafit.training.targets import build_targets

    splits, model = prepared.splits, prepared.adapted.model
    task = prepared.labels.task
    targets = build_targets(splits.train.labels, task, prepared.standard)
    rows = TrainingRows(prepared.tokens["train"], targets, prepared.pad_id)
    return Ground(
        lengths={name: texts.lengths for name, texts in prepared.tokens.items()},
        costs=measure_costs(model, rows, prepared.config.training, prepared.precision),
        width=model.config.hidden_size,
        precision=prepared.precision.name,
        free_bytes=free_bytes,
        characters=sum(len(text) for part in (splits.train, splits.test) for text in part.texts),
        fits=len(prepared.labels) if task == "multi_label" else 1,
    )


def forecast_run(config: Config, ground: Ground) -> dict[str, float]:
    """Forecast a run, without early stopping.

    Args:
        config: Its settings; `max_length`, layers, epochs and rows no more than those that were measured.
        ground: What the forecast rests on.

    Returns:
        Wall-clock seconds by stage, named as in `RunRecord.seconds`.
    """
    training, costs = config.training, ground.costs
    lengths = {name: np.minimum(part, config.model.max_length) for name, part in ground.lengths.items()}
    lengths["train"] = _thin_out(lengths["train"], config.data.max_rows)
    plan = plan_batches(lengths["train"], max_rows=training.batch_size, max_tokens=training.batch_tokens)
    train = plan.shapes(lengths["train"])
    predicted = {name: plan_prediction(part).shapes(part) for name, part in lengths.items() if name != "train"}
    validation = predicted["validation"]
    steps = training.max_steps or len(train) * training.epochs
    frozen = frozen_layers(config, costs)
    kept = frozen if _keeps_prefix(config, frozen, lengths, ground, len(train)) else 0
    once = sum(costs.sum_forward(part) - costs.sum_forward(part, kept=kept) for part in (train, validation))
    evaluations = _count_evaluations(steps, len(train), training.evaluations_per_epoch)
    fit = costs.sum_steps(train, frozen=frozen, kept=kept > 0) * steps / len(train) + evaluations * (
        costs.sum_forward(validation, kept=kept) + _CHECKPOINT
    )
    testing = costs.sum_forward(predicted["test"])
    rows = len(lengths["train"]) + len(lengths["test"])
    cheap = config.evaluation.cheap_baselines
    scored = 1 + config.evaluation.baseline + len(cheap_baselines_for(config.data.task)) * cheap
    return {
        **({"baseline": testing} if config.evaluation.baseline else {}),
        **({"frozen layers": once} if once else {}),
        "training": fit,
        **({"calibration": costs.sum_forward(predicted["calibration"])} if "calibration" in predicted else {}),
        "saving": _SAVING,
        **({"cheap baselines": ground.characters * _CHARACTER * rows / ground.rows * ground.fits} if cheap else {}),
        "evaluation": testing + scored * len(lengths["test"]) * config.evaluation.bootstrap_samples * _RESAMPLED_ROW,
        **({"report": _forecast_report(config, ground, lengths["test"])} if config.evaluation.report else {}),
    }


def _forecast_report(config: Config, ground: Ground, lengths: NDArray[np.int64]) -> float:
    """Return the seconds of the page, and of the texts that explaining some mistakes takes."""
    if not config.evaluation.report_texts or config.data.task != "single_label":
        return _REPORT
    explained = list_explained_lengths(lengths)
    return _REPORT + ground.costs.sum_forward(plan_prediction(explained).shapes(explained))


def frozen_layers(config: Config, costs: "Costs") -> int:
    """Return how many of the lowest layers carry no adapter with these settings."""
    if not costs.layers or config.method.layers == "all":
        return costs.frozen
    return max(costs.frozen, costs.layers - int(config.method.layers.removeprefix("top")))


def _thin_out(lengths: NDArray[np.int64], max_rows: int | None) -> NDArray[np.int64]:
    """Return the lengths of fewer rows, distributed as those of all."""
    if max_rows is None or max_rows >= len(lengths):
        return lengths
    return np.sort(lengths)[np.linspace(0, len(lengths) - 1, max_rows).astype(np.int64)]


def _keeps_prefix(
    config: Config, frozen: int, lengths: Mapping[str, NDArray[np.int64]], ground: Ground, steps_per_epoch: int
) -> bool:
    if not config.wants_prefix_cache(steps_per_epoch=steps_per_epoch, frozen=frozen):
        return False
    tokens = sum(int(lengths[name].sum()) for name in ("train", "validation"))
    size = tokens * ground.width * (2 if ground.precision == "bf16" else 4)
    return size <= min(config.training.prefix_cache_gb * 1e9, ground.free_bytes)


def _count_evaluations(steps: int, per_epoch: int, per_epoch_asked: int) -> int:
    """Return how often `callbacks.Schedule` asks for validation: its points of every epoch, and the last step."""
    return ceil(steps / per_epoch * min(per_epoch_asked, per_epoch))
