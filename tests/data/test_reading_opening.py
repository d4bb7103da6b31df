import bz2
import gzip
import io
import lzma
import os
import shlex
import stat
import subprocess
import zipfile
from pathlib import Path

import pytest
import zstandard

from lorafit.data.reading import opening
from lorafit.data.tables import find_kind, read_table, stream_table
from lorafit.errors import DataError

CONTENT = b"text,label\na,1\nb,2\n"
COLUMNS = {"text": ["a", "b"], "label": ["1", "2"]}
PACK = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstandard.compress}


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def pack(*members: tuple[str | zipfile.ZipInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return buffer.getvalue()


@pytest.mark.parametrize("suffix", PACK)
def test_packed_files_are_read(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"train.CSV{suffix}", PACK[suffix](CONTENT))
    assert read_table(path).columns == COLUMNS
    assert [len(part) for part in stream_table(path, most_rows=1)] == [1, 1]
    assert find_kind(path) == ".csv"
    path = write(tmp_path / f"a.jsonl{suffix}", PACK[suffix](b'{"text": "a"}\n'))
    assert read_table(path).columns == {"text": ["a"]}


@pytest.mark.parametrize("suffix", PACK)
def test_damaged_packed_files_are_refused(tmp_path: Path, suffix: str) -> None:
    packed = PACK[suffix](os.urandom(5_000).hex().encode())
    for content in (packed[: len(packed) // 2], packed[:20] + b"damage" + packed[26:], b"no such thing"):
        with pytest.raises(DataError, match="is damaged or incomplete"):
            read_table(write(tmp_path / f"a.csv{suffix}", content))


@pytest.mark.parametrize("suffix", PACK)
def test_bombs_are_not_unpacked(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "SMALL", 1 << 16)
    path = write(tmp_path / f"a b.csv{suffix}", PACK[suffix](b"a,b\n" * 250_000))
    with pytest.raises(DataError, match=r"unpacks to more than .* bytes; allowed are 100 times its own size") as caught:
        read_table(path)
    assert str(caught.value).endswith(shlex.quote(str(path)))


def test_the_one_text_file_of_a_zip_archive_is_read(tmp_path: Path) -> None:
    members = [("__MACOSX/._train.csv", b"x"), ("data/train.csv", CONTENT), (".DS_Store", b"x"), ("README.txt", b"x")]
    path = write(tmp_path / "a.zip", pack(*members))
    assert read_table(path).columns == COLUMNS
    assert find_kind(path) == ".csv"


def link() -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo("a.csv")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    return entry


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            pack(("train.csv", CONTENT), ("test.csv", CONTENT)),
            r"holds train\.csv, test\.csv; one text file is needed.*unzip",
        ),
        (pack(), "holds no files"),
        (pack(("a.png", b"x")), r"holds a\.png; one text file is needed"),
        (pack(("../a.csv", CONTENT)), "holds a link or a path that leads out of it"),
        (pack(("/etc/a.csv", CONTENT)), "holds a link or a path that leads out of it"),
        (pack((link(), b"/etc/passwd")), "holds a link or a path that leads out of it"),
        (pack(("a.csv", b"a,b\n" * 5_000_000)), r"unpacks to 20,000,000 bytes; allowed are.*unzip"),
        (pack(("a.csv", CONTENT))[:-5], "is not a readable zip archive"),
        (b"no archive", "is not a readable zip archive"),
    ],
)
def test_other_zip_archives_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_table(write(tmp_path / "a.zip", content))


def test_a_zip_archive_that_lies_about_its_size_is_not_unpacked(tmp_path: Path) -> None:
    size = 20_000_000
    content = pack(("a.csv", b"a,b\n" * (size // 4))).replace(size.to_bytes(4, "little"), (1000).to_bytes(4, "little"))
    with pytest.raises(DataError, match=r"is damaged or incomplete|unpacks to more than"):
        read_table(write(tmp_path / "a.zip", content))


def test_an_archive_of_too_many_or_encrypted_files_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = bytearray(pack(("a.csv", CONTENT)))
    for signature, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + place] |= 1
    with pytest.raises(DataError, match="it is encrypted"):
        read_table(write(tmp_path / "a.zip", bytes(content)))
    monkeypatch.setenv("LORAFIT_LIMIT_ENTRIES", "1")
    with pytest.raises(DataError, match="holds 2 files; allowed are 1"):
        read_table(write(tmp_path / "a.zip", pack(("a.csv", CONTENT), ("b.png", b"x"))))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my data.tar.gz", r"holds several files\. Unpack it first: tar -xf '.*/my data\.tar\.gz'$"),
        ("a.tgz", "tar -xf .*a.tgz$"),
        ("a.7z", "7z x .*a.7z$"),
        ("a.parquet.gz", "are read unpacked. Unpack it first: gunzip -k .*a.parquet.gz$"),
        ("a.gz", r"what is packed must be named, as in a\.csv\.gz.*gunzip -k"),
        ("a.xls", "libreoffice --headless --convert-to xlsx .*a.xls$"),
        ("a.ods", "libreoffice --headless --convert-to xlsx .*a.ods$"),
    ],
)
def test_what_cannot_be_read_gets_the_command_that_helps(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_table(write(tmp_path / name, b"x"))


def test_the_command_for_a_packed_parquet_file_works(tmp_path: Path) -> None:
    path = write(tmp_path / "my data.parquet.gz", gzip.compress(CONTENT))
    with pytest.raises(DataError) as caught:
        read_table(path)
    subprocess.run(shlex.split(str(caught.value).partition("first: ")[2]), check=True)
    assert path.with_suffix("").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("address", "command"),
    [
        ("https://x.org/a b.csv?x=1&y=2", "curl -LO 'https://x.org/a b.csv?x=1&y=2'"),
        ("s3://bucket/key.csv", "aws s3 cp s3://bucket/key.csv ."),
        ("gs://bucket/key", "gcloud storage cp gs://bucket/key ."),
        ("hf://datasets/a/b/data/t.csv", "hf download --repo-type dataset a/b data/t.csv --local-dir ."),
        ("abfs://c/d.csv", "python -c "),
    ],
)
def test_addresses_get_the_command_that_fetches_them(address: str, command: str) -> None:
    with pytest.raises(DataError, match="is an address; files are read from disk") as caught:
        read_table(Path(address))
    assert command in str(caught.value)


def test_pipes_and_devices_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.csv")
    with pytest.raises(DataError, match=r"is a pipe; a file is needed.*Write it to a file first"):
        read_table(tmp_path / "a.csv")
    with pytest.raises(DataError, match="is a device"):
        read_table(Path(os.devnull))


@pytest.mark.parametrize(
    "content", [pack(("a.csv", CONTENT)), gzip.compress(CONTENT), b"PAR1" + bytes(50)], ids=["zip", "gzip", "parquet"]
)
def test_a_text_file_that_is_none_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(DataError, match=r"is no text: it begins as .* does\. Give it the suffix of what it is"):
        read_table(write(tmp_path / "a.csv", content))
