"""What the report's tests share: a page as its elements, plots in the house's style, and a written run of each task."""

import functools
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

from lorafit.reports.contents import RunContents, read_run
from lorafit.reports.drawing import drawn
from lorafit.tasks.registry import TASKS

VOID = {"meta", "link", "br", "img", "input"}


class Page(HTMLParser):
    """A page taken apart.

    Attributes:
        elements: Every element with its attributes, in order.
        text: All text outside of style sheets.
        open: Elements that were not closed.
    """

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.text += data

    def named(self, *tags: str) -> list[dict[str, str | None]]:
        """Return the attributes of all elements with one of the names."""
        return [attributes for tag, attributes in self.elements if tag in tags]


@pytest.fixture(scope="session")
def take_apart() -> Callable[[str], Page]:
    """Takes a page apart; its elements must be closed in order."""
    return Page


@pytest.fixture
def house_style() -> Iterator[None]:
    """Draw as the report does."""
    with drawn():
        yield


@pytest.fixture(scope="session")
def written_run(write_run_in: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Gives a written run of a task: 120 test rows, with slices and everything else. It must not be changed."""
    shops = {"shop": ["Paris", "Rome", "Oslo"]}
    return functools.cache(lambda task: write_run_in(tmp_path_factory.mktemp(task), task, rows=120, columns=shops))


@pytest.fixture(params=TASKS)
def contents(request: pytest.FixtureRequest, written_run: Callable[[str], Path]) -> RunContents:
    """The contents of a written run of each task."""
    return read_run(written_run(request.param))
