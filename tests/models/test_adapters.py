"""What lorafit's methods save is opened again as PEFT opens it."""

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel

from lorafit.config import MethodConfig, ModelConfig
from lorafit.models.adaptation import apply_method
from lorafit.models.adapters import PEFT_TYPES, load_adapter
from lorafit.models.load import LoadedModel, load_with_head, locate_encoder
from lorafit.models.methods import METHODS
from lorafit.models.quiet import quiet_transformers
from lorafit.runs.saving import write_trained
from lorafit.tasks.registry import build_task

ADAPTERS = [name for name, method in METHODS.items() if method.build is not None]
TOKENS = torch.arange(5, 21).reshape(2, 8)


def load(base: Path) -> LoadedModel:
    return load_with_head(locate_encoder(ModelConfig(name=str(base))), build_task("single_label", ("no", "yes")))


def compute_logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=TOKENS).logits


@pytest.mark.parametrize("method", ADAPTERS)
def test_adapter_of_every_method_is_opened_as_by_peft(tiny_distilbert: Path, tmp_path: Path, method: str) -> None:
    loaded = load(tiny_distilbert)
    adapted = apply_method(loaded.model, MethodConfig(name=method), newly_initialised=loaded.newly_initialised)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in adapted.model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.05)
    write_trained(adapted, locate_encoder(ModelConfig(name=str(tiny_distilbert))), tmp_path, max_length=64)
    opened = load_adapter(load(tiny_distilbert).model, tmp_path)
    with quiet_transformers():
        plain = PeftModel.from_pretrained(load(tiny_distilbert).model, tmp_path)
    assert torch.equal(compute_logits(opened), compute_logits(plain))
    assert torch.equal(compute_logits(opened), compute_logits(adapted.model))
    assert [one.requires_grad for one in opened.parameters()] == [one.requires_grad for one in plain.parameters()]
    assert not opened.training
    assert json.loads((tmp_path / "adapter_config.json").read_text())["peft_type"] in PEFT_TYPES
