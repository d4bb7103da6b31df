"""`lorafit diff`: two runs on the same rows, and gates for continuous integration."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from lorafit.cli.options import Blended, Quiet, ResampledGroups, RowOptions, SliceColumns, accepts_altered, takes_base
from lorafit.cli.render.progress import open_progress


@takes_base
@accepts_altered
def diff(
    a: Annotated[Path, typer.Argument(help="The run folder, or that of an exported model, that is compared with.")],
    b: Annotated[Path, typer.Argument(help="The one that may take its place.")],
    data: Annotated[
        str | None, typer.Argument(help="Labelled data that both predict now; default: the test rows they share.")
    ] = None,
    *,
    gate: Annotated[
        str,
        typer.Option(
            metavar="GATES",
            help='End with 1 unless these limits hold, e.g. "accuracy>=-0.002,negative_flips<=0.01": on B minus A of a '
            "metric, a share of rows, or slowdown, the time B takes for a text over A's. An unknown name lists those "
            "of the task.",
        ),
    ] = "",
    rows: RowOptions,
    slices: SliceColumns = None,
    group_column: ResampledGroups = None,
    blend: Blended = True,
    json: Annotated[bool, typer.Option("--json", help="Write the record instead of tables.")] = False,
    quiet: Quiet = False,
) -> None:
    """Compare two runs, or exported models, on the same rows."""
    from lorafit.cli.render.diff import show_diff
    from lorafit.experiments.diff.diff import diff as compare_runs
    from lorafit.experiments.diff.gates import enforce_gates

    flags = rows.collect({"data.slice_columns": slices, "data.group_column": group_column})
    with open_progress(quiet=quiet) as progress:
        record = compare_runs(a, b, data, gate=gate, flags=flags, blend=blend, progress=progress)
    if json:
        sys.stdout.write(record.model_dump_json(indent=2) + "\n")
    else:
        show_diff(record)
    enforce_gates(record)
