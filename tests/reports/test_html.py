import re
from html.parser import HTMLParser

import pytest

from lorafit.evidence import Estimate
from lorafit.reports.html import (
    clean_text,
    render_details,
    render_document,
    render_facts,
    render_table,
    write_number,
    write_percent,
    write_points,
)
from lorafit.reports.score_plots import STRONGEST

ATTACK = "</title><img src=x onerror=\"alert('1')\"><script>alert(2)</script>"


class Elements(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: object) -> None:  # noqa: ARG002
        self.names.append(tag)


def test_nothing_from_outside_becomes_an_element() -> None:
    body = [
        *render_table((ATTACK, "", ATTACK), [[ATTACK, ATTACK, ATTACK]], label=f'" {ATTACK}'),
        *render_details(ATTACK, render_facts([(ATTACK, ATTACK)])),
    ]
    page = render_document(ATTACK, body)
    names = Elements(page).names
    assert not {"script", "img"} & set(names)
    assert names.count("title") == 1
    assert page.count("&lt;script&gt;") == 11


def test_a_page_may_load_and_run_nothing() -> None:
    page = render_document("A page", [])
    assert "content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\"" in page
    assert "http" not in page.replace("http-equiv", "")


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("  two \n\t words ", "two words"),
        ("a\x00b\x1bc", "a�b�c"),
        ("right\N{RIGHT-TO-LEFT OVERRIDE}left", "right�left"),
        ("half \ud83d", "half �"),
        (
            "\N{DEVANAGARI LETTER KA}\N{ZERO WIDTH JOINER} é 中 🎬",
            "\N{DEVANAGARI LETTER KA}\N{ZERO WIDTH JOINER} é 中 🎬",
        ),
        ("", ""),
    ],
)
def test_text_is_made_fit_for_a_page(text: str, clean: str) -> None:
    assert clean_text(text) == clean
    clean_text(text).encode("utf-8")


def test_a_long_text_is_cut() -> None:
    assert clean_text("abcdef", most=6) == "abcdef"
    assert clean_text("abcdefg", most=6) == "abcde…"
    assert clean_text("abcd efg", most=6) == "abcd…"


def test_numbers_carry_their_interval() -> None:
    estimate = Estimate(value=0.1234, low=-0.05, high=0.25)
    assert write_percent(estimate) == "12.3 % [-5.0, 25.0]"
    assert write_points(estimate) == "+12.3 [-5.0, +25.0]"
    assert write_number(estimate) == "0.123 [-0.050, 0.250]"
    assert write_number(estimate, sign=True) == "+0.123 [-0.050, +0.250]"


def luminance(colour: str) -> float:
    """Relative luminance as WCAG 2 defines it."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(first: str, other: str) -> float:
    brighter, darker = sorted((luminance(first), luminance(other)), reverse=True)
    return (brighter + 0.05) / (darker + 0.05)


def mix(over: str, under: str, share: float) -> str:
    parts = [
        round(share * int(over[place : place + 2], 16) + (1 - share) * int(under[place : place + 2], 16))
        for place in (1, 3, 5)
    ]
    return "#" + "".join(f"{part:02x}" for part in parts)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_colours_can_be_told_from_the_page(scheme: int) -> None:
    rules = re.findall(r":root \{([^}]*)\}", render_document("", []))
    colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", rules[scheme]))
    assert colours.keys() == {"page", "ink", "quiet", "soft", "mark", "other", "third", "good", "bad"}
    for ground in (colours["page"], colours["soft"]):
        low = {name: contrast(colours[name], ground) for name in colours.keys() - {"page", "soft"}}
        assert {name: ratio for name, ratio in low.items() if ratio < 4.5} == {}
    assert contrast(colours["ink"], mix(colours["mark"], colours["page"], STRONGEST)) >= 4.5, "a count on a full cell"
