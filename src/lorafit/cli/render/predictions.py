"""What `lorafit predict` prints, and the sample of predictions at the end of training."""

import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table
from rich.text import Text

from lorafit.data.writing import render_json
from lorafit.inference.batch import PredictedTable
from lorafit.inference.jobs import TEXT_COLUMNS
from lorafit.system.text import clean_text
from lorafit.tasks.base import Prediction, Task
from lorafit.tasks.labels import Label

if TYPE_CHECKING:
    from lorafit.training.pipeline import Sample


_LONGEST_TEXT = 120
_WIDEST = 40
"""Characters of a line of a label or prediction beside a text."""


def show_predictions(task: Task, predicted: PredictedTable, *, json: bool) -> None:
    """Print one prediction a line before its text, in columns of the same width for all texts; or a JSON object."""
    width = max(len(clean_text(name)) for name in task.label_names)  # of all labels: a file comes part by part
    encoding = (getattr(sys.stdout, "encoding", None) or "utf-8").lower().replace("_", "-")
    ascii_only = encoding not in {"utf-8", "utf8"}  # what is escaped for another one would not be JSON
    for row, (text, prediction) in enumerate(zip(predicted.texts, predicted.predictions, strict=True)):
        fault = predicted.table.faults.get(row)
        if json:
            line = render_json(_build_object(text, prediction, predicted, fault), ascii_only=ascii_only)
        elif prediction is None:
            line = f"no prediction: {fault}"
        else:
            name, *rest = prediction.cells()
            cells = [clean_text(name).ljust(width) if rest else clean_text(name), *rest]
            line = "  ".join([*cells, " | ".join(clean_text(str(part)) for part in _split(text))])
        sys.stdout.write(f"{line}\n")


def _build_object(
    text: object, prediction: Prediction | None, predicted: PredictedTable, fault: str | None
) -> dict[str, object]:
    """Return what is written of a row as JSON; where rows without a prediction are kept, with its fault."""
    values: dict[str, object] = dict(zip(TEXT_COLUMNS, _split(text), strict=False))
    if predicted.keeps_faults:
        values |= dict.fromkeys(asdict(predicted.example)) | {"fault": fault}  # type: ignore[call-overload]
    return values if prediction is None else values | asdict(prediction)  # type: ignore[call-overload]


def _split(text: object) -> tuple[object, ...]:
    return text if isinstance(text, tuple) else (text,)


def build_sample_table(task: Task, samples: "Sequence[Sample]") -> Table:
    """Build a table of test rows with their true labels and their predictions, marked right or wrong."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("text", ratio=1)
    table.add_column(task.truth_column.replace("_", " "), max_width=_WIDEST)
    if any(sample.before is not None for sample in samples):
        table.add_column("before", justify="right", max_width=_WIDEST)
    table.add_column("after", justify="right", max_width=_WIDEST)
    for sample in samples:
        predictions = [one for one in (sample.before, sample.after) if one is not None]
        table.add_row(
            Text(clean_text(sample.text, most=_LONGEST_TEXT)),
            Text(clean_text(task.describe_label(sample.label))),
            *(_judge(prediction, sample.label) for prediction in predictions),
        )
    return table


def _judge(prediction: Prediction, truth: Label) -> Text:
    """Describe a prediction with a mark of whether it is right, where that is a question."""
    described, is_right = clean_text(prediction.describe()), prediction.is_right(truth)
    if is_right is None:
        return Text(described)
    return Text(f"{'✓' if is_right else '✗'} {described}", style="green" if is_right else "red")
