import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import huggingface_hub.constants
import numpy as np
import pytest

import lorafit
from lorafit.cli import main
from lorafit.errors import EnvironmentUnfitError, NetworkUnavailableError, RunError, UserInputError
from lorafit.runs.hub import locate_run
from lorafit.serving.server import name_models

if TYPE_CHECKING:
    from conftest import Hub

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning")
"""The Hub's own client uploads like that."""

NAME, BASE = "tester/reviews", "tester/tiny-base"
TEXTS = ["a great film", "an awful film", "dull and boring"]


def run(words: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert not caught.value.code


def predict(path: str | Path) -> np.ndarray:
    return lorafit.load(path, precision="fp32").predict_proba(TEXTS)


def test_a_run_opens_from_the_hub_as_from_its_folder(hub: "Hub", trained_of: Callable[[str], Path]) -> None:
    run = trained_of("single_label")
    pushed = lorafit.push(run, NAME, base_repo=BASE)
    assert (pushed.url, pushed.base) == (f"{hub.address}/{NAME}", BASE)
    np.testing.assert_array_equal(predict(pushed.name), predict(run))
    files = hub.newest(NAME)
    assert {
        "README.md",
        "adapter_model.safetensors",
        "calibration.json",
        "lorafit/run.json",
        "lorafit/report.html",
    } <= {*files}
    settings = json.loads(files["adapter_config.json"])
    assert (settings["base_model_name_or_path"], settings["revision"]) == (BASE, [*hub.repositories[BASE].commits][-1])

    lorafit.push(run, NAME, base_repo=BASE)
    assert len(hub.repositories[BASE].commits) == 2, "the base is pushed once"
    np.testing.assert_array_equal(predict(f"hub:{NAME}"), predict(run))
    np.testing.assert_array_equal(predict(pushed.name), predict(run))


def test_nothing_of_this_machine_and_no_text_is_published(hub: "Hub", trained_of: Callable[[str], Path]) -> None:
    run = trained_of("single_label")
    lorafit.push(run, NAME, base_repo=BASE)
    rows = [json.loads(line) for line in (run.parent / "rows.jsonl").read_text(encoding="utf-8").splitlines()]
    for name, content in hub.newest(NAME).items():
        for place in (run.parent, Path.home()):
            assert str(place).encode() not in content, name
        assert not [row["text"] for row in rows if row["text"].encode() in content], name


def test_plain_libraries_open_what_was_pushed_as_its_card_says(
    hub: "Hub", trained_of: Callable[[str], Path], tmp_path: Path
) -> None:
    lorafit.push(trained_of("single_label"), NAME, base_repo=BASE)
    files = hub.newest(NAME)
    code = next(
        block for block in re.findall(r"```python\n(.*?)```", files["README.md"].decode(), re.S) if "peft" in block
    )
    golden = json.loads(files["golden.json"])
    script = f"""{code}
import json, sys, torch
texts = json.load(sys.stdin)
inputs = [classify.tokenizer(text, return_tensors="pt", truncation=True) for text in texts]
names = classify.model.config.id2label
json.dump([[model(**one).logits[0].tolist() for one in inputs], [names[label] for label in sorted(names)]], sys.stdout)
"""
    variables = {"HF_ENDPOINT": hub.address, "HF_HUB_CACHE": str(tmp_path / "other"), "HF_HUB_OFFLINE": "0"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", script],
        input=json.dumps(golden["texts"]),
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env={**os.environ, **variables, "NO_PROXY": "*"},
    )
    logits, labels = json.loads(done.stdout)
    np.testing.assert_allclose(logits, golden["logits"], atol=1e-5)
    assert labels == ["neg", "pos"]


def test_the_command_line_pushes_predicts_and_names_for_the_server(
    hub: "Hub", trained_of: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    run(["push", str(trained_of("regression")), NAME, "--base-repo", BASE, "--private", "-q"])
    url, name = capsys.readouterr().out.split()
    assert (url, name.partition("@")[0]) == (f"{hub.address}/{NAME}", f"hub:{NAME}")
    assert hub.repositories[NAME].private
    run(["predict", f"hub:{NAME}", TEXTS[0], "--json"])
    assert json.loads(capsys.readouterr().out)["value"] == pytest.approx(lorafit.load(name).predict(TEXTS)[0].value)
    rows = trained_of("regression").parent / "rows.jsonl"
    run(["evaluate", f"hub:{NAME}", str(rows), "-q", "--json"])
    assert json.loads(capsys.readouterr().out)["rows"] == len(rows.read_text(encoding="utf-8").splitlines())
    assert name_models([f"hub:{NAME}"]) == {"reviews": locate_run(f"hub:{NAME}")}


def test_a_fresh_process_opens_a_run_of_the_hub(hub: "Hub", trained_of: Callable[[str], Path], tmp_path: Path) -> None:
    lorafit.push(trained_of("single_label"), NAME, base_repo=BASE)
    variables = {"HF_ENDPOINT": hub.address, "HF_HUB_CACHE": str(tmp_path / "other"), "HF_HUB_OFFLINE": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "lorafit", "predict", f"hub:{NAME}", TEXTS[0], "--json"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **variables, "NO_PROXY": "*"},
    )
    assert json.loads(done.stdout)["label"] == lorafit.load(f"hub:{NAME}").predict(TEXTS)[0].label


@pytest.mark.parametrize(
    ("given", "kind", "message"),
    [
        ((None, NAME, BASE), EnvironmentUnfitError, r"knows nobody without a token.*hf auth login"),
        (("hf_wrong", NAME, BASE), EnvironmentUnfitError, "does not take the token"),
        (("hf_reads", NAME, BASE), UserInputError, "may not write to tester/tiny-base.*rights to create"),
        (("hf_writes", "other/reviews", BASE), UserInputError, "may not write to other/reviews"),
        (("hf_writes", "reviews", BASE), UserInputError, "write owner/name"),
        (("hf_writes", "a/b--c", BASE), UserInputError, "cannot be the name of a repository"),
        (("hf_writes", NAME, None), UserInputError, r"not on the Hub.*--base-repo tester/"),
        (("hf_writes", "tester/taken", BASE), UserInputError, "holds something else"),
        (("hf_writes", NAME, "tester/taken"), UserInputError, "tester/taken holds something else"),
        (("hf_writes", NAME, "tester/other-base"), UserInputError, "holds other weights"),
    ],
)
def test_what_cannot_be_pushed_is_refused_with_what_to_do(
    hub: "Hub",
    trained_of: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    given: tuple[str | None, str, str | None],
    kind: type[Exception],
    message: str,
) -> None:
    hub.hold("tester/taken", poem__txt=b"else")
    hub.hold("tester/other-base", model__safetensors=b"else")
    token, name, base = given
    if token is None:
        monkeypatch.delenv("HF_TOKEN")
    else:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(kind, match=f"(?s){message}"):
        lorafit.push(trained_of("single_label"), name, base_repo=base)
    assert NAME not in hub.repositories


def test_what_is_no_run_on_the_hub_is_told(hub: "Hub", trained_of: Callable[[str], Path]) -> None:
    pushed = lorafit.push(trained_of("single_label"), NAME, base_repo=BASE)
    with pytest.raises(UserInputError, match="There is no tester/nothing on the Hub"):
        lorafit.load("hub:tester/nothing")
    with pytest.raises(UserInputError, match="tester/reviews has no revision 'v9'"):
        lorafit.load(f"hub:{NAME}@v9")
    with pytest.raises(RunError, match=f"hub:{BASE} holds no run .*To train on that model: --model {BASE}"):
        lorafit.load(f"hub:{BASE}")
    hub.repositories[NAME].add(hub.newest(NAME) | {"calibration.json": b"{}"})
    with pytest.raises(RunError, match=r"calibration\.json was altered"):
        lorafit.load(f"hub:{NAME}")
    lorafit.load(pushed.name)


def test_without_a_network_a_run_opens_that_was_opened_before(
    hub: "Hub", trained_of: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trained_of("single_label")
    pushed = lorafit.push(run, NAME, base_repo=BASE)
    predict(pushed.name)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    np.testing.assert_array_equal(predict(pushed.name), predict(run))
    with pytest.raises(NetworkUnavailableError, match="cannot be reached, and tester/nothing is not in its cache"):
        lorafit.load("hub:tester/nothing")
    with pytest.raises(NetworkUnavailableError, match="cannot be reached"):
        lorafit.push(run, NAME, base_repo=BASE)


def test_a_run_of_the_hub_is_gone_on_from(
    hub: "Hub", train_run: Callable[..., Path], trained_of: Callable[[str], Path]
) -> None:
    lorafit.push(trained_of("single_label"), NAME, base_repo=BASE)
    run = train_run("ordinal", "training.max_steps=1", encoder=f"hub:{NAME}")
    assert lorafit.load(run).predict(TEXTS)
