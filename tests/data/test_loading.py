import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lorafit.config import DataConfig
from lorafit.data import sources
from lorafit.data.loading import FEW_ROWS, load_evaluation_rows, load_splits
from lorafit.data.rows import RawRows, RawSplits
from lorafit.data.splits import count_shared_texts
from lorafit.data.writing import write_table
from lorafit.errors import ConfigError, DataError, DoubtfulDataError
from lorafit.tasks.registry import build_task


def write_csv(path: Path, labels: Sequence[str], *, start: int = 0, header: str = "text,label") -> str:
    rows = (f"text {start + number},{label}" for number, label in enumerate(labels))
    path.write_text("\n".join([header, *rows]) + "\n")
    return str(path)


def test_file_is_cut_into_three(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_csv(tmp_path / "a.csv", ["x", "y"] * 50)
    monkeypatch.chdir(tmp_path)
    splits = load_splits(DataConfig(source="a.csv", validation_fraction=0.1))
    assert splits.source == str(tmp_path / "a.csv")
    assert splits.task.label_names == ("x", "y")
    parts = (splits.train, splits.validation, splits.test)
    assert [np.bincount(part.y).tolist() for part in parts] == [[41, 41], [4, 4], [5, 5]]
    assert sorted(row for part in parts for row in part.ids) == list(range(1, 101))
    assert splits.notes == (
        "labels: x 50, y 50",
        "test: 10 rows cut from train (10% of each label, seed 0).",
        "validation: 8 rows cut from train (10% of each label, seed 0).",
        "validation: 8 rows are too few to calibrate with some of them; predictions stay as the model gives them.",
    )


@pytest.mark.parametrize(("rows", "few"), [(442, True), (446, False)])
def test_few_rows_all_train(tmp_path: Path, rows: int, few: bool) -> None:
    source = write_csv(tmp_path / "a.csv", ["x", "y"] * (rows // 2))
    splits = load_splits(DataConfig(source=source))
    assert (sum(len(part) for name, part in splits.by_name.items() if name != "test") < FEW_ROWS) is few
    assert (len(splits.validation) == 0) is few is ("validation" not in splits.by_name)
    assert (splits.calibration is None) is few
    assert any("no rows are set aside" in note for note in splits.notes) is few


def test_few_rows_are_set_aside_where_that_is_asked_for_or_given(tmp_path: Path) -> None:
    source = write_csv(tmp_path / "a.csv", ["x", "y"] * 50)
    assert len(load_splits(DataConfig(source=source, validation_fraction=0.1)).validation) == 8
    other = write_csv(tmp_path / "b.csv", ["x", "y"] * 5)
    assert len(load_splits(DataConfig(source=source, validation=other)).validation) == 10
    assert len(load_splits(DataConfig(source=source).holding_out()).validation) == 8
    many = write_csv(tmp_path / "c.csv", ["x", "y"] * 300)
    assert not len(load_splits(DataConfig(source=many, validation_fraction=0)).validation)
    with pytest.raises(ConfigError, match="leaves no rows to choose by"):
        DataConfig(validation_fraction=0).holding_out()


def test_rows_cut_by_time_are_set_aside_however_few(tmp_path: Path) -> None:
    rows = [{"text": f"a {row}", "label": row % 2, "day": row} for row in range(100)]
    timed = load_splits(DataConfig(source=write_jsonl(tmp_path / "a.jsonl", rows), time_column="day"))
    assert len(timed.validation) == 9


def test_splits_can_be_repeated(tmp_path: Path) -> None:
    source = write_csv(tmp_path / "a.csv", ["x", "y"] * 50)
    first, again, other = (load_splits(DataConfig(source=source, seed=seed)) for seed in (0, 0, 1))
    assert first.train.fingerprint() == again.train.fingerprint()
    assert first.test.fingerprint() != other.test.fingerprint()


def test_columns_are_chosen(tmp_path: Path) -> None:
    source = write_csv(tmp_path / "a.csv", ["x", "y"] * 10, header="review,stars")
    splits = load_splits(DataConfig(source=source, text_column="review", label_column="stars"))
    assert len(splits.train) == 18
    with pytest.raises(DataError, match=r"has no column 'text'. Its columns: \['review', 'stars'\].*--text-column"):
        load_splits(DataConfig(source=source))
    with pytest.raises(DataError, match=r"has no column 'label'.*--label-column"):
        load_splits(DataConfig(source=source, text_column="review"))


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_slice_columns_of_a_file_go_with_their_rows(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    rows = range(1, 61)
    columns = {"text": [f"text {row}" for row in rows], "label": ["x", "y"] * 30, "row": [*rows], "site": ["s"] * 60}
    write_table(path, columns)
    splits = load_splits(DataConfig(source=str(path), slice_columns=["row", "label"], max_rows=20))
    for part in splits.by_name.values():
        assert part.columns["row"] == tuple(map(str, part.ids))
        assert part.columns["label"] == tuple(splits.task.label_names[label] for label in part.y)
    plain = load_splits(DataConfig(source=str(path), max_rows=20))
    assert plain.train.columns == {}
    assert plain.train.fingerprint() == splits.train.fingerprint()
    evaluated = load_evaluation_rows(str(path), DataConfig(source="imdb", slice_columns=["site"]), splits.task).split
    assert evaluated.columns == {"site": ("s",) * 60}


def test_slice_columns_of_named_sources_are_those_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    config = DataConfig(slice_columns=["movie"])
    splits = load_splits(config)
    test = splits.test
    assert len(set(test.columns["movie"])) > 40
    assert not set(test.columns["movie"]) & set(splits.validation.columns["movie"])
    assert load_splits(DataConfig()).test.columns == {}
    task = build_task("single_label", ("fresh", "rotten"))
    again = load_evaluation_rows(
        "builtin:rotten-tomatoes", DataConfig(source="imdb", slice_columns=["movie"]), task
    ).split
    assert again.columns == test.columns
    rated = RawRows("imdb train", [f"text {number}" for number in range(40)], ["a", "b"] * 20, columns={"r": [1] * 40})
    monkeypatch.setattr(sources, "load_imdb", lambda: RawSplits(rated))
    splits = load_splits(DataConfig(source="imdb", slice_columns=["r"], validation_fraction=0.1))
    assert (splits.validation.columns, len(splits.validation)) == ({"r": ("1",) * 4}, 4)


@pytest.mark.parametrize(
    ("source", "column", "message"),
    [
        (None, "shop", r"a\.csv has no column 'shop'. Its columns: \['text', 'label'\]\. Choose one .* with --slice\."),
        (None, "text", r"Column 'text' holds the texts\. Choose another one with --slice\."),
        (None, "words", "must not be called 'words': results by the length .* with --slice"),
        ("builtin:rotten-tomatoes", "shop", r"train has no column 'shop'.*\['text', 'label', 'movie'\].*--slice"),
        ("builtin:rotten-tomatoes", "text", "holds the texts"),
        ("hub:owner/name", "text", "holds the texts"),
    ],
)
def test_slice_column_that_cannot_be_had_is_refused(
    tmp_path: Path, source: str | None, column: str, message: str
) -> None:
    path = write_csv(tmp_path / "a.csv", ["x", "y"] * 10)
    config = DataConfig(source=source or path, slice_columns=[column])
    with pytest.raises(DataError, match=message):
        load_splits(config)
    if source is None:
        with pytest.raises(DataError, match=message):
            load_evaluation_rows(
                path, config.model_copy(update={"source": "imdb"}), build_task("single_label", ("x", "y"))
            )


def test_files_of_ones_own_for_validation_and_test_are_used(tmp_path: Path) -> None:
    config = DataConfig(
        source=write_csv(tmp_path / "a.csv", ["x", "y"] * 10),
        validation=write_csv(tmp_path / "v.csv", ["y", "x"], start=19),
        test=write_csv(tmp_path / "t.csv", ["y"] * 3, start=18),
    )
    splits = load_splits(config)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (20, 2, 3)
    assert splits.validation.y.tolist() == [1, 0]
    assert splits.notes == (
        "labels: x 10, y 10",
        "test: 2 of its texts are in train, too, character for character.",
        "validation: 1 of its texts are in train, too, character for character.",
        "test: 2 of its texts are in validation, too, character for character.",
        "validation: 2 rows are too few to calibrate with some of them; predictions stay as the model gives them.",
    )


def test_one_row_of_each_label_is_enough_with_files_of_ones_own(tmp_path: Path) -> None:
    source, other = (
        write_csv(tmp_path / name, ["x", "y"], start=start) for name, start in (("a.csv", 0), ("b.csv", 9))
    )
    assert len(load_splits(DataConfig(source=source, validation=other, test=other)).train) == 2


def test_too_few_rows_to_cut_are_told_at_once(tmp_path: Path) -> None:
    source = write_csv(tmp_path / "a.csv", ["x", "x", "x", "y", "y"])
    with pytest.raises(
        DataError,
        match=r"a\.csv has fewer than 3 different texts, one for each of 3 splits, of 'y' \(2\).*--rare-labels drop",
    ):
        load_splits(DataConfig(source=source, validation_fraction=0.1))


def test_only_splits_that_are_cut_need_a_text_of_every_label(tmp_path: Path) -> None:
    splits = load_splits(DataConfig(source=write_csv(tmp_path / "a.csv", [*["x", "y"] * 20, "z", "z"])))
    assert [part.y.tolist().count(2) for part in (splits.train, splits.test)] == [1, 1]
    assert not len(splits.validation)
    once, test = write_csv(tmp_path / "b.csv", [*["x", "y"] * 20, "z"]), write_csv(tmp_path / "t.csv", "xyz", start=99)
    assert len(load_splits(DataConfig(source=once, test=test)).train) == 41
    with pytest.raises(DataError, match=r"fewer than 2 different texts, one for each of 2 splits, of 'z' \(1\)"):
        load_splits(DataConfig(source=once))


@pytest.mark.parametrize(("labels", "each"), [(9, 50), (9, 56), (3, 147), (8, 58)])
def test_more_than_few_rows_calibrate_whatever_their_labels(tmp_path: Path, labels: int, each: int) -> None:
    source = write_csv(tmp_path / "a.csv", "abcdefghi"[:labels] * each)
    splits = load_splits(DataConfig(source=source))
    set_aside = labels * each - len(splits.test) - len(splits.train)
    assert (splits.calibration is None) is (set_aside == 0), splits.notes
    if splits.calibration is None:
        assert any("no rows are set aside" in note for note in splits.notes)
        assert not any(note.startswith("validation:") and "cut from" in note for note in splits.notes)
    uncalibrated = load_splits(DataConfig(source=source, calibration_fraction=0))
    assert bool(len(uncalibrated.validation)) is (len(uncalibrated.train) + len(uncalibrated.validation) >= FEW_ROWS)


def test_of_many_rows_some_validate_even_if_none_can_calibrate(tmp_path: Path) -> None:
    source = write_csv(tmp_path / "a.csv", ["x"] * 995 + ["y"] * 5)
    splits = load_splits(DataConfig(source=source))
    assert len(splits.validation) == 91
    assert splits.calibration is None


def test_label_that_training_lacks_is_refused(tmp_path: Path) -> None:
    config = DataConfig(
        source=write_csv(tmp_path / "a.csv", ["x", "y"] * 10), test=write_csv(tmp_path / "t.csv", ["x", "z"])
    )
    with pytest.raises(DataError, match=r"t\.csv has 1 row with labels that training did not have: \['z'\] \(row 2\)"):
        load_splits(config)


def test_bad_rows_stop_or_are_noted(tmp_path: Path) -> None:
    source = write_csv(tmp_path / "a.csv", [*["x", "y"] * 10, ""])
    with pytest.raises(DataError, match=r"an empty label \(row 21\).*--bad-rows drop"):
        load_splits(DataConfig(source=source))
    splits = load_splits(DataConfig(source=source, bad_rows="drop"))
    assert splits.notes[0] == "a.csv: left out 1 of 21 rows: an empty label (row 21)."


def test_max_rows_samples_train_after_the_cut(tmp_path: Path) -> None:
    source = write_csv(tmp_path / "a.csv", ["x", "y"] * 50)
    config = DataConfig(source=source, validation_fraction=0.1)
    whole = load_splits(config)
    sampled = load_splits(config.model_copy(update={"max_rows": 20}))
    assert np.bincount(sampled.train.y).tolist() == [10, 10]
    assert set(sampled.train.ids) <= set(whole.train.ids)
    assert sampled.test.fingerprint() == whole.test.fingerprint()
    assert sampled.validation.fingerprint() == whole.validation.fingerprint()
    assert sampled.notes[-1] == "train: 20 of 82 rows drawn (data.max_rows, seed 0)."


def test_builtin_source_has_its_own_splits(tmp_path: Path) -> None:
    splits = load_splits(DataConfig())
    assert splits.source == "builtin:rotten-tomatoes"
    assert splits.task.label_names == ("rotten", "fresh")
    assert {name: len(part) for name, part in splits.by_name.items()} == {
        "train": 10_219,
        "validation": 644,
        "test": 1_245,
        "calibration": 644,
    }
    assert splits.notes == (
        "labels: rotten 4,397, fresh 5,822",
        "calibration: 644 of the validation rows fit the temperature and choose no checkpoint "
        "(data.calibration_fraction=0.5, seed 0).",
    )
    mine = write_csv(tmp_path / "t.csv", ["fresh", "rotten"])
    assert load_splits(DataConfig(test=mine)).test.y.tolist() == [1, 0]


@pytest.mark.parametrize("fraction", [0.2, 0.5, 0.8])
def test_calibration_rows_are_cut_off_validation_and_come_back_the_same(tmp_path: Path, fraction: float) -> None:
    source = write_csv(tmp_path / "a.csv", ["x", "y", "y"] * 400)
    config = DataConfig(source=source, validation_fraction=0.2, calibration_fraction=fraction)
    splits = load_splits(config)
    assert splits.calibration is not None
    whole = load_splits(config.model_copy(update={"calibration_fraction": 0})).validation
    assert sorted([*splits.validation.ids, *splits.calibration.ids]) == whole.ids.tolist()
    assert len(splits.calibration) == pytest.approx(fraction * len(whole), abs=2)
    shares = [np.bincount(part.y)[0] / len(part) for part in (whole, splits.calibration, splits.validation)]
    assert shares == pytest.approx([1 / 3] * 3, abs=0.02)
    again = load_splits(config).calibration
    assert again is not None
    assert again.fingerprint() == splits.calibration.fingerprint()


def test_a_rare_label_stays_with_the_rows_that_choose(tmp_path: Path) -> None:
    source = write_csv(tmp_path / "a.csv", ["x", "y"] * 200)
    validation = write_csv(tmp_path / "v.csv", [*["x", "y"] * 30, "x"], start=500)
    rare = tmp_path / "w.csv"
    rare.write_text(Path(validation).read_text() + "one of its kind,z\n")
    Path(source).write_text(Path(source).read_text() + "a,z\nb,z\nc,z\n")
    splits = load_splits(DataConfig(source=source, validation=str(rare)))
    assert splits.calibration is not None
    assert np.bincount(splits.calibration.y).tolist() == [16, 15]
    assert "one of its kind" in splits.validation.texts
    assert len(splits.validation) + len(splits.calibration) == 62


def make_published(train: int, test: Sequence[str], labels: tuple[str, ...] | None = None) -> RawSplits:
    texts = [f"text {number}" for number in range(train)]
    rows = RawRows("imdb train", texts, ["negative", "positive"] * (train // 2))
    rated = RawRows("imdb test", test, ["positive"] * len(test))
    return RawSplits(rows, test=rated, label_names=labels, notes=("a note",))


def test_imdb_has_its_test_kept_and_repeats_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    published = make_published(40, [f"text {number}" for number in range(6)], ("negative", "positive"))
    monkeypatch.setattr(sources, "load_imdb", lambda: published)
    splits = load_splits(DataConfig(source="imdb", validation_fraction=0.1))
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (36, 4, 6)
    assert splits.notes[:3:2] == ("a note", "test: 6 of its texts are in train, too, character for character.")
    assert count_shared_texts(splits.train, splits.validation) == 0


def test_hub_source_gets_the_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {}

    def load(source: str, **columns: object) -> RawSplits:
        asked[source] = columns
        published = make_published(40, ["a"])
        assert published.test is not None
        parts = (replace(rows, columns={"shop": ["s"] * len(rows.texts)}) for rows in (published.train, published.test))
        return replace(published, **dict(zip(("train", "test"), parts, strict=True)))

    monkeypatch.setattr(sources, "load_hub", load)
    splits = load_splits(DataConfig(source="hub:owner/name", text_column="review", slice_columns=["shop", "shop"]))
    assert asked == {
        "hub:owner/name": {"text_column": "review", "label_column": "label", "columns": {"shop": "--slice"}}
    }
    assert splits.source == "hub:owner/name"
    assert splits.task.label_names == ("negative", "positive")


def test_published_labels_without_rows_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    published = make_published(40, ["a"], ("positive", "neutral", "negative"))
    monkeypatch.setattr(sources, "load_hub", lambda *_, **__: published)
    splits = load_splits(DataConfig(source="hub:owner/name"))
    assert splits.task.label_names == ("positive", "negative")
    assert "imdb train: no rows of the labels ['neutral']; they are left out." in splits.notes


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("imbd", r"no data source 'imbd'\. Did you mean imdb\? Allowed: builtin:rotten-tomatoes, imdb, hub:owner/name"),
        ("rotten-tomatoes", r"Did you mean builtin:rotten-tomatoes\?"),
        ("builtin:rotten-potatoes", r"Did you mean builtin:rotten-tomatoes\?"),
        ("zzz", r"no data source 'zzz'\. Allowed: .*or a file \(\.csv, \.tsv, \.jsonl"),
        ("absent.csv", r"There is no file absent\.csv"),
        (".", "is a folder"),
        ("hub:a/b/c", "does not name a data set of the Hub"),
    ],
)
def test_unknown_source_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=message):
        load_splits(DataConfig(source=source))
    with pytest.raises(DataError, match=message):
        load_evaluation_rows(source, DataConfig(), build_task("single_label", ("x", "y")))


def test_all_rows_of_a_file_are_evaluated(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "t.csv", ["y", "x", "y"])
    rows = load_evaluation_rows(path, DataConfig(), build_task("single_label", ("x", "y", "z"))).split
    assert rows.y.tolist() == [1, 0, 1]
    assert rows.ids.tolist() == [1, 2, 3]
    with pytest.raises(DataError, match=r"2 rows with labels that training did not have: \['y'\] \(rows 1, 3\)"):
        load_evaluation_rows(path, DataConfig(), build_task("single_label", ("a", "x")))


def test_named_source_is_evaluated_on_its_split() -> None:
    rows = load_evaluation_rows(
        "builtin:rotten-tomatoes", DataConfig(source="imdb"), build_task("single_label", ("fresh", "rotten"))
    ).split
    assert np.bincount(rows.y).tolist() == [716, 529]
    validation = load_evaluation_rows(
        "builtin:rotten-tomatoes", DataConfig(), build_task("single_label", ("rotten", "fresh")), split="validation"
    ).split
    assert np.bincount(validation.y).tolist() == [229, 415]
    with pytest.raises(
        DataError, match=r"builtin:rotten-tomatoes test has 1245 rows with labels that training did not have"
    ):
        load_evaluation_rows(
            "builtin:rotten-tomatoes", DataConfig(), build_task("single_label", ("negative", "positive"))
        )


def test_settings_of_the_run_serve_only_its_own_source(tmp_path: Path) -> None:
    task = build_task("single_label", ("rotten", "fresh"))
    mine = write_csv(tmp_path / "t.csv", ["fresh", "rotten"])
    assert len(load_evaluation_rows("builtin:rotten-tomatoes", DataConfig(test=mine), task).split) == 2
    other = DataConfig(source="imdb", test=mine, max_rows=10)
    assert len(load_evaluation_rows("builtin:rotten-tomatoes", other, task).split) == 1_245
    assert len(load_evaluation_rows("builtin:rotten-tomatoes", other, task, split="train").split) == 10_219
    grouped = DataConfig(source=mine, group_column="author", corrections="absent.csv", files=["absent.csv"])
    assert len(load_evaluation_rows("builtin:rotten-tomatoes", grouped, task).split) == 1_245
    lone = load_evaluation_rows(write_csv(tmp_path / "o.csv", ["fresh"]), grouped, task)
    assert len(lone.split) == 1
    assert lone.notes == (
        "o.csv: intervals take rows as independent. Where they come in groups, as the run's own do (author), name the "
        "column with --group-column.",
    )


def test_file_that_trained_the_run_is_evaluated_on_its_test_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_csv(tmp_path / "a.csv", ["x", "y"] * 50)
    config = DataConfig(source=path, max_rows=20)
    monkeypatch.chdir(tmp_path)
    for source in (path, "a.csv", f"../{tmp_path.name}/a.csv"):
        rows = load_evaluation_rows(source, config, build_task("single_label", ("x", "y"))).split
        assert rows.fingerprint() == load_splits(config).test.fingerprint()


def write_jsonl(path: Path, rows: Sequence[dict[str, object]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_several_files_and_patterns_are_one_source(tmp_path: Path) -> None:
    first, second = write_csv(tmp_path / "a.csv", ["x", "y"] * 15), write_csv(tmp_path / "b.csv", ["y"] * 10, start=30)
    listed = load_splits(DataConfig(source=first, files=[second]))
    pattern = load_splits(DataConfig(source=str(tmp_path / "*.csv")))
    assert listed.train.fingerprint() == pattern.train.fingerprint()
    assert sum(map(len, listed.by_name.values())) == 40
    assert "Rows are counted through the files: a.csv from 1, b.csv from 31." in listed.notes
    with pytest.raises(DataError, match="No file matches"):
        load_splits(DataConfig(source=str(tmp_path / "*.tsv")))
    with pytest.raises(DataError, match="is no file: further files"):
        load_splits(DataConfig(source="imdb", files=[first]))


def test_pairs_of_texts_come_from_two_columns(tmp_path: Path) -> None:
    rows = [{"one": f"a {row}", "two": f"b {row}", "label": row % 2} for row in range(40)]
    source = write_jsonl(tmp_path / "a.jsonl", rows)
    splits = load_splits(DataConfig(source=source, text_column="one", text_pair_column="two"))
    assert splits.train.texts[0] == ("a 0", "b 0")
    single = load_splits(DataConfig(source=source, text_column="one"))
    assert single.train.ids.tolist() == splits.train.ids.tolist()
    assert single.train.fingerprint() != splits.train.fingerprint()


def test_columns_of_marks_are_the_labels(tmp_path: Path) -> None:
    rows = [{"text": f"a {row}", "rude": row % 2, "hate": str(row % 3 // 2)} for row in range(60)]
    source = write_jsonl(tmp_path / "a.jsonl", rows)
    splits = load_splits(DataConfig(source=source, task="multi_label", label_columns=["rude", "hate"]))
    assert splits.task.label_names == ("hate", "rude")
    marks = {text: tuple(row) for text, row in zip(splits.train.texts, splits.train.y.tolist(), strict=True)}
    assert {text: (row % 3 // 2, row % 2) for text in marks for row in [int(text.split()[1])]} == marks


@pytest.mark.parametrize(
    ("rare", "names", "test_labels"),
    [
        ("drop", ("x", "y"), "xy"),
        ("merge:other", ("other", "x", "y"), "xyz"),
        ("keep", ("u", "v", "w", "x", "y"), "xy"),
    ],
)
def test_rare_labels_are_dropped_merged_or_kept_in_train(
    tmp_path: Path, rare: str, names: tuple[str, ...], test_labels: str
) -> None:
    source = write_csv(tmp_path / "a.csv", [*["x", "y"] * 30, "u", "v", "w"])
    splits = load_splits(DataConfig(source=source, rare_labels=rare))
    assert splits.task.label_names == names
    assert len(set(splits.test.y)) == len(test_labels)
    kept = sum(map(len, splits.by_name.values()))
    assert kept == (60 if rare == "drop" else 63)
    if rare == "keep":
        assert {"u", "v", "w"} <= set(splits.task.decode(splits.train.y))


def test_rare_labels_of_other_files_are_treated_alike(tmp_path: Path) -> None:
    source = write_csv(tmp_path / "a.csv", [*["x", "y"] * 30, "u", "v", "w"])
    test = write_csv(tmp_path / "t.csv", ["x", "u", "y"], start=100)
    dropped = load_splits(DataConfig(source=source, test=test, rare_labels="drop"))
    assert dropped.task.decode(dropped.test.y) == ("x", "y")
    merged = load_splits(DataConfig(source=source, test=test, rare_labels="merge:other"))
    assert merged.task.decode(merged.test.y) == ("x", "other", "y")


def test_all_rare_labels_are_named_with_their_counts(tmp_path: Path) -> None:
    source = write_csv(tmp_path / "a.csv", [*["x", "y"] * 30, "u", "v", "v", "w"])
    with pytest.raises(DataError, match=r"of 'u' \(1\), 'v' \(2\), 'w' \(1\) \(rows in brackets\)"):
        load_splits(DataConfig(source=source, validation_fraction=0.1))


def test_groups_and_times_cut_the_splits(tmp_path: Path) -> None:
    rows = [
        {"text": f"a {row}", "label": row % 2, "author": f"author {row % 20}", "day": f"2026-01-{1 + row // 10:02}"}
        for row in range(200)
    ]
    source = write_jsonl(tmp_path / "a.jsonl", rows)
    grouped = load_splits(DataConfig(source=source, group_column="author", validation_fraction=0.1))
    authors = [set(part.groups or ()) for part in (grouped.train, grouped.validation, grouped.test)]
    assert all(authors)
    assert not authors[0] & authors[1] | authors[0] & authors[2] | authors[1] & authors[2]
    assert any("each author on one side" in note for note in grouped.notes)
    timed = load_splits(DataConfig(source=source, time_column="day"))
    days = [sorted(part.times or ()) for part in (timed.train, timed.validation, timed.test)]
    assert days[0][-1] < days[1][0] <= days[1][-1] < days[2][0]


def test_labels_that_the_model_does_not_know_are_dropped_or_count_as_wrong(tmp_path: Path) -> None:
    path, task = write_csv(tmp_path / "t.csv", ["y", "z", "x"]), build_task("single_label", ("x", "y"))
    dropped = load_evaluation_rows(path, DataConfig(bad_rows="drop"), task)
    assert (dropped.split.ids.tolist(), dropped.task) == ([1, 3], task)
    assert dropped.notes == ("t.csv: left out 1 row with labels that training did not have: ['z'] (row 2).",)
    kept = load_evaluation_rows(path, DataConfig(bad_rows="keep"), task)
    assert kept.task.label_names == ("x", "y", "z")
    values = task.extend_values(np.array([[0.1, 0.9]] * 3), kept.task)
    assert kept.task.row_errors(kept.split.y, values).tolist() == [0, 1, 1]
    with pytest.raises(ConfigError, match="--bad-rows keep is for lorafit predict and evaluate"):
        load_splits(DataConfig(source=path, bad_rows="keep"))


def test_labels_of_a_test_file_are_spelled_as_in_train(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", [{"text": f"a {row}", "label": row % 2} for row in range(40)])
    test = write_csv(tmp_path / "t.csv", ["1.0", "0.0"])
    splits = load_splits(DataConfig(source=source, test=test))
    assert splits.task.decode(splits.test.y) == ("1", "0")


def test_doubtful_labels_are_refused_until_they_are_accepted(tmp_path: Path) -> None:
    source = write_csv(tmp_path / "a.csv", ["0", "1"] * 20)
    config = DataConfig(source=source, task="multi_label")
    with pytest.raises(DoubtfulDataError, match="--accept-labels") as caught:
        load_splits(config)
    assert caught.value.setting == "data.accept_labels"
    assert load_splits(config.model_copy(update={"accept_labels": True})).task.label_names == ("0", "1")


def test_label_is_rare_by_the_groups_and_texts_that_have_it(tmp_path: Path) -> None:
    grouped = [{"text": f"a {row}", "label": "np"[row % 2], "author": row // 10} for row in range(300)]
    splits = load_splits(DataConfig(source=write_jsonl(tmp_path / "a.jsonl", grouped), group_column="author"))
    assert all(set(part.y) == {0, 1} for part in splits.by_name.values())
    twice = [{"text": f"a {row // 2}", "label": "xy"[row % 2]} for row in range(100)]
    assert len(load_splits(DataConfig(source=write_jsonl(tmp_path / "b.jsonl", twice))).train) == 90


@pytest.mark.parametrize(("rare", "names"), [("drop", "ab"), ("merge:other", ("a", "b", "other")), ("keep", "abr")])
def test_rare_labels_of_several_are_treated_alike(tmp_path: Path, rare: str, names: Sequence[str]) -> None:
    labels = [["a"], ["b"], ["a", "b"]] * 20
    labels[24] = ["a", "b", "r"]
    source = write_jsonl(
        tmp_path / "a.jsonl", [{"text": f"a {row}", "label": label} for row, label in enumerate(labels)]
    )
    config = DataConfig(source=source, task="multi_label")
    with pytest.raises(DataError, match=r"of 'r' \(1\) .*--rare-labels drop"):
        load_splits(config)
    for seed in range(5):
        splits = load_splits(config.model_copy(update={"rare_labels": rare, "seed": seed}))
        assert splits.task.label_names == tuple(names)
        if rare == "keep":
            assert splits.train.y[:, 2].sum() == 1


def test_merged_labels_are_merged_in_other_data_too(tmp_path: Path) -> None:
    source = write_csv(tmp_path / "a.csv", [*["x", "y"] * 30, "u", "v"])
    config = DataConfig(source=source, rare_labels="merge:other")
    splits = load_splits(config)
    assert splits.renamed == {"u": "other", "v": "other"}
    config = config.model_copy(update={"rename_labels": splits.renamed})
    assert load_splits(config).train.fingerprint() == splits.train.fingerprint()
    other = write_csv(tmp_path / "t.csv", ["v", "x"], start=100)
    rows = load_evaluation_rows(other, config, splits.task)
    assert rows.task.decode(rows.split.y) == ("other", "x")


def test_every_file_of_a_run_is_its_own_source(tmp_path: Path) -> None:
    first, second = write_csv(tmp_path / "a.csv", ["x", "y"] * 15), write_csv(tmp_path / "b.csv", ["y"] * 10, start=30)
    for config in (DataConfig(source=first, files=[second]), DataConfig(source=str(tmp_path / "*.csv"))):
        splits = load_splits(config)
        rows = load_evaluation_rows(second, config, splits.task).split
        assert rows.fingerprint() == splits.test.fingerprint()


def test_kept_rows_need_the_test_file_by_its_name(tmp_path: Path) -> None:
    config = DataConfig(
        source=write_csv(tmp_path / "a.csv", ["x", "y"] * 20),
        test=write_csv(tmp_path / "my t.csv", ["x", "z"], start=100),
        bad_rows="drop",
    )
    task = load_splits(config).task
    kept = config.model_copy(update={"bad_rows": "keep"})
    with pytest.raises(ConfigError, match=r"lorafit evaluate RUN '.*my t\.csv' --bad-rows keep"):
        load_evaluation_rows(config.source, kept, task)
    assert load_evaluation_rows(str(config.test), kept, task).task.label_names == ("x", "y", "z")


def test_file_of_unknown_labels_alone_is_refused(tmp_path: Path) -> None:
    source, test = write_csv(tmp_path / "a.csv", ["x", "y"] * 20), write_csv(tmp_path / "t.csv", ["v", "w"])
    with pytest.raises(DataError, match=r"2 rows with labels that training did not have: \['v', 'w'\]"):
        load_splits(DataConfig(source=source, test=test, bad_rows="drop"))


def test_times_that_cannot_be_read_are_bad_rows(tmp_path: Path) -> None:
    days = [f"2026-01-{1 + row // 2:02}" for row in range(40)]
    days[4], days[7] = "", "soon"
    rows = [{"text": f"a {row}", "label": row % 2, "day": day} for row, day in enumerate(days)]
    config = DataConfig(source=write_jsonl(tmp_path / "a.jsonl", rows), time_column="day")
    with pytest.raises(DataError, match=r"no time \(row 5\); a time that is neither .* \(row 8\)"):
        load_splits(config)
    splits = load_splits(config.model_copy(update={"bad_rows": "drop"}))
    assert sum(map(len, splits.by_name.values())) == 38
