import pytest

from lorafit.config import Config, SearchRange, load_config
from lorafit.errors import ConfigError
from lorafit.search.space import read_space


def config_with(*overrides: str) -> Config:
    return load_config(overrides=overrides)


def test_without_a_space_the_methods_own_settings_are_varied() -> None:
    lora = {one.name: one.values for one in read_space(config_with()).dimensions}
    assert set(lora) == {"training.learning_rate", "training.epochs", "method.r", "method.target_modules"}
    assert lora["training.learning_rate"] == SearchRange(low=2.5e-4, high=4e-3, log=True)
    ia3 = {one.name for one in read_space(config_with("method.name=ia3")).dimensions}
    assert ia3 == {"training.learning_rate", "training.epochs"}


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
        ("{method.name: [lora, lroa]}", "Did you mean: lora"),
        ("{method.virtual_tokens: [4, 8]}", "no such setting has lora"),
    ],
)
def test_a_space_that_cannot_be_used_is_refused(space: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        read_space(config_with(f"search.space={space}"))
