"""`report.html`: a run's evidence as one page for people, in one file that needs no network."""

from collections.abc import Iterator
from html import escape
from pathlib import Path

from lorafit.atomic import describe_obstacle, write_atomic
from lorafit.data.rows import Split
from lorafit.errors import UserInputError
from lorafit.html_page import render_document
from lorafit.methods import METHODS
from lorafit.progress import Progress, Silent
from lorafit.report.background import hide_folder, render_cost, render_data, render_method, render_reproduction
from lorafit.report.curves import Ranking, rank_classes
from lorafit.report.drawing import Plot, drawn, require_matplotlib, save_files
from lorafit.report.plots import build_plots
from lorafit.report.reading import RunContents, Texts, read_run, read_texts
from lorafit.report.results import (
    render_classes,
    render_comparison,
    render_confidence,
    render_mistakes,
    render_opening,
    render_plot,
    render_samples,
)

__all__ = ["render_page", "write_report"]


def write_report(
    run: str | Path,
    *,
    texts: bool = True,
    output: str | Path | None = None,
    plots: str | Path | None = None,
    rows: Split | None = None,
    progress: Progress | None = None,
) -> Path:
    """Write the report of a finished run. No model is loaded.

    Args:
        run: The run folder.
        texts: Whether to show sample texts and mistakes; `evaluation.report_texts` of the run must be true, too. They
            are read from the run's source again, and shown only if they still are those that were measured.
        output: The file; None takes `report.html` in the run folder. What stands there is replaced.
        plots: A folder for the figures as PNG and SVG files; None writes none.
        rows: The test rows where they are at hand, so that they are not read again.
        progress: Told why texts are left out.

    Returns:
        The file.

    Raises:
        RunError: The folder is not a finished run, or something in it is missing, damaged or altered.
        UserInputError: The report or the figures cannot be written there.
        MissingExtraError: matplotlib is not installed; the message gives the pip line.
    """
    require_matplotlib()
    progress = progress or Silent()
    contents = read_run(run)
    path = contents.layout.report if output is None else Path(output).expanduser()
    folder = None if plots is None else Path(plots).expanduser()
    _check_places(path, folder)
    progress.start("writing the report")
    found = read_texts(contents, wanted=texts, rows=rows)
    with drawn():
        rankings = _rank(contents)
        figures = build_plots(contents, rankings)
        write_atomic(path, render_page(contents, found, figures, rankings))
        if folder is not None:
            for figure in figures.values():
                save_files(figure, folder)
    progress.finish()
    if found.detail:
        progress.say(f"{found.reason} {found.detail}")
    return path


def render_page(
    contents: RunContents, texts: Texts, plots: dict[str, Plot], rankings: dict[str, list[Ranking | None]]
) -> str:
    """Put the page together.

    Args:
        contents: The run.
        texts: Of the test rows, or why there are none.
        plots: From `build_plots`.
        rankings: How well each class is ranked, by `before` and `after`.

    Returns:
        HTML, all that comes from outside escaped.
    """
    record, metrics = contents.record, contents.metrics
    method = METHODS[record.method].title if record.method in METHODS else record.method
    title = f"{hide_folder(record.data.source)}: {method} on {hide_folder(record.base_model.name)}"
    too_many = "confusion_after" not in plots
    sections = {
        "Before and after": [*render_comparison(metrics), *_show(plots, "accuracy")],
        "Sample predictions": render_samples(contents, texts),
        "Training": _show(plots, "loss", "learning"),
        "Classes": [
            *_show(plots, "confusion_before", "confusion_after"),
            *render_classes(contents, rankings, with_confusions=too_many),
        ],
        "Confidence": [
            *render_confidence(metrics.confidence),
            *_show(plots, "reliability", "risk_coverage", "roc", "precision_recall"),
        ],
        "Length and slices": _show(plots, *(name for name in plots if name.startswith("slice"))),
        "Most confident mistakes": render_mistakes(contents, texts),
        "Data": render_data(record),
        "Method and settings": render_method(contents),
        "Cost": render_cost(record),
        "How to reproduce": render_reproduction(contents),
    }
    written = {heading: "\n".join(body) for heading, body in sections.items()}
    return render_document(title, [*render_opening(metrics), *_render_sections(written)])


def _rank(contents: RunContents) -> dict[str, list[Ranking | None]]:
    models = {"before": contents.baseline, "after": contents.finetuned}
    return {when: rank_classes(contents.labels, values) for when, values in models.items() if values is not None}


def _show(plots: dict[str, Plot], *names: str) -> Iterator[str]:
    """Render those of the named plots that there are, side by side where there is room."""
    found = [plots[name] for name in names if name in plots]
    if found:
        yield '<div class="grid">'
        for plot in found:
            yield from render_plot(plot)
        yield "</div>"


def _render_sections(sections: dict[str, str]) -> Iterator[str]:
    """Render the sections that hold something, with links to them above."""
    names = {heading: heading.lower().replace(" ", "-") for heading, body in sections.items() if body}
    links = (f'<li><a href="#{name}">{escape(heading)}</a></li>' for heading, name in names.items())
    yield f'<nav aria-label="On this page"><ul>{"".join(links)}</ul></nav>'
    for heading, name in names.items():
        yield f'<section id="{name}" aria-labelledby="{name}-heading"><h2 id="{name}-heading">{escape(heading)}</h2>'
        yield sections[heading]
        yield "</section>"


def _check_places(path: Path, folder: Path | None) -> None:
    """Make sure, before any work is done, that the report and the figures can be written."""
    if path.is_dir():
        raise UserInputError(
            f"{path} is a folder; --output takes a file for the report, for example {path}/report.html"
        )
    for place in (path, *([folder / "figure.svg"] if folder is not None else [])):
        if (obstacle := describe_obstacle(place)) is not None:
            raise UserInputError(f"{place.name} cannot be written: {obstacle}. Choose another place.")
