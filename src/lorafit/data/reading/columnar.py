"""Read parquet, Feather and Arrow files; their columns keep their types."""

import io
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cache, cached_property
from typing import Any, BinaryIO

from lorafit.config import FormatConfig
from lorafit.data.reading.opening import StoredFile, check_ratio
from lorafit.data.reading.parts import Limit, Part, name_columns
from lorafit.errors import DataError
from lorafit.system import limits
from lorafit.system.extras import require
from lorafit.system.faults import raise_shortage

_BUFFER = 1 << 20
_MOST_ROWS = 1024
_MOST_BYTES = 1 << 28
"""Bytes that a batch may have once its dictionaries are written out."""

_INTEGER = 0x15
"""How a whole number begins that follows the field before it, in Thrift's compact form."""

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
        return str(self.array.type).removeprefix("dictionary<values=").startswith(("string", "large_string"))

    def measure_longest(self) -> int:
        """Return the length of the longest text in characters; 0 where none has more bytes than characters allowed."""
        if not self.holds_texts:
            return 0
        compute = _load_compute()
        if (compute.max(_measure_texts(self.array)).as_py() or 0) <= limits.TEXT.value:
            return 0
        return max(len(value) for value in self.values if isinstance(value, str))

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
        for names, batch in read(file, limit._replace(rows=min(limit.rows, _MOST_ROWS))):
            batch.validate(full=True)
            for start, rows in _cut(batch, limit.characters):
                part = batch.slice(start, rows)
                yield Part(dict(zip(names, map(ArrowColumn, part.columns), strict=True)))
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise_shortage(error)
        raise DataError(f"{file.path} is not a readable {kind} file: it is damaged, or of another kind.") from error


def _read_parquet(file: StoredFile, limit: Limit) -> Iterator[tuple[list[str], Any]]:
    parquet = require("pyarrow.parquet", extra="train", purpose="reading parquet files")
    # read_table() would add columns for folders named key=value; with a buffer of its own the file stays in memory
    with parquet.ParquetFile(file.path, pre_buffer=False, buffer_size=_BUFFER) as table:
        names = name_columns(table.schema_arrow.names, str(file.path))
        for batch in table.iter_batches(batch_size=_find_rows(file, table, limit.narrow(len(names)).rows)):
            yield names, batch


def _find_rows(file: StoredFile, table: Any, most: int) -> int:  # noqa: ANN401 - pyarrow is imported when it is needed
    """Return how many rows can be read at once: a file of few bytes may repeat one long text from a dictionary."""
    metadata = table.metadata
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    dictionaries = max((_measure_dictionaries(file, table, number) for number in range(len(groups))), default=0)
    unpacked = sum(group.total_byte_size for group in groups)
    is_small = dictionaries <= _MOST_BYTES
    check_ratio(file.path, unpacked - dictionaries if is_small else unpacked, file.path.stat().st_size)
    if dictionaries * most > _MOST_BYTES:
        longest = _measure_entries(file, table) if is_small else dictionaries
        most = min(most, _MOST_BYTES // max(longest, 1))
    return max(most, 1)


def _measure_dictionaries(file: StoredFile, table: Any, group: int) -> int:  # noqa: ANN401 - pyarrow's ParquetFile
    """Return the bytes of the dictionaries of a group of rows, unpacked, which the headers of their pages say alone."""
    schema, rows = table.metadata.schema, table.metadata.row_group(group)
    texts = [place for place in range(rows.num_columns) if schema.column(place).physical_type == "BYTE_ARRAY"]
    _check_columns(file, table, group, [schema.column(place).path for place in texts])
    places = [rows.column(place).dictionary_page_offset for place in texts]
    with file.path.open("rb") as stream:
        return sum(_read_page_size(stream, place) for place in places if place)


def _check_columns(file: StoredFile, table: Any, group: int, paths: Sequence[str]) -> None:  # noqa: ANN401 - as above
    """Let pyarrow's reader look at the metadata of columns: where they are faulty, asking for them ends the process."""
    parquet = require("pyarrow.parquet", extra="train", purpose="reading parquet files")
    sealed = _Sealed(file.path.stat().st_size)
    with parquet.ParquetFile(sealed, metadata=table.metadata, pre_buffer=False) as unread:
        for path in paths:
            with suppress(_SealedError):
                next(unread.iter_batches(batch_size=1, row_groups=[group], columns=[path]), None)


class _SealedError(OSError):
    """A page was asked for, so that all that stands before it was found in order."""


class _Sealed(io.RawIOBase):
    """A file of some size that cannot be read."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self._size = size
        self._place = 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        return self._place

    def tell(self) -> int:
        return self._place

    def read(self, size: int = -1) -> bytes:
        del size
        raise _SealedError


def _measure_entries(file: StoredFile, table: Any) -> int:  # noqa: ANN401 - pyarrow is imported when it is needed
    """Return the most bytes that a row can have of what is in the dictionaries of texts."""
    parquet = require("pyarrow.parquet", extra="train", purpose="reading parquet files")
    compute = _load_compute()
    texts = [field.name for field in table.schema_arrow if str(field.type) in {"string", "large_string", "binary"}]
    longest = 0
    with parquet.ParquetFile(
        file.path, metadata=table.metadata, read_dictionary=texts, pre_buffer=False, buffer_size=_BUFFER
    ) as coded:
        for group in range(coded.num_row_groups):
            first = next(coded.iter_batches(batch_size=1, row_groups=[group], columns=texts), None)
            columns = [] if first is None else [one for one in first.columns if hasattr(one, "dictionary")]
            sizes = [compute.max(compute.binary_length(column.dictionary)).as_py() or 0 for column in columns]
            longest = max(longest, sum(sizes))
    return longest


def _read_page_size(stream: BinaryIO, place: int) -> int:
    """Return how many bytes a page has that begins at a place of a file, unpacked; 0 where that is not to be read."""
    stream.seek(place)
    header = stream.read(12)
    if header[:1] != bytes([_INTEGER]) or header[2:3] != bytes([_INTEGER]):
        return 0
    size = shift = 0
    for byte in header[3:]:
        size |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    return size >> 1


def _read_arrow(file: StoredFile, limit: Limit) -> Iterator[tuple[list[str], Any]]:
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
        for batch in table.to_batches(max_chunksize=limit.narrow(len(names)).rows):
            yield names, batch


def _cut(batch: Any, most: int) -> Iterator[tuple[int, int]]:  # noqa: ANN401 - pyarrow is imported when it is needed
    """Yield the first row and the number of rows of each part, so that its texts have not more than so many bytes."""
    sizes = [0] * batch.num_rows
    for column in map(ArrowColumn, batch.columns):
        if column.holds_texts:
            lengths = _measure_texts(column.array).to_pylist()
            sizes = [size + (length or 0) for size, length in zip(sizes, lengths, strict=True)]
    start = total = 0
    for row, size in enumerate(sizes, start=1):
        total += size
        if total >= most or row == len(sizes):
            yield start, row - start
            start, total = row, 0


@cache
def _load_compute() -> Any:  # noqa: ANN401 - pyarrow is imported when it is needed
    return require("pyarrow.compute", extra="train", purpose="reading parquet files")


def _measure_texts(array: Any) -> Any:  # noqa: ANN401 - pyarrow is imported when it is needed
    """Return the bytes of each text, as an array of pyarrow."""
    compute = _load_compute()
    if hasattr(array, "dictionary"):
        return _measure_texts(array.dictionary).take(array.indices)
    return compute.binary_length(array.cast("large_string") if str(array.type) == "string_view" else array)


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
