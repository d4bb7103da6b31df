import re
import sys
from html.parser import HTMLParser

import pytest
from jinja2 import UndefinedError
from markupsafe import Markup

from lorafit.errors import MissingExtraError
from lorafit.reports.drawing import Plot, drawn, new_figure
from lorafit.reports.html import _environment, render_marked, render_page
from lorafit.reports.score_plots import STRONGEST

HOSTILE = "a</title><img src=x onerror=\"alert('1')\"><script>alert(2)</script> | ](x) \n\x1b\N{RIGHT-TO-LEFT OVERRIDE}"
SHOWN = "a</title><img src=x onerror=\"alert('1')\"><script>alert(2)</script> | ](x) ��"
MACROS = '{% from "macros.html" import details, facts, figures, table %}'


class Elements(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.text += "".join(value or "" for name, value in attrs if name == "aria-label")

    def handle_data(self, data: str) -> None:
        self.text += data


def render(source: str, **context: object) -> str:
    return _environment().from_string(source).render(context)


def test_nothing_from_outside_becomes_an_element() -> None:
    source = """{% extends "page.html" %}{% block body %}
    {{ table((name, "", name), [(name, name, name)], name) }}
    {% call details(name) %}{{ facts([(name, name)]) }}{% endcall %}
    {{ figures([plot]) }}
    {% endblock %}"""
    with drawn():
        figure, (axes,) = new_figure(2)
        axes.set_title(HOSTILE)
    plot = Plot("plot", HOSTILE, HOSTILE, HOSTILE, figure, (HOSTILE,), [(HOSTILE,)])
    elements = Elements(render(MACROS + source, title=HOSTILE, name=HOSTILE, plot=plot))
    assert not {"script", "img"} & set(elements.names)
    assert elements.names.count("title") == 1
    assert elements.text.count(SHOWN) == 2 + 6 + 3 + 6, "title; table; details and facts; figure"
    assert elements.text.count("alert(2)") == 18, "no text is left out; that in the figure keeps its own characters"


def test_what_is_printed_is_cleaned_and_escaped() -> None:
    assert render("{{ name }}|{{ html }}|{{ 1.5 }}", name="<a\x00>\n", html=Markup("<b>\n</b>")) == (
        "&lt;a�&gt; |<b>\n</b>|1.5"
    )


def test_a_missing_name_is_an_error() -> None:
    with pytest.raises(UndefinedError, match="titel"):
        render("{{ titel }}", title="A page")


def test_a_page_may_load_and_run_nothing() -> None:
    page = render_page("page.html", title="A page", body="")
    assert "content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\"" in page
    assert "http" not in page.replace("http-equiv", "")
    assert page.startswith("<!doctype html>\n")
    assert page.endswith("</html>\n")


def test_without_jinja_the_pip_line_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    _environment.cache_clear()
    with pytest.raises(MissingExtraError, match=r"pip install .*\[train\]'"):
        render_page("page.html", title="", body="")


def test_marks_keep_the_blanks_around_them() -> None:
    assert render_marked("a  bad <film>", [(3, 6, "for")], most=99) == 'a <mark class="for">bad</mark> &lt;film&gt;'


def test_numbers_are_written_by_filters() -> None:
    assert render("{{ 1234 | thousands }}, {{ 150 | duration }}, {{ 'abcdef' | clean(most=4) }}") == (
        "1,234, 2.5 min, abc…"
    )


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
    rules = re.findall(r":root \{([^}]*)\}", render_page("page.html", title="", body=""))
    colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", rules[scheme]))
    assert colours.keys() == {"page", "ink", "quiet", "soft", "mark", "other", "third", "good", "bad"}
    for ground in (colours["page"], colours["soft"]):
        low = {name: contrast(colours[name], ground) for name in colours.keys() - {"page", "soft"}}
        assert {name: ratio for name, ratio in low.items() if ratio < 4.5} == {}
    assert contrast(colours["ink"], mix(colours["mark"], colours["page"], STRONGEST)) >= 4.5, "a count on a full cell"
