"""The `Task`: all that differs by what a text is given, behind one interface.

Code outside this package holds a `Task` and never asks which one it is. Four kinds of arrays of n rows pass through it:

* labels: what the data say of a row (`Label`), and `y`, the same as an array;
* logits: shape (n, outputs), what the model puts out, one column for each of `output_names`;
* values: shape (n, labels), what the logits mean: a probability of each label, or the number of a regression;
* statistics: shape (n, k), what every metric is a function of once it is summed over rows. So one bootstrap serves all.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lorafit.errors import UserInputError
from lorafit.tasks.baselines import ENCODER, MAJORITY, WORD_MODELS, fit_classes
from lorafit.tasks.format import Form, write_estimate, write_numbers
from lorafit.tasks.label_spellings import match_names
from lorafit.tasks.labels import Label, LabelColumn, LabelReading, quote_label, shorten_label
from lorafit.tasks.records import Calibration, CalibrationScores, ClassScores, Estimate, Resampling, Scores
from lorafit.tasks.statistics import share_interval, sum_units
from lorafit.tasks.word_model import WordModel

Array = NDArray[np.float64]

_LISTED: Final = 12
"""Labels that are listed with their counts."""

AnyCalibration = TypeVar("AnyCalibration", bound=Calibration)


@dataclass(frozen=True)
class Metric:
    """A metric as people read it.

    Attributes:
        title: Its name.
        meaning: What it says, as a clause.
        higher_is_better: Whether more of it is better.
        form: How it is written.
    """

    title: str
    meaning: str
    higher_is_better: bool = True
    form: Form = "plain"

    @property
    def difference_title(self) -> str:
        """The name of a difference: that of shares is in points."""
        return f"{self.title} (points)" if self.form == "percent" else self.title

    def write_value(self, value: float) -> str:
        """Write a value without its interval."""
        (written,) = write_numbers(self.form, value)
        return f"{written} %" if self.form == "percent" and written != "undefined" else written

    def write(self, estimate: Estimate, *, separator: str = " ") -> str:
        """Write a value with its interval, `separator` between the two."""
        return write_estimate(self.form, estimate, separator=separator)

    def write_difference(self, difference: Estimate, *, separator: str = " ") -> str:
        """Write a difference of two values with its interval, `separator` between the two."""
        return write_estimate(self.form, difference, sign=True, separator=separator)


@dataclass(frozen=True)
class TargetScaler:
    """Standardises the targets of a regression; that of other tasks changes nothing.

    Attributes:
        mean: What is taken off; 0 where the head has no bias to give it back with.
        scale: What the rest is divided by, above 0.
    """

    mean: float = 0.0
    scale: float = 1.0

    @property
    def inverse(self) -> "TargetScaler":
        """The scaler whose `apply` is this one's `undo`."""
        return TargetScaler(-self.mean / self.scale, 1 / self.scale)

    def apply(self, values: Array) -> Array:
        """Standardise numbers of any shape."""
        return (values - self.mean) / self.scale

    def undo(self, values: Array) -> Array:
        """Return standardised numbers to their own unit."""
        return values * self.scale + self.mean


class Prediction(Protocol):
    """What a model predicts for one text. Each task has its own class with typed fields.

    `typicality` is the conformal p-value of the text being like the training rows, above 0 and at most 1: of texts that
    are, at most a share a has at most a. None of a model that does not tell. `atypical` says whether it is so small
    that the text is to be rejected, and is None where nothing is.
    """

    @property
    def typicality(self) -> float | None:
        """How typical the text is."""

    @property
    def atypical(self) -> bool | None:
        """Whether the text is rejected."""

    def columns(self) -> dict[str, object]:
        """Return what stands in a table of predictions, by column."""

    def describe(self) -> str:
        """Return one line for a terminal or a table cell; names are as they come from the data, not yet made safe."""

    def cells(self) -> tuple[str, ...]:
        """Return what `describe` says as columns of the same width for every text; only the first has names."""

    def is_right(self, truth: Label) -> bool | None:
        """Tell whether it is the true label; None where it is never simply right or wrong."""

    def describe_error(self, truth: Label) -> str:
        """Say how it differs from the true label; nothing where `is_right` says it all."""


@dataclass(frozen=True)
class Wording:
    """The words of a task. Sentences are completed with `str.format`; names in braces say with what.

    Attributes:
        title: What the model is, as a title.
        activity: What it does, as a title: the Hub's name of the task.
        gives: What it gives a text ({count} labels, {labels} listed).
        purpose: What it is for, as the begin of a sentence ({source} of the training rows).
        unmeasured: Input that only this task must expect and that nothing measures.
        stratum: A group of rows that cuts keep in proportion.
        calibrates: What is fitted to calibration rows.
        uncalibrated: What is not known without them, as a sentence.
        value: What a column of `values` is, as a noun.
        loss: Validation loss with its unit.
        loss_note: What else is to be known of the loss, as a sentence, or nothing.
        scored: A model's primary metric, as a clause ({value}, {rows}).
        more: How a higher primary metric is said ("more"), and a lower one.
        less: The same of a lower one.
        fixed: Rows that one model has better than another ({count}).
        broken: Rows that it has worse ({count}).
        test: The exact test of fixed against broken.
        mistakes: Title of the rows on which a model is most wrong.
        mistakes_intro: What those rows are, as a sentence.
        no_mistakes: What holds where there are none, as a clause.
        contribution: What a word adds, as a noun with its unit.
        contribution_title: Title of what the words of a text add ({label}).
        raises: Heading of the words that add to a value.
        lowers: Heading of those that take from it.
        speak_for: What words do that add to a value, as a verb.
        explained: What the value of a label is ({label}).
        changed: What a row gets whose prediction is not the same.
        plain: How what plain libraries give is to be read, as sentences, and what calibration adds to it.
        plain_calibrated: The same where the model has a calibration.
        pipeline_options: Arguments of transformers' `pipeline` that the task needs, after a comma.
        gate_example: Gates of `lorafit diff` as one may give them.
    """

    title: str
    activity: str
    gives: str
    purpose: str
    unmeasured: str
    stratum: str
    calibrates: str
    uncalibrated: str
    value: str
    loss: str
    scored: str
    more: str
    less: str
    fixed: str
    broken: str
    test: str
    mistakes: str
    mistakes_intro: str
    no_mistakes: str
    contribution: str
    changed: str
    plain: str
    plain_calibrated: str
    pipeline_options: str
    gate_example: str
    loss_note: str = ""
    contribution_title: str = "What a word adds to the log-odds of {label}, and by how much it multiplies the odds"
    raises: str = "for"
    lowers: str = "against"
    speak_for: str = "speak for the label"
    explained: str = "the probability of {label}"


@dataclass(frozen=True)
class Task(ABC):
    """What a model predicts for a text.

    Attributes:
        label_names: The labels in the order of `values`; of a regression the name of its number.
        name: Key of `lorafit.tasks.registry.TASKS`.
        problem_type: transformers' word for the loss.
        metrics: By name; the first is the primary metric, which verdicts, comparisons and slices are about.
        slice_metrics: Those that slices are scored by.
        calibration_metrics: Metrics of `CalibrationScores`.
        diff_metrics: Metrics of `measure_diff` beyond the differences of `metrics`.
        parity_metrics: Metrics, of which more is better, that an export may not lose.
        parity_agreement: Share of rows that must get the same prediction from an export.
        reproduction_tolerances: By how much a metric may differ in a repeated run, the primary one first;
            `scale_tolerances` turns them into the metrics' own units.
        baselines: Titles of the models that a trained one is compared with, by name; `majority` is among them.
        balanced_metrics: Metrics that are high only where rare labels are found, too.
        calibration_type: The record of its `calibration.json`.
        loss_column: Column of the log loss in `row_statistics`.
        truth_column: Column of the true label in a table of predictions.
        wording: Its words.
    """

    label_names: tuple[str, ...]

    name: ClassVar[str]
    problem_type: ClassVar[str]
    metrics: ClassVar[Mapping[str, Metric]]
    slice_metrics: ClassVar[tuple[str, ...]]
    calibration_metrics: ClassVar[Mapping[str, Metric]]
    diff_metrics: ClassVar[Mapping[str, Metric]]
    parity_metrics: ClassVar[tuple[str, ...]]
    parity_agreement: ClassVar[float] = 0.98
    reproduction_tolerances: ClassVar[Mapping[str, float]]
    baselines: ClassVar[Mapping[str, str]]
    balanced_metrics: ClassVar[tuple[str, ...]] = ()
    calibration_type: ClassVar[type[Calibration]]
    loss_column: ClassVar[int] = 2
    truth_column: ClassVar[str]
    wording: ClassVar[Wording]

    @property
    def primary(self) -> str:
        """Name of the primary metric."""
        return next(iter(self.metrics))

    @property
    def primary_metric(self) -> Metric:
        """The primary metric."""
        return self.metrics[self.primary]

    @classmethod
    def title_model(cls, name: str) -> str:
        """Return the title of a baseline, or of the encoder where the model is a blend."""
        return {**cls.baselines, ENCODER: "the encoder alone"}.get(name, name)

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the model's outputs, in the order of the logits."""
        return self.label_names

    @property
    def id2label(self) -> dict[int, str]:
        """Output to name, as transformers' configs have it."""
        return dict(enumerate(self.output_names))

    # Labels to arrays

    @classmethod
    @abstractmethod
    def read_labels(cls, cells: Sequence[object], reading: LabelReading) -> LabelColumn:
        """Read the labels of a column.

        Args:
            cells: What stands in the label column: text, numbers, bools, lists, or a dict of label to 0 or 1.
            reading: How cells are read; what it leaves open is decided by all cells together.

        Returns:
            One label a cell, what is wrong with cells that cannot be read, and what a user should know.
        """

    @classmethod
    @abstractmethod
    def from_labels(cls, labels: Sequence[Label], origin: str) -> Self:
        """Build the task from the labels of training rows.

        Args:
            labels: One a row, at least one.
            origin: Where the rows come from, for messages.

        Returns:
            The task; whole numbers in numeric order, other names in alphabetical order.

        Raises:
            DataError: All labels are the same, or so many that the column must be the wrong one.
        """

    def reorder(self, published: Sequence[str]) -> tuple[Self, list[str]]:
        """Take the order of the names that a source publishes.

        Args:
            published: The names.

        Returns:
            The task in that order, and the published names that no training row has.
        """
        found = match_names(published, self.label_names)
        return type(self)(tuple(found.values())), [name for name in published if name not in found]

    def unknown_names(self, label: Label) -> set[str]:
        """Return the names in a label that are not among `label_names`."""
        return {str(label)} - set(self.label_names)

    def extend(self, names: Sequence[str]) -> Self:
        """Return the task with further labels, which no model predicts: in their order, or after its own."""
        return type(self)((*self.label_names, *names))

    def extend_values(self, values: Array, task: "Task") -> Array:
        """Return values of shape (n, labels) for a task with further labels, which get 0."""
        extended = np.zeros((len(values), len(task.label_names)))
        extended[:, [task.label_names.index(name) for name in self.label_names]] = values
        return extended

    @classmethod
    def rename(cls, label: Label, names: Mapping[str, str]) -> Label:
        """Return a label with other names in it, by the old ones."""
        return names.get(str(label), label)

    @abstractmethod
    def encode(self, labels: Sequence[Any]) -> NDArray[Any]:
        """Turn n labels into `y`; a KeyError is raised for a name that is not among `label_names`."""

    @abstractmethod
    def decode(self, y: NDArray[Any]) -> tuple[Label, ...]:
        """Turn `y` back into labels."""

    @abstractmethod
    def count(self, y: NDArray[Any]) -> dict[str, int]:
        """Count rows by label, in label order; nothing of a regression."""

    def describe_counts(self, y: NDArray[Any]) -> str:
        """Write the labels found with their numbers of rows, of many the most frequent; of a regression the range."""
        counts = list(self.count(y).items())
        if len(counts) > _LISTED:
            counts.sort(key=lambda item: -item[1])
        listed = [f"{shorten_label(name)} {count:,}" for name, count in counts[:_LISTED]]
        if len(counts) > _LISTED:
            listed.append(f"… {len(counts) - _LISTED:,} more with {counts[-1][1]:,} to {counts[_LISTED][1]:,} each")
        return ", ".join(listed)

    @abstractmethod
    def mark_labels(self, y: NDArray[Any]) -> NDArray[np.bool_]:
        """Return which labels each row has as an indicator matrix, shape (n, labels); of a regression (n, 0)."""

    @abstractmethod
    def strata(self, y: NDArray[Any]) -> NDArray[np.int64]:
        """Return the groups of rows that cuts and samples keep in proportion, shape (n,)."""

    @abstractmethod
    def describe_stratum(self, stratum: int) -> tuple[str, str]:
        """Name a group of `strata` at the begin of a sentence, and what each group is."""

    def check_trainable(self, y: NDArray[Any], origin: str) -> None:  # noqa: B027 - most tasks have nothing to check
        """Check the rows that are left to train on.

        Args:
            y: Of the training rows.
            origin: Where they come from, for messages.

        Raises:
            DataError: Nothing can be learned from them.
        """

    @abstractmethod
    def describe_label(self, label: Label) -> str:
        """Write a true label in a few words; names are as they come from the data."""

    # Training

    def fit_scaler(self, y: NDArray[Any], *, has_bias: bool) -> TargetScaler:
        """Fit the scaler of the targets to the training rows; `has_bias` says whether the last layer has one."""
        del y, has_bias
        return TargetScaler()

    @abstractmethod
    def targets(self, y: NDArray[Any], scaler: TargetScaler) -> NDArray[Any]:
        """Return labels as transformers' loss for `problem_type` takes them: int64 ids or float32 values."""

    @classmethod  # noqa: B027 - most tasks have labels to balance
    def check_balancing(cls, settings: Sequence[str]) -> None:
        """Check settings of the training by which some rows count more than others.

        Args:
            settings: As `TrainingConfig.balancing` lists them.

        Raises:
            ConfigError: The task has no labels that could be balanced.
        """

    def loss_weights(self, y: NDArray[Any]) -> NDArray[np.float32]:
        """Return what each loss counts where all labels are to count the same; the mean over the rows is 1.

        Args:
            y: Of the n training rows.

        Returns:
            Shape (n,) where a row has one loss; where it has one for each output, (n, outputs), or (n, 1) if they share
            a weight.
        """
        return np.ones(len(y), dtype=np.float32)

    def balance_groups(self, y: NDArray[Any]) -> NDArray[np.int64]:
        """Return the groups of which balanced sampling draws as many rows each, shape (n,)."""
        return self.strata(y)

    def pair_marks(self, y: NDArray[Any]) -> NDArray[np.float32]:
        """Return what tells how alike the labels of two rows are.

        The smaller of both entries, summed, over the larger ones, summed, is 1 for the same labels and 0 for those that
        have nothing in common; of sets of labels it is Jaccard's index.

        Args:
            y: Of n rows.

        Returns:
            Shape (n, k), from 0 to 1; every row has an entry above 0.
        """
        marks = self.mark_labels(y)
        return np.column_stack([marks, ~marks.any(axis=1)]).astype(np.float32)

    @abstractmethod
    def validation_metrics(self, y: NDArray[Any], logits: Array, scaler: TargetScaler) -> dict[str, float]:
        """Measure what training is steered by, without intervals.

        Args:
            y: Of the n validation rows.
            logits: Shape (n, outputs), finite.
            scaler: That of the targets.

        Returns:
            `loss`, `calibrated_loss`, by which checkpoints are chosen, and the primary metric.
        """

    def predict_baseline(self, name: str, texts: Sequence[str], y: NDArray[Any], others: Sequence[str]) -> Array:
        """Train a baseline that needs no encoder, and predict other texts.

        Args:
            name: A key of `baselines` but `embedding`.
            texts: n texts to learn from.
            y: Their labels.
            others: m texts to predict.

        Returns:
            Values of shape (m, labels); a class without training rows has the probability 0.

        Raises:
            ValueError: It is another baseline.
        """
        if name == MAJORITY:
            return np.tile(self.constant_values(y), (len(others), 1))
        if name not in WORD_MODELS:
            raise ValueError(f"{name} reads no words")
        return self.fit_words(name, texts, y).score(others)

    def fit_words(self, name: str, texts: Sequence[str], y: NDArray[Any]) -> WordModel:
        """Train a baseline that reads texts on n of them; it gives values of shape (m, labels)."""
        return fit_classes(name, texts, y, classes=len(self.label_names))

    def constant_values(self, y: NDArray[Any]) -> Array:
        """Return the values of the baseline `majority`, shape (labels,): the share of n rows that each label has."""
        return np.asarray(self.mark_labels(y).mean(axis=0), dtype=np.float64)

    def describe_constant(self, scores: Scores) -> str:
        """Say what a model does that gives every row the same values, as in "always answering 'ok'"."""
        given = [one.label for one in scores.per_class if not math.isnan(one.precision.value)]
        names = " and ".join(map(quote_label, given))
        return f"always answering {names}" if names else "never giving a label"

    @property
    def baseline_fits(self) -> int:
        """How many models a baseline consists of, as far as its time is concerned."""
        return 1

    # Prediction

    @abstractmethod
    def fit_calibration(
        self, y: NDArray[Any], logits: Array, *, coverage: float, target_accuracy: float | None = None
    ) -> Calibration:
        """Fit what makes predictions hold, on rows that neither trained nor chose anything.

        Args:
            y: Of the n calibration rows, at least one.
            logits: Shape (n, outputs).
            coverage: How often a conformal set or interval is to hold the truth, above 0 and below 1.
            target_accuracy: Accuracy that accepted predictions are to have, as `check_target_accuracy` allows it.

        Returns:
            An instance of `calibration_type`.
        """

    @classmethod
    def fewest_calibration_rows(cls, coverage: float) -> int:
        """Return how many calibration rows the coverage needs."""
        del coverage
        return 1

    @classmethod
    def check_target_accuracy(cls, target: float | None) -> None:
        """Check a target accuracy; only a task whose predictions can abstain takes one.

        Args:
            target: Above 0 and below 1, or None for no target.

        Raises:
            UserInputError: It is out of range, or the task takes none.
        """
        if target is not None:
            raise UserInputError(
                f"A target accuracy is for tasks that give a text one label; the task here is {cls.name}. Leave it out."
            )

    def choose_operating_point(self, calibration: Calibration, target: float) -> Calibration:
        """Return the calibration with the confidence threshold for another target accuracy."""
        self.check_target_accuracy(target)
        return calibration

    @abstractmethod
    def activate(self, logits: ArrayLike, calibration: Calibration | None = None) -> Array:
        """Turn logits of shape (n, outputs) into values of shape (n, labels), calibrated if there is a calibration."""

    @abstractmethod
    def deactivate(self, values: Array) -> Array:
        """Turn values of shape (n, labels) into logits of which `activate` makes them again, shape (n, outputs).

        Probabilities count as at least 1e-12, and as that much less than 1, so that logits are finite.
        """

    @abstractmethod
    def doubt(self, values: Array) -> Array:
        """Return how undecided values of shape (n, labels) are, shape (n,): the entropy in nats, 0 of numbers."""

    @abstractmethod
    def logit_losses(self, y: NDArray[Any], logits: Array) -> Array:
        """Return the loss of each of n rows from logits of shape (n, outputs): that which training minimises."""

    def pool_logits(self, logits: Array, weights: Array) -> Array:
        """Pool the logits of several models, shape (models, n, outputs), by weights of shape (models,)."""
        return np.asarray(np.tensordot(weights, logits, axes=1))

    @abstractmethod
    def predict(self, values: Array, calibration: Calibration | None = None) -> Prediction:
        """Build the prediction of one row from its values, shape (labels,); of equal probabilities the first wins."""

    def require_probabilities(self) -> None:  # noqa: B027 - most values are probabilities
        """Refuse where values are no probabilities.

        Raises:
            UserInputError: The model predicts numbers.
        """

    def value_columns(self) -> list[str]:
        """Name the columns of `values` in a table of predictions."""
        return [f"probability_{name}" for name in self.label_names]

    def prediction_columns(self, values: Array) -> dict[str, list[Any]]:
        """Return the columns of a table of predictions beside those of `value_columns`, of n rows."""
        del values
        return {}

    @abstractmethod
    def check_values(self, values: Array) -> None:
        """Check values that were read from a file; a ValueError says what is wrong."""

    def main_output(self, values: Array) -> NDArray[np.int64]:
        """Return the label that each row is first of all given, shape (n,)."""
        return np.asarray(values.argmax(axis=1), dtype=np.int64)

    def same_prediction(self, values: Array, others: Array) -> NDArray[np.bool_] | None:
        """Tell of each row whether two models predict the same, shape (n,); None where that is no question."""
        return np.asarray(self.main_output(values) == self.main_output(others))

    def logit_scale(self, logits: Array, *, least: float) -> float:
        """Return what a difference of two models' logits is measured against: the largest logit.

        Args:
            logits: Shape (n, outputs), of the model that is right.
            least: The smallest scale of logits; of numbers, whose unit is the data's, there is none.

        Returns:
            The scale, in the unit of the logits.
        """
        return max(least, float(np.abs(logits).max()))

    def describe_value(self, label: str, value: float) -> str:
        """Write what a text gets for a label: its name and probability."""
        return f"{label} {value:.1%}"

    @abstractmethod
    def contribution(self, values: Array, output: int) -> Array:
        """Return what words contribute to, for one label: its log-odds (or the number itself), shape (n,)."""

    def contribution_columns(self, contribution: float) -> dict[str, str]:
        """Write a word's part of `contribution`, by heading: log-odds, and what they multiply the odds by."""
        return {"log-odds": f"{contribution:+.2f}", "odds": f"x {_write_factor(contribution)}"}

    def write_drop(self, drop: float) -> str:
        """Write by how much the value of a label falls or rises, without its sign."""
        return f"{100 * abs(drop):.1f} points"

    # Label errors

    @abstractmethod
    def suspect_labels(self, y: NDArray[Any], values: Array) -> NDArray[np.bool_]:
        """Tell which labels are probably wrong.

        Args:
            y: Of n rows.
            values: Shape (n, labels), of models that were not trained on these rows.

        Returns:
            Shape (n,).

        Raises:
            MissingExtraError: cleanlab is needed and not installed.
        """

    @abstractmethod
    def support_labels(self, y: NDArray[Any], values: Array) -> Array:
        """Return how far values speak for the labels of n rows, shape (n,): 0 (not at all) to 1."""

    @abstractmethod
    def suggest_labels(self, values: Array) -> tuple[Label, ...]:
        """Return the label that each row of `values` speaks for."""

    # Evaluation

    @abstractmethod
    def row_statistics(self, y: NDArray[Any], values: Array) -> Array:
        """Return what metrics are made of once it is summed over rows.

        Args:
            y: Of n rows, at least one.
            values: Shape (n, labels).

        Returns:
            Shape (n, k), k growing with the number of labels and not with its square.

        Raises:
            ValueError: No rows, shapes that do not fit, or values that the task does not have.
        """

    @abstractmethod
    def compute(self, sums: Array) -> dict[str, Array]:
        """Compute every metric from sums of `row_statistics`, shape (..., k); each has the shape (...)."""

    @abstractmethod
    def edge_statistics(self, y: NDArray[Any], values: Array) -> Array:
        """Return the statistics of a worst and a best row of the same kind, shape (2, k).

        They keep intervals from collapsing where no row is wrong, or none right (`statistics.resample_row_sums`).
        """

    def pair_edges(self, edges: Sequence[Array], statistics: Sequence[Array], before: int) -> list[Array]:
        """Return what `edge_statistics` are for differences: a row fixed, and a row broken.

        The loss of a model before differs from that of the models after by as much as that of any row does, whatever
        other models there are.

        Args:
            edges: Of each model, from `edge_statistics`.
            statistics: Of each model, from `row_statistics`.
            before: How many of the models are those before.

        Returns:
            Those of each model, shape (2, k).
        """
        losses = np.stack([part[:, self.loss_column] for part in statistics])
        after = losses[before:]
        paired = [part.copy() if place < before else part[::-1].copy() for place, part in enumerate(edges)]
        for place, part in enumerate(paired):
            change = np.abs(losses[place] - after).max() if place < before else 0.0
            part[:, self.loss_column] = [after.mean() + change, after.mean() - change]
        return paired

    def proportions(self, sums: Array) -> dict[str, tuple[Array, Array]]:
        """Return successes and trials, each of shape (...), of the metrics that are shares of rows.

        `sums` are those of `row_statistics`, shape (..., k).
        """
        del sums
        return {}

    def per_class(self, sums: Array, level: float, *, grouped: bool) -> list[ClassScores]:
        """Score each label, with intervals at `level`; nothing of a regression.

        `sums` are those of `row_statistics`, shape (units, k): of all rows or, if `grouped`, of each group of them.
        """
        del sums, level, grouped
        return []

    def confusion_matrix(self, y: NDArray[Any], values: Array) -> list[list[int]]:
        """Count how often each class was taken for each; empty where a row has no one class."""
        del y, values
        return []

    @abstractmethod
    def row_errors(self, y: NDArray[Any], values: Array) -> Array:
        """Return how wrong each row is, shape (n,): 0 where it is right."""

    @abstractmethod
    def slice_statistics(self, statistics: Array) -> Array:
        """Return the few of `row_statistics`, shape (..., k), that slices are scored by, shape (..., j)."""

    @abstractmethod
    def compute_slices(self, sums: Array) -> dict[str, Array]:
        """Compute the `slice_metrics` from sums of `slice_statistics`, shape (..., j); each has the shape (...)."""

    @abstractmethod
    def mistake_severity(self, y: NDArray[Any], values: Array) -> Array:
        """Return what orders mistakes, the worst with the highest value, shape (n,): 0 where a row is right."""

    def mistaken_output(self, y: NDArray[Any], values: Array) -> NDArray[np.int64]:
        """Return the label that each wrong row is wrong about, shape (n,)."""
        del y
        return self.main_output(values)

    @abstractmethod
    def calibration_scores(
        self, y: NDArray[Any], values: Array, calibration: Calibration, resampling: Resampling
    ) -> CalibrationScores:
        """Measure on n other rows whether calibrated values hold."""

    def measure_side(
        self, y: NDArray[Any], values: Array, calibration: Calibration | None, resampling: Resampling
    ) -> dict[str, Estimate]:
        """Measure those of `diff_metrics` that one model has by itself; by default, they need a calibration."""
        if calibration is None:
            return {}
        metrics = self.calibration_scores(y, values, calibration, resampling).metrics
        return {name: metrics[name] for name in self.diff_metrics if name in metrics}

    @abstractmethod
    def describe_calibration(self, scores: CalibrationScores) -> list[str]:
        """Say how far calibrated predictions hold, in sentences that open with their subject and a colon."""

    def measure_diff(
        self,
        y: NDArray[Any],
        before: Array,
        after: Array,
        calibrations: tuple[Calibration | None, Calibration | None],
        resampling: Resampling,
    ) -> dict[str, Estimate]:
        """Measure the `diff_metrics` of two models on the same rows: by default flips and churn.

        Negative flips (Yan et al. 2021, arXiv:2011.09161) are rows that were right and are wrong; churn (Milani Fard et
        al. 2016, "Launch and Iterate") are rows with another prediction. Both have intervals of shares.

        Args:
            y: Of n rows.
            before: Values of the first model.
            after: Those of the second.
            calibrations: Of both.
            resampling: Of intervals.

        Returns:
            Estimates by the names of `diff_metrics`, as far as both models have what they need.
        """
        del calibrations
        same = self.same_prediction(before, after)
        if same is None:
            return {}
        flipped = (self.row_errors(y, before) == 0) & (self.row_errors(y, after) > 0)
        return {
            "negative_flips": share_of_rows(flipped, resampling),
            "churn": share_of_rows(~same, resampling),
        }

    def scale_tolerances(
        self, tolerances: Mapping[str, float], y: NDArray[Any], metrics: Mapping[str, float]
    ) -> dict[str, float]:
        """Return by how much metrics may differ in a repeated run, in their own units.

        Args:
            tolerances: By the names of `reproduction_tolerances`.
            y: Labels of the rows that are scored.
            metrics: What the run that is repeated reached, by the same names.

        Returns:
            The largest differences, by the same names.
        """
        del y, metrics
        return dict(tolerances)

    def hub_results(self, scores: Scores, calibration: CalibrationScores | None) -> list[dict[str, Any]]:
        """Return the metrics that the Hub has names for, as its model index holds them: type, value, name."""
        del scores, calibration
        return []


def expect(calibration: Calibration, kind: type[AnyCalibration]) -> AnyCalibration:
    """Return a calibration of the kind that the task has; a TypeError says that it is another task's."""
    if not isinstance(calibration, kind):
        raise TypeError(f"A calibration of {calibration.task} does not fit: {kind.__name__} is needed.")
    return calibration


def mark_positions(numbers: NDArray[Any]) -> NDArray[np.float32]:
    """Return `Task.pair_marks` of numbers, shape (n, 2): the nearer two are within their range, the more alike."""
    span = float(np.ptp(numbers)) or 1.0
    position = (numbers - numbers.min()) / span
    return np.column_stack([position, 1 - position]).astype(np.float32)


def measure_spread(numbers: NDArray[Any], otherwise: float) -> float:
    """Return the standard deviation of the labels of rows, or `otherwise` where they do not differ."""
    return float(numbers.std()) if numbers.min() < numbers.max() else otherwise


def exactly(value: float) -> Estimate:
    """Return a value that has no interval."""
    return Estimate(value=value, low=math.nan, high=math.nan)


def share(successes: ArrayLike, trials: ArrayLike, level: float, *, grouped: bool = False) -> Estimate:
    """Estimate a share of rows from counts, one of each or, if `grouped`, one a group; undefined without trials."""
    right, total = (np.rint(np.asarray(counts, dtype=np.float64).reshape(-1, 1)) for counts in (successes, trials))
    (low,), (high,) = share_interval(right, total, level, grouped=grouped)
    value = right.sum() / total.sum() if total.sum() else math.nan
    return Estimate(value=float(value), low=float(low), high=float(high))


def share_of_rows(holds: NDArray[np.bool_], resampling: Resampling) -> Estimate:
    """Estimate for which share of the rows of a resampling something holds, shape (n,); undefined without rows."""
    if not len(holds):
        return share(0, 0, resampling.level)
    held, rows = sum_units(np.stack([holds, np.ones(len(holds))], axis=1), resampling.groups).T
    return share(held, rows, resampling.level, grouped=resampling.is_grouped)


def _write_factor(log_odds: float) -> str:
    factor = math.exp(log_odds)
    return f"{factor:.2f}" if 0.005 <= factor < 1000 else f"{factor:.0e}"
