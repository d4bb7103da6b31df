from pathlib import Path

import pytest

from lorafit.data.quality.findings import Finding, FoundRow, Place, Scope
from lorafit.data.quality.report import CheckReport, Lengths, Skipped
from lorafit.reports.check_page import draw_plots, render_page

SCOPE = Scope(rows=100, of=400, seed=0)


def make_report(labels: dict[str, dict[str, int]], *findings: Finding) -> CheckReport:
    return CheckReport(
        created="2026-01-01T00:00:00+00:00",
        source="reviews.csv",
        task="single_label",
        seed=0,
        seconds=1.5,
        rows={"train": 400, "test": 40},
        labels=labels,
        lengths=Lengths(edges=[1, 10, 100], counts={"neg": [1, 2], "pos": [3, 4]}),
        findings=list(findings),
        skipped=[Skipped(what="languages", why="py3langid is not installed")],
        versions={"lorafit": "0.1.0"},
    )


LEAK = Finding(
    name="leaks",
    severity="error",
    split="test",
    count=20,
    share=0.5,
    scope=SCOPE,
    message="20 test rows have the same text as a row of train.",
    remedy="lorafit check reviews.csv --fix leaks",
    rows=(FoundRow(split="test", row=7, kept=Place(split="train", row=1234)), FoundRow(split="test", row=9)),
)


def test_page_holds_findings_rows_remedies_and_what_was_skipped() -> None:
    page = render_page(make_report({"train": {"neg": 200, "pos": 200}, "test": {"neg": 20, "pos": 20}}, LEAK), {})
    for part in ("1 error", LEAK.message, "7 (as train 1,234), 9 and 18 more", LEAK.remedy, "py3langid", "1.5 s"):
        assert part in page, part
    assert page.count("<svg") == 2
    assert "<details><summary>Texts" not in page


def test_texts_are_escaped_and_cut() -> None:
    texts = {("test", 7): "<script>alert(1)</script>" + "x" * 500, ("train", 1234): "other\x00text"}
    page = render_page(make_report({"train": {}, "test": {}}, LEAK), texts)
    assert "&lt;script&gt;alert(1)" in page
    assert "<script>" not in page
    assert "x" * 180 not in page
    assert "other\N{REPLACEMENT CHARACTER}text" in page
    assert page.count("<svg") == 1  # numbers have no labels to count


def test_page_is_written_without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lorafit.reports.check_page.can_draw", lambda: False)
    page = render_page(make_report({"train": {"neg": 1, "pos": 2}}), {})
    assert "pip install" in page
    assert "nothing found" in page


def test_many_labels_are_drawn_by_their_rows(tmp_path: Path) -> None:
    labels = {f"label {number}": number for number in range(1, 50)}
    plot = next(draw_plots(make_report({"train": labels})))
    assert plot.caption == "The 20 labels with most training rows; 29 more are not shown."
    (axes,) = plot.figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()][:2] == ["label 49", "label 48"]
