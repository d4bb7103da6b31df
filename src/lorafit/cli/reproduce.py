"""`lorafit reproduce`: a run repeated from its folder."""

import sys
from typing import Annotated

import typer

from lorafit.cli.options import Output, Quiet, TrainedRun, accepts_altered, takes_base
from lorafit.cli.render.progress import open_progress


@takes_base
@accepts_altered
def reproduce(
    run: TrainedRun,
    *,
    output: Output = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            metavar="SHARE",
            help="Largest difference of the primary metric: of shares [0.002], of MAE in standard deviations of the "
            "true numbers [0.01].",
        ),
    ] = None,
    log_loss_tolerance: Annotated[
        float | None, typer.Option(min=0.0, metavar="NATS", help="Largest difference of the log loss [0.01].")
    ] = None,
    r2_tolerance: Annotated[
        float | None, typer.Option(min=0.0, metavar="SHARE", help="Largest difference of R² [0.01].")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Write the record instead of a table.")] = False,
    quiet: Quiet = False,
) -> None:
    """Repeat a run and compare its numbers.

    Ends with 0 if they agree, with 1 if they do not or if the data, the base model, or task, seed,
    method or truncation in config.yaml have changed.
    """
    from lorafit.cli.render.reproduction import show_reproduction
    from lorafit.experiments.reproduce import enforce_reproduction
    from lorafit.experiments.reproduce import reproduce as repeat_run

    given = {"log_loss": log_loss_tolerance, "r2": r2_tolerance}
    tolerances = {name: limit for name, limit in given.items() if limit is not None}
    with open_progress(quiet=quiet) as progress:
        record = repeat_run(run, output=output, tolerance=tolerance, tolerances=tolerances, progress=progress)
    if json:
        sys.stdout.write(record.model_dump_json(indent=2) + "\n")
    else:
        show_reproduction(record)
    enforce_reproduction(record)
