"""Comparisons and searches on a Ray cluster: each of their parts is a task, and the driver watches them.

A task whose process is killed is not retried by Ray, which would begin one that ran out of memory again without end:
the experiment says whether, and how often, it is begun again.
"""

import os
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from lorafit.cluster.connection import ask_nodes, brief, connecting, count_actors, explain, find_address
from lorafit.cluster.places import PURPOSE
from lorafit.errors import LorafitError, StoppedError
from lorafit.experiments.engine import Lost, Part, Result
from lorafit.system.extras import require, without_telemetry
from lorafit.system.hardware import use_threads
from lorafit.system.progress import Progress, Silent
from lorafit.system.variables import sharing_cores

_SECONDS: Final = 1.0
"""Between two looks at what the parts say."""

_PATIENCE: Final = 10.0
"""Seconds to wait for what they say, which may have to begin anew."""

_GRACE: Final = 60.0
"""Seconds that parts have to keep what they have, when they are interrupted."""

_REASONS: Final = {
    "OutOfMemoryError": "its machine ran out of memory, and Ray killed its process",
    "NodeDiedError": "its node died",
}
"""Why a process ended, by the error that Ray raises for it; otherwise it was killed."""


@contextmanager
def open_engine(address: str | None = None, *, cpus_per_worker: int = 1) -> Iterator["RayEngine"]:
    """Connect to a cluster on which `compare` and `search` run.

    Args:
        address: Of the cluster, as `ray.init` takes it; None for that of `RAY_ADDRESS`, or one of this machine alone.
        cpus_per_worker: CPUs, and threads, that each run is trained with; settings of threads come before it.

    Yields:
        The engine, to be given as `engine`.

    Raises:
        UserInputError: The address does not answer, or no node has so many CPUs.
        EnvironmentUnfitError: Ray does not come up, runs in another version, or ends.
        MissingExtraError: Ray is not installed.
    """
    with connecting(address) as ray:
        try:
            yield RayEngine(ray, address, cpus_per_worker)
        except ray.exceptions.RayError as error:
            raise explain(error) from error


class RayEngine:
    """An `Engine` on a cluster that is connected."""

    def __init__(self, ray: ModuleType, address: str | None, cpus: int) -> None:
        self._ray, self._cpus = ray, cpus
        given = {"engine": "ray", "address": address, "cpus-per-worker": str(cpus)}
        self.options = {name: value for name, value in given.items() if value is not None}
        spares_one = find_address(address) is None
        self.workers = count_actors(ray, cpus, spares_one=spares_one, option="--cpus-per-worker")
        self.nodes = sum(bool(node["Alive"] and node["Resources"].get("CPU")) for node in ray.nodes())

    def check(self, question: Callable[[], str]) -> None:
        """Ask every node whether it can do the work; see `Engine`."""
        ask_nodes(self._ray, _There(question, Path.cwd()))

    def run(
        self,
        work: Callable[[Part, Progress], Result],
        parts: Mapping[str, Part],
        *,
        progress: Progress,
        again: Callable[[str, str], bool],
    ) -> Generator[tuple[str, Result | Lost]]:
        """Run parts as tasks; see `Engine`."""
        ray = self._ray
        lines, remote = self._gather_lines(), ray.remote(_work)

        def start(name: str) -> Any:  # noqa: ANN401  Ray's types are not known without it
            there = _There(work, Path.cwd())
            task = remote.options(name=f"lorafit {name}", num_cpus=self._cpus, max_retries=0)
            return task.remote(there, parts[name], name, self._cpus, lines)

        under_way = {start(name): name for name in parts}
        try:
            while under_way:
                ended, _ = ray.wait(list(under_way), timeout=_SECONDS)
                self._pass_on(lines, progress)
                for one in ended:
                    name = under_way.pop(one)
                    result = self._fetch(one)
                    if isinstance(result, Lost) and result.was_killed and again(name, result.reason):
                        under_way[start(name)] = name
                    else:
                        yield name, result
        finally:
            self._interrupt(list(under_way))
            ray.kill(lines)

    def _gather_lines(self) -> Any:  # noqa: ANN401
        """Return an actor beside this process that keeps what the parts say."""
        ray = self._ray
        strategy = require("ray.util.scheduling_strategies", extra="cluster", purpose=PURPOSE)
        here = strategy.NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        return ray.remote(_Lines).options(num_cpus=0, scheduling_strategy=here, max_restarts=-1).remote()

    def _pass_on(self, lines: Any, progress: Progress) -> None:  # noqa: ANN401
        """Tell what the parts have said; the lines of an actor that was killed are lost, and it begins again."""
        taken: list[str] = []
        with suppress(self._ray.exceptions.RayError):
            taken = self._ray.get(lines.take.remote(), timeout=_PATIENCE)
        for line in taken:
            progress.say(line)

    def _fetch(self, task: Any) -> Any:  # noqa: ANN401
        """Return the result of a task that has ended."""
        ray = self._ray
        try:
            return ray.get(task)
        except ray.exceptions.RayTaskError as error:
            return Lost(brief(error.cause))
        except ray.exceptions.RayError as error:
            return Lost(_REASONS.get(type(error).__name__, "its process was killed"), was_killed=True)

    def _interrupt(self, tasks: list[Any]) -> None:
        """Interrupt tasks as Ctrl-C does, and kill those that go on."""
        ray = self._ray
        if not tasks:
            return
        for task in tasks:
            ray.cancel(task)
        _, left = ray.wait(tasks, num_returns=len(tasks), timeout=_GRACE)
        for task in left:
            ray.cancel(task, force=True)


class _There:
    """A function as another process calls it: in the same folder, so that paths mean the same."""

    def __init__(self, function: Callable[..., Any], folder: Path) -> None:
        self._function, self._folder = function, folder

    def __call__(self, *values: Any) -> Any:  # noqa: ANN401  whatever the function returns
        with suppress(OSError):
            os.chdir(self._folder)
        with without_telemetry(), sharing_cores():
            return self._function(*values)


class _Lines:
    """An actor: keeps lines until they are taken."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def add(self, line: str) -> None:
        self._lines.append(line)

    def take(self) -> list[str]:
        taken, self._lines = self._lines, []
        return taken


class _Teller(Silent):
    """Tells an actor the lines of one part."""

    def __init__(self, lines: Any, name: str) -> None:  # noqa: ANN401
        self._lines, self._name = lines, name

    def say(self, line: str) -> None:
        """Send a line, with the name of the part."""
        self._lines.add.remote(f"{self._name}: {line}")


def _work(there: _There, part: Any, name: str, cpus: int, lines: Any) -> Any:  # noqa: ANN401
    """Do a part; what lorafit refuses there is told as a result, as not all its errors can be pickled."""
    try:
        with use_threads(cpus):
            return there(part, _Teller(lines, name))
    except StoppedError:
        return Lost("its process was told to stop", was_killed=True)
    except LorafitError as error:
        return Lost(str(error))
