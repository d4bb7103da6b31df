"""Signals that end work, in real processes."""

import fcntl
import os
import pty
import signal
import subprocess
import sys
import termios
import textwrap
import threading
import time
from pathlib import Path

import pytest

from lorafit.system.signals import SIGNALS, listen

pytestmark = pytest.mark.usefixtures("hang_up_is_heard")


def run_script(script: str, *numbers: int, ignored: int | None = None) -> tuple[int, str]:
    """Start a script, send it signals, a line of its output before each, and return its exit code and output."""
    head = "import os, signal, time\nfrom lorafit.system.signals import Stopped, exit_code, listen\n"

    def ignore() -> None:
        if ignored is not None:
            signal.signal(ignored, signal.SIG_IGN)

    command = [sys.executable, "-u", "-c", head + textwrap.dedent(script)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=ignore) as process:  # noqa: PLW1509
        assert process.stdout is not None
        seen = ""
        for number in numbers:
            seen += process.stdout.readline()
            time.sleep(0.3)
            process.send_signal(number)
        seen += process.stdout.read()
        return process.wait(30), seen


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_each_signal_raises_and_names_its_exit_code(number: signal.Signals, code: int) -> None:
    script = f"""
        try:
            with listen():
                os.kill(os.getpid(), {number:d})
                print("went on")
        except Stopped as stop:
            print(stop.number, exit_code())
    """
    assert run_script(script) == (0, f"{number:d} {code}\n")


def test_handlers_are_put_back() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    with listen(), listen():
        assert all(signal.getsignal(number) != handler for number, handler in zip(SIGNALS, before, strict=True))
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_another_thread_changes_nothing() -> None:
    before, seen = [signal.getsignal(number) for number in SIGNALS], []

    def look() -> None:
        with listen():
            seen.extend(signal.getsignal(number) for number in SIGNALS)

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == before


def test_ignored_signals_stay_ignored() -> None:
    script = """
        with listen():
            print("ready")
            time.sleep(0.5)
        print("went on")
    """
    assert run_script(script, signal.SIGHUP, ignored=signal.SIGHUP) == (0, "ready\nwent on\n")


def test_the_second_signal_within_a_moment_is_the_same_stop() -> None:
    script = """
        try:
            with listen():
                os.kill(os.getpid(), signal.SIGINT)
        except KeyboardInterrupt:
            pass
        with listen():
            try:
                os.kill(os.getpid(), signal.SIGINT)
            except KeyboardInterrupt:
                os.kill(os.getpid(), signal.SIGTERM)
                print("kept")
    """
    assert run_script(script) == (0, "kept\n")


def test_work_is_asked_first_and_stopped_by_the_second_signal() -> None:
    script = """
        try:
            with listen(lambda: print("asked")):
                print("ready")
                for _ in range(100):
                    time.sleep(0.1)
        except Stopped as stop:
            print("stopped", exit_code())
    """
    assert run_script(script, signal.SIGINT, signal.SIGTERM) == (0, "ready\nasked\nstopped 143\n")


def test_work_that_hangs_while_it_is_stopped_is_ended_at_once() -> None:
    script = """
        with listen():
            try:
                print("ready")
                time.sleep(60)
            finally:
                print("keeping")
                end = time.monotonic() + 60
                time.sleep(2.3)
                print("still keeping")
                while time.monotonic() < end:
                    time.sleep(0.1)
    """
    code, seen = run_script(script, signal.SIGTERM, signal.SIGTERM, signal.SIGTERM)
    assert (code, seen) == (-signal.SIGTERM, "ready\nkeeping\nstill keeping\n")


def test_a_terminal_that_is_closed_hides_no_stop(tmp_path: Path) -> None:
    script = f"""
import sys, time
from pathlib import Path
from lorafit.system.signals import Stopped, exit_code, listen
try:
    with listen():
        print("ready", flush=True)
        while True:
            time.sleep(0.05)
except Stopped:
    print("written to nobody", flush=True)
    print("nor this", file=sys.stderr, flush=True)
    Path({str(tmp_path / "end")!r}).write_text(str(exit_code()))
"""
    terminal, end = pty.openpty()

    def take_terminal() -> None:
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdin=end, stdout=end, stderr=end, preexec_fn=take_terminal) as process:  # noqa: PLW1509
        os.close(end)
        assert b"ready" in os.read(terminal, 100)
        os.close(terminal)
        assert process.wait(30) == 0
    assert (tmp_path / "end").read_text() == "129"
