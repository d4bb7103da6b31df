"""Rows to check, made from texts and labels."""

from collections.abc import Callable, Sequence

import pytest

from lorafit.data.quality.rows import Rows, gather_rows
from lorafit.data.rows import RawRows, RawSplits
from lorafit.tasks.labels import LabelReading
from lorafit.tasks.registry import get_task

Part = tuple[Sequence[object], Sequence[object]]
MakeRows = Callable[..., Rows]


@pytest.fixture
def make_rows() -> MakeRows:
    """Makes rows of a task from the texts and labels of each split."""

    def make(train: Part, *, test: Part | None = None, task: str = "single_label") -> Rows:
        raw = RawSplits(RawRows("a.csv", *train), test=None if test is None else RawRows("b.csv", *test))
        return gather_rows(raw, get_task(task), LabelReading())[0]

    return make
