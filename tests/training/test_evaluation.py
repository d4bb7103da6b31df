import csv
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import lorafit
from lorafit.config import EvaluationConfig, load_config
from lorafit.data.rows import Split
from lorafit.data.sources import load_splits
from lorafit.data.tables import read_table
from lorafit.errors import DataError
from lorafit.evidence import MetricsRecord
from lorafit.labels import LabelSet
from lorafit.metrics.calibration import calibrated_log_loss
from lorafit.runs.folder import RunLayout
from lorafit.training.evaluation import (
    Predicted,
    build_metrics,
    compute_validation,
    evaluate,
    read_predictions,
    write_predictions,
)

LABELS = LabelSet(("neg", "pos"))
ROWS = Split(ids=np.array([7, 3, 12]), texts=("c", "a", "b"), labels=np.array([0, 1, 1]))
PROBABILITIES = np.array([[0.9, 0.1], [0.2, 0.8], [0.75, 0.25]])
GOOD, BAD = ("fine", "great", "lovely", "superb"), ("awful", "boring", "dull", "poor")


class Recorder:
    """A progress that remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def start(self, stage: str, *, total: int | None = None, unit: str = "") -> None:
        self.told.append(f"start {stage} {total} {unit}")

    def update(self, done: int, **figures: float) -> None:
        self.told.append(f"update {done} {figures}")

    def finish(self, note: str = "") -> None:
        self.told.append(f"finish {note}")

    def say(self, line: str) -> None:
        self.told.append(f"say {line}")


def write_reviews(path: Path, count: int, *, header: tuple[str, str] = ("text", "label")) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for row in range(count):
            writer.writerow([f"the film was {(BAD, GOOD)[row % 2][row % 4]} {row}", ("neg", "pos")[row % 2]])
    return path


@pytest.fixture(scope="module")
def run(build_encoder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> RunLayout:
    folder = tmp_path_factory.mktemp("evaluation")
    flags = {
        "data.source": str(write_reviews(folder / "reviews.csv", 120)),
        "data.test_fraction": 0.3,
        "model.name": str(build_encoder("distilbert", initializer_range=0.3)),
        "model.max_length": 32,
        "training.max_steps": 8,
        "training.learning_rate": 0.005,
        "training.precision": "fp32",
        "training.threads": 1,
        "evaluation.bootstrap_samples": 200,
        "evaluation.report": False,
    }
    return RunLayout(lorafit.train(load_config(flags=flags), output=folder / "run").path)


@pytest.fixture
def reviews(run: RunLayout) -> Path:
    return run.root.parent / "reviews.csv"


def test_a_run_measured_again_gives_its_own_figures(run: RunLayout) -> None:
    recorded, again = MetricsRecord.read(run.metrics), evaluate(run.root)
    assert again.baseline is again.comparison is None
    assert again.rows == recorded.rows
    assert again.finetuned.confusion_matrix == recorded.finetuned.confusion_matrix
    for name in ("accuracy", "macro_f1", "mcc", "log_loss"):
        figure, other = getattr(again.finetuned, name), getattr(recorded.finetuned, name)
        assert figure.model_dump() == pytest.approx(other.model_dump(), abs=1e-6), name


@pytest.mark.parametrize("model", ["baseline", "finetuned"])
def test_predictions_of_a_run_stand_in_input_order_with_row_ids(run: RunLayout, reviews: Path, model: str) -> None:
    columns = read_table(run.predictions("test", model)).columns  # type: ignore[arg-type]
    rows = load_splits(load_config(run.config).data).test
    assert list(columns) == ["row_id", "true_label", "label", "probability_neg", "probability_pos"]
    assert columns["row_id"] == rows.ids.tolist() == sorted(rows.ids.tolist())
    labels = read_table(reviews).columns["label"]
    assert columns["true_label"] == [labels[row - 1] for row in rows.ids]
    pairs = list(zip(columns["probability_neg"], columns["probability_pos"], strict=True))
    assert [sum(pair) for pair in pairs] == pytest.approx([1] * len(pairs))  # type: ignore[arg-type]
    assert columns["label"] == [("neg", "pos")[pair[1] > pair[0]] for pair in pairs]  # type: ignore[operator]


def test_another_file_is_measured_on_all_of_its_rows(run: RunLayout, tmp_path: Path) -> None:
    path = write_reviews(tmp_path / "more.csv", 30, header=("review", "mood"))
    metrics = evaluate(run.root, str(path), flags={"data.text_column": "review", "data.label_column": "mood"})
    columns = read_table(path).columns
    answers = lorafit.load(run.root, precision="fp32").predict([str(text) for text in columns["review"]])
    right = [answer.label == label for answer, label in zip(answers, columns["mood"], strict=True)]
    assert metrics.rows == 30
    assert metrics.finetuned.accuracy.value == pytest.approx(sum(right) / 30)


def test_progress_is_told(run: RunLayout, tmp_path: Path) -> None:
    recorder = Recorder()
    evaluate(run.root, str(write_reviews(tmp_path / "more.csv", 10)), progress=recorder)
    assert recorder.told == ["start measuring 10 text", "update 10 {}", "finish "]


def test_labels_that_training_did_not_have_are_refused_with_their_rows(run: RunLayout, tmp_path: Path) -> None:
    (tmp_path / "more.csv").write_text("text,label\nfine,pos\ndull,meh\npoor,neg\nso,meh\n")
    with pytest.raises(DataError, match=r"labels that training did not have: \['meh'\] \(rows 2, 4\).*'neg', 'pos'"):
        evaluate(run.root, str(tmp_path / "more.csv"))


def test_bad_rows_are_refused_or_left_out(run: RunLayout, tmp_path: Path) -> None:
    (tmp_path / "more.csv").write_text("text,label\nfine,pos\n,pos\npoor,neg\n")
    with pytest.raises(DataError, match=r"1 of 3 rows cannot be used: an empty text \(row 2\)"):
        evaluate(run.root, str(tmp_path / "more.csv"))
    assert evaluate(run.root, str(tmp_path / "more.csv"), flags={"data.drop_bad_rows": True}).rows == 2


@pytest.mark.parametrize("named", ["", "file", "link"])
def test_the_own_test_rows_are_not_guessed_when_the_data_have_changed(
    run: RunLayout, reviews: Path, tmp_path: Path, named: str
) -> None:
    (tmp_path / "link.csv").symlink_to(reviews)
    source = {"": None, "file": str(reviews), "link": str(tmp_path / "link.csv")}[named]
    before = reviews.read_text()
    reviews.write_text(before + "the film was great once more,pos\nthe film was dull once more,neg\n")
    try:
        with pytest.raises(DataError, match=r"\.csv has changed since training.*could now be among the test"):
            evaluate(run.root, source)
    finally:
        reviews.write_text(before)


def test_predictions_are_read_back_for_the_rows_they_were_written_for(tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    write_predictions(path, ROWS, LABELS, PROBABILITIES)
    np.testing.assert_array_equal(read_predictions(path, ROWS, LABELS), PROBABILITIES)
    assert read_table(path).columns["row_id"] == [7, 3, 12]
    assert read_table(path).columns["label"] == ["neg", "pos", "neg"]


def test_predictions_of_other_rows_or_labels_are_not_taken(tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    assert read_predictions(path, ROWS, LABELS) is None
    write_predictions(path, ROWS, LABELS, PROBABILITIES)
    assert read_predictions(path, ROWS.select(np.array([1, 0, 2])), LABELS) is None
    assert read_predictions(path, ROWS.select(np.array([0, 1])), LABELS) is None
    assert read_predictions(path, ROWS, LabelSet(("neg", "other"))) is None


def test_validation_figures_are_plain_means() -> None:
    figures = compute_validation(ROWS, np.log(PROBABILITIES) + 3)
    assert figures["accuracy"] == pytest.approx(2 / 3)
    assert figures["loss"] == pytest.approx(-(math.log(0.9) + math.log(0.8) + math.log(0.25)) / 3)
    assert figures["calibrated_loss"] == calibrated_log_loss(ROWS.labels, np.log(PROBABILITIES))


def test_validation_figures_of_outputs_that_are_no_numbers_are_none_either() -> None:
    figures = compute_validation(ROWS, np.where(ROWS.labels[:, None] == 0, math.nan, PROBABILITIES))
    assert all(math.isnan(figure) for figure in figures.values())


def test_metrics_compare_with_the_baseline_on_the_same_rows() -> None:
    config = EvaluationConfig(bootstrap_samples=100, confidence_level=0.9)
    metrics = build_metrics("test", ROWS, LABELS, config, Predicted(PROBABILITIES, np.full((3, 2), 0.5)))
    assert (metrics.split, metrics.rows, metrics.confidence_level) == ("test", 3, 0.9)
    assert metrics.baseline is not None
    assert metrics.baseline.log_loss.value == pytest.approx(math.log(2))
    assert metrics.comparison is not None
    assert (metrics.comparison.rows_gained, metrics.comparison.rows_lost) == (1, 0)
    assert json.loads(metrics.model_dump_json())["comparison"]["accuracy_difference"]["value"] == pytest.approx(1 / 3)
