"""Optional dependencies: import them, or name the exact pip line. None of them reports about its use."""

import importlib
import importlib.util
import json
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from urllib.parse import urlsplit

from lorafit.errors import MissingExtraError
from lorafit.system.variables import defaults

EXTRAS: dict[str, tuple[str, ...]] = {
    "train": (
        "torch",
        "transformers",
        "peft",
        "accelerate",
        "datasets",
        "psutil",
        "pyarrow",
        "sklearn",
        "scipy",
        "jinja2",
    ),
    "check": ("cleanlab", "ftfy", "py3langid", "rensa"),
    "tables": ("openpyxl", "zstandard"),
    "search": ("optuna",),
    "report": ("matplotlib",),
    "onnx": ("onnxruntime", "mmh3"),
    "openvino": ("openvino", "mmh3"),
    "serve": ("fastapi", "httptools", "uvicorn", "prometheus_client"),
    "export": ("onnx", "onnxruntime", "onnxscript"),
    "cluster": ("ray", "aiohttp", "psycopg"),
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

_REPORTERS = {"openvino": "openvino_telemetry"}
"""Packages that do nothing but report, and that no variable stops, by the package that works without them as well."""


def install_line(extra: str, *, shared: bool = False) -> str:
    """Return the command that installs an extra from where lorafit itself came from.

    Args:
        extra: A key of `EXTRAS`.
        shared: Whether others will read it: it names no folder of this machine, but is typed in the checkout or beside
            the wheel.

    Returns:
        The line for a checkout, a file, an address or, where none of them is recorded, the package index.
    """
    from importlib.metadata import PackageNotFoundError, distribution  # with it comes the library of e-mail

    try:
        recorded = distribution("lorafit").read_text("direct_url.json")
    except PackageNotFoundError:
        recorded = None
    origin = json.loads(recorded or "{}")
    url = origin.get("url", "")
    if url.startswith("file:"):
        from urllib.request import url2pathname  # which takes a cold start's time: it brings http and ssl

        place = Path(url2pathname(urlsplit(url).path))
        option = "-e " if origin.get("dir_info", {}).get("editable") else ""
        here = f"./{place.name}" if "archive_info" in origin else "."
        return f"pip install {option}{shlex.quote(f'{here if shared else place}[{extra}]')}"
    if url:
        source = origin.get("vcs_info", {})
        address = f"{source['vcs']}+{url}@{source['commit_id']}" if source else url
        return f"pip install {shlex.quote(f'lorafit[{extra}] @ {address}')}"
    return f"pip install {shlex.quote(f'lorafit[{extra}]')}"


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
    if module in _REPORTERS:
        sys.modules.setdefault(_REPORTERS[module], None)  # type: ignore[arg-type]  # None: it cannot be imported
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
    with defaults(TELEMETRY):
        yield
