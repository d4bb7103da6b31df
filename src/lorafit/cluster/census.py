"""The rows of files on a cluster, read once: how many, what is wrong with which, and is every id there once?"""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lorafit.cluster.places import PURPOSE
from lorafit.data.tables import Table
from lorafit.errors import DataError
from lorafit.inference.jobs import find_faults
from lorafit.system.extras import require
from lorafit.system.text import format_count

BATCH: Final = 4096
"""Rows that are read, or predicted, at a time."""

_HASHED: Final = np.dtype("<u8")


@dataclass(frozen=True)
class Census:
    """What is known of rows.

    Attributes:
        rows: How many there are.
        faults: What is wrong with how many of them.
        nameless: How many have no id.
        hashes: 64-bit hashes of the ids, of rows without fault, or of all.
    """

    rows: int
    faults: Mapping[str, int]
    nameless: int
    hashes: NDArray[np.uint64]

    @property
    def faulty(self) -> int:
        """How many rows cannot be predicted."""
        return sum(self.faults.values())

    @property
    def digest(self) -> int:
        """A number that is another one where an id is missing, or there twice."""
        return int(np.add.reduce(self.hashes))

    def check_ids(self, column: str) -> None:
        """Make sure that every row has an id of its own; of n rows, two ids share a hash with a chance of n²/2⁶⁵.

        Args:
            column: Their column, for the message.

        Raises:
            DataError: Rows have none, or the same.
        """
        if self.nameless:
            raise DataError(f"--id-column {column}: {format_count(self.nameless, 'row')} have no id.")
        if doubled := len(self.hashes) - len(np.unique(self.hashes)):
            raise DataError(
                f"--id-column {column}: {format_count(doubled, 'row')} have an id that another row has, too. Ids must "
                "be unique; without --id-column the job cannot be resumed."
            )

    def describe_faults(self) -> str:
        """Say how many rows cannot be predicted, and why."""
        listed = "; ".join(f"{fault} ({format_count(rows, 'row')})" for fault, rows in self.faults.items())
        return f"{self.faulty:,} of {format_count(self.rows, 'row')}: {listed}"


def take_census(
    rows: Any,  # noqa: ANN401  Ray's types are not known without it
    text_columns: tuple[str, ...],
    id_column: str | None,
    *,
    of_faulty: bool,
) -> Census:
    """Read the ids and texts of all rows.

    Args:
        rows: Ray's data set.
        text_columns: The columns of the texts; empty to look for no faults.
        id_column: The column of the ids; None where rows have none.
        of_faulty: Whether the ids of rows with faults count.

    Returns:
        The census, whose hashes take 8 bytes a row.
    """
    wanted = dict.fromkeys((*text_columns, *([] if id_column is None else [id_column])))
    looked = (rows.select_columns(list(wanted)) if wanted else rows).map_batches(
        _look,
        fn_kwargs={"text_columns": text_columns, "id_column": id_column, "of_faulty": of_faulty},
        batch_size=BATCH,
        batch_format="pyarrow",
        num_cpus=0,
    )
    total, nameless, faults, hashes = 0, 0, Counter[str](), []
    for batch in looked.iter_batches(batch_size=None, batch_format="pyarrow"):
        for one in batch.to_pylist():
            total += one["rows"]
            nameless += one["nameless"]
            faults.update(json.loads(one["faults"]))
            hashes.append(np.frombuffer(one["hashes"], _HASHED))
    return Census(total, dict(faults.most_common()), nameless, np.concatenate([*hashes, np.empty(0, _HASHED)]))


def _look(table: Any, text_columns: tuple[str, ...], id_column: str | None, *, of_faulty: bool) -> Any:  # noqa: ANN401
    """Return one row about a batch of rows, a table of pyarrow."""
    arrow = require("pyarrow", extra="cluster", purpose=PURPOSE)
    texts = Table({name: table.column(name).to_pylist() for name in text_columns}, "the files")
    faults = find_faults(texts, text_columns) if text_columns else {}
    nameless, hashes = 0, b""
    if id_column is not None:
        hashing = require("pandas.util", extra="cluster", purpose=PURPOSE)
        ids = table.column(id_column).to_pylist()
        nameless = sum(one is None or one == "" for one in ids)
        kept = [str(one) for row, one in enumerate(ids) if of_faulty or row not in faults]
        hashes = hashing.hash_array(np.array(kept, dtype=object)).astype(_HASHED).tobytes()
    counted = json.dumps(Counter(faults.values()))
    return arrow.table(
        {
            "rows": [table.num_rows],
            "nameless": [nameless],
            "faults": [counted],
            "hashes": arrow.array([hashes], arrow.large_binary()),
        }
    )
