"""How long the stages of a run will take, from the measured cost of its batches."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, inf
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lorafit.config import Config, ModelConfig
from lorafit.data.loading import CROSS_FITTING_FOLDS, calibrates_out_of_fold
from lorafit.errors import ConfigError
from lorafit.inference.mistakes import list_explained_lengths
from lorafit.inference.predictor import plan_prediction
from lorafit.inference.typicality import MOST_ROWS
from lorafit.models.batching import plan_batches
from lorafit.models.methods import find_method
from lorafit.runs.saving import is_proven
from lorafit.system.extras import missing_modules
from lorafit.system.text import join_text
from lorafit.tasks.registry import get_task
from lorafit.training.embedding_baseline import check_size, is_embedding, predicts_from_embeddings
from lorafit.training.planning.schedule import MOST_FITTED, choose_length_warmup, count_short_steps

if TYPE_CHECKING:
    from lorafit.training.planning.costs import Costs
    from lorafit.training.prepare import Prepared

_SAVING = 6.0
_REPORT = 3.0
_GRAPH = 2.0
_CHECKPOINT = 0.1
_PREPARATION = 1.0
_RESAMPLED_ROW = 1e-8
_CHARACTER = 8e-7
"""Seconds: a fresh process that loads the adapter; the report; the kept graph; a checkpoint; reading the model once
more; a row in a bootstrap sample; a character of the texts that the n-gram baselines read."""


@dataclass(frozen=True)
class Workload:
    """The measurements that forecasts for one encoder and one dataset are based on.

    Attributes:
        lengths: Tokens per input of each split, a text or a window of one, for the `max_length` asked for.
        costs: What batches cost.
        width: Hidden size of the encoder.
        precision: Arithmetic of the encoder, which decides the size of its hidden states on disk.
        free_bytes: Free disk space for them.
        characters: Of all training and test texts, to which the time of the n-gram baselines is proportional.
        fits: Models that each of these baselines trains: with several labels a text, one per label.
        outputs: Number of the model's outputs.
        windows: Inputs a text, on the average of all.
    """

    lengths: Mapping[str, NDArray[np.int64]]
    costs: "Costs"
    width: int
    precision: str
    free_bytes: float = inf
    characters: int = 0
    fits: int = 1
    outputs: int = 1
    windows: float = 1.0

    @property
    def rows(self) -> int:
        """Number of training and test rows."""
        return self.count("train") + self.count("test")

    def count(self, split: str) -> int:
        """Return the number of rows of a split."""
        return round(len(self.lengths[split]) / self.windows)


def measure_workload(prepared: "Prepared", *, free_bytes: float = inf) -> Workload:
    """Measure text lengths and batch costs of a prepared run, and leave its model as it was.

    Args:
        prepared: Data and model.
        free_bytes: Free disk space for hidden states.

    Returns:
        The measurements.
    """
    from lorafit.training.inputs import build_rows
    from lorafit.training.planning.costs import measure_costs

    splits, model = prepared.splits, prepared.adapted.model
    targets = prepared.task.targets(splits.train.y, prepared.scaler)
    rows = build_rows(prepared.tokens["train"], targets, prepared.pad_id)
    return Workload(
        lengths={name: texts.lengths for name, texts in prepared.tokens.items()},
        costs=measure_costs(model, rows, prepared.config.training, prepared.precision),
        width=model.config.hidden_size,
        precision=prepared.precision.name,
        free_bytes=free_bytes,
        characters=sum(len(join_text(text)) for part in (splits.train, splits.test) for text in part.texts),
        fits=prepared.task.baseline_fits,
        outputs=len(prepared.task.output_names),
        windows=sum(map(len, prepared.tokens.values())) / sum(texts.texts for texts in prepared.tokens.values()),
    )


def forecast_run(config: Config, workload: Workload) -> dict[str, float]:
    """Forecast a run, without early stopping.

    Args:
        config: Its settings, with no larger `max_length` and no more layers and rows than were measured.
        workload: The measurements.

    Returns:
        Wall-clock seconds by stage, named as in `RunRecord.seconds`.
    """
    training, costs = config.training, workload.costs
    lengths = {name: _shorten(part, config.model) for name, part in workload.lengths.items()}
    if config.data.max_rows is not None:
        share = min(1.0, config.data.max_rows / workload.count("train"))
        lengths["train"] = _thin_out(lengths["train"], share)
    objective, warmup = find_method(config.method.name).objective, choose_length_warmup(config, len(lengths["train"]))
    texts = np.minimum(lengths["train"], warmup) if objective == "pairs" and warmup else lengths["train"]
    plan = plan_batches(texts, max_rows=training.batch_rows, max_tokens=training.batch_tokens)
    train, whole = plan.shapes(texts), plan_prediction(lengths["train"]).shapes(lengths["train"])
    predicted = {name: plan_prediction(part).shapes(part) for name, part in lengths.items() if name != "train"}
    validation = predicted.get("validation")
    steps = training.max_steps or len(train) * training.epoch_count
    frozen = frozen_layers(config, costs)
    kept = frozen if _keeps_prefix(config, frozen, lengths, workload, len(train)) else 0
    read = (train,) if validation is None else (train, validation)
    once = sum(costs.sum_forward(part) - costs.sum_forward(part, kept=kept) for part in read)
    evaluations = _count_evaluations(steps, len(train), training.validations_per_epoch)
    validating = 0.0 if validation is None else costs.sum_forward(validation, kept=kept)
    if objective == "none":
        fit = costs.sum_forward(whole)
    else:
        fit = costs.sum_steps(train, frozen=frozen, kept=kept > 0) * steps / len(train)
        if warmup and objective == "labels":
            short = costs.sum_steps(plan.shapes(np.minimum(texts, warmup)), frozen=frozen, kept=False)
            fit += count_short_steps(training, len(train)) * (short / len(train) - fit / steps)
        if objective == "pairs":
            heads = 1 + (0 if validation is None else evaluations)
            fit += heads * costs.sum_forward(whole) * min(1.0, MOST_FITTED / len(texts))
    fit += evaluations * (validating + _CHECKPOINT)
    testing = costs.sum_forward(predicted["test"])
    tested = workload.count("test")
    trained = min(workload.count("train"), config.data.max_rows or workload.rows)
    baselines = get_task(config.data.task).baselines if config.evaluation.baselines else {}
    scored = 1 + config.evaluation.before + max(len(baselines), 1)
    out_of_fold = calibrates_out_of_fold(
        config.data, train=len(lengths["train"]), validation=len(lengths.get("validation", ()))
    )
    return {
        **({} if is_proven(config.model, config.method) else {"save check": _SAVING}),
        **({"before training": testing} if config.evaluation.before else {}),
        **({"frozen layers": once} if once else {}),
        "training": fit,
        **({"cross-fitting": _forecast_folds(config, fit, costs.sum_forward(whole))} if out_of_fold else {}),
        **(_forecast_calibration(workload, lengths) if "calibration" in predicted else {}),
        "saving": _SAVING,
        **({"baselines": _forecast_baselines(config, workload, lengths, trained)} if baselines else {}),
        "evaluation": testing + scored * tested * config.evaluation.bootstrap_samples * _RESAMPLED_ROW,
        **({"report": _forecast_report(config, workload, lengths["test"])} if config.evaluation.report else {}),
        **({} if missing_modules("export") else {"graph": _GRAPH}),
    }


def _forecast_calibration(workload: Workload, lengths: Mapping[str, NDArray[np.int64]]) -> dict[str, float]:
    """Return the seconds of predicting the calibration rows, and of reading what typical training rows are like."""
    looked_at = {
        "calibration": lengths["calibration"],
        "typicality": _thin_out(lengths["train"], min(1.0, MOST_ROWS / workload.count("train"))),
    }
    return {name: workload.costs.sum_forward(plan_prediction(part).shapes(part)) for name, part in looked_at.items()}


def _forecast_baselines(
    config: Config, workload: Workload, lengths: Mapping[str, NDArray[np.int64]], trained: int
) -> float:
    """Return the seconds of the n-gram baselines and, where it is measured, of embedding training and test rows."""
    share = (trained + workload.count("test")) / workload.rows
    words = workload.characters * _CHARACTER * share * workload.fits
    if is_embedding(config.method.name):
        return words
    try:
        check_size(lengths, rows=trained, width=workload.width, outputs=workload.outputs)
    except ConfigError:
        return words
    parts = [lengths["train"], lengths["test"]]
    return words + sum(workload.costs.sum_forward(plan_prediction(part).shapes(part)) for part in parts)


def _forecast_folds(config: Config, training: float, forward: float) -> float:
    """Return the seconds of the trainings of all folds, each on the rows of the others, and of predicting each row."""
    if predicts_from_embeddings(config):
        return _PREPARATION + forward
    return (CROSS_FITTING_FOLDS - 1) * training + CROSS_FITTING_FOLDS * _PREPARATION + forward


def _forecast_report(config: Config, workload: Workload, lengths: NDArray[np.int64]) -> float:
    """Return the seconds of the page and of explaining some mistakes."""
    if not config.evaluation.report_texts:
        return _REPORT
    explained = np.repeat(list_explained_lengths(lengths), round(workload.windows))
    return _REPORT + workload.costs.sum_forward(plan_prediction(explained).shapes(explained))


def frozen_layers(config: Config, costs: "Costs") -> int:
    """Return the number of lowest layers without an adapter under these settings."""
    if not costs.layers or config.method.layers == "all":
        return costs.frozen
    return max(costs.frozen, costs.layers - int(config.method.layers.removeprefix("top")))


def _shorten(lengths: NDArray[np.int64], model: ModelConfig) -> NDArray[np.int64]:
    """Return the lengths of the inputs that there are with a shorter `max_length`.

    Windows that are half as long and half as far apart are twice as many; with a stride of their own as many as before,
    but for those at the end.
    """
    if model.truncation != "windows" or model.window_stride is not None:
        return np.minimum(lengths, model.max_length)
    pieces = -(-lengths // model.max_length)
    return np.repeat(np.minimum(lengths, model.max_length), pieces)


def _thin_out(lengths: NDArray[np.int64], share: float) -> NDArray[np.int64]:
    """Return the lengths of a share of the inputs, distributed like those of all."""
    if share == 1:
        return lengths
    count = max(1, round(share * len(lengths)))
    return np.sort(lengths)[np.linspace(0, len(lengths) - 1, count).astype(np.int64)]


def _keeps_prefix(
    config: Config, frozen: int, lengths: Mapping[str, NDArray[np.int64]], workload: Workload, steps_per_epoch: int
) -> bool:
    if not config.wants_prefix_cache(steps_per_epoch=steps_per_epoch, frozen=frozen):
        return False
    tokens = sum(int(lengths[name].sum()) for name in ("train", "validation") if name in lengths)
    size = tokens * workload.width * (2 if workload.precision == "bf16" else 4)
    return size <= min(config.training.prefix_cache_gb * 1e9, workload.free_bytes)


def _count_evaluations(steps: int, per_epoch: int, per_epoch_asked: int) -> int:
    """Return how many validations `callbacks.Schedule` requests: those of every epoch, and the last step's."""
    return ceil(steps / per_epoch * min(per_epoch_asked, per_epoch))
