"""The finished parts of a job on disk: each has a record with its rows and digest, and none is trusted without it.

The folder `.OUTPUT.parts` beside the output holds `job.json`, which says what job it is, and for each part its table
and its record, both named by the first row. A part that is missing or damaged is a gap like those that were never
predicted. The folder is emptied file by file, and only where nothing in it is somebody else's.
"""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from lorafit.data.writing import join_tables, render_table
from lorafit.errors import RunError
from lorafit.system.atomic import compute_digest, write_atomic
from lorafit.system.records import FileRecord
from lorafit.system.text import clean_text, format_count


class JobRecord(FileRecord):
    """`job.json`.

    Attributes:
        settings: What must be the same for the job to go on.
    """

    settings: dict[str, str]


class PartRecord(FileRecord):
    """The record of a part.

    Attributes:
        first: Its first row of the source, counted from 0.
        end: The row of the source after its last.
        rows: Rows in its table; the table of none is no file.
        predicted: Those of them that have a prediction.
        digest: SHA-256 of its table, "" where there is none.
    """

    first: int
    end: int
    rows: int
    predicted: int
    digest: str


def _identify(path: Path) -> tuple[int, int] | None:
    """Return what tells a file from one that takes its place; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


class JobParts:
    """The finished parts of a job with an `output`, in their `folder`; one process at a time may have them."""

    def __init__(self, output: Path, settings: Mapping[str, str]) -> None:
        self.output = output
        self.folder = output.with_name(f".{output.name}.parts")
        self.done: list[PartRecord] = []
        self.damaged = 0
        self._settings = dict(settings)
        self._job = self.folder / "job.json"
        self._unreadable = 0
        self._before = _identify(output)
        whole, suffix = re.escape(output.name), re.escape(output.suffix)
        self._own = re.compile(rf"job\.json|\d{{12}}(?:\.json|{suffix})|\.(?:job\.json|\d{{12}}\.\w+|{whole})\..+")

    @property
    def is_joined(self) -> bool:
        """Whether the output was written since this was made."""
        now = _identify(self.output)
        return now is not None and now != self._before

    @property
    def rows(self) -> int:
        """Rows in the parts that are done."""
        return sum(part.rows for part in self.done)

    def count_rows(self) -> int:
        """Return the rows in all parts on disk, also where `check` did not come to its end."""
        return sum(part.rows for part in self._read_records())

    @property
    def predicted(self) -> int:
        """Rows of them that have a prediction."""
        return sum(part.predicted for part in self.done)

    def open(self, *, resume: bool, overwrite: bool) -> None:
        """Begin, or go on with what is there.

        Args:
            resume: Go on with the parts of a job that was stopped.
            overwrite: Throw them away, unless they are to be gone on with.

        Raises:
            RunError: The parts are in the way, or of another job, or the folder is somebody else's.
        """
        self._check_own()
        parts = self._read_records()
        if parts and not (overwrite and not resume):
            if not resume:
                raise RunError(
                    f"There are {format_count(sum(part.rows for part in parts), 'finished row')} of a job with this "
                    f"output in {self.folder}: it was stopped. Go on after them with --resume, or start over with "
                    "--overwrite."
                )
            self._check_settings()
            return
        self.remove()
        self.folder.mkdir(parents=True, exist_ok=True)
        JobRecord(settings=self._settings).write(self._job)

    def check(self, rows: int) -> list[range]:
        """Look at every part, and let go of those that are not what their records say.

        Args:
            rows: Rows of the source.

        Returns:
            The rows of the source that no part has, in ascending order. `done` are the parts that hold, and `damaged`
            counts those that did not.
        """
        self.done, self.damaged, end = [], 0, 0
        gaps = []
        for part in self._read_records():
            if end <= part.first < part.end <= rows and self._is_whole(part):
                gaps.append(range(end, part.first))
                self.done.append(part)
                end = part.end
            else:
                self.damaged += 1
        self.damaged += self._unreadable
        return [gap for gap in (*gaps, range(end, rows)) if gap]

    def add(
        self,
        rows: range,
        columns: Mapping[str, Sequence[object]] | None,
        *,
        predicted: int = 0,
        csv_safe: bool = False,
        types: Mapping[str, Any] | None = None,
    ) -> None:
        """Write a part.

        Args:
            rows: Its rows of the source.
            columns: Its table; None where it has no rows.
            predicted: Rows that have a prediction.
            csv_safe: As `write_table` takes it.
            types: As `write_table` takes them.
        """
        count, table = 0, self._name_table(rows.start)
        if columns is not None:
            count = len(next(iter(columns.values())))
            suffix = self.output.suffix.lower()
            write_atomic(table, render_table(suffix, columns, header=False, csv_safe=csv_safe, types=types))
        digest = compute_digest(table) if count else ""
        part = PartRecord(first=rows.start, end=rows.stop, rows=count, predicted=predicted, digest=digest)
        part.write(self._name_record(rows.start))
        self.done.append(part)

    def join(self, columns: Sequence[str], *, expected: int, csv_safe: bool = False, mark: bool = False) -> int:
        """Make the parts the output, and remove them.

        Args:
            columns: The names of its columns.
            expected: The rows that it must have.
            csv_safe: As the parts were written.
            mark: Whether it begins with a byte order mark.

        Returns:
            Its rows, counted in the file.

        Raises:
            RunError: It has not as many rows as are expected; nothing is written.
        """
        tables = [self._name_table(part.first) for part in self.done if part.rows]

        def check(count: int) -> None:
            if count != expected:
                raise RunError(
                    f"{self.output} would have {format_count(count, 'row')} instead of {expected:,}; it is not "
                    "written. Start over with --overwrite."
                )

        rows = join_tables(tables, self.output, self.folder, columns=columns, check=check, csv_safe=csv_safe, mark=mark)
        self.remove()
        return rows

    def remove(self) -> None:
        """Remove the folder with what lorafit wrote there; `job.json` goes last."""
        if not self.folder.is_dir():
            return
        for path in self.folder.iterdir():
            if self._own.fullmatch(path.name) and path != self._job:
                path.unlink()
        self._job.unlink(missing_ok=True)
        with suppress(OSError):  # a file manager or a network disk may have put something there
            self.folder.rmdir()

    def _check_own(self) -> None:
        """Make sure that everything in the folder is lorafit's; hidden files of others may be there, and stay."""
        if self.folder.is_symlink() or (self.folder.exists() and not self.folder.is_dir()):
            raise RunError(f"{self.folder} is in the way, and not lorafit's. Move it, or choose another --output.")
        found = sorted(self.folder.iterdir()) if self.folder.is_dir() else []
        others = [
            path
            for path in found
            if path.is_symlink()
            or not path.is_file()
            or not (self._own.fullmatch(path.name) or path.name.startswith("."))
        ]
        is_marked = self._job.is_file() or bool(self._read_records())
        if others or (not is_marked and any(not path.name.startswith(".") for path in found)):
            name = clean_text((others or found)[0].name, most=100)
            raise RunError(
                f"{self.folder} holds '{name}', which is not lorafit's, so that nothing is written or deleted there. "
                "Move it, or choose another --output."
            )

    def _check_settings(self) -> None:
        try:
            settings = JobRecord.read(self._job).settings
        except RunError as error:
            raise RunError(
                f"{str(error).rstrip('.')}, so that nobody can tell whether its parts are of this job. Start over with "
                "--overwrite and without --resume."
            ) from error
        if other := [name for name, value in self._settings.items() if settings.get(name) != value]:
            raise RunError(
                f"{self.folder} holds parts of a job that had other values for: {', '.join(other)}. Give the same "
                "again to go on with it, or start over with --overwrite and without --resume."
            )

    def _read_records(self) -> list[PartRecord]:
        """Return the records of parts that can be read, in order, and count the others."""
        found, self._unreadable = [], 0
        for path in sorted(self.folder.glob("[0-9]*.json")) if self.folder.is_dir() else ():
            try:
                part = PartRecord.read(path)
            except RunError:
                self._unreadable += 1
                continue
            if path == self._name_record(part.first):
                found.append(part)
            else:
                self._unreadable += 1
        return found

    def _is_whole(self, part: PartRecord) -> bool:
        with suppress(OSError):
            return not part.rows or compute_digest(self._name_table(part.first)) == part.digest
        return False

    def _name_table(self, first: int) -> Path:
        return self.folder / f"{first:012d}{self.output.suffix}"

    def _name_record(self, first: int) -> Path:
        return self.folder / f"{first:012d}.json"
