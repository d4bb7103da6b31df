"""Optional dependencies: import them, or name the exact pip line. None of them reports about its use."""

import importlib
import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from lorafit.errors import MissingExtraError

EXTRAS: dict[str, tuple[str, ...]] = {
    "train": ("torch", "transformers", "peft", "accelerate", "datasets", "pyarrow", "sklearn", "scipy", "jinja2"),
    "check": ("cleanlab", "ftfy", "py3langid", "rensa"),
    "tables": ("openpyxl", "zstandard"),
    "search": ("optuna",),
    "report": ("matplotlib",),
    "onnx": ("onnxruntime",),
    "export": ("onnx", "onnxruntime", "onnxscript"),
    "track": ("tensorboard", "mlflow", "sqlalchemy", "alembic"),
}
"""Modules that each extra brings, by the extra's name in `pyproject.toml`."""


TELEMETRY = {
    "ORT_DISABLE_TELEMETRY": "1",  # onnxruntime: a device id below the home folder, and events
    "HF_HUB_DISABLE_TELEMETRY": "1",  # huggingface_hub, and with it transformers, datasets and peft
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "RAY_USAGE_STATS_ENABLED": "0",
}
"""Variables by which packages are told to report nothing about their use; Optuna and torch report nothing."""


def install_line(extra: str) -> str:
    """Return the command that installs `extra`."""
    return f"pip install 'lorafit[{extra}]'"


def missing_modules(extra: str) -> list[str]:
    """Return the modules of `extra` that are not installed, without importing any."""
    return [name for name in EXTRAS[extra] if importlib.util.find_spec(name) is None]


def require(module: str, *, extra: str, purpose: str) -> ModuleType:
    """Import and return `module`, which `extra` brings, without its telemetry.

    Args:
        module: Dotted name of the module to import.
        extra: The extra that installs it, a key of `EXTRAS`.
        purpose: What it is needed for, as the subject of a sentence ("reading parquet files").

    Returns:
        The imported module.

    Raises:
        MissingExtraError: It is not installed; the message gives the pip line.
    """
    try:
        with without_telemetry():
            return importlib.import_module(module)
    except ModuleNotFoundError as error:
        root = module.partition(".")[0]
        if error.name is not None and error.name.partition(".")[0] != root:
            raise
        raise MissingExtraError(
            f"{purpose} needs the package '{root}', which is not installed. Install it with:\n  {install_line(extra)}"
        ) from error


@contextmanager
def without_telemetry() -> Iterator[None]:
    """Let packages inside the block report nothing, unless the user has set their variable, as it may be, before.

    Those that are imported inside keep to it; the variables are as before afterwards.
    """
    added = [name for name in TELEMETRY if name not in os.environ]
    os.environ.update({name: TELEMETRY[name] for name in added})
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)
