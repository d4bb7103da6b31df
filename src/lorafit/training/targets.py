"""The scaler of a regression's targets and the model's last layer, which gives numbers in their own unit afterwards."""

from collections.abc import Iterable

import torch
from torch import nn

from lorafit.models.adaptation import AdaptedModel
from lorafit.tasks.base import TargetScaler


def fold_scaler(adapted: AdaptedModel, scaler: TargetScaler) -> None:
    """Let a model that has learned standardised numbers give them in their own unit, by its last layer.

    Args:
        adapted: The trained model; changed in place, unless the scaler changes nothing.
        scaler: That of the targets it was trained with.
    """
    if scaler == TargetScaler():
        return
    output = find_output_layer(adapted)
    with torch.no_grad():
        output.weight.mul_(scaler.scale)
        if output.bias is not None:
            output.bias.mul_(scaler.scale).add_(scaler.mean)


def unfold_known_head(adapted: AdaptedModel, scaler: TargetScaler, newly_initialised: Iterable[str]) -> None:
    """Let a head that came with the encoder, and gives numbers in a unit, begin with standardised ones.

    Args:
        adapted: The model before training; changed in place.
        scaler: That of the targets it is to be trained with.
        newly_initialised: Parameters that the pre-trained weights did not have; a head among them knows no unit.
    """
    if scaler == TargetScaler():
        return
    name = next(name for name, module in adapted.model.named_modules() if module is find_output_layer(adapted))
    if not any(f".{part.rpartition('.')[0]}." in f".{name}." for part in newly_initialised):
        fold_scaler(adapted, scaler.inverse)


def find_output_layer(adapted: AdaptedModel) -> nn.Linear:
    """Return the trained layer whose outputs are the logits."""
    found = [
        module
        for name, module in adapted.model.named_modules()
        if isinstance(module, nn.Linear) and adapted.is_head(f"{name}.weight") and "original_module" not in name
    ]
    return found[-1]
