import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from lorafit.config import FormatConfig
from lorafit.data.tables import Table, read_table
from lorafit.errors import UserInputError
from lorafit.inference.jobs import open_file
from lorafit.inference.typed_texts import read_words, save_stream


def pipe(content: bytes | str, encoding: str = "ascii") -> io.TextIOWrapper:
    """Standard input as a pipe has it, with the encoding that a locale says."""
    return io.TextIOWrapper(io.BytesIO(content.encode() if isinstance(content, str) else content), encoding=encoding)


def read(
    content: bytes | str, text_columns: Sequence[str] = ("text",), form: FormatConfig | None = None
) -> tuple[str, Table]:
    """Return the suffix that was found, and the table."""
    with save_stream(pipe(content), text_columns, form or FormatConfig()) as file:
        return file.suffix, read_table(file, form)


@pytest.fixture
def terminal() -> Iterator[io.TextIOWrapper]:
    """Standard input as a person at a keyboard has it."""
    master, slave = os.openpty()
    with open(slave) as stream:  # noqa: PTH123 - a descriptor has no path
        yield stream
    os.close(master)


def test_words_are_texts() -> None:
    assert read_words(["superb", "dull"], text_columns=["review"]).columns == {"review": ["superb", "dull"]}


def test_a_pair_is_two_words() -> None:
    words = ["it rains", "it is wet"]
    table = read_words(words, text_columns=["text", "text_pair"])
    assert table.columns == {"text": ["it rains"], "text_pair": ["it is wet"]}
    for count in (1, 3):
        with pytest.raises(UserInputError, match=f"both texts of one pair, got {count} text"):
            read_words((words * 2)[:count], text_columns=["text", "text_pair"])


@pytest.mark.parametrize("name", ["new.csv", "notes.md", "README", "my file.txt", "gone.parquet", "reviews.csv.gz"])
def test_the_name_of_a_file_is_not_taken_for_a_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    is_there = not name.startswith(("gone", "reviews"))
    if is_there:
        Path(name).write_text("text\n")
    told = "is a file, not a text" if is_there else "looks like a file, not a text"
    with pytest.raises(
        UserInputError, match=rf"{told}\. For the texts in it: .* --file '?{name}'?\. .*: echo '?{name}"
    ):
        read_words(["superb", name])


@pytest.mark.parametrize(
    "text", ["see new.csv", "fine", "x" * 5000, "a\0b", "data", "...", ".", "/", "https://example.org/", "Is it 3.5?"]
)
def test_other_words_are_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    assert read_words([text]).columns == {"text": [text]}


def test_lines_are_texts_and_blank_ones_rows() -> None:
    content = "superb\r\n\r\n  \nété 🎬\u2028still the same text\x0cand still\nlone\rreturn\nthe end"
    texts = ["superb", "", "  ", "été 🎬\u2028still the same text\x0cand still", "lone\rreturn", "the end"]
    assert read(content) == (".txt", Table({"text": texts}, "standard input.txt"))


def test_a_line_without_a_tab_or_with_half_a_pair_is_a_bad_row() -> None:
    with (
        save_stream(pipe("a\tb\nno tab\n\tb\na\t \n"), ["text", "text_pair"], FormatConfig()) as file,
        pytest.raises(UserInputError, match=r"3 of 4 rows: an empty text \(rows 3, 4\); no text \(row 2\)"),
    ):
        open_file(file, text_columns=["text", "text_pair"])


def test_lines_that_are_not_in_the_encoding_are_bad_rows() -> None:
    mixed = "superb 🎬\n".encode() + "café\n".encode("latin1") + b"fine\n"
    _, table = read(mixed)
    assert table.columns == {"text": ["superb 🎬", None, "fine"]}
    assert table.faults == {1: "bytes that are not UTF-8"}
    assert read(mixed, form=FormatConfig(encoding_errors="replace"))[1].columns["text"][1] == "caf\ufffd"
    assert read(mixed, form=FormatConfig(encoding="latin1"))[1].columns["text"][1] == "café"


def test_an_encoding_is_found_as_in_a_file() -> None:
    texts = ["Das Café ist schön, aber für Müller zu laut.", "Größe und Qualität überzeugen nicht.", "Süß!"]
    _, table = read("\n".join(texts).encode("cp1252"))
    assert table.columns == {"text": texts}
    assert "read as cp1252 (confidence" in table.notes[0]
    _, table = read("superb\r\ndull".encode("utf-16")[:-1])
    assert table.columns == {"text": ["superb", None]}
    assert table.faults == {1: "bytes that are not utf-16"}


@pytest.mark.parametrize(
    ("content", "suffix"),
    [
        ("text\na fine, long film\n", ".csv"),
        ("id,text\n1,fine\n", ".csv"),
        ("\ufeffid;text\n1;fine\n", ".csv"),
        ("id\ttext\n1\tfine\n", ".tsv"),
        ('"id","text"\n1,fine\n', ".csv"),
        ("sep=;\nid;text\n1;fine\n", ".csv"),
        ("id,review\n1,fine\n", ".csv"),
        ('{"text": "fine"}\n', ".jsonl"),
        ('\n{"text": "fine"}\n{"text": "dull"}\n', ".jsonl"),
        ('[{"text": "fine"}]', ".json"),
        ('[\n  {\n    "text": "fine"\n  }\n]\n', ".json"),
        ("[Spoiler] he dies\n", ".txt"),
        ("{curly} braces\n", ".txt"),
        ("{}\n", ".txt"),
        ("a text, and more text\n", ".txt"),
        ("text me, message me\n", ".txt"),
        ("I, for one; liked | it\n", ".txt"),
    ],
)
def test_tables_are_told_from_lines_by_how_they_begin(content: str, suffix: str) -> None:
    with save_stream(pipe(content), ["text"], FormatConfig()) as file:
        assert file.suffix == suffix
        assert file.read_text() == content
    assert not file.exists()


def test_a_table_is_known_by_the_column_that_is_named_or_by_how_it_is_written() -> None:
    assert read("a,b\nx,y\n", ["b"])[0] == ".csv"
    assert read("a,b\nx,y\n", ["text"])[0] == ".txt"
    assert read("a,b\nx,y\n", form=FormatConfig(delimiter=","))[0] == ".csv"
    assert read("a\tb\nx\ty\n", form=FormatConfig(delimiter="\t"))[0] == ".tsv"


def test_empty_standard_input_is_refused() -> None:
    with pytest.raises(UserInputError, match="Nothing to predict: standard input is empty"):
        read("")


def test_a_person_at_a_terminal_is_told_what_to_give(terminal: io.TextIOWrapper) -> None:
    with (
        pytest.raises(UserInputError, match=r'Nothing to predict\. Give texts \("I loved it"\), --file'),
        save_stream(terminal, ["text"], FormatConfig()),
    ):
        pass
