"""`report.html`: the evidence of a run as one page for people, in one file that needs no network."""

import shlex
from contextlib import nullcontext
from pathlib import Path

from lorafit.data.rows import Split
from lorafit.errors import UserInputError
from lorafit.reports import background, results
from lorafit.reports.contents import RunContents, Texts, read_run, read_texts
from lorafit.reports.drawing import Plot, drawn, require_matplotlib, save_files
from lorafit.reports.html import render_page
from lorafit.reports.plots import build_plots
from lorafit.reports.rows import show_mistakes, show_samples
from lorafit.reports.verdict import (
    describe_balancing,
    describe_blend,
    describe_embedding,
    describe_exchangeability,
    describe_unpredicted,
    describe_verdict,
)
from lorafit.system.atomic import describe_obstacle, write_atomic
from lorafit.system.locks import hold
from lorafit.system.paths import expand_home
from lorafit.system.progress import Progress, Silent
from lorafit.tasks.evaluation import describe_changed_rows, describe_few

_SECTIONS = {
    "comparison": "Before and after",
    "samples": "Sample predictions",
    "training": "Training",
    "labels": "Labels",
    "predictions": "Predictions",
    "confidence": "Confidence",
    "slices": "Length and slices",
    "mistakes": "Mistakes",
    "data": "Data",
    "method": "Method and settings",
    "cost": "Cost",
    "reproduction": "How to reproduce",
}
"""Headings by the ids of their sections; that of the mistakes is the task's own."""

_PLACES = {
    **dict.fromkeys(("loss", "learning"), "training"),
    **dict.fromkeys(("confusion_before", "confusion_after", "labels"), "labels"),
    "predicted": "predictions",
    **dict.fromkeys(("reliability", "risk_coverage", "roc", "precision_recall"), "confidence"),
}
"""Sections of plots; that of the primary metric belongs to the comparison."""


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
        plots: A folder for the plots as PNG and SVG files; None writes none.
        rows: The test rows where they are at hand, so that they are not read again.
        progress: Told why texts are left out.

    Returns:
        The file.

    Raises:
        RunError: The folder is not a finished run, or something in it is missing, damaged or altered.
        UserInputError: The report or the plots cannot be written there.
        MissingExtraError: matplotlib is not installed; the message gives the pip line.
    """
    require_matplotlib()
    progress = progress or Silent()
    contents = read_run(run)
    path = contents.layout.report if output is None else expand_home(output)
    folder = None if plots is None else expand_home(plots)
    _check_places(path, folder)
    progress.start("writing the report")
    found = read_texts(contents, wanted=texts, rows=rows)
    root = contents.layout.root
    with drawn(), hold(root, kind="run") if path.resolve().is_relative_to(root) else nullcontext():
        figures = build_plots(contents)
        write_atomic(path, render_report(contents, found, figures))
        if folder is not None:
            for figure in figures.values():
                save_files(figure, folder)
    progress.finish()
    if found.detail:
        progress.say(f"{found.reason} {found.detail}")
    return path


def render_report(contents: RunContents, texts: Texts, plots: dict[str, Plot]) -> str:
    """Put the page together.

    Args:
        contents: The run.
        texts: Of the test rows, or why there are none.
        plots: From `build_plots`.

    Returns:
        HTML.
    """
    record, config, task, metrics = contents.record, contents.config, contents.task, contents.metrics
    placed = {name: [plot for plot in plots.values() if _place(plot.name) == name] for name in _SECTIONS}
    labels = results.list_labels(contents)
    shown = {
        "training": bool(placed["training"]),
        "labels": labels is not None,
        "predictions": bool(placed["predictions"]),
        "slices": bool(placed["slices"]),
    }
    headings = {**_SECTIONS, "mistakes": task.wording.mistakes}
    calibrated = {} if metrics.calibration is None else metrics.calibration.metrics
    sentences = [] if metrics.calibration is None else task.describe_calibration(metrics.calibration)
    sentences = [*sentences, *record.describe_cross_fitting()]
    return render_page(
        "report.html",
        title=background.name_run(record),
        sections={name: heading for name, heading in headings.items() if shown.get(name, True)},
        plots=placed,
        task=task,
        metrics=metrics,
        record=record,
        verdict=describe_verdict(task, metrics),
        unpredicted=describe_unpredicted(task, metrics, record.balancing),
        balancing=describe_balancing(record.balancing),
        blend=describe_blend(task, record.blend),
        embedding=describe_embedding(record.embedding),
        exchangeability=describe_exchangeability(metrics),
        few=describe_few(metrics.rows, metrics.groups),
        left_out=texts.reason,
        scores=results.list_scores(contents),
        meanings=[(metric.title, metric.meaning) for metric in task.metrics.values()],
        comparisons=results.list_comparisons(contents),
        left_out_baselines=[
            (f"not measured: {task.title_model(name)}", reason) for name, reason in record.left_out_baselines.items()
        ],
        changed_rows=[(name, describe_changed_rows(task, one)) for name, one in contents.comparisons.items()],
        samples=show_samples(contents, texts),
        labels=labels,
        absent=results.name_absent_labels(contents),
        confusions=None if "confusion_after" in plots else results.list_confusions(contents),
        calibration=results.list_calibration(contents),
        calibration_sentences=[sentence.split(": ", 1) for sentence in sentences],
        calibration_meanings=[
            (metric.title, metric.meaning) for name, metric in task.calibration_metrics.items() if name in calibrated
        ],
        weak_slices=results.list_weak_slices(contents),
        mistakes=show_mistakes(contents, texts),
        source=background.hide_folder(record.data.source),
        splits=background.list_splits(record),
        counts=background.list_counts(record),
        method=background.list_method(record),
        settings=background.list_settings(config),
        times=background.list_times(record),
        cost=background.list_cost(record),
        commands=background.list_commands(contents.layout.root.name),
        seeds=background.list_seeds(config),
        versions=background.list_versions(record),
        digests=background.list_digests(record),
    )


def _place(plot: str) -> str:
    """Return the section of a plot by its name."""
    return "slices" if plot.startswith("slice") else _PLACES.get(plot, "comparison")


def _check_places(path: Path, folder: Path | None) -> None:
    """Make sure, before any work is done, that the report and the plots can be written."""
    if path.is_dir():
        raise UserInputError(
            f"{path} is a folder; --output takes a file for the report, for example --output "
            f"{shlex.quote(str(path / 'report.html'))}"
        )
    for place in (path, *([folder / "plot.svg"] if folder is not None else [])):
        if (obstacle := describe_obstacle(place)) is not None:
            raise UserInputError(f"{place.name} cannot be written: {obstacle}. Choose another place.")
