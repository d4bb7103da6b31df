"""Tables that are at hand in Python, written to files, so that whatever reads a source can read them again."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from lorafit.data.writing import write_table
from lorafit.errors import DataError
from lorafit.system.atomic import compute_digest

_ALLOWED: Final = (
    "a table of pandas, polars, pyarrow or datasets, a dict of columns, or a list of dicts with the same keys"
)


def store_table(table: object, folder: Path) -> Path:
    """Write a table to a file whose name tells its content.

    Args:
        table: A table of pandas, polars, pyarrow or datasets (class labels become their names), a dict of columns, or a
            list of dicts.
        folder: Where to; it is made if it is missing.

    Returns:
        A jsonl file; the same table gives the same one.

    Raises:
        DataError: It is something else, a dict of splits, has no rows, or columns of different lengths.
    """
    columns = _read_columns(table)
    lengths = {len(column) for column in columns.values()}
    if len(lengths) != 1 or lengths == {0}:
        raise DataError(f"The table has columns of {sorted(lengths)} rows; they need to be of one length, above 0.")
    folder.mkdir(parents=True, exist_ok=True)
    staged = folder / f"{id(table)}.jsonl"
    write_table(staged, columns)
    return staged.replace(folder / f"table-{compute_digest(staged)[:16]}.jsonl")


def _read_columns(table: object) -> dict[str, Sequence[object]]:
    library = type(table).__module__.partition(".")[0]
    if library in _READERS and not isinstance(table, Mapping):
        columns = _READERS[library](table)
    elif isinstance(table, Mapping):
        if any(type(part).__module__.partition(".")[0] == "datasets" for part in table.values()):
            raise DataError(
                f"A dict of splits ({', '.join(map(str, table))}) is no table. Give them one by one: "
                'train(data=splits["train"], validation=splits["validation"], test=splits["test"])'
            )
        columns = {str(name): list(column) for name, column in table.items()}
    elif isinstance(table, Sequence) and table and all(isinstance(row, Mapping) for row in table):
        columns = {
            str(name): [row.get(name) for row in table] for name in dict.fromkeys(n for row in table for n in row)
        }
    else:
        raise DataError(f"data is a {type(table).__name__}. Allowed: {_ALLOWED}.")
    return columns


def _read_dataset(table: Any) -> dict[str, Sequence[object]]:  # noqa: ANN401  datasets has no stubs
    columns: dict[str, Sequence[object]] = table.to_dict()
    for name, feature in table.features.items():
        if names := getattr(feature, "names", None):
            columns[name] = [names[value] if isinstance(value, int) and value >= 0 else None for value in columns[name]]
    return columns


def _stringify(columns: Mapping[Any, Sequence[object]]) -> dict[str, Sequence[object]]:
    return {str(name): column for name, column in columns.items()}


_READERS: Final[dict[str, Callable[[Any], dict[str, Sequence[object]]]]] = {
    "pandas": lambda table: _stringify(table.to_dict("list")),
    "polars": lambda table: _stringify(table.to_dict(as_series=False)),
    "pyarrow": lambda table: _stringify(table.to_pydict()),
    "datasets": _read_dataset,
}
"""How a table of each library becomes columns."""
