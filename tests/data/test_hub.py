import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import datasets
import huggingface_hub.constants
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lorafit.data.hub import load_hub, load_published
from lorafit.errors import DataError, NetworkUnavailableError


@pytest.fixture(autouse=True)
def quiet_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """`datasets` with a cache of its own and without bars."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)


def write_csv(folder: Path, **splits: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name, rows in splits.items():
        (folder / f"{name}.csv").write_text(f"text,label\n{rows}")
    return folder


def test_published_splits_are_kept(tmp_path: Path) -> None:
    folder = write_csv(tmp_path / "d", train="a,x\nb,y\n", validation="c,x\n", test="d,y\n")
    loaded = load_published(str(folder), origin="hub:d")
    assert (loaded.train.texts, loaded.train.labels) == (["a", "b"], ["x", "y"])
    assert loaded.train.origin == "hub:d train"
    assert loaded.validation is not None
    assert loaded.validation.texts == ["c"]
    assert loaded.test is not None
    assert loaded.test.labels == ["y"]
    assert loaded.label_names is None
    assert loaded.notes == ()


def write_class_labels(path: Path, values: list[int]) -> None:
    features = datasets.Features(
        {"review": datasets.Value("string"), "stars": datasets.ClassLabel(names=["bad", "good"])}
    )
    rows = {"review": [f"text {number}" for number in range(len(values))], "stars": values}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(path)


def test_class_labels_give_names_and_order(tmp_path: Path) -> None:
    folder = tmp_path / "d"
    folder.mkdir()
    write_class_labels(folder / "train.parquet", [1, 0, -1])
    loaded = load_published(str(folder), origin="hub:d", text_column="review", label_column="stars")
    assert loaded.train.labels == ["good", "bad", None]
    assert loaded.label_names == ("bad", "good")
    assert loaded.test is None


def test_lists_of_class_labels_give_names_and_order(tmp_path: Path) -> None:
    names = datasets.Features({"text": datasets.Value("string"), "label": [datasets.ClassLabel(names=["sad", "glad"])]})
    rows = {"text": ["a", "b", "c"], "label": [[1, 0], [], [0]]}
    (tmp_path / "d").mkdir()
    datasets.Dataset.from_dict(rows, features=names).to_parquet(tmp_path / "d" / "train.parquet")
    loaded = load_published(str(tmp_path / "d"), origin="hub:d")
    assert loaded.train.labels == [["glad", "sad"], [], ["sad"]]
    assert loaded.label_names == ("sad", "glad")


def test_slice_columns_are_kept_with_class_names(tmp_path: Path) -> None:
    folder = tmp_path / "d"
    folder.mkdir()
    write_class_labels(folder / "train.parquet", [1, 0, -1])
    columns = {"text_column": "review", "label_column": "stars"}
    loaded = load_published(str(folder), origin="hub:d", columns={"stars": "--slice"}, **columns)
    assert loaded.train.columns == {"stars": ["good", "bad", None]}
    assert load_published(str(folder), origin="hub:d", **columns).train.columns == {}
    with pytest.raises(
        DataError, match=r"hub:d train has no column 'shop'.*\['review', 'stars'\].*with --group-column\."
    ):
        load_published(str(folder), origin="hub:d", columns={"shop": "--group-column"}, **columns)


@pytest.fixture
def two_subsets(tmp_path: Path) -> Path:
    folder = tmp_path / "two"
    folder.mkdir()
    card = "".join(f"- config_name: {name}\n  data_files: {name}/*.csv\n" for name in ("topics", "mood"))
    (folder / "README.md").write_text(f"---\nconfigs:\n{card}---\n")
    write_csv(folder / "topics", train="a,sport\nb,news\n")
    write_csv(folder / "mood", train="a,sad\nb,glad\n")
    return folder


def test_subset_is_chosen_by_its_name(two_subsets: Path) -> None:
    loaded = load_published(str(two_subsets), origin="hub:a/b:mood", subset="mood")
    assert loaded.train.labels == ["sad", "glad"]
    assert loaded.train.origin == "hub:a/b:mood train"


@pytest.mark.parametrize(
    ("origin", "subset", "message"),
    [
        ("hub:a/b", None, r"hub:a/b has 2 subsets\. Name one of them: hub:a/b:topics, hub:a/b:mood\.$"),
        ("hub:a/b@v1", None, r"hub:a/b has 2 subsets\. Name one of them: hub:a/b:topics@v1, hub:a/b:mood@v1\.$"),
        ("hub:a/b:food@v1", "food", r"hub:a/b has no subset 'food'\. Name one of them: hub:a/b:topics@v1, hub:a/b:mo"),
    ],
)
def test_subsets_are_listed_as_they_are_typed(two_subsets: Path, origin: str, subset: str | None, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_published(str(two_subsets), origin=origin, subset=subset)


def test_subset_of_a_data_set_without_any_is_refused(tmp_path: Path) -> None:
    folder = write_csv(tmp_path / "d", train="a,x\nb,y\n")
    with pytest.raises(DataError, match=r"^hub:d has no subset 'mood', nor any other: leave it out\.$"):
        load_published(str(folder), origin="hub:d:mood", subset="mood")


def test_source_names_subset_and_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[object, ...]] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **named: asked.append((named["revision"],)))
    folder = write_csv(tmp_path / "d", train="a,x\n")
    load_dataset = datasets.load_dataset

    def load(path: str, subset: str | None, *, revision: str | None) -> object:
        asked.append((path, subset, revision))
        return load_dataset(str(folder))

    monkeypatch.setattr(datasets, "load_dataset", load)
    load_hub("hub:nyu-mll/glue:mrpc@v1.0")
    load_hub("hub:tweet_eval:emotion")
    assert asked == [("v1.0",), ("nyu-mll/glue", "mrpc", "v1.0"), (None,), ("tweet_eval", "emotion", None)]


def test_split_with_hidden_labels_is_not_used(tmp_path: Path) -> None:
    folder = tmp_path / "d"
    folder.mkdir()
    write_class_labels(folder / "train.parquet", [1, 0])
    write_class_labels(folder / "test.parquet", [-1, -1])
    loaded = load_published(str(folder), origin="hub:d", text_column="review", label_column="stars")
    assert loaded.test is None
    assert loaded.notes == ("hub:d: its split 'test' has no labels and is not used.",)


def test_missing_column_or_train_split_lists_those_there(tmp_path: Path) -> None:
    folder = write_csv(tmp_path / "d", train="a,x\n")
    with pytest.raises(DataError, match=r"hub:d train has no column 'review'. Its columns: \['text', 'label'\]"):
        load_published(str(folder), origin="hub:d", text_column="review")
    only_test = write_csv(tmp_path / "e", test="a,x\n")
    with pytest.raises(DataError, match=r"hub:e has no split 'train'. Its splits: \['test'\]"):
        load_published(str(only_test), origin="hub:e")


def test_folder_that_cannot_be_loaded_is_explained(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    with pytest.raises(DataError, match="The datasets library cannot load hub:d: "):
        load_published(str(tmp_path / "d"), origin="hub:d")
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "d" / "train.parquet")
    (tmp_path / "d" / "train.parquet").write_bytes(b"PAR1 damaged")
    with pytest.raises(DataError, match="The datasets library cannot load hub:d: "):
        load_published(str(tmp_path / "d"), origin="hub:d")


@pytest.mark.parametrize(
    "source",
    [
        "hub:",
        "hub:../x",
        "hub:/etc/passwd",
        "hub:a/b/c",
        "hub:a b",
        "hub:a@",
        "hub:https://x",
        "hub:a/b@ x",
        "hub:a/b:",
        "hub:a/b:c/d",
    ],
)
def test_id_of_another_form_is_refused(source: str) -> None:
    with pytest.raises(DataError, match=r"does not name a data set of the Hub\. Allowed: hub:owner/name"):
        load_hub(source)


def test_local_folder_does_not_stand_in_for_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_csv(tmp_path / "reviews", train="a,x\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="called 'reviews', which hides the data set 'hub:reviews'"):
        load_hub("hub:reviews")


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("source", ["hub:owner/name", "hub:name", "hub:owner/name@v1.0", "hub:name:mood@v1.0"])
def test_no_network_is_told(source: str) -> None:
    with pytest.raises(NetworkUnavailableError, match=r"is not in the local cache and the Hugging Face Hub cannot be"):
        load_hub(source)


@pytest.mark.usefixtures("offline")
def test_no_network_after_the_first_file_is_told() -> None:
    with pytest.raises(NetworkUnavailableError, match="'owner/name' is not in the local cache"):
        load_published("owner/name", origin="hub:owner/name")


class Refusal(http.server.BaseHTTPRequestHandler):
    """Answers every request with one status and one of the Hub's error codes."""

    status = 404
    code = ""

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.send_header("X-Error-Code", self.code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def refusing_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusal) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.chdir(tmp_path)
        yield
        server.shutdown()
        thread.join()


@pytest.mark.usefixtures("refusing_hub")
@pytest.mark.parametrize(
    ("status", "code", "error", "message"),
    [
        (404, "RevisionNotFound", DataError, "The data set 'owner/name' has no revision 'v9' on the Hub"),
        (404, "RepoNotFound", DataError, "There is no data set 'owner/name' on the Hub, or it is private or gated"),
        (403, "GatedRepo", DataError, "There is no data set 'owner/name' on the Hub, or it is private or gated"),
        (
            500,
            "",
            NetworkUnavailableError,
            "'owner/name' is not in the local cache and the Hugging Face Hub cannot be reached",
        ),
    ],
)
def test_refusal_of_the_hub_is_passed_on(
    monkeypatch: pytest.MonkeyPatch, status: int, code: str, error: type[Exception], message: str
) -> None:
    monkeypatch.setattr(Refusal, "status", status)
    monkeypatch.setattr(Refusal, "code", code)
    with pytest.raises(error, match=message):
        load_hub("hub:owner/name@v9")


def test_proxy_that_refuses_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("407 Proxy Authentication Required")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(
        NetworkUnavailableError, match="did not answer for the data set 'owner/name': OSError: 407 Proxy"
    ):
        load_hub("hub:owner/name")


def test_hub_that_answers_leads_to_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_csv(tmp_path / "d", train="a,x\n")
    monkeypatch.chdir(tmp_path / "d")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(folder))
    load_dataset = datasets.load_dataset
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: load_dataset(str(folder)))
    assert load_hub("hub:owner/name").train.origin == "hub:owner/name train"


def test_data_set_that_is_gone_after_the_first_file_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise datasets.exceptions.DatasetNotFoundError("gated")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(DataError, match="There is no data set 'owner/name' on the Hub"):
        load_published("owner/name", origin="hub:owner/name")
