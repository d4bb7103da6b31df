"""What the machine lacks is said in one sentence, exit 3; what was done is kept, and goes on when there is more."""

import contextlib
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from conftest import Commands, Counts, Ended, Lab

pytestmark = pytest.mark.slow

KB, MB = 1 << 10, 1 << 20

DISKS = (16 * KB, 100 * KB, 200 * KB, 400 * KB, 600 * KB, 800 * KB, 1000 * KB, 1300 * KB, 1600 * KB, 2 * MB, 3 * MB)
"""Sizes of disks, of which each is full at another stage."""

MakeDisk = Callable[[int], Path]


@pytest.fixture
def make_disk(tmp_path: Path) -> Iterator[MakeDisk]:
    """Mounts a tmpfs of some bytes; a system that does not let this user do so cannot run these tests."""
    mounted: list[Path] = []

    def make(size: int) -> Path:
        place = tmp_path / f"disk-{len(mounted)}"
        place.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
        made = subprocess.run(command, capture_output=True, text=True, check=False)
        if made.returncode:
            pytest.skip(f"no disk can be mounted here: {made.stderr.strip()}")
        mounted.append(place)
        return place

    yield make
    for place in mounted:
        subprocess.run(["umount", "-l", place], check=True)


def remount(disk: Path, options: str) -> None:
    """Change the size of a disk, or whether it can be written."""
    subprocess.run(["mount", "-o", f"remount,{options}", disk], check=True)


def judge(ended: "Ended", *codes: int) -> str:
    """Say how a command took an unfit environment."""
    if (bad := ended.fault()) is not None:
        return bad
    return "worked" if ended.status == 0 else "said" if ended.status in (codes or (3,)) else f"status {ended.status}"


GOOD = ("worked", "said")


@pytest.mark.parametrize("size", DISKS)
def test_a_training_on_a_full_disk_goes_on_when_there_is_room(
    size: int, commands: "Commands", lab: "Lab", make_disk: MakeDisk, counts: "Counts"
) -> None:
    disk = make_disk(size)
    folder = disk / "run"
    training = lab.spell("train -c {lab}/config.yaml -o {place}/run", disk)
    ended = commands.run(*training)
    outcome = judge(ended)
    counts.add("train", "disk full", outcome, str(ended), good=outcome in GOOD)
    remount(disk, f"size={50 * MB}")
    if ended.status != 0:
        words = ["train", "--resume", folder] if (folder / "run.json").exists() else training
        ended = commands.run(*words)
        if ended.status == 2 and "is complete" in ended.err:
            ended = commands.run("report", folder)
        outcome = ended.fault() or ("complete" if ended.status == 0 else f"status {ended.status}")
        counts.add("train", "more room after it", outcome, str(ended), good=outcome == "complete")
    if outcome in {"complete", "worked"}:
        same = _weights(folder) == _weights(lab.root / "run") and (folder / "report.html").exists()
        left = [path.name for path in disk.iterdir() if path != folder]
        outcome = "bit-identical" if same and not left else f"left {left}" if same else "differs"
        counts.add("train", "result after it", outcome, str(left), good=outcome == "bit-identical")
    assert counts.bad == [], counts.describe_bad()


def _weights(folder: Path) -> bytes:
    return (folder / "adapter" / "adapter_model.safetensors").read_bytes()


WRITERS = {
    "export": "export {lab}/run -o {place}/out",
    "export --int8": "export {lab}/run --int8 -o {place}/out",
    "export --merged": "export {lab}/run --merged -o {place}/out",
    "report": "report {lab}/run -o {place}/out.html",
    "predict": "predict {lab}/run --file {lab}/texts.csv -o {place}/out.csv",
    "predict to parquet": "predict {lab}/run --file {lab}/texts.csv -o {place}/out.parquet",
    "compare": "compare {lab}/rows.csv --methods head_only,bitfit -o {place}/out {SHORT}",
    "search": "search {lab}/rows.csv --trials 2 -o {place}/out {SHORT}",
    "reproduce": "reproduce {lab}/run -o {place}/out",
}
"""Commands that write."""


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_is_said_and_the_command_goes_on_when_there_is_room(
    name: str, commands: "Commands", lab: "Lab", make_disk: MakeDisk, counts: "Counts"
) -> None:
    for size in (4 * KB, 60 * KB, 150 * KB, 300 * KB, 500 * KB, 1 * MB):
        disk = make_disk(size)
        ended = commands.run(*lab.spell(WRITERS[name], disk))
        outcome = judge(ended)
        counts.add(name, "disk full", outcome, f"{size} bytes: {ended}", good=outcome in GOOD)
        if ended.status == 0:
            break
        remount(disk, f"size={50 * MB}")
        words = lab.spell(WRITERS[name], disk)
        if name == "reproduce":  # which wants a folder of its own
            words[-1] += "-2"
        ended = commands.run(*words)
        if ended.status == 2 and "--resume" in ended.err:
            ended = commands.run(*words, "--resume")
        outcome = ended.fault() or ("complete" if ended.status == 0 else f"status {ended.status}")
        counts.add(name, "more room after it", outcome, f"{size} bytes: {ended}", good=outcome == "complete")
        left = sorted(path.name for path in disk.iterdir() if not path.name.startswith("out"))
        outcome = f"left {left}" if left else "nothing left behind"
        counts.add(name, "what is left", outcome, f"{size} bytes", good=not left)
    assert counts.bad == [], counts.describe_bad()


CACHED = {
    "train": "train {lab}/rows.csv -o {place}/out --set training.prefix_cache=shared --set method.layers=top1 {SHORT}",
    "predict": "predict {lab}/run a-lovely-film",
    "predict with onnx": "predict {lab}/onnx a-lovely-film",
    "evaluate": "evaluate {lab}/run",
    "export": WRITERS["export"],
    "report": WRITERS["report"],
}
"""Commands that may use the cache."""


@pytest.mark.parametrize("name", CACHED)
def test_a_full_read_only_or_missing_cache_is_said_or_does_without(
    name: str, commands: "Commands", lab: "Lab", make_disk: MakeDisk, tmp_path: Path, counts: "Counts"
) -> None:
    full, fixed, file = make_disk(4 * KB), make_disk(MB), tmp_path / "file"
    remount(fixed, "ro")
    file.touch()
    fill_up(full)
    places: dict[str, dict[str, Any]] = {
        "cache full": {"env": {"LORAFIT_CACHE": str(full), "TMPDIR": str(tmp_path)}},
        "cache read-only": {"env": {"LORAFIT_CACHE": str(fixed)}},
        "cache a file": {"env": {"LORAFIT_CACHE": str(file)}},
        "home missing": {"env": {"HOME": "/proc/none"}, "without": ["LORAFIT_CACHE", "HF_HOME", "XDG_CACHE_HOME"]},
        "home a device": {"env": {"HOME": "/dev/null"}, "without": ["LORAFIT_CACHE", "HF_HOME", "XDG_CACHE_HOME"]},
        "home not set": {"without": ["HOME", "LORAFIT_CACHE", "HF_HOME", "XDG_CACHE_HOME"]},
        "temporary folder full": {"env": {"TMPDIR": str(full)}},
        "temporary folder read-only": {"env": {"TMPDIR": str(fixed)}},
        "temporary folder missing": {"env": {"TMPDIR": "/proc/none"}},
    }
    for number, (place, settings) in enumerate(places.items()):
        output = tmp_path / str(number)
        output.mkdir()
        ended = commands.run(*lab.spell(CACHED[name], output), **settings)
        outcome = judge(ended)
        counts.add(name, place, outcome, str(ended), good=outcome in GOOD)
    assert counts.bad == [], counts.describe_bad()


def fill_up(disk: Path) -> None:
    """Leave no byte free on a disk."""
    with contextlib.suppress(OSError), (disk / "ballast").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4 * KB))


ON_READ_ONLY = {
    "predict": ("predict {place}/run a-lovely-film", True),
    "predict with onnx": ("predict {place}/onnx a-lovely-film", True),
    "evaluate": ("evaluate {place}/run", True),
    "explain": ("explain {place}/run a-lovely-film", True),
    "report": ("report {place}/run", False),
    "export": ("export {place}/run", False),
    "train": ("train {place}/rows.csv -o {place}/new", False),
    "train --overwrite": ("train {place}/rows.csv -o {place}/run --overwrite", False),
    "train --resume": ("train --resume {place}/stopped", False),
    "predict to a file": ("predict {place}/run --file {place}/rows.csv -o {place}/out.csv", False),
}
"""Commands on a disk that cannot be written, and whether they work there."""


@pytest.mark.parametrize("name", ON_READ_ONLY)
def test_what_only_reads_works_on_a_read_only_disk_and_the_rest_says_it(
    name: str, commands: "Commands", lab: "Lab", make_disk: MakeDisk, counts: "Counts"
) -> None:
    disk = make_disk(60 * MB)
    for part in ("run", "onnx", "stopped", "rows.csv"):
        lab.take(part, disk)
    remount(disk, "ro")
    line, works = ON_READ_ONLY[name]
    ended = commands.run(*lab.spell(line, disk))
    outcome = judge(ended, 2, 3)
    counts.add(name, "disk read-only", outcome, str(ended), good=outcome == ("worked" if works else "said"))
    assert counts.bad == [], counts.describe_bad()


LIMITED = CACHED | {"train": "train {lab}/rows.csv -o {place}/out {SHORT}", "predict": WRITERS["predict"]}
"""Commands that need files and memory."""


@pytest.mark.parametrize("name", LIMITED)
def test_too_few_files_or_too_little_memory_is_said(
    name: str, commands: "Commands", lab: "Lab", tmp_path: Path, counts: "Counts"
) -> None:
    limits = {
        "few open files": [{"RLIMIT_NOFILE": files} for files in (12, 14, 16, 20, 30, 60)],
        "little memory": [{"RLIMIT_AS": room * MB} for room in (1, 4, 16, 40, 80, 160, 320, 640)],
    }
    for fault, tried in limits.items():
        for limit in tried:
            place = tmp_path / "case"
            place.mkdir()
            ended = commands.run(*lab.spell(LIMITED[name], place), limits=limit)
            outcome = judge(ended)
            counts.add(name, fault, outcome, f"{limit}: {ended}", good=outcome in GOOD)
            shutil.rmtree(place)
    assert counts.bad == [], counts.describe_bad()
