"""A Ray cluster: connected, its nodes asked, its errors told as lorafit's."""

import logging
import os
import socket
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, Final
from urllib.parse import urlsplit

from lorafit.cluster.places import PURPOSE
from lorafit.errors import EnvironmentUnfitError, LorafitError, UserInputError
from lorafit.system.extras import require, without_telemetry
from lorafit.system.hardware import available_cores
from lorafit.system.text import clean_text, show_value
from lorafit.system.variables import defaults

_PATIENCE: Final = 5.0
"""Seconds until an address that does not answer counts as none."""

_QUIET: Final = {
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_DATA_LOG_LEVEL": "CRITICAL",
}
"""Variables by which Ray writes to its own log files alone; what goes wrong becomes an error."""

_MOST_NAMED: Final = 5
_LONGEST: Final = 300


@contextmanager
def connecting(address: str | None) -> Iterator[ModuleType]:
    """Connect to a cluster, and leave it at the end.

    Args:
        address: As `ray.init` takes it; None for that of `RAY_ADDRESS`, or one of this machine alone, made for now.

    Yields:
        The module `ray`.

    Raises:
        UserInputError: The address does not answer.
        EnvironmentUnfitError: Ray does not come up, or the cluster runs another version of it.
        MissingExtraError: Ray is not installed.
    """
    with without_telemetry(), defaults(_QUIET), warnings.catch_warnings():
        ray = require("ray", extra="cluster", purpose=PURPOSE)
        require("ray.data", extra="cluster", purpose=PURPOSE)
        warnings.simplefilter("ignore")  # Ray's own, which it lets through itself, are for those who change this file
        _join(ray, find_address(address))
        try:
            yield ray
        finally:
            ray.shutdown()


def find_address(address: str | None) -> str | None:
    """Return the address of the cluster that is asked for; None where one of this machine alone is made."""
    return address or os.environ.get("RAY_ADDRESS")


def _join(ray: ModuleType, address: str | None) -> None:
    spare = 1  # for what Ray itself does, which is little: `count_actors` leaves it
    own: dict[str, Any] = {} if address else {"num_cpus": available_cores() + spare, "include_dashboard": False}
    if address:
        _knock(address)
    try:
        ray.init(address=address or "local", log_to_driver=False, logging_level=logging.CRITICAL, **own)
    except ConnectionError as error:
        raise _silent(address) from error
    except (RuntimeError, OSError, ValueError) as error:
        remedy = " Install the cluster's versions here, or these there." if "ersion mismatch" in str(error) else ""
        raise EnvironmentUnfitError(f"Ray does not come up: {brief(error)}{remedy}") from error


def count_actors(ray: ModuleType, cpus: int, *, spares_one: bool, option: str = "--cpus-per-actor") -> int:
    """Return how many actors of so many CPUs the nodes have room for.

    Args:
        ray: The cluster.
        cpus: CPUs of an actor.
        spares_one: Whether a CPU of the cluster is to be left for Ray.
        option: What says how many CPUs an actor has, for messages.

    Returns:
        The number of actors, at least 1.

    Raises:
        UserInputError: There is no room for one.
    """
    nodes = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    actors, left = sum(have // cpus for have in nodes), sum(have % cpus for have in nodes)
    if not actors:
        raise UserInputError(f"{option} {cpus}: the largest node has {max(nodes, default=0)}.")
    actors -= spares_one and not left
    if not actors:
        raise UserInputError(f"{option} {cpus} leaves no CPU for Ray itself. Give less.")
    return actors


def ask_nodes(ray: ModuleType, question: Callable[[], str]) -> None:
    """Ask every node that has CPUs whether it can do the work.

    Args:
        ray: The cluster.
        question: Is pickled and called on each; what it returns is wrong there, nothing if all is well.

    Raises:
        UserInputError: Some cannot; it says which, and why.
    """
    strategy = require(
        "ray.util.scheduling_strategies", extra="cluster", purpose=PURPOSE
    ).NodeAffinitySchedulingStrategy
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    asked = ray.remote(_ask)
    answers = []
    for answer in [
        asked.options(num_cpus=0, scheduling_strategy=strategy(node["NodeID"], soft=False)).remote(question)
        for node in nodes
    ]:
        try:
            answers.append(ray.get(answer))
        except ray.exceptions.RayError as error:
            answers.append(brief(error))
    unfit = [f"{node['NodeManagerAddress']}: {told}" for node, told in zip(nodes, answers, strict=True) if told]
    if unfit:
        more = f"; and {len(unfit) - _MOST_NAMED} more" if len(unfit) > _MOST_NAMED else ""
        raise UserInputError(
            f"{len(unfit)} of {len(nodes)} nodes cannot do this work: {'; '.join(unfit[:_MOST_NAMED])}{more}"
        )


def explain(error: BaseException) -> LorafitError:
    """Return lorafit's own error from behind one of Ray's, or one that says what Ray said."""
    seen: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in seen:
        if isinstance(cause, LorafitError):
            return cause
        seen.append(cause)
        cause = getattr(cause, "cause", None) or cause.__cause__ or cause.__context__
    return EnvironmentUnfitError(f"Ray stopped the job: {brief(seen[-1])}")


def _knock(address: str) -> None:
    """Refuse an address that nobody listens at: Ray itself would wait for a minute, and end the process."""
    parts = urlsplit(address if "://" in address else f"//{address}")
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if address in {"auto", "local"}:
        return
    if not host or not port:
        raise UserInputError(
            f"--address {show_value(address)} is no address of a Ray cluster. Give HOST:PORT, or auto."
        )
    try:
        socket.create_connection((host, port), timeout=_PATIENCE).close()
    except OSError as error:
        raise _silent(address) from error


def _silent(address: str | None) -> UserInputError:
    return UserInputError(f"--address {show_value(address)}: no Ray cluster answers there.")


def _ask(question: Callable[[], str]) -> str:
    return question()


def brief(error: BaseException) -> str:
    """Return the kind and the words of an error, in a line."""
    return f"{type(error).__name__}: {clean_text(str(error), most=_LONGEST)}"
