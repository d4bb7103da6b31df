"""Optional dependencies: import them, or name the exact pip line."""

import importlib
import importlib.util
from types import ModuleType

from lorafit.errors import MissingExtraError

EXTRAS: dict[str, tuple[str, ...]] = {
    "train": ("torch", "transformers", "peft", "accelerate", "datasets", "pyarrow", "sklearn", "scipy", "jinja2"),
    "check": ("cleanlab", "ftfy", "py3langid", "rensa"),
    "tables": ("openpyxl", "zstandard"),
    "search": ("filelock", "optuna"),
    "report": ("matplotlib",),
    "onnx": ("onnxruntime",),
    "export": ("onnx", "onnxruntime", "onnxscript"),
    "track": ("tensorboard", "mlflow", "sqlalchemy", "alembic"),
}
"""Modules that each extra brings, by the extra's name in `pyproject.toml`."""


def install_line(extra: str) -> str:
    """Return the command that installs `extra`."""
    return f"pip install 'lorafit[{extra}]'"


def missing_modules(extra: str) -> list[str]:
    """Return the modules of `extra` that are not installed, without importing any."""
    return [name for name in EXTRAS[extra] if importlib.util.find_spec(name) is None]


def require(module: str, *, extra: str, purpose: str) -> ModuleType:
    """Import and return `module`, which `extra` brings.

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
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        root = module.partition(".")[0]
        if error.name is not None and error.name.partition(".")[0] != root:
            raise
        raise MissingExtraError(
            f"{purpose} needs the package '{root}', which is not installed. Install it with:\n  {install_line(extra)}"
        ) from error
