"""Read parquet, Feather and Arrow files."""

from collections.abc import Iterator
from typing import Any

from lorafit.config import FormatConfig
from lorafit.data.reading.opening import StoredFile
from lorafit.data.reading.parts import Limit, Part, cut, measure_texts, name_columns
from lorafit.errors import DataError
from lorafit.system.extras import require

_BUFFER = 1 << 20
_MOST_ROWS = 1024


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
            columns = [column.to_pylist() for column in batch.columns]
            if sum(len(value) for column in columns for value in column if isinstance(value, str)) < limit.characters:
                yield Part(dict(zip(names, columns, strict=True)))
                continue
            for part in cut(zip(*columns, strict=True), measure_texts, limit):
                yield Part({name: list(values) for name, values in zip(names, zip(*part, strict=True), strict=True)})
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file.path} is not a readable {kind} file: it is damaged, or of another kind.") from error


def _read_parquet(file: StoredFile, rows: int) -> Iterator[tuple[list[str], Any]]:
    parquet = require("pyarrow.parquet", extra="train", purpose="reading parquet files")
    # read_table() would add columns for folders named key=value; with a buffer of its own the file stays in memory
    with parquet.ParquetFile(file.path, pre_buffer=False, buffer_size=_BUFFER) as table:
        names = name_columns(table.schema_arrow.names)
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
        names = name_columns(table.schema.names)
        for batch in table.to_batches(max_chunksize=rows):
            yield names, batch
