"""The report in a real browser: nothing complains, nothing sticks out, everything is there."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

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
MARKUP = ["</svg><img src=x onerror=alert(1)>", "<script>alert(2)</script>", "x" * 300]
SHOPS = {"<b>shop": ["Paris", "<script>alert(3)</script>", "x" * 300]}
RUNS: dict[str, dict[str, Any]] = {
    "two labels": {"rows": 300, "columns": SHOPS},
    "ten rows, bare": {"rows": 10, "before": False, "baselines": False, "calibration": False, "history": False},
    "twelve long names": {"labels": [f"a category with number {number}" for number in range(12)], "rows": 240},
    "two hundred labels": {"labels": [f"intent {number}" for number in range(200)], "rows": 600},
    "markup": {"labels": MARKUP, "columns": SHOPS},
    "several labels a text": {"task": "multi_label", "labels": MARKUP, "columns": SHOPS},
    "numbers": {"task": "regression", "rows": 300, "columns": SHOPS},
    "scores": {"task": "ordinal", "rows": 300, "columns": SHOPS},
}


def write_text(row: int, name: str) -> str:
    words = ["a", "long", "film", "about", "people", "<script>alert(1)</script>", "&amp;", "<b>who</b>", "look", "for"]
    longest = "unbreakable" * 30 if row % 7 == 0 else ""
    return f"{name} {row} {longest} " + " ".join(random.Random(row).choices(words, k=row % 150))  # noqa: S311


@pytest.fixture(scope="module", params=RUNS)
def report(
    request: pytest.FixtureRequest, write_run_in: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The report of each run."""
    return write_report(write_run_in(tmp_path_factory.mktemp("report"), texts=write_text, **RUNS[request.param]))


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_report_is_whole_quiet_and_fits(
    chromium: Any,  # noqa: ANN401 - of the conftest
    report: Path,
    scheme: str,
    width: int,
) -> None:
    visit = chromium.open(report, width=width, scheme=scheme)
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
    write_run: Callable[..., Path],
    scheme: str,
    dark: bool,
) -> None:
    page = write_report(write_run())
    chromium.open(page, width=1280, scheme=scheme)
    colours = chromium.evaluate(
        "[document.body, document.querySelector('svg text')].map(one => getComputedStyle(one)).flatMap("
        "one => [one.backgroundColor, one.fill])"
    )
    ground, _, _, letters = [sum(map(int, _numbers(colour)[:3])) for colour in colours]
    assert (ground < 100, letters > 600) == (dark, dark)


def test_report_is_dark_on_white_in_print(chromium: Any, write_run: Callable[..., Path]) -> None:  # noqa: ANN401
    chromium.open(write_report(write_run()), width=800, scheme="dark", medium="print")
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
