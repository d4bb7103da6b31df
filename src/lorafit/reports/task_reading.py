"""What a run folder holds for a report where a text has several labels or a number. No model is loaded."""

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lorafit.config import load_config
from lorafit.errors import RunError
from lorafit.metrics.multi_label import score_multi_label
from lorafit.metrics.regression import score_regression
from lorafit.reports.reading import FinishedRun, read_finished_record, read_history, read_predicted_rows
from lorafit.runs.folder import RunLayout
from lorafit.task_evidence import TaskMetricsRecord, TaskScores
from lorafit.task_figures import LEADING

__all__ = ["TaskContents", "read_task_run"]

_TOLERANCE: Final = 1e-6
"""By how much, as a share, a figure of the predictions may differ from that in the metrics."""


@dataclass(frozen=True)
class TaskContents(FinishedRun):
    """A finished run with several labels a text, or with a number.

    Attributes:
        metrics: The evidence.
    """

    metrics: TaskMetricsRecord

    @property
    def half_width(self) -> float | None:
        """How far intervals reach to each side of the numbers after training; None where there are none."""
        confidence = self.metrics.confidence
        width = None if confidence is None else confidence.figures.get("half_width")
        return None if width is None else width.value


def read_task_run(run: str | Path) -> TaskContents:
    """Read a finished run with several labels a text, or with a number.

    Args:
        run: The run folder.

    Returns:
        What is in it.

    Raises:
        RunError: The folder is not such a finished run, or something in it is missing, damaged or altered.
    """
    layout = RunLayout(Path(run).expanduser().resolve())
    record = read_finished_record(layout)
    metrics = TaskMetricsRecord.read(layout.metrics)
    measured = [one.figures for one in (metrics.finetuned, metrics.baseline) if one is not None]
    compared = [metrics.comparison, *(cheap.comparison for cheap in metrics.cheap_baselines.values())]
    leading = [*measured, *(one.differences for one in compared if one is not None)]
    leading += [one.figures for one in metrics.slices]
    if metrics.task != record.task or not all(LEADING[metrics.task] in figures for figures in leading):
        raise RunError(
            f"{layout.metrics} was altered: it does not hold the figures of a run with the task {record.task}."
        )
    agree = partial(_agree, metrics)
    predicted = read_predicted_rows(layout, record, metrics.finetuned, metrics.baseline, agree)
    return TaskContents(
        row_ids=predicted.row_ids,
        labels=predicted.labels,
        finetuned=predicted.finetuned,
        baseline=predicted.baseline,
        layout=layout,
        record=record,
        config=load_config(layout.config),
        history=read_history(layout.history),
        metrics=metrics,
    )


def _agree(metrics: TaskMetricsRecord, scores: TaskScores, labels: NDArray[Any], said: NDArray[np.float64]) -> bool:
    """Say whether predictions give the leading figure again, and the log loss, for which every probability counts."""
    found = score_regression(labels, said[:, 0]) if metrics.task == "regression" else score_multi_label(labels, said)
    held = {LEADING[metrics.task], "log_loss"} & scores.figures.keys()
    return len(labels) == metrics.rows and all(
        math.isclose(found[name], scores.figures[name].value, rel_tol=_TOLERANCE) for name in held
    )
