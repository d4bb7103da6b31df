"""`lorafit demo`: the whole way on the built-in data and model."""

from lorafit.cli.options import Output, Overwrite, Quiet, Settings


def demo(
    *, settings: Settings = None, output: Output = None, overwrite: Overwrite = False, quiet: Quiet = False
) -> None:
    """Show it all on the built-in data and model.

    The same as: lorafit train builtin:rotten-tomatoes --model builtin:distil-minilm
    """
    from lorafit.cli.train import train

    train(
        "builtin:rotten-tomatoes",
        model="builtin:distil-minilm",
        settings=settings,
        output=output,
        overwrite=overwrite,
        quiet=quiet,
    )
