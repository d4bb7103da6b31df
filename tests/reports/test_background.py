from collections.abc import Callable
from pathlib import Path

import pytest

from lorafit.cli import COMMANDS
from lorafit.reports.background import (
    hide_folder,
    list_commands,
    list_cost,
    list_counts,
    list_digests,
    list_method,
    list_seeds,
    list_settings,
    list_splits,
    list_times,
    list_versions,
    name_run,
)
from lorafit.reports.contents import RunContents, read_run
from lorafit.runs.records import ForecastRecord, RunRecord, TrainingRecord

WriteRun = Callable[..., Path]
TRAINING = TrainingRecord(
    steps=1234,
    epochs=1.5,
    best_step=1000,
    best_validation_loss=0.25,
    stopped_early=True,
    seconds=1,
    tokens=1,
    tokens_per_second=5678.9,
    padding_share=0.12,
    adapted_modules=24,
)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("/home/someone/reviews.csv", "reviews.csv"),
        (r"C:\Users\someone\reviews.csv", "reviews.csv"),
        ("hub:owner/name", "hub:owner/name"),
        ("distilbert-base-uncased", "distilbert-base-uncased"),
        ("owner/model", "owner/model"),
        ("builtin:rotten-tomatoes", "builtin:rotten-tomatoes"),
    ],
)
def test_folders_are_not_shown(name: str, shown: str) -> None:
    assert hide_folder(name) == shown


def test_a_run_is_named_by_data_method_and_base(contents: RunContents) -> None:
    assert name_run(contents.record) == "run.jsonl: LoRA on m"


def test_splits_are_listed_with_their_sizes(contents: RunContents) -> None:
    table = list_splits(contents.record)
    assert [row[0] for row in table.rows] == ["train", "validation", "test"]
    assert table.rows[-1] == ["test", "120", "10", "1 (0.8%)", "0.0%"]


def test_rows_are_counted_by_label_where_there_are_labels(contents: RunContents) -> None:
    table = list_counts(contents.record)
    if contents.task.name == "regression":
        assert table is None
        return
    assert table is not None
    assert tuple(row[0] for row in table.rows) == contents.task.label_names
    counts = contents.task.count(contents.y)
    assert [row[-1] for row in table.rows] == [str(rows) for rows in counts.values()]


def test_every_setting_is_listed_without_folders(write_run: WriteRun, tmp_path: Path) -> None:
    config = read_run(write_run(flags={"method.options": {"alpha": 1}})).config
    values = dict(list_settings(config).rows)  # type: ignore[arg-type]
    expected = {"data.source": "run.jsonl", "data.test": "run-test.jsonl", "data.max_rows": "none"}
    expected |= {"method.options.alpha": "1", "data.slice_columns": "none", "training.epochs": "2"}
    assert values.items() >= {**expected, "evaluation.report": "true"}.items()
    assert str(tmp_path) not in " ".join(values.values())


def test_method_and_training_are_told(run_record: RunRecord) -> None:
    told = dict(list_method(run_record.model_copy(update={"training": TRAINING})))
    assert told["method"].startswith("LoRA (Hu et al. 2021")
    assert told["trained"] == "1.5 epochs, 1,234 steps, stopped early"
    assert told["checkpoint"] == "step 1,000, validation loss 0.2500"
    assert "trained" not in dict(list_method(run_record))
    assert dict(list_method(run_record.model_copy(update={"method": "other"})))["method"] == "other"


def test_cost_stands_beside_the_forecast(run_record: RunRecord) -> None:
    forecast = ForecastRecord(
        seconds={"training": 100.0, "report": 3.0}, peak_memory_bytes=10**9, given_up=["1 epoch instead of 3"]
    )
    changes = {"seconds": {"training": 120.0, "calibration": 1.0}, "forecast": forecast, "peak_memory_bytes": 2 * 10**9}
    record = run_record.model_copy(update={**changes, "training": TRAINING, "texts_per_second": 1000.0})
    table = list_times(record)
    assert table.titles == ("stage", "time", "forecast")
    assert table.rows == [
        ["training", "2.0 min", "1.7 min"],
        ["calibration", "1 s", ""],
        ["report", "", "3 s"],
        ["all stages", "2.0 min", "1.7 min"],
    ]
    told = dict(list_cost(record))
    assert told["peak memory"] == "2.0 GB (forecast: at least 1.0 GB)"
    assert told["training speed"].startswith("5,679 tokens/s")
    assert told["prediction speed"] == "1,000 texts/s"
    assert told["given up to fit the budget"] == "1 epoch instead of 3"
    alone = list_times(record.model_copy(update={"forecast": None}))
    assert (alone.titles, alone.rows[-1]) == (("stage", "time"), ["all stages", "2.0 min"])


@pytest.mark.parametrize(("joules", "said"), [(None, "not measured"), (7200.0, "2.00 Wh, of the whole processor")])
def test_energy_is_told_where_it_was_measured(run_record: RunRecord, joules: float | None, said: str) -> None:
    assert dict(list_cost(run_record.model_copy(update={"energy_joules": joules})))["energy"].startswith(said)


def test_commands_to_reproduce_exist() -> None:
    lines = [line.split() for line in list_commands("my run") if line.startswith("lorafit ")]
    assert [words[1] for words in lines] == ["reproduce", "train", "evaluate", "report"]
    assert {words[1] for words in lines} <= set(COMMANDS)
    assert list_commands("my run")[1] == "lorafit reproduce 'my run'"


def test_seeds_versions_and_digests_are_listed(contents: RunContents) -> None:
    record = contents.record.model_copy(update={"versions": {"torch": "2.13.0", "numpy": "2.5"}})
    assert [name for name, _ in list_seeds(contents.config)] == ["data.seed", "training.seed", "evaluation.seed"]
    assert list_versions(record).rows == [["numpy", "2.5"], ["torch", "2.13.0"]]
    digests = dict(list_digests(record).rows)  # type: ignore[arg-type]
    assert digests["test rows"] == record.data.splits["test"].fingerprint
    assert digests.keys() >= {"base model", "train rows", "calibration.json"}
