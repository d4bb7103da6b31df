"""`search.html`: every trial, the best one, and which settings mattered, in one file that needs no network."""

import math
from collections.abc import Mapping, Sequence
from pathlib import PureWindowsPath
from typing import Any

from lorafit.experiments.search.records import SearchRecord, TrialRow
from lorafit.reports import html
from lorafit.reports.drawing import AFTER, BEFORE, Plot, add_legend, can_draw, drawn, new_figure, shorten, show_percent
from lorafit.system.extras import install_line
from lorafit.system.text import format_duration
from lorafit.tasks.base import Metric

_STATES = ("complete", "pruned", "failed", "running")


def render_page(record: SearchRecord) -> str:
    """Render the page; without matplotlib it has no plots, but says how to get them."""
    best = next((row for row in record.trials if row.number == record.best), None)
    counts = {state: sum(row.state == state for row in record.trials) for state in _STATES}
    has_losses = any(_has_loss(row) for row in record.trials)
    metric = f"validation {record.metric.title}"
    return html.render_page(
        "search.html",
        record=record,
        metric=metric,
        best=best,
        score="" if best is None else write_score(record.metric, best),
        states=", ".join(f"{count:,} {state}" for state, count in counts.items() if count),
        has_losses=has_losses,
        history=plot_history(record.trials) if has_losses and can_draw() else None,
        importances=plot_importances(record.importances) if record.importances and can_draw() else None,
        shares=_list_shares(record.importances),
        install=install_line("report", shared=True),
        titles=("trial", "validation loss", metric, *record.space, "time", "state"),
        rows=[_list_cells(row, record) for row in rank_trials(record.trials)],
        failed=[row for row in record.trials if row.error is not None and row.same_as is None],
        space=[(name, _describe_values(values)) for name, values in record.space.items()],
        settings=_describe(record),
    )


def rank_trials(trials: list[TrialRow]) -> list[TrialRow]:
    """Return the complete trials by validation loss, lowest first, then the others by number."""
    return sorted(
        trials, key=lambda row: (row.state != "complete", row.loss if row.state == "complete" else row.number)
    )


def write_value(value: object) -> str:
    """Write the value of a setting."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def write_score(metric: Metric, row: TrialRow) -> str:
    """Write the primary metric of a trial; nothing where it was not measured."""
    return "" if row.score is None else metric.write_value(row.score)


def plot_history(trials: Sequence[TrialRow]) -> Plot:
    """Draw the loss of every trial over its number, and the lowest so far as a line.

    Args:
        trials: One of them, at least, has a finite loss.

    Returns:
        The plot.
    """
    shown = [(row, row.loss) for row in trials if row.loss is not None and math.isfinite(row.loss)]
    complete = [(row.number + 1, loss) for row, loss in shown if row.state == "complete"]
    others = [(row.number + 1, loss) for row, loss in shown if row.state != "complete"]
    with drawn():
        figure, (axes,) = new_figure(3.4)
        if complete:
            axes.plot(
                *zip(*complete, strict=True), color=AFTER, marker="o", markersize=5, linestyle="", label="complete"
            )
            losses = [loss for _, loss in complete]
            lowest = [min(losses[: place + 1]) for place in range(len(losses))]
            numbers = [number for number, _ in complete]
            last = max(row.number for row, _ in shown) + 1
            axes.step(
                [*numbers, last],
                [*lowest, lowest[-1]],
                where="post",
                color=AFTER,
                linewidth=1,
                linestyle="--",
                label="lowest so far",
            )
        if others:
            axes.plot(*zip(*others, strict=True), color=BEFORE, marker="x", linestyle="", label="not complete")
        axes.set(xlabel="trial", ylabel="validation loss")
        axes.locator_params(axis="x", integer=True)
        axes.set_xlim(left=0.5)
        add_legend(axes)
    return Plot(
        name="history",
        title="Validation loss by trial",
        caption="Lowest validation loss of each trial; of one that is not complete, until it ended.",
        label=f"Validation loss of {len(shown):,} trials and the lowest so far; the table below holds the numbers.",
        figure=figure,
    )


def plot_importances(importances: Mapping[str, float]) -> Plot:
    """Draw the importance of each setting as a bar.

    Args:
        importances: Share of each setting, as in `SearchRecord.importances`; at least one.

    Returns:
        The plot.
    """
    names, shares = [shorten(name, 28) for name in importances], list(importances.values())
    with drawn():
        figure, (axes,) = new_figure(0.9 + 0.36 * len(shares))
        bars = axes.barh(range(len(shares)), shares, color=AFTER, height=0.6)
        axes.bar_label(bars, [f"{100 * share:.0f} %" for share in shares], padding=4)
        axes.set_yticks(range(len(shares)), names)
        axes.set(ylim=(len(shares) - 0.5, -0.5), xlim=(0, 1.15 * max(shares)))
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
        axes.locator_params(axis="x", nbins=4)
        show_percent(axes.xaxis)
    rows = _list_shares(importances)
    return Plot(
        name="importances",
        title="Importance of each setting",
        caption="How much each setting contributes to a trial being among the best quarter (PED-ANOVA).",
        label=f"Importance of each setting: {'; '.join(f'{name} {share}' for name, share in rows)}.",
        figure=figure,
        titles=("setting", "importance"),
        rows=rows,
    )


def _has_loss(row: TrialRow) -> bool:
    return row.loss is not None and math.isfinite(row.loss)


def _list_shares(importances: Mapping[str, float]) -> list[tuple[str, str]]:
    return [(name, f"{100 * share:.0f} %") for name, share in importances.items()]


def _list_cells(row: TrialRow, record: SearchRecord) -> list[str]:
    return [
        str(row.number + 1),
        "" if row.loss is None else f"{row.loss:.4f}",
        write_score(record.metric, row),
        *(write_value(row.values[name]) if name in row.values else "" for name in record.space),
        "" if row.seconds is None else format_duration(row.seconds),
        row.state if row.same_as is None else f"same as trial {row.same_as + 1}",
    ]


def _describe(record: SearchRecord) -> list[tuple[str, str]]:
    rows = ", ".join(f"{count:,} {name}" for name, count in record.rows.items())
    return [
        ("data", f"{PureWindowsPath(record.source).name}: {rows} rows"),
        ("base model", record.base_model),
        ("importances", "PED-ANOVA (Watanabe et al. 2023) over the complete trials"),
        ("machine", record.cpu),
        ("versions", ", ".join(f"{name} {number}" for name, number in sorted(record.versions.items()))),
        ("created", record.created),
    ]


def _describe_values(values: Any) -> str:  # noqa: ANN401 - as it stands in the record
    if isinstance(values, list):
        return ", ".join(map(write_value, values))
    return f"{write_value(values['low'])} to {write_value(values['high'])}{' (logarithmic)' if values['log'] else ''}"
