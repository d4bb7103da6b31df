from typing import Literal

import pytest
import torch
from torch import nn

from lorafit.errors import ConfigError
from lorafit.models.acceleration.encoder_block import at_precision
from lorafit.models.acceleration.precision import PrecisionChoice, check_gpus, choose_device, choose_precision


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


@pytest.fixture
def have_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """What torch reports where there is a GPU with a bfloat16 unit."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *, including_emulation: not including_emulation)


def test_a_gpu_is_taken_where_there_is_one_and_it_is_wanted(have_gpu: None) -> None:
    assert [choose_device(setting) for setting in ("auto", "cuda", "cpu")] == ["cuda", "cuda", "cpu"]
    assert choose_precision("auto", "cuda") == PrecisionChoice("bf16", "this GPU has a bfloat16 unit")
    assert choose_precision("fp32", "cuda") == PrecisionChoice("fp32", "asked for")


def test_an_older_gpu_computes_in_fp32(have_gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *, including_emulation: including_emulation)
    assert choose_precision("auto", "cuda") == PrecisionChoice("fp32", "this GPU has no bfloat16 unit")
    with pytest.raises(ConfigError, match=r"this GPU has no bfloat16 unit.*auto or fp32"):
        choose_precision("bf16", "cuda")


@pytest.mark.parametrize(
    ("is_built", "remedy"),
    [(False, r"is built for CPUs alone\. Install a build with CUDA: https://pytorch\.org"), (True, "nvidia-smi")],
)
def test_a_gpu_that_is_not_there_is_refused_with_a_remedy(
    monkeypatch: pytest.MonkeyPatch, is_built: bool, remedy: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: is_built)
    assert choose_device("auto") == choose_device("cpu") == "cpu"
    with pytest.raises(ConfigError, match=rf"^training\.device=cuda, but torch .*{remedy}.* Or take auto or cpu\.$"):
        choose_device("cuda")


def test_each_process_needs_a_gpu(have_gpu: None) -> None:
    check_gpus(1)
    with pytest.raises(
        ConfigError, match=r"2 processes .* torch sees 1\. Take --processes 1, or .*training\.device=cpu"
    ):
        check_gpus(2)


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
