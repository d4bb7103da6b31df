"""`lorafit export`: a model that needs no torch."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from lorafit.cli.options import Blended, Quiet, takes_base
from lorafit.cli.render.progress import open_progress
from lorafit.system.text import disarm


@takes_base
def export(
    run: Annotated[Path, typer.Argument(help="The run folder.")],
    *,
    int8: Annotated[bool, typer.Option("--int8", help="Linear layers in int8: smaller; faster with VNNI.")] = False,
    runtime: Annotated[
        Literal["onnxruntime", "openvino", "auto"],
        typer.Option("--runtime", help="What is to run it; OpenVINO is mostly quicker on x86; auto tries both."),
    ] = "onnxruntime",
    merged: Annotated[
        bool,
        typer.Option(
            "--merged",
            help="A plain transformers model instead, the adapter merged in; of mean states for sentence-transformers.",
        ),
    ] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder; default: one named by the kind in the run.")
    ] = None,
    allow_drift: Annotated[
        bool, typer.Option("--allow-drift", help="Write it even if it predicts something else than the original.")
    ] = False,
    blend: Blended = True,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an export that is there.")] = False,
    quiet: Quiet = False,
) -> None:
    """Write a run as a graph that needs no torch, or merged."""
    from lorafit.cli.render.export import show_export
    from lorafit.errors import StoppedError, UserInputError
    from lorafit.inference.export.export import export as export_run
    from lorafit.inference.export.export import export_merged

    if merged and (int8 or allow_drift or runtime != "onnxruntime"):
        raise UserInputError("--merged writes the model as it is: leave out --int8, --runtime and --allow-drift.")
    with open_progress(quiet=quiet) as progress:
        if merged:
            folder = export_merged(run, output=output, overwrite=overwrite)
            if (folder / "modules.json").is_file():
                progress.say(
                    "its head reads the mean of the tokens: open it with sentence-transformers, whose encode gives the "
                    "logits; transformers' pipeline would put a random head on it"
                )
            typer.echo(disarm(str(folder)))
            return
        exported = export_run(
            run,
            int8=int8,
            runtime=runtime,
            output=output,
            allow_drift=allow_drift,
            overwrite=overwrite,
            blend=blend,
            progress=progress,
        )
    try:
        show_export(exported, quiet=quiet)
    except KeyboardInterrupt:
        raise StoppedError(f"Interrupted when the export was complete: {exported.path}") from None
