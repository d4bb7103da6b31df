"""What both sides say of the same rows: kept from when they ended, or predicted now."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lorafit.config import Config
from lorafit.data.checks import encode_labels, name_labels
from lorafit.data.rows import Split
from lorafit.data.sources import load_evaluation_rows
from lorafit.errors import DataError, EnvironmentUnfitError, RunError, UserInputError
from lorafit.experiments.diff.sides import REMEDY, Answers, AnySide, Side, read_answers
from lorafit.inference.loading import load
from lorafit.labels import LabelSet
from lorafit.metrics.slices import tell_apart
from lorafit.system.progress import Progress

__all__ = ["OTHER_ROWS", "Pair", "predict_test_rows", "predict_with_both", "read_both"]

OTHER_ROWS = "Give labelled rows that both then predict: lorafit diff A B DATA"
"""What to do where test rows cannot be compared on."""


@dataclass(frozen=True)
class Pair:
    """What both say of the same n rows.

    Attributes:
        labels: The task and its classes, in A's order.
        source: Where the rows come from.
        truth: What is true of them, as `Split.labels` holds it: class ids, marks or numbers.
        first: Probabilities of the classes, or numbers, of A: shape (n, outputs).
        second: The same of B, same shape and order of classes.
        rows: The rows themselves, or None where they could not be had.
        notes: What a reader should know.
    """

    labels: LabelSet
    source: str
    truth: NDArray[Any]
    first: NDArray[np.float64]
    second: NDArray[np.float64]
    rows: Split | None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.truth)

    def list_slices(self) -> Iterator[tuple[str, str, NDArray[np.int64]]]:
        """Yield column, value and row numbers of each slice that has rows: labels, then lengths, then columns."""
        if self.labels.task != "regression":
            for index, name in enumerate(self.labels.names):
                has = self.truth[:, index] == 1 if self.labels.task == "multi_label" else self.truth == index
                if has.any():
                    yield "label", name, np.flatnonzero(has)
        for slicing in tell_apart(self.rows) if self.rows is not None else ():
            for place, value in enumerate(slicing.values):
                yield slicing.column, value, np.flatnonzero(slicing.places == place)


def read_both(first: Side, second: Side, labels: LabelSet, config: Config, *, needs_rows: bool) -> Pair:
    """Take what both runs said of their test rows when they ended.

    Args:
        first: A.
        second: B.
        labels: The task and its classes, in A's order.
        config: Settings of which those of the data read the rows.
        needs_rows: Whether to stop where the rows themselves, for texts and columns, cannot be read any more.

    Returns:
        What both said; with a note where the rows could not be read.

    Raises:
        DataError: The test rows are not the same, or are needed and cannot be read.
        RunError: What one of them said was altered or is missing.
    """
    try:
        rows = _find_rows(first, labels, config)
    except (UserInputError, EnvironmentUnfitError):
        if needs_rows:
            raise
        rows = None
    _check_same_rows(first, second, labels, rows)
    answers, others = read_answers(first, labels), read_answers(second, labels)
    if answers.ids != others.ids or not np.array_equal(answers.truth, others.truth):
        raise RunError(
            f"The predictions in {first.layout.root} and {second.layout.root} are of different rows, though their test "
            f"rows were the same: one was altered. {REMEDY}"
        )
    source = first.record.data.source
    note = f"{source} cannot be read as it was: nothing is told by length of the text or by column."
    if rows is None:
        return Pair(labels, source, answers.truth, answers.values, others.values, None, (note,))
    _check_answers(first, answers, rows)
    return Pair(labels, source, answers.truth, answers.values, others.values, rows)


def predict_test_rows(first: AnySide, second: AnySide, labels: LabelSet, config: Config, progress: Progress) -> Pair:
    """Take what the run said of its test rows when it ended, and let the exported model predict them.

    Args:
        first: A.
        second: B; one of the two is a run.
        labels: The task and its classes, in A's order.
        config: Settings of which those of the data read the rows.
        progress: Told how many texts are done.

    Returns:
        What both say.

    Raises:
        DataError: The test rows are not the same, or cannot be read any more.
        RunError: What the run said was altered or is missing.
    """
    run = next(side for side in (first, second) if isinstance(side, Side))
    try:
        answers, rows = read_answers(run, labels), _find_rows(run, labels, config)
    except (UserInputError, EnvironmentUnfitError) as error:
        raise DataError(f"The exported model cannot predict the run's test rows: {error} {OTHER_ROWS}") from error
    if rows is None:
        raise DataError(
            f"The exported model cannot predict the run's test rows: {run.record.data.source} has changed since "
            f"training. {OTHER_ROWS}"
        )
    _check_same_rows(first, second, labels, rows)
    _check_answers(run, answers, rows)
    told = [
        answers.values if isinstance(side, Side) else _predict(side, name, rows, labels, progress)
        for name, side in (("A", first), ("B", second))
    ]
    return Pair(labels, run.record.data.source, answers.truth, told[0], told[1], rows)


def predict_with_both(
    first: AnySide, second: AnySide, labels: LabelSet, config: Config, data: str, progress: Progress
) -> Pair:
    """Let both predict other rows.

    Args:
        first: A.
        second: B.
        labels: The task and its classes, in A's order.
        config: Settings of which those of the data read the rows.
        data: Where the rows come from.
        progress: Told how many texts are done.

    Returns:
        What both say.

    Raises:
        DataError: The rows cannot be read, or one of the two was trained, or chosen and calibrated, on rows of `data`.
    """
    rows = load_evaluation_rows(data, config.data, labels)
    for side in (first, second):
        _check_unseen(side, rows, labels, data)
    told = [_predict(side, name, rows, labels, progress) for name, side in (("A", first), ("B", second))]
    return Pair(labels, data, rows.labels, told[0], told[1], rows)


def _check_same_rows(first: AnySide, second: AnySide, labels: LabelSet, rows: Split | None) -> None:
    """Refuse sides with different test rows.

    Fingerprints hold class ids, so that those of sides with their labels in another order are compared with that of the
    rows, one of the sides' test rows with ids by `labels`; None where they could not be read as they were.
    """
    if first.label_set == second.label_set:
        is_same = first.test_fingerprint == second.test_fingerprint
    elif rows is None:
        raise DataError(
            f"{first.root} and {second.root} have their labels in another order, so that only the rows could tell "
            f"whether both were measured on the same, and their source cannot be read as it was. {OTHER_ROWS}"
        )
    else:
        is_same = all(_are_test_rows(side, rows, labels) for side in (first, second))
    if not is_same:
        raise DataError(
            f"{first.root} and {second.root} were measured on different test rows. Give labelled rows "
            "that neither was trained on, which both then predict: lorafit diff A B DATA"
        )


def _find_rows(side: Side, labels: LabelSet, config: Config) -> Split | None:
    """Read a run's test rows again, for their texts and columns; None where they have changed."""
    rows = load_evaluation_rows(config.data.source, config.data, labels)
    return rows if _are_test_rows(side, rows, labels) else None


def _are_test_rows(side: AnySide, rows: Split, labels: LabelSet) -> bool:
    """Return whether rows, their labels by `labels`, are those a side was measured on."""
    own = encode_labels(name_labels(rows.labels, labels), side.label_set)
    return Split(rows.ids, rows.texts, own).fingerprint() == side.test_fingerprint


def _check_answers(side: Side, answers: Answers, rows: Split) -> None:
    """Refuse answers that are not of the test rows."""
    if answers.ids != tuple(rows.ids.tolist()) or not np.array_equal(answers.truth, rows.labels):
        raise RunError(f"The predictions in {side.root} are not of its test rows: they were altered. {REMEDY}")


def _check_unseen(side: AnySide, rows: Split, labels: LabelSet, data: str) -> None:
    """Refuse a run's validation file, and rows of the source that it was trained on, but for its own test rows."""
    if side.was_chosen_on(data):
        raise DataError(
            f"{data} is the validation file of {side.root}: its rows chose and calibrated that model. Give a "
            "file with other labelled rows: lorafit diff A B DATA"
        )
    if not side.was_trained_on(data):
        return
    if not _are_test_rows(side, rows, labels):
        raise DataError(
            f"{side.root} was trained on {data}, and these rows are not its test rows: rows that it was trained "
            "on could be among them. Give a file with other labelled rows: lorafit diff A B DATA"
        )


def _predict(side: AnySide, name: str, rows: Split, labels: LabelSet, progress: Progress) -> NDArray[np.float64]:
    """Return what one says of rows, columns in the order of `labels`."""
    is_fp32 = isinstance(side, Side) and side.record.hardware.precision == "fp32"
    predictor = load(side.root, precision="fp32" if is_fp32 else "auto")
    progress.start(f"measuring {name}", total=len(rows), unit="text")
    values = predictor.compute_values(rows.texts, on_progress=progress.update)
    progress.finish()
    return values[:, [predictor.labels.index(label) for label in labels.names]]
