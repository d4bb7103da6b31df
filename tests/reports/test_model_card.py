"""The card as the Hub's own library reads it, and as a person does."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData

import lorafit
from lorafit.config import load_config
from lorafit.evidence import (
    AbstentionScores,
    CalibrationScores,
    CheapBaseline,
    ConfidenceRecord,
    Estimate,
    MetricsRecord,
    ModelScores,
    PairedComparison,
    SliceScores,
)
from lorafit.metrics.selective import NEVER
from lorafit.models.records import BaseModelRecord
from lorafit.reports.model_card import render_model_card
from lorafit.runs.folder import RunLayout
from lorafit.runs.records import DataRecord, RunRecord, SplitRecord


def guess(value: float, low: float | None = None, high: float | None = None) -> Estimate:
    return Estimate(value=value, low=value if low is None else low, high=value if high is None else high)


def build_scores(accuracy: float) -> ModelScores:
    return ModelScores(
        accuracy=guess(accuracy, accuracy - 0.01, accuracy + 0.01),
        macro_f1=guess(0.8765432109),
        mcc=guess(0.7),
        log_loss=guess(0.3),
        per_class=[],
        confusion_matrix=[],
    )


def build_slice(column: str, value: str, accuracy: float, *, rows: int = 1200) -> SliceScores:
    return SliceScores(column=column, value=value, rows=rows, accuracy=guess(accuracy), difference=None)


def build_confidence(**changes: Any) -> ConfidenceRecord:
    before, after = (
        CalibrationScores(
            ece=guess(ece), adaptive_ece=ece, brier=guess(0.1), brier_reliability=0.0, brier_resolution=0.1,
            brier_uncertainty=0.2, bins=[],
        )
        for ece in (0.0812, 0.0123)
    )  # fmt: skip
    values: dict[str, Any] = {
        "calibration_rows": 640,
        "temperature": 1.375,
        "raw": before,
        "calibrated": after,
        "coverage_asked": 0.95,
        "coverage": guess(0.947, 0.941, 0.953),
        "set_sizes": [1500, 500],
        "risk_coverage": [],
        "abstention": None,
    }
    return ConfidenceRecord(**(values | changes))


@pytest.fixture
def metrics() -> MetricsRecord:
    """Measurements without a baseline, as small as they can be."""
    return MetricsRecord(
        split="test",
        rows=2000,
        confidence_level=0.95,
        bootstrap_samples=100,
        baseline=None,
        finetuned=build_scores(0.9),
        comparison=None,
    )


@pytest.fixture
def on_hub(run_record: RunRecord) -> RunRecord:
    """A run with base and data from the Hub."""
    base = BaseModelRecord(name="distilbert/base", revision="abc", digest="d", architecture="distilbert")
    return run_record.model_copy(update={"base_model": base, "data": DataRecord(source="hub:me/mails@v2", splits={})})


def read_head(card: str) -> dict[str, Any]:
    head: dict[str, Any] = yaml.safe_load(card.split("---\n")[1])
    return head


def test_the_hubs_library_reads_the_metadata_and_gives_them_back(on_hub: RunRecord, metrics: MetricsRecord) -> None:
    card = render_model_card(on_hub, metrics.model_copy(update={"confidence": build_confidence()}))
    parsed = ModelCard(card).data
    assert isinstance(parsed, ModelCardData)
    common: dict[str, Any] = {
        "task_type": "text-classification",
        "task_name": "Text classification",
        "dataset_type": "me/mails",
        "dataset_name": "hub:me/mails@v2",
        "dataset_revision": "v2",
        "dataset_split": "test",
    }
    assert parsed.eval_results == [
        EvalResult(metric_type="accuracy", metric_name="Accuracy", metric_value=0.9, **common),
        EvalResult(
            metric_type="f1",
            metric_name="F1 (macro)",
            metric_value=0.876543,
            metric_args={"average": "macro"},
            **common,
        ),
        EvalResult(metric_type="ece", metric_name="Expected calibration error", metric_value=0.0123, **common),
    ]
    assert parsed.model_name == "mails-v2-base-lora"
    assert parsed.to_dict() == read_head(card), "nothing is lost or added"
    assert {name: parsed[name] for name in ("base_model", "datasets", "library_name", "pipeline_tag", "tags")} == {
        "base_model": "distilbert/base",
        "datasets": ["me/mails"],
        "library_name": "peft",
        "pipeline_tag": "text-classification",
        "tags": ["lorafit", "lora"],
    }


@pytest.mark.parametrize(
    ("source", "datasets", "dataset"),
    [
        ("imdb", ["stanfordnlp/imdb"], {"name": "imdb", "type": "stanfordnlp/imdb"}),
        ("hub:imdb", ["imdb"], {"name": "hub:imdb", "type": "imdb"}),
        ("builtin:rotten-tomatoes", None, {"name": "builtin:rotten-tomatoes", "type": "builtin:rotten-tomatoes"}),
        ("/home/ann/secret/mails.parquet", None, {"name": "mails.parquet", "type": "parquet"}),
        ("C:\\Users\\ann\\mails.csv", None, {"name": "mails.csv", "type": "csv"}),
    ],
)
def test_data_of_the_hub_are_named_by_their_id_and_files_without_their_folder(
    run_record: RunRecord, metrics: MetricsRecord, source: str, datasets: list[str] | None, dataset: dict[str, str]
) -> None:
    record = run_record.model_copy(update={"data": DataRecord(source=source, splits={})})
    card = render_model_card(record, metrics)
    head = read_head(card)
    assert head.get("datasets") == datasets
    assert head["model-index"][0]["results"][0]["dataset"] == {**dataset, "split": "test"}
    assert "ann" not in card
    assert ModelCard(card).data.to_dict() == head


def test_folder_of_the_base_is_not_told(run_record: RunRecord, metrics: MetricsRecord) -> None:
    base = BaseModelRecord(name="/home/ann/models/tiny", revision=None, digest="d", architecture="bert")
    card = render_model_card(run_record.model_copy(update={"base_model": base}), metrics)
    assert "Base: `tiny` (bert)" in card
    assert "/home" not in card
    assert "base_model" not in read_head(card)


def test_card_without_baseline_confidence_and_slices_says_what_was_not_measured(
    run_record: RunRecord, metrics: MetricsRecord
) -> None:
    card = render_model_card(run_record, metrics)
    assert "| | after |\n|---|---|\n| accuracy | 0.9000 [0.8900, 0.9100] |" in card
    assert "**Calibration**: none; confidence is what the model gives" in card
    for absent in (
        "McNemar",
        "slices",
        "Conformal",
        "Abstaining",
        "Long texts",
        "before calibration",
        "reads head",
        "ece",
    ):
        assert absent not in card, absent
    titles = re.findall("^## (.*)$", card, re.MULTILINE)
    assert titles == [
        "Intended use", "Results on 2,000 test rows", "Limits that were measured", "Training data", "How to use it"
    ]  # fmt: skip


def test_baselines_stand_beside_the_model(run_record: RunRecord, metrics: MetricsRecord) -> None:
    paired = PairedComparison(
        accuracy_difference=guess(0.1), log_loss_difference=guess(-0.1), rows_gained=230, rows_lost=30,
        mcnemar_p_value=1.5e-9,
    )  # fmt: skip
    cheap = {"nb_svm": CheapBaseline(scores=build_scores(0.85), comparison=paired)}
    update = {"baseline": build_scores(0.8), "comparison": paired, "cheap_baselines": cheap}
    card = render_model_card(run_record, metrics.model_copy(update=update))
    assert "| | before | after | `nb_svm` |\n|---|---|---|---|\n| accuracy | 0.8000 [0.7900, 0.8100] | 0.9000" in card
    assert "put 230 rows right and made 30 wrong (exact McNemar test, p = 1.5e-09)" in card


def test_slices_below_the_whole_are_named_weakest_first_three_at_most(
    run_record: RunRecord, metrics: MetricsRecord
) -> None:
    slices = [
        build_slice("words", "1-15", 0.85, rows=100),
        build_slice("words", "16-63", 0.84),
        build_slice("shop", "a|b`c\n<i>", 0.6),
        build_slice("shop", "north", 0.8),
        build_slice("shop", "east", 0.7),
    ]
    card = render_model_card(run_record, metrics.model_copy(update={"slices": slices}))
    (line,) = (line for line in card.splitlines() if line.startswith("* **Weakest slices**"))
    assert re.findall(r"accuracy (0\.\d+)", line) == ["0.6000", "0.7000", "0.8000"]
    assert "`shop` `` a|b`c <i> ``, accuracy 0.6000 [0.6000, 0.6000] on 1,200 rows" in line
    assert "told apart by `words`, `shop`" in line
    none = render_model_card(run_record, metrics.model_copy(update={"slices": slices[:1]}))
    assert "**Weak slices**: none of the 1 told apart by `words`" in none
    assert "is shown to be worse than the others." in none


def test_slice_that_is_weak_alone_is_not_named_among_many(run_record: RunRecord, metrics: MetricsRecord) -> None:
    weak, others = build_slice("shop", "north", 0.88), [build_slice("shop", f"shop {n}", 0.9) for n in range(19)]
    alone = render_model_card(run_record, metrics.model_copy(update={"slices": [weak]}))
    assert "**Weakest slices**, of the 1 told apart" in alone
    among = render_model_card(run_record, metrics.model_copy(update={"slices": [weak, *others]}))
    assert "**Weak slices**: none of the 20 told apart" in among


def test_slices_of_a_model_that_does_not_differ_by_slice_are_hardly_ever_named(
    run_record: RunRecord, metrics: MetricsRecord
) -> None:
    rng, named = np.random.default_rng(0), 0
    for _ in range(100):
        right = rng.binomial(100, 0.9, size=20)
        slices = [build_slice("shop", f"shop {n}", int(hits) / 100, rows=100) for n, hits in enumerate(right)]
        scores = build_scores(float(right.sum()) / 2000)
        card = render_model_card(run_record, metrics.model_copy(update={"slices": slices, "finetuned": scores}))
        named += "Weakest slices" in card
    assert named <= 8


def test_measured_confidence_is_told(run_record: RunRecord, metrics: MetricsRecord) -> None:
    accepted = AbstentionScores(
        target_accuracy=0.98, accept_threshold=0.91, accepted_share=guess(0.83), accuracy=guess(0.981, 0.975, 0.986)
    )
    confidence = build_confidence(abstention=accepted)
    card = render_model_card(run_record, metrics.model_copy(update={"confidence": confidence}))
    for words in (
        "expected calibration error 0.0812 as the model gives it, 0.0123 [0.0123, 0.0123] with the temperature 1.375",
        "fitted on 640 rows",
        "true class of 95.0% of the texts, they hold it for 94.7% [94.1%, 95.3%]; 75.0% of them hold a single class.",
        "target accuracy of 98.0% it abstains below the confidence 0.9100, on 17.0% of the texts; of the others 98.1% ",
        "with the scores from before calibration",
    ):
        assert words in card, words
    refused = accepted.model_copy(update={"accepted_share": guess(0.0), "accuracy": None})
    confidence = build_confidence(abstention=refused)
    card = render_model_card(run_record, metrics.model_copy(update={"confidence": confidence}))
    assert "on 100.0% of the texts; of the others there are none." in card
    confidence = build_confidence(abstention=refused.model_copy(update={"accept_threshold": NEVER}))
    card = render_model_card(run_record, metrics.model_copy(update={"confidence": confidence}))
    assert "accuracy of 98.0% no confidence was high enough, so that every answer abstains." in card
    assert "2.0000" not in card


def test_rows_cuts_and_long_texts_are_told(run_record: RunRecord, metrics: MetricsRecord) -> None:
    def build_split(rows: int, counts: dict[str, int]) -> SplitRecord:
        return SplitRecord(rows=rows, label_counts=counts, fingerprint="f", tokens=1, truncated=rows // 4)

    many = {f"label {number}": number + 3 for number in range(21)}
    splits = {"train": build_split(9000, {"neg": 5000, "a`b": 4000}), "test": build_split(2000, many)}
    notes = ["mails.csv: left out 2 rows: *labels* <b>_x_</b> | [y](z)"]
    data = DataRecord(source="mails.csv", splits=splits, notes=notes)
    record = run_record.model_copy(update={"data": data, "truncation": "head+tail", "labels": list(many)})
    card = render_model_card(record, metrics)
    assert "* train: 9,000 rows (`neg` 5,000, `` a`b `` 4,000)" in card
    assert "* test: 2,000 rows (21 classes, 3 to 23 rows each)" in card
    assert r"left out 2 rows: \*labels\* \<b\>\_x\_\</b\> \| \[y\](z)" in card
    assert "25.0% of the test texts were longer than 64 tokens and were cut (head+tail)" in card
    assert "one of 21 classes: `label 0`" in card
    assert "`label 19`, …." in card
    assert "longer than 64 tokens they read the head; lorafit reads head and tail" in card


def test_code_on_the_card_gives_the_models_answers(
    build_encoder: Callable[..., Path], word_reviews: Path, tmp_path: Path
) -> None:
    flags = {
        "data.source": str(word_reviews),
        "data.validation_fraction": 0.3,
        "model.name": str(build_encoder("distilbert", initializer_range=0.1)),
        "model.max_length": 32,
        "training.max_steps": 4,
        "training.learning_rate": 0.01,
        "training.precision": "fp32",
        "training.threads": 1,
        "evaluation.bootstrap_samples": 100,
        "evaluation.report": False,
    }
    run = lorafit.train(load_config(flags=flags), output=tmp_path / "run")
    layout = RunLayout(run.path)
    card = layout.card.read_text(encoding="utf-8")
    assert str(tmp_path) not in card
    assert str(word_reviews.parent) not in card
    assert "of those" not in card, "no text of the data"
    with_lorafit, plain = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert [len(code.split("\n\n")[1].splitlines()) for code in (with_lorafit, plain)] == [2, 3]
    texts = ["what a superb film", "dull story " * 100]
    code = f"{with_lorafit}\n{plain}\nimport json\nprint(json.dumps([classify({texts}), model.config.id2label]))"
    process = subprocess.run(
        [sys.executable, "-c", code],
        cwd=layout.adapter,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    answers, names = json.loads(process.stdout)
    assert names == {"0": "neg", "1": "pos"}
    own = lorafit.load(run.path, precision="fp32", raw=True).predict(texts[:1])[0]
    assert answers[0] == {"label": own.label, "score": pytest.approx(own.score, abs=1e-4)}
    assert len(answers) == 2, "a text that is too long is cut"
