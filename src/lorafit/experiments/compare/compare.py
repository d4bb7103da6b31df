"""Methods side by side: same rows, same tokens, same settings, one folder with a run for each."""

import datetime
import gc
import shlex
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lorafit.config import Config, load_config
from lorafit.errors import (
    ConfigError,
    LorafitError,
    NetworkUnavailableError,
    RunError,
    TrainingInterruptedError,
)
from lorafit.experiments.compare.budget import fit_budget, set_method
from lorafit.experiments.compare.page import render_page
from lorafit.experiments.compare.records import Cell, ComparisonLayout, ComparisonRecord
from lorafit.experiments.compare.summary import CheapResult, summarise
from lorafit.models.acceleration.memory import release_freed_memory
from lorafit.models.methods import METHODS, find_method
from lorafit.runs.folder import RunLayout, check_same_settings, find_free_name, suggest_name
from lorafit.runs.predictions import read_predictions
from lorafit.runs.records import RunRecord
from lorafit.system import hardware
from lorafit.system.atomic import write_atomic
from lorafit.system.progress import Progress, Silent
from lorafit.training.prepare import Material, load_material, prepare
from lorafit.training.stages import RunStages, measure_baseline

__all__ = ["Comparison", "compare"]


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
    progress: Progress | None = None,
) -> Comparison:
    """Train several methods on the same rows and compare what they reach and cost.

    Started again with the same settings and folder, it goes on: what is finished is not trained again. A method that
    fails does not stop the others.

    Args:
        config: The settings that all share; of the method section, each method takes what it knows. With a budget, the
            best settings with which all of it fits are chosen, the same for all.
        methods: Names of rows of the methods' table.
        seeds: How many seeds each is trained with: `training.seed` and those after it.
        output: The folder; None takes a free name below `runs/`.
        progress: Told what is going on; None for silence.

    Returns:
        The comparison.

    Raises:
        ConfigError: No method, an unknown one, or fewer than one seed.
        RunError: The folder holds something else.
        TrainingInterruptedError: It was interrupted; it can be gone on with.
    """
    progress, began = progress or Silent(), time.perf_counter()
    names = _check(methods, seeds)
    if config.method.options:
        raise ConfigError("method.options: they belong to one method and cannot be shared by those compared.")
    suggestion = suggest_name("compare", config.data.source, config.model.name)
    root = Path(output).expanduser() if output else find_free_name(Path("runs") / suggestion)
    layout = ComparisonLayout(root.resolve())
    check_same_settings(layout.config, config.to_yaml(), kind="comparison")
    material = load_material(config)
    shared = _choose_settings(config, names, seeds, layout, material, progress)
    if shared.data != config.data:
        material = load_material(shared)
    cells = [Cell(method=name, seed=shared.training.seed + turn) for turn in range(seeds) for name in names]
    cells = [*cells, *_find_others(cells, layout)]
    try:
        cells = list(_train_all(cells, shared, layout, material, progress))
    except (KeyboardInterrupt, TrainingInterruptedError) as error:
        raise TrainingInterruptedError(
            "Interrupted; what was done is kept. Go on with the same command and --output "
            f"{shlex.quote(str(layout.root))}",
            run=layout.root,
        ) from error
    cheap = _measure_cheap(layout, material, progress) if shared.evaluation.cheap_baselines else []
    shutil.rmtree(layout.prefix_cache, ignore_errors=True)
    record = _record(cells, cheap, shared, layout, material).model_copy(update={"seconds": time.perf_counter() - began})
    record.write(layout.record)
    write_atomic(layout.page, render_page(record))
    return Comparison(layout.root, record)


def _check(methods: Sequence[str], seeds: int) -> list[str]:
    names = list(dict.fromkeys(methods))
    if not names:
        raise ConfigError(f"Name at least one method to compare, of: {', '.join(METHODS)}.")
    for name in names:
        find_method(name)
    if seeds < 1:
        raise ConfigError(f"--seeds takes a number of 1 or more, got {seeds}.")
    return names


def _choose_settings(
    config: Config, names: Sequence[str], seeds: int, layout: ComparisonLayout, material: Material, progress: Progress
) -> Config:
    """Return the settings of all cells: those chosen when the comparison began, or those that fit a budget now."""
    if layout.chosen.is_file():
        if config.training.budget is not None:
            progress.say("the settings chosen before for this comparison's budget are kept, whatever is added to it")
        return load_config(layout.chosen)
    shared = fit_budget(config, names, seeds, material, progress)
    layout.root.mkdir(parents=True, exist_ok=True)
    write_atomic(layout.config, config.to_yaml())
    write_atomic(layout.chosen, shared.to_yaml())
    return shared


def _find_others(cells: Sequence[Cell], layout: ComparisonLayout) -> list[Cell]:
    """Return the cells that were finished before and are not asked for this time; they stay in the table."""
    asked, found = {(cell.method, cell.seed) for cell in cells}, []
    for path in sorted(layout.root.glob("cells/*")):
        method, _, seed = path.name.rpartition("-seed")
        if method in METHODS and seed.isdigit() and (method, int(seed)) not in asked and _is_finished(RunLayout(path)):
            found.append(Cell(method=method, seed=int(seed)))
    return found


def _train_all(
    cells: Sequence[Cell], config: Config, layout: ComparisonLayout, material: Material, progress: Progress
) -> Iterator[Cell]:
    """Train every cell that is not finished; yield each with what went wrong, if anything did."""
    base_digest = material.encoder.digest()
    is_alike = config.method.layers != "all" or len({cell.seed for cell in cells}) > 1
    share_test_rows = is_alike and len(cells) > 1 and config.training.prefix_cache == "auto"
    for number, cell in enumerate(cells, start=1):
        run = layout.cell(cell.method, cell.seed)
        if _is_finished(run):
            _check_same(run, material, base_digest)
            progress.say(f"{number} of {len(cells)}: {cell.method}, seed {cell.seed}: finished before")
            yield cell
            continue
        progress.say(f"{number} of {len(cells)}: {cell.method}, seed {cell.seed}")
        try:
            settings = set_method(config, cell.method, cell.seed)
            _train(settings, run, layout, material, progress, share_test_rows=share_test_rows)
        except TrainingInterruptedError:
            raise
        except LorafitError as error:
            progress.say(f"{cell.method}, seed {cell.seed} failed: {error}")
            yield cell.model_copy(update={"error": str(error)})
        except Exception as error:  # noqa: BLE001 - one method's fault is not the others'
            progress.say(f"{cell.method}, seed {cell.seed} failed: {type(error).__name__}: {error}")
            yield cell.model_copy(update={"error": f"{type(error).__name__}: {error}"})
        else:
            yield cell


def _is_finished(run: RunLayout) -> bool:
    return run.record.is_file() and RunRecord.read(run.record).status == "complete"


def _check_same(run: RunLayout, material: Material, base_digest: str) -> None:
    """Refuse a finished cell of other rows or another base."""
    record, parts = RunRecord.read(run.record), material.splits.by_name
    before = {name: split.fingerprint for name, split in record.data.splits.items()}
    if before != {name: rows.fingerprint() for name, rows in parts.items()} or record.base_model.digest != base_digest:
        raise RunError(
            f"{run.root} was trained on other rows or another base model than there are now: choose another --output."
        )


def _train(
    config: Config,
    run: RunLayout,
    layout: ComparisonLayout,
    material: Material,
    progress: Progress,
    *,
    share_test_rows: bool,
) -> None:
    gc.collect()
    release_freed_memory()
    hardware.reset_peak_memory()  # where the system cannot, the peak is that of all cells so far
    prepared = prepare(config, progress, material=material)
    open_run = RunStages.resume if run.record.is_file() else RunStages.begin
    stages = open_run(prepared, run, progress)
    with (
        stages.journal.kept(),
        stages.cache_frozen_layers(layout.prefix_cache, with_test_rows=share_test_rows),
    ):
        stages.fit()
        calibration = stages.calibrate()
        stages.save(calibration)
        _, metrics = stages.evaluate(calibration=calibration)
    shutil.rmtree(run.checkpoints, ignore_errors=True)
    try:
        stages.track(metrics)
    except NetworkUnavailableError as error:
        progress.say(
            f"{config.method.name}, seed {config.training.seed} is finished and not tracked to its end: {error}"
        )


def _measure_cheap(layout: ComparisonLayout, material: Material, progress: Progress) -> list[CheapResult]:
    """Train and measure the cheap baselines, or read what they said before."""
    splits, results = material.splits, []
    try:
        before = ComparisonRecord.read(layout.record)
    except RunError:  # there is none yet, or one of another version, whose seconds are lost
        before = None
    fingerprints = {"train": splits.train.fingerprint(), "test": splits.test.fingerprint()}
    is_same = before is not None and fingerprints.items() <= before.fingerprints.items()
    seconds = {row.name: row.seconds for row in before.cheap_baselines} if before is not None and is_same else {}
    for name in splits.task.baselines:
        path = layout.cheap_predictions(name)
        values = read_predictions(path, splits.test, splits.task) if name in seconds else None
        if values is None:
            began = time.perf_counter()
            values = measure_baseline(name, splits, path, progress)
            seconds[name] = time.perf_counter() - began
        results.append(CheapResult(name, values, seconds[name]))
    return results


def _record(
    cells: Sequence[Cell],
    cheap: Sequence[CheapResult],
    config: Config,
    layout: ComparisonLayout,
    material: Material,
) -> ComparisonRecord:
    finished = [cell for cell in cells if cell.error is None]
    runs = {(cell.method, cell.seed): layout.cell(cell.method, cell.seed) for cell in finished}
    records = {key: RunRecord.read(run.record) for key, run in runs.items()}
    test, task = material.splits.test, material.splits.task
    predictions = {}
    for key, run in runs.items():
        said = read_predictions(run.predictions("test", "finetuned"), test, task)
        if said is None:
            raise RunError(f"{run.root} holds no predictions of these test rows; remove it to train it again.")
        predictions[key] = said
    sizes = {key: sum(path.stat().st_size for path in run.trained.glob("*.safetensors")) for key, run in runs.items()}
    methods, cheap_rows = summarise(records, predictions, sizes, cheap, test, task, config.evaluation)
    ranked = min(methods, key=lambda row: row.validation_loss, default=None)
    some = next(iter(records.values()), None)
    splits = material.splits.by_name
    return ComparisonRecord(
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        versions={} if some is None else some.versions,
        cpu=hardware.cpu_name(),
        threads=0 if some is None else some.hardware.threads,
        precision="" if some is None else some.hardware.precision,
        task=task.name,
        source=material.splits.source,
        base_model=material.encoder.name,
        settings=config.model_dump(mode="json", include={"model", "training"}),
        fingerprints={name: rows.fingerprint() for name, rows in splits.items()},
        rows={name: len(rows) for name, rows in splits.items()},
        confidence_level=config.evaluation.confidence_level,
        best=None if ranked is None else ranked.method,
        methods=methods,
        cheap_baselines=cheap_rows,
        failed=[cell for cell in cells if cell.error is not None],
    )
