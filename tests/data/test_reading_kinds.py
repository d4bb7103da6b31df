import datetime
from pathlib import Path

import openpyxl
import pytest

from lorafit.config import FormatConfig
from lorafit.data.tables import read_table, stream_table
from lorafit.errors import DataError


def write_book(path: Path, *sheets: list[list[object]]) -> Path:
    book = openpyxl.Workbook()
    for number, rows in enumerate(sheets):
        sheet = book.active if number == 0 else book.create_sheet()
        assert sheet is not None
        for row in rows:
            sheet.append(row)
    book.save(path)
    return path


def test_lines_of_fasttext_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("__label__pos nice  film\n\n__label__neg __label__old bad\r\n" + "__label__x y\n" * 20 + "none\n")
    table = read_table(path)
    assert table.columns["text"][:2] == ["nice  film", "bad"]
    assert table.columns["label"][:3] == ["pos", ["neg", "old"], "x"]
    assert table.faults == {22: "a line that does not begin with __label__"}
    assert table.notes == ("a.txt: read as fastText's lines, labels before the text.",)


def test_lines_with_a_label_before_the_text_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.label"
    path.write_text("DESC:manner How did it go ?\nNUM:date When ?\nbroken\n")
    table = read_table(path)
    assert table.columns == {"text": ["How did it go ?", "When ?", None], "label": ["DESC:manner", "NUM:date", None]}
    assert table.faults == {2: "a line without a text after the label"}


def test_the_first_sheet_is_read(tmp_path: Path) -> None:
    day = datetime.datetime(2020, 1, 2)  # noqa: DTZ001 - spreadsheets know no time zones
    rows: list[list[object]] = [["text", "label", "day", None], ["a", 1, day], [None], ["b", 2.5, None], ["c", True]]
    table = read_table(write_book(tmp_path / "a.xlsx", rows))
    assert table.columns == {
        "text": ["a", "b", "c"],
        "label": [1, 2.5, True],
        "day": ["2020-01-02T00:00:00", None, None],
    }
    assert table.notes == ()
    assert [len(part) for part in stream_table(tmp_path / "a.xlsx", most_rows=2)] == [2, 1]


def test_other_sheets_are_named_and_headers_a_setting(tmp_path: Path) -> None:
    path = write_book(tmp_path / "a.xlsx", [["a", 1], ["b", 2, "more"]], [["x"]])
    table = read_table(path, FormatConfig(header=False))
    assert table.columns == {"1": ["a", None], "2": [1, None]}
    assert table.faults == {1: "3 fields instead of 2"}
    assert "the first sheet was read, 'Sheet'; the others are 'Sheet1'" in table.notes[0]
    with pytest.raises(DataError, match="has no rows"):
        read_table(write_book(tmp_path / "b.xlsx", []))


def test_a_sheet_without_a_header_is_told(tmp_path: Path) -> None:
    rows: list[list[object]] = [[f"This is review number {row} of them", row % 2] for row in range(12)]
    table = read_table(write_book(tmp_path / "a.xlsx", rows))
    assert table.columns == {"1": [row[0] for row in rows], "2": [row[1] for row in rows]}
    assert table.notes == (
        "a.xlsx: read without a header: columns are called 1, 2 (if the first row has their names: --header).",
    )
    named = read_table(tmp_path / "a.xlsx", FormatConfig(header=True))
    assert list(named.columns) == ["This is review number 0 of them", "0"]
    assert (len(named), named.notes) == (11, ())


def test_a_title_above_the_header_is_refused(tmp_path: Path) -> None:
    rows: list[list[object]] = [["My secret reviews"], [None], ["text", "label"], ["a", 1], ["b", 2]]
    with pytest.raises(DataError, match=r"a\.xlsx: its first row has 1 cell, .* Delete what stands above") as caught:
        read_table(write_book(tmp_path / "a.xlsx", rows))
    assert "secret" not in str(caught.value)
    table = read_table(
        write_book(tmp_path / "b.xlsx", [[None, "text"], [0, "a"], [1, "b"]])
    )  # as pandas writes a series
    assert table.columns == {"column 1": [0, 1], "text": ["a", "b"]}


def test_a_folder_for_each_class_is_read_in_the_order_of_names(tmp_path: Path) -> None:
    for name, text in {"pos/2.txt": "fine", "neg/1.txt": "bad\nfilm", "pos/1.txt": "naïve", "pos/x.png": "x"}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "pos" / "3.txt").write_bytes(b"\xff")
    table = read_table(tmp_path)
    assert table.columns == {"text": ["bad\nfilm", "naïve", "fine", None], "label": ["neg", "pos", "pos", "pos"]}
    assert table.faults == {3: "bytes that are not UTF-8"}
    assert table.notes == (f"{tmp_path.name}: files in its folders that are no .txt files were left out: 1.",)
    assert [len(part) for part in stream_table(tmp_path, most_rows=3)] == [3, 1]


def test_what_is_hidden_in_a_folder_is_no_row(tmp_path: Path) -> None:
    names = ["pos/1.txt", "neg/1.txt", "pos/._1.txt", ".ipynb_checkpoints/1.txt", ".git/config", ".git/x.txt"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    table = read_table(tmp_path)
    assert table.columns == {"text": ["neg/1.txt", "pos/1.txt"], "label": ["neg", "pos"]}
    assert table.notes == ()


def test_a_folder_of_another_encoding_is_told(tmp_path: Path) -> None:
    for number, text in enumerate(["Qué película más aburrida", "Niño pequeño"]):
        (tmp_path / "in" / str(number)).mkdir(parents=True)
        (tmp_path / "in" / str(number) / "a.txt").write_bytes(text.encode("cp1252"))
    table = read_table(tmp_path / "in")
    assert table.columns["text"] == ["Qué película más aburrida", "Niño pequeño"]
    assert table.notes[0].startswith("in: read as cp1252 (confidence ")


def test_a_folder_without_classes_says_what_to_give(tmp_path: Path) -> None:
    (tmp_path / "my data" / "train" / "pos").mkdir(parents=True)
    (tmp_path / "my data" / "train" / "pos" / "1.txt").write_text("fine")
    with pytest.raises(DataError, match=r"Those of train do: give one of them, as in '.*my data/train'\.$"):
        read_table(tmp_path / "my data")
    (tmp_path / "a.csv").write_text("text\na\n")
    (tmp_path / "my data").rename(tmp_path / ".hidden")
    with pytest.raises(DataError, match=r"Give a file \(.*\)\. It holds: a\.csv\.$"):
        read_table(tmp_path)
