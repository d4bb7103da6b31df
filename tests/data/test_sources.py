from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from lorafit.config import DataConfig
from lorafit.data import sources
from lorafit.data.rows import RawRows, RawSplits
from lorafit.data.sources import load_evaluation_rows, load_splits
from lorafit.data.splits import count_shared_texts
from lorafit.data.writing import write_table
from lorafit.errors import DataError
from lorafit.tasks.registry import build_task


def write_csv(path: Path, labels: Sequence[str], *, start: int = 0, header: str = "text,label") -> str:
    rows = (f"text {start + number},{label}" for number, label in enumerate(labels))
    path.write_text("\n".join([header, *rows]) + "\n")
    return str(path)


def test_file_is_cut_into_three(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_csv(tmp_path / "a.csv", ["x", "y"] * 50)
    monkeypatch.chdir(tmp_path)
    splits = load_splits(DataConfig(source="a.csv"))
    assert splits.source == str(tmp_path / "a.csv")
    assert splits.task.label_names == ("x", "y")
    parts = (splits.train, splits.validation, splits.test)
    assert [np.bincount(part.y).tolist() for part in parts] == [[41, 41], [4, 4], [5, 5]]
    assert sorted(row for part in parts for row in part.ids) == list(range(1, 101))
    assert splits.notes == (
        "test: 10 rows cut from train (10% of each label, seed 0).",
        "validation: 8 rows cut from train (10% of each label, seed 0).",
        "validation: 8 rows are too few to calibrate with some of them; predictions stay as the model gives them.",
    )


def test_splits_can_be_repeated(tmp_path: Path) -> None:
    source = write_csv(tmp_path / "a.csv", ["x", "y"] * 50)
    first, again, other = (load_splits(DataConfig(source=source, seed=seed)) for seed in (0, 0, 1))
    assert first.train.fingerprint() == again.train.fingerprint()
    assert first.test.fingerprint() != other.test.fingerprint()


def test_columns_are_chosen(tmp_path: Path) -> None:
    source = write_csv(tmp_path / "a.csv", ["x", "y"] * 10, header="review,stars")
    splits = load_splits(DataConfig(source=source, text_column="review", label_column="stars"))
    assert len(splits.train) == 16
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
    evaluated = load_evaluation_rows(str(path), DataConfig(source="imdb", slice_columns=["site"]), splits.task)
    assert evaluated.columns == {"site": ("s",) * 60}


def test_slice_columns_of_named_sources_are_those_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    config = DataConfig(slice_columns=["movie"])
    splits = load_splits(config)
    test = splits.test
    assert len(set(test.columns["movie"])) > 40
    assert not set(test.columns["movie"]) & set(splits.validation.columns["movie"])
    assert load_splits(DataConfig()).test.columns == {}
    task = build_task("single_label", ("fresh", "rotten"))
    again = load_evaluation_rows("builtin:rotten-tomatoes", DataConfig(source="imdb", slice_columns=["movie"]), task)
    assert again.columns == test.columns
    rated = RawRows("imdb train", [f"text {number}" for number in range(40)], ["a", "b"] * 20, columns={"r": [1] * 40})
    monkeypatch.setattr(sources, "load_imdb", lambda: RawSplits(rated))
    splits = load_splits(DataConfig(source="imdb", slice_columns=["r"], calibration_fraction=0))
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
    with pytest.raises(DataError, match="The label 'y' has 2 different texts, but at least 3 are needed"):
        load_splits(DataConfig(source=source))


def test_label_that_training_lacks_is_refused(tmp_path: Path) -> None:
    config = DataConfig(
        source=write_csv(tmp_path / "a.csv", ["x", "y"] * 10), test=write_csv(tmp_path / "t.csv", ["x", "z"])
    )
    with pytest.raises(DataError, match=r"t\.csv has labels that training did not have: \['z'\] \(row 2\)"):
        load_splits(config)


def test_bad_rows_stop_or_are_noted(tmp_path: Path) -> None:
    source = write_csv(tmp_path / "a.csv", [*["x", "y"] * 10, ""])
    with pytest.raises(DataError, match=r"an empty label \(row 21\).*--drop-bad-rows"):
        load_splits(DataConfig(source=source))
    splits = load_splits(DataConfig(source=source, drop_bad_rows=True))
    assert splits.notes[0] == "a.csv: left out 1 of 21 rows: an empty label (row 21)."


def test_max_rows_samples_train_after_the_cut(tmp_path: Path) -> None:
    source = write_csv(tmp_path / "a.csv", ["x", "y"] * 50)
    whole = load_splits(DataConfig(source=source))
    sampled = load_splits(DataConfig(source=source, max_rows=20))
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
        "calibration: 644 of the validation rows fit the temperature and choose nothing "
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
    splits = load_splits(DataConfig(source="imdb"))
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (36, 4, 6)
    assert splits.notes[:2] == ("a note", "test: 6 of its texts are in train, too, character for character.")
    assert count_shared_texts(splits.train, splits.validation) == 0


def test_hub_source_gets_the_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {}

    def load(source: str, **columns: object) -> RawSplits:
        asked[source] = columns
        return make_published(40, ["a"])

    monkeypatch.setattr(sources, "load_hub", load)
    splits = load_splits(DataConfig(source="hub:owner/name", text_column="review", slice_columns=["shop", "shop"]))
    assert asked == {"hub:owner/name": {"text_column": "review", "label_column": "label", "slice_columns": ["shop"]}}
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
    rows = load_evaluation_rows(path, DataConfig(), build_task("single_label", ("x", "y", "z")))
    assert rows.y.tolist() == [1, 0, 1]
    assert rows.ids.tolist() == [1, 2, 3]
    with pytest.raises(DataError, match=r"labels that training did not have: \['y'\] \(rows 1, 3\)"):
        load_evaluation_rows(path, DataConfig(), build_task("single_label", ("a", "x")))


def test_named_source_is_evaluated_on_its_split() -> None:
    rows = load_evaluation_rows(
        "builtin:rotten-tomatoes", DataConfig(source="imdb"), build_task("single_label", ("fresh", "rotten"))
    )
    assert np.bincount(rows.y).tolist() == [716, 529]
    validation = load_evaluation_rows(
        "builtin:rotten-tomatoes", DataConfig(), build_task("single_label", ("rotten", "fresh")), split="validation"
    )
    assert np.bincount(validation.y).tolist() == [229, 415]
    with pytest.raises(DataError, match=r"builtin:rotten-tomatoes test has labels that training did not have"):
        load_evaluation_rows(
            "builtin:rotten-tomatoes", DataConfig(), build_task("single_label", ("negative", "positive"))
        )


def test_settings_of_the_run_serve_only_its_own_source(tmp_path: Path) -> None:
    task = build_task("single_label", ("rotten", "fresh"))
    mine = write_csv(tmp_path / "t.csv", ["fresh", "rotten"])
    assert len(load_evaluation_rows("builtin:rotten-tomatoes", DataConfig(test=mine), task)) == 2
    other = DataConfig(source="imdb", test=mine, max_rows=10)
    assert len(load_evaluation_rows("builtin:rotten-tomatoes", other, task)) == 1_245
    assert len(load_evaluation_rows("builtin:rotten-tomatoes", other, task, split="train")) == 10_219


def test_file_that_trained_the_run_is_evaluated_on_its_test_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_csv(tmp_path / "a.csv", ["x", "y"] * 50)
    config = DataConfig(source=path, max_rows=20)
    monkeypatch.chdir(tmp_path)
    for source in (path, "a.csv", f"../{tmp_path.name}/a.csv"):
        rows = load_evaluation_rows(source, config, build_task("single_label", ("x", "y")))
        assert rows.fingerprint() == load_splits(config).test.fingerprint()
