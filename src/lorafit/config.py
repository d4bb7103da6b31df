"""The settings of a run: checked all at once, read from YAML and written back resolved."""

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from lorafit.errors import ConfigError
from lorafit.settings import (
    DataConfig,
    EvaluationConfig,
    MethodConfig,
    ModelConfig,
    SearchConfig,
    Section,
    TargetGroup,
    TrainingConfig,
)

__all__ = ["Config", "load_config", "override_config"]


class Config(Section):
    """Everything that decides a run."""

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    method: MethodConfig = MethodConfig()
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    search: SearchConfig = SearchConfig()

    def wants_prefix_cache(self, *, steps_per_epoch: int, frozen: int, again: bool = False) -> bool:
        """Return whether to keep what the `frozen` lowest layers give: there are some, and it is read again.

        `again` says that later runs will read it, too.
        """
        training = self.training
        repeats = (training.max_steps or training.epochs * steps_per_epoch) > steps_per_epoch
        pays = training.prefix_cache == "shared" or (training.prefix_cache == "auto" and (repeats or again))
        return pays and frozen > 0

    def to_yaml(self) -> str:
        """Return all settings, defaults included, as YAML that `load_config` reads back; without an empty search."""
        is_plain = self.search == SearchConfig()
        values = self.model_dump(mode="json", exclude={"search"} if is_plain else None)
        return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def load_config(
    path: Path | None = None,
    *,
    flags: Mapping[str, Any] | None = None,
    overrides: Iterable[str] = (),
) -> Config:
    """Put the settings together: defaults, then the file, then the flags, then the overrides.

    Args:
        path: YAML file with any of the sections of `Config`, or None.
        flags: Dotted key to value; a value of None means that the flag was not given.
        overrides: Texts of the form `section.key=value`, the value in YAML.

    Returns:
        The checked settings.

    Raises:
        ConfigError: The file cannot be read, or settings are unknown or out of range; all faults are listed.
    """
    values = _read_yaml(path) if path is not None else {}
    for key, value in (flags or {}).items():
        if value is not None:
            _set_dotted(values, key, value)
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator or not key.strip():
            raise ConfigError(f"--set takes section.key=value, got {override!r}. Example: --set training.epochs=2")
        _set_dotted(values, key.strip(), _parse_value(text, override))
    return _check(values, origin=str(path) if path else None)


def override_config(config: Config, values: Mapping[str, Any]) -> Config:
    """Change settings by their dotted names.

    Args:
        config: The settings; they stay as they are.
        values: Dotted key to value.

    Returns:
        The checked settings.

    Raises:
        ConfigError: Settings are unknown or out of range; all faults are listed.
    """
    changed = config.model_dump()
    for key, value in values.items():
        _set_dotted(changed, key, value)
    return _check(changed)


def _check(values: dict[str, Any], *, origin: str | None = None) -> Config:
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise ConfigError(_describe(error, origin=origin)) from error


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"Cannot read the config file {path}: {error.strerror}.") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"The config file {path} is not valid YAML: {error}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(
            f"The config file {path} must hold sections ({', '.join(Config.model_fields)}), "
            f"got {type(values).__name__}."
        )
    return {name: {} if section is None else section for name, section in values.items()}


def _parse_value(text: str, override: str) -> Any:  # noqa: ANN401 - YAML may hold any type; pydantic checks it
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {override!r}: the value is not valid YAML.") from error


def _set_dotted(values: dict[str, Any], key: str, value: object) -> None:
    *sections, last = key.split(".")
    for section in sections:
        inner = values.setdefault(section, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"{key}: {section} holds a value, not a section.")
        values = inner
    values[last] = value


def _describe(error: ValidationError, *, origin: str | None) -> str:
    lines = (
        [f"{len(faults)} setting(s) cannot be used" + (f" ({origin} and flags)" if origin else "") + ":"]
        if (faults := _faults(error))
        else []
    )
    return "\n".join(lines + [f"  {fault}" for fault in faults])


def _faults(error: ValidationError) -> list[str]:
    faults: dict[str, str] = {}
    for fault in error.errors():
        location = [str(part) for part in fault["loc"]]
        if location[:2] == ["method", "target_modules"]:
            groups = ", ".join(get_args(TargetGroup))
            faults["method.target_modules"] = f"got {fault['input']!r}; allowed: {groups}, or a list of module names"
        elif fault["type"] == "extra_forbidden":
            faults[".".join(location)] = f"unknown setting{_suggest(location)}"
        else:
            faults[".".join(location)] = f"{fault['msg']}, got {fault['input']!r}"
    return [f"{key}: {text}" for key, text in faults.items()]


def _suggest(location: list[str]) -> str:
    section: type[BaseModel] = Config
    for name in location[:-1]:
        annotation = section.model_fields[name].annotation
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return ""
        section = annotation
    allowed = list(section.model_fields)
    nearest = difflib.get_close_matches(location[-1], allowed, n=1)
    if nearest:
        return f"; did you mean {'.'.join([*location[:-1], nearest[0]])}?"
    home = [name for name, field in Config.model_fields.items() if location[-1] in _fields_of(field.annotation)]
    if home:
        return f"; did you mean {home[0]}.{location[-1]}?"
    return f"; allowed here: {', '.join(allowed)}"


def _fields_of(annotation: object) -> Iterable[str]:
    return annotation.model_fields if isinstance(annotation, type) and issubclass(annotation, BaseModel) else ()
