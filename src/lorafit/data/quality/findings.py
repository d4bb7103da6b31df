"""What a check of data finds: a record for each finding, with its rows and its remedy. It holds no texts."""

from collections.abc import Iterator
from typing import Final, Literal

from lorafit.system.records import Record

Severity = Literal["error", "warning", "note"]
"""error: training would refuse, or its result would be wrong; warning: it is probably worse; note: good to know."""

DATA: Final = "DATA"
"""Stands in remedies for the source and the options that read it."""

OWN: Final = "SPLIT"
"""Stands in remedies for the file of the finding's own split and the options that read it."""

MOST_ROWS: Final = 1000
"""Rows that a finding lists at most; its count has them all."""


class Scope(Record):
    """What was looked at.

    Attributes:
        rows: Number of rows.
        of: Number of rows that there are.
        seed: Seed of the sample; None where all were looked at.
    """

    rows: int
    of: int
    seed: int | None = None

    def describe(self) -> str:
        """Return what a share is of, as in "25,000" or "5,000 drawn from 25,000 with seed 0"."""
        drawn = "" if self.seed is None else f" drawn from {self.of:,} with seed {self.seed}"
        return f"{self.rows:,}{drawn}"


class Place(Record):
    """A row of a split, counted from 1."""

    split: str
    row: int


class FoundRow(Place):
    """A row that a finding is about. `kept` is the row that it repeats or contradicts, which stays."""

    kept: Place | None = None


class Finding(Record):
    """Something that is wrong with the data, or that a user should know of them.

    Attributes:
        name: What kind it is, as in `duplicates`.
        severity: How bad it is.
        split: The split that it is about; None for all of them.
        count: Number of rows, or of labels where it is about labels.
        share: `count` as a share of the rows looked at, or of the labels.
        scope: What was looked at.
        message: One sentence.
        remedy: A command; nothing where there is none.
        rows: The first of its rows, at most `MOST_ROWS`.
    """

    name: str
    severity: Severity
    split: str | None
    count: int
    share: float
    scope: Scope
    message: str
    remedy: str = ""
    rows: tuple[FoundRow, ...] = ()

    def list_rows(self, most: int) -> str:
        """List the numbers of its first rows, each with the row that it repeats; nothing where it has none."""
        shown = [self._name_row(row) for row in self.rows[:most]]
        left = self.count - len(shown)
        return f"{', '.join(shown)}{f' and {left:,} more' if left > 0 else ''}" if shown else ""

    def _name_row(self, row: FoundRow) -> str:
        name = f"{row.row:,}" if row.split == self.split else f"{row.split} {row.row:,}"
        if row.kept is None or (row.kept.split, row.kept.row) == (row.split, row.row):
            return name
        return (
            f"{name} (as {row.kept.row:,})"
            if row.kept.split == row.split
            else f"{name} (as {row.kept.split} {row.kept.row:,})"
        )


def grade(share: float, *, warn_from: float, error_from: float = 2.0) -> Severity:
    """Return the severity of a share of rows."""
    if share >= error_from:
        return "error"
    return "warning" if share >= warn_from else "note"


def count_rows(count: int, split: str, one: str, more: str) -> str:
    """Return a number of rows of a split with the verb that it takes: "1 test row has", "2 test rows have"."""
    return f"{count:,} {split} row {one}" if count == 1 else f"{count:,} {split} rows {more}"


def write_share(share: float) -> str:
    """Write a share in per cent, and one that is not 0 never as 0."""
    percent = 100 * share
    if 0 < percent < 0.1:
        return "less than 0.1 %"
    return f"{percent:.1f} %" if percent < 10 else f"{percent:.0f} %"


def sort_findings(findings: Iterator[Finding]) -> list[Finding]:
    """Return findings by severity, those of one severity as they came."""
    order: tuple[Severity, ...] = ("error", "warning", "note")
    return sorted(findings, key=lambda finding: order.index(finding.severity))
