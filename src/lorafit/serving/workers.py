"""Several processes that answer at one address."""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import wait
from multiprocessing.context import ForkProcess
from typing import Final

from prometheus_client.multiprocess import mark_process_dead

from lorafit.errors import EnvironmentUnfitError, LorafitError, RunError
from lorafit.system.signals import SIGNALS, listen
from lorafit.system.text import disarm

_FAREWELL: Final = 60.0
"""Seconds after which a process that is still there is told to end again: it may have begun since."""

_TRIAL: Final = 60.0
"""Seconds; a process that ended sooner would do so again, one that was killed later is replaced."""


def run_workers(work: Callable[[int], None], count: int) -> None:
    """Run the same in several processes until a signal comes, which each of them gets; replace one that dies.

    The processes are forked: this one must have no threads, and have loaded nothing that starts some.

    Args:
        work: Called with a number from 0 to count - 1; ends by itself after SIGTERM.
        count: How many processes.

    Raises:
        EnvironmentUnfitError: The system cannot fork.
        RunError: A process ended within a minute.
    """
    if "fork" not in multiprocessing.get_all_start_methods():
        raise EnvironmentUnfitError("--workers needs a system that forks processes, such as Linux. Leave it out.")
    workers = _Workers(work, count)
    with listen(workers.end):
        try:
            while not workers.are_ending:
                workers.begin_missing()
                workers.watch()
        finally:
            workers.end()
            workers.join()


class _Workers:
    """The processes: by number, and since when they run."""

    def __init__(self, work: Callable[[int], None], count: int) -> None:
        self._work, self._count = work, count
        self._running: dict[int, tuple[ForkProcess, float]] = {}
        self.are_ending = False

    def begin_missing(self) -> None:
        """Begin those that do not run."""
        for number in set(range(self._count)).difference(self._running):
            process = multiprocessing.get_context("fork").Process(target=_work, args=(self._work, number))
            process.start()
            self._running[number] = process, time.monotonic()

    def watch(self) -> None:
        """Wait for one to end, a second at most, and forget it. Raises `RunError` if it ran for less than a minute."""
        wait([process.sentinel for process, _ in self._running.values()], timeout=1.0)
        for number, (process, began) in list(self._running.items()):
            if process.exitcode is None or self.are_ending:
                continue
            del self._running[number]
            mark_process_dead(process.pid)  # type: ignore[no-untyped-call]  # prometheus_client says none
            if time.monotonic() - began < _TRIAL:
                raise RunError(f"One of {self._count} workers has ended, with status {process.exitcode}.")

    def end(self) -> None:
        """Let all of them end; once."""
        if not self.are_ending:
            self.are_ending = True
            for process, _ in self._running.values():
                process.terminate()

    def join(self) -> None:
        """Wait until they have ended; one that began as the others were told to is told now."""
        for process, _ in self._running.values():
            process.join(_FAREWELL)
            if process.is_alive():
                process.terminate()
                process.join()


def _work(work: Callable[[int], None], number: int) -> None:
    """Work in a process of its own, and end as soon as the one that began it has ended."""
    for one in SIGNALS:  # this process is a copy, and would end others
        if signal.getsignal(one) is not signal.SIG_IGN:
            signal.signal(one, signal.SIG_DFL)
    parent = multiprocessing.parent_process()

    def follow() -> None:
        if parent is not None:
            parent.join()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=follow, daemon=True, name="parent").start()
    try:
        work(number)
    except LorafitError as error:
        sys.stderr.write(f"{disarm(str(error))}\n")
        sys.exit(1)
