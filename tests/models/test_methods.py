import re

import pytest

from lorafit.config import Config, MethodConfig, TrainingConfig
from lorafit.errors import ConfigError
from lorafit.models.method_settings import complete_method, complete_settings
from lorafit.models.methods import METHODS, REFUSED, find_method

NAMES = {
    *("lora", "rslora", "lora_plus", "lora_fa", "pissa", "olora", "dora", "adalora", "loha", "lokr", "oft", "boft"),
    *("miss", "hra", "shira", "road", "c3a", "vblora", "delora", "gralora", "hira", "waveft"),
    *("vera", "randlora", "fourierft", "ia3", "ln_tuning", "prompt_tuning", "p_tuning", "bitfit", "head_only", "full"),
    *("glora", "peanut", "psoft", "unilora", "beft", "pvera", "adamss", "deft", "frod", "tinylora"),
    *("supertuning", "houlsby", "pfeiffer", "parallel", "setfit", "embedding"),
}


def test_table_names_every_method_with_its_paper() -> None:
    assert set(METHODS) == NAMES
    for name, method in METHODS.items():
        assert name == method.name
        assert re.search(r"arXiv:\d{4}\.\d{5}|openreview:\w{10}", method.paper)
        assert method.title
        assert method.adapts


def test_unknown_method_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"method\.name: there is no method 'lorra'\. Did you mean: lora, "):
        find_method("lorra")
    with pytest.raises(ConfigError, match=r"Did you mean: .*lora"):
        find_method("zzz")


@pytest.mark.parametrize("name", ["prefix_tuning", "prefix-tuning", "P-Tuning-v2"])
def test_method_that_cannot_work_is_refused_with_its_reason(name: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"method\.name: {name} is not offered: .*encoders take none of.*lora, rslora"
    ):
        find_method(name)


def test_no_method_is_both_offered_and_refused() -> None:
    assert not METHODS.keys() & REFUSED.keys()


@pytest.mark.parametrize("name", METHODS)
def test_defaults_are_filled_in_and_again_change_nothing(name: str) -> None:
    completed = complete_settings(Config(method=MethodConfig(name=name)))
    method = METHODS[name]
    given = completed.method.model_dump(exclude={"name", "layers", "options"}, exclude_none=True)
    assert given == method.defaults
    assert completed.training.learning_rate == method.learning_rate
    assert completed.training.head_learning_rate == method.head_learning_rate
    assert complete_settings(completed) == completed


def test_what_is_given_stays() -> None:
    settings = complete_method(MethodConfig(name="dora", r=3, target_modules=["lin1"]))
    assert (settings.r, settings.lora_alpha, settings.target_modules) == (3, 32, ["lin1"])
    completed = complete_settings(
        Config(method=MethodConfig(name="vera"), training=TrainingConfig(learning_rate=7e-3, head_learning_rate=2e-3))
    )
    assert (completed.training.learning_rate, completed.training.head_learning_rate) == (7e-3, 2e-3)


def test_rate_that_is_given_holds_for_the_head_too() -> None:
    completed = complete_settings(Config(method=MethodConfig(name="vera"), training=TrainingConfig(learning_rate=7e-3)))
    assert completed.training.head_learning_rate is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "ia3", "r": 4}, r"method\.r: IA3 has no such setting \(settings it takes: target_modules\)"),
        ({"name": "full", "target_modules": "attention"}, r"full fine-tuning has no such setting .*none of its own"),
        ({"name": "lora", "virtual_tokens": 3}, r"method\.virtual_tokens: LoRA has no such setting"),
        ({"name": "head_only", "layers": "top1"}, r"method\.layers=top1: head only is not put on layers"),
        ({"name": "full", "options": {"a": 1}}, r"method\.options: full fine-tuning has no options"),
        (
            {"name": "lora", "options": {"target_modules": ["x"]}},
            r"method\.options: target_modules cannot be set there",
        ),
    ],
)
def test_settings_that_a_method_does_not_take_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        complete_method(MethodConfig.model_validate(settings))


def test_lora_fa_has_one_rate() -> None:
    config = Config(method=MethodConfig(name="lora_fa"), training=TrainingConfig(head_learning_rate=1e-3))
    with pytest.raises(ConfigError, match="LoRA-FA has one learning rate"):
        complete_settings(config)
