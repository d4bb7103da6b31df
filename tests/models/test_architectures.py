import copy
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    NystromformerConfig,
    NystromformerForSequenceClassification,
    PreTrainedModel,
)

from lorafit.config import TargetGroup
from lorafit.errors import ConfigError
from lorafit.models.architectures import disable_base_dropout, find_head, find_targets

SMALL = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


@pytest.fixture(scope="module")
def distilbert() -> PreTrainedModel:
    return DistilBertForSequenceClassification(
        DistilBertConfig(vocab_size=50, dim=16, hidden_dim=32, n_layers=2, n_heads=2)
    )


@pytest.fixture(scope="module")
def bert() -> PreTrainedModel:
    return BertForSequenceClassification(BertConfig(**SMALL))


@pytest.fixture(scope="module")
def nystromformer() -> PreTrainedModel:
    return NystromformerForSequenceClassification(NystromformerConfig(**SMALL))


def in_each_layer(layers: str, *parts: str) -> list[str]:
    return [f"{layers}.{layer}.{part}" for layer in range(2) for part in parts]


@pytest.mark.parametrize(
    ("group", "parts"),
    [
        ("query-value", ["attention.q_lin", "attention.v_lin"]),
        ("attention", ["attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin"]),
        ("feed-forward", ["ffn.lin1", "ffn.lin2"]),
        (
            "all-linear",
            ["attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin", "ffn.lin1", "ffn.lin2"],
        ),
    ],
)
def test_groups_of_distilbert(distilbert: PreTrainedModel, group: TargetGroup, parts: list[str]) -> None:
    assert find_targets(distilbert, group) == in_each_layer("distilbert.transformer.layer", *parts)


@pytest.mark.parametrize(
    ("group", "parts"),
    [
        ("query-value", ["attention.self.query", "attention.self.value"]),
        (
            "attention",
            ["attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"],
        ),
        ("feed-forward", ["intermediate.dense", "output.dense"]),
    ],
)
def test_groups_of_bert_do_not_confuse_the_two_output_layers(
    bert: PreTrainedModel, group: TargetGroup, parts: list[str]
) -> None:
    assert find_targets(bert, group) == in_each_layer("bert.encoder.layer", *parts)


def test_all_linear_is_every_linear_layer_of_the_encoder_layers(bert: PreTrainedModel) -> None:
    linears = [name for name, module in bert.named_modules() if isinstance(module, torch.nn.Linear)]
    assert find_targets(bert, "all-linear") == [name for name in linears if ".layer." in name]
    assert set(linears) - set(find_targets(bert, "all-linear")) == {"bert.pooler.dense", "classifier"}


def test_names_may_be_last_parts_or_full(distilbert: PreTrainedModel) -> None:
    first = "distilbert.transformer.layer.0.attention.k_lin"
    assert find_targets(distilbert, ["lin2", first]) == [
        first,
        "distilbert.transformer.layer.0.ffn.lin2",
        "distilbert.transformer.layer.1.ffn.lin2",
    ]


def test_named_layer_is_matched_at_whole_parts_only(distilbert: PreTrainedModel) -> None:
    with pytest.raises(ConfigError, match="'lin' matches no linear layer"):
        find_targets(distilbert, ["lin"])


def test_name_that_matches_nothing_is_refused_with_the_candidates(distilbert: PreTrainedModel) -> None:
    candidates = "q_lin (2x), k_lin (2x), v_lin (2x), out_lin (2x), lin1 (2x), lin2 (2x)"
    with pytest.raises(ConfigError, match=r"'query' matches no linear layer of this distilbert.*") as caught:
        find_targets(distilbert, ["q_lin", "query"])
    assert f"Candidates: {candidates}." in str(caught.value)


def test_head_is_not_a_target(distilbert: PreTrainedModel) -> None:
    with pytest.raises(ConfigError, match="'classifier' belongs to the classification head, which every method"):
        find_targets(distilbert, ["classifier"])


def test_group_of_an_unknown_architecture_is_refused_with_a_line_to_copy(nystromformer: PreTrainedModel) -> None:
    with pytest.raises(
        ConfigError, match=r"not known for encoders of type 'nystromformer' \(known: albert, bert, .*\)"
    ) as e:
        find_targets(nystromformer, "all-linear")
    assert "--set 'method.target_modules=[" in str(e.value)
    assert "query (2x), key (2x), value (2x), dense (6x)" in str(e.value)


def test_line_to_copy_works(nystromformer: PreTrainedModel) -> None:
    with pytest.raises(ConfigError) as caught:
        find_targets(nystromformer, "attention")
    example = re.search(r"target_modules=\[(.*?)\]", str(caught.value))
    assert example
    assert find_targets(nystromformer, example[1].split(", "))


def test_named_layers_of_an_unknown_architecture_are_found(nystromformer: PreTrainedModel) -> None:
    assert find_targets(nystromformer, ["query", "value"]) == in_each_layer(
        "nystromformer.encoder.layer", "attention.self.query", "attention.self.value"
    )


def test_encoder_with_other_layers_than_the_table_says_is_refused(distilbert: PreTrainedModel) -> None:
    odd = copy.deepcopy(distilbert)
    odd.distilbert.transformer.layer[1].ffn.lin2 = torch.nn.Identity()
    with pytest.raises(ConfigError, match=r"'feed-forward' should match 4 linear layers, but 3 were found"):
        find_targets(odd, "feed-forward")


def test_head_of_each_architecture(
    distilbert: PreTrainedModel, bert: PreTrainedModel, nystromformer: PreTrainedModel
) -> None:
    assert find_head(distilbert) == ["pre_classifier", "classifier"]
    assert find_head(bert) == ["classifier"]
    assert find_head(nystromformer) == ["classifier"]


def test_newly_initialised_modules_join_the_head(bert: PreTrainedModel, nystromformer: PreTrainedModel) -> None:
    missing = ["bert.pooler.dense.weight", "bert.pooler.dense.bias", "classifier.weight"]
    assert find_head(bert, missing) == ["bert.pooler.dense", "classifier"]
    assert find_head(nystromformer, ["classifier.out_proj.weight", "classifier.dense.bias"]) == ["classifier"]


@pytest.mark.parametrize(
    ("model_type", "settings"),
    [
        ("distilbert", {"dim": 16, "hidden_dim": 32, "n_layers": 1, "n_heads": 2, "seq_classif_dropout": 0.25}),
        ("bert", SMALL | {"classifier_dropout": 0.25}),
        ("bert", SMALL | {"hidden_dropout_prob": 0.25}),
        ("roberta", SMALL | {"hidden_dropout_prob": 0.25}),
        ("electra", SMALL | {"hidden_dropout_prob": 0.25, "embedding_size": 8}),
        ("deberta-v2", SMALL | {"hidden_dropout_prob": 0.25, "pooler_dropout": 0.25}),
        ("albert", SMALL | {"hidden_dropout_prob": 0.5, "classifier_dropout_prob": 0.25}),
        ("modernbert", SMALL | {"mlp_dropout": 0.5, "classifier_dropout": 0.25, "pad_token_id": 0}),
    ],
)
def test_base_dropout_is_disabled_and_the_head_keeps_its_own(model_type: str, settings: dict[str, Any]) -> None:
    config = AutoConfig.for_model(model_type, **settings)
    disable_base_dropout(config)
    model = AutoModelForSequenceClassification.from_config(config).train()
    rates = {name: module.p for name, module in model.named_modules() if isinstance(module, torch.nn.Dropout)}
    inside = {name: rate for name, rate in rates.items() if name.startswith(f"{model.base_model_prefix}.")}
    assert set(inside.values()) == {0.0}
    assert {rate for name, rate in rates.items() if name not in inside} == {0.25}
    hidden = [model.base_model(torch.arange(8).reshape(2, 4)).last_hidden_state for _ in range(2)]
    assert torch.equal(*hidden)


def test_base_dropout_of_an_unknown_architecture_is_disabled_by_name() -> None:
    config = NystromformerConfig(**SMALL, classifier_dropout=0.25)
    disable_base_dropout(config)
    assert (config.hidden_dropout_prob, config.attention_probs_dropout_prob) == (0.0, 0.0)
    assert config.classifier_dropout == 0.25


def test_built_encoders_have_the_architecture_they_are_named_for(tiny_distilbert: Path, tiny_bert: Path) -> None:
    assert AutoConfig.from_pretrained(tiny_distilbert).model_type == "distilbert"
    assert AutoConfig.from_pretrained(tiny_bert).model_type == "bert"


def test_adapters_may_be_kept_to_the_last_layers(distilbert: PreTrainedModel, bert: PreTrainedModel) -> None:
    layers = "distilbert.transformer.layer"
    expected = [f"{layers}.1.attention.q_lin", f"{layers}.1.attention.v_lin"]
    assert find_targets(distilbert, "query-value", layers="top1") == expected
    assert find_targets(distilbert, "query-value", layers="top2") == find_targets(distilbert, "query-value")
    assert find_targets(bert, ["key"], layers="top1") == ["bert.encoder.layer.1.attention.self.key"]


def test_more_last_layers_than_there_are_is_refused(distilbert: PreTrainedModel) -> None:
    with pytest.raises(ConfigError, match=r"method\.layers=top3, but this encoder has 2 layers"):
        find_targets(distilbert, "all-linear", layers="top3")


def test_named_modules_outside_the_last_layers_are_refused(distilbert: PreTrainedModel) -> None:
    with pytest.raises(ConfigError, match=r"none of the modules in method\.target_modules lies in these layers"):
        find_targets(distilbert, ["0.attention.q_lin"], layers="top1")


def test_last_layers_of_an_unknown_architecture_are_refused(nystromformer: PreTrainedModel) -> None:
    with pytest.raises(ConfigError, match=r"method\.layers=top1 is not known for encoders of type 'nystromformer'"):
        find_targets(nystromformer, ["query"], layers="top1")
