"""Any number of labels a text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lorafit.errors import DataError
from lorafit.system.text import format_count
from lorafit.tasks.atypical import typicality_cells, typicality_columns
from lorafit.tasks.base import Array, Metric, TargetScaler, Task, Wording, exactly, expect
from lorafit.tasks.baselines import CLASSIFIERS, EMBEDDING_CLASSIFIER, MAJORITY, fit_marks
from lorafit.tasks.calibration import estimate_calibration_errors, expected_calibration_error, fit_binary_temperature
from lorafit.tasks.label_errors import suspect_marks
from lorafit.tasks.label_names import read_name_lists
from lorafit.tasks.labels import (
    Label,
    LabelColumn,
    LabelReading,
    are_integers,
    check_label_names,
    check_not_constant,
    check_not_unique,
    join_small_strata,
    list_labels,
    sort_names,
)
from lorafit.tasks.metrics import (
    binary_loss,
    binary_losses,
    check_marks,
    check_shares,
    entropies,
    macro_f1,
    ratio,
    score_classes,
    sigmoid,
    to_losses,
)
from lorafit.tasks.records import Calibration, CalibrationScores, ClassScores, Estimate, Resampling, Scores
from lorafit.tasks.single_label import CALIBRATION_METRICS, describe_temperature, log_odds
from lorafit.tasks.word_model import WordModel

_THRESHOLD: Final = 0.5
"""A label is given where it is at least as probable as not."""

_ECE: Final = Metric(
    "calibration error", "how far the confidence of a decision is off on average, in 15 bins", False, "percent"
)


@dataclass(frozen=True)
class MultiLabelPrediction:
    """The prediction for one text that may have any number of labels.

    Attributes:
        labels: Those with a probability of at least one half, in label order.
        scores: Probability of every label by itself, 0 to 1, calibrated where the model has a calibration.
        typicality: As `Prediction` of `tasks.base` has it.
        atypical: As there.
    """

    labels: tuple[str, ...]
    scores: dict[str, float]
    typicality: float | None = None
    atypical: bool | None = None

    def columns(self) -> dict[str, object]:
        """Return the list `labels`, of numbers where all are whole ones, how typical the text is, and probabilities."""
        labels = [int(name) for name in self.labels] if are_integers(tuple(self.scores)) else list(self.labels)
        named = {f"probability_{name}": score for name, score in self.scores.items()}
        return {"labels": labels, **typicality_columns(self), **named}

    def describe(self) -> str:
        """Return the labels, each with its probability."""
        return ", ".join(f"{label} {self.scores[label]:.1%}" for label in self.labels) or "(none)"

    def cells(self) -> tuple[str, ...]:
        """Return the labels in one cell, and how typical the text is."""
        return (self.describe(), *typicality_cells(self))

    def is_right(self, truth: Label) -> bool:
        """Tell whether these are exactly the true labels."""
        return set(self.labels) == set(_names(truth))

    def describe_error(self, truth: Label) -> str:
        """Return the labels that are not true, and those that are missing with their probabilities."""
        true = _names(truth)
        faults = {
            "not true": [name for name in self.labels if name not in true],
            "missing": [f"{name} {self.scores[name]:.1%}" for name in true if name not in self.labels],
        }
        return "; ".join(f"{fault}: {', '.join(names)}" for fault, names in faults.items() if names)


class MultiLabelCalibration(Calibration):
    """`calibration.json` of a multi-label task.

    Attributes:
        temperature: Logits are divided by it before the sigmoid; above 1 where the model was too sure.
        log_loss_before: Log loss over texts and labels at temperature 1, in nats.
        log_loss_after: The same at `temperature`.
    """

    task: Literal["multi_label"] = "multi_label"
    temperature: float
    log_loss_before: float
    log_loss_after: float


@dataclass(frozen=True)
class MultiLabel(Task):
    """A text has any number of labels. `y` is an indicator matrix, int64 of shape (n, labels).

    A decision is one label of one text; values are probabilities, each by itself. The statistics of a row are 1,
    whether all its decisions are right, and its mean log loss a decision; then, each label by label, whether it was
    rightly given, whether it was given, and whether it is true.
    """

    name: ClassVar[str] = "multi_label"
    problem_type: ClassVar[str] = "multi_label_classification"
    metrics: ClassVar[Mapping[str, Metric]] = {
        "micro_f1": Metric(
            "F1 (micro)",
            "over the labels of all texts: how many of those given are right, and how many true ones are found",
            True,
            "percent",
        ),
        "macro_f1": Metric("F1 (macro)", "the mean of the labels' own F1: rare labels count as much", True, "percent"),
        "exact_match": Metric("exact match", "share of the texts that get exactly their labels", True, "percent"),
        "hamming_loss": Metric(
            "Hamming loss", "share of the decisions that are wrong, one for each text and label", False, "percent"
        ),
        "log_loss": Metric("log loss", "how little probability the truth gets, a decision, in nats", False),
    }
    slice_metrics: ClassVar[tuple[str, ...]] = ("micro_f1", "exact_match")
    calibration_metrics: ClassVar[Mapping[str, Metric]] = {
        "ece": _ECE,
        "temperature": CALIBRATION_METRICS["temperature"],
    }
    diff_metrics: ClassVar[Mapping[str, Metric]] = {
        "ece": _ECE,
        "negative_flips": Metric("negative flips", "share of rows that were right and are wrong", False, "percent"),
        "churn": Metric("churn", "share of rows that get other labels, right or wrong", False, "percent"),
    }
    parity_metrics: ClassVar[tuple[str, ...]] = ("micro_f1",)
    parity_agreement: ClassVar[float] = 0.0  # one of many labels may change; what counts is F1
    reproduction_tolerances: ClassVar[Mapping[str, float]] = {"micro_f1": 0.002, "log_loss": 0.01}
    baselines: ClassVar[Mapping[str, str]] = {MAJORITY: "Shares of the labels", **CLASSIFIERS, **EMBEDDING_CLASSIFIER}
    balanced_metrics: ClassVar[tuple[str, ...]] = ("macro_f1",)
    calibration_type: ClassVar[type[Calibration]] = MultiLabelCalibration
    truth_column: ClassVar[str] = "true_labels"
    wording: ClassVar[Wording] = Wording(
        title="Multi-label text classifier",
        activity="Multi-label text classification",
        gives="any number of {count} labels: {labels}",
        purpose="Marking texts of the same kind and language as its training data ({source}) with these labels",
        unmeasured="labels that it was not trained on",
        stratum="label",
        calibrates="temperature",
        uncalibrated="Calibration: none; probabilities are what the model gives, how far they hold was not measured.",
        value="test probability",
        loss="loss (nats)",
        scored="it reaches an F1 (micro) of {value} on {rows}",
        more="more",
        less="less",
        fixed="{count} rows with fewer wrong labels",
        broken="{count} with more",
        test="exact sign test",
        mistakes="Most confident mistakes",
        mistakes_intro="The rows with a label wrongly given or left out after training, by how sure the model was of "
        "that. Some may be mislabelled.",
        no_mistakes="every test row gets exactly its labels",
        contribution="log-odds",
        changed="other labels",
        plain="A label applies where its score is at least 0.5.",
        plain_calibrated="A label applies where its score is at least 0.5. Plain libraries give the same labels, with "
        "the scores from before calibration.",
        pipeline_options=', function_to_apply="sigmoid", top_k=None',
        gate_example="micro_f1>=-0.002,negative_flips<=0.01",
    )

    def __post_init__(self) -> None:
        check_label_names(self.label_names)

    # Labels to arrays

    @classmethod
    def read_labels(cls, cells: Sequence[object], reading: LabelReading) -> LabelColumn:
        return read_name_lists(cells, reading)

    @classmethod
    def from_labels(cls, labels: Sequence[Label], origin: str) -> Self:
        check_not_constant(labels, origin)
        distinct = {name for label in labels for name in _names(label)}
        check_not_unique(distinct, len(labels), origin)
        if len(distinct) == 1:
            raise DataError(
                f"{origin}: {list_labels(list(distinct))} is the only label. Name the columns of all labels "
                "(--label-columns A,B,…), or leave --task multi_label out: one column of 0 and 1 needs --label-column."
            )
        return cls(sort_names(distinct))

    def unknown_names(self, label: Label) -> set[str]:
        return set(_names(label)) - set(self.label_names)

    @classmethod
    def rename(cls, label: Label, names: Mapping[str, str]) -> Label:
        return tuple(sorted({names.get(name, name) for name in _names(label)}))

    def encode(self, labels: Sequence[Any]) -> NDArray[np.int64]:
        ids = {name: index for index, name in enumerate(self.label_names)}
        marks = np.zeros((len(labels), len(self.label_names)), dtype=np.int64)
        for row, label in enumerate(labels):
            marks[row, [ids[name] for name in label]] = 1
        return marks

    def decode(self, y: NDArray[Any]) -> tuple[Label, ...]:
        return tuple(tuple(self.label_names[index] for index in np.flatnonzero(row)) for row in y)

    def count(self, y: NDArray[Any]) -> dict[str, int]:
        return dict(zip(self.label_names, y.sum(axis=0).tolist(), strict=True))

    def describe_counts(self, y: NDArray[Any]) -> str:
        without = int((y.sum(axis=1) == 0).sum())
        return super().describe_counts(y) + (f"; {format_count(without, 'row')} without any" if without else "")

    def mark_labels(self, y: NDArray[Any]) -> NDArray[np.bool_]:
        return np.asarray(y == 1)

    def strata(self, y: NDArray[Any]) -> NDArray[np.int64]:
        """Return the rarest label of each row; where that are fewer than 10 rows, the largest group."""
        return join_small_strata(self.balance_groups(y))

    def describe_stratum(self, stratum: int) -> tuple[str, str]:
        if stratum == len(self.label_names):
            return "What has no label", "every label, and of none,"
        return f"The label '{self.label_names[stratum]}'", "every label"

    def describe_label(self, label: Label) -> str:
        return ", ".join(_names(label)) or "(none)"

    # Training

    def targets(self, y: NDArray[Any], scaler: TargetScaler) -> NDArray[Any]:
        del scaler
        return y.astype(np.float32)

    def loss_weights(self, y: NDArray[Any]) -> NDArray[np.float32]:
        """Weigh each decision so that the rows with a label count as much as those without it.

        That is scikit-learn's `balanced` label by label, as in its `OneVsRestClassifier`; a label that all rows have,
        or none, keeps its weight of 1.
        """
        true = y.sum(axis=0)
        rows = np.where(y == 1, true, len(y) - true)
        return np.where(np.isin(true, (0, len(y))), 1, len(y) / (2 * rows)).astype(np.float32)

    def balance_groups(self, y: NDArray[Any]) -> NDArray[np.int64]:
        """Return the rarest label of each row, or the number of labels where it has none."""
        counts = np.where(y == 1, y.sum(axis=0), len(y) + 1)
        return np.asarray(np.where(y.any(axis=1), counts.argmin(axis=1), y.shape[1]), dtype=np.int64)

    def validation_metrics(self, y: NDArray[Any], logits: Array, scaler: TargetScaler) -> dict[str, float]:
        del scaler
        values, marks = self.activate(logits), y == 1
        return {
            "loss": binary_loss(marks, logits),
            "calibrated_loss": binary_loss(marks, logits / fit_binary_temperature(marks, logits)),
            self.primary: float(np.nan_to_num(self.compute(self.row_statistics(y, values).sum(axis=0))[self.primary])),
        }

    def fit_words(self, name: str, texts: Sequence[str], y: NDArray[Any]) -> WordModel:
        return fit_marks(name, texts, y == 1)

    @property
    def baseline_fits(self) -> int:
        return len(self.label_names)

    # Prediction

    def fit_calibration(
        self, y: NDArray[Any], logits: Array, *, coverage: float, target_accuracy: float | None = None
    ) -> MultiLabelCalibration:
        """Fit the temperature; coverage and target accuracy are for other tasks."""
        del coverage, target_accuracy
        marks = y == 1
        temperature = fit_binary_temperature(marks, logits)
        return MultiLabelCalibration(
            rows=len(y),
            temperature=temperature,
            log_loss_before=binary_loss(marks, logits),
            log_loss_after=binary_loss(marks, logits / temperature),
        )

    def activate(self, logits: ArrayLike, calibration: Calibration | None = None) -> Array:
        temperature = 1.0 if calibration is None else expect(calibration, MultiLabelCalibration).temperature
        return sigmoid(np.asarray(logits, dtype=np.float64) / temperature)

    def deactivate(self, values: Array) -> Array:
        return log_odds(values, 1 - values)

    def doubt(self, values: Array) -> Array:
        return entropies(values) + entropies(1 - values)

    def logit_losses(self, y: NDArray[Any], logits: Array) -> Array:
        return np.asarray(binary_losses(y == 1, logits).mean(axis=1))

    def predict(self, values: Array, calibration: Calibration | None = None) -> MultiLabelPrediction:
        del calibration
        names = zip(self.label_names, _decide(values), strict=True)
        scores = dict(zip(self.label_names, values.tolist(), strict=True))
        return MultiLabelPrediction(tuple(name for name, given in names if given), scores)

    def check_values(self, values: Array) -> None:
        check_shares(values, len(values), len(self.label_names))

    def same_prediction(self, values: Array, others: Array) -> NDArray[np.bool_]:
        """Tell of each row whether it gets the same labels."""
        return np.asarray((_decide(values) == _decide(others)).all(axis=1))

    def contribution(self, values: Array, output: int) -> Array:
        """Return the log-odds of a label against its absence, with probabilities of at least 1e-12."""
        return log_odds(values[:, output], 1 - values[:, output])

    # Evaluation

    def suspect_labels(self, y: NDArray[Any], values: Array) -> NDArray[np.bool_]:
        return suspect_marks(y, values)

    def support_labels(self, y: NDArray[Any], values: Array) -> Array:
        """Return the probability of each row's least probable decision."""
        return np.asarray(np.where(y, values, 1 - values).min(axis=1))

    def suggest_labels(self, values: Array) -> tuple[Label, ...]:
        return self.decode((values >= _THRESHOLD).astype(np.int64))

    def row_statistics(self, y: NDArray[Any], values: Array) -> Array:
        marks = check_marks(y, len(self.label_names))
        probabilities = check_shares(values, len(marks), len(self.label_names))
        given = _decide(probabilities)
        losses = to_losses(np.where(marks, probabilities, 1 - probabilities)).mean(axis=1)
        exact = (given == marks).all(axis=1)
        columns = [np.ones(len(marks)), exact, losses, given & marks, given, marks]
        return np.column_stack(columns).astype(np.float64, copy=False)

    def compute(self, sums: Array) -> dict[str, Array]:
        rows, exact, loss = np.moveaxis(sums[..., :3], -1, 0)
        hits, given, true = np.split(sums[..., 3:], 3, axis=-1)
        return {
            "micro_f1": _micro_f1(hits.sum(axis=-1), (given + true).sum(axis=-1)),
            "macro_f1": macro_f1(hits, given, true),
            "exact_match": np.asarray(exact / rows),
            "hamming_loss": (given + true - 2 * hits).sum(axis=-1) / (rows * hits.shape[-1]),
            "log_loss": np.asarray(loss / rows),
        }

    def edge_statistics(self, y: NDArray[Any], values: Array) -> Array:
        """Return a row that gets the labels of another, at least one of them wrong, and one that gets its true ones."""
        marks, given = y == 1, _decide(values)
        true, chosen = marks.mean(axis=0), given.mean(axis=0)
        hits = true * chosen
        occurs = true + chosen > 0  # the others are left out of the mean F1
        occurs = occurs / occurs.sum() if occurs.any() else np.full(len(true), 1 / len(true))
        lacking = np.maximum(0, 1 - (true + chosen - 2 * hits).sum()) * occurs
        losses, others = to_losses(values), to_losses(1 - values)
        chance = (true * losses + (1 - true) * others).mean(axis=1).max()
        certain = np.where(given, losses, others).mean()
        wrong = np.concatenate([[1, 0, chance], hits, chosen + lacking / 2, true + lacking / 2])
        return np.stack([wrong, np.concatenate([[1, 1, certain], true, true, true])])

    def proportions(self, sums: Array) -> dict[str, tuple[Array, Array]]:
        return {"exact_match": (sums[..., 1], sums[..., 0])}

    def per_class(self, sums: Array, level: float, *, grouped: bool) -> list[ClassScores]:
        return score_classes(self.label_names, sums[:, 3:], level, grouped=grouped)

    def row_errors(self, y: NDArray[Any], values: Array) -> Array:
        """Return the number of wrong decisions about each row."""
        return np.asarray((_decide(values) != (y == 1)).sum(axis=1), dtype=np.float64)

    def slice_statistics(self, statistics: Array) -> Array:
        """Return 1, whether a row is exactly right, how many labels are rightly given, and how many given plus true."""
        hits, given, true = (part.sum(axis=-1) for part in np.split(statistics[..., 3:], 3, axis=-1))
        return np.stack([statistics[..., 0], statistics[..., 1], hits, given + true], axis=-1)

    def compute_slices(self, sums: Array) -> dict[str, Array]:
        rows, exact, hits, marks = np.moveaxis(sums, -1, 0)
        return {"micro_f1": _micro_f1(hits, marks), "exact_match": np.asarray(exact / rows)}

    def mistake_severity(self, y: NDArray[Any], values: Array) -> Array:
        """Return the confidence of the surest wrong decision."""
        return np.asarray(self._wrong_confidence(y, values).max(axis=1))

    def mistaken_output(self, y: NDArray[Any], values: Array) -> NDArray[np.int64]:
        """Return the label of the surest wrong decision."""
        return np.asarray(self._wrong_confidence(y, values).argmax(axis=1), dtype=np.int64)

    def calibration_scores(
        self, y: NDArray[Any], values: Array, calibration: Calibration, resampling: Resampling
    ) -> CalibrationScores:
        known = expect(calibration, MultiLabelCalibration)
        smallest = np.finfo(np.float64).tiny
        odds = np.log(np.maximum(values, smallest)) - np.log(np.maximum(1 - values, smallest))
        decisions = [_judge(y, values), _judge(y, sigmoid(odds * known.temperature))]
        calibrated, raw = estimate_calibration_errors(decisions, resampling)
        return CalibrationScores(
            rows=known.rows,
            metrics={"ece": calibrated, "temperature": exactly(known.temperature)},
            raw={"ece": raw},
        )

    def describe_calibration(self, scores: CalibrationScores) -> list[str]:
        return [describe_temperature(scores, _ECE, of=" over all decisions")]

    def measure_side(
        self, y: NDArray[Any], values: Array, calibration: Calibration | None, resampling: Resampling
    ) -> dict[str, Estimate]:
        """Measure the calibration error, with or without a calibration."""
        del calibration
        (error,) = estimate_calibration_errors([_judge(y, values)], resampling)
        return {"ece": error}

    def measure_diff(
        self,
        y: NDArray[Any],
        before: Array,
        after: Array,
        calibrations: tuple[Calibration | None, Calibration | None],
        resampling: Resampling,
    ) -> dict[str, Estimate]:
        """Measure flips, churn, and the difference of calibration errors, without an interval as of single labels."""
        old, new = (expected_calibration_error(*_judge(y, values)) for values in (before, after))
        return {
            "ece": exactly(new - old),
            **super().measure_diff(y, before, after, calibrations, resampling),
        }

    def hub_results(self, scores: Scores, calibration: CalibrationScores | None) -> list[dict[str, Any]]:
        del calibration
        metrics = scores.metrics
        return [
            {"type": "f1", "value": metrics["micro_f1"].value, "name": "F1 (micro)", "args": {"average": "micro"}},
            {"type": "f1", "value": metrics["macro_f1"].value, "name": "F1 (macro)", "args": {"average": "macro"}},
            {"type": "exact_match", "value": metrics["exact_match"].value, "name": "Exact match"},
        ]

    def _wrong_confidence(self, y: NDArray[Any], values: Array) -> Array:
        return np.where(_decide(values) != (y == 1), np.maximum(values, 1 - values), 0.0)


def _micro_f1(hits: Array, marks: Array) -> Array:
    """Compute F1; undefined where no row has a label and none is given, so that nothing could be right or wrong."""
    return np.where(marks > 0, ratio(2 * hits, marks), np.nan)


def _names(label: Label) -> tuple[str, ...]:
    return label if isinstance(label, tuple) else (str(label),)


def _decide(values: Array) -> NDArray[np.bool_]:
    return np.asarray(values >= _THRESHOLD)


def _judge(y: NDArray[Any], values: Array) -> tuple[NDArray[np.bool_], Array]:
    """Return whether each decision is right, and with what confidence, 0.5 to 1, it was made."""
    return _decide(values) == (y == 1), np.maximum(values, 1 - values)
