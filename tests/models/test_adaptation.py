import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch

from lorafit.config import MethodConfig, ModelConfig, TargetGroup
from lorafit.errors import ConfigError
from lorafit.models import adaptation
from lorafit.models.adaptation import AdaptedModel, apply_method, base_of, count_parameters
from lorafit.models.load import load_with_head, locate_encoder
from lorafit.models.methods import METHODS
from lorafit.models.runtimes.pytorch import TorchRuntime
from lorafit.runs.golden import GOLDEN_PRECISION
from lorafit.tasks.registry import build_task

TASK = build_task("single_label", ("neg", "pos"))

Adapt = Callable[..., AdaptedModel]


@pytest.fixture
def adapt(tiny_distilbert: Path) -> Adapt:
    """Adapts a tiny encoder; takes its folder, the seed and settings of the method."""

    def build(folder: Path = tiny_distilbert, *, seed: int = 0, **settings: Any) -> AdaptedModel:
        loaded = load_with_head(locate_encoder(ModelConfig(name=str(folder))), TASK)
        config = MethodConfig(**settings)
        return apply_method(loaded.model, config, newly_initialised=loaded.newly_initialised, seed=seed)

    return build


def trained(adapted: AdaptedModel) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in adapted.model.named_parameters() if tensor.requires_grad}


def test_parameters_are_those_of_the_arithmetic(adapt: Adapt, tiny_distilbert: Path) -> None:
    counts = count_parameters(adapt(r=8))
    attention, feed_forward = 4 * (32 + 32), 2 * (32 + 64)
    assert counts.adapter == 2 * 8 * (attention + feed_forward)
    assert counts.head == (32 * 32 + 32) + (32 * 2 + 2)
    loaded = load_with_head(locate_encoder(ModelConfig(name=str(tiny_distilbert))), TASK)
    assert counts.total == sum(tensor.numel() for tensor in loaded.model.parameters()) + counts.adapter


def test_only_adapter_and_head_are_trained(adapt: Adapt) -> None:
    adapted = adapt()
    names = trained(adapted)
    assert sum("lora_" in name for name in names) == 2 * len(adapted.targets) == 24
    assert all("lora_" in name or "modules_to_save" in name for name in names)
    counts = count_parameters(adapted)
    assert sum(tensor.numel() for tensor in names.values()) == counts.adapter + counts.head


def test_base_stays_as_it_was_through_an_optimiser_step(adapt: Adapt) -> None:
    adapted = adapt()
    frozen = {name: t.clone() for name, t in adapted.model.named_parameters() if not t.requires_grad}
    before = {name: tensor.detach().clone() for name, tensor in trained(adapted).items()}
    optimizer = torch.optim.SGD(trained(adapted).values(), lr=1.0)
    output = adapted.model(input_ids=torch.arange(5, 13).reshape(2, 4), labels=torch.tensor([0, 1]))
    output.loss.backward()
    optimizer.step()
    now = dict(adapted.model.named_parameters())
    assert all(torch.equal(now[name], tensor) for name, tensor in frozen.items())
    assert any(not torch.equal(now[name], tensor) for name, tensor in before.items() if "lora_B" in name)
    assert any(not torch.equal(now[name], tensor) for name, tensor in before.items() if "modules_to_save" in name)


def test_fresh_adapter_changes_nothing(adapt: Adapt) -> None:
    model = adapt().model.eval()
    ids = torch.arange(5, 13).reshape(2, 4)
    with torch.no_grad(), model.disable_adapter():
        plain = model(input_ids=ids).logits
    with torch.no_grad():
        assert torch.equal(model(input_ids=ids).logits, plain)


def test_settings_reach_peft(adapt: Adapt) -> None:
    config: Any = adapt(r=4, lora_alpha=12, lora_dropout=0.1, target_modules="query-value").model.peft_config["default"]
    assert (config.r, config.lora_alpha, config.lora_dropout) == (4, 12, 0.1)
    assert config.task_type == "SEQ_CLS"
    assert config.modules_to_save[:2] == ["pre_classifier", "classifier"]  # peft appends its own guesses


@pytest.mark.parametrize("target_modules", ["query-value", "attention", "feed-forward", "all-linear", ["lin1"]])
def test_exactly_the_targets_carry_an_adapter(adapt: Adapt, target_modules: TargetGroup | list[str]) -> None:
    adapted = adapt(target_modules=target_modules)
    carrying = [name for name, part in adapted.model.base_model.model.named_modules() if hasattr(part, "lora_A")]
    per_layer = {"query-value": 2, "attention": 4, "feed-forward": 2, "all-linear": 6}
    assert len(carrying) == 2 * (1 if isinstance(target_modules, list) else per_layer[target_modules])
    assert tuple(carrying) == adapted.targets


def test_many_targets_of_bert_do_not_spill_over(adapt: Adapt, build_encoder: Callable[..., Path]) -> None:
    deep = build_encoder("bert", num_hidden_layers=12)
    adapted = adapt(deep, target_modules="feed-forward")
    assert len(adapted.targets) == 24
    assert not [name for name in trained(adapted) if "attention" in name]


def test_pooler_that_is_random_is_trained(adapt: Adapt, tiny_bert: Path, tmp_path: Path) -> None:
    from transformers import BertModel

    shutil.copytree(tiny_bert, tmp_path, dirs_exist_ok=True)
    BertModel.from_pretrained(tiny_bert, add_pooling_layer=False).save_pretrained(tmp_path)
    adapted = adapt(tmp_path)
    assert adapted.head == ("bert.pooler.dense", "classifier")
    assert count_parameters(adapted).head == (32 * 32 + 32) + (32 * 2 + 2)
    assert adapt(tiny_bert).head == ("classifier",)


def test_named_layers_adapt_an_encoder_that_is_not_in_the_table(
    adapt: Adapt, build_encoder: Callable[..., Path]
) -> None:
    unknown = build_encoder("nystromformer")
    adapted = adapt(unknown, r=4, target_modules=["query", "value"])
    counts = count_parameters(adapted)
    assert adapted.head == ("classifier",)
    assert counts.adapter == 2 * 2 * 4 * (32 + 32)
    with pytest.raises(ConfigError, match="not known for encoders of type 'nystromformer'"):
        adapt(unknown, target_modules="attention")


def test_rank_above_the_layer_is_refused(adapt: Adapt) -> None:
    adapt(r=32)
    with pytest.raises(
        ConfigError, match=r"method\.r=33 is larger than the layer distilbert\..* allows \(at most 32\)"
    ):
        adapt(r=33)


def test_adapter_on_other_modules_than_wanted_is_refused(adapt: Adapt, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adaptation, "find_targets", lambda *_, **__: ["distilbert.transformer.layer.0.ffn.lin1"])
    lora = METHODS["lora"]
    greedy = replace(lora, build=lambda settings, site: lora.build(settings, replace(site, targets=["lin1"])))
    monkeypatch.setitem(METHODS, "lora", greedy)
    with pytest.raises(ConfigError, match=r"LoRA should adapt 1 modules, but 2 carry an adapter .*layer\.1\.ffn\.lin1"):
        adapt()


def test_older_peft_without_a_method_is_to_be_upgraded(adapt: Adapt, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(peft, "DeftConfig")
    with pytest.raises(ConfigError, match=r"PEFT [\d.]+ has no DeftConfig: pip install --upgrade peft"):
        adapt(name="deft")


def test_seed_decides_the_adapter_and_leaves_the_caller_randomness_alone(adapt: Adapt) -> None:
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    first, again, other = (trained(adapt(seed=seed)) for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first if "lora_A" in name)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_gives_the_features_of_the_state_that_the_head_reads(adapt: Adapt, name: str) -> None:
    model = adapt(name=name).model
    ids = np.random.default_rng(0).integers(5, 30, (3, 8))
    logits, features = TorchRuntime(model, GOLDEN_PRECISION).outputs(ids, np.ones_like(ids))
    assert features is not None
    assert features.shape == (3, 64)
    base = base_of(model)
    with torch.no_grad():
        made = base.classifier(torch.relu(base.pre_classifier(torch.from_numpy(features[:, :32])))).numpy()
    np.testing.assert_allclose(made, logits, atol=1e-5)
