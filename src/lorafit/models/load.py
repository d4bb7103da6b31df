"""Find a pre-trained encoder and load it with a classification head."""

import re
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer

from lorafit.config import ModelConfig
from lorafit.errors import ConfigError, NetworkUnavailableError
from lorafit.models.architectures import ARCHITECTURES, Pooling, disable_base_dropout
from lorafit.models.builtin import BUILTIN_ENCODERS, load_builtin_encoder
from lorafit.models.classifiers import load_classifier
from lorafit.models.head import describe_new_head, draw_output, find_output, is_for, read_labels
from lorafit.models.local import open_local
from lorafit.models.merging import is_adapter, merge_into_base, read_base
from lorafit.models.records import BaseModelRecord
from lorafit.models.tokenization import read_tokenizer
from lorafit.models.vetting import check_place, opening, read_config
from lorafit.models.weights import LABELS
from lorafit.system.atomic import compute_digest
from lorafit.system.paths import expand_home
from lorafit.tasks.base import Task

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

_HUB_ID = re.compile(r"^(?:[A-Za-z0-9][\w.-]*/)?[A-Za-z0-9][\w.-]*$")
COUNTS_FROM_PADDING = {"camembert", "data2vec-text", "longformer", "mpnet", "roberta", "xlm-roberta", "xlm-roberta-xl"}
"""Encoders whose first position has the number after the padding token's id: so many positions are never used."""
_COMMIT = re.compile(r"[0-9a-f]{40}")
_HUB_FILES = ("*.json", "*.safetensors", "*vocab.txt", "*merges.txt", "*.model")


@dataclass(frozen=True)
class Encoder:
    """A pre-trained encoder on this machine.

    Attributes:
        name: As the user named it.
        folder: Where its files lie, in the Hub's layout.
        reference: What `adapter_config.json` names as base: the Hub id, or the folder.
        revision: Commit on the Hub, if it came from there.
        notes: What was found or made to load it, for the user.
    """

    name: str
    folder: Path
    reference: str
    revision: str | None
    notes: tuple[str, ...] = ()

    def record(self, architecture: str) -> BaseModelRecord:
        """Return what the run record says of it; reads all weights to compute their digest."""
        return BaseModelRecord(name=self.name, revision=self.revision, digest=self.digest(), architecture=architecture)

    def digest(self) -> str:
        """Return the SHA-256 of the weights; of several files, of their digests in order of name."""
        digests = [compute_digest(path) for path in sorted(self.folder.glob("*.safetensors"))]
        return digests[0] if len(digests) == 1 else ":".join(digests)


@dataclass(frozen=True)
class LoadedModel:
    """An encoder with a head.

    Attributes:
        model: In fp32, in evaluation mode.
        newly_initialised: Parameters that the pre-trained weights did not have, or had for other labels.
        notes: What of the pre-trained weights was not used, for the user.
    """

    model: "PreTrainedModel"
    newly_initialised: tuple[str, ...]
    notes: tuple[str, ...] = ()


def locate_encoder(config: ModelConfig, *, remedy: str = "", behind: Sequence[Path] = ()) -> Encoder:
    """Find the encoder: built in, a local folder, or on the Hub (downloaded into the Hub's own cache).

    Args:
        config: Name and revision.
        remedy: What to do where it cannot be found; empty for how to name another one.
        behind: Adapters that are merged into it, whose base it therefore cannot be.

    Returns:
        The encoder, its files on this machine.

    Raises:
        ConfigError: The name is none of the three, or its files are not what lorafit can load.
        NetworkUnavailableError: It is a Hub id, not in the local cache, and the Hub cannot be reached.
    """
    if config.name.startswith("builtin:"):
        folder = load_builtin_encoder(config.name)
        return Encoder(name=config.name, folder=folder, reference=str(folder), revision=None)
    root = expand_home(config.name)
    if root.is_dir():
        root = root.resolve()
        if is_adapter(root):
            return _continue_adapter(root, behind)
        local = open_local(root, config.name)
        return Encoder(str(root), local.folder, str(local.reference), None, local.notes)
    if not _HUB_ID.match(config.name):
        takes = (
            f"model.name takes {', '.join(BUILTIN_ENCODERS)}, a Hub id such as distilbert-base-uncased, or a folder. "
            "The base of a run that has moved is given with --base FOLDER."
        )
        raise ConfigError(
            f"There is no folder {config.name!r}, and it is not a Hugging Face Hub id either. {remedy or takes}"
        )
    root = _download(config.name, config.revision, remedy)
    local = open_local(root, config.name)
    reference = config.name if local.reference == root else str(local.reference)
    return Encoder(config.name, local.folder, reference, root.name, local.notes)


def _continue_adapter(folder: Path, behind: Sequence[Path]) -> Encoder:
    """Merge a plain PEFT adapter into its base."""
    if folder in behind:
        raise ConfigError(
            f"The adapter in {folder} goes on from itself: its base, or the base of that, is the adapter."
        )
    name, revision = read_base(folder)
    try:
        base = locate_encoder(ModelConfig(name=name, revision=revision), behind=(*behind, folder))
    except ConfigError as error:
        raise ConfigError(
            f"{folder} is an adapter, and its base, {name}, cannot be loaded: {error} Correct "
            f"base_model_name_or_path in {folder / 'adapter_config.json'}."
        ) from error
    merged = merge_into_base(folder, base.folder, base.digest())
    return Encoder(str(folder), merged, str(merged), None, (f"{folder}: the adapter is merged into its base, {name}",))


def load_tokenizer(folder: Path) -> tuple[Tokenizer, int]:
    """Load a fast tokenizer.

    Args:
        folder: Folder of an encoder or of an adapter.

    Returns:
        The tokenizer without truncation or padding of its own, and the token id of the padding.

    Raises:
        ConfigError: The tokenizer has no padding token.
    """
    from transformers import AutoTokenizer

    check_place(folder)
    tokenizer = read_tokenizer(folder)
    with opening(f"transformers cannot load the tokenizer in {folder}"):
        pad_id = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True).pad_token_id
    if pad_id is None:
        raise ConfigError(f"The tokenizer in {folder} has no padding token, which batches of texts need.")
    return tokenizer, int(pad_id)


def load_with_head(
    encoder: Encoder,
    task: Task,
    *,
    seed: int = 0,
    base_dropout: bool = False,
    pad_id: int | None = None,
    pooling: Pooling = "own",
) -> LoadedModel:
    """Load the encoder in fp32 with a head for a task.

    Args:
        encoder: From `locate_encoder`.
        task: The task; its outputs become `id2label` and `label2id` of the model's config.
        seed: Seed of the head's random weights.
        base_dropout: Keep the encoder's own dropout as its config has it.
        pad_id: Token id of the padding, by which a decoder finds the last token; None leaves what its config says.
        pooling: What the head reads.

    Returns:
        The model and the names of its parameters that are random.

    Raises:
        ConfigError: transformers cannot load it as a sequence classifier.
    """
    import torch

    config = build_model_config(encoder.folder, task, base_dropout=base_dropout)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: Any
        model, info = load_classifier(encoder.folder, config, encoder.name, pooling)
    replaced = {key for key, *_ in info["mismatched_keys"]}
    if any(key.startswith(f"{model.base_model_prefix}.") for key in replaced):  # more than a head for other classes
        raise ConfigError(
            f"transformers cannot load {encoder.name} as a text classifier: its config.json does not agree with the "
            f"sizes of {', '.join(sorted(replaced)[:3])}."
        )
    missing = set(info["missing_keys"])
    notes = _check_found(model, missing, encoder.name)
    labels = read_labels(encoder.folder if pooling == "own" else encoder.folder / LABELS)
    if labels and not replaced and not is_for(labels, task) and missing.isdisjoint(find_output(model)):
        replaced = set(find_output(model))
        draw_output(model, replaced, seed)
    if replaced and missing.isdisjoint(replaced):
        notes.append(describe_new_head(encoder.name, labels, task))
    architecture = ARCHITECTURES.get(config.model_type)
    if pad_id is not None and architecture is not None and architecture.is_decoder:
        model.config.pad_token_id = pad_id
    return LoadedModel(model.eval(), tuple(sorted(missing | replaced)), tuple(notes))


def _check_found(model: "PreTrainedModel", missing: Collection[str], name: str) -> list[str]:
    """Refuse an encoder of which less than half was found, and tell of other parts that were not."""
    prefix = f"{model.base_model_prefix}."
    expected = [key for key in model.state_dict() if key.startswith(prefix)]
    absent = [key for key in expected if key in missing]
    if 2 * len(absent) > len(expected):
        raise ConfigError(
            f"{name}: its weights have {len(expected) - len(absent)} of the {len(expected)} tensors of a "
            f"{model.config.model_type} encoder ({', '.join(absent[:2])}, … are not among them), so the rest would be "
            "random numbers. Check that weights and config.json are of the same model, and that the weights' names "
            "are those that its save_pretrained(folder) gives."
        )
    drawn = [key for key in absent if "pooler" not in key]
    if not drawn:
        return []
    return [
        f"{name}: {len(drawn)} of the {len(expected)} tensors of the encoder are not among its weights "
        f"({', '.join(drawn[:2])}); they begin as random numbers and are trained"
    ]


def build_model_config(folder: Path, task: Task, *, base_dropout: bool = False) -> "PretrainedConfig":
    """Read a model's config and set it up for a task.

    Args:
        folder: Folder in the Hub's layout.
        task: The task.
        base_dropout: Keep the encoder's own dropout as its config has it.

    Returns:
        The config, not yet used by a model.
    """
    from transformers import AutoConfig

    read_config(folder)
    with opening(f"transformers cannot load {folder} as a text classifier"):  # it warns of another number of labels
        config: PretrainedConfig = AutoConfig.from_pretrained(
            folder,
            trust_remote_code=False,
            local_files_only=True,
            num_labels=len(task.output_names),
            id2label=task.id2label,
            label2id={name: index for index, name in task.id2label.items()},
            problem_type=task.problem_type,
        )
    if not base_dropout:
        disable_base_dropout(config)
    return config


def check_max_length(config: "PretrainedConfig", max_length: int) -> None:
    """Refuse a length that the encoder has no positions for.

    Args:
        config: The model's config.
        max_length: Longest input in tokens.

    Raises:
        ConfigError: The encoder's positions are fewer.
    """
    positions = getattr(config, "max_position_embeddings", None)
    if positions is not None and config.model_type in COUNTS_FROM_PADDING:
        positions -= config.pad_token_id + 1
    if positions is not None and max_length > positions:
        raise ConfigError(f"model.max_length={max_length}, but this encoder reads at most {positions} tokens.")


def _download(name: str, revision: str | None, remedy: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

    patterns = list(_HUB_FILES)
    if revision is not None and _COMMIT.fullmatch(revision):
        with suppress(LocalEntryNotFoundError):  # a commit never changes: what lies in the cache needs no question
            folder = Path(snapshot_download(name, revision=revision, allow_patterns=patterns, local_files_only=True))
            if all(any(folder.rglob(file)) for file in ("config.json", "*.safetensors")):
                return folder
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
    except LocalEntryNotFoundError as error:
        other = f"Or name another model: a local folder, or --model {BUILTIN_ENCODERS[0]}."
        raise NetworkUnavailableError(
            f"There is no folder {name!r} and no model of that name in the local cache, and the Hugging Face Hub "
            f"cannot be reached. Go online once. {remedy or other}"
        ) from error
    except RevisionNotFoundError as error:
        raise ConfigError(f"The model {name!r} has no revision {revision!r} on the Hugging Face Hub.") from error
    except RepositoryNotFoundError as error:
        raise ConfigError(f"There is no model {name!r} on the Hugging Face Hub (or it is private).") from error
    except Exception as error:  # the errors of the HTTP library beneath, a proxy's refusal say, have no public base
        raise NetworkUnavailableError(
            f"The Hub did not answer for the model {name!r}: {type(error).__name__}: {error}"
        ) from error
