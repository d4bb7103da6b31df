"""Generated files of all kinds: nothing but a `LorafitError` comes out, and rows and faults fit together."""

import gzip
import io
import json
import random
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from lorafit.config import FormatConfig
from lorafit.data.tables import read_table, stream_table
from lorafit.errors import LorafitError

ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252", "gb18030", "shift_jis", "euc_kr", "koi8_r")
PIECES = (
    *('"', '""', '\\"', ",", ";", "\t", "|", "\n", "\r\n", "\r", "\0", "\ufeff", "\u2028", "\x1a", "{", "}", "[", "]"),
    *("1", "-1", "é", "京", "한", "я", "👎", "text", "label", "sep=;\n", "__label__a ", "null", " ", "", "x" * 300),
)

texts = st.lists(st.sampled_from(PIECES) | st.text(max_size=5), max_size=40).map("".join)
cells = st.lists(st.sampled_from(PIECES), max_size=4).map("".join)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["text", "label", "data", "0"]), inner),
    max_leaves=12,
)


@st.composite
def tables(draw: st.DrawFn) -> str:
    """Draw rows with a delimiter, most of them even, quoted by one rule or another."""
    delimiter = draw(st.sampled_from(",;\t|"))
    width = draw(st.integers(1, 4))
    quote = draw(st.sampled_from([str, lambda cell: '"' + cell.replace('"', '""') + '"', lambda cell: f'"{cell}"']))
    rows = draw(st.lists(st.lists(cells, min_size=width, max_size=width + 1), max_size=12))
    return draw(st.sampled_from(["\n", "\r\n", "\r"])).join(delimiter.join(map(quote, row)) for row in rows)


def encode(text: str, encoding: str) -> bytes:
    return text.encode(encoding, "replace")


cp1252 = tables().map(lambda text: encode(text, "cp1252"))
contents = (
    st.binary(max_size=200)
    | st.builds(encode, texts | tables(), st.sampled_from(ENCODINGS))
    | st.lists(values, max_size=6).map(lambda rows: "\n".join(map(json.dumps, rows)).encode())
    | values.map(lambda value: json.dumps(value, indent=1, ensure_ascii=False).encode("utf-8", "surrogatepass"))
    | st.builds(lambda *parts: b"".join(parts), tables().map(str.encode), st.binary(max_size=5), cp1252)
)
forms = st.builds(
    FormatConfig,
    delimiter=st.none() | st.sampled_from(',;\t|" \0a'),
    header=st.none() | st.booleans(),
    quoting=st.none() | st.sampled_from(["standard", "none"]),
    escape=st.none() | st.sampled_from('\\",'),
    encoding=st.none() | st.sampled_from([*ENCODINGS, "utf-7", "ascii", "nonsense"]),
    encoding_errors=st.sampled_from(["strict", "replace"]),
)
suffixes = st.sampled_from([".csv", ".tsv", ".txt", ".label", ".jsonl", ".json", ".parquet", ".xlsx", ".arrow"])


def pack_zip(content: bytes, suffix: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"inside{suffix}", content)
    return buffer.getvalue()


PACKINGS: dict[str, Callable[[bytes, str], bytes]] = {
    "": lambda content, _: content,
    ".gz": lambda content, _: gzip.compress(content),
    ".zip": pack_zip,
}


def damage(content: bytes, seed: int) -> bytes:
    """Change some bytes, or cut some off."""
    rng = random.Random(seed)  # noqa: S311 - no secret
    changed = bytearray(content)
    for _ in range(seed % 4):
        if changed:
            changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed[: rng.randrange(len(changed) + 1)] if seed % 5 == 0 else changed)


def is_read_or_refused(content: bytes, suffix: str, packing: str, form: FormatConfig | None, seed: int) -> bool:
    """Tell whether a file is refused, or read whole and in parts to the same rows, faults and notes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a{packing if packing == '.zip' else suffix + packing}"
        packed = PACKINGS[packing](content, suffix)
        path.write_bytes(damage(packed, seed) if packing and seed % 3 == 0 else packed)
        try:
            table = read_table(path, form)
            parts = list(stream_table(path, form, most_rows=2, most_characters=50))
        except LorafitError:
            return True
    faults = table.faults
    return (
        {len(values) for values in table.columns.values()} == {len(table)}
        and len(table) > 0
        and all(0 <= place < len(table) and fault for place, fault in faults.items())
        and all(column[place] is None for place in faults for column in table.columns.values())
        and sum(len(part) for part in parts) == len(table)
        and all(0 < len(part) <= 2 for part in parts)
        and sum(len(part.faults) for part in parts) == len(faults)
        and tuple(note for part in parts for note in part.notes) == table.notes
    )


arguments = (
    contents,
    suffixes,
    st.sampled_from(["", "", "", ".gz", ".zip"]),
    st.none() | forms,
    st.integers(0, 10_000),
)
relaxed = (HealthCheck.too_slow, HealthCheck.data_too_large)


@settings(max_examples=200, deadline=None, derandomize=True, database=None, suppress_health_check=relaxed)
@given(*arguments)
def test_generated_files_are_read_or_refused(
    content: bytes, suffix: str, packing: str, form: FormatConfig | None, seed: int
) -> None:
    assert is_read_or_refused(content, suffix, packing, form, seed)


@pytest.mark.slow
@settings(max_examples=10_000, deadline=None, database=None, suppress_health_check=relaxed)
@given(*arguments)
def test_many_generated_files_are_read_or_refused(
    content: bytes, suffix: str, packing: str, form: FormatConfig | None, seed: int
) -> None:
    assert is_read_or_refused(content, suffix, packing, form, seed)


FLIPPED = """
import sys
from pathlib import Path
from lorafit.data.tables import read_table
from lorafit.errors import LorafitError

path, refused = Path(sys.argv[1]), 0
content = bytearray(path.read_bytes())
for place in range(len(content)):
    for mask in (1, 4):
        content[place] ^= mask
        path.write_bytes(content)
        content[place] ^= mask
        try:
            read_table(path)
        except LorafitError:
            refused += 1
print(len(content), refused)
"""


def test_no_flipped_bit_of_a_parquet_file_ends_the_process(tmp_path: Path) -> None:
    """pyarrow aborts where it is asked for the metadata of a faulty column."""
    path = tmp_path / "rows.parquet"
    parquet.write_table(pyarrow.table({"text": ["a", None, "b"], "label": [1, 2, None]}), path)
    ended = subprocess.run(
        [sys.executable, "-P", "-c", FLIPPED, str(path)], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    size, refused = map(int, ended.stdout.split())
    assert refused > size / 2
