"""What is checked before anything is trained: settings that fit the task, and texts that the tokenizer knows."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lorafit.config import Config, MethodConfig, TrainingConfig, load_config
from lorafit.data.writing import write_table
from lorafit.errors import ConfigError
from lorafit.models.tokenization import TokenizedTexts
from lorafit.system.progress import Silent
from lorafit.training.planning.schedule import choose_length_warmup, complete_schedule
from lorafit.training.prepare import bound_steps, describe, describe_warmup, load_material, prepare

CHINESE = ["这家餐厅的菜很好吃", "快递太慢了", "手机屏幕有划痕", "客服态度很差"]


class Notes(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def write_config(folder: Path, model: Path, texts: Sequence[str], **flags: Any) -> Config:
    """Settings of a run on 80 rows of these texts with numbers after them."""
    path = folder / "data.parquet"
    rows = [f"{texts[row % len(texts)]} {row}" for row in range(80)]
    write_table(path, {"text": rows, "label": [row % 2 for row in range(80)]})
    fixed = {"data.source": str(path), "model.name": str(model), "model.max_length": 32, "training.threads": 1}
    fixed["data.validation_fraction"] = 0.1
    return load_config(flags=fixed | flags)


@pytest.mark.parametrize(
    ("task", "flags", "message"),
    [
        ("regression", {"training.class_weights": "balanced"}, "training.class_weights=balanced cannot be used with"),
        ("regression", {"training.sampling": "balanced"}, "training.sampling=balanced cannot be used with --task regr"),
        (
            "regression",
            {"training.loss": "focal", "training.class_weights": "balanced"},
            "training.class_weights=balanced and training.loss=focal cannot be used with --task regression",
        ),
        (
            "single_label",
            {"training.class_weights": "balanced", "training.sampling": "balanced"},
            "each balance the labels; together they",
        ),
    ],
)
def test_balancing_that_makes_no_sense_is_refused_before_data_are_read(
    task: str, flags: dict[str, str], message: str
) -> None:
    config = load_config(flags={"data.task": task, "data.source": "absent.csv", **flags})
    with pytest.raises(ConfigError, match=message):
        load_material(config)


def test_texts_that_the_tokenizer_does_not_know_are_refused_unless_forced(
    tiny_distilbert: Path, tmp_path: Path
) -> None:
    config = write_config(tmp_path, tiny_distilbert, CHINESE)
    with pytest.raises(ConfigError) as refused:
        prepare(config, Silent())
    said = str(refused.value)
    assert said.startswith("Unknown tokens: 7")
    assert f"mostly Chinese. To the tokenizer of {tiny_distilbert} all of them are the same." in said
    assert "a base for Chinese or a multilingual one, such as --model bert-base-multilingual-cased" in said
    assert said.endswith("To train all the same, add --force (model.force=true).")
    config.model.force = True
    notes = Notes()
    prepared = prepare(config, notes)
    assert any(line.startswith("unknown tokens: 7") for line in notes.lines)
    assert all(0.5 < split.unknown_share < 1 for split in describe(prepared).data.splits.values())


def test_unknown_symbols_are_told_with_the_base_that_knows_them(tiny_distilbert: Path, tmp_path: Path) -> None:
    notes = Notes()
    prepared = prepare(write_config(tmp_path, tiny_distilbert, ["lovely film 😂", "awful film 😭", "film"]), notes)
    (said,) = (line for line in notes.lines if "unknown tokens" in line)
    assert ", mostly emoji. " in said
    assert said.endswith("Use a base for social media, such as --model cardiffnlp/twitter-roberta-base")
    assert 0.05 < prepared.unknown["train"] < 0.5


def test_known_texts_are_not_spoken_of(tiny_distilbert: Path, tmp_path: Path) -> None:
    notes = Notes()
    prepared = prepare(write_config(tmp_path, tiny_distilbert, ["lovely film", "awful film"]), notes)
    assert not [line for line in notes.lines if "token" in line]
    assert set(prepared.unknown.values()) == {0.0}


def test_files_are_kept_by_the_names_they_were_given(
    tiny_distilbert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write_config(tmp_path, tiny_distilbert, ["a dull film", "a fine film"])
    for name in ("more", "validation", "test"):
        (tmp_path / f"{name}.parquet").symlink_to(config.data.source)
    write_table(tmp_path / "review.csv", {"row": [1], "split": ["train"], "corrected_label": ["1"]})
    monkeypatch.chdir(tmp_path)
    config.data.files, config.data.validation, config.data.test = ["more.parquet"], "validation.parquet", "test.parquet"
    config.data.corrections = "review.csv"
    data = prepare(config, Silent()).config.data
    assert data.files == [f"{tmp_path}/more.parquet"], "and not what the link leads to"
    assert (data.validation, data.test) == (f"{tmp_path}/validation.parquet", f"{tmp_path}/test.parquet")
    assert data.corrections == f"{tmp_path}/review.csv"


@pytest.mark.parametrize(
    ("method", "flags", "longest"),
    [
        ("setfit", {"training.length_warmup": 8}, 8),
        ("setfit", {"training.length_warmup": 8, "model.truncation": "windows", "model.max_length": 10}, None),
        ("full", {"training.length_warmup": 8}, 8),
        ("lora", {"training.length_warmup": 8}, 8),
        ("lora", {"training.length_warmup": 12}, None),
        ("lora", {}, None),
    ],
)
def test_training_reads_shorter_texts_of_pairs_and_at_the_beginning(
    build_encoder: Callable[..., Path],
    tmp_path: Path,
    method: str,
    flags: dict[str, Any],
    longest: int | None,
) -> None:
    flags = {"method.name": method, "model.max_length": 12} | flags
    texts = ["a lovely film and an awful film and a dull film and more"]
    prepared = prepare(write_config(tmp_path, build_encoder("bert"), texts, **flags), Silent())
    found, whole = prepared.short, prepared.tokens["train"]
    assert whole.lengths.max() == flags["model.max_length"]
    assert (describe_warmup(prepared) is not None) == (longest is not None)
    if longest is None:
        assert found is None
        return
    assert found is not None
    assert found.lengths.max() == longest
    assert (found.type_ids is None) == (whole.type_ids is None)
    long = whole[0]  # of six tokens one begins the text, and five end it
    np.testing.assert_array_equal(found[0], [*long[:2], *long[-6:]])


@pytest.mark.parametrize(
    ("chosen", "rows", "settings"),
    [
        (128, 1280, {}),
        (0, 1279, {}),
        (0, 1280, {"model.max_length": 255}),
        (0, 1280, {"method.layers": "top3"}),
        (0, 1280, {"method.name": "head_only"}),
        (128, 1280, {"method.name": "full"}),
        (0, 1280, {"training.length_warmup": 0}),
        (64, 10, {"training.length_warmup": 64}),
        (64, 10, {"training.length_warmup": 64, "method.layers": "top3"}),
        (0, 1280, {"training.length_warmup": 64, "model.truncation": "windows"}),
        (128, 10, {"method.name": "setfit"}),
        (128, 10, {"training.length_warmup": 0, "method.name": "setfit"}),
        (32, 1280, {"training.length_warmup": 32, "method.name": "setfit"}),
        (0, 10, {"model.truncation": "windows", "method.name": "setfit"}),
        (0, 1280, {"training.length_warmup": 64, "method.name": "embedding"}),
    ],
)
def test_length_that_training_begins_with(chosen: int, rows: int, settings: dict[str, Any]) -> None:
    assert choose_length_warmup(load_config(flags=settings), rows) == chosen


@pytest.mark.parametrize("length", [1, 7])
def test_a_beginning_with_next_to_nothing_is_refused(length: int) -> None:
    with pytest.raises(ConfigError, match=r"training\.length_warmup: allowed are 0 and 8 tokens or more"):
        load_config(flags={"training.length_warmup": length})


@pytest.mark.parametrize(
    ("method", "rows", "settings", "steps"),
    [
        ("setfit", 32, {}, (8, None)),
        ("setfit", 32, {"max_steps": 3}, (8, 3)),
        ("setfit", 640, {"epochs": 5}, (5, None)),
        ("setfit", 64_000, {}, (2, 400)),
        ("full", 64_000, {}, (2, None)),
    ],
)
def test_steps_stay_within_the_methods_bounds(
    method: str, rows: int, settings: dict[str, int], steps: tuple[int, int | None]
) -> None:
    config = Config(method=MethodConfig(name=method), training=TrainingConfig(**settings))
    config = complete_schedule(config, rows)
    texts = TokenizedTexts(np.zeros(8 * rows, dtype=np.int32), np.arange(rows + 1) * 8, truncated=0)
    training = bound_steps(config, texts).training
    assert (training.epochs, training.max_steps) == steps
