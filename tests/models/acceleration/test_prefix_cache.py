import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lorafit.config import MethodConfig, ModelConfig
from lorafit.models.acceleration.encoder_block import at_precision, compute_prefix, frozen_depth, fuse_encoder
from lorafit.models.acceleration.precision import PrecisionChoice
from lorafit.models.acceleration.prefix_cache import PrefixCache, PrefixedTexts
from lorafit.models.adaptation import apply_method
from lorafit.models.batching import plan_batches
from lorafit.models.load import load_with_head, locate_encoder
from lorafit.models.tokenization import TokenizedTexts
from lorafit.tasks.registry import build_task

FP32, BF16 = PrecisionChoice("fp32", ""), PrecisionChoice("bf16", "")
TASK = build_task("single_label", ("bad", "good"))
PAD = 0
Open = Callable[..., PrefixedTexts]


def build_model(folder: Path, layers: str = "top1", method: str = "lora") -> Any:  # noqa: ANN401 - PEFT's model
    loaded = load_with_head(locate_encoder(ModelConfig(name=str(folder))), TASK)
    config = MethodConfig(name=method, layers=layers)
    adapted = apply_method(loaded.model, config, newly_initialised=loaded.newly_initialised)
    assert (fuse_encoder(adapted.model) is None) is (method == "lora")
    return adapted.model.eval()


def build_texts(count: int, seed: int = 0) -> TokenizedTexts:
    """Texts of 3 to 20 tokens."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(3, 21, size=count)
    ids = rng.integers(5, 75, size=lengths.sum()).astype(np.int32)
    return TokenizedTexts(ids=ids, offsets=np.cumsum([0, *lengths]), truncated=0)


@pytest.fixture(params=["distilbert", "bert", "distilbert with OFT", "bert with OFT"])
def every_model(request: pytest.FixtureRequest, tiny_distilbert: Path, tiny_bert: Path) -> Any:  # noqa: ANN401 - PEFT's
    """A model with LoRA in fused blocks, and one with stock blocks on frozen ones, of two architectures."""
    folder = tiny_bert if request.param.startswith("bert") else tiny_distilbert
    return build_model(folder, method="oft" if "OFT" in request.param else "lora")


@pytest.fixture
def model(tiny_distilbert: Path) -> Any:  # noqa: ANN401 - PEFT's model
    """A model, where any will do."""
    return build_model(tiny_distilbert)


@pytest.fixture
def texts() -> TokenizedTexts:
    return build_texts(40)


@pytest.fixture
def open_texts(tmp_path: Path, texts: TokenizedTexts) -> Open:
    """Opens texts in a cache below the test's folder."""

    def open_them(
        model: Any,  # noqa: ANN401 - PEFT's model
        *,
        precision: PrecisionChoice = FP32,
        digest: str = "base",
        tokens: TokenizedTexts = texts,
        on_progress: Callable[[int], None] = lambda _: None,
    ) -> PrefixedTexts:
        cache = PrefixCache(model, precision, base_digest=digest, folder=tmp_path / "cache")
        plan = plan_batches(tokens.lengths, max_rows=8, max_tokens=100)
        return cache.open(tokens, plan, PAD, on_progress=on_progress)

    return open_them


def fail(_: int) -> None:
    raise AssertionError("the hidden states were computed")


@pytest.mark.parametrize("precision", [FP32, BF16])
def test_kept_hidden_states_are_those_of_the_frozen_layers(
    every_model: Any,  # noqa: ANN401 - PEFT's model
    texts: TokenizedTexts,
    open_texts: Open,
    precision: PrecisionChoice,
) -> None:
    kept = open_texts(every_model, precision=precision)
    rows = [7, 3, 30]
    input_ids, mask, states = kept.pad(rows, PAD).values()
    np.testing.assert_array_equal(input_ids, texts.pad(rows, PAD)["input_ids"])
    np.testing.assert_array_equal(mask, texts.pad(rows, PAD)["attention_mask"])
    with torch.no_grad(), at_precision(every_model, precision):
        expected = compute_prefix(
            every_model, input_ids=torch.from_numpy(input_ids), attention_mask=torch.from_numpy(mask)
        )
    assert states.dtype == expected.dtype == (torch.float32 if precision is FP32 else torch.bfloat16)
    tokens = torch.from_numpy(mask).bool()
    torch.testing.assert_close(states[tokens], expected[tokens], rtol=0, atol=1e-5 if precision is FP32 else 0.05)
    assert bool(states.isfinite().all())


@pytest.mark.parametrize("precision", [FP32, BF16])
def test_model_gives_the_same_with_kept_hidden_states_in_the_batches_they_were_computed_in(
    every_model: Any,  # noqa: ANN401 - PEFT's model
    texts: TokenizedTexts,
    open_texts: Open,
    precision: PrecisionChoice,
) -> None:
    kept = open_texts(every_model, precision=precision)
    plan = plan_batches(texts.lengths, max_rows=8, max_tokens=100)
    for batch in range(len(plan)):
        input_ids, mask, states = kept.pad(plan[batch], PAD).values()
        ids = {"input_ids": torch.from_numpy(input_ids), "attention_mask": torch.from_numpy(mask)}
        with torch.no_grad(), at_precision(every_model, precision):
            expected = every_model(**ids).logits
            assert torch.equal(every_model(**ids, prefix_hidden_states=states).logits, expected)
            assert not torch.equal(every_model(**ids, prefix_hidden_states=states + 1).logits, expected)


def test_hidden_states_are_computed_once(model: Any, open_texts: Open) -> None:  # noqa: ANN401 - PEFT's model
    first = open_texts(model)
    second = open_texts(model, on_progress=fail)
    np.testing.assert_array_equal(first.states, second.states)
    np.testing.assert_array_equal(first.starts, second.starts)


def test_progress_counts_the_texts(model: Any, texts: TokenizedTexts, open_texts: Open) -> None:  # noqa: ANN401 - PEFT's
    done: list[int] = []
    open_texts(model, on_progress=done.append)
    assert done == sorted(done)
    assert done[-1] == len(texts)


def test_other_texts_base_precision_or_depth_get_files_of_their_own(
    tiny_distilbert: Path, build_encoder: Callable[..., Path], open_texts: Open, tmp_path: Path
) -> None:
    three = build_encoder("distilbert", n_layers=3)
    for model, changes in (
        (build_model(tiny_distilbert), {}),
        (build_model(tiny_distilbert), {"digest": "another"}),
        (build_model(tiny_distilbert), {"precision": BF16}),
        (build_model(tiny_distilbert), {"tokens": build_texts(40, seed=1)}),
        (build_model(three), {}),
    ):
        done: list[int] = []
        open_texts(model, on_progress=done.append, **changes)
        assert done
    assert len(list((tmp_path / "cache").glob("*.bin"))) == 5


@pytest.mark.parametrize("damage", ["flip", "cut", "remove the note", "spoil the note", "swap"])
def test_damaged_or_swapped_file_is_computed_again(
    model: Any,  # noqa: ANN401 - PEFT's model
    open_texts: Open,
    tmp_path: Path,
    damage: str,
) -> None:
    expected = np.array(open_texts(model).states)
    (path,) = (tmp_path / "cache").glob("*.bin")
    note = path.with_suffix(".json")
    if damage == "flip":
        data = bytearray(path.read_bytes())
        data[100] ^= 1
        path.write_bytes(data)
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-4])
    elif damage == "remove the note":
        note.unlink()
    elif damage == "spoil the note":
        note.write_text("{")
    else:
        shutil.copy(note, tmp_path / "note.json")
        open_texts(model, digest="another")
        other = next(other for other in (tmp_path / "cache").glob("*.bin") if other != path)
        shutil.copy(other.with_suffix(".json"), note)
    done: list[int] = []
    np.testing.assert_array_equal(open_texts(model, on_progress=done.append).states, expected)
    assert done
    open_texts(model, on_progress=fail)


def test_interrupted_computation_leaves_nothing(
    model: Any,  # noqa: ANN401 - PEFT's model
    open_texts: Open,
    tmp_path: Path,
) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_texts(model, on_progress=interrupt)
    assert list((tmp_path / "cache").iterdir()) == []


def test_note_says_what_the_file_holds(model: Any, open_texts: Open, tmp_path: Path) -> None:  # noqa: ANN401 - PEFT's
    open_texts(model, digest="0123")
    (note,) = (tmp_path / "cache").glob("*.json")
    content = json.loads(note.read_text())
    assert content["base_digest"] == "0123"
    assert (content["layers"], content["width"], content["precision"]) == (1, 32, "fp32")


def test_size_is_told_beforehand(model: Any, texts: TokenizedTexts, open_texts: Open, tmp_path: Path) -> None:  # noqa: ANN401
    cache = PrefixCache(model, BF16, base_digest="base", folder=tmp_path / "cache")
    open_texts(model, precision=BF16)
    (path,) = (tmp_path / "cache").glob("*.bin")
    assert cache.size([texts]) == path.stat().st_size == len(texts.ids) * 32 * 2


def test_obstacles_are_named(
    tiny_distilbert: Path, texts: TokenizedTexts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find_obstacle(layers: str, limit: int) -> str | None:
        cache = PrefixCache(build_model(tiny_distilbert, layers), FP32, base_digest="base", folder=tmp_path / "cache")
        plan = plan_batches(texts.lengths, max_rows=8, max_tokens=100)
        return cache.find_obstacle([(texts, plan)], limit_bytes=limit)

    assert find_obstacle("top1", 10**9) is None
    assert find_obstacle("all", 10**9) == "every layer is trained, or the encoder has no fused blocks"
    assert "more than training.prefix_cache_gb" in (find_obstacle("top1", 100) or "")
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    assert "0.0 GB are free in" in (find_obstacle("top1", 10**9) or "")


@pytest.mark.parametrize(("layers", "depth"), [("all", 0), ("top2", 0), ("top1", 1)])
def test_depth_is_the_number_of_layers_below_the_lowest_adapter(tiny_distilbert: Path, layers: str, depth: int) -> None:
    assert frozen_depth(build_model(tiny_distilbert, layers)) == depth


def test_file_that_is_there_needs_no_room(
    model: Any,  # noqa: ANN401 - PEFT's model
    texts: TokenizedTexts,
    open_texts: Open,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    open_texts(model)
    usage = shutil.disk_usage(tmp_path)._replace(free=0)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    cache = PrefixCache(model, FP32, base_digest="base", folder=tmp_path / "cache")
    plan = plan_batches(texts.lengths, max_rows=8, max_tokens=100)
    assert cache.find_obstacle([(texts, plan)], limit_bytes=10**9) is None


def test_files_that_were_not_used_for_longest_make_room(
    model: Any,  # noqa: ANN401 - PEFT's model
    texts: TokenizedTexts,
    open_texts: Open,
    tmp_path: Path,
) -> None:
    def files() -> set[Path]:
        return set((tmp_path / "cache").glob("*.bin"))

    open_texts(model, digest="oldest")
    (oldest,) = files()
    open_texts(model, digest="older")
    (older,) = files() - {oldest}
    open_texts(model, digest="mine")
    (mine,) = files() - {oldest, older}
    for age, path in enumerate((mine, oldest, older)):
        os.utime(path, (age, age))
    cache = PrefixCache(model, FP32, base_digest="mine", folder=tmp_path / "cache")
    plan = plan_batches(texts.lengths, max_rows=8, max_tokens=100)
    assert cache.find_obstacle([(texts, plan)], limit_bytes=2 * cache.size([texts])) is None
    assert files() == {mine, older}
    assert not oldest.with_suffix(".json").exists()


def test_trained_embeddings_leave_no_frozen_prefix(tiny_distilbert: Path) -> None:
    loaded = load_with_head(locate_encoder(ModelConfig(name=str(tiny_distilbert))), TASK)
    missing = ["distilbert.embeddings.LayerNorm.weight"]
    adapted = apply_method(loaded.model, MethodConfig(layers="top1"), newly_initialised=missing)
    assert fuse_encoder(adapted.model) is None
    assert frozen_depth(adapted.model) == 0
