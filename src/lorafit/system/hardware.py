"""The machine as this process may use it: what affinity and control groups leave of its cores and memory."""

import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path

from lorafit.errors import UserInputError

SYSTEM_ROOT = Path("/")

_threads: ContextVar[int | None] = ContextVar("threads that models are to take", default=None)


def cpu_name(root: Path = SYSTEM_ROOT) -> str:
    """Return the processor's name as its maker writes it, or its architecture where the system does not tell.

    Args:
        root: Where `proc` lies.

    Returns:
        The name, never empty.
    """
    return _cpuinfo(root, "model name") or platform.processor() or platform.machine() or "unknown"


def cpu_flags(root: Path = SYSTEM_ROOT) -> frozenset[str]:
    """Return the processor's features as Linux names them; empty elsewhere.

    Args:
        root: Where `proc` lies.

    Returns:
        Names such as `avx2` and `avx512_bf16` (x86), or `asimd` and `bf16` (ARM).
    """
    return frozenset((_cpuinfo(root, "flags") or _cpuinfo(root, "features")).split())


def available_cores(root: Path = SYSTEM_ROOT) -> int:
    """Count the cores that this process may use.

    The affinity mask counts, and below it the CPU quota of the control group, rounded down: more threads than the quota
    pays for would be stopped in turn while the others wait for them.

    Args:
        root: Where `proc` and `sys` lie.

    Returns:
        At least 1.
    """
    allowed = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    quota = cpu_quota(root)
    return allowed if quota is None else max(1, min(allowed, int(quota)))


@contextmanager
def use_threads(count: int | None) -> Iterator[None]:
    """Let models that are opened inside the block take so many threads, whatever the machine leaves.

    Args:
        count: Threads; None changes nothing.

    Yields:
        Nothing.

    Raises:
        UserInputError: There are fewer than 1.
    """
    if count is not None and count < 1:
        raise UserInputError(f"At least 1 thread is needed, got {count}.")
    token = _threads.set(count or _threads.get())
    try:
        yield
    finally:
        _threads.reset(token)


def choose_threads(usual: int | None = None, root: Path = SYSTEM_ROOT) -> int:
    """Return how many threads a model is to take.

    Args:
        usual: What its runtime takes by itself; None for `OMP_NUM_THREADS`, else all cores.
        root: Where `proc` and `sys` lie.

    Returns:
        What `use_threads` says; else `usual`, and never more than `available_cores`.
    """
    if (wanted := _threads.get()) is not None:
        return wanted
    cores = available_cores(root)
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    usual = usual or (int(first) if first.isdecimal() else 0)
    return min(usual or cores, cores)


def memory_bytes(root: Path = SYSTEM_ROOT) -> int:
    """Return the memory that this process may use: the machine's, or less where the control group says so.

    Args:
        root: Where `proc` and `sys` lie.

    Returns:
        Bytes; 0 where the system does not tell (Windows).
    """
    physical, limit = _physical_bytes(), memory_limit(root)
    return physical if limit is None else min(physical, limit)


def reset_peak_memory() -> None:
    """Let `peak_memory_bytes` count from now on: Linux can (proc(5), `clear_refs`), elsewhere nothing happens."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_memory_bytes(root: Path = SYSTEM_ROOT) -> int:
    """Return the largest resident memory that this process has had.

    Linux writes it to `/proc/self/status`; what `getrusage` says there may be the peak of the process that started
    this one.

    Args:
        root: Where `proc` lies.

    Returns:
        Bytes; 0 where the system does not tell (Windows).
    """
    for line in _read(root / "proc" / "self" / "status").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    try:
        import resource
    except ModuleNotFoundError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def cpu_quota(root: Path = SYSTEM_ROOT) -> float | None:
    """Return the tightest CPU quota of this process's control groups, in cores, or None without one.

    Args:
        root: Where `proc` and `sys` lie.

    Returns:
        Cores, fractions included; None without a quota.
    """
    quotas = [_v2_quota(folder) for folder in _v2_folders(root)]
    quotas += [_v1_quota(folder) for folder in _v1_folders(root, "cpu")]
    return min((quota for quota in quotas if quota is not None), default=None)


def memory_limit(root: Path = SYSTEM_ROOT) -> int | None:
    """Return the tightest memory limit of this process's control groups, or None without one.

    Args:
        root: Where `proc` and `sys` lie.

    Returns:
        Bytes. Version 1 writes "no limit" as a number far above any memory; it is returned as it stands.
    """
    files = [folder / "memory.max" for folder in _v2_folders(root)]
    files += [folder / "memory.limit_in_bytes" for folder in _v1_folders(root, "memory")]
    return min((int(text) for file in files if (text := _read(file).strip()).isdecimal()), default=None)


def memory_room(root: Path = SYSTEM_ROOT) -> int | None:
    """Return how much more memory this process may take before something refuses it or kills the process.

    What limits it is the machine's memory, that of its control groups, whose other processes count, too, and the limit
    of its address space (`ulimit -v`). What other programs on the machine take now is left out: it comes and goes.

    Args:
        root: Where `proc` and `sys` lie.

    Returns:
        Bytes, at least 0; None where the system does not tell.
    """
    status = {line.partition(":")[0]: line.split()[1:2] for line in _read(root / "proc/self/status").splitlines()}
    size, resident = (int(status.get(name, ["0"])[0]) * 1024 for name in ("VmSize", "VmRSS"))
    physical = _physical_bytes()
    rooms: list[int | None] = [physical - resident] if physical else []
    rooms += [_room_in_group(folder, "memory.max", "memory.current", "inactive_file") for folder in _v2_folders(root)]
    v1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    rooms += [_room_in_group(folder, *v1) for folder in _v1_folders(root, "memory")]
    with suppress(ModuleNotFoundError):
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        rooms += [limit - size] if limit != resource.RLIM_INFINITY else []
    known = [room for room in rooms if room is not None]
    return max(0, min(known)) if known else None


def _physical_bytes() -> int:
    """Return the memory of the machine; 0 where the system does not tell."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0


def _room_in_group(folder: Path, limit: str, usage: str, reclaimable: str) -> int | None:
    """Return what a control group's limit leaves, file pages that can be dropped included; None without a limit."""
    most, used = _read(folder / limit).strip(), _read(folder / usage).strip()
    if not (most.isdecimal() and used.isdecimal()):
        return None
    pages = dict(line.split() for line in _read(folder / "memory.stat").splitlines() if len(line.split()) == 2)
    return int(most) - int(used) + int(pages.get(reclaimable, 0))


def _cpuinfo(root: Path, name: str) -> str:
    """Return the first value of a key of `/proc/cpuinfo`, or nothing."""
    for line in _read(root / "proc" / "cpuinfo").splitlines():
        key, _, value = line.partition(":")
        if key.strip().lower() == name:
            return value.strip()
    return ""


def _v2_quota(folder: Path) -> float | None:
    quota, _, period = _read(folder / "cpu.max").strip().partition(" ")
    return int(quota) / int(period or 100_000) if quota.isdecimal() else None


def _v1_quota(folder: Path) -> float | None:
    quota = _read(folder / "cpu.cfs_quota_us").strip()
    period = _read(folder / "cpu.cfs_period_us").strip()
    return int(quota) / int(period) if quota.isdecimal() and period.isdecimal() else None


def _v2_folders(root: Path) -> list[Path]:
    """Return the process's control group and its parents in the unified hierarchy (version 2)."""
    for _, controllers, path in _memberships(root):
        if not controllers:
            return _with_parents(root / "sys" / "fs" / "cgroup", path)
    return []


def _v1_folders(root: Path, controller: str) -> list[Path]:
    """Return the process's control group and its parents in the hierarchy of one controller (version 1)."""
    for _, controllers, path in _memberships(root):
        if controller in controllers.split(","):
            return _with_parents(root / "sys" / "fs" / "cgroup" / controller, path)
    return []


def _memberships(root: Path) -> list[list[str]]:
    """Return hierarchy, controllers and path of each line of `/proc/self/cgroup`."""
    lines = _read(root / "proc" / "self" / "cgroup").splitlines()
    return [parts for line in lines if len(parts := line.split(":", maxsplit=2)) == 3]


def _with_parents(mount: Path, path: str) -> list[Path]:
    """Return the folders from `path` up to the mount; inside a container those outside of it do not exist."""
    inner = mount / path.lstrip("/")
    return [inner, *(parent for parent in inner.parents if parent.is_relative_to(mount))]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
