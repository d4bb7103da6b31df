"""Methods side by side: same rows, same tokens, same settings, one folder with a run for each."""

import datetime
import gc
import json
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from pathlib import Path

from lorafit.config import Config, load_config
from lorafit.errors import ConfigError, LorafitError, NetworkUnavailableError, RunError, TrainingInterruptedError
from lorafit.experiments.compare.budget import fit_budget, set_method
from lorafit.experiments.compare.page import render_page
from lorafit.experiments.compare.records import Cell, ComparisonLayout, ComparisonRecord
from lorafit.experiments.compare.summary import BaselineResult, CellResult, summarise
from lorafit.experiments.engine import RETRIES, Engine, Lost, find_obstacle, identify_material
from lorafit.experiments.keeping import keeping, stops_all, write_command
from lorafit.models.acceleration.memory import release_freed_memory
from lorafit.models.methods import METHODS, find_method
from lorafit.models.tokenization import Truncation
from lorafit.runs.evidence import check_evidence, check_trained, has_evidence
from lorafit.runs.folder import TRAINED_FILES, RunLayout, check_same_settings, find_free_name, suggest_name
from lorafit.runs.predictions import read_predictions, write_predictions
from lorafit.runs.records import RunRecord
from lorafit.system import hardware
from lorafit.system.atomic import write_atomic
from lorafit.system.locks import hold
from lorafit.system.notebook import progress_here
from lorafit.system.paths import expand_home
from lorafit.system.progress import Progress
from lorafit.tasks.base import Array
from lorafit.tasks.baselines import EMBEDDING
from lorafit.training.embedding_baseline import is_embedding, predict_embedding
from lorafit.training.planning.schedule import complete_schedule
from lorafit.training.prepare import Material, load_material, prepare
from lorafit.training.stages import RunStages, measure_baseline


@dataclass(frozen=True)
class Comparison:
    """A finished comparison.

    Attributes:
        path: Its folder, with a run folder for each method and seed.
        record: The results.
    """

    path: Path
    record: ComparisonRecord


def compare(
    config: Config,
    methods: Sequence[str],
    *,
    seeds: int = 1,
    output: str | Path | None = None,
    engine: Engine | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Train several methods on the same rows and compare their results and costs.

    Called again with the same settings and folder, it resumes: what has finished is not trained again. A method that
    fails does not stop the others.

    Args:
        config: The settings that all share; of the method section, each method takes what it knows. With a budget, the
            best settings with which all of it fits are chosen, the same for all.
        methods: Names of rows of the methods' table.
        seeds: How many seeds each is trained with: `training.seed` and those after it.
        output: The folder; None takes a free name below `runs/`.
        engine: What trains the cells, such as `lorafit.cluster.engine.open_engine`; None for this process.
        progress: Receives the progress; None for a bar in a notebook, and silence elsewhere.

    Returns:
        The comparison.

    Raises:
        ConfigError: No method, an unknown one, fewer than one seed, or settings that methods cannot share.
        RunError: The folder holds something else, or another process or thread is writing a comparison there.
        TrainingInterruptedError: It was interrupted; the message gives the command that resumes it.
        EnvironmentUnfitError: The machine lacks something; the message says how to go on.
    """
    progress, began = progress or progress_here(), time.perf_counter()
    names = _check(config, methods, seeds)
    config = config.model_copy(update={"data": config.data.holding_out()})
    suggestion = suggest_name("compare", config.data.source, config.model.name)
    root = expand_home(output) if output else find_free_name(Path("runs") / suggestion)
    layout = ComparisonLayout(root.resolve())
    check_same_settings(layout.config, config.to_yaml(), kind="comparison")
    options = {} if engine is None else engine.options
    command = write_command("compare", layout.config, methods=",".join(names), seeds=seeds, **options)
    with hold(layout.root, kind="comparison"), keeping(layout.config, command):
        check_same_settings(layout.config, config.to_yaml(), kind="comparison")
        material = load_material(config)
        shared = _choose_settings(config, names, seeds, layout, material, progress)
        if shared.data != config.data:
            material = load_material(shared)
        grid = _Grid(shared, layout, material, progress, command)
        asked = [Cell(method=name, seed=shared.training.seed + turn) for turn in range(seeds) for name in names]
        cells = list(grid.train([*asked, *grid.find_others(asked)], engine))
        baselines = list(grid.measure_baselines(cells)) if shared.evaluation.baselines else []
        shutil.rmtree(layout.prefix_cache, ignore_errors=True)
        record = grid.build_record(cells, baselines, began=began)
        record.write(layout.record)
        write_atomic(layout.page, render_page(record))
    return Comparison(layout.root, record)


def _check(config: Config, methods: Sequence[str], seeds: int) -> list[str]:
    """Return the methods, each once."""
    names = list(dict.fromkeys(methods))
    if not names:
        raise ConfigError(f"Name at least one method to compare, of: {', '.join(METHODS)}.")
    for name in names:
        find_method(name)
    if seeds < 1:
        raise ConfigError(f"--seeds takes a number of 1 or more, got {seeds}.")
    if config.method.options:
        raise ConfigError("method.options: they belong to one method and cannot be shared by those compared.")
    return names


def _choose_settings(
    config: Config, names: Sequence[str], seeds: int, layout: ComparisonLayout, material: Material, progress: Progress
) -> Config:
    """Return the settings of all cells: those chosen when the comparison began, or those that fit the budget now."""
    if layout.is_kept(layout.chosen):
        if config.training.budget is not None:
            progress.say("the settings chosen before for this comparison's budget are kept, whatever is added to it")
        return load_config(layout.chosen)
    settled = complete_schedule(config, len(material.splits.train))
    shared = fit_budget(settled, names, seeds, material, progress)
    layout.root.mkdir(parents=True, exist_ok=True)
    write_atomic(layout.config, config.to_yaml())
    write_atomic(layout.chosen, shared.to_yaml())
    layout.keep(layout.chosen)
    return shared


def _is_finished(run: RunLayout) -> bool:
    return run.record.is_file() and RunRecord.read(run.record).status == "complete"


@lru_cache(maxsize=1)
def _load_once(chosen: Path, expected: str) -> Material:
    """Load what the cells share that a process trains one after the other.

    Args:
        chosen: The settings.
        expected: What `_name_material` gives where the comparison was called.

    Returns:
        The material.

    Raises:
        RunError: It is another one here.
    """
    material = load_material(load_config(chosen))
    if _name_material(material) != expected:
        raise RunError("The data or the base model have changed since the comparison was called. Call it again.")
    return material


def _name_material(material: Material) -> str:
    return json.dumps(identify_material(material), sort_keys=True)


def _train_there(
    config: Config,
    layout: ComparisonLayout,
    command: str,
    expected: str,
    share_test_rows: bool,
    cell: Cell,
    progress: Progress,
) -> Cell:
    """Train a cell as a part of an engine."""
    grid = _Grid(config, layout, _load_once(layout.chosen, expected), progress, command)
    return grid.train_cell(cell, share_test_rows=share_test_rows)


@dataclass(frozen=True)
class _Grid:
    """The cells of a comparison: methods by seeds.

    Attributes:
        config: The settings that they share.
        layout: The folder.
        material: Rows, tokens and encoder.
        progress: Receives the progress.
        command: The command that goes on after a stop.
    """

    config: Config
    layout: ComparisonLayout
    material: Material
    progress: Progress
    command: str

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """Those of the rows of each split."""
        return {name: rows.fingerprint() for name, rows in self.material.splits.by_name.items()}

    def find_others(self, asked: Sequence[Cell]) -> list[Cell]:
        """Find the cells that finished before and are not asked for this time; they stay in the table."""
        known, others = {(cell.method, cell.seed) for cell in asked}, []
        for path in sorted(self.layout.root.glob("cells/*")):
            method, _, seed = path.name.rpartition("-seed")
            if method in METHODS and seed.isdigit() and (method, int(seed)) not in known:
                others += [Cell(method=method, seed=int(seed))] if _is_finished(RunLayout(path)) else []
        return others

    def train(self, cells: Sequence[Cell], engine: Engine | None) -> Iterator[Cell]:
        """Train every cell that has not finished; yield each with what went wrong, if anything did."""
        base_digest = self.material.encoder.digest()
        freezes_alike = self.config.method.layers != "all" or len({cell.seed for cell in cells}) > 1
        share_test_rows = freezes_alike and len(cells) > 1 and self.config.training.prefix_cache == "auto"
        known = {} if engine is None else self._distribute(engine, cells, share_test_rows=share_test_rows)
        for number, cell in enumerate(cells, start=1):
            run, place = self.layout.cell(cell.method, cell.seed), f"{number} of {len(cells)}: {cell.title}"
            if cell.title in known:
                yield known[cell.title]
            elif _is_finished(run):
                self._check_same(run, base_digest)
                self.progress.say(f"{place}: finished before")
                yield cell
            else:
                self.progress.say(place)
                yield self.train_cell(cell, share_test_rows=share_test_rows)

    def train_cell(self, cell: Cell, *, share_test_rows: bool) -> Cell:
        """Train a cell, and return it with what went wrong, if anything did."""
        run = self.layout.cell(cell.method, cell.seed)
        try:
            self._train(set_method(self.config, cell.method, cell.seed), run, share_test_rows=share_test_rows)
        except TrainingInterruptedError:
            raise
        except Exception as error:
            if stops_all(error):
                raise
            reason = str(error) if isinstance(error, LorafitError) else f"{type(error).__name__}: {error}"
            self.progress.say(f"{cell.title} failed: {reason}")
            return cell.model_copy(update={"error": reason})
        return cell

    def _distribute(self, engine: Engine, cells: Sequence[Cell], *, share_test_rows: bool) -> dict[str, Cell]:
        """Let an engine train every cell that has not finished; return these by title."""
        engine.check(partial(find_obstacle, self.config, self.layout.chosen, identify_material(self.material)))
        todo = {cell.title: cell for cell in cells if not _is_finished(self.layout.cell(cell.method, cell.seed))}
        expected = _name_material(self.material)
        work = partial(_train_there, self.config, self.layout, self.command, expected, share_test_rows)
        killed, trained = Counter[str](), dict[str, Cell]()

        def go_on(title: str, reason: str) -> bool:
            killed[title] += 1
            self.progress.say(f"{title}: {reason}")
            return killed[title] <= RETRIES

        self.progress.start("training", total=len(todo), unit="cell")
        with closing(engine.run(work, todo, progress=self.progress, again=go_on)) as results:
            for title, ended in results:
                reason = ended.reason if isinstance(ended, Lost) else ended.error
                if killed[title] > RETRIES:
                    reason = f"begun {killed[title]} times; at last {reason}"
                self.progress.say(f"{title}: {'finished' if reason is None else reason}")
                trained[title] = todo[title].model_copy(update={"error": reason})
                self.progress.update(len(trained))
        self.progress.finish()
        return trained

    def measure_baselines(self, cells: Sequence[Cell]) -> Iterator[BaselineResult]:
        """Train the baselines, or read the predictions that an earlier start wrote for the same rows."""
        splits, known = self.material.splits, self._read_seconds()
        has_embedding = any(is_embedding(cell.method) for cell in cells if cell.error is None)
        for name in splits.task.baselines:
            if name == EMBEDDING and has_embedding:
                continue
            path = self.layout.predictions(name)
            is_known = name in known and self.layout.is_kept(path)
            values = read_predictions(path, splits.test, splits.task) if is_known else None
            if values is None:
                began = time.perf_counter()
                try:
                    values = self._measure_baseline(name, path)
                except ConfigError as error:
                    self.progress.say(f"not measured: {splits.task.baselines[name]}: {error}")
                    continue
                self.layout.keep(path)
                known[name] = time.perf_counter() - began
            yield BaselineResult(name, values, known[name])

    def _measure_baseline(self, name: str, path: Path) -> Array:
        splits, model = self.material.splits, self.config.model
        if name != EMBEDDING:
            return measure_baseline(name, splits, path, self.progress)
        tokens = self.material.tokenize(Truncation(model.max_length, model.truncation, model.window_stride))
        values, _ = predict_embedding(
            splits, tokens, self.material.encoder, self.material.pad_id, self.config, self.progress
        )
        write_predictions(path, splits.test, splits.task, values)
        return values

    def build_record(
        self, cells: Sequence[Cell], baselines: Sequence[BaselineResult], *, began: float
    ) -> ComparisonRecord:
        """Build the record from what is in the cells' folders; `began` is a time of `perf_counter`."""
        splits, config = self.material.splits, self.config
        finished = [self._read_result(cell) for cell in cells if cell.error is None]
        best, methods, rows = summarise(finished, baselines, splits.test, splits.task, config.evaluation.resampling)
        some = finished[0].record if finished else None
        return ComparisonRecord(
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            versions=some.versions if some else {},
            cpu=hardware.cpu_name(),
            threads=some.hardware.threads if some else 0,
            precision=some.hardware.precision if some else "",
            task=splits.task.name,
            source=splits.source,
            base_model=self.material.encoder.name,
            settings=config.model_dump(mode="json", include={"model", "training"}),
            fingerprints=self.fingerprints,
            rows={name: len(part) for name, part in splits.by_name.items()},
            confidence_level=config.evaluation.confidence_level,
            best=best,
            methods=methods,
            baselines=rows,
            grouped=splits.test.groups is not None,
            failed=[cell for cell in cells if cell.error is not None],
            seconds=time.perf_counter() - began,
        )

    def _train(self, config: Config, run: RunLayout, *, share_test_rows: bool) -> None:
        gc.collect()
        release_freed_memory()
        hardware.reset_peak_memory()  # where the system cannot, the peak is that of all cells so far
        prepared = prepare(config, self.progress, material=self.material)
        has_begun = run.record.is_file() and has_evidence(run, RunRecord.read(run.record), run.config)
        open_run = RunStages.resume if has_begun else RunStages.begin
        stages = open_run(prepared, run, self.progress)
        with (
            hold(run.root, kind="run"),
            stages.journal.kept(self.command),
            stages.cache_frozen_layers(self.layout.prefix_cache, with_test_rows=share_test_rows),
        ):
            stages.fit()
            stages.calibrate(stages.predict_held_out())
            stages.fit_typicality()
            stages.save()
            _, metrics = stages.evaluate()
        shutil.rmtree(run.checkpoints, ignore_errors=True)
        try:
            stages.track(metrics)
        except NetworkUnavailableError as error:
            title = f"{config.method.name}, seed {config.training.seed}"
            self.progress.say(f"{title} is finished and not tracked to its end: {error}")

    def _check_same(self, run: RunLayout, base_digest: str) -> None:
        """Refuse a finished cell of other rows or another base model."""
        record = RunRecord.read(run.record)
        before = {name: split.fingerprint for name, split in record.data.splits.items()}
        if before != self.fingerprints or record.base_model.digest != base_digest:
            raise RunError(
                f"{run.root} was trained on other rows or another base model than there are now: choose another "
                "--output."
            )

    def _read_seconds(self) -> dict[str, float]:
        """Return what each baseline took when an earlier start trained it on the same rows."""
        if not self.layout.record.is_file():
            return {}
        before = ComparisonRecord.read(self.layout.record)
        same = all(before.fingerprints.get(name) == self.fingerprints[name] for name in ("train", "test"))
        return {row.name: row.seconds for row in before.baselines} if same else {}

    def _read_result(self, cell: Cell) -> CellResult:
        run, splits = self.layout.cell(cell.method, cell.seed), self.material.splits
        record, path = RunRecord.read(run.record), run.predictions("test", "after")
        try:
            check_trained(run, record)
            check_evidence(run, record, path)
        except RunError as error:
            raise RunError(f"{error} Remove {run.root} to train it again.") from error
        values = read_predictions(path, splits.test, splits.task)
        if values is None:
            raise RunError(f"{run.root} holds no predictions of these test rows; remove it to train it again.")
        weights = [name for name in TRAINED_FILES[find_method(record.method).library] if name.endswith(".safetensors")]
        size = sum((run.trained / name).stat().st_size for name in weights)
        return CellResult(record, values, size)
