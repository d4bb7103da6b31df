import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from transformers import PreTrainedModel

import lorafit
from lorafit.config import load_config
from lorafit.errors import ConfigError, ExportDriftError, RunError, UserInputError
from lorafit.inference.export import export as module
from lorafit.inference.export.export import Export, export, export_merged
from lorafit.inference.export.records import ExportLayout
from lorafit.training.pipeline import Run

TEXTS = ["a superb film", "a dull, boring story", "great great great", "the end"]


def train(build_encoder: Callable[..., Path], word_reviews: Path, folder: Path, *overrides: str) -> Run:
    config = load_config(
        overrides=[
            f"data.source={word_reviews}",
            "data.test_fraction=0.2",
            "data.validation_fraction=0.4",
            f"model.name={build_encoder('distilbert', initializer_range=0.1)}",
            "model.max_length=32",
            "training.batch_size=16",
            "training.epochs=3",
            "training.learning_rate=5e-3",
            "training.threads=1",
            "evaluation.report=false",
            "evaluation.cheap_baselines=false",
            "evaluation.target_accuracy=0.9",
            *overrides,
        ]
    )
    return lorafit.train(config, output=folder / "run")


@pytest.fixture(scope="module")
def trained(build_encoder: Callable[..., Path], word_reviews: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(build_encoder, word_reviews, tmp_path_factory.mktemp("export"))


@pytest.fixture(scope="module", params=[False, True], ids=["fp32", "int8"])
def exported(request: pytest.FixtureRequest, trained: Run) -> Export:
    return export(trained.path, int8=request.param)


def test_an_export_says_what_the_run_says(trained: Run, exported: Export) -> None:
    run, answers = lorafit.load(trained.path, precision="fp32"), lorafit.load(exported.path)
    near = 1e-4 if exported.record.precision == "fp32" else 0.05
    assert np.abs(run.predict_proba(TEXTS) - answers.predict_proba(TEXTS)).max() < near
    for one, other in zip(run.predict(TEXTS), answers.predict(TEXTS), strict=True):
        assert (one.label, one.abstain, one.conformal_set) == (other.label, other.abstain, other.conformal_set)
    assert answers.labels == run.labels
    assert run.calibration == answers.calibration
    assert run.calibration is not None


def test_parity_is_measured_on_validation_rows_and_stored(trained: Run, exported: Export) -> None:
    parity = exported.record.parity
    assert parity.rows == trained.record.data.splits["validation"].rows
    assert parity.label_agreement is not None
    assert parity.label_agreement.value > 0.98
    assert parity.accuracy_difference is not None
    assert 0 <= parity.largest_difference < (1e-4 if exported.record.precision == "fp32" else 0.2)
    assert parity.largest_difference > 0


def test_the_folder_holds_all_that_prediction_takes(exported: Export, tmp_path: Path) -> None:
    names = {path.name for path in exported.path.iterdir()}
    model = "model.onnx" if exported.record.precision == "fp32" else "model_quantized.onnx"
    companions = ("lorafit", "config", "tokenizer", "tokenizer_config", "golden", "calibration")
    assert names == {model, *(f"{name}.json" for name in companions)}
    assert set(exported.record.files) == names - {"lorafit.json"}
    moved = Path(shutil.copytree(exported.path, tmp_path / "elsewhere"))
    assert lorafit.load(moved).predict(TEXTS) == lorafit.load(exported.path).predict(TEXTS)


def test_no_file_names_a_place_of_the_machine_that_it_was_made_on(trained: Run, exported: Export) -> None:
    places = {trained.path, Path(trained.record.data.source).parent, Path(trained.record.base_model.name).parent}
    assert all(place.is_absolute() for place in places)
    for path in exported.path.iterdir():
        assert not any(str(place).encode() in path.read_bytes() for place in places), path.name
    assert exported.record.base_model.name == Path(trained.record.base_model.name).name


def run_script(code: str, *words: object) -> str:
    """Run Python in a fresh process and return what it prints."""
    command = [sys.executable, "-c", code, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


WITHOUT = """
import json, sys
for name in ("torch", "transformers", "peft", "accelerate", "datasets", "pyarrow", "sklearn", "onnx"):
    sys.modules[name] = None
import lorafit
print(json.dumps(lorafit.load(sys.argv[1]).predict_proba(json.loads(sys.argv[2])).tolist()))
assert not {"lorafit.runs.saving", "lorafit.models.adaptation"} & set(sys.modules), "they take time, for no use"
"""


def test_neither_torch_nor_transformers_is_needed(exported: Export) -> None:
    answers = json.loads(run_script(WITHOUT, exported.path, json.dumps(TEXTS)))
    assert np.abs(np.array(answers) - lorafit.load(exported.path).predict_proba(TEXTS)).max() < 1e-6


PLAIN = """
import json, sys
import numpy as np, onnxruntime
from tokenizers import Tokenizer

folder = sys.argv[1]
session = onnxruntime.InferenceSession(f"{folder}/{sys.argv[2]}")
tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
labels = json.load(open(f"{folder}/config.json"))["id2label"]
ids = np.array([tokenizer.encode(sys.argv[3]).ids])
(logits,) = session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})
print(labels[str(logits[0].argmax())])
"""


def test_plain_onnxruntime_opens_it(trained: Run, exported: Export) -> None:
    file = ExportLayout(exported.path).model(exported.record.precision).name
    for text, expected in zip(TEXTS, lorafit.load(trained.path, precision="fp32").predict(TEXTS), strict=True):
        assert run_script(PLAIN, exported.path, file, text).strip() == expected.label


def test_a_damaged_or_exchanged_file_is_refused(exported: Export, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(exported.path, tmp_path / "copy"))
    with (copy / "tokenizer.json").open("a") as file:
        file.write(" ")
    with pytest.raises(RunError, match=r"tokenizer\.json was altered after the export"):
        lorafit.load(copy)
    (copy / "tokenizer.json").unlink()
    with pytest.raises(RunError, match=r"tokenizer\.json is missing: .* is not a complete export"):
        lorafit.load(copy)
    record = json.loads((copy / "lorafit.json").read_text())
    (copy / "lorafit.json").write_text(json.dumps(record | {"schema_version": 1}))
    with pytest.raises(RunError, match="was written by another version of lorafit"):
        lorafit.load(copy)


def test_another_models_logits_are_noticed_unless_that_is_not_wanted(exported: Export, tmp_path: Path) -> None:
    copy = ExportLayout(Path(shutil.copytree(exported.path, tmp_path / "copy")))
    golden = json.loads(copy.golden.read_text())
    golden["logits"][0][0] += 1
    copy.golden.write_text(json.dumps(golden))
    record = json.loads(copy.record.read_text())
    record["files"]["golden.json"] = lorafit.system.atomic.compute_digest(copy.golden)
    copy.record.write_text(json.dumps(record))
    name = "onnx" if exported.record.precision == "fp32" else "int8"
    with pytest.raises(RunError, match=f"The model run by {name} does not give its golden logits"):
        lorafit.load(copy.root)
    assert lorafit.load(copy.root, verify=False).predict(["superb"])


def test_precision_is_the_exports(exported: Export) -> None:
    with pytest.raises(UserInputError, match="its precision was chosen when it was exported"):
        lorafit.load(exported.path, precision="bf16")


def test_an_export_is_not_replaced_unless_asked(trained: Run, tmp_path: Path) -> None:
    first = export(trained.path, output=tmp_path / "one")
    with pytest.raises(RunError, match=r"holds an export already.*--overwrite"):
        export(trained.path, output=first.path)
    assert export(trained.path, output=first.path, int8=True, overwrite=True).record.precision == "int8"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    with pytest.raises(RunError, match="holds something else than an export"):
        export(trained.path, output=tmp_path / "mine", overwrite=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserInputError, match="file is a file"):
        export(trained.path, output=tmp_path / "file" / "below")


def test_an_export_that_drifts_is_refused_and_leaves_nothing(
    trained: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = module.build_graph

    def flip(model: PreTrainedModel) -> object:
        head = model.get_submodule("classifier")
        head.weight.data *= -1
        return build(model)

    monkeypatch.setattr(module, "build_graph", flip)
    with pytest.raises(ExportDriftError, match=r"a logit differs by .*Nothing was written"):
        export(trained.path, output=tmp_path / "fp32")
    with pytest.raises(ExportDriftError, match=r"of the labels agree, 98% must; .* points of accuracy are lost"):
        export(trained.path, output=tmp_path / "int8", int8=True)
    assert list(tmp_path.iterdir()) == []
    drifted = export(trained.path, output=tmp_path / "int8", int8=True, allow_drift=True)
    assert drifted.record.parity.label_agreement.value < 0.5


def test_without_the_data_the_golden_sentences_are_compared(
    build_encoder: Callable[..., Path], word_reviews: Path, tmp_path: Path
) -> None:
    rows = Path(shutil.copy(word_reviews, tmp_path / "rows.csv"))
    run = train(build_encoder, rows, tmp_path, "training.max_steps=2")
    rows.write_text(rows.read_text().replace("film", "movie"))
    changed = export(run.path).record
    assert (changed.parity.rows, changed.speed) == (0, None)
    rows.unlink()
    gone = export(run.path, int8=True).record
    assert (gone.parity.rows, gone.speed, gone.data) == (0, None, {})


def test_an_encoder_of_another_kind_is_traced(
    build_encoder: Callable[..., Path], word_reviews: Path, tmp_path: Path
) -> None:
    name = build_encoder("albert", initializer_range=0.1, hidden_size=128, embedding_size=128, intermediate_size=256)
    run = train(build_encoder, word_reviews, tmp_path, f"model.name={name}", "training.max_steps=20")
    exported = export(run.path, int8=True)
    assert exported.record.parity.label_agreement.value > 0.95
    graph = onnx.load(exported.path / "model_quantized.onnx")
    kinds = [node.op_type for node in graph.graph.node]
    assert kinds.count("DynamicQuantizeMatMul") == 1 + 2 * 6, "the projection of the embeddings, two layers"
    assert b"site-packages" not in graph.SerializeToString(), "where the model's code lies is no one's business"
    said, wanted = (lorafit.load(path, raw=True).predict_proba(TEXTS) for path in (exported.path, run.path))
    assert 0 < np.abs(said - wanted).max() < 0.05


def test_a_method_that_cannot_be_merged_is_refused_by_name(
    build_encoder: Callable[..., Path], word_reviews: Path, tmp_path: Path
) -> None:
    settings = ("method.name=prompt_tuning", "method.virtual_tokens=4", "training.max_steps=2")
    run = train(build_encoder, word_reviews, tmp_path, *settings)
    for attempt in (lambda: export(run.path), lambda: export_merged(run.path, output=tmp_path / "merged")):
        with pytest.raises(ConfigError, match=r"what \w+ tuning trains cannot be merged"):
            attempt()


PIPELINE = """
import json, sys
from transformers import pipeline

classify = pipeline("text-classification", model=sys.argv[1])
print(json.dumps(classify(json.loads(sys.argv[2]))))
"""


def test_a_merged_model_opens_in_a_pipeline(trained: Run, tmp_path: Path) -> None:
    folder = export_merged(trained.path, output=tmp_path / "merged")
    expected = lorafit.load(trained.path, precision="fp32", raw=True).predict(TEXTS)
    answers = json.loads(run_script(PIPELINE, folder, json.dumps(TEXTS)))
    assert [answer["label"] for answer in answers] == [one.label for one in expected]
    assert [answer["score"] for answer in answers] == pytest.approx([one.score for one in expected], abs=1e-4)
    with pytest.raises(RunError, match="holds an export already"):
        export_merged(trained.path, output=folder)


def test_a_model_trained_whole_is_exported_too(
    build_encoder: Callable[..., Path], word_reviews: Path, tmp_path: Path
) -> None:
    run = train(build_encoder, word_reviews, tmp_path, "method.name=head_only", "training.max_steps=2")
    made = export(run.path)
    assert (
        np.abs(
            lorafit.load(run.path, precision="fp32").predict_proba(TEXTS) - lorafit.load(made.path).predict_proba(TEXTS)
        ).max()
        < 1e-4
    )


def test_commands_export_and_predict(trained: Run, tmp_path: Path) -> None:
    def call(*words: object) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "lorafit", *map(str, words)], capture_output=True, text=True, check=False
        )

    shown = call("export", trained.path, "--int8", "--output", tmp_path / "int8")
    assert shown.returncode == 0, shown.stderr
    for part in ("labels that agree", "largest difference of a logit", "int8", "lorafit predict"):
        assert part in shown.stdout
    answer = call("predict", tmp_path / "int8", "a superb film")
    assert answer.stdout.startswith(lorafit.load(trained.path).predict(["a superb film"])[0].label)
    assert call("export", trained.path, "--merged", "--int8").returncode == 2
    quiet = call("export", trained.path, "--output", tmp_path / "fp32", "--quiet")
    assert quiet.stdout.strip() == str(tmp_path / "fp32")
