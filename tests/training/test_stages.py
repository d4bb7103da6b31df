from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lorafit
from lorafit.config import Config, load_config
from lorafit.data.writing import write_table
from lorafit.errors import TrainingInterruptedError
from lorafit.models.acceleration.precision import choose_precision
from lorafit.models.acceleration.prefix_cache import PrefixCache
from lorafit.runs.folder import RunLayout
from lorafit.system.progress import Silent
from lorafit.training.pipeline import Run, resume


class Notes(Silent):
    """A progress that remembers what was said and which stages there were, and may act on a stage's first update."""

    def __init__(self, on_stage: Callable[[str], None] = lambda _: None) -> None:
        self.lines: list[str] = []
        self.stages: list[str] = []
        self._on_stage = on_stage

    def say(self, line: str) -> None:
        self.lines.append(line)

    def start(self, stage: str, **_: object) -> None:
        self.stages.append(stage)

    def update(self, _: int, **__: object) -> None:
        self._on_stage(self.stages[-1])

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


@pytest.fixture(scope="module")
def config(build_encoder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A run of seconds whose lower layer is frozen."""
    rng, path = np.random.default_rng(0), tmp_path_factory.mktemp("data") / "data.parquet"
    words = (("awful", "boring"), ("lovely", "superb"))
    labels = [row % 2 for row in range(120)]
    texts = [
        f"{rng.choice(words[label])} film " + "of those " * int(rng.integers(0, 5)) + str(row)
        for row, label in enumerate(labels)
    ]
    write_table(path, {"text": texts, "label": labels})
    return load_config(
        flags={
            "data.source": str(path),
            "data.validation_fraction": 0.1,
            "model.name": str(build_encoder("distilbert")),
            "model.max_length": 32,
            "method.layers": "top1",
            "training.batch_size": 16,
            "training.threads": 1,
            "training.learning_rate": 0.01,
            "evaluation.before": False,
            "evaluation.baselines": False,
            "evaluation.bootstrap_samples": 100,
            "evaluation.report": False,
        }
    )


def train(config: Config, output: Path, progress: Silent | None = None, **settings: Any) -> Run:
    changed = config.model_copy(deep=True)
    for name, value in settings.items():
        setattr(changed.training, name, value)
    return lorafit.train(changed, output=output, progress=progress)


@pytest.fixture(scope="module")
def plain(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The same run without the cache."""
    return train(config, tmp_path_factory.mktemp("plain") / "run", prefix_cache="never")


def assert_same_numbers(first: Run, second: Run) -> None:
    weights = "adapter_model.safetensors"
    assert first.record.files[weights] == second.record.files[weights]
    assert first.metrics.model_dump_json() == second.metrics.model_dump_json()


def test_run_comes_to_the_same_numbers_with_and_without_the_cache(config: Config, plain: Run, tmp_path: Path) -> None:
    notes = Notes()
    cached = train(config, tmp_path / "cached", notes)
    assert "caching the frozen layers' hidden states on disk" in notes.text
    assert_same_numbers(cached, plain)
    assert not RunLayout(cached.path).prefix_cache.exists()


@pytest.mark.slow
def test_balanced_run_does_so_too_and_says_what_its_probabilities_are(config: Config, tmp_path: Path) -> None:
    settings = {"class_weights": "balanced", "loss": "focal"}
    cached, plain = (train(config, tmp_path / name, prefix_cache=name, **settings) for name in ("auto", "never"))
    assert_same_numbers(cached, plain)
    assert cached.record.balancing == ["training.class_weights=balanced", "training.loss=focal"]
    card = RunLayout(cached.path).card.read_text(encoding="utf-8")
    assert "**Probabilities**: Trained with training.class\\_weights=balanced and training.loss=focal" in card
    assert list(cached.metrics.baselines) == ["majority"], "it is measured without the others, too"


@pytest.mark.skipif(choose_precision("auto").name != "bf16", reason="this CPU has no bfloat16 unit")
def test_run_in_fp32_does_so_too_where_bf16_is_the_default(config: Config, tmp_path: Path) -> None:
    cached = train(config, tmp_path / "cached", precision="fp32")
    assert_same_numbers(cached, train(config, tmp_path / "plain", precision="fp32", prefix_cache="never"))


def test_shared_cache_serves_the_next_run(
    config: Config, plain: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORAFIT_CACHE", str(tmp_path / "cache"))
    first = train(config, tmp_path / "first", prefix_cache="shared")
    written = {path: path.stat().st_ino for path in (tmp_path / "cache" / "prefix_cache").iterdir()}
    assert len(written) == 4
    second = train(config, tmp_path / "second", prefix_cache="shared")
    assert written == {path: path.stat().st_ino for path in (tmp_path / "cache" / "prefix_cache").iterdir()}
    for run in (first, second):
        assert_same_numbers(run, plain)


@pytest.mark.slow
def test_too_large_a_cache_is_left_out_and_that_is_said(config: Config, plain: Run, tmp_path: Path) -> None:
    notes = Notes()
    small = train(config, tmp_path / "small", notes, prefix_cache_gb=1e-6)
    assert "are not cached: they take" in notes.text
    assert "more than training.prefix_cache_gb" in notes.text
    assert_same_numbers(small, plain)


def test_full_disk_is_survived(config: Config, plain: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    notes = Notes()
    monkeypatch.setattr(PrefixCache, "_compute", refuse)
    run = train(config, tmp_path / "run", notes)
    assert "they could not be written (No space left on device)" in notes.text
    assert_same_numbers(run, plain)


def test_interrupted_run_keeps_its_cache_and_goes_on_with_it(config: Config, plain: Run, tmp_path: Path) -> None:
    def interrupt(stage: str) -> None:
        if stage == "training":
            raise KeyboardInterrupt

    with pytest.raises(TrainingInterruptedError):
        train(config, tmp_path / "run", Notes(interrupt))
    layout = RunLayout(tmp_path / "run")
    assert len(list(layout.prefix_cache.glob("*.bin"))) == 2
    assert_same_numbers(resume(layout.root), plain)
    assert not layout.prefix_cache.exists()


@pytest.mark.parametrize(
    ("frozen", "cache", "settings", "wanted"),
    [
        (1, "auto", {"epochs": 2}, True),
        (1, "auto", {"epochs": 1}, False),
        (1, "auto", {"max_steps": 10}, False),
        (1, "auto", {"epochs": 1, "max_steps": 11}, True),
        (1, "shared", {"epochs": 1}, True),
        (1, "never", {"epochs": 2}, False),
        (0, "auto", {"epochs": 2}, False),
        (0, "shared", {"epochs": 2}, False),
    ],
)
def test_cache_is_wanted_where_layers_are_frozen_and_read_again(
    frozen: int, cache: str, settings: dict[str, int], *, wanted: bool
) -> None:
    config = Config(training={"prefix_cache": cache, **settings})
    assert config.wants_prefix_cache(steps_per_epoch=10, frozen=frozen) is wanted


def test_cache_folder_that_cannot_be_made_is_done_without(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORAFIT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "prefix_cache").write_text("a file is in the way")
    notes = Notes()
    run = train(config, tmp_path / "run", notes, prefix_cache="shared")
    assert "are not cached: they could not be written" in notes.text
    assert run.record.status == "complete"
