import io
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from lorafit.config import ModelConfig
from lorafit.data.tables import Table, read_table
from lorafit.data.writing import write_table
from lorafit.errors import DataError, UserInputError
from lorafit.inference.batch_job import open_file, open_table, run_job
from lorafit.inference.batch_prediction import check_output, predict_table, read_texts
from lorafit.inference.predictor import Predictor
from lorafit.labels import LabelSet
from lorafit.models.acceleration.precision import PrecisionChoice
from lorafit.models.load import load_tokenizer, load_with_head, locate_encoder
from lorafit.models.runtimes.pytorch import TorchRuntime
from lorafit.models.tokenization import Truncation

TEXTS = ["superb", 'she said "a dull, dull film"\nand left', "été in Zürich 🎬 評論", "the end of the story"]
STARS = [5, 1, 4, 3]


class Recorder:
    """A progress that remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def start(self, stage: str, *, total: int | None = None, unit: str = "") -> None:
        self.told.append(("start", stage, total, unit))

    def update(self, done: int, **figures: float) -> None:
        self.told.append(("update", done, figures))

    def finish(self, note: str = "") -> None:
        self.told.append(("finish", note))

    def say(self, line: str) -> None:
        self.told.append(("say", line))


@pytest.fixture(scope="module")
def predictor(build_encoder: Callable[..., Path]) -> Predictor:
    folder = build_encoder("distilbert", initializer_range=0.3)
    labels = LabelSet(("neg", "pos"))
    tokenizer, pad_id = load_tokenizer(folder)
    return Predictor(
        TorchRuntime(
            load_with_head(locate_encoder(ModelConfig(name=str(folder))), labels).model, PrecisionChoice("fp32", "test")
        ),
        tokenizer,
        pad_id=pad_id,
        labels=labels,
        truncation=Truncation(64),
    )


@pytest.fixture
def terminal() -> Iterator[io.TextIOWrapper]:
    """Standard input as a person at a keyboard has it."""
    master, slave = os.openpty()
    with open(slave) as stream:  # noqa: PTH123 - a descriptor has no path
        yield stream
    os.close(master)


def write_texts(folder: Path, suffix: str, columns: dict[str, Sequence[object]]) -> Path:
    path = folder / f"in{suffix}"
    write_table(path, columns)
    return path


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".ndjson", ".parquet"])
def test_a_table_keeps_its_columns_and_its_order(predictor: Predictor, tmp_path: Path, suffix: str) -> None:
    path = write_texts(tmp_path, suffix, {"stars": STARS, "text": TEXTS})
    output = tmp_path / f"out{suffix}"
    assert run_job(open_file(path), predictor, output) == 4
    written = read_table(output).columns
    assert list(written) == ["stars", "text", "label", "score", "probability_neg", "probability_pos"]
    assert written["text"] == TEXTS
    assert [int(str(stars)) for stars in written["stars"]] == STARS
    expected = predictor.predict(TEXTS)
    assert written["label"] == [answer.label for answer in expected]
    for column, values in {
        "score": [answer.score for answer in expected],
        "probability_pos": [answer.scores["pos"] for answer in expected],
    }.items():
        assert [float(str(value)) for value in written[column]] == pytest.approx(values, abs=1e-9)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_any_kind_of_table_can_become_any_other(predictor: Predictor, tmp_path: Path, suffix: str) -> None:
    run_job(open_file(write_texts(tmp_path, ".tsv", {"text": TEXTS})), predictor, tmp_path / f"out{suffix}")
    assert read_table(tmp_path / f"out{suffix}").columns["text"] == TEXTS


@pytest.mark.parametrize("column", ["text", "review"])
def test_a_txt_file_has_one_text_a_line(predictor: Predictor, tmp_path: Path, column: str) -> None:
    path = tmp_path / "in.txt"
    path.write_text("superb\nété 🎬\r\nthe end\n", encoding="utf-8")
    ((_, table),) = open_file(path, text_column=column).parts()
    assert table.columns == {column: ["superb", "été 🎬", "the end"]}
    assert len(predict_table(predictor, table, text_column=column).predictions) == 3


def test_words_come_before_standard_input() -> None:
    table = read_texts(["superb", "dull"], io.StringIO("from the stream"), text_column="review")
    assert table.columns == {"review": ["superb", "dull"]}


def test_standard_input_has_one_text_a_line_and_blank_lines_are_rows() -> None:
    content = "superb\r\n\r\n  \nété 🎬\u2028still the same text\x0cand still\nthe end".encode()
    stream = io.TextIOWrapper(io.BytesIO(content), encoding="utf-8")
    table = read_texts([], stream, text_column="text")
    texts = ["superb", "", "  ", "été 🎬\u2028still the same text\x0cand still", "the end"]
    assert table.columns == {"text": texts}
    job = open_table(Table(table.columns | {"row": [1, 2, 3, 4, 5]}, "stdin"), drop_bad_rows=True)
    assert next(job.parts())[1].columns == {"text": [texts[0], texts[3], texts[4]], "row": [1, 4, 5]}
    assert (job.rows, job.usable) == (5, 3)


def test_dropping_every_row_is_refused() -> None:
    with pytest.raises(UserInputError, match=r"stdin: none of its 2 texts can be classified"):
        open_table(Table({"text": ["", None]}, "stdin"), drop_bad_rows=True)


def test_standard_input_that_is_not_utf8_is_refused() -> None:
    stream = io.TextIOWrapper(io.BytesIO("café".encode("latin1")), encoding="utf-8")
    with pytest.raises(UserInputError, match=r"Standard input is not UTF-8"):
        read_texts([], stream, text_column="text")


def test_empty_standard_input_is_refused() -> None:
    with pytest.raises(UserInputError, match="Nothing to classify: standard input is empty"):
        read_texts([], io.StringIO(""), text_column="text")


def test_a_person_at_a_terminal_is_told_what_to_give(terminal: io.TextIOWrapper) -> None:
    with pytest.raises(UserInputError, match=r'Nothing to classify\. Give texts \("I loved it"\), --file'):
        read_texts([], terminal, text_column="text")


def test_a_missing_column_lists_those_there(tmp_path: Path) -> None:
    path = write_texts(tmp_path, ".csv", {"review": TEXTS, "stars": STARS})
    with pytest.raises(DataError, match=r"no column 'text'\. Its columns: \['review', 'stars'\].*--text-column"):
        open_file(path)


def test_new_columns_whose_names_are_taken_get_a_prefix(predictor: Predictor) -> None:
    columns: dict[str, list[object]] = {"label": ["pos"], "predicted_label": ["neg"], "text": ["fine"], "score": [1]}
    predicted = predict_table(predictor, Table(dict(columns), "a test"), text_column="text").columns()
    assert list(predicted) == [
        "label", "predicted_label", "text", "score", "predicted_predicted_label", "predicted_score", "probability_neg",
        "probability_pos",
    ]  # fmt: skip
    assert {name: predicted[name] for name in columns} == columns
    assert predicted["predicted_predicted_label"] == [predictor.predict(["fine"])[0].label]


def test_unusable_texts_are_refused_with_their_rows(predictor: Predictor, tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text('{"text": "fine"}\n{"text": null}\n{"text": " "}\n{"text": 7}\n')
    with pytest.raises(
        UserInputError, match=r"in\.jsonl: 3 of 4 .*no text \(row 2\).*an empty text \(row 3\).*\(row 4\)"
    ):
        open_file(path)
    with pytest.raises(UserInputError, match=r"3 of 4 texts"):
        predictor.predict(["fine", None, " ", 7])


def test_progress_is_told_from_start_to_finish(predictor: Predictor) -> None:
    progress = Recorder()
    predict_table(predictor, Table({"text": list(TEXTS)}, "a test"), text_column="text", progress=progress)
    assert progress.told == [("start", "predicting", 4, "text"), ("update", 4, {}), ("finish", "")]


def test_an_output_that_is_there_is_refused_unless_it_may_be_replaced(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    check_output(path, overwrite=False)
    path.write_text("precious")
    with pytest.raises(UserInputError, match=r"out\.csv already exists.*--overwrite"):
        check_output(path, overwrite=False)
    check_output(path, overwrite=True)
    assert path.read_text() == "precious"


@pytest.mark.parametrize("name", ["out.txt", "out.xlsx", "out"])
def test_an_output_of_another_kind_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserInputError, match=r"allowed suffixes are \.csv, \.tsv, \.jsonl, \.ndjson, \.parquet"):
        check_output(tmp_path / name, overwrite=True)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_as_output_is_refused(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "out.csv").mkdir()
    with pytest.raises(UserInputError, match=r"out\.csv is a folder; give the name of a file"):
        check_output(tmp_path / "out.csv", overwrite=overwrite)
