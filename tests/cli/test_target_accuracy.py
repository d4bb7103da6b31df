import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lorafit.data.tables import read_table
from lorafit.runs.folder import RunLayout

Call = Callable[..., Any]
TEXTS = ["superb great film", "dull boring film"]


@pytest.fixture
def calibrated(trained_of: Callable[[str], Path]) -> Path:
    """A run with a calibration, and a target that it reaches."""
    return trained_of("single_label")


def test_predictions_below_the_confidence_that_the_target_needs_abstain(call: Call, calibrated: Path) -> None:
    accepted = call("predict", calibrated, *TEXTS).out.splitlines()
    assert len(accepted) == 2
    assert not any("abstain" in line for line in accepted)
    doubted = call("predict", calibrated, *TEXTS, "--target-accuracy", "0.9999").out.splitlines()
    told = [" ".join(line.partition("%")[2].split()) for line in doubted]
    assert [re.sub(r"typicality 0\.\d+ ", "", line) for line in told] == [f"abstain {text}" for text in TEXTS]


def test_files_tell_who_abstains(call: Call, calibrated: Path, tmp_path: Path) -> None:
    answer = call("predict", calibrated, *TEXTS, "--output", tmp_path / "a.jsonl", "--target-accuracy", "0.9999")
    assert answer.code == 0
    columns = read_table(tmp_path / "a.jsonl").columns
    assert list(columns) == ["text", "label", "score", "abstain", "typicality", "probability_neg", "probability_pos"]
    assert columns["abstain"] == [True, True]


def test_raw_confidence_is_another_and_abstains_from_nothing(call: Call, calibrated: Path) -> None:
    said = [json.loads(call("predict", calibrated, TEXTS[0], "--json", *raw).out) for raw in ([], ["--raw"])]
    assert said[0]["label"] == said[1]["label"]
    assert said[0]["score"] != said[1]["score"]
    assert said[0]["abstain"] is False
    assert said[0]["label"] in said[0]["conformal_set"]
    assert said[1]["abstain"] is said[1]["conformal_set"] is None


def test_evaluate_says_whether_confidence_sets_and_target_hold(call: Call, calibrated: Path) -> None:
    out = " ".join(call("evaluate", calibrated).out.split())
    assert "Calibration: expected calibration error " in out
    assert "Conformal sets: meant to hold the true label of 95 % of the texts, they hold it for " in out
    assert "Abstaining: for an accuracy of 90 %, predictions with a confidence of less than " in out
    out = " ".join(call("evaluate", calibrated, "--target-accuracy", "0.9999").out.split())
    assert "no confidence is high enough for an accuracy of 99.99 %, so every prediction abstains." in out


def test_a_run_without_calibration_says_why_no_target_can_be_met(call: Call, trained: Path) -> None:
    answer = call("predict", trained, "fine", "--target-accuracy", "0.9")
    assert answer.code == 2
    assert "has no calibration" in answer.err
    assert "too few validation rows" in answer.err


def test_a_run_whose_target_nothing_could_calibrate_is_evaluated_all_the_same(
    call: Call, trained: Path, sign_run: Callable[[Path], None], tmp_path: Path
) -> None:
    config = RunLayout(Path(shutil.copytree(trained, tmp_path / "run"))).config
    config.write_text(config.read_text().replace("target_accuracy: null", "target_accuracy: 0.9"))
    assert "target_accuracy: 0.9" in config.read_text()
    sign_run(config.parent)
    answer = call("evaluate", tmp_path / "run")
    assert answer.code == 0
    assert "12 rows are few" in answer.out


def test_raw_confidence_takes_no_target(call: Call, calibrated: Path) -> None:
    answer = call("predict", calibrated, "fine", "--raw", "--target-accuracy", "0.9")
    assert answer.code == 2
    assert "leave out --raw or --target-accuracy" in answer.err


@pytest.mark.parametrize("share", ["98", "0", "-1"])
def test_a_target_that_is_no_share_is_refused(call: Call, calibrated: Path, share: str) -> None:
    answer = call("predict", calibrated, "fine", "--target-accuracy", share)
    assert answer.code == 2
    assert "between 0 and 1" in answer.err
