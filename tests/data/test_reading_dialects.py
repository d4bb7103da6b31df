from pathlib import Path

import pytest

from lorafit.config import FormatConfig
from lorafit.data.tables import read_table, stream_table
from lorafit.errors import DataError

PLAIN = "with quotes as plain characters (if fields stand in quotes: --quoting standard)"


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines), encoding="utf-8", newline="")
    return path


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_delimiter_is_found_though_texts_have_commas(tmp_path: Path, delimiter: str) -> None:
    rows = [delimiter.join((str(row), "schlecht, spät, „x“, 1,5 kg", "gut")) for row in range(50)]
    table = read_table(write(tmp_path / "a.csv", delimiter.join(("id", "text", "label")), *rows))
    assert list(table.columns) == ["id", "text", "label"]
    assert table.columns["text"] == ["schlecht, spät, „x“, 1,5 kg"] * 50
    assert table.notes == (f"a.csv: read with delimiter {delimiter!r}.",)


def test_what_the_suffix_promises_is_taken_without_a_word(tmp_path: Path) -> None:
    for name, row in {"a.csv": "one; two|three,x", "a.tsv": "one, two|three\tx"}.items():
        table = read_table(write(tmp_path / name, "text,label" if name == "a.csv" else "text\tlabel", *[row] * 20))
        assert table.columns["label"] == ["x"] * 20
        assert table.notes == ()


def test_a_delimiter_that_fits_as_well_is_named(tmp_path: Path) -> None:
    table = read_table(write(tmp_path / "a.csv", "text;a,label;b", *["one;1,two;2"] * 20))
    assert list(table.columns) == ["text;a", "label;b"]
    assert table.notes == ("a.csv: read with delimiter ',' (';' fits as well: --delimiter).",)


@pytest.mark.parametrize("first", ["sep=;", '"sep=;"'])
def test_the_line_for_excel_is_no_row(tmp_path: Path, first: str) -> None:
    table = read_table(write(tmp_path / "a.csv", first, "text;label", "a, b;1"))
    assert table.columns == {"text": ["a, b"], "label": ["1"]}


def glue(*, label_first: bool) -> list[str]:
    texts = [f"The ferry number {row} was grim" for row in range(240)]
    texts[30] = f'"{texts[30]}'
    texts[90] += '"'
    pairs = [(str(row % 2), text) for row, text in enumerate(texts)]
    return ["\t".join(pair if label_first else pair[::-1]) for pair in pairs]


@pytest.mark.parametrize("label_first", [True, False])
def test_quotes_of_glue_files_are_plain_characters(tmp_path: Path, *, label_first: bool) -> None:
    header = "label\tsentence" if label_first else "sentence\tlabel"
    table = read_table(write(tmp_path / "a.tsv", header, *glue(label_first=label_first)))
    assert len(table) == 240
    assert table.columns["sentence"][30] == '"The ferry number 30 was grim'
    assert not table.faults
    assert table.notes == (f"a.tsv: read {PLAIN}.",)


def test_quotes_far_into_a_file_are_looked_at(tmp_path: Path) -> None:
    lines = [f"{row % 2}\tThe ferry was grim near the harbour and in the second half" for row in range(30_000)]
    table = read_table(write(tmp_path / "a.tsv", "label\tsentence", *lines, *glue(label_first=True)))
    assert len(table) == 30_240
    assert PLAIN in table.notes[0]


def test_lines_that_a_quote_swallowed_are_told_with_the_first(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", "label\tsentence", *glue(label_first=True))
    table = read_table(path, FormatConfig(quoting="standard"))
    assert len(table) == 180
    assert table.notes == (
        "a.tsv: 180 rows were read from 241 lines; lines 32 to 92 became row 31, though they look like rows of their "
        "own. If quotes are plain characters there: --quoting none.",
    )


def test_swallowed_lines_are_told_wherever_a_part_begins(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.tsv", "label\tsentence", '0\t"one', *[f"{row}\ttwo" for row in range(5)], '1\tthree"', "0\tx"
    )
    for part in stream_table(path, FormatConfig(quoting="standard"), most_rows=1):
        notes = part.notes
    assert notes[0].startswith("a.tsv: 2 rows were read from 9 lines; lines 2 to 8 became row 1, though")


def test_texts_of_many_lines_in_quotes_are_rows(tmp_path: Path) -> None:
    texts = [f"one, {row}\ntwo\n\nthree, four" for row in range(50)]
    table = read_table(write(tmp_path / "a.csv", "text,label", *(f'"{text}",{row}' for row, text in enumerate(texts))))
    assert table.columns["text"] == texts
    assert table.notes == ()


def test_escaped_quotes_are_found(tmp_path: Path) -> None:
    lines = [f'"He said \\"{row}\\", ok",{row}' for row in range(20)]
    table = read_table(write(tmp_path / "a.csv", "text,label", *lines))
    assert table.columns["text"][3] == 'He said "3", ok'
    assert table.notes == ("a.csv: read with \\ as the escape character.",)
    table = read_table(write(tmp_path / "b.csv", "text,label", r'"C:\dir, it\'s",1', r'"D:\x",2'))
    assert table.columns["text"] == [r"C:\dir, it\'s", r"D:\x"]


def test_one_quote_that_is_not_doubled_makes_one_bad_row(tmp_path: Path) -> None:
    lines = [f'"fine, {row}",{row % 2}' for row in range(100)]
    table = read_table(write(tmp_path / "a.csv", "text,label", *lines, '"She said "no".",1', "plain,0"))
    assert list(table.faults) == [100]
    assert table.columns["text"][101] == "plain"
    assert table.notes == ()


def test_a_quote_that_never_closes_is_an_error_with_its_line(tmp_path: Path) -> None:
    lines = [f'"fine, {row}",{row % 2}' for row in range(100)]
    path = write(tmp_path / "a.csv", "text,label", *lines, '"open,1', *["plain,0"] * 5)
    with pytest.raises(
        DataError, match=r"the quote that opens in line 102 does not close; 5 more lines.*--quoting none"
    ):
        read_table(path)


def test_every_row_with_too_few_or_too_many_fields_is_bad(tmp_path: Path) -> None:
    table = read_table(write(tmp_path / "a.csv", "text,label", "a,1", "b", "c,1,2,3", "d,2"))
    assert table.faults == {1: "1 field instead of 2", 2: "4 fields instead of 2"}
    assert table.columns == {"text": ["a", None, None, "d"], "label": ["1", None, None, "2"]}


def test_empty_columns_at_the_end_are_no_obstacle(tmp_path: Path) -> None:
    table = read_table(write(tmp_path / "a.csv", "v1,v2,,", "ham,a", "spam,b,,,", "ham,c,d,", "ham,e,,,f"))
    assert list(table.columns) == ["v1", "v2", "column 3", "column 4"]
    assert table.columns["v2"] == ["a", "b", "c", None]
    assert table.faults == {3: "5 fields instead of 4"}
    table = read_table(write(tmp_path / "b.csv", "text,label,text", "a,1,b"))
    assert table.columns == {"text (column 1)": ["a"], "label": ["1"], "text (column 3)": ["b"]}
    table = read_table(write(tmp_path / "c.csv", "text,text (column 1),text", "a,1,b"))
    assert list(table.columns) == ["text (column 1)'", "text (column 1)", "text (column 3)"]


def test_headers_inside_and_blank_lines_are_no_rows(tmp_path: Path) -> None:
    table = read_table(write(tmp_path / "a.csv", "text,label", "a,1", "", "text,label", "  ", "b,2", "text,label"))
    assert table.columns["text"] == ["a", "b"]
    assert table.notes == ("a.csv: 2 lines, the first being line 4, repeat the header; left out.",)


NAMED = [
    ["text,label", "a,1", "b,2"],
    ["v1,v2", *["ham,are you at the ferry yet my friend", "spam,call now for a price of your own"] * 10],
    [",review,stars", *[f"{row},it was a fine film in every way,{row % 5}" for row in range(20)]],
    ["text,0,1,2", *[f"it was a fine film in every way,{row % 2},0,1" for row in range(20)]],
    ["How did you like the film that you saw?,Answer", *["it was a fine film in every way,yes"] * 20],
]


@pytest.mark.parametrize("lines", NAMED)
def test_a_header_is_one(tmp_path: Path, lines: list[str]) -> None:
    table = read_table(write(tmp_path / "a.csv", *lines))
    assert len(table) == len(lines) - 1
    assert table.notes == ()


NAMELESS = [
    [f'"{row % 4 + 1}","Item {row}","Item {row} was discussed, near the harbour"' for row in range(20)],
    [f"the ferry number {row} was grim and late,{'positive' if row % 2 else 'negative'}" for row in range(20)],
    [f"{row % 2}\tthe ferry number {row}" for row in range(20)],
    [f"the ferry number {row} was grim and late" for row in range(20)],
]


@pytest.mark.parametrize("lines", NAMELESS)
def test_a_first_row_like_the_others_is_no_header(tmp_path: Path, lines: list[str]) -> None:
    path = write(tmp_path / "a.csv", *lines)
    table = read_table(path)
    assert len(table) == 20
    assert list(table.columns) == [str(number) for number in range(1, len(table.columns) + 1)]
    assert "without a header: columns are called 1" in table.notes[0]
    assert "harbour" not in table.notes[0]
    assert len(read_table(path, FormatConfig(header=True))) == 19


def test_settings_decide(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", '"a;b",1', "c;d,2")
    form = FormatConfig(delimiter=";", quoting="none", header=False)
    assert read_table(path, form).columns == {"1": ['"a', "c"], "2": ['b",1', "d,2"]}
    assert read_table(path, form).notes == ()
    path = write(tmp_path / "b.csv", "text,label", "a^,b,1")
    assert read_table(path, FormatConfig(escape="^")).columns["text"] == ["a,b"]


@pytest.mark.parametrize(
    "form", [{"delimiter": '"'}, {"delimiter": "\n"}, {"escape": "\r"}, {"delimiter": ";", "escape": ";"}]
)
def test_characters_that_make_no_sense_are_refused(tmp_path: Path, form: dict[str, str]) -> None:
    with pytest.raises(DataError, match=r"--(delimiter|escape)"):
        read_table(write(tmp_path / "a.csv", "text,label", "a,1"), FormatConfig.model_validate(form))


def test_very_long_rows_are_rows(tmp_path: Path) -> None:
    table = read_table(write(tmp_path / "a.csv", "text,label", "x" * 10_000_000 + ",1", "b,2"))
    assert [len(str(text)) for text in table.columns["text"]] == [10_000_000, 1]


def test_parts_are_the_whole(tmp_path: Path) -> None:
    lines = [f'"{"a,b" * (row % 5)}\n{row}",{row % 3}' + ",x" * (row % 7 == 0) for row in range(1_000)]
    path = write(tmp_path / "a.csv", "text,label", *lines)
    whole = read_table(path)
    parts = list(stream_table(path, most_rows=64))
    assert [value for part in parts for value in part.columns["text"]] == whole.columns["text"]
    assert sum(len(part.faults) for part in parts) == len(whole.faults) == 143
