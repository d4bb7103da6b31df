"""What was altered is refused by every command that opens a run or an export, with an option that works when typed."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lorafit.runs.records import RunRecord

Call = Callable[..., Any]

COMMANDS = {
    "predict": ("adapter/tokenizer_config.json", ["predict", "RUN", "fine"]),
    "predict --file": ("config.yaml", ["predict", "RUN", "--file", "ROWS"]),
    "explain": ("adapter/tokenizer_config.json", ["explain", "RUN", "fine film"]),
    "evaluate": ("config.yaml", ["evaluate", "RUN", "ROWS"]),
    "report": ("history.jsonl", ["report", "RUN"]),
    "diff": ("config.yaml", ["diff", "RUN", "RUN"]),
}
"""A file that each reads, and its words."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "predict" else pytest.mark.slow) for name in COMMANDS]
)
def test_altered_files_are_refused_unless_they_are_accepted(
    call: Call, trained: Path, reviews: Path, tmp_path: Path, name: str
) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    altered, words = COMMANDS[name]
    words = [str({"RUN": run, "ROWS": reviews}.get(word, word)) for word in words]
    with (run / altered).open("a") as file:
        file.write("\n")
    refused = call(*words)
    assert refused.code == 2
    assert refused.out == ""
    assert f"{altered} was altered" in refused.err
    assert "--accept-altered" in refused.err
    accepted = call(*words, "--accept-altered")
    assert accepted.code == 0, accepted.err
    assert accepted.err.count(f"{altered} was altered") == 1
    assert "accepted, as was asked for: " in accepted.err


def test_what_was_altered_is_never_exported_and_sealed_anew(
    call: Call, trained: Path, edit_record: Callable[..., None], tmp_path: Path
) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    labels = RunRecord.read(run / "run.json").labels
    edit_record(run / "run.json", labels=labels[::-1])
    answer = call("export", run, "--merged")
    assert answer.code == 2
    assert "--accept-altered" not in answer.err, "export has no such option"
    assert "No such option" in call("export", run, "--merged", "--accept-altered").err


def test_a_comment_in_the_settings_stops_no_prediction(call: Call, trained: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    with (run / "config.yaml").open("a", encoding="utf-8") as file:
        file.write("# mine\n")
    assert call("predict", run, "fine").code == 0


def test_a_resumed_run_has_the_settings_that_it_began_with(
    call: Call, trained: Path, edit_record: Callable[..., None], tmp_path: Path
) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    edit_record(run / "run.json", status="interrupted")
    config = run / "config.yaml"
    config.write_text(config.read_text(encoding="utf-8").replace("seed: 0", "seed: 1"), encoding="utf-8")
    answer = call("train", "--resume", run)
    assert answer.code == 2
    assert "config.yaml was altered after the run wrote it" in answer.err
    assert "--accept-altered" not in answer.err, "train has no such option"


def test_the_adapters_folder_is_answered_with_the_runs(call: Call, trained: Path) -> None:
    answer = call("predict", trained / "adapter", "fine")
    assert answer.code == 2
    assert f"Give the folder of the run, which is its parent: {trained}" in answer.err
