"""Classify a table of texts and keep its columns."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO, cast

from lorafit.answers import Answer
from lorafit.data.checks import describe_text_fault
from lorafit.data.tables import DELIMITERS, Table
from lorafit.data.writing import WRITABLE_SUFFIXES
from lorafit.errors import UserInputError
from lorafit.inference.predictor import Predictor
from lorafit.system.atomic import describe_obstacle
from lorafit.system.extras import require
from lorafit.system.progress import Progress, Silent

__all__ = ["PredictedTable", "check_output", "keep_usable_rows", "predict_table", "read_texts"]


@dataclass(frozen=True)
class PredictedTable:
    """A table with its predictions.

    Attributes:
        table: The rows as they were read.
        text_column: The column that was classified.
        predictions: One a row, in the same order.
    """

    table: Table
    text_column: str
    predictions: tuple[Answer, ...]

    def columns(self) -> dict[str, Sequence[object]]:
        """Return the original columns, then those of the answers, for example `label`, `score` and probabilities.

        A new column whose name is taken gets `predicted_` before it.
        """
        columns: dict[str, Sequence[object]] = dict(self.table.columns)
        answers = [prediction.columns() for prediction in self.predictions]
        for name in answers[0]:
            free = name
            while free in columns:
                free = f"predicted_{free}"
            columns[free] = [answer[name] for answer in answers]
        return columns


def read_texts(words: Sequence[str], stream: TextIO, *, text_column: str) -> Table:
    """Read what is to be classified from the command line or from standard input.

    Args:
        words: Texts given directly.
        stream: Read line by line where no words were given.
        text_column: Name of the table's only column.

    Returns:
        The table.

    Raises:
        UserInputError: There is nothing at all, or the stream is not UTF-8.
    """
    if words:
        return Table({text_column: list(words)}, "the command line")
    if stream.isatty():
        raise UserInputError('Nothing to classify. Give texts ("I loved it"), --file reviews.csv, or pipe lines in.')
    try:
        lines: list[object] = [line.rstrip("\n") for line in stream]
    except UnicodeDecodeError:
        raise UserInputError(
            "Standard input is not UTF-8. Convert it, for instance with: iconv -f latin1 -t utf-8"
        ) from None
    if not lines:
        raise UserInputError("Nothing to classify: standard input is empty.")
    return Table({text_column: lines}, "standard input")


def check_output(path: Path, *, overwrite: bool, csv_safe: bool = False) -> None:
    """Refuse an output file that cannot or must not be written, before any work is done.

    Args:
        path: The file.
        overwrite: Whether it may be replaced.
        csv_safe: Whether its cells are to be disarmed, which csv and tsv files alone need.

    Raises:
        UserInputError: Its suffix is not a table's, or it is a folder, or there already.
        MissingExtraError: It is a parquet file and pyarrow is not installed.
    """
    if path.suffix.lower() not in WRITABLE_SUFFIXES:
        raise UserInputError(f"--output {path}: allowed suffixes are {', '.join(WRITABLE_SUFFIXES)}.")
    if path.is_dir():
        raise UserInputError(f"--output {path} is a folder; give the name of a file.")
    if path.exists() and not overwrite:
        raise UserInputError(f"{path} already exists. Choose another name, or replace it with --overwrite.")
    if (obstacle := describe_obstacle(path)) is not None:
        raise UserInputError(f"{path} cannot be written: {obstacle}.")
    if csv_safe and path.suffix.lower() not in DELIMITERS:
        raise UserInputError(f"--csv-safe is for csv and tsv files; {path.name} is another kind.")
    if path.suffix.lower() == ".parquet":
        require("pyarrow.parquet", extra="train", purpose="writing parquet files")


def keep_usable_rows(table: Table, *, text_column: str) -> Table:
    """Return the rows whose text can be classified, in the same order; there may be none."""
    good = [row for row, text in enumerate(table.columns[text_column]) if describe_text_fault(text) is None]
    if len(good) == len(table):
        return table
    return Table({name: [values[row] for row in good] for name, values in table.columns.items()}, table.origin)


def predict_table(
    predictor: Predictor, table: Table, *, text_column: str, progress: Progress | None = None
) -> PredictedTable:
    """Classify every row.

    Args:
        predictor: From `lorafit.load`.
        table: The rows.
        text_column: The column to classify.
        progress: Told how many texts are done.

    Returns:
        The predictions with the table.
    """
    progress = progress or Silent()
    texts = cast("Sequence[str]", table.columns[text_column])  # predict checks that they are
    progress.start("predicting", total=len(texts), unit="text")
    predictions = predictor.predict(texts, on_progress=progress.update)
    progress.finish()
    return PredictedTable(table=table, text_column=text_column, predictions=tuple(predictions))
