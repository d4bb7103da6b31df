"""From the cells of a comparison to a row a method."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from lorafit.artifacts import RunRecord, TrainingRecord
from lorafit.comparison.records import CheapRow, MethodRow
from lorafit.data.rows import Split
from lorafit.evidence import Estimate
from lorafit.metrics.scores import predict_labels
from lorafit.metrics.uncertainty import estimate_mean, mcnemar_exact
from lorafit.settings import EvaluationConfig

__all__ = ["CheapResult", "summarise"]

Key = tuple[str, int]
"""Method and seed."""


@dataclass(frozen=True)
class CheapResult:
    """What a cheap baseline said of the test rows.

    Attributes:
        name: As in `CHEAP_BASELINES`.
        probabilities: Shape (n, classes).
        seconds: Time of training and prediction.
    """

    name: str
    probabilities: NDArray[np.float64]
    seconds: float


def summarise(
    records: Mapping[Key, RunRecord],
    predictions: Mapping[Key, NDArray[np.float64]],
    sizes: Mapping[Key, int],
    cheap: Sequence[CheapResult],
    test: Split,
    config: EvaluationConfig,
) -> tuple[list[MethodRow], list[CheapRow]]:
    """Average over seeds and compare with the best method, paired by test row.

    The best is the one with the lowest mean validation loss: test rows choose nothing. With several seeds a row counts
    as right to the share of the seeds that were right on it, and intervals are over rows, not over seeds; how much
    seeds differ is told by `accuracy_by_seed`.

    Args:
        records: Of every finished cell.
        predictions: Of every finished cell on the test rows, shape (n, classes).
        sizes: Bytes of the weights of every finished cell.
        cheap: The cheap baselines.
        test: The n test rows.
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
    right = {key: (predict_labels(said) == test.labels).astype(np.float64) for key, said in predictions.items()}
    shares = {method: np.mean([right[key] for key in own], axis=0) for method, own in keys.items()}

    def estimate(values: NDArray[np.float64]) -> Estimate:
        rng = np.random.default_rng(config.seed)
        return estimate_mean(values, test.labels, config.bootstrap_samples, rng, config.confidence_level)

    methods = []
    for method, own in keys.items():
        is_best = method == best
        single = not is_best and best is not None and len(own) == len(keys[best]) == 1
        methods.append(
            MethodRow(
                method=method,
                seeds=[seed for _, seed in own],
                validation_loss=losses[method],
                accuracy=estimate(shares[method]),
                accuracy_by_seed=[float(right[key].mean()) for key in own],
                difference=None if is_best or best is None else estimate(shares[method] - shares[best]),
                p_value=_mcnemar(shares[best], shares[method]) if single and best is not None else None,
                **_costs([records[key] for key in own], [sizes[key] for key in own]),
            )
        )
    return methods, [
        _summarise_cheap(result, test, None if best is None else shares[best], estimate) for result in cheap
    ]


def _summarise_cheap(
    result: CheapResult,
    test: Split,
    best: NDArray[np.float64] | None,
    estimate: Callable[[NDArray[np.float64]], Estimate],
) -> CheapRow:
    values = (predict_labels(result.probabilities) == test.labels).astype(np.float64)
    difference = None if best is None else estimate(values - best)
    return CheapRow(name=result.name, accuracy=estimate(values), difference=difference, seconds=result.seconds)


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


def _mcnemar(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    return mcnemar_exact(int((second > first).sum()), int((second < first).sum()))


def _training(record: RunRecord) -> TrainingRecord:
    if record.training is None:
        raise ValueError("a finished run has a training record")
    return record.training
