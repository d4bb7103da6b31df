import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from lorafit import Prediction, Predictor
from lorafit.data import writing as table_writing
from lorafit.data.tables import Table, read_table
from lorafit.data.writing import write_table
from lorafit.errors import DataError, JobInterruptedError, RunError, UserInputError
from lorafit.inference import batch
from lorafit.inference.batch import check_output, open_file, open_table, read_texts, run_job, stream_predictions
from lorafit.system.progress import Silent
from lorafit.tasks.base import Task

TEXTS = ["superb", 'she said "a dull, dull film"\nand left', "été in Zürich 🎬 評論", "the end of the story"]
STARS = [5, 1, 4, 3]
SUFFIXES = [".csv", ".tsv", ".jsonl", ".parquet"]


class Length:
    """A model in a line: a text is long or short. Counts what it was asked, and may stop at a text."""

    fingerprint = "length"

    def __init__(self, stop_at: str = "") -> None:
        self.asked: list[str] = []
        self._stop_at = stop_at

    def predict(self, texts: Sequence[str], *, on_progress: Callable[[int], None] | None = None) -> list[Prediction]:
        if self._stop_at in texts:
            raise KeyboardInterrupt
        self.asked += texts
        if on_progress is not None:
            on_progress(len(texts))
        chances: NDArray[np.float64] = np.array([min(len(text), 100) / 100 for text in texts])
        return [
            Prediction(
                "long" if chance > 0.5 else "short", max(chance, 1 - chance), {"short": 1 - chance, "long": chance}
            )
            for chance in chances.tolist()
        ]


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "_PART_ROWS", 3)


def write_rows(path: Path, count: int = 10) -> Path:
    write_table(path, {"id": list(range(count)), "text": [f"text {'x' * 9 * row}, {row}" for row in range(count)]})
    return path


class Notes(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.told: list[tuple[str, Any]] = []

    def say(self, line: str) -> None:
        self.lines.append(line)

    def start(self, stage: str, *, total: int | None = None, **_: object) -> None:
        self.told.append((stage, total))

    def update(self, done: int, **_: float) -> None:
        self.told.append(("update", done))


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("kind", SUFFIXES)
def test_parts_become_one_table_in_order(tmp_path: Path, suffix: str, kind: str) -> None:
    file, output = write_rows(tmp_path / f"in{suffix}"), tmp_path / f"out{kind}"
    whole = tmp_path / f"whole{kind}"
    assert run_job(open_file(file), Length(), output) == 10
    columns = read_table(output).columns
    assert [int(str(value)) for value in columns["id"]] == list(range(10))
    assert columns["text"] == read_table(file).columns["text"]
    assert columns["label"] == ["short" if row < 5 else "long" for row in range(10)]
    run_job(open_table(read_table(file)), Length(), whole)
    if kind == ".parquet":
        assert pq.read_table(output).equals(pq.read_table(whole))
    else:
        assert output.read_bytes() == whole.read_bytes(), "as if it had been one part"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([file.name, output.name, whole.name])


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_stopped_job_goes_on_and_repeats_and_loses_nothing(tmp_path: Path, suffix: str) -> None:
    file, output = write_rows(tmp_path / "in.csv"), tmp_path / f"out{suffix}"
    texts = read_table(file).columns["text"]
    with pytest.raises(
        JobInterruptedError, match=r"6 rows are done and kept in .*go on with the same command and --res"
    ):
        run_job(open_file(file), Length(stop_at=str(texts[7])), output)
    assert not output.exists()
    rest, notes = Length(), Notes()
    assert run_job(open_file(file), rest, output, resume=True, progress=notes) == 10
    assert rest.asked == texts[6:]
    assert notes.lines == ["going on after 6 rows that are done"]
    assert notes.told == [("predicting", 4), ("update", 3), ("update", 4)]
    assert read_table(output).columns["text"] == texts
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_stopped_job_is_neither_forgotten_nor_mixed_with_another(tmp_path: Path) -> None:
    file, output = write_rows(tmp_path / "in.csv"), tmp_path / "out.csv"
    stopping = str(read_table(file).columns["text"][7])
    with pytest.raises(JobInterruptedError):
        run_job(open_file(file), Length(stopping), output)
    with pytest.raises(
        RunError, match=r"6 finished rows of a job .*Go on after them with --resume, or start over with --overwrite"
    ):
        run_job(open_file(file), Length(), output)
    other = Length()
    other.fingerprint = "another"
    with pytest.raises(RunError, match="a job that had other values for: the model, --csv-safe"):
        run_job(open_file(file), other, output, resume=True, csv_safe=True)
    with file.open("a") as rows:
        rows.write("10,one more\n")
    with pytest.raises(RunError, match="other values for: the texts"):
        run_job(open_file(file), Length(), output, resume=True)
    again = Length()
    assert run_job(open_file(file), again, output, overwrite=True) == 11
    assert len(again.asked) == 11


def test_a_job_stopped_before_its_first_part_leaves_nothing(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "in.csv")
    with pytest.raises(JobInterruptedError, match="Nothing is kept"):
        run_job(open_file(file), Length(str(read_table(file).columns["text"][0])), tmp_path / "out.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


def test_a_full_disk_keeps_what_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, output = write_rows(tmp_path / "in.csv"), tmp_path / "out.csv"
    write = table_writing.write_atomic

    def fill(path: Path, content: bytes) -> None:
        if path.name == "000002.csv":
            raise OSError(28, "No space left on device")
        write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(table_writing, "write_atomic", fill)
        with pytest.raises(UserInputError, match=r"No space left on device\. 6 rows are done and kept"):
            run_job(open_file(file), Length(), output)
    assert read_table(tmp_path / ".out.csv.parts" / "000000.csv").columns["id"] == ["0", "1", "2"]
    assert run_job(open_file(file), Length(), output, resume=True) == 10


def test_bad_rows_are_found_before_any_work_and_left_out_on_request(tmp_path: Path) -> None:
    texts = ["a", None, "b", None, None, None, "c", " ", 7, "d"]
    file = tmp_path / "in.jsonl"
    file.write_text("".join(json.dumps({"text": text, "row": row}) + "\n" for row, text in enumerate(texts)))
    with pytest.raises(
        UserInputError, match=r"in\.jsonl: 6 of 10 texts cannot be .*no text \(rows 2, 4, 5, 6\).*\(row 8\).*\(row 9\)"
    ):
        open_file(file)
    job, output = open_file(file, drop_bad_rows=True), tmp_path / "out.csv"
    assert (job.rows, job.usable) == (10, 4)
    assert run_job(job, Length(), output) == 4
    assert read_table(output).columns["text"] == ["a", "b", "c", "d"]
    assert read_table(output).columns["row"] == ["0", "2", "6", "9"]


def test_columns_are_those_of_the_whole_file(tmp_path: Path) -> None:
    file, output = tmp_path / "in.jsonl", tmp_path / "out.parquet"
    lines = [{"text": f"text {row}"} | ({"stars": row} if row == 8 else {}) for row in range(10)]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    run_job(open_file(file), Length(), output)
    assert read_table(output).columns["stars"] == [None] * 8 + [8, None]
    assert list(read_table(output).columns)[:2] == ["text", "stars"]


@pytest.mark.parametrize("change", [f"secret {7}", True, [7]])
def test_a_column_that_changes_its_type_is_refused_by_parquet_before_any_work(tmp_path: Path, change: object) -> None:
    file, asked = tmp_path / "in.jsonl", Length()
    lines = [{"text": f"text {row}", "id": row if row < 5 else change} for row in range(6)]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(UserInputError, match=r"Column 'id' does not fit into a parquet file.*\.jsonl\.$") as caught:
        run_job(open_file(file), asked, tmp_path / "out.parquet")
    assert "secret" not in str(caught.value)
    assert asked.asked == []
    assert run_job(open_file(file), Length(), tmp_path / "out.jsonl") == 6


def test_types_that_differ_inside_a_value_are_found_at_the_end_and_named(tmp_path: Path) -> None:
    file = tmp_path / "in.jsonl"
    lines = [{"text": f"text {row}", "ids": [row if row < 3 else f"secret {row}"]} for row in range(6)]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(UserInputError, match=r"Column 'ids' does not fit into a parquet file") as caught:
        run_job(open_file(file), Length(), tmp_path / "out.parquet")
    assert "secret" not in str(caught.value)


def test_whole_numbers_and_fractions_fit_together(tmp_path: Path) -> None:
    file = tmp_path / "in.jsonl"
    file.write_text("".join(json.dumps({"text": "t", "n": row if row < 3 else row / 2}) + "\n" for row in range(6)))
    run_job(open_file(file), Length(), tmp_path / "out.parquet")
    assert read_table(tmp_path / "out.parquet").columns["n"] == [0, 1, 2, 1.5, 2, 2.5]


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_cells_like_formulas_are_made_harmless_on_request(tmp_path: Path, suffix: str) -> None:
    texts = ["=1+1", "+cmd", "-5", "@x", "\tx", "fine", "-2.5 stars"]
    file, output = tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
    write_table(file, {"text": texts, "-name": ["x"] * 7})
    run_job(open_file(file), Length(), output, csv_safe=True)
    columns = read_table(output).columns
    assert columns["text"] == ["'=1+1", "'+cmd", "-5", "'@x", "'\tx", "fine", "'-2.5 stars"]
    assert "'-name" in columns
    run_job(open_file(file), Length(), output)
    assert read_table(output).columns["text"] == texts


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".txt", ".parquet"])
def test_texts_are_streamed_in_order(tmp_path: Path, suffix: str) -> None:
    texts = [f"text {row}" for row in range(10)]
    file = tmp_path / f"in{suffix}"
    if suffix == ".txt":
        file.write_text("\n".join(texts))
    else:
        write_table(file, {"text": texts})
    notes = Notes()
    parts = list(stream_predictions(open_file(file), Length(), progress=notes))
    assert [text for part in parts for text in part.table.columns["text"]] == texts
    assert [len(part.predictions) for part in parts] == [3, 3, 3, 1]
    assert notes.told == [("predicting", 10), *(("update", done) for done in (3, 6, 9, 10))]


def test_a_file_without_rows_or_with_texts_of_no_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("text\n")
    with pytest.raises(DataError, match=r"in\.csv has no rows"):
        open_file(tmp_path / "in.csv")
    with pytest.raises(UserInputError, match="none of its 2 texts can be predicted"):
        open_table(Table({"text": [None, ""]}, "stdin"), drop_bad_rows=True)
    with pytest.raises(DataError, match=r"no column 'text'\. Its columns: \['review'\]"):
        open_table(Table({"review": ["a"]}, "stdin"))


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_batch import Length
from lorafit.inference import batch

batch._PART_ROWS = int(sys.argv[3])

class Slow(Length):
    def predict(self, texts, *, on_progress=None):
        if len(self.asked) >= 30:
            print("working", flush=True)
            sys.stdin.read()
        return super().predict(texts)

file = Path(sys.argv[1])
batch.run_job(batch.open_file(file), Slow(), file.with_name("out.csv"))
"""


@pytest.mark.parametrize("part", [3, 7], ids=["parts as now", "other parts, as of another version"])
def test_a_killed_job_repeats_no_row_and_loses_none(tmp_path: Path, part: int) -> None:
    file, output = write_rows(tmp_path / "in.csv", 50), tmp_path / "out.csv"
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(file), str(Path(__file__).parent), str(part)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "working\n"
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert not output.exists()
    rest = Length()
    assert run_job(open_file(file), rest, output, resume=True) == 50
    assert len(rest.asked) == 50 - -(-30 // part) * part
    assert [int(str(row)) for row in read_table(output).columns["id"]] == list(range(50))


def test_another_process_at_work_is_noticed(tmp_path: Path) -> None:
    file, output = write_rows(tmp_path / "in.csv"), tmp_path / "out.csv"

    class Overtaken(Length):
        def predict(self, texts: Sequence[str], **named: Any) -> list[Prediction]:
            if len(self.asked) == 6:
                run_job(open_file(file), Length(), output, resume=True)
            return super().predict(texts, **named)

    with pytest.raises(RunError, match="Another process is at work in"):
        run_job(open_file(file), Overtaken(), output)
    assert [int(str(row)) for row in read_table(output).columns["id"]] == list(range(10))


def test_what_a_killed_end_leaves_is_not_taken_for_a_job(tmp_path: Path) -> None:
    file, output = write_rows(tmp_path / "in.csv"), tmp_path / "out.csv"
    (tmp_path / ".out.csv.parts").mkdir()
    (tmp_path / ".out.csv.parts" / "000007.csv").write_text("stale")
    assert run_job(open_file(file), Length(), output, resume=True) == 10
    assert len(read_table(output)) == 10


def test_texts_at_hand_leave_nothing_behind(tmp_path: Path) -> None:
    table = Table({"text": [f"text {row}" for row in range(5)]}, "standard input")
    with pytest.raises(JobInterruptedError, match="Nothing is kept"):
        run_job(open_table(table), Length(stop_at="text 4"), tmp_path / "out.csv")
    assert list(tmp_path.iterdir()) == []


MANY = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_batch import Length
from lorafit.inference.batch import open_file, run_job

class Light(Length):
    def predict(self, texts, *, on_progress=None):
        predictions = super().predict(texts)
        self.asked.clear()
        return predictions

file = Path(sys.argv[1])
rows = run_job(open_file(file), Light(), file.with_name(f"out{file.suffix}"))
peak = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(rows, peak)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of a process is read as Linux tells it")
@pytest.mark.parametrize("suffix", [pytest.param(".csv", marks=pytest.mark.slow), ".parquet"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, suffix: str) -> None:
    rng, peaks = np.random.default_rng(0), []
    for rows in (12_000, 42_000):
        file = tmp_path / f"in{suffix}"
        write_table(file, {"text": [f"text {row} {rng.bytes(300).hex()}" for row in range(rows)]})
        child = subprocess.run(
            [sys.executable, "-c", MANY, str(file), str(Path(__file__).parent)],
            capture_output=True,
            text=True,
            check=True,
        )
        done, kilobytes = map(int, child.stdout.split())
        assert done == rows
        peaks.append(kilobytes)
    assert peaks[1] < peaks[0] + 10_000, "kilobytes; the file has 19,000 more"


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


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".ndjson"])
def test_a_table_keeps_its_columns_and_its_order(tmp_path: Path, suffix: str) -> None:
    path, model = write_texts(tmp_path, suffix, {"stars": STARS, "text": TEXTS}), Length()
    output = tmp_path / f"out{suffix}"
    assert run_job(open_file(path), model, output) == 4
    written = read_table(output).columns
    assert list(written) == ["stars", "text", "label", "score", "probability_short", "probability_long"]
    assert written["text"] == TEXTS
    assert [int(str(stars)) for stars in written["stars"]] == STARS
    expected = model.predict(TEXTS)
    assert written["label"] == [prediction.label for prediction in expected]
    for column, values in {
        "score": [prediction.score for prediction in expected],
        "probability_long": [prediction.scores["long"] for prediction in expected],
    }.items():
        assert [float(str(value)) for value in written[column]] == pytest.approx(values, abs=1e-9)


def test_columns_are_those_of_the_task(task: Task, build_predictor: Callable[..., Predictor], tmp_path: Path) -> None:
    predictor = build_predictor(task)
    run_job(open_file(write_texts(tmp_path, ".jsonl", {"text": TEXTS})), predictor, tmp_path / "out.parquet")
    columns = read_table(tmp_path / "out.parquet").columns
    expected = [prediction.columns() for prediction in predictor.predict(TEXTS)]
    assert list(columns) == ["text", *expected[0]]
    for name in expected[0]:
        values = [row[name] for row in expected]
        assert columns[name] == (pytest.approx(values, abs=1e-5) if isinstance(values[0], float) else values)


@pytest.mark.parametrize("column", ["text", "review"])
def test_a_txt_file_has_one_text_a_line(tmp_path: Path, column: str) -> None:
    path = tmp_path / "in.txt"
    path.write_text("superb\nété 🎬\r\nthe end\n", encoding="utf-8")
    (part,) = stream_predictions(open_file(path, text_column=column), Length())
    assert part.table.columns == {column: ["superb", "été 🎬", "the end"]}
    assert len(part.predictions) == 3


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
    with pytest.raises(UserInputError, match=r"stdin: none of its 2 texts can be predicted"):
        open_table(Table({"text": ["", None]}, "stdin"), drop_bad_rows=True)


def test_standard_input_that_is_not_utf8_is_refused() -> None:
    stream = io.TextIOWrapper(io.BytesIO("café".encode("latin1")), encoding="utf-8")
    with pytest.raises(UserInputError, match=r"Standard input is not UTF-8"):
        read_texts([], stream, text_column="text")


def test_empty_standard_input_is_refused() -> None:
    with pytest.raises(UserInputError, match="Nothing to predict: standard input is empty"):
        read_texts([], io.StringIO(""), text_column="text")


def test_a_person_at_a_terminal_is_told_what_to_give(terminal: io.TextIOWrapper) -> None:
    with pytest.raises(UserInputError, match=r'Nothing to predict\. Give texts \("I loved it"\), --file'):
        read_texts([], terminal, text_column="text")


def test_a_missing_column_lists_those_there(tmp_path: Path) -> None:
    path = write_texts(tmp_path, ".csv", {"review": TEXTS, "stars": STARS})
    with pytest.raises(DataError, match=r"no column 'text'\. Its columns: \['review', 'stars'\].*--text-column"):
        open_file(path)


def test_new_columns_whose_names_are_taken_get_a_prefix() -> None:
    columns: dict[str, list[object]] = {"label": ["pos"], "predicted_label": ["neg"], "text": ["fine"], "score": [1]}
    (part,) = stream_predictions(open_table(Table(dict(columns), "a test")), Length())
    predicted = part.columns()
    assert list(predicted) == [
        "label", "predicted_label", "text", "score", "predicted_predicted_label", "predicted_score",
        "probability_short", "probability_long",
    ]  # fmt: skip
    assert {name: predicted[name] for name in columns} == columns
    assert predicted["predicted_predicted_label"] == ["short"]


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
