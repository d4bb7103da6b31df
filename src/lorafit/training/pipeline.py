"""Train a run from its settings to its report, or resume one."""

import shlex
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lorafit.config import Config
from lorafit.data.loading import split_rows
from lorafit.data.rows import Split
from lorafit.errors import RunError, TrainingDivergedError, TrainingInterruptedError
from lorafit.inference.loading import load
from lorafit.inference.predictor import Predictor
from lorafit.models.cache import name_tables
from lorafit.reports.rows import choose_samples
from lorafit.reports.run_view import render_run
from lorafit.runs.evidence import read_settings
from lorafit.runs.folder import RunLayout, choose_run_folder, claim_run_folder, suggest_name
from lorafit.runs.records import ForecastRecord, RunRecord
from lorafit.system import hardware
from lorafit.system.faults import name_faults
from lorafit.system.locks import hold
from lorafit.system.notebook import progress_here
from lorafit.system.paths import AnyPath, expand_home
from lorafit.system.progress import Progress, Silent
from lorafit.system.text import join_text
from lorafit.tasks.base import Prediction, Task
from lorafit.tasks.blending import HeldOut
from lorafit.tasks.labels import Label
from lorafit.tasks.records import MetricsRecord
from lorafit.training.choice import choose_method
from lorafit.training.distributed import agree_on, lead, prepare_together
from lorafit.training.evaluation import Predicted
from lorafit.training.folds import assign_held_out_folds, cross_fit, predict_baseline_folds
from lorafit.training.planning.budget import needs_preparation, plan_run
from lorafit.training.planning.forecast import measure_workload
from lorafit.training.planning.memory import advise_on_memory, fit_to_memory
from lorafit.training.prepare import Prepared, describe_warmup, load_material, prepare, restoring_threads
from lorafit.training.ranks import Ranks, join_ranks
from lorafit.training.stages import RunStages


@dataclass(frozen=True)
class Sample:
    """A test row with its predictions before and after training.

    Attributes:
        text: The text.
        label: Its true label: a name, several, or a number.
        before: The prediction before training, or None if that was not measured.
        after: The prediction after training.
    """

    text: str
    label: Label
    before: Prediction | None
    after: Prediction


@dataclass(frozen=True, repr=False)
class Run:
    """A finished run.

    Attributes:
        path: The run folder.
        record: What was done, with what, and what it cost.
        metrics: The test metrics before and after training.
        samples: A few test rows, drawn at random, with both predictions. They are not stored in the run folder.
    """

    path: Path
    record: RunRecord
    metrics: MetricsRecord
    samples: tuple[Sample, ...]

    def load(self) -> Predictor:
        """Open the run for prediction."""
        return load(self.path)

    def __fspath__(self) -> str:
        """Return the path of the folder, so that a run can stand wherever one is asked for."""
        return str(self.path)

    def __repr__(self) -> str:
        task, metrics = self.record.build_task(), self.metrics
        found = task.primary_metric.write(metrics.after.metrics[task.primary])
        return f"<Run {self.path}: {task.primary_metric.title} {found} on {metrics.rows:,} {metrics.split} rows>"

    def _repr_html_(self) -> str:
        """Return what a notebook shows of it."""
        return render_run(self.path, self.record, self.metrics)


@restoring_threads()
def train(
    config: Config | None = None,
    *,
    data: object = None,
    validation: object = None,
    test: object = None,
    output: str | Path | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Run:
    """Fine-tune an encoder on labelled texts and measure it before and after.

    Args:
        config: The settings; None takes the defaults.
        data: A table that is at hand instead of `config.data.source`: of pandas, polars, pyarrow or datasets, a dict
            of columns, or a list of dicts. It is kept in lorafit's cache, where evaluations find its rows again.
        validation: The same for `config.data.validation`.
        test: The same for `config.data.test`.
        output: The run folder; None takes a free name below `runs/`.
        overwrite: Whether a run that is already there may be replaced.
        progress: Receives the progress; None for a bar in a notebook, and silence elsewhere.

    Returns:
        The finished run.

    Raises:
        RunError: The folder is taken, or another process or thread is writing a run there.
        TrainingInterruptedError: It was interrupted; the message gives the command that goes on.
        EnvironmentUnfitError: The machine lacks something; the message says what was kept.
    """
    progress = progress or progress_here()
    config = name_tables(config, data=data, validation=validation, test=test)
    name = suggest_name(config.data.source, config.model.name, config.method.name)
    layout = choose_run_folder(Path(output) if output else None, suggestion=name, overwrite=overwrite)
    with hold(layout.root, kind="run"):
        ranks = join_ranks()
        config = agree_on(config, ranks)
        with choose_method(config, progress) as choice:
            if ranks.count > 1:
                prepared, forecast, events = _prepare_for_ranks(config, progress, ranks)
            elif choice.tried is None:
                prepared, forecast, events = _prepare_within_budget(choice.config, layout, progress)
            else:  # it is trained already, or its folds are
                prepared, forecast = prepare(choice.config, progress), None
                events = tuple(choice.tried.journal.record.events)
            claim_run_folder(layout, overwrite=overwrite)
            stages = RunStages.begin(prepared, layout, progress, forecast=forecast, events=events)
            choice.hand_over(stages)
        del choice  # with the model that was tried
        return _run(stages, expected_seconds=None if forecast is None else forecast.seconds["training"])


@restoring_threads()
def fit(config: Config, rows: Split, task: Task, folder: Path) -> None:
    """Fine-tune an encoder on rows that are at hand, all of them: nothing is measured, and there is no report.

    Args:
        config: The settings; those of the source and of evaluations play no part.
        rows: The rows, checked.
        task: The task.
        folder: An empty folder, for what `lorafit.load` opens.

    Raises:
        DataError: There is nothing to learn from the rows.
        TrainingDivergedError: The loss became infinite.
        KeyboardInterrupt: It was interrupted; nothing is kept.
    """
    progress, layout = Silent(), RunLayout(folder)
    material = load_material(config, split_rows(rows, task, config.data, source="rows at hand"))
    with choose_method(config, progress, material=material) as choice:
        prepared = prepare(choice.config, progress, material=material)
        if choice.tried is None:
            with advise_on_memory():
                prepared = fit_to_memory(prepared).prepared
        stages = RunStages.begin(prepared, layout, progress)
        choice.hand_over(stages)
    del choice  # with the model that was tried
    try:
        with stages.journal.kept():
            with stages.cache_frozen_layers():
                stages.fit(resumable=False)
            stages.calibrate(_hold_out(stages))
            stages.fit_typicality()
            stages.save(trust_proven=True)
    except TrainingInterruptedError:  # the folder is not kept, so that nothing could go on from it
        raise KeyboardInterrupt from None
    for left in (layout.checkpoints, layout.cross_fitting):
        shutil.rmtree(left, ignore_errors=True)


@restoring_threads()
def resume(run: AnyPath, *, progress: Progress | None = None) -> Run:
    """Go on with a run that was interrupted or failed, from its last complete checkpoint.

    Args:
        run: The run folder.
        progress: Receives the progress; None for a bar in a notebook, and silence elsewhere.

    Returns:
        The finished run.

    Raises:
        RunError: The run is complete already, another process or thread is writing it, or its data or base model have
            changed since.
    """
    layout, progress = RunLayout(expand_home(run).resolve()), progress or progress_here()
    RunRecord.read(layout.record)
    with hold(layout.root, kind="run"):
        record = RunRecord.read(layout.record)
        if record.status == "complete":
            advice = "" if layout.report.is_file() else f" It has no report yet: {_name_report(layout)}"
            raise RunError(f"{layout.root} is complete; there is nothing to resume.{advice}")
        if not record.evidence:
            raise RunError(
                f"{layout.root} was stopped before its settings were written. Begin it again: the same command with "
                "--overwrite."
            )
        ranks = join_ranks()
        config = agree_on(read_settings(layout, record), ranks)
        return _run(RunStages.resume(prepare_together(config, progress, ranks), layout, progress))


def _prepare_within_budget(
    config: Config, layout: RunLayout, progress: Progress
) -> tuple[Prepared, ForecastRecord | None, tuple[str, ...]]:
    """Prepare the run with batches that fit into the memory, and forecast its cost; with a budget, with what fits that.

    The third part of what is returned says what had to be changed for the memory.
    """
    began = time.perf_counter()
    prepared = prepare(config, progress)
    preparation = time.perf_counter() - began
    progress.start("forecasting time and memory")
    disk = next(place for place in (layout.root, *layout.root.parents) if place.exists())
    with advise_on_memory():
        fit = fit_to_memory(prepared)
        workload = measure_workload(fit.prepared, free_bytes=shutil.disk_usage(disk).free)
    spent, asked = time.perf_counter() - began, fit.prepared.config
    plan = plan_run(asked, workload, preparation=preparation, spent=spent, peak_bytes=fit.peak_bytes)
    progress.finish()
    for note in (*fit.notes, *plan.notes):
        progress.say(note)
    if needs_preparation(asked, plan.config):
        return prepare(plan.config, progress), plan.record, fit.notes
    return replace(prepared, config=plan.config), plan.record, fit.notes


def _prepare_for_ranks(
    config: Config, progress: Progress, ranks: Ranks
) -> tuple[Prepared, ForecastRecord | None, tuple[str, ...]]:
    """Prepare the run with batches that fit into this rank's share of the memory; what ranks take is not foreseen."""
    prepared = prepare_together(config, progress, ranks)
    room = hardware.memory_room()
    with advise_on_memory():
        fit = fit_to_memory(prepared, room=None if room is None else ranks.share(room))
    for note in fit.notes:
        progress.say(note)
    return fit.prepared, None, fit.notes


def _run(stages: RunStages, *, expected_seconds: float | None = None) -> Run:
    if (note := describe_warmup(stages.prepared)) is not None:
        stages.progress.say(note)
    with stages.journal.kept():
        with stages.rehearse_saving():
            before = stages.measure_before()
        with stages.cache_frozen_layers(), lead(stages):
            stages.fit(expected_seconds=expected_seconds)
        stages.calibrate(_hold_out(stages))
        stages.fit_typicality()
        stages.save()
        predicted, metrics = stages.evaluate(before)
        stages.explain_mistakes(predicted)
        shutil.rmtree(stages.layout.cross_fitting, ignore_errors=True)
    with _complete(stages.layout):
        stages.report()
        stages.track(metrics)
        stages.keep_graph()
    splits, seed = stages.prepared.splits, stages.prepared.config.evaluation.seed
    samples = _draw_samples(splits.test, splits.task, predicted, seed=seed)
    return Run(path=stages.layout.root, record=stages.journal.record, metrics=metrics, samples=samples)


def _hold_out(stages: RunStages) -> HeldOut | None:
    """Return what calibrates: rows set aside, or training rows out of fold."""
    splits, task, config = stages.prepared.splits, stages.prepared.task, stages.prepared.config
    rows = splits.train
    if len(splits.validation) or not config.data.calibration_fraction:
        return stages.predict_held_out()
    folds = assign_held_out_folds(rows, task, seed=config.data.seed)
    places = np.flatnonzero(folds >= 0)
    if not len(places):
        stages.progress.say(
            f"{len(rows):,} rows are too few to calibrate with; predictions stay as the model gives them"
        )
        return None
    with stages.journal.stage("cross-fitting"):
        try:
            logits = cross_fit(stages, folds, stages.progress)
        except TrainingDivergedError as error:
            stages.progress.finish()
            event = f"a fold could not be trained, so predictions stay as the model gives them: {error}"
            stages.progress.say(event)
            stages.note_event(event)
            return None
        words = {
            name: task.deactivate(predict_baseline_folds(name, rows, task, folds, stages.progress))
            for name in stages.blended_words
        }
    held_out = rows.select(places)
    return HeldOut(held_out.y, logits, words, held_out.group_ids, folds)


@contextmanager
def _complete(layout: RunLayout) -> Iterator[None]:
    """Say of what stops the block that the run is complete, and how to write its report if there is none yet."""

    def name_kept() -> str:
        return "The run is complete." if layout.report.is_file() else f"The run is complete. {_name_report(layout)}"

    try:
        with name_faults(name_kept):
            yield
    except KeyboardInterrupt as error:
        raise TrainingInterruptedError(f"Interrupted. {name_kept()}", run=layout.root) from error


def _name_report(layout: RunLayout) -> str:
    return f"Write its report with:\n  lorafit report {shlex.quote(str(layout.root))}"


def _draw_samples(rows: Split, task: Task, predicted: Predicted, *, seed: int) -> tuple[Sample, ...]:
    before = predicted.before
    return tuple(
        Sample(
            text=join_text(rows.texts[row]),
            label=task.decode(rows.y[row : row + 1])[0],
            before=None if before is None else task.predict(before[row]),
            after=task.predict(predicted.after[row], predicted.calibration),
        )
        for row in choose_samples(len(rows), seed=seed)
    )
