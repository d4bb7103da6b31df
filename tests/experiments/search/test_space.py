import pytest

from lorafit.config import Config, SearchRange, load_config
from lorafit.errors import ConfigError
from lorafit.experiments.search.space import read_space
from lorafit.models.method_settings import complete_settings
from lorafit.models.methods import METHODS
from lorafit.training.planning.schedule import complete_schedule


def config_with(*overrides: str) -> Config:
    return complete_schedule(load_config(overrides=overrides), rows=10_000)


def test_without_a_space_the_methods_own_settings_are_varied() -> None:
    lora = {one.name: one.values for one in read_space(config_with()).dimensions}
    assert set(lora) == {"training.learning_rate", "training.epochs", "method.r", "method.target_modules"}
    assert lora["training.learning_rate"] == SearchRange(low=2.5e-4, high=4e-3, log=True)
    ia3 = {one.name for one in read_space(config_with("method.name=ia3")).dimensions}
    assert ia3 == {"training.learning_rate", "training.epochs"}


def test_a_method_without_steps_has_nothing_to_search() -> None:
    with pytest.raises(ConfigError, match=r"^method\.name=embedding: embeddings have nothing to search"):
        read_space(config_with("method.name=embedding"))


@pytest.mark.parametrize("method", [name for name in METHODS if METHODS[name].learning_rate is not None])
def test_the_first_trial_of_every_method_is_the_run_without_a_search(method: str) -> None:
    config = config_with(f"method.name={method}")
    space = read_space(config)
    assert space.encode(config)
    assert space.build_config(config, space.decode(space.encode(config))) == complete_settings(config)
    assert space.build_config(config, {}) == complete_settings(config)


def test_what_the_settings_say_is_in_the_space_or_stays_as_it_is() -> None:
    config = config_with(
        "method.r=64", "method.target_modules=attention", "training.max_steps=10", "training.learning_rate=5e-5"
    )
    values = {one.name: one.values for one in read_space(config).dimensions}
    assert values == {
        "training.learning_rate": SearchRange(low=1.25e-5, high=2e-4, log=True),
        "method.r": (4, 8, 16, 32, 64),
    }


def test_a_method_with_nothing_on_layers_is_not_given_any() -> None:
    with pytest.raises(ConfigError, match="'top3' cannot be used"):
        read_space(config_with("method.name=full", "search.space={method.layers: [all, top3]}"))
    both = config_with("search.space={method.name: [full, lora], method.layers: [all, top3]}")
    space = read_space(both)
    trial = space.build_config(both, {"method.name": "full", "method.layers": "top3"})
    assert (trial.method.name, trial.method.layers) == ("full", "all")


def test_methods_that_are_varied_take_of_the_shared_settings_what_they_know() -> None:
    config = config_with("method.virtual_tokens=10", "search.space={method.name: [lora, prompt_tuning]}")
    space = read_space(config)
    assert space.build_config(config, {"method.name": "lora"}).method.virtual_tokens is None
    assert space.build_config(config, {"method.name": "prompt_tuning"}).method.virtual_tokens == 10
    assert space.encode(config) == {"method.name": "lora"}


def test_nested_and_dotted_spaces_mean_the_same() -> None:
    dotted = config_with("search.space={method.r: [4, 8], training.learning_rate: {low: 1e-4, high: 1e-3}}")
    nested = config_with("search.space.method.r=[4, 8]", "search.space.training.learning_rate={low: 1e-4, high: 1e-3}")
    assert dotted.search == nested.search
    assert read_space(dotted) == read_space(nested)
    assert load_config(None, overrides=[f"search={dotted.search.model_dump(mode='json')}"]).search == dotted.search


def test_values_are_taken_as_the_settings_have_them() -> None:
    space = read_space(
        config_with(
            "search.space.training.learning_rate=[1e-4, 1e-3, 0.001]",
            "search.space.training.epochs={low: 1, high: 4}",
            "search.space.training.weight_decay={low: 0, high: 1}",
            "search.space.method.target_modules=[all-linear, [q_lin, v_lin]]",
        )
    )
    rate, epochs, decay, targets = space.dimensions
    assert rate.values == (1e-4, 1e-3)
    assert (epochs.whole, decay.whole) == (True, False)
    assert targets.decode("[q_lin, v_lin]") == ["q_lin", "v_lin"]


def test_the_settings_as_they_are_are_a_point_of_the_space_where_they_lie_in_it() -> None:
    config = config_with("search.space={method.r: [4, 8], training.learning_rate: {low: 1e-5, high: 1e-4}}")
    assert read_space(config).encode(config) == {"method.r": 8}


def test_a_trial_is_a_complete_config_without_the_space() -> None:
    config = config_with("search.space={method.name: [lora, ia3], method.r: [4], training.epochs: [1]}")
    space = read_space(config)
    values = {"method.name": "ia3", "method.r": 4, "training.epochs": 1}
    trial = space.build_config(config, values)
    assert (trial.method.name, trial.method.r, trial.training.epochs) == ("ia3", None, 1)
    assert trial.search.space == {}
    assert "search" not in trial.to_yaml()
    assert trial.training.learning_rate is not None


@pytest.mark.parametrize(
    ("space", "words"),
    [
        ("{method.rank: [4]}", "method.rank: 4 cannot be used"),
        ("{method.r: [0]}", "greater than or equal to 1"),
        ("{method.r: []}", "at least 1 item"),
        ("{method.r: {low: 8, high: 4}}", "low must be below high"),
        ("{method.r: {low: 8}}", "Field required"),
        ("{training.learning_rate: {low: 0, high: 1, log: true}}", "must begin above 0"),
        ("{training.seed: [0, 1]}", "the best seed is only the luckiest"),
        ("{training.threads: [1, 2]}", "about the machine"),
        ("{data.max_rows: [100]}", "cannot be searched; settings of the method"),
        ("{model.name: [a, b]}", "cannot be searched; settings of the method"),
        ("{training.schedule: {low: 1, high: 2}}", "cannot be used"),
        ("{method.name: [lora, lorra]}", "Did you mean: lora"),
        ("{method.virtual_tokens: [4, 8]}", "LoRA has no such setting"),
        ("{method.name: [lora, ia3], method.virtual_tokens: [4, 8]}", "no such setting has lora or ia3"),
        ("{method.name: [lora, ia3], method.options.init_lora_weights: [true]}", "they belong to one method"),
        ("{method.name: {low: 1, high: 2}}", "there is no method"),
    ],
)
def test_a_space_that_cannot_be_used_is_refused(space: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        read_space(config_with(f"search.space={space}"))
