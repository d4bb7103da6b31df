from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from lorafit.config import Config, DataConfig
from lorafit.data.frames import store_table
from lorafit.data.loading import load_splits
from lorafit.data.sources import read_rows
from lorafit.data.tables import read_table
from lorafit.errors import DataError

TEXTS = [f"text {row}" for row in range(30)]
LABELS = ["bad", "good"] * 15
COLUMNS = {"text": TEXTS, "label": LABELS}
ROWS = [{"text": text, "label": label} for text, label in zip(TEXTS, LABELS, strict=True)]


@pytest.mark.parametrize(
    "table",
    [
        COLUMNS,
        ROWS,
        pd.DataFrame(COLUMNS),
        pa.table(COLUMNS),
        datasets.Dataset.from_dict(COLUMNS),
        {"text": np.array(TEXTS), "label": np.array(LABELS)},
    ],
    ids=["columns", "rows", "pandas", "pyarrow", "datasets", "numpy"],
)
def test_table_at_hand_is_read_as_a_file_would_be(tmp_path: Path, table: object) -> None:
    path = store_table(table, tmp_path / "tables")
    assert path == store_table(table, tmp_path / "tables")
    assert load_splits(DataConfig(source=str(path))).train.texts[0] == "text 0"
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_class_labels_and_gaps_keep_their_meaning(tmp_path: Path) -> None:
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    table = datasets.Dataset.from_dict({"text": ["a", "b", "c"], "label": [0, 1, -1]}, features=features)
    assert '"label": "yes"' in store_table(table, tmp_path).read_text()
    gaps = pd.DataFrame({"text": ["a", "b"], "label": [1.0, float("nan")]})
    assert '"label": null' in store_table(gaps, tmp_path).read_text()


def test_cells_that_json_does_not_have_keep_their_meaning(tmp_path: Path) -> None:
    table = pd.DataFrame(
        {
            "tags": [{"b", "a"}, frozenset(), np.array(["c"])],
            "day": pd.to_datetime(["2020-01-02", None, "2020-01-03"]),
            "stars": pd.array([1, None, 3], dtype="Int64"),
            "score": np.array([0.5, 1, 2], dtype=np.float32),
        }
    )
    stored = read_table(store_table(table, tmp_path)).columns
    assert stored["tags"] == [["a", "b"], [], ["c"]]
    assert stored["day"] == ["2020-01-02 00:00:00", None, "2020-01-03 00:00:00"]
    assert (stored["stars"], stored["score"]) == ([1, None, 3], [0.5, 1, 2])
    numbers = store_table({"n": np.array([1, 2]), "day": np.array(["NaT", "2020-01-02"], "datetime64[ns]")}, tmp_path)
    assert read_table(numbers).columns == {"n": [1, 2], "day": [None, "2020-01-02T00:00:00.000000000"]}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (3, "data is a int. Allowed: a table of pandas"),
        ([], "data is a list"),
        (["a"], "data is a list"),
        (pd.Series(["a"]), "data is a Series. Allowed: a table of pandas"),
        (pl.Series(["a"]), "data is a Series"),
        (pl.LazyFrame(COLUMNS), r"data is a LazyFrame, which has no rows yet\. Collect them: data=table\.collect\(\)$"),
        (pa.chunked_array([["a"]]), "data is a ChunkedArray"),
        ({"text": ["a"], "label": []}, r"columns of \[0, 1\] rows"),
        ({"text": []}, r"columns of \[0\] rows"),
        (datasets.DatasetDict({"train": datasets.Dataset.from_dict(COLUMNS)}), r'train\(data=splits\["train"\]'),
        ({"text": [b"secret"], "label": ["a"]}, "Column 'text' holds bytes, not text. Decode them first"),
        (pd.DataFrame({"text": ["a"], "label": [[b"secret"]]}), "Column 'label' holds bytes"),
        (pd.DataFrame([["a", "b", "c"]], columns=["text", "text", "label"]), "several columns 'text'"),
        (pa.Table.from_arrays([pa.array(["a"])] * 2, names=["text", "text"]), "several columns 'text'"),
        ({1: ["a"], "1": ["b"]}, "several columns '1'"),
    ],
)
def test_anything_else_is_refused(tmp_path: Path, table: object, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        store_table(table, tmp_path)
    assert "secret" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_table_in_the_settings_says_where_it_goes() -> None:
    table = pd.DataFrame({"text": ["secret"], "label": ["x"]})
    for wrong in (lambda: Config(data=table), lambda: DataConfig(source=table)):  # type: ignore[arg-type]  # the mistake
        with pytest.raises(ValueError, match=r"lorafit.train\(config, data=table\)") as caught:
            wrong()
        assert "secret" not in str(caught.value)


def test_a_stored_table_that_was_altered_is_refused(tmp_path: Path) -> None:
    path = store_table({"text": ["fine", "dull"], "label": ["pos", "neg"]}, tmp_path / "tables")
    rows = read_rows(str(path), Config().data)
    assert list(rows.texts) == ["fine", "dull"]
    path.write_text(path.read_text(encoding="utf-8").replace("dull", "fine"), encoding="utf-8")
    with pytest.raises(DataError, match="was altered after it was stored: give the table again"):
        read_rows(str(path), Config().data)
    assert [one.name for one in path.parent.iterdir()] == [path.name], "nothing is left beside it"
