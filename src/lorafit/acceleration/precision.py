"""Which arithmetic the linear layers use: asked of the machine, never guessed."""

from dataclasses import dataclass
from typing import Literal

from lorafit.errors import ConfigError

__all__ = ["PrecisionChoice", "choose_precision"]


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


def choose_precision(setting: Literal["auto", "fp32", "bf16"]) -> PrecisionChoice:
    """Choose the precision for this CPU.

    On CPUs without a bfloat16 unit such products are many times slower than fp32, so `auto` takes it only where torch
    reports `avx512_bf16` or AMX.

    Args:
        setting: `training.precision`.

    Returns:
        The choice.

    Raises:
        ConfigError: bf16 was asked for, and this CPU has no unit for it.
    """
    unit = _bf16_unit()
    if setting == "fp32":
        return PrecisionChoice("fp32", "asked for")
    if unit is None:
        if setting == "bf16":
            raise ConfigError(
                "training.precision=bf16, but this CPU has no bfloat16 unit (neither avx512_bf16 nor AMX): it would be "
                "many times slower. Take auto or fp32."
            )
        return PrecisionChoice("fp32", "this CPU has neither avx512_bf16 nor AMX")
    return PrecisionChoice("bf16", f"this CPU has {unit}")


def _bf16_unit() -> str | None:
    import torch

    capabilities = torch.cpu.get_capabilities()
    if capabilities.get("amx_bf16"):
        return "AMX"
    return "avx512_bf16" if capabilities.get("avx512_bf16") else None
