"""Predict files on a Ray cluster: actors that hold the model, and Ray Data between them and the files.

All rows are read once before any work, as on one machine: is every text one, and is every id there once? Then actors
predict batches, and each block of rows becomes a parquet file in the output folder. With an id column, Ray keeps the
ids of what is written (`DataContext.checkpoint_config`), so that a job that was stopped goes on. At the end the rows of
the output are counted, and their ids compared with those that were read.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event, Thread
from types import ModuleType
from typing import Any, Final

from pydantic import ValidationError

from lorafit.cluster.census import BATCH, Census, take_census
from lorafit.cluster.connection import ask_nodes, connecting, count_actors, explain, find_address
from lorafit.cluster.places import PURPOSE, Place, find_suffix
from lorafit.data.tables import Table, check_columns
from lorafit.errors import JobInterruptedError, LorafitError, RunError, UserInputError
from lorafit.inference.batch import PredictedTable, predict_part
from lorafit.inference.jobs import BadRows, find_faults
from lorafit.inference.predictor import Predictor
from lorafit.system.extras import require
from lorafit.system.locks import hold
from lorafit.system.progress import Progress, Silent
from lorafit.system.records import Record
from lorafit.system.text import format_count
from lorafit.tasks.base import Prediction

_READABLE: Final = (".parquet", ".csv", ".tsv", ".jsonl", ".ndjson")

_BLOCK_BYTES: Final = 8 << 20
"""Of rows that are written, and kept where a job is stopped, at a time: 10 to 100 seconds of work."""

_RESTARTS: Final = 4
"""How often an actor is started again before the job ends."""

_SECONDS: Final = 1.0
"""Between two looks at how far a job is."""

_RECORD: Final = "_lorafit.json"
_CHECKPOINT: Final = "_checkpoint"
_WRITTEN: Final = (".parquet",)

_Rows = Any
"""Ray's data set."""


@dataclass(frozen=True)
class ClusterJob:
    """Files to predict on a cluster.

    Attributes:
        files: Parquet, csv, tsv or jsonl files: a path or a URL that all nodes can see, with wildcards or without, or a
            folder of them.
        output: Folder for the parquet files of the output: a path or a URL that all nodes can see.
        text_columns: The column of the texts, or those of both texts of a pair.
        id_column: Column of which each row has a value of its own; None for a job that cannot be resumed.
        bad_rows: What becomes of rows that cannot be predicted, as in `open_file`.
        address: Of the cluster, as `ray.init` takes it; None for that of `RAY_ADDRESS`, or one of this machine alone.
        cpus_per_actor: CPUs that an actor computes with.
    """

    files: str
    output: str
    text_columns: tuple[str, ...] = ("text",)
    id_column: str | None = None
    bad_rows: BadRows = "stop"
    address: str | None = None
    cpus_per_actor: int = 2


class ClusterRecord(Record):
    """`_lorafit.json` in the output folder.

    Attributes:
        settings: What must be the same for the job to go on.
        rows: Rows of the whole output; None until it is whole.
    """

    settings: dict[str, str]
    rows: int | None = None


def run_cluster_job(
    job: ClusterJob,
    predictor: Predictor,
    *,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> int:
    """Predict files on a Ray cluster, and write them with all their columns and those of the predictions as parquet.

    Rows are in no order; an id column tells which is which.

    Args:
        job: The files.
        predictor: From `lorafit.load`; every node opens the same folder.
        resume: Go on with a job that was stopped; begin where there is none.
        overwrite: Throw away what a job left in the output folder.
        progress: Told what is done.

    Returns:
        The rows of the output, counted in it.

    Raises:
        UserInputError: The files cannot be read or predicted, ids are not unique, nodes cannot see the model or the
            files, the address does not answer, or no node has as many CPUs.
        RunError: Something stands in the output folder, it is of another job, or not what it has to be at the end.
        EnvironmentUnfitError: Ray failed.
        JobInterruptedError: Ctrl-C.
        MissingExtraError: Ray is not installed.
    """
    if resume and job.id_column is None:
        raise UserInputError("--resume on a cluster needs --id-column: a column of which each row has its own value.")
    work = _Work(job, predictor, progress)
    output = work.output
    with (
        hold(Path(output.path), kind="output") if output.is_local else nullcontext(),
        connecting(job.address) as ray,
    ):
        try:
            return work.run(ray, resume=resume, overwrite=overwrite)
        except KeyboardInterrupt:
            raise JobInterruptedError(f"Interrupted. {work.describe_kept()}") from None
        except (ray.exceptions.RayError, ray.data.exceptions.ExecutionTimeoutError, OSError, ValueError) as error:
            found = explain(error)  # those of pyarrow are ValueErrors
            raise type(found)(f"{found} {work.describe_kept()}") from error
        finally:
            work.tidy()


class _Work:
    """A job on a cluster."""

    def __init__(self, job: ClusterJob, predictor: Predictor, progress: Progress | None) -> None:
        if predictor.reopen is None:
            raise UserInputError("A cluster opens models from folders: give one that lorafit.load opened.")
        self._job, self._progress = job, progress or Silent()
        self._reopen: Callable[[], Predictor] = partial(predictor.reopen, threads=job.cpus_per_actor)
        self._fingerprint, self._example = predictor.fingerprint, predictor.find_example()
        self.output = Place.find(job.output)
        self._source = Place.find(job.files)
        self._files = self._source.list_files(_READABLE)
        if predictor.pair != (len(job.text_columns) == 2):
            raise UserInputError(f"The model takes {'pairs' if predictor.pair else 'single texts'}: see --text-column.")
        if any(f"{name}/".startswith(f"{self.output.path}/") for name in self._files) or (
            f"{self.output.path}/".startswith(f"{self._source.path}/")
        ):
            raise UserInputError("--output and --file are in each other. Give the output a folder of its own.")
        self._replaces, self._is_begun = False, False

    def run(self, ray: ModuleType, *, resume: bool, overwrite: bool) -> int:
        """Predict all rows, and return how many there are."""
        record = self._open_output(resume=resume, overwrite=overwrite)
        if record.rows is not None:
            return record.rows
        spares_one = resume or find_address(self._job.address) is None
        actors = count_actors(ray, self._job.cpus_per_actor, spares_one=spares_one)
        self.output.system.makedirs(self.output.path, exist_ok=True)
        seen = [(self._source.arrow, self._files[0])]
        if self.output.is_local:  # elsewhere there are no folders
            seen.append((self.output.arrow, self.output.path))
        ask_nodes(ray, partial(_look_around, self._reopen, self._fingerprint, seen))
        with _working_in_small_parts():
            rows = self._read(ray)
            census = self._check(rows)
            self._begin(record)
            expected = census.rows - (census.faulty if self._job.bad_rows == "drop" else 0)
            with _counting(ray, expected, self._progress) as counter:
                self._write(rows, actors, counter)
        self._compare(ray, expected, census)
        self._keep(record.model_copy(update={"rows": expected}))
        self._remove(_CHECKPOINT)
        return expected

    def describe_kept(self) -> str:
        """Say what is kept of a job that stops here."""
        if self._is_begun and self._job.id_column is not None:
            return f"What is finished is kept in {self._job.output}: go on with the same command and --resume."
        return "Nothing is kept." if not self._is_begun else f"Start over with --overwrite: {self._job.output}"

    def tidy(self) -> None:
        """Remove the output folder if nothing was put into it."""
        if self.output.is_local and not self._is_begun:
            with suppress(OSError):
                Path(self.output.path).rmdir()

    def _open_output(self, *, resume: bool, overwrite: bool) -> ClusterRecord:
        """Look at what stands in the output folder, and return the record of this job."""
        job, output = self._job, self.output
        settings = {
            "the model": self._fingerprint,
            "the files": self._source.identify(self._files),
            "--text-column": repr(job.text_columns),
            "--id-column": repr(job.id_column),
            "--bad-rows": job.bad_rows,
        }
        fresh = ClusterRecord(settings=settings)
        if not output.system.exists(output.path) or not output.system.ls(output.path):
            return fresh
        try:
            there = ClusterRecord.model_validate_json(output.system.cat(f"{output.path}/{_RECORD}"))
        except (FileNotFoundError, NotADirectoryError, ValidationError):
            raise RunError(f"{job.output} is there, and no output of lorafit. Choose another --output.") from None
        if resume:
            changed = [name for name, value in settings.items() if there.settings.get(name) != value]
            if changed:
                raise RunError(
                    f"{job.output} is of another job: {', '.join(changed)} changed. Start over with --overwrite."
                )
            self._is_begun = True
            return there
        if not overwrite:
            how = "is whole" if there.rows is not None else "was stopped: go on with --resume"
            raise RunError(f"{job.output} is there already, and {how}. Start over with --overwrite.")
        self._replaces = True
        return fresh

    def _read(self, ray: ModuleType) -> _Rows:
        """Return the rows of the files."""
        read, options = _choose_reader(ray, find_suffix(self._files[0]), self._job)
        rows = read(self._files, filesystem=self._source.arrow, num_cpus=0, **options)
        wanted = dict.fromkeys(self._job.text_columns, "--text-column")
        if self._job.id_column is not None:
            wanted[self._job.id_column] = "--id-column"
        schema = rows.schema()
        if schema is None:
            raise UserInputError(f"{self._job.files} has no rows.")
        check_columns(schema.names, wanted, self._job.files)
        return rows

    def _check(self, rows: _Rows) -> Census:
        """Read all rows once, and refuse those that cannot be predicted."""
        job = self._job
        census = take_census(rows, job.text_columns, job.id_column, of_faulty=job.bad_rows == "keep")
        if job.id_column is not None:
            census.check_ids(job.id_column)
        if census.faulty == census.rows:
            raise UserInputError(f"{job.files}: none of the rows can be predicted: {census.describe_faults()}.")
        if census.faulty and job.bad_rows == "stop":
            raise UserInputError(
                f"{job.files}: cannot predict {census.describe_faults()}. Leave these rows out with --bad-rows drop, "
                "or keep them, without a prediction, with --bad-rows keep."
            )
        if census.faulty:
            how = "without a prediction" if job.bad_rows == "keep" else "left out"
            self._progress.say(f"{how}: {census.describe_faults()}")
        return census

    def _begin(self, record: ClusterRecord) -> None:
        if self._replaces:
            self.output.system.rm(self.output.path, recursive=True)
        self.output.system.makedirs(self.output.path, exist_ok=True)
        self._keep(record)
        self._is_begun = True

    def _keep(self, record: ClusterRecord) -> None:
        self.output.system.pipe(f"{self.output.path}/{_RECORD}", record.model_dump_json().encode())

    def _remove(self, name: str) -> None:
        if self.output.system.exists(f"{self.output.path}/{name}"):
            self.output.system.rm(f"{self.output.path}/{name}", recursive=True)

    def _write(self, rows: _Rows, actors: int, counter: Any) -> None:  # noqa: ANN401
        """Predict the rows that are not written yet, and write them."""
        job, output = self._job, self.output
        data = require("ray.data", extra="cluster", purpose=PURPOSE)
        checkpoint = require("ray.data.checkpoint", extra="cluster", purpose=PURPOSE)
        if job.id_column is not None:
            rows.context.checkpoint_config = checkpoint.CheckpointConfig(
                job.id_column,
                f"{output.path}/{_CHECKPOINT}",
                override_filesystem=output.arrow,
                delete_checkpoint_on_success=False,
            )
        rows.map_batches(
            _Labeller,
            fn_constructor_args=(self._reopen, job, self._example, counter),
            compute=data.ActorPoolStrategy(min_size=1, initial_size=actors, max_size=actors),
            batch_size=BATCH,
            batch_format="pyarrow",
            num_cpus=job.cpus_per_actor,
            max_restarts=_RESTARTS,
        ).write_parquet(output.path, filesystem=output.arrow, ray_remote_args={"num_cpus": 0})

    def _compare(self, ray: ModuleType, expected: int, census: Census) -> None:
        """Make sure that the output has each row once."""
        job, output = self._job, self.output
        with _working_in_small_parts():
            rows = ray.data.read_parquet(output.list_files(_WRITTEN), filesystem=output.arrow, num_cpus=0)
            if job.id_column is None:
                written, is_same = rows.count(), True
            else:
                found = take_census(rows, (), job.id_column, of_faulty=True)
                written, is_same = found.rows, found.digest == census.digest
        if written != expected or not is_same:
            raise RunError(
                f"{job.output} has {format_count(written, 'row')} where {expected:,} were to be written"
                f"{'' if is_same else ', or ids that were not read'}. Start over with --overwrite."
            )


class _Labeller:
    """An actor: it holds the model, and adds the columns of its predictions to batches."""

    def __init__(self, reopen: Callable[[], Predictor], job: ClusterJob, example: Prediction, counter: Any) -> None:  # noqa: ANN401
        self._predictor, self._job, self._example, self._counter = reopen(), job, example, counter
        self._arrow = require("pyarrow", extra="cluster", purpose=PURPOSE)

    def __call__(self, rows: Any) -> Any:  # noqa: ANN401  tables of pyarrow, which has no stubs
        """Return a batch with its predictions."""
        names, keeps = self._job.text_columns, self._job.bad_rows == "keep"
        texts = self._read(rows)
        if texts.faults and not keeps:
            kept = [row for row in range(rows.num_rows) if row not in texts.faults]
            rows = rows.take(self._arrow.array(kept, self._arrow.int64()))
            texts = self._read(rows)
        part = PredictedTable(texts, names, (), self._example, keeps_faults=keeps)
        predicted = predict_part(part, self._predictor, where=f"{self._job.files}: among the texts")
        kinds = [self._find_type(value) for value in self._example.columns().values()]
        kinds += [self._arrow.string()] * keeps  # of the faults
        for (name, values), kind in zip(predicted.add_to(rows.column_names).items(), kinds, strict=True):
            rows = rows.append_column(name, self._arrow.array(values, kind))
        self._counter.add.remote(rows.num_rows)
        return rows

    def _read(self, rows: Any) -> Table:  # noqa: ANN401
        texts = Table({name: rows.column(name).to_pylist() for name in self._job.text_columns}, self._job.files)
        return Table(texts.columns, texts.origin, find_faults(texts, self._job.text_columns))

    def _find_type(self, value: object) -> Any:  # noqa: ANN401
        """Return the type of a column with such values, the same for every batch."""
        if isinstance(value, list | tuple):
            return self._arrow.list_(self._arrow.string())
        return self._arrow.string() if value is None else self._arrow.array([value]).type


def _working_in_small_parts() -> Any:  # noqa: ANN401
    """Return a block in which Ray Data works in parts that are small enough to lose one."""
    data = require("ray.data", extra="cluster", purpose=PURPOSE)
    context = data.DataContext.get_current().copy()
    context.target_max_block_size = _BLOCK_BYTES
    context.raise_original_map_exception = True  # else it is lost on the way here
    context.use_datasource_v2 = False  # it lists files in tasks that wait for the CPUs that the actors have
    return data.DataContext.current(context)


class _Counter:
    """An actor that counts the rows that are done, those twice that were done again."""

    def __init__(self) -> None:
        self._rows = 0

    def add(self, rows: int) -> None:
        self._rows += rows

    def read(self) -> int:
        return self._rows


@contextmanager
def _counting(ray: ModuleType, total: int, progress: Progress) -> Iterator[Any]:
    """Yield an actor that counts rows, and tell what it has counted."""
    counter = ray.remote(_Counter).options(num_cpus=0).remote()
    is_over = Event()

    def tell() -> None:
        while not is_over.wait(_SECONDS):
            with suppress(ray.exceptions.RayError):
                progress.update(min(total, ray.get(counter.read.remote())))

    progress.start("predicting", total=total, unit="text")
    teller = Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield counter
    finally:
        is_over.set()
        teller.join()
    progress.update(total)
    progress.finish()


def _look_around(reopen: Callable[[], Predictor], fingerprint: str, seen: Sequence[tuple[Any, str]]) -> str:
    """Return what keeps a node from the work; nothing if it can do it."""
    try:
        for system, path in seen:
            if not system.get_file_info(path).type:
                return f"it does not see {path}"
        return "" if reopen().fingerprint == fingerprint else "its model is another one"
    except (LorafitError, OSError) as error:
        return str(error)


def _choose_reader(ray: ModuleType, suffix: str, job: ClusterJob) -> tuple[Callable[..., _Rows], dict[str, Any]]:
    """Return what reads files with a suffix, with its options: texts stay text, and so do the ids of csv files."""
    if suffix == ".parquet":
        return ray.data.read_parquet, {}
    arrow = require("pyarrow", extra="cluster", purpose=PURPOSE)
    texts = dict.fromkeys(job.text_columns, arrow.string())
    if suffix in {".jsonl", ".ndjson"}:
        json = require("pyarrow.json", extra="cluster", purpose=PURPOSE)
        parsing = json.ParseOptions(explicit_schema=arrow.schema(texts), newlines_in_values=False)
        return ray.data.read_json, {"file_extensions": None, "parse_options": parsing}
    csv = require("pyarrow.csv", extra="cluster", purpose=PURPOSE)
    ids = {} if job.id_column is None else {job.id_column: arrow.string()}
    return ray.data.read_csv, {
        "file_extensions": None,
        "parse_options": csv.ParseOptions(delimiter="\t" if suffix == ".tsv" else ",", newlines_in_values=True),
        "convert_options": csv.ConvertOptions(column_types=texts | ids),
    }
