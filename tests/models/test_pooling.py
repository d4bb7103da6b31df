"""A head on the mean of the tokens: the same in torch, fused, as a graph, in int8, and in other libraries."""

import json
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

from lorafit.config import MethodConfig, ModelConfig
from lorafit.errors import ConfigError
from lorafit.inference.export.graph import build_graph
from lorafit.inference.export.int8 import list_largest, quantize_graph
from lorafit.inference.export.tracing import trace_graph
from lorafit.models.acceleration.encoder_block import is_fused
from lorafit.models.acceleration.inference import make_fast
from lorafit.models.adaptation import AdaptedModel, apply_method
from lorafit.models.load import LoadedModel, load_with_head, locate_encoder
from lorafit.models.pooling import MeanPooledForSequenceClassification
from lorafit.models.quiet import quiet_transformers
from lorafit.models.runtimes import plain
from lorafit.runs.saving import write_trained
from lorafit.tasks.base import Task
from lorafit.tasks.registry import build_task

TASK = build_task("single_label", ("bad", "fair", "good"))
TEXTS = ["a wonderful film", "dull and far too long, from the first minute to the last", "not bad"]
ALL = ["distilbert", "bert", "roberta", "electra", "albert", "deberta-v2", "mpnet", "modernbert"]
FUSED = {"distilbert", "bert", "roberta", "electra"}


def load(folder: Path, task: Task = TASK) -> LoadedModel:
    return load_with_head(locate_encoder(ModelConfig(name=str(folder))), task, pooling="mean")


@pytest.fixture(scope="module", params=ALL)
def saved(
    request: pytest.FixtureRequest, build_encoder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[AdaptedModel, Path]:
    """A classifier of an architecture, and the folder that it was written to."""
    base, folder = build_encoder(request.param, initializer_range=0.2), tmp_path_factory.mktemp("pooled")
    loaded = load(base)
    assert set(loaded.newly_initialised) == {"classifier.weight", "classifier.bias"}
    adapted = apply_method(loaded.model, MethodConfig(name="setfit"), newly_initialised=loaded.newly_initialised)
    assert adapted.head == ("classifier",)
    write_trained(adapted, locate_encoder(ModelConfig(name=str(base))), folder, max_length=64)
    return adapted, folder


def tokenize(folder: Path) -> dict[str, torch.Tensor]:
    return dict(AutoTokenizer.from_pretrained(folder)(TEXTS, padding=True, return_tensors="pt"))


def compute_logits(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> np.ndarray:
    with torch.no_grad():
        return model.eval()(**batch).logits.numpy()


def test_all_but_the_embeddings_are_trained(saved: tuple[AdaptedModel, Path]) -> None:
    trained = {name: parameter.requires_grad for name, parameter in saved[0].model.named_parameters()}
    assert any("word_embeddings" in name or "tok_embeddings" in name for name in trained)
    assert trained == {name: ".embeddings." not in name for name in trained}


def test_logits_are_the_heads_of_the_mean_of_each_texts_tokens(saved: tuple[AdaptedModel, Path]) -> None:
    adapted, folder = saved
    model: Any = adapted.model
    logits = compute_logits(model, tokenize(folder))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for text, found in zip(TEXTS, logits, strict=True):
        alone = dict(tokenizer(text, return_tensors="pt"))
        with torch.no_grad():
            states = model.base_model(**alone).last_hidden_state[0]
            expected = model.classifier(states.mean(dim=0))
            assert torch.allclose(model.embed(alone["input_ids"])[0], states.mean(dim=0), atol=1e-5)
        assert np.abs(expected.numpy() - found).max() < 1e-4


def test_plain_libraries_find_classifier_and_encoder(saved: tuple[AdaptedModel, Path]) -> None:
    adapted, folder = saved
    logits = compute_logits(adapted.model, tokenize(folder))
    with quiet_transformers():
        assert np.abs(np.array(plain.compute_plain_logits(folder, TEXTS)) - logits).max() < 1e-4
        encoder = AutoModel.from_pretrained(folder)
        other = AutoModelForSequenceClassification.from_pretrained(folder)
    states = encoder.eval()(**tokenize(folder)).last_hidden_state
    assert torch.allclose(states, adapted.model.base_model(**tokenize(folder))[0], atol=1e-5)
    assert other.config.id2label == {0: "LABEL_0", 1: "LABEL_1"}, "names of labels would make it look like a classifier"


def test_it_is_loaded_with_its_head(saved: tuple[AdaptedModel, Path]) -> None:
    adapted, folder = saved
    again = load(folder)
    assert (again.newly_initialised, again.notes) == ((), ())
    batch = tokenize(folder)
    assert np.abs(compute_logits(again.model, batch) - compute_logits(adapted.model, batch)).max() < 1e-5
    for task in (build_task("single_label", ("no", "yes")), build_task("single_label", ("x", "y", "z"))):
        assert set(load(folder, task).newly_initialised) == {"classifier.weight", "classifier.bias"}


def test_graphs_and_fused_blocks_give_its_logits(saved: tuple[AdaptedModel, Path]) -> None:
    adapted, folder = saved
    batch = tokenize(folder)
    logits = compute_logits(adapted.model, batch)
    fast: Any = make_fast(adapted.model)
    kind = adapted.model.config.model_type
    assert is_fused(fast) is (kind in FUSED)
    assert np.abs(compute_logits(fast, batch) - logits).max() < 1e-4
    if kind not in FUSED:
        return
    inputs = {name: batch[name].numpy() for name in ("input_ids", "attention_mask")}
    graph = build_graph(adapted.model)
    for one, tolerance in ((graph, 1e-4), (quantize_graph(graph, most=list_largest()[-1]), 0.3)):
        session = onnxruntime.InferenceSession(one.SerializeToString())
        assert np.abs(session.run(["logits"], inputs)[0] - logits).max() < tolerance * np.abs(logits).max()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["distilbert", "modernbert"])
def test_traced_graph_gives_its_logits(build_encoder: Callable[..., Path], kind: str) -> None:
    folder = build_encoder(kind, initializer_range=0.2)
    model: Any = load(folder).model
    batch = tokenize(folder)
    logits = compute_logits(model, batch)
    session = onnxruntime.InferenceSession(trace_graph(model).SerializeToString())
    inputs = {name: batch[name].numpy() for name in ("input_ids", "attention_mask")}
    assert np.abs(session.run(["logits"], inputs)[0] - logits).max() < 1e-4


def test_head_is_drawn_by_the_seed(tiny_distilbert: Path) -> None:
    encoder = locate_encoder(ModelConfig(name=str(tiny_distilbert)))
    heads = [load_with_head(encoder, TASK, seed=seed, pooling="mean").model.classifier.weight for seed in (1, 1, 2)]
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_pairs_are_told_apart_by_types(tiny_bert: Path) -> None:
    model: Any = load(tiny_bert).model
    assert isinstance(model, MeanPooledForSequenceClassification)
    ids = torch.arange(5, 13)[None]
    types = (torch.arange(8) > 3).long()[None]
    with torch.no_grad():
        assert not torch.allclose(model(ids).logits, model(ids, token_type_ids=types).logits)


def test_decoder_is_refused(build_encoder: Callable[..., Path]) -> None:
    loaded = load(build_encoder("llama"))
    with pytest.raises(ConfigError, match="SetFit cannot adapt a decoder"):
        apply_method(loaded.model, MethodConfig(name="setfit"))


@pytest.mark.slow
@pytest.mark.parametrize("saved", ["distilbert", "roberta"], indirect=True)
def test_sentence_transformers_gives_its_logits(
    saved: tuple[AdaptedModel, Path], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The real library, in an environment of its own that sees this one's packages."""
    adapted, folder = saved
    place = tmp_path_factory.getbasetemp() / "sentence-transformers"
    python = place / "bin" / "python"
    if not python.exists():
        venv.create(place, with_pip=True)
        (site,) = place.glob("lib/python*/site-packages")
        (site / "outer.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", "sentence-transformers>=5"], check=True)
    answer = subprocess.run(
        [python, "-P", str(Path(plain.__file__)), str(folder)],
        input=json.dumps(TEXTS),
        capture_output=True,
        text=True,
        check=True,
    )
    logits = compute_logits(adapted.model, tokenize(folder))
    assert np.abs(np.array(json.loads(answer.stdout)) - logits).max() < 1e-4
    code = "from importlib.util import find_spec; assert find_spec('sentence_transformers')"
    subprocess.run([python, "-c", code], check=True)
