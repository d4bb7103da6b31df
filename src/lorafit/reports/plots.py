"""All plots of a report, and which of them a task has."""

from collections.abc import Callable, Iterator
from typing import Final

from lorafit.reports.calibration_plots import plot_reliability, plot_risk
from lorafit.reports.contents import RunContents
from lorafit.reports.drawing import Plot
from lorafit.reports.score_plots import (
    plot_confusion,
    plot_labels,
    plot_numbers,
    plot_precision_recall,
    plot_roc,
    plot_scores,
    plot_slices,
)
from lorafit.reports.training_plots import plot_learning, plot_loss

PLOTS: Final[dict[str, tuple[Callable[[RunContents], Iterator[Plot]], ...]]] = {
    "single_label": (
        *(plot_scores, plot_loss, plot_learning, plot_confusion, plot_reliability, plot_risk, plot_roc),
        *(plot_precision_recall, plot_slices),
    ),
    "multi_label": (plot_scores, plot_loss, plot_learning, plot_labels, plot_slices),
    "regression": (plot_scores, plot_loss, plot_learning, plot_numbers, plot_slices),
    "ordinal": (
        *(plot_scores, plot_loss, plot_learning, plot_confusion, plot_labels, plot_reliability, plot_risk),
        plot_slices,
    ),
}
"""By the name of the task: the one lookup by task that reports keeps. What was not measured has no plot."""


def build_plots(contents: RunContents) -> dict[str, Plot]:
    """Draw every plot that a run has data for, by their names, in the order of `PLOTS`."""
    return {plot.name: plot for draw in PLOTS[contents.task.name] for plot in draw(contents)}
