"""Folders of encoders as people have them: what is missing in them is made in lorafit's cache, or named with a remedy.

The user's own folder is never written to, and pickled weights are never opened here (see `pickled.py`).
"""

import hashlib
import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lorafit.errors import ConfigError
from lorafit.models.architectures import ARCHITECTURES
from lorafit.models.cache import make_once
from lorafit.models.pickled import find_pickled
from lorafit.models.vetting import check_place, opening, read_config
from lorafit.models.weights import INDEX, WEIGHTS, read_names, read_tensors
from lorafit.system.atomic import compute_digest
from lorafit.system.files import read_json, read_object
from lorafit.system.paths import expand_home

CONFIG = "config.json"
TOKENIZER = "tokenizer.json"
_MODULES = "modules.json"
_VOCABULARIES = ("vocab.txt", "vocab.json", "merges.txt", "*.model")
_TOKENIZER_FILES = (
    *_VOCABULARIES,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    TOKENIZER,
)


@dataclass(frozen=True)
class LocalEncoder:
    """A folder that transformers loads.

    Attributes:
        folder: In the Hub's layout.
        reference: What plain libraries open as base: the user's own folder where they can, else the copy.
        notes: What was found or made, for the user.
    """

    folder: Path
    reference: Path
    notes: tuple[str, ...]


@dataclass
class _Changes:
    """What a copy in the cache has that the user's folder has not."""

    config: dict[str, Any] | None = None
    tokenizer: Path | None = None
    prefix: str = ""
    notes: list[str] = field(default_factory=list)


def open_local(root: Path, name: str) -> LocalEncoder:
    """Find the encoder in a folder, and complete it in a copy where files or names of its weights are not the Hub's.

    Args:
        root: The folder.
        name: As the user named it.

    Returns:
        The folder or sub-folder itself, or the copy.

    Raises:
        ConfigError: There is no encoder that can be loaded; the message names what is missing, and the remedy.
    """
    folder = _find_encoder(root, name)
    _check_weights(folder, name)
    changes = _Changes()
    if folder != root:
        changes.notes.append(f"{name}: the encoder is in {folder.relative_to(root)}")
    config = read_config(folder)
    names = [name for path in sorted(folder.glob("*.safetensors")) for name in read_names(path)]
    if not config.get("model_type"):
        config["model_type"] = _guess_model_type(config, names, folder, name)
        changes.config = config
        changes.notes.append(
            f"{name}: {CONFIG} has no model_type; by its weights it is {json.dumps(config['model_type'])}"
        )
    if not (folder / TOKENIZER).is_file():
        changes.tokenizer = _find_tokenizer((folder, root), name)
        check_place(changes.tokenizer)
    changes.prefix = _find_prefix(names, config["model_type"], name)
    if changes.prefix:
        changes.notes.append(f"{name}: the names of its weights begin with {changes.prefix!r}, which is left out")
    if changes.config is None and changes.tokenizer is None and not changes.prefix:
        return LocalEncoder(folder, folder, tuple(changes.notes))
    copy = _copy(folder, changes, name)
    if changes.tokenizer is not None and not (changes.tokenizer / TOKENIZER).is_file():
        changes.notes.append(f"{name}: {TOKENIZER} was made from {_describe_vocabulary(changes.tokenizer, copy)}")
    is_readable = changes.config is None and not changes.prefix  # an adapter brings its own tokenizer
    return LocalEncoder(copy, folder if is_readable else copy, tuple(changes.notes))


def _find_encoder(root: Path, name: str) -> Path:
    """Return the folder or its sub-folder that holds the encoder's config and weights."""
    if (root / CONFIG).is_file():
        return root
    modules = read_json(root / _MODULES, ConfigError) if (root / _MODULES).is_file() else None
    if isinstance(modules, list):  # sentence-transformers' layout
        paths = [
            module["path"]
            for module in modules
            if isinstance(module, dict) and str(module.get("type", "")).endswith(".Transformer") and "path" in module
        ]
        found = [path for path in (root / str(part) for part in paths) if (path / CONFIG).is_file()]
    else:
        folders = sorted(path for path in root.iterdir() if path.is_dir() and (path / CONFIG).is_file())
        found = [path for path in folders if _has_weights(path)] or folders
    if len(found) == 1 and found[0].resolve().is_relative_to(root):
        return found[0]
    if len(found) > 1:
        raise ConfigError(
            f"{name} holds several models. Name one of them: "
            f"{', '.join(shlex.quote(str(Path(name) / path.name)) for path in found)}."
        )
    raise ConfigError(
        f"{name}: {CONFIG} missing in {root}; lorafit needs the Hub's layout: {CONFIG}, {WEIGHTS} and {TOKENIZER}, as "
        "model.save_pretrained(folder) and tokenizer.save_pretrained(folder) write them."
    )


def _has_weights(folder: Path) -> bool:
    return any(folder.glob("*.safetensors")) or bool(find_pickled(folder))


def _check_weights(folder: Path, name: str) -> None:
    if any(folder.glob("*.safetensors")):
        return
    if find_pickled(folder) or not expand_home(name).is_dir():  # of the Hub, pickles are not downloaded
        raise ConfigError(_describe_conversion(folder, name))
    others = sorted(path.name for pattern in ("*.h5", "*.msgpack", "*.onnx", "*.gguf") for path in folder.glob(pattern))
    raise ConfigError(
        f"{name}: no .safetensors weights in {folder}{f' ({others[0]} is of another library)' if others else ''}; "
        "lorafit needs them as model.save_pretrained(folder) writes them."
    )


def _describe_conversion(folder: Path, name: str) -> str:
    """Say that pickled weights are not opened, and how they are converted in a process of their own."""
    root = expand_home(name)
    commands = []
    if root.is_dir():
        source = root / folder.relative_to(root.resolve())
        copy = Path(f"{root.resolve().name}-safetensors")
        if os.access(root.parent, os.W_OK):
            copy = root.parent / copy
    else:
        source = Path(name.rpartition("/")[2])
        copy = Path(f"{source}-safetensors")
        commands.append(f"hf download {shlex.quote(name)} --local-dir {shlex.quote(str(source))}")
    paths = " ".join(shlex.quote(str(path)) for path in (source, copy))
    commands.append(f"{_name_python()} -m {find_pickled.__module__} {paths}")
    lines = "\n".join(f"  {command}" for command in commands)
    return (
        f"{name}: no .safetensors weights, only pickled ones, which lorafit does not open because a pickle can run "
        f"code. Convert a copy once, in a process of its own that accepts tensors alone:\n{lines}\n"
        f"Then train with: --model {shlex.quote(str(copy))}"
    )


def _name_python() -> str:
    """Return this Python as a shell finds it: by its short name where that is this one."""
    for short in ("python", "python3"):
        found = shutil.which(short)
        if found is not None and Path(found).absolute() == Path(sys.executable).absolute():
            return short
    return shlex.quote(sys.executable)


def _read_tokenizer_settings(folder: Path) -> dict[str, Any]:
    path = folder / "tokenizer_config.json"
    return read_object(path, ConfigError) if path.is_file() else {}


_SINGLE_PREFIXES = ("albert", "bert", "distilbert", "electra", "mpnet")
"""Names of encoders inside a model that one `model_type` alone has."""

_OWN_NAMES = (("albert_layer_groups.", "albert"), ("attention.q_lin.", "distilbert"), ("attention.attn.q.", "mpnet"))
"""Parts of weights' names that one `model_type` alone has."""


def _guess_model_type(config: dict[str, Any], names: Sequence[str], folder: Path, name: str) -> str:
    """Tell the kind of encoder by its class, or by the names of its weights."""
    from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

    architectures = config.get("architectures")
    for architecture in architectures if isinstance(architectures, list) else []:
        stem = str(architecture).partition("For")[0].removesuffix("Model")
        types = [kind for kind, known in MODEL_MAPPING_NAMES.items() if known == f"{stem}Model"]
        if len(types) == 1:
            return types[0]
    parts = {part for one in names for part in one.split(".")[:-1]}
    found = {prefix for prefix in _SINGLE_PREFIXES if prefix in parts}
    found |= {kind for part, kind in _OWN_NAMES if any(part in one for one in names)}
    if not found and {"token_type_embeddings", "pooler"} <= parts and (folder / "vocab.txt").is_file():
        found = {"bert"}  # electra has no pooler, and of those with one, bert alone has WordPiece's vocabulary
    if len(found) == 1:
        return found.pop()
    examples = ", ".join(json.dumps(kind) for kind in sorted(found) or ("bert", "roberta", "xlm-roberta"))
    raise ConfigError(
        f"{name}: {CONFIG} in {folder} has no model_type, and the names of its weights do not tell which it is "
        f"({', '.join(names[:2])}, …). Add the line that is true to it: "
        f'"model_type": "…", with one of {examples} or another that transformers knows.'
    )


def _find_prefix(names: Iterable[str], model_type: str, name: str) -> str:
    """Return what stands before the names that transformers expects, such as `module.`; empty where nothing does."""
    architecture = ARCHITECTURES.get(model_type)
    if architecture is None:
        return ""
    inside, _, layers = architecture.layers.partition(".")
    pattern = re.compile(rf"((?:[^.]+\.)*?)(?:{re.escape(inside)}\.)?{re.escape(layers)}\.0\.")
    found = {match[1] for match in map(pattern.match, names) if match}
    if not found or "" in found:
        return ""
    if len(found) > 1:
        raise ConfigError(
            f"{name}: its weights hold several encoders, whose names begin with {', '.join(sorted(found))}. Save the "
            "one that you want by itself: its save_pretrained(folder)."
        )
    return found.pop()


def _find_tokenizer(folders: Iterable[Path], name: str) -> Path:
    """Return the first folder that holds a tokenizer, in whatever form."""
    places = list(dict.fromkeys(folders))
    for place in places:
        if (place / TOKENIZER).is_file() or any(any(place.glob(pattern)) for pattern in _VOCABULARIES):
            return place
    raise ConfigError(
        f"{name}: {TOKENIZER} missing in {places[0]}, and no vocab.txt, vocab.json or *.model that it could be made "
        f"from. Save the encoder's tokenizer there: AutoTokenizer.from_pretrained(…).save_pretrained(folder)."
    )


def _copy(folder: Path, changes: _Changes, name: str) -> Path:
    """Return the completed copy in lorafit's cache, named by the digests of what it is made from."""
    weights = sorted(folder.glob("*.safetensors"))
    vocabulary = changes.tokenizer or folder
    tokenizer = sorted({path for pattern in _TOKENIZER_FILES for path in vocabulary.glob(pattern)})
    files = [folder / CONFIG, *sorted(folder.glob(INDEX)), *tokenizer, *weights]
    sources = [(path.name, compute_digest(path)) for path in files]
    key = hashlib.sha256(json.dumps([1, changes.config, changes.prefix, sources]).encode()).hexdigest()[:16]

    def fill(copy: Path) -> None:
        for path in tokenizer:
            shutil.copyfile(path, copy / path.name)
        if changes.config is None:
            shutil.copyfile(folder / CONFIG, copy / CONFIG)
        else:
            (copy / CONFIG).write_text(json.dumps(changes.config, indent=2) + "\n", encoding="utf-8")
        if changes.prefix:
            _rename_weights(weights, changes.prefix, copy)
        else:
            for path in (*weights, *folder.glob(INDEX)):
                shutil.copyfile(path, copy / path.name)
        if not (copy / TOKENIZER).is_file():
            _make_tokenizer(copy, name)

    return make_once(f"{re.sub(r'[^A-Za-z0-9.-]+', '-', folder.name)}-{key}", fill)


def _rename_weights(files: Iterable[Path], prefix: str, copy: Path) -> None:
    """Write the weights whose names begin with `prefix` into one file, without it."""
    from safetensors.torch import save_file

    tensors = {
        key.removeprefix(prefix): tensor
        for path in files
        for key, tensor in read_tensors(path).items()
        if key.startswith(prefix)
    }
    save_file(tensors, copy / WEIGHTS, metadata={"format": "pt"})


def _make_tokenizer(copy: Path, name: str) -> None:
    """Let transformers make the fast tokenizer from what lies in the folder."""
    from transformers import AutoTokenizer

    settings = _read_tokenizer_settings(copy)
    options = {"do_lower_case": False} if "do_lower_case" not in settings and _has_capitals(copy / "vocab.txt") else {}
    with opening(f"{name}: transformers cannot make {TOKENIZER} from its vocabulary"):
        tokenizer = AutoTokenizer.from_pretrained(
            copy, trust_remote_code=False, local_files_only=True, use_fast=True, **options
        )
        tokenizer.save_pretrained(copy)
    if not (copy / TOKENIZER).is_file():
        raise ConfigError(
            f"{name}: its tokenizer ({type(tokenizer).__name__}) has no fast form, which lorafit needs. Take an "
            f"encoder that comes with {TOKENIZER}."
        )


def _has_capitals(vocabulary: Path) -> bool:
    """Tell whether a WordPiece vocabulary has words with capitals, which a tokenizer that lower-cases never finds."""
    if not vocabulary.is_file():
        return False
    pieces = vocabulary.read_text(encoding="utf-8").split("\n")
    return any(piece != piece.lower() for piece in pieces if not piece.startswith("["))


def _describe_vocabulary(source: Path, copy: Path) -> str:
    found = [path.name for pattern in _VOCABULARIES for path in sorted(source.glob(pattern))]
    if found[0] != "vocab.txt":
        return " and ".join(found)
    lower = _read_tokenizer_settings(copy).get("do_lower_case", True)
    return f"vocab.txt; capitals {'become small letters' if lower else 'are kept'}"
