"""From the cells of a comparison to a row a method."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from lorafit.config import EvaluationConfig
from lorafit.data.rows import Split
from lorafit.experiments.compare.records import CheapRow, MethodRow
from lorafit.experiments.compare.scores import Score, measure_errors, measure_score
from lorafit.labels import Task
from lorafit.metrics.uncertainty import mcnemar_exact
from lorafit.runs.records import RunRecord, TrainingRecord

__all__ = ["CheapResult", "summarise"]

Key = tuple[str, int]
"""Method and seed."""


@dataclass(frozen=True)
class CheapResult:
    """What a cheap baseline said of the test rows.

    Attributes:
        name: As in `cheap_baselines_for` the task.
        values: Shape (n, outputs).
        seconds: Time of training and prediction.
    """

    name: str
    values: NDArray[np.float64]
    seconds: float


def summarise(
    records: Mapping[Key, RunRecord],
    predictions: Mapping[Key, NDArray[np.float64]],
    sizes: Mapping[Key, int],
    cheap: Sequence[CheapResult],
    test: Split,
    task: Task,
    config: EvaluationConfig,
) -> tuple[list[MethodRow], list[CheapRow]]:
    """Average over seeds and compare with the best method, paired by test row.

    The best is the one with the lowest mean validation loss: test rows choose nothing. With several seeds, intervals
    are of the mean over seeds, and over rows, not over seeds; how much seeds differ is told by `score_by_seed`.

    Args:
        records: Of every finished cell.
        predictions: Of every finished cell on the test rows, shape (n, outputs).
        sizes: Bytes of the weights of every finished cell.
        cheap: The cheap baselines.
        test: The n test rows.
        task: What a text gets.
        config: Level and resampling of the intervals.

    Returns:
        A row a method, in order of first appearance, and a row a cheap baseline.
    """
    keys: dict[str, list[Key]] = {}
    for key in records:
        keys.setdefault(key[0], []).append(key)
    losses = {
        method: fmean(_training(records[key]).best_validation_loss for key in own) for method, own in keys.items()
    }
    best = min(losses, key=lambda method: losses[method], default=None)
    level = config.confidence_level
    scores = {
        method: measure_score(test, [predictions[key] for key in own], task, config) for method, own in keys.items()
    }
    errors = {key: measure_errors(test, said, task) for key, said in predictions.items()}
    methods = []
    for method, own in keys.items():
        is_best = method == best
        is_single = not is_best and best is not None and len(own) == len(keys[best]) == 1
        methods.append(
            MethodRow(
                method=method,
                seeds=[seed for _, seed in own],
                validation_loss=losses[method],
                score=scores[method].estimate(level),
                score_by_seed=list(scores[method].by_model),
                difference=None if is_best or best is None else (scores[method] - scores[best]).estimate(level),
                p_value=_test_signs(errors[keys[best][0]], errors[own[0]]) if is_single and best is not None else None,
                **_costs([records[key] for key in own], [sizes[key] for key in own]),
            )
        )
    best_score = None if best is None else scores[best]
    return methods, [
        _summarise_cheap(result, measure_score(test, [result.values], task, config), best_score, level)
        for result in cheap
    ]


def _summarise_cheap(result: CheapResult, score: Score, best: Score | None, level: float) -> CheapRow:
    difference = None if best is None else (score - best).estimate(level)
    return CheapRow(name=result.name, score=score.estimate(level), difference=difference, seconds=result.seconds)


def _costs(records: Sequence[RunRecord], sizes: Sequence[int]) -> dict[str, object]:
    trainings = [_training(record) for record in records]
    return {
        "parameters": records[0].parameters,
        "bytes_on_disk": round(fmean(sizes)),
        "training_seconds": fmean(record.seconds["training"] for record in records),
        "epoch_seconds": fmean(one.tokens / one.tokens_per_second / one.epochs for one in trainings),
        "peak_memory_bytes": max(record.peak_memory_bytes for record in records),
        "texts_per_second": fmean(record.texts_per_second or 0.0 for record in records),
    }


def _test_signs(before: NDArray[np.float64], after: NDArray[np.float64]) -> float:
    return mcnemar_exact(int((after < before).sum()), int((after > before).sum()))


def _training(record: RunRecord) -> TrainingRecord:
    if record.training is None:
        raise ValueError("a finished run has a training record")
    return record.training
