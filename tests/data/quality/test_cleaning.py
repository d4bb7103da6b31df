import csv
import json
from pathlib import Path

import pytest

from lorafit.config import DataConfig
from lorafit.data.quality.cleaning import FIXES, clean_rows, clean_source, name_copy, parse_fixes
from lorafit.errors import ConfigError, UserInputError

REVIEW = "a quiet film about two brothers who open a bakery and lose it again to the tax office"


def write_csv(path: Path, rows: list[tuple[str, ...]], header: tuple[str, ...] = ("text", "label")) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def read_csv(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))[1:]


def clean(rows: list[tuple[str, str]], *fixes: str, held_out: tuple[str, ...] = ()) -> tuple[list[str], list[object]]:
    """Return the rows that are kept as `text label`, and the changes as `row fix`."""
    texts, labels = zip(*rows, strict=True)
    columns = {"text": texts, "label": labels}
    cleaned = clean_rows(columns, parse_fixes(",".join(fixes)), texts=["text"], labels=["label"], held_out=held_out)
    kept = [f"{text} {label}" for text, label in zip(*cleaned.columns.values(), strict=True)]
    return kept, [f"{change['row']} {change['fix']}" for change in cleaned.changes]


def test_first_of_duplicates_is_kept_and_contradictions_stay() -> None:
    rows = [("a", "x"), ("a", "x"), ("b", "y"), ("a", "y"), ("b", "y")]
    assert clean(rows, "duplicates") == (["a x", "b y", "a y"], ["2 duplicates", "5 duplicates"])


def test_contradictions_are_dropped_when_asked() -> None:
    rows = [("a", "x"), ("a", "y"), ("b", "y"), ("b", "y")]
    assert clean(rows, "conflicts") == (["b y", "b y"], ["1 conflicts", "2 conflicts"])
    assert clean(rows, "conflicts", "duplicates")[0] == ["b y"]


def test_near_duplicates_of_one_label_are_dropped() -> None:
    rows = [(REVIEW, "x"), (f"{REVIEW} indeed", "x"), (f"so {REVIEW}", "y")]
    assert clean(rows, "near-duplicates") == ([f"{REVIEW} x", f"so {REVIEW} y"], ["2 near-duplicates"])


def test_rows_that_are_in_test_are_dropped() -> None:
    rows = [("a", "x"), ("b", "y"), (f"{REVIEW} indeed", "x")]
    assert clean(rows, "leaks", held_out=("a", REVIEW))[0] == ["b y", f"{REVIEW} indeed x"]
    assert clean(rows, "near-leaks", held_out=("a", REVIEW))[0] == ["b y"]


def test_texts_that_become_equal_are_duplicates() -> None:
    assert clean([("a<br>b", "x"), ("a b", "x")], "html", "duplicates") == (["a b x"], ["1 html", "2 duplicates"])


def test_spellings_become_the_most_frequent_one() -> None:
    rows = [("a", "Pos"), ("b", "pos"), ("c", "pos"), ("d", " neg"), ("e", "neg"), ("f", "neg")]
    kept, changes = clean(rows, "labels")
    assert kept == ["a pos", "b pos", "c pos", "d neg", "e neg", "f neg"]
    assert changes == ["1 labels", "4 labels"]


def test_text_that_would_vanish_is_left_alone() -> None:
    assert clean([("<br>", "x"), ("b", "y")], "html") == (["<br> x", "b y"], [])


def test_unknown_fix_names_those_there_are() -> None:
    assert parse_fixes("duplicates, html") == ["html", "duplicates"]
    for text in ("htm", ""):
        with pytest.raises(ConfigError, match=f"allowed: {', '.join(FIXES)}"):
            parse_fixes(text)


def test_copy_keeps_all_columns_and_logs_every_change_without_texts(tmp_path: Path) -> None:
    rows = [("1", "a<br>b", "x"), ("2", "c", "y"), ("3", "c", "y"), ("4", "", "x")]
    source = write_csv(tmp_path / "my data.csv", rows, ("id", "text", "label"))
    original = source.read_bytes()
    cleaned = clean_source(DataConfig(source=str(source)), parse_fixes("html,duplicates"))
    assert cleaned.path == tmp_path / "my data.cleaned.csv"
    assert read_csv(cleaned.path) == [["1", "a b", "x"], ["2", "c", "y"], ["4", "", "x"]]
    assert [json.loads(line) for line in cleaned.log.read_text(encoding="utf-8").splitlines()] == [
        {"row": 1, "fix": "html", "change": "text", "column": "text"},
        {"row": 3, "fix": "duplicates", "change": "dropped", "kept": 2},
    ]
    assert (cleaned.rows, cleaned.kept, cleaned.changes) == (4, 3, {"html": 1, "duplicates": 1})
    assert source.read_bytes() == original


def test_nothing_is_replaced_that_was_not_named(tmp_path: Path) -> None:
    source, test = (write_csv(tmp_path / name, [("a", "x"), ("b", "y")]) for name in ("a.csv", "test.csv"))
    config = DataConfig(source=str(source), test=str(test))
    link = tmp_path / "link.csv"
    link.symlink_to(source)
    for taken in (source, test, link):
        with pytest.raises(UserInputError, match="would replace the data themselves"):
            clean_source(config, ["html"], output=taken, overwrite=True)
    clean_source(config, ["html"])
    with pytest.raises(UserInputError, match=r"a\.cleaned\.csv is there already.*--overwrite"):
        clean_source(config, ["html"])
    clean_source(config, ["html"], overwrite=True)
    with pytest.raises(UserInputError, match=r"allowed are \.csv"):
        clean_source(config, ["html"], output=tmp_path / "a.docx")


def test_pairs_and_columns_of_marks_are_cleaned(tmp_path: Path) -> None:
    rows = [("a<br>b", "c", "0", "1"), ("a b", "c", "0", "1"), ("a b", "c", "1", "1"), ("a b", "<p>d", "0", "1")]
    source = write_csv(tmp_path / "a.csv", rows, ("one", "two", "red", "tall"))
    config = DataConfig(
        source=str(source), task="multi_label", text_column="one", text_pair_column="two", label_columns=["red", "tall"]
    )
    cleaned = clean_source(config, parse_fixes("html,duplicates"))
    assert read_csv(cleaned.path) == [["a b", "c", "0", "1"], ["a b", "c", "1", "1"], ["a b", "d", "0", "1"]]


def test_several_files_and_named_sources_give_texts_and_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (write_csv(tmp_path / name, [("a", "x"), (name, "y")]) for name in ("a.csv", "b.csv"))
    cleaned = clean_source(DataConfig(source=str(first), files=[str(second)]), ["duplicates"])
    assert read_csv(cleaned.path) == [["a", "x"], ["a.csv", "y"], ["b.csv", "y"]]
    monkeypatch.chdir(tmp_path)
    named = clean_source(DataConfig(source="builtin:rotten-tomatoes"), ["html"])
    assert str(named.path) == "rotten-tomatoes.cleaned.csv"
    assert named.kept == named.rows == len(read_csv(named.path))


@pytest.mark.parametrize(
    ("source", "copy"),
    [
        ("data/reviews.jsonl", "data/reviews.cleaned.jsonl"),
        ("data/reviews.csv.gz", "data/reviews.cleaned.csv"),
        ("reviews.txt", "reviews.cleaned.csv"),
        ("imdb", "imdb.cleaned.csv"),
        ("hub:owner/name@main", "name.cleaned.csv"),
    ],
)
def test_copy_stands_beside_the_original(source: str, copy: str) -> None:
    assert name_copy(source) == Path(copy)
