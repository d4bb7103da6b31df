"""What a notebook shows of a run."""

from pathlib import Path

from lorafit.reports.contents import read_run
from lorafit.reports.html import render_page
from lorafit.reports.results import list_comparisons, list_scores
from lorafit.reports.verdict import describe_verdict


def render_run(run: Path) -> str:
    """Render the verdict and the metrics of a finished run, as a part of a page.

    Args:
        run: The run folder.

    Returns:
        HTML.

    Raises:
        RunError: As `read_run`.
    """
    contents = read_run(run)
    layout = contents.layout
    return render_page(
        "run.html",
        verdict=describe_verdict(contents.task, contents.metrics),
        scores=list_scores(contents),
        comparisons=list_comparisons(contents),
        record=contents.record,
        metrics=contents.metrics,
        folder=str(layout.root),
        report=layout.report.name if layout.report.is_file() else "",
    )
