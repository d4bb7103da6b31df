"""Tables that are at hand in Python, written to files, so that whatever reads a source can read them again."""

import re
from collections.abc import Callable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any, Final

from lorafit.data.writing import write_table
from lorafit.errors import DataError
from lorafit.system.atomic import compute_digest, staging_folder

_ALLOWED: Final = (
    "a table of pandas, polars, pyarrow or datasets, a dict of columns, or a list of dicts with the same keys"
)

_DIGITS: Final = 16
_STORED: Final = re.compile(rf"table-([0-9a-f]{{{_DIGITS}}})\.jsonl")

_Column = tuple[str, Sequence[object]]
"""A name, and the values of its rows."""

_MISSING: Final = ("NaTType", "NAType")
"""Types by which pandas says that there is no value; it need not be installed."""


def store_table(table: object, folder: Path) -> Path:
    """Write a table to a file whose name tells its content.

    Args:
        table: A table of pandas, polars, pyarrow or datasets (class labels become their names), a dict of columns, or a
            list of dicts.
        folder: Where to; it is made if it is missing.

    Returns:
        A jsonl file; the same table gives the same one. What is missing (NaN, NaT, NA) is null there, and sets and
        arrays are lists.

    Raises:
        DataError: It is something else, a dict of splits, has no rows, columns of different lengths or of one name, or
            bytes.
    """
    named = _read_columns(table)
    lengths = {len(column) for _, column in named}
    if len(lengths) != 1 or lengths == {0}:
        raise DataError(f"The table has columns of {sorted(lengths)} rows; they need to be of one length, above 0.")
    names = [name for name, _ in named]
    if doubled := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise DataError(f"The table has several columns {doubled[0]!r}. Give each column a name of its own.")
    with staging_folder(folder / "table") as place:
        staged = place / "table.jsonl"
        write_table(staged, {name: [_clean(value, name) for value in column] for name, column in named})
        return staged.replace(folder / f"table-{compute_digest(staged)[:_DIGITS]}.jsonl")


def check_stored(path: Path) -> None:
    """Make sure that a table from `store_table` still has the content that its name tells; others are passed over.

    Args:
        path: A file with rows.

    Raises:
        DataError: It was altered.
    """
    match = _STORED.fullmatch(path.name)
    if match is not None and path.is_file() and compute_digest(path)[:_DIGITS] != match[1]:
        raise DataError(f"{path} was altered after it was stored: give the table again, or a file of your own.")


def _read_columns(table: object) -> list[_Column]:
    library, kind = type(table).__module__.partition(".")[0], type(table).__name__
    if kind == "LazyFrame":
        raise DataError("data is a LazyFrame, which has no rows yet. Collect them: data=table.collect()")
    if library in _READERS and not isinstance(table, Mapping) and _has_columns(table):
        columns = _READERS[library](table)
    elif isinstance(table, Mapping):
        if any(type(part).__module__.partition(".")[0] == "datasets" for part in table.values()):
            raise DataError(
                f"A dict of splits ({', '.join(map(str, table))}) is no table. Give them one by one: "
                'train(data=splits["train"], validation=splits["validation"], test=splits["test"])'
            )
        columns = [(str(name), list(column)) for name, column in table.items()]
    elif isinstance(table, Sequence) and table and all(isinstance(row, Mapping) for row in table):
        names = dict.fromkeys(name for row in table for name in row)
        columns = [(str(name), [row.get(name) for row in table]) for name in names]
    else:
        raise DataError(f"data is a {kind}. Allowed: {_ALLOWED}.")
    return columns


def _has_columns(table: object) -> bool:
    """Tell a table from a single column of its library."""
    return any(hasattr(table, name) for name in ("columns", "column_names"))


def _clean(value: object, name: str) -> object:
    """Return a cell as JSON can hold it; what JSON cannot hold either becomes text when it is written."""
    kind = type(value).__name__
    if isinstance(value, bytes | bytearray | memoryview):
        raise DataError(
            f"Column {name!r} holds bytes, not text. Decode them first, as in value.decode('utf-8'), or leave the "
            "column out."
        )
    if kind in _MISSING or (kind == "datetime64" and str(value) == "NaT"):
        return None
    if hasattr(value, "tolist") and kind != "datetime64":  # numpy makes a bare number of a time
        value = value.tolist()
    if isinstance(value, Set):
        return sorted((_clean(one, name) for one in value), key=str)
    return [_clean(one, name) for one in value] if isinstance(value, list | tuple) else value


def _read_pandas(table: Any) -> list[_Column]:  # noqa: ANN401  pandas has no stubs
    return [(str(name), table.iloc[:, place].tolist()) for place, name in enumerate(table.columns)]


def _read_pyarrow(table: Any) -> list[_Column]:  # noqa: ANN401  pyarrow has no stubs
    return [(name, table.column(place).to_pylist()) for place, name in enumerate(table.schema.names)]


def _read_dataset(table: Any) -> list[_Column]:  # noqa: ANN401  datasets has no stubs
    columns: dict[str, Sequence[object]] = table.to_dict()
    for name, feature in table.features.items():
        if names := getattr(feature, "names", None):
            columns[name] = [names[value] if isinstance(value, int) and value >= 0 else None for value in columns[name]]
    return list(columns.items())


_READERS: Final[dict[str, Callable[[Any], list[_Column]]]] = {
    "pandas": _read_pandas,
    "polars": lambda table: list(table.to_dict(as_series=False).items()),
    "pyarrow": _read_pyarrow,
    "datasets": _read_dataset,
}
"""How a table of each library becomes columns."""
