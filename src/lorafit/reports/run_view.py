"""What a notebook shows of a run."""

from pathlib import Path

from lorafit.reports.contents import Measured
from lorafit.reports.html import render_page
from lorafit.reports.results import list_comparisons, list_scores
from lorafit.reports.verdict import describe_verdict
from lorafit.runs.folder import RunLayout
from lorafit.runs.records import RunRecord
from lorafit.tasks.records import MetricsRecord


def render_run(folder: Path, record: RunRecord, metrics: MetricsRecord) -> str:
    """Render the verdict and the metrics of a finished run, as a part of a page.

    Args:
        folder: The run folder, which is named, and need not be there.
        record: What was done, with what, and what it cost.
        metrics: The metrics.

    Returns:
        HTML.
    """
    measured, layout = Measured(record.build_task(), metrics), RunLayout(folder)
    return render_page(
        "run.html",
        verdict=describe_verdict(measured.task, metrics),
        scores=list_scores(measured),
        comparisons=list_comparisons(measured),
        record=record,
        metrics=metrics,
        folder=str(layout.root),
        report=layout.report.name if layout.report.is_file() else "",
    )
