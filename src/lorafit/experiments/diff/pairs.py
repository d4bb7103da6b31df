"""What two models predict for the same rows: kept from when their runs ended, or predicted now."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lorafit.config import Config
from lorafit.data.loading import load_evaluation_rows
from lorafit.data.rows import Split
from lorafit.errors import DataError, EnvironmentUnfitError, RunError, UserInputError
from lorafit.experiments.diff.sides import OTHER_ROWS, Predictions, RunSide, Side, read_test_predictions
from lorafit.inference.loading import load
from lorafit.runs.lineage import describe_training_texts
from lorafit.system.progress import Progress
from lorafit.tasks.base import Array, Task


@dataclass(frozen=True)
class Pair:
    """What two models, A and B, predict for the same n rows.

    Attributes:
        task: The task, with the labels in A's order.
        source: Where the rows come from.
        y: Their labels as `Task.encode` makes them.
        before: A's values, shape (n, labels).
        after: B's.
        rows: The rows themselves, or None where they could not be had.
        notes: What a reader should know.
    """

    task: Task
    source: str
    y: NDArray[Any]
    before: Array
    after: Array
    rows: Split | None
    notes: tuple[str, ...] = ()

    @property
    def groups(self) -> NDArray[np.int64] | None:
        """A number for each row's group, shape (n,); None where rows stand alone or could not be had."""
        return None if self.rows is None else self.rows.group_ids


def read_both(first: RunSide, second: RunSide, task: Task, config: Config, *, needs_rows: bool) -> Pair:
    """Take what both runs predicted for their test rows when they ended.

    Args:
        first: A.
        second: B.
        task: The task, with the labels in A's order.
        config: Settings of which those of the data read the rows.
        needs_rows: Whether to stop where the rows themselves, for texts and columns, cannot be read any more.

    Returns:
        The predictions; with a note where the rows could not be read.

    Raises:
        DataError: The test rows are not the same, or are needed and cannot be read.
        RunError: The predictions of one of them were altered or are missing.
    """
    try:
        rows = _find_rows(first, task, config)
    except (UserInputError, EnvironmentUnfitError):
        if needs_rows:
            raise
        rows = None
    _check_same_rows(first, second, task, rows)
    before, after = read_test_predictions(first, task), read_test_predictions(second, task)
    if not before.are_of(after.ids, after.y):
        raise RunError(
            f"The predictions in {first.root} and {second.root} are of different rows, though their test rows were the "
            f"same: one was altered. {OTHER_ROWS}"
        )
    source = _name_test_rows(first)
    if rows is None:
        lost = first.record.data.source
        notes = [f"{lost} cannot be read as it was: there are no slices by length of the text or by column."]
        if config.data.group_column is not None:
            notes.append(
                f"Intervals take rows as independent, as the values of {config.data.group_column} cannot be had."
            )
        return Pair(task, source, before.y, before.values, after.values, None, tuple(notes))
    _check_predictions(first, before, rows)
    return Pair(task, source, before.y, before.values, after.values, rows)


def predict_test_rows(first: Side, second: Side, task: Task, config: Config, progress: Progress) -> Pair:
    """Take what the run predicted for its test rows when it ended, and let the exported model predict them.

    Args:
        first: A.
        second: B; one of the two is a run.
        task: The task, with the labels in A's order.
        config: Settings of which those of the data read the rows.
        progress: Told how many texts are done.

    Returns:
        The predictions.

    Raises:
        DataError: The test rows are not the same, or cannot be read any more.
        RunError: The predictions of the run were altered or are missing.
    """
    run = next(side for side in (first, second) if isinstance(side, RunSide))
    try:
        kept, rows = read_test_predictions(run, task), _find_rows(run, task, config)
    except (UserInputError, EnvironmentUnfitError) as error:
        raise DataError(f"The exported model cannot predict the run's test rows: {error}\n{OTHER_ROWS}") from error
    if rows is None:
        raise DataError(
            f"The exported model cannot predict the run's test rows: {run.record.data.source} has changed since "
            f"training. {OTHER_ROWS}"
        )
    _check_same_rows(first, second, task, rows)
    _check_predictions(run, kept, rows)
    before, after = (
        kept.values if side is run else _predict(side, name, rows, task, progress)
        for name, side in (("A", first), ("B", second))
    )
    return Pair(task, _name_test_rows(run), kept.y, before, after, rows)


def predict_with_both(
    first: Side, second: Side, task: Task, config: Config, data: str, group_column: str | None, progress: Progress
) -> Pair:
    """Let both predict other rows.

    Args:
        first: A.
        second: B.
        task: The task, with the labels in A's order.
        config: Settings of which those of the data read the rows.
        data: Where the rows come from.
        group_column: Its column whose values say which rows belong together, or None.
        progress: Told how many texts are done.

    Returns:
        The predictions.

    Raises:
        DataError: The rows cannot be read, or one of the two was trained, or chosen and calibrated, on rows of `data`.
    """
    rows = load_evaluation_rows(data, config.data, task, group_column=group_column).split
    for side in (first, second):
        _check_unseen(side, rows, task, data)
    runs = {side.root: side for side in (first, second) if isinstance(side, RunSide)}.values()
    told = (
        describe_training_texts(run.layout, run.record, rows) for run in runs if not _are_test_rows(run, rows, task)
    )
    notes = tuple(note for note in told if note is not None)
    before, after = (_predict(side, name, rows, task, progress) for name, side in (("A", first), ("B", second)))
    return Pair(task, data, rows.y, before, after, rows, notes)


def _check_same_rows(first: Side, second: Side, task: Task, rows: Split | None) -> None:
    """Refuse sides with different test rows.

    Fingerprints hold encoded labels, so that those of sides with their labels in another order are compared with that
    of the rows, one of the sides' test rows encoded by `task`; None where they could not be read as they were.
    """
    if first.task == second.task:
        is_same = first.test_fingerprint == second.test_fingerprint
    elif rows is None:
        raise DataError(
            f"{first.root} and {second.root} have their labels in another order, so that only the rows could tell "
            f"whether both were measured on the same, and their source cannot be read as it was. {OTHER_ROWS}"
        )
    else:
        is_same = all(_are_test_rows(side, rows, task) for side in (first, second))
    if not is_same:
        raise DataError(
            f"{first.root} and {second.root} were measured on different test rows. Give labelled rows "
            "that neither was trained on, which both then predict: lorafit diff A B DATA"
        )


def _name_test_rows(side: RunSide) -> str:
    """Return the file that a run's test rows are from, or the source that they were cut from."""
    return side.config.data.test or side.record.data.source


def _find_rows(side: RunSide, task: Task, config: Config) -> Split | None:
    """Read a run's test rows again, for their texts and columns; None where they have changed."""
    rows = load_evaluation_rows(config.data.source, config.data, task).split
    return rows if _are_test_rows(side, rows, task) else None


def _are_test_rows(side: Side, rows: Split, task: Task) -> bool:
    """Tell whether rows, encoded by `task`, are those a side was measured on."""
    own = side.task.encode(task.decode(rows.y))
    return Split(rows.ids, rows.texts, own).fingerprint() == side.test_fingerprint


def _check_predictions(side: RunSide, predictions: Predictions, rows: Split) -> None:
    """Refuse predictions that are not of the test rows."""
    if not predictions.are_of(rows.ids, rows.y):
        raise RunError(f"The predictions in {side.root} are not of its test rows: they were altered. {OTHER_ROWS}")


def _check_unseen(side: Side, rows: Split, task: Task, data: str) -> None:
    """Refuse a run's validation file, and rows of the source that it was trained on, but for its own test rows."""
    if side.was_chosen_on(data):
        raise DataError(
            f"{data} is the validation file of {side.root}: its rows chose and calibrated that model. Give a "
            "file with other labelled rows: lorafit diff A B DATA"
        )
    if side.was_trained_on(data) and not _are_test_rows(side, rows, task):
        raise DataError(
            f"{side.root} was trained on {data}, and these rows are not its test rows: rows that it was trained "
            "on could be among them. Give a file with other labelled rows: lorafit diff A B DATA"
        )


def _predict(side: Side, name: str, rows: Split, task: Task, progress: Progress) -> Array:
    """Return a side's values for rows, columns in the order of the task's labels."""
    is_fp32 = isinstance(side, RunSide) and side.record.hardware.precision == "fp32"
    predictor = load(side.root, precision="fp32" if is_fp32 else "auto", blend=side.blend)
    progress.start(f"measuring {name}", total=len(rows), unit="text")
    values = predictor.compute_values(rows.texts, on_progress=progress.update)
    progress.finish()
    return values[:, [predictor.task.label_names.index(label) for label in task.label_names]]
