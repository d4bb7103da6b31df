"""`lorafit push`: a run on the Hugging Face Hub."""

from typing import Annotated

import typer

from lorafit.cli.options import Quiet, TrainedRun, accepts_altered, takes_base
from lorafit.cli.render.progress import open_progress


@takes_base
@accepts_altered
def push(
    run: TrainedRun,
    name: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="The repository, made if it is not there.")],
    *,
    private: Annotated[bool, typer.Option("--private", help="Make repositories that only their owner sees.")] = False,
    base_repo: Annotated[
        str | None,
        typer.Option(
            "--base-repo",
            metavar="OWNER/NAME",
            help="Repository for the base of an adapter, where that is not on the Hub; pushed once for all runs on it.",
        ),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Push a run to the Hugging Face Hub.

    Card and report go with it, texts of its data do not. Needs a token that may write: `hf auth login`, or HF_TOKEN.
    """
    from lorafit.reports.publishing import push as push_run

    with open_progress(quiet=quiet) as progress:
        pushed = push_run(run, name, private=private, base_repo=base_repo, progress=progress)
    typer.echo(f"{pushed.url}\n{pushed.name}")
