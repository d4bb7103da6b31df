"""From the cells of a comparison to a row for each method and baseline."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from lorafit.data.rows import Split
from lorafit.experiments.compare.records import BaselineRow, MethodRow
from lorafit.runs.records import RunRecord, TrainingRecord
from lorafit.tasks.base import Array, Task
from lorafit.tasks.evaluation import compare, compare_means, estimate_mean, judge, judge_difference
from lorafit.tasks.records import Resampling


@dataclass(frozen=True)
class CellResult:
    """A finished cell.

    Attributes:
        record: That of its run.
        values: Of the test rows, shape (n, labels).
        bytes_on_disk: Size of its weights.
    """

    record: RunRecord
    values: Array
    bytes_on_disk: int

    @property
    def training(self) -> TrainingRecord:
        """What training cost."""
        if self.record.training is None:
            raise ValueError("a finished run has a training record")
        return self.record.training

    @property
    def validation_loss(self) -> float:
        """The lowest one; there are validation rows, because a comparison chooses by them."""
        if self.training.best_validation_loss is None:
            raise ValueError("a cell of a comparison has validation rows")
        return self.training.best_validation_loss


@dataclass(frozen=True)
class BaselineResult:
    """A trained baseline.

    Attributes:
        name: A key of `Task.baselines`.
        values: Of the test rows, shape (n, labels).
        seconds: Time of training and prediction.
    """

    name: str
    values: Array
    seconds: float


def summarise(
    cells: Sequence[CellResult], baselines: Sequence[BaselineResult], test: Split, task: Task, resampling: Resampling
) -> tuple[str | None, list[MethodRow], list[BaselineRow]]:
    """Average over seeds and compare with the best method on the same test rows.

    The best has the lowest mean validation loss: the test set is never used for selection. Intervals of several seeds
    are of the mean over them and over rows, not over seeds; `score_by_seed` shows how much seeds differ.

    Args:
        cells: The finished cells.
        baselines: The trained baselines.
        test: The n test rows.
        task: The task.
        resampling: Of the intervals, which are those of groups where test rows come in groups.

    Returns:
        The best method, or None without cells; a row for each method, in order of first appearance; a row for each
        baseline.
    """
    resampling = replace(resampling, groups=test.group_ids)
    methods: dict[str, list[CellResult]] = {}
    for cell in cells:
        methods.setdefault(cell.record.method, []).append(cell)
    losses = {method: fmean(cell.validation_loss for cell in own) for method, own in methods.items()}
    best = min(losses, key=lambda method: losses[method], default=None)
    reference = [] if best is None else [cell.values for cell in methods[best]]

    return (
        best,
        [
            MethodRow(
                method=method,
                seeds=[cell.record.seed for cell in own],
                validation_loss=losses[method],
                score_by_seed=[_measure(task, test, cell.values) for cell in own],
                **_score(task, test, [cell.values for cell in own], [] if method == best else reference, resampling),
                **_average_costs(own),
            )
            for method, own in methods.items()
        ],
        [
            BaselineRow(name=one.name, seconds=one.seconds, **_score(task, test, [one.values], reference, resampling))
            for one in baselines
        ],
    )


def _measure(task: Task, test: Split, values: Array) -> float:
    return float(task.compute(task.row_statistics(test.y, values).sum(axis=0))[task.primary])


def _score(
    task: Task, test: Split, models: Sequence[Array], best: Sequence[Array], resampling: Resampling
) -> dict[str, Any]:
    """Return the fields of a `ScoredRow`; `best` are the models to compare with, if any."""
    scored: dict[str, Any] = {"score": estimate_mean(task, test.y, models, resampling)}
    if len(best) == len(models) == 1:
        paired = compare(task, test.y, best[0], models[0], resampling)
        scored["difference"], scored["p_value"] = paired.differences[task.primary], paired.p_value
        scored["verdict"] = judge(task, paired, resampling.level)
    elif best:
        scored["difference"] = compare_means(task, test.y, best, models, resampling)
        scored["verdict"] = judge_difference(task.primary_metric, scored["difference"])
    return scored


def _average_costs(cells: Sequence[CellResult]) -> dict[str, Any]:
    records = [cell.record for cell in cells]
    return {
        "parameters": records[0].parameters,
        "bytes_on_disk": round(fmean(cell.bytes_on_disk for cell in cells)),
        "training_seconds": fmean(record.seconds["training"] for record in records),
        "epoch_seconds": fmean(
            cell.training.tokens / cell.training.tokens_per_second / cell.training.epochs for cell in cells
        ),
        "peak_memory_bytes": max(record.peak_memory_bytes for record in records),
        "texts_per_second": fmean(record.texts_per_second or 0.0 for record in records),
    }
