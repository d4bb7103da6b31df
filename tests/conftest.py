"""Parts that tests share: tiny encoders in the Hub's layout, caches of their own, and no network."""

import csv
import json
import os
import shutil
import signal
import socket
import string
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tokenizers import Tokenizer

from lorafit.labels import LabelSet
from lorafit.models.records import BaseModelRecord, ParameterCounts
from lorafit.runs.records import DataRecord, HardwareRecord, RunRecord

if TYPE_CHECKING:
    from lorafit.data.rows import Split

WORDS = """
    a an and awful bad boring dull end film first fine for from good great hours in is it last life lovely me minute
    movie my not of poor story superb terrible the these those to two want was were wonderful
"""
"""Whole words of the tiny vocabulary; any other word is put together from letters."""

_SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
TINY: dict[str, dict[str, Any]] = {
    "distilbert": {"dim": 32, "hidden_dim": 64, "n_layers": 2, "n_heads": 4},
    **dict.fromkeys(("bert", "roberta", "xlm-roberta", "camembert", "mpnet"), _SMALL),
    "electra": _SMALL | {"embedding_size": 16},
    "nystromformer": _SMALL | {"num_landmarks": 4},
    "albert": _SMALL | {"embedding_size": 16},
    "deberta-v2": _SMALL
    | {
        "relative_attention": True,
        "position_buckets": 16,
        "pos_att_type": ["p2c", "c2p"],
        "share_att_key": True,
        "norm_rel_ebd": "layer_norm",
        "position_biased_input": False,
        "type_vocab_size": 0,
        "pooler_hidden_size": 32,
    },
    "modernbert": _SMALL | {"global_attn_every_n_layers": 2, "local_attention": 16},
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "gemma"), _SMALL | {"num_key_value_heads": 2}),
}
"""Sizes by transformers' `model_type`."""

BuildEncoder = Callable[..., Path]

# The Hub's libraries read these when they are imported, which the conftest of a folder may do before any hook runs.
os.environ["HF_HOME"] = tempfile.mkdtemp(prefix="lorafit-tests-")
os.environ["HF_HUB_OFFLINE"] = "1"


if "PYTEST_XDIST_WORKER" in os.environ:
    # Workers share the cores: threads that wait for each other while another worker runs cost many times their work.
    os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}


def pytest_unconfigure() -> None:
    shutil.rmtree(os.environ["HF_HOME"], ignore_errors=True)


@pytest.fixture(scope="session", autouse=True)
def ctrl_c_is_heard() -> None:
    """Hear SIGINT as a terminal's foreground does: a shell starts what runs in its background with SIGINT ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def lorafit_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """lorafit's cache, one for all tests: the built-in encoder is converted once."""
    with pytest.MonkeyPatch.context() as patch:
        cache = tmp_path_factory.mktemp("cache")
        patch.setenv("LORAFIT_CACHE", str(cache))
        yield cache


@pytest.fixture(autouse=True)
def single_thread() -> Iterator[None]:
    """Keep sums in one order, whatever ran before, and tiny models off the cost of threads."""
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session", autouse=True)
def plain_process() -> Iterator[None]:
    """Let what is saved be opened by plain libraries in a second process that imports them once for all runs.

    `train` starts a process for each run, of which 90 % of the time are imports. Tests of saving and all commands that
    are started as a user would start them do so.
    """
    from lorafit.runs import saving

    server: subprocess.Popen[str] | None = None

    def compute_plain_logits(folder: Path, texts: list[str]) -> list[list[float]]:
        nonlocal server
        if server is None:
            script, runtimes = (
                Path(__file__).with_name("plain_server.py"),
                Path(saving.__file__).parents[1] / "models" / "runtimes",
            )
            server = subprocess.Popen(
                [sys.executable, "-P", script, runtimes], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        print(json.dumps([str(folder), texts]), file=server.stdin, flush=True)
        answer = json.loads(server.stdout.readline())
        assert "error" not in answer, answer["error"]
        return answer["logits"]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(saving, "compute_plain_logits", compute_plain_logits)
        yield
    if server is not None:
        server.communicate()


@pytest.fixture(scope="session", autouse=True)
def no_network() -> Iterator[None]:
    """Refuse every connection that would leave this machine, and names of other machines."""
    look_up = socket.getaddrinfo

    def look_up_here(host: Any, *rest: Any, **named: Any) -> Any:  # noqa: ANN401 - as the socket module has it
        if host is not None and not _is_loopback(host.decode() if isinstance(host, bytes) else host):
            raise socket.gaierror(socket.EAI_NONAME, f"a test looked {host!r} up")
        return look_up(host, *rest, **named)

    def guard(connect: Callable[..., Any]) -> Callable[..., Any]:
        def connect_here(self: socket.socket, address: Any) -> Any:  # noqa: ANN401 - as the socket has it
            if self.family in {socket.AF_INET, socket.AF_INET6} and not _is_loopback(str(address[0])):
                raise PermissionError(f"a test tried to connect to {address}")
            return connect(self, address)

        return connect_here

    with pytest.MonkeyPatch.context() as patch:
        for name in ("connect", "connect_ex"):
            patch.setattr(socket.socket, name, guard(getattr(socket.socket, name)))
        patch.setattr(socket, "getaddrinfo", look_up_here)
        yield


@pytest.fixture(scope="session")
def hub_cache() -> Path:
    """Where huggingface_hub looks for models that were downloaded before."""
    return Path(os.environ["HF_HOME"]) / "hub"


@pytest.fixture(scope="session")
def build_encoder(tmp_path_factory: pytest.TempPathFactory) -> BuildEncoder:
    """Builds a folder in the Hub's layout with a tiny random encoder: its `model_type`, and settings that differ."""

    def build(model_type: str, **settings: Any) -> Path:
        import torch
        from transformers import AutoConfig, AutoModel

        folder = tmp_path_factory.mktemp(model_type)
        vocab = _write_tokenizer(folder, model_type)
        sizes = {"vocab_size": vocab, "max_position_embeddings": 128, "pad_token_id": 0}
        config = AutoConfig.for_model(model_type, **(sizes | TINY[model_type] | settings))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            AutoModel.from_config(config).save_pretrained(folder)
        return folder

    return build


@pytest.fixture(scope="session")
def tiny_distilbert(build_encoder: BuildEncoder) -> Path:
    """A DistilBERT of 2 layers, 32 wide. Tests copy it before they change it."""
    return build_encoder("distilbert")


@pytest.fixture(scope="session")
def tiny_bert(build_encoder: BuildEncoder) -> Path:
    """A BERT of 2 layers, 32 wide. Tests copy it before they change it."""
    return build_encoder("bert")


@pytest.fixture(scope="session")
def word_reviews(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """160 rows whose words tell the label."""
    path = tmp_path_factory.mktemp("data") / "reviews.csv"
    words = (("awful", "boring", "dull", "poor"), ("fine", "great", "lovely", "superb"))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for row in range(160):
            turn = row // 2
            first, second = words[row % 2][turn % 4], words[row % 2][turn // 4 % 4]
            writer.writerow([f"{first} {second} film {row}", ("neg", "pos")[row % 2]])
    return path


def _is_loopback(host: str) -> bool:
    return host in {"localhost", "::1"} or host.startswith("127.")


def _write_tokenizer(folder: Path, model_type: str) -> int:
    """Write a small WordPiece tokenizer as BERT has it; return the size of its vocabulary."""
    from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

    letters = string.ascii_lowercase + string.digits + string.punctuation
    pieces = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *letters,
        *(f"##{letter}" for letter in letters),
        *WORDS.split(),
    ]
    vocab = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))  # noqa: S106 - a token of text, no password
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", vocab["[CLS]"]), ("[SEP]", vocab["[SEP]"])],
    )
    tokenizer.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": {"distilbert": "DistilBertTokenizer"}.get(model_type, "BertTokenizer"),
        "do_lower_case": True,
        "model_max_length": 128,
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return len(vocab)


@pytest.fixture
def run_record() -> RunRecord:
    """The record of a finished run, as small as it can be."""
    return RunRecord(
        status="complete",
        created="2025-01-01T00:00:00+00:00",
        versions={},
        seed=0,
        method="lora",
        task="single_label",
        labels=["neg", "pos"],
        max_length=64,
        truncation="head",
        data=DataRecord(source="imdb", splits={}),
        base_model=BaseModelRecord(name="m", revision=None, digest="d", architecture="bert"),
        hardware=HardwareRecord(
            cpu="c", cores=2, threads=2, memory_bytes=1, precision="fp32", precision_reason="asked for"
        ),
        encoder_blocks="fused",
        parameters=ParameterCounts(adapter=1, head=1, total=10),
    )


@pytest.fixture
def build_run(run_record: RunRecord, tmp_path: Path) -> Callable[..., Path]:
    """Builds the folder of a finished run without training: records, history and predictions of a model made up."""
    return lambda **wishes: _build_run(run_record, tmp_path, **wishes)


def _build_run(
    record: RunRecord,
    root: Path,
    *,
    names: Sequence[str] = ("neg", "pos"),
    rows: int = 60,
    texts: Callable[[int, str], str] = "{1} film {0}".format,
    predict: Callable[[Any, Any], Any] | None = None,
    baseline: bool = True,
    cheap: bool = True,
    calibrated: bool = True,
    history: bool = True,
    settings: dict[str, Any] | None = None,
) -> Path:
    """Build a run; `predict(labels, rng)` gives the logits of the model after training, shape (rows, classes)."""
    import numpy as np

    from lorafit.config import load_config
    from lorafit.data.sources import load_splits
    from lorafit.metrics.confidence import apply_temperature, fit_calibration
    from lorafit.metrics.scores import softmax
    from lorafit.runs.folder import RunLayout
    from lorafit.runs.records import SplitRecord
    from lorafit.training.evaluation import Predicted, build_metrics, write_predictions

    rng = np.random.default_rng(0)
    source, test = root / "reviews.csv", root / "test.csv"
    for path, count in ((source, 8 * len(names)), (test, rows)):
        with path.open("w", newline="", encoding="utf-8", errors="surrogatepass") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "label"])
            writer.writerows([texts(row, names[row % len(names)]), names[row % len(names)]] for row in range(count))
    flags = {
        "data.source": str(source),
        "data.test": str(test),
        "evaluation.bootstrap_samples": 200,
        "evaluation.target_accuracy": 0.9,
        "data.calibration_fraction": 0,
        **(settings or {}),
    }
    config = load_config(flags=flags)
    splits = load_splits(config.data)
    labels, classes = splits.test.labels, len(splits.labels)

    def guess(strength: float) -> Any:  # noqa: ANN401 - an array, of a library that is not imported here
        return strength * np.eye(classes)[labels] + rng.normal(size=(len(labels), classes))

    logits = guess(3.0) if predict is None else predict(labels, rng)
    calibration = None
    if calibrated:
        calibration = fit_calibration(labels, logits, coverage=0.95, target_accuracy=config.evaluation.target_accuracy)
    predicted = Predicted(
        finetuned=softmax(apply_temperature(logits, calibration.temperature if calibration else 1.0)),
        baseline=softmax(guess(0.3)) if baseline else None,
        cheap={name: softmax(guess(2.0)) for name in ("nb_svm", "tfidf")} if cheap else {},
        calibration=calibration,
    )
    layout = RunLayout(root / "run")
    layout.root.mkdir()
    layout.config.write_text(config.to_yaml(), encoding="utf-8")
    build_metrics("test", splits.test, splits.labels, config.evaluation, predicted).write(layout.metrics)
    write_predictions(layout.predictions("test", "finetuned"), splits.test, splits.labels, predicted.finetuned)
    if predicted.baseline is not None:
        write_predictions(layout.predictions("test", "baseline"), splits.test, splits.labels, predicted.baseline)
    if history:
        lines = [
            {"step": step, "loss": 1 / step, "learning_rate": 1e-3 * step, "grad_norm": 1.0}
            for step in range(10, 200, 10)
        ]
        lines += [{"step": step, "eval_loss": 2 / step, "eval_accuracy": step / 200} for step in (100, 200)]
        layout.history.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    described = {
        name: SplitRecord(
            rows=len(split),
            label_counts=dict(
                zip(splits.labels.names, np.bincount(split.labels, minlength=classes).tolist(), strict=True)
            ),
            fingerprint=split.fingerprint(),
            tokens=10 * len(split),
            truncated=1,
        )
        for name, split in splits.by_name.items()
    }
    data = record.data.model_copy(update={"source": splits.source, "splits": described, "notes": list(splits.notes)})
    kept = {"labels": list(splits.labels.names), "data": data, "seconds": {"training": 12.0, "evaluation": 3.0}}
    record.model_copy(update=kept).write(layout.record)
    return layout.root


@pytest.fixture
def write_values(run_record: RunRecord, tmp_path: Path) -> Callable[..., Path]:
    """Writes a finished run by hand: its name, task and labels, what is true of the test rows, what it said of them."""
    return lambda *told, **wishes: _write_values(run_record, tmp_path, *told, **wishes)


def _write_values(
    record: RunRecord,
    root: Path,
    name: str,
    labels: LabelSet,
    truth: Sequence[object],
    values: Sequence[object],
    *,
    rows: "Split | None" = None,
    fingerprint: str = "same rows",
    half_width: float | None = None,
    coverage: float = 0.9,
    flags: dict[str, Any] | None = None,
    **changes: Any,
) -> Path:
    """Write a run; `truth` is as in `Split.labels`, `values` of shape (rows, outputs), `changes` go into its record."""
    import numpy as np

    from lorafit.config import load_config
    from lorafit.data.checks import count_labels
    from lorafit.data.rows import Split
    from lorafit.runs.folder import CALIBRATION_FILE, RunLayout
    from lorafit.runs.records import SplitRecord
    from lorafit.system.atomic import compute_digest
    from lorafit.task_evidence import IntervalCalibration
    from lorafit.training.evaluation import write_predictions

    layout = RunLayout(root / name)
    layout.root.mkdir()
    rows = rows or Split(np.arange(1, len(truth) + 1), ("a text",) * len(truth), np.asarray(truth))
    write_predictions(layout.predictions("test", "finetuned"), rows, labels, np.asarray(values))
    source = {"evaluation.bootstrap_samples": 200, "data.source": str(root / "gone.csv"), "data.task": labels.task}
    config = load_config(flags={**source, **(flags or {})})
    layout.config.write_text(config.to_yaml(), encoding="utf-8")
    files = {}
    if half_width is not None:
        IntervalCalibration(rows=50, coverage=coverage, half_width=half_width).write(layout.calibration)
        files = {CALIBRATION_FILE: compute_digest(layout.calibration)}
    counts = count_labels(rows.labels, labels)
    split = SplitRecord(rows=len(rows), label_counts=counts, fingerprint=fingerprint, tokens=1, truncated=0)
    told = {
        "task": labels.task,
        "labels": list(labels.names),
        "data": DataRecord(source=config.data.source, splits={"test": split}),
        "texts_per_second": 100.0,
        "files": files,
    }
    record.model_copy(update={**told, **changes}).write(layout.record)
    return layout.root
