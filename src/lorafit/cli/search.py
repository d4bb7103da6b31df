"""`lorafit search`: settings with a lower validation loss, found by trials."""

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


def search(
    data: Annotated[
        str,
        typer.Argument(help="builtin:rotten-tomatoes, imdb, hub:owner/name, or a csv, tsv, jsonl or parquet file."),
    ],
    *,
    trials: Annotated[int, typer.Option(help="How many trials there will be, earlier ones of the folder included.")],
    model: Model = None,
    method: Annotated[str | None, typer.Option(help="How the encoder is adapted [lora].")] = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    label_separator: LabelSeparator = None,
    task: Task = None,
    drop_bad_rows: DropBadRows = False,
    config: ConfigFile = None,
    settings: Settings = None,
    budget: Annotated[str | None, typer.Option(metavar="TIME", help="Time this start may take, e.g. 30m.")] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder; a search in it goes on. Default: a free name below runs/."),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Search for settings on validation rows."""
    from lorafit.cli.render.search import show_search
    from lorafit.config import load_config
    from lorafit.experiments.search.search import search as search_settings

    flags = {
        "data.source": data,
        "data.text_column": text_column,
        "data.label_column": label_column,
        "data.label_separator": label_separator,
        "data.task": task,
        "data.drop_bad_rows": drop_bad_rows or None,
        "model.name": model,
        "method.name": method,
    }
    resolved = load_config(config, flags=flags, overrides=settings or ())
    with open_progress(quiet=quiet) as progress:
        result = search_settings(resolved, trials, budget=budget, output=output, progress=progress)
    show_search(result, quiet=quiet)
