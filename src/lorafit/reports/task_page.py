"""`report.html` of a run with several labels a text, or with a number."""

from collections.abc import Iterator
from pathlib import Path

from lorafit.data.rows import Split
from lorafit.reports.background import name_run, render_cost, render_data, render_method, render_reproduction
from lorafit.reports.drawing import Plot, drawn, require_matplotlib, save_files
from lorafit.reports.html import render_document
from lorafit.reports.reading import Texts, read_texts
from lorafit.reports.sections import check_places, render_sections, show_plots
from lorafit.reports.task_plots import plot_labels, plot_numbers, plot_task_slices
from lorafit.reports.task_reading import TaskContents, read_task_run
from lorafit.reports.task_results import (
    render_labels,
    render_task_comparison,
    render_task_confidence,
    render_task_opening,
)
from lorafit.reports.task_rows import render_task_mistakes, render_task_samples
from lorafit.reports.training_plots import plot_learning, plot_loss
from lorafit.system.atomic import write_atomic
from lorafit.system.progress import Progress, Silent

__all__ = ["render_task_page", "write_task_report"]


def write_task_report(
    run: str | Path,
    *,
    texts: bool = True,
    output: str | Path | None = None,
    plots: str | Path | None = None,
    rows: Split | None = None,
    progress: Progress | None = None,
) -> Path:
    """Write the report of a finished run with several labels a text, or with a number.

    Args:
        run: The run folder.
        texts: As `write_report` takes them.
        output: The file; None takes `report.html` in the run folder. What stands there is replaced.
        plots: A folder for the figures as PNG and SVG files; None writes none.
        rows: The test rows where they are at hand, so that they are not read again.
        progress: Told why texts are left out.

    Returns:
        The file.

    Raises:
        RunError: The folder is not such a finished run, or something in it is missing, damaged or altered.
        UserInputError: The report or the figures cannot be written there.
        MissingExtraError: matplotlib is not installed; the message gives the pip line.
    """
    require_matplotlib()
    progress = progress or Silent()
    contents = read_task_run(run)
    path = contents.layout.report if output is None else Path(output).expanduser()
    folder = None if plots is None else Path(plots).expanduser()
    check_places(path, folder)
    progress.start("writing the report")
    found = read_texts(contents, wanted=texts, rows=rows)
    with drawn():
        figures = {plot.name: plot for plot in _draw(contents) if plot is not None}
        write_atomic(path, render_task_page(contents, found, figures))
        if folder is not None:
            for figure in figures.values():
                save_files(figure, folder)
    progress.finish()
    if found.detail:
        progress.say(f"{found.reason} {found.detail}")
    return path


def render_task_page(contents: TaskContents, texts: Texts, plots: dict[str, Plot]) -> str:
    """Put the page together.

    Args:
        contents: The run.
        texts: Of the test rows, or why there are none.
        plots: Its figures by their names.

    Returns:
        HTML, all that comes from outside escaped.
    """
    record, metrics = contents.record, contents.metrics
    has_labels = bool(metrics.finetuned.per_class)
    mistakes = "Largest errors" if metrics.task == "regression" else "Most confident mistakes"
    sections = {
        "Before and after": render_task_comparison(metrics),
        "Sample predictions": render_task_samples(contents, texts),
        "Labels": [*show_plots(plots, "labels"), *(render_labels(metrics) if has_labels else [])],
        "Training": show_plots(plots, "loss", "learning"),
        "Predictions": show_plots(plots, "predicted"),
        "Confidence": render_task_confidence(metrics),
        "Length and slices": show_plots(plots, *(name for name in plots if name.startswith("slice"))),
        mistakes: render_task_mistakes(contents, texts),
        "Data": render_data(record),
        "Method and settings": render_method(record, contents.config),
        "Cost": render_cost(record),
        "How to reproduce": render_reproduction(record, contents.config, contents.layout.root.name),
    }
    written = {heading: "\n".join(body) for heading, body in sections.items()}
    return render_document(name_run(record), [*render_task_opening(metrics), *render_sections(written)])


def _draw(contents: TaskContents) -> Iterator[Plot | None]:
    metrics = contents.metrics
    yield plot_labels(metrics.finetuned.per_class)
    yield plot_loss(contents.history, contents.record.training, contents.record.task)
    yield plot_learning(contents.history)
    if metrics.task == "regression":
        predicted, seed = contents.finetuned[:, 0], contents.config.evaluation.seed
        yield plot_numbers(contents.labels, predicted, contents.half_width, seed=seed)
    for column in dict.fromkeys(one.column for one in metrics.slices):
        yield plot_task_slices(metrics.slices, column, metrics.task)
