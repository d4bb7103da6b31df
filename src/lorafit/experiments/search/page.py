"""`search.html`: what was tried, what came of it and which settings mattered, in one file that needs no network."""

from collections.abc import Iterator, Mapping
from html import escape
from pathlib import PureWindowsPath
from typing import Any

from lorafit.experiments.search.records import SearchRecord, TrialRow
from lorafit.reports.html import render_document, render_table
from lorafit.system.text import format_duration
from lorafit.task_figures import name_figure, write_figure_value

__all__ = ["rank_trials", "render_page", "write_score", "write_value"]

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 760, 300, 70, 30, 20, 50
_ROW, _BARS = 30, 230


def render_page(record: SearchRecord) -> str:
    """Write the page.

    Args:
        record: The results.

    Returns:
        HTML, all that comes from outside escaped.
    """
    settings = list(record.space)
    titles = ("trial", "validation loss", name_figure(record.figure), *settings, "time", "state")
    parts = [
        f"<p>{escape(_verdict(record))}</p>",
        "<h2>Validation loss, trial by trial</h2>",
        '<div class="wide">',
        *_render_history(record.trials),
        "</div>",
        "<h2>Which settings mattered</h2>",
        '<div class="wide">',
        *_render_importances(record.importances),
        "</div>",
        "<h2>Trials</h2>",
        *render_table(titles, [_cells(row, record) for row in rank_trials(record.trials)]),
        "<h2>How it was done</h2>",
        f"<p>{escape(_describe(record))}</p>",
    ]
    return render_document("Search for settings", parts)


def rank_trials(trials: list[TrialRow]) -> list[TrialRow]:
    """Return the complete trials by validation loss, lowest first, then the others by number."""
    return sorted(
        trials, key=lambda row: (row.state != "complete", row.loss if row.state == "complete" else row.number)
    )


def write_value(value: object) -> str:
    """Write what a setting was set to."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def write_score(row: TrialRow, figure: str) -> str:
    """Write a trial's figure; nothing where it has none."""
    if row.score is None:
        return ""
    return write_figure_value(figure, row.score)


def _verdict(record: SearchRecord) -> str:
    if record.best is None:
        return "No trial has ended well yet."
    best = next(row for row in record.trials if row.number == record.best)
    counts = {state: sum(row.state == state for row in record.trials) for state in ("complete", "pruned", "failed")}
    ends = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    score = f" ({name_figure(record.figure)} {write_score(best, record.figure)})" if best.score is not None else ""
    return (
        f"Trial {best.number + 1} has the lowest validation loss, {best.loss:.4f}{score}, of "
        f"{len(record.trials)} trials ({ends}). The lowest of many is lower than it would be on other rows: a "
        "run with its settings, measured on test rows, tells how good it is."
    )


def _cells(row: TrialRow, record: SearchRecord) -> list[str]:
    return [
        str(row.number + 1),
        "" if row.loss is None else f"{row.loss:.4f}",
        write_score(row, record.figure),
        *(write_value(row.values[name]) if name in row.values else "" for name in record.space),
        "" if row.seconds is None else format_duration(row.seconds),
        _write_state(row),
    ]


def _write_state(row: TrialRow) -> str:
    if row.same_as is not None:
        return f"same as trial {row.same_as + 1}"
    return row.state if row.error is None else f"{row.state}: {row.error}"


def _render_history(trials: list[TrialRow]) -> Iterator[str]:
    """Draw every loss over the trial's number, and the lowest so far as a line."""
    shown = [(row, row.loss) for row in trials if row.loss is not None]
    if not shown:
        yield "<p>There is none yet.</p>"
        return
    low, high = min(loss for _, loss in shown), max(loss for _, loss in shown)
    last, span = max(row.number for row, _ in shown), (high - low) or 1e-3

    def place(number: int, loss: float) -> tuple[float, float]:
        across = _LEFT + (number / last if last else 0.5) * (_WIDTH - _LEFT - _RIGHT)
        return across, _HEIGHT - _BOTTOM - (loss - low) / span * (_HEIGHT - _TOP - _BOTTOM)

    label = "Validation loss of every trial; the figures are in the table"
    yield f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">'
    yield f'<path class="axis" fill="none" d="M{_LEFT - 10} {_TOP}V{_HEIGHT - _BOTTOM + 10}H{_WIDTH - _RIGHT + 10}"/>'
    for loss in (low, high):
        yield f'<text x="{_LEFT - 16}" y="{place(0, loss)[1] + 4:.0f}" text-anchor="end">{loss:.3f}</text>'
    steps: list[tuple[float, float]] = []
    lowest: float | None = None
    for row, loss in shown:
        if row.state == "complete" and (lowest is None or loss < lowest):
            steps += [place(row.number, lowest)] if lowest is not None else []
            steps.append(place(row.number, loss))
            lowest = loss
    if lowest is not None:
        steps.append(place(last, lowest))
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in steps)
    yield f'<polyline class="front" points="{points}"/>'
    for row, loss in shown:
        x, y = place(row.number, loss)
        kind = "pareto" if row.state == "complete" else "plain"
        title = f"trial {row.number + 1}, {row.state}: {loss:.4f}"
        yield f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="4"><title>{title}</title></circle>'
    yield f'<text x="{_LEFT}" y="{_HEIGHT - 8}">trials 1 to {last + 1}; grey: not complete; line: lowest so far</text>'
    yield "</svg>"


def _render_importances(importances: Mapping[str, float]) -> Iterator[str]:
    if not importances:
        yield "<p>That takes 20 trials that were trained to their end.</p>"
        return
    height = _ROW * len(importances) + 10
    label = "Share of each setting in what sets the best quarter of the trials apart"
    yield f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{label}">'
    for place, (name, share) in enumerate(importances.items()):
        top, wide = place * _ROW + 5, share * (_WIDTH - _BARS - 70)
        yield f'<text x="{_BARS - 10}" y="{top + 15}" text-anchor="end">{escape(name)}</text>'
        yield f'<rect class="pareto" x="{_BARS}" y="{top}" width="{max(wide, 1):.1f}" height="{_ROW - 10}"/>'
        yield f'<text x="{_BARS + max(wide, 1) + 8:.0f}" y="{top + 15}">{100 * share:.0f} %</text>'
    yield "</svg>"


def _describe(record: SearchRecord) -> str:
    rows = ", ".join(f"{count:,} {name}" for name, count in record.rows.items())
    space = "; ".join(f"{name}: {_describe_values(values)}" for name, values in record.space.items())
    versions = ", ".join(f"{name} {number}" for name, number in sorted(record.versions.items()))
    return (
        f"{PureWindowsPath(record.source).name}: {rows} rows. Base: {record.base_model}. Space: {space}. Importances "
        f"by PED-ANOVA over the complete trials. {record.cpu}. {versions}. {record.created}."
    )


def _describe_values(values: Any) -> str:  # noqa: ANN401 - as it stands in the record
    if isinstance(values, list):
        return ", ".join(map(write_value, values))
    return f"{write_value(values['low'])} to {write_value(values['high'])}{' (logarithmic)' if values['log'] else ''}"
