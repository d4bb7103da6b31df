"""Finished runs with one label a text, written by hand."""

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lorafit.labels import LabelSet

WriteRun = Callable[..., Path]


@pytest.fixture
def write_run(write_values: Callable[..., Path]) -> WriteRun:
    """Writes a run that is sure of `answers`: name, true labels and answers of the test rows, and what differs."""

    def write(
        name: str,
        truth: Sequence[str],
        answers: Sequence[str],
        *,
        labels: tuple[str, ...] = ("neg", "pos"),
        confidence: float = 0.9,
        **changes: Any,
    ) -> Path:
        names = LabelSet(labels)
        ids = np.array([names.label2id[label] for label in truth])
        probabilities = np.full((len(ids), len(names)), (1 - confidence) / (len(names) - 1))
        probabilities[np.arange(len(ids)), [names.label2id[answer] for answer in answers]] = confidence
        return write_values(name, names, ids, probabilities, **changes)

    return write


@pytest.fixture
def write_reviews(tmp_path: Path) -> Callable[[str, Sequence[tuple[str, str]]], Path]:
    """Writes a csv file of texts and labels below the test's folder."""

    def write(name: str, rows: Sequence[tuple[str, str]]) -> Path:
        with (tmp_path / name).open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("text", "label"), *rows])
        return tmp_path / name

    return write
