"""Are new texts like those that a run was calibrated on? One test decides; words, lengths, labels say what changed."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from lorafit.config import DataConfig
from lorafit.data.checks import read_value
from lorafit.data.quality.duplicates import split_words
from lorafit.data.rows import Split
from lorafit.errors import DataDriftError, RunError, UserInputError
from lorafit.experiments.diff.sides import open_run
from lorafit.inference.jobs import open_file, read_column
from lorafit.inference.loading import load
from lorafit.inference.predictor import Predictor
from lorafit.inference.typicality import FALSE_ALARMS, MOST_ROWS
from lorafit.system.notebook import progress_here
from lorafit.system.paths import AnyPath
from lorafit.system.progress import Progress
from lorafit.system.records import FileRecord, Record
from lorafit.system.text import Text, join_text
from lorafit.tasks.base import Array, Task
from lorafit.tasks.records import Exchangeability
from lorafit.tasks.registry import TaskName
from lorafit.tasks.statistics import adjust_p_values, exact_tests
from lorafit.training.evaluation import read_calibration_rows

_FEWEST_TEXTS: Final = 5
"""Texts of both samples together that a word must be in to be looked at."""

_FEWEST_ALARMS: Final = 1e-4
"""A smaller share would take more permutations than there is time for."""

_MOST_WORDS: Final = 20
_ATYPICAL: Final = 0.05


class ChangedShare(Record):
    """How many texts have a word, or get a label.

    Attributes:
        name: The word or label.
        before: Share of the calibration rows, 0 to 1.
        after: Share of the new texts.
        p_value: Of Fisher's exact test, adjusted for all words or labels (Holm 1979).
    """

    name: str
    before: float
    after: float
    p_value: float


class ChangedNumber(Record):
    """A number that every text has.

    Attributes:
        name: What it is.
        before: Its median over the calibration rows.
        after: That over the new texts.
        p_value: Of the Mann-Whitney test.
    """

    name: str
    before: float
    after: float
    p_value: float


class DriftRecord(FileRecord):
    """New texts against the calibration rows of a run.

    Attributes:
        task: The task's name.
        run: The run folder.
        group_column: Column by whose values the run's rows were cut, which belong together in the test; None where
            they stand alone.
        ungrouped: Whether the new texts lack that column and so stand alone.
        source: The file of the new texts.
        texts: How many there are in it.
        test: What was found; the rows are those looked at, drawn at random.
        atypical: Share of the new texts with a typicality of at most 0.05; about 0.05 where nothing has changed.
        coverage: What conformal sets or intervals were asked to hold, 0 to 1; None of a task that has none.
        numbers: Words a text and, of a regression, the predicted number.
        words: Words whose share is shown to have changed (at `test.false_alarms` over all words), at most 20.
        labels: Every predicted label; none of a regression.
    """

    task: TaskName
    run: str
    group_column: str | None
    ungrouped: bool
    source: str
    texts: int
    test: Exchangeability
    atypical: float
    coverage: float | None
    numbers: list[ChangedNumber]
    words: list[ChangedShare]
    labels: list[ChangedShare]

    @property
    def highest_coverage(self) -> float | None:
        """The most that can be promised of the coverage for texts like the new ones, 0 to 1."""
        return None if self.coverage is None else max(self.coverage - self.test.distance, 0.0)


def measure_drift(
    run: AnyPath,
    file: str | Path,
    *,
    text_columns: Sequence[str] | None = None,
    reading: DataConfig | None = None,
    false_alarms: float = FALSE_ALARMS,
    seed: int = 0,
    progress: Progress | None = None,
) -> DriftRecord:
    """Test whether new texts are exchangeable with the calibration rows of a run, and say what changed.

    Args:
        run: The run folder. Its data must still be there: the calibration rows are read again.
        file: The new texts, a table as `lorafit predict --file` takes it; no labels are needed.
        text_columns: Column of the texts, or those of both texts of a pair; None for those that the run was trained on.
        reading: Its `format` says how text files are written, its `bad_rows` what becomes of rows without a text; these
            are never looked at. None finds the one and refuses the other.
        false_alarms: How often texts of the same kind may be said to have drifted, at least 0.0001 and below 1.
        seed: Decides which of many rows are looked at, and the permutations.
        progress: Told what is going on; None for a bar in a notebook, and silence elsewhere.

    Returns:
        The record; `enforce_no_drift` raises where drift is shown.

    Raises:
        RunError: The run is not finished, knows nothing of typical texts, or its data have changed.
        UserInputError: The file cannot be read, or the share is none.
    """
    if not _FEWEST_ALARMS <= false_alarms < 1:
        raise UserInputError(
            f"--false-alarms {false_alarms:g}: it is a share below 1 and at least {_FEWEST_ALARMS:.4f}, for example "
            f"{FALSE_ALARMS:g}."
        )
    side, progress, rng = open_run(run), progress or progress_here(), np.random.default_rng(seed)
    predictor = load(side.root)
    if predictor.typicality is None:
        raise RunError(
            f"{side.root} does not know what typical texts are like: it set too few rows aside to calibrate, or was "
            "made before lorafit kept that. Train it on more rows, or with a larger data.validation_fraction, to look "
            "for drift."
        )
    data = side.config.data
    trained = (data.text_column,) if data.text_pair_column is None else (data.text_column, data.text_pair_column)
    reading = reading or DataConfig(source=str(file))
    new = _read_texts(Path(file), text_columns, trained, reading, data.group_column, progress)
    known = read_calibration_rows(side.layout, side.record)
    rows = [_draw(known, rng), _draw(new, rng)]
    sides = [one.texts for one in rows]
    logits, features = zip(*(_compute(predictor, one, progress) for one in sides), strict=True)
    progress.start("comparing")
    values = [predictor.task.activate(one, predictor.calibration) for one in logits]
    asked = {} if predictor.calibration is None else predictor.calibration.asked
    record = DriftRecord(
        task=predictor.task.name,
        run=str(side.root),
        group_column=data.group_column,
        ungrouped=data.group_column is not None and new.groups is None,
        source=str(file),
        texts=len(new),
        test=predictor.typicality.compare(
            *features, units=(rows[0].unit_ids, rows[1].unit_ids), false_alarms=false_alarms, seed=seed
        ),
        atypical=float((predictor.typicality.rank(features[1]) <= _ATYPICAL).mean()),
        coverage=asked.get("coverage"),
        numbers=_compare_numbers(predictor.task, sides, values),
        words=_compare_words(sides, false_alarms),
        labels=_compare_labels(predictor.task, values),
    )
    progress.finish()
    return record


def enforce_no_drift(record: DriftRecord) -> None:
    """Let texts pass that are not shown to be of another kind.

    Args:
        record: From `measure_drift`.

    Raises:
        DataDriftError: They are.
    """
    if record.test.is_refuted:
        raise DataDriftError(
            f"The texts of {record.source} are of another kind than the calibration rows of {record.run} "
            f"(p = {record.test.p_value:.3g})."
        )


def _read_texts(
    file: Path,
    text_columns: Sequence[str] | None,
    trained: Sequence[str],
    reading: DataConfig,
    group_column: str | None,
    progress: Progress,
) -> Split:
    """Read the texts, without labels, and the groups that they belong to where their file has the column."""
    job = open_file(
        file,
        text_columns=text_columns,
        trained_columns=trained,
        bad_rows=reading.bad_rows,
        form=reading.format,
        progress=progress,
    )
    found: list[Text] = []
    groups: list[str] = []
    for _, table in job.parts():
        column = read_column(table, job.text_columns)
        kept = [row for row in range(len(table)) if row not in table.faults]
        found += cast("list[Text]", [column[row] for row in kept])
        if group_column is not None and group_column in table.columns:
            values = table.columns[group_column]
            groups += [read_value(values[row]) for row in kept]
    if not found:
        raise UserInputError(f"{file}: none of its rows has a text to look at.")
    places = np.arange(len(found))
    return Split(places, tuple(found), places, groups=tuple(groups) if len(groups) == len(found) else None)


def _draw(rows: Split, rng: np.random.Generator) -> Split:
    return rows.select(np.sort(rng.permutation(len(rows))[:MOST_ROWS]))


def _compute(predictor: Predictor, texts: Sequence[Text], progress: Progress) -> tuple[Array, Array]:
    progress.start("reading texts", total=len(texts), unit="text")
    found = predictor.compute_features(texts, on_progress=progress.update)
    progress.finish()
    return found


def _compare_numbers(task: Task, sides: Sequence[Sequence[Text]], values: Sequence[Array]) -> list[ChangedNumber]:
    from scipy.stats import mannwhitneyu

    lengths = [np.array([len(join_text(text).split()) for text in side], dtype=np.float64) for side in sides]
    compared = {"words a text": lengths}
    if not task.mark_labels(_predict(task, values[0])).shape[1]:
        compared[task.wording.value] = [one[:, 0] for one in values]
    return [
        ChangedNumber(
            name=name,
            before=float(np.median(before)),
            after=float(np.median(after)),
            p_value=float(mannwhitneyu(before, after).pvalue),
        )
        for name, (before, after) in compared.items()
    ]


def _compare_words(sides: Sequence[Sequence[Text]], level: float) -> list[ChangedShare]:
    """Find the words that are in more of the texts, or in fewer; the surest first."""
    before, after = (Counter(word for text in side for word in set(split_words(join_text(text)))) for side in sides)
    words = [word for word, count in sorted((before + after).items()) if count >= _FEWEST_TEXTS]
    found = _compare_shares(words, [[one[word] for word in words] for one in (before, after)], sides)
    return sorted((one for one in found if one.p_value <= level), key=lambda one: one.p_value)[:_MOST_WORDS]


def _compare_labels(task: Task, values: Sequence[Array]) -> list[ChangedShare]:
    marks = [task.mark_labels(_predict(task, one)) for one in values]
    names = task.label_names[: marks[0].shape[1]]
    return _compare_shares(names, [one.sum(axis=0).tolist() for one in marks], values)


def _compare_shares(
    names: Sequence[str], counts: Sequence[Sequence[int]], sides: Sequence[Sequence[Any] | Array]
) -> list[ChangedShare]:
    if not names:
        return []
    rows, (before, after) = (len(sides[0]), len(sides[1])), (np.array(one, dtype=np.int64) for one in counts)
    p_values = adjust_p_values(exact_tests(before, after, rows).tolist())
    shares = zip(names, (before / rows[0]).tolist(), (after / rows[1]).tolist(), p_values, strict=True)
    return [ChangedShare(name=name, before=one, after=other, p_value=p) for name, one, other, p in shares]


def _predict(task: Task, values: Array) -> NDArray[Any]:
    """Return the predictions as `y`."""
    return task.encode(task.suggest_labels(values))
