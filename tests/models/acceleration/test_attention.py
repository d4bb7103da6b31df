import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from lorafit.models.acceleration import attention
from lorafit.models.acceleration.attention import ATTENTION, attend, attention_for_training, use_attention
from lorafit.models.acceleration.precision import PrecisionChoice

ROWS, HEADS, LENGTH, WIDTH = 5, 3, 7, 4
MASK = torch.arange(LENGTH) < torch.tensor([[7], [7], [4], [1], [6]])

BOUNDS = [(torch.float32, 1e-6), (torch.bfloat16, 1e-2)]
"""Relative difference from the slow twin in fp32. bfloat16 rounds by up to 2^-9 = 2e-3; a few such roundings follow one
another, of scores, probabilities and products."""


def attend_slowly(
    mask: torch.Tensor | None, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
) -> torch.Tensor:
    scores = torch.einsum("rqhd,rkhd->rhqk", query, key) / math.sqrt(query.shape[-1])
    if mask is not None:
        scores = scores.masked_fill(~mask[:, None, None, :], -math.inf)
    return torch.einsum("rhqk,rkhd->rqhd", torch.softmax(scores, dim=-1), value)


def draw_parts(dtype: torch.dtype, *, queries: int = LENGTH) -> list[torch.Tensor]:
    """Query, key and value, spread so widely that some probabilities are near one."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(ROWS, length, HEADS, WIDTH) for length in (queries, LENGTH, LENGTH)]
    return [(2 * torch.randn(shape, generator=generator)).to(dtype).requires_grad_() for shape in shapes]


def pack(parts: list[torch.Tensor], sizes: tuple[int, ...]) -> list[torch.Tensor]:
    rest = iter(parts)
    return [torch.stack([next(rest) for _ in range(size)], dim=2) for size in sizes]


def differentiate(output: torch.Tensor, parts: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(1)).to(output.dtype)
    return torch.autograd.grad(output, parts, weights)


def difference(tensor: torch.Tensor, reference: torch.Tensor) -> float:
    return float((tensor.float() - reference).detach().norm() / reference.detach().norm())


def load(folder: Path) -> Any:  # noqa: ANN401 - a class of transformers, by architecture
    """A tiny classifier with weights so large that attention matters to its logits."""
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(10)
    return model


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    mask = torch.arange(9) < torch.tensor([[9], [4], [6]])
    ids = torch.randint(5, 60, (3, 9), generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids * mask, "attention_mask": mask.long()}


@pytest.fixture(params=[None, 1, 2 * HEADS * LENGTH * LENGTH], ids=["at once", "row by row", "two rows a time"])
def parts_of_rows(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """How many rows are worked on at a time."""
    if request.param is not None:
        monkeypatch.setattr(attention, "_SCORES", request.param)


@pytest.mark.parametrize(("dtype", "bound"), BOUNDS)
@pytest.mark.parametrize("mask", [None, torch.ones_like(MASK), MASK], ids=["no mask", "no padding", "padding"])
@pytest.mark.parametrize("sizes", [(3,), (1, 2), (2, 1), (1, 1, 1)])
def test_output_and_gradients_are_those_of_the_formula(
    parts_of_rows: None, dtype: torch.dtype, bound: float, mask: torch.Tensor | None, sizes: tuple[int, ...]
) -> None:
    parts = draw_parts(dtype)
    output = attend(mask, *pack(parts, sizes))
    exact_parts = [part.detach().float().requires_grad_() for part in parts]
    exact = attend_slowly(mask, *exact_parts)
    assert output.dtype == dtype
    assert difference(output, exact) < bound
    found = differentiate(output, parts)
    for gradient, reference in zip(found, differentiate(exact, exact_parts), strict=True):
        assert gradient.dtype == dtype
        assert difference(gradient, reference) < bound


@pytest.mark.parametrize(("dtype", "bound"), BOUNDS)
@pytest.mark.parametrize("sizes", [(1, 2), (1, 1, 1)])
def test_one_query_may_look_at_many_keys(
    parts_of_rows: None, dtype: torch.dtype, bound: float, sizes: tuple[int, ...]
) -> None:
    parts = draw_parts(dtype, queries=1)
    output = attend(MASK, *pack(parts, sizes))
    exact_parts = [part.detach().float().requires_grad_() for part in parts]
    exact = attend_slowly(MASK, *exact_parts)
    assert output.shape == (ROWS, 1, HEADS, WIDTH)
    assert difference(output, exact) < bound
    found = differentiate(output, parts)
    for gradient, reference in zip(found, differentiate(exact, exact_parts), strict=True):
        assert difference(gradient, reference) < bound


def test_rows_are_split_without_losing_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "_SCORES", 2 * HEADS * LENGTH * LENGTH)
    rows = list(range(ROWS))
    assert [rows[part] for part in attention._parts(ROWS, HEADS * LENGTH * LENGTH)] == [[0, 1], [2, 3], [4]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_hidden_keys_have_no_part_in_the_output_and_no_gradient(parts_of_rows: None, dtype: torch.dtype) -> None:
    parts = draw_parts(dtype)
    output = attend(MASK, *pack(parts, (3,)))
    _, d_key, d_value = differentiate(output, parts)
    assert not d_key[~MASK].any()
    assert not d_value[~MASK].any()
    assert d_value[MASK].all()
    query, key, value = (part.detach().clone() for part in parts)
    key[~MASK], value[~MASK] = 50.0, 1e4
    assert torch.equal(attend(MASK, *pack([query, key, value], (3,))), output)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_output_without_gradients_is_the_same(dtype: torch.dtype) -> None:
    packed = pack(draw_parts(dtype), (3,))
    with torch.inference_mode():
        without = attend(MASK, *packed)
    assert torch.equal(without, attend(MASK, *packed))


@pytest.mark.parametrize("encoder", ["tiny_distilbert", "tiny_bert"])
@pytest.mark.parametrize(("bf16", "bound"), [(False, 1e-5), (True, 3e-2)])
def test_stock_model_gives_the_same_logits_with_padding(
    encoder: str, bf16: bool, bound: float, batch: dict[str, torch.Tensor], request: pytest.FixtureRequest
) -> None:
    model = load(request.getfixturevalue(encoder))
    model.set_attn_implementation("eager")
    with torch.no_grad():
        exact, without_mask = model(**batch).logits, model(input_ids=batch["input_ids"]).logits
    use_attention(model)
    assert model.config._attn_implementation == ATTENTION
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        found = model(**batch).logits
        found_without_mask = model(input_ids=batch["input_ids"]).logits
    assert difference(found, exact) < bound
    assert difference(found_without_mask, without_mask) < bound
    assert difference(exact, without_mask) > 5 * bound, "the mask must matter, or this shows nothing"


def test_what_stands_in_the_padding_does_not_matter(tiny_distilbert: Path, batch: dict[str, torch.Tensor]) -> None:
    model = load(tiny_distilbert)
    use_attention(model)
    other = batch | {"input_ids": torch.where(batch["attention_mask"] == 1, batch["input_ids"], 40)}
    with torch.no_grad():
        assert torch.equal(model(**batch).logits, model(**other).logits)


def test_torchs_flash_attention_is_left_for_training_alone(tiny_distilbert: Path) -> None:
    model = load(tiny_distilbert)
    with attention_for_training(model, PrecisionChoice("bf16", "")):
        assert model.config._attn_implementation == "eager"
    with pytest.raises(KeyError), attention_for_training(model, PrecisionChoice("bf16", "")):
        raise KeyError
    assert model.config._attn_implementation == "sdpa"
    with attention_for_training(model, PrecisionChoice("fp32", "")):
        assert model.config._attn_implementation == "sdpa"
    use_attention(model)
    with attention_for_training(model, PrecisionChoice("bf16", "")):
        assert model.config._attn_implementation == ATTENTION
    assert model.config._attn_implementation == ATTENTION
