"""The card of every task as the Hub's own library reads it, as Markdown shows it, and as plain libraries run it."""

import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from huggingface_hub.utils import validate_repo_id
from markdown_it import MarkdownIt

from lorafit.models.records import BaseModelRecord
from lorafit.reports.model_card import render_model_card
from lorafit.runs.folder import RunLayout
from lorafit.runs.records import DataRecord, RunRecord, SplitRecord
from lorafit.system.text import Text
from lorafit.tasks.base import Task
from lorafit.tasks.evaluation import describe_changed_rows
from lorafit.tasks.records import ClassScores, Estimate, MetricsRecord, SliceScores
from lorafit.tasks.registry import TASKS, build_task

Finished = tuple[RunRecord, MetricsRecord]
NASTY = "a|b`c](http://x.y)<script>alert(1)</script>\n# *_x_* ~~&lt;\x1b]0;evil"
SHOWN = "a|b`c](http://x.y)<script>alert(1)</script> # *_x_* ~~&lt;\N{REPLACEMENT CHARACTER}]0;evil"


def guess(value: float, width: float = 0.01) -> Estimate:
    return Estimate(value=value, low=value - width, high=value + width)


@pytest.fixture
def finish(write_run: Callable[..., Path]) -> Callable[..., Finished]:
    """Records of a finished run of a task."""

    def finish(task: str, **wishes: Any) -> Finished:
        layout = RunLayout(write_run(task, **wishes))
        return RunRecord.read(layout.record), MetricsRecord.read(layout.metrics)

    return finish


@pytest.fixture
def bare(finish: Callable[..., Finished]) -> Callable[[str], Finished]:
    """Records of a run in which only the fine-tuned model was measured, and no slices."""

    def bare(task: str) -> Finished:
        record, metrics = finish(task, name=task, before=False, baselines=False, calibration=False)
        return record, metrics.model_copy(update={"slices": []})

    return bare


def read_head(card: str) -> dict[str, Any]:
    head: dict[str, Any] = yaml.safe_load(card.split("---\n")[1])
    return head


def read_body(card: str) -> list[Any]:
    """Return what a Markdown reader makes of the card without its head: blocks, and what stands in them."""
    blocks = MarkdownIt().enable("table").parse(card.split("---\n", 2)[2])
    return [part for block in blocks for part in (block, *(block.children or ()))]


RESULTS: dict[str, dict[str, dict[str, Any]]] = {
    "single_label": {"accuracy": {}, "f1": {"average": "macro"}, "ece": {}},
    "multi_label": {"f1": {"average": "micro"}, "exact_match": {}},
    "regression": {"mae": {}, "mse": {}, "r_squared": {}, "pearsonr": {}},
    "ordinal": {"mae": {}, "accuracy": {}},
}
"""Metrics of the model index by task, each with its arguments; of two with one name the first."""


@pytest.mark.parametrize("task", TASKS)
def test_the_hubs_library_reads_the_metadata_and_gives_them_back(finish: Callable[..., Finished], task: str) -> None:
    record, metrics = finish(task)
    base = BaseModelRecord(name="distilbert/base", revision="abc", digest="d", architecture="distilbert")
    data = record.data.model_copy(update={"source": "hub:me/mails@v2"})
    card = render_model_card(record.model_copy(update={"base_model": base, "data": data}), metrics)
    parsed = ModelCard(card).data
    assert isinstance(parsed, ModelCardData)
    assert parsed.to_dict() == read_head(card), "nothing is lost or added"
    assert {name: parsed[name] for name in ("base_model", "datasets", "library_name", "pipeline_tag", "tags")} == {
        "base_model": "distilbert/base",
        "datasets": ["me/mails"],
        "library_name": "peft",
        "pipeline_tag": "text-classification",
        "tags": ["lorafit", "lora", task],
    }
    assert parsed.model_name == "mails-v2-base-lora"
    assert parsed["metrics"] == [name for name in RESULTS[task] if name != "ece"]
    results = {one.metric_type: one for one in reversed(parsed.eval_results or [])}
    assert {name: one.metric_args or {} for name, one in results.items()} == RESULTS[task]
    first = (parsed.eval_results or [])[0]
    assert first == EvalResult(
        task_type="text-classification",
        task_name=build_task(task, record.labels).wording.activity,
        dataset_type="me/mails",
        dataset_name="hub:me/mails@v2",
        dataset_revision="v2",
        dataset_split="test",
        metric_type=next(iter(RESULTS[task])),
        metric_name=first.metric_name,
        metric_args=first.metric_args,
        metric_value=float(f"{next(iter(metrics.after.metrics.values())).value:.6g}"),
    )


def test_numbers_of_the_model_index_have_six_digits_and_what_is_undefined_is_left_out(
    bare: Callable[[str], Finished],
) -> None:
    record, metrics = bare("regression")
    measured = {"mae": guess(123456.789), "rmse": guess(0.7), "r2": guess(0.8765432109), "pearson": guess(math.nan)}
    after = metrics.after.model_copy(update={"metrics": measured})
    card = render_model_card(record, metrics.model_copy(update={"after": after}))
    (result,) = read_head(card)["model-index"][0]["results"]
    values = {one["type"]: one["value"] for one in result["metrics"]}
    assert values == {"mae": 123457.0, "mse": 0.49, "r_squared": 0.876543}
    assert "| Pearson's r | undefined |" in card
    assert "| MAE | 123,457 [123,457, 123,457] |" in card


@pytest.mark.parametrize(
    ("source", "datasets", "dataset"),
    [
        ("imdb", ["stanfordnlp/imdb"], {"name": "imdb", "type": "stanfordnlp/imdb"}),
        ("hub:imdb", ["imdb"], {"name": "hub:imdb", "type": "imdb"}),
        ("hub:a/b:mood@v1", ["a/b"], {"name": "hub:a/b:mood@v1", "type": "a/b", "revision": "v1"}),
        ("builtin:rotten-tomatoes", None, {"name": "builtin:rotten-tomatoes", "type": "text"}),
        ("/home/ann/mails, all", None, {"name": "mails, all", "type": "text"}),
        ("mails.c\x1bsv|x", None, {"name": "mails.c\N{REPLACEMENT CHARACTER}sv|x", "type": "text"}),
        ("/home/ann/secret/mails.parquet", None, {"name": "mails.parquet", "type": "parquet"}),
        ("C:\\Users\\ann\\mails.csv", None, {"name": "mails.csv", "type": "csv"}),
    ],
)
def test_data_of_the_hub_are_named_by_their_id_and_files_without_their_folder(
    bare: Callable[[str], Finished], source: str, datasets: list[str] | None, dataset: dict[str, str]
) -> None:
    record, metrics = bare("single_label")
    card = render_model_card(record.model_copy(update={"data": DataRecord(source=source, splits={})}), metrics)
    head = read_head(card)
    assert head.get("datasets") == datasets
    assert head["model-index"][0]["results"][0]["dataset"] == {**dataset, "split": "test"}
    for name in (dataset["type"], *(datasets or [])):
        validate_repo_id(name)
    assert "ann" not in card
    assert ModelCard(card).data.to_dict() == head


def test_folder_of_the_base_is_not_told(bare: Callable[[str], Finished]) -> None:
    record, metrics = bare("single_label")
    base = BaseModelRecord(name="/home/ann/models/tiny", revision=None, digest="d", architecture="bert")
    card = render_model_card(record.model_copy(update={"base_model": base}), metrics)
    assert "Base: `tiny` (bert)" in card
    assert "/home" not in card
    assert "base_model" not in read_head(card)
    assert read_head(card)["license"] == "unknown", "whoever owns the base has to say"


@pytest.mark.parametrize("task", TASKS)
def test_names_from_outside_are_shown_as_they_are_and_are_no_markup(
    finish: Callable[..., Finished], bare: Callable[[str], Finished], task: str
) -> None:
    names = [f"{NASTY} {number}" for number in range(3)]
    record, metrics = finish(task, columns={"shop": ["north", "south"]}, rows=100)
    weak = [
        one.model_copy(update={"column": NASTY, "value": name, "adjusted_p_value": 0.001})
        for one, name in zip(metrics.slices, names, strict=False)
    ]
    labels = [
        ClassScores(label=name, precision=guess(0.5), recall=guess(0.5), f1=guess(0.5), support=10) for name in names
    ]
    is_named = bool(metrics.after.per_class)
    after = metrics.after.model_copy(update={"per_class": labels if is_named else []})
    split = SplitRecord(rows=10, label_counts={NASTY: 10}, fingerprint="f", tokens=1, truncated=1)
    kept = {
        "labels": names if is_named and task != "ordinal" else record.labels,
        "data": DataRecord(source=f"/home/ann/{NASTY.replace('/', '')}", splits={"test": split}, notes=[NASTY]),
        "base_model": BaseModelRecord(name=NASTY, revision="r", digest="d", architecture=NASTY),
        "method": NASTY,
    }
    changes = {"slices": weak, "after": after, "baselines": {NASTY: next(iter(metrics.baselines.values()))}}
    card = render_model_card(record.model_copy(update=kept), metrics.model_copy(update=changes))
    assert ModelCard(card).data.to_dict() == read_head(card)
    assert read_head(card)["base_model"] == NASTY

    parts = read_body(card)
    kinds = {part.type for part in parts}
    assert kinds.isdisjoint({"html_block", "html_inline", "link_open", "image", "em_open", "s_open", "hr"}), kinds
    assert "\x1b" not in card.split("---\n", 2)[2]
    headings = [part.content for before, part in pairwise(parts) if before.type == "heading_open"]
    assert headings[1:] == [
        "Intended use", "Results on 100 test rows", "Limits that were measured", "Training data", "How to use it"
    ]  # fmt: skip
    codes = [part.content for part in parts if part.type == "code_inline"]
    wanted = {SHOWN, f"{SHOWN} 0"} | ({f"{SHOWN} 2"} if is_named else set())
    assert wanted <= set(codes), codes
    texts = "".join(part.content for part in parts if part.type in {"text", "text_special"})
    assert texts.count(SHOWN) == 3, "architecture, baseline and note"
    rows = [part.type for part in parts if part.type in {"tr_open", "th_open", "td_open"}]
    columns = 4
    assert rows.count("th_open") == columns
    assert rows.count("td_open") == columns * (rows.count("tr_open") - 1), "no cell is torn apart"
    assert [part.tag for part in parts].count("ul") in {4, 6}


@pytest.mark.parametrize("task", TASKS)
def test_what_was_not_measured_is_said_and_nothing_else(bare: Callable[[str], Finished], task: str) -> None:
    record, metrics = bare(task)
    known = record.build_task()
    wording, written = known.wording, known.primary_metric.write(metrics.after.metrics[known.primary])
    card = render_model_card(record, metrics)
    assert f"# {wording.title} made with lorafit\n" in card
    assert f"| | after |\n|---|---|\n| {known.primary_metric.title} | {written} |\n" in card
    subject, _, sentence = wording.uncalibrated.partition(": ")
    assert f"* **{subject}**: {sentence}\n" in card
    absent = [wording.test, "eak", "Conformal", "Abstaining", "fitted on", "reads head", "ece", "before calibration"]
    assert [words for words in absent if words in card] == []
    assert "without the interval" not in card


@pytest.mark.parametrize("task", TASKS)
def test_models_stand_beside_each_other_with_every_metric(finish: Callable[..., Finished], task: str) -> None:
    record, metrics = finish(task)
    known = record.build_task()
    card = render_model_card(record, metrics)
    assert metrics.before is not None
    assert metrics.comparison is not None
    titles = [known.baselines[name] for name in metrics.baselines]
    assert f"| | before | after | {' | '.join(titles)} |\n" in card
    for name, metric in known.metrics.items():
        scores = [metrics.before, metrics.after, *(one.scores for one in metrics.baselines.values())]
        cells = (metric.write(one.metrics[name]) for one in scores)
        assert f"\n| {metric.title} | {' | '.join(cells)} |\n" in card
    assert "In brackets: 95 % confidence intervals over the test rows." in card
    assert f"\nTraining: {describe_changed_rows(known, metrics.comparison)}.\n" in card


@pytest.mark.parametrize("task", TASKS)
def test_calibration_is_told(finish: Callable[..., Finished], task: str) -> None:
    record, metrics = finish(task, rows=200)
    assert metrics.calibration is not None
    told = record.build_task().describe_calibration(metrics.calibration)
    assert told
    card = render_model_card(record, metrics)
    for sentence in told:
        subject, _, rest = sentence.partition(": ")
        assert f"* **{subject}**: {rest}\n" in card


@pytest.mark.parametrize(
    ("measured", "told"),
    [
        (
            {"accept_threshold": 0.91, "accepted_share": 0.83, "accepted_accuracy": 0.981},
            "confidence of less than 91.0 % abstain; 83.0 % are accepted, and of those 98.1 % are right.",
        ),
        (
            {"accept_threshold": 0.91, "accepted_share": 0.0, "accepted_accuracy": math.nan},
            "confidence of less than 91.0 % abstain; 0.0 % are accepted, and of those there are none.",
        ),
        (
            {"accept_threshold": math.nan, "accepted_share": 0.0, "accepted_accuracy": math.nan},
            "no confidence is high enough for an accuracy of 90 %, so every prediction abstains.",
        ),
    ],
)
def test_operating_point_is_told_also_where_nothing_is_accepted(
    finish: Callable[..., Finished], measured: dict[str, float], told: str
) -> None:
    record, metrics = finish("single_label")
    assert metrics.calibration is not None
    estimates = {name: Estimate(value=value, low=math.nan, high=math.nan) for name, value in measured.items()}
    scores = metrics.calibration.model_copy(update={"metrics": {**metrics.calibration.metrics, **estimates}})
    card = render_model_card(record, metrics.model_copy(update={"calibration": scores}))
    (line,) = (line for line in card.splitlines() if line.startswith("* **Abstaining**: "))
    assert line.endswith(told)


@pytest.mark.parametrize("task", TASKS)
def test_slices_shown_to_be_worse_are_named_weakest_first_three_at_most(
    bare: Callable[[str], Finished], task: str
) -> None:
    record, metrics = bare(task)
    known = record.build_task()
    sign = 1 if known.primary_metric.higher_is_better else -1
    strengths = {"north": 0.4, "east": 0.6, "a|b`c\n<i>": 0.2, "south": 0.8, "west": 0.1}

    def build(value: str, strength: float) -> SliceScores:
        level = strength if sign > 0 else 1 - strength
        p_value = 0.2 if value == "west" else 0.01
        scores = {name: guess(level) for name in known.slice_metrics}
        return SliceScores(
            column="shop", value=value, rows=1200, metrics=scores, differences={}, adjusted_p_value=p_value
        )

    slices = [build(*item) for item in strengths.items()]
    card = render_model_card(record, metrics.model_copy(update={"slices": slices}))
    (line,) = (line for line in card.splitlines() if line.startswith("* **Weakest slices**"))
    assert re.findall(r"`shop` (`.*?), ", line) == ["`` a|b`c <i> ``", "`north`", "`east`"]
    assert f", {known.primary_metric.title} " in line
    assert "of the 5 by `shop` (`words` is the length" in line
    assert line.endswith(" on 1,200 rows.")
    few = render_model_card(record, metrics.model_copy(update={"slices": slices[-1:]}))
    assert "**Weak slices**: none of the 1 by `shop`" in few


def test_labels_that_differ_and_those_without_rows_are_told(bare: Callable[[str], Finished]) -> None:
    def build(name: str, f1: float, support: int) -> ClassScores:
        return ClassScores(label=name, precision=guess(f1), recall=guess(f1), f1=guess(f1), support=support)

    record, metrics = bare("multi_label")
    labels = [build("poor", 0.3, 12), build("good", 0.9, 1200), build("none", math.nan, 0)]
    after = metrics.after.model_copy(update={"per_class": labels})
    card = render_model_card(record, metrics.model_copy(update={"after": after}))
    assert (
        "F1 of a single label ranges from 30.0 % [29.0, 31.0] (`poor`, 12 rows) to 90.0 % [89.0, 91.0] (`good`, 1,200 "
        "rows)." in card
    )
    assert "1 label has no test row." in card
    many = [build(str(number), math.nan, 0) for number in range(200)]
    after = metrics.after.model_copy(update={"per_class": many})
    record = record.model_copy(update={"labels": [f"label {number}" for number in range(200)]})
    card = render_model_card(record, metrics.model_copy(update={"after": after}))
    assert "200 labels have no test row." in card
    assert "any number of 200 labels: `label 0`, " in card
    assert "`label 19`, …." in card
    assert "label 20" not in card


def test_rows_cuts_and_long_texts_are_told(bare: Callable[[str], Finished]) -> None:
    def build_split(rows: int, counts: dict[str, int]) -> SplitRecord:
        return SplitRecord(rows=rows, label_counts=counts, fingerprint="f", tokens=1, truncated=rows // 4)

    record, metrics = bare("single_label")
    many = {f"label {number}": number + 3 for number in range(21)}
    splits = {
        "train": build_split(9000, {"neg": 5000, "a`b": 4000}),
        "test": build_split(2000, many),
        "more": build_split(5, {}),
    }
    notes = ["- mails.csv: left out 2 rows", "1. of these", "10% of *all*"]
    data = DataRecord(source="mails.csv", splits=splits, notes=notes)
    changes = {"data": data, "truncation": "head+tail", "labels": list(many), "max_length": 1024}
    card = render_model_card(record.model_copy(update=changes), metrics)
    assert "* train: 9,000 rows (`neg` 5,000, `` a`b `` 4,000)\n" in card
    assert "* test: 2,000 rows (21 labels, 3 to 23 rows each)\n" in card
    assert "* more: 5 rows\n" in card
    assert "* \\- mails.csv: left out 2 rows\n* 1\\. of these\n* 10% of \\*all\\*\n" in card
    assert "25.0 % of the test texts were longer than 1,024 tokens and were cut (head+tail)" in card
    assert "one of 21 classes: `label 0`" in card
    assert "longer than 1,024 tokens they read the head; lorafit reads head and tail" in card


@pytest.mark.parametrize("task", TASKS)
def test_whole_models_are_opened_without_peft(bare: Callable[[str], Finished], task: str) -> None:
    record, metrics = bare(task)
    card = render_model_card(record.model_copy(update={"files": {"model.safetensors": "d"}}), metrics)
    options = record.build_task().wording.pipeline_options
    assert f'pipeline("text-classification", ".", truncation=True, max_length={record.max_length}{options})' in card
    assert "peft" not in card.lower()
    assert "not on the Hub" not in card


def test_pooled_models_are_opened_by_sentence_transformers(bare: Callable[[str], Finished]) -> None:
    record, metrics = bare("multi_label")
    files = {"model.safetensors": "d", "modules.json": "d"}
    card = render_model_card(record.model_copy(update={"files": files, "truncation": "windows"}), metrics)
    assert read_head(card)["library_name"] == "sentence-transformers"
    assert 'model = SentenceTransformer(".")' in card
    assert "lorafit averages the logits of windows, 32 at most" in card
    assert "pipeline(" not in card
    assert "peft" not in card.lower()


def test_built_in_base_is_traced_to_its_origin(bare: Callable[[str], Finished]) -> None:
    record, metrics = bare("single_label")
    base = BaseModelRecord(name="builtin:distil-minilm", revision=None, digest="d", architecture="distilbert")
    card = render_model_card(record.model_copy(update={"base_model": base}), metrics)
    assert "The base is sentence-transformers/all-MiniLM-L6-v2, converted to the architecture `distilbert`." in card
    assert "not on the Hub: lorafit makes it in its cache when it is first used." in card
    head = read_head(card)
    assert (head["base_model"], head["license"]) == ("sentence-transformers/all-MiniLM-L6-v2", "apache-2.0")
    validate_repo_id(head["base_model"])
    assert ModelCard(card).data.to_dict() == head


@pytest.mark.parametrize(
    ("policy", "parts"),
    [("head", "the head."), ("tail", "the head; lorafit reads the tail"), ("head+tail", "head and tail")],
)
def test_part_of_a_long_text_that_is_read_is_told(bare: Callable[[str], Finished], policy: str, parts: str) -> None:
    record, metrics = bare("single_label")
    card = render_model_card(record.model_copy(update={"truncation": policy}), metrics)
    assert ("longer than 64 tokens they read" in card) == (policy != "head")
    assert policy == "head" or parts in card


def test_model_for_pairs_is_shown_with_pairs(bare: Callable[[str], Finished]) -> None:
    record, metrics = bare("single_label")
    card = render_model_card(record.model_copy(update={"pair": True}), metrics)
    assert "It gives each pair of texts one of 2 classes" in card
    assert 'model.predict([("What a lovely surprise.", "I knew it.")])' in card
    assert 'classify({"text": "What a lovely surprise.", "text_pair": "I knew it."})' in card


@pytest.mark.parametrize("stride", [None, 5])
@pytest.mark.parametrize("text", ["dull story " * 60, ("dull story " * 60, "what a superb film")], ids=["text", "pair"])
def test_code_for_long_texts_averages_windows_as_lorafit_does(
    tiny_bert: Path, bare: Callable[[str], Finished], text: Text, stride: int | None
) -> None:
    from transformers import AutoTokenizer

    from lorafit.config import ModelConfig
    from lorafit.inference.predictor import Predictor
    from lorafit.models.acceleration.precision import PrecisionChoice
    from lorafit.models.load import load_tokenizer, load_with_head, locate_encoder
    from lorafit.models.runtimes.pytorch import TorchRuntime
    from lorafit.models.tokenization import Truncation

    record, metrics = bare("single_label")
    is_pair, length = isinstance(text, tuple), 20
    changes = {"truncation": "windows", "window_stride": stride, "pair": is_pair, "max_length": length}
    card = render_model_card(record.model_copy(update=changes), metrics)
    model = load_with_head(locate_encoder(ModelConfig(name=str(tiny_bert))), record.build_task()).model
    predictor = Predictor(
        TorchRuntime(model, PrecisionChoice("fp32", "for the test")),
        load_tokenizer(tiny_bert),
        task=record.build_task(),
        truncation=Truncation(length, "windows", stride),
        pair=is_pair,
    )
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert, model_max_length=length)
    names = {"classify": SimpleNamespace(model=model, tokenizer=tokenizer)}
    names |= dict(zip(("text", "text_pair"), text if is_pair else (text,), strict=False))
    exec(re.findall(r"```python\n(.*?)```", card, re.DOTALL)[-1], names)  # noqa: S102 - that the code runs is the test
    assert names["logits"].tolist() == pytest.approx(predictor.compute_logits([text])[0].tolist(), abs=1e-5)


TEXTS = ["what a superb film", "dull story " * 300]


@pytest.mark.slow
def test_code_on_the_card_gives_the_models_predictions(
    build_encoder: Callable[..., Path], bare: Callable[[str], Finished], tmp_path: Path
) -> None:
    base, logits, parts = build_encoder("distilbert", initializer_range=0.1), {}, ["import json, os", "answers = {}"]
    for task in TASKS:
        record, metrics = bare(task)
        record = record.model_copy(update={"max_length": 64})
        folder = tmp_path / "adapters" / task
        logits[task] = build_adapter(base, folder, record.build_task())
        _, plain = re.findall(r"```python\n(.*?)```", render_model_card(record, metrics), re.DOTALL)
        parts += [f"os.chdir({str(folder)!r})", plain, f"answers[{task!r}] = classify({TEXTS!r})"]
    process = subprocess.run(
        [sys.executable, "-c", "\n".join([*parts, "print(json.dumps(answers))"])],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    answers = json.loads(process.stdout)
    assert {len(answer) for answer in answers.values()} == {2}, "a text that is too long is cut"
    for task in TASKS:
        first = answers[task][0]
        scores = {one["label"]: one["score"] for one in (first if isinstance(first, list) else [first])}
        assert scores == pytest.approx(EXPECTED[task](logits[task]), abs=1e-4)
    assert not 0 < logits["regression"][0] < 1, "a number that no probability can be"


def sigmoid(logits: Any) -> list[float]:  # noqa: ANN401 - an array
    values: list[float] = (1 / (1 + np.exp(-logits))).tolist()
    return values


EXPECTED: dict[str, Callable[[Any], dict[str, float]]] = {
    "single_label": lambda logits: {
        ("neg", "pos")[logits.argmax()]: float(np.exp(logits.max()) / np.exp(logits).sum()),
    },
    "multi_label": lambda logits: dict(zip(("bad", "long", "odd"), sigmoid(logits), strict=True)),
    "regression": lambda logits: {"value": float(logits[0])},
    "ordinal": lambda logits: {
        f"at least {score}": value for score, value in zip((2, 3, 4, 5), sigmoid(logits), strict=True)
    },
}
"""What plain libraries give for logits."""


def build_adapter(base: Path, folder: Path, task: Task) -> Any:  # noqa: ANN401 - an array
    """Write what a run writes, of a random adapter; return its logits of the first text."""
    import torch

    from lorafit.config import MethodConfig, ModelConfig
    from lorafit.models.adaptation import apply_method
    from lorafit.models.load import load_tokenizer, load_with_head, locate_encoder
    from lorafit.runs.saving import write_trained

    encoder = locate_encoder(ModelConfig(name=str(base)))
    loaded = load_with_head(encoder, task)
    adapted = apply_method(loaded.model, MethodConfig(r=4), newly_initialised=loaded.newly_initialised)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in adapted.model.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.3, generator=generator)
    folder.mkdir(parents=True)
    write_trained(adapted, encoder, folder, max_length=64)
    tokenizer, _ = load_tokenizer(folder)
    ids = torch.tensor([tokenizer.encode(TEXTS[0]).ids])
    with torch.no_grad():
        return adapted.model.eval()(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0].numpy()


def test_card_names_labels_never_predicted_and_tokens_not_known(finish: Callable[..., Finished]) -> None:
    after = [[0.1, 0.9]] * 20
    record, metrics = finish("single_label", labels=["fraud", "ok"], y=[0] + [1] * 19, after=after, calibration=False)
    card = render_model_card(record, metrics)
    assert "* **Labels never predicted**: 'fraud' is never predicted (recall 0 of 1). Look at F1 (macro)" in card
    assert "--class-weights" not in card, "its readers did not train it"
    assert "| Majority class |" in card
    for absent in ("**Unknown tokens**", "**Probabilities**"):
        assert absent not in card
    test = record.data.splits["test"].model_copy(update={"unknown_share": 0.301})
    data = record.data.model_copy(update={"splits": record.data.splits | {"test": test}})
    changes = {"data": data, "balancing": ["training.sampling=balanced"]}
    card = render_model_card(record.model_copy(update=changes), metrics)
    assert "* **Unknown tokens**: the tokenizer does not know 30.1 % of the tokens of the test texts" in card
    assert "* **Probabilities**: Trained with training.sampling=balanced: probabilities are those of" in card
