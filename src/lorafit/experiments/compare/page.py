"""`comparison.html`: the table of a comparison and its figure against cost, in one file that needs no network."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from html import escape
from math import log10
from pathlib import PureWindowsPath

from lorafit.cheap_baselines import cheap_baselines_for
from lorafit.evidence import Estimate
from lorafit.experiments.compare.records import CheapRow, ComparisonRecord, MethodRow
from lorafit.models.methods import METHODS
from lorafit.reports.html import render_document, render_table
from lorafit.system.text import format_duration
from lorafit.task_figures import (
    FIGURES,
    judge_difference,
    name_figure,
    write_difference,
    write_figure,
    write_figure_value,
)

__all__ = ["find_pareto", "judge_cheap_baselines", "render_page"]

_TITLES = (
    *("by seed", "validation loss", "against the best", "p", "adapter", "head", "on disk"),
    *("training", "an epoch", "memory", "texts/s"),
)
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 760, 380, 70, 130, 20, 50


def render_page(record: ComparisonRecord) -> str:
    """Write the page.

    Args:
        record: The results.

    Returns:
        HTML, all that comes from outside escaped.
    """
    title = name_figure(record.figure)
    rows = [
        *(_cells(row, record.figure) for row in record.methods),
        *(_cheap_cells(row, record) for row in record.cheap_baselines),
    ]
    parts = [
        f"<p>{escape(_verdict(record))}</p>",
        *render_table(("method", title, *_TITLES), rows),
        f"<h2>{escape(title[0].upper() + title[1:])} against training time</h2>",
        '<div class="wide">',
        *_render_plot(record.methods, record.figure),
        "</div>",
        *_render_failures(record),
        "<h2>How it was measured</h2>",
        f"<p>{escape(_describe(record))}</p>",
    ]
    return render_document("Methods compared", parts)


def find_pareto(rows: list[MethodRow], figure: str) -> list[MethodRow]:
    """Return the methods that no other beats in the figure without taking longer, quickest first."""
    sign, front = 1 if FIGURES[figure].is_higher_better else -1, list[MethodRow]()
    for row in sorted(rows, key=lambda row: (row.training_seconds, -sign * row.score.value)):
        if not front or sign * row.score.value > sign * front[-1].score.value:
            front.append(row)
    return front


def _verdict(record: ComparisonRecord) -> str:
    if record.best is None:
        return "No method ended well."
    best = next(row for row in record.methods if row.method == record.best)
    text = (
        f"{METHODS[best.method].title} has the lowest validation loss; on {record.rows['test']:,} test rows its "
        f"{name_figure(record.figure)} is {write_figure(record.figure, best.score)}."
    )
    judged = _group_by_verdict(record, {row.method: row.difference for row in record.methods})
    for verdict, words in (
        ("better", "Better on the test rows, which choose nothing"),
        ("unclear", "Not shown to differ"),
    ):
        if names := [METHODS[method].title for method in judged[verdict]]:
            text += f" {words}: {', '.join(names)}."
    return f"{text} {judge_cheap_baselines(record)}".strip()


def judge_cheap_baselines(record: ComparisonRecord) -> str:
    """Say which cheap baselines beat the best method, which may, and which it beats, as intervals have it.

    Args:
        record: The results.

    Returns:
        A sentence for each of the three that there is; empty without cheap baselines.
    """
    names = cheap_baselines_for(record.task)
    differences = {names.get(row.name, row.name): row.difference for row in record.cheap_baselines}
    judged = _group_by_verdict(record, differences)
    better, unclear, worse = judged["better"], judged["unclear"], judged["worse"]
    sentences = [
        f"{' and '.join(better)} {'are' if len(better) > 1 else 'is'} better than {record.best}." if better else "",
        f"{record.best} is not shown to be better than {' and '.join(unclear)}." if unclear else "",
        f"{record.best} is better than {' and '.join(worse)}." if worse else "",
    ]
    return " ".join(filter(None, sentences))


def _group_by_verdict(
    record: ComparisonRecord, differences: Mapping[str, Estimate | None]
) -> defaultdict[str, list[str]]:
    """Group names by what their difference from the best method shows: `better`, `worse` or `unclear`."""
    judged = defaultdict[str, list[str]](list)
    for name, difference in differences.items():
        if difference is not None:
            judged[judge_difference(record.figure, difference)].append(name)
    return judged


def _cells(row: MethodRow, figure: str) -> list[str]:
    return [
        METHODS[row.method].title if row.method in METHODS else row.method,
        write_figure(figure, row.score),
        "; ".join(write_figure_value(figure, value) for value in row.score_by_seed),
        f"{row.validation_loss:.4f}",
        "best" if row.difference is None else write_difference(figure, row.difference),
        "" if row.p_value is None else f"{row.p_value:.2g}",
        f"{row.parameters.adapter:,}",
        f"{row.parameters.head:,}",
        f"{row.bytes_on_disk / 1e6:.1f} MB",
        format_duration(row.training_seconds),
        format_duration(row.epoch_seconds),
        f"{row.peak_memory_bytes / 1e9:.1f} GB",
        f"{row.texts_per_second:,.0f}",
    ]


def _cheap_cells(row: CheapRow, record: ComparisonRecord) -> list[str]:
    title = cheap_baselines_for(record.task).get(row.name, row.name)
    difference = "" if row.difference is None else write_difference(record.figure, row.difference)
    before = [title, write_figure(record.figure, row.score), "", "", difference, *[""] * 4]
    return [*before, format_duration(row.seconds), "", "", ""]


def _render_plot(rows: list[MethodRow], figure: str) -> Iterator[str]:
    """Draw the figure with its interval over training time; what no other method beats is joined by a line."""
    if not rows:
        return
    times = [log10(max(row.training_seconds, 1e-3)) for row in rows]
    left, right = min(times) - 0.05, max(times) + 0.05
    low, high = min(row.score.low for row in rows), max(row.score.high for row in rows)
    pad = 0.05 * (high - low) or 0.01

    def place(row: MethodRow, value: float) -> tuple[float, float]:
        across = (log10(max(row.training_seconds, 1e-3)) - left) / (right - left)
        up = (value - low + pad) / (high - low + 2 * pad)
        return _LEFT + across * (_WIDTH - _LEFT - _RIGHT), _HEIGHT - _BOTTOM - up * (_HEIGHT - _TOP - _BOTTOM)

    front = find_pareto(rows, figure)
    better = "higher" if FIGURES[figure].is_higher_better else "lower"
    label = escape(f"{name_figure(figure)} against training time; {better} is better; the figures are in the table")
    yield f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">'
    yield f'<path class="axis" fill="none" d="M{_LEFT} {_TOP}V{_HEIGHT - _BOTTOM}H{_WIDTH - _RIGHT}"/>'
    for share in (0, 0.5, 1):
        value = low + share * (high - low)
        up = place(rows[0], value)[1] + 4
        yield f'<text x="{_LEFT - 8}" y="{up:.0f}" text-anchor="end">{write_figure_value(figure, value)}</text>'
    for row in (min(rows, key=lambda r: r.training_seconds), max(rows, key=lambda r: r.training_seconds)):
        across, words = place(row, low)[0], escape(format_duration(row.training_seconds))
        yield f'<text x="{across:.0f}" y="{_HEIGHT - _BOTTOM + 20}" text-anchor="middle">{words}</text>'
    yield f'<text x="{_LEFT}" y="{_HEIGHT - 8}">training time (logarithmic); {better} is better</text>'
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(row, row.score.value) for row in front))
    yield f'<polyline class="front" points="{points}"/>'
    for row in rows:
        (x, y), below, above = (
            place(row, row.score.value),
            place(row, row.score.low),
            place(row, row.score.high),
        )
        kind = "pareto" if row in front else "plain"
        yield f'<path class="bar" d="M{x:.1f} {below[1]:.1f}V{above[1]:.1f}"/>'
        yield f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="5"/>'
        yield f'<text x="{x + 9:.1f}" y="{y + 4:.1f}">{escape(row.method)}</text>'
    yield "</svg>"


def _render_failures(record: ComparisonRecord) -> Iterator[str]:
    if record.failed:
        yield "<h2>Failed</h2><ul>"
        for cell in record.failed:
            yield f"<li>{escape(cell.method)}, seed {cell.seed}: {escape(cell.error or '')}</li>"
        yield "</ul>"


def _describe(record: ComparisonRecord) -> str:
    rows = ", ".join(f"{count:,} {name}" for name, count in record.rows.items())
    versions = ", ".join(f"{name} {number}" for name, number in sorted(record.versions.items()))
    model, count = record.settings["model"], record.settings["training"]["epochs"]
    epochs = "1 epoch" if count == 1 else f"{count:g} epochs"
    return (
        f"{PureWindowsPath(record.source).name}: {rows} rows. Base: {record.base_model}; inputs of at most "
        f"{model['max_length']} tokens ({model['truncation']}), {epochs}. In brackets: "
        f"{100 * record.confidence_level:g} % bootstrap intervals over the test rows; of several seeds, the "
        "mean over them. What frozen layers give is computed once for all and left out of the "
        "times. Times on "
        f"{record.cpu} with {record.threads} {'thread' if record.threads == 1 else 'threads'}, {record.precision}. "
        f"{versions}. {record.created}."
    )
