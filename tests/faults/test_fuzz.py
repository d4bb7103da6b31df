"""Records and settings of any content: nothing but a `LorafitError` of a few lines comes out of what reads them."""

import copy
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from lorafit.config import Config, load_config
from lorafit.errors import LorafitError
from lorafit.runs.folder import BLEND_FILE
from lorafit.system.records import SCHEMA_VERSION, seal

HERE = Path(__file__).parent

EXAMPLES = 300 if "LORAFIT_FAULTS" in os.environ else 60

repeatable = settings(
    max_examples=EXAMPLES,
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

MOST_LINES, MOST_CHARACTERS = 40, 4000
"""Of a message: what a screen holds."""

ODD: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    2**31,
    2**63,
    10**400,
    -(10**400),
    0.1,
    math.nan,
    math.inf,
    1e308,
    "",
    "x" * 5000,
    "../../etc/passwd",
    "/dev/zero",
    "a\0b",
    "\x1b]0;title\x07\x1b[31m",
    "\u202e\ufeff\u2028\ud800",
    "builtin:distil-minilm",
    "NaN",
    "1_000",
    [],
    {},
    [[]],
    {"": None},
    list(range(300)),
    {str(number): number for number in range(300)},
)
"""Values that a field may hold in place of its own."""


def nest(depth: int) -> object:
    value: object = 1
    for _ in range(depth):
        value = [value]
    return value


def follow(value: Any, path: Iterable[Any]) -> Any:  # noqa: ANN401 - JSON
    """Return what stands at a path."""
    for key in path:
        value = value[key]
    return value


scalars = st.text(max_size=20) | st.integers() | st.floats() | st.booleans()


def list_places(value: object, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of every value in JSON."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, part in inner for place in list_places(part, (*path, key)))]


@st.composite
def mutations(draw: st.DrawFn, whole: Mapping[str, Any]) -> dict[str, Any]:
    """Draw what valid JSON becomes by one to three changes: other values, other keys, keys that lack, values moved."""
    changed = copy.deepcopy(dict(whole))
    for _ in range(draw(st.integers(1, 3))):
        places = [place for place in list_places(changed) if place]
        if not places:
            break
        *above, last = draw(st.sampled_from(places))
        parent = follow(changed, above)
        kind = draw(st.sampled_from(["odd", "odd", "odd", "generated", "remove", "add", "move", "nest"]))
        if kind == "remove":
            del parent[last]
        elif kind == "add" and isinstance(parent, dict):
            key = draw(st.sampled_from(["seal", "", "x" * 1000, "\x1b[31m", "a.b", *changed]))
            parent[key] = copy.deepcopy(draw(st.sampled_from(ODD)))
        elif kind == "move":
            parent[last] = copy.deepcopy(follow(changed, draw(st.sampled_from(places))))
        elif kind == "nest":
            parent[last] = nest(draw(st.sampled_from([50, 500])))
        else:
            parent[last] = copy.deepcopy(draw(st.sampled_from(ODD) if kind == "odd" else scalars))
    return changed


def find_break(read: Callable[[], object], shown: object) -> str | None:
    """Call something that may only fail with a `LorafitError` whose message fits a screen and is harmless."""
    try:
        read()
    except LorafitError as error:
        message = str(error)
        is_short = len(message) <= MOST_CHARACTERS and message.count("\n") <= MOST_LINES
        return None if is_short and not {"\x1b", "\0", "\u202e", "\x07"} & set(message) else repr(message[:6000])
    except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
        return f"{type(error).__name__}: {str(error)[:500]} from {str(shown)[:3000]}"
    return None


@pytest.fixture(scope="module")
def written(write_run_in: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run_in(tmp_path_factory.mktemp("fuzz"))


def fuzz(path: Path, fields: dict[str, Any], ask: Callable[[], object], *, sealed: bool) -> None:
    """Write records changed within their structure to a file, and ask what reads them."""

    @repeatable
    @given(mutations(fields))
    def check(changed: dict[str, Any]) -> None:
        changed["schema_version"] = SCHEMA_VERSION
        try:
            text = seal(changed) if sealed else json.dumps(changed)
            path.write_text(text, encoding="utf-8", errors="surrogatepass")
        except (RecursionError, UnicodeError):
            return
        assert find_break(ask, text) is None

    check()


RECORDS = ("run.json", "metrics.json", "adapter/calibration.json")


@pytest.mark.slow
@pytest.mark.parametrize("sealed", [True, False], ids=["sealed again", "as they are"])
@pytest.mark.parametrize("name", RECORDS)
def test_no_record_breaks_what_reads_it(name: str, sealed: bool, written: Path) -> None:
    from lorafit.reports.contents import read_run

    path = written / name
    intact = path.read_bytes()
    fields = json.loads(intact)
    fields.pop("seal", None)

    try:
        fuzz(path, fields, lambda: read_run(written), sealed=sealed)
    finally:
        path.write_bytes(intact)


@pytest.mark.parametrize("sealed", [True, False], ids=["sealed again", "as they are"])
def test_no_weights_of_a_blend_break_what_reads_them(sealed: bool, tmp_path: Path) -> None:
    from lorafit.runs.blends import read_blend, write_blend
    from lorafit.tasks.blending import Blend
    from lorafit.tasks.registry import build_task

    task, y = build_task("single_label", ("bad", "good")), np.arange(20) % 2
    model = task.fit_words("nb_svm", ["bad film", "good film"] * 10, y).compact(10**6)
    write_blend(Blend({"encoder": 1.0, "nb_svm": 0.5}, {"nb_svm": model}), tmp_path)
    path = tmp_path / BLEND_FILE
    fields = json.loads(path.read_bytes())
    fields.pop("seal", None)

    def ask() -> None:
        blend = read_blend(tmp_path, task)
        assert np.isfinite(blend.pool(task, np.array([[1.0, -1.0]]), blend.read(["good film"]))).all()

    fuzz(path, fields, ask, sealed=sealed)


def test_no_bytes_of_a_record_break_what_reads_it(written: Path) -> None:
    from lorafit.reports.contents import read_run

    path = written / "run.json"
    intact = path.read_bytes()
    ends = (b"", b"[" * 100_000, b'{"a":' * 100_000, b"\xff\xfe", b"\0" * 1000, b"9" * 5000, b'"' + b"\\" * 999)

    @repeatable
    @given(st.integers(0, len(intact)), st.binary(max_size=30) | st.sampled_from(ends), st.integers(0, 200))
    def check(place: int, between: bytes, gap: int) -> None:
        path.write_bytes(intact[:place] + between + intact[place + gap :])
        assert find_break(lambda: read_run(written), between) is None

    try:
        check()
    finally:
        path.write_bytes(intact)


def test_no_settings_break_what_reads_them(tmp_path: Path) -> None:
    whole = json.loads(Config().model_dump_json())
    path = tmp_path / "config.yaml"

    @repeatable
    @given(mutations(whole))
    def check(changed: dict[str, Any]) -> None:
        try:
            text = yaml.safe_dump(changed, allow_unicode=True)
        except (RecursionError, ValueError):
            return
        path.write_text(text, encoding="utf-8", errors="surrogatepass")
        assert find_break(lambda: load_config(path), text) is None

    check()


yaml_pieces = st.sampled_from(
    (
        *(
            "data: ",
            "source: ",
            "training: ",
            "epochs: ",
            "\n",
            "\n  ",
            "&a ",
            "*a",
            "<<: *a",
            "- ",
            "{",
            "}",
            "[",
            "]",
        ),
        *(
            '"',
            "'",
            "!!python/object/apply:os.system ",
            "!!binary ",
            "!!float ",
            "? ",
            ": ",
            "|\n",
            ">\n",
            "%YAML 9.9\n",
        ),
        *(
            "---\n",
            "...\n",
            "1e999",
            "0x" + "f" * 5000,
            "9" * 5000,
            "1:" * 500,
            "2001-01-01",
            "\t",
            "\0",
            "\ufeff",
            "#",
        ),
    )
)


def test_no_text_breaks_what_reads_settings(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"

    @repeatable
    @given(st.lists(yaml_pieces | st.text(max_size=4), max_size=30).map("".join))
    def check(text: str) -> None:
        path.write_text(text, encoding="utf-8", errors="surrogatepass")
        assert find_break(lambda: load_config(path), text) is None

    check()


keys = st.lists(st.sampled_from(["data", "training", "epochs", "", "x", "__class__", "0", "\x1b"]), max_size=60)


overridden = st.builds(lambda parts, mark, value: f"{'.'.join(parts)}{mark}{value}", keys, st.sampled_from(["=", ""]),
                       yaml_pieces | st.text(max_size=9))  # fmt: skip


@repeatable
@given(st.lists(overridden, max_size=4))
def test_no_override_breaks_what_reads_it(overrides: list[str]) -> None:
    assert find_break(lambda: load_config(overrides=overrides), overrides) is None


SECONDS = 20
"""How long each reader is fed."""


@pytest.mark.slow
@pytest.mark.parametrize("reader", ["csv", "json", "jsonl", "parquet", "xlsx", "txt", "yaml", "record", "set"])
def test_no_bytes_that_coverage_leads_to_break_a_reader(reader: str, tmp_path: Path) -> None:
    pytest.importorskip("atheris", reason="atheris is not installed: pip install atheris (Linux)")
    command = [sys.executable, HERE / "feed.py", reader, tmp_path, f"-max_total_time={SECONDS}", "-seed=1"]
    command += ["-rss_limit_mb=4000", "-timeout=20", "-max_len=4096", f"-artifact_prefix={tmp_path}/"]
    ended = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr[-4000:]
    assert "Done" in ended.stderr, ended.stderr[-4000:]
