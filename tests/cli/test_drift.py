import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lorafit.config import load_config
from lorafit.data.loading import load_splits
from lorafit.runs.folder import RunLayout

Call = Callable[..., Any]


def test_drift_ends_with_0_1_or_2(call: Call, trained_of: Callable[[str], Path], tmp_path: Path) -> None:
    run, file = trained_of("single_label"), tmp_path / "new.txt"
    texts = load_splits(load_config(RunLayout(run).config).data).test.texts
    file.write_text("".join(f"{text}\n" for text in texts))
    answer = call("drift", run, file)
    assert answer.code == 0, answer.err
    assert answer.out.splitlines()[-1].startswith("No drift is shown (p = ")
    assert "48 new texts (48 looked at) against" in answer.out
    assert "1 % false alarms" in answer.out
    file.write_text("wonderful life, those two hours in the story of love\n" * 60)
    answer = call("drift", run, file, "--quiet")
    assert answer.code == 1
    assert "Drift is shown (p = 0.001)." in answer.out
    assert "The coverage of 95 % is not guaranteed for these texts" in answer.out
    assert "word film" in answer.out
    assert "are of another kind than the calibration rows" in answer.err
    answer = call("drift", run, file, "--json", "--quiet")
    assert answer.code == 1
    assert json.loads(answer.out)["test"]["p_value"] == 0.001
    answer = call("drift", run, tmp_path / "absent.csv")
    assert answer.code == 2
    assert "absent.csv" in answer.err


def test_texts_unlike_the_training_rows_are_marked(
    call: Call, trained_of: Callable[[str], Path], tmp_path: Path
) -> None:
    run = trained_of("single_label")
    answer = call("predict", run, "superb film minute 7", "--reject-atypical", "0.9", "--json")
    told = json.loads(answer.out)
    assert told["atypical"] == (told["typicality"] <= 0.9)
    line = call("predict", run, "superb film minute 7").out
    assert f"typicality {told['typicality']:.3f}" in line
    output = tmp_path / "out.jsonl"
    (tmp_path / "new.txt").write_text("superb film minute 7\n")
    call("predict", run, "--file", tmp_path / "new.txt", "--reject-atypical", "0.9", "--output", output)
    assert json.loads(output.read_text())["atypical"] == told["atypical"]
    answer = call("predict", run, "superb", "--reject-atypical", "1")
    assert answer.code == 2
    assert "above 0 and below 1, for example 0.01" in answer.err
