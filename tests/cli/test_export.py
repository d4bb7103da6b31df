from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import lorafit
from lorafit.cli.render.export import show_export
from lorafit.inference.export.export import Export
from lorafit.inference.export.records import ExportRecord, ParityRecord
from lorafit.models.records import BaseModelRecord, ParameterCounts
from lorafit.tasks.records import Estimate

Call = Callable[..., Any]


def test_commands_export_and_predict(call: Call, trained: Path, tmp_path: Path) -> None:
    shown = call("export", trained, "--int8", "--output", tmp_path / "int8")
    assert shown.code == 0, shown.err
    for part in ("same predictions", "largest difference of a logit", "accuracy (points)", "int8", "lorafit predict"):
        assert part in shown.out
    predicted = call("predict", tmp_path / "int8", "a superb film")
    assert predicted.out.startswith(lorafit.load(trained).predict(["a superb film"])[0].label)
    assert call("export", trained, "--merged", "--int8").code == 2
    quiet = call("export", trained, "--output", tmp_path / "fp32", "--quiet")
    assert quiet.out.strip() == str(tmp_path / "fp32")


def test_merged_model_of_mean_states_says_what_opens_it(
    call: Call, reviews: Path, settings: list[str], tmp_path: Path
) -> None:
    told = call("train", reviews, *settings, "--method", "embedding", "--output", tmp_path / "run", "--quiet")
    assert told.code == 0, told.err
    merged = call("export", tmp_path / "run", "--merged")
    assert merged.out.strip() == str(tmp_path / "run" / "merged")
    assert "open it with sentence-transformers" in " ".join(merged.err.split())


SHARE, CHANGE = Estimate(value=0.99, low=0.98, high=1), Estimate(value=-0.0123, low=-0.02, high=0)
BARE = Estimate(value=0.004, low=float("nan"), high=float("nan"))


@pytest.mark.parametrize(
    ("task", "agreement", "differences", "lines"),
    [
        (
            "single_label",
            SHARE,
            {"accuracy": CHANGE, "ece": BARE},
            [
                "same predictions 99.0 % [98.0, 100.0]",
                "accuracy (points) -1.2 [-2.0, +0.0]",
                "calibration error (points) +0.4",
            ],
        ),
        ("multi_label", SHARE, {"micro_f1": CHANGE}, ["F1 (micro) (points) -1.2 [-2.0, +0.0]"]),
        ("regression", None, {"r2": CHANGE}, ["R² -0.012 [-0.020, +0.000]"]),
        ("ordinal", SHARE, {"accuracy": CHANGE}, ["accuracy (points) -1.2 [-2.0, +0.0]"]),
    ],
)
def test_parity_is_shown_in_the_metrics_of_the_task(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    task: str,
    agreement: Estimate | None,
    differences: dict[str, Estimate],
    lines: list[str],
) -> None:
    (tmp_path / "model.onnx").write_bytes(bytes(2_500_000))
    record = ExportRecord(
        lorafit="1",
        precision="fp32",
        method="lora",
        base_model=BaseModelRecord(name="m", revision=None, digest="d", architecture="bert"),
        task=task,
        labels=["1", "2"],
        max_length=64,
        truncation="head",
        pad_id=0,
        parameters=ParameterCounts(adapter=1, head=1, total=10),
        data={},
        test_fingerprint="f",
        parity=ParityRecord(
            rows=1000,
            largest_difference=0.00025,
            allowed_difference=0.004,
            agreement=agreement,
            differences=differences,
        ),
        speed=None,
        files={},
    )
    show_export(Export(tmp_path, record), quiet=False)
    shown = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "against the original in fp32, on 1,000 validation rows" in shown
    wanted = ["largest difference of a logit 0.00025 (allowed: 0.004)", *lines, "file 2.5 MB, fp32, for onnxruntime"]
    assert [line for line in shown if line in wanted] == wanted
    assert ("same predictions" in " ".join(shown)) is (agreement is not None)
    none = record.parity.model_copy(update={"rows": 0, "agreement": None, "differences": {}})
    show_export(Export(tmp_path, record.model_copy(update={"parity": none})), quiet=False)
    assert "against the original in fp32, on the golden sentences alone" in " ".join(capsys.readouterr().out.split())
