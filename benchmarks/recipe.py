"""The notebooks' recipe in plain transformers and PEFT: what lorafit is compared with.

Trainer and PEFT, LoRA r=8, alpha=32, dropout 0.1 on query and value, batches of 16, every text padded to 512 tokens,
fp32, the encoder's own dropout as it is (0.1), AdamW with linear decay, cross-entropy. Nothing of lorafit's engine.

Tuned, it is what a user makes of the same libraries who reads their documentation for an hour: bf16, batches of texts
of like length padded to the longest of each, 256 tokens, the encoder without dropout, the adapters that lorafit has.
"""

import time
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from torch.utils.data import Dataset
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from lorafit.models.quiet import quiet_transformers
from lorafit.system import hardware

__all__ = ["PaddedRows", "build_model", "fit_recipe", "measure_recipe", "measure_tuned"]

MAX_LENGTH = 512
BATCH_SIZE = 16


class PaddedRows(Dataset[dict[str, Any]]):
    """Texts as the recipe tokenises them, before training: all of the same length.

    Attributes:
        tokens: Tokens that are not padding.
    """

    def __init__(self, base: Path, texts: list[str], labels: list[int], *, max_length: int = MAX_LENGTH) -> None:
        tokenizer = AutoTokenizer.from_pretrained(base)
        encoded = tokenizer(texts, padding="max_length", truncation=True, max_length=max_length, return_tensors="np")
        self._columns = {name: encoded[name] for name in ("input_ids", "attention_mask")}
        self._labels = labels
        self.tokens = int(encoded["attention_mask"].sum())

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, row: int) -> dict[str, Any]:
        return {**{name: column[row] for name, column in self._columns.items()}, "labels": self._labels[row]}


class PlainRows(PaddedRows):
    """Texts as the tuned recipe tokenises them: each as long as it is."""

    def __init__(self, base: Path, texts: list[str], labels: list[int], *, max_length: int) -> None:
        encoded = AutoTokenizer.from_pretrained(base)(texts, truncation=True, max_length=max_length)
        self._columns = {name: encoded[name] for name in ("input_ids", "attention_mask")}
        self._labels = labels
        self.tokens = sum(map(len, encoded["input_ids"]))


class _StepClock(TrainerCallback):
    """Seconds from the beginning of training to the end of its last step."""

    def __init__(self) -> None:
        self._began = 0.0
        self.seconds = 0.0

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._began = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.seconds = time.perf_counter() - self._began


def build_model(base: Path, *, seed: int = 0, tuned: bool = False) -> PeftModel:
    """Load an encoder of DistilBERT's kind with a fresh head for two classes and put the adapter on it.

    Args:
        base: Folder in the Hub's layout.
        seed: Seed of head and adapter.
        tuned: Whether all linear layers get an adapter, and the encoder has no dropout of its own.

    Returns:
        The model. PEFT trains `pre_classifier` too when told to train `classifier`; both are named here.
    """
    set_seed(seed)
    with quiet_transformers():
        dropout = {"dropout": 0.0, "attention_dropout": 0.0} if tuned else {}
        model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=2, dtype=torch.float32, **dropout)
    adapter = LoraConfig(
        task_type=TaskType.SEQ_CLS,
        r=8,
        lora_alpha=32,
        lora_dropout=0.0 if tuned else 0.1,
        target_modules=["q_lin", "k_lin", "v_lin", "out_lin", "lin1", "lin2"] if tuned else ["q_lin", "v_lin"],
        modules_to_save=["pre_classifier", "classifier"],
    )
    with quiet_transformers():
        return get_peft_model(model, adapter)


def fit_recipe(
    model: PeftModel,
    rows: PaddedRows,
    *,
    output: Path,
    learning_rate: float = 5e-4,
    epochs: int = 1,
    seed: int = 0,
    tuned: dict[str, Any] | None = None,
) -> float:
    """Train the model.

    Args:
        model: Changed in place.
        rows: What to train on.
        output: A folder for the Trainer; nothing is saved there.
        learning_rate: Where the linear decay begins.
        epochs: Passes over the rows.
        seed: Seed of order and dropout.
        tuned: What the Trainer is told besides, and its collator by the name `data_collator`; None for nothing.

    Returns:
        Seconds of the training steps.
    """
    torch.set_num_threads(hardware.available_cores())
    clock = _StepClock()
    told = {"per_device_train_batch_size": BATCH_SIZE, **(tuned or {})}
    collator = told.pop("data_collator", None)
    arguments = TrainingArguments(
        output_dir=str(output),
        **told,
        learning_rate=learning_rate,
        num_train_epochs=epochs,
        weight_decay=0.01,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        seed=seed,
        use_cpu=True,
    )
    trainer = Trainer(model=model, args=arguments, train_dataset=rows, data_collator=collator, callbacks=[clock])
    trainer.remove_callback(PrinterCallback)
    with quiet_transformers():
        trainer.train()
    return clock.seconds


def measure_recipe(
    base: Path,
    texts: list[str],
    labels: list[int],
    *,
    warm_up: tuple[list[str], list[int]],
    output: Path,
    max_length: int = MAX_LENGTH,
) -> dict[str, Any]:
    """Train one epoch in this process and return what the steps cost, as `trials.measure_lorafit` does.

    Args:
        base: Folder of the encoder.
        texts: What to train on.
        labels: Their class ids.
        warm_up: Texts and class ids that are trained on first, untimed.
        output: A folder for the Trainer.
        max_length: What every text is padded to. The recipe has 512; less is for trying the script out.

    Returns:
        Rows, tokens, positions, seconds, peak memory, kind of blocks, precision and threads.
    """
    model = build_model(base)
    fit_recipe(model, PaddedRows(base, *warm_up, max_length=max_length), output=output)
    rows = PaddedRows(base, texts, labels, max_length=max_length)
    seconds = fit_recipe(model, rows, output=output)
    return {
        "rows": len(rows),
        "tokens": rows.tokens,
        "positions": len(rows) * max_length,
        "seconds": seconds,
        "peak_memory_bytes": hardware.peak_memory_bytes(),
        "blocks": "stock",
        "precision": "fp32",
        "threads": torch.get_num_threads(),
    }


class CountingCollator(DataCollatorWithPadding):
    """Pads batches to their longest text, and counts the positions."""

    positions = 0

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        batch = super().__call__(features)
        self.positions += batch["input_ids"].numel()
        return batch


def measure_tuned(
    base: Path,
    texts: list[str],
    labels: list[int],
    *,
    warm_up: tuple[list[str], list[int]],
    output: Path,
    batch_size: int,
    max_length: int = 256,
) -> dict[str, Any]:
    """Measure the tuned recipe in this process as `measure_recipe` does.

    Args:
        base: Folder of the encoder.
        texts: What to train on.
        labels: Their class ids.
        warm_up: Texts and class ids that are trained on first, untimed.
        output: A folder for the Trainer.
        batch_size: Rows of a batch.
        max_length: What longer texts are cut to.

    Returns:
        As of `measure_recipe`.
    """
    collator = CountingCollator(AutoTokenizer.from_pretrained(base))
    model = build_model(base, tuned=True)
    tuned = {
        "per_device_train_batch_size": batch_size,
        "bf16": True,
        "train_sampling_strategy": "group_by_length",
        "data_collator": collator,
    }
    fit_recipe(model, PlainRows(base, *warm_up, max_length=max_length), output=output, tuned=tuned)
    rows, collator.positions = PlainRows(base, texts, labels, max_length=max_length), 0
    seconds = fit_recipe(model, rows, output=output, tuned=tuned)
    return {
        "rows": len(rows),
        "tokens": rows.tokens,
        "positions": collator.positions,
        "seconds": seconds,
        "peak_memory_bytes": hardware.peak_memory_bytes(),
        "blocks": "stock",
        "precision": "bf16",
        "threads": torch.get_num_threads(),
    }
