"""Find a pre-trained encoder and load it with a fresh classification head."""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer

from lorafit.config import ModelConfig
from lorafit.errors import ConfigError, NetworkUnavailableError
from lorafit.models.architectures import ARCHITECTURES, disable_base_dropout
from lorafit.models.builtin import BUILTIN_ENCODERS, load_builtin_encoder
from lorafit.models.records import BaseModelRecord
from lorafit.models.tokenization import read_tokenizer
from lorafit.system.atomic import compute_digest
from lorafit.tasks.base import Task

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

_HUB_ID = re.compile(r"^(?:[A-Za-z0-9][\w.-]*/)?[A-Za-z0-9][\w.-]*$")
COUNTS_FROM_PADDING = {"camembert", "data2vec-text", "longformer", "mpnet", "roberta", "xlm-roberta", "xlm-roberta-xl"}
"""Encoders whose first position has the number after the padding token's id: so many positions are never used."""
_COMMIT = re.compile(r"[0-9a-f]{40}")
_HUB_FILES = ("*.json", "*.safetensors", "vocab.txt", "merges.txt")


@dataclass(frozen=True)
class Encoder:
    """A pre-trained encoder on this machine.

    Attributes:
        name: As the user named it.
        folder: Where its files lie, in the Hub's layout.
        reference: What `adapter_config.json` names as base: the Hub id, or the folder.
        revision: Commit on the Hub, if it came from there.
    """

    name: str
    folder: Path
    reference: str
    revision: str | None

    def record(self, architecture: str) -> BaseModelRecord:
        """Return what the run record says of it; reads all weights to compute their digest."""
        return BaseModelRecord(name=self.name, revision=self.revision, digest=self.digest(), architecture=architecture)

    def digest(self) -> str:
        """Return the SHA-256 of the weights; of several files, of their digests in order of name."""
        digests = [compute_digest(path) for path in sorted(self.folder.glob("*.safetensors"))]
        return digests[0] if len(digests) == 1 else ":".join(digests)


@dataclass(frozen=True)
class LoadedModel:
    """An encoder with a fresh head.

    Attributes:
        model: In fp32, in evaluation mode.
        newly_initialised: Parameters that the pre-trained weights did not have.
    """

    model: "PreTrainedModel"
    newly_initialised: tuple[str, ...]


def locate_encoder(config: ModelConfig) -> Encoder:
    """Find the encoder: built in, a local folder, or on the Hub (downloaded into the Hub's own cache).

    Args:
        config: Name and revision.

    Returns:
        The encoder, its files on this machine.

    Raises:
        ConfigError: The name is none of the three, or its files are not what lorafit can load.
        NetworkUnavailableError: It is a Hub id, not in the local cache, and the Hub cannot be reached.
    """
    if config.name.startswith("builtin:"):
        folder = load_builtin_encoder(config.name)
        return Encoder(name=config.name, folder=folder, reference=str(folder), revision=None)
    local = Path(config.name).expanduser()
    if local.is_dir():
        folder = local.resolve()
        _check_folder(folder, config.name)
        return Encoder(name=str(folder), folder=folder, reference=str(folder), revision=None)
    if not _HUB_ID.match(config.name):
        raise ConfigError(
            f"There is no folder {config.name!r}, and it is not a Hugging Face Hub id either. model.name takes "
            f"{', '.join(BUILTIN_ENCODERS)}, a Hub id such as distilbert-base-uncased, or a local folder."
        )
    folder = _download(config.name, config.revision)
    _check_folder(folder, config.name)
    return Encoder(name=config.name, folder=folder, reference=config.name, revision=folder.name)


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

    with quiet_transformers():
        pad_id = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True).pad_token_id
    if pad_id is None:
        raise ConfigError(f"The tokenizer in {folder} has no padding token, which batches of texts need.")
    return read_tokenizer(folder), int(pad_id)


def load_with_head(
    encoder: Encoder, task: Task, *, seed: int = 0, base_dropout: bool = False, pad_id: int | None = None
) -> LoadedModel:
    """Load the encoder in fp32 with a head for a task.

    Args:
        encoder: From `locate_encoder`.
        task: The task; its outputs become `id2label` and `label2id` of the model's config.
        seed: Seed of the head's random weights.
        base_dropout: Keep the encoder's own dropout as its config has it.
        pad_id: Token id of the padding, by which a decoder finds the last token; None leaves what its config says.

    Returns:
        The model and the names of its parameters that are random.

    Raises:
        ConfigError: transformers cannot load it as a sequence classifier.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForSequenceClassification

    try:
        config = build_model_config(encoder.folder, task, base_dropout=base_dropout)
        with quiet_transformers(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model, info = AutoModelForSequenceClassification.from_pretrained(
                encoder.folder,
                config=config,
                dtype=torch.float32,
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
    except (ValueError, OSError, RuntimeError, SafetensorError) as error:
        raise ConfigError(f"transformers cannot load {encoder.name} as a text classifier: {error}") from error
    replaced = {key for key, *_ in info["mismatched_keys"]}
    if any(key.startswith(f"{model.base_model_prefix}.") for key in replaced):  # more than a head for other classes
        raise ConfigError(
            f"transformers cannot load {encoder.name} as a text classifier: its config.json does not agree with the "
            f"sizes of {', '.join(sorted(replaced)[:3])}."
        )
    architecture = ARCHITECTURES.get(config.model_type)
    if pad_id is not None and architecture is not None and architecture.is_decoder:
        model.config.pad_token_id = pad_id
    return LoadedModel(model=model.eval(), newly_initialised=tuple(sorted({*info["missing_keys"], *replaced})))


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


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep progress bars, notes ("newly initialised") and warnings of transformers and peft off the terminal.

    What matters of them lorafit finds out itself: adapted modules are counted, golden logits compared.
    """
    from transformers.utils import logging as transformers_logging

    logging: Any = transformers_logging
    verbosity, had_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)
        if had_bars:
            logging.enable_progress_bar()


def _check_folder(folder: Path, name: str) -> None:
    missing = [file for file in ("config.json", "tokenizer.json") if not (folder / file).is_file()]
    if missing:
        raise ConfigError(f"{name}: {' and '.join(missing)} missing in {folder}; lorafit needs the Hub's layout.")
    if not any(folder.glob("*.safetensors")):
        raise ConfigError(
            f"{name}: no .safetensors weights in {folder}. lorafit does not open pickled weights; save the model again "
            "with a current transformers: model.save_pretrained(folder)."
        )


def _download(name: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

    patterns = list(_HUB_FILES)
    if revision is not None and _COMMIT.fullmatch(revision):
        with suppress(
            LocalEntryNotFoundError, ConfigError
        ):  # a commit never changes: what lies in the cache needs no question
            folder = Path(snapshot_download(name, revision=revision, allow_patterns=patterns, local_files_only=True))
            _check_folder(folder, name)
            return folder
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
    except LocalEntryNotFoundError as error:
        raise NetworkUnavailableError(
            f"There is no folder {name!r} and no model of that name in the local cache, and the Hugging Face Hub "
            f"cannot be reached. Go online once, give a local folder, or take --model {BUILTIN_ENCODERS[0]}"
        ) from error
    except RevisionNotFoundError as error:
        raise ConfigError(f"The model {name!r} has no revision {revision!r} on the Hugging Face Hub.") from error
    except RepositoryNotFoundError as error:
        raise ConfigError(f"There is no model {name!r} on the Hugging Face Hub (or it is private).") from error
    except Exception as error:  # the errors of the HTTP library beneath, a proxy's refusal say, have no public base
        raise NetworkUnavailableError(
            f"The Hub did not answer for the model {name!r}: {type(error).__name__}: {error}"
        ) from error
