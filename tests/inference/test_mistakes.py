from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from lorafit.data.rows import Split
from lorafit.inference.mistakes import explain_mistakes, list_explained_lengths
from lorafit.system.progress import Silent
from lorafit.tasks.base import Array, Task
from lorafit.tasks.evaluation import find_mistakes
from lorafit.tasks.registry import build_task

from .conftest import BagOfWords

TWO = build_task("single_label", ("neg", "pos"))


def build_split(texts: list[str], y: Any) -> Split:  # noqa: ANN401 - whatever numpy takes
    return Split(texts=tuple(texts), y=np.array(y), ids=np.arange(len(texts)) + 100)


def test_the_most_confident_mistakes_are_explained_by_their_wrong_label() -> None:
    texts = ["a lovely film", "dull but superb , superb", "superb", "a dull story", "nothing at all"]
    rows, model = build_split(texts, [0, 0, 1, 1, 0]), BagOfWords(TWO)
    record = explain_mistakes(model, rows, model.compute_values(texts), Silent())
    assert [(mistake.row_id, mistake.label) for mistake in record.mistakes] == [
        (101, "pos"),
        (103, "neg"),
        (100, "pos"),
    ]
    first = {(word.start, word.end): word.contribution for word in record.mistakes[0].words}
    assert {texts[1][start:end] for start, end in first} == {"dull", "but", "superb", ","}
    assert first[0, 4] == pytest.approx(-1.75)
    assert [value for (start, end), value in first.items() if texts[1][start:end] == "superb"] == pytest.approx([2, 2])
    assert "superb" not in record.model_dump_json()


def test_every_task_explains_the_label_that_it_is_wrong_about(task: Task) -> None:
    texts = ["a superb film", "a dull , weak film", "lovely and superb", "weak , but not dull", "the end of it"]
    model = BagOfWords(task)
    values = model.compute_values(texts)
    truth = {"multi_label": [[1, 0], [1, 1], [0, 1], [0, 1], [1, 0]], "regression": [3.0, -1.0, 9.0, 0.5, 0.0]}
    rows = build_split(texts, truth.get(task.name, [0, 1, 1, 2, 0]))
    record = explain_mistakes(model, rows, values, Silent())
    wrong = find_mistakes(task, rows.y, values)
    assert len(record.mistakes) == len(wrong) >= 3
    outputs = task.mistaken_output(rows.y, values)
    for mistake, row in zip(record.mistakes, wrong, strict=True):
        assert (mistake.row_id, mistake.label) == (100 + row, task.label_names[outputs[row]])
        left = [texts[row].replace(f" {word} ", " ", 1) for word in texts[row].split()[1:-1]]
        added = task.contribution(np.concatenate([values[row : row + 1], model.compute_values(left)]), outputs[row])
        assert [word.contribution for word in mistake.words[1:-1]] == pytest.approx((added[0] - added[1:]).tolist())


def test_a_long_text_is_explained_in_groups_and_no_more_than_ten_are() -> None:
    texts = [f"superb {'of ' * 300}{row}" for row in range(12)]
    model = BagOfWords(TWO)
    record = explain_mistakes(model, build_split(texts, [0] * 12), model.compute_values(texts), Silent())
    assert len(record.mistakes) == 10
    assert all(len(mistake.words) <= 64 for mistake in record.mistakes)


def test_without_mistakes_nothing_is_explained() -> None:
    model = BagOfWords(TWO)
    rows = build_split(["superb"], [1])
    assert explain_mistakes(model, rows, model.compute_values(["superb"]), Silent()).mistakes == []


def test_what_is_foreseen_is_what_is_predicted() -> None:
    class Counting(BagOfWords):
        count = 0

        def compute_values(self, texts: Sequence[str]) -> Array:
            self.count += len(texts)
            return super().compute_values(texts)

    texts = [f"superb {' '.join(map(str, range(30)))} {row}" for row in range(10)]
    model = Counting(TWO)
    explain_mistakes(model, build_split(texts, [0] * 10), BagOfWords(TWO).compute_values(texts), Silent())
    foreseen = list_explained_lengths(np.full(50, 32))
    assert len(foreseen) == pytest.approx(model.count, abs=10)  # the whole text is predicted, too
    assert set(foreseen.tolist()) == {32}
