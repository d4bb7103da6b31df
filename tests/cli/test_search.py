"""`lorafit search` where nothing is trained; `tests/experiments/search` has the rest."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lorafit.system.extras import install_line


def test_space_that_cannot_be_used_ends_with_2(word_reviews: Path, call: Callable[..., Any]) -> None:
    answer = call("search", word_reviews, "--trials", "2", "--set", "search.space.method.rank=[2]")
    assert answer.code == 2
    assert "search.space.method.rank" in answer.err


def test_without_optuna_the_pip_line_is_given(
    word_reviews: Path, call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    answer = call("search", word_reviews, "--trials", "2")
    assert answer.code == 3
    assert install_line("search") in answer.err
