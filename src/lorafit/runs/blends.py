"""The blend of a trained folder or export on disk: `blend.json`, and the word models in `words.safetensors`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError
from safetensors import SafetensorError
from safetensors.numpy import load, save

from lorafit.errors import RunError
from lorafit.runs.folder import BLEND_CALIBRATION_FILE, BLEND_FILE, CALIBRATION_FILE, WORDS_FILE
from lorafit.system.atomic import write_atomic
from lorafit.system.files import read_file
from lorafit.system.records import FileRecord, Record
from lorafit.system.text import clean_text
from lorafit.tasks.base import Task
from lorafit.tasks.baselines import ENCODER
from lorafit.tasks.blending import LARGEST_WEIGHT, Blend
from lorafit.tasks.records import BlendRecord, Calibration
from lorafit.tasks.word_model import HASHES, Link, WordModel

_TYPES: Final = {
    "columns": np.uint32,
    "weights": np.float16,
    "scales": np.float64,
    "biases": np.float64,
    "idf": np.float16,
}
"""The arrays of a word model."""

_LARGEST: Final = {"weights": 1.0, "scales": float(np.finfo(np.float32).max), "biases": float(np.finfo(np.float32).max)}
"""Sums of larger numbers would not be finite in single precision; weights are shares of the largest."""


class WordFacts(Record):
    """What is not an array of a word model: see `WordModel`."""

    words: Annotated[int, Field(ge=0, le=3)]
    link: Link
    labels: int
    fitted: list[int]
    reference: int | None
    certain: list[int]


class BlendFile(FileRecord):
    """`blend.json`.

    Attributes:
        weights: How much each member counts, the encoder's first.
        models: Each word model but its arrays.
    """

    weights: dict[str, Annotated[float, Field(ge=0, le=LARGEST_WEIGHT, allow_inf_nan=False)]]
    models: dict[str, WordFacts]

    @model_validator(mode="after")
    def _check_members(self) -> Self:
        if list(self.weights) != [ENCODER, *self.models]:
            raise PydanticCustomError("members", "the weights are not those of the encoder and the word models")
        return self


class _Kept(Protocol):
    """What the records of runs and exports say of their blend."""

    @property
    def blend(self) -> BlendRecord | None:
        """The blend that was tried."""

    @property
    def files(self) -> dict[str, str]:
        """Digest of each file."""


@dataclass(frozen=True)
class Calibrated:
    """What makes predictions of a trained encoder: its calibration, and its blend with the calibration of that.

    Attributes:
        alone: The calibration of the encoder alone, or None.
        blend: The blend, where one is kept.
        blended: Its calibration, or None without a blend.
    """

    alone: Calibration | None = None
    blend: Blend | None = None
    blended: Calibration | None = None

    @property
    def calibration(self) -> Calibration | None:
        """The calibration of what predicts."""
        return self.alone if self.blend is None else self.blended

    def write(self, folder: Path) -> None:
        """Write all that there is into a folder."""
        if self.alone is not None:
            self.alone.write(folder / CALIBRATION_FILE)
        if self.blended is not None:
            self.blended.write(folder / BLEND_CALIBRATION_FILE)
        if self.blend is not None:
            write_blend(self.blend, folder)


def uses_blend(record: _Kept, *, wanted: bool) -> bool:
    """Tell whether predictions are those of a blend."""
    return wanted and record.blend is not None and record.blend.kept


def name_calibration(record: _Kept, *, wanted: bool) -> str:
    """Return the name of the calibration's file, of the blend's where that is wanted and kept."""
    return BLEND_CALIBRATION_FILE if uses_blend(record, wanted=wanted) else CALIBRATION_FILE


def open_blend(folder: Path, record: _Kept, task: Task, *, wanted: bool) -> tuple[Blend | None, Path | None]:
    """Read the blend of a folder.

    Args:
        folder: `adapter/`, `model/`, or the folder of an export.
        record: Its record.
        task: The model's task.
        wanted: Whether word models are to have a say.

    Returns:
        The blend, or None where the encoder answers alone; and the file of the calibration that belongs to it, or None.

    Raises:
        RunError: As `read_blend`.
    """
    name = name_calibration(record, wanted=wanted)
    blend = read_blend(folder, task) if uses_blend(record, wanted=wanted) else None
    return blend, folder / name if name in record.files else None


def write_blend(blend: Blend, folder: Path) -> None:
    """Write a blend of compact word models into a folder."""
    arrays = {f"{name}.{part}": array for name, model in blend.words.items() for part, array in model.pack().items()}
    write_atomic(folder / WORDS_FILE, save(arrays))
    models = {name: WordFacts(**model.describe()) for name, model in blend.words.items()}
    BlendFile(weights=dict(blend.weights), models=models).write(folder / BLEND_FILE)


def read_blend(folder: Path, task: Task) -> Blend:
    """Read the blend of a folder.

    Args:
        folder: `adapter/`, `model/`, or the folder of an export.
        task: The model's task.

    Returns:
        The blend.

    Raises:
        RunError: A file is missing or damaged, or not for this task.
    """
    file, path = BlendFile.read(folder / BLEND_FILE), folder / WORDS_FILE
    try:
        arrays = load(read_file(path, RunError))
    except (SafetensorError, KeyError, ValueError) as error:
        raise RunError(f"{path} is damaged: {clean_text(str(error), most=100)}.") from error
    words = {}
    for name, facts in file.models.items():
        packed = {part: arrays[f"{name}.{part}"] for part in _TYPES if f"{name}.{part}" in arrays}
        if (fault := _find_fault(facts, packed, task)) is not None:
            raise RunError(f"{path} and {BLEND_FILE} do not hold a word model of this task: {fault} of {name}.")
        words[name] = WordModel.unpack(facts.model_dump(), packed)
    return Blend(file.weights, words)


def _find_fault(facts: WordFacts, packed: dict[str, NDArray[Any]], task: Task) -> str | None:
    """Say what is wrong with a word model; None for nothing."""
    labels = len(task.label_names)
    named = [*facts.fitted, *facts.certain, *([] if facts.reference is None else [facts.reference])]
    if facts.labels != labels or len(set(named)) != len(named) or not all(0 <= one < labels for one in named):
        return "the labels"
    columns, fitted = len(packed.get("columns", ())), len(facts.fitted)
    shapes = {"columns": (columns,), "weights": (columns, fitted), "scales": (fitted,), "biases": (fitted,)}
    shapes |= {"idf": (columns,)} if "idf" in packed else {}
    for part, shape in shapes.items():
        array = packed.get(part)
        if array is None or array.dtype != _TYPES[part] or array.shape != shape or not np.isfinite(array).all():
            return f"the {part}"
    for part, largest in _LARGEST.items():
        if (np.abs(packed[part]) > largest).any():
            return f"the {part}"
    found = packed["columns"].astype(np.int64)
    if (np.diff(found) <= 0).any() or (found >= HASHES).any():
        return "the columns"
    try:
        task.check_values(WordModel.unpack(facts.model_dump(), packed).score([""]))
    except ValueError:
        return "the values"
    return None
