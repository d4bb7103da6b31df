"""A predictor in somebody else's process: its state, threads, memory and forked children."""

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

import lorafit
from lorafit.config import load_config
from lorafit.inference.predictor import Predictor
from lorafit.models.acceleration.precision import PrecisionChoice, choose_precision
from lorafit.models.runtimes.pytorch import TorchRuntime
from lorafit.system import hardware
from lorafit.tasks.registry import build_task

from .conftest import LABELS

STATE = """
import logging, os, random, signal, sys, warnings
import numpy, onnxruntime, peft, torch, transformers

def read_state():
    loggers = {name: one.level for name, one in logging.root.manager.loggerDict.items() if hasattr(one, "level")}
    return {
        "random": random.getstate(),
        "numpy": str(numpy.random.get_state()),
        "torch": torch.get_rng_state().tolist(),
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "autocast": (torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")),
        "torch's modes": (torch.is_grad_enabled(), torch.get_default_dtype(), torch.get_float32_matmul_precision()),
        "small numbers": float(torch.tensor(1e-40)),
        "warnings": (list(map(str, warnings.filters)), warnings.showwarning),
        "numpy's errors": numpy.geterr(),
        "loggers": {name: level for name, level in loggers.items() if name in KNOWN},
        "root logger": (logging.root.level, list(logging.root.handlers)),
        "transformers": transformers.utils.logging.get_verbosity(),
        "environment": dict(os.environ),
        "signals": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "folder": os.getcwd(),
        "hooks": (sys.excepthook, list(sys.path), sys.getrecursionlimit()),
    }

KNOWN = set(logging.root.manager.loggerDict)
torch.set_num_threads(2)
before = read_state()
import lorafit
lorafit.load(sys.argv[1]).predict(["a superb film", "dull"])
after = read_state()
print([name for name in before if before[name] != after[name]])
"""

FORK = """
import multiprocessing, sys
import lorafit
predictor = lorafit.load(sys.argv[1])
texts = ["a superb film " * 20] * 32
expected = predictor.predict_proba(texts)

def answer(queue):
    queue.put(abs(predictor.predict_proba(texts) - expected).max())

context = multiprocessing.get_context("fork")
queue = context.Queue()
child = context.Process(target=answer, args=(queue,))
child.start()
print(queue.get(timeout=60) < 1e-3)
child.join()
print((predictor.predict_proba(texts) == expected).all())
"""

GROW = """
import sys, random
import lorafit
from pathlib import Path

def resident():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))

predictor = lorafit.load(sys.argv[1])
rng = random.Random(0)
words = "good bad film the a of funny dull long short surprise never always great waste".split()
loaded = resident()
sizes = []
for call in range(5000):
    predictor.predict([" ".join(rng.choices(words, k=rng.randint(1, 250)))])
    if call % 100 == 99:
        sizes.append(resident() - loaded)
print(max(sizes), sizes[-1] - sizes[9])
"""


def run_script(script: str, *words: object, **variables: str) -> str:
    environment = os.environ | {"OMP_NUM_THREADS": "2"} | variables
    command = [sys.executable, "-W", "ignore", "-c", script, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=500)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module", params=["run", "onnxruntime", "openvino"])
def folder(request: pytest.FixtureRequest, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run and its exports, in turn."""
    if request.param == "run":
        return trained
    return lorafit.export(trained, runtime=request.param, output=tmp_path_factory.mktemp("exported") / "model").path


@pytest.mark.slow
def test_opening_a_predictor_leaves_the_process_as_it_was(folder: Path) -> None:
    assert run_script(STATE, folder) == "[]"


def test_several_threads_get_the_answers_of_one_that_has_the_model_to_itself(folder: Path) -> None:
    predictor = lorafit.load(folder, threads=1)
    portions = [["superb film " * count, "dull", f"film {count}"] for count in range(1, 13)]
    alone = [predictor.predict_proba(texts) for texts in portions]
    with ThreadPoolExecutor(6) as pool:
        for expected, got in zip(alone, pool.map(predictor.predict_proba, portions), strict=True):
            np.testing.assert_array_equal(got, expected)


@pytest.mark.slow
def test_a_process_forked_after_loading_answers(folder: Path) -> None:
    assert run_script(FORK, folder).split() == ["True", "True"]


def test_in_a_forked_process_torch_takes_no_threads_that_stayed_behind(trained: Path) -> None:
    predictor = lorafit.load(trained, precision="fp32")
    expected = predictor.predict_proba(["a superb film"])
    predictor.runtime._process = os.getpid() + 1  # as a child sees it
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        np.testing.assert_allclose(predictor.predict_proba(["a superb film"]), expected, atol=1e-6)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("asked", "taken"), [({}, 2), ({"threads": 3}, 3)])
def test_threads_follow_what_the_machine_leaves_or_what_is_asked_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch, asked: dict[str, int], taken: int
) -> None:
    monkeypatch.setattr(hardware, "available_cores", lambda _: 2)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        runtime = lorafit.load(folder, **asked).runtime
        seen = {
            "torch": lambda: runtime._threads,
            "onnx": lambda: runtime._session.get_session_options().intra_op_num_threads,
            "openvino": lambda: runtime._model.get_property("INFERENCE_NUM_THREADS"),
        }
        most = os.cpu_count() if runtime.name == "openvino" else taken  # OpenVINO takes no more than there are
        assert seen[runtime.name]() == min(taken, most)
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)


def test_torch_takes_its_threads_while_it_computes_alone(
    build_predictor: Callable[..., Predictor], monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = build_predictor(build_task("single_label", LABELS["single_label"]))
    model, seen = predictor.runtime._model, []
    monkeypatch.setattr(predictor, "runtime", TorchRuntime(model, PrecisionChoice("fp32", "for the test"), threads=2))
    hook = model.register_forward_hook(lambda *_: seen.append(torch.get_num_threads()))
    before = torch.get_num_threads()
    predictor.predict(["fine"])
    hook.remove()
    assert (seen, torch.get_num_threads()) == ([2], before)


def test_in_bf16_products_come_in_few_shapes(
    build_predictor: Callable[..., Predictor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """For every number of positions the library beneath torch keeps kernels for good."""
    predictor, positions = build_predictor(build_task("single_label", LABELS["single_label"])), set()

    class Counting(TorchRuntime):
        precision = "bf16"

        def logits(self, input_ids: object, attention_mask: object, **others: object) -> object:
            positions.add(input_ids.size)
            return super().logits(input_ids, attention_mask, **others)

    exact = PrecisionChoice("fp32", "for the test")
    texts, rng = ["film " * count for count in range(1, 80)], np.random.default_rng(0)
    calls = [[text] for text in texts] + [rng.choice(texts, size) for size in rng.integers(1, 64, 40)]
    expected = [predictor.predict_proba(call) for call in calls]
    monkeypatch.setattr(predictor, "runtime", Counting(predictor.runtime._model, exact))
    for call, values in zip(calls, expected, strict=True):
        np.testing.assert_allclose(predictor.predict_proba(call), values, atol=1e-5)
    assert len(positions) <= 8 * 8


@pytest.mark.slow
def test_memory_of_single_texts_in_bf16_and_openvino_is_bounded(tmp_path: Path) -> None:
    if choose_precision("auto").name != "bf16":
        pytest.skip("this CPU has no bfloat16 unit")
    rows = [f"{('dull', 'superb')[row % 2]} film {row},{('bad', 'good')[row % 2]}" for row in range(120)]
    (tmp_path / "rows.csv").write_text("\n".join(["text,label", *rows]) + "\n", encoding="utf-8")
    flags = {"data.source": str(tmp_path / "rows.csv"), "model.name": "builtin:distil-minilm", "training.epochs": 1}
    lorafit.train(load_config(flags=flags), output=tmp_path / "run")
    lorafit.export(tmp_path / "run", int8=True, runtime="openvino", output=tmp_path / "export", allow_drift=True)
    for folder in (tmp_path / "run", tmp_path / "export"):
        most, later = map(float, run_script(GROW, folder, OMP_NUM_THREADS="1").split())
        assert most < 50, "megabytes beyond what loading took"
        assert later < 10
