"""Whatever happened to a file, a command says so or answers as if nothing had: no answer is wrong in silence."""

import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from lorafit.runs.folder import BLEND_FILES, TYPICALITY_FILE, RunLayout

if TYPE_CHECKING:
    from conftest import Call, Commands, Counts, Ended, Lab

TIMES = frozenset(
    {
        "created",
        "seconds",
        "peak_memory_bytes",
        "energy_joules",
        "seal",
        "run",
        "repetition",
        "a",
        "b",
        "forecast",
        "hardware",
    }
    | {"tokens_per_second", "texts_per_second", "step_seconds", "train_runtime", "path", "bytes"}
)
"""Fields of JSON that differ between two runs of the same."""


def flip(position: Callable[[int, np.random.Generator], int]) -> Callable[..., None]:
    def apply(path: Path, rng: np.random.Generator, _: Path) -> None:
        content = bytearray(path.read_bytes())
        content[position(len(content), rng)] ^= 1 << int(rng.integers(8))
        path.write_bytes(content)

    return apply


def replace(path: Path, _: np.random.Generator, twin: Path) -> None:
    if twin.is_file() and twin.read_bytes() != path.read_bytes():
        shutil.copy(twin, path)
    else:
        path.write_bytes(path.read_bytes() * 2)


def make_folder(path: Path, *_: object) -> None:
    path.unlink()
    path.mkdir()


def link(target: str) -> Callable[..., None]:
    def apply(path: Path, *_: object) -> None:
        path.unlink()
        path.symlink_to(target)

    return apply


FAULTS: dict[str, Callable[[Path, np.random.Generator, Path], None]] = {
    "bit flipped in the first 64 bytes": flip(lambda size, rng: rng.integers(min(size, 64))),
    "bit flipped in the middle": flip(lambda size, rng: size // 2 + rng.integers(max(1, min(size // 2, 64)))),
    "bit flipped at the end": flip(lambda size, rng: size - 1 - rng.integers(min(size, 16))),
    "bit flipped anywhere": flip(lambda size, rng: rng.integers(size)),
    "cut in half": lambda path, *_: os.truncate(path, path.stat().st_size // 2),
    "last byte cut": lambda path, *_: os.truncate(path, path.stat().st_size - 1),
    "emptied": lambda path, *_: os.truncate(path, 0),
    "removed": lambda path, *_: path.unlink(),
    "that of another run": replace,
    "a folder in its place": make_folder,
    "a link to a device": link("/dev/zero"),
    "a link to itself": lambda path, *_: link(path.name)(path),
}

SHARE = float(os.environ.get("LORAFIT_FAULTS_SHARE", "1"))
"""Share of the cases that is tried."""


def digest(folder: Path) -> dict[str, str]:
    """Return the digests of a folder's files; JSON without times."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name not in {"README.md"}:
            content = path.read_bytes()
            if path.suffix == ".json" and path.name not in {"tokenizer.json"}:
                content = json.dumps(strip(json.loads(content)), sort_keys=True).encode()
            found[str(path.relative_to(folder))] = hashlib.sha256(content).hexdigest()
    return found


def strip(value: Any) -> Any:  # noqa: ANN401 - JSON
    """Return JSON without what differs between two runs of the same."""
    if isinstance(value, dict):
        kept = (key for key in value if key not in TIMES and "second" not in key and "runtime" not in key)
        return {key: strip(value[key]) for key in kept}
    return [strip(inner) for inner in value] if isinstance(value, list) else value


def read_out(ended: "Ended", *_: Path) -> object:
    return ended.out


def read_json(ended: "Ended", *_: Path) -> object:
    return strip(json.loads(ended.out))


def read_report(ended: "Ended", folder: Path, place: Path) -> object:
    return (place / "report.html").read_text().replace(str(folder), "FOLDER")


def read_export(ended: "Ended", folder: Path, place: Path) -> object:
    return digest(place / "export")


def read_run(ended: "Ended", folder: Path, place: Path) -> object:
    return digest(folder / "adapter") | {"metrics": strip(json.loads((folder / "metrics.json").read_bytes()))}


def read_file(name: str) -> Callable[["Ended", Path, Path], object]:
    def read(ended: "Ended", folder: Path, place: Path) -> object:
        content = (folder / name).read_bytes()
        return strip(json.loads(content)) if name.endswith(".json") else content

    return read


COMPARE = "compare {lab}/rows.csv --methods head_only,bitfit -o {folder} {SHORT}"
SEARCH = "search {lab}/rows.csv --trials 2 -o {folder} {SHORT}"
JOB = "predict {lab}/run --file {lab}/texts.csv -o {folder}/out.csv --resume"

TRIED: dict[str, tuple[str, str, str, Callable[["Ended", Path, Path], object], float]] = {
    "predict": ("run", "other", "predict {folder} a-lovely-film-that-was-dull --json", read_out, 1),
    "evaluate": ("run", "other", "evaluate {folder} --json", read_json, 1),
    "report": ("run", "other", "report {folder} -o {place}/report.html", read_report, 0.5),
    "explain": ("run", "other", "explain {folder} a-lovely-film-that-was-dull --json", read_json, 0.5),
    "diff": ("run", "other", "diff {folder} {lab}/other --json", read_json, 1),
    "export": ("run", "other", "export {folder} -o {place}/export", read_export, 0.5),
    "reproduce": ("run", "other", "reproduce {folder} -o {place}/again --json", read_json, 0.2),
    "predict with onnx": ("onnx", "other-onnx", "predict {folder} a-lovely-film-that-was-dull --json", read_out, 1),
    "predict with int8": ("onnx-int8", "other-onnx", "predict {folder} a-lovely-film --json", read_out, 1),
    "explain with onnx": ("onnx", "other-onnx", "explain {folder} a-lovely-film --json", read_json, 0.3),
    "diff with onnx": ("onnx", "other-onnx", "diff {folder} {lab}/run {lab}/rows.csv --json", read_json, 0.3),
    "train --resume": ("stopped", "run", "train --resume {folder}", read_run, 0.25),
    "predict --resume": ("job", "run", JOB, read_file("out.csv"), 1),
    "compare again": ("comparison", "run", COMPARE, read_file("comparison.json"), 0.15),
    "search again": ("search", "run", SEARCH, read_file("search.json"), 0.3),
}
"""By name: what is damaged, a twin from which files come, the command, its answer, and the share that is tried."""


def list_files(folder: Path) -> Iterator[Path]:
    """Yield the files of a folder as paths in it; of several trained runs in it the first one's."""
    yield from sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())


@pytest.mark.slow
@pytest.mark.parametrize("name", TRIED)
def test_no_damage_makes_a_wrong_answer(
    name: str, commands: "Commands", lab: "Lab", tmp_path: Path, counts: "Counts"
) -> None:
    target, twin, line, read, share = TRIED[name]

    def ask(place: Path) -> tuple["Ended", Callable[[], object]]:
        folder = place / target
        ended = commands.run(*lab.spell(line, place, folder=folder))
        return ended, lambda: read(ended, folder, place)

    lab.take(target, tmp_path / "case")
    intact, answer = ask(tmp_path / "case")
    assert intact.status == 0, str(intact)
    right = answer()
    for file in list_files(lab.root / target):
        shutil.rmtree(tmp_path / "case", ignore_errors=True)
        for fault, apply in FAULTS.items():
            rng = np.random.default_rng(zlib.crc32(f"{name} {file} {fault}".encode()))
            if rng.random() > share * SHARE or (lab.root / target / file).stat().st_size == 0:
                continue
            folder = lab.take(target, tmp_path / "case")
            apply(folder / file, rng, lab.root / twin / file)
            ended, answer = ask(tmp_path / "case")
            outcome = judge(ended, answer, right, file)
            counts.add(name, fault, outcome, f"{file}\n{ended}", good=outcome in GOOD)
            shutil.rmtree(tmp_path / "case")
    assert counts.bad == [], counts.describe_bad()


GOOD = ("caught", "harmless", "said")


def judge(ended: "Ended", answer: Callable[[], object], right: object, file: Path) -> str:
    """Say how a command took a damaged file."""
    if (bad := ended.fault()) is not None:
        return bad
    if ended.status in {2, 3}:
        return "caught"
    if ended.status == 1:
        return "said"
    if answer() == right:
        return "harmless"
    return "said" if file.name in ended.err or "damaged" in ended.err else "silently wrong"


SAMPLE = 2
"""Faults of each file in the sample that is tried in this process."""


@pytest.mark.parametrize("name", ["predict", pytest.param("evaluate", marks=pytest.mark.slow)])
def test_a_sample_of_damage_makes_no_wrong_answer(
    name: str, call: "Call", trained_of: Callable[[str], Path], tmp_path: Path, counts: "Counts"
) -> None:
    def choose(file: Path) -> Sequence[str]:
        return np.random.default_rng(zlib.crc32(f"{name} {file}".encode())).choice([*FAULTS], SAMPLE, replace=False)

    run = trained_of("single_label")
    damage(run, {file: choose(file) for file in list_files(run)}, name, call, tmp_path / "case", counts)
    assert counts.bad == [], counts.describe_bad()


@pytest.mark.slow
@pytest.mark.parametrize("name", [*BLEND_FILES, TYPICALITY_FILE])
def test_no_damage_of_a_blend_or_typicality_makes_a_wrong_answer(
    name: str, call: "Call", blended: Path, tmp_path: Path, counts: "Counts"
) -> None:
    file = (RunLayout(blended).trained / name).relative_to(blended)
    damage(blended, {file: [*FAULTS]}, "predict", call, tmp_path / "case", counts)
    assert counts.bad == [], counts.describe_bad()


@pytest.fixture(scope="module")
def blended(train_run: Callable[..., Path]) -> Path:
    """A run whose words know more than its encoder."""
    return train_run("single_label", "evaluation.baselines=true", "training.max_steps=1")


def damage(
    run: Path, faults: Mapping[Path, Sequence[str]], name: str, call: "Call", place: Path, counts: "Counts"
) -> None:
    """Ask copies of a run in which a file has a fault, each fault of each file in turn."""
    folder = place / "run"
    words = {
        "predict": ["predict", folder, "a fine film", "--json"],
        "evaluate": ["evaluate", folder, "--json"],
    }[name]
    read = {"predict": read_out, "evaluate": read_json}[name]
    shutil.copytree(run, folder)
    intact = call(*words)
    assert intact.status == 0, str(intact)
    right = read(intact, folder, place)
    for file, chosen in faults.items():
        for fault in chosen:
            shutil.rmtree(place)
            shutil.copytree(run, folder)
            FAULTS[fault](folder / file, np.random.default_rng(zlib.crc32(f"{name} {file} {fault}".encode())), file)
            ended = call(*words)
            outcome = judge(ended, lambda ended=ended: read(ended, folder, place), right, file)
            counts.add(name, fault, outcome, f"{file}\n{ended}", good=outcome in GOOD)
