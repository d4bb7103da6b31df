import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def words(build_encoder: Callable[..., Path], word_reviews: Path, tmp_path: Path) -> list[str]:
    """A command of trials of a second."""
    model = build_encoder("distilbert", initializer_range=0.1)
    settings = ["data.test_fraction=0.25", "model.max_length=32", "training.threads=1", "search.space.method.r=[2, 4]"]
    changes = [part for setting in settings for part in ("--set", setting)]
    return ["search", str(word_reviews), "--model", str(model), *changes, "--output", str(tmp_path / "search")]


def test_the_winner_is_printed_and_what_comes_next(words: list[str], tmp_path: Path, call: Callable[..., Any]) -> None:
    answer = call(*words, "--trials", "2")
    assert answer.code == 0
    assert "2 complete" in answer.out
    best = tmp_path / "search" / "best.yaml"
    assert f"lorafit train --config {best}" in answer.out
    assert call(*words, "--trials", "2", "--quiet").out.strip() == str(best)


def test_a_space_that_cannot_be_used_ends_with_2(words: list[str], call: Callable[..., Any]) -> None:
    answer = call(*words, "--trials", "2", "--set", "search.space.method.rank=[2]")
    assert answer.code == 2
    assert "search.space.method.rank" in answer.err


def test_without_optuna_the_pip_line_is_given(
    words: list[str], call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    answer = call(*words, "--trials", "2")
    assert answer.code == 3
    assert "pip install 'lorafit[search]'" in answer.err
