"""A number a text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, ClassVar, Final, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lorafit.errors import ConfigError, DataError, UserInputError
from lorafit.tasks.atypical import typicality_cells, typicality_columns
from lorafit.tasks.base import (
    Array,
    Metric,
    TargetScaler,
    Task,
    Wording,
    exactly,
    expect,
    mark_positions,
    measure_spread,
    share_of_rows,
)
from lorafit.tasks.baselines import EMBEDDING_REGRESSOR, MAJORITY, REGRESSORS, fit_numbers
from lorafit.tasks.format import write_label_number, write_number
from lorafit.tasks.label_errors import score_deviations, suspect_numbers
from lorafit.tasks.label_numbers import read_numbers
from lorafit.tasks.labels import Label, LabelColumn, LabelReading, check_not_constant, join_small_strata
from lorafit.tasks.records import Calibration, CalibrationScores, Estimate, Resampling, Scores
from lorafit.tasks.selective import conformal_rank
from lorafit.tasks.statistics import bootstrap_mean
from lorafit.tasks.word_model import WordModel

_LARGEST: Final = 1e100
"""Of larger numbers, sums of squares would not be finite."""

_NO_SPREAD: Final = 1e-12
"""Share of a sum of squares below which what is left of it about the mean is a rounding error."""

_PARTS_OF_RANGE: Final = 5

_ERROR: Final = 6
"""Column of the absolute error in the statistics of a row."""

_COVERAGE: Final = Metric("coverage", "share of rows whose interval holds the true number", True, "percent")
_HALF_WIDTH: Final = Metric("half-width", "how far intervals reach to each side of the number", False, "unit")


@dataclass(frozen=True)
class RegressionPrediction:
    """The prediction for one text that is a number.

    Attributes:
        value: The number, in the unit of the training rows.
        low: Lower end of the interval that holds the true number as often as the coverage asked for says; None without
            a calibration.
        high: Its upper end, or None.
        typicality: As `Prediction` of `tasks.base` has it.
        atypical: As there.
    """

    value: float
    low: float | None = None
    high: float | None = None
    typicality: float | None = None
    atypical: bool | None = None

    def columns(self) -> dict[str, object]:
        """Return `value`, `low` and `high` where there is a calibration, and how typical the text is."""
        ends = {} if self.low is None else {"low": self.low, "high": self.high}
        return {"value": self.value, **ends, **typicality_columns(self)}

    def describe(self) -> str:
        """Return the number with its interval."""
        if self.low is None or self.high is None:
            return write_number(self.value)
        return f"{write_number(self.value)}  [{write_number(self.low)}, {write_number(self.high)}]"

    def cells(self) -> tuple[str, ...]:
        """Return the number with its interval in one cell, and how typical the text is."""
        return (self.describe(), *typicality_cells(self))

    def is_right(self, truth: Label) -> None:
        """Return None: a number is off by more or by less."""
        del truth

    def describe_error(self, truth: Label) -> str:
        """Return how far off the number is, and whether its interval holds the true one."""
        true = float(str(truth))
        error = self.value - true
        off = f"{write_number(abs(error))} too {'high' if error > 0 else 'low'}" if error else "exactly right"
        if self.low is None or self.high is None:
            return off
        return f"{off}, {'inside' if self.low <= true <= self.high else 'outside'} the interval"


class RegressionCalibration(Calibration):
    """`calibration.json` of a regression: split-conformal intervals.

    Attributes:
        coverage: Share of texts whose interval is to hold the true number, 0 to 1.
        half_width: Intervals reach from the predicted number minus this to it plus this.
    """

    task: Literal["regression"] = "regression"
    coverage: float
    half_width: float

    @property
    def asked(self) -> dict[str, float]:
        """The coverage."""
        return {"coverage": self.coverage}


@dataclass(frozen=True)
class Regression(Task):
    """A text has a number. `y` is float64 of shape (n,); values are the predicted numbers, shape (n, 1).

    The statistics of a row are 1, both numbers, their squares and product, the error and its square. Numbers are taken
    from the median of the true ones, so that variances by sums of squares lose no digits.
    """

    name: ClassVar[str] = "regression"
    problem_type: ClassVar[str] = "regression"
    metrics: ClassVar[Mapping[str, Metric]] = {
        "mae": Metric("MAE", "how far off a number is on average, in its unit", False, "unit"),
        "rmse": Metric("RMSE", "the same with large errors counted more: the root of the mean square", False, "unit"),
        "r2": Metric("R²", "explained share of the numbers' variance; 0 is what their mean would give, 1 the best"),
        "pearson": Metric("Pearson's r", "how far predicted and true numbers lie on a line, -1 to 1"),
    }
    slice_metrics: ClassVar[tuple[str, ...]] = ("mae",)
    calibration_metrics: ClassVar[Mapping[str, Metric]] = {"coverage": _COVERAGE, "half_width": _HALF_WIDTH}
    diff_metrics: ClassVar[Mapping[str, Metric]] = {"coverage": _COVERAGE, "half_width": _HALF_WIDTH}
    parity_metrics: ClassVar[tuple[str, ...]] = ("r2",)
    reproduction_tolerances: ClassVar[Mapping[str, float]] = {"mae": 0.01, "r2": 0.01}
    baselines: ClassVar[Mapping[str, str]] = {MAJORITY: "Median", **REGRESSORS, **EMBEDDING_REGRESSOR}
    calibration_type: ClassVar[type[Calibration]] = RegressionCalibration
    truth_column: ClassVar[str] = "true_value"
    wording: ClassVar[Wording] = Wording(
        title="Text regression model",
        activity="Text regression",
        gives="a number, in the unit of those it was trained on",
        purpose="Estimating this number for texts of the same kind and language as its training data ({source})",
        unmeasured="numbers beyond the range of the training rows",
        stratum="fifth of their range",
        calibrates="intervals",
        uncalibrated="Intervals: none; how far off a single number may be was not calibrated.",
        value="predicted number",
        loss="loss (squared error)",
        loss_note="Numbers are standardised for it.",
        scored="on {rows} it is off by {value} on average",
        more="more",
        less="less",
        fixed="{count} rows nearer to their number",
        broken="{count} farther",
        test="exact sign test",
        mistakes="Largest errors",
        mistakes_intro="The rows whose number is farthest off after training. Some may have a wrong number in the "
        "data.",
        no_mistakes="every number is exactly right",
        contribution="the number",
        contribution_title="What a word adds to the number",
        raises="raises",
        lowers="lowers",
        speak_for="raise the number",
        explained="the number",
        changed="another number",
        plain="Plain libraries give the number as `score`.",
        plain_calibrated="Plain libraries give the number as `score`, without the interval around it.",
        pipeline_options=', function_to_apply="none"',
        gate_example="mae<=0.02,slowdown<=1.2",
    )

    # Labels to arrays

    @classmethod
    def read_labels(cls, cells: Sequence[object], reading: LabelReading) -> LabelColumn:
        return read_numbers(cells, reading)

    @classmethod
    def from_labels(cls, labels: Sequence[Label], origin: str) -> Self:
        """Build the task; its one label is called `value`."""
        check_not_constant(labels, origin)
        return cls(("value",))

    def reorder(self, published: Sequence[str]) -> tuple[Self, list[str]]:
        """Leave the task as it is: published class names are not for numbers."""
        del published
        return self, []

    def unknown_names(self, label: Label) -> set[str]:
        del label
        return set()

    def encode(self, labels: Sequence[Any]) -> NDArray[np.float64]:
        return np.asarray(labels, dtype=np.float64)

    def decode(self, y: NDArray[Any]) -> tuple[Label, ...]:
        return tuple(y.tolist())

    def count(self, y: NDArray[Any]) -> dict[str, int]:
        del y
        return {}

    def describe_counts(self, y: NDArray[Any]) -> str:
        low, median, high = (write_label_number(float(number)) for number in np.quantile(y, [0, 0.5, 1]))
        return f"{len(np.unique(y)):,} different numbers from {low} to {high}, median {median}"

    def mark_labels(self, y: NDArray[Any]) -> NDArray[np.bool_]:
        return np.zeros((len(y), 0), dtype=np.bool_)

    def strata(self, y: NDArray[Any]) -> NDArray[np.int64]:
        """Return the fifth of the range by rank that each number is in; small fifths are joined to the largest."""
        ends = np.quantile(y, np.arange(1, _PARTS_OF_RANGE) / _PARTS_OF_RANGE)
        return join_small_strata(np.searchsorted(ends, y))

    def describe_stratum(self, stratum: int) -> tuple[str, str]:
        del stratum
        return "A fifth of the numbers' range", "each fifth"

    def check_trainable(self, y: NDArray[Any], origin: str) -> None:
        if np.ptp(y) == 0:
            raise DataError(
                f"{origin}: all {len(y):,} rows to train on have the same number, {y[0]:g}. A regression needs rows of "
                "different numbers."
            )

    def describe_label(self, label: Label) -> str:
        return write_label_number(float(label)) if not isinstance(label, tuple) else ""

    # Training

    def fit_scaler(self, y: NDArray[Any], *, has_bias: bool) -> TargetScaler:
        """Fit mean and standard deviation; without a bias in the head the root mean square alone."""
        if not has_bias:
            return TargetScaler(scale=float(np.sqrt((y**2).mean())))
        return TargetScaler(mean=float(y.mean()), scale=float(y.std()) or 1.0)

    def targets(self, y: NDArray[Any], scaler: TargetScaler) -> NDArray[Any]:
        return scaler.apply(y.astype(np.float64)).astype(np.float32)

    @classmethod
    def check_balancing(cls, settings: Sequence[str]) -> None:
        if settings:
            raise ConfigError(
                f"{' and '.join(settings)} cannot be used with --task regression: numbers have no labels to balance. "
                "Leave it out, or train with --task ordinal where the numbers are a few whole ones."
            )

    def pair_marks(self, y: NDArray[Any]) -> NDArray[np.float32]:
        """Mark ranks, since a few numbers far from the others would leave these no difference."""
        ordered = np.sort(y)
        return mark_positions(np.searchsorted(ordered, y, "left") + np.searchsorted(ordered, y, "right"))

    def validation_metrics(self, y: NDArray[Any], logits: Array, scaler: TargetScaler) -> dict[str, float]:
        """Measure the squared error of standardised numbers, and MAE in their own unit."""
        errors = logits[:, 0] - scaler.apply(y)
        loss, error = float((errors**2).mean()), float(np.abs(errors).mean() * scaler.scale)
        return {"loss": loss, "calibrated_loss": loss, self.primary: error}

    def fit_words(self, name: str, texts: Sequence[str], y: NDArray[Any]) -> WordModel:
        del name
        return fit_numbers(texts, y)

    def constant_values(self, y: NDArray[Any]) -> Array:
        """Return the median, which no other constant beats by MAE."""
        return np.array([np.median(y)], dtype=np.float64)

    def describe_constant(self, scores: Scores) -> str:
        del scores
        return "always answering the median of the training rows"

    # Prediction

    def fit_calibration(
        self, y: NDArray[Any], logits: Array, *, coverage: float, target_accuracy: float | None = None
    ) -> RegressionCalibration:
        """Choose how far intervals around predictions reach, so that they hold the true number often enough.

        It is the error of rank ceil((n + 1) * coverage) among the calibration rows, the smallest first. Over
        calibration and new rows drawn alike, the true number is then in the interval with a probability of at least
        `coverage`. That holds on average over all rows, not for every kind of text. With fewer than coverage / (1 -
        coverage) rows there is no such rank; the largest error stands in, which promises n / (n + 1) only. Sources:
        Vovk et al. (2005), "Algorithmic Learning in a Random World"; Lei et al. (2018), "Distribution-Free Predictive
        Inference for Regression", JASA 113, arXiv:1604.04173.
        """
        del target_accuracy
        errors = np.sort(self.row_errors(y, logits))
        rank = conformal_rank(len(errors), coverage)
        half_width = float(errors[min(rank, len(errors)) - 1])
        return RegressionCalibration(rows=len(y), coverage=coverage, half_width=half_width)

    @classmethod
    def fewest_calibration_rows(cls, coverage: float) -> int:
        return ceil(coverage / (1 - coverage) - 1e-9)

    def activate(self, logits: ArrayLike, calibration: Calibration | None = None) -> Array:
        """Return the numbers, which are the logits."""
        del calibration
        return np.asarray(logits, dtype=np.float64)

    def deactivate(self, values: Array) -> Array:
        return values

    def doubt(self, values: Array) -> Array:
        return np.zeros(len(values))

    def logit_losses(self, y: NDArray[Any], logits: Array) -> Array:
        return np.asarray((logits[:, 0] - y) ** 2)

    def pool_logits(self, logits: Array, weights: Array) -> Array:
        """Return the weighted mean of the numbers."""
        return super().pool_logits(logits, weights / max(float(weights.sum()), float(np.finfo(np.float64).tiny)))

    def predict(self, values: Array, calibration: Calibration | None = None) -> RegressionPrediction:
        value = float(values[0])
        if calibration is None:
            return RegressionPrediction(value)
        reach = expect(calibration, RegressionCalibration).half_width
        return RegressionPrediction(value, value - reach, value + reach)

    def require_probabilities(self) -> None:
        raise UserInputError("This model gives each text a number, which has no probability. predict gives the number.")

    def value_columns(self) -> list[str]:
        return ["value"]

    def check_values(self, values: Array) -> None:
        _check_size("Predictions", values[:, 0])

    def same_prediction(self, values: Array, others: Array) -> NDArray[np.bool_] | None:
        """Return None: numbers hardly ever are the same."""
        del values, others
        return None

    def logit_scale(self, logits: Array, *, least: float) -> float:
        """Return how far the numbers lie from their mean, or a thousandth of the largest if that is more."""
        del least
        return max(float(np.abs(logits - logits.mean()).max()), 1e-3 * float(np.abs(logits).max()))

    def describe_value(self, label: str, value: float) -> str:
        """Write the number."""
        del label
        return write_number(value)

    def contribution(self, values: Array, output: int) -> Array:
        """Return the number, in its unit."""
        return values[:, output]

    def contribution_columns(self, contribution: float) -> dict[str, str]:
        """Write by how much a word changes the number."""
        return {"by": write_number(contribution, sign=True)}

    def write_drop(self, drop: float) -> str:
        """Write by how much the number falls or rises, in its unit."""
        return write_number(abs(drop))

    # Evaluation

    def suspect_labels(self, y: NDArray[Any], values: Array) -> NDArray[np.bool_]:
        return suspect_numbers(values[:, 0] - y)

    def support_labels(self, y: NDArray[Any], values: Array) -> Array:
        """Return 1 where the error is the median of all, falling towards 0 with the distance from it."""
        return np.asarray(np.exp(-score_deviations(values[:, 0] - y)))

    def suggest_labels(self, values: Array) -> tuple[Label, ...]:
        return tuple(float(f"{number:.4g}") for number in values[:, 0])

    def row_statistics(self, y: NDArray[Any], values: Array) -> Array:
        true, given = np.asarray(y, dtype=np.float64), np.asarray(values, dtype=np.float64)
        if true.size == 0:
            raise ValueError("Metrics need at least one row, got none.")
        if true.ndim != 1 or given.shape != (len(true), 1):
            raise ValueError(
                f"Numbers must have the shape (n,) and predictions (n, 1), got {true.shape}, {given.shape}."
            )
        predicted = given[:, 0]
        _check_size("Labels", true)
        _check_size("Predictions", predicted)
        error = np.abs(predicted - true)
        label, value = (numbers - np.median(numbers) for numbers in (true, predicted))
        ones = np.ones(len(true))
        return np.stack([ones, label, value, label**2, value**2, label * value, error, error**2], axis=1)

    def edge_statistics(self, y: NDArray[Any], values: Array) -> Array:
        """Return the row with the largest error, and the one with the smallest."""
        errors = self.row_errors(y, values)
        return self.row_statistics(y, values)[[errors.argmax(), errors.argmin()]]

    def pair_edges(self, edges: Sequence[Array], statistics: Sequence[Array], before: int) -> list[Array]:
        """Return the row whose error changes most, and the same row with the change the other way round."""
        del edges
        row = np.ptp(np.stack([part[:, _ERROR] for part in statistics]), axis=0).argmax()
        first, last = statistics[0][row], statistics[-1][row]
        return [np.stack([part[row], last if place < before else first]) for place, part in enumerate(statistics)]

    def compute(self, sums: Array) -> dict[str, Array]:
        """Compute the metrics.

        Where the true numbers do not differ, R² is 1 for a model that predicts them exactly and otherwise 0. Where the
        true or the predicted ones do not differ, Pearson's r is 0. Both hold for resamples, too.
        """
        rows, label, value, label_squared, value_squared, product, error, error_squared = np.moveaxis(sums, -1, 0)
        label_spread, value_spread = _spread(label, label_squared, rows), _spread(value, value_squared, rows)
        together = np.sqrt(label_spread) * np.sqrt(value_spread)
        correlation = np.divide(
            product - label * value / rows, together, out=np.zeros_like(together), where=together > 0
        )
        left = np.divide(error_squared, label_spread, out=np.ones_like(label_spread), where=label_spread > 0)
        return {
            "mae": np.asarray(error / rows),
            "rmse": np.sqrt(error_squared / rows),
            "r2": np.where(error_squared == 0, 1.0, 1 - left),
            "pearson": np.clip(correlation, -1, 1),
        }

    def row_errors(self, y: NDArray[Any], values: Array) -> Array:
        """Return how far off each number is."""
        return np.asarray(np.abs(values[:, 0] - y))

    def slice_statistics(self, statistics: Array) -> Array:
        """Return 1 and the error."""
        return statistics[..., [0, 6]]

    def compute_slices(self, sums: Array) -> dict[str, Array]:
        return {"mae": np.asarray(sums[..., 1] / sums[..., 0])}

    def mistake_severity(self, y: NDArray[Any], values: Array) -> Array:
        """Return how far off each number is."""
        return self.row_errors(y, values)

    def calibration_scores(
        self, y: NDArray[Any], values: Array, calibration: Calibration, resampling: Resampling
    ) -> CalibrationScores:
        """Measure how often intervals hold the true number, their ends included."""
        known = expect(calibration, RegressionCalibration)
        return CalibrationScores(
            rows=known.rows,
            metrics={
                "coverage": share_of_rows(self.row_errors(y, values) <= known.half_width, resampling),
                "half_width": exactly(known.half_width),
            },
            asked=known.asked,
        )

    def describe_calibration(self, scores: CalibrationScores) -> list[str]:
        return [
            f"Intervals: meant to hold the true number of {100 * scores.asked['coverage']:g} % of the texts, "
            f"they hold it for {_COVERAGE.write(scores.metrics['coverage'])}; they reach "
            f"{_HALF_WIDTH.write(scores.metrics['half_width'])} to each side of the prediction. Their width comes from "
            f"{scores.rows:,} held-out rows."
        ]

    def measure_diff(
        self,
        y: NDArray[Any],
        before: Array,
        after: Array,
        calibrations: tuple[Calibration | None, Calibration | None],
        resampling: Resampling,
    ) -> dict[str, Estimate]:
        """Measure how coverage and half-width of the intervals differ; nothing unless both models have intervals."""
        old, new = calibrations
        if not isinstance(old, RegressionCalibration) or not isinstance(new, RegressionCalibration):
            return {}
        held = (self.row_errors(y, values) <= one.half_width for values, one in ((after, new), (before, old)))
        is_held, was_held = (part.astype(np.float64) for part in held)
        return {
            "coverage": bootstrap_mean(is_held - was_held, resampling, largest=1.0),
            "half_width": exactly(new.half_width - old.half_width),
        }

    def scale_tolerances(
        self, tolerances: Mapping[str, float], y: NDArray[Any], metrics: Mapping[str, float]
    ) -> dict[str, float]:
        """Scale that of MAE, a share of the spread of the true numbers."""
        return {**tolerances, "mae": tolerances["mae"] * measure_spread(y, metrics["mae"])}

    def hub_results(self, scores: Scores, calibration: CalibrationScores | None) -> list[dict[str, Any]]:
        del calibration
        metrics = {name: estimate.value for name, estimate in scores.metrics.items()}
        return [
            {"type": "mae", "value": metrics["mae"], "name": "Mean absolute error"},
            {"type": "mse", "value": metrics["rmse"] ** 2, "name": "Mean squared error"},
            {"type": "r_squared", "value": metrics["r2"], "name": "R²"},
            {"type": "pearsonr", "value": metrics["pearson"], "name": "Pearson's r"},
        ]


def _check_size(name: str, numbers: Array) -> None:
    wrong = np.flatnonzero(~(np.abs(numbers) <= _LARGEST))
    if wrong.size:
        raise ValueError(
            f"{name} must be finite numbers of at most {_LARGEST:g} in size, got {numbers[wrong[0]]} in row "
            f"{wrong[0] + 1} ({wrong.size} such rows)."
        )


def _spread(total: Array, squares: Array, rows: Array) -> Array:
    """Return the sum of squares about the mean, exactly 0 where numbers do not differ."""
    about_mean = squares - total**2 / rows
    return np.asarray(np.where(about_mean > _NO_SPREAD * squares, about_mean, 0.0))
