"""`lorafit demo`: training on the built-in data and model."""

import typer

from lorafit.cli.options import Output, Overwrite, Quiet, Settings, TrainingOptions


def demo(
    *,
    context: typer.Context,
    settings: Settings = None,
    output: Output = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Train on the built-in data and model.

    The same as: lorafit train builtin:rotten-tomatoes --model builtin:distil-minilm
    """
    from lorafit.cli.train import train

    options = TrainingOptions(model="builtin:distil-minilm", settings=settings)
    data = ["builtin:rotten-tomatoes"]
    train(data, context=context, options=options, output=output, overwrite=overwrite, quiet=quiet)
