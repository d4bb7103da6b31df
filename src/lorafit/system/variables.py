"""Environment variables that libraries read when they are loaded."""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

BRIEF_SPINS: Final = {"GOMP_SPINCOUNT": "10000"}
"""How often a thread of libgomp, which torch computes with on Linux, looks for work before it sleeps.

By itself it looks 300,000 times (the manual of GNU libgomp, "GOMP_SPINCOUNT"), milliseconds in which it holds a core
that another program could use, and that the thread it waits for may need. `benchmarks/contention.py` measures both.
"""

_WAIT_POLICY: Final = "OMP_WAIT_POLICY"
"""OpenMP's own variable for this: `active` or `passive`."""


@contextmanager
def defaults(variables: Mapping[str, str]) -> Iterator[None]:
    """Set variables inside the block unless the user has set them; afterwards they are as before."""
    added = [name for name in variables if name not in os.environ]
    os.environ.update({name: variables[name] for name in added})
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


@contextmanager
def sharing_cores() -> Iterator[None]:
    """Let threads of libraries that are loaded inside the block wait without holding a core for long.

    Nothing changes where the user says how OpenMP's threads wait (`OMP_WAIT_POLICY` or `GOMP_SPINCOUNT`).
    """
    is_libgomp = sys.platform == "linux"  # torch brings another OpenMP elsewhere
    with defaults(BRIEF_SPINS if is_libgomp and _WAIT_POLICY not in os.environ else {}):
        yield


def describe_waiting() -> str | None:
    """Return what tells OpenMP's idle threads how to wait, as `NAME=value`; None where no variable does."""
    names = (name for name in (*BRIEF_SPINS, _WAIT_POLICY) if name in os.environ)  # as libgomp minds them
    return next((f"{name}={os.environ[name]}" for name in names), None)
