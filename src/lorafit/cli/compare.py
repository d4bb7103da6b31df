"""`lorafit compare`: several methods on the same rows, in one table."""

from pathlib import Path
from typing import Annotated

import typer

from lorafit.cli.options import DataSources, ExperimentOptions, Quiet, name_sources
from lorafit.cli.render.progress import open_progress


def compare(
    data: DataSources,
    *,
    methods: Annotated[str, typer.Option(metavar="A,B,…", help="Methods to compare, separated by commas.")],
    seeds: Annotated[int, typer.Option(help="Number of seeds that each method is trained with.")] = 1,
    options: ExperimentOptions,
    budget: Annotated[
        str | None, typer.Option(metavar="TIME", help="Time limit for everything, e.g. 1h; all get the same settings.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder; finished runs in it are kept. Default: a free name below runs/."),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Compare methods by their metrics and cost."""
    from lorafit.cli.render.comparison import show_comparison
    from lorafit.experiments.compare.compare import compare as compare_methods

    config = options.load_config({**name_sources(data), "training.budget": budget})
    names = [name.strip() for name in methods.split(",") if name.strip()]
    with open_progress(quiet=quiet) as progress, options.open_engine() as engine:
        comparison = compare_methods(config, names, seeds=seeds, output=output, engine=engine, progress=progress)
    show_comparison(comparison, quiet=quiet)
