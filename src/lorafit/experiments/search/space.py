"""What a search varies: settings by their dotted names, each with its values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import yaml

from lorafit.config import Config, SearchConfig, SearchRange, override_config
from lorafit.errors import ConfigError
from lorafit.models.method_settings import complete_settings, select_settings
from lorafit.models.methods import find_method

if TYPE_CHECKING:
    import optuna


Plain: TypeAlias = str | int | float | bool | None
"""What a study can hold."""

_METHOD = "method.name"
_OPEN = ("method.", "training.", "model.max_length", "model.truncation", "model.window_stride")
_CLOSED = {
    "training.seed": "the best seed is only the luckiest",
    "training.budget": "trials would differ by what the machine did meanwhile",
    "training.evaluations_per_epoch": "trials are compared at the same evaluations",
    **{
        f"training.{name}": "it is about the machine"
        for name in ("device", "precision", "threads", "prefix_cache", "prefix_cache_gb")
    },
}
"""Why a setting cannot be searched."""


@dataclass(frozen=True)
class Dimension:
    """One setting and the values it may take.

    Attributes:
        name: The setting's dotted name.
        values: The choices in order, or a range.
        whole: Whether a range holds whole numbers alone.
    """

    name: str
    values: tuple[Any, ...] | SearchRange
    whole: bool = False

    @property
    def ends(self) -> tuple[Any, ...]:
        """All choices, or the ends of the range."""
        return self.values if isinstance(self.values, tuple) else (self.values.low, self.values.high)

    def suggest(self, trial: "optuna.Trial") -> Any:  # noqa: ANN401 - settings are of several types
        """Let a trial choose a value."""
        if isinstance(self.values, tuple):
            return self.decode(trial.suggest_categorical(self.name, [_write(value) for value in self.values]))
        low, high, log = self.values.low, self.values.high, self.values.log
        if self.whole:
            return trial.suggest_int(self.name, int(low), int(high), log=log)
        return trial.suggest_float(self.name, low, high, log=log)

    def decode(self, plain: Plain) -> Any:  # noqa: ANN401 - settings are of several types
        """Return the value that the study holds as `plain`."""
        if not isinstance(self.values, tuple):
            return plain
        return next(value for value in self.values if _write(value) == plain)

    def encode(self, value: object) -> dict[str, Plain]:
        """Return how the study holds a value, by the setting's name; nothing if the value is none of these."""
        if isinstance(self.values, tuple):
            return {self.name: _write(value)} if value in self.values else {}
        if isinstance(value, int | float) and self.values.low <= value <= self.values.high:
            return {self.name: value}
        return {}


@dataclass(frozen=True)
class Space:
    """All that is varied.

    Attributes:
        dimensions: One a setting.
    """

    dimensions: tuple[Dimension, ...]

    def suggest(self, trial: "optuna.Trial") -> dict[str, Any]:
        """Let a trial choose a value for every setting."""
        return {dimension.name: dimension.suggest(trial) for dimension in self.dimensions}

    def decode(self, params: Mapping[str, Plain]) -> dict[str, Any]:
        """Return the values of a trial that the study holds."""
        return {one.name: one.decode(params[one.name]) for one in self.dimensions if one.name in params}

    def encode(self, config: Config) -> dict[str, Plain]:
        """Return what `config` itself says of the settings, as far as it is in the space."""
        completed, plain = self.build_config(config, {}), dict[str, Plain]()
        for dimension in self.dimensions:
            plain |= dimension.encode(_read(completed, dimension.name))
        return plain

    def build_config(self, config: Config, values: Mapping[str, Any]) -> Config:
        """Return the settings of a trial, complete.

        What is not varied is as in a run without a search: where the learning rate is varied, the head keeps the rate
        that the method has for it.

        Args:
            config: What all trials share. Where methods are varied, each takes what it knows of the method section.
            values: By dotted name. Where methods are varied, those that the method does not take are passed over.

        Returns:
            The settings, without the space.

        Raises:
            ConfigError: A value cannot be used.
        """
        base, rest = config.model_copy(deep=True), dict(values)
        base.search = SearchConfig()
        if any(dimension.name == _METHOD for dimension in self.dimensions):
            name = rest.pop(_METHOD, base.method.name)
            base.method = select_settings(base.method, name)
            rest = {key: value for key, value in rest.items() if _takes(name, key)}
        return complete_settings(override_config(complete_settings(base), rest))

    def describe(self) -> dict[str, Any]:
        """Return the space as plain values, for records."""
        return {
            one.name: list(one.values) if isinstance(one.values, tuple) else one.values.model_dump()
            for one in self.dimensions
        }


def _takes(method: str, setting: str) -> bool:
    """Return whether a setting, by its dotted name, means something to a method."""
    section, _, name = setting.partition(".")
    if section != "method":
        return True
    row = find_method(method)
    return row.takes_layers if name == "layers" else name in row.defaults


def read_space(config: Config) -> Space:
    """Check the space of the settings, or build the method's own where there is none.

    Args:
        config: The settings.

    Returns:
        The space.

    Raises:
        ConfigError: A setting is unknown, cannot be searched, belongs to no method here, or a value is not allowed.
    """
    asked = config.search.space or _build_default(config)
    space = Space(tuple(_read_dimension(config, name, values) for name, values in asked.items()))
    varied = next((one.values for one in space.dimensions if one.name == _METHOD), None)
    methods = varied if isinstance(varied, tuple) else (config.method.name,)
    has_options = config.method.options or any(one.name.startswith("method.options") for one in space.dimensions)
    if varied is not None and has_options:
        raise ConfigError("method.options: they belong to one method and cannot be shared by those of the space.")
    for one in space.dimensions:
        if one.name != _METHOD:
            _check_with_methods(config, space, one, [] if varied is None else methods)
    return space


def _check_with_methods(config: Config, space: Space, dimension: Dimension, methods: Sequence[str]) -> None:
    """Refuse a setting that no method takes, and a value with which no settings of a trial can be made."""
    takers = [{_METHOD: name} for name in methods if _takes(name, dimension.name)] if methods else [{}]
    if not takers:
        raise ConfigError(f"search.space.{dimension.name}: no such setting has {' or '.join(methods)}.")
    for value in dimension.ends:
        faults = []
        for taker in takers:
            try:
                space.build_config(config, {**taker, dimension.name: value})
            except ConfigError as error:
                faults.append(error)
        if len(faults) == len(takers):
            raise ConfigError(f"search.space.{dimension.name}: {value!r} cannot be used.\n{faults[0]}") from faults[0]


def _build_default(config: Config) -> dict[str, list[Any] | SearchRange]:
    """Return learning rate and epochs, and of rank and adapted linear layers those that the method has.

    What the settings say themselves is among the values; layers that they name, and epochs where steps are limited, are
    left as they are.
    """
    completed = complete_settings(config)
    if completed.training.learning_rate is None:
        title = find_method(config.method.name).title
        raise ConfigError(f"method.name={config.method.name}: {title} have nothing to search, as they are solved for.")
    rate, r, training = completed.training.peak_learning_rate, completed.method.r, config.training
    space: dict[str, list[Any] | SearchRange] = {
        "training.learning_rate": SearchRange(low=rate / 4, high=rate * 4, log=True)
    }
    if training.max_steps is None:
        space["training.epochs"] = SearchRange(low=1, high=max(3, training.epoch_count))
    if r is not None:
        space["method.r"] = sorted({4, 8, 16, 32, r})
    if config.method.target_modules is None and completed.method.target_modules == "all-linear":
        space["method.target_modules"] = ["query-value", "all-linear"]
    return space


def _read_dimension(config: Config, name: str, values: list[Any] | SearchRange) -> Dimension:
    """Check a setting with each of its values, or with the ends of its range."""
    if name in _CLOSED:
        raise ConfigError(f"search.space.{name}: it cannot be searched, since {_CLOSED[name]}.")
    if not name.startswith(_OPEN):
        raise ConfigError(
            f"search.space.{name}: it cannot be searched; settings of the method and training sections can, and "
            "model.max_length, model.truncation and model.window_stride."
        )
    read: list[Any] = []
    for value in values if isinstance(values, list) else [values.low, values.high]:
        try:
            taken = _read(override_config(config, {name: value}), name)
        except ConfigError as error:
            raise ConfigError(f"search.space.{name}: {value!r} cannot be used.\n{error}") from error
        if name == _METHOD:
            find_method(taken)
        if taken not in read:
            read.append(taken)
    if isinstance(values, list):
        return Dimension(name, tuple(read))
    if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in read):
        raise ConfigError(f"search.space.{name}: it takes no numbers; give a list of values.")
    return Dimension(name, values, whole=all(isinstance(value, int) for value in read))


def _read(config: Config, name: str) -> Any:  # noqa: ANN401 - settings are of several types
    value: Any = config
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else getattr(value, part, None)
    return value


def _write(value: object) -> Plain:
    """Return a value as a study can hold it: lists and the like as YAML."""
    if value is None or isinstance(value, str | int | float | bool):
        return value
    return str(yaml.safe_dump(value, default_flow_style=True)).strip()
