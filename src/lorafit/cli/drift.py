"""`lorafit drift`: are new texts like those that a run was calibrated on?"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from lorafit.cli.options import Quiet, TextOptions, TrainedRun, accepts_altered, takes_base, takes_threads
from lorafit.cli.render.progress import open_progress


@takes_base
@takes_threads
@accepts_altered
def drift(
    run: TrainedRun,
    file: Annotated[Path, typer.Argument(help="New texts in a csv, tsv, jsonl, xlsx, parquet or txt file.")],
    *,
    rows: TextOptions,
    false_alarms: Annotated[
        float,
        typer.Option(
            "--false-alarms", metavar="SHARE", help="How often texts that are alike may be said to have drifted."
        ),
    ] = 0.01,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the rows drawn and of the permutations.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Write the record instead of a table.")] = False,
    quiet: Quiet = False,
) -> None:
    """Test whether new texts are like the calibration rows of a run.

    Needs no labels. Ends with 0 if no drift is shown, with 1 if it is.
    """
    from lorafit.cli.render.drift import show_drift
    from lorafit.config import load_config
    from lorafit.experiments.drift import enforce_no_drift, measure_drift

    data = load_config(flags=rows.collect({})).data
    with open_progress(quiet=quiet or json) as progress:
        record = measure_drift(
            run,
            file,
            text_columns=tuple(rows.text_columns or ()) or None,
            reading=data,
            false_alarms=false_alarms,
            seed=seed,
            progress=progress,
        )
    if json:
        sys.stdout.write(record.model_dump_json(indent=2) + "\n")
    else:
        show_drift(record)
    enforce_no_drift(record)
