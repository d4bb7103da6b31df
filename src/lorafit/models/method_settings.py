"""The settings of a method: its own defaults where none are given, and what it does not take."""

from lorafit.config import Config, MethodConfig
from lorafit.errors import ConfigError
from lorafit.models.methods import find_method

_DECIDED = {
    *("task_type", "peft_type", "target_modules", "modules_to_save", "inference_mode", "base_model_name_or_path"),
    *("r", "lora_alpha", "lora_dropout", "alpha", "randlora_alpha", "init_r", "target_r", "num_virtual_tokens"),
    *("total_step", "tinit", "tfinal", "boft_n_butterfly_factor"),
}
"""Arguments of PEFT's configs that are not for options to set."""

_SETTINGS = tuple(
    name for name, setting in MethodConfig.model_fields.items() if setting.default is None and name != "name"
)
"""Settings of the method section whose default is the method's own."""


def complete_method(config: MethodConfig) -> MethodConfig:
    """Fill in the method's own defaults.

    Args:
        config: The method section.

    Returns:
        The same with every setting that the method takes.

    Raises:
        ConfigError: The method is unknown, or does not take a setting that was given; those it takes are named.
    """
    method = find_method(config.name)
    values = {}
    for name in _SETTINGS:
        given = getattr(config, name)
        if given is not None and name not in method.defaults:
            takes = ", ".join(sorted(method.defaults)) or "none of its own"
            raise ConfigError(f"method.{name}: {method.title} has no such setting (settings it takes: {takes}).")
        values[name] = method.defaults.get(name) if given is None else given
    if config.layers != "all" and not method.takes_layers:
        raise ConfigError(f"method.layers={config.layers}: {method.title} is not put on layers; leave it at all.")
    if config.options and method.build is None:
        raise ConfigError(f"method.options: {method.title} has no options, since PEFT takes no part in it.")
    if decided := sorted(_DECIDED & set(config.options)):
        raise ConfigError(f"method.options: {', '.join(decided)} cannot be set there; lorafit sets it itself.")
    return config.model_copy(update=values)


def select_settings(config: MethodConfig, name: str) -> MethodConfig:
    """Return the method section with another method, and of the settings those that it takes.

    Args:
        config: The method section.
        name: The other method.

    Returns:
        The section, without options: they belong to one method.
    """
    method, asked = find_method(name), config.model_dump()
    taken = {setting: asked[setting] for setting in method.defaults}
    return MethodConfig(name=name, layers=config.layers if method.takes_layers else "all", **taken)


def complete_settings(config: Config) -> Config:
    """Fill in the method's own defaults, learning rates included.

    Args:
        config: All settings.

    Returns:
        The same with every setting that the method takes.
    """
    method = find_method(config.method.name)
    completed = config.model_copy(deep=True)
    completed.method = complete_method(config.method)
    if method.optimizer == "lora_fa" and config.training.head_learning_rate is not None:
        raise ConfigError(f"training.head_learning_rate: {method.title} has one learning rate for adapter and head.")
    training = completed.training
    if training.learning_rate is None:
        training.learning_rate = method.learning_rate
        training.head_learning_rate = training.head_learning_rate or method.head_learning_rate
    return completed
