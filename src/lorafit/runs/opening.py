"""How runs and exports are opened inside a block: on what base and threads, and what becomes of altered ones."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from lorafit.runs.moved import look_for_bases
from lorafit.system.alterations import choose_about_altered
from lorafit.system.hardware import use_threads
from lorafit.system.paths import AnyPath


@contextmanager
def opening(*, base: AnyPath | None = None, accept_altered: bool = False, threads: int | None = None) -> Iterator[None]:
    """Inside the block open runs and exports like this, whatever opens them.

    That is `load`, `explain`, `diff`, `export`, `reproduce` and every other function. What a block around this one says
    stays, unless this one says something else. Threads started inside know nothing of it.

    Args:
        base: Where the base that a run was trained on lies now, if it has moved: an encoder or a run. Its digest is
            checked.
        accept_altered: Whether to warn of files that were altered, rather than to refuse them. What a block around this
            one accepts stays accepted.
        threads: Threads to compute with; None for as many as `OMP_NUM_THREADS`, affinity and CPU quota leave.

    Raises:
        UserInputError: There is no such folder, or there are fewer threads than one.
    """
    with choose_about_altered(accept=accept_altered, say=_warn), look_for_bases(base), use_threads(threads):
        yield


def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=2)
