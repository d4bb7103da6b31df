"""`lorafit diff`: two runs on the same rows, and gates for continuous integration."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from lorafit.cli.options import Quiet, RowOptions, SliceColumns
from lorafit.cli.render.progress import open_progress


def diff(
    a: Annotated[Path, typer.Argument(help="The run or exported model to compare with: its folder.")],
    b: Annotated[Path, typer.Argument(help="The run or exported model that may replace it.")],
    data: Annotated[
        str | None, typer.Argument(help="Labelled data that both predict; default: the test rows they share.")
    ] = None,
    *,
    gate: Annotated[
        str,
        typer.Option(
            metavar="GATES",
            help='Exit with 1 unless these hold, e.g. "accuracy>=-0.002,negative_flips<=0.01": B minus A of a metric, a '
            "share of rows, or slowdown (the time that B takes for a text, over A's). An unknown name lists those of "
            "the task.",
        ),
    ] = "",
    rows: RowOptions,
    slices: SliceColumns = None,
    json: Annotated[bool, typer.Option("--json", help="Write the record instead of tables.")] = False,
    quiet: Quiet = False,
) -> None:
    """Compare two runs, or exported models, on the same rows."""
    from lorafit.cli.render.diff import show_diff
    from lorafit.experiments.diff.diff import diff as compare_runs
    from lorafit.experiments.diff.gates import enforce_gates

    flags = rows.collect({"data.slice_columns": slices})
    with open_progress(quiet=quiet) as progress:
        record = compare_runs(a, b, data, gate=gate, flags=flags, progress=progress)
    if json:
        sys.stdout.write(record.model_dump_json(indent=2) + "\n")
    else:
        show_diff(record)
    enforce_gates(record)
