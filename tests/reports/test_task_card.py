"""The card of several labels a text, and of numbers, as the Hub's library reads it, and as plain libraries run it."""

import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard, ModelCardData

from lorafit.evidence import ClassScores, Estimate
from lorafit.labels import LabelSet
from lorafit.models.records import BaseModelRecord
from lorafit.reports.task_card import render_task_card
from lorafit.runs.records import DataRecord, RunRecord, SplitRecord
from lorafit.task_evidence import (
    TaskCheapBaseline,
    TaskComparison,
    TaskConfidence,
    TaskMetricsRecord,
    TaskScores,
    TaskSliceScores,
)

TEXT = "what a superb film"
FIGURES: dict[str, dict[str, float]] = {
    "multi_label": {
        "micro_f1": 0.8123456789,
        "macro_f1": 0.7,
        "exact_match": 0.6,
        "hamming_loss": 0.05,
        "log_loss": 0.2,
    },
    "regression": {"mae": 0.5, "rmse": 0.7, "r2": 0.8, "pearson": 0.9},
}


def guess(value: float) -> Estimate:
    return Estimate(value=value, low=value - 0.01, high=value + 0.01)


def build_metrics(task: str, **changes: Any) -> TaskMetricsRecord:
    scores = TaskScores(figures={name: guess(value) for name, value in FIGURES[task].items()})
    values: dict[str, Any] = {
        "task": task,
        "split": "test",
        "rows": 2000,
        "confidence_level": 0.95,
        "bootstrap_samples": 100,
        "baseline": None,
        "finetuned": scores,
        "comparison": None,
    }
    return TaskMetricsRecord(**(values | changes))


def build_label(name: str, f1: float, support: int) -> ClassScores:
    return ClassScores(label=name, precision=guess(f1), recall=guess(f1), f1=guess(f1), support=support)


def build_slice(column: str, value: str, figures: dict[str, float], p_value: float) -> TaskSliceScores:
    estimates = {name: guess(figure) for name, figure in figures.items()}
    return TaskSliceScores(
        column=column, value=value, rows=1200, figures=estimates, differences={}, adjusted_p_value=p_value
    )


def read_head(card: str) -> dict[str, Any]:
    head: dict[str, Any] = yaml.safe_load(card.split("---\n")[1])
    return head


@pytest.fixture
def on_hub(run_record: RunRecord) -> RunRecord:
    """A run of several labels with base and data from the Hub."""
    base = BaseModelRecord(name="distilbert/base", revision="abc", digest="d", architecture="distilbert")
    data = DataRecord(source="hub:me/mails@v2", splits={})
    return run_record.model_copy(update={"base_model": base, "data": data, "task": "multi_label"})


@pytest.fixture
def of_number(run_record: RunRecord) -> RunRecord:
    """A run whose texts get a number."""
    return run_record.model_copy(update={"task": "regression", "labels": ["value"]})


def test_the_hubs_library_reads_the_metadata_and_gives_them_back(on_hub: RunRecord) -> None:
    card = render_task_card(on_hub, build_metrics("multi_label"))
    parsed = ModelCard(card).data
    assert isinstance(parsed, ModelCardData)
    assert parsed.to_dict() == read_head(card), "nothing is lost or added"
    assert parsed.eval_results is not None
    measured = [(one.metric_type, one.metric_value, one.metric_args) for one in parsed.eval_results]
    assert measured == [
        ("f1", 0.812346, {"average": "micro"}),
        ("f1", 0.7, {"average": "macro"}),
        ("exact_match", 0.6, None),
    ]
    one = parsed.eval_results[0]
    assert (one.task_type, one.task_name, one.dataset_type, one.dataset_revision, one.dataset_split) == (
        "text-classification", "Multi-label text classification", "me/mails", "v2", "test"
    )  # fmt: skip
    assert {name: parsed[name] for name in ("base_model", "datasets", "library_name", "pipeline_tag", "tags")} == {
        "base_model": "distilbert/base",
        "datasets": ["me/mails"],
        "library_name": "peft",
        "pipeline_tag": "text-classification",
        "tags": ["lorafit", "lora", "multi_label"],
    }


def test_numbers_have_the_hubs_metrics(of_number: RunRecord) -> None:
    card = render_task_card(of_number, build_metrics("regression"))
    parsed = ModelCard(card).data
    assert parsed.to_dict() == read_head(card)
    assert parsed.eval_results is not None
    measured = {one.metric_type: one.metric_value for one in parsed.eval_results}
    assert measured == {"mae": 0.5, "mse": pytest.approx(0.49), "r_squared": 0.8, "pearsonr": 0.9}
    assert parsed["metrics"] == ["mae", "mse", "r_squared", "pearsonr"]
    assert "It gives each text a number" in card
    assert "classes" not in card


def test_what_is_undefined_is_no_result(of_number: RunRecord) -> None:
    figures = {"mae": guess(123456.789), "pearson": Estimate(value=math.nan, low=math.nan, high=math.nan)}
    card = render_task_card(of_number, build_metrics("regression", finetuned=TaskScores(figures=figures)))
    (result,) = read_head(card)["model-index"]
    assert [(one["type"], one["value"]) for one in result["results"][0]["metrics"]] == [("mae", 123457.0)]
    assert "| Pearson's r | undefined |" in card
    assert "| MAE | 123,457 [123,457, 123,457] |" in card


def test_card_says_what_was_not_measured(on_hub: RunRecord, of_number: RunRecord) -> None:
    card = render_task_card(on_hub, build_metrics("multi_label"))
    assert "| | after |\n|---|---|\n| F1 (micro) | 0.8123 [0.8023, 0.8223] |" in card
    assert "**Calibration**: none; probabilities are what the model gives" in card
    for absent in ("McNemar", "Long texts", "before calibration", "Labels differ", "Labels not measured"):
        assert absent not in card, absent
    titles = re.findall("^#+ (.*)$", card, re.MULTILINE)
    assert titles == [
        "Multi-label text classifier made with lorafit", "Intended use", "Results on 2,000 test rows",
        "Limits that were measured", "Training data", "How to use it",
    ]  # fmt: skip
    card = render_task_card(of_number, build_metrics("regression"))
    assert "**Intervals**: none" in card
    assert "interval around" not in card


def test_baselines_stand_beside_the_model(of_number: RunRecord) -> None:
    paired = TaskComparison(differences={"mae": guess(-0.3)}, rows_gained=230, rows_lost=30, p_value=1.5e-9)
    scores = TaskScores(figures={"mae": guess(0.8)})
    changes = {
        "baseline": scores,
        "comparison": paired,
        "cheap_baselines": {"ridge": TaskCheapBaseline(scores=scores, comparison=paired)},
    }
    card = render_task_card(of_number, build_metrics("regression", **changes))
    assert "| | before | after | `ridge` |\n|---|---|---|---|\n| MAE | 0.800 [0.790, 0.810] | 0.500" in card
    assert "\n| RMSE |  | 0.700 [0.690, 0.710] |  |\n" in card
    assert "brought 230 rows nearer to their number and 30 farther (sign test, p < 0.000001)." in card


def test_labels_that_differ_and_those_without_rows_are_told(on_hub: RunRecord) -> None:
    labels = [build_label("a`|b\n<script>", 0.3, 12), build_label("good", 0.9, 1200), build_label("none", 0.0, 0)]
    figures = {"micro_f1": guess(0.8)}
    changes = {"finetuned": TaskScores(figures=figures, per_class=labels)}
    card = render_task_card(on_hub, build_metrics("multi_label", **changes))
    assert (
        "F1 of a single label reaches from 30.0% [29.0%, 31.0%] (`` a`|b <script> ``, 12 rows) to 90.0% [89.0%, 91.0%] "
        "(`good`, 1,200 rows)." in card
    )
    assert "1 label has no test row." in card
    many = [build_label(str(number), 0.0, 0) for number in range(200)]
    changes = {"finetuned": TaskScores(figures=figures, per_class=many)}
    record = on_hub.model_copy(update={"labels": [f"label {number}" for number in range(200)]})
    card = render_task_card(record, build_metrics("multi_label", **changes))
    assert "200 labels have no test row." in card
    assert "any number of 200 labels: `label 0`, " in card
    assert "`label 19`, …." in card
    assert "label 20" not in card


def test_slices_shown_to_be_worse_are_named_weakest_first_three_at_most(
    on_hub: RunRecord, of_number: RunRecord
) -> None:
    several = {"words 1-15": 0.7, "shop a|b`c\n<i>": 0.3, "shop north": 0.5, "shop east": 0.6, "shop west": 0.1}
    slices = [
        build_slice(*name.split(" ", 1), {"micro_f1": f1, "exact_match": 0.2}, 0.2 if f1 == 0.1 else 0.01)
        for name, f1 in several.items()
    ]
    card = render_task_card(on_hub, build_metrics("multi_label", slices=slices))
    (line,) = (line for line in card.splitlines() if line.startswith("* **Weakest slices**"))
    assert re.findall(r"F1 \(micro\) (0\.\d+)", line) == ["0.3000", "0.5000", "0.6000"]
    assert "`shop` `` a|b`c <i> ``, F1 (micro) 0.3000 [0.2900, 0.3100] on 1,200 rows" in line
    assert "of the 5 told apart by `words`, `shop`" in line
    assert "worse than all rows together (permutation test, Holm): " in line
    numbers = [build_slice("shop", name, {"mae": error}, 0.001) for name, error in (("a", 1.0), ("b", 20.0))]
    card = render_task_card(of_number, build_metrics("regression", slices=numbers))
    assert "`shop` `b`, MAE 20.00 [19.99, 20.01] on 1,200 rows; `shop` `a`, MAE 1.000 [0.990, 1.010] on 1,200" in card
    none = render_task_card(
        of_number, build_metrics("regression", slices=[build_slice("words", "1-15", {"mae": 1}, 1)])
    )
    assert "**Weak slices**: none of the 1 told apart by `words`" in none
    assert "slices**" not in render_task_card(of_number, build_metrics("regression"))


def test_measured_confidence_is_told(on_hub: RunRecord, of_number: RunRecord) -> None:
    figures = {"ece_raw": guess(0.08), "ece": guess(0.02)}
    confidence = TaskConfidence(calibration_rows=640, figures=figures)
    card = render_task_card(on_hub, build_metrics("multi_label", confidence=confidence))
    assert "all decisions 0.0800 as the model gives it, 0.0200 [0.0100, 0.0300] calibrated on 640 rows" in card
    assert "same labels, with the scores from before calibration" in card
    figures = {"coverage": guess(0.94), "half_width": Estimate(value=1.25, low=1.25, high=1.25)}
    confidence = TaskConfidence(calibration_rows=640, figures=figures, coverage_asked=0.95)
    card = render_task_card(of_number, build_metrics("regression", confidence=confidence))
    assert "true number of 95.0% of the texts, they hold it for 94.0% [93.0%, 95.0%]; they reach 1.250 to each" in card
    assert "`score`, without the interval around it." in card


def test_rows_and_long_texts_are_told(of_number: RunRecord) -> None:
    split = SplitRecord(rows=2000, label_counts={}, fingerprint="f", tokens=1, truncated=500)
    data = DataRecord(source="/home/ann/prices.csv", splits={"test": split}, notes=["left out <b>2</b> rows"])
    record = of_number.model_copy(update={"data": data, "truncation": "head+tail"})
    card = render_task_card(record, build_metrics("regression"))
    assert "* test: 2,000 rows\n" in card
    assert r"left out \<b\>2\</b\> rows" in card
    assert "25.0% of the test texts were longer than 64 tokens" in card
    assert "ann" not in card


def test_whole_models_are_opened_without_peft(on_hub: RunRecord, of_number: RunRecord) -> None:
    whole = {"files": {"model.safetensors": "d"}}
    card = render_task_card(on_hub.model_copy(update=whole), build_metrics("multi_label"))
    assert 'pipeline("text-classification", ".", truncation=True, top_k=None)  # where' in card
    assert "peft" not in card.lower()
    card = render_task_card(of_number.model_copy(update=whole), build_metrics("regression"))
    assert 'pipeline("text-classification", ".", truncation=True, function_to_apply="none")  # where' in card


def test_plain_code_on_the_card_gives_sigmoid_scores_or_the_number(
    build_encoder: Callable[..., Path], on_hub: RunRecord, of_number: RunRecord, tmp_path: Path
) -> None:
    base = build_encoder("distilbert", initializer_range=0.1)
    cards = {"multi_label": render_task_card(on_hub, build_metrics("multi_label"))}
    cards["regression"] = render_task_card(of_number, build_metrics("regression"))
    labels = {"multi_label": LabelSet(("a", "b", "c"), "multi_label"), "regression": LabelSet(("value",), "regression")}
    logits = {task: build_adapter(base, tmp_path / task, labels[task]) for task in cards}
    codes = {task: re.findall(r"```python\n(.*?)```", card, re.DOTALL) for task, card in cards.items()}
    assert [[len(code.split("\n\n")[1].splitlines()) for code in found] for found in codes.values()] == [[2, 3]] * 2
    runs = [
        f"os.chdir({str(tmp_path / task)!r})\n{codes[task][1]}\nanswers.append(classify({[TEXT]!r}))" for task in cards
    ]
    code = "\n".join(["import json, os", "answers = []", *runs, "print(json.dumps(answers))"])
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    process = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    several, number = json.loads(process.stdout)
    scores = {one["label"]: one["score"] for one in several[0]}
    expected = {name: 1 / (1 + math.exp(-logit)) for name, logit in zip("abc", logits["multi_label"], strict=True)}
    assert scores == pytest.approx(expected, abs=1e-5)
    assert not 0 < logits["regression"][0] < 1, "a number that no probability can be"
    assert number == [{"label": "value", "score": pytest.approx(logits["regression"][0], abs=1e-5)}]


def build_adapter(base: Path, folder: Path, labels: LabelSet) -> list[float]:
    """Write what a run writes, of a random adapter; return its logits of `TEXT`."""
    import torch

    from lorafit.config import MethodConfig, ModelConfig
    from lorafit.models.adaptation import apply_method
    from lorafit.models.load import load_tokenizer, load_with_head, locate_encoder
    from lorafit.runs.saving import write_trained

    encoder = locate_encoder(ModelConfig(name=str(base)))
    loaded = load_with_head(encoder, labels)
    adapted = apply_method(loaded.model, MethodConfig(r=4), newly_initialised=loaded.newly_initialised)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in adapted.model.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.3, generator=generator)
    folder.mkdir()
    write_trained(adapted, encoder, folder, max_length=64)
    tokenizer, _ = load_tokenizer(folder)
    ids = torch.tensor([tokenizer.encode(TEXT).ids])
    with torch.no_grad():
        logits: list[float] = (
            adapted.model.eval()(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0].tolist()
        )
    return logits
