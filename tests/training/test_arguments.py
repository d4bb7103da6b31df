from pathlib import Path

from lorafit.config import TrainingConfig
from lorafit.training.trainer import build_arguments


def test_settings_reach_the_trainer(tmp_path: Path) -> None:
    config = TrainingConfig(
        epochs=4,
        learning_rate=3e-4,
        weight_decay=0.2,
        warmup_ratio=0.25,
        max_grad_norm=2.0,
        seed=11,
        batch_size=6,
        schedule="cosine",
    )
    arguments = build_arguments(config, checkpoints=tmp_path / "checkpoints", steps_per_epoch=10)
    assert arguments.output_dir == str(tmp_path / "checkpoints")
    assert (arguments.max_steps, arguments.warmup_steps) == (40, 10)
    assert (arguments.learning_rate, arguments.weight_decay, arguments.max_grad_norm) == (3e-4, 0.2, 2.0)
    assert arguments.lr_scheduler_type == "cosine"
    assert (arguments.seed, arguments.per_device_train_batch_size) == (11, 6)
    assert not (tmp_path / "checkpoints").exists()


def test_max_steps_wins_over_epochs(tmp_path: Path) -> None:
    for max_steps in (7, 70):
        config = TrainingConfig(learning_rate=1e-3, epochs=4, max_steps=max_steps)
        assert build_arguments(config, checkpoints=tmp_path, steps_per_epoch=10).max_steps == max_steps


def test_label_names_are_set_and_nothing_is_reported_elsewhere(tmp_path: Path) -> None:
    arguments = build_arguments(TrainingConfig(learning_rate=1e-3), checkpoints=tmp_path, steps_per_epoch=10)
    assert arguments.label_names == ["labels"]
    assert arguments.report_to == []
    assert arguments.push_to_hub is False


def test_not_a_number_is_never_filtered_from_the_loss(tmp_path: Path) -> None:
    arguments = build_arguments(TrainingConfig(learning_rate=1e-3), checkpoints=tmp_path, steps_per_epoch=10)
    assert arguments.logging_nan_inf_filter is False
