"""Figures of how many rows are right: of each model, of each class, of each slice."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from lorafit.cheap_baselines import CHEAP_BASELINES
from lorafit.evidence import AnySlice, Estimate, MetricsRecord, ModelScores, SliceScores
from lorafit.reports.drawing import AFTER, BEFORE, INK, Plot, new_figure, shorten, show_percent
from lorafit.reports.html import write_percent, write_points

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "MOST_CLASSES_IN_MATRIX",
    "STRONGEST",
    "draw_intervals",
    "draw_slices",
    "plot_accuracies",
    "plot_confusion",
    "plot_slices",
]

MOST_CLASSES_IN_MATRIX = 12
"""With more classes the cells of a confusion matrix are too small to be read."""

_MOST_SLICES = 50
STRONGEST = 0.5
"""Opacity of the fullest cell: the count on it stays readable, on light and on dark pages."""


def plot_accuracies(metrics: MetricsRecord) -> Plot:
    """Draw the accuracy of every model that was measured, with its interval.

    Args:
        metrics: The evidence.

    Returns:
        The plot.
    """
    models: dict[str, Estimate] = {}
    if metrics.baseline is not None:
        models["before"] = metrics.baseline.accuracy
    models |= {
        CHEAP_BASELINES.get(name, name): cheap.scores.accuracy for name, cheap in metrics.cheap_baselines.items()
    }
    models["after"] = metrics.finetuned.accuracy
    figure, (axes,) = new_figure(0.9 + 0.36 * len(models))
    draw_intervals(axes, models, colours={"after": AFTER})
    axes.set_xlabel("accuracy")
    level = f"{100 * metrics.confidence_level:g} %"
    values = "; ".join(f"{name} {write_percent(value)}" for name, value in models.items())
    return Plot(
        name="accuracy",
        title="Accuracy",
        caption=f"Points are what was measured, lines the {level} intervals.",
        label=f"Accuracy of each model with its {level} interval: {values}.",
        figure=figure,
        titles=("model", f"accuracy [{level} interval]"),
        rows=[[name, write_percent(value)] for name, value in models.items()],
    )


def plot_slices(slices: Sequence[SliceScores], column: str) -> Plot:
    """Draw the accuracy on the rows of each slice of one column.

    Args:
        slices: The slices; those of other columns are passed over.
        column: The column.

    Returns:
        The plot, named after the column's place among all.
    """
    return draw_slices(
        slices,
        column,
        lambda one: one.accuracy,
        cells={
            "accuracy": lambda one: write_percent(one.accuracy),
            "change in points": lambda one: "" if one.difference is None else write_points(one.difference),
        },
    )


def draw_slices(
    slices: Sequence[AnySlice],
    column: str,
    measured: Callable[[AnySlice], Estimate],
    *,
    cells: Mapping[str, Callable[[AnySlice], str]],
    is_share: bool = True,
) -> Plot:
    """Draw a figure of the rows of each slice of one column.

    Args:
        slices: The slices; those of other columns are passed over.
        column: The column.
        measured: Gives the figure of a slice; where it is NaN, nothing is drawn beside the slice's name.
        cells: What stands in the table, by the titles of its columns; the first of them is the figure.
        is_share: Whether the figure is written in per cent.

    Returns:
        The plot, named after the column's place among all.
    """
    columns = list(dict.fromkeys(one.column for one in slices))
    shown = [one for one in slices if one.column == column]
    drawn = shown[:_MOST_SLICES]
    title, write = next(iter(cells.items()))
    figure, (axes,) = new_figure(0.9 + 0.3 * len(drawn))
    values = {f"{one.value} ({one.rows:,})": measured(one) for one in drawn}
    draw_intervals(axes, values, colours={}, is_share=is_share)
    axes.set_xlabel(title)
    what = "number of words" if column == "words" else f"column {shorten(column)}"
    listed = "; ".join(f"{one.value} ({one.rows:,} rows) {write(one)}" for one in drawn[:12])
    heading = title[:1].upper() + title[1:]
    return Plot(
        name=f"slice{columns.index(column) + 1}",
        title=f"By {what}",
        caption=f"{heading} after training on the rows of each slice, with the number of rows. Each interval looks at "
        "one slice alone: of twenty that do not differ, one may well seem to.",
        label=f"{heading} by {what}: {listed}{'; and more' if len(drawn) > 12 else ''}.",
        figure=figure,
        titles=(column, "rows", *cells),
        rows=[[one.value, f"{one.rows:,}", *(cell(one) for cell in cells.values())] for one in shown],
    )


def plot_confusion(scores: ModelScores, names: Sequence[str], when: str) -> Plot | None:
    """Draw a confusion matrix.

    Args:
        scores: Of the model.
        names: The classes.
        when: `before` or `after`.

    Returns:
        The plot; None where there are too many classes for one.
    """
    matrix, count = scores.confusion_matrix, len(names)
    if count > MOST_CLASSES_IN_MATRIX:
        return None
    figure, (axes,) = new_figure(3.0 if count <= 4 else 4.4)
    _draw_cells(axes, matrix)
    short = [shorten(name, 16 if count <= 4 else 12) for name in names]
    size = 11 if count <= 6 else 8
    axes.set_yticks(range(count), short, fontsize=size)
    axes.set_xticks(
        range(count), short, fontsize=size, rotation=0 if count <= 3 else 45, ha="center" if count <= 3 else "right"
    )
    axes.set(xlabel="predicted", ylabel="true", xlim=(-0.5, count - 0.5), ylim=(count - 0.5, -0.5))
    axes.grid(visible=False)
    axes.tick_params(length=0)
    right = sum(matrix[place][place] for place in range(count))
    rows = sum(map(sum, matrix))
    return Plot(
        name=f"confusion_{when}",
        title=f"Confusion matrix {when}",
        caption="Each line is a true class, each column what the model said; the darker, the larger the share of the "
        "line. The diagonal is right.",
        label=f"Confusion matrix {when} training: {right:,} of {rows:,} rows lie on the diagonal, which is right.",
        figure=figure,
        titles=("true \\ predicted", *names),
        rows=[[name, *(f"{cell:,}" for cell in row)] for name, row in zip(names, matrix, strict=True)],
    )


def draw_intervals(
    axes: "Axes", values: Mapping[str, Estimate], *, colours: Mapping[str, str], is_share: bool = True
) -> None:
    """Draw one line a value, the first on top, with names and values on the axes.

    Args:
        axes: The only panel of its figure.
        values: By their names.
        colours: Of some of them; the others then stand back.
        is_share: Whether they are shares, which are written in per cent.
    """
    for place, (name, value) in enumerate(values.items()):
        colour = colours.get(name, BEFORE if colours else AFTER)
        axes.plot([value.low, value.high], [place, place], color=colour)
        axes.plot([value.value], [place], color=colour, marker="o")
    axes.set_yticks(range(len(values)), [shorten(name, 32) for name in values])
    axes.set_ylim(len(values) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.locator_params(axis="x", nbins=4)
    if is_share:
        axes.set_xlim(right=min(axes.get_xlim()[1], 1.02))
        show_percent(axes.xaxis)


def _draw_cells(axes: "Axes", matrix: Sequence[Sequence[int]]) -> None:
    from matplotlib.patches import Rectangle

    size = {1: 13, 2: 13, 3: 12, 4: 11}.get(len(matrix), 8)
    for true, row in enumerate(matrix):
        total = sum(row)
        for predicted, cell in enumerate(row):
            share = STRONGEST * cell / total if total else 0.0
            axes.add_patch(Rectangle((predicted - 0.5, true - 0.5), 1, 1, color=AFTER, alpha=share, linewidth=0))
            axes.text(predicted, true, f"{cell:,}", ha="center", va="center", fontsize=size, color=INK)
