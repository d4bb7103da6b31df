"""`report.html`: a run's evidence as one page for people, in one file that needs no network."""

from pathlib import Path

from lorafit.data.rows import Split
from lorafit.reports.background import name_run, render_cost, render_data, render_method, render_reproduction
from lorafit.reports.curves import Ranking, rank_classes
from lorafit.reports.drawing import Plot, drawn, require_matplotlib, save_files
from lorafit.reports.html import render_document
from lorafit.reports.plots import build_plots
from lorafit.reports.reading import RunContents, Texts, read_finished_record, read_run, read_texts
from lorafit.reports.results import (
    render_classes,
    render_comparison,
    render_confidence,
    render_mistakes,
    render_opening,
    render_samples,
)
from lorafit.reports.sections import check_places, render_sections, show_plots
from lorafit.reports.task_page import write_task_report
from lorafit.runs.folder import RunLayout
from lorafit.system.atomic import write_atomic
from lorafit.system.progress import Progress, Silent

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
    """Write the report of a finished run, of any task. No model is loaded.

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
    if read_finished_record(RunLayout(Path(run).expanduser().resolve())).task != "single_label":
        return write_task_report(run, texts=texts, output=output, plots=plots, rows=rows, progress=progress)
    progress = progress or Silent()
    contents = read_run(run)
    path = contents.layout.report if output is None else Path(output).expanduser()
    folder = None if plots is None else Path(plots).expanduser()
    check_places(path, folder)
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
    too_many = "confusion_after" not in plots
    sections = {
        "Before and after": [*render_comparison(metrics), *show_plots(plots, "accuracy")],
        "Sample predictions": render_samples(contents, texts),
        "Training": show_plots(plots, "loss", "learning"),
        "Classes": [
            *show_plots(plots, "confusion_before", "confusion_after"),
            *render_classes(contents, rankings, with_confusions=too_many),
        ],
        "Confidence": [
            *render_confidence(metrics.confidence),
            *show_plots(plots, "reliability", "risk_coverage", "roc", "precision_recall"),
        ],
        "Length and slices": show_plots(plots, *(name for name in plots if name.startswith("slice"))),
        "Most confident mistakes": render_mistakes(contents, texts),
        "Data": render_data(record),
        "Method and settings": render_method(record, contents.config),
        "Cost": render_cost(record),
        "How to reproduce": render_reproduction(record, contents.config, contents.layout.root.name),
    }
    written = {heading: "\n".join(body) for heading, body in sections.items()}
    return render_document(name_run(record), [*render_opening(metrics), *render_sections(written)])


def _rank(contents: RunContents) -> dict[str, list[Ranking | None]]:
    return {when: rank_classes(contents.labels, said) for when, said in contents.said.items()}
