"""The model card: `README.md` beside what was trained, made from the records alone.

It may be published, so it holds no text of the data and no folder of this machine.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import PureWindowsPath
from typing import TYPE_CHECKING, Any, Final

import yaml

from lorafit.models.coverage import MUCH
from lorafit.models.tokenization import MOST_WINDOWS
from lorafit.reports.verdict import (
    describe_balancing,
    describe_blend,
    describe_exchangeability,
    describe_unpredicted,
)
from lorafit.runs.folder import suggest_name
from lorafit.runs.records import RunRecord
from lorafit.system.extras import require
from lorafit.system.text import clean_text
from lorafit.tasks.base import Task
from lorafit.tasks.baselines import ENCODER
from lorafit.tasks.evaluation import describe_changed_rows, find_weak_slices
from lorafit.tasks.format import write_estimate
from lorafit.tasks.records import Estimate, MetricsRecord

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup


_LISTED: Final = 20
"""Of more labels, the first are named."""

_WEAK_SLICES: Final = 3

_ORIGINS: Final = {"builtin:distil-minilm": "sentence-transformers/all-MiniLM-L6-v2"}
"""The models on the Hub that the built-in encoders were made from."""

_LICENSES: Final = {"builtin:distil-minilm": "apache-2.0"}
"""Licenses of the built-in encoders, by the Hub's names; of others the Hub's "unknown", for their owners to say."""

_HEAD: Final = "model_head.safetensors"
"""A file that AdapterHub's format has, and PEFT's has not."""

_EXAMPLES: Final = {
    False: ('"What a lovely surprise."', '"What a lovely surprise."'),
    True: (
        '("What a lovely surprise.", "I knew it.")',
        '{"text": "What a lovely surprise.", "text_pair": "I knew it."}',
    ),
}
"""What is predicted in the examples, by whether the model takes pairs: for lorafit and for transformers."""

_HUB_NAMES: Final = {"imdb": "hub:stanfordnlp/imdb"}
"""Named sources that are data sets of the Hub."""


@dataclass(frozen=True)
class Published:
    """Where a run is on the Hub.

    Attributes:
        name: Its repository.
        base: Repository and commit of its base; None where the model itself was trained.
    """

    name: str
    base: tuple[str, str] | None


def render_model_card(record: RunRecord, metrics: MetricsRecord, published: Published | None = None) -> str:
    """Write a card with the Hub's metadata, what the model is for, how good it is, its limits, its data and its use.

    Args:
        record: The run's record.
        metrics: Its metrics.
        published: Where it is on the Hub; None for a card beside the model in a run folder.

    Returns:
        Markdown with a YAML head (huggingface.co/docs/hub/model-cards).

    Raises:
        MissingExtraError: Jinja2 is not installed; the message gives the pip line.
    """
    task, after = record.build_task(), metrics.after
    place = "." if published is None else published.name
    titles = {name: task.title_model(name) for name in metrics.baselines}
    labels = sorted((one for one in after.per_class if one.support), key=lambda one: one.f1.value)
    sentences = [task.wording.uncalibrated]
    if metrics.calibration is not None:
        sentences = [*task.describe_calibration(metrics.calibration), *record.describe_cross_fitting()]
    return (
        _environment()
        .get_template("model_card.md")
        .render(
            record=record,
            metrics=metrics,
            task=task,
            wording=task.wording,
            head=_trust(_write_head(_build_metadata(record, metrics, task, published))),
            base=_name_base(record),
            origin=_ORIGINS.get(record.base_model.name),
            source=_name_source(record.data.source),
            models={
                **({} if metrics.before is None else {"before": metrics.before}),
                "after": after,
                **{titles[name]: baseline.scores for name, baseline in metrics.baselines.items()},
            },
            changed_rows=metrics.comparison and describe_changed_rows(task, metrics.comparison),
            weak=find_weak_slices(task, metrics.slices, metrics.confidence_level)[:_WEAK_SLICES],
            slice_columns=list(dict.fromkeys(one.column for one in metrics.slices)),
            measured_labels=labels,
            blend=describe_blend(task, record.blend),
            alone=metrics.baselines.get(ENCODER),
            unpredicted=describe_unpredicted(task, metrics),
            balancing=describe_balancing(record.balancing),
            exchangeability=describe_exchangeability(metrics),
            unmeasured_labels=len(after.per_class) - len(labels),
            calibration=[sentence.split(": ", 1) for sentence in sentences],
            example=_EXAMPLES[record.pair][0],
            plain_example=_EXAMPLES[record.pair][1],
            most_windows=MOST_WINDOWS,
            much_unknown=MUCH,
            long_texts=record.data.splits.get(metrics.split),
            is_whole=_is_whole(record),
            is_bottleneck=_HEAD in record.files,
            is_pooled=_is_pooled(record),
            published=published,
            run=".." if published is None else f"hub:{place}",
            place=place,
            label_place='"./labels"' if published is None else f'"{place}", subfolder="labels"',
        )
    )


def render_base_card(name: str) -> str:
    """Write a card for a base that runs name, from how lorafit calls it."""
    origin = _ORIGINS.get(name)
    head = {
        **({"base_model": origin} if origin else {}),
        "license": _LICENSES.get(name, "unknown"),
        "library_name": "transformers",
        "tags": ["lorafit"],
    }
    made = f"It is {origin}, converted." if origin else "It is what adapters trained with lorafit were trained on."
    return f"---\n{_write_head(head)}---\n\n# A base of lorafit\n\n{made} Adapters name it, and this commit of it.\n"


def _write_head(metadata: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(metadata), sort_keys=False, allow_unicode=True)


def _build_metadata(
    record: RunRecord, metrics: MetricsRecord, task: Task, published: Published | None
) -> dict[str, Any]:
    name = record.base_model.name
    base = name if record.base_model.revision is not None else _ORIGINS.get(name)
    if published is not None and published.base is not None:
        base = published.base[0]
    source, data = _name_source(record.data.source), _find_on_hub(record.data.source)
    dataset = {"name": source, "type": data[0] if data else _name_format(source)}
    if data and data[1]:
        dataset["revision"] = data[1]
    alone = metrics.baselines.get(ENCODER)  # what plain libraries load, where lorafit adds word models to it
    found = (
        task.hub_results(metrics.after, metrics.calibration) if alone is None else task.hub_results(alone.scores, None)
    )
    result = {
        "task": {"type": "text-classification", "name": task.wording.activity},
        "dataset": {**dataset, "split": metrics.split},
        "metrics": [{**one, "value": float(f"{one['value']:.6g}")} for one in found if math.isfinite(one["value"])],
    }
    return {
        **({"base_model": base} if base else {}),
        "license": _LICENSES.get(name, "unknown"),
        **({"datasets": [data[0]]} if data else {}),
        "library_name": _name_library(record),
        "pipeline_tag": "text-classification",
        "tags": ["lorafit", record.method, task.name],
        "metrics": list(dict.fromkeys(one["type"] for one in task.hub_results(metrics.after, None))),
        "model-index": [{"name": suggest_name(source, _name_base(record), record.method), "results": [result]}],
    }


def _is_whole(record: RunRecord) -> bool:
    """Return whether the model itself was trained, and not an adapter."""
    return "model.safetensors" in record.files


def _is_pooled(record: RunRecord) -> bool:
    """Return whether it is a folder of sentence-transformers."""
    return "modules.json" in record.files


def _name_library(record: RunRecord) -> str:
    """Return what the Hub calls the library that opens the files."""
    if _is_pooled(record):
        return "sentence-transformers"
    if _is_whole(record):
        return "transformers"
    return "adapter-transformers" if _HEAD in record.files else "peft"


def _name_source(source: str) -> str:
    """Name a data file without its folder."""
    is_named = source == "imdb" or source.startswith(("builtin:", "hub:"))
    return clean_text(source if is_named else PureWindowsPath(source).name)


def _name_format(source: str) -> str:
    """Return what stands for the id of data that are not on the Hub, which takes nothing else there: their format."""
    suffix = PureWindowsPath(source).suffix[1:].lower()
    return suffix if re.fullmatch(r"[a-z0-9]{1,16}", suffix) else "text"


def _name_base(record: RunRecord) -> str:
    """Name a folder without those above it; a model of the Hub has a revision."""
    base = record.base_model
    return base.name if base.revision is not None or base.name in _ORIGINS else PureWindowsPath(base.name).name


def _find_on_hub(source: str) -> tuple[str, str] | None:
    """Return id and revision ("" for the newest) of a source on the Hub, or None for another source."""
    kind, _, name = _HUB_NAMES.get(source, source).partition(":")
    identity, _, revision = name.partition("@")
    return (identity.partition(":")[0], revision) if kind == "hub" else None  # without a subset


# Markdown. Whatever the template prints is escaped unless it is `Markup`, which text from outside must never be made.


@cache
def _environment() -> "Environment":
    require("jinja2", extra="train", purpose="Writing a model card")
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("lorafit.reports"),
        autoescape=True,
        finalize=_escape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "code": _code,
        "counts": _count_labels,
        "fill": _fill,
        "listed": _list_names,
        "share": _write_share,
        "thousands": "{:,}".format,
    }
    return environment


def _trust(markdown: str) -> "Markup":
    from markupsafe import Markup

    return Markup(markdown)  # noqa: S704 - what comes from outside is escaped before


def _escape(value: object) -> "Markup":
    """Make one line of Markdown of foreign text that shows it as it is; `Markup` stays."""
    if hasattr(value, "__html__"):
        return _trust(str(value))
    line = re.sub(r"([\\`*_\[\]<>|#&~$])", r"\\\1", clean_text(str(value), strip=False))
    return _trust(re.sub(r"^(\d*)((?<=\d)[.)]|[-+])(?=\s|$)", r"\1\\\2", line))  # what would begin a list


def _code(text: str) -> "Markup":
    """Write foreign text as code, which shows it as it is, whatever signs are in it."""
    plain = clean_text(text) or " "
    fence = "`" * (1 + max(map(len, re.findall("`+", plain)), default=0))
    return _trust(f"{fence} {plain} {fence}" if "`" in plain else f"`{plain}`")


def _list_names(names: Sequence[str]) -> "Markup":
    """Name labels or columns; of many, the first."""
    return _trust(", ".join(map(_code, names[:_LISTED])) + ("" if len(names) <= _LISTED else ", …"))


def _count_labels(counts: Mapping[str, int]) -> "Markup":
    if len(counts) > _LISTED:
        return _trust(f"{len(counts):,} labels, {min(counts.values()):,} to {max(counts.values()):,} rows each")
    return _trust(", ".join(f"{_code(label)} {rows:,}" for label, rows in counts.items()))


def _fill(sentence: str, **values: object) -> "Markup":
    """Complete a sentence of a task's wording, which is Markdown, with text that is escaped."""
    return _trust(sentence).format(**{name: _escape(value) for name, value in values.items()})


def _write_share(estimate: Estimate) -> "Markup":
    return _trust(write_estimate("percent", estimate))
