"""SIGTERM and SIGHUP end work as Ctrl-C does: as an exception, which lets every block keep what there is."""

import contextlib
import os
import signal
import stat
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Final

SIGNALS: Final = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)  # there is no SIGHUP on Windows

_ECHO_SECONDS: Final = 0.2
"""A signal comes twice where a program passes on what its process group got, too: the second one is the same stop."""

_CLEANING_SECONDS: Final = 2.0
"""After the exception; whoever is still at work then is ended by the next signal, whatever it is doing."""


class Stopped(KeyboardInterrupt):
    """A signal asked to end. `number` says which."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class _Stop:
    """What was heard since the outermost block of `listen` began."""

    def __init__(self) -> None:
        self.depth = 0
        self.forget()

    def forget(self) -> None:
        self.number: int | None = None
        self.heard = self.raised = -_CLEANING_SECONDS


_stop = _Stop()


def exit_code() -> int:
    """Return what a process ends with that was asked to stop: 128 and the number of the last signal heard."""
    return 128 + (signal.SIGINT if _stop.number is None else _stop.number)


@contextlib.contextmanager
def listen(ask: Callable[[], None] | None = None) -> Iterator[None]:
    """Raise `Stopped` inside the block when a signal asks to end; end at once when another does while that is kept.

    Signals that are ignored stay so, as SIGHUP under nohup and SIGINT in a shell's background. Only the main thread can
    handle signals; in any other nothing changes. Blocks may be nested: the inner one listens.

    Args:
        ask: Called at the first signal instead of raising: the work stops by itself where it is best. The second one
            raises.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked = ask is None

    def handle(number: int, _: FrameType | None) -> None:
        nonlocal asked
        now = time.monotonic()
        is_echo, _stop.heard = now - _stop.heard < _ECHO_SECONDS, now
        if is_echo:
            return
        _stop.number = number
        _leave_lost_terminal()
        if not asked and ask is not None:
            asked = True
            ask()
        elif _stop.raised < 0:
            _stop.raised = now
            raise Stopped(number)
        elif now - _stop.raised >= _CLEANING_SECONDS:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    if _stop.depth == 0:
        _stop.forget()
    heard = [number for number in SIGNALS if signal.getsignal(number) not in {signal.SIG_IGN, None}]
    previous = {number: signal.getsignal(number) for number in heard}
    _stop.depth += 1
    try:
        for number in heard:
            signal.signal(number, handle)
        yield
    finally:
        _stop.depth -= 1
        for number, handler in previous.items():
            signal.signal(number, handler)


def _leave_lost_terminal() -> None:
    """Write no more to a terminal that is gone: the error of that would hide the stop."""
    for descriptor in (1, 2):
        with contextlib.suppress(OSError):
            if stat.S_ISCHR(os.fstat(descriptor).st_mode) and not os.isatty(descriptor):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, descriptor)
                os.close(nowhere)
