"""What a run folder holds for a report: records, history and predictions. No model is loaded."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from lorafit.answers import parse_predictions
from lorafit.config import Config, load_config
from lorafit.data.rows import Split
from lorafit.data.sources import load_evaluation_rows
from lorafit.data.tables import read_table
from lorafit.errors import LorafitError, RunError
from lorafit.evidence import ExplainedMistake, MetricsRecord, MistakesRecord, ModelScores
from lorafit.metrics.scores import check_probabilities, confusion_matrix, predict_labels
from lorafit.runs.folder import RunLayout
from lorafit.runs.records import RunRecord

__all__ = [
    "FinishedRun",
    "PredictedRows",
    "RunContents",
    "Texts",
    "read_finished_record",
    "read_history",
    "read_predicted_rows",
    "read_run",
    "read_texts",
]

_Scores = TypeVar("_Scores")


@dataclass(frozen=True)
class PredictedRows:
    """What the models said of the n test rows.

    Attributes:
        row_ids: Shape (n,): number of each row in its source.
        labels: What is true, as `Split.labels` holds it: class ids, marks or numbers.
        finetuned: What the fine-tuned model said, shape (n, outputs): probabilities, or numbers.
        baseline: The same of the model before training, or None.
    """

    row_ids: NDArray[np.int64]
    labels: NDArray[Any]
    finetuned: NDArray[np.float64]
    baseline: NDArray[np.float64] | None


@dataclass(frozen=True)
class FinishedRun(PredictedRows):
    """What a finished run of any task holds on disk.

    Attributes:
        layout: Where it lies.
        record: What was done, with what, and what it cost.
        config: All settings.
        history: What was logged while it trained, in order; empty without `history.jsonl`.
    """

    layout: RunLayout
    record: RunRecord
    config: Config
    history: tuple[dict[str, float], ...]

    @property
    def names(self) -> list[str]:
        """The classes, in the order of the probabilities' columns."""
        return self.record.labels

    @property
    def said(self) -> dict[str, NDArray[np.float64]]:
        """What each model said, shape (n, outputs): `before`, where it was measured, and `after`."""
        before = {} if self.baseline is None else {"before": self.baseline}
        return {**before, "after": self.finetuned}


@dataclass(frozen=True)
class RunContents(FinishedRun):
    """A finished run with one label a text.

    Attributes:
        metrics: The evidence.
        mistakes: Which words the most confident mistakes rest on, by row id; empty without `mistakes.json`.
    """

    metrics: MetricsRecord
    mistakes: dict[int, ExplainedMistake]


@dataclass(frozen=True)
class Texts:
    """The texts of the test rows, or why there are none.

    Attributes:
        texts: n texts in the order of the rows, or None.
        reason: Why there are none, as a sentence for the page; empty where there are.
        detail: What stood in the way, for who makes the page; it may name paths, which a page should not.
    """

    texts: tuple[str, ...] | None
    reason: str = ""
    detail: str = ""


def read_finished_record(layout: RunLayout) -> RunRecord:
    """Read the record of a run.

    Args:
        layout: The run folder.

    Returns:
        The record.

    Raises:
        RunError: The folder is not a finished run.
    """
    record = RunRecord.read(layout.record)
    if record.status != "complete":
        raise RunError(
            f"{layout.root} is not a finished run: its status is '{record.status}'. Go on with it first: "
            "lorafit train --resume RUN"
        )
    return record


def read_run(run: str | Path) -> RunContents:
    """Read a finished run.

    Args:
        run: The run folder.

    Returns:
        What is in it.

    Raises:
        RunError: The folder is not a finished run, or something in it is missing, damaged or altered.
    """
    layout = RunLayout(Path(run).expanduser().resolve())
    record = read_finished_record(layout)
    metrics = MetricsRecord.read(layout.metrics)
    predicted = read_predicted_rows(layout, record, metrics.finetuned, metrics.baseline, _agree)
    explained = MistakesRecord.read(layout.mistakes).mistakes if layout.mistakes.is_file() else []
    return RunContents(
        row_ids=predicted.row_ids,
        labels=predicted.labels,
        finetuned=predicted.finetuned,
        baseline=predicted.baseline,
        layout=layout,
        record=record,
        config=load_config(layout.config),
        history=read_history(layout.history),
        metrics=metrics,
        mistakes={mistake.row_id: mistake for mistake in explained},
    )


def read_texts(contents: FinishedRun, *, wanted: bool = True, rows: Split | None = None) -> Texts:
    """Return the texts of the test rows, if they still are those that were measured.

    Args:
        contents: The run. It holds no texts: they are read from its source again.
        wanted: Whether texts are to be shown; `evaluation.report_texts` of the run must be true, too.
        rows: The test rows where they are at hand.

    Returns:
        The texts, or why there are none.
    """
    if not (wanted and contents.config.evaluation.report_texts):
        return Texts(None, "Texts are left out, as was asked for.")
    fingerprint = contents.record.data.splits["test"].fingerprint
    if rows is None:
        data = contents.config.data
        try:
            rows = load_evaluation_rows(data.source, data, contents.record.label_set)
        except LorafitError as error:
            return Texts(None, "Texts are left out: the data could not be read again.", str(error))
    if rows.fingerprint() != fingerprint:
        return Texts(
            None,
            "Texts are left out: the data have changed since the run.",
            f"The test rows of {contents.record.data.source} have another fingerprint than those measured.",
        )
    return Texts(rows.texts)


def read_history(path: Path) -> tuple[dict[str, float], ...]:
    """Read what was logged while a run trained.

    Args:
        path: `history.jsonl`.

    Returns:
        The numbers of each line, in order; none without the file.

    Raises:
        RunError: It is damaged.
    """
    if not path.is_file():
        return ()
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        entries = [json.loads(line) for line in lines if line.strip()]
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read: it is damaged. Without that file the report has no curves.") from error
    return tuple(
        {name: float(value) for name, value in entry.items() if isinstance(value, int | float)}
        for entry in entries
        if isinstance(entry, dict)
    )


def read_predicted_rows(
    layout: RunLayout,
    record: RunRecord,
    finetuned: _Scores,
    baseline: _Scores | None,
    agree: Callable[[_Scores, NDArray[Any], NDArray[np.float64]], bool],
) -> PredictedRows:
    """Read what the models said of the test rows, and hold it against what was measured.

    Args:
        layout: The run folder.
        record: Its record.
        finetuned: Scores of the fine-tuned model.
        baseline: Those of the model before training, or None.
        agree: Says of scores, what is true (as `Split.labels` holds it) and what a model said, shape (n, outputs),
            whether they belong together. A ValueError says that these are no predictions.

    Returns:
        The rows in input order.

    Raises:
        RunError: A file of predictions is missing, damaged or altered, or the two are of other rows.
    """
    row_ids, labels, after = _read_predictions(layout, record, "finetuned", partial(agree, finetuned))
    if baseline is None:
        return PredictedRows(row_ids, labels, after, None)
    same_ids, same_labels, before = _read_predictions(layout, record, "baseline", partial(agree, baseline))
    if not (np.array_equal(row_ids, same_ids) and np.array_equal(labels, same_labels)):
        raise RunError(
            f"{layout.predictions('test', 'baseline')} is of other rows than the predictions after training: one "
            "of the two files was altered."
        )
    return PredictedRows(row_ids, labels, after, before)


def _read_predictions(
    layout: RunLayout,
    record: RunRecord,
    model: str,
    agree: Callable[[NDArray[Any], NDArray[np.float64]], bool],
) -> tuple[NDArray[np.int64], NDArray[Any], NDArray[np.float64]]:
    """Return row ids, what is true, and what one model said."""
    path = layout.predictions("test", model)
    try:
        row_ids, labels, said = parse_predictions(read_table(path).columns, record.label_set)
        is_whole = agree(labels, said)
    except LorafitError as error:
        raise RunError(f"The predictions of {layout.root} cannot be read. {error}") from error
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise RunError(f"{path} was altered: it does not hold what is true and what was said of every row.") from error
    if not is_whole:
        raise RunError(f"{path} was altered: its rows do not give the scores in {layout.metrics.name}.")
    return row_ids, labels, said


def _agree(scores: ModelScores, labels: NDArray[Any], probabilities: NDArray[np.float64]) -> bool:
    classes = len(scores.confusion_matrix)
    guesses = predict_labels(check_probabilities(probabilities, len(labels)))
    return bool(confusion_matrix(labels, guesses, classes).tolist() == scores.confusion_matrix)
