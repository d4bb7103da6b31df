"""The pages of a comparison, of a search and of a check in a real browser."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lorafit.data.quality.findings import Finding, FoundRow, Place, Scope
from lorafit.data.quality.report import CheckReport, Lengths
from lorafit.experiments.compare.page import render_page as render_comparison
from lorafit.experiments.compare.records import BaselineRow, Cell, ComparisonRecord, MethodRow
from lorafit.experiments.search.page import render_page as render_search
from lorafit.experiments.search.records import SearchRecord, TrialRow
from lorafit.models.records import ParameterCounts
from lorafit.reports.check_page import render_page as render_check
from lorafit.tasks.records import Estimate

pytestmark = pytest.mark.browser

HEAD = {
    "created": "2026-01-01T00:00:00+00:00",
    "versions": {"torch": "2.13.0", "transformers": "5.23.0"},
    "cpu": "a processor with a long name of its own",
    "task": "single_label",
    "source": "reviews.csv",
    "base_model": "builtin:distil-minilm",
    "rows": {"train": 100, "validation": 10, "test": 20},
    "fingerprints": {},
}
SPACE = {"method.r": [4, 8], "training.learning_rate": {"low": 1e-5, "high": 1e-3, "log": True}}


def write_comparison() -> str:
    def estimate(value: float) -> Estimate:
        return Estimate(value=value, low=value - 0.02, high=value + 0.02)

    methods = [
        MethodRow(
            method=method,
            seeds=[0, 1],
            validation_loss=0.3,
            score=estimate(0.8 + 0.02 * place),
            score_by_seed=[0.8, 0.82],
            difference=estimate(-0.01) if place else None,
            p_value=0.03 if place else None,
            verdict="inconclusive" if place else None,
            parameters=ParameterCounts(adapter=100_000, head=1000, total=22_000_000),
            bytes_on_disk=10**6,
            training_seconds=10.0 * 3**place,
            epoch_seconds=5,
            peak_memory_bytes=10**9,
            texts_per_second=1000,
        )
        for place, method in enumerate(("lora", "ia3", "head_only", "full"))
    ]
    return render_comparison(
        ComparisonRecord(
            **HEAD,
            threads=2,
            precision="fp32",
            settings={"model": {"max_length": 8, "truncation": "head"}, "training": {"epochs": 1}},
            confidence_level=0.95,
            best="lora",
            methods=methods,
            baselines=[
                BaselineRow(name="nb_svm", score=estimate(0.7), difference=estimate(-0.1), verdict="worse", seconds=1)
            ],
            failed=[Cell(method="dora", seed=0, error=f"<script>alert(1)</script> {'unbreakable' * 20}")],
        )
    )


def write_search() -> str:
    trials = [
        TrialRow(
            number=number,
            state=("complete", "pruned")[number % 3 == 2],
            values={"method.r": 4, "training.learning_rate": 0.0001234},
            loss=0.3 + 0.01 * (number % 5),
            score=0.9,
            seconds=12.0,
        )
        for number in range(24)
    ]
    importances = {"training.learning_rate": 0.8, "method.r": 0.2}
    return render_search(SearchRecord(**HEAD, space=SPACE, best=0, importances=importances, trials=trials))


def write_check() -> str:
    labels = {"a label": 900, "unbreakable" * 6: 100}
    finding = Finding(
        name="leaks",
        severity="error",
        split="test",
        count=2,
        share=0.5,
        scope=Scope(rows=4, of=4),
        message=f"The label '{'unbreakable' * 3}' is not in train.",
        remedy=f"lorafit check {'folder/' * 20}reviews.csv --fix leaks",
        rows=(FoundRow(split="test", row=1, kept=Place(split="train", row=123456)),),
    )
    report = CheckReport(
        created=HEAD["created"],
        source=f"{'folder/' * 20}reviews.csv",
        task="single_label",
        seed=0,
        seconds=1,
        rows={"train": 1000, "test": 4},
        labels={"train": labels, "test": dict.fromkeys(labels, 2)},
        lengths=Lengths(edges=[1, 10, 100, 1000], counts={label: [1, 2, 3] for label in labels}),
        findings=[finding, finding.model_copy(update={"severity": "note"})],
    )
    return render_check(report, {("test", 1): f"<script>alert(1)</script> {'unbreakable' * 20}"})


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("write", [write_comparison, write_search, write_check])
def test_page_is_whole_quiet_and_fits(
    chromium: Any,  # noqa: ANN401 - of the conftest
    tmp_path: Path,
    write: Callable[[], str],
    scheme: str,
    width: int,
) -> None:
    page = tmp_path / "page.html"
    page.write_text(write(), encoding="utf-8")
    visit = chromium.open(page, width=width, scheme=scheme)
    assert (visit.complaints, visit.requests) == ([], [])
    needed, there = chromium.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert needed <= there == width
    sizes = chromium.evaluate("[...document.querySelectorAll('svg')].map(one => one.getBoundingClientRect().height)")
    assert sizes
    assert min(sizes) > 30
