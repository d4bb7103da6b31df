from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from lorafit.config import MethodConfig, ModelConfig
from lorafit.models.adaptation import AdaptedModel, apply_method
from lorafit.models.load import load_with_head, locate_encoder
from lorafit.tasks.base import TargetScaler
from lorafit.tasks.registry import build_task
from lorafit.training.targets import find_output_layer, fold_scaler, unfold_known_head

TASK = build_task("regression", ("value",))
SCALER = TargetScaler(mean=23.0, scale=12.5)
BATCH = {"input_ids": torch.tensor([[2, 5, 6, 3]]), "attention_mask": torch.ones(1, 4, dtype=torch.long)}


def build(folder: Path, method: str) -> AdaptedModel:
    loaded = load_with_head(locate_encoder(ModelConfig(name=str(folder))), TASK)
    return apply_method(loaded.model, MethodConfig(name=method), newly_initialised=loaded.newly_initialised)


def compute(adapted: AdaptedModel) -> np.ndarray:
    with torch.no_grad():
        return adapted.model.eval()(**BATCH).logits.double().numpy()


@pytest.mark.parametrize("method", ["lora", "full", "ln_tuning"])
def test_folded_model_gives_numbers_in_their_own_unit(tiny_distilbert: Path, method: str) -> None:
    adapted = build(tiny_distilbert, method)
    before = compute(adapted)
    fold_scaler(adapted, SCALER)
    assert compute(adapted) == pytest.approx(SCALER.undo(before), rel=1e-5)


def test_head_without_a_bias_is_scaled_alone(tiny_distilbert: Path) -> None:
    adapted = build(tiny_distilbert, "full")
    head = find_output_layer(adapted)
    assert head is adapted.model.get_submodule("classifier")
    head.bias = None
    scaler = TASK.fit_scaler(np.array([10.0, 20.0, 40.0]), has_bias=False)
    before = compute(adapted)
    fold_scaler(adapted, scaler)
    assert compute(adapted) == pytest.approx(before * np.sqrt(700), rel=1e-5)


def test_head_that_knows_the_unit_begins_with_standardised_numbers(tiny_distilbert: Path) -> None:
    adapted = build(tiny_distilbert, "full")
    before = compute(adapted)
    unfold_known_head(adapted, SCALER, newly_initialised=())
    assert compute(adapted) == pytest.approx(SCALER.apply(before), rel=1e-5)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_head_that_is_new_knows_no_unit(tiny_distilbert: Path, method: str) -> None:
    adapted = build(tiny_distilbert, method)
    before = compute(adapted)
    unfold_known_head(adapted, SCALER, newly_initialised=("classifier.bias", "classifier.weight"))
    assert np.array_equal(compute(adapted), before)


def test_scaler_of_other_tasks_changes_nothing(tiny_distilbert: Path) -> None:
    adapted = build(tiny_distilbert, "lora")
    weights = {name: tensor.clone() for name, tensor in adapted.model.state_dict().items()}
    fold_scaler(adapted, TargetScaler())
    unfold_known_head(adapted, TargetScaler(), newly_initialised=())
    assert all(torch.equal(tensor, weights[name]) for name, tensor in adapted.model.state_dict().items())
    assert isinstance(find_output_layer(adapted), nn.Linear)
