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
from lorafit.system.signals import SIGNALS, exit_code, listen
from lorafit.system.text import disarm

_PAUSE: Final = 10.0
"""Seconds from the beginning of a process to that of the one which replaces it, at least."""

_LOOK: Final = 0.2
"""Seconds after which the processes look at each other again."""


def run_workers(work: Callable[[int], None], count: int, *, leave: Callable[[], None]) -> None:
    """Run the same in several processes until a signal comes, which each of them gets; replace one that is killed.

    The processes are forked: this one must have no threads of its own.

    Args:
        work: Called with a number from 0 to count - 1; ends by itself after SIGTERM.
        count: How many processes.
        leave: Called when they are told to end, to let go of what this process shares with them.

    Raises:
        EnvironmentUnfitError: The system cannot fork.
        RunError: A process has failed; the others have ended.
    """
    if "fork" not in multiprocessing.get_all_start_methods():
        raise EnvironmentUnfitError("--workers needs a system that forks processes, such as Linux. Leave it out.")
    workers = _Workers(work, count, leave)
    with listen(workers.stop):
        try:
            while not workers.are_ending:
                workers.begin_missing()
                workers.watch()
            workers.end()
            workers.join()
        except BaseException:  # one has failed, or a second signal came
            workers.end()
            workers.join()
            raise


class _Workers:
    """The processes by number, and when each was begun."""

    def __init__(self, work: Callable[[int], None], count: int, leave: Callable[[], None]) -> None:
        self._work, self._count, self._leave = work, count, leave
        self._running: dict[int, ForkProcess] = {}
        self._begun: dict[int, float] = {}
        self.are_ending = False

    def begin_missing(self) -> None:
        """Begin those that do not run. A signal reaches one only once it can end by it."""
        for number in range(self._count):
            waits = number in self._begun and time.monotonic() - self._begun[number] < _PAUSE
            if waits or number in self._running:
                continue
            process = multiprocessing.get_context("fork").Process(target=_run, args=(self._work, number))
            signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
            try:
                process.start()
            finally:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            self._running[number], self._begun[number] = process, time.monotonic()

    def watch(self) -> None:
        """Wait for one to end, for a moment, and forget it. Raises `RunError` if it has failed."""
        wait([process.sentinel for process in self._running.values()], timeout=_LOOK)
        for number, process in list(self._running.items()):
            if process.exitcode is None:
                continue
            del self._running[number]
            mark_process_dead(process.pid)  # type: ignore[no-untyped-call]  # prometheus_client has no types here
            if process.exitcode > 0:
                raise RunError(f"One of {self._count} workers has failed, with status {process.exitcode}.")

    def stop(self) -> None:
        """Let `run_workers` end."""
        self.are_ending = True

    def end(self) -> None:
        """Tell all of them to end; told again, they end at once."""
        self._leave()
        for process in self._running.values():
            process.terminate()

    def join(self) -> None:
        """Wait until they have ended."""
        for process in self._running.values():
            process.join()


def _run(work: Callable[[int], None], number: int) -> None:
    """Work in a process of its own, and end as soon as the one that began it has ended."""
    for one in SIGNALS:  # what a terminal sends to all is passed on as SIGTERM
        signal.signal(one, signal.SIG_DFL if one == signal.SIGTERM else signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    parent = os.getppid()

    def follow() -> None:
        while os.getppid() == parent:
            time.sleep(_LOOK)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=follow, daemon=True, name="parent").start()
    try:
        work(number)
    except LorafitError as error:
        sys.stderr.write(f"{disarm(str(error))}\n")
        sys.exit(1)
    except KeyboardInterrupt:
        os._exit(exit_code())
