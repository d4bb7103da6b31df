"""The docstring of the module is its contract: it is parsed and held against the classes."""

import re
from pathlib import Path

import pytest

from lorafit import errors


def parse_tree() -> dict[str, tuple[str, int | None]]:
    """Read name, parent and exit code of every class off the drawing in the docstring."""
    drawn: dict[str, tuple[str, int | None]] = {}
    parents: list[str] = ["Exception"]
    for line in str(errors.__doc__).splitlines():
        if match := re.match(r"^(?P<branch>[ │├└─]*)(?P<name>\w+Error)\b( +exit +(?P<code>\d+))?", line):
            if not line.startswith("    "):
                continue
            depth = (len(match["branch"]) - 4) // 4
            parents[depth + 1 :] = [match["name"]]
            drawn[match["name"]] = (parents[depth], int(match["code"]) if match["code"] else None)
    return drawn


TREE = parse_tree()


def test_every_error_is_public_and_drawn() -> None:
    defined = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)}
    assert set(errors.__all__) == defined == set(TREE)
    assert errors.__all__ == sorted(errors.__all__)


@pytest.mark.parametrize("name", errors.__all__)
def test_errors_are_what_the_tree_says(name: str) -> None:
    error = getattr(errors, name)
    parent, exit_code = TREE[name]
    assert error.__bases__[0].__name__ == parent
    assert error.__doc__
    if parent not in {"Exception", "LorafitError"}:
        exit_code = TREE[parent][1]
    if exit_code is not None:
        assert error.exit_code == exit_code


@pytest.mark.parametrize(
    ("name", "exit_code", "builtin"),
    [
        ("ConfigError", 2, ValueError),
        ("DataError", 2, ValueError),
        ("RunError", 2, ValueError),
        ("MissingExtraError", 3, ImportError),
        ("MissingCarrierError", 3, RuntimeError),
        ("NetworkUnavailableError", 3, ConnectionError),
        ("TrainingDivergedError", 1, ArithmeticError),
        ("GateBrokenError", 1, Exception),
        ("NotReproducedError", 1, Exception),
    ],
)
def test_one_clause_catches_them_all(name: str, exit_code: int, builtin: type[Exception]) -> None:
    error = getattr(errors, name)("what was wrong")
    assert isinstance(error, errors.LorafitError)
    assert isinstance(error, builtin)
    assert error.exit_code == exit_code
    assert str(error) == "what was wrong"


def test_an_interrupted_training_names_the_run_to_resume() -> None:
    error = errors.TrainingInterruptedError("stopped at step 5", run=Path("runs/a"))
    assert (str(error), error.run, error.exit_code) == ("stopped at step 5", Path("runs/a"), 130)
