"""Read parquet, Feather and Arrow files; their columns keep their types."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

from lorafit.config import FormatConfig
from lorafit.data.reading.opening import StoredFile
from lorafit.data.reading.parts import Limit, Part, name_columns
from lorafit.errors import DataError
from lorafit.system.extras import require

_BUFFER = 1 << 20
_MOST_ROWS = 1024
_FINE = ("timestamp[ns", "time64[ns", "duration[ns")
"""Types finer than Python's, which has microseconds."""


class ArrowColumn(Sequence[object]):
    """A column as it stands in a file of Arrow's types.

    It is written to such a file as it came. `array` is pyarrow's; `values` are Python's, made when they are asked for.
    """

    def __init__(self, array: Any) -> None:  # noqa: ANN401 - pyarrow is imported when it is needed
        self.array = array

    @cached_property
    def values(self) -> list[object]:
        """The values as Python's; times of nanoseconds, which Python lacks, are text."""
        array = self.array
        kind = str(array.type)
        if kind.startswith(_FINE):
            array = _coarsen(array, kind)
        try:
            values: list[object] = array.to_pylist()
        except ValueError:  # nanoseconds inside of lists or objects
            return [str(value) if value.is_valid else None for value in array]
        return values

    @property
    def holds_texts(self) -> bool:
        """Whether the values are texts."""
        return "string" in str(self.array.type).partition("<")[0] or str(self.array.type).startswith("dictionary")

    def select(self, rows: Sequence[int | None]) -> "ArrowColumn":
        """Return the rows at some places; None stands for an empty one."""
        if list(rows) == list(range(len(self))):
            return self
        pyarrow = require("pyarrow", extra="train", purpose="reading parquet files")
        return ArrowColumn(self.array.take(pyarrow.array(rows, pyarrow.int64())))

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, place: Any) -> Any:  # noqa: ANN401 - a value, or a list of them
        return self.values[place]

    def __eq__(self, other: object) -> bool:
        return self.values == (other.values if isinstance(other, ArrowColumn) else other)

    __hash__ = None  # type: ignore[assignment]  # as a list has none


def stream_columnar(file: StoredFile, form: FormatConfig, limit: Limit, notes: list[str]) -> Iterator[Part]:  # noqa: ARG001 - every reader is called so
    """Read a parquet, Feather or Arrow file.

    Args:
        file: The file.
        form: Not needed: such files say how they are written.
        limit: How large a part may be.
        notes: Takes what a user should know: nothing.

    Yields:
        The parts.

    Raises:
        DataError: The file is damaged, or of another kind.
        MissingExtraError: pyarrow is not installed.
    """
    kind = "parquet" if file.suffix == ".parquet" else "Arrow"
    pyarrow = require("pyarrow", extra="train", purpose=f"reading {kind} files")
    read = _read_parquet if file.suffix == ".parquet" else _read_arrow
    try:
        for names, batch in read(file, min(limit.rows, _MOST_ROWS)):
            batch.validate(full=True)
            for start, rows in _cut(batch, limit.characters):
                part = batch.slice(start, rows)
                yield Part(dict(zip(names, map(ArrowColumn, part.columns), strict=True)))
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file.path} is not a readable {kind} file: it is damaged, or of another kind.") from error


def _read_parquet(file: StoredFile, rows: int) -> Iterator[tuple[list[str], Any]]:
    parquet = require("pyarrow.parquet", extra="train", purpose="reading parquet files")
    # read_table() would add columns for folders named key=value; with a buffer of its own the file stays in memory
    with parquet.ParquetFile(file.path, pre_buffer=False, buffer_size=_BUFFER) as table:
        names = name_columns(table.schema_arrow.names, str(file.path))
        for batch in table.iter_batches(batch_size=rows):
            yield names, batch


def _read_arrow(file: StoredFile, rows: int) -> Iterator[tuple[list[str], Any]]:
    """Read the file format, which Feather is, or the stream format, in which `datasets` keeps its cache."""
    pyarrow = require("pyarrow", extra="train", purpose="reading Arrow files")
    feather = require("pyarrow.feather", extra="train", purpose="reading Feather files")
    with pyarrow.memory_map(str(file.path)) as source:
        try:
            reader = pyarrow.ipc.open_stream(source)
        except pyarrow.ArrowInvalid:
            reader = None
        table = reader.read_all() if reader is not None else feather.read_table(str(file.path), memory_map=True)
        names = name_columns(table.schema.names, str(file.path))
        for batch in table.to_batches(max_chunksize=rows):
            yield names, batch


def _cut(batch: Any, most: int) -> Iterator[tuple[int, int]]:  # noqa: ANN401 - pyarrow is imported when it is needed
    """Yield the first row and the number of rows of each part, so that its texts have not more than so many bytes."""
    compute = require("pyarrow.compute", extra="train", purpose="reading parquet files")
    sizes = [0] * batch.num_rows
    for column in batch.columns:
        if str(column.type) in {"string", "large_string"}:
            lengths = compute.binary_length(column).to_pylist()
            sizes = [size + (length or 0) for size, length in zip(sizes, lengths, strict=True)]
    start = total = 0
    for row, size in enumerate(sizes, start=1):
        total += size
        if total >= most or row == len(sizes):
            yield start, row - start
            start, total = row, 0


def _coarsen(array: Any, kind: str) -> Any:  # noqa: ANN401 - pyarrow is imported when it is needed
    """Turn nanoseconds into microseconds where that loses nothing, else into text."""
    pyarrow = require("pyarrow", extra="train", purpose="reading parquet files")
    name = kind.partition("[")[0]
    coarse = pyarrow.timestamp("us", array.type.tz) if name == "timestamp" else getattr(pyarrow, name)("us")
    try:
        return array.cast(coarse)
    except pyarrow.ArrowInvalid:
        text = array.cast("string")
        return pyarrow.compute.binary_join_element_wise(text, " ns", "") if name == "duration" else text
