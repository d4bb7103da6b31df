"""What a run folder holds for a report where a text has several labels or a number. No model is loaded."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lorafit.artifacts import RunLayout, RunRecord
from lorafit.config import Config, load_config
from lorafit.data.tables import read_table
from lorafit.errors import LorafitError, RunError
from lorafit.report.reading import read_finished_record, read_history
from lorafit.task_evidence import TaskMetricsRecord
from lorafit.task_figures import LEADING

__all__ = ["PredictedNumbers", "TaskContents", "read_task_run"]

_TOLERANCE = 1e-4
"""By how much, as a share, the error of the predictions may differ from that in the metrics."""


@dataclass(frozen=True)
class PredictedNumbers:
    """Numbers of the n test rows.

    Attributes:
        true: Shape (n,): the true ones.
        predicted: Shape (n,): those of the fine-tuned model.
    """

    true: NDArray[np.float64]
    predicted: NDArray[np.float64]


@dataclass(frozen=True)
class TaskContents:
    """A finished run as it lies on disk.

    Attributes:
        layout: Where it lies.
        record: What was done, with what, and what it cost.
        config: All settings.
        metrics: The evidence.
        history: What was logged while it trained, in order; empty without `history.jsonl`.
        numbers: Of a regression, true and predicted numbers; else None.
    """

    layout: RunLayout
    record: RunRecord
    config: Config
    metrics: TaskMetricsRecord
    history: tuple[dict[str, float], ...]
    numbers: PredictedNumbers | None


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
    compared = [metrics.comparison, *(cheap.comparison for cheap in metrics.cheap_baselines.values())]
    leading = [metrics.finetuned.figures, *(one.differences for one in compared if one is not None)]
    leading += [one.figures for one in metrics.slices]
    if metrics.task != record.task or not all(LEADING[metrics.task] in figures for figures in leading):
        raise RunError(
            f"{layout.metrics} was altered: it does not hold the figures of a run with the task {record.task}."
        )
    return TaskContents(
        layout=layout,
        record=record,
        config=load_config(layout.config),
        metrics=metrics,
        history=read_history(layout.history),
        numbers=_read_numbers(layout, metrics) if metrics.task == "regression" else None,
    )


def _read_numbers(layout: RunLayout, metrics: TaskMetricsRecord) -> PredictedNumbers:
    """Read true and predicted numbers of the test rows, and hold them against what was measured."""
    path = layout.predictions("test", "finetuned")
    try:
        columns = read_table(path).columns
        true, predicted = (np.array(columns[name], dtype=np.float64) for name in ("true_value", "value"))
    except LorafitError as error:
        raise RunError(f"The predictions of {layout.root} cannot be read. {error}") from error
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise RunError(f"{path} was altered: it does not hold a true and a predicted number for every row.") from error
    measured = metrics.finetuned.figures[LEADING["regression"]].value
    found = float(np.abs(predicted - true).mean()) if 0 < len(true) == metrics.rows else np.nan
    room = _TOLERANCE * measured + 1e-9 * float(np.abs(true).max(initial=0))
    if not abs(found - measured) <= room:
        raise RunError(f"{path} was altered: its rows do not give the mean error in {layout.metrics.name}.")
    return PredictedNumbers(true, predicted)
