"""The trained adapter as a folder: plain PEFT, with head, tokenizer, labels and golden logits.

A `config.json` directly beside `adapter_config.json` would make transformers take the folder for a whole model, so the
model's config with the labels lies in `labels/`.
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

from lorafit.artifacts import ADAPTER_FILES, RunLayout, RunRecord
from lorafit.atomic import atomic_directory, compute_digest
from lorafit.config import ModelConfig
from lorafit.encoders.load import Encoder, load_with_head, locate_encoder, quiet_transformers
from lorafit.encoders.tokenization import read_tokenizer
from lorafit.errors import LorafitError, RunError
from lorafit.golden import GoldenRecord, choose_golden_texts, verify_golden
from lorafit.labels import LabelSet
from lorafit.methods import AdaptedModel

if TYPE_CHECKING:
    from peft import PeftModel

__all__ = ["check_files", "load_adapter", "save_adapter"]

_PLAIN_PEFT = Path(__file__).with_name("runtimes") / "plain_peft.py"


def save_adapter(
    adapted: AdaptedModel,
    encoder: Encoder,
    layout: RunLayout,
    *,
    max_length: int,
    compute_logits: Callable[[list[str]], NDArray[np.floating]],
) -> dict[str, str]:
    """Write the adapter folder and prove in a fresh process that plain peft opens it and gives the same logits.

    Args:
        adapted: The trained model.
        encoder: Its base.
        layout: The run folder; `adapter/` appears in it only after the proof.
        max_length: Longest input in tokens, for the tokenizer's own truncation.
        compute_logits: The trained model in this process, at `GOLDEN_PRECISION`: texts to logits.

    Returns:
        SHA-256 of each file of `ADAPTER_FILES`.
    """
    with atomic_directory(layout.adapter) as staging:
        write_adapter(adapted, encoder, staging, max_length=max_length)
        texts = choose_golden_texts(read_tokenizer(staging), max_length)
        golden = staging / layout.golden.name
        GoldenRecord(texts=texts, logits=compute_plain_logits(staging, texts)).write(golden)
        verify_golden(golden, compute_logits, runtime="torch")
        return {name: compute_digest(staging / name) for name in ADAPTER_FILES}


def write_adapter(adapted: AdaptedModel, encoder: Encoder, folder: Path, *, max_length: int) -> None:
    """Write adapter, head, tokenizer and labels as plain PEFT has them.

    Args:
        adapted: The trained model.
        encoder: Its base.
        folder: An existing folder.
        max_length: Longest input in tokens, for the tokenizer's own truncation.
    """
    from transformers import AutoTokenizer

    for config in adapted.model.peft_config.values():
        config.base_model_name_or_path = encoder.reference
        config.revision = encoder.revision
    adapted.model.save_pretrained(str(folder), save_embedding_layers=False)
    (folder / "README.md").unlink()  # peft's empty template; the model card is written when there are results
    adapted.model.config.save_pretrained(folder / "labels")
    with quiet_transformers():
        tokenizer = AutoTokenizer.from_pretrained(encoder.folder, trust_remote_code=False, local_files_only=True)
    tokenizer.model_max_length = max_length
    tokenizer.save_pretrained(folder)


def compute_plain_logits(folder: Path, texts: list[str]) -> list[list[float]]:
    """Open an adapter folder with plain peft and transformers in a fresh process.

    Args:
        folder: The adapter folder.
        texts: Texts to classify.

    Returns:
        One row of fp32 logits a text.

    Raises:
        LorafitError: The process failed; its last lines are in the message.
    """
    process = subprocess.run(
        [sys.executable, "-P", str(_PLAIN_PEFT), str(folder)],
        input=json.dumps(texts),
        capture_output=True,
        text=True,
        check=False,
    )
    if process.returncode != 0:
        tail = "\n".join(process.stderr.strip().splitlines()[-5:])
        raise LorafitError(f"A fresh process with plain peft cannot open the adapter that was just written:\n{tail}")
    logits: list[list[float]] = json.loads(process.stdout)
    return logits


def load_adapter(layout: RunLayout, record: RunRecord) -> "PeftModel":
    """Load a run's adapter onto its base, in fp32 and in evaluation mode.

    Args:
        layout: The run folder.
        record: Its record.

    Returns:
        The model.

    Raises:
        RunError: A file is missing or altered, or the base model is another than the adapter was trained on.
    """
    from peft import PeftModel

    check_files(layout, record)
    encoder = locate_encoder(ModelConfig(name=record.base_model.name, revision=record.base_model.revision))
    if encoder.digest() != record.base_model.digest:
        raise RunError(
            f"The base model {record.base_model.name} ({encoder.folder}) is not the one this adapter was trained on: "
            "its weights have another digest."
        )
    loaded = load_with_head(encoder, LabelSet(tuple(record.labels)))
    with quiet_transformers():
        model: PeftModel = PeftModel.from_pretrained(loaded.model, layout.adapter, local_files_only=True)
    return model.eval()


def check_files(layout: RunLayout, record: RunRecord) -> None:
    """Compare the files of `adapter/` with the digests in the record.

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
        path = layout.adapter / name
        if not path.is_file():
            raise RunError(f"{path} is missing.")
        if compute_digest(path) != digest:
            raise RunError(f"{path} was altered after training: its digest is not the one in {layout.record}.")
