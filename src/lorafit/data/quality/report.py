"""The record of a check: what the data are, and what was found. It holds labels and row numbers, and no texts."""

from pydantic import Field

from lorafit.data.quality.findings import Finding
from lorafit.system.records import FileRecord, Record
from lorafit.tasks.registry import TaskName


class Skipped(Record):
    """What was not looked for, and why."""

    what: str
    why: str


class Lengths(Record):
    """How long training texts are, in characters.

    Attributes:
        edges: Limits of the bins, one more than there are bins.
        counts: Rows in each bin, by label; under "" those of all labels where there are many, or numbers.
    """

    edges: list[int]
    counts: dict[str, list[int]]


class CheckReport(FileRecord):
    """What a check of data found.

    Attributes:
        created: When, in ISO 8601.
        source: The source as it was given.
        task: Name of the task.
        seed: Seed of the samples.
        seconds: How long it took.
        rows: Usable rows by split.
        labels: Rows of each label by split; empty of numbers.
        lengths: How long the training texts are.
        findings: What was found, the worst first.
        skipped: What was not looked for.
        versions: Versions of the libraries that found it.
    """

    created: str
    source: str
    task: TaskName
    seed: int
    seconds: float
    rows: dict[str, int]
    labels: dict[str, dict[str, int]]
    lengths: Lengths
    findings: list[Finding]
    skipped: list[Skipped] = Field(default_factory=list)
    versions: dict[str, str] = Field(default_factory=dict)

    @property
    def failures(self) -> list[Finding]:
        """Errors and warnings."""
        return [finding for finding in self.findings if finding.severity != "note"]

    def summarize(self) -> str:
        """Return how many findings there are of each severity, in a few words."""
        counts = dict.fromkeys(("error", "warning", "note"), 0)
        for finding in self.findings:
            counts[finding.severity] += 1
        parts = [f"{count} {name}{'' if count == 1 else 's'}" for name, count in counts.items() if count]
        return ", ".join(parts) if parts else "nothing found"
