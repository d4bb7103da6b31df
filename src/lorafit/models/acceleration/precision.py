"""Where a model runs and which arithmetic its linear layers use: asked of the machine, never guessed."""

from dataclasses import dataclass
from typing import Literal

from lorafit.errors import ConfigError

Device = Literal["cpu", "cuda"]
"""What a model can run on. Everything is made for CPUs; a GPU runs the libraries' own blocks under autocast."""


@dataclass(frozen=True)
class PrecisionChoice:
    """A precision and why it was taken.

    Attributes:
        name: `bf16`: the encoder's matrix products in bfloat16, adapter, head, master weights and loss in fp32; or
            `fp32`: all of it.
        reason: One clause for people.
    """

    name: Literal["fp32", "bf16"]
    reason: str


def choose_device(setting: Literal["auto", "cpu", "cuda"]) -> Device:
    """Choose what to run on.

    Args:
        setting: `training.device`; `auto` takes a CUDA GPU where torch sees one.

    Returns:
        The device.

    Raises:
        ConfigError: A GPU was asked for, and torch sees none.
    """
    import torch

    has_gpu = torch.cuda.is_available()
    if setting == "cuda" and not has_gpu:
        raise ConfigError(f"training.device=cuda, but {_explain_lack()} Or take auto or cpu.")
    return "cuda" if has_gpu and setting != "cpu" else "cpu"


def check_gpus(processes: int) -> None:
    """Refuse several processes on one GPU, which nccl does not connect.

    Args:
        processes: How many train on this machine, on `cuda`.

    Raises:
        ConfigError: There are fewer GPUs.
    """
    import torch

    if (gpus := torch.cuda.device_count()) < processes:
        raise ConfigError(
            f"{processes} processes of this machine need a GPU each, and torch sees {gpus}. Take --processes {gpus}, "
            "or train on the CPU: --set training.device=cpu."
        )


def choose_precision(setting: Literal["auto", "fp32", "bf16"], device: Device = "cpu") -> PrecisionChoice:
    """Choose the precision for this machine.

    On CPUs without a bfloat16 unit such products are many times slower than fp32, so `auto` takes it only where torch
    reports `avx512_bf16` or AMX.

    Args:
        setting: `training.precision`.
        device: From `choose_device`.

    Returns:
        The choice.

    Raises:
        ConfigError: bf16 was asked for, and this machine has no unit for it.
    """
    machine, unit, missing = _cpu_unit() if device == "cpu" else _gpu_unit()
    if setting == "fp32":
        return PrecisionChoice("fp32", "asked for")
    if unit is not None:
        return PrecisionChoice("bf16", f"{machine} has {unit}")
    if setting == "bf16":
        raise ConfigError(
            f"training.precision=bf16, but {machine} has {missing}: it would be many times slower. Take auto or fp32."
        )
    return PrecisionChoice("fp32", f"{machine} has {missing}")


def _explain_lack() -> str:
    """Say why there is no GPU, and what to do."""
    import torch

    if not torch.backends.cuda.is_built():  # type: ignore[no-untyped-call]  # torch gives it no types
        return (
            f"torch {torch.__version__} is built for CPUs alone. Install a build with CUDA: "
            "https://pytorch.org/get-started/locally."
        )
    return (
        f"torch {torch.__version__} sees no GPU. See whether nvidia-smi lists one, whether its driver is new enough "
        "for this torch, and what CUDA_VISIBLE_DEVICES says."
    )


def _cpu_unit() -> tuple[str, str | None, str]:
    """Return the machine's name in a sentence, its bfloat16 unit, and what to say where it has none."""
    import torch

    capabilities = torch.cpu.get_capabilities()
    units = {"amx_bf16": "AMX", "avx512_bf16": "avx512_bf16"}
    unit = next((name for key, name in units.items() if capabilities.get(key)), None)
    return "this CPU", unit, "no bfloat16 unit (neither avx512_bf16 nor AMX)"


def _gpu_unit() -> tuple[str, str | None, str]:
    import torch

    unit = "a bfloat16 unit" if torch.cuda.is_bf16_supported(including_emulation=False) else None
    return "this GPU", unit, "no bfloat16 unit"
