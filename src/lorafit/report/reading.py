"""What a run folder holds for a report: records, history and predictions. No model is loaded."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lorafit.artifacts import RunLayout, RunRecord
from lorafit.config import Config, load_config
from lorafit.data.rows import Split
from lorafit.data.sources import load_evaluation_rows
from lorafit.data.tables import read_table
from lorafit.errors import LorafitError, RunError
from lorafit.evidence import ExplainedMistake, MetricsRecord, MistakesRecord, ModelScores
from lorafit.labels import LabelSet
from lorafit.metrics.scores import check_probabilities, confusion_matrix, predict_labels

__all__ = ["RunContents", "Texts", "read_finished_record", "read_history", "read_run", "read_texts"]


@dataclass(frozen=True)
class RunContents:
    """A finished run as it lies on disk.

    Attributes:
        layout: Where it lies.
        record: What was done, with what, and what it cost.
        config: All settings.
        metrics: The evidence.
        history: What was logged while it trained, in order; empty without `history.jsonl`.
        row_ids: Shape (n,): number of each test row in its source.
        labels: Shape (n,): true class ids.
        finetuned: Probabilities of the fine-tuned model, shape (n, classes).
        baseline: Those of the model before training, or None.
        mistakes: Which words the most confident mistakes rest on, by row id; empty without `mistakes.json`.
    """

    layout: RunLayout
    record: RunRecord
    config: Config
    metrics: MetricsRecord
    history: tuple[dict[str, float], ...]
    row_ids: NDArray[np.int64]
    labels: NDArray[np.int64]
    finetuned: NDArray[np.float64]
    baseline: NDArray[np.float64] | None
    mistakes: dict[int, ExplainedMistake]

    @property
    def names(self) -> list[str]:
        """The classes, in the order of the probabilities' columns."""
        return self.record.labels


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
    row_ids, labels, finetuned = _read_predictions(layout, record, "finetuned", metrics.finetuned)
    baseline = None
    if metrics.baseline is not None:
        same_ids, same_labels, baseline = _read_predictions(layout, record, "baseline", metrics.baseline)
        if not (np.array_equal(row_ids, same_ids) and np.array_equal(labels, same_labels)):
            raise RunError(
                f"{layout.predictions('test', 'baseline')} is of other rows than the predictions after training: one "
                "of the two files was altered."
            )
    explained = MistakesRecord.read(layout.mistakes).mistakes if layout.mistakes.is_file() else []
    return RunContents(
        layout=layout,
        record=record,
        config=load_config(layout.config),
        metrics=metrics,
        history=read_history(layout.history),
        row_ids=row_ids,
        labels=labels,
        finetuned=finetuned,
        baseline=baseline,
        mistakes={mistake.row_id: mistake for mistake in explained},
    )


def read_texts(contents: RunContents, *, wanted: bool = True, rows: Split | None = None) -> Texts:
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
        data, labels = contents.config.data, LabelSet(tuple(contents.names))
        try:
            rows = load_evaluation_rows(data.source, data, labels)
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


def _read_predictions(
    layout: RunLayout, record: RunRecord, model: str, scores: ModelScores
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Read row ids, true class ids and probabilities of the test rows, and hold them against what was scored."""
    path = layout.predictions("test", model)
    try:
        columns = read_table(path).columns
        labels, probabilities = _decode(columns, LabelSet(tuple(record.labels)))
        matrix = confusion_matrix(labels, predict_labels(probabilities), len(record.labels))
        row_ids = np.array(columns["row_id"], dtype=np.int64)
    except LorafitError as error:
        raise RunError(f"The predictions of {layout.root} cannot be read. {error}") from error
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise RunError(f"{path} was altered: it does not hold a label and probabilities for every row.") from error
    if matrix.tolist() != scores.confusion_matrix:
        raise RunError(f"{path} was altered: its rows do not give the confusion matrix in {layout.metrics.name}.")
    return row_ids, labels, probabilities


def _decode(columns: dict[str, list[Any]], labels: LabelSet) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    ids = np.array([labels.label2id[name] for name in columns["true_label"]], dtype=np.int64)
    values = np.array([columns[f"probability_{name}"] for name in labels.names], dtype=np.float64).T
    return ids, check_probabilities(values, len(ids))
