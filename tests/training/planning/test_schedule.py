"""Epochs and batches by the number of training rows."""

from math import ceil

import pytest

from lorafit.config import Config, load_config
from lorafit.models.method_settings import complete_settings
from lorafit.training.planning.schedule import FEWEST_STEPS, complete_schedule, slow_down


def test_large_data_have_two_epochs_of_batches_of_32() -> None:
    for rows in (10_000, 1_000_000):
        training = complete_schedule(Config(), rows).training
        assert (training.epochs, training.batch_size, training.evaluations_per_epoch) == (2, 32, 2)


@pytest.mark.parametrize("rows", [1, 2, 15, 16, 17, 32, 80, 200, 320, 639, 640, 641, 1000, 1279, 1280, 5000])
def test_few_rows_have_enough_steps_in_smaller_batches(rows: int) -> None:
    training = complete_schedule(Config(), rows).training
    assert training.epoch_count * ceil(rows / training.batch_rows) >= FEWEST_STEPS
    assert training.batch_rows == (16 if rows < 640 else 32)


def test_fewer_rows_never_have_fewer_epochs() -> None:
    config = load_config(overrides=["training.batch_size=16"])
    epochs = [complete_schedule(config, rows).training.epoch_count for rows in range(1, 3000)]
    assert epochs == sorted(epochs, reverse=True)


def test_what_is_given_stays() -> None:
    given = load_config(
        overrides=["training.epochs=1", "training.batch_size=64", "training.evaluations_per_epoch=3"],
    )
    assert complete_schedule(given, 20) == given
    batch = complete_schedule(load_config(overrides=["training.batch_size=8"]), 80).training
    assert (batch.batch_size, batch.epochs) == (8, ceil(FEWEST_STEPS / 10))


def test_an_adapter_learns_more_slowly_from_few_rows() -> None:
    lora = complete_settings(Config())
    rates = [slow_down(lora, rows).training.peak_learning_rate for rows in (2, 8, 32, 128, 10_000)]
    assert rates == pytest.approx([1e-3 / 8, 1e-3 / 4, 1e-3 / 2, 1e-3, 1e-3])
    head = complete_settings(load_config(overrides=["method.name=head_only"]))
    assert slow_down(head, 10) == head


@pytest.mark.parametrize(
    ("rows", "steps"), [(2, 12), (24, 12), (32, 16), (128, 64), (456, 121), (512, 128), (2000, 253)]
)
def test_an_encoder_learns_by_pairs_in_half_as_many_steps_as_rows_and_less_of_many(rows: int, steps: int) -> None:
    training = complete_schedule(load_config(overrides=["method.name=setfit"]), rows).training
    per_epoch = ceil(rows / training.batch_rows)
    assert steps <= training.epoch_count * per_epoch < steps + max(per_epoch, 2)


def test_settings_that_were_not_completed_are_refused() -> None:
    for name in ("epoch_count", "batch_rows", "validations_per_epoch"):
        with pytest.raises(ValueError, match="not completed"):
            getattr(Config().training, name)
