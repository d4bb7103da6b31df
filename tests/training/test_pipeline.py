import csv
import dataclasses
import html
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas
import pytest

import lorafit
from lorafit.config import Config, load_config
from lorafit.data.tables import read_table
from lorafit.errors import ConfigError, DataError, RunError, TrainingDivergedError, UserInputError
from lorafit.errors import TrainingInterruptedError as Interrupted
from lorafit.reports.verdict import describe_verdict
from lorafit.runs.folder import ADAPTER_FILES, RunLayout
from lorafit.runs.moved import list_moved
from lorafit.runs.records import RunRecord
from lorafit.system.atomic import compute_digest
from lorafit.system.energy import EnergyMeter
from lorafit.system.progress import Silent
from lorafit.training.pipeline import Run, resume
from lorafit.training.planning import costs
from lorafit.training.planning.costs import CostModel, Costs
from lorafit.training.prepare import describe, prepare
from lorafit.training.stages import RunStages

GOOD, BAD = ("fine", "great", "lovely", "superb"), ("awful", "boring", "dull", "poor")
THINGS = ("film", "story", "movie", "end", "life")


class Trigger(Silent):
    """A progress that does something when a stage begins, or in it when so many units are done."""

    def __init__(self, stage: str, at: int, action: Callable[[], object]) -> None:
        self._wanted, self._at, self._action = stage, at, action
        self._stage = ""

    def start(self, stage: str, **_: object) -> None:
        self._stage = stage
        self.update(0)

    def update(self, done: int, **_: object) -> None:
        if self._stage.startswith(self._wanted) and done == self._at:
            self._action()


class Steps(Silent):
    """A progress that remembers the training steps."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    def update(self, done: int, **figures: float) -> None:
        if "loss" in figures:
            self.steps.append(done)


class Lines(Silent):
    """A progress that remembers what was said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def press_ctrl_c() -> None:
    signal.raise_signal(signal.SIGINT)


def write_reviews(path: Path, count: int = 160, *, labels: tuple[str, str] = ("neg", "pos")) -> Path:
    """Rows that can be learned, each text once."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for row in range(count):
            words, turn = (BAD, GOOD)[row % 2], row // 2
            text = f"{words[turn % 4]} {words[turn // 4 % 4]} {THINGS[turn % 5]} of those {words[turn // 16 % 4]} {row}"
            writer.writerow([text, labels[row % 2]])
    return path


@pytest.fixture(scope="module")
def encoder(build_encoder: Callable[..., Path]) -> Path:
    return build_encoder("distilbert", initializer_range=0.1)  # wide weights: a word changes the output


@pytest.fixture(scope="module")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_reviews(tmp_path_factory.mktemp("data") / "reviews.csv")


@pytest.fixture(scope="module")
def config(encoder: Path, reviews: Path) -> Config:
    """Settings of a run of some seconds; a copy for every test to change."""
    return make_config(encoder, reviews, evaluation__report=True)


def make_config(encoder: Path, source: Path, **changes: Any) -> Config:
    flags = {
        "data.source": str(source),
        "data.test_fraction": 0.25,
        "data.validation_fraction": 0.1,
        "model.name": str(encoder),
        "model.max_length": 32,
        "training.batch_size": 16,
        "training.epochs": 3,
        "training.learning_rate": 0.01,
        "training.threads": 1,
        "evaluation.bootstrap_samples": 200,
        "evaluation.report": False,
        **{name.replace("__", "."): value for name, value in changes.items()},
    }
    return load_config(flags=flags)


@pytest.fixture(scope="module")
def finished(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return lorafit.train(config, output=tmp_path_factory.mktemp("finished") / "run")


def test_a_run_is_a_line_in_a_console_and_tables_in_a_notebook(finished: Run) -> None:
    moved = dataclasses.replace(finished, path=finished.path / "gone")
    line, page = repr(finished), finished._repr_html_()
    assert line.startswith(f"<Run {finished.path}: accuracy ")
    assert line.endswith(f" on {finished.metrics.rows} test rows>")
    task = finished.record.build_task()
    accuracy = task.primary_metric.write(finished.metrics.after.metrics["accuracy"])
    assert html.escape(describe_verdict(task, finished.metrics)) in page
    assert f"<td>{accuracy}</td>" in page
    assert str(finished.path) in page
    assert not any(sample.text in page for sample in finished.samples)
    assert moved._repr_html_().split("<code>")[0] == page.split("<code>")[0]


def test_a_run_stands_for_its_folder(finished: Run) -> None:
    assert Path(finished) == finished.path
    assert lorafit.load(finished).labels == finished.load().labels
    assert lorafit.diff(finished, finished.path).rows == finished.metrics.rows
    with lorafit.opening(base=finished):
        assert list_moved() == (str(finished.path),)
    with pytest.raises(RunError, match="is complete; there is nothing to resume"):
        lorafit.resume(finished)


@pytest.mark.parametrize("given", [pandas.DataFrame({"text": ["a"], "label": [0]}), "reviews.csv", {"model": {}}])
def test_what_is_no_config_is_refused_with_what_to_write(given: object) -> None:
    for call in (lorafit.train, lorafit.check):
        with pytest.raises(UserInputError, match="Give data by name"):
            call(given)  # type: ignore[arg-type]


def read_status(path: Path) -> str:
    return RunRecord.read(RunLayout(path).record).status


def assert_same_result(first: Run, second: Run) -> None:
    """Both came to the same weights and the same evidence, to the last digit."""
    assert first.record.files["adapter_model.safetensors"] == second.record.files["adapter_model.safetensors"]
    assert first.metrics.model_dump_json() == second.metrics.model_dump_json()  # NaN is equal to itself there
    assert (first.record.training is None) == (second.record.training is None)
    for name in ("steps", "best_step", "best_validation_loss", "tokens", "padding_share"):
        assert getattr(first.record.training, name) == getattr(second.record.training, name), name


def test_run_folder_is_complete(finished: Run) -> None:
    layout = RunLayout(finished.path)
    paths = [
        layout.config,
        layout.record,
        layout.metrics,
        layout.mistakes,
        layout.history,
        layout.report,
        layout.card,
        layout.checkpoints,
    ]
    paths += [layout.predictions("test", "before"), layout.predictions("test", "after")]
    paths += [layout.adapter / name for name in ADAPTER_FILES]
    assert [path for path in paths if not path.exists()] == []
    known = {path.relative_to(layout.root).parts[0] for path in paths}
    assert {path.name for path in layout.root.iterdir()} == known, "nothing else, and nothing temporary, is left"
    assert finished.record == RunRecord.read(layout.record)


def test_record_tells_what_was_done_with_what(finished: Run, encoder: Path, reviews: Path) -> None:
    record = finished.record
    assert record.status == "complete"
    assert record.labels == ["neg", "pos"]
    assert record.versions["lorafit"] == lorafit.__version__
    assert record.base_model.name == str(encoder)
    assert record.base_model.digest == compute_digest(encoder / "model.safetensors")
    assert record.data.source == str(reviews)
    assert {name: split.rows for name, split in record.data.splits.items()} == {
        "train": 108, "validation": 12, "test": 40
    }  # fmt: skip
    before, after = ["save check", "before training"], ["saving", "baselines", "evaluation", "report", "graph"]
    assert list(record.seconds) == [*before, "training", *after]
    assert record.training is not None
    assert record.training.adapted_modules == 12
    assert record.peak_memory_bytes > 0
    digests = {name: compute_digest(RunLayout(finished.path).adapter / name) for name in ADAPTER_FILES}
    assert record.files == digests


def test_energy_used_before_an_interruption_is_kept(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zone = tmp_path / "sys" / "class" / "powercap" / "intel-rapl:0"
    zone.mkdir(parents=True)
    for name, value in (("name", "package-0"), ("energy_uj", 0), ("max_energy_range_uj", 10**12)):
        (zone / name).write_text(str(value))
    monkeypatch.setattr("lorafit.runs.journal.EnergyMeter", lambda: EnergyMeter(tmp_path))
    prepared, layout = prepare(config, Silent()), RunLayout(tmp_path / "run")
    spent = {"energy_joules": 5.0, "seconds": {"training": 1.0}}
    describe(prepared).model_copy(update=spent).write(layout.record)
    assert RunStages.resume(prepared, layout, Silent()).journal.record.energy_joules == 5.0


def test_forecast_is_recorded_beside_what_happened(finished: Run) -> None:
    forecast = finished.record.forecast
    assert forecast is not None
    assert forecast.seconds.keys() == finished.record.seconds.keys()
    assert all(seconds > 0 for seconds in forecast.seconds.values())
    assert 0 < forecast.peak_memory_bytes <= finished.record.peak_memory_bytes
    assert (forecast.budget_seconds, forecast.given_up) == (None, [])


@pytest.mark.slow
def test_numbers_are_the_same_without_the_planner(
    finished: Run, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def guess(*_: object) -> Costs:
        return Costs(CostModel(1, 1, 1), CostModel(1, 1, 1), layers=2, frozen=0)

    monkeypatch.setattr(costs, "measure_costs", guess)
    again = lorafit.train(config, output=tmp_path / "run")
    assert again.record.forecast != finished.record.forecast
    assert_same_result(finished, again)


@pytest.mark.slow
def test_budget_chooses_settings_and_says_what_is_given_up(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    per_token = CostModel(0, 1e-2, 0)
    monkeypatch.setattr(costs, "measure_costs", lambda *_: Costs(per_token, per_token, layers=0, frozen=0))
    budgeted = config.model_copy(deep=True)
    budgeted.training.budget = "48s"
    budgeted.evaluation.report_texts = False  # nothing is explained
    budgeted.evaluation.baselines = False  # nothing is embedded
    progress = Lines()
    run = lorafit.train(budgeted, output=tmp_path / "run", progress=progress)
    assert run.record.forecast is not None
    assert run.record.forecast.budget_seconds == 48
    assert run.record.forecast.given_up == ["1 epoch instead of 3"]
    assert "to fit 48s: 1 epoch instead of 3" in progress.lines
    used = load_config(RunLayout(run.path).config)
    assert (used.training.epochs, used.training.budget) == (1, None)
    assert run.record.training is not None
    assert run.record.training.epochs == 1


@pytest.mark.slow
def test_budget_for_other_tokens_gives_the_run_that_these_settings_give(
    build_encoder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = build_encoder("distilbert", max_position_embeddings=512)
    source = tmp_path / "long.csv"
    rows = [f"{(GOOD, BAD)[row % 2][row % 4]} {'story ' * 300}{row},{row % 2}" for row in range(48)]
    source.write_text("\n".join(["text,label", *rows]))
    changes = {"training__epochs": 1, "model__max_length": 300}
    changes |= {"evaluation__before": False, "evaluation__report": False}
    per_token = CostModel(0, 1e-3, 0)
    monkeypatch.setattr(costs, "measure_costs", lambda *_: Costs(per_token, per_token, layers=0, frozen=0))
    run = lorafit.train(make_config(encoder, source, training__budget="44s", **changes), output=tmp_path / "run")
    assert run.record.forecast is not None
    assert run.record.forecast.given_up == ["256 tokens instead of 300"]
    assert (run.record.max_length, run.record.truncation) == (256, "head+tail")
    changes |= {"model__max_length": 256, "model__truncation": "head+tail"}
    assert_same_result(run, lorafit.train(make_config(encoder, source, **changes), output=tmp_path / "same"))


def test_budget_that_cannot_be_kept_leaves_nothing_behind(encoder: Path, reviews: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"training\.budget: 2 s is too short\. .* give --budget \d+s"):
        lorafit.train(make_config(encoder, reviews, training__budget="2s"), output=tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_history_has_losses_and_evaluations(finished: Run) -> None:
    lines = [json.loads(line) for line in RunLayout(finished.path).history.read_text().splitlines()]
    assert any("loss" in line for line in lines)
    assert sum("eval_loss" in line for line in lines) == 6
    assert [line["step"] for line in lines] == sorted(line["step"] for line in lines)


def test_untrained_model_is_near_chance_and_the_trained_one_clearly_better(finished: Run) -> None:
    metrics = finished.metrics
    assert metrics.before is not None
    assert metrics.comparison is not None
    assert 0.3 < metrics.before.metrics["accuracy"].value < 0.7
    assert metrics.after.metrics["accuracy"].low > 0.8
    assert metrics.after.metrics["log_loss"].high < metrics.before.metrics["log_loss"].low
    assert metrics.comparison.p_value < 0.01


def test_samples_are_test_rows_with_both_predictions(finished: Run, reviews: Path) -> None:
    columns = read_table(reviews).columns
    labels = dict(zip(columns["text"], columns["label"], strict=True))
    test = read_table(RunLayout(finished.path).predictions("test", "after")).columns
    texts = {columns["text"][int(str(row)) - 1] for row in test["row_id"]}
    assert len(finished.samples) == 6
    for sample in finished.samples:
        assert sample.text in texts
        assert sample.label == labels[sample.text]
        assert sample.before is not None
        assert sample.before.scores != sample.after.scores
        assert sample.after == finished.load().predict([sample.text])[0] or sample.after.score == pytest.approx(
            finished.load().predict([sample.text])[0].score, abs=0.02
        )


def test_no_text_of_the_user_is_in_the_records(finished: Run) -> None:
    layout = RunLayout(finished.path)
    for path in (layout.record, layout.history, layout.metrics, layout.golden, layout.config, layout.card):
        content = path.read_text(encoding="utf-8")
        assert not any(f"{thing} of those" in content for thing in THINGS), path.name


def test_config_of_the_run_repeats_it_to_the_last_digit(finished: Run, tmp_path: Path) -> None:
    layout = RunLayout(finished.path)
    again = lorafit.train(load_config(layout.config), output=tmp_path / "again")
    assert_same_result(finished, again)
    for model in ("before", "after"):
        first, second = (RunLayout(run.path).predictions("test", model) for run in (finished, again))  # type: ignore[arg-type]
        assert first.read_bytes() == second.read_bytes()
    assert RunLayout(again.path).config.read_text() == layout.config.read_text()


def test_run_in_the_way_is_kept_and_another_name_proposed(finished: Run, config: Config) -> None:
    before = RunLayout(finished.path).record.read_bytes()
    with pytest.raises(RunError, match=r"run already exists\. Choose another name, for example --output \S+/run-2"):
        lorafit.train(config, output=finished.path)
    assert RunLayout(finished.path).record.read_bytes() == before


def test_run_is_replaced_only_when_the_new_one_can_begin(
    finished: Run, encoder: Path, reviews: Path, tmp_path: Path
) -> None:
    path = shutil.copytree(finished.path, tmp_path / "run")
    with pytest.raises(DataError, match="There is no file"):
        lorafit.train(make_config(encoder, tmp_path / "none.csv"), output=path, overwrite=True)
    assert read_status(path) == "complete"
    short = make_config(encoder, reviews, training__max_steps=1, evaluation__before=False)
    with pytest.raises(Interrupted):
        lorafit.train(short, output=path, overwrite=True, progress=Trigger("saving", 0, press_ctrl_c))
    left = sorted(entry.name for entry in path.iterdir())
    assert left == ["checkpoints", "config.yaml", "history.jsonl", "run.json"], "nothing of the old run is left"
    assert len(list(RunLayout(path).checkpoints.iterdir())) == 1


def test_folder_that_is_no_run_is_never_replaced(config: Config, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(RunError, match="holds something else than a run"):
        lorafit.train(config, output=tmp_path, overwrite=True)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_place_that_cannot_hold_a_folder_is_refused_before_any_work(config: Config, reviews: Path) -> None:
    with pytest.raises(RunError, match=r"cannot be made: \S+reviews\.csv is a file"):
        lorafit.train(config, output=reviews / "run", progress=Trigger("", 0, pytest.fail))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("text,label\n", "no rows below its header"),
        ("text,label\na,x\nb,x\n", "same label"),
        ("text,stars\na,1\nb,2\n", r"no column 'label'\. Its columns: \['text', 'stars'\]"),
        ("text,label\n,x\nb,y\n", r"an empty text \(row 1\).*--bad-rows drop"),
        ("text,label\na,x\nb,y\n", r"has fewer than 3 different texts, .* of 'x' \(1\), 'y' \(1\)"),
    ],
)
def test_bad_data_leave_nothing_behind(encoder: Path, tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "bad.csv").write_text(content)
    with pytest.raises(DataError, match=message):
        lorafit.train(make_config(encoder, tmp_path / "bad.csv"), output=tmp_path / "run")
    assert [path.name for path in tmp_path.iterdir()] == ["bad.csv"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method__name": "lara"}, r"no method 'lara'\. Did you mean: lora"),
        ({"method__r": 33}, r"method\.r=33 is larger than the layer .* allows \(at most 32\)"),
        ({"method__target_modules": ["q_lin", "qq"]}, r"'qq' matches no linear layer.*Candidates: q_lin \(2x\)"),
        ({"model__max_length": 4096}, r"max_length=4096, but this encoder reads at most 128 tokens"),
        ({"model__name": "no/such/folder"}, "There is no folder 'no/such/folder'"),
    ],
)
def test_settings_that_do_not_fit_the_model_leave_nothing_behind(
    encoder: Path, reviews: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        lorafit.train(make_config(encoder, reviews, **changes), output=tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_training_that_diverges_is_recorded_as_failed(encoder: Path, reviews: Path, tmp_path: Path) -> None:
    config = make_config(encoder, reviews, training__learning_rate=1e38, evaluation__before=False)
    with pytest.raises(TrainingDivergedError, match=r"Training diverged at step .* --set training\.learning_rate="):
        lorafit.train(config, output=tmp_path / "run")
    assert read_status(tmp_path / "run") == "failed"
    assert not RunLayout(tmp_path / "run").adapter.exists()
    with pytest.raises(RunError, match="its status is 'failed'"):
        lorafit.load(tmp_path / "run")


def test_interrupted_run_names_the_command_to_go_on_and_ends_as_if_it_had_not_been(
    finished: Run, config: Config, tmp_path: Path
) -> None:
    with pytest.raises(Interrupted, match="lorafit train --resume '") as caught:
        lorafit.train(config, output=tmp_path / "my run", progress=Trigger("training", 9, press_ctrl_c))
    assert caught.value.run == tmp_path / "my run"
    assert read_status(tmp_path / "my run") == "interrupted"
    with pytest.raises(RunError, match="its status is 'interrupted'"):
        lorafit.load(tmp_path / "my run")
    progress = Steps()
    resumed = resume(tmp_path / "my run", progress=progress)
    assert min(progress.steps) == 10, "what was done is not done again"
    assert read_status(resumed.path) == "complete"
    assert_same_result(finished, resumed)
    assert resumed.record.seconds["training"] > 0
    assert resumed.record.forecast is not None, "what was foreseen when it began is kept"
    with pytest.raises(RunError, match="is complete; there is nothing to resume"):
        resume(resumed.path)


@pytest.mark.slow
def test_killed_and_moved_run_ends_as_if_nothing_had_been(
    finished: Run, config: Config, tmp_path: Path, lorafit_cache: Path
) -> None:
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    code = (
        "import os, signal, sys, lorafit\n"
        "from lorafit.config import load_config\n"
        "from lorafit.system.progress import Silent\n"
        "from pathlib import Path\n"
        "class Killer(Silent):\n"
        "    def update(self, done, **figures):\n"
        "        if done == 11 and 'loss' in figures:\n"
        "            os.kill(os.getpid(), signal.SIGKILL)\n"
        "lorafit.train(load_config(Path('config.yaml')), output='run', progress=Killer())\n"
    )
    child = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False)
    assert child.returncode == -signal.SIGKILL
    assert read_status(tmp_path / "run") == "running"
    moved = (tmp_path / "run").rename(tmp_path / "moved")
    progress = Steps()
    assert_same_result(finished, resume(moved, progress=progress))
    assert min(progress.steps) > 1, "it goes on from a checkpoint"
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_run_interrupted_while_saving_is_saved_without_more_training(
    finished: Run, config: Config, tmp_path: Path
) -> None:
    with pytest.raises(Interrupted):
        lorafit.train(config, output=tmp_path / "run", progress=Trigger("saving", 0, press_ctrl_c))
    assert not RunLayout(tmp_path / "run").adapter.exists()
    before = RunRecord.read(RunLayout(tmp_path / "run").record)
    progress = Steps()
    run = resume(tmp_path / "run", progress=progress)
    assert_same_result(finished, run)
    assert progress.steps == []
    assert run.record.training is not None
    assert before.training is not None
    assert run.record.training.tokens_per_second == pytest.approx(before.training.tokens_per_second, rel=0.2)
    assert run.record.training.seconds >= before.training.seconds
    assert run.record.peak_memory_bytes >= before.peak_memory_bytes


def test_run_is_not_complete_before_its_mistakes_are_explained(finished: Run, config: Config, tmp_path: Path) -> None:
    layout = RunLayout(tmp_path / "run")
    with pytest.raises(Interrupted):
        lorafit.train(config, output=layout.root, progress=Trigger("explaining the worst", 0, press_ctrl_c))
    assert read_status(layout.root) == "interrupted"
    assert_same_result(finished, resume(layout.root))
    assert layout.mistakes.read_bytes() == RunLayout(finished.path).mistakes.read_bytes()


def test_run_interrupted_before_training_can_be_resumed(encoder: Path, reviews: Path, tmp_path: Path) -> None:
    config = make_config(encoder, reviews, training__max_steps=2)
    with pytest.raises(Interrupted):
        lorafit.train(config, output=tmp_path / "run", progress=Trigger("measuring the model before", 40, press_ctrl_c))
    assert read_status(tmp_path / "run") == "interrupted"
    with pytest.raises(Interrupted):
        resume(tmp_path / "run", progress=Trigger("saving", 0, press_ctrl_c))
    layout = RunLayout(tmp_path / "run")
    assert layout.predictions("test", "before").is_file()
    assert [path.name for path in layout.checkpoints.iterdir()] == ["checkpoint-2"]


def test_resume_refuses_data_that_have_changed(encoder: Path, tmp_path: Path) -> None:
    source = write_reviews(tmp_path / "reviews.csv", 40)
    with pytest.raises(Interrupted):
        lorafit.train(make_config(encoder, source), output=tmp_path / "run", progress=Trigger("meas", 0, press_ctrl_c))
    write_reviews(source, 42)
    with pytest.raises(RunError, match=r"The data of \S+run have changed since it began"):
        resume(tmp_path / "run")
    assert read_status(tmp_path / "run") == "interrupted"


def test_resume_refuses_a_base_model_that_has_changed(
    encoder: Path, reviews: Path, build_encoder: Callable[..., Path], tmp_path: Path
) -> None:
    base = shutil.copytree(encoder, tmp_path / "base")
    config = make_config(base, reviews)
    with pytest.raises(Interrupted):
        lorafit.train(config, output=tmp_path / "run", progress=Trigger("meas", 0, press_ctrl_c))
    shutil.copy(build_encoder("distilbert", initializer_range=0.4) / "model.safetensors", base)
    with pytest.raises(RunError, match=r"The base model of \S+run has changed since it began"):
        resume(tmp_path / "run")


def test_resume_refuses_what_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"run\.json is missing"):
        resume(tmp_path)


def test_three_whole_numbers_as_labels_and_a_sample_of_the_rows(
    encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [{"text": f"{(*GOOD, *BAD)[row % 8]} {row}", "label": (2, 10, 1)[row % 3]} for row in range(90)]
    Path("My stars.jsonl").write_text("\n".join(map(json.dumps, rows)))
    changes = {"data__max_rows": 31, "training__max_steps": 2, "evaluation__before": False}
    config = make_config(encoder, Path("My stars.jsonl"), **changes)
    run = lorafit.train(config)
    assert run.path == tmp_path / "runs" / f"my-stars-{encoder.name.replace('_', '-')}-lora"
    assert run.record.labels == ["1", "2", "10"]
    assert run.record.data.splits["train"].rows == 31
    assert any("31 of" in note for note in run.record.data.notes)
    assert run.metrics.before is run.metrics.comparison is None
    assert all(sample.before is None for sample in run.samples)
    assert len(run.metrics.after.confusion_matrix) == 3
    answer = run.load().predict(["superb"])[0]
    assert list(answer.scores) == ["1", "2", "10"]
    config_of_adapter = json.loads((RunLayout(run.path).labels / "config.json").read_text())
    assert config_of_adapter["id2label"] == {"0": "1", "1": "2", "2": "10"}
