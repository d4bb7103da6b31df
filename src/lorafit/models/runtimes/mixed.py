"""Many adapters on one base in one forward pass: the rows of a batch may belong to any of them.

The base's products are computed once for the whole batch; each row then adds its own adapter's low-rank update, in two
batched products (Chen et al. 2023, "Punica", arXiv:2310.18547; Sheng et al. 2023, "S-LoRA", arXiv:2311.03285). Heads
are the adapters' own modules, with any number of labels.
"""

import copy
import itertools
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from peft import PeftModel
from peft.tuners.lora import Linear as LoraLinear
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from lorafit.errors import RunError
from lorafit.models.acceleration.encoder_block import FusedBlock, at_precision, fuse_encoder
from lorafit.models.acceleration.lora_linear import LinearGroup, has_plain_lora
from lorafit.models.acceleration.packing import current_packing, packed
from lorafit.models.acceleration.precision import PrecisionChoice
from lorafit.models.adaptation import base_of, reads_token_types
from lorafit.models.architectures import pooling_of
from lorafit.models.batching import BF16_POSITIONS
from lorafit.models.features import FeatureReader
from lorafit.models.runtimes.pytorch import on_threads

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class UnmixableError(Exception):
    """An adapter cannot be computed beside others; the message says why, as a clause."""


class FullError(Exception):
    """There is no place left for an adapter."""


class _Rows(NamedTuple):
    """Whose the rows of the batch being computed are: one place a row, and the only one where all rows are of one."""

    places: torch.Tensor
    only: int | None


_rows: ContextVar[_Rows | None] = ContextVar("whose the rows of a batch are", default=None)


class _Bank:
    """The low-rank factors of one product, of all adapters.

    `_down` has the shape (places, inputs, ranks), `_up` (places, ranks, outputs). A product of several layers has the
    ranks of each side by side, and zeros where an output is not of that layer.
    """

    def __init__(self, group: LinearGroup, places: int, dtype: torch.dtype) -> None:
        self._inputs, self._outputs = group.sizes
        self._places, self._dtype, self._rank = places, dtype, 0
        self._down, self._up = torch.empty(0), torch.empty(0)

    def put(
        self, place: int, factors: Mapping[int, tuple[torch.Tensor, torch.Tensor]], *, taken: Sequence[int]
    ) -> None:
        """Take an adapter's factors by the number of their layer: A (rank, inputs), and B (outputs, rank), scaled.

        `taken` are the places of the others.
        """
        self._widen(max(a.shape[0] for a, _ in factors.values()), taken)
        starts = np.cumsum([0, *self._outputs]).tolist()
        for layer, (a, b) in factors.items():
            begin, rank = layer * self._rank, a.shape[0]
            self._down[place, :, begin : begin + rank] = a.t()
            self._up[place, begin : begin + rank, starts[layer] : starts[layer + 1]] = b.t()

    def clear(self, place: int) -> None:
        """Let a place add nothing."""
        if self._rank:
            self._down[place] = 0
            self._up[place] = 0

    def _widen(self, rank: int, taken: Sequence[int]) -> None:
        """Make room for a higher rank."""
        if rank <= self._rank:
            return
        layers, old = len(self._outputs), self._rank
        down = _reserve(self._places, self._inputs, layers * rank, dtype=self._dtype)
        up = _reserve(self._places, layers * rank, sum(self._outputs), dtype=self._dtype)
        for place in taken if old else ():
            for layer in range(layers):
                before, now = slice(layer * old, (layer + 1) * old), slice(layer * rank, layer * rank + old)
                down[place, :, now] = self._down[place, :, before]
                up[place, now] = self._up[place, before]
        self._down, self._up, self._rank = down, up, rank

    def add(self, x: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        """Add each row's update to a product: x (rows, length, inputs), output (rows, length, outputs), or packed."""
        rows = _rows.get()
        if rows is None or self._rank == 0:
            return output
        if rows.only is not None:
            down, up = self._down[rows.only], self._up[rows.only]
            flat = output.view(-1, output.shape[-1])
            flat.addmm_(x.reshape(-1, x.shape[-1]) @ down, up)
            return output
        packing = current_packing()
        if packing is None or not packing.is_packed(x):
            low = torch.bmm(x, self._down[rows.places])
            return output.baddbmm_(low, self._up[rows.places])
        for place, part in packing.groups.items():
            output[0, part].addmm_(x[0, part] @ self._down[place], self._up[place])
        return output


def _reserve(*shape: int, dtype: torch.dtype) -> torch.Tensor:
    """Return zeros that take no memory before they are written to, as numpy's do and torch's do not."""
    same_size: Any = {torch.float32: np.int32, torch.bfloat16: np.int16}[dtype]
    return torch.from_numpy(np.zeros(shape, dtype=same_size)).view(dtype)


class _Given(nn.Module):
    """Stands in a classifier for its encoder, and gives what another one has computed."""

    def __init__(self) -> None:
        super().__init__()
        self.output: Any = None

    def forward(self, *_: Any, **__: Any) -> Any:  # noqa: ANN401 - transformers' own kinds of output
        """Return it."""
        return self.output


@dataclass(frozen=True)
class _Head:
    """The head of one adapter."""

    model: Any
    given: _Given

    @property
    def outputs(self) -> int:
        """How many logits it gives."""
        outputs: int = self.model.config.num_labels
        return outputs

    def compute(self, states: Any, rows: torch.Tensor) -> torch.Tensor:  # noqa: ANN401 - transformers' own output
        """Compute the logits of some rows of the encoder's output; one thread at a time."""
        parts = {name: value[rows] for name, value in states.items() if isinstance(value, torch.Tensor)}
        self.given.output = type(states)(**parts)
        logits: torch.Tensor = self.model(input_ids=torch.zeros(len(rows), 1, dtype=torch.long)).logits
        self.given.output = None
        return logits.float()


class MixedRuntime:
    """Runs texts of many adapters on one base; `view` gives the runtime of one of them.

    `base` is the encoder with any head, in fp32; it is fused here. At most `places` adapters fit. What is kept of them
    is in the precision that they compute in; `name` says so, by which golden logits are compared.
    """

    def __init__(
        self, base: "PreTrainedModel", precision: PrecisionChoice, *, places: int, threads: int | None = None
    ) -> None:
        base.requires_grad_(requires_grad=False).train(mode=False)
        if (obstacle := fuse_encoder(base)) is not None:
            raise UnmixableError(obstacle)
        self._model: Any = base
        self._encoder: Any = base.base_model
        self._precision, self._threads = precision, threads
        self._packs = precision.name == "fp32" and pooling_of(base) == "own"
        """Whether padding is left out: not in bf16, of which the library beneath torch keeps kernels of every shape."""
        self.name = "torch-bf16" if precision.name == "bf16" else "torch"
        dtype = torch.bfloat16 if precision.name == "bf16" else torch.float32
        self._banks: dict[str, tuple[_Bank, int]] = {}
        for path, block in base.named_modules():
            for names, group in block.groups if isinstance(block, FusedBlock) else ():
                bank = _Bank(group, places, dtype)
                group.beside = bank.add
                self._banks.update({f"{path}.{name}": (bank, layer) for layer, name in enumerate(names)})
        self._heads: list[_Head | None] = [None] * places
        self._places: dict[int, int] = {}
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        """Held through a pass, and while adapters come and go."""

    @property
    def precision(self) -> Literal["fp32", "bf16"]:
        """Arithmetic of the encoder's products."""
        return self._precision.name

    def fewest_positions(self, _: int) -> int | None:
        """Return those of bf16, for which the library beneath torch keeps kernels of every shape; else None."""
        return BF16_POSITIONS if self.precision == "bf16" else None

    @property
    def width(self) -> int:
        """Outputs of the adapter that has most of them: columns of the logits of a batch."""
        return max((head.outputs for head in self._heads if head is not None), default=0)

    def add(self, adapted: "PreTrainedModel | PeftModel") -> int:
        """Take an adapter.

        Args:
            adapted: The adapter on a base of its own with the same weights, of which only adapter and head are kept.

        Returns:
            Its number, which no other will have.

        Raises:
            UnmixableError: It is not LoRA on layers of the encoder's blocks as they are here, or its head is in the
                encoder.
            FullError: There is no place left.
        """
        factors, head = self._read_factors(adapted), _read_head(adapted)
        with self._lock:
            place = next((place for place, taken in enumerate(self._heads) if taken is None), None)
            if place is None:
                raise FullError(f"There is no place left beside {len(self._heads)} others.")
            taken = [other for other, one in enumerate(self._heads) if one is not None]
            for bank in {id(bank): bank for bank, _ in self._banks.values()}.values():
                if bank in factors:
                    bank.put(place, factors[bank], taken=taken)
            self._heads[place] = head
            number = next(self._numbers)
            self._places[number] = place
        return number

    def remove(self, number: int) -> None:
        """Forget an adapter."""
        with self._lock:
            place = self._places.pop(number)
            self._heads[place] = None
            for bank in {id(bank): bank for bank, _ in self._banks.values()}.values():
                bank.clear(place)

    def __len__(self) -> int:
        """Return how many adapters there are."""
        return len(self._places)

    def view(self, number: int) -> "MixedView":
        """Return the runtime of one adapter."""
        return MixedView(self, number, self._find_head(number).outputs)

    def _find_head(self, number: int) -> _Head:
        place = self._places.get(number)
        head = None if place is None else self._heads[place]
        if head is None:
            raise RunError("The adapter was put away meanwhile.")
        return head

    def logits(
        self, input_ids: NDArray[np.int64], attention_mask: NDArray[np.int64], **others: Any
    ) -> NDArray[np.float32]:
        """Compute logits as `outputs` does."""
        return self._run(input_ids, attention_mask, **others)

    def outputs(
        self, input_ids: NDArray[np.int64], attention_mask: NDArray[np.int64], **others: Any
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Compute logits, and the features that tell how typical a text is.

        Args:
            input_ids: Shape (rows, length).
            attention_mask: Same shape; 1 = token, 0 = padding.
            **others: `adapters` of shape (rows,): the number of each row's adapter; and `token_type_ids`, as
                `TorchRuntime` takes them.

        Returns:
            Logits of shape (rows, outputs), zero beyond those of a row's own adapter, and features of shape (rows,
            width), or None where the model gives none.

        Raises:
            RunError: One of the adapters was removed.
        """
        with FeatureReader(self._model) as reader:
            logits = self._run(input_ids, attention_mask, **others)
            features = reader.take(torch.from_numpy(attention_mask))
        return logits, None if features is None else features.numpy()

    def _run(
        self,
        input_ids: NDArray[np.int64],
        attention_mask: NDArray[np.int64],
        *,
        adapters: NDArray[np.int64],
        token_type_ids: NDArray[np.int64] | None = None,
        **_: Any,
    ) -> NDArray[np.float32]:
        mask = None if attention_mask.all() else torch.from_numpy(attention_mask)
        others = {}
        if token_type_ids is not None and reads_token_types(self._model):
            others["token_type_ids"] = torch.from_numpy(token_type_ids)
        used, owners = np.unique(adapters, return_inverse=True)
        with (
            self._lock,
            torch.inference_mode(),
            at_precision(self._model, self._precision),
            on_threads(self._threads),
        ):
            heads = [self._find_head(number) for number in used.tolist()]
            places = np.array([self._places[number] for number in used.tolist()])
            rows = _Rows(torch.from_numpy(places[owners]), places[0] if len(places) == 1 else None)
            with _computing(rows), packed(mask if self._packs else None, places[owners]):
                states = self._encoder(input_ids=torch.from_numpy(input_ids), attention_mask=mask, **others)
            parts = []
            for owner, head in enumerate(heads):
                own = torch.from_numpy(np.flatnonzero(owners == owner))
                parts.append((own, head.compute(states, own)))
            width = self.width
        logits = np.zeros((len(adapters), width), dtype=np.float32)
        for own, part in parts:
            logits[own.numpy(), : part.shape[1]] = part.numpy()
        return logits

    def _read_factors(
        self, adapted: "PreTrainedModel | PeftModel"
    ) -> dict[_Bank, dict[int, tuple[torch.Tensor, torch.Tensor]]]:
        """Return an adapter's factors, by bank and layer."""
        if not isinstance(adapted, PeftModel):
            raise UnmixableError("it is no adapter of PEFT's")
        found: dict[_Bank, dict[int, tuple[torch.Tensor, torch.Tensor]]] = {}
        for path, layer in base_of(adapted).named_modules():
            if not isinstance(layer, BaseTunerLayer):
                continue
            if type(layer) is not LoraLinear or not has_plain_lora(layer):
                raise UnmixableError("it is not plain LoRA")
            if path not in self._banks:
                raise UnmixableError(f"it adapts {path}, which is not in the encoder's blocks")
            own: Any = layer.get_base_layer()
            if not torch.equal(own.weight, self._model.get_submodule(path).weight):
                raise UnmixableError("its method changes the weights of the base")
            bank, index = self._banks[path]
            (name,) = layer.active_adapters
            a: Any = layer.lora_A[name].weight
            b: Any = layer.lora_B[name].weight
            found.setdefault(bank, {})[index] = (a.detach(), b.detach() * layer.scaling[name])
        if not found:
            raise UnmixableError("it adapts no layer")
        return found


class MixedView:
    """The runtime of one adapter of several."""

    def __init__(self, runtime: MixedRuntime, number: int, outputs: int) -> None:
        self.name = runtime.name
        self._runtime, self._number, self._outputs = runtime, number, outputs

    @property
    def precision(self) -> Literal["fp32", "bf16"]:
        """Arithmetic of the encoder's products."""
        return self._runtime.precision

    def fewest_positions(self, inputs: int) -> int | None:
        """As `MixedRuntime`."""
        return self._runtime.fewest_positions(inputs)

    def logits(
        self, input_ids: NDArray[np.int64], attention_mask: NDArray[np.int64], **others: Any
    ) -> NDArray[np.float32]:
        """As `MixedRuntime`, all rows of this adapter."""
        logits = self._runtime.logits(input_ids, attention_mask, adapters=self._repeat(len(input_ids)), **others)
        return logits[:, : self._outputs]

    def outputs(
        self, input_ids: NDArray[np.int64], attention_mask: NDArray[np.int64], **others: Any
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """As `MixedRuntime`, all rows of this adapter."""
        own = self._repeat(len(input_ids))
        logits, features = self._runtime.outputs(input_ids, attention_mask, adapters=own, **others)
        return logits[:, : self._outputs], features

    def _repeat(self, rows: int) -> NDArray[np.int64]:
        return np.full(rows, self._number, dtype=np.int64)


def _read_head(adapted: "PreTrainedModel | PeftModel") -> _Head:
    """Take a classifier's head, without the encoder."""
    base: Any = base_of(adapted)
    prefix = base.base_model_prefix
    for config in getattr(adapted, "peft_config", {}).values():
        if any(name.split(".")[0] == prefix for name in config.modules_to_save or ()):
            raise UnmixableError("it trains parts of the encoder in full")
    encoder = getattr(base, prefix)
    setattr(base, prefix, _Given())
    try:
        head: Any = copy.deepcopy(base)
    finally:
        setattr(base, prefix, encoder)
    nn.Module.requires_grad_(head, requires_grad=False).train(mode=False)
    return _Head(head, getattr(head, prefix))


@contextmanager
def _computing(rows: _Rows) -> Iterator[None]:
    token = _rows.set(rows)
    try:
        yield
    finally:
        _rows.reset(token)
