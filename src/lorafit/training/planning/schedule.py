"""How long to train, in what batches: by the number of training rows, where the settings do not say.

With few rows, two epochs are a handful of steps, after which hardly anything is learned. So there is a least number of
optimizer steps, with smaller batches and more epochs the fewer the rows are. The evidence is in
`docs/explanation/defaults.md`.
"""

from math import ceil, sqrt
from typing import Final

from lorafit.config import Config, TrainingConfig
from lorafit.models.methods import find_method

FEWEST_STEPS: Final = 80
"""Optimizer steps that training has at least, where neither epochs nor steps are set."""

MOST_FITTED: Final = 5_000
"""Training inputs that the head of such an encoder is fitted to, drawn at random where there are more."""

_SHORT_TOKENS: Final = 128
"""Longest text in tokens where training begins with short ones, and of pairs."""

_MANY_FOR_WARMUP: Final = 1_280
"""From so many rows on, training begins with shorter texts."""

_FEWEST_PAIR_STEPS = 12
_FEW_PAIR_ROWS = 128
"""Up to so many rows, an encoder that learns by pairs makes half as many steps."""

_EPOCHS = 2
_BATCH, _SMALL_BATCH = 32, 16
_MANY_ROWS = 640
"""From so many rows on, batches are those of large data."""

_FULL_RATE_ROWS = 128
"""From so many rows on, learning rates are those of large data."""

_VALIDATIONS, _FEW_EPOCHS = 2, 4


def complete_schedule(config: Config, rows: int) -> Config:
    """Fill in the settings of the schedule that are left to the size of the data.

    Args:
        config: All settings; those that are given stay.
        rows: Number of training rows, at least 1.

    Returns:
        The same with epochs, batch size and validations per epoch.
    """
    completed = config.model_copy(deep=True)
    training, method = completed.training, find_method(config.method.name)
    if training.batch_size is None:
        training.batch_size = _BATCH if rows >= _MANY_ROWS else _SMALL_BATCH
    if method.objective == "none":
        training.epochs = training.evaluations_per_epoch = 1
    if training.epochs is None:
        fewest = count_pair_steps(rows) if method.objective == "pairs" else FEWEST_STEPS
        training.epochs = count_epochs(rows, training.batch_size, fewest)
    if training.evaluations_per_epoch is None:
        training.evaluations_per_epoch = _VALIDATIONS if training.epochs <= _FEW_EPOCHS else 1
    return completed


def count_steps(config: TrainingConfig, steps_per_epoch: int) -> int:
    """Return how many steps training makes, unless it stops early."""
    return config.max_steps or steps_per_epoch * config.epoch_count


def count_short_steps(config: TrainingConfig, steps_per_epoch: int) -> int:
    """Return how many of the steps, the first ones, are made with short texts where there are any."""
    return count_steps(config, steps_per_epoch) // 2


def choose_length_warmup(config: Config, rows: int) -> int:
    """Return the length in tokens that training begins with, shorter texts first (Li et al. 2022, arXiv:2108.06084).

    Args:
        config: The completed settings.
        rows: Number of training rows.

    Returns:
        The length; an encoder that learns by pairs keeps to it, and its head reads whole texts. 0 where all steps read
        whole texts, as of windows.
    """
    method, given, longest = find_method(config.method.name), config.training.length_warmup, config.model.max_length
    if config.model.truncation == "windows" or method.objective == "none":
        return 0
    if method.objective == "pairs":
        return given or _SHORT_TOKENS
    if given is not None:
        return given
    learns = config.method.layers == "all" and (method.is_adapter or method.trains is not None)
    return _SHORT_TOKENS if learns and rows >= _MANY_FOR_WARMUP and longest >= 2 * _SHORT_TOKENS else 0


def count_pair_steps(rows: int) -> int:
    """Return how many optimizer steps an encoder makes at least while it learns by pairs.

    That is half as many as there are rows, and of many as the square root of their number grows: all pairs of few rows
    are soon seen, and of many not every one needs to be.
    """
    return max(_FEWEST_PAIR_STEPS, round(min(rows, sqrt(rows * _FEW_PAIR_ROWS)) / 2))


def slow_down(config: Config, rows: int) -> Config:
    """Lower the method's own learning rate where rows are very few: by the square root of their number.

    At LoRA's full rate, many steps on a few rows make it as sure of them as it can be, and worse on others.

    Args:
        config: The completed settings, with the method's own learning rate.
        rows: Number of training rows, at least 1.

    Returns:
        The same, with a lower rate for methods that adapt linear layers; others were not compared.
    """
    slowed = config.model_copy(deep=True)
    if find_method(config.method.name).place == "linears":
        slowed.training.learning_rate = config.training.peak_learning_rate * min(1.0, sqrt(rows / _FULL_RATE_ROWS))
    return slowed


def count_epochs(rows: int, batch_size: int, fewest: int = FEWEST_STEPS) -> int:
    """Return how often training goes over the rows: twice, or until it has made the fewest steps."""
    return max(_EPOCHS, ceil(fewest / ceil(rows / batch_size)))
