"""Runs with several labels a text, and with a number: from the rows to a prediction, a report and an export."""

import csv
import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lorafit.inference.batch_job import open_file, run_job
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import lorafit
from lorafit.answers import LabelsPrediction, NumberPrediction
from lorafit.cli import main
from lorafit.cli.render.explanation import show_explanation
from lorafit.cli.render.run import show_run
from lorafit.cli.render.search import show_search
from lorafit.config import Config, load_config, override_config
from lorafit.data.rows import Split
from lorafit.data.sources import load_splits
from lorafit.data.tables import read_table
from lorafit.errors import DataError, ExportDriftError, TrainingInterruptedError, UserInputError
from lorafit.experiments.compare.compare import compare
from lorafit.experiments.compare.records import ComparisonLayout
from lorafit.experiments.diff.records import TaskDiffRecord
from lorafit.experiments.search.search import search
from lorafit.inference.export.export import export, export_merged
from lorafit.inference.export.parity import check_parity, measure_parity
from lorafit.labels import LabelSet
from lorafit.reports.page import write_report
from lorafit.runs.folder import RunLayout
from lorafit.system.progress import Silent
from lorafit.task_evidence import IntervalCalibration, MultiLabelCalibration, TaskMetricsRecord
from lorafit.training.evaluation import evaluate
from lorafit.training.pipeline import Run, resume

GOOD, BAD, LONG, SHORT = ("great", "superb"), ("awful", "poor"), "hours", "minute"


def write_rows(path: Path, task: str, *, rows: int = 240) -> Path:
    """Texts whose words tell their labels (`good` and `long`, each by itself), or their number."""
    rng = np.random.default_rng(0)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for row in range(rows):
            good, long = row % 2, row // 2 % 2
            text = f"{(BAD, GOOD)[good][rng.integers(2)]} film {(SHORT, LONG)[long]} {row}"
            names = [name for name, has in (("good", good), ("long", long)) if has]
            writer.writerow([text, "|".join(names) if task == "multi_label" else 50 + 20 * good + 10 * long])
    return path


def build_config(encoder: Path, source: Path, task: str, *overrides: str) -> Config:
    return load_config(
        overrides=[
            f"data.source={source}",
            f"data.task={task}",
            'data.label_separator="|"',
            "data.test_fraction=0.25",
            "data.validation_fraction=0.4",
            f"model.name={encoder}",
            "model.max_length=32",
            "training.batch_size=16",
            "training.epochs=12",
            "training.learning_rate=0.01",
            "training.threads=1",
            "training.precision=fp32",
            "evaluation.bootstrap_samples=100",
            *overrides,
        ]
    )


@pytest.fixture(scope="module")
def encoder(build_encoder: Callable[..., Path]) -> Path:
    return build_encoder("distilbert", initializer_range=0.1)


@pytest.fixture(scope="module", params=["multi_label", "regression"])
def task(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def source(task: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp(task) / "rows.csv", task)


@pytest.fixture(scope="module")
def run(task: str, encoder: Path, source: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return lorafit.train(build_config(encoder, source, task), output=tmp_path_factory.mktemp("run") / "run")


def metrics_of(run: Run) -> TaskMetricsRecord:
    assert isinstance(run.metrics, TaskMetricsRecord)
    return run.metrics


def test_model_learns_what_the_words_tell(run: Run, task: str) -> None:
    metrics = metrics_of(run)
    figures = {name: figure.value for name, figure in metrics.finetuned.figures.items()}
    assert metrics.baseline is not None
    assert metrics.comparison is not None
    if task == "multi_label":
        assert figures["micro_f1"] > 0.9
        assert metrics.comparison.differences["micro_f1"].low > 0
    else:
        assert figures["r2"] > 0.8
        assert figures["mae"] < 5
        assert metrics.comparison.differences["mae"].high < 0
        before = {name: figure.value for name, figure in metrics.baseline.figures.items()}
        assert before["mae"] < 20  # around the mean of the training rows, which an untrained head is not far from
    assert set(metrics.cheap_baselines) == ({"nb_svm", "tfidf"} if task == "multi_label" else {"ridge"})


def test_metrics_file_gives_the_metrics_back(run: Run) -> None:
    assert TaskMetricsRecord.read(RunLayout(run.path).metrics) == run.metrics


def test_evaluation_gives_what_the_run_measured(run: Run) -> None:
    again = evaluate(run.path)
    assert isinstance(again, TaskMetricsRecord)
    for name, figure in metrics_of(run).finetuned.figures.items():
        assert again.finetuned.figures[name].value == pytest.approx(figure.value, rel=1e-3, abs=1e-3)
    assert again.cheap_baselines.keys() == metrics_of(run).cheap_baselines.keys()


def test_answers_are_of_the_task(run: Run, task: str) -> None:
    predictor = lorafit.load(run.path)
    answers = predictor.predict(["superb film hours", "awful film minute"])
    if task == "multi_label":
        both, none = answers
        assert isinstance(both, LabelsPrediction)
        assert isinstance(none, LabelsPrediction)
        assert (both.labels, none.labels) == (("good", "long"), ())
        assert all(0 <= score <= 1 for score in both.scores.values())
        assert isinstance(predictor.calibration, MultiLabelCalibration)
        assert predictor.calibration.rows == 36
    else:
        high, low = answers
        assert isinstance(high, NumberPrediction)
        assert isinstance(low, NumberPrediction)
        assert high.value == pytest.approx(80, abs=8)
        assert low.value == pytest.approx(50, abs=8)
        assert isinstance(predictor.calibration, IntervalCalibration)
        assert high.low is not None
        assert high.low == pytest.approx(high.value - predictor.calibration.half_width)
        assert lorafit.load(run.path, raw=True).predict(["superb film"])[0] == NumberPrediction(
            pytest.approx(predictor.predict(["superb film"])[0].value)  # type: ignore[arg-type, union-attr]
        )
        with pytest.raises(UserInputError, match="gives each text a number, which has no probability"):
            predictor.predict_proba(["a film"])


def test_target_accuracy_is_for_one_label_a_text(run: Run) -> None:
    with pytest.raises(UserInputError, match="A target accuracy is for models with one label a text"):
        lorafit.load(run.path, target_accuracy=0.9)


PLAIN = """
import json, sys
from pathlib import Path
from transformers import AutoConfig, pipeline
from peft import AutoPeftModelForSequenceClassification as AutoPeftModel
folder, settings = Path(sys.argv[1]), json.loads(sys.argv[2])
config = AutoConfig.from_pretrained(folder / "labels")
heads = {"num_labels": config.num_labels, "problem_type": config.problem_type}
model = AutoPeftModel.from_pretrained(folder, id2label=config.id2label, **heads)
classify = pipeline("text-classification", model=model, tokenizer=str(folder), truncation=True, **settings)
print(json.dumps(classify("superb film hours")))
"""


def test_adapter_opens_in_plain_libraries(run: Run, task: str) -> None:
    """The head gives numbers in their own unit; several labels go through the sigmoid, as the config says."""
    settings = {"top_k": None} if task == "multi_label" else {"function_to_apply": "none"}
    command = [sys.executable, "-W", "ignore", "-c", PLAIN, str(run.path / "adapter"), json.dumps(settings)]
    answer = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    expected: Any = lorafit.load(run.path, raw=True, precision="fp32").predict(["superb film hours"])[0]
    if task == "multi_label":
        answer = answer[0] if isinstance(answer[0], list) else answer
        assert {one["label"]: pytest.approx(one["score"], abs=1e-4) for one in answer} == expected.scores
    else:
        assert answer[0]["score"] == pytest.approx(expected.value, rel=1e-4)


def test_table_of_predictions_has_the_columns_of_the_task(run: Run, task: str, source: Path, tmp_path: Path) -> None:
    job = open_file(source, text_column="text", progress=Silent())
    run_job(job, lorafit.load(run.path), tmp_path / "out.csv", progress=Silent())
    columns = read_table(tmp_path / "out.csv").columns
    added = ["labels", "probability_good", "probability_long"] if task == "multi_label" else ["value", "low", "high"]
    assert list(columns) == ["text", "label", *added]


def test_export_says_what_the_run_says(run: Run, task: str, tmp_path: Path) -> None:
    made = export(run.path, output=tmp_path / "onnx")
    parity = made.record.parity
    assert parity.rows > 0
    assert parity.accuracy_difference is None
    assert (parity.label_agreement is None) is (task == "regression")
    texts = ["superb film hours", "awful film minute"]
    said = lorafit.load(tmp_path / "onnx").compute_values(texts)
    assert np.allclose(said, lorafit.load(run.path, precision="fp32").compute_values(texts), rtol=1e-3, atol=1e-3)


def test_report_card_and_terminal_show_the_task(run: Run, task: str) -> None:
    layout = RunLayout(run.path)
    card = layout.card.read_text(encoding="utf-8")
    assert task in card
    assert "**Weak slices**: none of the 1 told apart by `words`" in card
    report = layout.report.read_text(encoding="utf-8")
    assert "<svg" in report
    assert 'id="length-and-slices"' in report
    assert "By number of words" in report
    shown = subprocess.run(
        [sys.executable, "-m", "lorafit", "evaluate", str(run.path), "--slice", "label", "--quiet"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert ("F1 (micro)" if task == "multi_label" else "MAE") in shown
    assert re.search(r"words 1-15 +60 +\d", shown)
    assert re.search(r"label good\|long +\d+ +\d" if task == "multi_label" else r"label 80 +\d+ +\d", shown)
    said = subprocess.run(
        [sys.executable, "-m", "lorafit", "predict", str(run.path), "superb film hours"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert ("good" if task == "multi_label" else "[") in said


def list_samples(page: str) -> list[str]:
    """Return the sample texts of a report."""
    section = page.partition('<section id="sample-predictions"')[2].partition("</section>")[0]
    return re.findall(r'class="text" dir="auto">(.*?)</p>', section)


def test_report_and_terminal_show_the_same_samples_with_what_was_said(
    run: Run, task: str, capsys: pytest.CaptureFixture[str]
) -> None:
    page, texts = RunLayout(run.path).report.read_text(encoding="utf-8"), [sample.text for sample in run.samples]
    assert len(texts) == 6
    assert list_samples(page) == texts
    assert f">{'Most confident mistakes' if task == 'multi_label' else 'Largest errors'}</h2>" in page
    show_run(run, quiet=False)
    shown = capsys.readouterr().out
    assert [text for text in texts if text not in shown] == []
    assert ("true labels" if task == "multi_label" else "true number") in shown
    if task == "regression":
        errors = page.partition('<section id="largest-errors"')[2].partition("</section>")[0]
        assert errors.count("<li>") == 10
        assert errors.count("the interval holds") + errors.count("the interval misses") == 10


def test_report_written_again_reads_the_texts_from_the_source(run: Run, source: Path, tmp_path: Path) -> None:
    texts = [sample.text for sample in run.samples]
    assert list_samples(write_report(run.path, output=tmp_path / "again.html").read_text("utf-8")) == texts
    without = write_report(run.path, texts=False, output=tmp_path / "without.html").read_text("utf-8")
    assert list_samples(without) == []
    assert "Texts are left out, as was asked for." in without
    assert [text for text in texts if text in without] == []
    other = RunLayout(Path(shutil.copytree(run.path, tmp_path / "run")))
    changed = tmp_path / "rows.csv"
    changed.write_text(source.read_text("utf-8").replace(" film ", " movie "), "utf-8")
    config = load_config(other.config, flags={"data.source": str(changed)})
    other.config.write_text(config.to_yaml(), encoding="utf-8")
    page = write_report(other.root).read_text("utf-8")
    assert "Texts are left out: the data have changed since the run." in page
    assert " movie " not in page


def test_interrupted_run_goes_on_to_the_same_result(
    run: Run, task: str, encoder: Path, source: Path, tmp_path: Path
) -> None:
    class Stop(Silent):
        def start(self, stage: str, **_: Any) -> None:  # type: ignore[override]
            if stage.startswith("saving"):
                raise KeyboardInterrupt

    with pytest.raises(TrainingInterruptedError):
        lorafit.train(build_config(encoder, source, task), output=tmp_path / "run", progress=Stop())
    assert resume(tmp_path / "run").metrics == run.metrics


@pytest.mark.parametrize("method", ["full", "head_only"])
def test_other_methods_learn_numbers_in_their_own_unit(encoder: Path, method: str, tmp_path: Path) -> None:
    source = write_rows(tmp_path / "rows.csv", "regression")
    config = build_config(encoder, source, "regression", f"method.name={method}", "evaluation.report=false")
    made = lorafit.train(config, output=tmp_path / "run")
    answer: Any = lorafit.load(made.path).predict(["superb film hours"])[0]
    assert 40 < answer.value < 90


def test_words_are_explained_for_each_label_by_itself_and_for_numbers(
    run: Run, task: str, capsys: pytest.CaptureFixture[str]
) -> None:
    predictor, text = lorafit.load(run.path), "superb film hours"
    without = ["film hours", "superb hours", "superb film"]
    whole, *others = predictor.compute_values([text, *without])
    if task == "multi_label":
        whole, others = (np.log(values / (1 - np.asarray(values))) for values in (whole, others))
    for place, label in enumerate(("good", "long")):
        found = lorafit.explain(predictor, text, label=label if task == "multi_label" else None)
        column = place if task == "multi_label" else 0
        assert [one.contribution for one in found.words] == pytest.approx(
            [whole[column] - values[column] for values in others], abs=1e-4
        )
        assert [one.text for one in found.words] == text.split()
        show_explanation(found, json=False)
    shown = capsys.readouterr().out
    if task == "regression":
        assert found.score == pytest.approx(whole[0])
        assert "What a word adds to value" in shown
        assert "lowers" in shown
        assert "log-odds" not in shown
    else:
        assert "What a word adds to the log-odds of long" in shown


def test_trackers_are_told_the_figures_of_the_task(encoder: Path, source: Path, task: str, tmp_path: Path) -> None:
    config = build_config(
        encoder, source, task, "training.track=[tensorboard]", "training.epochs=1", "evaluation.report=false"
    )
    made = lorafit.train(config, output=tmp_path / "run")
    events = EventAccumulator(str(RunLayout(made.path).tracking)).Reload()
    figures = {tag.removeprefix("test/finetuned/") for tag in events.Tags()["scalars"] if "finetuned" in tag}
    assert figures >= metrics_of(made).finetuned.figures.keys()


def test_methods_are_compared_by_the_figure_of_the_task(encoder: Path, source: Path, task: str, tmp_path: Path) -> None:
    config = build_config(encoder, source, task, "training.epochs=1", "method.layers=top1", "evaluation.report=false")
    record = compare(config, ["lora", "head_only"], seeds=2, output=tmp_path / "methods").record
    assert record.failed == []
    layout, figure = ComparisonLayout(tmp_path / "methods"), "micro_f1" if task == "multi_label" else "mae"
    for row in record.methods:
        runs = [TaskMetricsRecord.read(layout.cell(row.method, seed).metrics) for seed in row.seeds]
        own = [metrics.finetuned.figures[figure].value for metrics in runs]
        assert row.score_by_seed == pytest.approx(own)
        assert row.score.value == pytest.approx(np.mean(own))
        assert row.score.low <= row.score.value <= row.score.high
    values = {row.method: row.score.value for row in record.methods}
    others = [*(row for row in record.methods if row.method != record.best), *record.cheap_baselines]
    assert len(others) == (3 if task == "multi_label" else 2)
    for row in others:
        assert row.difference is not None
        assert row.difference.value == pytest.approx(row.score.value - values[str(record.best)])
    title = "F1 (micro)" if task == "multi_label" else "MAE"
    assert f"<h2>{title} against training time</h2>" in layout.page.read_text(encoding="utf-8")


def test_settings_are_searched_by_the_loss_of_the_task(
    encoder: Path, source: Path, task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    space = "search.space={training.learning_rate: [0.01, 0.00001]}"
    config = build_config(encoder, source, task, space, "training.epochs=2", "method.layers=top1")
    found = search(config, 2, output=tmp_path / "search")
    losses = {row.values["training.learning_rate"]: row for row in found.record.trials}
    quick, slow = losses[0.01], losses[0.00001]
    assert quick.loss is not None
    assert slow.loss is not None
    assert quick.loss < slow.loss
    assert quick.score is not None
    assert slow.score is not None
    assert quick.score > slow.score if task == "multi_label" else quick.score < slow.score
    show_search(found, quiet=False)
    assert ("F1 (micro)" if task == "multi_label" else "MAE") in capsys.readouterr().out


def test_target_accuracy_of_other_tasks_is_refused_before_training(encoder: Path, source: Path, task: str) -> None:
    with pytest.raises(UserInputError, match=r"evaluation\.target_accuracy is for one label a text"):
        lorafit.train(build_config(encoder, source, task, "evaluation.target_accuracy=0.9"))


@pytest.mark.parametrize(
    ("label", "task", "message"),
    [
        ("0.5", "multi_label", None),
        ("fine", "regression", "row 1 has a label that is no number"),
        ("inf", "regression", "row 1 has a number that is not finite"),
    ],
)
def test_label_of_another_task_is_refused_by_its_row(
    label: str, task: str, message: str | None, tmp_path: Path
) -> None:

    rows = "".join(f"a film {row},{row % 3}\n" for row in range(60))
    path = tmp_path / "rows.csv"
    path.write_text(f"text,label\nthe first film,{label}\n{rows}", encoding="utf-8")
    config = load_config(overrides=[f"data.source={path}", f"data.task={task}"]).data
    if message is None:
        assert "0.5" in load_splits(config).labels.names
    else:
        with pytest.raises(DataError, match=message):
            load_splits(config)


def test_figures_of_the_only_length_are_those_of_all_rows(run: Run, task: str) -> None:
    metrics = metrics_of(run)
    (short,) = metrics.slices
    assert (short.column, short.value, short.rows) == ("words", "1-15", metrics.rows)
    assert set(short.figures) == ({"micro_f1", "exact_match"} if task == "multi_label" else {"mae"})
    assert metrics.comparison is not None
    for name, figure in short.figures.items():
        assert figure.value == pytest.approx(metrics.finetuned.figures[name].value)
        assert short.differences[name].value == pytest.approx(metrics.comparison.differences[name].value)


def test_rows_are_told_apart_by_a_column_of_the_data(run: Run, task: str) -> None:
    metrics = evaluate(run.path, flags={"data.slice_columns": ["label"]})
    assert isinstance(metrics, TaskMetricsRecord)
    columns = read_table(RunLayout(run.path).predictions("test", "finetuned")).columns
    expected: dict[str, list[float]] = {}
    if task == "regression":
        for true, said in zip(columns["true_value"], columns["value"], strict=True):
            expected.setdefault(f"{true:.0f}", []).append(abs(said - true))
    else:
        chances = zip(columns["probability_good"], columns["probability_long"], strict=True)
        for names, (good, long) in zip(columns["true_labels"], chances, strict=True):
            is_right = (good >= 0.5, long >= 0.5) == ("good" in names, "long" in names)
            expected.setdefault("|".join(names) or "(none)", []).append(is_right)
    found = {one.value: one for one in metrics.slices if one.column == "label"}
    assert {value: one.rows for value, one in found.items()} == {value: len(own) for value, own in expected.items()}
    for value, one in found.items():
        figure = one.figures["mae" if task == "regression" else "exact_match"]
        assert figure.value == pytest.approx(np.mean(expected[value]), rel=1e-3, abs=1e-3)
        assert one.differences == {}, "an evaluation has no baseline"


def test_record_from_before_there_were_slices_is_read(run: Run, tmp_path: Path) -> None:
    record = json.loads(RunLayout(run.path).metrics.read_text(encoding="utf-8"))
    del record["slices"]
    (tmp_path / "metrics.json").write_text(json.dumps(record), encoding="utf-8")
    assert TaskMetricsRecord.read(tmp_path / "metrics.json").slices == []


def test_other_rows_are_measured(run: Run, task: str, tmp_path: Path) -> None:
    metrics = evaluate(run.path, str(write_rows(tmp_path / "other.csv", task, rows=40)))
    assert isinstance(metrics, TaskMetricsRecord)
    assert (metrics.rows, metrics.baseline) == (40, None)
    leading = metrics.finetuned.figures["micro_f1" if task == "multi_label" else "r2"]
    assert leading.value > 0.8


@pytest.fixture(scope="module")
def other(task: str, encoder: Path, source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the same rows that has learned less."""
    unused = ("evaluation.report=false", "evaluation.before=false", "evaluation.baselines=false")
    config = build_config(encoder, source, task, "training.epochs=1", *unused)
    return lorafit.train(config, output=tmp_path_factory.mktemp("other") / "run").path


@pytest.fixture(scope="module")
def exported(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(run.path, output=tmp_path_factory.mktemp("exported") / "onnx").path


def compare_runs(*told: Any, **wishes: Any) -> TaskDiffRecord:
    record = lorafit.diff(*told, **wishes)
    assert isinstance(record, TaskDiffRecord)
    return record


def test_run_is_reproduced_to_the_last_digit(run: Run, task: str, tmp_path: Path) -> None:
    exact = {"log_loss_tolerance": 0} if task == "multi_label" else {"r2_tolerance": 0}
    record = lorafit.reproduce(run.path, output=tmp_path / "again", tolerance=0, **exact)
    assert (record.task, record.agrees, record.identical, record.largest_difference) == (task, True, True, 0)
    assert record.rows_changed == (0 if task == "multi_label" else None)
    names = ["micro_f1", "log_loss"] if task == "multi_label" else ["mae", "r2"]
    figures = metrics_of(run).finetuned.figures
    assert [(one.name, one.then, one.now) for one in record.figures] == [
        (name, figures[name].value, figures[name].value) for name in names
    ]


def test_repetition_with_other_settings_is_told(
    run: Run, task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = RunLayout(Path(shutil.copytree(run.path, tmp_path / "run")))
    altered = {"training.epochs": 1, "evaluation.report": False, "evaluation.baselines": False}
    layout.config.write_text(override_config(load_config(layout.config), altered).to_yaml(), encoding="utf-8")
    with pytest.raises(SystemExit) as caught:
        main(["reproduce", str(layout.root), "--output", str(tmp_path / "again"), "--quiet"])
    assert caught.value.code == 1
    out, err = capsys.readouterr()
    assert f"{layout.root} is not reproduced:" in err
    figure, said = ("F1 (micro)", "other labels") if task == "multi_label" else ("MAE", "predicted number: ")
    (line,) = (line for line in out.splitlines() if line.strip().startswith(figure))
    assert line.rstrip().endswith("DIFFERS")
    assert said in out
    if task == "regression":
        truth = load_splits(load_config(layout.config).data).test.labels
        allowed = next(cell for cell in reversed(line.split()) if cell[0].isdigit())
        assert float(allowed) == pytest.approx(0.01 * truth.std(), rel=1e-3)


def test_runs_are_compared_by_what_they_said(run: Run, other: Path, task: str) -> None:
    record = compare_runs(run.path, other)
    figures = [metrics_of(run).finetuned.figures, TaskMetricsRecord.read(RunLayout(other).metrics).finetuned.figures]
    assert [record.a.scores.figures, record.b.scores.figures] == figures
    leading = "micro_f1" if task == "multi_label" else "mae"
    difference = record.comparison.differences[leading]
    assert difference.value == pytest.approx(figures[1][leading].value - figures[0][leading].value)
    assert difference.high < 0 if task == "multi_label" else difference.low > 0
    confidence = [TaskMetricsRecord.read(RunLayout(path).metrics).confidence for path in (run.path, other)]
    for side, told in zip((record.a, record.b), confidence, strict=True):
        assert told is not None
        if task == "multi_label":
            assert side.ece == told.figures["ece"]
        else:
            assert (side.coverage, side.half_width) == (told.figures["coverage"], told.figures["half_width"].value)
            assert side.coverage_asked == told.coverage_asked
    assert [one.column for one in record.slices] == (
        ["label", "label", "words"] if task == "multi_label" else ["words"]
    )
    assert record.slices[-1].rows == record.rows == metrics_of(run).rows
    whole = record.slices[-1].comparison
    assert whole.differences.keys() == {leading}
    assert whole.differences[leading].model_dump() == pytest.approx(difference.model_dump()), "the same resamples"
    assert whole.model_copy(update={"differences": record.comparison.differences}) == record.comparison


def test_gates_of_the_task_end_the_command(run: Run, other: Path, task: str) -> None:
    gates = ("micro_f1>=-0.002", "churn<=1") if task == "multi_label" else ("mae<=0.02", "coverage>=-1")
    for pair, code in (((run.path, other), 1), ((other, run.path), 0)):
        command = [sys.executable, "-m", "lorafit", "diff", *map(str, pair), "--gate", ",".join(gates), "--quiet"]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        assert answer.returncode == code, answer.stderr
        assert (f"gate {gates[0]}: holds" in answer.stdout) is (code == 0)
        assert f"gate {gates[1]}: holds" in answer.stdout


def test_exported_model_is_compared_with_its_run(run: Run, exported: Path, task: str) -> None:
    record = compare_runs(run.path, exported)
    assert (record.rows, record.b.exported) == (metrics_of(run).rows, "fp32")
    assert record.a.scores.figures == metrics_of(run).finetuned.figures
    rows = load_splits(load_config(RunLayout(run.path).config).data).test
    said = lorafit.load(exported).compute_values(rows.texts)
    if task == "multi_label":
        assert record.churn is not None
        assert record.churn.value == 0
        exact = ((said >= 0.5) == rows.labels).all(axis=1).mean()
        assert record.b.scores.figures["exact_match"].value == pytest.approx(exact)
    else:
        assert record.half_width_difference == 0
        error = np.abs(said[:, 0] - rows.labels).mean()
        assert record.b.scores.figures["mae"].value == pytest.approx(error)


def test_exported_models_are_compared_on_rows_that_they_predict_now(
    exported: Path, task: str, source: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserInputError, match="do not hold what they said of their test rows"):
        lorafit.diff(exported, exported)
    data, flags = str(write_rows(tmp_path / "other.csv", task, rows=40)), {"data.label_separator": "|"}
    record = compare_runs(exported, exported, data, flags=flags)
    assert (record.rows, record.comparison.rows_gained, record.comparison.rows_lost) == (40, 0, 0)
    with pytest.raises(DataError, match=r"was trained on .* and these rows are not its test rows"):
        lorafit.diff(exported, exported, str(source), flags=flags)


def test_run_compared_on_its_own_data_predicts_its_test_rows_again(run: Run, other: Path, source: Path) -> None:
    kept, again = compare_runs(run.path, other), compare_runs(run.path, other, str(source))
    assert again.rows == kept.rows
    for name, difference in kept.comparison.differences.items():
        assert again.comparison.differences[name].value == pytest.approx(difference.value, rel=1e-3, abs=1e-3)


def test_head_that_knows_the_unit_begins_with_what_it_knows(encoder: Path, tmp_path: Path) -> None:
    """A model trained before, merged: its baseline is what it gives, and training goes on from there."""
    source = write_rows(tmp_path / "rows.csv", "regression")
    first = lorafit.train(build_config(encoder, source, "regression", "evaluation.report=false"), output=tmp_path / "a")
    merged = export_merged(first.path, output=tmp_path / "merged")
    again = build_config(merged, source, "regression", "evaluation.report=false", "training.epochs=1")
    second = lorafit.train(again, output=tmp_path / "b")
    before, after = metrics_of(second).baseline, metrics_of(first).finetuned
    assert before is not None
    assert before.figures["mae"].value == pytest.approx(after.figures["mae"].value, rel=1e-3)


def test_run_goes_on_from_the_middle_of_training(
    run: Run, encoder: Path, source: Path, task: str, tmp_path: Path
) -> None:
    class Stop(Silent):
        def say(self, line: str) -> None:
            if line.startswith("epoch 6.00"):
                signal.raise_signal(signal.SIGINT)

    with pytest.raises(TrainingInterruptedError):
        lorafit.train(build_config(encoder, source, task), output=tmp_path / "run", progress=Stop())
    assert resume(tmp_path / "run").metrics == run.metrics


def test_labels_with_commas_come_back_as_a_list(tmp_path: Path) -> None:
    prediction = LabelsPrediction(("a, b", "c"), {"a, b": 0.9, "c": 0.6, "d": 0.1})
    assert prediction.columns() == {
        "labels": ["a, b", "c"],
        "probability_a, b": 0.9,
        "probability_c": 0.6,
        "probability_d": 0.1,
    }


def test_export_that_says_the_mean_alone_is_refused() -> None:
    """Numbers far from 0 are held against how far they lie apart."""
    rng = np.random.default_rng(0)
    numbers = 2000 + 10 * rng.normal(size=400)
    rows = Split(np.arange(400), ("a",) * 400, numbers)
    said, mean = numbers[:, np.newaxis] + rng.normal(size=(400, 1)), np.full((400, 1), 2000.0)
    parity = measure_parity((said[:5], mean[:5]), LabelSet(("value",), "regression"), rows, (said, mean))
    with pytest.raises(ExportDriftError, match="r2 falls by"):
        check_parity(parity, "int8")


def test_export_that_gives_no_label_is_refused() -> None:
    """Of many labels, those that no text gets do not count as agreement."""
    marks = np.eye(200, dtype=np.int64)[np.arange(400) % 200]
    rows = Split(np.arange(400), ("a",) * 400, marks)
    said, nothing = 0.1 * (2 * marks - 1.0), np.full((400, 200), -0.1)
    labels = LabelSet(tuple(map(str, range(200))), "multi_label")
    parity = measure_parity((said[:5], nothing[:5]), labels, rows, (said, nothing))
    with pytest.raises(ExportDriftError, match="micro_f1 falls by"):
        check_parity(parity, "int8")


def test_numbers_that_are_all_the_same_to_train_on_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("text,label\n" + "".join(f"film {row},{int(row == 3)}\n" for row in range(60)), encoding="utf-8")
    config = load_config(overrides=[f"data.source={path}", "data.task=regression", "data.max_rows=5"]).data
    with pytest.raises(DataError, match="rows to train on have the same number"):
        load_splits(config)
