"""From a model's outputs to the answer for a text: one label, several, or a number."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lorafit.data.checks import encode_labels
from lorafit.evidence import CalibrationRecord
from lorafit.labels import LabelSet, Task
from lorafit.metrics.confidence import apply_temperature
from lorafit.metrics.multi_label import decide, sigmoid
from lorafit.metrics.scores import softmax
from lorafit.metrics.selective import conformal_sets
from lorafit.task_evidence import IntervalCalibration, MultiLabelCalibration

__all__ = [
    "TRUTH_COLUMNS",
    "Answer",
    "Calibration",
    "LabelsPrediction",
    "NumberPrediction",
    "Predicted",
    "Prediction",
    "build_answer",
    "name_values",
    "parse_predictions",
    "to_values",
]

Calibration = CalibrationRecord | MultiLabelCalibration | IntervalCalibration
"""How logits become what can be believed, by task."""

TRUTH_COLUMNS: Final[dict[Task, str]] = {
    "single_label": "true_label",
    "multi_label": "true_labels",
    "regression": "true_value",
}
"""Column of what is true of a row, in the predictions of a split, by task."""


@dataclass(frozen=True)
class Prediction:
    """The answer for one text where it has one label.

    Attributes:
        label: The most probable class.
        score: Its probability, 0 to 1, calibrated where the model has a calibration.
        scores: Probability of every class, in label order; they sum to 1.
        abstain: Whether `score` is below what the target accuracy needs; None where no target was named.
        conformal_set: Classes that hold the true one as often as the calibration's coverage says; None without one.
    """

    label: str
    score: float
    scores: dict[str, float]
    abstain: bool | None = None
    conformal_set: tuple[str, ...] | None = None

    def columns(self) -> dict[str, object]:
        """Return what stands in a table: `label`, `score`, `abstain` where there is a target, and probabilities."""
        doubt = {} if self.abstain is None else {"abstain": self.abstain}
        return {"label": self.label, "score": self.score, **doubt, **_name_probabilities(self.scores)}


@dataclass(frozen=True)
class LabelsPrediction:
    """The answer for one text where it may have any number of labels.

    Attributes:
        labels: Those with a probability of at least one half, in label order.
        scores: Probability of every label, 0 to 1, calibrated where the model has a calibration; each by itself.
    """

    labels: tuple[str, ...]
    scores: dict[str, float]

    def columns(self) -> dict[str, object]:
        """Return what stands in a table: the list `labels`, and probabilities."""
        return {"labels": list(self.labels), **_name_probabilities(self.scores)}


@dataclass(frozen=True)
class NumberPrediction:
    """The answer for one text where it is a number.

    Attributes:
        value: The number, in the unit of the training rows.
        low: Lower end of the interval that holds the true one as often as the calibration's coverage says; None without
            a calibration.
        high: Its upper end, or None.
    """

    value: float
    low: float | None = None
    high: float | None = None

    def columns(self) -> dict[str, object]:
        """Return what stands in a table: `value`, and `low` and `high` where there is a calibration."""
        return {"value": self.value} if self.low is None else {"value": self.value, "low": self.low, "high": self.high}


Answer = Prediction | LabelsPrediction | NumberPrediction
"""What a model says of a text, by task."""


@dataclass(frozen=True)
class Predicted:
    """Probabilities (or numbers, of a regression) of each model for the same n rows, shape (n, outputs).

    Attributes:
        finetuned: The trained model's, calibrated where there is a calibration.
        baseline: The same model's before training, or None.
        cheap: Those of the cheap baselines, by name.
        calibration: What the trained model's were calibrated with, or None.
    """

    finetuned: NDArray[np.float64]
    baseline: NDArray[np.float64] | None = None
    cheap: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    calibration: Calibration | None = None


def to_values(logits: ArrayLike, labels: LabelSet, calibration: Calibration | None = None) -> NDArray[np.float64]:
    """Turn a model's outputs into probabilities, or leave numbers as they are.

    Args:
        logits: Shape (n, outputs).
        labels: The task and its classes.
        calibration: What makes probabilities believable, or None.

    Returns:
        Shape (n, outputs): probabilities of the classes, which sum to 1; those of each label by itself; or the numbers.
    """
    if labels.task == "regression":
        return np.asarray(logits, dtype=np.float64)
    temperature = (
        1.0 if calibration is None or isinstance(calibration, IntervalCalibration) else calibration.temperature
    )
    scaled = apply_temperature(logits, temperature)
    return sigmoid(scaled) if labels.task == "multi_label" else softmax(scaled)


def name_values(labels: LabelSet) -> list[str]:
    """Name the columns of a model's values, in the order of its outputs: `probability_…` a class, or `value`."""
    return ["value"] if labels.task == "regression" else [f"probability_{name}" for name in labels.names]


def parse_predictions(
    columns: Mapping[str, list[Any]], labels: LabelSet
) -> tuple[NDArray[np.int64], NDArray[Any], NDArray[np.float64]]:
    """Turn the columns of a file of predictions back into arrays.

    Args:
        columns: As `lorafit.training.evaluation.write_predictions` makes them, of n rows.
        labels: The task and its classes, in the order wanted.

    Returns:
        Row ids, shape (n,); what is true, as `Split.labels` holds it; and what was said, shape (n, outputs).

    Raises:
        KeyError: A column or the name of a label is missing.
        TypeError: A value is of another kind than its column holds.
        ValueError: The same.
        OverflowError: A row id is too large.
    """
    truth = columns[TRUTH_COLUMNS[labels.task]]
    if labels.task == "multi_label":
        truth = [tuple(names) for names in truth]
    ids = np.array([int(str(row)) for row in columns["row_id"]], dtype=np.int64)
    values = np.array([columns[name] for name in name_values(labels)], dtype=np.float64).T
    return ids, encode_labels(truth, labels), values


def build_answer(values: NDArray[np.float64], labels: LabelSet, calibration: Calibration | None = None) -> Answer:
    """Build the answer for one text.

    Args:
        values: Shape (outputs,), from `to_values`.
        labels: The task and its classes.
        calibration: What the values were calibrated with, or None.

    Returns:
        The answer; of equally probable classes the first wins.
    """
    if labels.task == "regression":
        value = float(values[0])
        if not isinstance(calibration, IntervalCalibration):
            return NumberPrediction(value)
        return NumberPrediction(value, value - calibration.half_width, value + calibration.half_width)
    scores = dict(zip(labels.names, values.tolist(), strict=True))
    if labels.task == "multi_label":
        return LabelsPrediction(
            tuple(name for name, has in zip(labels.names, decide(values), strict=True) if has), scores
        )
    return _build_prediction(values, labels, scores, calibration)


def _build_prediction(
    values: NDArray[np.float64], labels: LabelSet, scores: dict[str, float], calibration: Calibration | None
) -> Prediction:
    best, abstain, inside = int(values.argmax()), None, None
    if isinstance(calibration, CalibrationRecord):
        held = conformal_sets(values[np.newaxis], calibration.set_threshold)[0]
        inside = tuple(name for name, is_in in zip(labels.names, held, strict=True) if is_in)
        if calibration.accept_threshold is not None:
            abstain = bool(values[best] < calibration.accept_threshold)
    return Prediction(labels.names[best], float(values[best]), scores, abstain=abstain, conformal_set=inside)


def _name_probabilities(scores: dict[str, float]) -> dict[str, object]:
    return {f"probability_{name}": score for name, score in scores.items()}
