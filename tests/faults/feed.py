"""Feeds a reader bytes that coverage leads to: `feed.py READER FOLDER`, then options of libFuzzer."""

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["lorafit", "yaml"]):
    from lorafit.config import load_config
    from lorafit.data.tables import read_table
    from lorafit.errors import LorafitError
    from lorafit.runs.records import RunRecord

READER, FOLDER = sys.argv[1], Path(sys.argv[2])
SEEDS = {
    "csv": b'text,label\n"a ""b""",pos\nc,neg\n',
    "json": b'{"data": [{"text": "a", "label": ["pos"]}]}',
    "jsonl": b'{"text": "a", "label": 1}\n{"text": null}\n',
    "txt": "a\r\n\ufeffb\n".encode(),
    "yaml": b"data: {source: a.csv}\ntraining:\n  epochs: 3\n",
    "set": b"training.epochs=3",
    "record": b'{"schema_version": 3, "seal": "0"}',
}


def read(content: bytes) -> None:
    """Give the reader these bytes; what is no `LorafitError` is a finding."""
    path = FOLDER / f"input.{ {'record': 'json', 'set': 'txt'}.get(READER, READER) }"
    path.write_bytes(content)
    try:
        if READER == "set":
            load_config(overrides=content.decode(errors="replace").split("\n"))
        elif READER == "yaml":
            load_config(path)
        elif READER == "record":
            RunRecord.read(path)
        else:
            read_table(path)
    except LorafitError as error:
        if len(str(error)) > 4000:
            raise AssertionError(f"a message of {len(str(error))} characters: {str(error)[:200]}") from error


def write_seed(corpus: Path) -> None:
    """Write a valid input to begin with."""
    corpus.mkdir(exist_ok=True)
    if READER == "parquet":
        import pyarrow as pa
        from pyarrow import parquet

        parquet.write_table(pa.table({"text": ["a", "b"], "label": [1, 2]}), corpus / "seed")
    elif READER == "xlsx":
        import openpyxl

        book = openpyxl.Workbook()
        book.active.append(["text", "label"])
        book.active.append(["a", "pos"])
        book.save(corpus / "seed")
    else:
        (corpus / "seed").write_bytes(SEEDS[READER])


write_seed(FOLDER / "corpus")
atheris.Setup([sys.argv[0], *sys.argv[3:], str(FOLDER / "corpus")], read)
atheris.Fuzz()
