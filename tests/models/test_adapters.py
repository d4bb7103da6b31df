"""What lorafit's methods save is opened again as PEFT opens it."""

import json
from enum import Enum
from pathlib import Path

import peft
import pytest
import torch
from peft import PeftModel

from lorafit.config import MethodConfig, ModelConfig
from lorafit.errors import ConfigError
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


def test_adapter_that_an_older_peft_does_not_know_names_the_remedy(
    tiny_distilbert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load(tiny_distilbert)
    adapted = apply_method(loaded.model, MethodConfig(name="deft"), newly_initialised=loaded.newly_initialised)
    write_trained(adapted, locate_encoder(ModelConfig(name=str(tiny_distilbert))), tmp_path, max_length=64)
    older = Enum("PeftType", {name: name for name in peft.PeftType.__members__ if name != "DEFT"})
    monkeypatch.setattr(peft, "PeftType", older)
    with pytest.raises(ConfigError, match=r"PEFT [\d.]+ has no DEFT yet: pip install --upgrade peft"):
        load_adapter(load(tiny_distilbert).model, tmp_path)


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
