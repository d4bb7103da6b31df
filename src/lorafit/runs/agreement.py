"""What stands in two files of a model stands there twice with the same value, or the model is refused."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from lorafit.config import Config
from lorafit.errors import RunError
from lorafit.runs.blends import BlendFile
from lorafit.runs.folder import BLEND_CALIBRATION_FILE, BLEND_FILE, CALIBRATION_FILE, RunLayout
from lorafit.runs.golden import GoldenRecord
from lorafit.runs.records import RunRecord
from lorafit.system.alterations import report_altered
from lorafit.system.files import read_object
from lorafit.system.limits import RECORD_BYTES
from lorafit.system.text import clean_text
from lorafit.tasks.base import Task
from lorafit.tasks.records import BlendRecord

_LONGEST = 100
"""Characters shown of a value."""


class _ModelFacts(Protocol):
    """What `run.json` and `lorafit.json` say of the model."""

    def build_task(self) -> Task:
        """Return the task with its labels."""

    @property
    def max_length(self) -> int:
        """Longest input in tokens."""

    @property
    def blend(self) -> BlendRecord | None:
        """The blend that was tried."""


def check_agreement(folder: Path, record: _ModelFacts, source: Path) -> None:
    """Compare the record of a run or export with what plain libraries read in the model's folder.

    Args:
        folder: `adapter/`, `model/`, or the folder of an export.
        record: The record.
        source: Its file, for messages.

    Raises:
        RunError: Labels, kind of loss, longest input, calibration or golden logits do not fit the record.
    """
    labelled = folder / "labels" / "config.json"
    labelled = labelled if labelled.is_file() else folder / "config.json"
    for path, what, here, there in _list_facts(folder, labelled, record):
        if here != there:
            report_altered(
                f"{source} and {path} contradict each other: {what} {_show(there)} in the first, {_show(here)} in "
                "the second."
            )


def check_settings(config: Config, record: RunRecord, layout: RunLayout) -> None:
    """Compare the settings of a run with its record.

    Args:
        config: Those in `config.yaml`.
        record: The record.
        layout: The run folder.

    Raises:
        RunError: A setting that the record has, too, has another value there.
    """
    facts = {
        "data.task": (config.data.task, record.task),
        "training.seed": (config.training.seed, record.seed),
        "method.name": (config.method.name, record.method),
        "model.truncation": (config.model.truncation, record.truncation),
        "model.window_stride": (config.model.window_stride, record.window_stride),
        "data.text_pair_column": (config.data.text_pair_column is not None, record.pair),
    }
    for setting, (now, then) in facts.items():
        if now != then:
            report_altered(f"{layout.config} was altered: {setting} is {now}, the run was made with {then}.")


def check_task(config: Config, record: RunRecord, layout: RunLayout) -> None:
    """Make sure that rows are read as the run's task reads them; a RunError names both tasks."""
    if config.data.task != record.task:
        raise RunError(
            f"{layout.root} was trained with --task {record.task}, and the rows are read with --task "
            f"{config.data.task}."
        )


def _list_facts(folder: Path, labelled: Path, record: _ModelFacts) -> Iterator[tuple[Path, str, object, object]]:
    """Yield file, name and both values of every fact, the record's last."""
    task = record.build_task()
    config = read_object(labelled, RunError, RECORD_BYTES)
    names = config.get("id2label")
    yield labelled, "the labels are", names, {str(index): name for index, name in task.id2label.items()}
    yield labelled, "the kind of loss is", config.get("problem_type"), task.problem_type
    tokenizer = folder / "tokenizer_config.json"
    longest = read_object(tokenizer, RunError, RECORD_BYTES).get("model_max_length")
    yield tokenizer, "the longest input has", longest, record.max_length
    golden = folder / "golden.json"
    outputs = {len(row) for row in GoldenRecord.read(golden).logits}
    yield golden, "the numbers of outputs are", sorted(outputs), [len(task.output_names)]
    for name in (CALIBRATION_FILE, BLEND_CALIBRATION_FILE):
        if (folder / name).is_file():
            task.calibration_type.read(folder / name)
    kept = {} if record.blend is None or not record.blend.kept else record.blend.weights
    weights = BlendFile.read(folder / BLEND_FILE).weights if (folder / BLEND_FILE).is_file() else {}
    yield folder / BLEND_FILE, "the weights of the blend are", weights, kept


def _show(value: object) -> str:
    return clean_text(json.dumps(value, ensure_ascii=False), most=_LONGEST)
