"""The folder of a search, and the record in it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from lorafit.runs.folder import RunLayout
from lorafit.system.alterations import report_altered
from lorafit.system.digests import check_files
from lorafit.system.records import FileRecord, Record
from lorafit.tasks.base import Metric
from lorafit.tasks.registry import TaskName, get_task


@dataclass(frozen=True)
class SearchLayout:
    """Names every file of a search's folder.

    Attributes:
        root: The folder.
    """

    root: Path

    @property
    def config(self) -> Path:
        """The settings that all trials share, with the space; no other kind of folder has a file of this name."""
        return self.root / "search.yaml"

    @property
    def study(self) -> Path:
        """Optuna's SQLite store."""
        return self.root / "study.db"

    @property
    def journal(self) -> Path:
        """Optuna's store as a journal, which several machines may write to."""
        return self.root / "study.journal"

    @property
    def study_name(self) -> Path:
        """The name of the study in a database, which may hold others."""
        return self.root / "study.name"

    @property
    def best(self) -> Path:
        """The settings of the best trial but for `training.threads`, ready for `lorafit train --config`."""
        return self.root / "best.yaml"

    @property
    def record(self) -> Path:
        """The `SearchRecord`."""
        return self.root / "search.json"

    @property
    def lock(self) -> Path:
        """Held by the process that writes the results, or creates the study."""
        return self.root / ".results.lock"

    @property
    def page(self) -> Path:
        """Trials and importances for people."""
        return self.root / "search.html"

    @property
    def prefix_cache(self) -> Path:
        """Hidden states of frozen layers, which the trials share while they are trained."""
        return self.root / "prefix_cache"

    def trial(self, number: int) -> RunLayout:
        """Return the folder of a trial, which holds its settings and its history."""
        return RunLayout(self.root / "trials" / f"{number:04d}")


class TrialRow(Record):
    """One trial.

    Attributes:
        number: Its number, from 0.
        state: `complete`, `pruned`, `failed`, or `running` in this or another process.
        values: What was tried, by setting.
        loss: Lowest validation loss (`Wording.loss`), of a trial that is not complete the lowest so far; None if there
            is none.
        score: The primary metric on the validation rows at that point.
        seconds: Time it took; None while it runs.
        error: Why it failed.
        same_as: Number of the trial with the same settings, which was not trained again; None if this one was trained.
    """

    number: int
    state: Literal["complete", "pruned", "failed", "running"]
    values: dict[str, Any]
    loss: float | None
    score: float | None
    seconds: float | None
    error: str | None = None
    same_as: int | None = None


class SearchRecord(FileRecord):
    """`search.json`.

    Attributes:
        created: When it was written, ISO 8601.
        versions: Of the packages.
        cpu: The processor.
        task: The task's name, which says what scores are.
        source: The data.
        base_model: The encoder, as lorafit names it.
        rows: Number of rows of the splits that trials read, which are not the test rows.
        fingerprints: Of the same splits.
        space: What was varied.
        best: Number of the complete trial with the lowest validation loss; None if there is none.
        importances: Share of each setting in what sets the best quarter of the trials apart, largest first (PED-ANOVA,
            Watanabe et al. 2023, arXiv:2304.10255); empty with fewer than 20 that were trained to their end.
        trials: In order of their numbers.
        files: Digests of the settings of the complete trials that were trained, from which the best is taken.
    """

    created: str
    versions: dict[str, str]
    cpu: str
    task: TaskName
    source: str
    base_model: str
    rows: dict[str, int]
    fingerprints: dict[str, str]
    space: dict[str, Any]
    best: int | None
    importances: dict[str, float]
    trials: list[TrialRow]
    files: dict[str, str] = Field(default_factory=dict)

    def check_study(self, layout: SearchLayout, trials: Sequence[TrialRow]) -> None:
        """Compare what the study and the folders of trials hold now with this earlier record.

        Args:
            layout: The folder.
            trials: Those of the study.

        Raises:
            RunError: A complete trial is another one than it was, or its settings were altered.
        """
        now = {row.number: row.model_dump_json() for row in trials}
        for row in self.trials:
            then = row.model_dump_json()
            if row.state == "complete" and now.get(row.number) != then:
                report_altered(
                    f"The study and {layout.record} contradict each other: trial {row.number + 1} is another one "
                    "than it was."
                )
        check_files(layout.root, self.files, since="after its trial", source=layout.record)

    @property
    def metric(self) -> Metric:
        """The primary metric, which is shown beside the loss."""
        return next(iter(get_task(self.task).metrics.values()))
