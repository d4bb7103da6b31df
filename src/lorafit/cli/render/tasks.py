"""What is printed of a model that gives several labels a text, or a number."""

from collections.abc import Callable, Iterator

from rich import box
from rich.console import Console
from rich.table import Table

from lorafit.cheap_baselines import cheap_baselines_for
from lorafit.cli.render.slices import print_slices
from lorafit.cli.render.tables import print_fitting
from lorafit.evidence import ClassScores, Estimate
from lorafit.system.text import clean_text
from lorafit.task_evidence import TaskComparison, TaskConfidence, TaskMetricsRecord, TaskScores, TaskSliceScores
from lorafit.task_figures import (
    LEADING,
    describe_rows,
    judge_task,
    name_figure,
    strength_of,
    write_figure,
    write_value,
)

__all__ = ["VERDICTS", "print_task_metrics"]

_FEW_ROWS = 100
_SHOWN_LABELS = 20
"""Of more labels, those with the most rows are shown."""

_SHARE = "micro_f1"
"""A figure that is written as precision and recall are."""

_LONGEST_NAME = 40
VERDICTS = {"better": "Better than", "worse": "Worse than", "unclear": "Not shown to be better than"}
"""What is said of a model against another, by `judge` and `judge_task`."""


def print_task_metrics(console: Console, metrics: TaskMetricsRecord, *, with_slices: bool = False) -> None:
    """Print figures before and after, verdicts, and how far the answers can be believed.

    Args:
        console: Where to.
        metrics: The evidence.
        with_slices: Whether to print the figures by length and by column too.
    """
    level = f"{100 * metrics.confidence_level:g} % interval"
    rows = f"{metrics.rows:,} row{'' if metrics.rows == 1 else 's'}"
    console.print(f"Measured on {rows} of {clean_text(metrics.split)} ({level} in brackets)", style="italic")
    print_fitting(console, lambda separator: _build_table(metrics, separator=separator))
    labels = len(metrics.finetuned.per_class)
    if (left := labels - _SHOWN_LABELS) > 0:
        console.print(f"Of {labels:,} labels the {_SHOWN_LABELS} with the most rows are shown, {left:,} are not.")
    for line in _list_verdicts(metrics):
        console.print(line)
    if metrics.rows < _FEW_ROWS:
        few = "1 row is little" if metrics.rows == 1 else f"{metrics.rows} rows are few"
        console.print(f"{few}: all of this is uncertain, and the intervals may be too narrow.")
    if metrics.confidence is not None:
        for line in _describe_confidence(metrics.confidence):
            console.print(line)
    if with_slices:
        _print_slices(console, metrics)


def _build_table(metrics: TaskMetricsRecord, *, separator: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("", overflow="fold")
    if metrics.baseline is not None:
        table.add_column("before", justify="right", no_wrap=True)
    table.add_column("after", justify="right", no_wrap=True)
    if metrics.comparison is not None:
        table.add_column("difference", justify="right", no_wrap=True)
    models = [scores for scores in (metrics.baseline, metrics.finetuned) if scores is not None]
    for name in metrics.finetuned.figures:
        cells = [_write(name, model.figures.get(name), separator) for model in models]
        if metrics.comparison is not None:
            cells.append(_write(name, metrics.comparison.differences.get(name), separator, sign=True))
        table.add_row(name_figure(name), *cells)
    empty = [""] if metrics.comparison is not None else []
    for one in _choose_labels(metrics.finetuned):
        label = clean_text(one.label, most=_LONGEST_NAME)
        found = [next((other for other in model.per_class if other.label == one.label), None) for model in models]
        precisions = [_write(_SHARE, None if scores is None else scores.precision, separator) for scores in found]
        recalls = [_write(_SHARE, None if scores is None else scores.recall, separator) for scores in found]
        table.add_row(f"precision {label}", *precisions, *empty)
        table.add_row(f"recall {label}", *recalls, *empty)
    return table


def _print_slices(console: Console, metrics: TaskMetricsRecord) -> None:
    leading = LEADING[metrics.task]
    cells: dict[str, Callable[[TaskSliceScores, str], str]] = {
        name_figure(leading): lambda one, separator: write_figure(leading, one.figures[leading], separator=separator)
    }
    if any(one.differences for one in metrics.slices):
        cells["difference"] = lambda one, separator: _write(leading, one.differences.get(leading), separator, sign=True)
    print_slices(
        console,
        metrics.slices,
        f"{name_figure(leading)} by length of the text and by column",
        cells=cells,
        strength=lambda one: strength_of(one, metrics.task),
    )


def _choose_labels(scores: TaskScores) -> list[ClassScores]:
    if len(scores.per_class) <= _SHOWN_LABELS:
        return scores.per_class
    return sorted(scores.per_class, key=lambda one: -one.support)[:_SHOWN_LABELS]


def _write(name: str, estimate: Estimate | None, separator: str, *, sign: bool = False) -> str:
    return "" if estimate is None else write_figure(name, estimate, sign=sign, separator=separator)


def _list_verdicts(metrics: TaskMetricsRecord) -> Iterator[str]:
    if metrics.comparison is not None:
        yield _judge(metrics.comparison, "before", metrics)
    names, leading = cheap_baselines_for(metrics.task), LEADING[metrics.task]
    for name, cheap in metrics.cheap_baselines.items():
        own = _write(leading, cheap.scores.figures.get(leading), " ")
        difference = _write(leading, cheap.comparison.differences.get(leading), " ", sign=True)
        verdict = _judge(cheap.comparison, names.get(name, name), metrics)
        yield f"{verdict} Its {name_figure(leading)}: {own}; difference: {difference}."


def _judge(paired: TaskComparison, other: str, metrics: TaskMetricsRecord) -> str:
    """Say in a sentence whether the fine-tuned model is better than another."""
    verdict = VERDICTS[judge_task(paired, metrics.task, metrics.confidence_level)]
    return f"{verdict} {other}: {describe_rows(paired, metrics.task)}."


def _describe_confidence(confidence: TaskConfidence) -> Iterator[str]:
    figures, rows = confidence.figures, f"{confidence.calibration_rows:,} rows"
    if "ece" in figures:
        raw = f"{100 * figures['ece_raw'].value:.1f} % before calibration, " if "ece_raw" in figures else ""
        yield (
            f"Probabilities are off by {write_figure(_SHARE, figures['ece'])} on average over all decisions (expected "
            f"calibration error; {raw}from {rows})."
        )
    if "coverage" in figures and confidence.coverage_asked is not None:
        width = f" of ±{write_value(figures['half_width'].value)}" if "half_width" in figures else ""
        yield (
            f"Intervals{width} hold the true number in {write_figure(_SHARE, figures['coverage'])} of rows; asked for: "
            f"{100 * confidence.coverage_asked:g} % (from {rows})."
        )
