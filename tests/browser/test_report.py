"""The report in a real browser: nothing complains, nothing sticks out, everything is there."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import lorafit
from lorafit.config import load_config
from lorafit.reports.page import write_report

pytestmark = pytest.mark.browser

FIGURES = """
[...document.querySelectorAll("svg, img")].map(image => {
    const {width, height} = image.getBoundingClientRect();
    return {name: image.getAttribute("aria-label") || image.alt, width, height};
})
"""
OVERFLOW = "[document.documentElement.scrollWidth, innerWidth]"
CUT_TEXTS = """
[...document.querySelectorAll("svg")].flatMap(image => {
    const frame = image.getBoundingClientRect();
    return [...image.querySelectorAll("text")].filter(text => {
        const box = text.getBoundingClientRect();
        return box.left < frame.left - 2 || box.right > frame.right + 2 || box.bottom > frame.bottom + 2;
    }).map(text => text.textContent);
})
"""
RUNS: dict[str, dict[str, Any]] = {
    "two classes": {"rows": 300},
    "ten rows, bare": {"rows": 10, "baseline": False, "cheap": False, "calibrated": False, "history": False},
    "twelve long names": {"names": [f"a category with number {number}" for number in range(12)], "rows": 240},
    "two hundred classes": {"names": [f"intent {number}" for number in range(200)], "rows": 600},
    "markup": {"names": ["</svg><img src=x onerror=alert(1)>", "<script>alert(2)</script>", "x" * 300], "rows": 60},
}


def write_text(row: int, name: str) -> str:
    words = ["a", "long", "film", "about", "people", "<script>alert(1)</script>", "&amp;", "<b>who</b>", "look", "for"]
    longest = "unbreakable" * 30 if row % 7 == 0 else ""
    return f"{name} {row} {longest} " + " ".join(random.Random(row).choices(words, k=row % 150))  # noqa: S311


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("run", RUNS)
def test_report_is_whole_quiet_and_fits(
    chromium: Any,  # noqa: ANN401 - of the conftest
    build_run: Callable[..., Path],
    run: str,
    scheme: str,
    width: int,
) -> None:
    visit = chromium.open(write_report(build_run(texts=write_text, **RUNS[run])), width=width, scheme=scheme)
    assert visit.complaints == []
    assert visit.requests == [], "the page asks for nothing"
    needed, there = chromium.evaluate(OVERFLOW)
    assert there == width
    assert needed <= width
    figures = chromium.evaluate(FIGURES)
    assert len(figures) >= 3
    assert [one for one in figures if not one["name"] or one["width"] < 250 or one["height"] < 50] == []
    assert chromium.evaluate(CUT_TEXTS) == []
    chromium.evaluate("document.querySelectorAll('details').forEach(details => { details.open = true; })")
    assert chromium.evaluate(OVERFLOW)[0] <= width, "with every table open, too"


@pytest.mark.parametrize(("scheme", "dark"), [("light", False), ("dark", True)])
def test_report_follows_the_colours_of_the_screen(
    chromium: Any,  # noqa: ANN401 - of the conftest
    build_run: Callable[..., Path],
    scheme: str,
    dark: bool,
) -> None:
    page = write_report(build_run())
    chromium.open(page, width=1280, scheme=scheme)
    colours = chromium.evaluate(
        "[document.body, document.querySelector('svg text')].map(one => getComputedStyle(one)).flatMap("
        "one => [one.backgroundColor, one.fill])"
    )
    ground, _, _, letters = [sum(map(int, _numbers(colour)[:3])) for colour in colours]
    assert (ground < 100, letters > 600) == (dark, dark)


def test_report_is_dark_on_white_in_print(chromium: Any, build_run: Callable[..., Path]) -> None:  # noqa: ANN401
    chromium.open(write_report(build_run()), width=800, scheme="dark", medium="print")
    assert chromium.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert chromium.evaluate("getComputedStyle(document.querySelector('nav')).display") == "none"
    pdf = chromium.send("Page.printToPDF")["data"]
    assert len(pdf) > 50_000


def test_a_page_that_is_wrong_is_noticed(chromium: Any, tmp_path: Path) -> None:  # noqa: ANN401
    page = tmp_path / "wrong.html"
    page.write_text(
        "<!doctype html><body><div style='width: 2000px'>wide</div><svg width='1' height='1'></svg>"
        "<script>console.error('complaint'); missing();</script><img src='https://example.invalid/a.png'>"
    )
    visit = chromium.open(page, width=390)
    assert len(visit.complaints) >= 2
    assert visit.requests == ["https://example.invalid/a.png"]
    assert chromium.evaluate(OVERFLOW)[0] > 390
    assert chromium.evaluate(FIGURES)[0] == {"width": 1, "height": 1}


def _numbers(colour: str) -> list[str]:
    return colour.partition("(")[2].rstrip(")").split(", ")


@pytest.fixture(scope="module", params=["multi_label", "regression"])
def task_report(
    request: pytest.FixtureRequest, build_encoder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The report of a trained run with several labels a text, one of which is markup, or with a number."""
    folder = tmp_path_factory.mktemp(request.param)
    names = ["good", "</svg><img src=x onerror=alert(1)>"]
    rows = [
        {
            "text": f"a {'superb' if row % 2 else 'awful'} film of {'hours' if row % 3 else 'a minute'} {row} "
            f"<script>alert(1)</script> {'unbreakable' * 30}",
            "label": [names[0]] * (row % 2) + [names[1]] * (row % 3 > 0)
            if request.param == "multi_label"
            else 10 * (row % 2) + row % 3,
        }
        for row in range(240)
    ]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    settings = [
        f"data.source={folder / 'rows.jsonl'}",
        f"data.task={request.param}",
        "data.validation_fraction=0.4",
        f"model.name={build_encoder('distilbert', initializer_range=0.1)}",
        "model.max_length=32",
        "training.threads=1",
        "evaluation.bootstrap_samples=100",
    ]
    return lorafit.train(load_config(overrides=settings), output=folder / "run").path / "report.html"


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_report_of_another_task_is_whole_quiet_and_fits(
    chromium: Any,  # noqa: ANN401 - of the conftest
    task_report: Path,
    scheme: str,
    width: int,
) -> None:
    visit = chromium.open(task_report, width=width, scheme=scheme)
    assert (visit.complaints, visit.requests) == ([], [])
    figures = chromium.evaluate(FIGURES)
    assert len(figures) >= 3
    assert [one for one in figures if not one["name"] or one["width"] < 250 or one["height"] < 50] == []
    assert chromium.evaluate(CUT_TEXTS) == []
    chromium.evaluate("document.querySelectorAll('details').forEach(details => { details.open = true; })")
    assert chromium.evaluate(OVERFLOW)[0] <= width
