"""What typicality reads of a text: the last state that the head reads, and the mean state below the last encoder layer.

A head that tells few classes apart forgets the rest; the mean of the tokens' states still knows topic and language.
"""

import threading
from typing import TYPE_CHECKING, Any, Self

import torch

from lorafit.models.acceleration.encoder_block import read_block_input
from lorafit.models.adaptation import base_of
from lorafit.models.architectures import ARCHITECTURES, pooling_of
from lorafit.models.head import find_output_layer

if TYPE_CHECKING:
    from types import TracebackType

    from peft import PeftModel
    from transformers import PreTrainedModel


class FeatureReader:
    """Keeps, inside a `with` block, what a model's last forward pass in the same thread gives to read."""

    def __init__(self, model: "PreTrainedModel | PeftModel") -> None:
        base, self._thread = base_of(model), threading.get_ident()
        self._head: torch.Tensor | None = None
        self._first: torch.Tensor | None = None
        self._states: torch.Tensor | None = None
        self._hooks = [find_output_layer(model).register_forward_pre_hook(self._keep_head)]
        architecture = ARCHITECTURES.get(base.config.model_type)
        if architecture is not None:
            last = base.get_submodule(architecture.name_layers(base)[-1])
            self._hooks.append(last.register_forward_pre_hook(self._keep_states, with_kwargs=True))
            if not architecture.is_decoder and pooling_of(base) == "own":
                self._hooks.append(last.register_forward_hook(self._keep_first))

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: "TracebackType | None"
    ) -> None:
        """Take the hooks off."""
        for hook in self._hooks:
            hook.remove()

    def take(self, attention_mask: torch.Tensor) -> torch.Tensor | None:
        """Return the features of the last forward pass, and forget them.

        Args:
            attention_mask: Shape (rows, length); 1 = token, 0 = padding.

        Returns:
            Shape (rows, width), fp32: first the first token's state above the last layer of a known encoder, or else
            what the layer of the logits reads, if that is one vector a text; then the mean state below the last layer,
            without the learned tokens of a method, of a known architecture. None if there is neither.
        """
        top = self._head if self._first is None else self._first
        parts = [] if top is None or top.ndim != 2 else [top.float()]
        if self._states is not None:
            weights = attention_mask.unsqueeze(2).float()
            states = self._states[:, -attention_mask.shape[1] :].float()  # learned tokens stand before the text
            parts.append((states * weights).sum(dim=1) / weights.sum(dim=1))
        self._head = self._first = self._states = None
        return torch.cat(parts, dim=1) if parts else None

    def _keep_head(self, _: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if threading.get_ident() == self._thread:
            self._head = inputs[0]

    def _keep_first(self, _: torch.nn.Module, __: tuple[Any, ...], output: Any) -> None:  # noqa: ANN401 - or a tuple
        if threading.get_ident() == self._thread:
            states: torch.Tensor = output[0] if isinstance(output, tuple) else output
            self._first = states[:, 0]

    def _keep_states(self, block: torch.nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        if threading.get_ident() == self._thread:
            self._states = read_block_input(block, inputs, named)
