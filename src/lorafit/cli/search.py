"""`lorafit search`: settings with a lower validation loss, found by trials."""

from pathlib import Path
from typing import Annotated

import typer

from lorafit.cli.options import DataSources, Method, Quiet, TrainingOptions, name_sources
from lorafit.cli.render.progress import open_progress


def search(
    data: DataSources,
    *,
    trials: Annotated[int, typer.Option(help="Number of trials in total, earlier ones in the folder included.")],
    options: TrainingOptions,
    method: Method = None,
    budget: Annotated[str | None, typer.Option(metavar="TIME", help="Time limit for this session, e.g. 30m.")] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder; a search in it is resumed. Default: a free name below runs/."),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Search for better settings on validation rows."""
    from lorafit.cli.render.search import show_search
    from lorafit.experiments.search.search import search as search_settings

    config = options.load_config({**name_sources(data), "method.name": method})
    with open_progress(quiet=quiet) as progress:
        result = search_settings(config, trials, budget=budget, output=output, progress=progress)
    show_search(result, quiet=quiet)
