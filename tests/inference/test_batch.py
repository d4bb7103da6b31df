import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from decimal import Decimal
from itertools import accumulate
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from lorafit import Prediction, Predictor
from lorafit.data.tables import Table, read_table
from lorafit.data.writing import write_table
from lorafit.errors import DataError, JobInterruptedError, LorafitError, RunError, UserInputError
from lorafit.inference import job_parts, jobs
from lorafit.inference.batch import check_output, name_left_out, run_job, stream_predictions
from lorafit.inference.job_parts import PartRecord
from lorafit.inference.jobs import BadRows, open_file, open_table
from lorafit.system.atomic import compute_digest
from lorafit.system.progress import Silent
from lorafit.system.text import Text, join_text
from lorafit.tasks.base import Task
from lorafit.tasks.registry import build_task

TEXTS = ["superb", 'she said "a dull, dull film"\nand left', "été in Zürich 🎬 評論", "the end of the story"]
STARS = [5, 1, 4, 3]
SUFFIXES = [".csv", ".tsv", ".jsonl", ".parquet"]


class Length:
    """A model in a line: a text is long or short. Counts what it was asked, and may stop at a text."""

    fingerprint = "length"
    task = build_task("single_label", ("short", "long"))
    calibration = None

    def __init__(self, stop_at: str = "") -> None:
        self.asked: list[Text] = []
        self._stop_at = stop_at

    def find_example(self) -> Prediction:
        return self.task.predict(np.zeros(len(self.task.label_names)), None)

    def predict(
        self, texts: Sequence[Text], *, on_progress: Callable[[int], None] | None = None, **_: object
    ) -> list[Prediction]:
        if self._stop_at in texts:
            raise KeyboardInterrupt
        self.asked += texts
        if on_progress is not None:
            on_progress(len(texts))
        chances: NDArray[np.float64] = np.array([min(len(join_text(text)), 100) / 100 for text in texts])
        return [
            Prediction(
                "long" if chance > 0.5 else "short", max(chance, 1 - chance), {"short": 1 - chance, "long": chance}
            )
            for chance in chances.tolist()
        ]


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "_PART_ROWS", 3)


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
    file, output = write_rows(tmp_path / "in.jsonl"), tmp_path / f"out{suffix}"
    texts = read_table(file).columns["text"]
    with pytest.raises(
        JobInterruptedError, match=r"Finished and kept in .*: 6 rows\. Go on with the same command and --res"
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


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_stop_after_the_output_is_written_tells_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overwrite: bool
) -> None:
    file, output, join = write_rows(tmp_path / "in.jsonl"), tmp_path / "out.csv", job_parts.join_tables
    if overwrite:
        output.write_text("of an earlier job")

    def join_and_stop(*arguments: Any, **named: Any) -> NoReturn:
        join(*arguments, **named)
        raise KeyboardInterrupt

    monkeypatch.setattr(job_parts, "join_tables", join_and_stop)
    with pytest.raises(JobInterruptedError, match=f"^Interrupted. The output is complete: {re.escape(str(output))}$"):
        run_job(open_file(file), Length(), output, overwrite=overwrite)
    assert len(read_table(output).columns["text"]) == 10
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.csv"]


def test_a_stopped_job_is_neither_forgotten_nor_mixed_with_another(tmp_path: Path) -> None:
    file, output = write_rows(tmp_path / "in.jsonl"), tmp_path / "out.csv"
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
        rows.write('{"id": 10, "text": "one more"}\n')
    with pytest.raises(RunError, match="other values for: the texts"):
        run_job(open_file(file), Length(), output, resume=True)
    again = Length()
    assert run_job(open_file(file), again, output, overwrite=True) == 11
    assert len(again.asked) == 11


def test_a_job_stopped_before_its_first_part_leaves_nothing(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "in.jsonl")
    with pytest.raises(JobInterruptedError, match="Nothing is kept"):
        run_job(open_file(file), Length(str(read_table(file).columns["text"][0])), tmp_path / "out.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_full_disk_keeps_what_is_done(tmp_path: Path, suffix: str) -> None:
    file, output = write_rows(tmp_path / "in.jsonl", 40), tmp_path / f"out{suffix}"
    child = subprocess.run(
        [sys.executable, "-c", FULL, str(file), str(output), str(Path(__file__).parent)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert re.search(
        r"3 A file .*grows beyond .*Finished and kept in .*: \d+ rows\. Go on with the same", child.stdout
    ), child.stderr
    assert not output.exists()
    rest = Length()
    assert run_job(open_file(file), rest, output, resume=True) == 40
    assert 0 < len(rest.asked) < 40
    assert read_table(output).columns["text"] == read_table(file).columns["text"]


def test_bad_rows_are_found_before_any_work_and_left_out_on_request(tmp_path: Path) -> None:
    texts = ["a", None, "b", None, None, None, "c", " ", 7, "d"]
    file = tmp_path / "in.jsonl"
    file.write_text("".join(json.dumps({"text": text, "row": row}) + "\n" for row, text in enumerate(texts)))
    with pytest.raises(
        UserInputError,
        match=r"in\.jsonl: cannot predict 6 of 10 rows: no text \(rows 2, 4, 5, 6\); an empty text \(row 8\); "
        r"a text of type int \(row 9\)\. Leave these rows out with --bad-rows drop, or keep them,.* --bad-rows keep\.$",
    ):
        open_file(file)
    job, output = open_file(file, bad_rows="drop"), tmp_path / "out.csv"
    assert (job.rows, job.usable) == (10, 4)
    assert run_job(job, Length(), output) == 4
    assert read_table(output).columns["text"] == ["a", "b", "c", "d"]
    assert read_table(output).columns["row"] == ["0", "2", "6", "9"]
    assert (tmp_path / "out.csv.left_out.csv").read_text().splitlines() == [
        "row,reason", "2,no text", "4,no text", "5,no text", "6,no text", "8,an empty text", "9,a text of type int"
    ]  # fmt: skip


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_bad_rows_are_kept_without_a_prediction_on_request(tmp_path: Path, suffix: str) -> None:
    texts = [None, "", None, "a", None, "b", "c", "\t", "d", None]
    file, output = tmp_path / "in.jsonl", tmp_path / f"out{suffix}"
    file.write_text("".join(json.dumps({"text": text, "fault": row}) + "\n" for row, text in enumerate(texts)))
    model = Length()
    assert run_job(open_file(file, bad_rows="keep"), model, output) == 10
    assert model.asked == ["a", "b", "c", "d"]
    columns = read_table(output).columns
    assert list(columns) == [
        "text",
        "fault",
        "label",
        "score",
        "probability_short",
        "probability_long",
        "predicted_fault",
    ]
    assert [int(str(row)) for row in columns["fault"]] == list(range(10))
    empty = "" if suffix in {".csv", ".tsv"} else None
    usable = [row for row, text in enumerate(texts) if text in model.asked]
    for name in list(columns)[2:6]:
        assert [row for row, value in enumerate(columns[name]) if value != empty] == usable
    faults = ["no text", "an empty text", "no text", empty, "no text", empty, empty, "an empty text", empty, "no text"]
    assert columns["predicted_fault"] == faults
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", output.name]


@pytest.mark.parametrize("bad_rows", ["drop", "keep"])
@pytest.mark.parametrize("stop_at", [4, 8, 11])
def test_a_stopped_job_with_bad_rows_gives_what_it_would_have_given(
    tmp_path: Path, bad_rows: BadRows, stop_at: int
) -> None:
    texts = [" " if row % 3 == 0 or 4 < row < 8 else f"text {row}" for row in range(12)]
    file, output, whole = tmp_path / "in.csv", tmp_path / "out.csv", tmp_path / "whole.csv"
    write_table(file, {"id": list(range(12)), "text": texts})
    run_job(open_file(file, bad_rows=bad_rows), Length(), whole)
    with pytest.raises(JobInterruptedError):
        run_job(open_file(file, bad_rows=bad_rows), Length(stop_at=texts[stop_at]), output)
    notes, rest = Notes(), Length()
    run_job(open_file(file, bad_rows=bad_rows), rest, output, resume=True, progress=notes)
    assert ("predicting", len(rest.asked)) in notes.told
    assert output.read_bytes() == whole.read_bytes()
    listed = [path.read_text() for path in (name_left_out(output), name_left_out(whole)) if path.exists()]
    assert listed == [listed[0]] * 2 if bad_rows == "drop" else listed == []


def test_what_is_left_out_is_listed_without_replacing_a_file(tmp_path: Path) -> None:
    table, output = Table({"text": ["a", None]}, "stdin"), tmp_path / "out.csv"
    (tmp_path / "out.csv.left_out.csv").write_text("mine")
    with pytest.raises(UserInputError, match=r"out\.csv\.left_out\.csv already exists.*--overwrite"):
        run_job(open_table(table, bad_rows="drop"), Length(), output)
    assert not output.exists()
    run_job(open_table(table, bad_rows="drop"), Length(), output, overwrite=True)
    assert (tmp_path / "out.csv.left_out.csv").read_text() == "row,reason\n2,no text\n"
    run_job(open_table(table, bad_rows="keep"), Length(), output, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["out.csv"], "nothing was left out of this one"


def test_a_file_of_bad_rows_alone_is_kept_and_not_dropped(tmp_path: Path) -> None:
    table, model = Table({"text": ["", None]}, "stdin"), Length()
    with pytest.raises(UserInputError, match=r"none of its 2 rows .*an empty text \(row 1\); no text \(row 2\)"):
        open_table(table, bad_rows="drop")
    assert run_job(open_table(table, bad_rows="keep"), model, tmp_path / "out.jsonl") == 2
    assert read_table(tmp_path / "out.jsonl").columns["label"] == [None, None]
    assert model.asked == []


def test_rows_that_the_reader_could_not_read_are_bad_rows(tmp_path: Path) -> None:
    table = Table({"text": ["a", None, "b"], "id": ["1", None, "3"]}, "in.csv", {1: "3 fields, the header has 2"})
    with pytest.raises(UserInputError, match=r"cannot predict 1 of 3 rows: 3 fields, the header has 2 \(row 2\)\."):
        open_table(table)
    output = tmp_path / "out.csv"
    assert run_job(open_table(table, bad_rows="drop"), Length(), output) == 2
    assert read_table(output).columns["id"] == ["1", "3"]
    assert name_left_out(output).read_text() == 'row,reason\n2,"3 fields, the header has 2"\n'


def test_faults_of_many_kinds_are_cut(tmp_path: Path) -> None:
    faults = {row: f"kind {row // 2}" for row in range(50)}
    with pytest.raises(UserInputError) as caught:
        open_table(Table({"text": [*[None] * 50, "a"]}, "stdin", faults))
    assert "kind 0 (rows 1, 2); kind 1 (rows 3, 4);" in str(caught.value)
    assert "kind 19 (rows 39, 40); and 5 other kinds. Leave" in str(caught.value)


def test_a_column_of_bad_rows_alone_does_not_change_its_type(tmp_path: Path) -> None:
    table = Table({"text": ["a", 7, "b"]}, "stdin")
    assert run_job(open_table(table, bad_rows="drop"), Length(), tmp_path / "out.parquet") == 2
    with pytest.raises(UserInputError, match="Column 'text' does not fit into a parquet file"):
        run_job(open_table(table, bad_rows="keep"), Length(), tmp_path / "other.parquet")


@pytest.mark.parametrize(
    ("columns", "trained", "taken"),
    [
        (["review", "stars"], ["review"], ["review"]),
        (["review", "text"], ["review"], ["review"]),
        (["text", "stars"], ["review"], ["text"]),
        (["premise", "claim"], ["premise", "claim"], ["premise", "claim"]),
        (["text", "text_pair"], ["premise", "claim"], ["text", "text_pair"]),
    ],
)
def test_the_columns_that_a_model_was_trained_on_are_taken_where_they_are(
    tmp_path: Path, columns: list[str], trained: list[str], taken: list[str]
) -> None:
    write_table(tmp_path / "in.csv", {name: [f"{name} of a row"] for name in columns})
    assert open_file(tmp_path / "in.csv", trained_columns=trained).text_columns == tuple(taken)


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".txt"])
def test_pairs_come_from_two_columns_or_from_lines_with_a_tab(tmp_path: Path, suffix: str) -> None:
    file, model = tmp_path / f"in{suffix}", Length()
    pairs = [("it rains", "it is wet"), ("it rains", "it is\tdry" if suffix == ".txt" else "it is dry")]
    if suffix == ".txt":
        file.write_text("".join("\t".join(pair) + "\n" for pair in pairs))
    else:
        write_table(file, {"a": [first for first, _ in pairs], "b": [second for _, second in pairs]})
    (part,) = stream_predictions(open_file(file, text_columns=["a", "b"]), model)
    assert model.asked == part.texts == pairs
    assert list(part.columns())[:3] == ["a", "b", "label"]


def test_columns_are_those_of_the_whole_file(tmp_path: Path) -> None:
    file, output = tmp_path / "in.jsonl", tmp_path / "out.parquet"
    lines = [{"text": f"text {row}"} | ({"stars": row} if row == 8 else {}) for row in range(10)]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    run_job(open_file(file), Length(), output)
    assert read_table(output).columns["stars"] == [None] * 8 + [8, None]
    assert list(read_table(output).columns)[:2] == ["text", "stars"]


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
    sizes = [len(part.predictions) for part in parts]
    assert max(sizes) <= 3
    assert notes.told == [("predicting", 10), *(("update", done) for done in accumulate(sizes))]


def test_a_file_without_rows_or_with_texts_of_no_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("text\n")
    with pytest.raises(DataError, match=r"in\.csv has no rows"):
        open_file(tmp_path / "in.csv")
    with pytest.raises(UserInputError, match="none of its 2 rows can be predicted"):
        open_table(Table({"text": [None, ""]}, "stdin"), bad_rows="drop")
    with pytest.raises(DataError, match=r"no column 'text'\. Its columns: \['review'\]"):
        open_table(Table({"review": ["a"]}, "stdin"))


FULL = """
import resource, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from test_batch import Length
from lorafit.errors import EnvironmentUnfitError
from lorafit.inference import job_parts, jobs
from lorafit.inference.batch import run_job
from lorafit.inference.jobs import open_file

jobs._PART_ROWS = 3
job = open_file(Path(sys.argv[1]))

class Filling(Length):
    def predict(self, texts, *, on_progress=None, **_):
        if len(self.asked) >= 12:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (700, 700))
        return super().predict(texts)

try:
    run_job(job, Filling(), Path(sys.argv[2]))
except EnvironmentUnfitError as error:
    print(error.exit_code, error)
"""


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_batch import Length
from lorafit.inference import batch, jobs

jobs._PART_ROWS = int(sys.argv[3])

class Slow(Length):
    def predict(self, texts, *, on_progress=None, **_):
        if len(self.asked) >= 30:
            print("working", flush=True)
            sys.stdin.read()
        return super().predict(texts)

file = Path(sys.argv[1])
batch.run_job(jobs.open_file(file), Slow(), file.with_name("out.csv"))
"""


@pytest.mark.parametrize("part", [3, 7], ids=["parts as now", "other parts, as of another version"])
def test_a_killed_job_repeats_no_row_and_loses_none(tmp_path: Path, part: int) -> None:
    file, output = write_rows(tmp_path / "in.jsonl", 50), tmp_path / "out.csv"
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(file), str(Path(__file__).parent), str(part)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "working\n"
    with pytest.raises(RunError, match=rf"out\.csv is in use: process {child.pid} on"):
        run_job(open_file(file), Length(), output, overwrite=True)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert not output.exists()
    rest = Length()
    assert run_job(open_file(file), rest, output, resume=True) == 50
    assert len(rest.asked) == 50 - -(-30 // part) * part
    assert [int(str(row)) for row in read_table(output).columns["id"]] == list(range(50))


def stop_job(file: Path, output: Path, row: int = 7, *, bad_rows: BadRows = "stop") -> Path:
    """Stop a job at a row, and return the folder of its parts."""
    texts = read_table(file).columns["text"]
    with pytest.raises(JobInterruptedError, match="Finished and kept in"):
        run_job(open_file(file, bad_rows=bad_rows), Length(str(texts[row])), output)
    return output.with_name(f".{output.name}.parts")


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def empty(path: Path) -> None:
    path.write_bytes(b"")


DAMAGE = [flip, shorten, empty, Path.unlink]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("kind", ["table", "record"])
def test_a_damaged_part_is_predicted_again_alone(
    tmp_path: Path, suffix: str, damage: Callable[[Path], None], kind: str
) -> None:
    file, output, whole = write_rows(tmp_path / "in.csv", 14), tmp_path / f"out{suffix}", tmp_path / f"whole{suffix}"
    texts = read_table(file).columns["text"]
    run_job(open_file(file), Length(), whole)
    parts = stop_job(file, output, 10)
    damage(parts / f"000000000003{suffix if kind == 'table' else '.json'}")
    rest, notes = Length(), Notes()
    assert run_job(open_file(file), rest, output, resume=True, progress=notes) == 14
    assert rest.asked == texts[3:6] + texts[9:]
    assert notes.lines[0] == "going on after 6 rows that are done"
    missing = [] if kind == "record" and damage is Path.unlink else ["missing or damaged"]
    assert [line.partition(":")[0] for line in notes.lines[1:]] == missing
    assert output.read_bytes() == whole.read_bytes()
    assert not parts.exists()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_no_damage_of_what_is_kept_gives_another_output(tmp_path: Path, suffix: str) -> None:
    file, output, whole = write_rows(tmp_path / "in.csv", 14), tmp_path / f"out{suffix}", tmp_path / f"whole{suffix}"
    run_job(open_file(file), Length(), whole)
    parts, rng = stop_job(file, output, 10), np.random.default_rng(0)
    kept, refused = shutil.copytree(parts, tmp_path / "kept"), []
    for turn in range(16):
        shutil.rmtree(parts, ignore_errors=True)
        shutil.copytree(kept, parts)
        files = sorted(parts.iterdir())
        victim, how = files[turn % len(files)], ("flip", "cut", "repeat", "swap")[turn % 4]
        content = bytearray(victim.read_bytes())
        place = int(rng.integers(len(content)))
        content[place] ^= 1 << rng.integers(8)
        other = files[rng.integers(len(files))].read_bytes()
        victim.write_bytes({"flip": content, "cut": content[:place], "repeat": content * 2, "swap": other}[how])
        try:
            rows = run_job(open_file(file), Length(), output, resume=True, overwrite=True)
        except RunError as error:
            refused.append(str(error))
        else:
            assert (rows, output.read_bytes()) == (14, whole.read_bytes()), (victim.name, how, place)
    assert 0 < len(refused) < 16
    assert all(message.endswith("Start over with --overwrite and without --resume.") for message in refused)


def test_a_part_that_is_damaged_while_the_job_runs_is_predicted_again(tmp_path: Path) -> None:
    file, output = write_rows(tmp_path / "in.csv"), tmp_path / "out.csv"

    class Careless(Length):
        def predict(self, texts: Sequence[Text], **named: Any) -> list[Prediction]:
            if len(self.asked) == 6:
                flip(tmp_path / ".out.csv.parts" / "000000000000.csv")
            return super().predict(texts, **named)

    model, texts = Careless(), read_table(file).columns["text"]
    assert run_job(open_file(file), model, output) == 10
    assert model.asked == texts + texts[:3]
    assert read_table(output).columns["text"] == texts


@pytest.mark.parametrize("fault", [KeyboardInterrupt, OSError(5, "Input/output error")])
def test_what_stops_while_parts_are_looked_at_keeps_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: BaseException
) -> None:
    file, output = write_rows(tmp_path / "in.csv"), tmp_path / "out.csv"
    stop_job(file, output)

    def stop(part: PartRecord) -> bool:
        raise fault

    job = open_file(file)
    with monkeypatch.context() as patch:
        patch.setattr(job_parts.JobParts, "_is_whole", lambda _, part: stop(part))
        with pytest.raises(LorafitError, match=r"Finished and kept in .*: 6 rows"):
            run_job(job, Length(), output, resume=True)
    rest = Length()
    assert run_job(open_file(file), rest, output, resume=True) == 10
    assert len(rest.asked) == 4


def test_parts_that_never_hold_end_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, output = write_rows(tmp_path / "in.csv"), tmp_path / "out.csv"
    write = job_parts.write_atomic

    def write_badly(path: Path, content: bytes) -> None:
        write(path, content[:-1] + b"?" if path.suffix == ".csv" and path.name.startswith("000000000003") else content)

    monkeypatch.setattr(job_parts, "write_atomic", write_badly)
    monkeypatch.setattr(job_parts, "compute_digest", lambda path: str(path.stat().st_mtime_ns))
    with pytest.raises(RunError, match=r"would have|do not stay what they were") as caught:
        run_job(open_file(file), Length(), output)
    assert not output.exists(), caught


def test_rows_are_counted_in_what_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, output = write_rows(tmp_path / "in.csv"), tmp_path / "out.csv"
    parts = stop_job(file, output)
    table, record = parts / "000000000003.csv", parts / "000000000003.json"
    table.write_bytes(table.read_bytes().partition(b"\n")[2])
    PartRecord.read(record).model_copy(update={"digest": compute_digest(table)}).write(record)
    with pytest.raises(
        RunError, match=r"out\.csv would have 9 rows instead of 10; it is not written\. Start over with"
    ):
        run_job(open_file(file), Length(), output, resume=True)
    assert not output.exists()
    assert run_job(open_file(file), Length(), output, overwrite=True) == 10


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_a_damaged_job_is_said_in_a_sentence_and_can_be_started_over(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    file, output = write_rows(tmp_path / "in.csv"), tmp_path / "out.csv"
    damage(stop_job(file, output) / "job.json")
    with pytest.raises(RunError, match=r"Start over with --overwrite and without --resume\.$") as caught:
        run_job(open_file(file), Length(), output, resume=True)
    assert "\n" not in str(caught.value)
    with pytest.raises(RunError, match="6 finished rows of a job with this output"):
        run_job(open_file(file), Length(), output)
    assert run_job(open_file(file), Length(), output, overwrite=True) == 10
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.csv", "out.csv"]


def put_notes(folder: Path) -> None:
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")


def put_a_part_of_nobody(folder: Path) -> None:
    folder.mkdir()
    (folder / "000000000000.csv").write_text("mine")


def put_a_folder(folder: Path) -> None:
    (folder / "000000000000.csv").mkdir(parents=True)


def put_a_link(folder: Path) -> None:
    put_notes(folder.with_name("elsewhere"))
    folder.symlink_to("elsewhere")


def put_a_file(folder: Path) -> None:
    folder.write_text("mine")


@pytest.mark.parametrize("put", [put_notes, put_a_part_of_nobody, put_a_folder, put_a_link, put_a_file])
@pytest.mark.parametrize("options", [{}, {"overwrite": True}, {"resume": True}])
def test_a_folder_of_somebody_else_is_never_deleted(
    tmp_path: Path, put: Callable[[Path], None], options: dict[str, bool]
) -> None:
    file, output = write_rows(tmp_path / "in.csv"), tmp_path / "out.csv"
    put(tmp_path / ".out.csv.parts")
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    with pytest.raises(RunError, match=r"\.out\.csv\.parts .*not lorafit's.* Move it, or choose another --output\."):
        run_job(open_file(file), Length(), output, **options)
    assert sorted(str(path) for path in tmp_path.rglob("*")) == before


def test_what_a_kill_leaves_is_removed_with_the_folder(tmp_path: Path) -> None:
    file, output = write_rows(tmp_path / "in.csv"), tmp_path / "out.csv"
    parts = stop_job(file, output)
    for name in (".job.json.x1_2", ".000000000006.csv.ab", ".000000000006.json.ab", ".out.csv.ab", "000000000006.csv"):
        (parts / name).write_text("half")
    assert run_job(open_file(file), Length(), output, resume=True) == 10
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.csv", "out.csv"]


def test_a_second_job_on_an_output_is_refused(tmp_path: Path) -> None:
    file, output = write_rows(tmp_path / "in.csv"), tmp_path / "out.csv"
    refused: list[str] = []

    class Beset(Length):
        def predict(self, texts: Sequence[Text], **named: Any) -> list[Prediction]:
            if len(self.asked) == 6:
                for options in ({"resume": True}, {"overwrite": True}, {}):
                    thread = threading.Thread(target=attempt, kwargs=options)
                    thread.start()
                    thread.join()
            return super().predict(texts, **named)

    def attempt(**options: bool) -> None:
        try:
            run_job(open_file(file), Length(), output, **options)
        except RunError as error:
            refused.append(str(error))

    assert run_job(open_file(file), Beset(), output) == 10
    assert len(refused) == 3
    assert all(
        re.search(rf"out\.csv is in use: process {os.getpid()} on .*, since .* this output", one) for one in refused
    )
    assert [int(str(row)) for row in read_table(output).columns["id"]] == list(range(10))


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".txt", ".parquet"])
@pytest.mark.parametrize("change", ["append", "shorten", "rewrite", "replace"])
def test_a_file_that_changes_between_check_and_use_ends_the_job_and_keeps_what_is_done(
    tmp_path: Path, suffix: str, change: str
) -> None:
    file, output = tmp_path / f"in{suffix}", tmp_path / "out.jsonl"
    texts = [f"text {row} {'x' * 5000}" for row in range(40)]
    if suffix == ".txt":
        file.write_text("".join(f"{text}\n" for text in texts))
    else:
        write_table(file, {"text": texts})
    content, before = file.read_bytes(), file.stat()

    class Disturbed(Length):
        def predict(self, texts: Sequence[Text], **named: Any) -> list[Prediction]:
            predictions = super().predict(texts, **named)
            if len(self.asked) == 6:
                if change == "replace":
                    file.with_name("new").write_bytes(content)
                    file.with_name("new").replace(file)
                else:
                    new = {"append": content * 2, "shorten": content[: len(content) // 2], "rewrite": content.upper()}[
                        change
                    ]
                    file.write_bytes(new)
            return predictions

    with pytest.raises(
        DataError, match=r"changed while it was read.*kept in .*: \d+ rows\. Go on with .* the same texts"
    ):
        run_job(open_file(file), Disturbed(), output)
    assert not output.exists()
    if change != "replace":
        with pytest.raises((RunError, DataError)):
            run_job(open_file(file, bad_rows="drop"), Length(), output, resume=True)
    file.write_bytes(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert run_job(open_file(file), Length(), output, resume=True) == 40
    assert read_table(output).columns["text"] == texts


def test_a_file_that_changes_behind_its_time_is_noticed_at_the_end(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "in.csv")
    before = file.stat()

    class Sly(Length):
        def predict(self, texts: Sequence[Text], **named: Any) -> list[Prediction]:
            content = file.read_bytes()
            file.write_bytes(content.replace(b"text", b"TEXT"))
            os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
            return super().predict(texts, **named)

    with pytest.raises(DataError, match="was changed while it was read"):
        run_job(open_file(file), Sly(), tmp_path / "out.csv")
    file.write_bytes(file.read_bytes().replace(b"TEXT", b"text"))
    with pytest.raises(DataError, match="was changed while it was read"):
        list(stream_predictions(open_file(file), Sly()))


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
from lorafit.inference.batch import run_job
from lorafit.inference.jobs import open_file

class Light(Length):
    def predict(self, texts, *, on_progress=None, **_):
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
    (part,) = stream_predictions(open_file(path, text_columns=[column]), Length())
    assert part.table.columns == {column: ["superb", "été 🎬", "the end"]}
    assert len(part.predictions) == 3


def test_dropping_every_row_is_refused() -> None:
    with pytest.raises(UserInputError, match=r"stdin: none of its 2 rows can be predicted"):
        open_table(Table({"text": ["", None]}, "stdin"), bad_rows="drop")


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


@pytest.mark.parametrize(
    ("names", "labels"), [(("0", "-12"), [0, -12]), (("0", "01"), ["0", "01"]), (("1", "9" * 19), ["1", "9" * 19])]
)
@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_labels_that_are_whole_numbers_stay_so(
    tmp_path: Path, suffix: str, names: tuple[str, ...], labels: list[object]
) -> None:
    class Numbers(Length):
        task = build_task("single_label", names)

        def predict(self, texts: Sequence[Text], **_: object) -> list[Prediction]:
            chances = {text: [1.0, 0.0] if len(text) < 10 else [0.0, 1.0] for text in texts}
            return [self.task.predict(np.array(chances[text]), None) for text in texts]

    table = Table({"text": ["short", "long" * 10], "label": [3, 4]}, "a test")
    run_job(open_table(table), Numbers(), tmp_path / f"out{suffix}")
    columns = read_table(tmp_path / f"out{suffix}").columns
    assert columns["predicted_label"] == labels
    assert columns["label"] == [3, 4]


def test_several_labels_that_are_whole_numbers_stay_so(tmp_path: Path) -> None:
    class Marks(Length):
        task = build_task("multi_label", ("1", "2"))

        def predict(self, texts: Sequence[Text], **_: object) -> list[Prediction]:
            return [self.task.predict(np.array([1.0, 1.0] if text == "both" else [0.0, 0.0]), None) for text in texts]

    table = Table({"text": ["none"] * 4 + ["both"] * 3}, "a test")
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in table.columns["text"]))
    run_job(open_file(tmp_path / "in.jsonl"), Marks(), tmp_path / "out.parquet")
    assert read_table(tmp_path / "out.parquet").columns["labels"] == [[]] * 4 + [[1, 2]] * 3


def test_parquet_is_written_as_it_came(tmp_path: Path) -> None:
    moments = [1_577_836_800_123_456_789 + row for row in range(10)]
    given = pa.table(
        {
            "text": [f"text {row}" if row != 4 else None for row in range(10)],
            "hash": pa.array([1 if row < 6 else 2**63 + row for row in range(10)], pa.uint64()),
            "map": pa.array([[("a", row)] for row in range(10)], pa.map_(pa.string(), pa.int8())),
            "moment": pa.array(moments, pa.timestamp("ns", "UTC")),
            "price": pa.array([Decimal("1.10")] * 10, pa.decimal128(9, 2)),
            "deep": pa.array([{"at": moments[row]} for row in range(10)], pa.struct([("at", pa.timestamp("ns"))])),
            "kind": pa.array(["ab"[row % 2] for row in range(10)]).dictionary_encode(),
            "none": pa.nulls(10, pa.int16()),
        }
    )
    file, output = tmp_path / "in.parquet", tmp_path / "out.parquet"
    pq.write_table(given, file)
    stop_job(file, output, 8, bad_rows="keep")
    assert run_job(open_file(file, bad_rows="keep"), Length(), output, resume=True) == 10
    assert pq.read_table(output).select(given.column_names).equals(pq.read_table(file))
    run_job(open_file(file, bad_rows="drop"), Length(), output, overwrite=True)
    kept = pq.read_table(file).take([row for row in range(10) if row != 4])
    assert pq.read_table(output).select(given.column_names).equals(kept)
    run_job(open_file(file, bad_rows="drop"), Length(), tmp_path / "out.jsonl")
    first = json.loads((tmp_path / "out.jsonl").read_text().splitlines()[0])
    assert (first["hash"], first["moment"], first["price"]) == (1, "2020-01-01 00:00:00.123456789Z", "1.10")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("secret 7", "its values are of different types: texts, whole numbers"),
        (True, "its values are of different types: truth values, whole numbers"),
        ([7], "its values are of different types: lists, whole numbers"),
        (2**70, "some whole numbers are too large for 64 bits"),
        ("secret \ud800", "some texts are not valid Unicode"),
    ],
)
def test_a_column_that_does_not_fit_into_parquet_is_refused_before_any_work(
    tmp_path: Path, change: object, reason: str
) -> None:
    start = None if isinstance(change, str) and "\ud800" in change else 5
    said = refuse_parquet(tmp_path, start, change)
    assert re.search(rf"Column 'id' does not fit into a parquet file: {reason}.*\.jsonl\.$", said)


@pytest.mark.parametrize(
    ("start", "change", "reason"),
    [
        ({"a": 1}, {"a": "secret"}, "its values at .a are of different types: texts, whole numbers"),
        ([1], ["secret"], r"its values at \[\] are of different types: texts, whole numbers"),
        ({"a": [{"b": 1.5}]}, {"a": [{"b": True}]}, r"its values at .a\[\].b are of different types: fractions, truth"),
        (0.5, 2**53 + 1, "its values are of different types: fractions, whole numbers"),
        (-1, 2**63, "some whole numbers are too large for 64 bits"),
        ({}, {}, "its objects have no keys"),
    ],
)
def test_what_does_not_fit_inside_of_a_value_is_refused_before_any_work(
    tmp_path: Path, start: object, change: object, reason: str
) -> None:
    said = refuse_parquet(tmp_path, start, change)
    assert re.search(rf"Column 'id' does not fit into a parquet file: {reason}.*\.jsonl\.$", said)


def refuse_parquet(folder: Path, start: object, change: object) -> str:
    file, asked = folder / "in.jsonl", Length()
    lines = [{"text": f"text {row}", "id": start if row < 5 else change} for row in range(6)]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(UserInputError) as caught:
        run_job(open_file(file), asked, folder / "out.parquet")
    assert "secret" not in str(caught.value)
    assert asked.asked == []
    assert [path.name for path in folder.iterdir()] == ["in.jsonl"]
    assert run_job(open_file(file), Length(), folder / "out.jsonl") == 6
    return str(caught.value)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1, None, 0.5], "double"),
        ([1, 2, 2**63 + 1], "uint64"),
        ([{"a": 1}, {"b": "x"}, {"a": 0.5, "c": None}], "struct<a: double, b: string, c: null>"),
        ([[], [], [{"a": [1]}]], "list<element: struct<a: list<element: int64>>>"),
        ([None, None, None], "null"),
        ([True, None, False], "bool"),
    ],
)
def test_what_fits_together_has_one_type_in_all_parts(tmp_path: Path, values: list[object], kind: str) -> None:
    file, output = tmp_path / "in.jsonl", tmp_path / "out.parquet"
    rows = [value for value in values for _ in range(3)]  # a part each
    file.write_text("".join(json.dumps({"text": "t", "x": value}) + "\n" for value in rows))
    run_job(open_file(file), Length(), output)
    assert str(pq.read_schema(output).field("x").type) == kind
    written = read_table(output).columns["x"]
    bare = [{k: v for k, v in one.items() if v is not None} if isinstance(one, dict) else one for one in written]
    assert bare == [{k: v for k, v in one.items() if v is not None} if isinstance(one, dict) else one for one in rows]


def test_a_hidden_file_of_a_file_manager_among_the_parts_stays_and_stops_nothing(tmp_path: Path) -> None:
    file, output = write_rows(tmp_path / "in.csv"), tmp_path / "out.csv"
    other = stop_job(file, output) / ".DS_Store"
    other.write_text("mine")
    assert run_job(open_file(file), Length(), output, resume=True) == 10
    assert other.read_text() == "mine"
    assert run_job(open_file(file), Length(), output, overwrite=True) == 10
    assert [path.name for path in other.parent.iterdir()] == [".DS_Store"]
