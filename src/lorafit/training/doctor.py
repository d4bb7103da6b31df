"""What `lorafit doctor` finds: packages, processor, disk, network, and the problems among them."""

import os
import platform
import re
import shutil
import threading
import urllib.error
import urllib.request
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, computed_field

from lorafit.models.acceleration.precision import PrecisionChoice, choose_device, choose_precision
from lorafit.models.cache import cache_folder
from lorafit.system import assets, extras, hardware
from lorafit.system.atomic import describe_obstacle
from lorafit.system.paths import expand_home
from lorafit.system.variables import describe_waiting

HUB_TIMEOUT_SECONDS = 3.0
NEEDED_DISK_BYTES = 500_000_000
"""Room for the converted base model and one run."""

_FEATURES = {
    "x86_64": ("avx2", "avx512_f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8"),
    "aarch64": ("neon", "bf16", "i8mm", "sve"),
}
_LINUX_NAMES = {"avx512_f": "avx512f", "neon": "asimd"}
_ARCHITECTURES = {"AMD64": "x86_64", "arm64": "aarch64"}


class Finding(BaseModel):
    """A part of the diagnosis."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True)


class Problem(Finding):
    """Something that keeps `lorafit demo` from running, and its remedy."""

    what: str
    remedy: str


class Package(Finding):
    """A package that lorafit needs.

    Attributes:
        name: Its name on the package index.
        wanted: The versions required, as pip writes them.
        extra: The extra that installs it, or None for the core.
        installed: The version found, or None.
        fits: Whether that version satisfies `wanted`.
    """

    name: str
    wanted: str
    extra: str | None
    installed: str | None
    fits: bool


class Processor(Finding):
    """The CPU, and what this process may use of it.

    Attributes:
        name: The vendor's name.
        cores: Cores available under affinity and control groups.
        threads: Threads that torch uses by default, or None without torch.
        waiting: From `describe_waiting`.
        features: Instruction sets that matter for speed, and whether they are available.
    """

    name: str
    cores: int
    threads: int | None
    waiting: str | None
    features: dict[str, bool]


class CarrierReport(Finding):
    """A wheel that carries a built-in asset."""

    asset: str
    state: Literal["ok", "missing", "altered"]
    detail: str


class Hub(Finding):
    """Whether the Hugging Face Hub answers."""

    endpoint: str
    state: Literal["reachable", "unreachable", "offline", "not asked"]
    detail: str


class Folder(Finding):
    """A folder that lorafit uses.

    Attributes:
        path: The folder, or None where its variable is not set.
        state: What was found there.
        free_bytes: Free space on its disk, or None where that does not matter.
    """

    path: Path | None
    state: str
    free_bytes: int | None = None


class Diagnosis(Finding):
    """Everything that `diagnose` found."""

    lorafit: str | None
    python: str
    system: str
    packages: list[Package]
    processor: Processor
    memory_bytes: int
    precision: PrecisionChoice | None
    carriers: list[CarrierReport]
    hub: Hub
    data: Folder
    cache: Folder
    problems: list[Problem]

    @computed_field  # type: ignore[prop-decorator]  # mypy does not know decorated properties; pydantic documents this
    @property
    def ready(self) -> bool:
        """Whether everything that `lorafit demo` needs is there."""
        return not self.problems


def diagnose(*, ask_network: bool = True) -> Diagnosis:
    """Inspect this machine without changing anything.

    Args:
        ask_network: Whether to try to reach the Hub (at most 3 seconds).

    Returns:
        What was found.
    """
    packages = _find_packages()
    torch_fault = _try_torch()
    found = {name: assets.check_carrier(name) for name in assets.CARRIERS}
    reports = [CarrierReport(asset=f"builtin:{name}", state=it.state, detail=it.detail) for name, it in found.items()]
    cache = _inspect_cache()
    return Diagnosis(
        lorafit=_installed_version("lorafit"),
        python=platform.python_version(),
        system=platform.platform(),
        packages=packages,
        processor=_inspect_processor(with_torch=torch_fault is None),
        memory_bytes=hardware.memory_bytes(),
        precision=choose_precision("auto", choose_device("auto")) if torch_fault is None else None,
        carriers=reports,
        hub=_inspect_hub(ask=ask_network),
        data=_inspect_data(),
        cache=cache,
        problems=[*_find_package_problems(packages, torch_fault), *_find_asset_problems(reports, cache)],
    )


def _find_packages() -> list[Package]:
    """Return the requirements in lorafit's own metadata, core first."""
    try:
        requirements = requires("lorafit") or []
    except PackageNotFoundError:
        return []
    packages = [_read_requirement(text) for text in requirements]
    return sorted(packages, key=lambda package: (package.extra or "", package.name))


def _read_requirement(text: str) -> Package:
    """Parse a requirement such as `torch>=2.13; extra == 'train'` or `ray[data]>=2.60`."""
    requirement, _, marker = text.partition(";")
    label = re.split(r"[^A-Za-z0-9._-]", requirement.strip(), maxsplit=1)[0]
    wanted = re.sub(r"^\s*[A-Za-z0-9._-]+\s*(\[.*?\])?", "", requirement).strip()
    extra = re.search(r"extra == ['\"]([^'\"]+)['\"]", marker)
    installed = _installed_version(label)
    return Package(
        name=label,
        wanted=wanted,
        extra=extra.group(1) if extra else None,
        installed=installed,
        fits=installed is not None and _is_wanted(installed, wanted),
    )


def _is_wanted(installed: str, wanted: str) -> bool:
    """Check a version against a specifier; without `packaging`, which the extra installs, any version passes."""
    try:
        from packaging.specifiers import SpecifierSet
    except ModuleNotFoundError:
        return True
    return SpecifierSet(wanted).contains(installed, prereleases=True)


def _installed_version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _try_torch() -> str | None:
    """Import torch; return None if that works, else the reason."""
    if extras.missing_modules("train"):
        return "not installed"
    try:
        import torch  # noqa: F401 - only to see whether it loads
    except (ImportError, OSError, RuntimeError) as error:
        return str(error)
    return None


def _inspect_processor(*, with_torch: bool) -> Processor:
    machine = platform.machine()
    features = _FEATURES.get(_ARCHITECTURES.get(machine, machine), ())
    if with_torch:
        import torch

        capabilities = torch.cpu.get_capabilities()
        found = {name: bool(capabilities.get(name)) for name in features}
    else:
        flags = hardware.cpu_flags()
        found = {name: _LINUX_NAMES.get(name, name) in flags for name in features}
    return Processor(
        name=hardware.cpu_name(),
        cores=hardware.available_cores(),
        threads=torch.get_num_threads() if with_torch else None,
        waiting=describe_waiting(),
        features=found,
    )


def _inspect_hub(*, ask: bool) -> Hub:
    endpoint = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    for variable in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        if os.environ.get(variable, "").upper() in {"1", "ON", "YES", "TRUE"}:
            return Hub(endpoint=endpoint, state="offline", detail=f"{variable} is set")
    if not ask:
        return Hub(endpoint=endpoint, state="not asked", detail="asked not to use the network")
    fault = _ask(endpoint)
    return Hub(endpoint=endpoint, state="unreachable" if fault else "reachable", detail=fault or "it answers")


def _ask(endpoint: str) -> str | None:
    """Return None if an address answers within the time limit, else the reason."""
    faults = [f"no answer within {HUB_TIMEOUT_SECONDS:g} s"]

    def ask() -> None:
        try:
            request = urllib.request.Request(endpoint, method="HEAD")  # noqa: S310 - the Hub's address or the user's own
            urllib.request.urlopen(request, timeout=HUB_TIMEOUT_SECONDS).close()  # noqa: S310 - the same
        except urllib.error.HTTPError as error:
            error.close()
        except (OSError, ValueError) as error:
            faults.append(str(getattr(error, "reason", error)))
            return
        faults.clear()

    thread = threading.Thread(target=ask, daemon=True)  # a name lookup has no timeout of its own
    thread.start()
    thread.join(HUB_TIMEOUT_SECONDS)
    return faults[-1] if faults else None


def _inspect_data() -> Folder:
    variable = os.environ.get("LORAFIT_DATA")
    if not variable:
        return Folder(path=None, state="not set: imdb comes from the Hub")
    folder = expand_home(variable).resolve()
    forms = {
        "parquet files": ("imdb/train.parquet", "imdb/test.parquet"),
        "the folder aclImdb": ("imdb/aclImdb/train", "imdb/aclImdb/test"),
        "aclImdb_v1.tar.gz": ("imdb/aclImdb_v1.tar.gz",),
    }
    for form, names in forms.items():
        if all((folder / name).exists() for name in names):
            return Folder(path=folder, state=f"imdb is there ({form})")
    return Folder(path=folder, state="no imdb in it" if folder.is_dir() else "there is no such folder")


def _inspect_cache() -> Folder:
    """Inspect the cache or, before it exists, the folder in which it will be created."""
    folder = cache_folder()
    present = next(path for path in (folder, *folder.parents) if path.exists())
    state = "not writable" if describe_obstacle(folder) else "there" if present == folder else "not there yet"
    return Folder(path=folder, state=state, free_bytes=shutil.disk_usage(present).free)


def _find_package_problems(packages: list[Package], torch_fault: str | None) -> list[Problem]:
    problems = []
    if missing := extras.missing_modules("train"):
        what = f"The extra 'train' is not complete: {', '.join(missing)} not installed."
        problems.append(Problem(what=what, remedy=extras.install_line("train")))
    elif torch_fault is not None:
        remedy = "pip install --force-reinstall torch --extra-index-url https://download.pytorch.org/whl/cpu"
        problems.append(Problem(what=f"torch is installed but does not load: {torch_fault}.", remedy=remedy))
    for package in packages:
        if package.installed is not None and not package.fits:
            what = f"{package.name} {package.installed} is installed; lorafit needs {package.wanted}."
            problems.append(Problem(what=what, remedy=f"pip install '{package.name}{package.wanted}'"))
    return problems


def _find_asset_problems(reports: list[CarrierReport], cache: Folder) -> list[Problem]:
    problems = []
    if unfit := [report for report in reports if report.state != "ok"]:
        what = "; ".join(f"{report.asset} is {report.state}: {report.detail}" for report in unfit)
        problems.append(Problem(what=f"{what}.", remedy=assets.install_line()))
    if cache.state == "not writable":
        remedy = "Set LORAFIT_CACHE to a folder that you may write to."
        problems.append(Problem(what=f"The cache folder {cache.path} is not writable.", remedy=remedy))
    elif cache.free_bytes is not None and cache.free_bytes < NEEDED_DISK_BYTES:
        free, needed = cache.free_bytes // 1_000_000, NEEDED_DISK_BYTES // 1_000_000
        what = f"The disk of the cache folder {cache.path} has {free} MB left; {needed} MB are needed."
        remedy = "Make room, or set LORAFIT_CACHE to a folder on another disk."
        problems.append(Problem(what=what, remedy=remedy))
    return problems
