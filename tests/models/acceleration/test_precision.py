from typing import Literal

import pytest
import torch
from torch import nn

from lorafit.errors import ConfigError
from lorafit.models.acceleration.encoder_block import at_precision
from lorafit.models.acceleration.precision import PrecisionChoice, choose_precision


@pytest.fixture
def have_units(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """What torch reports about the processor."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: dict.fromkeys(request.param, True))


@pytest.mark.parametrize(
    ("have_units", "unit"),
    [(["avx512_bf16"], "avx512_bf16"), (["avx512_bf16", "amx_bf16"], "AMX")],
    indirect=["have_units"],
)
@pytest.mark.parametrize("setting", ["auto", "bf16"])
def test_bf16_is_taken_where_the_processor_has_a_unit(have_units: None, unit: str, setting: str) -> None:
    assert choose_precision(setting) == PrecisionChoice("bf16", f"this CPU has {unit}")


@pytest.mark.parametrize("have_units", [["avx512", "avx2"]], indirect=True)
def test_auto_takes_fp32_where_the_processor_has_no_unit(have_units: None) -> None:
    assert choose_precision("auto") == PrecisionChoice(
        "fp32", "this CPU has no bfloat16 unit (neither avx512_bf16 nor AMX)"
    )


@pytest.mark.parametrize("have_units", [["avx512", "avx2"]], indirect=True)
def test_bf16_is_refused_where_the_processor_has_no_unit(have_units: None) -> None:
    with pytest.raises(ConfigError, match=r"training\.precision=bf16, but this CPU has no bfloat16 unit.*auto or fp32"):
        choose_precision("bf16")


@pytest.mark.parametrize("have_units", [["avx512_bf16", "amx_bf16"]], indirect=True)
def test_fp32_is_taken_where_it_is_asked_for(have_units: None) -> None:
    assert choose_precision("fp32") == PrecisionChoice("fp32", "asked for")


def test_machine_is_asked() -> None:
    capabilities = torch.cpu.get_capabilities()
    has_unit = bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))
    assert choose_precision("auto").name == ("bf16" if has_unit else "fp32")


@pytest.mark.parametrize(("name", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_model_without_fused_blocks_runs_at_the_precision(name: Literal["fp32", "bf16"], dtype: torch.dtype) -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Tanh())
    x = torch.eye(8)
    with at_precision(model, PrecisionChoice(name, "")):
        assert model(x).dtype == dtype
    assert model(x).dtype == torch.float32
