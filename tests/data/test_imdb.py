import gzip
import io
import tarfile
from pathlib import Path

import datasets
import huggingface_hub.constants
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lorafit.data import imdb
from lorafit.data.imdb import load_imdb
from lorafit.data.rows import RawRows, RawSplits
from lorafit.errors import DataError, NetworkUnavailableError

REVIEWS = {
    "train/pos/2_9.txt": "good é",
    "train/pos/10_8.txt": "good ten",
    "train/neg/0_1.txt": "bad",
    "test/pos/1_7.txt": "fine",
    "test/neg/3_2.txt": "poor",
}
OTHERS = {"train/unsup/0_0.txt": "unlabelled", "train/pos/notes.txt": "no", "README": "no", "train/urls_pos.txt": "no"}
EXPECTED_TRAIN = (["bad", "good é", "good ten"], ["negative", "positive", "positive"])
EXPECTED_TEST = (["poor", "fine"], ["negative", "positive"])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LORAFIT_DATA", str(tmp_path))
    (tmp_path / "imdb").mkdir()
    return tmp_path / "imdb"


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)


def write_folders(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")


def write_archive(path: Path, files: dict[str, str], prefix: str = "aclImdb/") -> None:
    with tarfile.open(path, "w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(prefix + name)
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
        link = tarfile.TarInfo("aclImdb/train/pos/99_9.txt")
        link.type = tarfile.SYMTYPE
        link.linkname = "/etc/passwd"
        archive.addfile(link)


def assert_expected(splits: RawSplits) -> None:
    assert (list(splits.train.texts), list(splits.train.labels)) == EXPECTED_TRAIN
    assert splits.test is not None
    assert (list(splits.test.texts), list(splits.test.labels)) == EXPECTED_TEST
    assert splits.validation is None
    assert splits.label_names == ("negative", "positive")
    assert splits.notes == (
        "imdb train: 3 rows instead of the published 25,000.",
        "imdb test: 2 rows instead of the published 25,000.",
    )


def write_parquet(path: Path, texts: list[str], labels: list[object]) -> None:
    pq.write_table(pa.table({"id": range(len(texts)), "text": texts, "label": labels}), path)


def test_parquet_files_are_read(folder: Path) -> None:
    write_parquet(folder / "train.parquet", EXPECTED_TRAIN[0], [0, 1, 1])
    write_parquet(folder / "test.parquet", EXPECTED_TEST[0], [0, 1])
    assert_expected(load_imdb())


def test_further_columns_of_parquet_files_and_ratings_in_file_names_are_kept(folder: Path) -> None:
    write_folders(folder / "aclImdb", REVIEWS)
    assert load_imdb().train.columns == {"rating": [1, 9, 8]}
    write_parquet(folder / "train.parquet", EXPECTED_TRAIN[0], [0, 1, 1])
    write_parquet(folder / "test.parquet", EXPECTED_TEST[0], [0, 1])
    assert load_imdb().train.columns == {"id": [0, 1, 2]}


def test_published_number_of_rows_needs_no_note(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imdb, "PUBLISHED_ROWS", 2)
    for split in ("train", "test"):
        write_parquet(folder / f"{split}.parquet", EXPECTED_TEST[0], [0, 1])
    assert load_imdb().notes == ()


def test_folders_are_read_by_number(folder: Path) -> None:
    write_folders(folder / "aclImdb", REVIEWS | OTHERS)
    assert_expected(load_imdb())


@pytest.mark.parametrize("prefix", ["aclImdb/", "./aclImdb/"])
def test_archive_is_read_by_number_and_not_unpacked(folder: Path, prefix: str) -> None:
    write_archive(folder / "aclImdb_v1.tar.gz", REVIEWS | OTHERS, prefix)
    assert_expected(load_imdb())
    assert [path.name for path in folder.iterdir()] == ["aclImdb_v1.tar.gz"]


def test_all_three_layouts_give_the_same_rows(folder: Path) -> None:
    write_archive(folder / "aclImdb_v1.tar.gz", REVIEWS)
    from_archive = load_imdb()
    write_folders(folder / "aclImdb", REVIEWS)
    assert load_imdb() == from_archive


def test_parquet_file_that_is_missing_or_not_imdb_is_refused(folder: Path) -> None:
    write_parquet(folder / "train.parquet", ["a", "b"], [0, 1])
    with pytest.raises(DataError, match=r"There is no file .*test\.parquet"):
        load_imdb()
    write_parquet(folder / "test.parquet", ["a", "b"], [0, 7])
    with pytest.raises(DataError, match=r"test\.parquet: labels must be 0 \(negative\) or 1 \(positive\), got 7"):
        load_imdb()
    pq.write_table(pa.table({"review": ["a"]}), folder / "test.parquet")
    with pytest.raises(DataError, match=r"needs the columns text and label\. Its columns: \['review'\]"):
        load_imdb()


def test_incomplete_folders_are_refused(folder: Path) -> None:
    write_folders(folder / "aclImdb", {name: text for name, text in REVIEWS.items() if name.startswith("train/pos")})
    with pytest.raises(DataError, match="has no reviews for train/neg: files such as"):
        load_imdb()


def test_archive_without_test_reviews_is_refused(folder: Path) -> None:
    write_archive(folder / "aclImdb_v1.tar.gz", {k: v for k, v in REVIEWS.items() if k.startswith("train")})
    with pytest.raises(DataError, match=r"has no reviews for test/neg and test/pos"):
        load_imdb()


def test_damaged_archive_is_refused(folder: Path) -> None:
    path = folder / "aclImdb_v1.tar.gz"
    write_archive(path, REVIEWS)
    whole = path.read_bytes()
    for content in (whole[:-40], whole[:-1], whole[:-8] + b"\0\0\0\0" + whole[-4:], b"no archive", gzip.compress(b"x")):
        path.write_bytes(content)
        with pytest.raises(DataError, match="is damaged or incomplete"):
            load_imdb()


def test_review_that_is_not_utf8_is_refused(folder: Path) -> None:
    write_folders(folder / "aclImdb", REVIEWS)
    (folder / "aclImdb/test/neg/3_2.txt").write_bytes(b"caf\xe9")
    with pytest.raises(DataError, match="a review of test is not UTF-8"):
        load_imdb()


@pytest.mark.usefixtures("offline")
def test_without_network_it_is_told_where_it_was_looked_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NetworkUnavailableError) as caught:
        load_imdb()
    message = str(caught.value)
    assert f"looked for in {folder} and on the Hub (stanfordnlp/imdb), which cannot be reached" in message
    assert "Set LORAFIT_DATA" in message
    assert "aclImdb_v1.tar.gz" in message
    monkeypatch.delenv("LORAFIT_DATA")
    with pytest.raises(NetworkUnavailableError, match="nowhere on this machine, as LORAFIT_DATA is not set, and on"):
        load_imdb()


def test_rows_of_the_hub_get_the_same_label_names(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train, test = (
        RawRows(f"imdb {name}", texts, [label[:3] for label in labels])
        for name, (texts, labels) in (("train", EXPECTED_TRAIN), ("test", EXPECTED_TEST))
    )
    published = RawSplits(train, test=test, label_names=("neg", "pos"))
    monkeypatch.setattr(imdb, "load_hub", lambda _: published)
    assert_expected(load_imdb())


def test_change_on_the_hub_is_noticed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published = RawSplits(RawRows("imdb train", ["a"], ["neg"]))
    monkeypatch.setattr(imdb, "load_hub", lambda _: published)
    with pytest.raises(DataError, match="has changed"):
        load_imdb()
