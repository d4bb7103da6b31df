import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx
import pytest
from transformers import PreTrainedModel, pipeline

import lorafit
from lorafit.errors import ConfigError, ExportDriftError, MissingExtraError, RunError, StoppedError, UserInputError
from lorafit.inference.export import export as module
from lorafit.inference.export.export import Export, export, export_merged
from lorafit.inference.export.parity import check_parity
from lorafit.inference.export.records import ExportLayout, ExportRecord
from lorafit.models.runtimes.onnx import OnnxRuntime
from lorafit.models.runtimes.openvino import OpenvinoRuntime
from lorafit.runs.folder import RunLayout
from lorafit.runs.records import RunRecord
from lorafit.system import atomic
from lorafit.system.digests import digest_file
from lorafit.system.progress import Silent
from lorafit.tasks.base import Task

EditRecord = Callable[..., None]
TEXTS = ["a superb film", "a dull, boring story", "great great great hours", "the end"]
NEAR = {"fp32": 1e-4, "bf16": 0.02, "int8": 0.05}
"""How far a probability of an export may be from the run's."""


FORMS: dict[str, dict[str, Any]] = {
    "onnx": {},
    "onnx-int8": {"int8": True},
    "openvino": {"runtime": "openvino"},
    "openvino-int8": {"runtime": "openvino", "int8": True},
}


@pytest.fixture(scope="module", params=FORMS.values(), ids=FORMS)
def exported(request: pytest.FixtureRequest, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Export:
    return export(trained, **request.param, output=tmp_path_factory.mktemp("exported") / "model")


@pytest.fixture(scope="module", params=[False, True], ids=["fp32", "int8"])
def exported_onnx(request: pytest.FixtureRequest, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Export:
    return export(trained, int8=request.param, output=tmp_path_factory.mktemp("exported") / "model")


def test_an_export_predicts_what_the_run_predicts(
    task: Task, trained_of: Callable[[str], Path], tmp_path: Path
) -> None:
    run = trained_of(task.name)
    made = export(run, output=tmp_path / "onnx")
    before, after = lorafit.load(run, precision="fp32"), lorafit.load(made.path)
    assert (after.task, after.calibration) == (before.task, before.calibration)
    assert after.calibration is not None
    values = before.compute_values(TEXTS)
    np.testing.assert_allclose(after.compute_values(TEXTS), values, atol=1e-4 * max(1, np.abs(values).max()))
    for one, other in zip(before.predict(TEXTS), after.predict(TEXTS), strict=True):
        assert one.describe() == other.describe()
    assert made.record.build_task() == before.task
    outputs, features = onnx.load(made.path / "model.onnx").graph.output
    assert (outputs.name, features.name) == ("logits", "features")
    assert outputs.type.tensor_type.shape.dim[1].dim_value == len(before.task.output_names)


def test_predictions_and_calibration_are_those_of_the_run(trained: Path, exported: Export) -> None:
    run, model = lorafit.load(trained, precision="fp32"), lorafit.load(exported.path)
    assert np.abs(run.predict_proba(TEXTS) - model.predict_proba(TEXTS)).max() < NEAR[exported.record.precision]
    for one, other in zip(run.predict(TEXTS), model.predict(TEXTS), strict=True):
        assert (one.label, one.abstain, one.conformal_set) == (other.label, other.abstain, other.conformal_set)
        assert one.abstain is not None


def test_parity_is_measured_on_validation_rows_and_stored(
    task: Task, trained_of: Callable[[str], Path], tmp_path: Path
) -> None:
    run = trained_of(task.name)
    record = export(run, int8=True, output=tmp_path / "int8", allow_drift=True).record
    parity = record.parity
    assert parity.rows == RunRecord.read(RunLayout(run).record).data.splits["validation"].rows
    assert 0 < parity.largest_difference < parity.allowed_difference
    assert set(task.parity_metrics) <= set(parity.differences)
    assert parity.agreement is None or parity.agreement.value > 0.9
    assert record.speed is not None


def test_the_folder_holds_all_that_prediction_takes(exported: Export, tmp_path: Path) -> None:
    names = {path.name for path in exported.path.iterdir()}
    files = {"fp32": {"model.onnx"}, "int8": {"model_quantized.onnx"}}
    is_onnx = exported.record.engine == "onnxruntime"
    model = files[exported.record.precision] if is_onnx else {"openvino_model.xml", "openvino_model.bin"}
    companions = ("lorafit", "config", "tokenizer", "tokenizer_config", "golden", "calibration")
    assert names == {*model, "typicality.safetensors", *(f"{name}.json" for name in companions)}
    assert set(exported.record.files) == names - {"lorafit.json"}
    assert ExportRecord.read(exported.path / "lorafit.json").model_dump_json() == exported.record.model_dump_json()
    moved = Path(shutil.copytree(exported.path, tmp_path / "elsewhere"))
    assert lorafit.load(moved).predict(TEXTS) == lorafit.load(exported.path).predict(TEXTS)


def test_no_file_names_a_place_of_the_machine_that_it_was_made_on(trained: Path, exported: Export) -> None:
    record = RunRecord.read(RunLayout(trained).record)
    places = {trained, Path(record.data.source).parent, Path(record.base_model.name).parent}
    assert all(place.is_absolute() for place in places)
    for path in exported.path.iterdir():
        assert not any(str(place).encode() in path.read_bytes() for place in places), path.name
    assert exported.record.base_model.name == Path(record.base_model.name).name


def run_script(code: str, *words: object) -> str:
    """Run Python in a fresh process and return what it prints."""
    command = [sys.executable, "-c", code, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


WITHOUT = """
import json, sys
for name in "torch transformers peft accelerate datasets pyarrow sklearn scipy jinja2 onnx".split():
    sys.modules[name] = None
import lorafit
for folder in sys.argv[2:]:
    print(json.dumps([one.describe() for one in lorafit.load(folder).predict(json.loads(sys.argv[1]))]))
assert not {"lorafit.runs.saving", "lorafit.models.adaptation"} & set(sys.modules), "they take time, for no use"
"""


def test_neither_torch_nor_scipy_is_needed_for_any_task(trained_of: Callable[[str], Path], tmp_path: Path) -> None:
    names = ("single_label", "multi_label", "regression", "ordinal")
    folders = [export(trained_of(name), output=tmp_path / name).path for name in names]
    lines = run_script(WITHOUT, json.dumps(TEXTS), *folders).splitlines()
    for folder, line in zip(folders, lines, strict=True):
        assert json.loads(line) == [one.describe() for one in lorafit.load(folder).predict(TEXTS)]


PLAIN = """
import json, sys
import numpy as np, onnxruntime
from tokenizers import Tokenizer

folder = sys.argv[1]
session = onnxruntime.InferenceSession(f"{folder}/{sys.argv[2]}")
tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
labels = json.load(open(f"{folder}/config.json"))["id2label"]
for text in json.loads(sys.argv[3]):
    ids = np.array([tokenizer.encode(text).ids])
    (logits,) = session.run(["logits"], {"input_ids": ids, "attention_mask": np.ones_like(ids)})
    print(labels[str(logits[0].argmax())])
"""


def test_plain_onnxruntime_opens_it(trained: Path, exported_onnx: Export) -> None:
    record = exported_onnx.record
    file = ExportLayout(exported_onnx.path).model(record.precision, record.engine).name
    expected = [one.label for one in lorafit.load(trained, precision="fp32").predict(TEXTS)]
    assert run_script(PLAIN, exported_onnx.path, file, json.dumps(TEXTS)).split() == expected


PLAIN_OPENVINO = """
import json, sys
import numpy as np, openvino
from tokenizers import Tokenizer

folder = sys.argv[1]
model = openvino.Core().compile_model(f"{folder}/openvino_model.xml", "CPU")
tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
labels = json.load(open(f"{folder}/config.json"))["id2label"]
for text in json.loads(sys.argv[2]):
    ids = np.array([tokenizer.encode(text).ids])
    print(labels[str(model({"input_ids": ids, "attention_mask": np.ones_like(ids)})["logits"].argmax())])
"""


@pytest.mark.parametrize("int8", [False, True])
def test_plain_openvino_opens_it(trained: Path, tmp_path: Path, *, int8: bool) -> None:
    made = export(trained, int8=int8, runtime="openvino", output=tmp_path / "model")
    expected = [one.label for one in lorafit.load(trained, precision="fp32").predict(TEXTS)]
    assert run_script(PLAIN_OPENVINO, made.path, json.dumps(TEXTS)).split() == expected


@pytest.mark.parametrize(
    ("engine", "quantize"), [("onnxruntime", "quantize_graph"), ("openvino", "quantize_statically")]
)
def test_int8_that_does_not_agree_is_tried_with_fewer_bits(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str, quantize: str
) -> None:
    made, checked, quantized = [], [], getattr(module, quantize)

    def keep(*args: Any, **options: Any) -> onnx.ModelProto:
        made.append(quantized(*args, **options))
        return made[-1]

    def check(*args: Any) -> None:
        checked.append(args)
        if len(checked) == 1:
            raise ExportDriftError("products overflow")
        check_parity(*args)

    monkeypatch.setattr(module, "list_largest", lambda: (127, 63))
    monkeypatch.setattr(module, quantize, keep)
    monkeypatch.setattr(module, "check_parity", check)
    export(trained, int8=True, runtime=engine, output=tmp_path / "model")
    weights = [
        [
            onnx.numpy_helper.to_array(one).astype(int)
            for one in graph.graph.initializer
            if one.data_type == onnx.TensorProto.INT8 and len(one.dims) == 2
        ]
        for graph in made
    ]
    small = [[one for one in of_graph if len(one) < 100] for of_graph in weights]  # tables of embeddings have more rows
    assert [max(np.abs(one).max() for one in of_graph) for of_graph in small] == [127, 63]


@pytest.mark.parametrize(("slow", "quicker"), [(OnnxRuntime, "openvino"), (OpenvinoRuntime, "onnxruntime")])
def test_auto_takes_the_engine_that_is_quicker_here(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slow: type, quicker: str
) -> None:
    logits = slow.logits

    def wait(*given: object, **named: object) -> object:
        time.sleep(0.3)
        return logits(*given, **named)

    monkeypatch.setattr(slow, "logits", wait)
    made = export(trained, runtime="auto", output=tmp_path / "model")
    assert made.record.engine == quicker
    assert ExportLayout(made.path).model(made.record.precision, made.record.engine).is_file()


def test_auto_takes_what_can_do_with_the_graph(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RunError("it cannot be loaded")

    monkeypatch.setattr(OpenvinoRuntime, "__init__", refuse)
    assert export(trained, runtime="auto", int8=True, output=tmp_path / "one").record.engine == "onnxruntime"


def test_auto_says_what_an_engine_that_fails_while_it_computes_says(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Lines(Silent):
        said: ClassVar[list[str]] = []

        def say(self, line: str) -> None:
            self.said.append(line)

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no such kernel")  # as what pybind11 raises

    monkeypatch.setattr(OpenvinoRuntime, "logits", fail)
    assert export(trained, runtime="auto", output=tmp_path / "one", progress=Lines()).record.engine == "onnxruntime"
    assert any(line.startswith("openvino: ") and "no such kernel" in line for line in Lines.said)
    assert any(line.startswith("onnxruntime: ") and line.endswith(" texts a second") for line in Lines.said)


def test_engines_that_are_missing_or_unknown(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export(trained, runtime="openvino", output=tmp_path / "one")
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert export(trained, runtime="auto", output=tmp_path / "other").record.engine == "onnxruntime"
    with pytest.raises(UserInputError, match="runtime='onnx': allowed are onnxruntime, openvino and auto"):
        export(trained, runtime="onnx", output=tmp_path / "third")
    with pytest.raises(MissingExtraError, match=r"Exporting for openvino needs.*\n.*pip install .*\[openvino\]"):
        export(trained, runtime="openvino", output=tmp_path / "third")
    with pytest.raises(MissingExtraError, match=r"Loading a model exported for OpenVINO needs"):
        lorafit.load(tmp_path / "one")


def test_a_damaged_or_exchanged_file_is_refused(exported: Export, edit_record: EditRecord, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(exported.path, tmp_path / "copy"))
    with (copy / "tokenizer.json").open("a") as file:
        file.write(" ")
    with pytest.raises(RunError, match=r"tokenizer\.json was altered after the export"):
        lorafit.load(copy)
    (copy / "tokenizer.json").unlink()
    with pytest.raises(RunError, match=r"tokenizer\.json is missing"):
        lorafit.load(copy)
    edit_record(copy / "lorafit.json", schema_version=1)
    with pytest.raises(RunError, match="was written by another version of lorafit"):
        lorafit.load(copy)


def test_another_models_logits_are_noticed_unless_that_is_not_wanted(
    exported: Export, edit_record: EditRecord, tmp_path: Path
) -> None:
    copy = ExportLayout(Path(shutil.copytree(exported.path, tmp_path / "copy")))
    golden = json.loads(copy.golden.read_text())["logits"]
    golden[0][0] += 10
    edit_record(copy.golden, logits=golden)
    edit_record(copy.record, files=exported.record.files | {"golden.json": digest_file(copy.golden)})
    names = {
        ("onnxruntime", "fp32"): "onnx",
        ("onnxruntime", "int8"): "int8",
        ("openvino", "bf16"): "openvino",
        ("openvino", "int8"): "openvino-int8",
    }
    name = names[exported.record.engine, exported.record.precision]
    with pytest.raises(RunError, match=f"The model run by {name} does not give its golden logits"):
        lorafit.load(copy.root)
    assert lorafit.load(copy.root, verify=False).predict(["superb"])


def test_precision_is_the_exports(exported: Export) -> None:
    with pytest.raises(UserInputError, match="its precision was chosen when it was exported"):
        lorafit.load(exported.path, precision="bf16")


def test_an_export_is_not_replaced_unless_asked(trained: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    assert export(run, int8=True).path == run / "onnx-int8"
    first = export(trained, output=tmp_path / "one")
    with pytest.raises(RunError, match=r"holds an export already.*--overwrite"):
        export(trained, output=first.path)
    assert export(trained, output=first.path, int8=True, overwrite=True).record.precision == "int8"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    with pytest.raises(RunError, match="holds something else than an export"):
        export(trained, output=tmp_path / "mine", overwrite=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserInputError, match="file is a file"):
        export(trained, output=tmp_path / "file" / "below")


def test_a_stop_after_the_last_file_tells_of_the_complete_export(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = atomic._put_in_place

    def stop_after(staging: Path, path: Path) -> None:
        put(staging, path)
        raise KeyboardInterrupt

    def stop_before(staging: Path, path: Path) -> None:
        raise KeyboardInterrupt

    out = tmp_path / "out"
    monkeypatch.setattr(atomic, "_put_in_place", stop_after)
    with pytest.raises(StoppedError, match=f"^Interrupted when the export was complete: {re.escape(str(out))}$"):
        export(trained, output=out)
    lorafit.load(out).predict(TEXTS)
    monkeypatch.setattr(atomic, "_put_in_place", stop_before)
    with pytest.raises(KeyboardInterrupt):
        export(trained, output=out, overwrite=True)


def test_an_export_that_drifts_is_refused_and_leaves_nothing(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = module.build_graph

    def flip(model: PreTrainedModel, **settings: bool) -> object:
        head = model.get_submodule("classifier")
        head.weight.data *= -1
        return build(model, **settings)

    monkeypatch.setattr(module, "build_graph", flip)
    with pytest.raises(ExportDriftError, match=r"a logit differs by .*Nothing was written"):
        export(trained, output=tmp_path / "fp32")
    with pytest.raises(ExportDriftError, match=r"of the predictions agree, 98% must; accuracy \(points\): -\d"):
        export(trained, output=tmp_path / "int8", int8=True)
    assert list(tmp_path.iterdir()) == []
    drifted = export(trained, output=tmp_path / "int8", int8=True, allow_drift=True)
    assert drifted.record.parity.agreement.value < 0.5


def test_without_the_data_the_golden_sentences_are_compared(
    trained: Path, sign_run: Callable[[Path], None], tmp_path: Path
) -> None:
    run, rows = RunLayout(shutil.copytree(trained, tmp_path / "run")), tmp_path / "rows.jsonl"
    old = RunRecord.read(run.record).data.source
    rows.write_text(Path(old).read_text().replace("film", "movie"))
    run.config.write_text(run.config.read_text().replace(old, str(rows)))
    sign_run(run.root)
    changed = export(run.root, output=tmp_path / "changed").record
    assert (changed.parity.rows, changed.speed) == (0, None)
    rows.unlink()
    gone = export(run.root, int8=True, output=tmp_path / "gone").record
    assert (gone.parity.rows, gone.speed, gone.data) == (0, None, {})


@pytest.mark.slow
@pytest.mark.parametrize("int8", [False, True])
def test_an_encoder_of_another_kind_is_traced_for_openvino(
    build_encoder: Callable[..., Path], train_run: Callable[..., Path], tmp_path: Path, *, int8: bool
) -> None:
    encoder = build_encoder("albert", initializer_range=0.1, hidden_size=128, embedding_size=128, intermediate_size=256)
    run = train_run("single_label", "training.max_steps=2", encoder=encoder)
    exported = export(run, int8=int8, runtime="openvino", output=tmp_path / "model")
    assert exported.record.parity.agreement.value > 0.95
    got, original = (lorafit.load(path, raw=True).predict_proba(TEXTS) for path in (exported.path, run))
    assert np.abs(got - original).max() < NEAR["int8" if int8 else "bf16"]


@pytest.mark.slow
def test_an_encoder_of_another_kind_is_traced(
    build_encoder: Callable[..., Path], train_run: Callable[..., Path]
) -> None:
    encoder = build_encoder("albert", initializer_range=0.1, hidden_size=128, embedding_size=128, intermediate_size=256)
    run = train_run("single_label", "training.max_steps=2", encoder=encoder)
    exported = export(run, int8=True)
    assert exported.record.parity.agreement.value > 0.95
    graph = onnx.load(exported.path / "model_quantized.onnx")
    kinds = [node.op_type for node in graph.graph.node]
    assert kinds.count("DynamicQuantizeMatMul") == 1 + 2 * 6, "the projection of the embeddings, two layers"
    assert b"site-packages" not in graph.SerializeToString(), "where the model's code lies is no one's business"
    quantized, original = (lorafit.load(path, raw=True).predict_proba(TEXTS) for path in (exported.path, run))
    assert 0 < np.abs(quantized - original).max() < 0.05


def test_a_method_that_cannot_be_merged_is_refused_by_name(
    trained: Path, edit_record: EditRecord, tmp_path: Path
) -> None:
    run = RunLayout(shutil.copytree(trained, tmp_path / "run"))
    edit_record(run.record, method="prompt_tuning")
    for attempt in (export, export_merged):
        with pytest.raises(ConfigError, match=r"what \w+ tuning trains cannot be merged"):
            attempt(run.root)


def test_a_merged_model_opens_in_a_pipeline(trained: Path, tmp_path: Path) -> None:
    folder = export_merged(trained, output=tmp_path / "merged")
    expected = lorafit.load(trained, precision="fp32", raw=True).predict(TEXTS)
    got = pipeline("text-classification", model=str(folder))(TEXTS)
    assert [one["label"] for one in got] == [one.label for one in expected]
    assert [one["score"] for one in got] == pytest.approx([one.score for one in expected], abs=1e-4)
    with pytest.raises(RunError, match="holds an export already"):
        export_merged(trained, output=folder)


def test_a_model_trained_whole_is_exported_too(train_run: Callable[..., Path]) -> None:
    run = train_run("single_label", "method.name=head_only", "training.max_steps=2")
    probabilities = [lorafit.load(path).predict_proba(TEXTS) for path in (run, export(run).path)]
    np.testing.assert_allclose(*probabilities, atol=1e-2)
