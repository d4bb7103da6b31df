"""Predictions as tables."""

from collections.abc import Callable
from pathlib import Path

import datasets
import pandas as pd
import polars as pl
import pytest

import lorafit
from lorafit.errors import UserInputError
from lorafit.inference.frames import build_frame
from lorafit.tasks.single_label import Prediction

TEXTS = ["a gem", "awful", "so so"]


@pytest.mark.parametrize("task", ["single_label", "multi_label", "regression"])
def test_a_table_has_the_columns_that_predict_writes_and_keeps_the_index(
    trained_of: Callable[[str], Path], task: str
) -> None:
    predictor = lorafit.load(trained_of(task))
    plain = predictor.predict(TEXTS)
    series = pd.Series(TEXTS, index=pd.Index(["x", "y", "y"], name="id"))
    frame = predictor.predict(series, as_frame=True)
    assert list(frame.columns) == list(plain[0].columns())
    assert frame.index.equals(series.index)
    assert frame.index.name == "id"
    assert frame.to_dict("records") == [one.columns() for one in plain]
    assert list(predictor.predict((text for text in TEXTS), as_frame=True).index) == [0, 1, 2]


def test_polars_gets_a_table_of_its_own(trained: Path) -> None:
    predictor = lorafit.load(trained)
    frame = predictor.predict(pl.Series("text", TEXTS), as_frame=True)
    assert isinstance(frame, pl.DataFrame)
    assert frame.to_dicts() == [one.columns() for one in predictor.predict(TEXTS)]


def test_a_dataset_gets_the_columns_by_map_and_keeps_its_own(trained: Path) -> None:
    predictor, dataset = lorafit.load(trained), datasets.Dataset.from_dict({"text": TEXTS, "label": ["a", "b", "c"]})

    def predict(rows: dict[str, list[str]]) -> dict[str, list[object]]:
        frame = predictor.predict(rows["text"], as_frame=True)
        return frame.add_prefix("predicted_").to_dict("list")  # type: ignore[no-any-return]

    mapped = dataset.map(predict, batched=True).to_dict()
    assert (mapped["text"], mapped["label"]) == (TEXTS, ["a", "b", "c"])
    assert mapped["predicted_score"] == [one.score for one in predictor.predict(TEXTS)]


def test_a_table_of_labelled_texts_takes_the_columns_row_by_row(trained: Path) -> None:
    predictor = lorafit.load(trained)
    reviews = pd.DataFrame({"text": TEXTS, "label": ["a", "b", "c"]}, index=[5, 5, 7])
    frame = predictor.predict(reviews["text"], as_frame=True)
    joined = reviews.assign(**frame.add_prefix("predicted_").to_dict("list"))
    assert joined[["text", "label"]].equals(reviews)
    assert joined["predicted_label"].tolist() == [one.label for one in predictor.predict(TEXTS)]


def test_whole_numbers_stay_so_beside_what_is_missing_and_kinds_of_series_are_series() -> None:
    class Mine(pd.Series):  # type: ignore[type-arg]  # as libraries make them
        pass

    one = Prediction(label="1", score=0.75, scores={"0": 0.25, "1": 0.75})
    frame = build_frame(Mine(["", "a"], index=[5, 6]), [None, one], one)
    assert frame.index.tolist() == [5, 6]
    assert frame["label"].isna().tolist() == [True, False]
    assert frame["label"][6] == 1
    assert frame["label"].dtype == "Int64"
    sure = Prediction(label="1", score=0.75, scores={"0": 0.25, "1": 0.75}, abstain=True)
    frame = build_frame(["", "a"], [None, sure], sure)
    assert (str(frame["abstain"].dtype), frame["abstain"][1]) == ("boolean", True)


def test_rows_without_a_prediction_are_empty_and_no_rows_give_no_rows(trained: Path) -> None:
    predictor = lorafit.load(trained)
    frame = predictor.predict(pd.Series(["", "a gem", None], index=[7, 8, 9]), bad_rows="keep", as_frame=True)
    assert frame["label"].isna().tolist() == frame["score"].isna().tolist() == [True, False, True]
    assert frame.index.tolist() == [7, 8, 9]
    missing = predictor.predict(pd.Series([None, None], dtype=float), bad_rows="keep", as_frame=True)
    assert missing["label"].isna().all()
    with pytest.raises(UserInputError, match=r"values of type float64\. Are they the texts"):
        predictor.predict(pd.Series([None, 1.5]), bad_rows="keep")
    nothing = predictor.predict([], as_frame=True)
    assert len(nothing) == 0
    assert list(nothing.columns) == list(frame.columns)
