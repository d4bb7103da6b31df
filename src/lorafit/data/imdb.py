"""`imdb`: the Large Movie Review Dataset (Maas et al. 2011, https://aclanthology.org/P11-1015), 25,000 + 25,000 rows.

It is looked for in `$LORAFIT_DATA/imdb`, in three layouts, then on the Hub. Published rows are kept, repeats too.
"""

import gzip
import os
import re
import tarfile
import zlib
from pathlib import Path

from lorafit.data.hub import load_hub
from lorafit.data.rows import RawRows, RawSplits
from lorafit.data.tables import read_table
from lorafit.errors import DataError, NetworkUnavailableError
from lorafit.system import limits
from lorafit.system.files import read_file
from lorafit.system.paths import expand_home

DATA_VARIABLE = "LORAFIT_DATA"
"""Environment variable that names the folder of large data sets."""

IMDB_LABELS = ("negative", "positive")

PUBLISHED_ROWS = 25_000
HUB_NAME = "hub:stanfordnlp/imdb"
ARCHIVE = "aclImdb_v1.tar.gz"
FOLDERS = {"neg": "negative", "pos": "positive"}
MEMBER = re.compile(
    r"(?:\./)?aclImdb/(?P<split>train|test)/(?P<label>neg|pos)/(?P<number>[0-9]+)_(?P<rating>[0-9]+)\.txt"
)


def load_imdb() -> RawSplits:
    """Load IMDb from `$LORAFIT_DATA/imdb` or the Hub.

    Returns:
        Train and test rows as published: by order of the parquet files, or negative before positive, each by number.
        Every further column of the parquet files is kept; folders and archive give `rating` (1 to 10), the Hub nothing.

    Raises:
        DataError: What lies in the folder is incomplete or damaged.
        NetworkUnavailableError: It is in none of the places and the Hub cannot be reached.
        MissingExtraError: pyarrow or datasets is needed and not installed.
    """
    root = os.environ.get(DATA_VARIABLE)
    folder = expand_home(root).absolute() / "imdb" if root else None
    if folder is not None:
        if (folder / "train.parquet").is_file() or (folder / "test.parquet").is_file():
            return _build(*(_read_parquet(folder / f"{split}.parquet", split) for split in ("train", "test")))
        if (folder / "aclImdb").is_dir():
            return _build(*(_read_folders(folder / "aclImdb" / split, split) for split in ("train", "test")))
        if (folder / ARCHIVE).is_file():
            return _build(*_read_archive(folder / ARCHIVE))
    return _load_from_hub(folder)


def _build(train: RawRows, test: RawRows) -> RawSplits:
    notes = [
        f"{rows.origin}: {len(rows.texts):,} rows instead of the published {PUBLISHED_ROWS:,}."
        for rows in (train, test)
        if len(rows.texts) != PUBLISHED_ROWS
    ]
    return RawSplits(train, test=test, label_names=IMDB_LABELS, notes=tuple(notes))


def _load_from_hub(folder: Path | None) -> RawSplits:
    try:
        published = load_hub(HUB_NAME)
    except NetworkUnavailableError as error:
        place = f"in {folder}" if folder is not None else f"nowhere on this machine, as {DATA_VARIABLE} is not set,"
        raise NetworkUnavailableError(
            f"imdb was looked for {place} and on the Hub ({HUB_NAME.removeprefix('hub:')}), which cannot be reached. "
            f"Set {DATA_VARIABLE} to a folder whose subfolder imdb/ holds one of: train.parquet and test.parquet "
            f"(columns text, label), the folder aclImdb/, or {ARCHIVE}."
        ) from error
    if published.label_names is None or len(published.label_names) != 2 or published.test is None:
        raise DataError(f"{HUB_NAME} has changed: two named labels and a test split were expected.")
    names = dict(zip(published.label_names, IMDB_LABELS, strict=True))
    return _build(*(_rename(rows, names) for rows in (published.train, published.test)))


def _rename(rows: RawRows, names: dict[str, str]) -> RawRows:
    return RawRows(rows.origin, rows.texts, [names.get(str(label)) for label in rows.labels])


def _read_parquet(path: Path, split: str) -> RawRows:
    table = read_table(path)
    if not {"text", "label"} <= table.columns.keys():
        raise DataError(f"{path} needs the columns text and label. Its columns: {list(table.columns)}.")
    labels = table.columns["label"]
    strange = sorted({repr(label) for label in labels if label not in (0, 1)})
    if strange:
        raise DataError(f"{path}: labels must be 0 (negative) or 1 (positive), got {', '.join(strange[:5])}.")
    return RawRows(
        f"imdb {split}",
        table.columns["text"],
        [IMDB_LABELS[1 if label == 1 else 0] for label in labels],
        columns={name: values for name, values in table.columns.items() if name not in {"text", "label"}},
    )


def _read_folders(folder: Path, split: str) -> RawRows:
    reviews = {}
    for name in FOLDERS:
        for path in (folder / name).glob("*.txt"):
            match = MEMBER.fullmatch(f"aclImdb/{split}/{name}/{path.name}")
            if match is not None:
                reviews[name, int(match["number"]), int(match["rating"])] = read_file(path, DataError, limits.TEXT)
    return _order(reviews, split, folder)


def _read_archive(path: Path) -> tuple[RawRows, RawRows]:
    """Read the archive as a stream; nothing is unpacked to disk."""
    reviews: dict[str, dict[tuple[str, int, int], bytes]] = {"train": {}, "test": {}}
    try:
        with gzip.open(path) as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
            for member in archive:
                match = MEMBER.fullmatch(member.name)
                file = archive.extractfile(member) if match is not None and member.isreg() else None
                if match is not None and file is not None:
                    limits.TEXT.check(member.size, f"{path}: {member.name} is no review", DataError)
                    key = (match["label"], int(match["number"]), int(match["rating"]))
                    reviews[match["split"]][key] = file.read()
            while stream.read(2**20):  # to its end, where gzip compares length and checksum
                pass
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise DataError(f"{path} is damaged or incomplete: {error}. Download it again.") from error
    return _order(reviews["train"], "train", path), _order(reviews["test"], "test", path)


def _order(reviews: dict[tuple[str, int, int], bytes], split: str, place: Path) -> RawRows:
    missing = [name for name in FOLDERS if not any(label == name for label, *_ in reviews)]
    if missing:
        raise DataError(
            f"{place} has no reviews for {' and '.join(f'{split}/{name}' for name in missing)}: files such as "
            "0_9.txt are expected there. Unpack or download the archive again."
        )
    keys = sorted(reviews)
    try:
        texts = [reviews[key].decode("utf-8") for key in keys]
    except UnicodeDecodeError:
        raise DataError(f"{place}: a review of {split} is not UTF-8. Download the archive again.") from None
    ratings = [rating for *_, rating in keys]
    return RawRows(f"imdb {split}", texts, [FOLDERS[name] for name, *_ in keys], columns={"rating": ratings})
