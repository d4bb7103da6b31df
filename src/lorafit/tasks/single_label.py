"""One of several classes a text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lorafit.errors import UserInputError
from lorafit.tasks.atypical import typicality_cells, typicality_columns
from lorafit.tasks.base import Array, Metric, TargetScaler, Task, Wording, exactly, expect, share_of_rows
from lorafit.tasks.baselines import CLASSIFIERS, EMBEDDING_CLASSIFIER, MAJORITY
from lorafit.tasks.calibration import (
    bin_adaptively,
    estimate_calibration_errors,
    expected_calibration_error,
    fit_temperature,
    list_reliability,
    undo_temperature,
)
from lorafit.tasks.label_errors import suspect_classes
from lorafit.tasks.label_names import read_names
from lorafit.tasks.labels import (
    Label,
    LabelColumn,
    LabelReading,
    are_integers,
    check_label_names,
    check_not_constant,
    check_not_unique,
    sort_names,
)
from lorafit.tasks.metrics import (
    check_ids,
    check_probabilities,
    confusion_matrix,
    entropies,
    macro_f1,
    mcc,
    score_classes,
    softmax,
    to_losses,
)
from lorafit.tasks.records import Calibration, CalibrationScores, ClassScores, Estimate, Resampling, RiskPoint, Scores
from lorafit.tasks.selective import (
    NEVER,
    choose_accept_threshold,
    choose_set_threshold,
    trace_risk,
)

_STORED_POINTS, _SHOWN_POINTS = 1000, 200

SMALLEST: Final = 1e-12
"""Smaller probabilities count as this, where they are turned into logits or log-odds."""

CALIBRATION_METRICS: Final = {
    "ece": Metric(
        "calibration error", "how far confidence is off on average, in 15 bins of equal width", False, "percent"
    ),
    "adaptive_ece": Metric("adaptive calibration error", "the same in bins of equally many rows", False, "percent"),
    "brier": Metric("Brier score", "mean squared distance of the probabilities from the truth, 0 to 2", False),
    "brier_reliability": Metric("its reliability", "the part of it by probabilities that are off (Murphy 1973)", False),
    "brier_resolution": Metric("its resolution", "the part by telling rows apart, which makes it smaller"),
    "brier_uncertainty": Metric("its uncertainty", "the part that the shares of the classes alone give", False),
    "temperature": Metric("temperature", "logits are divided by it: above 1, the model was too confident", False),
    "coverage": Metric("coverage of conformal sets", "share of rows whose set holds the true label", True, "percent"),
    "accepted_share": Metric("accepted", "share of rows that do not abstain", True, "percent"),
    "accepted_accuracy": Metric("accuracy of accepted rows", "share of them that are right", True, "percent"),
    "accept_threshold": Metric("confidence needed", "predictions with less of it abstain", False, "percent"),
}
"""Those of a temperature, of conformal sets and of abstaining."""


@dataclass(frozen=True)
class Prediction:
    """The prediction for one text that has one label.

    Attributes:
        label: The most probable class.
        score: Its probability, 0 to 1, calibrated where the model has a calibration.
        scores: Probability of every class, in label order; they sum to 1.
        abstain: Whether `score` is below what the target accuracy needs; None where there is no target.
        conformal_set: Classes that hold the true one as often as the coverage asked for says; None without calibration.
        typicality: As `Prediction` of `tasks.base` has it.
        atypical: As there.
    """

    label: str
    score: float
    scores: dict[str, float]
    abstain: bool | None = None
    conformal_set: tuple[str, ...] | None = None
    typicality: float | None = None
    atypical: bool | None = None

    def columns(self) -> dict[str, object]:
        """Return `label`, `score`, `abstain` where there is a target, how typical the text is, and the probabilities.

        The label is a number where all are whole numbers.
        """
        label = int(self.label) if are_integers(tuple(self.scores)) else self.label
        doubt = {} if self.abstain is None else {"abstain": self.abstain}
        named = {f"probability_{name}": score for name, score in self.scores.items()}
        return {"label": label, "score": self.score, **doubt, **typicality_columns(self), **named}

    def describe(self) -> str:
        """Return label, confidence and doubt."""
        return f"{self.label} {self.score:.1%}{' abstain' if self.abstain else ''}"

    def cells(self) -> tuple[str, ...]:
        """Return label, confidence, doubt where there is a target, and how typical the text is."""
        doubt = () if self.abstain is None else (f"{'abstain' if self.abstain else '':7}",)
        return (self.label, f"{self.score:6.1%}", *doubt, *typicality_cells(self))

    def is_right(self, truth: Label) -> bool:
        """Tell whether it is the true label."""
        return self.label == truth

    def describe_error(self, truth: Label) -> str:
        """Return nothing."""
        del truth
        return ""


class ClassCalibration(Calibration):
    """`calibration.json` where a text has one class.

    Attributes:
        temperature: Logits are divided by it before activation; above 1 where the model was too sure.
        log_loss_before: Log loss of the calibration rows at temperature 1, in nats.
        log_loss_after: The same at `temperature`.
        coverage: Share of texts whose conformal set is to hold the true label, 0 to 1.
        set_threshold: A label is in a text's conformal set if its probability is at least this.
        curve: The risk-coverage curve, the highest threshold first; at most 1,000 points.
        target_accuracy: What the operating point is chosen for, or None.
        accept_threshold: The operating point: predictions below this confidence abstain; None without a target, above
            1 where none of the rows reaches it.
    """

    temperature: float
    log_loss_before: float
    log_loss_after: float
    coverage: float
    set_threshold: float
    curve: list[RiskPoint]
    target_accuracy: float | None = None
    accept_threshold: float | None = None

    @property
    def asked(self) -> dict[str, float]:
        """The coverage, and the accuracy of accepted predictions where there is a target."""
        target = {} if self.target_accuracy is None else {"accepted_accuracy": self.target_accuracy}
        return {"coverage": self.coverage, **target}


class SingleLabelCalibration(ClassCalibration):
    """`calibration.json` of a single-label task."""

    task: Literal["single_label"] = "single_label"


@dataclass(frozen=True)
class SingleLabel(Task):
    """A text has one of several classes. `y` is int64 of shape (n,); values are probabilities that sum to 1.

    The statistics of a row are 1, whether it is right, its log loss; then, each class by class, whether it was rightly
    predicted, whether it was predicted, and whether it is true.
    """

    name: ClassVar[str] = "single_label"
    problem_type: ClassVar[str] = "single_label_classification"
    metrics: ClassVar[Mapping[str, Metric]] = {
        "accuracy": Metric("accuracy", "share of the texts that get their label", True, "percent"),
        "macro_f1": Metric("F1 (macro)", "the mean of the labels' own F1: rare labels count as much", True, "percent"),
        "mcc": Metric("MCC", "Matthews' correlation of predicted and true labels, -1 to 1; 0 is chance"),
        "log_loss": Metric("log loss", "how little probability the true label gets, in nats", False),
    }
    slice_metrics: ClassVar[tuple[str, ...]] = ("accuracy",)
    calibration_metrics: ClassVar[Mapping[str, Metric]] = CALIBRATION_METRICS
    diff_metrics: ClassVar[Mapping[str, Metric]] = {
        "ece": CALIBRATION_METRICS["ece"],
        "negative_flips": Metric("negative flips", "share of rows that were right and are wrong", False, "percent"),
        "churn": Metric("churn", "share of rows that get another label, right or wrong", False, "percent"),
    }
    parity_metrics: ClassVar[tuple[str, ...]] = ("accuracy",)
    reproduction_tolerances: ClassVar[Mapping[str, float]] = {"accuracy": 0.002, "log_loss": 0.01}
    baselines: ClassVar[Mapping[str, str]] = {MAJORITY: "Majority class", **CLASSIFIERS, **EMBEDDING_CLASSIFIER}
    balanced_metrics: ClassVar[tuple[str, ...]] = ("macro_f1", "mcc")
    calibration_type: ClassVar[type[ClassCalibration]] = SingleLabelCalibration
    truth_column: ClassVar[str] = "true_label"
    wording: ClassVar[Wording] = Wording(
        title="Text classifier",
        activity="Text classification",
        gives="one of {count} classes: {labels}",
        purpose="Sorting texts of the same kind and language as its training data ({source}) into these classes",
        unmeasured="texts of no class at all (they get one all the same)",
        stratum="label",
        calibrates="temperature",
        uncalibrated="Calibration: none; confidence is what the model gives, and how far it holds was not measured.",
        value="test probability",
        loss="loss (nats)",
        scored="it gets {value} of {rows} right",
        more="more",
        less="fewer",
        fixed="{count} rows fixed",
        broken="{count} broken",
        test="exact McNemar test",
        mistakes="Most confident mistakes",
        mistakes_intro="The rows that are wrong with the most confidence after training. Some may be mislabelled.",
        no_mistakes="every test row is right",
        contribution="log-odds",
        changed="another label",
        plain="",
        plain_calibrated="Plain libraries give the same classes, with the scores from before calibration.",
        pipeline_options="",
        gate_example="accuracy>=-0.002,negative_flips<=0.01",
    )

    def __post_init__(self) -> None:
        check_label_names(self.label_names)

    # Labels to arrays

    @classmethod
    def read_labels(cls, cells: Sequence[object], reading: LabelReading) -> LabelColumn:
        return read_names(cells, reading)

    @classmethod
    def from_labels(cls, labels: Sequence[Label], origin: str) -> Self:
        check_not_constant(labels, origin)
        names = sort_names(str(label) for label in labels)
        check_not_unique(names, len(labels), origin)
        return cls(names)

    def encode(self, labels: Sequence[Any]) -> NDArray[np.int64]:
        ids = {name: index for index, name in enumerate(self.label_names)}
        return np.array([ids[label] for label in labels], dtype=np.int64)

    def decode(self, y: NDArray[Any]) -> tuple[str, ...]:
        return tuple(self.label_names[index] for index in y)

    def count(self, y: NDArray[Any]) -> dict[str, int]:
        counts = np.bincount(y, minlength=len(self.label_names))
        return dict(zip(self.label_names, counts.tolist(), strict=True))

    def mark_labels(self, y: NDArray[Any]) -> NDArray[np.bool_]:
        return np.asarray(y[:, np.newaxis] == np.arange(len(self.label_names)))

    def strata(self, y: NDArray[Any]) -> NDArray[np.int64]:
        return np.asarray(y, dtype=np.int64)

    def describe_stratum(self, stratum: int) -> tuple[str, str]:
        return f"The label '{self.label_names[stratum]}'", "every label"

    def describe_label(self, label: Label) -> str:
        return str(label)

    # Training

    def targets(self, y: NDArray[Any], scaler: TargetScaler) -> NDArray[Any]:
        del scaler
        return y

    def loss_weights(self, y: NDArray[Any]) -> NDArray[np.float32]:
        """Weigh each row by rows / (classes * rows of its class), as scikit-learn's `balanced`."""
        counts = np.bincount(y, minlength=len(self.label_names))
        return np.asarray(len(y) / (np.count_nonzero(counts) * counts[y]), dtype=np.float32)

    def validation_metrics(self, y: NDArray[Any], logits: Array, scaler: TargetScaler) -> dict[str, float]:
        """Measure loss, loss at the best temperature, and the primary metric.

        Checkpoints are compared by the loss after the temperature that suits these very rows, as Berta et al. (2025),
        "Rethinking Early Stopping: Refine, Then Calibrate", arXiv:2501.19195, have it: the temperature is fitted later
        anyway, on rows of its own.
        """
        del scaler
        sums = self.row_statistics(y, self.activate(logits)).sum(axis=0)
        return {
            "loss": self.compute_loss(y, logits),
            "calibrated_loss": self.compute_loss(y, logits / self.fit_temperature(y, logits)),
            self.primary: float(self.compute(sums)[self.primary]),
        }

    def compute_loss(self, y: NDArray[Any], logits: Array) -> float:
        """Compute the loss that training minimises, in nats."""
        return float(self.row_losses(y, self.activate(logits)).mean())

    # Prediction

    def read_temperature(self, calibration: Calibration | None) -> float:
        """Return what logits are divided by."""
        return 1.0 if calibration is None else expect(calibration, self.calibration_type).temperature

    def fit_temperature(self, y: NDArray[Any], logits: Array) -> float:
        """Find the temperature with the lowest loss of n rows."""
        return fit_temperature(y, logits)

    def fit_calibration(
        self, y: NDArray[Any], logits: Array, *, coverage: float, target_accuracy: float | None = None
    ) -> ClassCalibration:
        """Fit temperature, conformal sets and operating point."""
        temperature = self.fit_temperature(y, logits)
        raw, values = self.activate(logits), self.activate(np.asarray(logits) / temperature)
        curve = trace_risk(self.row_errors(y, values) == 0, self._confidence(values), points=_STORED_POINTS)
        return self.calibration_type(
            task=self.name,
            rows=len(y),
            temperature=temperature,
            log_loss_before=float(self.row_losses(y, raw).mean()),
            log_loss_after=float(self.row_losses(y, values).mean()),
            coverage=coverage,
            set_threshold=choose_set_threshold(values[np.arange(len(y)), y], coverage),
            curve=curve,
            target_accuracy=target_accuracy,
            accept_threshold=None if target_accuracy is None else choose_accept_threshold(curve, target_accuracy),
        )

    @classmethod
    def check_target_accuracy(cls, target: float | None) -> None:
        if target is not None and not 0 < target < 1:
            raise UserInputError(f"A target accuracy lies between 0 and 1 (0.98, say), got {target:g}.")

    def choose_operating_point(self, calibration: Calibration, target: float) -> Calibration:
        self.check_target_accuracy(target)
        known = expect(calibration, self.calibration_type)
        threshold = choose_accept_threshold(known.curve, target)
        return known.model_copy(update={"target_accuracy": target, "accept_threshold": threshold})

    def activate(self, logits: ArrayLike, calibration: Calibration | None = None) -> Array:
        return softmax(np.asarray(logits, dtype=np.float64) / self.read_temperature(calibration))

    def deactivate(self, values: Array) -> Array:
        return np.asarray(np.log(np.maximum(values, SMALLEST)))

    def doubt(self, values: Array) -> Array:
        return entropies(values)

    def logit_losses(self, y: NDArray[Any], logits: Array) -> Array:
        shifted = logits - logits.max(axis=1, keepdims=True)
        return np.asarray(np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(y)), y])

    def predict(self, values: Array, calibration: Calibration | None = None) -> Prediction:
        best, abstain, inside = int(self.main_output(values[np.newaxis])[0]), None, None
        score = float(values[best])
        if calibration is not None:
            known = expect(calibration, self.calibration_type)
            held = self._build_sets(values[np.newaxis], known.set_threshold)[0]
            inside = tuple(name for name, is_in in zip(self.label_names, held, strict=True) if is_in)
            if known.accept_threshold is not None:
                abstain = score < known.accept_threshold
        scores = dict(zip(self.label_names, values.tolist(), strict=True))
        return Prediction(self.label_names[best], score, scores, abstain=abstain, conformal_set=inside)

    def prediction_columns(self, values: Array) -> dict[str, list[Any]]:
        return {"label": list(self.decode(self.main_output(values)))}

    def check_values(self, values: Array) -> None:
        check_probabilities(values, len(values), len(self.label_names))

    def contribution(self, values: Array, output: int) -> Array:
        """Return the log-odds of a class against all others, with probabilities of at least 1e-12."""
        return log_odds(values[:, output], np.delete(values, output, axis=1).sum(axis=1))

    # Evaluation

    def row_losses(self, y: NDArray[Any], values: Array) -> Array:
        """Return the log loss of each row in nats, shape (n,)."""
        return to_losses(values[np.arange(len(y)), y])

    def suspect_labels(self, y: NDArray[Any], values: Array) -> NDArray[np.bool_]:
        return suspect_classes(y, values)

    def support_labels(self, y: NDArray[Any], values: Array) -> Array:
        """Return the probability of each row's label."""
        return np.asarray(values[np.arange(len(y)), y])

    def suggest_labels(self, values: Array) -> tuple[Label, ...]:
        return self.decode(self.main_output(values))

    def row_statistics(self, y: NDArray[Any], values: Array) -> Array:
        ids = check_ids(y, len(self.label_names))
        given = check_probabilities(values, len(ids), len(self.label_names))
        predicted, true = (np.eye(len(self.label_names))[part] for part in (self.main_output(given), ids))
        hits = predicted * true
        return np.column_stack(
            [np.ones(len(ids)), hits.sum(axis=1), self.row_losses(ids, given), hits, predicted, true]
        )

    def compute(self, sums: Array) -> dict[str, Array]:
        rows, right, loss = np.moveaxis(sums[..., :3], -1, 0)
        hits, predicted, true = np.split(sums[..., 3:], 3, axis=-1)
        return {
            "accuracy": np.asarray(right / rows),
            "macro_f1": macro_f1(hits, predicted, true),
            "mcc": mcc(hits, predicted, true),
            "log_loss": np.asarray(loss / rows),
        }

    def edge_statistics(self, y: NDArray[Any], values: Array) -> Array:
        """Return a row with a wrong class and the loss of the surest row if it were wrong, and a right row.

        Both are spread over the classes.
        """
        predicted, chances = np.eye(len(self.label_names))[self.main_output(values)], self.draw_wrong(y, values)
        losses = to_losses(values)
        wrong_loss, right_loss = (losses * chances).sum(axis=1).max(), (losses * predicted).sum(axis=1).mean()
        occurs = self._find_occurring(y, values)
        spread = occurs / occurs.sum()  # evenly, for the sake of rare classes
        wrong = np.concatenate([[1, 0, wrong_loss], 0 * spread, spread, spread])
        return np.stack([wrong, np.concatenate([[1, 1, right_loss], spread, spread, spread])])

    def draw_wrong(self, y: NDArray[Any], values: Array) -> Array:
        """Return the chance of each class to be that of a row whose prediction is wrong, shape (n, labels).

        Classes that neither occur nor are predicted have none: they are left out of metrics, too.
        """
        others = self._find_occurring(y, values) & (np.eye(len(self.label_names))[self.main_output(values)] == 0)
        return np.asarray(others / others.sum(axis=1, keepdims=True))

    def _find_occurring(self, y: NDArray[Any], values: Array) -> NDArray[np.bool_]:
        """Return which classes occur or are predicted, shape (labels,); all where it is a single one."""
        places = np.concatenate([y, self.main_output(values)])
        occurs = np.bincount(places, minlength=len(self.label_names)) > 0
        return occurs if occurs.sum() > 1 else np.full(len(occurs), fill_value=True)

    def proportions(self, sums: Array) -> dict[str, tuple[Array, Array]]:
        return {"accuracy": (sums[..., 1], sums[..., 0])}

    def per_class(self, sums: Array, level: float, *, grouped: bool) -> list[ClassScores]:
        return score_classes(self.label_names, sums[:, 3:], level, grouped=grouped)

    def confusion_matrix(self, y: NDArray[Any], values: Array) -> list[list[int]]:
        matrix: list[list[int]] = confusion_matrix(y, self.main_output(values), len(self.label_names)).tolist()
        return matrix

    def row_errors(self, y: NDArray[Any], values: Array) -> Array:
        """Return 1 for a wrong row and 0 for a right one."""
        return np.asarray(self.main_output(values) != y, dtype=np.float64)

    def slice_statistics(self, statistics: Array) -> Array:
        """Return 1 and whether a row is right."""
        return statistics[..., :2]

    def compute_slices(self, sums: Array) -> dict[str, Array]:
        return {"accuracy": np.asarray(sums[..., 1] / sums[..., 0])}

    def mistake_severity(self, y: NDArray[Any], values: Array) -> Array:
        """Return the confidence in a wrong class."""
        return np.where(self.row_errors(y, values) > 0, self._confidence(values), 0.0)

    def calibration_scores(
        self, y: NDArray[Any], values: Array, calibration: Calibration, resampling: Resampling
    ) -> CalibrationScores:
        calibration = expect(calibration, self.calibration_type)
        right, confidence = self.row_errors(y, values) == 0, self._confidence(values)
        uncalibrated = self._undo_temperature(values, calibration.temperature)
        calibrated, raw = self._score_confidence(y, [values, uncalibrated], resampling)
        sets = self._build_sets(values, calibration.set_threshold)
        metrics = {
            **calibrated,
            "temperature": exactly(calibration.temperature),
            "coverage": share_of_rows(sets[np.arange(len(y)), y], resampling),
        }
        if calibration.accept_threshold is not None:
            accepted = confidence >= calibration.accept_threshold
            metrics["accepted_share"] = share_of_rows(accepted, resampling)
            metrics["accepted_accuracy"] = share_of_rows(right[accepted], resampling.select(accepted))
            is_reached = calibration.accept_threshold < NEVER
            metrics["accept_threshold"] = exactly(calibration.accept_threshold if is_reached else float("nan"))
        return CalibrationScores(
            rows=calibration.rows,
            metrics=metrics,
            raw=raw,
            asked=calibration.asked,
            reliability=list_reliability(right, confidence, resampling),
            reliability_raw=list_reliability(
                self.row_errors(y, uncalibrated) == 0, self._confidence(uncalibrated), resampling
            ),
            risk_coverage=trace_risk(right, confidence, points=_SHOWN_POINTS),
            set_sizes=np.bincount(sets.sum(axis=1), minlength=sets.shape[1] + 1)[1:].tolist(),
        )

    def describe_calibration(self, scores: CalibrationScores) -> list[str]:
        metrics, asked = self.calibration_metrics, {name: f"{100 * one:g} %" for name, one in scores.asked.items()}
        written = {name: metrics[name].write(estimate) for name, estimate in scores.metrics.items()}
        rows = sum(scores.set_sizes)
        size = sum(count * labels for labels, count in enumerate(scores.set_sizes, start=1)) / rows
        sentences = [
            describe_temperature(scores, metrics["ece"]),
            f"Conformal sets: meant to hold the true label of {asked['coverage']} of the texts, "
            f"they hold it for {written['coverage']}; they have {size:.2f} labels on average, and "
            f"{100 * scores.set_sizes[0] / rows:.1f} % of them a single one.",
        ]
        if "accept_threshold" not in written:
            return sentences
        target = asked["accepted_accuracy"]
        if np.isnan(scores.metrics["accept_threshold"].value):
            never = (
                f"Abstaining: no confidence is high enough for an accuracy of {target}, so every prediction abstains."
            )
            return [*sentences, never]
        right = (
            "there are none"
            if scores.metrics["accepted_share"].value == 0
            else f"{written['accepted_accuracy']} are right"
        )
        return [
            *sentences,
            f"Abstaining: for an accuracy of {target}, predictions with a confidence of less than "
            f"{written['accept_threshold']} abstain; {written['accepted_share']} are accepted, and of those {right}.",
        ]

    def measure_side(
        self, y: NDArray[Any], values: Array, calibration: Calibration | None, resampling: Resampling
    ) -> dict[str, Estimate]:
        """Measure the calibration error, with or without a calibration."""
        del calibration
        right, confidence = self.row_errors(y, values) == 0, self._confidence(values)
        pair = right[:, np.newaxis], confidence[:, np.newaxis]
        (error,) = estimate_calibration_errors([pair], resampling)
        return {"ece": error}

    def measure_diff(
        self,
        y: NDArray[Any],
        before: Array,
        after: Array,
        calibrations: tuple[Calibration | None, Calibration | None],
        resampling: Resampling,
    ) -> dict[str, Estimate]:
        """Measure flips, churn, and the difference of calibration errors.

        The latter has no interval. Chance makes the error of nearly every resample larger, and the more so the better a
        model is calibrated; in a difference that does not cancel, and bootstrap intervals, percentile or basic, hold
        the true difference far less often than they say.
        """
        old, new = (
            expected_calibration_error(self.row_errors(y, values) == 0, self._confidence(values))
            for values in (before, after)
        )
        return {
            "ece": exactly(new - old),
            **super().measure_diff(y, before, after, calibrations, resampling),
        }

    def hub_results(self, scores: Scores, calibration: CalibrationScores | None) -> list[dict[str, Any]]:
        metrics = scores.metrics
        results: list[dict[str, Any]] = [
            {"type": "accuracy", "value": metrics["accuracy"].value, "name": "Accuracy"},
            {"type": "f1", "value": metrics["macro_f1"].value, "name": "F1 (macro)", "args": {"average": "macro"}},
        ]
        if calibration is not None:
            error = calibration.metrics["ece"].value
            results.append({"type": "ece", "value": error, "name": "Expected calibration error"})
        return results

    def _confidence(self, values: Array) -> Array:
        """Return the probability of the predicted class, shape (n,)."""
        return np.asarray(values[np.arange(len(values)), self.main_output(values)])

    def _build_sets(self, values: Array, set_threshold: float) -> NDArray[np.bool_]:
        """Return the conformal sets, shape (n, labels): classes that are probable enough, and always the prediction."""
        sets = values >= set_threshold
        sets[np.arange(len(values)), self.main_output(values)] = True
        return sets

    def _undo_temperature(self, values: Array, temperature: float) -> Array:
        return undo_temperature(values, temperature)

    def _score_confidence(
        self, y: NDArray[Any], models: Sequence[Array], resampling: Resampling
    ) -> list[dict[str, Estimate]]:
        """Measure calibration errors and Brier scores of models on the same rows."""
        decisions = [(self.row_errors(y, values) == 0, self._confidence(values)) for values in models]
        squares = [(values**2).sum(axis=1) - 2 * values[np.arange(len(y)), y] + 1 for values in models]
        pairs = [(right[:, np.newaxis], confidence[:, np.newaxis]) for right, confidence in decisions]
        estimates = estimate_calibration_errors(pairs, resampling, *squares)
        return [
            {
                "ece": error,
                "adaptive_ece": exactly(expected_calibration_error(*decided, adaptive=True)),
                "brier": brier,
                **{name: exactly(value) for name, value in _split_brier(y, values).items()},
            }
            for values, decided, error, brier in zip(
                models, decisions, estimates[: len(models)], estimates[len(models) :], strict=True
            )
        ]


def describe_temperature(scores: CalibrationScores, ece: Metric, *, of: str = "") -> str:
    """Say what temperature scaling did to the calibration error `of` what predictions consist of."""
    before, after = ece.write_value(scores.raw["ece"].value), ece.write(scores.metrics["ece"])
    return (
        f"Calibration: expected calibration error{of} {before} before and {after} after temperature scaling "
        f"(T = {scores.metrics['temperature'].value:.3f}), fitted on {scores.rows:,} held-out rows."
    )


def log_odds(probabilities: Array, others: Array) -> Array:
    """Return log-odds in nats, with probabilities of at least 1e-12, so that they stay within ±27.6."""
    return np.asarray(np.log(np.maximum(probabilities, SMALLEST)) - np.log(np.maximum(others, SMALLEST)))


def _split_brier(y: NDArray[Any], values: Array) -> dict[str, float]:
    """Split the Brier score, class by class in bins of equally many rows, summed over the classes.

    Reliability - resolution + uncertainty is the score, but for the spread inside the bins. Source: Murphy (1973), "A
    New Vector Partition of the Probability Score", Journal of Applied Meteorology 12.
    """
    total = np.zeros(3)
    for index in range(values.shape[1]):
        bins, happened = bin_adaptively(values[:, index]), y == index
        rows = np.bincount(bins)
        filled = rows > 0
        observed = np.bincount(bins, weights=happened)[filled] / rows[filled]
        forecast = np.bincount(bins, weights=values[:, index])[filled] / rows[filled]
        weight, base = rows[filled] / len(values), happened.mean()
        total += [
            (weight * (forecast - observed) ** 2).sum(),
            (weight * (observed - base) ** 2).sum(),
            base * (1 - base),
        ]
    return dict(zip(("brier_reliability", "brier_resolution", "brier_uncertainty"), total.tolist(), strict=True))
