"""`lorafit search`: settings with a lower validation loss, found by trials."""

from pathlib import Path
from typing import Annotated

import typer

from lorafit.cli.options import DataSources, ExperimentOptions, Method, Quiet, name_sources
from lorafit.cli.render.progress import open_progress


def search(
    data: DataSources,
    *,
    trials: Annotated[int, typer.Option(help="Number of trials in total, earlier ones in the folder included.")],
    options: ExperimentOptions,
    method: Method = None,
    budget: Annotated[str | None, typer.Option(metavar="TIME", help="Time limit for this session, e.g. 30m.")] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder; a search in it is resumed. Default: a free name below runs/."),
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Where trials are kept: sqlite, journal or postgresql://USER@HOST/DATABASE [sqlite]."
        ),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Search for better settings on validation rows."""
    from lorafit.cli.render.search import show_search
    from lorafit.experiments.search.search import search as search_settings

    config = options.load_config({**name_sources(data), "method.name": method, "search.storage": storage})
    with open_progress(quiet=quiet) as progress, options.open_engine() as engine:
        result = search_settings(config, trials, budget=budget, output=output, engine=engine, progress=progress)
    show_search(result, quiet=quiet)
