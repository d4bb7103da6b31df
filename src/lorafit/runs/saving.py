"""Save a trained adapter or model as a folder of plain PEFT, adapters or transformers, and load it again.

A `config.json` directly beside `adapter_config.json` would make transformers take the adapter for a whole model; the
adapter's labels are therefore in `labels/config.json`.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lorafit.config import MethodConfig, ModelConfig
from lorafit.errors import ConfigError, LorafitError
from lorafit.models.adaptation import AdaptedModel
from lorafit.models.adapters import load_adapter
from lorafit.models.builtin import BUILTIN_ENCODERS
from lorafit.models.load import Encoder, load_tokenizer, load_with_head
from lorafit.models.methods import find_method
from lorafit.models.quiet import quiet_transformers
from lorafit.models.tokenization import read_tokenizer
from lorafit.runs.bases import find_own_base
from lorafit.runs.evidence import check_trained
from lorafit.runs.folder import RunLayout
from lorafit.runs.golden import GoldenRecord, choose_golden_texts, verify_golden
from lorafit.runs.records import RunRecord
from lorafit.system.atomic import atomic_directory
from lorafit.system.digests import digest_folder
from lorafit.system.text import Text

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


_SHAKE = 0.02
"""Standard deviation of what is added to a model's numbers for a rehearsal."""

_PLAIN = Path(__file__).parents[1] / "models" / "runtimes" / "plain.py"


def save_trained(
    adapted: AdaptedModel,
    encoder: Encoder,
    layout: RunLayout,
    record: RunRecord,
    *,
    compute_logits: Callable[[Sequence[Text]], NDArray[np.floating]],
    is_checked: bool = True,
    write_more: Callable[[Path], None] | None = None,
) -> dict[str, str]:
    """Write adapter or model, and check in a fresh process that plain libraries load it with the same logits.

    Args:
        adapted: The trained model.
        encoder: Its base.
        layout: The run folder; `adapter/` or `model/` appears in it only after the check.
        record: Its record so far.
        compute_logits: Texts, or pairs, to logits of the trained model in this process, at `GOLDEN_PRECISION`.
        is_checked: Whether to check that; else the golden logits are those of this process.
        write_more: Writes what else belongs to the model into the folder that it is given; None for nothing.

    Returns:
        The digest of every file, by its name in that folder.
    """
    with atomic_directory(layout.adapter if adapted.is_adapter else layout.model) as staging:
        write_trained(adapted, encoder, staging, max_length=record.max_length)
        texts = choose_golden_texts(read_tokenizer(staging), record.max_length, pair=record.pair)
        golden = staging / layout.golden.name
        logits = compute_plain_logits(staging, texts) if is_checked else compute_logits(texts).tolist()
        GoldenRecord(texts=texts, logits=logits).write(golden)
        if is_checked:
            verify_golden(golden, compute_logits, record.build_task(), runtime="torch")
        if write_more is not None:
            write_more(staging)
        return digest_folder(staging)


def is_proven(model: ModelConfig, method: MethodConfig) -> bool:
    """Return whether lorafit's own tests show that what is trained with these settings can be saved."""
    return model.name in BUILTIN_ENCODERS and not method.options


@contextmanager
def rehearse_saving(
    adapted: AdaptedModel,
    encoder: Encoder,
    record: RunRecord,
    *,
    compute_logits: Callable[[Sequence[Text]], NDArray[np.floating]],
) -> Iterator[Callable[[], None]]:
    """Save a model before it is trained, and let plain libraries load it in a fresh process while the block runs.

    What is saved has other numbers than the model: an adapter that begins at zero would not be missed.

    Args:
        adapted: The model before training; it stays as it is.
        encoder: Its base.
        record: The run's record so far.
        compute_logits: Texts, or pairs, to logits of the model in this process, at `GOLDEN_PRECISION`.

    Yields:
        A function that waits for the process, and raises `ConfigError` unless its logits are the same.
    """
    with tempfile.TemporaryDirectory(prefix="lorafit-") as place, ThreadPoolExecutor(1) as pool:
        folder = Path(place)
        with _shaken(adapted):
            write_trained(adapted, encoder, folder, max_length=record.max_length)
            texts = choose_golden_texts(read_tokenizer(folder), record.max_length, pair=record.pair)
            logits = compute_logits(texts)
        plain = pool.submit(compute_plain_logits, folder, texts)

        def finish() -> None:
            golden = folder / "golden.json"
            try:
                GoldenRecord(texts=texts, logits=plain.result()).write(golden)
                verify_golden(golden, lambda _: logits, record.build_task(), runtime="torch")
            except LorafitError as error:
                raise ConfigError(
                    f"Nothing was trained, because no other tool could open what would be saved of {encoder.name}: "
                    f"{error}"
                ) from error

        yield finish


@contextmanager
def _shaken(adapted: AdaptedModel) -> Iterator[None]:
    """Inside the block let all that is trained have other numbers."""
    import torch

    trained = [parameter for parameter in adapted.model.parameters() if parameter.requires_grad]
    before = [parameter.detach().clone() for parameter in trained]
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            for parameter in trained:
                parameter.add_(torch.randn_like(parameter), alpha=_SHAKE)
        yield
    finally:
        with torch.no_grad():
            for parameter, values in zip(trained, before, strict=True):
                parameter.copy_(values)


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

    from lorafit.models.bottleneck import save_bottlenecks

    model = adapted.model
    if isinstance(model, PeftModel):
        for config in model.peft_config.values():
            config.base_model_name_or_path = encoder.reference
            config.revision = encoder.revision
        with quiet_transformers():
            model.save_pretrained(str(folder), save_embedding_layers=False)
        (folder / "README.md").unlink()  # PEFT's empty template; the model card is written after evaluation
        model.config.save_pretrained(folder / "labels")
    elif adapted.bottleneck is not None:
        save_bottlenecks(
            model,
            folder,
            adapted.bottleneck,
            head=adapted.head,
            base=encoder.reference,
            revision=encoder.revision,
        )
        model.config.save_pretrained(folder / "labels")
    else:
        write_model(model, folder, max_length=max_length)
    with quiet_transformers():
        tokenizer = AutoTokenizer.from_pretrained(encoder.folder, trust_remote_code=False, local_files_only=True)
    tokenizer.model_max_length = max_length
    tokenizer.save_pretrained(folder)


def write_model(model: "PreTrainedModel", folder: Path, *, max_length: int) -> None:
    """Write a model without an adapter as the libraries that know its kind of head save it."""
    from lorafit.models.pooling import MeanPooledForSequenceClassification, write_pooled

    with quiet_transformers():
        if isinstance(model, MeanPooledForSequenceClassification):
            write_pooled(model, folder, max_length=max_length)
        else:
            model.save_pretrained(folder)


def compute_plain_logits(folder: Path, texts: Sequence[Text]) -> list[list[float]]:
    """Load a trained folder with plain PEFT and transformers in a fresh process.

    Args:
        folder: The adapter's or the model's folder.
        texts: Texts to classify, or pairs of texts.

    Returns:
        The fp32 logits, one row per text.

    Raises:
        LorafitError: The process failed; the message has its last lines.
    """
    process = subprocess.run(
        [sys.executable, "-P", str(_PLAIN), str(folder)],
        input=json.dumps(list(texts)),
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
    check_trained(layout, record)
    task = record.build_task()
    _, pad_id = load_tokenizer(layout.trained)
    if layout.trained == layout.model:
        whole = Encoder(name=str(layout.model), folder=layout.model, reference=str(layout.model), revision=None)
        trained = load_with_head(whole, task, pad_id=pad_id, pooling=find_method(record.method).pooling).model
        trained.requires_grad_(requires_grad=False)
        return trained
    loaded = load_with_head(find_own_base(layout, record), task, pad_id=pad_id)
    return load_adapter(loaded.model, layout.adapter)
