"""The store of a search: several processes that write to it at once, and what is read from it."""

import subprocess
import sys
import warnings
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import optuna
from optuna.exceptions import ExperimentalWarning

from lorafit.experiments.search.records import TrialRow
from lorafit.experiments.search.study import _open_file, measure_importances

ASK = """
import sys, time
from contextlib import ExitStack
from pathlib import Path
import optuna
from lorafit.experiments.search.study import _open_file
optuna.logging.set_verbosity(optuna.logging.CRITICAL)
with ExitStack() as stack:
    study = optuna.load_study(storage=_open_file(Path(sys.argv[1]), stack), study_name="race")
    print("ready", flush=True)
    sys.stdin.readline()
    print(*[study.ask().number for _ in range(30)])
"""


def test_no_waiting_trial_is_taken_by_two_processes(tmp_path: Path) -> None:
    with ExitStack() as stack, warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        study = optuna.create_study(storage=_open_file(tmp_path / "study.db", stack), study_name="race")
        for value in range(60):
            study.enqueue_trial({"x": value})
    command = [sys.executable, "-W", "ignore", "-c", ASK, str(tmp_path / "study.db")]
    two = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for process in two:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in two:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    taken = [number for process in two for number in process.communicate(timeout=100)[0].split()]
    assert sorted(map(int, taken)) == list(range(60))


def test_importances_are_measured_from_twenty_trials_on() -> None:
    study = optuna.create_study()
    ranges = {name: optuna.distributions.FloatDistribution(0, 1) for name in ("strong", "weak")}
    rng, rows = np.random.default_rng(0), []
    for number in range(30):
        values = dict(zip(ranges, rng.random(2).tolist(), strict=True))
        loss = (values["strong"] - 0.3) ** 2 + 0.01 * values["weak"]
        study.add_trial(optuna.trial.create_trial(params=values, distributions=ranges, value=loss))
        rows.append(TrialRow(number=number, state="complete", values=values, loss=loss, score=None, seconds=1))
    assert measure_importances(study, rows[:19]) == {}
    repeated = [row.model_copy(update={"same_as": 0}) for row in rows]
    assert measure_importances(study, [*rows[:19], *repeated]) == {}
    importances = measure_importances(study, rows)
    assert list(importances) == ["strong", "weak"]
    assert importances["strong"] > 0.8
    assert measure_importances(study, [row.model_copy(update={"loss": 0.5}) for row in rows]) == {}
