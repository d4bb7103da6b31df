"""Finished runs written by hand: settings, record, and what they said of their test rows."""

import csv
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lorafit.artifacts import DataRecord, RunLayout, RunRecord, SplitRecord
from lorafit.config import load_config
from lorafit.data.rows import Split
from lorafit.evaluation import write_predictions
from lorafit.labels import LabelSet

WriteRun = Callable[..., Path]


@pytest.fixture
def write_run(tmp_path: Path, run_record: RunRecord) -> WriteRun:
    """Writes a run that is sure of `answers`: name, true labels and answers of the test rows, and what differs."""

    def write(
        name: str,
        truth: Sequence[str],
        answers: Sequence[str],
        *,
        labels: tuple[str, ...] = ("neg", "pos"),
        confidence: float = 0.9,
        rows: Split | None = None,
        fingerprint: str = "same rows",
        flags: dict[str, Any] | None = None,
        **changes: Any,
    ) -> Path:
        layout, names = RunLayout(tmp_path / name), LabelSet(labels)
        layout.root.mkdir()
        ids = np.array([names.label2id[label] for label in truth])
        rows = rows or Split(np.arange(1, len(ids) + 1), ("a text",) * len(ids), ids)
        probabilities = np.full((len(ids), len(names)), (1 - confidence) / (len(names) - 1))
        probabilities[np.arange(len(ids)), [names.label2id[answer] for answer in answers]] = confidence
        write_predictions(layout.predictions("test", "finetuned"), rows, names, probabilities)
        flags = {"evaluation.bootstrap_samples": 200, "data.source": str(tmp_path / "gone.csv"), **(flags or {})}
        config = load_config(flags=flags)
        layout.config.write_text(config.to_yaml(), encoding="utf-8")
        counts = Counter(truth)
        split = SplitRecord(
            rows=len(ids),
            label_counts={label: counts[label] for label in labels},
            fingerprint=fingerprint,
            tokens=1,
            truncated=0,
        )
        data = DataRecord(source=config.data.source, splits={"test": split})
        record = run_record.model_copy(update={"labels": list(labels), "data": data, "texts_per_second": 100.0})
        record.model_copy(update=changes).write(layout.record)
        return layout.root

    return write


@pytest.fixture
def write_reviews(tmp_path: Path) -> Callable[[str, Sequence[tuple[str, str]]], Path]:
    """Writes a csv file of texts and labels below the test's folder."""

    def write(name: str, rows: Sequence[tuple[str, str]]) -> Path:
        with (tmp_path / name).open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("text", "label"), *rows])
        return tmp_path / name

    return write
