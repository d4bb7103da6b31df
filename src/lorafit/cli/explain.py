"""`lorafit explain`: which words a prediction rests on."""

from pathlib import Path
from typing import Annotated, cast

import typer

from lorafit.cli.options import Blended, Quiet, accepts_altered, takes_base, takes_threads
from lorafit.cli.render.progress import open_progress
from lorafit.system.text import Text


@takes_base
@takes_threads
@accepts_altered
def explain(
    run: Annotated[Path, typer.Argument(help="The run folder, or that of an exported model.")],
    texts: Annotated[
        list[str], typer.Argument(help="One text or several; both texts of one pair for a model of pairs.")
    ],
    *,
    label: Annotated[
        str | None,
        typer.Option(
            "--label", help="The label to explain; default: the predicted one, or of several the most probable."
        ),
    ] = None,
    blend: Blended = True,
    json: Annotated[bool, typer.Option("--json", help="Write one JSON object a text.")] = False,
    quiet: Quiet = False,
) -> None:
    """Show which words a prediction rests on."""
    from lorafit.cli.render.explanation import show_explanations
    from lorafit.inference.explanation import explain as explain_text
    from lorafit.inference.jobs import TEXT_COLUMNS, read_column
    from lorafit.inference.loading import load
    from lorafit.inference.typed_texts import read_words

    predictor = load(run, blend=blend)
    columns = TEXT_COLUMNS if predictor.pair else TEXT_COLUMNS[:1]
    wanted = cast("list[Text]", read_column(read_words(texts, text_columns=columns), columns))
    with open_progress(quiet=quiet or len(wanted) == 1) as progress:
        progress.start("explaining", total=len(wanted), unit="text")
        explanations = []
        for text in wanted:
            explanations.append(explain_text(predictor, text, label=label))
            progress.update(len(explanations))
        progress.finish()
    show_explanations(explanations, json=json)
