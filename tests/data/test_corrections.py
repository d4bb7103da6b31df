import csv
from pathlib import Path

import numpy as np
import pytest

from lorafit.config import DataConfig
from lorafit.data.checks import CheckedRows, check_rows
from lorafit.data.corrections import apply_corrections, digest_text, read_corrections
from lorafit.data.loading import load_source_rows, load_splits
from lorafit.data.rows import RawRows
from lorafit.data.writing import write_table
from lorafit.errors import DataError
from lorafit.tasks.base import Task
from lorafit.tasks.labels import LabelReading
from lorafit.tasks.registry import get_task

TEXTS = ("a fine film", "a dull film", "a poor film", "=SUM(A1)")


def correct(
    path: Path,
    labels: tuple[object, ...],
    split: str = "train",
    task: str = "single_label",
    reading: LabelReading = LabelReading(),  # noqa: B008 - frozen
) -> CheckedRows:
    kind: type[Task] = get_task(task)
    rows = CheckedRows("reviews.csv", np.arange(1, 5), TEXTS, labels, groups=("a", "b", "c", "d"))  # type: ignore[arg-type]  # labels of any task
    return apply_corrections(rows, read_corrections(path), split, kind, reading)


def write(path: Path, **columns: list[object]) -> Path:
    write_table(path, columns, csv_safe=True)
    return path


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_corrections_change_labels_drop_rows_and_say_so(tmp_path: Path, suffix: str) -> None:
    path = write(
        tmp_path / f"review{suffix}",
        row=[1, 2, 3],
        split=["train"] * 3,
        corrected_label=["", "(drop)", "so-so"],
        text_digest=[digest_text(text) for text in TEXTS[:3]],
    )
    rows = correct(path, ("pos", "pos", "pos", "neg"))
    assert rows.labels == ("pos", "so-so", "neg")
    assert rows.ids.tolist() == [1, 3, 4]
    assert rows.texts == (TEXTS[0], TEXTS[2], TEXTS[3])
    assert rows.groups == ("a", "c", "d")
    assert rows.notes == (
        f"reviews.csv: 1 label corrected, 1 row dropped (review{suffix}).",
        f"review{suffix}: new label 'so-so', given 1 time.",
    )


def test_corrections_leave_other_splits_as_they_are(tmp_path: Path) -> None:
    path = write(tmp_path / "review.csv", row=[1], split=["test"], corrected_label=["neg"])
    rows = correct(path, ("pos",) * 4)
    assert rows.labels == ("pos",) * 4
    assert rows.notes == ()


def test_a_table_of_rows_and_labels_is_enough(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.csv", row=["1", "2"], corrected_label=["neg", "pos"])
    rows = correct(path, ("pos", "pos", "neg", "neg"))
    assert rows.labels == ("neg", "pos", "neg", "neg")
    assert rows.notes == (
        "reviews.csv: 1 label corrected (mine.csv; it has no column text_digest, so whether the rows are the same was "
        "not checked).",
    )


def test_corrections_hold_several_labels_and_numbers(tmp_path: Path) -> None:
    path = write(tmp_path / "tags.jsonl", row=[1, 2], corrected_label=[["b", "a"], '["c"]'])
    assert correct(path, (("a",),) * 4, task="multi_label").labels[:2] == (("a", "b"), ("c",))
    path = write(tmp_path / "stars.csv", row=[1, 2], corrected_label=["2.5", "-3"])
    assert correct(path, (1.0,) * 4, task="regression").labels[:2] == (2.5, -3.0)


def test_a_label_that_looks_like_a_formula_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = write(tmp_path / "review.csv", row=[1], corrected_label=["@joy"])
    assert "'@joy" in path.read_text()
    assert correct(path, ("pos",) * 4).labels[0] == "@joy"


@pytest.mark.parametrize("separator", [";", " / "])
def test_corrections_are_parted_as_the_data_are(tmp_path: Path, separator: str) -> None:
    path = write(tmp_path / "r.csv", row=[1, 2, 3], corrected_label=["a, b", f"b{separator}new", f"c{separator}a"])
    cells = [f"a{separator}b", "b", f"b{separator}c", f"a{separator}c", "c", "a", f"c{separator}b", "b"] * 3
    raw = RawRows("tags.csv", [f"text {number}" for number in range(24)], cells)
    rows = check_rows(raw, get_task("multi_label"), LabelReading(), drop_bad_rows=False)
    rows = apply_corrections(rows, read_corrections(path), "train", get_task("multi_label"), LabelReading())
    assert rows.labels[:4] == (("a", "b"), ("b", "new"), ("a", "c"), ("a", "c"))
    assert rows.notes[-1] == "r.csv: new label 'new', given 1 time."


@pytest.mark.parametrize(
    ("cells", "written", "numbers"),
    [
        (["3,5", "1.200,25", "7"], ["1,234", "2.5", "1.234,0"], [1.234, 2.5, 1234.0]),
        (["3.5", "1,200.25", "7"], ["1,234", "2.5", "1 234"], [1234.0, 2.5, 1234.0]),
        (["3.5", "1.2", "7"], ["2,5", "2.5", "1.234"], None),
        (["3.5", "1.2", "7"], ["2.5", "1.234", "4"], [2.5, 1.234, 4.0]),
    ],
)
def test_corrected_numbers_are_read_by_the_decimal_sign_of_the_data(
    tmp_path: Path, cells: list[str], written: list[str], numbers: list[float] | None
) -> None:
    path = write(tmp_path / "r.csv", row=[1, 2, 3], corrected_label=written)
    kind = get_task("regression")
    rows = check_rows(RawRows("stars.csv", ["a", "b", "c"], cells), kind, LabelReading(), drop_bad_rows=False)
    if numbers is None:
        with pytest.raises(DataError, match=r"corrected_label cannot be used.*comma"):
            apply_corrections(rows, read_corrections(path), "train", kind, LabelReading())
    else:
        corrected = apply_corrections(rows, read_corrections(path), "train", kind, LabelReading())
        assert list(corrected.labels) == numbers


@pytest.mark.parametrize(
    ("cells", "cell", "fault"),
    [
        (["3,5", "7"], "1.234", "a dot that may be a decimal point or part of thousands"),
        (["1,200.5", "7"], "2,5", "a comma that is a decimal sign in some cells and part of thousands in others"),
    ],
)
def test_a_corrected_number_that_does_not_fit_the_sign_of_the_data_is_refused(
    tmp_path: Path, cells: list[str], cell: str, fault: str
) -> None:
    path, kind = write(tmp_path / "r.csv", row=[2], corrected_label=[cell]), get_task("regression")
    rows = check_rows(RawRows("stars.csv", ["a", "b"], cells), kind, LabelReading(), drop_bad_rows=False)
    with pytest.raises(DataError, match=rf"r\.csv: corrected_label cannot be used \(row 2\): {fault}"):
        apply_corrections(rows, read_corrections(path), "train", kind, LabelReading())


def test_corrections_take_the_spelling_of_the_data(tmp_path: Path) -> None:
    path = write(tmp_path / "r.csv", row=[1, 2, 3], corrected_label=["1.0", "2", "0.5"])
    rows = correct(path, ("0.5", "0.5", "1.0", "2.0"))
    assert rows.labels == ("1.0", "2.0", "0.5", "2.0")
    assert len(rows.notes) == 1


@pytest.mark.parametrize("merge", [False, True])
def test_corrections_in_other_case_are_merged_or_told(tmp_path: Path, *, merge: bool) -> None:
    path = write(tmp_path / "r.csv", row=[1, 2], corrected_label=["POS", "POS"])
    rows = correct(path, ("neg", "neg", "pos", "neg"), reading=LabelReading(merge_spellings=merge))
    assert rows.labels[:2] == (("pos",) * 2 if merge else ("POS",) * 2)
    told = (
        "r.csv: new label 'POS', given 2 times. In upper and lower case alone, 'POS' differs from 'pos': "
        "--merge-spellings makes them one."
    )
    assert rows.notes[1:] == (() if merge else (told,))


def test_drop_is_read_in_any_case_and_unusable_rows_may_be_listed(tmp_path: Path) -> None:
    path = write(tmp_path / "r.csv", row=[1, 2, 3], corrected_label=["(Drop)", "", "(DROP) "])
    raw = RawRows("reviews.csv", ["a", "", None, "d"], ["x", "y", "x", "y"])
    rows = check_rows(raw, get_task("single_label"), LabelReading(), drop_bad_rows=True)
    rows = apply_corrections(rows, read_corrections(path), "train", get_task("single_label"), LabelReading())
    assert rows.ids.tolist() == [4]
    assert "0 labels corrected, 1 row dropped" in rows.notes[-1]


@pytest.mark.parametrize(
    ("columns", "fault"),
    [
        ({"row": [1, 9], "corrected_label": ["pos", ""]}, r"row 9 cannot be found or used.*lorafit check"),
        ({"row": [2], "corrected_label": [""], "text_digest": [digest_text("other")]}, r"row 2 has another text"),
        ({"row": [1, 1], "corrected_label": ["pos", ""]}, r"names row 1 of train twice"),
        ({"row": ["x"], "corrected_label": ["pos"]}, r"row 1: column row holds no row number"),
        ({"row": [1.5], "corrected_label": ["pos"]}, r"holds no row number"),
        ({"row": [1], "label": ["pos"]}, r"no column 'corrected_label'"),
    ],
)
def test_corrections_of_other_rows_are_refused(tmp_path: Path, columns: dict[str, list[object]], fault: str) -> None:
    with pytest.raises(DataError, match=fault) as caught:
        correct(write(tmp_path / "review.csv", **columns), ("pos",) * 4)
    assert not any(text in str(caught.value) for text in TEXTS)


def test_a_label_that_is_none_of_the_task_is_refused_with_its_row(tmp_path: Path) -> None:
    path = write(tmp_path / "review.csv", row=[3], corrected_label=["many"])
    with pytest.raises(DataError, match=r"corrected_label cannot be used \(row 3\).*\(drop\), or nothing"):
        correct(path, (1.0,) * 4, task="regression")


def test_digest_tells_texts_and_pairs_apart_and_is_no_number() -> None:
    digests = {digest_text("a b"), digest_text(("a", "b")), digest_text(("a b", "")), digest_text("half a pair \ud83d")}
    assert len(digests) == 4
    assert all(digest.startswith("sha256:") for digest in digests)


def test_training_data_are_corrected_before_they_are_cut(word_reviews: Path, tmp_path: Path) -> None:
    with word_reviews.open(encoding="utf-8") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    path = write(
        tmp_path / "review.csv",
        row=[1, 2, 3],
        split=["train"] * 3,
        corrected_label=["pos", "(drop)", ""],
        text_digest=[digest_text(text) for text in texts[:3]],
    )
    config = DataConfig(source=str(word_reviews), corrections=str(path))
    splits = load_splits(config)
    rows = {
        int(row): label
        for part in splits.by_name.values()
        for row, label in zip(part.ids, splits.task.decode(part.y), strict=True)
    }
    assert (rows[1], rows[3], len(rows)) == ("pos", "neg", 159)
    assert any(note.endswith("1 label corrected, 1 row dropped (review.csv).") for note in splits.notes)
    task, parts, notes = load_source_rows(config)
    assert task.label_names == ("neg", "pos")
    assert {name: len(part) for name, part in parts.items()} == {"train": 159}
    assert any("1 row dropped" in note for note in notes)


def test_corrections_of_a_split_that_is_not_there_are_refused(word_reviews: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "review.csv", row=[1], split=["test"], corrected_label=["pos"])
    with pytest.raises(DataError, match=r"split 'test'. The data have: train"):
        load_splits(DataConfig(source=str(word_reviews), corrections=str(path)))
