import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lorafit.config import Config, DataConfig, load_config
from lorafit.data.corrections import DROP, digest_text
from lorafit.data.loading import load_source_rows, load_splits
from lorafit.data.rows import Split
from lorafit.data.tables import read_table
from lorafit.data.writing import write_table
from lorafit.errors import ConfigError, DataError, RunError, UserInputError
from lorafit.runs.records import RunRecord
from lorafit.tasks.registry import TASKS, build_task
from lorafit.training import label_errors
from lorafit.training.label_errors import (
    LabelErrors,
    check_review_file,
    find_label_errors,
    find_label_errors_by_run,
    review_labels,
)

WORDS = ("awful", "poor", "boring", "of", "to", "fine", "good", "great")

WRONG = (10, 51, 92, 133, 174)
"""Places of the rows whose label is another than their words say."""


def write_rows(path: Path, task: str, *, wrong: tuple[int, ...] = WRONG, rows: int = 240, seed: int = 0) -> Config:
    """Write texts whose words tell their label, but for some rows."""
    rng = np.random.default_rng(seed)
    columns: dict[str, list[object]] = {"text": [], "label": []}
    for row in range(rows):
        stars, long = int(rng.integers(1, 5)), int(rng.integers(2))
        words = (WORDS[2 * stars - 2 + int(rng.integers(2))], ("minute", "hours")[long])
        columns["text"].append(f"{words[0]} {words[0]} film {words[1]} {words[1]} {row}")
        if row in wrong:
            stars, long = 5 - stars, 1 - long
        names = [name for name, has in (("good", stars > 2), ("long", long)) if has]
        labels = {
            "single_label": ("neg", "pos")[stars > 2],
            "multi_label": names,
            "regression": 50 + 10 * stars,
            "ordinal": stars,
        }
        columns["label"].append(labels[task])
    write_table(path, columns)
    return Config(data=DataConfig(source=str(path), task=task))  # type: ignore[arg-type]  # any name of a task


@pytest.mark.parametrize("task", TASKS)
def test_wrong_labels_are_found_by_cross_validation(tmp_path: Path, task: str) -> None:
    config = write_rows(tmp_path / "rows.jsonl", task)
    models = [name for name in build_models(task) if name != "encoder"]
    found = find_label_errors(config, folds=4, models=models[:1])
    rows = {int(str(row)) - 1 for row in found.columns["row"]}
    assert len(rows & set(WRONG)) >= 4
    assert len(rows) <= 10
    assert found.judged == {"train": 240}
    assert set(found.columns["corrected_label"]) == {""}
    assert all(
        given != other for given, other in zip(found.columns["label"], found.columns["suggested_label"], strict=True)
    )
    assert list(found.columns["label_score"]) == sorted(found.columns["label_score"])


def build_models(task: str) -> tuple[str, ...]:
    return ("ridge",) if task == "regression" else ("tfidf", "nb_svm")


@pytest.mark.parametrize("task", TASKS)
def test_where_every_label_is_right_the_file_may_be_empty(tmp_path: Path, task: str) -> None:
    y = {"multi_label": np.array([[0, 1], [1, 0]] * 4), "regression": np.arange(8.0)}.get(task, np.array([0, 1] * 4))
    names = {"regression": ("value",), "ordinal": ("1", "2")}.get(task, ("a", "b"))
    values = y[:, None] if task == "regression" else y if task == "multi_label" else np.eye(2)[y]
    rows = label_errors._Rows.join({"train": Split(np.arange(1, 9), tuple("abcdefgh"), y)})
    found = label_errors._judge(rows, build_task(task, names), values.astype(float), ())
    assert len(found) == 0
    found.write(tmp_path / "review.csv")
    assert len((tmp_path / "review.csv").read_text().splitlines()) == 1


def test_rows_of_all_splits_are_judged_and_named(tmp_path: Path) -> None:
    config = write_rows(tmp_path / "train.jsonl", "single_label")
    write_rows(tmp_path / "test.jsonl", "single_label", rows=60, wrong=(3, 33), seed=1)
    config.data.test = str(tmp_path / "test.jsonl")
    found = find_label_errors(config, folds=3, models=["tfidf"])
    assert found.judged == {"train": 240, "test": 60}
    assert {3 + 1, 33 + 1} <= {
        row for row, split in zip(found.columns["row"], found.columns["split"], strict=True) if split == "test"
    }


def test_labels_that_one_fold_has_alone_are_not_judged(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [
        {"text": f"{('awful', 'lovely')[row % 2]} film {row}", "label": ("neg", "pos")[row % 2]} for row in range(40)
    ]
    rows += [{"text": "once only", "label": "odd"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = Config(data=DataConfig(source=str(path), accept_labels=True))
    found = find_label_errors(config, folds=4, models=["tfidf"])
    assert found.judged == {"train": 40}
    assert found.notes[-1] == "Rows not judged: 1, as one fold has all rows with their label."


def test_a_reviewed_file_corrects_the_data_that_it_was_made_of(tmp_path: Path) -> None:
    config = write_rows(tmp_path / "rows.csv", "single_label")
    review = tmp_path / "review.csv"
    found = find_label_errors(config, folds=4, models=["tfidf"])
    found.write(review)
    columns = dict(read_table(review).columns)
    assert list(columns)[-1] == "text"
    columns["corrected_label"] = [*columns["suggested_label"][:-1], DROP]
    review.unlink()
    write_table(review, columns, csv_safe=True)
    config.data.corrections = str(review)
    splits = load_splits(config.data)
    assert sum(map(len, splits.by_name.values())) == 239
    assert any(f"{len(found) - 1} labels corrected, 1 row dropped (review.csv)" in note for note in splits.notes)
    again = find_label_errors(config, folds=4, models=["tfidf"])
    assert len(again) < len(found)
    assert any("1 row dropped (review.csv)" in note for note in again.notes)


def test_review_file_can_do_without_texts_and_is_never_replaced(tmp_path: Path) -> None:
    found = LabelErrors(
        build_task("single_label", ("a", "b")),
        {"train": 2},
        {"row": [1], "split": ["train"], "label": ["a"], "text_digest": [digest_text("secret")]},
        ["secret"],
    )
    path = tmp_path / "review.csv"
    found.write(path, texts=False)
    assert "secret" not in path.read_text()
    with pytest.raises(UserInputError, match=r"is there already, perhaps with a reviewer's work.*--review FILE"):
        found.write(path)
    with pytest.raises(UserInputError, match=r"review.xls: a review file ends in \.csv, .* or \.parquet"):
        check_review_file(tmp_path / "review.xls")


def test_what_cannot_be_done_is_refused_before_any_work(tmp_path: Path) -> None:
    config = write_rows(tmp_path / "rows.jsonl", "single_label", rows=20)
    with pytest.raises(UserInputError, match="--folds takes a number of 2 or more, got 1"):
        find_label_errors(config, folds=1)
    with pytest.raises(UserInputError, match=r"--judges majority: .* by any of nb_svm, tfidf, embedding, encoder"):
        find_label_errors(config, models=["majority"])


@pytest.mark.slow
def test_a_run_judges_the_rows_that_it_was_not_trained_on(trained_of: Callable[[str], Path], tmp_path: Path) -> None:
    run = trained_of("single_label")
    source = run.parent / "rows.jsonl"
    splits = load_splits(DataConfig(source=str(source), test_fraction=0.2, validation_fraction=0.4))
    config = Config(data=DataConfig(source=str(source)))
    found = find_label_errors_by_run(config, run)
    assert sum(found.judged.values()) == 240 - len(splits.train)
    assert f"Rows not judged: {len(splits.train)}, on which {run} was trained. " in found.notes[-1]
    rows = [json.loads(line) for line in source.read_text().splitlines()]
    other = tmp_path / "other.jsonl"
    for place, row in enumerate(rows):
        row["text"] += "0"  # another number at the end, which says nothing
        row["label"] = {"neg": "pos", "pos": "neg"}[row["label"]] if place in {5, 17} else row["label"]
    other.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = find_label_errors_by_run(Config(data=DataConfig(source=str(other))), run)
    assert {6, 18} <= set(found.columns["row"])
    assert len(found) < 30


@pytest.mark.slow
def test_a_run_does_not_judge_what_its_base_was_trained_on(
    trained_of: Callable[[str], Path], train_run: Callable[..., Path], tmp_path: Path
) -> None:
    base = trained_of("single_label")
    run = train_run("single_label", "training.max_steps=2", "data.seed=5", encoder=base, folder=tmp_path)
    rows = [load_splits(load_config(one / "config.yaml").data).train.texts for one in (base, run)]
    trained = {text for texts in rows for text in texts}
    assert len(trained) > len(rows[1])
    found = find_label_errors_by_run(Config(data=DataConfig(source=str(base.parent / "rows.jsonl"))), run)
    assert sum(found.judged.values()) == 240 - len(trained)
    told = f"Rows not judged: {len(trained)}, on which {run} or {base}, which it goes on from, was trained. "
    assert told in found.notes[-1]
    moved = Path(shutil.copytree(run, tmp_path / "moved"))
    record = RunRecord.read(moved / "run.json")
    gone_base = record.base_model.model_copy(update={"name": str(tmp_path / "gone")})
    record.model_copy(update={"base_model": gone_base}).write(moved / "run.json")
    (_, *notes) = find_label_errors_by_run(Config(data=DataConfig(source=str(base.parent / "rows.jsonl"))), moved).notes
    gone = f"Whether {tmp_path / 'gone'} was trained on any of the rows cannot be checked: it is no longer there."
    assert gone in notes


def test_a_run_does_not_judge_what_it_was_trained_on(trained_of: Callable[[str], Path], tmp_path: Path) -> None:
    run = trained_of("single_label")
    train = load_splits(
        DataConfig(source=str(run.parent / "rows.jsonl"), test_fraction=0.2, validation_fraction=0.4)
    ).train
    path = tmp_path / "own rows.jsonl"
    write_table(path, {"text": train.texts, "label": [("neg", "pos")[one] for one in train.y]})
    with pytest.raises(DataError) as caught:
        find_label_errors_by_run(Config(data=DataConfig(source=str(path))), run)
    assert str(caught.value).endswith(f"lorafit check {shlex.quote(str(path))} --folds 5")
    renamed = tmp_path / "renamed.csv"
    write_table(renamed, {"body": train.texts, "label": [("neg", "pos")[one] for one in train.y]})
    with pytest.raises(DataError) as caught:
        find_label_errors_by_run(Config(data=DataConfig(source=str(renamed), text_column="body")), run)
    assert str(caught.value).endswith(f"lorafit check {renamed} --text-column body --folds 5")
    with pytest.raises(RunError, match="trained with --task single_label, and the rows are read with --task ordinal"):
        find_label_errors_by_run(Config(data=DataConfig(source=str(path), task="ordinal")), run)


def test_a_check_is_told_what_to_do_with_the_review_file(tmp_path: Path) -> None:
    config = write_rows(tmp_path / "rows.jsonl", "single_label")
    review = tmp_path / "to review.csv"
    found = review_labels(config, review, folds=4, models=["tfidf"], texts=False)
    errors, told = found
    assert (errors.name, errors.severity, errors.split) == ("label-errors", "note", "train")
    assert errors.count == len(errors.rows) == len(review.read_text().splitlines()) - 1
    assert errors.remedy == f"lorafit train DATA --corrections {shlex.quote(str(review))}"
    assert "film" not in review.read_text()
    assert told.message.startswith("What judges the labels agrees with them to this degree: accuracy 9")
    with pytest.raises(UserInputError, match="is there already"):
        review_labels(config, review, folds=4)
    with pytest.raises(ConfigError, match="--folds N or by --labels RUN: give one of them"):
        review_labels(config, tmp_path / "other.csv", folds=4, run=tmp_path)


@pytest.mark.slow
def test_an_encoder_that_has_seen_the_rows_is_named(trained_of: Callable[[str], Path]) -> None:
    run = trained_of("single_label")
    config = load_config(
        overrides=[
            f"data.source={run.parent / 'rows.jsonl'}",
            f"model.name={run}",
            "model.max_length=32",
            "training.max_steps=2",
            "training.threads=1",
        ]
    )
    seen = len(load_splits(load_config(run / "config.yaml").data).train)
    notes = find_label_errors(config, folds=2, models=["encoder"]).notes
    assert any(note.startswith(f"{run}, the encoder, was trained on {seen} of the 240 rows: ") for note in notes)


@pytest.mark.slow
def test_encoder_and_baselines_find_flipped_labels_of_reviews(builtin_encoder: Path, tmp_path: Path) -> None:
    _, parts, _ = load_source_rows(DataConfig())
    rng = np.random.default_rng(0)
    rows = parts["train"].select(np.sort(rng.choice(len(parts["train"]), 1200, replace=False)))
    flipped = set(rng.choice(1200, 60, replace=False).tolist())
    names = ("rotten", "fresh")
    labels = [names[int(label) ^ (place in flipped)] for place, label in enumerate(rows.y)]
    write_table(tmp_path / "reviews.csv", {"text": rows.texts, "label": labels})
    config = Config(data=DataConfig(source=str(tmp_path / "reviews.csv")))
    config.model.name = "builtin:distil-minilm"
    config.model.max_length = 64
    found = find_label_errors(config, folds=4)
    right = sum(int(row) - 1 in flipped for row in found.columns["row"])
    assert right / len(flipped) > 0.5
    assert right / len(found) > 0.15  # three times as many as among all rows
