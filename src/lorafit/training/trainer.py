"""The training loop of every method: transformers' Trainer with lorafit's batches, validation and safeguards."""

import math
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors.torch import load_model
from torch.utils.data import DataLoader
from transformers import (
    EarlyStoppingCallback,
    PreTrainedModel,
    PrinterCallback,
    Trainer,
    TrainerState,
    TrainingArguments,
)

from lorafit.config import MethodConfig, TrainingConfig
from lorafit.errors import LorafitError, RunError, TrainingDivergedError, TrainingInterruptedError
from lorafit.models.acceleration.attention import attention_for_training
from lorafit.models.acceleration.encoder_block import at_precision
from lorafit.models.acceleration.precision import PrecisionChoice, choose_device
from lorafit.models.adaptation import AdaptedModel, base_of
from lorafit.models.methods import find_method
from lorafit.models.quiet import quiet_transformers
from lorafit.runs.records import TrainingRecord
from lorafit.system.progress import Progress
from lorafit.training.callbacks import (
    EpochOrder,
    History,
    InterruptGuard,
    ProgressReport,
    RankAllocation,
    Rates,
    Schedule,
)
from lorafit.training.checkpoints import describe_damage, name_checkpoint
from lorafit.training.divergence import diagnose
from lorafit.training.inputs import EpochBatches, build_train_loader
from lorafit.training.job import TrainingJob
from lorafit.training.losses import compute_weighted_loss
from lorafit.training.planning.schedule import count_short_steps, count_steps
from lorafit.training.ranks import RankLostError, noticing_loss
from lorafit.training.shared_steps import SharedSteps


class _Arguments(TrainingArguments):
    """Arguments of a Trainer that takes one GPU, where it would deal each batch out to all that it sees.

    torch's DataParallel gives every GPU as many rows, whatever their tokens, and counts their losses alike. Several
    GPUs take a process each.
    """

    @property
    def n_gpu(self) -> int:
        return min(1, int(super().n_gpu))


class _Trainer(Trainer):
    """The Trainer with lorafit's batches, precision and validation."""

    def __init__(self, job: TrainingJob, batches: EpochBatches, report: ProgressReport, **kwargs: Any) -> None:
        super().__init__(model=job.adapted.model, train_dataset=job.rows, eval_dataset=job.rows, **kwargs)
        self.job = job
        self.batches = batches
        self.report = report
        self.has_stepped = False

    def get_train_dataloader(self) -> DataLoader[int]:
        return build_train_loader(self.job.rows, self.batches)

    def training_step(self, model: torch.nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        self.has_stepped = True
        loss: torch.Tensor = super().training_step(model, inputs, *args, **kwargs)
        self._require_finite("loss", loss)
        self._require_finite("gradient norm", _compute_gradient_norm(model))
        return loss

    def _require_finite(self, name: str, value: torch.Tensor) -> None:
        """Stop before the weights are changed by a step whose loss or gradient is not finite."""
        if math.isfinite(value):
            return
        step = self.state.global_step
        raise diagnose(
            self.job,
            step=step + 1,
            symptom=f"the {name} is {float(value)}",
            rows=self.batches.batch_at(step),
            is_broken=self._is_broken,
        )

    def _is_broken(self, rows: Sequence[int], precision: PrecisionChoice) -> bool:
        """Tell whether the loss or the gradient of some training rows is not finite in some arithmetic."""
        model, job = self.job.adapted.model, self.job
        model.zero_grad()
        self.job = replace(job, precision=precision)
        try:
            items = self.batches.mark_short(rows, self.state.global_step)
            loss = super().training_step(model, job.rows.collate(items))
        finally:
            self.job = job
        return not (math.isfinite(loss) and math.isfinite(_compute_gradient_norm(model)))

    def compute_loss(
        self, model: torch.nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> torch.Tensor | tuple[torch.Tensor, Any]:
        if self.job.compute_loss is not None:
            return self.job.compute_loss(model, inputs)
        weights, gamma = inputs.pop("weights", None), self.job.config.gamma
        if weights is None and not gamma:
            return super().compute_loss(model, inputs, *args, **kwargs)
        outputs, kind = model(**inputs), str(self.job.adapted.model.config.problem_type)
        logits, labels = outputs.logits, inputs["labels"]
        added: torch.Tensor = outputs.loss - compute_weighted_loss(logits, labels, kind)  # by the method, as by AdaLoRA
        return added + compute_weighted_loss(logits, labels, kind, weights=weights, gamma=gamma)

    def compute_loss_context_manager(self) -> ExitStack:
        return at_precision(self.job.adapted.model, self.job.precision)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        super().log({**logs, "step_seconds": self.report.step_seconds}, start_time)

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        step, validate = self.state.global_step, self.job.validate
        if validate is None:
            return {}
        with self.report.pause():
            try:
                found = self.job.ranks.lead(validate)
            except TrainingDivergedError as error:
                symptom = str(error)
                raise diagnose(self.job, step=step, symptom=symptom[0].lower() + symptom[1:].rstrip(".")) from error
            self.job.adapted.model.train()
        if not (math.isfinite(found["loss"]) and math.isfinite(found["calibrated_loss"])):
            raise diagnose(self.job, step=step, symptom=f"the validation loss is {found['loss']}")
        if self.job.on_validation is not None:
            self.job.on_validation(self.state.global_step / self.state.max_steps, found)
        metrics = {f"eval_{name}": value for name, value in found.items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


class _SharedTrainer(_Trainer):
    """The Trainer of one rank of several, which reads a part of every batch."""

    def __init__(self, job: TrainingJob, *args: Any, **kwargs: Any) -> None:
        super().__init__(job, *args, **kwargs)
        self.shared = SharedSteps(job.rows, job.ranks, job.config.seed, lambda: self.model_wrapped)
        self.add_callback(self.shared)

    def get_train_dataloader(self) -> DataLoader[int]:
        return build_train_loader(self.job.rows, self.batches, self.shared.collate)

    def compute_loss(self, model: torch.nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as the Trainer has it
        share = inputs.pop("share", 1.0)  # a diagnosis reads whole batches
        return share * super().compute_loss(model, inputs, *args, **kwargs)


def _compute_gradient_norm(model: torch.nn.Module) -> torch.Tensor:
    return torch.nn.utils.get_total_norm([weight.grad for weight in model.parameters() if weight.grad is not None])


def fit(job: TrainingJob, *, progress: Progress, resume_from: Path | None = None) -> TrainingRecord:
    """Train adapter and head, and leave the model with the weights of the lowest calibrated validation loss.

    Where no rows validate, training ends with its schedule, and the last weights are kept.

    Args:
        job: What to train.
        progress: Receives steps and validation metrics.
        resume_from: A complete checkpoint to resume from.

    Returns:
        The cost of training and where it stopped.

    Raises:
        TrainingInterruptedError: A signal was received; a checkpoint was saved, unless that step failed.
        TrainingDivergedError: A loss or a gradient norm is not finite.
        RunError: The checkpoint with the best weights was damaged.
    """
    config, lengths = job.config, job.rows.texts.lengths
    batches = EpochBatches(
        lengths,
        max_rows=config.batch_rows,
        max_tokens=config.batch_tokens,
        seed=config.seed,
        groups=job.rows.groups,
    )
    if job.rows.short is not None:
        batches.begin_short(count_short_steps(config, len(batches)), longest=int(job.rows.short.lengths.max()))
    optimizer, keeps = build_optimizer(job.adapted, config, job.method), job.resumable or job.validate is not None
    report = ProgressReport(progress, batches, job.metrics, job.expected_seconds)
    guard = InterruptGuard(progress, job.ranks)
    trainer = (_Trainer if job.ranks.count == 1 else _SharedTrainer)(
        job,
        batches,
        report,
        optimizers=(optimizer, None),
        args=build_arguments(config, checkpoints=job.layout.checkpoints, steps_per_epoch=len(batches)),
        callbacks=[
            EpochOrder(batches),
            Schedule(
                steps_per_epoch=len(batches),
                evaluations_per_epoch=config.validations_per_epoch,
                validates=job.validate is not None,
                saves=keeps,
            ),
            History(job.layout.history),
            report,
            Rates(optimizer),
            guard,
        ],
    )
    trainer.remove_callback(PrinterCallback)
    if find_method(job.method.name).reallocates:
        trainer.add_callback(RankAllocation(job.adapted.model))
    if config.early_stopping_patience and job.validate is not None:
        trainer.add_callback(EarlyStoppingCallback(config.early_stopping_patience))
    began = time.perf_counter()
    try:
        with guard.listen(), attention_for_training(base_of(job.adapted.model), job.precision), quiet_transformers():
            _train(trainer, resume_from)
            if keeps and not guard.interrupted and job.ranks.rank == 0:
                _load_best(trainer)
    except RankLostError:
        raise
    except Exception as error:
        if guard.interrupted:
            raise TrainingInterruptedError("Stopped; the last step was not saved.", run=job.layout.root) from error
        raise
    progress.finish()
    if guard.interrupted:
        raise TrainingInterruptedError(f"Stopped at step {trainer.state.global_step}.", run=job.layout.root)
    if keeps:
        _use_saved_prompts(job.adapted.model)
    job.adapted.model.eval()
    record = _summarise(trainer, seconds=time.perf_counter() - began)
    return record.model_copy(update=trainer.shared.measure()) if isinstance(trainer, _SharedTrainer) else record


def _train(trainer: _Trainer, resume_from: Path | None) -> None:
    """Train, unless training had already ended: the Trainer would train beyond the checkpoint."""
    try:
        state = None if resume_from is None else TrainerState.load_from_json(str(resume_from / "trainer_state.json"))
        if state is None or not _has_ended(state, trainer):
            with noticing_loss():
                trainer.train(resume_from_checkpoint=None if resume_from is None else str(resume_from))
            return
        trainer.state = state
        trainer.report.on_train_begin(trainer.args, state, trainer.control)
    except (LorafitError, OSError, MemoryError):
        raise
    except Exception as error:
        if resume_from is None or trainer.has_stepped:
            raise
        raise RunError(
            f"{resume_from} is no state that this training can go on from. Remove that folder, then: "
            f"{trainer.job.layout.resume_command}"
        ) from error


def _use_saved_prompts(model: PeftModel | PreTrainedModel) -> None:
    """Let P-tuning use its output tokens directly: PEFT saves and loads them, not the network that computes them."""
    for config in getattr(model, "peft_config", {}).values():
        if config.is_prompt_learning:
            config.inference_mode = True


def _load_best(trainer: _Trainer) -> None:
    """Load the best weights, of a checkpoint that is as it was written."""
    layout, model = trainer.job.layout, trainer.job.adapted.model
    best = name_checkpoint(layout.checkpoints, _find_best_step(trainer))
    if (fault := describe_damage(best)) is not None:
        raise RunError(
            f"The best weights are lost: {best.name} was damaged during training, {fault}. Train again from the last "
            f"checkpoint that is intact: {layout.resume_command}"
        )
    if isinstance(model, PeftModel):
        model.load_adapter(str(best), "default")
    else:
        load_model(model, best / "model.safetensors")


def _find_best_step(trainer: _Trainer) -> int:
    """Return the step whose weights are kept: the last one where none was validated."""
    return int(trainer.state.best_global_step or trainer.state.global_step)


def _has_ended(state: TrainerState, trainer: _Trainer) -> bool:
    callbacks: Any = state.stateful_callbacks  # a dictionary, whatever its annotation says
    stopping = callbacks.get("EarlyStoppingCallback")
    patience = trainer.job.config.early_stopping_patience
    is_out_of_patience = stopping and stopping["attributes"]["early_stopping_patience_counter"] >= patience > 0
    return bool(is_out_of_patience) or state.global_step >= trainer.args.max_steps


def _summarise(trainer: _Trainer, *, seconds: float) -> TrainingRecord:
    state, report, batches = trainer.state, trainer.report, trainer.batches
    return TrainingRecord(
        steps=state.global_step,
        epochs=state.global_step / len(batches),
        best_step=_find_best_step(trainer),
        best_validation_loss=None if state.best_metric is None else float(state.best_metric),
        stopped_early=state.global_step < state.max_steps,
        seconds=seconds,
        tokens=int(state.num_input_tokens_seen),
        tokens_per_second=report.tokens_per_second,
        padding_share=batches.compute_padding_share(state.global_step),
        adapted_modules=len(trainer.job.adapted.targets),
    )


def build_arguments(config: TrainingConfig, *, checkpoints: Path, steps_per_epoch: int) -> TrainingArguments:
    """Translate the training section for the Trainer.

    Validations and checkpoints before the last step are scheduled by `callbacks.Schedule`.

    Args:
        config: The training section.
        checkpoints: Folder for the Trainer's checkpoints.
        steps_per_epoch: Number of batches per epoch.

    Returns:
        Arguments for `transformers.Trainer`.
    """
    max_steps = count_steps(config, steps_per_epoch)
    return _Arguments(
        output_dir=str(checkpoints),
        max_steps=max_steps,
        per_device_train_batch_size=config.batch_rows,
        learning_rate=config.peak_learning_rate,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        lr_scheduler_type=config.schedule,
        warmup_steps=round(max_steps * config.warmup_ratio),
        eval_strategy="steps",
        eval_steps=max_steps,
        save_strategy="steps",
        save_steps=max_steps,
        save_total_limit=2,
        restore_callback_states_from_checkpoint=True,
        metric_for_best_model="eval_calibrated_loss",
        greater_is_better=False,
        label_names=["labels"],
        remove_unused_columns=False,
        include_num_input_tokens_seen="non_padding",
        logging_steps=10,
        logging_first_step=True,
        logging_nan_inf_filter=False,
        report_to=list(config.track) or "none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        average_tokens_across_devices=False,  # `SharedSteps` has weighed them
        seed=config.seed,
        use_cpu=choose_device(config.device) == "cpu",
    )


def build_optimizer(adapted: AdaptedModel, training: TrainingConfig, method: MethodConfig) -> torch.optim.Optimizer:
    """Build the optimizer of the trainable parameters.

    It is AdamW (Loshchilov and Hutter 2017, arXiv:1711.05101). LoRA's B has `method.loraplus_lr_ratio` times the
    learning rate of the rest of the adapter (LoRA+, Hayou et al. 2024, arXiv:2402.12354), the head
    `training.head_learning_rate`. Vectors (biases, norms, scales) get no weight decay, because not all of them start
    at 0. LoRA-FA (Zhang et al. 2023, arXiv:2308.03303), which freezes A, uses PEFT's own optimizer with a single rate
    and decay.

    Args:
        adapted: The model with its method.
        training: The training section, completed.
        method: The method section, completed.

    Returns:
        The optimizer. The groups with `training.learning_rate` come first, because the Trainer logs the first group's.
    """
    rate = training.peak_learning_rate
    if find_method(method.name).optimizer == "lora_fa":
        return _build_lora_fa(adapted.model, training, method)
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, parameter in adapted.model.named_parameters():
        if not parameter.requires_grad:
            continue
        own = rate
        if adapted.is_head(name):
            own = training.head_learning_rate or rate
        elif ".lora_B." in name:
            own = rate * (method.loraplus_lr_ratio or 1)
        decay = training.weight_decay if parameter.ndim > 1 and min(parameter.shape) > 1 else 0.0
        group = groups.setdefault((own, decay), {"params": [], "lr": own, "weight_decay": decay})
        group["params"].append(parameter)
    ordered = sorted(groups.values(), key=lambda group: group["lr"] != rate)
    return torch.optim.AdamW(ordered, lr=rate, fused=True)


def _build_lora_fa(model: Any, training: TrainingConfig, method: MethodConfig) -> torch.optim.Optimizer:  # noqa: ANN401 - PEFT's model
    from peft.optimizers import create_lorafa_optimizer

    optimizer: torch.optim.Optimizer = create_lorafa_optimizer(
        model,
        **method.model_dump(include={"r", "lora_alpha"}),
        lr=training.peak_learning_rate,
        weight_decay=training.weight_decay,
    )
    return optimizer
