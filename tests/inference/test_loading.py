"""What is opened is what was written: altered, contradictory, strange and moved folders of runs and exports."""

import json
import multiprocessing
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lorafit
from lorafit.errors import RunError, UserInputError
from lorafit.inference.export.export import export
from lorafit.inference.predictor import Predictor
from lorafit.runs.folder import RunLayout
from lorafit.system.digests import digest_folder

EditRecord = Callable[..., None]
SignRun = Callable[[Path], None]
TEXTS = ["a superb film", "a dull, boring story", "great great great hours", "the end"]


@pytest.fixture(scope="module")
def exported(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(trained, output=tmp_path_factory.mktemp("exported") / "onnx").path


@pytest.fixture(params=["run", "export"])
def folder(request: pytest.FixtureRequest, trained: Path, exported: Path, tmp_path: Path) -> Path:
    """A copy of a run or an export, to be spoiled."""
    return Path(shutil.copytree({"run": trained, "export": exported}[request.param], tmp_path / "copy"))


def is_run(folder: Path) -> bool:
    return (folder / "run.json").is_file()


def find_record(folder: Path) -> Path:
    return folder / ("run.json" if is_run(folder) else "lorafit.json")


def find_part(folder: Path, name: str) -> Path:
    """A file of the model by its name in an export."""
    if not is_run(folder):
        return folder / name
    return folder / "adapter" / ("labels/config.json" if name == "config.json" else name)


@pytest.fixture
def sign(edit_record: EditRecord, sign_run: SignRun) -> Callable[[Path], None]:
    """Lets the record of a run or export name its files as they are now."""

    def sign(folder: Path) -> None:
        if is_run(folder):
            sign_run(folder)
        else:
            (folder / "lorafit.json").rename(folder.with_name("aside"))
            files = digest_folder(folder)
            folder.with_name("aside").rename(folder / "lorafit.json")
            edit_record(folder / "lorafit.json", files=files)

    return sign


def edit_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **changes}), encoding="utf-8")


# What stands twice


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        (
            {"labels": ["pos", "neg"]},
            r'the labels are \{"0": "pos", "1": "neg"\} in the first, \{"0": "neg", "1": "pos"',
        ),
        ({"max_length": 31}, "the longest input has 31 in the first, 32 in the second"),
        ({"task": "ordinal"}, "must be whole numbers in rising order, got 'neg', 'pos'"),
    ],
)
def test_a_record_sealed_again_that_its_files_contradict_is_refused(
    folder: Path, edit_record: EditRecord, changes: dict[str, Any], fault: str
) -> None:
    edit_record(find_record(folder), **changes)
    (folder / "config.yaml").unlink(missing_ok=True)
    with pytest.raises(UserInputError, match=fault):
        lorafit.load(folder, verify=False)


@pytest.mark.parametrize(
    ("name", "changes", "fault"),
    [
        ("config.json", {"id2label": {"0": "pos", "1": "neg"}}, "the labels are"),
        ("config.json", {"problem_type": "regression"}, "the kind of loss is"),
        ("tokenizer_config.json", {"model_max_length": 16}, "the longest input has 32 in the first, 16 in the second"),
    ],
)
def test_files_signed_again_that_contradict_the_record_are_refused(
    folder: Path, sign: Callable[[Path], None], name: str, changes: dict[str, Any], fault: str
) -> None:
    edit_json(find_part(folder, name), **changes)
    with pytest.raises(RunError, match=rf"{name} was altered after"):
        lorafit.load(folder, verify=False)
    sign(folder)
    with pytest.raises(RunError, match=rf"contradict each other: {fault}"):
        lorafit.load(folder, verify=False)


@pytest.mark.parametrize("content", ["[]", "{", "[" * 100_000, '"text"'])
def test_a_config_that_is_none_is_one_short_sentence(folder: Path, sign: Callable[[Path], None], content: str) -> None:
    find_part(folder, "config.json").write_text(content)
    sign(folder)
    with pytest.raises(RunError, match=r"config\.json is damaged: ") as caught:
        lorafit.load(folder, verify=False)
    assert len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "logits", [lambda rows: [row[:1] for row in rows], lambda rows: rows[:-1], lambda rows: [rows[0][:1], *rows[1:]]]
)
def test_golden_logits_of_another_shape_are_refused(
    folder: Path, edit_record: EditRecord, sign: Callable[[Path], None], logits: Callable[[list[Any]], list[Any]]
) -> None:
    golden = find_part(folder, "golden.json")
    edit_record(golden, logits=logits(json.loads(golden.read_text())["logits"]))
    sign(folder)
    with pytest.raises(RunError, match=r"golden\.json (is damaged|contradict)"):
        lorafit.load(folder, verify=False)


@pytest.mark.parametrize(("setting", "value"), [("truncation", "tail"), ("window_stride", 7), ("pair", True)])
def test_a_run_is_compared_with_its_settings(
    trained: Path, tmp_path: Path, edit_record: EditRecord, setting: str, value: object
) -> None:
    run = RunLayout(Path(shutil.copytree(trained, tmp_path / "copy")))
    edit_record(run.record, **{setting: value})
    with pytest.raises(RunError, match=r"config\.yaml was altered: "):
        lorafit.load(run.root)
    run.config.unlink()
    assert lorafit.load(run.root, verify=False) is not None, "prediction does without settings"


def test_a_method_that_trains_no_adapter_does_not_fit_one(
    trained: Path, tmp_path: Path, edit_record: EditRecord
) -> None:
    run = RunLayout(Path(shutil.copytree(trained, tmp_path / "copy")))
    run.config.unlink()
    edit_record(run.record, method="full")
    with pytest.raises(RunError, match="contradict each other: the method full trains no adapter"):
        lorafit.load(run.root)


# Which files are read


@pytest.mark.parametrize("name", ["adapter_model.bin", "special_tokens_map.json", "deep/model.safetensors"])
def test_files_that_were_put_beside_those_of_the_model_are_refused(folder: Path, name: str) -> None:
    path = find_part(folder, name)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"{}")
    with pytest.raises(RunError, match=rf"{name} was not there when \S+ was written, which does not name it"):
        lorafit.load(folder)


def test_files_that_no_library_reads_may_stand_there(folder: Path) -> None:
    for name in ("README.md", "LICENSE", "notes.txt", ".gitattributes", ".hidden.json"):
        find_part(folder, name).write_text("mine")
    assert lorafit.load(folder).predict(TEXTS)


@pytest.mark.parametrize("name", ["tokenizer.json", "golden.json", "config.json"])
def test_a_file_that_the_record_does_not_name_is_refused(folder: Path, edit_record: EditRecord, name: str) -> None:
    part = find_part(folder, name)
    key = part.relative_to(folder / "adapter" if is_run(folder) else folder).as_posix()
    edit_record(find_record(folder), lambda record: record["files"].pop(key))
    with pytest.raises(RunError, match=rf"{name} was not there when"):
        lorafit.load(folder)
    part.unlink()
    with pytest.raises(RunError, match=rf"{name} is missing"):
        lorafit.load(folder)


@pytest.mark.parametrize("name", ["../outside.json", "/etc/passwd", "link.json"])
def test_names_that_lead_out_of_the_folder_are_refused_and_never_accepted(
    folder: Path, edit_record: EditRecord, name: str
) -> None:
    (folder.parent / "outside.json").write_text("{}")
    find_part(folder, "link.json").symlink_to(folder.parent / "outside.json")
    edit_record(find_record(folder), lambda record: record["files"].update({name: "0" * 64}))
    for accept in (False, True):
        with pytest.raises(RunError, match="which leads out of that folder"):
            lorafit.load(folder, accept_altered=accept)


@pytest.mark.parametrize("part", ["adapter", "adapter/"])
def test_a_part_of_a_run_is_answered_with_its_parent(trained: Path, part: str) -> None:
    with pytest.raises(RunError, match=rf"is a part of a run\. Give the folder of the run.*: {trained}$"):
        lorafit.load(f"{trained}/{part}")


# What is accepted knowingly


def test_line_ends_are_no_alteration(folder: Path) -> None:
    before = lorafit.load(folder).predict_proba(TEXTS)
    for path in folder.rglob("*"):
        if path.suffix in {".json", ".yaml", ".jsonl"}:
            path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    np.testing.assert_array_equal(lorafit.load(folder).predict_proba(TEXTS), before)


def test_what_was_altered_is_opened_with_a_warning_where_that_is_asked_for(folder: Path) -> None:
    before = lorafit.load(folder).predict_proba(TEXTS)
    with find_part(folder, "tokenizer_config.json").open("a") as file:
        file.write(" ")
    with pytest.raises(RunError, match=r"tokenizer_config\.json was altered .*--accept-altered .*accept_altered=True"):
        lorafit.load(folder)
    with pytest.warns(UserWarning, match=r"accepted, as was asked for: \S+tokenizer_config\.json was altered"):
        predictor = lorafit.load(folder, accept_altered=True)
    np.testing.assert_array_equal(predictor.predict_proba(TEXTS), before)


def test_golden_logits_are_compared_whatever_is_accepted(folder: Path, edit_record: EditRecord) -> None:
    golden = find_part(folder, "golden.json")
    logits = json.loads(golden.read_text())["logits"]
    edit_record(golden, logits=[[first + 10, *rest] for first, *rest in logits])
    with (
        pytest.warns(UserWarning, match=r"golden\.json was altered"),
        pytest.raises(RunError, match="does not give its golden logits"),
    ):
        lorafit.load(folder, accept_altered=True)


# Pickled


def predict_elsewhere(predictor: Predictor) -> list[list[float]]:
    return predictor.predict_proba(TEXTS).tolist()


def test_a_predictor_is_pickled_by_its_folder(folder: Path) -> None:
    predictor = lorafit.load(folder, raw=True)
    pickled = pickle.dumps(predictor)
    assert len(pickled) < 1000
    again = pickle.loads(pickled)  # noqa: S301 - made three lines above
    assert again.calibration is None
    np.testing.assert_array_equal(again.predict_proba(TEXTS), predictor.predict_proba(TEXTS))


@pytest.mark.slow
def test_a_pickled_predictor_predicts_in_a_process_that_is_started_anew(folder: Path) -> None:
    predictor = lorafit.load(folder)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(_predict_pickled, (pickle.dumps(predictor), TEXTS)) == predict_elsewhere(predictor)


def _predict_pickled(pickled: bytes, texts: list[str]) -> list[list[float]]:
    return pickle.loads(pickled).predict_proba(texts).tolist()  # noqa: S301 - made by the test


def test_a_predictor_of_no_folder_says_why_it_cannot_be_pickled(build_predictor: Callable[..., Predictor]) -> None:
    from lorafit.tasks.registry import build_task

    with pytest.raises(TypeError, match=r"not opened from a folder by lorafit\.load"):
        pickle.dumps(build_predictor(build_task("single_label", ("neg", "pos"))))
