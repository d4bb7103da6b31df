import ctypes
import platform
import subprocess
import sys

import pytest

from lorafit.models.acceleration.memory import keep_freed_memory

ROUNDS, TENSORS = 10, 6
COUNT_PAGE_FAULTS = f"""
import resource

import torch

from lorafit.models.acceleration.memory import give_back_at_once, keep_freed_memory

torch.set_num_threads(1)
done = keep_freed_memory()
with give_back_at_once():
    torch.ones(5_000_000)


def work():
    tensors = [torch.ones(5_000_000) for _ in range({TENSORS})]
    return sum(float(tensor[-1]) for tensor in tensors)


for _ in range(3):
    work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range({ROUNDS}):
    work()
print(done, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def count_page_faults() -> tuple[str, int]:
    """Return what `keep_freed_memory` said in a fresh process, and the page faults a round of 20 MB tensors."""
    command = [sys.executable, "-c", COUNT_PAGE_FAULTS]
    done, faults = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return done, int(faults) // ROUNDS


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told")
def test_tensors_get_pages_that_the_process_had_before() -> None:
    done, kept = count_page_faults()
    for _ in range(2):  # a kernel that is short of memory takes pages back meanwhile
        if kept >= TENSORS:
            done, kept = count_page_faults()
    assert done == "True"
    assert kept < TENSORS, "less than one a tensor"


def test_other_systems_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert keep_freed_memory() is False


def test_other_c_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    assert keep_freed_memory() is False


@pytest.mark.parametrize(("refused", "done"), [(None, True), (-1, False), (-2, False), (-3, False)])
def test_it_is_not_done_if_one_setting_was_refused(
    refused: int | None, done: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = type("Library", (), {"mallopt": staticmethod(lambda name, _: int(name != refused))})
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda _: library)
    assert keep_freed_memory() is done
