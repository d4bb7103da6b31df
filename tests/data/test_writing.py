import csv
import io
import json
import re
import resource
import signal
from pathlib import Path

import pytest

from lorafit.data.tables import read_table
from lorafit.data.writing import arm, render_json, render_table, write_table
from lorafit.errors import EnvironmentUnfitError

FORMULAS = [
    "=cmd|' /C calc'!A0",
    "@SUM(1)",
    "+1-2",
    "-2+3",
    "-1,cmd|x!A0",
    "-1;@x",
    "\t=1+1",
    "\n=2",
    "\r=2",
    "\r\n@x",
    '"=1+1',
    '"\n=1',
    "' =1",
    "'=1",
    " =1",
    "\xa0=1",
    "\x0b+1",
    "\ufeff=1",
    "\uff1d1+1",
    "\uff0b1-2",
    "\uff0d1a",
    "\uff20SUM(1)",
    "\ttab",
    "\rreturn",
    "\nline",
    "-5 stars",
    "+49 170 1",
    "--",
    "=",
]
HARMLESS = [
    "fine",
    "a = b",
    "1+1",
    "5",
    "-5",
    "+0.5",
    "-1e-3",
    "",
    "'tis fine",
    '"quoted"',
    "fine\nmore",
    "a;-1;b",
    "a, - b",
    "a; = b",
]


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
@pytest.mark.parametrize("text", FORMULAS)
def test_what_a_spreadsheet_takes_for_a_formula_is_disarmed_and_armed_again(
    tmp_path: Path, suffix: str, text: str
) -> None:
    path = tmp_path / f"a{suffix}"
    write_table(path, {text: ["x", text], "y": ["z", text]}, csv_safe=True)
    rows = list(csv.reader(io.StringIO(path.read_bytes().decode(), newline=""), delimiter=",\t"[suffix == ".tsv"]))
    (header, *_), plain, (cell, other) = rows
    assert plain == ["x", "z"]
    assert header == cell == other
    assert "'" in cell
    assert re.search(r"(?:\A|[\t\r\n])\"*[=+@-]", cell) is None
    assert arm(cell) == text


@pytest.mark.parametrize("text", HARMLESS)
def test_other_cells_stay_as_they_are(text: str) -> None:
    content = render_table(".csv", {"x": [text], "y": [-5]}, csv_safe=True).decode()
    assert list(csv.reader(io.StringIO(content, newline="")))[1] == [text, "-5"]
    assert arm(text) == text


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_a_spreadsheet_with_another_delimiter_finds_no_cell_inside_of_a_text(delimiter: str) -> None:
    text = f'he said "fine"{delimiter}=1+1{delimiter}"-2+3"\n+1-x'
    content = render_table(".csv", {"id": ["1", "2"], "text": [text, f"{delimiter}@x"]}, csv_safe=True).decode()
    cells = [cell for row in csv.reader(io.StringIO(content, newline=""), delimiter=delimiter) for cell in row]
    assert [cell for cell in cells if re.match('["]*[=+@-]', cell)] == []
    written = list(csv.reader(io.StringIO(content, newline="")))
    assert [arm(row[1]) for row in written[1:]] == [text, f"{delimiter}@x"]


def test_how_a_row_is_quoted_does_not_hang_on_other_rows() -> None:
    rows = ["fine", "lone\rreturn", "a, b", "more"]
    whole = render_table(".csv", {"text": rows}, header=False)
    assert whole == b"".join(render_table(".csv", {"text": [row]}, header=False) for row in rows)
    assert whole == b'fine\n"lone\rreturn"\n"a, b"\nmore\n'


def test_formulas_of_the_case_are_disarmed(tmp_path: Path) -> None:
    rows = {
        "text": ["=cmd|' /C calc'!A0", "+1-2", "\t=1+1", "\n=2", "\x1b]0;PWN\x07\x1b[31mred"],
        "x": ["@SUM(1)", "-3", "ok", "ok", "ok"],
    }
    write_table(tmp_path / "a.csv", rows, csv_safe=True)
    written = read_table(tmp_path / "a.csv").columns
    assert written["text"] == [*(f"'{text}" for text in rows["text"][:2]), "'\t'=1+1", "'\n'=2", rows["text"][4]]
    assert written["x"] == ["'@SUM(1)", "-3", "ok", "ok", "ok"]


@pytest.mark.parametrize("ascii_only", [True, False])
def test_json_is_valid_whatever_stands_inside(ascii_only: bool) -> None:
    value = {"a": [float("nan"), {"b": float("-inf")}, (1.5, None)], "é🎬": "\ud800\u2028"}
    line = render_json(value, ascii_only=ascii_only)
    assert json.loads(line, parse_constant=pytest.fail) == {
        "a": [None, {"b": None}, [1.5, None]],
        "é🎬": "\ud800\u2028",
    }
    assert line.isascii() == ascii_only
    assert "\n" not in line


def test_a_full_disk_is_no_fault_of_the_user(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
        with pytest.raises(EnvironmentUnfitError, match="grows beyond"):
            write_table(tmp_path / "a.csv", {"text": ["x" * 2000]})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, previous)
    assert list(tmp_path.iterdir()) == []
