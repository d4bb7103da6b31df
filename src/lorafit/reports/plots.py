"""All figures of a report."""

from collections.abc import Iterator

from lorafit.reports.confidence_plots import plot_precision_recall, plot_reliability, plot_risk, plot_roc
from lorafit.reports.curves import Ranking
from lorafit.reports.drawing import Plot
from lorafit.reports.reading import RunContents
from lorafit.reports.score_plots import plot_accuracies, plot_confusion, plot_slices
from lorafit.reports.training_plots import plot_learning, plot_loss

__all__ = ["build_plots"]


def build_plots(contents: RunContents, rankings: dict[str, list[Ranking | None]]) -> dict[str, Plot]:
    """Draw every figure that a run has figures for.

    Args:
        contents: The run.
        rankings: How well each class is ranked, by `before` and `after`.

    Returns:
        The plots by their names, in the order of the page. What was not measured has none.
    """
    return {plot.name: plot for plot in _draw(contents, rankings) if plot is not None}


def _draw(contents: RunContents, rankings: dict[str, list[Ranking | None]]) -> Iterator[Plot | None]:
    metrics, names = contents.metrics, contents.names
    yield plot_accuracies(metrics)
    yield plot_loss(contents.history, contents.record.training)
    yield plot_learning(contents.history)
    if metrics.baseline is not None:
        yield plot_confusion(metrics.baseline, names, "before")
    yield plot_confusion(metrics.finetuned, names, "after")
    if metrics.confidence is not None:
        yield plot_reliability(metrics.confidence)
        yield plot_risk(metrics.confidence, metrics.confidence_level)
    yield plot_roc(rankings, names)
    yield plot_precision_recall(rankings, names)
    for column in dict.fromkeys(one.column for one in metrics.slices):
        yield plot_slices(metrics.slices, column)
