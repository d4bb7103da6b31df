"""`lorafit train`: fine-tune an encoder and show its metrics before and after."""

from pathlib import Path
from typing import Annotated

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
from lorafit.errors import ConfigError, DoubtfulDataError


@takes_base
def train(
    data: DataSources = None,
    *,
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
    quiet: Quiet = False,
) -> None:
    """Fine-tune an encoder on labelled texts."""
    from lorafit.cli.render.run import show_run
    from lorafit.training import pipeline

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
            raise ConfigError("--resume takes data and settings from the run: leave out all other options but --quiet.")
        with open_progress(quiet=quiet) as progress:
            show_run(pipeline.resume(resume, progress=progress), quiet=quiet)
        return
    config = options.load_config(own)
    named = {text.partition("=")[0].strip() for text in options.settings or ()}
    if own["data.source"] is None and options.config is None and "data.source" not in named:
        raise ConfigError("Say what to train on, for example: lorafit train reviews.csv (or lorafit train --help)")
    try:
        with open_progress(quiet=quiet) as progress:
            run = pipeline.train(config, output=output, overwrite=overwrite, progress=progress)
    except DoubtfulDataError as doubt:
        config = accept_doubt(config, doubt)
        with open_progress(quiet=quiet) as progress:
            run = pipeline.train(config, output=output, overwrite=overwrite, progress=progress)
    show_run(run, quiet=quiet)
