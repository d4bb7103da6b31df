"""What the report's tests share: a page as its elements, and figures drawn in the house's style."""

from collections.abc import Callable, Iterator
from html.parser import HTMLParser

import pytest

from lorafit.reports.drawing import drawn

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


@pytest.fixture
def take_apart() -> Callable[[str], Page]:
    """Takes a page apart; its elements must be closed in order."""
    return Page


@pytest.fixture
def house_style() -> Iterator[None]:
    """Draw as the report does."""
    with drawn():
        yield
