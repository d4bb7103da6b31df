"""`lorafit train`: fine-tune an encoder and show the model before and after."""

from typing import Annotated

import typer

from lorafit.cli.options import (
    Budget,
    ConfigFile,
    DropBadRows,
    InterruptedRun,
    LabelColumn,
    LabelSeparator,
    Model,
    Output,
    Overwrite,
    Quiet,
    Settings,
    SliceColumns,
    TargetAccuracy,
    Task,
    TextColumn,
)
from lorafit.cli.render.progress import open_progress


def train(
    data: Annotated[
        str | None,
        typer.Argument(help="builtin:rotten-tomatoes, imdb, hub:owner/name, or a csv, tsv, jsonl or parquet file."),
    ] = None,
    *,
    model: Model = None,
    method: Annotated[str | None, typer.Option(help="How the encoder is adapted [lora].")] = None,
    validation: Annotated[str | None, typer.Option(help="File with validation rows.")] = None,
    test: Annotated[str | None, typer.Option(help="File with test rows.")] = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    label_separator: LabelSeparator = None,
    task: Task = None,
    slices: SliceColumns = None,
    drop_bad_rows: DropBadRows = False,
    config: ConfigFile = None,
    settings: Settings = None,
    budget: Budget = None,
    target_accuracy: TargetAccuracy = None,
    seed: Annotated[int | None, typer.Option(help="Seed of head, batches and dropout [0].")] = None,
    output: Output = None,
    overwrite: Overwrite = False,
    resume: InterruptedRun = None,
    quiet: Quiet = False,
) -> None:
    """Fine-tune an encoder on your texts."""
    from lorafit.cli.render.render import show_run
    from lorafit.config import load_config
    from lorafit.errors import ConfigError
    from lorafit.training import pipeline as finetune

    flags = {
        "data.source": data,
        "data.validation": validation,
        "data.test": test,
        "data.text_column": text_column,
        "data.label_column": label_column,
        "data.label_separator": label_separator,
        "data.task": task,
        "data.slice_columns": slices or None,
        "data.drop_bad_rows": drop_bad_rows or None,
        "model.name": model,
        "method.name": method,
        "training.budget": budget,
        "evaluation.target_accuracy": target_accuracy,
        "training.seed": seed,
    }
    if resume is not None:
        if any(value is not None for value in (*flags.values(), config, output)) or settings or overwrite:
            raise ConfigError("--resume takes data and settings from the run; leave the others out (all but --quiet).")
        with open_progress(quiet=quiet) as progress:
            run = finetune.resume(resume, progress=progress)
    else:
        resolved = load_config(config, flags=flags, overrides=settings or ())
        if data is None and config is None and "data.source" not in [text.partition("=")[0] for text in settings or ()]:
            raise ConfigError("Say what to train on, for example: lorafit train reviews.csv (or lorafit train --help)")
        with open_progress(quiet=quiet) as progress:
            run = finetune.train(resolved, output=output, overwrite=overwrite, progress=progress)
    show_run(run, quiet=quiet)
