"""A whole run on pairs of texts that are read in windows: data, training on kept hidden states, saving, predicting."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import lorafit
from lorafit.config import load_config
from lorafit.models.tokenization import Truncation
from lorafit.reports.contents import read_run, read_texts
from lorafit.reports.rows import show_mistakes
from lorafit.runs.golden import GoldenRecord
from lorafit.runs.records import RunRecord
from lorafit.system.progress import Silent
from lorafit.training.evaluation import evaluate

WORDS = ("awful", "boring", "dull", "fine", "good", "great", "lovely", "superb")


class Notes(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture(scope="module")
def folder(build_encoder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a tiny BERT, whose lower layer is frozen, with its data and what was said beside it."""
    folder = tmp_path_factory.mktemp("pairs")
    rng = np.random.default_rng(0)
    with (folder / "rows.jsonl").open("w") as file:
        for row in range(120):
            first, second = rng.choice(WORDS, 2, replace=False)
            answer = first if row % 2 else second
            question = " ".join(["a", first, "film", *["of", "the"] * int(rng.integers(0, 15))])
            rows = {"question": question, "answer": f"it was {answer}", "label": ("other", "same")[row % 2]}
            file.write(json.dumps(rows) + "\n")
    config = load_config(
        overrides=[
            f"data.source={folder / 'rows.jsonl'}",
            "data.text_column=question",
            "data.text_pair_column=answer",
            "data.validation_fraction=0.3",
            f"model.name={build_encoder('bert', initializer_range=0.3)}",
            "model.max_length=20",
            "model.truncation=windows",
            "model.window_stride=6",
            "method.layers=top1",
            "training.epochs=2",
            "training.threads=1",
            "training.precision=fp32",
            "evaluation.bootstrap_samples=100",
        ]
    )
    notes = Notes()
    lorafit.train(config, output=folder / "run", progress=notes)
    (folder / "notes.txt").write_text("\n".join(notes.lines))
    return folder


def test_record_says_that_the_model_takes_pairs_in_windows(folder: Path) -> None:
    record = RunRecord.read(folder / "run" / "run.json")
    assert record.pair
    assert (record.truncation, record.max_length, record.window_stride) == ("windows", 20, 6)
    assert all(split.windows > split.rows for split in record.data.splits.values())
    assert "frozen layers" in record.seconds


def test_windows_are_told(folder: Path) -> None:
    said = (folder / "notes.txt").read_text()
    assert "texts" in said
    assert "are longer than 20 tokens and are read in windows" in said


def test_loaded_run_gives_the_predictions_that_were_measured(folder: Path) -> None:
    contents = read_run(folder / "run")
    texts = read_texts(contents).texts
    values = lorafit.load(folder / "run", precision="fp32").compute_values(texts)
    np.testing.assert_allclose(values, contents.after, atol=1e-5)
    assert np.ptp(values) > 0.01


def test_report_shows_both_texts_of_a_pair_with_their_own_marks(folder: Path) -> None:
    contents = read_run(folder / "run")
    rows = show_mistakes(contents, read_texts(contents))
    assert rows
    for row in rows:
        assert [text for text, _ in row.lines] == list(row.text)
        marked = [text[first:last] for text, marks in row.lines for first, last, _ in marks]
        assert marked == ["\n".join(row.text)[first:last] for first, last, _ in row.words.marks]
        assert any(marks for _, marks in row.lines)
    assert (folder / "run" / "report.html").read_text().count('<p class="text"') >= 2 * len(rows)


def test_golden_pairs_are_single_windows(folder: Path) -> None:
    golden = GoldenRecord.read(folder / "run" / "adapter" / "golden.json")
    assert all(len(pair) == 2 for pair in golden.texts)
    predictor = lorafit.load(folder / "run", precision="fp32")
    windows = predictor.compute_logits(golden.texts)
    predictor._truncation = Truncation(20, "head")
    np.testing.assert_array_equal(windows, predictor.compute_logits(golden.texts))


def test_evaluating_again_gives_the_same_metrics(folder: Path) -> None:
    again = evaluate(folder / "run")
    metrics = read_run(folder / "run").metrics
    assert again.after.metrics["log_loss"].value == pytest.approx(metrics.after.metrics["log_loss"].value, abs=1e-6)
    assert [one.value for one in again.slices] == [one.value for one in metrics.slices]


def test_export_predicts_the_same_pairs_in_windows(folder: Path, tmp_path: Path) -> None:
    pairs = [("a dull film " + "of the " * 20, "it was dull"), ("good", "fine")]
    exported = lorafit.export(folder / "run", output=tmp_path / "onnx")
    assert exported.record.pair
    assert exported.record.window_stride == 6
    assert exported.record.parity.rows > 0
    original = lorafit.load(folder / "run", precision="fp32").compute_logits(pairs)
    np.testing.assert_allclose(lorafit.load(exported.path).compute_logits(pairs), original, atol=1e-4)
