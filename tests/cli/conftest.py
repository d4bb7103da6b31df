"""What the command line's tests share: a tiny run trained once by the command itself, and ways to call commands."""

import csv
import io
import json
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

from lorafit.cli import main

GOOD, BAD = ("fine", "great", "lovely", "superb"), ("awful", "boring", "dull", "poor")
SOURCE = Path(__file__).parents[2] / "src"


@dataclass(frozen=True)
class Answer:
    """What a command said and ended with."""

    code: int
    out: str
    err: str


Call = Callable[..., Answer]
Spawn = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    """Runs a command in this process."""

    def call(*words: object) -> Answer:
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main([str(word) for word in words])
        said = capsys.readouterr()
        return Answer(int(caught.value.code or 0), said.out, said.err)

    return call


@pytest.fixture(scope="session")
def spawn_without(tmp_path_factory: pytest.TempPathFactory) -> Spawn:
    """Runs a command in a process of its own whose site-packages are this one's without some entries."""
    site = Path(sysconfig.get_path("purelib"))

    def spawn_without(hidden: Sequence[str], *words: object) -> object:
        packages = tmp_path_factory.mktemp("packages")
        for entry in site.iterdir():
            if not entry.name.startswith(tuple(hidden)):
                (packages / entry.name).symlink_to(entry)
        code = f"import sys; sys.path[:0] = {[str(packages), str(SOURCE)]}; from lorafit.cli import main; main()"
        return subprocess.run(
            [sys.executable, "-S", "-c", code, *map(str, words)],
            text=True,
            encoding="utf-8",
            capture_output=True,
            check=False,
        )

    return spawn_without  # type: ignore[return-value]


@pytest.fixture(scope="session")
def encoder(build_encoder: Callable[..., Path]) -> Path:
    """A tiny encoder with wide weights: a word changes the output."""
    return build_encoder("distilbert", initializer_range=0.1)


@pytest.fixture(scope="session")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 rows with text and label, each text once."""
    return write_reviews(tmp_path_factory.mktemp("cli") / "reviews.csv", 120)


def write_reviews(path: Path, count: int) -> Path:
    """Write rows that can be learned."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for row in range(count):
            words, turn = (BAD, GOOD)[row % 2], row // 2
            text = f"{words[turn % 4]} {words[turn // 4 % 4]} film, {words[turn // 16 % 4]} story {row}"
            writer.writerow([text, ("neg", "pos")[row % 2]])
    return path


@pytest.fixture(scope="session")
def settings(encoder: Path) -> list[str]:
    """Options that make any training short."""
    values = {
        "data.validation_fraction": 0.1,
        "model.max_length": 32,
        "training.batch_size": 16,
        "training.learning_rate": 0.01,
        "training.epochs": 2,
        "training.threads": 1,
        "evaluation.bootstrap_samples": 200,
    }
    return ["--model", str(encoder), *(word for name in values for word in ("--set", f"{name}={values[name]}"))]


@pytest.fixture(scope="session")
def quiet_training(
    reviews: Path, settings: list[str], shared_folder: Callable[[str, Callable[[Path], object]], Path]
) -> Answer:
    """What the command that trained `trained` said, with --quiet."""

    def train(folder: Path) -> None:
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as caught:
            main([*map(str, ("train", reviews, *settings, "--output", folder / "run")), "--quiet"])
        answer = Answer(int(caught.value.code or 0), out.getvalue(), err.getvalue())
        (folder / "answer.json").write_text(json.dumps(asdict(answer)))

    return Answer(**json.loads((shared_folder("cli", train) / "answer.json").read_text()))


@pytest.fixture(scope="session")
def trained(quiet_training: Answer) -> Path:
    """A finished run with one label a text, trained once for all workers. Tests copy it before they change it."""
    assert quiet_training.code == 0, quiet_training.err
    return Path(quiet_training.out.strip())
