"""The contents of a run folder, read and checked once, for the report. No model is loaded."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lorafit.config import Config
from lorafit.data.loading import load_evaluation_rows
from lorafit.data.rows import Split
from lorafit.data.tables import read_table
from lorafit.errors import EnvironmentUnfitError, LorafitError, RunError
from lorafit.inference.mistakes import ExplainedMistake, MistakesRecord
from lorafit.runs.blends import name_calibration
from lorafit.runs.evidence import check_evidence, has_evidence, read_metrics, read_settings
from lorafit.runs.folder import RunLayout
from lorafit.runs.hub import locate_run
from lorafit.runs.predictions import parse_predictions
from lorafit.runs.records import RunRecord
from lorafit.system.digests import check_files
from lorafit.system.paths import AnyPath
from lorafit.system.text import Text
from lorafit.tasks.base import Array, Prediction, Task
from lorafit.tasks.labels import Label
from lorafit.tasks.records import Calibration, Comparison, MetricsRecord, Scores

_TOLERANCE = 1e-6
"""By how much, as a share, a metric of the predictions may differ from that in `metrics.json`."""


@dataclass(frozen=True)
class Measured:
    """What was measured of a model and of those beside it.

    Attributes:
        task: Its task.
        metrics: Its metrics on the n test rows.
    """

    task: Task
    metrics: MetricsRecord

    @property
    def scores(self) -> dict[str, Scores]:
        """The scores of every model by its name for people: `before`, `after`, and the titles of the baselines."""
        found = {} if self.metrics.before is None else {"before": self.metrics.before}
        found["after"] = self.metrics.after
        return found | {self.title_baseline(name): one.scores for name, one in self.metrics.baselines.items()}

    @property
    def comparisons(self) -> dict[str, Comparison]:
        """The fine-tuned model against each of the others, by the same names."""
        found = {} if self.metrics.comparison is None else {"before": self.metrics.comparison}
        return found | {self.title_baseline(name): one.comparison for name, one in self.metrics.baselines.items()}

    def title_baseline(self, name: str) -> str:
        """Return the title of a baseline."""
        return self.task.title_model(name)


@dataclass(frozen=True)
class RunContents(Measured):
    """A finished run.

    Attributes:
        layout: Its folder.
        record: What was done, with what, and what it cost.
        config: Its settings.
        row_ids: Shape (n,): number of each test row in its source.
        y: Their true labels, as `Task.encode` makes them.
        after: Values of the fine-tuned model, shape (n, labels).
        before: Those of the model before training, or None.
        calibration: That of the fine-tuned model, or None.
        mistakes: The words behind the worst predictions, by row id; empty where the record names no `mistakes.json`.
        history: What was logged in training, in order; empty where the record names no `history.jsonl`.
    """

    layout: RunLayout
    record: RunRecord
    config: Config
    row_ids: NDArray[np.int64]
    y: NDArray[Any]
    after: Array
    before: Array | None
    calibration: Calibration | None
    mistakes: Mapping[int, ExplainedMistake]
    history: tuple[dict[str, float], ...]

    @property
    def values(self) -> dict[str, Array]:
        """Values of `before`, where it was measured, and `after`."""
        return {name: values for name, values in (("before", self.before), ("after", self.after)) if values is not None}

    @cached_property
    def labels(self) -> tuple[Label, ...]:
        """The true labels of the rows."""
        return self.task.decode(self.y)

    def predict(self, place: int) -> dict[str, Prediction]:
        """Return the predictions of `before` and `after` for one row, by its place."""
        calibrations = {"after": self.calibration}  # before training, nothing was calibrated
        return {name: self.task.predict(values[place], calibrations.get(name)) for name, values in self.values.items()}


@dataclass(frozen=True)
class Texts:
    """The texts of the test rows, or why there are none.

    Attributes:
        texts: n texts, or pairs of texts, in the order of the rows, or None.
        reason: Why there are none, as a sentence for the page; empty where there are.
        detail: The same for whoever makes the page; it may name paths, which a page must not.
    """

    texts: tuple[Text, ...] | None
    reason: str = ""
    detail: str = ""


def read_run(run: AnyPath) -> RunContents:
    """Read a finished run.

    Args:
        run: The run folder.

    Returns:
        Its contents.

    Raises:
        RunError: The folder is not a finished run, or something in it is missing, damaged or altered.
    """
    layout = RunLayout(locate_run(run))
    record = RunRecord.read(layout.record)
    if record.status != "complete":
        raise RunError(
            f"{layout.root} is not a finished run: its status is '{record.status}'. Resume it first: "
            f"{layout.resume_command}"
        )
    task, metrics = record.build_task(), read_metrics(layout, record)
    if not _has_metrics_of(task, metrics):
        raise RunError(f"{layout.metrics} was altered: it does not hold the metrics of the task {task.name}.")
    row_ids, y, after = _read_predictions(layout, record, task, "after", metrics.after, metrics.rows)
    before = None
    if metrics.before is not None:
        same_ids, same_y, before = _read_predictions(layout, record, task, "before", metrics.before, metrics.rows)
        if not (np.array_equal(row_ids, same_ids) and np.array_equal(y, same_y)):
            raise RunError(
                f"{layout.predictions('test', 'before')} is of other rows than the predictions after training: one of "
                "the two files was altered."
            )
    return RunContents(
        layout=layout,
        record=record,
        config=read_settings(layout, record),
        task=task,
        metrics=metrics,
        row_ids=row_ids,
        y=y,
        after=after,
        before=before,
        calibration=_read_calibration(layout, record, task),
        mistakes=_read_mistakes(layout, record),
        history=_read_history(layout, record),
    )


def read_texts(contents: RunContents, *, wanted: bool = True, rows: Split | None = None) -> Texts:
    """Return the texts of the test rows, if they still are the rows that were measured.

    Args:
        contents: The run. It holds no texts: they are read from its source again.
        wanted: Whether texts are to be shown; `evaluation.report_texts` of the run must be true, too.
        rows: The test rows where they are at hand.

    Returns:
        The texts, or why there are none.
    """
    if not (wanted and contents.config.evaluation.report_texts):
        return Texts(None, "Texts are left out, as was asked for.")
    if rows is None:
        data = contents.config.data
        try:
            rows = load_evaluation_rows(data.source, data, contents.task).split
        except LorafitError as error:
            return Texts(None, "Texts are left out: the data could not be read again.", str(error))
    if rows.fingerprint() != contents.record.data.splits["test"].fingerprint:
        return Texts(
            None,
            "Texts are left out: the data have changed since the run.",
            f"The test rows of {contents.record.data.source} have another fingerprint than those measured.",
        )
    return Texts(rows.texts)


def _has_metrics_of(task: Task, metrics: MetricsRecord) -> bool:
    """Tell whether a record names the metrics of the task and no others."""
    paired = [metrics.comparison, *(one.comparison for one in metrics.baselines.values())]
    scores = [metrics.before, metrics.after, *(one.scores for one in metrics.baselines.values())]
    found = [one.metrics for one in scores if one is not None] + [one.differences for one in paired if one is not None]
    sliced = [one.metrics for one in metrics.slices] + [one.differences for one in metrics.slices if one.differences]
    calibration = metrics.calibration
    calibrated = set() if calibration is None else {*calibration.metrics, *calibration.raw, *calibration.asked}
    return (
        all(one.keys() == task.metrics.keys() for one in found)
        and all(one.keys() == set(task.slice_metrics) for one in sliced)
        and calibrated <= task.calibration_metrics.keys()
    )


def _read_predictions(
    layout: RunLayout, record: RunRecord, task: Task, model: str, scores: Scores, rows: int
) -> tuple[NDArray[np.int64], NDArray[Any], Array]:
    """Read row ids, `y` and values of one model, and check that they give its scores."""
    path = layout.predictions("test", model)
    check_evidence(layout, record, path)
    try:
        row_ids, y, values = parse_predictions(read_table(path).columns, task)
        task.check_values(values)
        is_whole = len(y) == rows and _gives(task, y, values, scores)
    except EnvironmentUnfitError:
        raise  # the machine is at fault, not the file
    except LorafitError as error:
        raise RunError(f"The predictions of {layout.root} cannot be read. {error}") from error
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise RunError(f"{path} was altered: it does not hold a true label and a prediction of every row.") from error
    if not is_whole:
        raise RunError(f"{path} was altered: its rows do not give the scores in {layout.metrics.name}.")
    return row_ids, y, values


def _gives(task: Task, y: NDArray[Any], values: Array, scores: Scores) -> bool:
    """Tell whether predictions give the primary metric again, and the log loss, on which every probability counts."""
    found = task.compute(task.row_statistics(y, values).sum(axis=0))
    return task.confusion_matrix(y, values) == scores.confusion_matrix and all(
        _is_close(float(found[name]), scores.metrics[name].value)
        for name in {task.primary, "log_loss"} & task.metrics.keys()
    )


def _is_close(found: float, recorded: float) -> bool:
    return math.isclose(found, recorded, rel_tol=_TOLERANCE) or (math.isnan(found) and math.isnan(recorded))


def _read_calibration(layout: RunLayout, record: RunRecord, task: Task) -> Calibration | None:
    """Read the calibration beside what was trained, which may have been moved away."""
    name = name_calibration(record, wanted=True)
    digest, path = record.files.get(name), layout.trained / name
    if digest is None or not path.is_file():
        return None
    check_files(layout.trained, {name: digest}, since="after training", source=layout.record)
    return task.calibration_type.read(path)


def _read_mistakes(layout: RunLayout, record: RunRecord) -> dict[int, ExplainedMistake]:
    """Read the explained mistakes by row id; none where the record names no file of them."""
    if not has_evidence(layout, record, layout.mistakes):
        return {}
    check_evidence(layout, record, layout.mistakes)
    return {mistake.row_id: mistake for mistake in MistakesRecord.read(layout.mistakes).mistakes}


def _read_history(layout: RunLayout, record: RunRecord) -> tuple[dict[str, float], ...]:
    """Read the numbers that were logged, line by line; none where the record names no file of them."""
    path = layout.history
    if not has_evidence(layout, record, path):
        return ()
    check_evidence(layout, record, path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        entries = [json.loads(line) for line in lines if line.strip()]
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{path} cannot be read: it is damaged.") from error
    return tuple(
        {name: float(value) for name, value in entry.items() if isinstance(value, int | float)}
        for entry in entries
        if isinstance(entry, dict)
    )
