"""A classifier of the mean of an encoder's states, and its folder, which is one of sentence-transformers.

The encoder lies in the folder itself, as transformers saves it; `1_Pooling` says that the mean is taken, and `2_Dense`
is the head, whose outputs are the logits. What sentence-transformers has no place for, the names of the labels and the
kind of loss, is in `labels/config.json`, where adapters have it, too.
"""

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Final

from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from lorafit.models.architectures import Pooling
from lorafit.models.weights import LABELS, read_tensors

_ENCODER_ONLY: Final = ("id2label", "label2id", "problem_type")
_POOLING: Final = "1_Pooling"
_DENSE: Final = "2_Dense"
_HEAD: Final = f"{_DENSE}/model.safetensors"
_MODULES: Final = {"": "Transformer", _POOLING: "Pooling", _DENSE: "Dense"}
"""Modules in their order, by folder: their names under `sentence_transformers.models`, which all versions know."""

_LEAST_WEIGHT: Final = 1e-9
"""A text without a token has no mean; its states are all left out."""


class MeanPooledForSequenceClassification(PreTrainedModel):  # type: ignore[no-untyped-call]  # transformers' metaclass
    """A linear head on the mean of the last hidden states of a text's tokens.

    It has the interface of transformers' own classifiers; the encoder has the name that these give it.
    """

    pooling: ClassVar[Pooling] = "mean"
    config_class = PretrainedConfig
    _supports_sdpa = True  # the encoder has settled which attention it can compute

    def __init__(self, encoder: PreTrainedModel, config: PretrainedConfig) -> None:
        super().__init__(config)
        self.base_model_prefix = encoder.base_model_prefix
        self.add_module(self.base_model_prefix, encoder)
        self.classifier: nn.Module = nn.Linear(encoder.config.hidden_size, config.num_labels or 0)
        self.post_init()  # type: ignore[no-untyped-call]  # transformers has no types for it

    def embed(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        **others: Any,
    ) -> Tensor:
        """Compute the mean state of each text.

        Args:
            input_ids: Shape (rows, length).
            attention_mask: Same shape; 1 = token, 0 = padding. None for no padding.
            token_type_ids: Same shape, where texts are pairs.
            **others: What else the encoder reads.

        Returns:
            Shape (rows, width), fp32.
        """
        if token_type_ids is not None:
            others["token_type_ids"] = token_type_ids
        encoder: Any = self.base_model
        states: Tensor = encoder(input_ids=input_ids, attention_mask=attention_mask, **others)[0].float()
        if attention_mask is None:
            return states.mean(dim=1)
        weights = attention_mask.unsqueeze(2).to(states.dtype)
        return (states * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=_LEAST_WEIGHT)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        **others: Any,
    ) -> SequenceClassifierOutput:
        """Compute logits of shape (rows, outputs) and, with `labels`, transformers' loss for `problem_type`."""
        logits = self.classifier(self.embed(input_ids, attention_mask, token_type_ids, **others))
        loss = None
        if labels is not None:
            loss = self.loss_function(labels=labels, pooled_logits=logits, config=self.config)
        return SequenceClassifierOutput(loss=loss, logits=logits)


def write_pooled(model: MeanPooledForSequenceClassification, folder: Path, *, max_length: int) -> None:
    """Write a folder that sentence-transformers opens, and `AutoModel`, which finds the encoder there.

    Args:
        model: The classifier; fused blocks keep their names.
        folder: An existing folder.
        max_length: Longest input in tokens.
    """
    encoder: Any = model.base_model
    own, encoder.config = encoder.config, copy.deepcopy(encoder.config)
    plain = PretrainedConfig()
    for name in _ENCODER_ONLY:
        setattr(encoder.config, name, getattr(plain, name))
    try:
        encoder.save_pretrained(folder)
    finally:
        encoder.config = own
    model.config.save_pretrained(folder / LABELS)
    prefix = "sentence_transformers.models"
    modules = [
        {"idx": index, "name": str(index), "path": path, "type": f"{prefix}.{kind}"}
        for index, (path, kind) in enumerate(_MODULES.items())
    ]
    width = model.config.hidden_size
    pooling = {"word_embedding_dimension": width, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}
    dense = {
        "in_features": width,
        "out_features": model.config.num_labels,
        "bias": True,
        "activation_function": "torch.nn.modules.linear.Identity",
    }
    files = {
        "modules.json": modules,
        "sentence_bert_config.json": {"max_seq_length": max_length, "do_lower_case": False},
        "config_sentence_transformers.json": {"prompts": {}, "default_prompt_name": None},
        f"{_POOLING}/config.json": pooling,
        f"{_DENSE}/config.json": dense,
    }
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    tensors = {f"linear.{name}": value.detach().contiguous() for name, value in model.classifier.named_parameters()}
    save_file(tensors, folder / _HEAD)


def pool(
    encoder: PreTrainedModel, account: Mapping[str, Any], folder: Path
) -> tuple[MeanPooledForSequenceClassification, dict[str, Any]]:
    """Put a head on an encoder: the one that lies in its folder, where it has as many outputs, else a random one.

    Args:
        encoder: The encoder, its config set up for the task.
        account: transformers' account of its keys.
        folder: The encoder's folder, from `write_pooled` or any other.

    Returns:
        The classifier, and the account of its keys.
    """
    config: Any = encoder.config
    model = MeanPooledForSequenceClassification(encoder, config)
    prefix, missing = model.base_model_prefix, set(account["missing_keys"])
    names = {f"{prefix}.{name}" for name in missing}
    if not _read_head(model, folder):
        names |= {f"classifier.{name}" for name, _ in model.classifier.named_parameters()}
    mismatched = [(f"{prefix}.{key}", *shapes) for key, *shapes in account["mismatched_keys"]]
    return model, {**account, "missing_keys": names, "mismatched_keys": mismatched}


def _read_head(model: MeanPooledForSequenceClassification, folder: Path) -> bool:
    """Give a classifier the head in a folder, and return whether there is one that fits."""
    path = folder / _HEAD
    if not path.is_file() or not (folder / LABELS).is_dir():
        return False
    found = {name.removeprefix("linear."): value for name, value in read_tensors(path).items()}
    wanted = model.classifier.state_dict()
    if {name: value.shape for name, value in found.items()} != {name: value.shape for name, value in wanted.items()}:
        return False
    model.classifier.load_state_dict(found)
    return True
