"""What the guards cost: the share of training, opening and prediction that checks take.

Run: python benchmarks/guards.py [--steps 60] [--texts 2000]

Trains the built-in encoder on sentences, exports it, opens both and predicts with both, with one thread. Every check
that exists only to find what is damaged, altered or no number is timed from the inside, and its CPU time is set against
that of the whole in which it ran. So both come from one process and one moment, and another load on the machine takes
from both. Writes benchmarks/results/guards.json.
"""

import argparse
import importlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import ParamSpec, TypeVar

from trials import BUILTIN, RESULTS, run_fresh, write_results

P = ParamSpec("P")
T = TypeVar("T")

GUARDS = {
    "training": (
        ("lorafit.training.trainer", "_Trainer._require_finite"),
        ("lorafit.training.checkpoints", "mark_complete"),
    ),
    "opening": (
        ("lorafit.system.digests", "check_files"),
        ("lorafit.system.digests", "check_listed"),
        ("lorafit.system.records", "_compute_seal"),
        ("lorafit.models.weights", "_find_fault"),
    ),
    "predicting": (("lorafit.inference.predictor", "Predictor._check_finite"),),
}
"""Checks by what they are part of: module and name."""


class Meter:
    """Adds up the CPU time of this thread inside some functions, and inside a whole."""

    def __init__(self, names: tuple[tuple[str, str], ...]) -> None:
        self.inside = 0.0
        self.calls = 0
        self.whole = 0.0
        self._is_inside = False
        self._names = names

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Time the block as a whole, and the functions in it."""
        for module, name in self._names:
            self._watch(importlib.import_module(module), name)
        began = time.thread_time()
        yield
        self.whole += time.thread_time() - began

    def _watch(self, module: ModuleType, name: str) -> None:
        *owners, last = name.split(".")
        owner = getattr(module, owners[0]) if owners else module
        function = getattr(owner, last)
        timed = self._time(function)
        setattr(owner, last, timed)
        for other in [other for place, other in sys.modules.items() if place.startswith("lorafit.") and not owners]:
            if getattr(other, last, None) is function:
                setattr(other, last, timed)

    def _time(self, function: Callable[P, T]) -> Callable[P, T]:
        def call(*arguments: P.args, **named: P.kwargs) -> T:
            if self._is_inside:
                return function(*arguments, **named)
            self._is_inside = True
            began = time.thread_time()
            try:
                return function(*arguments, **named)
            finally:
                self.inside += time.thread_time() - began
                self.calls += 1
                self._is_inside = False

        return call

    def result(self) -> dict[str, float]:
        """Return seconds inside and as a whole, calls, and the share."""
        if not self.calls:
            raise SystemExit("No check was called: what is measured has another name now.")
        return {"guards_s": self.inside, "whole_s": self.whole, "calls": self.calls, "share": self.inside / self.whole}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--texts", type=int, default=2000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        results = {"training": run_fresh(train, folder, arguments.steps)}
        for kind in ("run", "onnx", "onnx-int8"):
            results |= run_fresh(use, folder / kind, arguments.texts)
    for what, found in results.items():
        print(f"{what:<24} {found['guards_s'] * 1e3:8.1f} ms of {found['whole_s']:6.2f} s: {found['share']:.2%}")
    write_results(RESULTS / "guards.json", {"steps": arguments.steps, "texts": arguments.texts, "guards": results})


def train(folder: Path, steps: int) -> dict[str, float]:
    """Train a run and export it; return the cost of the checks of its training stage."""
    import lorafit
    from lorafit.config import load_config
    from lorafit.training import trainer

    config = load_config(
        overrides=[
            f"model.name={BUILTIN}",
            f"training.max_steps={steps}",
            "training.threads=1",
            "training.prefix_cache=never",
            "data.max_rows=1500",
            "evaluation.before=false",
            "evaluation.baselines=false",
            "evaluation.report=false",
        ]
    )
    meter = Meter(GUARDS["training"])
    trainer.fit = _within(meter, trainer.fit)
    run = lorafit.train(config, output=folder / "run")
    for kind in ("onnx", "onnx-int8"):
        lorafit.export(run.path, output=folder / kind, int8=kind == "onnx-int8", allow_drift=True)
    return meter.result()


def _within(meter: Meter, function: Callable[P, T]) -> Callable[P, T]:
    def call(*arguments: P.args, **named: P.kwargs) -> T:
        with meter.at_work():
            return function(*arguments, **named)

    return call


def use(folder: Path, texts: int) -> dict[str, dict[str, float]]:
    """Open a run or an export and predict with it; return the costs of the checks of both."""
    import lorafit

    opening, predicting = Meter(GUARDS["opening"]), Meter(GUARDS["predicting"])
    with opening.at_work():
        predictor = lorafit.load(folder)
    words = ("a film that", "was long and", "dull", "lovely", "for two hours", "with a fine story")
    given = [" ".join(words[(row * step) % len(words)] for step in range(1, 2 + row % 9)) for row in range(texts)]
    predictor.predict(given[:64])
    with predicting.at_work():
        predictor.predict(given)
    return {f"opening {folder.name}": opening.result(), f"predicting {folder.name}": predicting.result()}


if __name__ == "__main__":
    main()
