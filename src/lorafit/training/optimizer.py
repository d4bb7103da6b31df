"""AdamW with a learning rate of its own for the head and for each kind of adapter weight."""

from typing import Any

import torch
from torch import nn

from lorafit.config import MethodConfig, TrainingConfig

__all__ = ["build_optimizer"]


def build_optimizer(model: nn.Module, training: TrainingConfig, method: MethodConfig) -> torch.optim.AdamW:
    """Build AdamW (Loshchilov and Hutter 2017, arXiv:1711.05101) for what is trained.

    LoRA's B learns at `method.loraplus_lr_ratio` times the rate of everything else in the adapter (LoRA+, Hayou et al.
    2024, arXiv:2402.12354), the head at `training.head_learning_rate`. Biases and norms are not decayed.

    Args:
        model: The model with its adapter, as PEFT names its parameters.
        training: The training section.
        method: The method section.

    Returns:
        The optimizer; first come the groups that learn at `training.learning_rate`, so that it is what is logged.
    """
    rate = training.learning_rate
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    for name, parameter in trained:
        own = rate
        if "modules_to_save." in name:
            own = training.head_learning_rate or rate
        elif ".lora_B." in name or ".lora_embedding_B." in name:
            own = rate * method.loraplus_lr_ratio
        decay = training.weight_decay if parameter.ndim > 1 else 0.0
        group = groups.setdefault((own, decay), {"params": [], "lr": own, "weight_decay": decay})
        group["params"].append(parameter)
    ordered = sorted(groups.values(), key=lambda group: group["lr"] != rate)
    return torch.optim.AdamW(ordered, lr=rate, fused=True)
