"""The labels as the loss takes them. Numbers are standardised; afterwards the head gives them in their own unit."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lorafit.labels import Task
from lorafit.models.adaptation import AdaptedModel

__all__ = ["Standard", "build_targets", "fold_standard", "measure_standard", "unfold_known_head"]


@dataclass(frozen=True)
class Standard:
    """How numbers are standardised: those of other tasks are not.

    Attributes:
        mean: What is taken off; 0 where the head has no offset to give it back with.
        scale: What the rest is divided by, above 0.
    """

    mean: float = 0.0
    scale: float = 1.0

    def apply(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Standardise numbers of any shape."""
        return (values - self.mean) / self.scale

    @property
    def inverse(self) -> "Standard":
        """What undoes `undo`, as `fold_standard` takes it."""
        return Standard(-self.mean / self.scale, 1 / self.scale)

    def undo(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return standardised numbers to their own unit."""
        return values * self.scale + self.mean


def measure_standard(labels: NDArray[Any], task: Task, adapted: AdaptedModel) -> Standard:
    """Measure mean and spread of the training rows' numbers.

    Args:
        labels: As in `Split.labels`; numbers are not all the same.
        task: What a text gets.
        adapted: The model that learns them.

    Returns:
        The standard; that of other tasks changes nothing.
    """
    if task != "regression":
        return Standard()
    if _find_output(adapted).bias is None:
        return Standard(scale=float(np.sqrt((labels**2).mean())))
    return Standard(mean=float(labels.mean()), scale=float(labels.std()))


def build_targets(labels: NDArray[Any], task: Task, standard: Standard) -> NDArray[Any]:
    """Return labels as transformers' losses take them: class ids, or float32 marks or standardised numbers."""
    if task == "single_label":
        return labels
    return standard.apply(labels.astype(np.float64)).astype(np.float32)


def fold_standard(adapted: AdaptedModel, standard: Standard) -> None:
    """Let a model that has learned standardised numbers give them in their own unit, by its last layer.

    Args:
        adapted: The trained model; changed in place, unless the standard changes nothing.
        standard: What it was trained with.
    """
    if standard == Standard():
        return
    output = _find_output(adapted)
    with torch.no_grad():
        output.weight.mul_(standard.scale)
        if output.bias is not None:
            output.bias.mul_(standard.scale).add_(standard.mean)


def unfold_known_head(adapted: AdaptedModel, standard: Standard, newly_initialised: Iterable[str]) -> None:
    """Let a head that came with the encoder, and gives numbers in a unit, begin with standardised ones.

    Args:
        adapted: The model before training; changed in place.
        standard: What it is to be trained with.
        newly_initialised: Parameters that the pre-trained weights did not have; a head among them knows no unit.
    """
    if standard == Standard():
        return
    name = next(name for name, module in adapted.model.named_modules() if module is _find_output(adapted))
    if not any(f".{part.rpartition('.')[0]}." in f".{name}." for part in newly_initialised):
        fold_standard(adapted, standard.inverse)


def _find_output(adapted: AdaptedModel) -> nn.Linear:
    """Return the trained layer whose outputs are the model's."""
    found = [
        module
        for name, module in adapted.model.named_modules()
        if isinstance(module, nn.Linear) and adapted.is_head(f"{name}.weight") and "original_module" not in name
    ]
    return found[-1]
