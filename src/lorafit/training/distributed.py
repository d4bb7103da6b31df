"""A run that several ranks train: what they must agree on before, and how rank 0 leads the others through the steps."""

import hashlib
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from lorafit.config import Config, flatten, override_config
from lorafit.errors import ConfigError
from lorafit.models.acceleration.precision import check_gpus, choose_device
from lorafit.models.methods import AUTO, find_method
from lorafit.runs.folder import RunLayout
from lorafit.system.progress import Progress, Silent
from lorafit.training.prepare import Prepared, collect_versions, prepare, prepare_again, restoring_threads
from lorafit.training.ranks import RankLostError, Ranks, join_ranks, noticing_loss
from lorafit.training.stages import RunStages


@dataclass(frozen=True)
class _Order:
    """What rank 0 tells the others when training begins.

    Attributes:
        config: The settings as they are now.
        checkpoints: The files of all checkpoints, by their path in that folder.
    """

    config: Config
    checkpoints: Mapping[str, bytes]


def agree_on(config: Config | None, ranks: Ranks) -> Config:
    """Let all ranks train with the same settings.

    Args:
        config: The settings; None, except at rank 0, where they are those of a run that goes on.
        ranks: This rank.

    Returns:
        The settings of rank 0. Hidden states of frozen layers are not cached: only rank 0 has the run folder.

    Raises:
        RunError: The settings differ.
        ConfigError: They ask for what several processes cannot do.
    """
    led = ranks.broadcast(config)
    if led is None:
        raise ConfigError("Rank 0 was given no settings. Give the same command on every machine.")
    if ranks.count == 1:
        return led
    ranks.require_same(dict(flatten((config or led).model_dump(mode="json"))), "the settings")
    check_suits(led)
    return override_config(led, {"training.prefix_cache": "never"})


def prepare_together(config: Config, progress: Progress, ranks: Ranks) -> Prepared:
    """Prepare a run at every rank, and refuse to train where they have not prepared the same.

    Args:
        config: From `agree_on`.
        progress: As `prepare` takes it.
        ranks: This rank.

    Returns:
        As `prepare`; the threads are those of one rank.

    Raises:
        RunError: Data, base model, untrained weights or versions of libraries differ.
    """
    prepared = ranks.together(lambda: _prepare_one(config, progress, ranks))
    if ranks.count == 1:
        return prepared
    splits = prepared.splits
    rows = {f"{name} rows": f"{len(part):,} ({part.fingerprint()[:12]})" for name, part in splits.by_name.items()}
    facts = {
        **collect_versions(),
        "precision": prepared.precision.name,
        "device": prepared.adapted.model.device.type,
        "labels": ", ".join(splits.task.label_names),
        **rows,
        "base model": prepared.encoder.digest()[:12],
        "untrained weights": _digest_weights(prepared)[:12],
    }
    ranks.require_same(facts, "data, model or libraries")
    return replace(prepared, ranks=ranks, threads=ranks.share(prepared.threads))


def _prepare_one(config: Config, progress: Progress, ranks: Ranks) -> Prepared:
    if choose_device(config.training.device) == "cuda":
        check_gpus(ranks.local_count)
    return prepare(config, progress)


@contextmanager
def lead(stages: RunStages) -> Iterator[None]:
    """Train inside the block with the other ranks, which end after it.

    Args:
        stages: The run.

    Raises:
        RankLostError: Another rank has ended too early.
    """
    ranks = stages.prepared.ranks
    if ranks.count == 1:
        yield
        return
    files = {path: path.read_bytes() for path in stages.layout.checkpoints.rglob("*") if path.is_file()}
    with noticing_loss(f"What was done is kept; go on with:\n  {stages.layout.resume_command}"):
        checkpoints = {str(path.relative_to(stages.layout.checkpoints)): content for path, content in files.items()}
        ranks.broadcast(_Order(stages.prepared.config, checkpoints))
        with ranks.sharing_cores():
            yield
        ranks.leave()


@restoring_threads()
def assist(config: Config | None) -> None:
    """Train as a rank that is not rank 0; what it writes meanwhile is nothing to keep.

    Args:
        config: The settings that rank 0 should have, too; None where it goes on with a run.

    Raises:
        LorafitError: What ended it; rank 0 says the same.
    """
    ranks = join_ranks()
    try:
        with tempfile.TemporaryDirectory(prefix="lorafit-rank-") as folder:
            prepared = prepare_together(agree_on(config, ranks), Silent(), ranks)
            order: _Order = ranks.broadcast(_Order(prepared.config, {}))
            layout = RunLayout(Path(folder))
            for name, content in order.checkpoints.items():
                path = layout.checkpoints / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            stages = RunStages.begin(_follow(prepared, order.config), layout, Silent())
            with ranks.sharing_cores():
                stages.fit()
            with suppress(RankLostError):  # rank 0 has all it needs
                ranks.leave()
    finally:
        ranks.wait_for_end()


def _follow(prepared: Prepared, config: Config) -> Prepared:
    """Return what was prepared with the settings that rank 0 has now; trackers are rank 0's."""
    before, now = prepared.config.training.model_dump(), config.training.model_dump()
    changed = {f"training.{name}": value for name, value in now.items() if before[name] != value}
    prepared = prepare_again(prepared, changed) if changed else prepared
    return replace(prepared, config=override_config(prepared.config, {"training.track": []}))


def check_suits(config: Config) -> None:
    """Refuse what the processes of one training cannot do."""
    name, training = config.method.name, config.training
    objective = "labels" if name == AUTO else find_method(name).objective
    reasons = {
        f"method.name={name}: one process tries methods one after another. Name a method": name == AUTO,
        f"method.name={name}: it learns by the pairs of a whole batch, which no part of it has": objective == "pairs",
        f"method.name={name}: it makes no steps that could be shared": objective == "none",
        f"training.budget={training.budget}: what steps of several processes take is not foreseen": training.budget,
        "training.on_divergence=retry: only a single process begins again by itself": training.on_divergence == "retry",
    }
    if found := [f"  {reason}." for reason, holds in reasons.items() if holds]:
        raise ConfigError("\n".join(["Several processes cannot train with these settings:", *found]))


def _digest_weights(prepared: Prepared) -> str:
    """Return the SHA-256 of all weights that are trained, as they are before."""
    import torch

    digest = hashlib.sha256()
    for name, weight in prepared.adapted.model.named_parameters():
        if weight.requires_grad:
            digest.update(name.encode())
            digest.update(weight.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
