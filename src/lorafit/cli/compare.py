"""`lorafit compare`: several methods on the same rows, in one table."""

from pathlib import Path
from typing import Annotated

import typer

from lorafit.cli.options import (
    ConfigFile,
    DropBadRows,
    LabelColumn,
    LabelSeparator,
    Model,
    Quiet,
    Settings,
    Task,
    TextColumn,
)
from lorafit.cli.render.progress import open_progress


def compare(
    data: Annotated[
        str,
        typer.Argument(help="builtin:rotten-tomatoes, imdb, hub:owner/name, or a csv, tsv, jsonl or parquet file."),
    ],
    *,
    methods: Annotated[str, typer.Option(metavar="A,B,…", help="Methods to compare, separated by commas.")],
    seeds: Annotated[int, typer.Option(help="How many seeds each method is trained with.")] = 1,
    model: Model = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    label_separator: LabelSeparator = None,
    task: Task = None,
    drop_bad_rows: DropBadRows = False,
    config: ConfigFile = None,
    settings: Settings = None,
    budget: Annotated[
        str | None, typer.Option(metavar="TIME", help="Time all of it may take, e.g. 1h; the same settings for all.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Folder; what is finished in it is kept. Default: a free name below runs/."
        ),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Compare what methods reach and cost."""
    from lorafit.cli.render.comparison import show_comparison
    from lorafit.config import load_config
    from lorafit.experiments.compare.compare import compare as compare_methods

    flags = {
        "data.source": data,
        "data.text_column": text_column,
        "data.label_column": label_column,
        "data.label_separator": label_separator,
        "data.task": task,
        "data.drop_bad_rows": drop_bad_rows or None,
        "model.name": model,
        "training.budget": budget,
    }
    resolved = load_config(config, flags=flags, overrides=settings or ())
    names = [name.strip() for name in methods.split(",") if name.strip()]
    with open_progress(quiet=quiet) as progress:
        comparison = compare_methods(resolved, names, seeds=seeds, output=output, progress=progress)
    show_comparison(comparison, quiet=quiet)
