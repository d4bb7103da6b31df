"""AdamW with a learning rate of its own for the head and for each kind of adapter weight, and LoRA-FA's."""

from typing import Any

import torch

from lorafit.models.adaptation import AdaptedModel
from lorafit.models.methods import find_method
from lorafit.settings import MethodConfig, TrainingConfig

__all__ = ["build_optimizer"]


def build_optimizer(adapted: AdaptedModel, training: TrainingConfig, method: MethodConfig) -> torch.optim.Optimizer:
    """Build the optimizer for what is trained.

    That is AdamW (Loshchilov and Hutter 2017, arXiv:1711.05101). LoRA's B learns at `method.loraplus_lr_ratio` times
    the rate of everything else in the adapter (LoRA+, Hayou et al. 2024, arXiv:2402.12354), the head at
    `training.head_learning_rate`; biases, norms and other vectors, which begin at 1 as well as at 0, are not decayed.
    LoRA-FA (Zhang et al. 2023, arXiv:2308.03303) freezes A and has PEFT's optimizer, which knows one rate and decays
    all.

    Args:
        adapted: The model with its method.
        training: The training section, completed.
        method: The method section, completed.

    Returns:
        The optimizer; first come the groups that learn at `training.learning_rate`, so that it is what is logged.
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
