"""One of several scores in order a text, such as 1 to 5 stars."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lorafit.errors import DataError
from lorafit.tasks.base import Array, Metric, TargetScaler, Wording, mark_positions, measure_spread
from lorafit.tasks.baselines import MAJORITY
from lorafit.tasks.calibration import fit_binary_temperature
from lorafit.tasks.label_names import read_names
from lorafit.tasks.labels import LabelColumn, LabelReading, list_labels, sort_names
from lorafit.tasks.metrics import binary_loss, binary_losses, ratio, sigmoid
from lorafit.tasks.records import Calibration, CalibrationScores, ClassScores, Scores
from lorafit.tasks.single_label import ClassCalibration, SingleLabel, log_odds

_WHOLE: Final = re.compile(r"(-?\d{1,15})(?:\.0*)?")
"""A whole number as text; tables with gaps write 3 as 3.0."""


class OrdinalCalibration(ClassCalibration):
    """`calibration.json` of an ordinal task."""

    task: Literal["ordinal"] = "ordinal"


@dataclass(frozen=True)
class Ordinal(SingleLabel):
    """A text has one of several whole-number scores. Values are the probabilities of the scores.

    The model has a cumulative logit for every score but the lowest: whether the text has at least that one (Frank and
    Hall 2001, "A Simple Approach to Ordinal Classification"). Where two contradict each other, the lower counts. The
    prediction is the median, which has the least expected absolute error.

    The statistics of a row are its absolute error, its squared error and whether it is within one; then those of
    `SingleLabel`.
    """

    name: ClassVar[str] = "ordinal"
    problem_type: ClassVar[str] = "multi_label_classification"
    metrics: ClassVar[Mapping[str, Metric]] = {
        "mae": Metric("MAE", "how far off a score is on average", False),
        "qwk": Metric("weighted kappa", "quadratic weighted kappa: agreement beyond chance, -1 to 1"),
        "within_one": Metric("within one", "share of the texts whose score is off by at most one", True, "percent"),
        "accuracy": Metric("accuracy", "share of the texts that get exactly their score", True, "percent"),
        "log_loss": SingleLabel.metrics["log_loss"],
    }
    slice_metrics: ClassVar[tuple[str, ...]] = ("mae", "accuracy")
    loss_column: ClassVar[int] = 5
    baselines: ClassVar[Mapping[str, str]] = {**SingleLabel.baselines, MAJORITY: "Median score"}
    balanced_metrics: ClassVar[tuple[str, ...]] = ("qwk",)
    reproduction_tolerances: ClassVar[Mapping[str, float]] = {"mae": 0.01, "log_loss": 0.01}
    calibration_type: ClassVar[type[ClassCalibration]] = OrdinalCalibration
    wording: ClassVar[Wording] = Wording(
        title="Text rating model",
        activity="Text rating",
        gives="one of {count} scores in order: {labels}",
        purpose="Scoring texts of the same kind and language as its training data ({source})",
        unmeasured="texts that no score fits (they get one all the same)",
        stratum="score",
        calibrates="temperature",
        uncalibrated=SingleLabel.wording.uncalibrated,
        value="test probability",
        loss="loss (nats)",
        scored="on {rows} it is off by {value} on average",
        more="more",
        less="less",
        fixed="{count} rows nearer to their score",
        broken="{count} farther",
        test="exact sign test",
        mistakes="Largest errors",
        mistakes_intro="The rows whose score is farthest off after training. Some may have a wrong score in the data.",
        no_mistakes="every score is right",
        contribution="log-odds",
        changed="another score",
        plain="Plain libraries give the probability of at least each score but the lowest.",
        plain_calibrated="Plain libraries give the probability, before calibration, of at least each score but the "
        "lowest.",
        pipeline_options=', function_to_apply="sigmoid", top_k=None',
        gate_example="mae<=0.02,negative_flips<=0.01",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not all(_WHOLE.fullmatch(name) for name in self.label_names) or (np.diff(self.scores) <= 0).any():
            raise DataError(
                f"Ordinal scores must be whole numbers in rising order, got {list_labels(self.label_names)}."
            )

    @property
    def output_names(self) -> tuple[str, ...]:
        """One for every score but the lowest."""
        return tuple(f"at least {name}" for name in self.label_names[1:])

    @property
    def scores(self) -> Array:
        """The scores as numbers, in order."""
        return np.array([int(name) for name in self.label_names], dtype=np.float64)

    @classmethod
    def read_labels(cls, cells: Sequence[object], reading: LabelReading) -> LabelColumn:
        column = read_names(cells, reading, are_numbers=True)
        found = {label: _WHOLE.fullmatch(str(label)) for label in set(column.labels)}
        scores = {label: whole and str(int(whole[1])) for label, whole in found.items()}
        strange = {
            place: "no whole number (--task ordinal needs a column of them: --label-column)"
            for place, label in enumerate(column.labels)
            if label is not None and scores[label] is None
        }
        labels = tuple([scores[label] for label in column.labels])
        return replace(column, labels=labels, faults={**column.faults, **strange})

    def extend(self, names: Sequence[str]) -> Self:
        return type(self)(sort_names((*self.label_names, *names)))

    def reorder(self, published: Sequence[str]) -> tuple[Self, list[str]]:
        """Leave the order of the scores as it is."""
        del published
        return self, []

    def targets(self, y: NDArray[Any], scaler: TargetScaler) -> NDArray[Any]:
        del scaler
        return self._reached(y).astype(np.float32)

    def loss_weights(self, y: NDArray[Any]) -> NDArray[np.float32]:
        """Weigh each row by its score, as `SingleLabel` does, and so all of its cumulative logits alike.

        They stay those of one distribution, in which all scores are as frequent. Weights of each logit's own two sides
        would belong to different distributions, whose logits contradict each other.
        """
        return super().loss_weights(y)[:, np.newaxis]

    def pair_marks(self, y: NDArray[Any]) -> NDArray[np.float32]:
        return mark_positions(y)

    def compute_loss(self, y: NDArray[Any], logits: Array) -> float:
        """Compute the loss that training minimises: that of the cumulative logits."""
        return binary_loss(self._reached(y), logits)

    def fit_temperature(self, y: NDArray[Any], logits: Array) -> float:
        """Find the temperature with the lowest loss of the cumulative logits."""
        return fit_binary_temperature(self._reached(y), logits)

    def activate(self, logits: ArrayLike, calibration: Calibration | None = None) -> Array:
        given = np.asarray(logits, dtype=np.float64) / self.read_temperature(calibration)
        reached = np.minimum.accumulate(sigmoid(given), axis=1)
        ends = np.ones((len(reached), 1)), np.zeros((len(reached), 1))
        steps = np.concatenate([ends[0], reached, ends[1]], axis=1)
        return np.asarray(steps[:, :-1] - steps[:, 1:])

    def deactivate(self, values: Array) -> Array:
        reached = _cumulate(values)
        return log_odds(reached, 1 - reached)

    def logit_losses(self, y: NDArray[Any], logits: Array) -> Array:
        return np.asarray(binary_losses(self._reached(y), logits).mean(axis=1))

    def main_output(self, values: Array) -> NDArray[np.int64]:
        """Return the median score of each row, shape (n,); where one half lies on either side, the lower."""
        return np.asarray((_cumulate(values) > 0.5).sum(axis=1), dtype=np.int64)

    def row_statistics(self, y: NDArray[Any], values: Array) -> Array:
        base = super().row_statistics(y, values)
        error = self.row_errors(y, values)
        return np.column_stack([error, error**2, error <= 1, base])

    def scale_tolerances(
        self, tolerances: Mapping[str, float], y: NDArray[Any], metrics: Mapping[str, float]
    ) -> dict[str, float]:
        """Scale that of MAE, a share of the spread of the true scores."""
        return {**tolerances, "mae": tolerances["mae"] * measure_spread(self.scores[y], metrics["mae"])}

    def compute(self, sums: Array) -> dict[str, Array]:
        error, squared, within = np.moveaxis(sums[..., :3], -1, 0)
        base = super().compute(sums[..., 3:])
        rows, (_, predicted, true) = sums[..., 3], np.split(sums[..., 6:], 3, axis=-1)
        scores = self.scores - self.scores.mean()  # so that squares of large scores lose no digits
        squares = (predicted + true) @ scores**2
        by_chance = squares - ratio(2 * (predicted @ scores) * (true @ scores), rows)
        return {
            "mae": np.asarray(error / rows),
            # Where neither scores nor predictions differ, there is no agreement beyond chance.
            "qwk": np.where(by_chance > 1e-12 * squares, 1 - ratio(squared, by_chance), 0.0),
            "within_one": np.asarray(within / rows),
            "accuracy": base["accuracy"],
            "log_loss": base["log_loss"],
        }

    def edge_statistics(self, y: NDArray[Any], values: Array) -> Array:
        wrong, right = super().edge_statistics(y, values)
        error = np.abs(self.scores[self.main_output(values)][:, np.newaxis] - self.scores)
        chances = self.draw_wrong(y, values)
        off = [(part * chances).sum(axis=1).mean() for part in (error, error**2, error <= 1)]
        return np.stack([[*off, *wrong], [0, 0, 1, *right]])

    def proportions(self, sums: Array) -> dict[str, tuple[Array, Array]]:
        return {"within_one": (sums[..., 2], sums[..., 3]), **super().proportions(sums[..., 3:])}

    def per_class(self, sums: Array, level: float, *, grouped: bool) -> list[ClassScores]:
        return super().per_class(sums[:, 3:], level, grouped=grouped)

    def row_errors(self, y: NDArray[Any], values: Array) -> Array:
        """Return how far off each score is."""
        return np.asarray(np.abs(self.scores[self.main_output(values)] - self.scores[y]))

    def slice_statistics(self, statistics: Array) -> Array:
        """Return 1, the absolute error and whether a row is right."""
        return statistics[..., [3, 0, 4]]

    def compute_slices(self, sums: Array) -> dict[str, Array]:
        rows, error, right = np.moveaxis(sums, -1, 0)
        return {"mae": np.asarray(error / rows), "accuracy": np.asarray(right / rows)}

    def mistake_severity(self, y: NDArray[Any], values: Array) -> Array:
        """Return how far off a score is and, of equal errors, the confidence."""
        return self.row_errors(y, values) + super().mistake_severity(y, values)

    def hub_results(self, scores: Scores, calibration: CalibrationScores | None) -> list[dict[str, Any]]:
        del calibration
        return [
            {"type": "mae", "value": scores.metrics["mae"].value, "name": "Mean absolute error"},
            {"type": "accuracy", "value": scores.metrics["accuracy"].value, "name": "Accuracy"},
        ]

    def _reached(self, y: NDArray[Any]) -> NDArray[np.bool_]:
        """Say which scores but the lowest each row has at least, shape (n, outputs)."""
        return np.asarray(y[:, np.newaxis] > np.arange(len(self.output_names)))

    def _undo_temperature(self, values: Array, temperature: float) -> Array:
        smallest = np.finfo(np.float64).tiny
        reached = _cumulate(values)
        odds = np.log(np.maximum(reached, smallest)) - np.log(np.maximum(1 - reached, smallest))
        return self.activate(odds * temperature)


def _cumulate(values: Array) -> Array:
    """Return the probability of at least each score but the lowest, shape (n, outputs)."""
    return np.asarray(values[:, ::-1].cumsum(axis=1)[:, -2::-1])
