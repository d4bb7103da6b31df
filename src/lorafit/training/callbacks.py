"""What happens between the Trainer's steps: schedule, progress, history, checkpoints, stopping in time."""

import json
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from lorafit.system.atomic import write_atomic
from lorafit.system.progress import Progress
from lorafit.system.signals import listen
from lorafit.tasks.base import Metric
from lorafit.training.checkpoints import mark_complete, name_checkpoint
from lorafit.training.divergence import check_weights
from lorafit.training.inputs import EpochBatches
from lorafit.training.ranks import ALONE, Ranks


class EpochOrder(TrainerCallback):
    """Sets the epoch of the batch sampler, also when training resumes in the middle of one."""

    def __init__(self, batches: EpochBatches) -> None:
        self._batches = batches

    def on_epoch_begin(self, args: TrainingArguments, state: TrainerState, *_: Any, **__: Any) -> None:
        """Set the epoch."""
        self._batches.set_epoch(state.global_step // len(self._batches))


_CHECKPOINTS = 4
_SECONDS_APART = 30.0


class Schedule(TrainerCallback):
    """Schedules validations and checkpoints at equal distances within each epoch, and at its end.

    Without validations, checkpoints serve to resume alone: there are four in all, or fewer where training is short.
    """

    def __init__(
        self, *, steps_per_epoch: int, evaluations_per_epoch: int, validates: bool = True, saves: bool = True
    ) -> None:
        count = min(evaluations_per_epoch, steps_per_epoch)
        self._steps_per_epoch = steps_per_epoch
        self._points = {round(part * steps_per_epoch / count) for part in range(1, count + 1)}
        self._validates = validates
        self._saves = saves
        self._saved = 0.0

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Start the clock."""
        self._saved = time.monotonic()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Request a validation and a checkpoint where they are due, and at the last step."""
        is_last = state.global_step >= state.max_steps
        if not is_last and not self._is_due(state):
            return
        control.should_log = True  # stores the training time, from which a resumed run continues
        control.should_evaluate = self._validates
        is_worth_it = is_last or self._validates or time.monotonic() - self._saved >= _SECONDS_APART
        control.should_save = self._saves and is_worth_it
        if control.should_save:
            self._saved = time.monotonic()

    def _is_due(self, state: TrainerState) -> bool:
        if not self._validates:
            return state.global_step % max(1, state.max_steps // _CHECKPOINTS) == 0
        return (state.global_step - 1) % self._steps_per_epoch + 1 in self._points


class ProgressReport(TrainerCallback):
    """Reports steps, loss and speed, and at the start the expected training time where it is known."""

    def __init__(
        self,
        progress: Progress,
        batches: EpochBatches,
        metrics: Mapping[str, Metric],
        expected_seconds: float | None = None,
    ) -> None:
        self._progress = progress
        self._batches = batches
        self._metrics = metrics
        self._expected_seconds = expected_seconds
        self._loss = math.nan
        self._tokens = 0
        self._mark = 0.0
        self.step_seconds = 0.0

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Exclude the time inside the block from the speed."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self._mark += time.perf_counter() - began

    @property
    def tokens_per_second(self) -> float:
        """Tokens trained per second, without padding, pauses, and the time between interruption and resume."""
        return self._tokens / max(self.step_seconds, 1e-9)

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, *_: Any, **__: Any) -> None:
        """Start the clock, at the time stored in the checkpoint if there is one."""
        self._mark = time.perf_counter()
        self._tokens = int(state.num_input_tokens_seen)
        self.step_seconds = next((entry["step_seconds"] for entry in reversed(state.log_history)), 0.0)
        self._progress.start("training", total=state.max_steps, unit="step", seconds=self._expected_seconds)

    def on_log(self, args: TrainingArguments, state: TrainerState, *_: Any, **given: Any) -> None:
        """Remember the loss."""
        self._loss = given["logs"].get("loss", self._loss)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, *_: Any, **__: Any) -> None:
        """Report the step."""
        now = time.perf_counter()
        self.step_seconds += now - self._mark
        self._mark = now
        self._tokens = int(state.num_input_tokens_seen)
        share = self._batches.count_tokens(state.global_step) / self._batches.count_tokens(state.max_steps)
        figures = {"loss": self._loss, "tokens_per_second": self.tokens_per_second, "share": share}
        self._progress.update(state.global_step, **figures)

    def on_save(self, args: TrainingArguments, state: TrainerState, *_: Any, **__: Any) -> None:
        """Exclude the writing of a checkpoint from the speed."""
        self._mark = time.perf_counter()

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, *_: Any, **given: Any) -> None:
        """Report the validation metrics."""
        values = {name.removeprefix("eval_"): value for name, value in given["metrics"].items()}
        loss, calibrated = values.pop("loss"), values.pop("calibrated_loss")
        after = "" if calibrated == loss else f" ({calibrated:.4f} calibrated)"
        words = [f"epoch {state.epoch or 0:.2f}: validation loss {loss:.4f}{after}"]
        for name, value in values.items():
            words.append(f"{self._metrics[name].title} {self._metrics[name].write_value(value)}")
        self._progress.say(", ".join(words))


class History(TrainerCallback):
    """Writes `history.jsonl` and marks checkpoints as complete, none whose weights are not finite."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def on_save(self, args: TrainingArguments, state: TrainerState, *_: Any, **given: Any) -> None:
        """Mark the checkpoint just written as complete, unless a weight is not finite, and write the log so far."""
        check_weights(given["model"], step=state.global_step)
        mark_complete(name_checkpoint(Path(str(args.output_dir)), state.global_step))
        self._write(state)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, *_: Any, **__: Any) -> None:
        """Write the whole log."""
        self._write(state)

    def _write(self, state: TrainerState) -> None:
        """Write the log without the line that ends it, whose mean loss leaves out what came before a resume."""
        entries = (entry for entry in state.log_history if "train_loss" not in entry)
        write_atomic(self._path, "".join(json.dumps(entry) + "\n" for entry in entries))


class Rates(TrainerCallback):
    """Gives the optimizer the learning rates of the settings, where those of the checkpoint were others."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._rates = [group["lr"] for group in optimizer.param_groups]

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, *_: Any, **given: Any) -> None:
        """Replace the rates, after optimizer and schedule were read from the checkpoint."""
        schedule = given["lr_scheduler"]
        for group, rate, known in zip(given["optimizer"].param_groups, self._rates, schedule.base_lrs, strict=True):
            if rate != known:
                group["lr"] *= rate / known
                group["initial_lr"] = rate
        schedule.base_lrs = list(self._rates)


_FEWEST_STEPS = 10


class RankAllocation(TrainerCallback):
    """Reallocates AdaLoRA's ranks after each step (Zhang et al. 2023, arXiv:2303.10512, algorithm 1).

    The first tenth of the steps precedes the first cut, the last three tenths train at the final ranks. Pruned ranks
    are zeroed and kept: PEFT would resize the tensors of each checkpoint, too, and could not load them again.
    """

    def __init__(self, model: Any) -> None:  # noqa: ANN401 - PEFT's model, whose methods are AdaLoRA's own
        self._model = model
        self._pattern: dict[str, list[bool]] | None = None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, *_: Any, **__: Any) -> None:
        """Set PEFT's schedule, in steps."""
        config = self._model.peft_config["default"]
        config.total_step = state.max_steps
        config.tinit, config.tfinal = state.max_steps // 10, 3 * state.max_steps // 10
        self._model.base_model.rankallocator.set_total_step(state.max_steps)

    def on_optimizer_step(self, args: TrainingArguments, state: TrainerState, *_: Any, **__: Any) -> None:
        """Prune or restore ranks while the gradients are still there."""
        if state.max_steps < _FEWEST_STEPS:
            return  # too few for a cut between the first and the last
        config = self._model.peft_config["default"]
        config.rank_pattern = self._pattern
        self._model.base_model.update_and_allocate(state.global_step + 1)
        self._pattern, config.rank_pattern = config.rank_pattern, None


class InterruptGuard(TrainerCallback):
    """Turns a signal that asks to end into a stop with a checkpoint after this step; a second one stops at once.

    All ranks stop, and save, where one does: each of them then makes the same steps.
    """

    def __init__(self, progress: Progress, ranks: Ranks = ALONE) -> None:
        self._progress = progress
        self._ranks = ranks
        self.interrupted = False

    def listen(self) -> AbstractContextManager[None]:
        """Hear the signals inside the block."""
        return listen(self._ask)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Save and stop if a signal came, after a validation that is due, so that a resumed run ends the same."""
        is_asked, control.should_save = self._ranks.unite(self.interrupted, control.should_save)
        if is_asked:
            self.interrupted = True
            control.should_log = True
            control.should_save = True
            control.should_training_stop = True

    def _ask(self) -> None:
        self.interrupted = True
        with suppress(OSError, RuntimeError):  # a terminal that is gone, or is being written to at this moment
            self._progress.say("stopping after this step and saving; once more to stop at once")
