"""Small training jobs for one process or several; as a script it is one rank of several, which trains some of them.

Usage: shared_jobs.py ENCODER FOLDER NAME...
"""

import json
import runpy
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lorafit.config import MethodConfig, TrainingConfig
from lorafit.models.acceleration.precision import PrecisionChoice
from lorafit.models.method_settings import complete_method
from lorafit.runs.folder import RunLayout
from lorafit.system.progress import Silent
from lorafit.training.job import TrainingJob
from lorafit.training.ranks import ALONE, Ranks, join_ranks
from lorafit.training.trainer import fit

LORA = {"r": 4, "lora_dropout": 0.0}

VARIANTS: dict[str, dict[str, Any]] = {
    "lora": {},
    "single rows": {"batch_size": 1, "max_steps": 12},
    "focal loss": {"loss": "focal"},
    "balanced": {"sampling": "balanced"},
    "stops early": {"epochs": 6, "early_stopping_patience": 1, "learning_rate": 0.2},
    "weights": {},
    "short first": {},
    "adalora": {"method": {"name": "adalora"}},
    "lora_fa": {"method": {"name": "lora_fa", "r": 4}},
    "p_tuning": {"method": {"name": "p_tuning"}},
    "full": {"method": {"name": "full"}, "learning_rate": 1e-3},
    "houlsby": {"method": {"name": "houlsby"}},
}
"""Settings of the training section that a job differs in, and its method."""


def train(encoder: Path, name: str, folder: Path, ranks: Ranks = ALONE) -> dict[str, Any]:
    """Train a job without dropout; return its losses, its weights, and what of it was recorded."""
    toys = runpy.run_path(str(Path(__file__).with_name("conftest.py")))
    given = dict(VARIANTS[name])
    method = complete_method(MethodConfig(**given.pop("method", LORA)))
    sizes = {"epochs": 2, "batch_size": 8, "batch_tokens": 120, "evaluations_per_epoch": 2}
    config = TrainingConfig(**{**sizes, "learning_rate": 5e-3, "early_stopping_patience": 0, "seed": 3, **given})
    adapted = toys["build_adapted"](encoder, seed=3, method=method)
    rows, held_out = toys["build_rows"](45, seed=1), toys["build_rows"](24, seed=99)
    rng = np.random.default_rng(0)
    if config.sampling == "balanced":
        rows = replace(rows, groups=np.asarray(rows.labels))
    if name == "weights":
        rows = replace(rows, weights=rng.uniform(0.5, 1.5, (len(rows), 1)).astype(np.float32))
    if name == "short first":
        cut = [rows.texts.ids[begin : begin + 6] for begin in rows.texts.offsets[:-1]]
        offsets = np.cumsum([0, *(min(6, length) for length in rows.texts.lengths)])
        ids = np.concatenate([part[: offsets[at + 1] - offsets[at]] for at, part in enumerate(cut)])
        rows = replace(rows, short=replace(rows.texts, ids=ids, offsets=offsets))
    folder.mkdir(parents=True)
    job = TrainingJob(
        adapted=adapted,
        rows=rows,
        config=config,
        method=method,
        layout=RunLayout(folder),
        precision=PrecisionChoice("fp32", "asked for"),
        validate=lambda: toys["measure"](adapted, held_out),
        metrics=toys["TASK"].metrics,
        row_numbers=range(45),
        ranks=ranks,
    )
    record = fit(job, progress=Silent())
    lines = [json.loads(line) for line in job.layout.history.read_text().splitlines()]
    return {
        "losses": [line.get("loss", line.get("eval_loss")) for line in lines],
        "weights": {
            name: weight.detach().clone() for name, weight in adapted.model.named_parameters() if weight.requires_grad
        },
        "record": record.model_dump(),
        "seen": rows.seen,
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    meeting = join_ranks()
    place = Path(sys.argv[2])
    found = {name: train(Path(sys.argv[1]), name, place / f"{name} {meeting.rank}", meeting) for name in sys.argv[3:]}
    torch.save(found, place / f"{meeting.rank}.pt")
    meeting.leave()
