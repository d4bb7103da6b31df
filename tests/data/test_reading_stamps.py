import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lorafit.data.reading.stamps import Stamp
from lorafit.data.tables import read_table, stream_table
from lorafit.errors import DataError


def append(path: Path) -> None:
    with path.open("a") as file:
        file.write("one more\n")


def shorten(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def rewrite(path: Path) -> None:
    """Write as many bytes into the same file."""
    path.write_bytes(path.read_bytes().upper())


def replace(path: Path) -> None:
    """Put a file of the same content and time in its place."""
    before = path.stat()
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(path)


CHANGES = [append, shorten, rewrite, replace, Path.unlink]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.jsonl"])
def test_a_file_that_is_changed_while_it_is_read_is_refused(
    tmp_path: Path, name: str, change: Callable[[Path], None]
) -> None:
    lines = {"a.txt": "text", "a.csv": "text\nmore text", "a.jsonl": '{"text": "more"}'}[name]
    path = tmp_path / name
    path.write_text("text\n" * (name == "a.csv") + f"{lines}\n" * 20_000)
    parts = stream_table(path, most_rows=1000)
    next(parts)
    change(path)
    with pytest.raises(DataError, match=rf"{name} was changed while it was read: .* read a copy of it\."):
        list(parts)


def test_a_parquet_file_that_is_replaced_while_it_is_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["text"] * 5000}), path)
    parts = stream_table(path)
    next(parts)
    replace(path)
    with pytest.raises(DataError, match="was changed while it was read"):
        list(parts)


def test_a_folder_that_gets_a_file_while_it_is_read_is_refused(tmp_path: Path) -> None:
    for label in ("neg", "pos"):
        (tmp_path / "data" / label).mkdir(parents=True)
        for row in range(30):
            (tmp_path / "data" / label / f"{row}.txt").write_text(f"text {row}")
    assert len(read_table(tmp_path / "data")) == 60
    parts = stream_table(tmp_path / "data", most_rows=10)
    next(parts)
    (tmp_path / "data" / "pos" / "30.txt").write_text("one more")
    with pytest.raises(DataError, match="was changed while it was read"):
        list(parts)


def test_what_is_the_same_is_not_changed(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("text\n")
    stamp = Stamp.take(path)
    path.read_text()
    path.chmod(0o600)
    stamp.check()
    assert Stamp.take(path) == stamp
    missing = Stamp.take(tmp_path / "none")
    missing.check()
    assert missing.marks == ()
