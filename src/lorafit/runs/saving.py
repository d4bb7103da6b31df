"""Save a trained adapter or model as a plain PEFT or transformers folder, and load it again.

A `config.json` directly beside `adapter_config.json` would make transformers take the adapter for a whole model; the
adapter's labels are therefore in `labels/config.json`.
"""

import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lorafit.config import ModelConfig
from lorafit.errors import LorafitError, RunError
from lorafit.models.adaptation import AdaptedModel
from lorafit.models.load import Encoder, load_tokenizer, load_with_head, locate_encoder, quiet_transformers
from lorafit.models.tokenization import read_tokenizer
from lorafit.runs.folder import ADAPTER_FILES, CALIBRATION_FILE, MODEL_FILES, RunLayout
from lorafit.runs.golden import GoldenRecord, choose_golden_texts, verify_golden
from lorafit.runs.records import RunRecord
from lorafit.system.atomic import atomic_directory, compute_digest
from lorafit.tasks.base import Task
from lorafit.tasks.records import Calibration

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


_PLAIN = Path(__file__).parents[1] / "models" / "runtimes" / "plain.py"


def save_trained(
    adapted: AdaptedModel,
    encoder: Encoder,
    layout: RunLayout,
    task: Task,
    *,
    max_length: int,
    compute_logits: Callable[[list[str]], NDArray[np.floating]],
    calibration: Calibration | None = None,
) -> dict[str, str]:
    """Write adapter or model, and check in a fresh process that plain libraries load it with the same logits.

    Args:
        adapted: The trained model.
        encoder: Its base.
        layout: The run folder; `adapter/` or `model/` appears in it only after the check.
        task: Its task.
        max_length: Longest input in tokens, for the tokenizer's own truncation.
        compute_logits: Texts to logits of the trained model in this process, at `GOLDEN_PRECISION`.
        calibration: Its calibration, or None.

    Returns:
        SHA-256 of each file of `ADAPTER_FILES` or `MODEL_FILES`, and of the calibration.
    """
    folder, names = (layout.adapter, ADAPTER_FILES) if adapted.is_adapter else (layout.model, MODEL_FILES)
    with atomic_directory(folder) as staging:
        write_trained(adapted, encoder, staging, max_length=max_length)
        texts = choose_golden_texts(read_tokenizer(staging), max_length)
        golden = staging / layout.golden.name
        GoldenRecord(texts=texts, logits=compute_plain_logits(staging, texts)).write(golden)
        verify_golden(golden, compute_logits, task, runtime="torch")
        if calibration is not None:
            calibration.write(staging / CALIBRATION_FILE)
            names = (*names, CALIBRATION_FILE)
        return {name: compute_digest(staging / name) for name in names}


def write_trained(adapted: AdaptedModel, encoder: Encoder, folder: Path, *, max_length: int) -> None:
    """Write adapter and head, or the model, with tokenizer and labels, in the format of plain libraries.

    Args:
        adapted: The trained model.
        encoder: Its base.
        folder: An existing folder.
        max_length: Longest input in tokens, for the tokenizer's own truncation.
    """
    from peft import PeftModel
    from transformers import AutoTokenizer

    model = adapted.model
    if isinstance(model, PeftModel):
        for config in model.peft_config.values():
            config.base_model_name_or_path = encoder.reference
            config.revision = encoder.revision
        with quiet_transformers():
            model.save_pretrained(str(folder), save_embedding_layers=False)
        (folder / "README.md").unlink()  # PEFT's empty template; the model card is written after evaluation
        model.config.save_pretrained(folder / "labels")
    else:
        with quiet_transformers():
            model.save_pretrained(folder)
    with quiet_transformers():
        tokenizer = AutoTokenizer.from_pretrained(encoder.folder, trust_remote_code=False, local_files_only=True)
    tokenizer.model_max_length = max_length
    tokenizer.save_pretrained(folder)


def compute_plain_logits(folder: Path, texts: list[str]) -> list[list[float]]:
    """Load a trained folder with plain PEFT and transformers in a fresh process.

    Args:
        folder: The adapter's or the model's folder.
        texts: Texts to classify.

    Returns:
        The fp32 logits, one row per text.

    Raises:
        LorafitError: The process failed; the message has its last lines.
    """
    process = subprocess.run(
        [sys.executable, "-P", str(_PLAIN), str(folder)],
        input=json.dumps(texts),
        capture_output=True,
        text=True,
        check=False,
    )
    if process.returncode != 0:
        tail = "\n".join(process.stderr.strip().splitlines()[-5:])
        raise LorafitError(f"A fresh process with plain PEFT cannot load what was just written:\n{tail}")
    logits: list[list[float]] = json.loads(process.stdout)
    return logits


def load_trained(layout: RunLayout, record: RunRecord) -> "PeftModel | PreTrainedModel":
    """Load a run's adapter onto its base, or its model, in fp32 and evaluation mode.

    Args:
        layout: The run folder.
        record: Its record.

    Returns:
        The model.

    Raises:
        RunError: A file is missing or altered, or the base model is not the one the adapter was trained on.
    """
    from peft import PeftModel

    check_files(layout, record)
    task = record.build_task()
    _, pad_id = load_tokenizer(layout.trained)
    if layout.trained == layout.model:
        whole = Encoder(name=str(layout.model), folder=layout.model, reference=str(layout.model), revision=None)
        trained = load_with_head(whole, task, pad_id=pad_id).model
        trained.requires_grad_(requires_grad=False)
        return trained
    encoder = locate_encoder(ModelConfig(name=record.base_model.name, revision=record.base_model.revision))
    if encoder.digest() != record.base_model.digest:
        raise RunError(
            f"The base model {record.base_model.name} ({encoder.folder}) is not the one this adapter was trained on: "
            "its weights have another digest."
        )
    loaded = load_with_head(encoder, task, pad_id=pad_id)
    with quiet_transformers():
        model: PeftModel = PeftModel.from_pretrained(loaded.model, layout.adapter, local_files_only=True)
    model.eval()
    return model


def check_files(layout: RunLayout, record: RunRecord) -> None:
    """Compare the files of `adapter/` or `model/` with the digests in the record.

    Args:
        layout: The run folder.
        record: Its record.

    Raises:
        RunError: The run is not complete, or a file is missing or altered.
    """
    if record.status != "complete":
        raise RunError(
            f"{layout.root} has no finished model: its status is {record.status!r}. Go on with:\n"
            f"  lorafit train --resume {shlex.quote(str(layout.root))}"
        )
    for name, digest in record.files.items():
        path = layout.trained / name
        if not path.is_file():
            raise RunError(f"{path} is missing.")
        if compute_digest(path) != digest:
            raise RunError(f"{path} was altered after training: its digest is not the one in {layout.record}.")
