"""What tests of experiments share: hostile records, and pages taken apart."""

from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import pytest

from lorafit.system.records import FileRecord

HOSTILE = "</title><img src=x onerror='1'><script>alert(\"2\")</script> | ](x)\n\N{RIGHT-TO-LEFT OVERRIDE}"
CLEAN = "</title><img src=x onerror='1'><script>alert(\"2\")</script> | ](x) �"

CHECKED = {"task", "state", "verdict"}
"""Fields that take words of a list only."""

OPEN = {"versions", "rows", "space", "values", "importances"}
"""Fields with names from outside."""


class Page(HTMLParser):
    """A page taken apart.

    Attributes:
        elements: Names of the elements.
        attributes: Names of their attributes.
        text: All text, also that for those who cannot see a plot.
    """

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.text += "".join(value or "" for name, value in attrs if name == "aria-label")

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def check_hostile_page() -> Callable[[Callable[[Any], str], FileRecord], None]:
    """Fails if a page lets one of the record's texts through as markup, or unprintable characters at all."""

    def poison(value: Any, name: str = "") -> Any:  # noqa: ANN401 - of any field
        if isinstance(value, dict):
            poisoned = {key: poison(one, key) for key, one in value.items()}
            return poisoned | {HOSTILE: next(iter(poisoned.values()))} if name in OPEN else poisoned
        if isinstance(value, list):
            return [poison(one) for one in value]
        return HOSTILE if isinstance(value, str) and name not in CHECKED else value

    def check(render: Callable[[Any], str], record: FileRecord) -> None:
        page = render(type(record).model_validate(poison(record.model_dump())))
        shown = Page(page)
        assert not {"script", "img"} & shown.elements
        assert [name for name in shown.attributes if name.startswith("on")] == []
        assert shown.text.count(CLEAN) > 5
        assert [sign for sign in page if not sign.isprintable() and sign != "\n"] == []

    return check
