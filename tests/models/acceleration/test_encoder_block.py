import copy
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import PreTrainedModel

from lorafit.config import MethodConfig, ModelConfig
from lorafit.models.acceleration.encoder_block import (
    _OWN_BLOCKS,
    FusedBlock,
    at_precision,
    compute_prefix,
    frozen_depth,
    fuse_encoder,
    is_fused,
)
from lorafit.models.acceleration.inference import make_fast
from lorafit.models.acceleration.precision import PrecisionChoice
from lorafit.models.adaptation import apply_method
from lorafit.models.architectures import ARCHITECTURES
from lorafit.models.load import load_with_head, locate_encoder
from lorafit.models.methods import METHODS
from lorafit.models.quiet import quiet_transformers
from lorafit.tasks.registry import build_task

TASK = build_task("single_label", ("neg", "pos"))
FP32, BF16 = PrecisionChoice("fp32", ""), PrecisionChoice("bf16", "")

BF16_LOGITS, BF16_GRADIENTS, BF16_PARAMETER = 3e-2, 5e-2, 0.15
"""Relative difference from fp32 of logits, of all gradients together, and of those of one parameter. Products rounded
by up to 2^-9 = 2e-3 follow one another through two blocks, forward and backward: measured on 48 batches an architecture
are at most 1.8, 2.0 and 7.2 %, and as much with stock blocks under autocast."""

BLOCKS = [
    pytest.param(
        architecture,
        padded,
        targets,
        marks=() if architecture == "distilbert" or (padded and targets == "all-linear") else pytest.mark.slow,
    )
    for architecture in ("distilbert", "bert", "roberta", "electra")
    for padded in (True, False)
    for targets in ("all-linear", "query-value", None)
]
"""Architecture, whether texts have different lengths, and adapted layers: `make test` takes each architecture once."""

Model = PreTrainedModel | PeftModel
Batch = dict[str, torch.Tensor]
Build = Callable[..., Model]


@pytest.fixture(params=["distilbert", "bert"])
def architecture(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def build_once(build_encoder: Callable[..., Path]) -> Callable[[str], Path]:
    """Builds the folder of a tiny encoder of an architecture, once."""
    return functools.cache(build_encoder)


@pytest.fixture
def build(architecture: str, build_once: Callable[[str], Path]) -> Build:
    """Builds a tiny classifier of one architecture, in training; takes the target modules (None: a bare encoder with
    frozen linear layers and all else trained), another architecture, and settings of the method."""

    def build(targets: Any = "all-linear", *, of: str = architecture, dropout: bool = False, **settings: Any) -> Model:  # noqa: ANN401 - as the config takes it
        folder = build_once(of)
        loaded = load_with_head(locate_encoder(ModelConfig(name=str(folder))), TASK, base_dropout=dropout)
        model: Any = loaded.model
        with torch.no_grad():  # random weights of 0.02 would hide attention and the feed-forward network
            for name, parameter in model.named_parameters():
                if name.startswith(model.base_model_prefix) and parameter.ndim == 2 and "embeddings" not in name:
                    parameter.mul_(8)
                elif of in {"roberta", "electra"} and parameter.ndim == 2 and "classifier" in name:
                    parameter.mul_(8)  # logits that are no smaller than what fp32 rounds off
            if of == "distilbert":  # no unit of the head so near to zero that a rounding switches it on or off
                model.pre_classifier.bias.fill_(0.5)
        if targets is None:
            for name in linears_of(model):
                model.get_submodule(name).requires_grad_(requires_grad=False)
        else:
            method = MethodConfig(target_modules=targets, **settings)
            model = apply_method(model, method, newly_initialised=loaded.newly_initialised).model
            fill_adapter(model)
        return model.train()

    return build


@pytest.fixture
def batch() -> Batch:
    mask = torch.arange(9) < torch.tensor([[9], [4], [6], [1]])
    ids = torch.randint(5, 60, (4, 9), generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids * mask, "attention_mask": mask.long(), "labels": torch.tensor([0, 1, 1, 1])}


def linears_of(model: Any) -> list[str]:  # noqa: ANN401 - a class of transformers, by architecture
    architecture = ARCHITECTURES[model.config.model_type]
    blocks = range(len(model.get_submodule(architecture.layers)))
    return [f"{architecture.layers}.{block}.{name}" for block in blocks for name in architecture.linears]


def fill_adapter(model: Model) -> None:
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))


def fuse(model: Model) -> Model:
    """Return a fused copy; the model given is the twin."""
    fused = copy.deepcopy(model)
    assert fuse_encoder(fused) is None
    return fused


def compute(
    model: Any,  # noqa: ANN401 - PEFT's or transformers' model
    batch: Batch,
    precision: PrecisionChoice = FP32,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return logits and gradients, by the same dropout of the head."""
    torch.manual_seed(0)
    with at_precision(model, precision):
        output = model(**batch)
    output.loss.backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    model.zero_grad()
    return output.logits.detach(), gradients


def predict(model: Any, batch: Batch, precision: PrecisionChoice = FP32) -> torch.Tensor:  # noqa: ANN401 - PEFT's or transformers' model
    model.eval()
    with torch.inference_mode(), at_precision(model, precision):
        return model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits


def difference(tensor: torch.Tensor, reference: torch.Tensor) -> float:
    return float((tensor.float() - reference).norm() / reference.norm())


@pytest.mark.parametrize(("architecture", "padded", "targets"), BLOCKS, indirect=["architecture"])
def test_logits_and_gradients_are_those_of_the_stock_model(
    build: Build, batch: Batch, padded: bool, targets: str | None
) -> None:
    model = build(targets)
    if not padded:
        batch["attention_mask"] = torch.ones_like(batch["attention_mask"])
    exact, references = compute(model, batch)
    logits, gradients = compute(fuse(model), batch)
    assert difference(logits, exact) <= 1e-5
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert gradients.keys() == references.keys() <= trained
    assert sum("lora_" in name for name in gradients) == {"all-linear": 24, "query-value": 8, None: 0}[targets]
    for name, reference in references.items():
        assert difference(gradients[name], reference) <= 1e-5, name


@pytest.mark.parametrize(
    ("architecture", "name"),
    [
        pytest.param(
            architecture, row.name, marks=() if architecture == "distilbert" or row.name == "lora" else pytest.mark.slow
        )
        for row in METHODS.values()
        if row.place == "linears" and "fused-blocks" not in row.limits
        for architecture in ("distilbert", "bert")
    ],
    indirect=["architecture"],
)
def test_every_method_without_that_limit_is_trained_in_fused_blocks(build: Build, batch: Batch, name: str) -> None:
    model = build(name=name).eval()  # LoHa and LoKr draw numbers in training, which the head's dropout would miss
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in (trained for trained in model.parameters() if trained.requires_grad and trained.ndim):
            parameter.add_(0.03 * torch.randn(parameter.shape, generator=generator))
    exact, references = compute(model, batch)
    logits, gradients = compute(fuse(model), batch)
    assert difference(logits, exact) <= 1e-5
    assert gradients.keys() == references.keys()
    least = 1e-2 * max(float(reference.norm()) for reference in references.values())  # sums that cancel out
    for key, reference in references.items():
        assert float((gradients[key] - reference).norm()) <= 1e-3 * max(least, float(reference.norm())), key


@pytest.mark.parametrize(("architecture", "padded", "targets"), BLOCKS, indirect=["architecture"])
def test_bfloat16_differs_from_fp32_by_its_rounding_alone(
    build: Build, batch: Batch, padded: bool, targets: str | None
) -> None:
    model = build(targets)
    if not padded:
        batch["attention_mask"] = torch.ones_like(batch["attention_mask"])
    exact, references = compute(model, batch)
    logits, gradients = compute(fuse(model), batch, BF16)
    assert logits.dtype == torch.float32
    assert 1e-5 < difference(logits, exact) <= BF16_LOGITS
    assert gradients.keys() == references.keys()
    assert {gradient.dtype for gradient in gradients.values()} == {torch.float32}
    together, exact_together = (
        torch.cat([each[name].flatten() for name in references]) for each in (gradients, references)
    )
    assert difference(together, exact_together) <= BF16_GRADIENTS
    for name, reference in references.items():
        assert difference(gradients[name], reference) <= BF16_PARAMETER, name


def test_padding_does_not_matter(build: Build, batch: Batch) -> None:
    fused = fuse(build())
    together = predict(fused, batch)
    for row, length in enumerate(batch["attention_mask"].sum(1).tolist()):
        alone = {name: tensor[row : row + 1, :length] for name, tensor in batch.items() if name != "labels"}
        assert difference(predict(fused, alone), together[row : row + 1]) <= 1e-5


def test_dropout_of_the_adapter_is_drawn_in_training_alone(build: Build, batch: Batch) -> None:
    model = build(lora_dropout=0.5)
    fused: Any = fuse(model)
    assert difference(predict(fused, batch), predict(model, batch)) <= 1e-5
    first, second = (fused.train()(**batch).loss.item() for _ in range(2))
    assert first != second


def test_last_block_gives_the_first_token_alone(build: Build, batch: Batch) -> None:
    shapes: list[tuple[torch.Size, torch.dtype]] = []
    fused: Any = fuse(build())
    blocks = [module for module in fused.modules() if isinstance(module, FusedBlock)]
    for block in blocks:
        block.register_forward_hook(lambda _module, _inputs, output: shapes.append((output.shape, output.dtype)))
    predict(fused, batch)
    predict(fused, batch, BF16)
    assert shapes == [
        ((4, 9, 32), torch.float32),
        ((4, 1, 32), torch.float32),
        ((4, 9, 32), torch.bfloat16),
        ((4, 1, 32), torch.float32),
    ]


@pytest.mark.parametrize("targets", ["all-linear", None])
def test_parameters_keep_their_names_and_values(build: Build, targets: str | None) -> None:
    model = build(targets)
    fused = fuse(model)
    names = [name for name, _ in model.named_parameters()]
    assert [name for name, _ in fused.named_parameters()] == names
    before, after = model.state_dict(), fused.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    trained = [parameter.requires_grad for parameter in model.parameters()]
    assert [parameter.requires_grad for parameter in fused.parameters()] == trained


def test_saved_adapter_is_that_of_the_stock_model_and_opens_in_plain_peft(
    build: Build, batch: Batch, tmp_path: Path
) -> None:
    model: Any = build()
    base: Any = copy.deepcopy(model).unload()
    with quiet_transformers():
        model.save_pretrained(str(tmp_path / "stock"), save_embedding_layers=False)
        assert fuse_encoder(model) is None
        logits = predict(model, batch)
        model.save_pretrained(str(tmp_path / "fused"), save_embedding_layers=False)
    stock = {path.name: path.read_bytes() for path in (tmp_path / "stock").iterdir()}
    assert stock.keys() >= {"adapter_model.safetensors", "adapter_config.json"}
    assert {path.name: path.read_bytes() for path in (tmp_path / "fused").iterdir()} == stock
    with quiet_transformers():
        opened = PeftModel.from_pretrained(base, str(tmp_path / "fused"))
    assert not any(isinstance(module, FusedBlock) for module in opened.modules())
    assert difference(predict(opened, batch), logits) <= 1e-5


def test_fused_model_learns_as_the_stock_model_does(build: Build, batch: Batch) -> None:
    model: Any = build()
    fused: Any = fuse(model)
    losses = []
    for each in (model, fused):
        optimizer = torch.optim.AdamW([p for p in each.parameters() if p.requires_grad], lr=1e-3, fused=True)
        losses.append([])
        torch.manual_seed(0)
        for _ in range(4):
            loss = each(**batch).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses[-1].append(loss.item())
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert abs(losses[0][-1] - losses[0][0]) > 0.01


def test_disabled_adapter_gives_the_base(build: Build, batch: Batch) -> None:
    model: Any = build()
    fused: Any = fuse(model)
    with model.disable_adapter(), fused.disable_adapter():
        without = predict(fused, batch)
        assert difference(without, predict(model, batch)) <= 1e-5
    assert difference(predict(fused, batch), without) > 1e-3


def test_precision_ends_with_the_context_even_by_an_error(build: Build, batch: Batch) -> None:
    fused = fuse(build())
    exact = predict(fused, batch)
    assert not torch.equal(predict(fused, batch, BF16), exact)
    assert torch.equal(predict(fused, batch), exact)
    with at_precision(fused, BF16):
        with pytest.raises(KeyError), at_precision(fused, FP32):
            raise KeyError
        inside: Any = fused
        with torch.inference_mode():
            rounded = inside(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    assert torch.equal(rounded, predict(fused, batch, BF16))
    with pytest.raises(KeyError), at_precision(fused, BF16):
        raise KeyError
    assert torch.equal(predict(fused, batch), exact)


def test_head_stays_in_fp32(build: Build, batch: Batch) -> None:
    fused: Any = fuse(build())
    seen: list[torch.dtype] = []
    fused.get_base_model().classifier.register_forward_hook(
        lambda _, inputs, output: seen.extend([inputs[0].dtype, output.dtype])
    )
    with torch.inference_mode(), at_precision(fused, BF16):
        assert fused(**batch).logits.dtype == torch.float32
        assert not torch.is_autocast_enabled("cpu")
    assert seen == [torch.float32] * 2


def test_encoder_without_an_adapter_is_fused_once_it_is_frozen(build: Build, batch: Batch) -> None:
    bare: Any = build(None)
    exact = predict(bare, batch)
    trained: Any = copy.deepcopy(bare)
    trained.get_submodule(linears_of(bare)[-1]).weight.requires_grad_()
    assert check_refused(trained, batch) == _OWN_BLOCKS
    assert fuse_encoder(bare) is None
    assert sum(isinstance(module, FusedBlock) for module in bare.modules()) == 2
    assert difference(predict(bare, batch), exact) <= 1e-5


def check_refused(model: Any, batch: Batch) -> str | None:  # noqa: ANN401 - PEFT's or transformers' model
    """Return the reason, and see that the model computes what it did."""
    exact, references = compute(model.eval(), batch)
    reason = fuse_encoder(model)
    assert not any(isinstance(module, FusedBlock) and module.height >= 0 for module in model.modules())
    logits, gradients = compute(model, batch)
    assert difference(logits, exact) <= 1e-5
    assert gradients.keys() == references.keys()
    assert all(difference(gradients[name], reference) <= 1e-5 for name, reference in references.items())
    return reason


@pytest.mark.parametrize("architecture", ["mpnet"], indirect=True)
def test_unknown_encoder_is_left_as_it_is(build: Build, batch: Batch) -> None:
    assert check_refused(build(), batch) == "there are none for this mpnet model"


@pytest.mark.parametrize("architecture", ["bert"], indirect=True)
def test_decoder_is_left_as_it_is(build: Build) -> None:
    model: Any = build()
    model.get_base_model().config.is_decoder = True
    assert fuse_encoder(model) == "there are none for this bert model"


def test_encoder_with_dropout_of_its_own_is_left_as_it_is(build: Build, batch: Batch) -> None:
    assert check_refused(build(dropout=True), batch) == "the encoder's own dropout is on"


@pytest.mark.parametrize("settings", [{"use_dora": True, "lora_dropout": 0.1}, {"lora_bias": True}], ids=str)
def test_encoder_with_a_variant_of_lora_is_left_as_it_is(build: Build, batch: Batch, settings: dict[str, Any]) -> None:
    bare: Any = build(None)
    config = LoraConfig(task_type="SEQ_CLS", r=4, target_modules=linears_of(bare)[-1:], **settings)
    with quiet_transformers():
        model: Any = get_peft_model(bare, config)
    fill_adapter(model)
    assert check_refused(model, batch) == _OWN_BLOCKS


def test_frozen_blocks_below_a_variant_of_lora_are_fused(build: Build) -> None:
    bare: Any = build(None)
    config = LoraConfig(task_type="SEQ_CLS", r=4, target_modules=linears_of(bare)[-1:], lora_bias=True)
    with quiet_transformers():
        model: Any = get_peft_model(bare, config)
    fuse_encoder(model)
    assert [module.height for module in model.modules() if isinstance(module, FusedBlock)] == [-1]
    assert frozen_depth(model) == 1


def test_merged_model_goes_on_from_the_states_that_were_kept_for_the_trained_one(build: Build, batch: Batch) -> None:
    bare: Any = build(None)
    config = LoraConfig(task_type="SEQ_CLS", r=4, target_modules=linears_of(bare)[-1:], lora_bias=True)
    with quiet_transformers():
        model: Any = get_peft_model(bare, config)
    fill_adapter(model)
    fuse_encoder(model.eval())
    fast: Any = make_fast(model)
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        kept = compute_prefix(model, **inputs)
        expected = model(**inputs).logits
        assert (frozen_depth(model), frozen_depth(fast)) == (1, 1)
        assert torch.allclose(fast(**inputs, prefix_hidden_states=kept).logits, expected, atol=1e-5)
        assert torch.allclose(fast(**inputs).logits, expected, atol=1e-5)
    assert make_fast(fast) is fast


def test_model_trained_with_the_encoders_dropout_is_fused_to_predict(build: Build, batch: Batch) -> None:
    model = build(dropout=True).eval()
    expected = predict(model, batch)
    assert fuse_encoder(model) == "the encoder's own dropout is on"
    fast = make_fast(model)
    assert is_fused(fast)
    assert difference(predict(fast, batch), expected) < 1e-4


def test_adapter_that_peft_cannot_merge_is_used_as_it_is(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    model: Any = build(lora_dropout=0.1)

    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("Impossible to merge")

    monkeypatch.setattr(PeftModel, "merge_and_unload", refuse, raising=False)
    monkeypatch.setattr(type(model.base_model), "merge_and_unload", refuse)
    assert make_fast(model) is model


def test_one_block_that_cannot_be_fused_leaves_all_as_they_are(build: Build, batch: Batch) -> None:
    model: Any = build()
    last = model.get_base_model().get_submodule(linears_of(model.get_base_model())[-1])
    nn.init.ones_(last.get_base_layer().bias.requires_grad_())
    assert check_refused(model, batch) == _OWN_BLOCKS
