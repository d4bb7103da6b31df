"""Figures of what a model gives where a text has several labels or a number: predictions, labels, slices."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lorafit.evidence import ClassScores
from lorafit.labels import ClasslessTask
from lorafit.reports.drawing import AFTER, BEFORE, INK, Plot, new_figure, shorten
from lorafit.reports.html import write_percent
from lorafit.reports.score_plots import draw_intervals, draw_slices
from lorafit.task_evidence import TaskSliceScores
from lorafit.task_figures import (
    FIGURES,
    LEADING,
    name_difference,
    name_figure,
    write_difference,
    write_figure,
    write_value,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_labels", "plot_numbers", "plot_task_slices"]

_MOST_POINTS = 2000
_MOST_LABELS = 30
_QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


def plot_numbers(
    true: NDArray[np.float64], predicted: NDArray[np.float64], half_width: float | None, *, seed: int
) -> Plot:
    """Draw what was predicted over what is true.

    Args:
        true: Shape (n,), the true numbers, n at least 1.
        predicted: Shape (n,), those of the fine-tuned model.
        half_width: How far intervals reach from what was predicted, or None.
        seed: Chooses the rows that are drawn where there are too many.

    Returns:
        The plot; its table holds quantiles of all rows.
    """
    count = len(true)
    shown = np.arange(count)
    if count > _MOST_POINTS:
        shown = np.sort(np.random.default_rng(seed).choice(count, size=_MOST_POINTS, replace=False))
    figure, (axes,) = new_figure(4.6)
    everything = np.concatenate([true, predicted])
    if half_width is not None and not half_width < float(np.ptp(everything)):
        half_width = None  # the ends of such intervals lie outside of the figure
    _draw_points(axes, true[shown], predicted[shown], half_width)
    errors = np.abs(predicted - true)
    caption = "Each point is a row; on the line, what was predicted is what is true."
    if half_width is not None:
        caption += " Between the dashed lines the true number lies inside the interval."
    if len(shown) < count:
        caption += f" {len(shown):,} of {count:,} rows are drawn, chosen at random."
    return Plot(
        name="predicted",
        title="Predicted and true numbers",
        caption=caption,
        label=f"Predicted over true numbers of {count:,} rows: the true ones reach {_span(true)}, the predicted ones "
        f"{_span(predicted)}; half of the rows are off by at most {write_value(float(np.median(errors)))}.",
        figure=figure,
        titles=("share of rows at or below", "true number", "predicted number", "off by"),
        rows=[
            [f"{share:.0%}", *(write_value(float(np.quantile(values, share))) for values in (true, predicted, errors))]
            for share in _QUANTILES
        ],
    )


def plot_labels(scores: Sequence[ClassScores]) -> Plot | None:
    """Draw the F1 of each label with its interval; of many labels, of those with the most rows.

    Args:
        scores: Of each label.

    Returns:
        The plot; None where no row has a label.
    """
    present = [one for one in scores if one.support]
    if not present:
        return None
    chosen = sorted(present, key=lambda one: -one.support)[:_MOST_LABELS]
    drawn = sorted(chosen, key=lambda one: one.f1.value)
    figure, (axes,) = new_figure(0.9 + 0.3 * len(drawn))
    draw_intervals(axes, {f"{one.label} ({one.support:,})": one.f1 for one in drawn}, colours={})
    axes.set_xlabel("F1")
    caption = "F1 of each label after training with its interval, weakest first; in brackets, the rows that have it."
    if len(drawn) < len(present):
        caption += f" Of {len(present):,} labels with rows, the {len(drawn)} with the most rows are drawn."
    ends = [f"{shorten(one.label)} {write_percent(one.f1)}" for one in (drawn[0], drawn[-1])]
    return Plot(
        name="labels",
        title="F1 of each label",
        caption=caption,
        label=f"F1 of {len(drawn)} label{'' if len(drawn) == 1 else 's'}: from {ends[0]} to {ends[1]}.",
        figure=figure,
        titles=("label", "rows", "F1"),
        rows=[[one.label, f"{one.support:,}", write_percent(one.f1)] for one in drawn],
    )


def plot_task_slices(slices: Sequence[TaskSliceScores], column: str, task: ClasslessTask) -> Plot:
    """Draw the leading figure of the rows of each slice of one column.

    Args:
        slices: The slices; those of other columns are passed over.
        column: The column.
        task: What a text gets.

    Returns:
        The plot, named after the column's place among all; its table holds the other figures too.
    """
    leading = LEADING[task]
    names = [leading, *(name for name in slices[0].figures if name != leading)]
    cells: dict[str, Callable[[TaskSliceScores], str]]
    cells = {name_figure(name): partial(_write_own, name) for name in names}
    if slices[0].differences:
        cells |= {f"change of {name_difference(name)}": partial(_write_change, name) for name in names}
    return draw_slices(
        slices, column, lambda one: one.figures[leading], cells=cells, is_share=FIGURES[leading].is_share
    )


def _draw_points(
    axes: "Axes", true: NDArray[np.float64], predicted: NDArray[np.float64], half_width: float | None
) -> None:
    low, high = float(min(true.min(), predicted.min())), float(max(true.max(), predicted.max()))
    room = 0.04 * (high - low) or max(abs(high), 1.0) * 0.1
    ends = np.array([low - room, high + room])
    size, opacity = (4.0, 0.8) if len(true) <= 200 else (2.5, 0.35)
    axes.plot(true, predicted, marker="o", markersize=size, markeredgewidth=0, linestyle="", color=AFTER, alpha=opacity)
    axes.plot(ends, ends, color=INK, linewidth=1)
    for shift in () if half_width is None else (-half_width, half_width):
        axes.plot(ends, ends + shift, color=BEFORE, linewidth=1, linestyle="--")
    axes.set(xlabel="true number", ylabel="predicted number", xlim=ends, ylim=ends, aspect="equal")
    axes.locator_params(nbins=6)


def _write_own(name: str, one: TaskSliceScores) -> str:
    return write_figure(name, one.figures[name]) if name in one.figures else ""


def _write_change(name: str, one: TaskSliceScores) -> str:
    return write_difference(name, one.differences[name]) if name in one.differences else ""


def _span(values: NDArray[np.float64]) -> str:
    return f"from {write_value(float(values.min()))} to {write_value(float(values.max()))}"
