"""`lorafit demo`: training on the built-in data and model."""

from lorafit.cli.options import Output, Overwrite, Quiet, Settings, TrainingOptions


def demo(
    *, settings: Settings = None, output: Output = None, overwrite: Overwrite = False, quiet: Quiet = False
) -> None:
    """Train on the built-in data and model.

    The same as: lorafit train builtin:rotten-tomatoes --model builtin:distil-minilm
    """
    from lorafit.cli.train import train

    options = TrainingOptions(model="builtin:distil-minilm", settings=settings)
    train(["builtin:rotten-tomatoes"], options=options, output=output, overwrite=overwrite, quiet=quiet)
