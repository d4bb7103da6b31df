"""lorafit's settings in the words of transformers' Trainer."""

from pathlib import Path

from transformers import TrainingArguments

from lorafit.models.acceleration.precision import choose_device
from lorafit.settings import TrainingConfig

__all__ = ["build_arguments"]


def build_arguments(config: TrainingConfig, *, checkpoints: Path, steps_per_epoch: int) -> TrainingArguments:
    """Translate the training settings.

    Evaluation and saving inside an epoch are asked for by `callbacks.Schedule`; here stands only the last step.

    Args:
        config: The training section.
        checkpoints: Folder for the Trainer's checkpoints.
        steps_per_epoch: Number of batches an epoch.

    Returns:
        Arguments for `transformers.Trainer`.
    """
    max_steps = config.max_steps or steps_per_epoch * config.epochs
    return TrainingArguments(
        output_dir=str(checkpoints),
        max_steps=max_steps,
        per_device_train_batch_size=config.batch_size,
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
        load_best_model_at_end=True,
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
        seed=config.seed,
        use_cpu=choose_device(config.device) == "cpu",
    )
