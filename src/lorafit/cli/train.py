"""`lorafit train`: fine-tune an encoder and show its metrics before and after."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lorafit.cli.options import (
    Budget,
    DataSources,
    Method,
    Output,
    Overwrite,
    Quiet,
    SliceColumns,
    TargetAccuracy,
    TrainingOptions,
    name_sources,
    takes_base,
)
from lorafit.cli.questions import accept_doubt
from lorafit.cli.render.progress import open_progress
from lorafit.errors import ConfigError, DoubtfulDataError, LorafitError, OutOfMemoryError, StoppedError
from lorafit.system.signals import exit_code

if TYPE_CHECKING:
    from lorafit.config import Config
    from lorafit.training.launch import Launch


@takes_base
def train(
    data: DataSources = None,
    *,
    context: typer.Context,
    options: TrainingOptions,
    method: Method = None,
    validation: Annotated[str | None, typer.Option(help="File with validation rows.")] = None,
    test: Annotated[str | None, typer.Option(help="File with test rows.")] = None,
    slices: SliceColumns = None,
    blend: Annotated[
        str | None,
        typer.Option("--blend", metavar="HOW", help="Word models beside the encoder: auto, off, or names [auto]."),
    ] = None,
    budget: Budget = None,
    target_accuracy: TargetAccuracy = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the head, the batches and dropout [0].")] = None,
    output: Output = None,
    overwrite: Overwrite = False,
    resume: Annotated[Path | None, typer.Option("--resume", metavar="RUN", help="Resume an interrupted run.")] = None,
    processes: Annotated[
        int, typer.Option("--processes", metavar="N", help="Processes that train together, on each machine.")
    ] = 1,
    machines: Annotated[
        int, typer.Option("--machines", metavar="M", help="Machines that train together, each with this command.")
    ] = 1,
    rank: Annotated[
        int, typer.Option("--rank", metavar="R", help="Number of this machine, from 0, which has the run folder.")
    ] = 0,
    rendezvous: Annotated[
        str | None, typer.Option("--rendezvous", metavar="HOST:PORT", help="Where machines meet: at that of rank 0.")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Fine-tune an encoder on labelled texts."""
    from lorafit.cli.render.run import show_run
    from lorafit.training import pipeline
    from lorafit.training.launch import Launch

    how = Launch(processes, machines, rank, rendezvous)
    own = {
        **name_sources(data, validation=validation, test=test),
        "data.slice_columns": slices,
        "method.name": method,
        "training.blend": blend,
        "training.budget": budget,
        "training.seed": seed,
        "evaluation.target_accuracy": target_accuracy,
    }
    if resume is not None:
        given = (*options.collect(own).values(), options.config, options.settings or None, output, overwrite or None)
        if any(value is not None for value in given):
            raise ConfigError(
                "--resume takes data and settings from the run: leave out all other options but --quiet and those of "
                "several processes."
            )
        if _is_shared(how, None, context.obj, output=resume):
            return
        with open_progress(quiet=quiet) as progress:
            show_run(pipeline.resume(resume, progress=progress), quiet=quiet)
        return
    config = options.load_config(own)
    named = {text.partition("=")[0].strip() for text in options.settings or ()}
    if own["data.source"] is None and options.config is None and "data.source" not in named:
        raise ConfigError("Say what to train on, for example: lorafit train reviews.csv (or lorafit train --help)")
    if _is_shared(how, config, context.obj, output=output, overwrite=overwrite):
        return
    try:
        with open_progress(quiet=quiet) as progress:
            run = pipeline.train(config, output=output, overwrite=overwrite, progress=progress)
    except DoubtfulDataError as doubt:
        config = accept_doubt(config, doubt)
        with open_progress(quiet=quiet) as progress:
            run = pipeline.train(config, output=output, overwrite=overwrite, progress=progress)
    show_run(run, quiet=quiet)


def _is_shared(
    how: "Launch", config: "Config | None", words: list[str], *, output: Path | None, overwrite: bool = False
) -> bool:
    """Start the processes that are to train together, or be one that helps rank 0; in a process alone, do nothing.

    Args:
        how: What the options say.
        config: The settings; None where a run goes on.
        words: The command.
        output: The run folder, or that of the run which goes on.
        overwrite: Whether it may be replaced.

    Returns:
        Whether that was all there is to do.

    Raises:
        typer.Exit: The processes have ended.
    """
    from lorafit.training.distributed import assist
    from lorafit.training.launch import launch
    from lorafit.training.ranks import read_ranks

    ranks = read_ranks()
    if ranks.count == 1 and not how.is_alone:
        raise typer.Exit(launch(how, words, config, output=output, overwrite=overwrite))
    if ranks.rank == 0:
        return False
    try:
        assist(config)
    except OutOfMemoryError:
        raise
    except (KeyboardInterrupt, LorafitError) as error:
        if ranks.local_rank == 0:
            raise
        code = exit_code() if isinstance(error, KeyboardInterrupt | StoppedError) else error.exit_code
        raise typer.Exit(code) from error  # rank 0 says the same
    return True
