"""Pairs of texts, and windows of long texts, through the model: what plain transformers gives is the measure."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import AutoTokenizer, PreTrainedModel

from lorafit.config import MethodConfig, ModelConfig
from lorafit.errors import UserInputError
from lorafit.inference.explanation import explain
from lorafit.inference.predictor import Predictor
from lorafit.models.acceleration.encoder_block import frozen_depth, fuse_encoder, is_fused
from lorafit.models.acceleration.precision import PrecisionChoice
from lorafit.models.acceleration.prefix_cache import PrefixCache
from lorafit.models.adaptation import apply_method, reads_token_types
from lorafit.models.batching import plan_batches
from lorafit.models.load import load_tokenizer, load_with_head, locate_encoder
from lorafit.models.runtimes.pytorch import TorchRuntime
from lorafit.models.tokenization import Truncation, tokenize
from lorafit.system.text import Text
from lorafit.tasks.registry import build_task

TASK = build_task("single_label", ("no", "yes"))
FP32 = PrecisionChoice("fp32", "for the test")
LENGTH = 32
PAIRS = [("a superb film", "the film was superb"), ("dull", "my life was a wonderful story"), ("x", "y " * 40)]
TYPED = {"albert", "bert", "electra", "roberta"}
FAMILIES = sorted(TYPED | {"deberta-v2", "distilbert", "modernbert", "mpnet"})
"""Those with types of tokens, and some without. All have BERT's template here; `test_tokenization.py` has others."""


def adapt(folder: Path, **method: object) -> PreTrainedModel:
    """Load an encoder with a random adapter, the same each time."""
    loaded = load_with_head(locate_encoder(ModelConfig(name=str(folder))), TASK)
    adapted = apply_method(loaded.model, MethodConfig(**method), newly_initialised=loaded.newly_initialised)
    with torch.no_grad():
        for name, parameter in adapted.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3, generator=torch.Generator().manual_seed(0))
    return adapted.model.eval()


def build(model: PreTrainedModel, folder: Path, truncation: Truncation, *, pair: bool) -> Predictor:
    return Predictor(TorchRuntime(model, FP32), load_tokenizer(folder), task=TASK, truncation=truncation, pair=pair)


def ask_plain(model: PreTrainedModel, folder: Path, texts: Sequence[Text], **options: object) -> NDArray[np.float32]:
    """Ask a model as plain transformers does."""
    sides = [list(texts)] if isinstance(texts[0], str) else [list(side) for side in zip(*texts, strict=True)]
    tokenizer = AutoTokenizer.from_pretrained(folder, model_max_length=LENGTH)
    options = {"truncation": True, "return_token_type_ids": reads_token_types(model), **options}
    batch = tokenizer(*sides, padding=True, return_tensors="pt", **options)
    batch.pop("overflow_to_sample_mapping", None)
    with torch.no_grad():
        return model(**batch).logits.numpy()


@pytest.mark.parametrize("family", FAMILIES)
def test_pairs_get_the_logits_of_plain_transformers(build_encoder: Callable[..., Path], family: str) -> None:
    folder = build_encoder(family, initializer_range=0.3)
    fast, plain = adapt(folder), adapt(folder)
    assert (fuse_encoder(fast) is None) == is_fused(fast) == (family in {"bert", "distilbert", "electra", "roberta"})
    logits = build(fast, folder, Truncation(LENGTH), pair=True).compute_logits(PAIRS)
    np.testing.assert_allclose(logits, ask_plain(plain, folder, PAIRS), atol=2e-5)
    assert reads_token_types(plain) == (family in TYPED)
    if family in TYPED:
        untyped = ask_plain(plain, folder, PAIRS, return_token_type_ids=False)
        assert np.abs(logits - untyped).max() > 1e-3, "the types must matter for the test to show"


def test_kept_hidden_states_of_pairs_are_those_that_the_types_give(tiny_bert: Path, tmp_path: Path) -> None:
    model = adapt(tiny_bert, layers="top1")
    assert fuse_encoder(model) is None
    assert frozen_depth(model) == 1
    tokenizer, pad_id = load_tokenizer(tiny_bert)
    cache = PrefixCache(model, FP32, base_digest="d", folder=tmp_path)
    tokens = tokenize(tokenizer, PAIRS, Truncation(LENGTH))
    plan = plan_batches(tokens.lengths, max_rows=8, max_tokens=256)
    kept = cache.open(tokens, plan, pad_id, on_progress=lambda _: None)
    runtime, rows = TorchRuntime(model, FP32), np.arange(len(PAIRS))
    expected = runtime.logits(**tokens.pad(rows, pad_id))
    np.testing.assert_allclose(runtime.logits(**kept.pad(rows, pad_id)), expected, atol=1e-6)
    selected = runtime.logits(**kept.select(rows[::-1]).pad(rows, pad_id))
    np.testing.assert_allclose(selected[::-1], expected, atol=1e-6)


def test_hidden_states_of_the_same_tokens_with_other_types_are_others(tiny_bert: Path, tmp_path: Path) -> None:
    model = adapt(tiny_bert, layers="top1")
    assert fuse_encoder(model) is None
    tokenizer, pad_id = load_tokenizer(tiny_bert)
    cache = PrefixCache(model, FP32, base_digest="d", folder=tmp_path)
    states = []
    for pair in [("good [SEP] film", "boring"), ("good", "film [SEP] boring")]:  # typed by a user
        tokens = tokenize(tokenizer, [pair], Truncation(LENGTH))
        plan = plan_batches(tokens.lengths, max_rows=8, max_tokens=256)
        kept = cache.open(tokens, plan, pad_id, on_progress=lambda _: None)
        states.append((tokens.ids.tolist(), np.array(kept.states)))
    assert states[0][0] == states[1][0]
    assert np.abs(states[0][1] - states[1][1]).max() > 1e-3


@pytest.mark.parametrize("method", ["p_tuning", "prompt_tuning"])
def test_methods_that_learn_tokens_pass_over_types(tiny_bert: Path, method: str) -> None:
    model = adapt(tiny_bert, name=method, virtual_tokens=4)
    assert not reads_token_types(model)
    assert build(model, tiny_bert, Truncation(LENGTH), pair=True).compute_logits(PAIRS).shape == (3, 2)


def test_logits_of_a_long_text_are_the_mean_of_its_windows(tiny_distilbert: Path) -> None:
    model = adapt(tiny_distilbert)
    predictor = build(model, tiny_distilbert, Truncation(LENGTH, "windows", 10), pair=False)
    texts = ["a superb film", "dull story " * 60, "poor", "my life " * 30]
    logits = predictor.compute_logits(texts)
    for text, found in zip(texts, logits, strict=True):
        windows = ask_plain(model, tiny_distilbert, [text], stride=20, return_overflowing_tokens=True)
        assert (len(windows) > 1) == (len(text) > 20)
        np.testing.assert_allclose(found, windows.mean(axis=0), atol=2e-5)


def test_progress_over_windows_counts_texts(tiny_distilbert: Path) -> None:
    predictor = build(adapt(tiny_distilbert), tiny_distilbert, Truncation(LENGTH, "windows"), pair=False)
    done: list[int] = []
    predictor.compute_logits(["dull story " * 60] * 20, on_progress=done.append)
    assert len(done) > 1
    assert done == sorted(done)
    assert done[-1] == 20


@pytest.fixture(scope="module")
def predictors(tiny_distilbert: Path) -> dict[bool, Predictor]:
    """One for pairs, and one for single texts."""
    model = adapt(tiny_distilbert)
    return {pair: build(model, tiny_distilbert, Truncation(LENGTH), pair=pair) for pair in (True, False)}


def test_dictionaries_are_read_as_pipelines_read_them(predictors: dict[bool, Predictor]) -> None:
    fields = [{"text": first, "text_pair": second} for first, second in PAIRS]
    np.testing.assert_array_equal(predictors[True].compute_logits(fields), predictors[True].compute_logits(PAIRS))
    single = [text for text, _ in PAIRS]
    np.testing.assert_array_equal(
        predictors[False].compute_logits([{"text": text} for text in single]), predictors[False].compute_logits(single)
    )


@pytest.mark.parametrize(
    ("pair", "texts", "fault"),
    [
        (
            True,
            [("a", "b"), "c"],
            "1 of 2 texts cannot be predicted: a single text for a model that takes pairs (row 2)",
        ),
        (True, [{"text": "a"}], "a single text for a model that takes pairs"),
        (True, [("a", "b", "c")], "a tuple of 3 texts"),
        (True, [("a", " ")], "an empty text"),
        (True, ["a"], "Write predict([(text, text_pair), …])"),
        (
            False,
            ["a", ("b", "c")],
            "1 of 2 texts cannot be predicted: a pair for a model that takes single texts (row 2)",
        ),
        (False, [{"text": "a", "text_pair": "b"}], "a pair for a model that takes single texts"),
        (False, [{"txt": "a"}], "a text of type dict"),
    ],
)
def test_texts_of_the_other_kind_are_refused(
    predictors: dict[bool, Predictor], pair: bool, texts: list[Text], fault: str
) -> None:
    with pytest.raises(UserInputError) as caught:
        predictors[pair].predict(texts)
    assert fault in str(caught.value)


def test_prediction_of_a_pair_is_explained_by_the_words_of_both_texts(predictors: dict[bool, Predictor]) -> None:
    predictor, pair = predictors[True], ("a superb film", "my life was dull")
    explanation = explain(predictor, pair)
    assert explanation.text == "a superb film\nmy life was dull"
    assert [word.text for word in explanation.words] == [*pair[0].split(), *pair[1].split()]
    assert all(explanation.text[word.start : word.end] == word.text for word in explanation.words)
    output = TASK.label_names.index(explanation.label)
    left = predictor.compute_values([pair, ("a film", pair[1]), (pair[0], "my life was")])
    added = TASK.contribution(left, output)
    found = [explanation.words[place].contribution for place in (1, 6)]
    assert found == pytest.approx((added[0] - added[1:]).tolist(), abs=1e-4)
