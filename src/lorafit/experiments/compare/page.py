"""`comparison.html`: the methods in a table, and their scores over training time, in one file that needs no network."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import PureWindowsPath
from typing import TYPE_CHECKING

from lorafit.experiments.compare.records import ComparisonRecord, MethodRow, ScoredRow
from lorafit.models.methods import METHODS
from lorafit.reports import html
from lorafit.reports.drawing import (
    AFTER,
    BEFORE,
    Plot,
    add_legend,
    can_draw,
    drawn,
    label_points,
    new_figure,
    shorten,
    show_percent,
)
from lorafit.system.extras import install_line
from lorafit.system.text import format_duration
from lorafit.tasks.base import Metric
from lorafit.tasks.evaluation import CAUTION_OF_GROUPS
from lorafit.tasks.format import write_p_value
from lorafit.tasks.registry import get_task

if TYPE_CHECKING:
    from matplotlib.axis import Axis


_TICKS = {
    count * seconds: f"{count} {unit}"
    for unit, seconds, counts in (
        ("s", 1, (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30)),
        ("min", 60, (1, 2, 5, 10, 20, 30)),
        ("h", 3600, (1, 2, 5, 10)),
        ("days", 86_400, (1, 2, 5, 10)),
    )
    for count in counts
}
"""Round times by their seconds."""

_MOST_TICKS = 6


def render_page(record: ComparisonRecord) -> str:
    """Render the page; without matplotlib it has no plot, but says how to get it."""
    best = next((row for row in record.methods if row.method == record.best), None)
    columns = _list_columns(record)
    return html.render_page(
        "comparison.html",
        record=record,
        metric=record.metric.title,
        best=None if best is None else _title(best.method),
        score=None if best is None else record.metric.write(best.score),
        better=[_title(row.method) for row in record.methods if row.verdict == "better"],
        inconclusive=[_title(row.method) for row in record.methods if row.verdict == "inconclusive"],
        baselines=judge_baselines(record),
        titles=list(columns),
        rows=list(zip(*columns.values(), strict=True)),
        plot=plot_scores(record) if record.methods and can_draw() else None,
        install=install_line("report", shared=True),
        settings=_describe(record),
    )


def find_pareto(rows: Sequence[MethodRow], *, higher_is_better: bool) -> list[MethodRow]:
    """Return the methods that no other beats without training for longer, quickest first."""
    sign, front = 1 if higher_is_better else -1, list[MethodRow]()
    for row in sorted(rows, key=lambda row: (row.training_seconds, -sign * row.score.value)):
        if not front or sign * row.score.value > sign * front[-1].score.value:
            front.append(row)
    return front


def judge_baselines(record: ComparisonRecord) -> str:
    """Say which baselines are better than the best method, which may be, and which are worse.

    Args:
        record: The results.

    Returns:
        Up to three sentences; empty without baselines.
    """
    best, judged = _title(record.best or ""), defaultdict[str | None, list[str]](list)
    for row in record.baselines:
        judged[row.verdict].append(record.title_of(row))
    better, inconclusive, worse = (" and ".join(judged[verdict]) for verdict in ("better", "inconclusive", "worse"))
    sentences = [
        f"{better} {'are' if len(judged['better']) > 1 else 'is'} better than {best}." if better else "",
        f"{best} is not shown to be better than {inconclusive}." if inconclusive else "",
        f"{best} is better than {worse}." if worse else "",
    ]
    return " ".join(f"{sentence[0].upper()}{sentence[1:]}" for sentence in sentences if sentence)


def write_difference(metric: Metric, row: ScoredRow, *, separator: str = " ") -> str:
    """Write the difference from the best method; nothing where there is none."""
    return "" if row.difference is None else metric.write_difference(row.difference, separator=separator)


def plot_scores(record: ComparisonRecord) -> Plot:
    """Draw the score of each method with its interval over training time, and the Pareto front as a line.

    Args:
        record: The results, with one method at least.

    Returns:
        The plot.
    """
    metric = record.metric
    title, better = metric.title, "higher" if metric.higher_is_better else "lower"
    front = find_pareto(record.methods, higher_is_better=metric.higher_is_better)
    others = [row for row in record.methods if row not in front]
    with drawn():
        figure, (axes,) = new_figure(4.2)
        for rows, colour, style, name in ((others, BEFORE, "", "other methods"), (front, AFTER, "--", "Pareto front")):
            if rows:
                times, scores = [_seconds(row) for row in rows], [row.score for row in rows]
                axes.vlines(times, [one.low for one in scores], [one.high for one in scores], colour, linewidth=1)
                points = [one.value for one in scores]
                axes.plot(times, points, color=colour, marker="o", linestyle=style, linewidth=1, label=name)
        axes.set(xscale="log", xlabel="training time (logarithmic)", ylabel=title)
        axes.margins(0.08)
        _show_times(axes.xaxis, [_seconds(row) for row in record.methods])
        if metric.form == "percent":
            show_percent(axes.yaxis)
        add_legend(axes)
        label_points(
            axes, [(_seconds(row), row.score.value, shorten(_title(row.method), 18)) for row in (*front, *others)]
        )
    level = f"{100 * record.confidence_level:g} %"
    return Plot(
        name="scores",
        title=f"{title[:1].upper()}{title[1:]} against training time",
        caption=f"No other method is better than one on the Pareto front in less time; {better} is better. Vertical "
        f"lines are {level} intervals.",
        label=f"{title} of each method over its training time; {better} is better. On the Pareto front, quickest "
        f"first: {', '.join(_title(row.method) for row in front)}. The table above holds the numbers.",
        figure=figure,
    )


def _seconds(row: MethodRow) -> float:
    """Return the training time as a logarithmic axis can show it."""
    return max(row.training_seconds, 1e-3)


def _show_times(axis: "Axis", times: Sequence[float]) -> None:
    """Write times on a logarithmic axis: round ones, or both ends where fewer than two of these lie between them."""
    low, high = axis.get_view_interval()
    ticks = {seconds: text for seconds, text in _TICKS.items() if low <= seconds <= high}
    if len(ticks) < 2:
        ticks = {seconds: format_duration(seconds) for seconds in sorted({min(times), max(times)})}
    step = -(-len(ticks) // _MOST_TICKS)
    axis.set_ticks(list(ticks)[::step], list(ticks.values())[::step])
    axis.set_ticks([], minor=True)


def _list_columns(record: ComparisonRecord) -> dict[str, list[str]]:
    """Return the cells of each column: of the methods, then of the baselines; a column without any is left out."""
    metric, rows, baselines = record.metric, record.methods, record.baselines
    both, empty = [*rows, *baselines], [""] * len(baselines)
    test = get_task(record.task).wording.test + (f", {CAUTION_OF_GROUPS}" if record.grouped else "")
    columns = {
        "method": [*(_title(row.method) for row in rows), *map(record.title_of, baselines)],
        f"{metric.title}{'' if metric.higher_is_better else ' (lower is better)'}": [
            metric.write(row.score) for row in both
        ],
        "by seed": [
            *("; ".join(map(metric.write_value, row.score_by_seed[1:] and row.score_by_seed)) for row in rows),
            *empty,
        ],
        "validation loss": [*(f"{row.validation_loss:.4f}" for row in rows), *empty],
        f"{metric.difference_title} against the best": [
            *("best" if row.method == record.best else write_difference(metric, row) for row in rows),
            *(write_difference(metric, row) for row in baselines),
        ],
        test: ["" if row.p_value is None else write_p_value(row.p_value) for row in both],
        "adapter": [*(f"{row.parameters.adapter:,}" for row in rows), *empty],
        "head": [*(f"{row.parameters.head:,}" for row in rows), *empty],
        "on disk": [*(f"{row.bytes_on_disk / 1e6:.1f} MB" for row in rows), *empty],
        "training": [
            *(format_duration(row.training_seconds) for row in rows),
            *(format_duration(row.seconds) for row in baselines),
        ],
        "per epoch": [*(format_duration(row.epoch_seconds) for row in rows), *empty],
        "memory": [*(f"{row.peak_memory_bytes / 1e9:.1f} GB" for row in rows), *empty],
        "texts/s": [*(f"{row.texts_per_second:,.0f}" for row in rows), *empty],
    }
    return {title: cells for title, cells in columns.items() if any(cells)}


def _title(method: str) -> str:
    return METHODS[method].title if method in METHODS else method


def _describe(record: ComparisonRecord) -> list[tuple[str, str]]:
    model, epochs = record.settings["model"], record.settings["training"]["epochs"]
    rows = ", ".join(f"{count:,} {name}" for name, count in record.rows.items())
    return [
        ("data", f"{PureWindowsPath(record.source).name}: {rows} rows"),
        ("base model", record.base_model),
        ("inputs", f"at most {model['max_length']} tokens ({model['truncation']})"),
        ("training", "1 epoch" if epochs == 1 else f"{epochs:g} epochs"),
        (
            "intervals",
            f"{100 * record.confidence_level:g} % over the test rows; with several seeds, of the mean over them",
        ),
        ("times", "without the output of frozen layers, which is computed once for all methods"),
        (
            "machine",
            f"{record.cpu}, {record.threads} {'thread' if record.threads == 1 else 'threads'}, {record.precision}",
        ),
        ("versions", ", ".join(f"{name} {number}" for name, number in sorted(record.versions.items()))),
        ("created", record.created),
    ]
