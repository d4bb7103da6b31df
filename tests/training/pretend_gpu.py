"""A pretend GPU, on which device code runs for real where there is none; test_device.py starts it as a process.

torch lets Python stand for a device of its own kind. A tensor there holds one of the CPU, which computes; what CUDA
refuses is refused: operands on two devices, and numpy without `.cpu()`. It shows nothing of kernels, speed and bf16.
"""
# ruff: noqa: ANN401 - operations of torch take and give anything

import json
import os
import sys
from typing import Any, Self

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

NAME = "pretend"
DEVICE = torch.device("cpu")
"""The pretend GPU, once `main` has let torch know it."""

CROSSING = {"aten::_to_copy", "aten::copy_", "aten::_foreach_copy_"}
INDEXED = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"}
"""Operations that take their indices from the CPU, too."""


class Module(_DummyBackendModule):
    """What torch asks of a device's module."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


class OnGpu(torch.Tensor):
    """A tensor of the pretend GPU; `held` has its numbers."""

    held: torch.Tensor

    def __new__(cls, held: torch.Tensor) -> Self:
        made: Self = torch.Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=DEVICE,
        )
        made.held = held
        return made

    def __repr__(self) -> str:
        return f"OnGpu({self.held})"

    def storage(self) -> Any:
        return self.held.storage()

    def untyped_storage(self) -> Any:
        return self.held.untyped_storage()

    def data_ptr(self) -> int:
        return self.held.data_ptr()

    def __reduce_ex__(self, _: Any) -> Any:
        return OnGpu, (self.held,)

    @classmethod
    def __torch_dispatch__(cls, func: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
        return compute(func, args, kwargs or {})


class PretendGpu(TorchDispatchMode):
    """Inside the block tensors can be made on the pretend GPU, and moved to it."""

    def __torch_dispatch__(self, func: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
        with self:  # in inference mode operations come whole that are made of others
            parts = func.decompose(*args, **(kwargs or {}))
        return parts if parts is not NotImplemented else compute(func, args, kwargs or {})


def compute(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Run an operation of torch, on the pretend GPU where its operands are there or its result is to be."""
    tensors = [part for part in tree_leaves((args, kwargs)) if isinstance(part, torch.Tensor)]
    device, is_there = kwargs.get("device"), any(isinstance(tensor, OnGpu) for tensor in tensors)
    if is_there:
        check_together(func._schema.name, tensors)
    inner_args, inner = tree_map(lambda part: part.held if isinstance(part, OnGpu) else part, (args, kwargs))
    if device is not None:
        is_there = torch.device(device).type == NAME
        inner["device"] = torch.device("cpu") if is_there else device
    result = func(*inner_args, **inner)
    if not is_there:
        return result
    changed = {id(tensor.held): tensor for tensor in tensors if isinstance(tensor, OnGpu)}

    def wrap(part: Any) -> Any:
        return part if not isinstance(part, torch.Tensor) else changed[id(part)] if id(part) in changed else OnGpu(part)

    with torch.inference_mode(mode=False):  # views of what was made outside of it need their versions counted
        return tree_map(wrap, result)


def check_together(name: str, tensors: list[torch.Tensor]) -> None:
    """Refuse operands on two devices; numbers without a dimension may come from the CPU."""
    others = [tensor for tensor in tensors if not isinstance(tensor, OnGpu) and tensor.ndim]
    if name in INDEXED and isinstance(tensors[0], OnGpu):
        others = [tensor for tensor in others if tensor.is_floating_point()]
    if others and name not in CROSSING:
        raise RuntimeError(f"{name}: expected all tensors to be on the same device, but found {NAME} and cpu")


def fill_from_python(library: torch.library.Library) -> None:
    """Let `torch.tensor(number, device=…)` work, which makes its tensor below all modes."""

    def make(size: Any, stride: Any, *, dtype: Any = None, **_: Any) -> OnGpu:
        return OnGpu(torch.empty_strided(size, stride, dtype=dtype, device="cpu"))

    def copy(source: torch.Tensor, target: torch.Tensor, *_: Any) -> torch.Tensor:
        parts = [part.held if isinstance(part, OnGpu) else part for part in (target, source)]
        parts[0].copy_(parts[1])
        return target

    library.impl("empty_strided", make)
    library.impl("_copy_from", copy)


def main(settings: str, texts: str, folder: str) -> None:
    """Train on the pretend GPU, and print what the run predicts there."""
    global DEVICE  # noqa: PLW0603 - the device has no name before
    _setup_privateuseone_for_python_backend(NAME, Module())
    DEVICE = torch.device(NAME, 0)
    library = torch.library.Library("aten", "IMPL", "PrivateUse1")
    fill_from_python(library)
    os.environ["ACCELERATE_TORCH_DEVICE"] = str(DEVICE)
    from lorafit.models.acceleration import precision

    precision.choose_device = lambda _: str(DEVICE)  # type: ignore[assignment]  # before others take it from there
    import lorafit
    from lorafit.config import override_config

    with PretendGpu():
        run = lorafit.train(override_config(lorafit.Config(), json.loads(settings)), output=folder)
        predictor = lorafit.load(run.path, precision="fp32", runtime="torch")
        logits = predictor.compute_logits(json.loads(texts))
        explained = lorafit.explain(predictor, json.loads(texts)[0])
    print(json.dumps({"logits": logits.tolist(), "explained": repr(explained)[:200]}))  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
