"""`run.json`: what was done, with what, on what, and how it ended."""

from typing import Literal

from pydantic import Field

from lorafit.config import TruncationPolicy
from lorafit.models.records import BaseModelRecord, ParameterCounts
from lorafit.system.records import FileRecord, Record
from lorafit.tasks.base import Task
from lorafit.tasks.records import AlternativeRecord, BlendRecord
from lorafit.tasks.registry import TaskName, build_task


class SplitRecord(Record):
    """One split of the data as it was used.

    Attributes:
        rows: Number of rows.
        label_counts: Rows a label; none of a regression.
        fingerprint: SHA-256 over row ids, texts and labels in order.
        tokens: Tokens after truncation, special tokens included.
        truncated: Rows whose text was cut.
        unknown_share: Share of the tokens that the tokenizer does not know, 0 to 1, special ones left out.
        windows: Inputs that the texts are, where a long one is several windows; None where each is one.
    """

    rows: int
    label_counts: dict[str, int]
    fingerprint: str
    tokens: int
    truncated: int
    windows: int | None = None
    unknown_share: float = 0.0


class DataRecord(Record):
    """The data of a run."""

    source: str
    splits: dict[str, SplitRecord]
    notes: list[str] = Field(default_factory=list)


class HardwareRecord(Record):
    """The machine that did the work."""

    cpu: str
    cores: int
    threads: int
    memory_bytes: int
    precision: Literal["fp32", "bf16"]
    precision_reason: str


class TrainingRecord(Record):
    """What training cost and where it stopped.

    Attributes:
        steps: Optimiser steps done.
        epochs: Passes over the training rows done.
        best_step: Step of the checkpoint kept, by validation loss; without validation rows the last one.
        best_validation_loss: Its validation loss in nats, after the temperature that suits the validation rows best; of
            numbers, the mean squared error of the standardised ones. None without validation rows.
        stopped_early: Whether early stopping ended it.
        seconds: Wall-clock time of training, validation included.
        tokens: Tokens trained on, padding left out.
        tokens_per_second: Those tokens over the time of the training steps, validation left out.
        padding_share: Share of padding among all positions of the training batches, 0 to 1.
        adapted_modules: Modules that carry an adapter.
        processes: Processes that trained together, each with the threads of `HardwareRecord`.
        machines: Machines that these were on.
        idle_share: Share of the steps' time in which a process waited for the others, 0 to 1; None of a single one.
    """

    steps: int
    epochs: float
    best_step: int
    best_validation_loss: float | None
    stopped_early: bool
    seconds: float
    tokens: int
    tokens_per_second: float
    padding_share: float
    adapted_modules: int
    processes: int = 1
    machines: int = 1
    idle_share: float | None = None

    def describe_steps(self) -> str:
        """Say how long training took, in epochs and steps."""
        if not self.steps:
            return "solved for, without steps"
        stopped = ", stopped early" if self.stopped_early else ""
        return f"{self.epochs:.1f} epochs, {self.steps:,} steps{stopped}"

    def describe_processes(self) -> str:
        """Say, as a clause after others, which processes trained together; nothing of a single one."""
        if self.idle_share is None:
            return ""
        places = "" if self.machines == 1 else f" on {self.machines} machines"
        return f", in {self.processes} processes{places}, each idle for {self.idle_share:.1%} of the steps"

    def describe_checkpoint(self) -> str:
        """Say which step's weights were kept, and why."""
        if not self.steps:
            loss = self.best_validation_loss
            return "the only weights" if loss is None else f"the only weights, validation loss {loss:.4f}"
        if self.best_validation_loss is None:
            return f"step {self.best_step:,}, the last one (no rows validated)"
        return f"step {self.best_step:,}, validation loss {self.best_validation_loss:.4f}"


class ForecastRecord(Record):
    """What was foreseen before anything was trained, from some measured steps.

    Attributes:
        seconds: Wall-clock time a stage, named as in `RunRecord.seconds`; training without an early stop.
        peak_memory_bytes: Peak memory after a step on the largest batch.
        budget_seconds: The time that `training.budget` allowed, or None.
        given_up: What was changed to fit it, each in words.
    """

    seconds: dict[str, float]
    peak_memory_bytes: int
    budget_seconds: float | None = None
    given_up: list[str] = Field(default_factory=list)


class DivergenceRecord(Record):
    """Training that diverged.

    Attributes:
        fault: What was seen, at which step and rows, as a sentence.
        settings: What is different when training goes on, by dotted settings; none where nothing would help.
    """

    fault: str
    settings: dict[str, float | str] = Field(default_factory=dict)

    def describe_settings(self) -> str:
        """Write the settings as one may type them: `training.precision=fp32`."""
        written = {name: value if isinstance(value, str) else f"{value:g}" for name, value in self.settings.items()}
        return ", ".join(f"{name}={value}" for name, value in written.items())


class ChoiceRecord(Record):
    """How a method was chosen that the settings did not name.

    Attributes:
        method: The method.
        reason: Why, as a phrase that goes on "was chosen".
        losses: Loss of each method that was tried, and did not diverge, on rows that it was not trained on; empty where
            none had to be tried.
    """

    method: str
    reason: str
    losses: dict[str, float] = Field(default_factory=dict)

    def describe(self) -> str:
        """Say it in one sentence."""
        losses = ", ".join(f"{name} {loss:.4f}" for name, loss in self.losses.items())
        return f"{self.method} was chosen {self.reason}{f': {losses}' if losses else ''}."


class RunRecord(FileRecord):
    """`run.json`: what was done, with what, on what, and how it ended.

    `window_stride` is None for half a window, and `pair` says whether it takes pairs of texts. `encoder_blocks` is
    `fused`, or `stock:` and why (`acceleration.encoder_block`). `energy_joules` is that of the whole processor since
    the record was begun, or None where the machine does not tell all of it.
    """

    status: Literal["running", "interrupted", "failed", "complete"]
    created: str
    versions: dict[str, str]
    seed: int
    method: str
    task: TaskName
    labels: list[str]
    max_length: int
    truncation: TruncationPolicy
    window_stride: int | None = None
    pair: bool = False
    data: DataRecord
    base_model: BaseModelRecord
    hardware: HardwareRecord
    encoder_blocks: str
    balancing: list[str] = Field(default_factory=list, description="Settings by which some training rows counted more.")
    parameters: ParameterCounts
    choice: ChoiceRecord | None = Field(None, description="How the method was chosen, where it was not named.")
    embedding: AlternativeRecord | None = Field(
        None, description="The baseline `embedding` on the rows held out, beside what the run predicts for them."
    )
    blend: BlendRecord | None = Field(None, description="The blend that was tried, and whether predictions are its.")
    forecast: ForecastRecord | None = None
    training: TrainingRecord | None = None
    cross_fitted_folds: int = Field(
        0, description="Models whose out-of-fold predictions calibrated; 0 where rows were set aside, or none did."
    )
    divergence: DivergenceRecord | None = None
    left_out_baselines: dict[str, str] = Field(
        default_factory=dict, description="Baselines that were not measured, by name, and why."
    )
    events: list[str] = Field(
        default_factory=list, description="What went wrong on the way: damaged checkpoints, training that diverged."
    )
    seconds: dict[str, float] = Field(default_factory=dict, description="Wall-clock time a stage.")
    peak_memory_bytes: int = 0
    energy_joules: float | None = None
    texts_per_second: float | None = None
    files: dict[str, str] = Field(default_factory=dict, description="Digest of each file of adapter/ or model/.")
    evidence: dict[str, str] = Field(
        default_factory=dict, description="Digest of each other file that reports and comparisons rest on."
    )

    def describe_cross_fitting(self) -> list[str]:
        """Say that training rows calibrated out of fold, in one sentence; none where they did not."""
        if not self.cross_fitted_folds:
            return []
        return [
            f"rows that calibrate: training rows, out of fold: {self.cross_fitted_folds} further models, each trained "
            "without a part of the rows, predicted that part (cross-fitting). The coverage asked for is then what such "
            "models reach on the average, not what is guaranteed of rows set aside."
        ]

    def build_task(self) -> Task:
        """Return the task with the labels of the run."""
        return build_task(self.task, self.labels)
