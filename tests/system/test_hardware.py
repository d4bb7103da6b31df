import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from lorafit.errors import UserInputError
from lorafit.system import hardware

V2 = "0::/app/worker\n"
V1 = "4:memory:/box\n3:cpuset:/\n2:cpu,cpuacct:/box\n9:name=systemd:/\n"


def write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def test_this_machine_answers() -> None:
    assert hardware.cpu_name().strip()
    assert 1 <= hardware.available_cores() <= (os.cpu_count() or 1)
    assert hardware.memory_bytes() > 100_000_000


def test_peak_memory_grows_with_what_is_held() -> None:
    script = """
from lorafit.system import hardware
before = hardware.peak_memory_bytes()
ballast = b"x" * (before + 50_000_000)
print(len(ballast), hardware.peak_memory_bytes())
"""
    child = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    ballast, after = map(int, child.stdout.split())
    assert ballast <= after < 100 * ballast


def test_peak_memory_is_unknown_where_the_system_does_not_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert hardware.peak_memory_bytes(tmp_path) > 10_000_000
    monkeypatch.setitem(sys.modules, "resource", None)
    assert hardware.peak_memory_bytes(tmp_path) == 0


def test_peak_memory_is_this_process_s_own_and_not_its_parent_s() -> None:
    ballast = b"x" * 400_000_000
    script = "from lorafit.system import hardware; print(hardware.peak_memory_bytes())"
    child = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert int(child.stdout) < len(ballast)


def test_peak_memory_reads_linux_s_high_water_mark(tmp_path: Path) -> None:
    write(tmp_path, "proc/self/status", "Name:\tpython\nVmPeak:\t  9000 kB\nVmHWM:\t    2000 kB\n")
    assert hardware.peak_memory_bytes(tmp_path) == 2000 * 1024


def test_cpu_name_is_the_first_model_name(tmp_path: Path) -> None:
    write(
        tmp_path, "proc/cpuinfo", "processor\t: 0\nmodel name\t: Fast: One\nflags\t\t: avx2 fma\n\nmodel name\t: Two\n"
    )
    assert hardware.cpu_name(tmp_path) == "Fast: One"
    assert hardware.cpu_flags(tmp_path) == {"avx2", "fma"}


def test_cpu_flags_reads_arm(tmp_path: Path) -> None:
    write(tmp_path, "proc/cpuinfo", "processor\t: 0\nFeatures\t: fp asimd bf16\n")
    assert hardware.cpu_flags(tmp_path) == {"fp", "asimd", "bf16"}


def test_cpu_name_falls_back_to_the_architecture(tmp_path: Path) -> None:
    assert hardware.cpu_name(tmp_path) in {platform.processor(), platform.machine()}
    assert hardware.cpu_flags(tmp_path) == set()


def test_without_control_groups_nothing_is_limited(tmp_path: Path) -> None:
    assert hardware.cpu_quota(tmp_path) is None
    assert hardware.memory_limit(tmp_path) is None
    assert hardware.available_cores(tmp_path) == len(os.sched_getaffinity(0))
    assert hardware.memory_bytes(tmp_path) == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@pytest.mark.parametrize(
    ("text", "quota"), [("max 100000\n", None), ("150000 100000\n", 1.5), ("50000\n", 0.5), ("", None)]
)
def test_cpu_quota_of_version_2(tmp_path: Path, text: str, quota: float | None) -> None:
    write(tmp_path, "proc/self/cgroup", V2)
    write(tmp_path, "sys/fs/cgroup/app/worker/cpu.max", text)
    assert hardware.cpu_quota(tmp_path) == quota


def test_the_tightest_parent_counts_in_version_2(tmp_path: Path) -> None:
    write(tmp_path, "proc/self/cgroup", V2)
    write(tmp_path, "sys/fs/cgroup/app/worker/cpu.max", "max 100000\n")
    write(tmp_path, "sys/fs/cgroup/app/cpu.max", "100000 100000\n")
    write(tmp_path, "sys/fs/cgroup/cpu.max", "400000 100000\n")
    write(tmp_path, "sys/fs/cgroup/app/worker/memory.max", "3000000000\n")
    write(tmp_path, "sys/fs/cgroup/app/memory.max", "2000000\n")
    write(tmp_path, "sys/fs/cgroup/memory.max", "max\n")
    assert hardware.cpu_quota(tmp_path) == 1.0
    assert hardware.memory_limit(tmp_path) == hardware.memory_bytes(tmp_path) == 2_000_000


@pytest.mark.parametrize(("quota", "expected"), [("-1", None), ("250000", 2.5)])
def test_cpu_quota_of_version_1(tmp_path: Path, quota: str, expected: float | None) -> None:
    write(tmp_path, "proc/self/cgroup", V1)
    write(tmp_path, "sys/fs/cgroup/cpu/box/cpu.cfs_quota_us", f"{quota}\n")
    write(tmp_path, "sys/fs/cgroup/cpu/box/cpu.cfs_period_us", "100000\n")
    assert hardware.cpu_quota(tmp_path) == expected


def test_container_of_version_1_sees_its_limit_at_the_mount(tmp_path: Path) -> None:
    write(tmp_path, "proc/self/cgroup", V1)
    write(tmp_path, "sys/fs/cgroup/memory/memory.limit_in_bytes", "1000000\n")
    assert hardware.memory_limit(tmp_path) == 1_000_000


def test_no_limit_of_version_1_leaves_the_machine_its_memory(tmp_path: Path) -> None:
    write(tmp_path, "proc/self/cgroup", V1)
    write(tmp_path, "sys/fs/cgroup/memory/box/memory.limit_in_bytes", "9223372036854771712\n")
    assert hardware.memory_bytes(tmp_path) == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@pytest.mark.parametrize("microseconds", [20_000, 100_000, 199_000])
def test_a_quota_below_two_cores_leaves_one(tmp_path: Path, microseconds: int) -> None:
    write(tmp_path, "proc/self/cgroup", "0::/\n")
    write(tmp_path, "sys/fs/cgroup/cpu.max", f"{microseconds} 100000\n")
    assert hardware.available_cores(tmp_path) == 1


def test_a_quota_above_the_affinity_changes_nothing(tmp_path: Path) -> None:
    write(tmp_path, "proc/self/cgroup", "0::/\n")
    write(tmp_path, "sys/fs/cgroup/cpu.max", "100000000 100000\n")
    assert hardware.available_cores(tmp_path) == len(os.sched_getaffinity(0))


@pytest.mark.parametrize(("variable", "threads"), [("1", 1), ("3,2", 3), ("64", 4), ("", 4), ("0", 4), ("many", 4)])
def test_threads_follow_the_variable_and_what_may_be_used(
    monkeypatch: pytest.MonkeyPatch, variable: str, threads: int
) -> None:
    monkeypatch.setattr(hardware, "available_cores", lambda _: 4)
    monkeypatch.setenv("OMP_NUM_THREADS", variable)
    assert hardware.choose_threads() == threads


def test_threads_follow_a_quota(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    write(tmp_path, "proc/self/cgroup", V2)
    write(tmp_path, "sys/fs/cgroup/app/cpu.max", "50000 100000")
    assert hardware.choose_threads(root=tmp_path) == 1


def test_threads_are_never_more_than_may_be_used_unless_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "available_cores", lambda _: 2)
    assert [hardware.choose_threads(usual) for usual in (1, 2, 3)] == [1, 2, 2]
    with hardware.use_threads(3):
        assert hardware.choose_threads(1) == 3
        with hardware.use_threads(None):
            assert hardware.choose_threads(1) == 3
    with pytest.raises(UserInputError, match="At least 1 thread is needed, got 0"), hardware.use_threads(0):
        pass
