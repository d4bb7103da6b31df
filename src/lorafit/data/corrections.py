"""Corrected labels: the columns of a review file, and their way back into the rows."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from lorafit.data.checks import CheckedRows, describe_rows
from lorafit.data.tables import read_table
from lorafit.data.writing import arm
from lorafit.errors import DataError
from lorafit.system.text import Text, clean_text
from lorafit.tasks.base import Task
from lorafit.tasks.label_spellings import match_cases
from lorafit.tasks.labels import Label, LabelColumn, LabelReading, is_missing, list_labels, name_labels

ROW, SPLIT, DIGEST, CORRECTED = "row", "split", "text_digest", "corrected_label"
"""Columns of a review file: which row, and what a reviewer says of its label."""

DROP: Final = "(drop)"
"""What a reviewer writes, in capitals or not, in place of a label to leave the row out."""

_DIGITS: Final = 16


@dataclass(frozen=True)
class Corrections:
    """What a reviewer said.

    Attributes:
        origin: The file's name, for messages.
        cells: What stands in the column of corrected labels, by split and row; nothing where the label stays.
        digests: Digest of the text of every row that the file has one for, by split and row.
    """

    origin: str
    cells: Mapping[str, Mapping[int, object]]
    digests: Mapping[str, Mapping[int, str]]

    def check_splits(self, splits: Sequence[str]) -> None:
        """Make sure that the data have every split that is corrected; a DataError says which is missing."""
        missing = [split for split in self.cells if split not in splits]
        if missing:
            raise DataError(
                f"{self.origin} corrects rows of the split '{clean_text(missing[0], most=40)}'. The data have: "
                f"{', '.join(splits)}. It belongs to other data."
            )


def digest_text(text: Text) -> str:
    """Return a short digest that no spreadsheet takes for a number."""
    parts = (text,) if isinstance(text, str) else text
    encoded = b"\0".join(part.encode("utf-8", "surrogatepass") for part in parts)
    return f"sha256:{hashlib.sha256(encoded).hexdigest()[:_DIGITS]}"


def read_corrections(path: Path) -> Corrections:
    """Read a reviewed file.

    Args:
        path: A table with the columns `row` (counted from 1) and `corrected_label`: empty to keep the label, `(drop)`
            to leave the row out. A column `split` says which rows are meant (train where there is none), and
            `text_digest` what text they have.

    Returns:
        The corrections.

    Raises:
        DataError: The file cannot be read, lacks a column, or names a row twice.
    """
    table = read_table(path)
    absent = [name for name in (ROW, CORRECTED) if name not in table.columns]
    if absent:
        raise DataError(
            f"{path} has no column '{absent[0]}'. Corrections need the columns {ROW} and {CORRECTED}; it has: "
            f"{', '.join(table.columns)[:200]}. `lorafit check DATA --folds 5 --review FILE` writes such a file."
        )
    nothing: list[object] = [None] * len(table)
    cells: dict[str, dict[int, object]] = {}
    digests: dict[str, dict[int, str]] = {}
    for place, (row, split, cell, digest) in enumerate(
        zip(
            table.columns[ROW],
            table.columns.get(SPLIT, nothing),
            table.columns[CORRECTED],
            table.columns.get(DIGEST, nothing),
            strict=True,
        ),
        start=1,
    ):
        number = _read_row(row, f"{path}: row {place}")
        name = "train" if _is_blank(split) else str(split).strip()
        if number in cells.setdefault(name, {}):
            raise DataError(f"{path} names row {number} of {name} twice. Keep one of its lines.")
        cells[name][number] = None if _is_blank(cell) else cell
        if not _is_blank(digest):
            digests.setdefault(name, {})[number] = str(digest).strip()
    return Corrections(path.name, cells, digests)


def apply_corrections(
    rows: CheckedRows, corrections: Corrections, split: str, task: type[Task], reading: LabelReading
) -> CheckedRows:
    """Put corrected labels in the place of those of the data, and leave out the rows that are to be dropped.

    Args:
        rows: All rows of a split of the source, before any is cut off.
        corrections: From `read_corrections`.
        split: Name of the split: train, validation or test.
        task: The task.
        reading: How label cells are read. Labels take the spelling, the separator and the decimal sign of those of the
            rows; a name that no row has is a new label.

    Returns:
        The rows, with a note that counts what was changed, and one on new labels.

    Raises:
        DataError: A row does not exist or has another text, or a corrected label is none of the task.
    """
    cells, digests = corrections.cells.get(split, {}), corrections.digests.get(split, {})
    if not cells:
        return rows
    places = {int(row): place for place, row in enumerate(rows.ids)}
    dropped = {row for row, cell in cells.items() if isinstance(cell, str) and cell.strip().casefold() == DROP}
    changed = {row: cell for row, cell in cells.items() if cell is not None and row not in dropped}
    _check_texts(rows, corrections, split, places, changed)
    dropped &= places.keys()
    known = dict.fromkeys([*reading.known, *name_labels(rows.labels)])
    separator = reading.separator or rows.separator
    reading = replace(reading, known=tuple(known), separator=separator, decimal=rows.decimal)
    labels = _read_labels(changed, corrections, task, reading)
    new = {places[row]: label for row, label in labels.items() if rows.labels[places[row]] != label}
    counts = [f"{len(new):,} label{'' if len(new) == 1 else 's'} corrected"]
    counts += [f"{len(dropped):,} row{'' if len(dropped) == 1 else 's'} dropped"] if dropped else []
    unknown = "" if digests else f"; it has no column {DIGEST}, so whether the rows are the same was not checked"
    notes = [
        f"{rows.origin}: {', '.join(counts)} ({corrections.origin}{unknown}).",
        *_describe_new(labels.values(), known, corrections.origin),
    ]
    corrected = tuple(new.get(place, label) for place, label in enumerate(rows.labels))
    kept = [row not in dropped for row in rows.ids.tolist()]
    return replace(rows, labels=corrected, notes=(*rows.notes, *notes)).select(kept)


def _check_texts(
    rows: CheckedRows,
    corrections: Corrections,
    split: str,
    places: Mapping[int, int],
    changed: Mapping[int, object],
) -> None:
    """Refuse corrections of other rows than these; rows that cannot be used may be listed, but not corrected."""
    cells, digests = corrections.cells[split], corrections.digests.get(split, {})
    left_out = {row for row, _ in rows.left_out}.difference(changed)
    absent = sorted(row for row in cells if row not in places and row not in left_out)
    other = sorted(
        row for row, digest in digests.items() if row in places and digest_text(rows.texts[places[row]]) != digest
    )
    if absent or other:
        fault = f"{describe_rows(absent)} cannot be found or used" if absent else ""
        fault += "; " if absent and other else ""
        fault += f"{describe_rows(other)} {'has' if len(other) == 1 else 'have'} another text" if other else ""
        raise DataError(
            f"{corrections.origin} is not about {rows.origin} as it is now: {fault}. Review the labels again: lorafit "
            "check DATA --folds 5 --review FILE"
        )


def _describe_new(labels: Iterable[Label], known: Iterable[str], origin: str) -> list[str]:
    """Say which labels no row had so far."""
    counts = Counter(name for label in labels for name in name_labels([label]))
    new = [name for name in counts if name not in set(known)]
    if not new:
        return []
    rows = sum(counts[name] for name in new)
    note = (
        f"{origin}: new label{'' if len(new) == 1 else 's'} {list_labels(new)}, given {rows:,} time{'s'[: rows != 1]}."
    )
    alike = match_cases(new, known)
    if alike:
        note += (
            f" In upper and lower case alone, {list_labels(list(alike))} differ{'s' if len(alike) == 1 else ''} from "
            f"{list_labels(list(alike.values()))}: --merge-spellings makes them one."
        )
    return [note]


def _read_labels(
    cells: Mapping[int, object], corrections: Corrections, task: type[Task], reading: LabelReading
) -> dict[int, Label]:
    """Read corrected labels by row, as those of the data are read; another separator may stand between known ones."""
    written = [arm(cell) if isinstance(cell, str) else cell for cell in cells.values()]
    column = task.read_labels(written, reading)
    if reading.separator is not None:
        column = _part_elsewhere(column, written, task, replace(reading, separator=None))
    faults = [
        (row, column.faults.get(place) or "an empty label")
        for place, (row, label) in enumerate(zip(cells, column.labels, strict=True))
        if label is None or place in column.faults
    ]
    if faults:
        kinds = dict.fromkeys(fault for _, fault in faults)
        raise DataError(
            f"{corrections.origin}: {CORRECTED} cannot be used ({describe_rows([row for row, _ in faults])}): "
            f"{'; '.join(list(kinds)[:5])}. Write a label, {DROP}, or nothing to keep the label."
        )
    return {row: label for row, label in zip(cells, column.labels, strict=True) if label is not None}


def _part_elsewhere(
    column: LabelColumn, cells: Sequence[object], task: type[Task], reading: LabelReading
) -> LabelColumn:
    """Part cells that hold unknown labels at whatever stands between known ones."""
    known, labels = set(reading.known), list(column.labels)
    for place, cell in enumerate(cells):
        if not known.issuperset(name_labels(label for label in [labels[place]] if label is not None)):
            (found,) = task.read_labels([cell], reading).labels
            if found is not None and known.issuperset(name_labels([found])):
                labels[place] = found
    return replace(column, labels=tuple(labels))


def _is_blank(cell: object) -> bool:
    return is_missing(cell) or (isinstance(cell, str) and not cell.strip())


def _read_row(cell: object, where: str) -> int:
    try:
        number = float(str(cell).replace(",", ""))
    except ValueError:
        number = 0.0
    if number < 1 or not number.is_integer():
        raise DataError(f"{where}: column {ROW} holds no row number. Rows are counted from 1.")
    return int(number)
