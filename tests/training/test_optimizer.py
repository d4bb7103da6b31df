from pathlib import Path

import torch

from lorafit.config import MethodConfig, ModelConfig, TrainingConfig
from lorafit.labels import LabelSet
from lorafit.models.adaptation import apply_method
from lorafit.models.load import load_with_head, locate_encoder
from lorafit.models.method_settings import complete_method
from lorafit.training.trainer import build_optimizer


def read_groups(folder: Path, training: TrainingConfig, method: MethodConfig) -> dict[str, tuple[float, float]]:
    """Learning rate and decay of every parameter that is trained."""
    loaded = load_with_head(locate_encoder(ModelConfig(name=str(folder))), LabelSet(("bad", "good")))
    adapted = apply_method(loaded.model, method, newly_initialised=loaded.newly_initialised)
    optimizer, model = build_optimizer(adapted, training, complete_method(method)), adapted.model
    assert isinstance(optimizer, torch.optim.AdamW)
    assert optimizer.param_groups[0]["lr"] == training.learning_rate
    of = {id(weight): group for group in optimizer.param_groups for weight in group["params"]}
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    assert len(of) == len(trained) == sum(len(group["params"]) for group in optimizer.param_groups)
    return {name: (of[id(weight)]["lr"], of[id(weight)]["weight_decay"]) for name, weight in trained.items()}


def test_each_part_learns_at_its_own_rate(tiny_distilbert: Path) -> None:
    training = TrainingConfig(learning_rate=1e-3, head_learning_rate=2e-3, weight_decay=0.1)
    groups = read_groups(tiny_distilbert, training, MethodConfig(r=4, loraplus_lr_ratio=16))
    for name, (rate, decay) in groups.items():
        assert rate == (2e-3 if "modules_to_save" in name else 16e-3 if "lora_B" in name else 1e-3)
        assert decay == (0.0 if name.endswith("bias") else 0.1)
    assert {rate for rate, _ in groups.values()} == {1e-3, 2e-3, 16e-3}
    assert {decay for _, decay in groups.values()} == {0.0, 0.1}


def test_factors_are_not_pulled_to_zero(tiny_distilbert: Path) -> None:
    groups = read_groups(tiny_distilbert, TrainingConfig(learning_rate=1e-3), MethodConfig(name="ia3"))
    assert {decay for name, (_, decay) in groups.items() if "ia3_l" in name} == {0.0}


def test_all_learn_alike_unless_told_otherwise(tiny_distilbert: Path) -> None:
    groups = read_groups(tiny_distilbert, TrainingConfig(learning_rate=3e-4), MethodConfig(r=4))
    assert {rate for rate, _ in groups.values()} == {3e-4}
