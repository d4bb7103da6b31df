"""Prove that lorafit trains on a CUDA GPU: the same run there and on the CPU, compared, in about five minutes.

Run: scripts/check_gpu.sh [--device cuda] [--steps 200] [--rows 4000]

It needs `lorafit[export]` with a build of torch that has CUDA, and the built-in model and data (`lorafit doctor` names
what is missing). Both runs are in fp32, without dropout and with one seed, so that nothing but the order of sums
differs: the losses of all steps agree within LOSS, and the labels of the test rows but for a share of LABELS. Then the
GPU's run is opened on the GPU and exported, and its labels are compared with those of the export on the CPU. Other
kinds of training (bf16, DoRA, SetFit, embeddings) make a few steps on the GPU.

With `--device cpu` both sides are the CPU: that tests this script. Exit code: 0 all agrees; 1 something differs; 3 the
machine or the installation lacks something.
"""

import argparse
import json
import math
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LOSS = 0.01
"""Largest difference between the mean losses of ten steps, in nats."""

LABELS = 0.01
"""Largest share of test rows with another label: those that are nearly even."""

KINDS: dict[str, dict[str, object]] = {
    "the precision that is chosen": {"training.precision": "auto"},
    "DoRA": {"method.name": "dora"},
    "SetFit": {"method.name": "setfit"},
    "embeddings": {"method.name": "embedding"},
}
FEW_STEPS, FEW_ROWS = 20, 600

Row = tuple[str, str, bool]
"""What was checked, what was found, and whether that is as it should be."""


def main() -> int:
    """Check, print the table, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="what is compared with the CPU")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--rows", type=int, default=4000)
    arguments = parser.parse_args()
    from lorafit import LorafitError

    began, rows = time.perf_counter(), list[Row]()
    try:
        print(describe_machine(arguments.device), flush=True)
        with tempfile.TemporaryDirectory(prefix="lorafit-gpu-") as folder:
            for row in check(arguments.device, arguments.steps, arguments.rows, Path(folder)):
                rows.append(row)
                print(f"{'ok   ' if row[2] else 'WRONG'}  {row[0]:<44}  {row[1]}", flush=True)
    except LorafitError as error:
        print(error, file=sys.stderr)
        return 3
    wrong = [name for name, _, is_right in rows if not is_right]
    print(f"{len(rows) - len(wrong)} of {len(rows)} checks agree, after {time.perf_counter() - began:.0f} s.")
    return 1 if wrong else 0


def describe_machine(device: str) -> str:
    """Return a line of versions and devices; raise where there is no such device."""
    import platform

    import torch

    from lorafit.models.acceleration.precision import choose_device
    from lorafit.system import hardware
    from lorafit.training.prepare import collect_versions

    choose_device(device)  # type: ignore[arg-type]  # of argparse's choices
    versions = ", ".join(f"{name} {version}" for name, version in collect_versions().items())
    names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return f"{platform.system()}, {hardware.cpu_name()}, GPUs: {', '.join(names) or 'none'}, {versions}"


def check(device: str, steps: int, rows: int, folder: Path) -> Iterator[Row]:
    """Yield what was found, row by row."""
    import lorafit

    changes = {"training.max_steps": steps, "data.max_rows": rows}
    runs = {place: train(folder / place, place, changes) for place in dict.fromkeys(("cpu", device))}
    again = runs[device] if device != "cpu" else train(folder / "again", "cpu", changes)
    curves = [read_losses(run.path) for run in (runs["cpu"], again)]
    far = max(abs(one - other) for one, other in zip(*curves, strict=True))
    yield f"losses of {steps} steps", f"apart by {far:.5f} at most, {LOSS:g} allowed", far <= LOSS
    falls = curves[1][-1] < curves[1][0]
    yield "the loss falls", f"from {curves[1][0]:.3f} to {curves[1][-1]:.3f}", falls
    if device == "cuda":
        yield from check_use_of_gpu(runs["cpu"], again)
    texts = read_test_texts(rows)
    on_device, on_cpu = (predict(run, texts, runtime="torch") for run in (again, runs["cpu"]))
    yield compare("labels of both runs", on_cpu, on_device)
    exported = lorafit.export(again.path, blend=False)
    yield compare("labels of the run and of its export", on_device, predict(exported, texts))
    for kind, settings in KINDS.items():
        few = {"training.max_steps": FEW_STEPS, "data.max_rows": FEW_ROWS}
        run = train(folder / kind, device, few | settings)
        value = run.metrics.after.metrics[run.record.build_task().primary].value
        found = f"{run.record.hardware.precision}, {run.record.seconds['training']:.1f} s, test metric {value:.3f}"
        yield f"{kind} on {device}", found, math.isfinite(value)


def check_use_of_gpu(on_cpu: Any, on_gpu: Any) -> Iterator[Row]:  # noqa: ANN401 - runs, which are imported late
    """Yield whether the GPU was used, and what it brought."""
    import torch

    used = torch.cuda.max_memory_allocated()
    yield "the GPU's memory was used", f"{used / 1e6:,.0f} MB at most", used > 0
    speeds = [run.record.training.tokens_per_second for run in (on_cpu, on_gpu)]
    yield "tokens a second", f"{speeds[0]:,.0f} on the CPU, {speeds[1]:,.0f} on the GPU", True


def train(folder: Path, device: str, changes: dict[str, object]) -> Any:  # noqa: ANN401 - a run, which is imported late
    """Train on the built-in data, in fp32 and without dropout where nothing else is said."""
    import lorafit
    from lorafit.config import override_config

    settings = {
        "data.source": "builtin:rotten-tomatoes",
        "model.name": "builtin:distil-minilm",
        "training.device": device,
        "training.precision": "fp32",
        "training.blend": "off",
        "training.early_stopping_patience": 0,
        "evaluation.before": False,
        "evaluation.baselines": False,
        "evaluation.report": False,
    }
    dropout = {} if "method.name" in changes else {"method.lora_dropout": 0.0}
    return lorafit.train(override_config(lorafit.Config(), settings | dropout | changes), output=folder)


def read_losses(run: Path) -> list[float]:
    """Return the mean training losses of every ten steps."""
    lines = [json.loads(line) for line in (run / "history.jsonl").read_text(encoding="utf-8").splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def read_test_texts(most: int) -> list[str]:
    """Return texts of the test rows."""
    from lorafit.data.builtin import load_rotten_tomatoes

    return [str(text) for text in load_rotten_tomatoes().test.texts[:most]]


def predict(model: Any, texts: list[str], **how: Any) -> list[str]:  # noqa: ANN401 - a run or an export
    """Return the labels of texts."""
    import lorafit

    return [one.label for one in lorafit.load(model.path, **how).predict(texts)]


def compare(name: str, labels: list[str], others: list[str]) -> Row:
    """Return how many labels differ, and whether these are few."""
    unlike = sum(one != other for one, other in zip(labels, others, strict=True))
    return name, f"{unlike} of {len(labels):,} differ, {LABELS:.0%} allowed", unlike <= LABELS * len(labels)


if __name__ == "__main__":
    sys.exit(main())
