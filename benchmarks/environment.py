"""What every benchmark says about the machine and the versions it ran on."""

import datetime
from importlib.metadata import version

from lorafit.system import hardware

__all__ = ["describe_environment"]


def describe_environment() -> dict[str, str | int]:
    """Return date, CPU, cores, memory and the versions of the libraries that matter."""
    packages = ("lorafit", "torch", "transformers", "peft", "tokenizers", "numpy")
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "cpu": hardware.cpu_name(),
        "cores": hardware.available_cores(),
        "memory_gb": round(hardware.memory_bytes() / 1e9),
        **{name: version(name) for name in packages},
    }
