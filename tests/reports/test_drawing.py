import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from lorafit.errors import MissingExtraError
from lorafit.reports.drawing import (
    AFTER,
    INK,
    Plot,
    can_draw,
    drawn,
    label_points,
    new_figure,
    render_inline,
    require_matplotlib,
    save_files,
    shorten,
    show_percent,
)

NAME = 'a $x$ </text><script>1</script> "#1c2430" id="q" 中'


def make_plot(name: str = "plot") -> Plot:
    figure, (axes,) = new_figure(2)
    axes.plot([0, 0.123456789], [0, 1], color=AFTER, marker="o", label="line")
    axes.set_yticks([0, 1], [shorten(NAME, 80), "other"])
    axes.legend()
    return Plot(name, "Title", "Caption", f'Label "{NAME}"', figure, ("a",), [["1"]])


@pytest.fixture
def svg(house_style: None) -> str:
    return render_inline(make_plot())


def test_a_figure_in_a_page_takes_the_colours_of_the_page(svg: str) -> None:
    tags = "".join(re.findall(r"<[^>]*>", svg)[1:])
    assert "currentColor" in tags
    assert "var(--mark)" in tags
    assert re.findall(r"#[0-9a-f]{6}\b", tags) == []


def test_a_figure_in_a_page_brings_nothing_of_its_own(svg: str) -> None:
    for absent in ("<style", "<metadata", "<?xml", "<!DOCTYPE", "<!--", "http", "font-family", "<image"):
        assert absent not in svg
    assert svg.startswith('<svg viewBox="0 0 345.6 144" role="img" aria-label="Label ')


def test_a_figure_is_well_formed_and_its_texts_stand_as_they_are(svg: str) -> None:
    texts = [element.text for element in ElementTree.fromstring(svg).iter("text")]  # noqa: S314 - made here
    assert NAME in texts, "no formula is set, no colour or id replaced"


def test_references_of_two_figures_do_not_meet(house_style: None) -> None:
    pages = [render_inline(make_plot(name)) for name in ("one", "two")]
    ids = [re.findall(r' id="([^"]*)"', re.sub(r"<text.*?</text>", "", page)) for page in pages]
    targets = [set(re.findall(r'href="#([^"]+)"', page)) | set(re.findall(r"url\(#([^)]+)\)", page)) for page in pages]
    assert set(ids[0]) == targets[0] != set()
    assert len(ids[0]) == len(set(ids[0]))
    assert set(ids[0]) & set(ids[1]) == set()


def test_the_same_figure_is_the_same_text(house_style: None) -> None:
    assert render_inline(make_plot()) == render_inline(make_plot())


def test_files_stand_on_white(house_style: None, tmp_path: Path) -> None:
    from PIL import Image

    save_files(make_plot(), tmp_path / "new" / "plots")
    assert sorted(path.name for path in (tmp_path / "new" / "plots").iterdir()) == ["plot.png", "plot.svg"]
    with Image.open(tmp_path / "new" / "plots" / "plot.png") as image:
        assert image.convert("RGBA").getpixel((0, 0)) == (255, 255, 255, 255)
        assert image.width > 900
    ElementTree.parse(tmp_path / "new" / "plots" / "plot.svg")  # noqa: S314 - made here
    assert INK in (tmp_path / "new" / "plots" / "plot.svg").read_text()


def test_percent_are_written_without_needless_digits(house_style: None) -> None:
    _, (axes,) = new_figure(2)
    show_percent(axes.yaxis)
    write: Callable[..., Any] = axes.yaxis.get_major_formatter()
    assert [write(share, 0) for share in (0.1, 0.975, 1, 0.30000000000000004)] == ["10 %", "97.5 %", "100 %", "30 %"]


def test_a_name_is_made_fit_for_a_figure() -> None:
    assert shorten("a\nb") == "a b"
    assert shorten("a number of things 12", 12) == "a number… 12"
    assert len(shorten("a" * 100)) == 24
    assert shorten("a" * 24) == "a" * 24
    assert shorten("\n") == "(no name)"


@pytest.mark.parametrize("right", [0.5, 1.0], ids=["in the middle", "at the edge"])
def test_names_beside_points_cover_neither_each_other_nor_the_edge(house_style: None, right: float) -> None:
    figure, (axes,) = new_figure(3)
    points = [(right, 0.5, "first"), (right, 0.51, "second"), (right - 0.01, 0.5, "third"), (0.0, 0.0, "fourth")]
    axes.plot([x for x, _, _ in points], [y for _, y, _ in points], "o")
    label_points(axes, points)
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in axes.texts]
    assert [text.get_text() for text in axes.texts] == ["first", "second", "third", "fourth"]
    assert not any(box.overlaps(other) for place, box in enumerate(boxes) for other in boxes[:place])
    assert all(axes.get_window_extent().x0 <= box.x0 and box.x1 <= axes.get_window_extent().x1 for box in boxes)


def test_style_ends_with_the_block() -> None:
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    with drawn():
        assert mpl.rcParams["svg.fonttype"] == "none"
    assert dict(mpl.rcParams) == before


def test_without_matplotlib_the_pip_line_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert not can_draw()
    with pytest.raises(MissingExtraError, match=r"pip install .*\[report\]'"):
        require_matplotlib()
