"""The page of a check: every finding with its rows, how labels are spread, and how long texts are."""

from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np

from lorafit.data.quality.findings import Finding, FoundRow, Place
from lorafit.data.quality.report import CheckReport
from lorafit.reports import html
from lorafit.reports.drawing import AFTER, BEFORE, INK, THIRD, Plot, add_legend, can_draw, drawn, new_figure, shorten
from lorafit.system.extras import install_line
from lorafit.system.text import format_duration

_MOST_LABELS: Final = 20
_MOST_LISTED: Final = 12
_COLOURS: Final = (AFTER, THIRD, BEFORE, INK)
_STYLES: Final = ("-", "--", ":", "-.")

Texts = Mapping[tuple[str, int], str]
"""Texts by split and row."""


def render_page(report: CheckReport, texts: Texts) -> str:
    """Render the page; without matplotlib it has no plots, but says how to get them.

    Args:
        report: What was found.
        texts: Those that may be shown.

    Returns:
        The file's text.

    Raises:
        MissingExtraError: Jinja2 is not installed.
    """
    return html.render_page(
        "check.html",
        report=report,
        summary=report.summarize(),
        findings=[(one, list(_list_shown(one, texts)), one.list_rows(_MOST_LISTED)) for one in report.findings],
        plots=list(draw_plots(report)) if can_draw() else [],
        install="" if can_draw() else install_line("report", shared=True),
        titles=("label", *report.labels),
        rows=_list_counts(report),
        about=_describe(report),
    )


def draw_plots(report: CheckReport) -> Iterator[Plot]:
    """Draw rows by label, where labels are classes, and the lengths of training texts."""
    if any(report.labels.values()):
        yield _plot_labels(report)
    yield _plot_lengths(report)


def _plot_labels(report: CheckReport) -> Plot:
    """Draw the rows of each label in each split as bars; of many labels the largest in train."""
    train = report.labels["train"]
    names = sorted(train, key=lambda name: -train[name])[:_MOST_LABELS]
    splits = [split for split, counts in report.labels.items() if counts]
    height = 0.8 / len(splits)
    with drawn():
        figure, (axes,) = new_figure(1.2 + 0.34 * max(len(names), 3))
        for turn, (split, colour) in enumerate(zip(splits, _COLOURS, strict=False)):
            places = np.arange(len(names)) + (turn - (len(splits) - 1) / 2) * height
            bars = axes.barh(places, [report.labels[split][name] for name in names], height, color=colour, label=split)
            if len(splits) == 1:
                axes.bar_label(bars, [f"{train[name]:,}" for name in names], padding=4)
        axes.set_yticks(range(len(names)), [shorten(name) for name in names])
        axes.set(ylim=(len(names) - 0.5, -0.5), xlabel="rows")
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
        axes.margins(x=0.15)
        axes.locator_params(axis="x", nbins=4, integer=True)
        axes.xaxis.set_major_formatter("{x:,.0f}")
        if len(splits) > 1:
            add_legend(axes)
    left = len(train) - len(names)
    return Plot(
        name="labels",
        title="Rows by label",
        caption=f"The {len(names)} labels with most training rows; {left:,} more are not shown." if left else "",
        label=f"Rows of {len(names)} labels in each split; the table below holds the numbers.",
        figure=figure,
    )


def _plot_lengths(report: CheckReport) -> Plot:
    """Draw the share of training texts by their length, a line for each label."""
    edges, lengths = np.array(report.lengths.edges, dtype=float), report.lengths.counts
    with drawn():
        figure, (axes,) = new_figure(2.8)
        for (name, counts), colour, style in zip(lengths.items(), _COLOURS, _STYLES, strict=False):
            shares = np.array(counts) / max(sum(counts), 1)
            axes.stairs(
                shares, edges, color=colour, linestyle=style, linewidth=1.8, label=shorten(name or "all labels")
            )
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.xaxis.set_minor_formatter("")
        axes.set(xlabel="characters", ylim=(0, None))
        axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:g} %")
        axes.locator_params(axis="y", nbins=4)
        if len(lengths) > 1:
            add_legend(axes)
    bins = [f"{low:,} to {high - 1:,}" for low, high in zip(edges.astype(int), edges.astype(int)[1:], strict=False)]
    columns = [[f"{count:,}" for count in counts] for counts in lengths.values()]
    return Plot(
        name="lengths",
        title="Length of the training texts",
        caption="Share of the texts by their number of characters. Where labels differ much, length gives them away.",
        label="Shares of training texts by length; the table holds the numbers.",
        figure=figure,
        titles=("characters", *(name or "rows" for name in lengths)),
        rows=list(zip(bins, *columns, strict=True)),
    )


def _list_shown(finding: Finding, texts: Texts) -> Iterator[tuple[FoundRow, str, str | None]]:
    """Yield rows whose texts may be shown: the row, its text, and the text of the row kept where that differs."""
    for row in finding.rows:
        text = _find(row, texts)
        if text is not None:
            kept = None if row.kept is None else _find(row.kept, texts)
            yield row, text, kept if kept != text else None


def _find(place: Place, texts: Texts) -> str | None:
    return texts.get((place.split, place.row))


def _list_counts(report: CheckReport) -> list[tuple[str, ...]]:
    return [
        (name, *(f"{counts.get(name, 0):,}" for counts in report.labels.values())) for name in report.labels["train"]
    ]


def _describe(report: CheckReport) -> list[tuple[str, str]]:
    return [
        ("source", report.source),
        ("rows", ", ".join(f"{count:,} {split}" for split, count in report.rows.items())),
        ("time", f"{format_duration(report.seconds)}; samples drawn with seed {report.seed}"),
        ("versions", ", ".join(f"{name} {number}" for name, number in report.versions.items())),
        ("created", report.created),
    ]
