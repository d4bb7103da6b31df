"""Parts that tests share: tiny encoders in the Hub's layout, caches of their own, and no network."""

import csv
import functools
import gc
import json
import os
import shutil
import signal
import socket
import string
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from filelock import FileLock
from tokenizers import Tokenizer

from lorafit.models.records import BaseModelRecord, ParameterCounts
from lorafit.runs.records import DataRecord, HardwareRecord, RunRecord
from lorafit.system.progress import Silent

if TYPE_CHECKING:
    from numpy.random import Generator
    from numpy.typing import ArrayLike, NDArray

    from lorafit.config import Config, EvaluationConfig
    from lorafit.data.rows import Split
    from lorafit.runs.folder import RunLayout
    from lorafit.tasks.base import Task
    from lorafit.tasks.records import Calibration
    from lorafit.training.evaluation import Predicted

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

SPOKEN_LABELS: dict[str, Callable[[int, int], object]] = {
    "single_label": lambda good, _: ("neg", "pos")[good],
    "multi_label": lambda good, long: [name for name, has in (("good", good), ("long", long)) if has],
    "regression": lambda good, long: 50 + 20 * good + 10 * long,
    "ordinal": lambda good, long: 1 + 2 * good + long,
}
"""The label of a row by its task, from what its words say."""

BuildEncoder = Callable[..., Path]
SharedFolder = Callable[[str, Callable[[Path], object]], Path]
TrainRun = Callable[..., Path]
WriteRun = Callable[..., Path]
EditRecord = Callable[..., None]
SignRun = Callable[[Path], None]

# The Hub's libraries read these when they are imported, which the conftest of a folder may do before any hook runs.
os.environ["HF_HOME"] = tempfile.mkdtemp(prefix="lorafit-tests-")
os.environ["HF_HUB_OFFLINE"] = "1"


if "PYTEST_XDIST_WORKER" in os.environ:
    # Workers share the cores: threads that wait for each other while another worker runs cost many times their work.
    os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}


LONG = ("test_end_to_end.py", "training", "experiments", "cli")
"""Files and rooms whose tests take longest, the longest first."""

UPPER_ROOMS = {"training", "experiments", "cli", "inference", "reports", "serving"}
"""Rooms where the first case of a test measures coverage: above tasks and models nobody asks which one it is."""

UNMEASURED = (
    "test_end_to_end.py",
    "cli/test_altered.py::test_altered_files_are_refused",
    "cli/test_train.py",
    "data/test_reading_fuzz.py::test_generated_files_are_read_or_refused",
    "data/test_reading_stamps.py",
    "experiments/diff/test_diff.py::test_rows_of_a_group_are_resampled_together",
    "experiments/diff/test_gates.py::test_point_estimate_decides",
    "experiments/search/test_search.py::test_first_trial_takes_the_settings_as_they_are",
    "faults/",
    "inference/export/test_kept.py",
    "models/acceleration/test_encoder_block.py",
    "models/acceleration/test_lora_linear.py",
    "models/runtimes/test_mixed.py",
    "models/test_adaptation.py::test_every_method_gives_the_features",
    "models/test_adapters.py",
    "models/test_excerpts.py::test_pieces_give_the_tokens",
    "models/test_families.py::test_it_trains",
    "reports/test_plots.py",
    "reports/test_tracking.py::test_no_text_of_the_data_is_tracked",
    "runs/test_saving.py",
    "serving/test_shelf.py::test_ranks_and_places_differ",
    "tasks/test_calibration.py",
    "tasks/test_labels.py::test_any_column_is_read",
    "tasks/test_slices.py",
    "tasks/test_statistics.py",
    "training/test_check.py::test_nothing_is_wrong_with_the_builtin_reviews",
    "training/test_choice.py::test_the_lowest_validation_loss_decides",
    "training/test_estimator.py::test_a_fit_is_repeatable",
    "training/test_estimator.py::test_scikit_learn_works_with_it",
    "training/test_estimator.py::test_weights_are_repeated_rows",
    "training/test_pipeline.py",
    "training/test_pipeline_calibration.py",
    "training/test_pipeline_methods.py",
    "training/test_pipeline_tasks.py",
)
"""Begins of tests that take long and run hardly a line that no other test runs: they measure no coverage, as tracing
lines slows them down. `pytest --cov --cov-context=test` tells who runs what."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest: a long file that begins last runs alone, while the other workers wait.

    Coverage is not measured by every test and case.
    """

    def place(item: pytest.Item) -> int:
        room = item.nodeid.partition("::")[0].removeprefix("tests/").partition("/")[0]
        return LONG.index(room) if room in LONG else len(LONG)

    items.sort(key=place)
    measured = set[str]()
    for item in items:
        test = item.nodeid.partition("[")[0]
        is_repeated = test in measured and not UPPER_ROOMS.isdisjoint(item.path.parts)
        if is_repeated or test.removeprefix("tests/").startswith(UNMEASURED):
            item.add_marker("no_cover")
        measured.add(test)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    """Keep what is prepared for an unmeasured test unmeasured, too; pytest-cov leaves out the test alone."""
    controller = getattr(item.config.pluginmanager.get_plugin("_cov"), "cov_controller", None)
    if controller is None or item.get_closest_marker("no_cover") is None:
        yield
        return
    controller.pause()
    try:
        yield
    finally:
        controller.resume()


def pytest_collection_finish() -> None:
    """Leave torch and all that files of tests import out of later collections: every training asks for a full one."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    shutil.rmtree(os.environ["HF_HOME"], ignore_errors=True)


@pytest.fixture(scope="session", autouse=True)
def ctrl_c_is_heard() -> None:
    """Hear SIGINT as a terminal's foreground does: a shell starts what runs in its background with SIGINT ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def hang_up_is_heard() -> Iterator[None]:
    """Hear SIGHUP, here and in the processes started here, also where the tests run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> SharedFolder:
    """Returns the folder of a name, filled once for all workers. Tests do not change it; they copy it."""
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"

    def find(name: str, fill: Callable[[Path], object]) -> Path:
        folder = shared / name
        filled = folder.with_name(f"{name}.filled")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f"{name}.lock")):
            if not filled.exists():
                shutil.rmtree(folder, ignore_errors=True)  # what a worker left that failed
                folder.mkdir()
                fill(folder)
                filled.touch()
        return folder

    return find


@pytest.fixture(scope="session", autouse=True)
def lorafit_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """lorafit's cache, one for all tests of a worker."""
    with pytest.MonkeyPatch.context() as patch:
        cache = tmp_path_factory.mktemp("cache")
        patch.setenv("LORAFIT_CACHE", str(cache))
        yield cache


@pytest.fixture(scope="session")
def builtin_encoder(lorafit_cache: Path, shared_folder: SharedFolder) -> Path:
    """The built-in encoder in lorafit's cache, converted once for all workers."""
    from lorafit.models.builtin import load_builtin_encoder

    def convert(folder: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("LORAFIT_CACHE", str(folder))
            load_builtin_encoder("builtin:distil-minilm")

    encoders = lorafit_cache / "encoders"
    if not encoders.exists():
        encoders.symlink_to(shared_folder("cache", convert) / "encoders")
    return load_builtin_encoder("builtin:distil-minilm")


@pytest.fixture(scope="session", autouse=True)
def compiled_templates() -> Iterator[None]:
    """Compile a template once for all tests: with every checkpoint PEFT compiles that of a card for the Hub again."""
    from jinja2 import Environment

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Environment, "compile", functools.cache(Environment.compile))
        yield


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
    from lorafit.inference.export import export
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
        for module in (saving, export):
            patch.setattr(module, "compute_plain_logits", compute_plain_logits)
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


@pytest.fixture(scope="session")
def tiny_settings(build_encoder: BuildEncoder, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list[str]]:
    """Returns overrides with which a task is trained in about a second, on rows whose words tell the label."""
    encoder, folder = build_encoder("distilbert", initializer_range=0.1), tmp_path_factory.mktemp("rows")

    def build(task: str = "single_label") -> list[str]:
        source = folder / f"{task}.jsonl"
        if not source.exists():
            places = [(row % 2, row // 2 % 2, row) for row in range(160)]
            texts = [f"{('poor', 'superb')[good]} film {('minute', 'hours')[long]} {row}" for good, long, row in places]
            labels = [SPOKEN_LABELS[task](good, long) for good, long, _ in places]
            rows = [json.dumps({"text": text, "label": label}) for text, label in zip(texts, labels, strict=True)]
            source.write_text("\n".join(rows), encoding="utf-8")
        return [
            f"data.source={source}",
            f"data.task={task}",
            "data.test_fraction=0.25",
            "data.validation_fraction=0.1",
            f"model.name={encoder}",
            "model.max_length=32",
            "method.layers=top1",
            "training.batch_size=16",
            "training.epochs=2",
            "training.learning_rate=5e-3",
            "training.threads=1",
            "evaluation.bootstrap_samples=100",
            "evaluation.report=false",
        ]

    return build


class Listener(Silent):
    """A progress that remembers what it is told, and presses Ctrl-C once, at a training step.

    Attributes:
        lines: What `say` was given.
    """

    def __init__(self, stop: Callable[[Sequence[str], int], bool] | None = None) -> None:
        self.lines: list[str] = []
        self._stop = stop

    def say(self, line: str) -> None:
        self.lines.append(line)

    def update(self, done: int, **metrics: float) -> None:
        if "loss" in metrics and self._stop is not None and self._stop(self.lines, done):
            self._stop = None
            signal.raise_signal(signal.SIGINT)


@pytest.fixture
def listen() -> Callable[..., Listener]:
    """Makes a `Listener`; what it is given decides by the lines so far and the step whether to stop there."""
    return Listener


@pytest.fixture(scope="session")
def train_run(build_encoder: BuildEncoder, tmp_path_factory: pytest.TempPathFactory) -> TrainRun:
    """Trains a run of a task by its name, a tiny one that has learned its words; settings in dotted form."""

    def train(task: str, *overrides: str, encoder: Path | None = None, folder: Path | None = None) -> Path:
        import lorafit
        from lorafit.config import load_config

        folder = folder or tmp_path_factory.mktemp(task)
        name = encoder or build_encoder("distilbert", initializer_range=0.1)
        config = load_config(
            overrides=[
                f"data.source={_write_rows(folder / 'rows.jsonl', task)}",
                f"data.task={task}",
                "data.test_fraction=0.2",
                "data.validation_fraction=0.4",
                f"model.name={name}",
                "model.max_length=32",
                "training.batch_size=16",
                "training.epochs=4",
                "training.learning_rate=1e-2",
                "training.threads=1",
                "evaluation.before=false",
                "evaluation.baselines=false",
                "evaluation.report=false",
                "evaluation.bootstrap_samples=100",
                *overrides,
            ]
        )
        return lorafit.train(config, output=folder / "run").path

    return train


@pytest.fixture(scope="session")
def trained_of(train_run: TrainRun, shared_folder: SharedFolder) -> Callable[[str], Path]:
    """Returns the trained run of a task by its name: made once for all workers, and not to be changed."""
    settings = {"single_label": ["evaluation.target_accuracy=0.9"]}

    def find(task: str) -> Path:
        def train(folder: Path) -> None:
            train_run(task, *settings.get(task, []), folder=folder)

        return shared_folder(f"trained-{task}", train) / "run"

    return find


def _write_rows(path: Path, task: str, rows: int = 240) -> Path:
    """Write texts whose words tell their label."""
    words = (("awful", "poor"), ("boring", "dull"), ("of", "to"), ("fine", "good"), ("great", "superb"))
    with path.open("w", encoding="utf-8") as file:
        for row in range(rows):
            stars, long = row % 5, row // 5 % 2
            text = f"{words[stars][row // 10 % 2]} film {('minute', 'hours')[long]} {row}"
            names = [name for name, has in (("good", stars > 2), ("long", long)) if has]
            labels = {
                "single_label": ("neg", "pos")[stars > 1],
                "multi_label": names,
                "regression": 50 + 10 * stars + 5 * long,
                "ordinal": 1 + stars,
            }
            file.write(json.dumps({"text": text, "label": labels[task]}) + "\n")
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
    return _build_record()


def _build_record() -> RunRecord:
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


@pytest.fixture(scope="session")
def edit_record() -> EditRecord:
    """Changes a record's file as somebody would who seals it again: fields by name, or a function of all of them."""
    from lorafit.system.records import seal

    def edit(path: Path, change: Callable[[dict[str, Any]], object] | None = None, **fields: object) -> None:
        content = json.loads(path.read_text(encoding="utf-8"))
        del content["seal"]
        content |= fields
        if change is not None:
            change(content)
        path.write_text(seal(content), encoding="utf-8")

    return edit


@pytest.fixture(scope="session")
def sign_run() -> SignRun:
    """Lets a run's record name the files of its folder as they are now, as somebody would who forges a run."""
    from lorafit.runs.evidence import add_evidence
    from lorafit.runs.folder import RunLayout
    from lorafit.system.digests import digest_folder

    def sign(run: Path) -> None:
        layout = RunLayout(run)
        record = RunRecord.read(layout.record)
        evidence = add_evidence(layout, record.model_copy(update={"evidence": {}}), *_list_evidence(layout))
        files = {name: digest for name, digest in digest_folder(layout.trained).items() if name != layout.card.name}
        record.model_copy(update={"evidence": evidence, "files": files}).write(layout.record)

    return sign


def _list_evidence(layout: "RunLayout") -> list[Path]:
    found = [*layout.root.glob("*"), *layout.root.glob("predictions/*")]
    return [path for path in found if path not in {layout.record, layout.report}]


LABELS: dict[str, tuple[str, ...]] = {
    "single_label": ("neg", "pos"),
    "multi_label": ("bad", "long", "odd"),
    "regression": ("value",),
    "ordinal": ("1", "2", "3", "4", "5"),
}
"""Label names of a written run by its task, unless it is given others."""


@pytest.fixture(scope="session")
def write_run_in() -> WriteRun:
    """Writes a finished run of any task into a folder: `write_run` for fixtures that last longer than a test."""
    return lambda root, task="single_label", **wishes: _write_run(_build_record(), root, task, **wishes)


@pytest.fixture
def write_run(write_run_in: WriteRun, tmp_path: Path) -> WriteRun:
    """Writes a finished run of any task without training: see `_write_run`; two runs of a test have different names."""
    return lambda task="single_label", **wishes: write_run_in(tmp_path, task, **wishes)


def _write_run(
    record: RunRecord,
    root: Path,
    task: "Task | str",
    *,
    name: str = "run",
    labels: Sequence[str] | None = None,
    rows: int = 60,
    y: "ArrayLike | None" = None,
    texts: Callable[[int, str], str] = "{1} film {0}".format,
    columns: Mapping[str, Sequence[object]] | None = None,
    after: "ArrayLike | None" = None,
    before: "ArrayLike | bool" = True,
    baselines: bool = True,
    calibration: "Calibration | bool" = True,
    history: bool = True,
    flags: Mapping[str, Any] | None = None,
    **changes: Any,
) -> Path:
    """Write records, history, predictions and calibration of a run; beside it `<name>.jsonl` and `<name>-test.jsonl`.

    Args:
        record: What the run's record is made from.
        root: Where its folder and its data are written.
        task: A task, or the name of one.
        name: Name of the folder.
        labels: Label names where `task` is a name; None takes `LABELS`.
        rows: Number of test rows; that of `y` where it is given.
        y: True labels of the test rows as `Task.encode` makes them; None draws some.
        texts: Makes a text of the number of its row, from 0, and of its label.
        columns: Slice columns of the test rows.
        after: Values of the fine-tuned model, shape (rows, labels); None draws some that are often right.
        before: Those of the model before training; True draws some, False leaves them out.
        baselines: Whether there are predictions of all the task's baselines, drawn.
        calibration: True fits one to what is drawn (to values that are given, there is none); False for none; or one
            that the values already have.
        history: Whether there is a history.
        flags: Dotted settings that differ from the defaults.
        **changes: What differs in the record.

    Returns:
        The run folder.
    """
    import numpy as np

    from lorafit.runs.evidence import add_evidence
    from lorafit.runs.folder import CALIBRATION_FILE, RunLayout
    from lorafit.runs.predictions import write_predictions
    from lorafit.runs.records import SplitRecord
    from lorafit.system.digests import digest_file
    from lorafit.tasks.registry import build_task
    from lorafit.training.evaluation import build_metrics

    if isinstance(task, str):
        task = build_task(task, labels or LABELS[task])
    truth = _draw_labels(task, rows) if y is None else np.asarray(y)
    same = {"seed": "training.seed", "method": "method.name", "truncation": "model.truncation"}
    told = {setting: changes.get(key, getattr(record, key)) for key, setting in same.items()}
    completed = {"data.validation_fraction": 0.1, "training.epochs": 2, "training.batch_size": 32}
    flags = told | completed | dict(flags or {})
    config, source, parts, notes = _write_data(root, name, task, truth, texts, columns or {}, flags)
    predicted = _predict(task, truth, after, before, baselines, calibration, config.evaluation)
    layout = RunLayout(root / name)
    layout.root.mkdir()
    layout.config.write_text(config.to_yaml(), encoding="utf-8")
    build_metrics("test", parts["test"], task, config.evaluation, predicted).write(layout.metrics)
    for model, values in {"after": predicted.after, "before": predicted.before, **predicted.baselines}.items():
        if values is not None:
            write_predictions(layout.predictions("test", model), parts["test"], task, values)
    files = {}
    if predicted.calibration is not None:
        predicted.calibration.write(layout.calibration)
        files = {CALIBRATION_FILE: digest_file(layout.calibration)}
    if history:
        lines = [
            {"step": step, "loss": 1 / step, "learning_rate": 1e-3 * step, "grad_norm": 1.0}
            for step in range(10, 200, 10)
        ]
        lines += [{"step": step, "eval_loss": 2 / step, f"eval_{task.primary}": step / 200} for step in (100, 200)]
        layout.history.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    evidence = add_evidence(layout, record, *_list_evidence(layout))
    splits = {
        part: SplitRecord(
            rows=len(split),
            label_counts=task.count(split.y),
            fingerprint=split.fingerprint(),
            tokens=10 * len(split),
            truncated=1,
        )
        for part, split in parts.items()
    }
    kept: dict[str, Any] = {
        "task": task.name,
        "labels": list(task.label_names),
        "seed": config.training.seed,
        "method": config.method.name,
        "truncation": config.model.truncation,
        "data": DataRecord(source=source, splits=splits, notes=notes),
        "seconds": {"training": 12.0, "evaluation": 3.0},
        "texts_per_second": 100.0,
        "files": files,
        "evidence": evidence,
    }
    record.model_copy(update={**kept, **changes}).write(layout.record)
    return layout.root


def _write_data(
    root: Path,
    name: str,
    task: "Task",
    y: "NDArray[Any]",
    texts: Callable[[int, str], str],
    columns: Mapping[str, Sequence[object]],
    flags: Mapping[str, Any],
) -> "tuple[Config, str, dict[str, Split], list[str]]":
    """Write the data of a run; return its settings, and source, splits and notes as they are read again."""
    from lorafit.config import load_config
    from lorafit.data.loading import load_splits
    from lorafit.data.rows import Split
    from lorafit.tasks.label_spellings import clean_name

    source, test = root / f"{name}.jsonl", root / f"{name}-test.jsonl"
    for path, part in ((source, _draw_labels(task, 8 * max(len(task.label_names), 3))), (test, y)):
        with path.open("w", encoding="utf-8") as file:
            for row, label in enumerate(task.decode(part)):
                named = " ".join(label) if isinstance(label, tuple) else str(label)
                cells = {column: values[row % len(values)] for column, values in columns.items()}
                file.write(f"{json.dumps({'text': texts(row, named), 'label': label, **cells})}\n")
    settings: dict[str, Any] = {
        "data.source": str(source),
        "data.test": str(test),
        "data.task": task.name,
        "data.slice_columns": list(columns),
        "data.calibration_fraction": 0,
        "evaluation.bootstrap_samples": 200,
    }
    if "accepted_share" in task.calibration_metrics:
        settings["evaluation.target_accuracy"] = 0.9
    config = load_config(flags={**settings, **flags})
    splits = load_splits(config.data)
    spelled = {clean_name(label): label for label in task.label_names}
    parts = {}
    for part, split in splits.by_name.items():  # labels in the order of `task`, and as it spells them
        labels = [splits.task.rename(label, spelled) for label in splits.task.decode(split.y)]
        parts[part] = Split(split.ids, split.texts, task.encode(labels), split.columns)
    return config, splits.source, parts, list(splits.notes)


def _predict(
    task: "Task",
    y: "NDArray[Any]",
    after: "ArrayLike | None",
    before: "ArrayLike | bool",
    baselines: bool,
    calibration: "Calibration | bool",
    config: "EvaluationConfig",
) -> "Predicted":
    """Put predictions together as `_write_run` is asked for."""
    import numpy as np

    from lorafit.tasks.baselines import MAJORITY
    from lorafit.training.evaluation import Predicted

    rng = np.random.default_rng(0)

    def draw(strength: float) -> Any:  # noqa: ANN401 - an array
        return task.activate(_draw_logits(task, y, strength, rng))

    def draw_baseline(name: str) -> Any:  # noqa: ANN401 - an array
        return np.tile(task.constant_values(y), (len(y), 1)) if name == MAJORITY else draw(2.0)

    if after is None:
        logits = _draw_logits(task, y, 3.0, rng)
        if calibration is True:
            limits = {"coverage": config.coverage, "target_accuracy": config.target_accuracy}
            calibration = task.fit_calibration(y, logits, **limits)
        after = task.activate(logits, calibration or None)
    if isinstance(before, bool):
        before = draw(0.3) if before else None
    return Predicted(
        after=np.asarray(after, dtype=np.float64),
        before=before if before is None else np.asarray(before, dtype=np.float64),
        baselines={name: draw_baseline(name) for name in task.baselines} if baselines else {},
        calibration=None if isinstance(calibration, bool) else calibration,
    )


def _draw_labels(task: "Task", rows: int) -> "NDArray[Any]":
    """Draw labels of every kind that the task has, the same each time."""
    import numpy as np

    places, count = np.arange(rows), len(task.label_names)
    if task.name == "regression":
        return 50 + 10 * np.random.default_rng(1).normal(size=rows)
    if task.name == "multi_label":
        return places[:, np.newaxis] // (1 + np.arange(count)) % 2
    return places % count


def _draw_logits(task: "Task", y: "NDArray[Any]", strength: float, rng: "Generator") -> "NDArray[Any]":
    """Draw logits of a model that is the better, the higher its strength."""
    import numpy as np

    from lorafit.tasks.base import TargetScaler

    targets = task.targets(y, TargetScaler())
    if task.name == "regression":
        return y[:, np.newaxis] + 10 / strength * rng.normal(size=(len(y), 1))
    if task.name == "single_label":
        targets = np.eye(len(task.label_names))[targets]
    return strength * (targets - 0.5) + rng.normal(size=targets.shape)


@pytest.fixture
def small_disk(tmp_path: Path) -> "Iterator[Callable[[str], Path]]":
    """A function that makes a disk of a size such as 2m; where none can be mounted, no file may grow beyond that."""
    import resource

    limits, mounted = resource.getrlimit(resource.RLIMIT_FSIZE), []

    def make(size: str) -> Path:
        folder = tmp_path / f"disk-{len(mounted)}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
        if subprocess.run(command, capture_output=True, check=False).returncode == 0:
            mounted.append(folder)
        else:
            most = int(size[:-1]) * {"k": 1 << 10, "m": 1 << 20}[size[-1]]
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, limits[1]))
        return folder

    yield make
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    for folder in mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
