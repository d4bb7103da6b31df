"""`lorafit evaluate`: measure a trained run or an exported model."""

import sys
from typing import Annotated

import typer

from lorafit.cli.options import (
    Blended,
    Quiet,
    ResampledGroups,
    RowOptions,
    RunOrExport,
    SliceColumns,
    TargetAccuracy,
    accepts_altered,
    takes_base,
    takes_threads,
)
from lorafit.cli.render.progress import open_progress


@takes_base
@takes_threads
@accepts_altered
def evaluate(
    run: RunOrExport,
    data: Annotated[
        str | None, typer.Argument(help="Labelled data; default of a run: the test rows of its own data.")
    ] = None,
    *,
    rows: RowOptions,
    slices: SliceColumns = None,
    group_column: ResampledGroups = None,
    target_accuracy: TargetAccuracy = None,
    blend: Blended = True,
    json: Annotated[bool, typer.Option("--json", help="Write the metrics record instead of tables.")] = False,
    quiet: Quiet = False,
) -> None:
    """Measure a run, or an exported model, on labelled texts."""
    from lorafit.cli.render.metrics import print_metrics
    from lorafit.cli.render.tables import open_console
    from lorafit.inference.export.records import ExportLayout, ExportRecord
    from lorafit.runs.folder import RunLayout
    from lorafit.runs.hub import locate_run
    from lorafit.runs.records import RunRecord
    from lorafit.training.evaluation import evaluate as evaluate_run

    flags = rows.collect(
        {
            "data.slice_columns": slices,
            "data.group_column": group_column,
            "evaluation.target_accuracy": target_accuracy,
        }
    )
    folder = locate_run(run)
    with open_progress(quiet=quiet) as progress:
        metrics = evaluate_run(folder, data, flags=flags, blend=blend, progress=progress)
    if json:
        sys.stdout.write(metrics.model_dump_json(indent=2) + "\n")
    else:
        export = ExportLayout(folder).record
        record = ExportRecord.read(export) if export.is_file() else RunRecord.read(RunLayout(folder).record)
        balancing = record.balancing if isinstance(record, RunRecord) else ()
        print_metrics(open_console(), record.build_task(), metrics, with_slices=True, balancing=balancing)
