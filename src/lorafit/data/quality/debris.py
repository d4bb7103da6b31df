"""What was left in texts by where they came from: HTML, a wrong encoding, headers of mails, phrases of language models.

Each kind has a rule that ordinary prose does not meet, so that what is found can be believed; not all is found.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import unescape
from typing import Final

import numpy as np

from lorafit.data.quality.findings import Finding, grade, write_share
from lorafit.data.quality.rows import Rows, Sample
from lorafit.system.extras import missing_modules, require

_TAGS: Final = (
    "a|abbr|article|aside|b|big|blockquote|body|br|button|center|code|col|dd|del|div|dl|dt|em|embed|fieldset|figure|font|"
    "footer|form|frame|h[1-6]|head|header|hr|html|i|iframe|img|input|ins|label|li|link|main|meta|nav|noscript|object|ol|"
    "option|p|param|pre|q|s|script|section|select|small|span|strike|strong|style|sub|sup|table|tbody|td|textarea|tfoot|"
    "th|thead|title|tr|tt|u|ul|video"
)
_TAG: Final = re.compile(rf"<(?:/?(?:{_TAGS})(?:\s[^<>]*|/)?|!--.*?--|!doctype[^<>]*)>", re.IGNORECASE | re.DOTALL)
_HIDDEN: Final = re.compile(r"<(script|style)\b[^<>]*>.*?</\1\s*>", re.IGNORECASE | re.DOTALL)
_ENTITY: Final = re.compile(
    r"&(?:#[0-9]{1,7}|#x[0-9a-f]{1,6}|amp|lt|gt|quot|apos|nbsp|[lr][ds]quo|[mn]dash|hellip|copy|reg|trade|bull|middot|"
    r"euro|pound|[a-z](?:acute|grave|circ|tilde|uml|cedil|ring)|szlig);",
    re.IGNORECASE,
)
_BLANKS: Final = re.compile(r"[ \t]{2,}")

_MOJIBAKE: Final = re.compile("[ÃÂ][\u0080-\u00bf]|â€|ï»¿|[\u0080-\u009f]|Ð[\u0080-\u00bf]|\u00e2\u0080")
"""Typical sequences of UTF-8 that was read as latin1 or cp1252, and controls that no text has."""

_MODEL_PHRASES: Final = re.compile(
    r"\bas an? (?:ai|artificial intelligence|large)(?: language)? (?:model|assistant)\b[, ]"
    r"|\bas an ai(?: developed by|, i\b)"
    r"|\bi['\u2019]?m sorry,? but (?:as an ai|i (?:can['\u2019]?t|cannot|can not) (?:assist|comply|fulfil"
    r"|help with (?:that|this)|provide (?:that|this)|generate|create (?:that|this)))"
    r"|\bi (?:can['\u2019]?t|cannot) (?:assist with|fulfil+) (?:that|this|your)\b"
    r"|\bmy (?:knowledge cutoff|last knowledge update|training data only goes)\b"
    r"|<\|(?:im_start|im_end|endoftext|begin_of_text|eot_id|start_header_id|user|assistant|system)\|>"
    r"|\[/?INST\]|<<SYS>>"
    r"|^#{2,3} ?(?:instruction|response|human|assistant):"
    r"|^(?:sure|certainly|of course)[!,] here(?:['\u2019]?s| is| are) (?:a|an|the|your|some|\d+)\b",
    re.IGNORECASE | re.MULTILINE,
)

_HEADERS: Final = (
    "received|return-path|delivered-to|message-id|in-reply-to|references|mime-version|content-type|"
    "content-transfer-encoding|list-[a-z]+|x-[a-z-]+|from|to|cc|subject|date|reply-to|sender|errors-to|precedence"
)
_MAIL_HEADER: Final = re.compile(rf"^(?:>\s*)?({_HEADERS}):[ \t]", re.IGNORECASE | re.MULTILINE)
_FEWEST_HEADERS: Final = 4
"""Different headers from which a text is a raw mail; a quoted one has From, To and Subject."""


def has_html(text: str) -> bool:
    """Tell whether a text has tags or entities of HTML."""
    return ("<" in text and _TAG.search(text) is not None) or ("&" in text and _ENTITY.search(text) is not None)


def remove_html(text: str) -> str:
    """Return a text with tags as blanks and entities as their characters; one without any stays as it is."""
    if not has_html(text):
        return text
    plain = _ENTITY.sub(lambda match: unescape(match[0]), _TAG.sub(" ", _HIDDEN.sub(" ", text)))
    return _BLANKS.sub(" ", plain.replace("\N{NO-BREAK SPACE}", " ")).strip()


def repair_encoding(text: str) -> str:
    """Return a text as it was before it was read in a wrong encoding, where that can be told.

    Args:
        text: Any text.

    Returns:
        What `ftfy.fix_encoding` makes of it.

    Raises:
        MissingExtraError: ftfy is not installed.
    """
    if text.isascii():
        return text
    fixed: str = require("ftfy", extra="check", purpose="Repairing encodings").fix_encoding(text)
    return fixed


def has_wrong_encoding(text: str) -> bool:
    """Tell whether a text was read in a wrong encoding: by ftfy, or without it by typical sequences."""
    if text.isascii():
        return False
    if "ftfy" in missing_modules("check"):
        return _MOJIBAKE.search(text) is not None
    return repair_encoding(text) != text


def has_lost_characters(text: str) -> bool:
    """Tell whether a text has replacement characters, which stand for characters that were lost when it was read."""
    return "\N{REPLACEMENT CHARACTER}" in text


def has_model_phrases(text: str) -> bool:
    """Tell whether a text has phrases that language models leave in what they write, or parts of a prompt."""
    return _MODEL_PHRASES.search(text) is not None


def has_mail_headers(text: str) -> bool:
    """Tell whether a text is a raw mail: it has headers of several kinds, a line each."""
    return len({match[1].lower() for match in _MAIL_HEADER.finditer(text)}) >= _FEWEST_HEADERS


@dataclass(frozen=True)
class _Kind:
    name: str
    holds: Callable[[str], bool]
    message: str
    remedy: str
    warn_from: float


_KINDS: Final = (
    _Kind("html", has_html, "tags or entities of HTML", "lorafit check SPLIT --fix html", 0.01),
    _Kind(
        "encoding",
        has_wrong_encoding,
        "read in a wrong encoding once: characters beyond ASCII became two letters or a control character",
        "lorafit check SPLIT --fix encoding",
        0.01,
    ),
    _Kind(
        "lost-characters",
        has_lost_characters,
        "replacement characters (U+FFFD): characters were lost in decoding; read the original again",
        "",
        0.01,
    ),
    _Kind(
        "model-phrases",
        has_model_phrases,
        "phrases that language models leave in their answers, or parts of a prompt",
        "",
        0.001,
    ),
    _Kind(
        "mail-headers",
        has_mail_headers,
        "raw mails: senders, servers and dates in the headers may tell the label",
        "",
        0.01,
    ),
)

DEBRIS: Final = tuple(kind.name for kind in _KINDS)
"""Kinds of debris, as findings are named."""


def find_debris(rows: Rows, samples: Sequence[Sample], *, kinds: Sequence[str] = DEBRIS) -> Iterator[Finding]:
    """Find debris in samples of the splits.

    Args:
        rows: The rows.
        samples: Those that are looked at.
        kinds: What is looked for, some of `DEBRIS`.

    Yields:
        A finding for each kind and split that has some.
    """
    for kind in (one for one in _KINDS if one.name in kinds):
        for sample in samples:
            found = [position for position in sample.positions.tolist() if kind.holds(rows.texts[position])]
            if not found:
                continue
            count, share = len(found), len(found) / sample.scope.rows
            yield Finding(
                name=kind.name,
                severity=grade(share, warn_from=kind.warn_from),
                split=sample.split,
                count=count,
                share=share,
                scope=sample.scope,
                message=f"{count:,} {sample.split} row{'' if count == 1 else 's'} ({write_share(share)} of "
                f"{sample.scope.describe()}): {kind.message}.",
                remedy=kind.remedy,
                rows=rows.list_rows(np.array(found)),
            )
