"""Two commands at once on one folder: one writes, the other is refused, and nothing is a mixture of both."""

import json
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from conftest import Commands, Counts, Lab

pytestmark = pytest.mark.slow

TRIALS = 4


def read_weights(folder: Path) -> bytes:
    return (folder / "adapter" / "adapter_model.safetensors").read_bytes()


def is_whole_run(lab: "Lab", place: Path) -> bool:
    """Whether the run is one of the two, with the settings, weights and numbers of that one."""
    run = place / "out"
    seed = json.loads((run / "run.json").read_bytes())["seed"]
    whole = lab.root / ("run", "other")[seed]
    same = all((run / name).read_bytes() == (whole / name).read_bytes() for name in ("config.yaml", "metrics.json"))
    return same and read_weights(run) == read_weights(whole)


def has_two_trials(lab: "Lab", place: Path) -> bool:
    return len(json.loads((place / "out" / "search.json").read_bytes())["trials"]) == 2


def is_same_job(lab: "Lab", place: Path) -> bool:
    return (place / "out.csv").read_bytes().count(b"\n") == 9001 and not [*place.glob(".out*")]


def is_same_export(lab: "Lab", place: Path) -> bool:
    return (place / "out" / "model.onnx").read_bytes() == (lab.root / "onnx" / "model.onnx").read_bytes()


def is_whole_comparison(_: "Lab", place: Path) -> bool:
    return (place / "out" / "comparison.json").is_file()


def has_report(_: "Lab", place: Path) -> bool:
    return (place / "out" / "report.html").read_text().rstrip().endswith("</html>")


PAIRS: dict[str, tuple[str | None, str, Callable[["Lab", Path], bool]]] = {
    "train": (None, "train -c {lab}/config.yaml --seed {seed} -o {place}/out", is_whole_run),
    "train --overwrite": ("run", "train -c {lab}/config.yaml --seed {seed} -o {place}/out --overwrite", is_whole_run),
    "train --resume": ("stopped", "train --resume {place}/out", is_whole_run),
    "predict": (None, "predict {lab}/run --file {lab}/texts.csv -o {place}/out.csv", is_same_job),
    "search": (None, "search {lab}/rows.csv --trials 2 -o {place}/out {SHORT}", has_two_trials),
    "compare": (
        None,
        "compare {lab}/rows.csv --methods head_only,bitfit -o {place}/out {SHORT}",
        is_whole_comparison,
    ),
    "export": (None, "export {lab}/run -o {place}/out", is_same_export),
    "report": ("run", "report {place}/out", has_report),
}
"""Commands by name: what stands in the folder, the words of both, and whether the result is whole."""


@pytest.mark.parametrize("name", PAIRS)
def test_two_at_once_make_one_result(
    name: str, commands: "Commands", lab: "Lab", tmp_path: Path, counts: "Counts"
) -> None:
    source, line, is_whole = PAIRS[name]
    for trial in range(TRIALS):
        rng, place = np.random.default_rng(zlib.crc32(f"{name} {trial}".encode())), tmp_path / str(trial)
        place.mkdir()
        if source is not None:
            lab.take(source, place).rename(place / "out")
        first = commands.start(*lab.spell(line, place, seed=0))
        time.sleep(rng.choice([0, rng.uniform(0, 0.3), rng.uniform(0, 3)]))
        second = commands.start(*lab.spell(line, place, seed=1))
        ends = [first.wait(), second.wait()]
        codes = sorted(ended.status if ended.status is not None else -1 for ended in ends)
        bad = [fault for ended in ends if (fault := ended.fault()) is not None]
        outcome = (
            bad[0]
            if bad
            else f"statuses {codes}"
            if codes not in ([0, 0], [0, 2])
            else "a mixture"
            if not is_whole(lab, place)
            else "one refused"
            if codes == [0, 2]
            else "one after the other"
        )
        good = outcome in {"one refused", "one after the other"}
        counts.add(name, "two at once", outcome, "\n".join(map(str, ends)), good=good)
    assert counts.bad == [], counts.describe_bad()
