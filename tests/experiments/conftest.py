"""What tests of experiments share: settings of short trainings, a progress that interrupts, and hostile records."""

import json
import signal
from collections.abc import Callable, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from lorafit.system.progress import Silent
from lorafit.system.records import FileRecord

LABELS: dict[str, Callable[[int, int], object]] = {
    "single_label": lambda good, _: ("neg", "pos")[good],
    "multi_label": lambda good, long: [name for name, has in (("good", good), ("long", long)) if has],
    "regression": lambda good, long: 50 + 20 * good + 10 * long,
    "ordinal": lambda good, long: 1 + 2 * good + long,
}
"""The label of a row by its task, from what its words say."""

HOSTILE = "</title><img src=x onerror='1'><script>alert(\"2\")</script> | ](x)\n\N{RIGHT-TO-LEFT OVERRIDE}"
CLEAN = "</title><img src=x onerror='1'><script>alert(\"2\")</script> | ](x) �"

CHECKED = {"task", "state", "verdict"}
"""Fields that take words of a list only."""

OPEN = {"versions", "rows", "space", "values", "importances"}
"""Fields with names from outside."""


@pytest.fixture(scope="session")
def tiny_settings(
    build_encoder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., list[str]]:
    """Returns overrides with which a task is trained in about a second, on rows whose words tell the label."""
    encoder, folder = build_encoder("distilbert", initializer_range=0.1), tmp_path_factory.mktemp("rows")

    def build(task: str = "single_label") -> list[str]:
        source = folder / f"{task}.jsonl"
        if not source.exists():
            places = [(row % 2, row // 2 % 2, row) for row in range(160)]
            texts = [f"{('poor', 'superb')[good]} film {('minute', 'hours')[long]} {row}" for good, long, row in places]
            labels = [LABELS[task](good, long) for good, long, _ in places]
            rows = [json.dumps({"text": text, "label": label}) for text, label in zip(texts, labels, strict=True)]
            source.write_text("\n".join(rows), encoding="utf-8")
        return [
            f"data.source={source}",
            f"data.task={task}",
            "data.test_fraction=0.25",
            "data.validation_fraction=0.1",
            f"model.name={encoder}",
            "model.max_length=32",
            "method.layers=top1",
            "training.batch_size=16",
            "training.epochs=2",
            "training.learning_rate=5e-3",
            "training.threads=1",
            "evaluation.bootstrap_samples=100",
            "evaluation.report=false",
        ]

    return build


class Listener(Silent):
    """A progress that remembers what it is told, and presses Ctrl-C once, at a training step.

    Attributes:
        lines: What `say` was given.
    """

    def __init__(self, stop: Callable[[Sequence[str], int], bool] | None = None) -> None:
        self.lines: list[str] = []
        self._stop = stop

    def say(self, line: str) -> None:
        self.lines.append(line)

    def update(self, done: int, **metrics: float) -> None:
        if "loss" in metrics and self._stop is not None and self._stop(self.lines, done):
            self._stop = None
            signal.raise_signal(signal.SIGINT)


@pytest.fixture
def listen() -> Callable[..., Listener]:
    """Makes a `Listener`; what it is given decides by the lines so far and the step whether to stop there."""
    return Listener


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
