"""The store of a search where several processes write to it at once."""

import subprocess
import sys
import time
import warnings
from contextlib import ExitStack
from pathlib import Path

import optuna
from optuna.exceptions import ExperimentalWarning

from lorafit.experiments.search.study import _open_storage

ASK = """
import sys, time
from contextlib import ExitStack
from pathlib import Path
import optuna
from lorafit.experiments.search.study import _open_storage
optuna.logging.set_verbosity(optuna.logging.CRITICAL)
with ExitStack() as stack:
    study = optuna.load_study(storage=_open_storage(Path(sys.argv[1]), stack), study_name="race")
    while time.time() < float(sys.argv[2]):
        pass
    print(*[study.ask().number for _ in range(30)])
"""


def test_no_waiting_trial_is_taken_by_two_processes(tmp_path: Path) -> None:
    with ExitStack() as stack, warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        study = optuna.create_study(storage=_open_storage(tmp_path / "study.db", stack), study_name="race")
        for value in range(60):
            study.enqueue_trial({"x": value})
    command = [sys.executable, "-W", "ignore", "-c", ASK, str(tmp_path / "study.db"), str(time.time() + 6)]
    two = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    taken = [number for process in two for number in process.communicate(timeout=100)[0].split()]
    assert sorted(map(int, taken)) == list(range(60))
