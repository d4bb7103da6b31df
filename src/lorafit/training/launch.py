"""Start the processes that train one run together, by torchrun's agent, and say how they ended."""

import logging
import signal
import socket
import sys
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from lorafit.config import Config
from lorafit.errors import ConfigError, EnvironmentUnfitError
from lorafit.runs.folder import RunLayout, choose_run_folder, suggest_name
from lorafit.system.signals import SIGNALS
from lorafit.system.text import clean_text
from lorafit.system.variables import defaults

_PATIENCE: Final = 300
"""Seconds that machines wait for each other."""

_SAVING: Final = 120
"""Seconds that a step and its checkpoint may take after a signal, before the processes are killed."""

_LOOPBACK: Final = "127.0.0.1"
_LOOPBACKS: Final = (_LOOPBACK, "::1")


@dataclass(frozen=True)
class Launch:
    """How many processes train, and where.

    Attributes:
        processes: On this machine, and on every other.
        machines: How many machines.
        rank: The number of this machine, from 0; the first one has the run folder.
        rendezvous: HOST:PORT of the first machine, where all machines meet.
        patience: Seconds that machines wait for each other.
    """

    processes: int = 1
    machines: int = 1
    rank: int = 0
    rendezvous: str | None = None
    patience: int = _PATIENCE

    def __post_init__(self) -> None:
        if self.processes < 1 or self.machines < 1:
            raise ConfigError(f"--processes and --machines are at least 1, got {self.processes} and {self.machines}.")
        if self.machines == 1 and (self.rank or self.rendezvous is not None):
            raise ConfigError("--rank and --rendezvous are for several machines: give --machines, or leave them out.")
        if not 0 <= self.rank < self.machines:
            raise ConfigError(
                f"--rank numbers the machines from 0 to {self.machines - 1}, got {self.rank}. Each has its own."
            )
        if self.machines > 1 and self.rendezvous is None:
            raise ConfigError("--machines needs --rendezvous HOST:PORT: the first machine, and a free port there.")

    @property
    def is_alone(self) -> bool:
        """Whether a single process trains."""
        return self.processes * self.machines == 1

    @property
    def meeting_place(self) -> tuple[str, int]:
        """The host and the port of `rendezvous`.

        Raises:
            ConfigError: It is not written like that.
        """
        host, _, port = (self.rendezvous or f"{_LOOPBACK}:0").rpartition(":")
        if not host or not port.isdecimal() or int(port) > 65_535:
            raise ConfigError(
                f"--rendezvous takes HOST:PORT, as in 10.0.0.1:29400, got {clean_text(str(self.rendezvous))}."
            )
        return host.strip("[]"), int(port)


def launch(
    how: Launch, words: Sequence[str], config: Config | None, *, output: Path | None, overwrite: bool = False
) -> int:
    """Run `lorafit` in several processes, each of them a rank, until all have ended.

    Args:
        how: How many, and where.
        words: The words of the command, which each process is given.
        config: The settings that these words give; None where a run goes on.
        output: The run folder, or that of the run which goes on; None takes a free name below `runs/`.
        overwrite: Whether a run that is already there may be replaced.

    Returns:
        The exit code: that of rank 0 where it failed, which has said why; 128 and its number after a signal.

    Raises:
        RunError: The run folder is taken.
        EnvironmentUnfitError: A process was killed, or the machines did not meet.
    """
    layout = RunLayout((output or Path()).resolve())
    if config is not None and how.rank == 0:
        name = suggest_name(config.data.source, config.model.name, config.method.name)
        layout = choose_run_folder(output, suggestion=name, overwrite=overwrite)
        if output is None:
            end = words.index("--") if "--" in words else len(words)
            words = [*words[:end], "--output", str(layout.root), *words[end:]]
    interface = _find_interface(*how.meeting_place)
    names = {"GLOO_SOCKET_IFNAME": interface, "NCCL_SOCKET_IFNAME": interface, "TORCH_CPP_LOG_LEVEL": "ERROR"}
    with defaults(names), _signals_as_usual() as heard, _silent_agent(), tempfile.TemporaryDirectory() as folder:
        from torch.distributed import DistError
        from torch.distributed.elastic.multiprocessing.api import DefaultLogsSpecs, SignalException
        from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
        from torch.distributed.launcher.api import LaunchConfig, elastic_launch

        plan = LaunchConfig(
            min_nodes=how.machines,
            max_nodes=how.machines,
            nproc_per_node=how.processes,
            logs_specs=DefaultLogsSpecs(log_dir=folder),
            max_restarts=0,
            signals_to_handle=heard,
            shutdown_timeout=_SAVING,
            **_describe_meeting(how),
        )
        try:
            elastic_launch(plan, sys.executable)("-P", "-m", "lorafit", *words)
        except SignalException as error:
            return 128 + error.sigval
        except ChildFailedError as error:
            codes = {rank: failure.exitcode for rank, failure in sorted(error.failures.items())}
            return _judge(codes, how.processes * how.machines, layout.resume_command)
        except DistError as error:
            raise EnvironmentUnfitError(_explain_meeting(str(error), how)) from error
    return 0


def _describe_meeting(how: Launch) -> dict[str, Any]:
    """Return how the agents of all machines find each other, as arguments of torch's."""
    if how.machines == 1:
        place = {"rdzv_backend": "c10d", "rdzv_endpoint": f"{_LOOPBACK}:0", "local_addr": _LOOPBACK}
        return {**place, "run_id": str(uuid.uuid4())}
    host, port = how.meeting_place
    configs = {"rank": how.rank, "timeout": how.patience}
    endpoint = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return {"rdzv_backend": "static", "rdzv_endpoint": endpoint, "rdzv_configs": configs, "run_id": "lorafit"}


def _judge(codes: Mapping[int, int], count: int, resume_command: str) -> int:
    """Return the exit code of ranks that failed by themselves; raise an error if one was killed."""
    told = [code for code in codes.values() if code > 0]
    killed = {rank: signal.Signals(-code) for rank, code in codes.items() if code < 0}
    first = {rank: number for rank, number in killed.items() if number != signal.SIGTERM}  # which the agent sends then
    if first or not told:
        names = " and ".join(f"rank {rank} was killed by {number.name}" for rank, number in (first or killed).items())
        remedy = f" What was saved is kept; go on with:\n  {resume_command}" if 0 in killed else ""
        raise EnvironmentUnfitError(f"Of {count} processes that trained together, {names}.{remedy}")
    return told[0]


def _explain_meeting(fault: str, how: Launch) -> str:
    host, port = how.meeting_place
    if "EADDRINUSE" in fault:
        return f"Port {port} is taken on this machine. Give all machines another one in --rendezvous {host}:PORT."
    if how.rank == 0:
        return (
            f"The other machines did not come to {host}:{port} within {how.patience} s. Give the same command on each "
            f"of the {how.machines} with its own --rank, and let --rendezvous name an address of this machine."
        )
    return (
        f"Nobody answers at {host}:{port}, within {how.patience} s. Begin with --rank 0, on the machine that has this "
        "address, and look whether a firewall is between."
    )


def _find_interface(host: str, port: int) -> str:
    """Return the name of the network interface by which this machine reaches a host; nothing is sent."""
    import psutil

    try:
        family, _, _, _, address = socket.getaddrinfo(host, port or 1, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(address)
            own = probe.getsockname()[0]
    except OSError as error:
        raise EnvironmentUnfitError(f"--rendezvous: {host} cannot be reached ({error.strerror}).") from error
    if own in _LOOPBACKS and host not in {*_LOOPBACKS, "localhost"}:
        raise EnvironmentUnfitError(
            f"--rendezvous: on this machine {host} is {own}, which no other one reaches. Give the address by which the "
            "others reach it."
        )
    names = {
        place.address.partition("%")[0]: name for name, places in psutil.net_if_addrs().items() for place in places
    }
    return str(names[own])


@contextmanager
def _signals_as_usual() -> Iterator[str]:
    """Let signals end this process at once until torch's agent passes them on; yield the names of those it is to hear.

    While machines wait for each other, no code of Python runs, and there is nothing to keep yet.
    """
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    heard = [number for number, handler in handlers.items() if handler != signal.SIG_IGN]
    for number in heard:
        signal.signal(number, signal.SIG_DFL)
    try:
        yield ",".join(number.name for number in heard)
    finally:
        for number in heard:
            signal.signal(number, handlers[number])


@contextmanager
def _silent_agent() -> Iterator[None]:
    """Keep torch's agent from logging what is told in other words."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)
