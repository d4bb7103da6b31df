from collections.abc import Callable
from pathlib import Path

import pytest

from lorafit.cli import COMMANDS
from lorafit.reports.background import (
    hide_folder,
    render_cost,
    render_data,
    render_method,
    render_reproduction,
)
from lorafit.reports.reading import read_run
from lorafit.runs.records import ForecastRecord, RunRecord, TrainingRecord

BuildRun = Callable[..., Path]


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


def test_data_are_told_with_what_the_checks_found(build_run: BuildRun) -> None:
    record = read_run(build_run(rows=60)).record
    page = "".join(render_data(record))
    assert "Source: <b>reviews.csv</b>" in page
    assert "<td>60</td><td>10</td><td>1 (1.7%)</td>" in page
    assert "<li>validation: 2 rows cut from train" in page
    assert "<td>7</td><td>1</td><td>30</td>" in page
    bare = record.model_copy(update={"data": record.data.model_copy(update={"notes": []})})
    assert "checks found" not in "".join(render_data(bare))


def test_labels_of_many_classes_are_shown_when_asked_for(build_run: BuildRun) -> None:
    record = read_run(build_run(names=[str(number) for number in range(13)])).record
    assert "Rows of each label (13 labels)</summary>" in "".join(render_data(record))


def test_every_setting_is_listed_without_folders(build_run: BuildRun, tmp_path: Path) -> None:
    contents = read_run(build_run(settings={"data.slice_columns": [], "method.options": {"alpha": 1}}))
    page = "".join(render_method(contents.record, contents.config))
    values = {"data.source": "reviews.csv", "data.test": "test.csv", "data.max_rows": "none", "method.options.alpha": 1}
    values |= {"evaluation.report": "true", "data.slice_columns": "none", "training.epochs": 2}
    for name, value in values.items():
        assert f'<th scope="row">{name}</th><td>{value}</td>' in page
    assert "LoRA (Hu et al. 2021" in page
    assert str(tmp_path) not in page


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


def test_training_is_told(build_run: BuildRun) -> None:
    contents = read_run(build_run())
    record = contents.record.model_copy(update={"training": TRAINING})
    page = "".join(render_method(record, contents.config))
    assert "1.50 epochs, 1,234 steps, stopped early" in page
    assert "step 1,000, validation loss 0.2500" in page


def test_cost_stands_beside_the_forecast(run_record: RunRecord) -> None:
    forecast = ForecastRecord(
        seconds={"training": 100.0, "report": 3.0}, peak_memory_bytes=10**9, given_up=["1 epoch instead of 3"]
    )
    changes = {"seconds": {"training": 120.0, "calibration": 1.0}, "forecast": forecast, "peak_memory_bytes": 2 * 10**9}
    page = "".join(
        render_cost(run_record.model_copy(update={**changes, "training": TRAINING, "texts_per_second": 1000.0}))
    )
    assert '<th scope="row">training</th><td>2.0 min</td><td>1.7 min</td>' in page
    assert '<th scope="row">calibration</th><td>1 s</td><td></td>' in page
    assert '<th scope="row">report</th><td></td><td>3 s</td>' in page
    assert '<th scope="row">all stages</th><td>2.0 min</td><td>1.7 min</td>' in page
    for said in ("2.0 GB (forecast: at least 1.0 GB)", "5,679 tokens/s", "1,000 texts/s", "1 epoch instead of 3"):
        assert said in page


@pytest.mark.parametrize(("joules", "said"), [(None, "not measured"), (7200.0, "2.00 Wh, of the whole processor")])
def test_energy_is_told_where_it_was_measured(run_record: RunRecord, joules: float | None, said: str) -> None:
    assert said in "".join(render_cost(run_record.model_copy(update={"energy_joules": joules})))


def test_commands_to_reproduce_exist(build_run: BuildRun) -> None:
    contents = read_run(build_run())
    files = {"adapter_model.safetensors": "abc123"}
    record = contents.record.model_copy(update={"versions": {"torch": "2.13.0"}, "files": files})
    page = "".join(render_reproduction(record, contents.config, "run"))
    lines = [line.partition("lorafit ")[2].split() for line in page.split("\n") if "lorafit " in line]
    assert [words[0] for words in lines if words] == ["reproduce", "train", "evaluate", "report"]
    assert {words[0] for words in lines if words} <= set(COMMANDS)
    for said in ("2.13.0", "abc123", record.data.splits["test"].fingerprint, "evaluation.seed"):
        assert said in page
