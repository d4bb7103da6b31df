"""How words and options name sources and columns, and the one question that a terminal is asked."""

import os
import pty
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from lorafit.cli.options import RowOptions, TextOptions, name_sources
from lorafit.config import Config, DataConfig, ModelConfig, describe_source
from lorafit.errors import ConfigError

Call = Callable[..., Any]


@pytest.mark.parametrize(
    ("words", "source", "files", "validation", "test"),
    [
        ([], None, None, None, None),
        (["a.csv"], "a.csv", None, None, None),
        (["a.csv", "b.csv", "c.csv"], "a.csv", ["b.csv", "c.csv"], None, None),
        (["train=a.csv", "validation=v.csv", "test=t.csv"], "a.csv", None, "v.csv", "t.csv"),
        (["a.csv", "test=t.csv", "train=b.csv"], "a.csv", ["b.csv"], None, "t.csv"),
        (["odd=a.csv"], "odd=a.csv", None, None, None),
    ],
)
def test_words_name_what_rows_are_for(
    words: list[str], source: str | None, files: list[str] | None, validation: str | None, test: str | None
) -> None:
    named = name_sources(words)
    assert list(named.values()) == [source, files, validation, test]


def test_file_that_bears_such_a_name_is_that_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("test=a.csv").touch()
    assert name_sources(["test=a.csv"])["data.source"] == "test=a.csv"


def test_purpose_that_is_named_twice_is_refused(call: Call) -> None:
    with pytest.raises(ConfigError, match="test= was given more than once"):
        name_sources(["test=a.csv", "test=b.csv"])
    for command in ("train", "check"):
        answer = call(command, "a.csv", "test=b.csv", "--test", "c.csv")
        assert (answer.code, answer.err.strip()) == (2, "test= and --test name two files. Give one of them.")
    assert name_sources(["a.csv"], validation="v.csv", test="t.csv")["data.test"] == "t.csv"


def test_training_rows_are_never_taken_from_elsewhere(call: Call) -> None:
    answer = call("train", "test=b.csv")
    assert (answer.code, "Say what to train on" in answer.err) == (2, True)


def test_columns_given_once_or_more_are_all_used_or_refused() -> None:
    assert TextOptions(text_columns=["a"]).collect({})["data.text_column"] == "a"
    pair = TextOptions(text_columns=["a", "b"]).collect({})
    assert (pair["data.text_column"], pair["data.text_pair_column"]) == ("a", "b")
    with pytest.raises(ConfigError, match="--text-column was given 3 times"):
        TextOptions(text_columns=["a", "b", "c"]).collect({})
    assert RowOptions(label_columns=["a"]).collect({})["data.label_column"] == "a"
    for options in (
        RowOptions(label_columns=["a", "b"]),
        RowOptions(listed_label_columns="a, b"),
        RowOptions(label_columns=["a"], listed_label_columns="b"),
    ):
        assert options.collect({})["data.label_columns"] == ["a", "b"]


EVERY_SETTING = {
    "source": "my a.csv",
    "files": ["b.csv", "c'.csv"],
    "validation": "v.csv",
    "test": "t.csv",
    "task": "ordinal",
    "format": {
        "delimiter": "\t",
        "header": False,
        "quoting": "none",
        "escape": "\\",
        "encoding": "cp1252",
        "encoding_errors": "replace",
    },
    "text_column": "question",
    "text_pair_column": "answer",
    "label_column": "stars",
    "label_separator": "|",
    "missing_label": "-1",
    "merge_spellings": True,
    "accept_labels": True,
    "rare_labels": "merge:all the rest",
    "rename_labels": {"old name": "new"},
    "group_column": "author",
    "validation_fraction": 0.2,
    "test_fraction": 0.25,
    "bad_rows": "drop",
    "calibration_fraction": 0.0,
    "slice_columns": ["site", "year of it"],
    "max_rows": 50,
    "seed": 7,
}


@pytest.mark.parametrize("command", ["train", "check"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"group_column": None, "time_column": "day", "format": {"header": True}},
        {"label_columns": ["a,b", "c"], "label_column": "label"},
        {"label_columns": ["a"], "label_column": "label", "text_column": "text"},
    ],
)
def test_described_source_is_read_as_it_was(
    call: Call, monkeypatch: pytest.MonkeyPatch, command: str, changes: dict[str, Any]
) -> None:
    data = DataConfig.model_validate(EVERY_SETTING | changes)
    assert set(EVERY_SETTING) | {"label_columns", "time_column", "corrections"} == set(DataConfig.model_fields)
    if command == "train":  # `check` takes corrections with further options alone
        data.corrections = "my c.csv"
    read: list[Config] = []

    def stop(config: Config, **_: object) -> None:
        read.append(config)
        raise ConfigError("far enough")

    monkeypatch.setattr(f"lorafit.training.{'pipeline.train' if command == 'train' else 'check.check'}", stop)
    config = Config(data=data, model=ModelConfig(name="./my base"))
    answer = call(command, *shlex.split(describe_source(config)))
    assert answer.err.strip().endswith("far enough")
    assert read == [config]


def ask(words: Sequence[object], answer: bytes) -> tuple[int, str]:
    """Run a command at a terminal of its own, answer its question, and return what it ended with and said."""
    terminal, end = pty.openpty()
    command = [sys.executable, "-m", "lorafit", *map(str, words)]
    child = subprocess.Popen(command, stdin=end, stdout=end, stderr=end)
    os.close(end)
    said = b""
    asked = False
    while True:
        try:
            part = os.read(terminal, 4096)
        except OSError:  # the other end is closed
            break
        said += part
        if b"[y/N]" in said and not asked:
            os.write(terminal, answer)
            asked = True
    os.close(terminal)
    return child.wait(), said.decode()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_doubtful_labels_are_asked_about_at_a_terminal_and_refused_in_a_pipe(call: Call, tmp_path: Path) -> None:
    rows = (f"text {row},{row % 2}" for row in range(60))
    (tmp_path / "a.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    words = ["train", tmp_path / "a.csv", "--task", "multi_label", "-m", "./absent", "-o", tmp_path / "run"]
    answer = call(*words)
    assert answer.code == 2
    assert "--accept-labels" in answer.err
    code, said = ask(words, b"n\n")
    assert code == 2
    assert "Train on them as they are? [y/N]" in said
    assert not (tmp_path / "run").exists()
    assert "absent" not in said
    code, said = ask(words, b"y\n")
    assert "There is no folder './absent'" in said, "the next thing that is wrong"
