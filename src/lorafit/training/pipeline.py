"""The main flow: data, model, forecast, baseline, training, adapter, evidence."""

import shlex
import shutil
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from lorafit.answers import Answer, Predicted, build_answer
from lorafit.config import Config, load_config
from lorafit.data.checks import name_labels
from lorafit.data.label_values import LabelValue
from lorafit.data.rows import Split
from lorafit.errors import RunError, TrainingInterruptedError
from lorafit.inference.predictor import Predictor
from lorafit.inference.run_loading import load_run
from lorafit.labels import LabelSet
from lorafit.reports.page import write_report
from lorafit.reports.rows import choose_samples
from lorafit.reports.tracking import track_results
from lorafit.runs.folder import RunLayout, choose_run_folder, claim_run_folder, suggest_name
from lorafit.runs.journal import Journal
from lorafit.runs.records import RunRecord
from lorafit.system.atomic import write_atomic
from lorafit.system.extras import install_line, missing_modules
from lorafit.system.progress import Progress, Silent
from lorafit.training.evaluation import Metrics
from lorafit.training.inputs import open_inputs
from lorafit.training.planning.budget import Plan, needs_preparation, plan_run
from lorafit.training.prepare import Prepared, describe, prepare
from lorafit.training.stages import (
    build_measuring_runtime,
    calibrate_run,
    evaluate_run,
    find_checkpoint,
    measure_test_rows,
    save_run,
    train_run,
    write_mistakes,
)

__all__ = [
    "BEFORE_CALIBRATION",
    "Run",
    "Sample",
    "carry_out",
    "continue_journal",
    "precedes_calibration",
    "resume",
    "train",
]

BEFORE_CALIBRATION = (
    "was made by an older version, without calibration rows. To repeat it, add `calibration_fraction: 0` below `data:` "
    "in its config.yaml, or train with --set data.calibration_fraction=0."
)
"""What to do about a run that `precedes_calibration`."""


@dataclass(frozen=True)
class Sample:
    """A test row with what the model said of it before and after.

    Attributes:
        text: The text.
        label: Its true label: a name, several, or a number.
        before: The baseline's prediction, or None if there was no baseline.
        after: The fine-tuned model's prediction.
    """

    text: str
    label: LabelValue
    before: Answer | None
    after: Answer


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        path: The run folder.
        record: What was done, with what, and what it cost.
        metrics: The evidence: before and after, on the test rows.
        samples: A few test rows, drawn at random, with both predictions. They are not stored in the run.
    """

    path: Path
    record: RunRecord
    metrics: Metrics
    samples: tuple[Sample, ...]

    def load(self) -> Predictor:
        """Open the run for prediction."""
        return load_run(self.path)


def train(
    config: Config | None = None,
    *,
    output: str | Path | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Run:
    """Fine-tune an encoder on labelled texts and measure it before and after.

    Args:
        config: The settings; None takes the defaults.
        output: The run folder; None takes a free name below `runs/`.
        overwrite: Whether a run that is already there may be replaced.
        progress: Told what is going on; None for silence.

    Returns:
        The finished run.
    """
    config, progress = config or Config(), progress or Silent()
    suggestion = suggest_name(config.data.source, config.model.name, config.method.name)
    layout = choose_run_folder(Path(output) if output else None, suggestion=suggestion, overwrite=overwrite)
    began = time.perf_counter()
    prepared = prepare(config, progress)
    plan = _plan(prepared, layout, began, progress)
    prepared = _follow(plan, prepared, progress)
    record = describe(prepared).model_copy(update={"forecast": plan.record})
    claim_run_folder(layout, overwrite=overwrite)
    write_atomic(layout.config, prepared.config.to_yaml())
    journal = Journal(layout, record)
    run = carry_out(prepared, layout, journal, progress, expected_seconds=plan.fit_seconds)
    return _track(_report(run, prepared, journal, progress), prepared)


def resume(run: str | Path, *, progress: Progress | None = None) -> Run:
    """Go on with a run that was interrupted or failed, from its last complete checkpoint.

    Args:
        run: The run folder.
        progress: Told what is going on; None for silence.

    Returns:
        The finished run.

    Raises:
        RunError: The run is complete already, or its data or base model have changed since.
    """
    layout = RunLayout(Path(run).expanduser().resolve())
    old = RunRecord.read(layout.record)
    if old.status == "complete":
        raise RunError(f"{layout.root} is complete; there is nothing to resume.")
    prepared = prepare(load_config(layout.config), progress or Silent())
    journal, progress = continue_journal(prepared, layout), progress or Silent()
    return _track(_report(carry_out(prepared, layout, journal, progress), prepared, journal, progress), prepared)


def continue_journal(prepared: Prepared, layout: RunLayout) -> Journal:
    """Open the journal of a run that did not end, with what it has cost so far.

    Args:
        prepared: Data and model, prepared anew.
        layout: The run folder.

    Returns:
        The journal.

    Raises:
        RunError: The data or the base model have changed since the run began, or an older version began it.
    """
    old, record = RunRecord.read(layout.record), describe(prepared)
    if record.data.splits != old.data.splits:
        if precedes_calibration(old, layout):
            raise RunError(f"{layout.root} {BEFORE_CALIBRATION}")
        raise RunError(f"The data of {layout.root} have changed since it began (other fingerprints): start a new run.")
    if record.base_model.digest != old.base_model.digest:
        raise RunError(f"The base model of {layout.root} has changed since it began: start a new run.")
    names = ("created", "forecast", "seconds", "peak_memory_bytes", "energy_joules")
    kept = {name: getattr(old, name) for name in names}
    return Journal(layout, record.model_copy(update=kept))


def precedes_calibration(record: RunRecord, layout: RunLayout) -> bool:
    """Tell whether a run was made by a version that set no calibration rows aside.

    Args:
        record: The run's record.
        layout: Its folder.

    Returns:
        Whether neither its data nor its config.yaml know of calibration rows.
    """
    known = layout.config.is_file() and "calibration_fraction" in layout.config.read_text(encoding="utf-8")
    return "calibration" not in record.data.splits and not known


def _plan(prepared: Prepared, layout: RunLayout, began: float, progress: Progress) -> Plan:
    """Measure some steps, and say how long the run will take and what is given up to fit a budget."""
    preparation = time.perf_counter() - began
    from lorafit.training.planning.forecast import measure_ground

    progress.start("forecasting time and memory")
    disk = next(place for place in (layout.root, *layout.root.parents) if place.exists())
    ground = measure_ground(prepared, free_bytes=shutil.disk_usage(disk).free)
    plan = plan_run(prepared.config, ground, preparation=preparation, spent=time.perf_counter() - began)
    progress.finish()
    for note in plan.notes:
        progress.say(note)
    return plan


def _follow(plan: Plan, prepared: Prepared, progress: Progress) -> Prepared:
    if needs_preparation(prepared.config, plan.config):
        return prepare(plan.config, progress)
    return replace(prepared, config=plan.config)


def carry_out(
    prepared: Prepared,
    layout: RunLayout,
    journal: Journal,
    progress: Progress,
    *,
    expected_seconds: float | None = None,
    prefix_folder: Path | None = None,
    shares_measured: bool = False,
) -> Run:
    """Train, save and measure what was prepared.

    Args:
        prepared: Data and model.
        layout: The run folder, which exists.
        journal: Keeps the run's record.
        progress: Told what is going on.
        expected_seconds: How long training will take, as far as that was foreseen.
        prefix_folder: Where the frozen layers' hidden states are kept for several runs; None for this one alone.
        shares_measured: Whether those runs share the hidden states of calibration and test rows, too.

    Returns:
        The finished run.
    """
    from lorafit.models.runtimes.pytorch import TorchRuntime

    config, splits = prepared.config, prepared.splits
    untrained = TorchRuntime(prepared.adapted.model, prepared.precision)
    checkpoint = find_checkpoint(config, layout, progress)
    with journal.kept():
        baseline = None
        if config.evaluation.baseline:
            with journal.stage("baseline"):
                baseline = measure_test_rows(prepared, untrained, prepared.tokens["test"], layout, "baseline", progress)
        with ExitStack() as stack:
            inputs = stack.enter_context(
                open_inputs(prepared, journal, progress, prefix_folder=prefix_folder, keeps_measured=shares_measured)
            )
            train_run(prepared, inputs, journal, progress, resume_from=checkpoint, expected_seconds=expected_seconds)
            if prefix_folder is None:
                stack.close()
                inputs = prepared.tokens
            runtime = build_measuring_runtime(prepared)
            calibration = calibrate_run(prepared, runtime, inputs, journal, progress)
            with journal.stage("saving"):
                progress.start("saving the result and opening it in a fresh process")
                journal.update(files=save_run(prepared, layout, calibration))
                progress.finish()
            predicted, metrics = evaluate_run(prepared, runtime, inputs, journal, baseline, calibration, progress)
    samples = _draw_samples(splits.test, splits.labels, predicted, seed=config.evaluation.seed)
    return Run(path=layout.root, record=journal.record, metrics=metrics, samples=samples)


def _report(run: Run, prepared: Prepared, journal: Journal, progress: Progress) -> Run:
    """Write the page for people where it is wanted; a run is complete without it."""
    config, layout = prepared.config.evaluation, RunLayout(run.path)
    if not config.report:
        return run
    if missing_modules("report"):
        progress.say(
            f"no report was written: {install_line('report')}, then: lorafit report {shlex.quote(str(run.path))}"
        )
        return run
    try:
        with journal.stage("report"):
            if config.report_texts and prepared.labels.task == "single_label":
                write_mistakes(prepared, layout, progress)
            write_report(run.path, rows=prepared.splits.test, progress=progress)
    except KeyboardInterrupt:
        raise TrainingInterruptedError(
            f"Interrupted while the report was written; the run is complete. Write it with:\n"
            f"  lorafit report {shlex.quote(str(run.path))}",
            run=run.path,
        ) from None
    return replace(run, record=journal.record)


def _track(run: Run, prepared: Prepared) -> Run:
    """Hand the results to the trackers that were asked for, and a report without texts."""
    config, layout = prepared.config, RunLayout(run.path)
    if config.training.track:
        with tempfile.TemporaryDirectory() as folder:
            wanted = "mlflow" in config.training.track and layout.report.is_file()
            page = Path(folder) / layout.report.name
            report = write_report(run.path, texts=False, output=page) if wanted else None
            track_results(config, layout, run.record, run.metrics, report)
    return run


def _draw_samples(
    rows: Split,
    labels: LabelSet,
    predicted: Predicted,
    *,
    seed: int,
) -> tuple[Sample, ...]:
    baseline = predicted.baseline
    return tuple(
        Sample(
            text=rows.texts[row],
            label=name_labels(rows.labels[row : row + 1], labels)[0],
            before=None if baseline is None else build_answer(baseline[row], labels),
            after=build_answer(predicted.finetuned[row], labels, predicted.calibration),
        )
        for row in choose_samples(len(rows), seed=seed)
    )
