"""Plots of how good a model is: by model, by label, by slice, and how its predictions lie."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lorafit.reports.contents import RunContents
from lorafit.reports.curves import Ranking, average_roc, rank_classes, thin
from lorafit.reports.drawing import AFTER, BEFORE, INK, THIRD, Plot, add_legend, new_figure, shorten, show_percent
from lorafit.tasks.base import Array
from lorafit.tasks.evaluation import LENGTH_COLUMN, find_weak_slices
from lorafit.tasks.format import Form, write_estimate, write_number, write_p_value
from lorafit.tasks.records import Estimate, SliceScores

if TYPE_CHECKING:
    from matplotlib.axes import Axes


MOST_CLASSES_IN_MATRIX = 12
"""With more classes the cells of a confusion matrix are too small to be read."""

STRONGEST = 0.5
"""Opacity of the fullest cell: the count on it stays readable, on light and on dark pages."""

_MOST_SLICES = 50
_MOST_LABELS = 30
_MOST_POINTS = 2000
_TABLE_ROWS = 21
_RATES = ("false positive rate", "true positive rate")
_QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)

Curve = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Coordinates across and up."""


def plot_scores(contents: RunContents) -> Iterator[Plot]:
    """Draw the primary metric of every model with its interval."""
    name, metric = contents.task.primary, contents.task.primary_metric
    scores = {model: scores.metrics[name] for model, scores in contents.scores.items()}
    models = {model: scores[model] for model in sorted(scores, key="after".__eq__)}
    figure, (axes,) = new_figure(0.9 + 0.36 * len(models))
    _draw_intervals(axes, models, metric.form, {model: AFTER if model == "after" else BEFORE for model in models})
    axes.set_xlabel(metric.title)
    level = f"{100 * contents.metrics.confidence_level:g} %"
    values = "; ".join(f"{model} {metric.write(value)}" for model, value in models.items())
    yield Plot(
        name=name,
        title=_capitalize(metric.title),
        caption=f"Points are what was measured, lines the {level} intervals."
        + ("" if metric.higher_is_better else " Lower is better."),
        label=f"{_capitalize(metric.title)} of each model with its {level} interval: {values}.",
        figure=figure,
        titles=("model", f"{metric.title} [{level} interval]"),
        rows=[[model, metric.write(value)] for model, value in models.items()],
    )


def plot_labels(contents: RunContents) -> Iterator[Plot]:
    """Draw the F1 of each label with its interval; of many labels, of those with the most rows."""
    present = [one for one in contents.metrics.after.per_class if one.support]
    if not present:
        return
    chosen = sorted(present, key=lambda one: -one.support)[:_MOST_LABELS]
    drawn = sorted(chosen, key=lambda one: one.f1.value)
    figure, (axes,) = new_figure(0.9 + 0.3 * len(drawn))
    _draw_intervals(axes, {f"{one.label} ({one.support:,})": one.f1 for one in drawn}, "percent")
    axes.set_xlabel("F1")
    caption = "F1 of each label after training with its interval, weakest first; in brackets, the rows that have it."
    if len(drawn) < len(present):
        caption += f" Of {len(present):,} labels with rows, the {len(drawn)} with the most rows are drawn."
    ends = [f"{shorten(one.label)} {write_estimate('percent', one.f1)}" for one in (drawn[0], drawn[-1])]
    yield Plot(
        name="labels",
        title="F1 of each label",
        caption=caption,
        label=f"F1 of {len(drawn)} label{'' if len(drawn) == 1 else 's'}: from {ends[0]} to {ends[1]}.",
        figure=figure,
        titles=("label", "rows", "F1"),
        rows=[[one.label, f"{one.support:,}", write_estimate("percent", one.f1)] for one in drawn],
    )


def plot_confusion(contents: RunContents) -> Iterator[Plot]:
    """Draw the confusion matrix before and after training, unless there are too many classes for one."""
    names = contents.task.label_names
    if len(names) > MOST_CLASSES_IN_MATRIX:
        return
    for when in contents.values:
        matrix = contents.scores[when].confusion_matrix
        right, rows = sum(matrix[place][place] for place in range(len(names))), sum(map(sum, matrix))
        figure, (axes,) = new_figure(3.0 if len(names) <= 4 else 4.4)
        _draw_matrix(axes, matrix, names)
        yield Plot(
            name=f"confusion_{when}",
            title=f"Confusion matrix {when}",
            caption="Each line is a true label, each column a predicted one; the darker, the larger the share of the "
            "line. The diagonal is right.",
            label=f"Confusion matrix {when} training: {right:,} of {rows:,} rows lie on the diagonal, which is right.",
            figure=figure,
            titles=("true \\ predicted", *names),
            rows=[[name, *(f"{cell:,}" for cell in row)] for name, row in zip(names, matrix, strict=True)],
        )


def plot_slices(contents: RunContents) -> Iterator[Plot]:
    """Draw the primary metric on the rows of each slice, a plot a column; slices shown to be weak stand out."""
    weak = find_weak_slices(contents.task, contents.metrics.slices, contents.metrics.confidence_level)
    columns = dict.fromkeys(one.column for one in contents.metrics.slices)
    for number, column in enumerate(columns, start=1):
        slices = [one for one in contents.metrics.slices if one.column == column]
        yield _plot_column(contents, f"slice{number}", column, slices, weak)


def plot_numbers(contents: RunContents) -> Iterator[Plot]:
    """Draw the predicted over the true numbers; of very many rows, of some."""
    true, predicted = contents.y, contents.after[:, 0]
    shown = np.arange(len(true))
    if len(true) > _MOST_POINTS:
        rng = np.random.default_rng(contents.config.evaluation.seed)
        shown = np.sort(rng.choice(len(true), size=_MOST_POINTS, replace=False))
    calibration = contents.metrics.calibration
    half_width = None if calibration is None else calibration.metrics["half_width"].value
    if half_width is not None and not half_width < float(np.ptp(np.concatenate([true, predicted]))):
        half_width = None  # the ends of such intervals lie outside of the figure
    figure, (axes,) = new_figure(4.6)
    _draw_points(axes, true[shown], predicted[shown], half_width)
    errors = np.abs(predicted - true)
    caption = "Each point is a row; on the line, the predicted number is the true one."
    if half_width is not None:
        caption += " Between the dashed lines the interval holds the true number."
    if len(shown) < len(true):
        caption += f" {len(shown):,} of {len(true):,} rows are drawn, chosen at random."
    yield Plot(
        name="predicted",
        title="Predicted and true numbers",
        caption=caption,
        label=f"Predicted over true numbers of {len(true):,} rows: the true ones reach {_span(true)}, the predicted "
        f"ones {_span(predicted)}; half of the rows are off by at most {write_number(float(np.median(errors)))}.",
        figure=figure,
        titles=("share of rows at or below", "true number", "predicted number", "off by"),
        rows=[
            [f"{share:.0%}", *(write_number(float(np.quantile(values, share))) for values in (true, predicted, errors))]
            for share in _QUANTILES
        ],
    )


def plot_roc(contents: RunContents) -> Iterator[Plot]:
    """Draw the ROC curve of the second of two classes, or the mean of several."""
    names, ranked = contents.task.label_names, _rank(contents)
    curves: dict[str, Curve] = {}
    for when, rankings in ranked.items():
        present = [one for one in rankings if one is not None]
        if present:
            second = (present[-1].false_positive_rate, present[-1].recall)
            curves[when] = second if len(names) == 2 else average_roc(rankings)
    if not curves:
        return
    figure, (axes,) = new_figure(3.6)
    axes.plot([0, 1], [0, 1], color=INK, linewidth=1, linestyle=":", label="by chance")
    _draw_curves(axes, curves)
    axes.set(xlabel=_RATES[0], ylabel=_RATES[1])
    areas = {when: [one.roc_area for one in ranked[when] if one is not None] for when in curves}
    area = "; ".join(f"{when} {np.mean(values):.4f}" for when, values in areas.items())
    what, titles, rows = f"of the label {names[1]}", ["model", *_RATES], _tabulate(curves)
    if len(names) > 2:
        what = "mean of all labels, each against the others"
        titles = ["label", *(f"{area}, {when}" for when in ranked for area in ("area under ROC", "average precision"))]
        rows = [[name, *_write_areas(place, ranked)] for place, name in enumerate(names)]
    yield Plot(
        name="roc",
        title="ROC curve",
        caption=f"How well the probability tells rows apart, {what}. Area under the curve: {area}.",
        label=f"ROC curve, {what}. Area under it: {area}.",
        figure=figure,
        titles=tuple(titles),
        rows=rows,
    )


def plot_precision_recall(contents: RunContents) -> Iterator[Plot]:
    """Draw precision over recall of the second of two classes; of more, each has its average precision in a table."""
    names = contents.task.label_names
    found = {when: rankings[1] for when, rankings in _rank(contents).items()} if len(names) == 2 else {}
    ranked = {when: one for when, one in found.items() if one is not None}
    if not ranked:
        return
    curves = {when: (one.recall[1:], one.precision[1:]) for when, one in ranked.items()}
    figure, (axes,) = new_figure(3.6)
    _draw_curves(axes, curves)
    axes.set(xlabel="recall", ylabel="precision", ylim=(None, 1.02))
    area = "; ".join(f"{when} {one.average_precision:.4f}" for when, one in ranked.items())
    yield Plot(
        name="precision_recall",
        title="Precision and recall",
        caption=f"Of the label {names[1]}: how many of the rows found are right, the more of them are found. Average "
        f"precision: {area}.",
        label=f"Precision over recall of the label {names[1]}. Average precision: {area}.",
        figure=figure,
        titles=("model", "recall", "precision"),
        rows=_tabulate(curves),
    )


def _plot_column(
    contents: RunContents, name: str, column: str, slices: Sequence[SliceScores], weak: Collection[SliceScores]
) -> Plot:
    task, primary = contents.task, contents.task.primary
    metrics = {name: task.metrics[name] for name in dict.fromkeys((primary, *task.slice_metrics))}
    drawn, metric, title = slices[:_MOST_SLICES], task.primary_metric, _capitalize(task.primary_metric.title)
    figure, (axes,) = new_figure(0.9 + 0.3 * len(drawn))
    values = {f"{one.value} ({one.rows:,})": one.metrics[primary] for one in drawn}
    colours = {f"{one.value} ({one.rows:,})": THIRD for one in drawn if one in weak}
    _draw_intervals(axes, values, metric.form, colours)
    axes.set_xlabel(metric.title)
    changes = metrics if slices[0].differences else {}
    what = "number of words" if column == LENGTH_COLUMN else f"column {shorten(column)}"
    listed = "; ".join(f"{one.value} ({one.rows:,} rows) {metric.write(one.metrics[primary])}" for one in drawn[:12])
    caption = f"{title} after training on the rows of each slice, with the number of rows. Each interval looks at one "
    caption += "slice alone: of twenty that do not differ, one may well seem to."
    if colours:
        caption += " Those in another colour are shown to be worse than all rows together."
    return Plot(
        name=name,
        title=f"By {what}",
        caption=caption,
        label=f"{title} by {what}: {listed}{'; and more' if len(drawn) > 12 else ''}.",
        figure=figure,
        titles=(
            column,
            "rows",
            *(metric.title for metric in metrics.values()),
            *(f"change of {metric.difference_title}" for metric in changes.values()),
            "adjusted p-value",
        ),
        rows=[
            [
                one.value,
                f"{one.rows:,}",
                *(metric.write(one.metrics[name]) for name, metric in metrics.items()),
                *(metric.write_difference(one.differences[name]) for name, metric in changes.items()),
                write_p_value(one.adjusted_p_value),
            ]
            for one in slices
        ],
    )


def _draw_intervals(
    axes: "Axes", values: Mapping[str, Estimate], form: Form, colours: Mapping[str, str] | None = None
) -> None:
    """Draw one line a value, the first on top, with names on the axis and some of them in other colours."""
    for place, (name, value) in enumerate(values.items()):
        colour = (colours or {}).get(name, AFTER)
        axes.plot([value.low, value.high], [place, place], color=colour)
        axes.plot([value.value], [place], color=colour, marker="o")
    axes.set_yticks(range(len(values)), [shorten(name, 32) for name in values])
    axes.set_ylim(len(values) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.locator_params(axis="x", nbins=4)
    if form == "percent":
        axes.set_xlim(right=min(axes.get_xlim()[1], 1.02))
        show_percent(axes.xaxis)


def _draw_matrix(axes: "Axes", matrix: Sequence[Sequence[int]], names: Sequence[str]) -> None:
    from matplotlib.patches import Rectangle

    count = len(names)
    size = {1: 13, 2: 13, 3: 12, 4: 11}.get(count, 8)
    for true, row in enumerate(matrix):
        total = sum(row)
        for predicted, cell in enumerate(row):
            share = STRONGEST * cell / total if total else 0.0
            axes.add_patch(Rectangle((predicted - 0.5, true - 0.5), 1, 1, color=AFTER, alpha=share, linewidth=0))
            axes.text(predicted, true, f"{cell:,}", ha="center", va="center", fontsize=size, color=INK)
    short, size = [shorten(name, 16 if count <= 4 else 12) for name in names], 11 if count <= 6 else 8
    axes.set_yticks(range(count), short, fontsize=size)
    axes.set_xticks(range(count), short, fontsize=size)
    if count > 3 and max(map(len, short)) > 3:
        axes.tick_params(axis="x", rotation=45)
        for label in axes.get_xticklabels():
            label.set_horizontalalignment("right")
    axes.set(xlabel="predicted", ylabel="true", xlim=(-0.5, count - 0.5), ylim=(count - 0.5, -0.5))
    axes.grid(visible=False)
    axes.tick_params(length=0)


def _draw_points(axes: "Axes", true: Array, predicted: Array, half_width: float | None) -> None:
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


def _draw_curves(axes: "Axes", curves: Mapping[str, Curve]) -> None:
    for when, curve in curves.items():
        across, up = thin(*curve)
        colour, style = (BEFORE, "--") if when == "before" else (AFTER, "-")
        axes.plot(across, up, color=colour, linestyle=style, label=when)
    show_percent(axes.xaxis)
    show_percent(axes.yaxis)
    add_legend(axes)


def _rank(contents: RunContents) -> dict[str, list[Ranking | None]]:
    return {when: rank_classes(contents.y, values) for when, values in contents.values.items()}


def _write_areas(place: int, ranked: Mapping[str, Sequence[Ranking | None]]) -> Iterator[str]:
    for rankings in ranked.values():
        one = rankings[place]
        yield from ("", "") if one is None else (f"{one.roc_area:.4f}", f"{one.average_precision:.4f}")


def _tabulate(curves: Mapping[str, Curve]) -> list[list[str]]:
    return [
        [when, f"{across:.1%}", f"{up:.1%}"]
        for when, curve in curves.items()
        for across, up in zip(*thin(*curve, most=_TABLE_ROWS), strict=True)
    ]


def _span(values: Array) -> str:
    return f"from {write_number(float(values.min()))} to {write_number(float(values.max()))}"


def _capitalize(title: str) -> str:
    return title[:1].upper() + title[1:]
