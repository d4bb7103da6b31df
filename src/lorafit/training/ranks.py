"""The processes that train one run together, and what they tell each other.

Each is a rank of torch.distributed, which torchrun has started (`launch`): gloo connects CPUs, nccl GPUs. Rank 0 is the
run: it alone writes into the run folder, and it alone decides. The others read the same data, take part in the steps of
training, and end.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, TypeVar

from lorafit.errors import EnvironmentUnfitError, LorafitError, RunError
from lorafit.system.text import clean_text
from lorafit.system.variables import defaults

T = TypeVar("T")

_VARIABLES: Final = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE")
"""What torchrun tells a rank of itself, and accelerate reads."""

_PATIENCE: Final = timedelta(days=1)
"""How long a rank waits for another that lives, as while rank 0 measures the untrained model."""

_MOMENT: Final = timedelta(seconds=20)

_MOST_DIFFERENCES: Final = 8
_LONGEST: Final = 80


class RankLostError(EnvironmentUnfitError):
    """Another rank has ended, or cannot be reached."""


@dataclass(frozen=True)
class Ranks:
    """This process among those that train a run; alone by default, and then everything below does nothing.

    Attributes:
        rank: Its number, from 0.
        count: How many there are, on all machines.
        local_rank: Its number on this machine, from 0.
        local_count: How many there are on this machine.
        machines: How many machines there are.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    local_count: int = 1
    machines: int = 1

    def broadcast(self, value: T) -> T:
        """Return the value that rank 0 gives."""
        if self.count == 1:
            return value
        import torch

        values = [value]
        with noticing_loss():
            torch.distributed.broadcast_object_list(values, src=0, device=torch.device("cpu"))
        return values[0]

    def lead(self, work: Callable[[], T]) -> T:
        """Do something at rank 0, with the threads of all that wait for it, and return at every rank what it gave."""
        if self.count == 1:
            return work()
        if self.rank == 0:
            with _using_threads(_count_threads() * self.local_count):
                return self.broadcast(work())
        return self.broadcast(None)  # type: ignore[return-value]  # what rank 0 gave

    def gather(self, value: T) -> list[T]:
        """Return the values that all ranks give, by rank."""
        if self.count == 1:
            return [value]
        from torch import distributed

        values = [value] * self.count
        with noticing_loss():
            distributed.all_gather_object(values, value)
        return values

    def unite(self, *flags: bool) -> tuple[bool, ...]:
        """Return which of some flags are up at any rank."""
        if self.count == 1:
            return flags
        import torch
        from torch import distributed

        raised = torch.tensor(flags, dtype=torch.uint8)
        with noticing_loss():
            distributed.all_reduce(raised, op=distributed.ReduceOp.MAX)
        return tuple(map(bool, raised.tolist()))

    def together(self, work: Callable[[], T]) -> T:
        """Do the same at every rank.

        Args:
            work: What is done.

        Returns:
            What it gives here.

        Raises:
            LorafitError: It failed here, or at another rank; the message is what was said there.
        """
        failure: LorafitError | None = None
        try:
            result = work()
        except LorafitError as error:
            failure = error
        told = self.gather(None if failure is None else (str(failure), failure.exit_code))
        if failure is not None:
            raise failure
        for rank, said in enumerate(told):
            if said is not None:
                kind = RunError if said[1] == RunError.exit_code else EnvironmentUnfitError
                raise kind(f"Nothing was trained, because rank {rank} cannot: {said[0]}")
        return result

    def require_same(self, facts: Mapping[str, object], what: str) -> None:
        """Refuse to go on where ranks disagree.

        Args:
            facts: By what people call them.
            what: What they are, for the message.

        Raises:
            RunError: They differ; the message names them and what each rank has.
        """
        everyone = self.gather(facts)
        names = dict.fromkeys(name for told in everyone for name in told)
        lines = [
            "  "
            + name
            + ": "
            + ", ".join(f"{_show(told.get(name))} at rank {rank}" for rank, told in enumerate(everyone))
            for name in names
            if any(told.get(name) != facts.get(name) for told in everyone)
        ]
        if lines:
            more = [f"  … {len(lines) - _MOST_DIFFERENCES:,} more"] if len(lines) > _MOST_DIFFERENCES else []
            listed = "\n".join([*lines[:_MOST_DIFFERENCES], *more])
            raise RunError(f"Nothing was trained, because {what} are not the same at all ranks:\n{listed}")

    @contextmanager
    def sharing_cores(self) -> Iterator[None]:
        """Let torch use, inside the block, this rank's share of the threads that it has."""
        if self.count == 1:
            yield
            return
        threads = self.share(_count_threads())
        with _using_threads(threads), defaults({"OMP_NUM_THREADS": str(threads)}):  # which accelerate would set
            yield

    def share(self, amount: int) -> int:
        """Return this rank's share, at least 1, of what the ranks of this machine have in common."""
        return max(1, amount // self.local_count)

    def leave(self) -> None:
        """Part from the others when all are at this point; from then on this process is alone."""
        if self.count == 1:
            return
        from torch import distributed

        with noticing_loss():
            distributed.barrier()
        distributed.destroy_process_group()
        for name in _VARIABLES:  # which accelerate would read again in further trainings
            os.environ.pop(name, None)

    def wait_for_end(self) -> None:
        """Wait a moment until rank 0 has ended: it tells what has happened, from which whoever ends first keeps it.

        Where nothing has happened to rank 0, it learns that this rank has ended when the moment is over.
        """
        from torch import distributed

        if self.rank and distributed.is_initialized():
            with suppress(RuntimeError):
                distributed.barrier(async_op=True).wait(_MOMENT)


ALONE: Final = Ranks()


def read_ranks() -> Ranks:
    """Return what torchrun has told this process; alone where it was started by nothing of the kind."""
    if "TORCHELASTIC_RUN_ID" not in os.environ or int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return ALONE
    return Ranks(*(int(os.environ[name]) for name in _VARIABLES))


def join_ranks() -> Ranks:
    """Meet the other ranks, if there are any.

    Returns:
        This one.

    Raises:
        RankLostError: Not all of them came.
    """
    ranks = read_ranks()
    if ranks.count == 1:
        return ALONE
    import torch
    from torch import distributed

    has_gpus = torch.cuda.is_available()
    if has_gpus:
        torch.cuda.set_device(ranks.local_rank % torch.cuda.device_count())  # as accelerate deals them out
    with noticing_loss():
        distributed.init_process_group("cpu:gloo,cuda:nccl" if has_gpus else "gloo", timeout=_PATIENCE)
    return ranks


@contextmanager
def noticing_loss(remedy: str = "") -> Iterator[None]:
    """Say of a connection that breaks inside the block that another rank has ended.

    Args:
        remedy: What was kept and the command to go on, as sentences.

    Raises:
        RankLostError: A connection broke.
    """
    try:
        yield
    except RuntimeError as error:
        from torch import distributed

        if not isinstance(error, RankLostError | distributed.DistError) and "gloo" not in str(error).lower():
            raise
        raise RankLostError(f"Another of the processes that train this run has ended. {remedy}".rstrip()) from error


def _count_threads() -> int:
    import torch

    return torch.get_num_threads()


@contextmanager
def _using_threads(count: int) -> Iterator[None]:
    """Let torch use so many threads inside the block."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _show(value: object) -> str:
    return clean_text(str(value), most=_LONGEST)
