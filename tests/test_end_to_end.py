"""The whole way with the real built-in model and data: trained by the command, opened by plain peft, then used."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lorafit.cli import main
from lorafit.runs.folder import RunLayout
from lorafit.runs.golden import GoldenRecord
from lorafit.runs.records import RunRecord
from lorafit.tasks.records import MetricsRecord

PLAIN = """
import json, sys
from pathlib import Path
import torch
from peft import PeftModel
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

folder = Path(sys.argv[1])
base = json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"]
config = AutoConfig.from_pretrained(folder / "labels")
model = AutoModelForSequenceClassification.from_pretrained(base, config=config, dtype=torch.float32)
model = PeftModel.from_pretrained(model, folder).eval()
tokenizer = AutoTokenizer.from_pretrained(folder)
texts = json.loads((folder / "golden.json").read_text())["texts"]
with torch.inference_mode():
    logits = [model(**tokenizer(text, return_tensors="pt")).logits[0].tolist() for text in texts]
assert "lorafit" not in sys.modules
print(json.dumps({"logits": logits, "labels": model.config.id2label}))
"""
"""What any user of peft writes; one text at a time, so that padding plays no part."""


def run_lorafit(*words: object, folder: Path) -> str:
    child = subprocess.run(
        [sys.executable, "-m", "lorafit", *map(str, words)], cwd=folder, capture_output=True, text=True, check=False
    )
    assert child.returncode == 0, child.stderr
    return child.stdout


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> RunLayout:
    folder = tmp_path_factory.mktemp("demo")
    settings = (
        "training.max_steps=8",
        "model.max_length=16",
        "evaluation.bootstrap_samples=200",
        "evaluation.baselines=false",
    )
    words = [word for setting in settings for word in ("--set", setting)]
    shown = run_lorafit("demo", *words, "--output", "my demo", folder=folder)
    layout = RunLayout(folder / "my demo")
    assert f"lorafit predict '{layout.root}' " in shown
    assert "before" in shown
    return layout


def test_the_demo_leaves_a_complete_run_with_evidence(demo: RunLayout) -> None:
    record, metrics = RunRecord.read(demo.record), MetricsRecord.read(demo.metrics)
    assert record.status == "complete"
    assert record.base_model.name == "builtin:distil-minilm"
    assert record.data.source == "builtin:rotten-tomatoes"
    assert record.labels == ["rotten", "fresh"]
    assert {name: split.rows for name, split in record.data.splits.items()} == {
        "train": 10219, "validation": 644, "test": 1245, "calibration": 644
    }  # fmt: skip
    assert record.training is not None
    assert (record.training.steps, record.training.adapted_modules) == (8, 36)
    assert metrics.rows == 1245
    assert metrics.before is not None
    assert 0.4 < metrics.before.metrics["accuracy"].value < 0.6
    assert demo.mistakes.is_file()


def test_plain_peft_in_a_fresh_process_gives_the_golden_logits(demo: RunLayout) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LORAFIT")}
    child = subprocess.run(
        [sys.executable, "-I", "-c", PLAIN, str(demo.adapter)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    answer = json.loads(child.stdout)
    golden = GoldenRecord.read(demo.golden)
    for got, expected in zip(answer["logits"], golden.logits, strict=True):
        assert got == pytest.approx(expected, abs=1e-4)
    assert answer["labels"] == {"0": "rotten", "1": "fresh"}


def test_the_trained_run_predicts(demo: RunLayout, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["predict", str(demo.root), "A gem.", "A bore.", "--json"])
    shown = capsys.readouterr().out
    predictions = [json.loads(line) for line in shown.splitlines()]
    assert [one["text"] for one in predictions] == ["A gem.", "A bore."]
    for one in predictions:
        assert one["label"] in {"rotten", "fresh"}
        assert sum(one["scores"].values()) == pytest.approx(1)
