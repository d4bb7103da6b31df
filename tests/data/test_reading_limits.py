"""Too much of anything is refused by name; wide tables are read in linear time and bounded memory."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lorafit.config import DataConfig
from lorafit.data.reading.parts import name_columns
from lorafit.data.sources import read_splits
from lorafit.data.tables import read_table, stream_table
from lorafit.errors import DataError


def write(path: Path, content: str) -> Path:
    path.write_text(content, encoding="utf-8")
    return path


def write_table(path: Path, rows: list[dict[str, str]]) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = list(dict.fromkeys(name for row in rows for name in row))
    match path.suffix:
        case ".csv":
            lines = [",".join(names), *(",".join(row.get(name, "") for name in names) for row in rows)]
            return write(path, "\n".join(lines) + "\n")
        case ".jsonl":
            return write(path, "".join(json.dumps(row) + "\n" for row in rows))
        case ".txt":
            return write(path, "".join(row["text"] + "\n" for row in rows))
    pq.write_table(pa.table({name: [row.get(name) for row in rows] for name in names}), path)
    return path


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".txt", ".parquet"])
def test_a_long_text_is_a_bad_row(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORAFIT_LIMIT_TEXT", "1000")
    path = write_table(tmp_path / f"a{suffix}", [{"text": text} for text in ("a", "b" * 1000, "c" * 1001, "d")])
    table = read_table(path)
    assert table.columns["text"] == ["a", "b" * 1000, None, "d"]
    assert table.faults == {2: "a text of more than 1,000 characters (LORAFIT_LIMIT_TEXT=NUMBER allows more)"}


def test_a_long_text_of_a_class_folder_is_a_bad_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORAFIT_LIMIT_TEXT", "10")
    for name, text in (("good/a.txt", "fine"), ("good/b.txt", "x" * 11), ("poor/c.txt", "bad")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write(tmp_path / name, text)
    assert list(read_table(tmp_path).faults) == [1]


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.txt", "a.label"])
def test_a_line_without_end_is_refused(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORAFIT_LIMIT_LINE", "1000")
    start = {".csv": "text,label\n", ".jsonl": '{"text": "a"}\n', ".label": "good a\n"}
    path = write(tmp_path / name, start.get(name[1:], "a\n") + '{"text": "' + "x" * 5000 + '"}\n' * 2)
    message = r"line \d does not end; allowed are 1,000 characters in a line \(LORAFIT_LIMIT_LINE=NUMBER"
    with pytest.raises(DataError, match=message):
        read_table(path)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_too_many_columns_are_refused(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_table(tmp_path / f"a{suffix}", [{f"c{number}": "x" for number in range(51)}] * 2)
    monkeypatch.setenv("LORAFIT_LIMIT_COLUMNS", "51")
    assert len(read_table(path).columns) == 51
    monkeypatch.setenv("LORAFIT_LIMIT_COLUMNS", "50")
    with pytest.raises(DataError, match=r"has 51 .*; allowed are 50 columns \(LORAFIT_LIMIT_COLUMNS=NUMBER allows"):
        read_table(path)


def test_too_many_columns_over_all_parts_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORAFIT_LIMIT_COLUMNS", "50")
    path = write_table(tmp_path / "a.jsonl", [{f"c{number}": "x"} for number in range(51)])
    with pytest.raises(DataError, match="has 51 columns"):
        list(stream_table(path, most_rows=10))


def test_rows_without_a_common_key_make_small_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORAFIT_LIMIT_PART_CELLS", "100")
    rows = [{f"c{number}": str(number)} for number in range(50)]
    path = write_table(tmp_path / "a.jsonl", rows)
    parts = list(stream_table(path))
    assert max(len(part) * len(part.columns) for part in parts) == 100
    table = read_table(path)
    assert [{name: table.columns[name][row] for name in rows[row]} for row in range(50)] == rows
    assert {len(column) for column in table.columns.values()} == {50}


def test_only_columns_that_are_asked_for_are_kept(tmp_path: Path) -> None:
    rows = [{"text": f"t{number}", "label": "ab"[number % 2], f"c{number}": "x"} for number in range(20)]
    path = write_table(tmp_path / "a.jsonl", rows)
    assert list(read_table(path, wanted={"text": "--text-column"}).columns) == ["text"]
    raw = read_splits(DataConfig(source=str(path))).train
    assert (raw.texts[19], raw.labels[19]) == ("t19", "b")
    with pytest.raises(DataError, match=r"a\.jsonl has no column 'Text'.*'c17', ….* Did you mean --text-column text\?"):
        read_splits(DataConfig(source=str(path), text_column="Text"))


@pytest.mark.parametrize("names", [["a", "a", "", "b"], ["a (column 2)", "a", "a"], [" ", ""], ["column 2", ""]])
def test_columns_are_named_as_by_the_slow_twin(names: list[str]) -> None:
    counts = {name: names.count(name) for name in set(names)}
    unique: list[str] = []
    for number, name in enumerate(names, start=1):
        new = name if name.strip() and counts[name] == 1 else f"{name} (column {number})" if name.strip() else ""
        new = new or f"column {number}"
        while new in unique or (new != name and new in counts):
            new += "'"
        unique.append(new)
    assert name_columns(names) == unique


def measure(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


@pytest.mark.parametrize(
    "suffix", [".csv", *(pytest.param(suffix, marks=pytest.mark.slow) for suffix in (".jsonl", ".parquet"))]
)
def test_wide_tables_take_linear_time(tmp_path: Path, suffix: str) -> None:
    times = []
    for count in (2_500, 20_000):
        rows = [{"text": "a b", "label": "x", **{f"c{number}": "1" for number in range(count)}}] * 4
        path = write_table(tmp_path / f"{count}{suffix}", rows)
        times.append(min(measure(lambda path=path: read_table(path)) for _ in range(3)))  # type: ignore[misc]
    assert times[1] < 30 * times[0]  # 8 times the columns; what is quadratic takes 64 times as long


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_pipes_and_devices_are_refused_for_every_file_of_a_source(tmp_path: Path, suffix: str) -> None:
    good = write_table(tmp_path / f"good{suffix}", [{"text": "a", "label": "x"}] * 4)
    os.mkfifo(tmp_path / f"pipe{suffix}")
    pipe = str(tmp_path / f"pipe{suffix}")
    for config in (
        DataConfig(source=pipe),
        DataConfig(source=str(good), files=[pipe]),
        DataConfig(source=str(good), test=pipe),
        DataConfig(source=str(good), validation=pipe),
    ):
        with pytest.raises(DataError, match="is a pipe; a file is needed"):
            read_splits(config)


def test_deep_json_is_a_bad_row(tmp_path: Path) -> None:
    deep = {levels: "[" * levels + "]" * levels for levels in (98, 100, 900, 200_000)}
    lines = "".join(f'{{"text": "a", "x": {value}}}\n' for value in deep.values())
    table = read_table(write(tmp_path / "a.jsonl", lines + '{"text": "' + "[" * 500 + '"}\n'))
    assert set(table.faults) == {1, 2, 3}
    assert set(table.faults.values()) == {"JSON with a number of too many digits or more than 100 levels"}
    document = f'[{{"text": {deep[900]}}},{{"text": "b"}}]'
    with pytest.raises(DataError, match="more than 100 levels"):
        read_table(write(tmp_path / "a.json", document))


def write_bomb(path: Path, texts: list[str], **options: object) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"text": texts}), path, dictionary_pagesize_limit=1 << 30, **options)
    return path


def test_a_parquet_file_that_unpacks_to_much_more_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = write_bomb(tmp_path / "a.parquet", ["x" * 5_000_000] * 4, compression="zstd", use_dictionary=False)
    with pytest.raises(DataError, match=r"unpacks to 20,0.* bytes; allowed are 100 times .*LORAFIT_LIMIT_RATIO=NUMBER"):
        read_table(path)


@pytest.mark.parametrize("length", [20_000, 100])
def test_long_texts_that_a_dictionary_repeats_are_read_in_small_batches(
    tmp_path: Path, length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow as pa

    letters = ["ab" * length, "cd" * length]
    path = write_bomb(tmp_path / "a.parquet", letters * 1000, compression="zstd")
    assert path.stat().st_size < 5_000
    monkeypatch.setattr("lorafit.data.reading.columnar._MOST_BYTES", 400_000)
    before = pa.total_allocated_bytes()
    most, sizes = 0, []
    for part in stream_table(path):
        most = max(most, pa.total_allocated_bytes() - before)
        assert part.columns["text"][0] in letters
        sizes.append(len(part))
    assert sum(sizes) == 2000
    assert most < 2_000_000  # of 80,000,000 bytes
    assert max(sizes) == 10 if length > 100 else max(sizes) == 1024


def test_long_texts_of_a_dictionary_keep_the_type_of_their_column(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow as pa
    import pyarrow.feather

    monkeypatch.setenv("LORAFIT_LIMIT_TEXT", "10")
    texts = pa.array(["a", "ä" * 10, "x" * 11, None]).dictionary_encode()
    pyarrow.feather.write_feather(
        pa.table({"text": texts, "n": pa.array([1, 2, 3, 4], "uint64")}), tmp_path / "a.feather"
    )
    (part,) = stream_table(tmp_path / "a.feather")
    assert part.columns["text"] == ["a", "ä" * 10, None, None]
    assert part.columns["n"] == [1, 2, None, 4]
    assert list(part.faults) == [2]


@pytest.mark.parametrize(
    "source",
    ["a\0b.csv", "a\0b", "x" * 5000, "x" * 5000 + ".csv", "*" * 5000, "[" * 300 + ".csv", "/" + "d/" * 5000 + "*.csv"],
    ids=range(7),
)
def test_names_that_cannot_be_are_refused_in_a_line(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"There is no|No file matches|is no path") as caught:
        read_splits(DataConfig(source=source))
    assert len(str(caught.value)) < 1000


def test_deep_folders_and_links_to_themselves_are_passed_over(tmp_path: Path) -> None:
    place = tmp_path
    for _ in range(40):
        place /= "d" * 50
    place.mkdir(parents=True)
    (tmp_path / "again").symlink_to(tmp_path)
    (tmp_path / "loop.csv").symlink_to("loop.csv")
    write(place / "a.csv", "text,label\na,x\n")
    with pytest.raises(DataError, match="is a link that leads back to itself"):
        read_splits(DataConfig(source=str(tmp_path / "loop.csv")))
    with pytest.raises(DataError, match=r"without a folder of \.txt files for each class"):
        read_splits(DataConfig(source=str(tmp_path)))
