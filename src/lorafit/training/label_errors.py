"""Labels that are probably wrong, found by predictions of models that did not see them, as a file for a reviewer."""

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lorafit.config import Config, describe_source
from lorafit.data.corrections import CORRECTED, DIGEST, ROW, SPLIT, digest_text
from lorafit.data.loading import load_source_rows, load_splits
from lorafit.data.quality.findings import DATA, MOST_ROWS, Finding, FoundRow, Scope, grade, write_share
from lorafit.data.rows import Split
from lorafit.data.writing import WRITABLE_SUFFIXES, write_table
from lorafit.errors import ConfigError, DataError, UserInputError
from lorafit.inference.loading import load
from lorafit.runs.agreement import check_task
from lorafit.runs.evidence import read_settings
from lorafit.runs.folder import RunLayout
from lorafit.runs.hub import locate_run
from lorafit.runs.lineage import count_seen, list_base_runs
from lorafit.runs.records import RunRecord
from lorafit.system.extras import require
from lorafit.system.progress import Progress, Silent
from lorafit.system.text import fold_text, join_text
from lorafit.tasks.base import Array, Task
from lorafit.tasks.baselines import EMBEDDING, MAJORITY, WORD_MODELS
from lorafit.tasks.labels import Label
from lorafit.training.folds import (
    assign_folds,
    build_material,
    predict_baseline_folds,
    predict_embedding_folds,
    predict_encoder_folds,
)

_WARN_FROM: Final = 0.05
"""Share of labels that are probably wrong which is worth a warning; some are so in any data."""

ENCODER: Final = "encoder"
"""Name of the fine-tuned encoder among the models that judge; no baseline has it."""

_BY_ENCODER: Final = {EMBEDDING: predict_embedding_folds, ENCODER: predict_encoder_folds}
"""The models that judge by what the encoder makes of a text."""


@dataclass(frozen=True)
class LabelErrors:
    """Labels that are probably wrong, the worst first.

    Attributes:
        task: The task, with the labels of the rows judged.
        judged: How many rows were judged, by split.
        columns: The review file without texts, by column; one entry for each row whose label is probably wrong.
        texts: Texts of those rows, for the review file.
        notes: What a user should know: how the rows were read, which were left out or corrected, which not judged.
    """

    task: Task
    judged: Mapping[str, int]
    columns: Mapping[str, Sequence[object]]
    texts: Sequence[str]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.texts)

    def count(self) -> dict[str, int]:
        """Count them by split."""
        return {split: sum(name == split for name in self.columns[SPLIT]) for split in self.judged}

    def list_findings(self, review: Path) -> list[Finding]:
        """Return what a check tells of them, with the review file and what to do with it.

        Args:
            review: Where the review file lies.

        Returns:
            A finding for each split with such labels, and one for each note.
        """
        rows = sum(self.judged.values())
        found = [
            Finding(
                name="label-errors",
                severity=grade(count / self.judged[split], warn_from=_WARN_FROM),
                split=split,
                count=count,
                share=count / self.judged[split],
                scope=Scope(rows=self.judged[split], of=self.judged[split]),
                message=f"{count:,} {split} labels ({write_share(count / self.judged[split])}) are probably wrong: "
                f"{review} lists them, the worst first. Fill in its column {CORRECTED}, then train with it.",
                remedy=f"lorafit train {DATA} --corrections {shlex.quote(str(review))}",
                rows=tuple(
                    FoundRow(split=split, row=int(str(row)))
                    for row, name in zip(self.columns[ROW], self.columns[SPLIT], strict=True)
                    if name == split
                )[:MOST_ROWS],
            )
            for split, count in self.count().items()
            if count
        ]
        told = self.notes if found else (*self.notes, f"None of {rows:,} labels is probably wrong.")
        scope = Scope(rows=rows, of=rows)
        return found + [
            Finding(name="label-errors", severity="note", split=None, count=rows, share=1.0, scope=scope, message=note)
            for note in told
        ]

    def write(self, path: Path, *, texts: bool = True) -> None:
        """Write the review file.

        Args:
            path: Where to; its suffix decides the kind (`data.writing.WRITABLE_SUFFIXES`).
            texts: Whether the texts stand in it, in the last column.

        Raises:
            UserInputError: It is there already, which may be the work of a reviewer, or cannot be written.
        """
        check_review_file(path)
        columns = {**self.columns, "text": self.texts} if texts else dict(self.columns)
        write_table(path, columns, csv_safe=True)


@dataclass(frozen=True)
class _Rows:
    """Rows of several splits, one split after the other."""

    split: Split
    names: tuple[str, ...]

    @classmethod
    def join(cls, parts: Mapping[str, Split]) -> "_Rows":
        """Put splits together; a group is one over all of them."""
        splits = list(parts.values())
        grouped = all(split.groups is not None for split in splits)
        return cls(
            Split(
                ids=np.concatenate([split.ids for split in splits]),
                texts=tuple(text for split in splits for text in split.texts),
                y=np.concatenate([split.y for split in splits]),
                groups=tuple(group for split in splits for group in split.groups or ()) if grouped else None,
            ),
            tuple(name for name, split in parts.items() for _ in range(len(split))),
        )

    def select(self, places: NDArray[np.int64]) -> "_Rows":
        """Return the rows at `places`."""
        return _Rows(self.split.select(places), tuple(self.names[place] for place in places))

    def count(self) -> dict[str, int]:
        """Count them by split."""
        return {name: self.names.count(name) for name in dict.fromkeys(self.names)}


def review_labels(
    config: Config,
    review: Path,
    *,
    folds: int | None = None,
    models: Iterable[str] | None = None,
    run: Path | None = None,
    texts: bool = True,
    progress: Progress | None = None,
) -> list[Finding]:
    """Find labels that are probably wrong, write them into a file for a reviewer, and say what was found.

    Args:
        config: The settings: the data, and how the encoder is trained.
        review: The file to write; none where no label is probably wrong.
        folds: For `find_label_errors`.
        models: For `find_label_errors`.
        run: For `find_label_errors_by_run`; either this or `folds` is given.
        texts: Whether the texts stand in the file.
        progress: Receives the progress.

    Returns:
        Findings for `lorafit check`.

    Raises:
        ConfigError: Both were given, or neither.
    """
    if (folds is None) == (run is None):
        raise ConfigError("Labels are judged by --folds N or by --labels RUN: give one of them.")
    check_review_file(review)
    if run is not None:
        found = find_label_errors_by_run(config, run, progress=progress)
    else:
        found = find_label_errors(config, folds=folds or 0, models=models, progress=progress)
    if len(found):
        found.write(review, texts=texts)
    return found.list_findings(review)


def find_label_errors(
    config: Config, *, folds: int = 5, models: Iterable[str] | None = None, progress: Progress | None = None
) -> LabelErrors:
    """Find labels that are probably wrong by cross-validation: each row is judged by models trained on other folds.

    All rows of the source are judged, whatever split they are in.

    Args:
        config: The settings: the data, and how the encoder is trained.
        folds: Number of folds, at least 2.
        models: Which models judge, their mean in the end: `encoder` and the task's baselines; None for all of them but
            `embedding`.
        progress: Receives the progress.

    Returns:
        The labels.

    Raises:
        DataError: The rows cannot be used, or are too few for so many folds.
        MissingExtraError: cleanlab or what training needs is not installed.
        UserInputError: Fewer than two folds, or an unknown model.
    """
    _require_cleanlab()
    progress = progress or Silent()
    if folds < 2:
        raise UserInputError(f"--folds takes a number of 2 or more, got {folds}.")
    progress.start("reading data")
    task, parts, notes = load_source_rows(config.data)
    rows = _Rows.join(parts)
    progress.finish(", ".join(f"{len(split):,} {name}" for name, split in parts.items()))
    names = _check_models(models, task)
    fold_ids = assign_folds(rows.split, task, folds, seed=config.data.seed)
    values = [
        predict_baseline_folds(name, rows.split, task, fold_ids, progress) for name in names if name in WORD_MODELS
    ]
    if by_encoder := [predict for name, predict in _BY_ENCODER.items() if name in names]:
        material = build_material(config, task, rows.split)
        values += [predict(config, material, fold_ids, progress) for predict in by_encoder]
        notes += tuple(_describe_seen(config, rows.split))
    learned = _find_learned(rows.split, task, fold_ids)
    left_out, chosen = int(np.count_nonzero(~learned)), np.flatnonzero(learned)
    if left_out:
        notes += (f"Rows not judged: {left_out:,}, as one fold has all rows with their label.",)
    return _judge(rows.select(chosen), task, np.mean(values, axis=0)[chosen], notes)


def find_label_errors_by_run(config: Config, run: Path, *, progress: Progress | None = None) -> LabelErrors:
    """Find labels that are probably wrong by the predictions of a run, for rows that it was not trained on.

    Args:
        config: The settings of the data: the run's own source, whose training rows are passed over, or other rows.
        run: The run folder.
        progress: Receives the progress.

    Returns:
        The labels; a note says how many rows were not judged.

    Raises:
        DataError: The run was trained on all of the rows, it can no longer be told on which, or labels are not its.
        MissingExtraError: cleanlab or what prediction needs is not installed.
        RunError: It is of another task.
    """
    _require_cleanlab()
    progress = progress or Silent()
    layout = RunLayout(locate_run(run))
    record = RunRecord.read(layout.record)
    task = record.build_task()
    check_task(config, record, layout)
    remedy = f"Judge all rows by cross-validation: lorafit check {describe_source(config)} --folds 5"
    progress.start("reading data")
    trained = load_splits(read_settings(layout, record).data).train
    if trained.fingerprint() != record.data.splits["train"].fingerprint:
        raise DataError(
            f"{record.data.source} has changed since {layout.root} was trained, so it is not known which rows it was "
            f"trained on. {remedy}"
        )
    _, parts, notes = load_source_rows(config.data, task)
    rows, known, trainers = _Rows.join(parts), set(map(fold_text, trained.texts)), str(layout.root)
    for base in list_base_runs(record.base_model.name, before=record.created):
        if base.texts is None:
            notes += (f"Whether {base.root} was trained on any of the rows cannot be checked: {base.fault}.",)
        else:
            known |= base.texts
            trainers += f" or {base.root}, which it goes on from,"
    unseen = np.flatnonzero([fold_text(text) not in known for text in rows.split.texts])
    progress.finish(f"{len(unseen):,} rows that the run was not trained on")
    if not len(unseen):
        raise DataError(
            f"{trainers} was trained on all of these rows: what it predicts for them says nothing of their labels. "
            f"{remedy}"
        )
    seen = len(rows.names) - len(unseen)
    if seen:
        notes += (f"Rows not judged: {seen:,}, on which {trainers} was trained. {remedy}",)
    rows, predictor = rows.select(unseen), load(layout.root)
    progress.start("predicting", total=len(unseen), unit="text")
    values = predictor.compute_values(rows.split.texts, on_progress=progress.update)
    progress.finish()
    return _judge(rows, task, values, notes)


def check_review_file(path: Path) -> None:
    """Refuse, before any work is done, a review file that cannot be written.

    Args:
        path: Where it is to be.

    Raises:
        UserInputError: It is there already, or has another suffix than those of `data.writing.WRITABLE_SUFFIXES`.
    """
    if path.suffix.lower() not in WRITABLE_SUFFIXES:
        raise UserInputError(
            f"{path.name}: a review file ends in {', '.join(WRITABLE_SUFFIXES[:-1])} or {WRITABLE_SUFFIXES[-1]}."
        )
    if path.exists():
        raise UserInputError(
            f"{path} is there already, perhaps with a reviewer's work. Choose another name (--review FILE) or move it."
        )


def _describe_seen(config: Config, rows: Split) -> Iterator[str]:
    """Tell how many rows the runs that the encoder comes from were trained on: their labels are learned already."""
    for base in list_base_runs(config.model.name):
        if base.texts is None:
            yield f"Whether {base.root}, the encoder, was trained on any of the rows cannot be checked: {base.fault}."
        elif seen := count_seen(base.texts, {"": rows})[""]:
            yield (
                f"{base.root}, the encoder, was trained on {seen:,} of the {len(rows):,} rows: it has learned their "
                "labels, right or wrong, and takes too few of them for wrong. Take an encoder that is no run (--model) "
                "or leave it out (--judges)."
            )


def _require_cleanlab() -> None:
    require("cleanlab.filter", extra="check", purpose="finding label errors")


def _check_models(models: Iterable[str] | None, task: Task) -> list[str]:
    """Return the names of the models that judge, each once, after checking them."""
    known = [*(name for name in task.baselines if name != MAJORITY), ENCODER]
    usual = [name for name in known if name != EMBEDDING]
    names = usual if models is None else list(dict.fromkeys(models))
    if not names or not set(names) <= set(known):
        asked = ", ".join(names)
        raise UserInputError(f"--judges {asked}: labels of {task.name} are judged by any of {', '.join(known)}.")
    return names


def _find_learned(rows: Split, task: Task, folds: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Tell of which rows every label occurs in other folds, too, so that their models could learn it; shape (n,)."""
    marks = task.mark_labels(rows.y)
    learned = np.ones(len(rows), dtype=bool)
    for fold in np.unique(folds):
        inside = folds == fold
        unknown = ~marks[~inside].any(axis=0)
        learned[inside] = ~marks[inside][:, unknown].any(axis=1)
    return learned


def _judge(rows: _Rows, task: Task, values: Array, notes: tuple[str, ...]) -> LabelErrors:
    """Rank the rows whose labels are probably wrong.

    Args:
        rows: The n rows.
        task: The task.
        values: Shape (n, labels), by models that were not trained on them.
        notes: What a user should know already.

    Returns:
        The labels.
    """
    scores, suggestions = task.support_labels(rows.split.y, values), task.suggest_labels(values)
    differs = [label != other for label, other in zip(task.decode(rows.split.y), suggestions, strict=True)]
    ranked = np.flatnonzero(task.suspect_labels(rows.split.y, values) & np.array(differs))
    ranked = ranked[np.argsort(scores[ranked], kind="stable")]
    found, suggested = rows.select(ranked), [suggestions[place] for place in ranked]
    columns: dict[str, Sequence[Any]] = {
        ROW: found.split.ids.tolist(),
        SPLIT: found.names,
        "label": [_as_cell(label) for label in task.decode(found.split.y)],
        "label_score": np.round(scores[ranked], 4).tolist(),
        "suggested_label": [_as_cell(label) for label in suggested],
        "suggested_score": np.round(task.support_labels(task.encode(suggestions), values)[ranked], 4).tolist(),
        CORRECTED: [""] * len(ranked),
        DIGEST: [digest_text(text) for text in found.split.texts],
    }
    texts = [join_text(text) for text in found.split.texts]
    reached = float(task.compute(task.row_statistics(rows.split.y, values).sum(axis=0))[task.primary])
    note = (
        f"What judges the labels agrees with them to this degree: {task.primary_metric.title} "
        f"{task.primary_metric.write_value(reached)}. The less it agrees, the more right labels it takes for wrong."
    )
    return LabelErrors(task, rows.count(), columns, texts, (note, *notes))


def _as_cell(label: Label) -> object:
    return list(label) if isinstance(label, tuple) else label
