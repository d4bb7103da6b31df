import csv
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray.data

import lorafit
from lorafit.cli import main
from lorafit.cluster import prediction
from lorafit.cluster.places import Place
from lorafit.cluster.prediction import ClusterJob, run_cluster_job
from lorafit.errors import DataError, RunError, UserInputError

pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # Ray leaves files of its own processes open
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
WORDS = ("a lovely film", "a dull film", "two hours that I will not get back", "what a pleasant surprise")


def write_rows(folder: Path, rows: int, *, files: int = 2, **columns: list[Any]) -> list[dict[str, Any]]:
    """Write parquet files with ids and texts, and return their rows."""
    folder.mkdir(exist_ok=True, parents=True)
    table = pa.table(
        {"id": [f"r{row}" for row in range(rows)], "text": [f"{WORDS[row % 4]}, {row}" for row in range(rows)]}
        | columns
    )
    for number in range(files):
        start, end = rows * number // files, rows * (number + 1) // files
        pq.write_table(table.slice(start, end - start), folder / f"{number}.parquet", row_group_size=500)
    return table.to_pylist()


def read_output(folder: Path) -> list[dict[str, Any]]:
    return sorted(pq.read_table(folder).to_pylist(), key=lambda row: int(row["id"][1:]))


def test_a_cluster_predicts_what_one_machine_predicts(exported: Path, address: str, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "in", 600, label=list(range(600)))
    job = ClusterJob(
        str(tmp_path / "in" / "*.parquet"), str(tmp_path / "out"), id_column="id", address=address, cpus_per_actor=1
    )
    predictor = lorafit.load(exported)
    assert run_cluster_job(job, predictor) == 600
    written = read_output(tmp_path / "out")
    assert [{name: row[name] for name in ("id", "text", "label")} for row in written] == rows
    for row, expected in zip(written, predictor.predict([row["text"] for row in rows]), strict=True):
        assert row["predicted_label"] == expected.label
        assert row["score"] == pytest.approx(expected.score, abs=1e-4)
    assert not (tmp_path / "out" / "_checkpoint").exists()
    assert run_cluster_job(job, predictor, resume=True) == 600, "what is whole is not done again"
    with pytest.raises(RunError, match=r"is there already, and is whole\. Start over with --overwrite"):
        run_cluster_job(job, predictor)
    with pytest.raises(DataError, match="has no column 'body'"):
        run_cluster_job(ClusterJob(**{**vars(job), "text_columns": ("body",)}), predictor, overwrite=True)
    assert read_output(tmp_path / "out") == written, "nothing is thrown away for a job that cannot begin"


@pytest.mark.slow
def test_a_stopped_job_goes_on_with_what_is_missing(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_rows(tmp_path / "in", 4000)
    monkeypatch.setattr(prediction, "_BLOCK_BYTES", 20_000)
    job = ClusterJob(str(tmp_path / "in"), str(tmp_path / "out"), id_column="id")
    predictor = lorafit.load(exported)
    with monkeypatch.context() as patch:

        def stop(work: prediction._Work, rows: ray.data.Dataset, *more: object) -> None:
            write(work, rows.filter(lambda row: int(row["id"][1:]) < 1500, num_cpus=0), *more)
            raise KeyboardInterrupt

        write = prediction._Work._write
        patch.setattr(prediction._Work, "_write", stop)
        with pytest.raises(lorafit.errors.JobInterruptedError, match="go on with the same command and --resume"):
            run_cluster_job(job, predictor)
    first = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.parquet")}
    assert first
    with pytest.raises(RunError, match="was stopped: go on with --resume"):
        run_cluster_job(job, predictor)
    with pytest.raises(RunError, match="of another job: --bad-rows changed"):
        run_cluster_job(ClusterJob(**{**vars(job), "bad_rows": "keep"}), predictor, resume=True)
    assert run_cluster_job(job, predictor, resume=True) == 4000
    assert len({row["id"] for row in read_output(tmp_path / "out")}) == 4000
    assert (
        first.items() <= {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.parquet")}.items()
    )


@pytest.mark.slow
def test_a_node_that_dies_loses_and_doubles_no_row(
    exported: Path, start_cluster: Callable[[int], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_rows(tmp_path / "in", 30_000, files=4)
    monkeypatch.setattr(prediction, "_BLOCK_BYTES", 50_000)
    cluster = start_cluster(2)
    (node,) = cluster.worker_nodes
    is_killed = threading.Event()

    def kill() -> None:
        while not list((tmp_path / "out").glob("*.parquet")):
            time.sleep(0.05)
        cluster.remove_node(node, allow_graceful=False)
        is_killed.set()

    threading.Thread(target=kill, daemon=True).start()
    address = f"127.0.0.1:{cluster.gcs_address.rpartition(':')[2]}"
    job = ClusterJob(str(tmp_path / "in"), str(tmp_path / "out"), id_column="id", address=address, cpus_per_actor=1)
    assert run_cluster_job(job, lorafit.load(exported)) == 30_000
    assert is_killed.is_set()
    assert len({row["id"] for row in read_output(tmp_path / "out")}) == 30_000


@pytest.mark.slow
def test_rows_that_cannot_be_predicted_are_refused_left_out_or_kept(
    exported: Path, address: str, tmp_path: Path
) -> None:
    write_rows(tmp_path / "in", 5, files=1, text=["fine", None, "also fine", "  ", "good"])
    job = ClusterJob(str(tmp_path / "in"), str(tmp_path / "out"), id_column="id", address=address, cpus_per_actor=1)
    predictor = lorafit.load(exported)
    with pytest.raises(UserInputError, match=r"cannot predict 2 of 5 rows: .*no text \(1 row\).*--bad-rows drop"):
        run_cluster_job(job, predictor)
    assert not (tmp_path / "out").exists()
    assert run_cluster_job(ClusterJob(**{**vars(job), "bad_rows": "drop"}), predictor) == 3
    assert [row["id"] for row in read_output(tmp_path / "out")] == ["r0", "r2", "r4"]
    assert run_cluster_job(ClusterJob(**{**vars(job), "bad_rows": "keep"}), predictor, overwrite=True) == 5
    kept = read_output(tmp_path / "out")
    assert [row["fault"] for row in kept] == [None, "no text", None, "an empty text", None]
    assert [row["label"] is None for row in kept] == [False, True, False, True, False]


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_texts_of_other_files_are_read_as_text(exported: Path, address: str, tmp_path: Path, suffix: str) -> None:
    rows = [{"id": "007", "text": "2026-12-03"}, {"id": "7", "text": 'two lines\nand a "quote", too'}]
    with (tmp_path / f"new.{suffix}").open("w", newline="", encoding="utf-8") as file:
        if suffix == "csv":
            writer = csv.DictWriter(file, ["id", "text"])
            writer.writeheader()
            writer.writerows(rows)
        else:
            file.writelines(f"{json.dumps(row)}\n" for row in rows)
    words = ["predict", str(exported), "--file", f"local://{tmp_path}/new.{suffix}", "--output", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as ended:
        main([*words, "--engine", "ray", "--address", address, "--cpus-per-actor", "1", "--id-column", "id", "-q"])
    assert ended.value.code == 0
    written = sorted(pq.read_table(tmp_path / "out").to_pylist(), key=lambda row: row["id"])
    assert [{"id": row["id"], "text": row["text"]} for row in written] == rows


def test_ids_that_are_not_unique_are_refused(exported: Path, address: str, tmp_path: Path) -> None:
    write_rows(tmp_path / "in", 4, id=["r1", "r2", "r1", "r3"])
    job = ClusterJob(str(tmp_path / "in"), str(tmp_path / "out"), id_column="id", address=address, cpus_per_actor=1)
    with pytest.raises(DataError, match="1 row have an id that another row has"):
        run_cluster_job(job, lorafit.load(exported))
    write_rows(tmp_path / "in", 4, id=["r1", "r2", None, "r3"])
    with pytest.raises(DataError, match="1 row have no id"):
        run_cluster_job(job, lorafit.load(exported))


def test_a_node_that_does_not_see_the_model_is_named(
    exported: Path, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_rows(tmp_path / "in", 4)
    predictor = lorafit.load(exported)
    monkeypatch.setattr(predictor, "reopen", lambda threads: lorafit.load("/nowhere", threads=threads))
    job = ClusterJob(str(tmp_path / "in"), str(tmp_path / "out"), address=address, cpus_per_actor=1)
    with pytest.raises(UserInputError, match=r"2 of 2 nodes cannot do this work: .*nowhere"):
        run_cluster_job(job, predictor)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cpus_per_actor": 64}, "--cpus-per-actor 64: the largest node has 1"),
        ({"text_columns": ("body",)}, "has no column 'body'"),
        ({"id_column": "key"}, "has no column 'key'"),
        ({"text_columns": ("text", "id")}, "The model takes single texts"),
        ({"files": "nothing/*.parquet"}, "there is no file that ends in"),
        ({"files": "nosuch://bucket/x.parquet"}, "cannot be opened"),
        ({"address": "127.0.0.1:9"}, "no Ray cluster answers there"),
        ({"address": "somewhere"}, "is no address of a Ray cluster"),
    ],
    ids=lambda value: next(iter(value.items()))[1] if isinstance(value, dict) else "",
)
def test_what_cannot_be_done_is_refused_by_name(
    exported: Path, address: str, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    write_rows(tmp_path / "in", 4)
    usual = {"files": str(tmp_path / "in"), "output": str(tmp_path / "out"), "address": address, "cpus_per_actor": 1}
    with pytest.raises((UserInputError, DataError), match=message):
        run_cluster_job(ClusterJob(**{**usual, **change}), lorafit.load(exported))
    assert not (tmp_path / "out").exists()


def test_a_folder_of_somebody_else_is_not_touched(exported: Path, address: str, tmp_path: Path) -> None:
    write_rows(tmp_path / "in", 4)
    write_rows(tmp_path / "theirs", 4)
    job = ClusterJob(str(tmp_path / "in"), str(tmp_path / "theirs"), address=address, cpus_per_actor=1)
    with pytest.raises(RunError, match="is there, and no output of lorafit"):
        run_cluster_job(job, lorafit.load(exported), overwrite=True)
    assert len(list((tmp_path / "theirs").iterdir())) == 2


@pytest.mark.parametrize(("files", "output"), [("in", "in"), ("in", "in/out"), ("in/part/*", "in")])
def test_an_output_and_files_in_each_other_are_refused(exported: Path, tmp_path: Path, files: str, output: str) -> None:
    (tmp_path / "in").mkdir()
    write_rows(tmp_path / "in" / "part", 4)
    job = ClusterJob(str(tmp_path / files), str(tmp_path / output))
    with pytest.raises(UserInputError, match="are in each other"):
        run_cluster_job(job, lorafit.load(exported), overwrite=True)


def test_resuming_needs_ids(exported: Path, tmp_path: Path) -> None:
    with pytest.raises(UserInputError, match="--resume on a cluster needs --id-column"):
        run_cluster_job(ClusterJob("in", "out"), lorafit.load(exported), resume=True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a text"], "--engine ray takes --file"),
        (["--file", "in"], "--engine ray takes --file"),
        (["--file", "in", "--output", "out", "--json"], "--engine ray takes --file"),
        (["--file", "in", "--output", "out", "--adapter", "tone"], "not a model of a server"),
        (["--file", "in", "--output", "out", "--delimiter", ";"], "--delimiter: Ray reads files as they usually are"),
    ],
    ids=["text", "no output", "json", "server", "delimiter"],
)
def test_options_that_do_not_suit_a_cluster_are_refused(
    exported: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["predict", str(exported), "--engine", "ray", *words])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_files_are_found_by_name_and_kind(tmp_path: Path) -> None:
    folder = tmp_path / "_new" / "rows"
    write_rows(folder, 4)
    write_rows(folder / "_checkpoint", 4)
    assert len(Place.find(str(folder)).list_files([".parquet"])) == 2
    assert len(Place.find(str(folder / "1.*")).list_files([".parquet"])) == 1
    (folder / "more.csv").write_text("text\nfine\n")
    with pytest.raises(UserInputError, match="has files of several kinds"):
        Place.find(str(folder)).list_files([".parquet", ".csv"])


def test_resuming_needs_a_cpu_more(exported: Path, start_cluster: Callable[[int], Any], tmp_path: Path) -> None:
    write_rows(tmp_path / "in", 4)
    address = f"127.0.0.1:{start_cluster(1).gcs_address.rpartition(':')[2]}"
    job = ClusterJob(str(tmp_path / "in"), str(tmp_path / "out"), id_column="id", address=address, cpus_per_actor=1)
    predictor = lorafit.load(exported)
    with pytest.raises(UserInputError, match="--cpus-per-actor 1 leaves no CPU for Ray"):
        run_cluster_job(job, predictor, resume=True)
    assert run_cluster_job(job, predictor) == 4, "a job that begins needs none"


def test_options_of_a_cluster_need_one(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["predict", str(exported), "--file", "in.csv", "--id-column", "id"])
    assert stopped.value.code == 2
    assert "--id-column is for a cluster" in capsys.readouterr().err
