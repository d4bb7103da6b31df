"""`lorafit diff`: two runs on the same rows, and gates for continuous integration."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from lorafit.cli.options import DropBadRows, LabelColumn, LabelSeparator, Quiet, SliceColumns, TextColumn
from lorafit.cli.render.progress import open_progress


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
            help='End with 1 unless these hold, e.g. "accuracy>=-0.002,negative_flips<=0.01": B minus A of a metric, a '
            "share of rows, or slowdown, the time B takes for a text over A's. A name that the task lacks is answered "
            "with those it has.",
        ),
    ] = "",
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    label_separator: LabelSeparator = None,
    slices: SliceColumns = None,
    drop_bad_rows: DropBadRows = False,
    json: Annotated[bool, typer.Option("--json", help="Write the record instead of tables.")] = False,
    quiet: Quiet = False,
) -> None:
    """Compare two runs, or exported models, on the same rows."""
    from lorafit.cli.render.diff import show_diff
    from lorafit.experiments.diff.diff import diff as compare_runs
    from lorafit.experiments.diff.gates import enforce_gates

    flags = {
        "data.text_column": text_column,
        "data.label_column": label_column,
        "data.label_separator": label_separator,
        "data.slice_columns": slices or None,
        "data.drop_bad_rows": drop_bad_rows or None,
    }
    with open_progress(quiet=quiet) as progress:
        record = compare_runs(a, b, data, gate=gate, flags=flags, progress=progress)
    if json:
        sys.stdout.write(record.model_dump_json(indent=2) + "\n")
    else:
        show_diff(record)
    enforce_gates(record)
