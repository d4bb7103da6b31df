import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import lorafit
from lorafit.config import Config, load_config
from lorafit.data.loading import load_splits
from lorafit.data.tables import read_table
from lorafit.errors import RunError, UserInputError
from lorafit.runs.folder import CALIBRATION_FILE, RunLayout
from lorafit.runs.records import RunRecord
from lorafit.system.progress import Silent
from lorafit.tasks.calibration import fit_temperature
from lorafit.tasks.metrics import softmax
from lorafit.tasks.records import MetricsRecord
from lorafit.tasks.single_label import SingleLabelCalibration
from lorafit.training.evaluation import evaluate
from lorafit.training.pipeline import Run

GOOD, BAD = ("fine", "great", "lovely", "superb"), ("awful", "boring", "dull", "poor")


class Lines(Silent):
    """A progress that remembers what was said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def write_reviews(path: Path, count: int) -> Path:
    """Rows that can be learned but for one in six, whose label is the other."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for row in range(count):
            words = (BAD, GOOD)[row % 2]
            label = (row + (row % 6 == 0)) % 2
            writer.writerow([f"{words[row // 2 % 4]} film of those {words[row // 8 % 4]} {row}", ("neg", "pos")[label]])
    return path


@pytest.fixture(scope="module")
def config(build_encoder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Config:
    flags = {
        "data.source": str(write_reviews(tmp_path_factory.mktemp("data") / "reviews.csv", 480)),
        "data.test_fraction": 0.25,
        "data.validation_fraction": 0.4,
        "model.name": str(build_encoder("distilbert", initializer_range=0.1)),
        "model.max_length": 32,
        "training.epochs": 3,
        "training.learning_rate": 0.01,
        "training.threads": 1,
        "training.precision": "fp32",
        "evaluation.bootstrap_samples": 100,
        "evaluation.report": False,
        "evaluation.baselines": False,
        "evaluation.target_accuracy": 0.7,
        "evaluation.coverage": 0.9,
    }
    return load_config(flags=flags)


@pytest.fixture(scope="module")
def run(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return lorafit.train(config, output=tmp_path_factory.mktemp("calibrated") / "run")


@pytest.fixture(scope="module")
def calibration(run: Run) -> SingleLabelCalibration:
    return SingleLabelCalibration.read(RunLayout(run.path).calibration)


def test_calibration_rows_neither_train_nor_choose_nor_test(config: Config, run: Run) -> None:
    parts = load_splits(config.data).by_name
    assert list(parts) == ["train", "validation", "test", "calibration"]
    ids = [set(part.ids.tolist()) for part in parts.values()]
    assert sum(map(len, ids)) == len(set.union(*ids)) == 480
    texts = [set(part.texts) for part in parts.values()]
    assert sum(map(len, texts)) == len(set.union(*texts))
    assert run.record.data.splits["calibration"].rows == len(parts["calibration"]) == len(parts["validation"])
    assert run.record.data.splits["calibration"].fingerprint == parts["calibration"].fingerprint()


def test_the_temperature_is_that_of_the_calibration_rows(
    config: Config, run: Run, calibration: SingleLabelCalibration
) -> None:
    rows = load_splits(config.data).calibration
    assert rows is not None
    logits = lorafit.load(run.path, precision="fp32").compute_logits(rows.texts)
    assert calibration.rows == len(rows)
    assert calibration.temperature == pytest.approx(fit_temperature(rows.y, logits), rel=1e-4)
    assert calibration.temperature != 1
    assert (calibration.coverage, calibration.target_accuracy) == (0.9, 0.7)


def test_predictions_are_calibrated_and_raw_ones_are_not(run: Run, calibration: SingleLabelCalibration) -> None:
    texts = ["superb great film", "dull boring film", "film"]
    predictor = lorafit.load(run.path, precision="fp32")
    logits = predictor.compute_logits(texts)
    assert predictor.predict_proba(texts) == pytest.approx(softmax(logits / calibration.temperature))
    raw = lorafit.load(run.path, precision="fp32", raw=True)
    assert raw.predict_proba(texts) == pytest.approx(softmax(logits))
    assert {(answer.abstain, answer.conformal_set) for answer in raw.predict(texts)} == {(None, None)}


def test_answers_say_whether_to_abstain_and_what_else_may_be_true(
    run: Run, calibration: SingleLabelCalibration
) -> None:
    texts = [f"{word} film {number}" for word in (*GOOD, *BAD, "film") for number in range(5)]
    threshold = calibration.accept_threshold
    assert threshold is not None
    for answer in lorafit.load(run.path).predict(texts):
        assert answer.abstain is (answer.score < threshold)
        assert answer.conformal_set is not None
        assert answer.label in answer.conformal_set
        expected = {name for name, value in answer.scores.items() if value >= calibration.set_threshold}
        assert set(answer.conformal_set) == expected | {answer.label}


def test_another_target_can_be_named_later(run: Run, calibration: SingleLabelCalibration) -> None:
    strict = lorafit.load(run.path, target_accuracy=0.9999).predict(["superb film", "dull film"])
    assert [answer.abstain for answer in strict] == [True, True]
    lax = lorafit.load(run.path, target_accuracy=0.01).predict(["superb film", "dull film"])
    assert [answer.abstain for answer in lax] == [False, False]
    assert SingleLabelCalibration.read(RunLayout(run.path).calibration) == calibration
    with pytest.raises(UserInputError, match="between 0 and 1"):
        lorafit.load(run.path, target_accuracy=98)


def test_metrics_are_those_of_the_calibrated_model_and_say_how_the_confidence_holds(
    run: Run, calibration: SingleLabelCalibration
) -> None:
    layout = RunLayout(run.path)
    columns = read_table(layout.predictions("test", "after")).columns
    stored = np.array([columns["probability_neg"], columns["probability_pos"]], dtype=np.float64).T
    labels = np.array([("neg", "pos").index(str(label)) for label in columns["true_label"]])
    scores = run.metrics.calibration
    assert scores is not None
    likelihoods = stored[np.arange(len(labels)), labels]
    assert run.metrics.after.metrics["log_loss"].value == pytest.approx(-np.log(likelihoods).mean())
    inside = (likelihoods >= calibration.set_threshold) | (stored.argmax(axis=1) == labels)
    assert scores.metrics["coverage"].value == pytest.approx(inside.mean())
    assert scores.asked["coverage"] == calibration.coverage
    assert "accepted_accuracy" in scores.metrics
    assert MetricsRecord.read(layout.metrics).model_dump_json() == run.metrics.model_dump_json()


def test_measured_again_the_confidence_is_the_same(run: Run) -> None:
    again, then = evaluate(run.path).calibration, run.metrics.calibration
    assert again is not None
    assert then is not None
    assert again.metrics["coverage"] == then.metrics["coverage"]
    assert again.metrics["ece"].value == pytest.approx(then.metrics["ece"].value, abs=1e-6)


def test_a_calibration_that_was_altered_is_refused(run: Run, tmp_path: Path) -> None:
    layout = RunLayout(shutil.copytree(run.path, tmp_path / "run"))
    assert CALIBRATION_FILE in RunRecord.read(layout.record).files
    changed = json.loads(layout.calibration.read_text()) | {"temperature": 0.1}
    layout.calibration.write_text(json.dumps(changed))
    with pytest.raises(RunError, match="altered"):
        lorafit.load(layout.root)


def test_the_checkpoint_with_the_lowest_calibrated_loss_is_kept(run: Run) -> None:
    entries = [json.loads(line) for line in RunLayout(run.path).history.read_text().splitlines()]
    losses = {entry["step"]: entry["eval_calibrated_loss"] for entry in entries if "eval_calibrated_loss" in entry}
    assert len(losses) == 6
    assert run.record.training is not None
    assert run.record.training.best_validation_loss == min(losses.values())
    assert losses[run.record.training.best_step] == min(losses.values())


def test_too_few_validation_rows_are_said_and_confidence_stays_the_models_own(config: Config, tmp_path: Path) -> None:
    said, few = Lines(), config.model_copy(deep=True)
    few.data.source, few.data.validation_fraction = str(write_reviews(tmp_path / "few.csv", 80)), 0.2
    run = lorafit.train(few, output=tmp_path / "run", progress=said)
    assert any("too few to calibrate" in line for line in said.lines)
    assert "calibration" not in run.record.data.splits
    assert not RunLayout(run.path).calibration.exists()
    assert run.metrics.calibration is None
    assert lorafit.load(run.path).predict(["superb film"])[0].conformal_set is None
    with pytest.raises(RunError, match="no calibration"):
        lorafit.load(run.path, target_accuracy=0.9)


def test_calibration_can_be_left_out(config: Config) -> None:
    data = config.data.model_copy(update={"calibration_fraction": 0})
    with_it, without = load_splits(config.data), load_splits(data)
    assert without.calibration is None
    assert with_it.calibration is not None
    assert len(without.validation) == len(with_it.validation) + len(with_it.calibration)
    assert without.test.fingerprint() == with_it.test.fingerprint()
