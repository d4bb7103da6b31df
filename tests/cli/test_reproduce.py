import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lorafit.config import load_config, override_config
from lorafit.experiments.reproduce import ReproductionRecord
from lorafit.runs.folder import RunLayout

Call = Callable[..., Any]


def test_a_run_is_repeated_and_found_to_agree(call: Call, trained: Path, tmp_path: Path) -> None:
    answer = call("reproduce", trained, "--output", tmp_path / "again")
    assert answer.code == 0, answer.err
    lines = answer.out.splitlines()
    assert lines[0].startswith("Measured on the same 12 test rows")
    assert sum(line.endswith("agrees") for line in map(str.strip, lines)) == 2
    assert "Every test probability is the same to the last digit." in lines
    assert f"run folder  {tmp_path / 'again'}" in lines
    assert lines[-1] == "Reproduced."
    assert "changed since" not in answer.out


def test_json_is_the_record_and_other_numbers_end_with_1(call: Call, trained: Path, tmp_path: Path) -> None:
    layout = RunLayout(Path(shutil.copytree(trained, tmp_path / "run")))
    settings = {"training.learning_rate": 1e-5, "evaluation.baseline": False, "evaluation.cheap_baselines": False}
    layout.config.write_text(override_config(load_config(layout.config), settings).to_yaml())
    words = ["--output", tmp_path / "again", "--tolerance", "1", "--log-loss-tolerance", "0.001", "--json", "--quiet"]
    answer = call("reproduce", layout.root, *words)
    record = ReproductionRecord.model_validate(json.loads(answer.out))
    assert answer.code == 1
    assert {figure.name: (figure.tolerance, figure.agrees) for figure in record.figures} == {
        "accuracy": (1.0, True),
        "log_loss": (0.001, False),
    }
    assert answer.err.startswith(f"{layout.root} is not reproduced:\n  log_loss: ")


def test_an_altered_config_ends_with_1_and_trains_nothing(call: Call, trained: Path, tmp_path: Path) -> None:
    layout = RunLayout(Path(shutil.copytree(trained, tmp_path / "run")))
    layout.config.write_text(override_config(load_config(layout.config), {"training.seed": 5}).to_yaml())
    answer = call("reproduce", layout.root, "--output", tmp_path / "again", "--quiet")
    assert (answer.code, answer.out) == (1, "")
    assert "training.seed is 5, the run was made with 0" in answer.err
    assert not (tmp_path / "again").exists()


def test_what_is_no_run_and_a_tolerance_below_0_end_with_2(call: Call, trained: Path, tmp_path: Path) -> None:
    assert "run.json is missing" in call("reproduce", tmp_path).err
    answer = call("reproduce", trained, "--tolerance", "-1")
    assert answer.code == 2
    assert "--tolerance" in answer.err
