import datetime
import json
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import feather

from lorafit.data.reading.columnar import ArrowColumn
from lorafit.data.tables import Table, check_columns, read_table, select, stream_table
from lorafit.data.writing import write_table
from lorafit.errors import DataError, EnvironmentUnfitError, MissingExtraError, UserInputError


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_csv_is_read_in_order(tmp_path: Path) -> None:
    table = read_table(write(tmp_path / "a.csv", "text,label\nfine,1\n\nbad,0\n"))
    assert table == Table({"text": ["fine", "bad"], "label": ["1", "0"]}, "a.csv")
    assert len(table) == 2


def test_byte_order_mark_and_upper_case_suffix_are_accepted(tmp_path: Path) -> None:
    assert list(read_table(write(tmp_path / "a.CSV", b"\xef\xbb\xbftext,label\na,b\n")).columns) == ["text", "label"]


def test_csv_takes_quoted_line_breaks_quotes_nul_bytes_and_long_texts(tmp_path: Path) -> None:
    long = "x" * 1_000_000
    table = read_table(write(tmp_path / "a.csv", f'text,label\n"a\r\nb",1\n"say ""c""",2\nd\0e,3\n{long},4\n'))
    assert table.columns["text"] == ["a\r\nb", 'say "c"', "d\0e", long]


def test_tsv_is_read(tmp_path: Path) -> None:
    assert read_table(write(tmp_path / "a.tsv", "text\tlabel\na, b\tx\n")).columns == {"text": ["a, b"], "label": ["x"]}


def test_txt_keeps_a_row_a_line(tmp_path: Path) -> None:
    table = read_table(write(tmp_path / "a.txt", "one\r\n\ntwo\u2028still two\n"))
    assert table.columns == {"text": ["one", "", "two\u2028still two"]}


def test_jsonl_takes_the_union_of_keys(tmp_path: Path) -> None:
    table = read_table(write(tmp_path / "a.jsonl", '{"text": "a\u2028b"}\n\n{"label": 1, "text": "c"}\n'))
    assert table.columns == {"text": ["a\u2028b", "c"], "label": [None, 1]}


def test_ndjson_is_jsonl(tmp_path: Path) -> None:
    assert read_table(write(tmp_path / "a.ndjson", '{"text": "a"}')).columns == {"text": ["a"]}


def test_parquet_is_read_without_columns_from_folder_names(tmp_path: Path) -> None:
    folder = tmp_path / "label=9"
    folder.mkdir()
    pq.write_table(pa.table({"text": ["a", None], "label": [0, 1]}), folder / "a.parquet")
    assert read_table(folder / "a.parquet").columns == {"text": ["a", None], "label": [0, 1]}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "", r"a\.csv is empty"),
        ("a.csv", "\n\r\n", r"a\.csv is empty"),
        ("a.csv", "text,label\n", "has no rows below its header"),
        ("a.jsonl", "", r"a\.jsonl has no rows\."),
        ("a.jsonl", "{}\n{}\n", "2 rows without any key"),
        ("a.jsonl", '"secret"\n', "line 1 is a JSON string instead of an object"),
        ("a.jsonl", '\nsecret\n{"text": 1', r"line 2 is not valid JSON \(Expecting value\); rows are objects, as in"),
        ("a.jsonl", '{"n": ' + "1" * 5000 + "}", "line 1 is JSON with a number of too many digits"),
        ("a.jsonl", "[" * 200_000, "cannot be read as it is JSON with .* or more than 100 levels"),
        ("a.json", '[{"text": "secret"},', "is not valid JSON: .* at line 1, column 21"),
        ("a.json", '"secret"', "holds a JSON string instead of an object"),
        ("a.txt", " \n\n", "has no rows"),
        ("a.parquet", b"PAR1 not really", r"a\.parquet is not a readable parquet file"),
        ("a.feather", b"ARROW1 not really", r"a\.feather is not a readable Arrow file"),
        ("a.xlsx", "x", r"a\.xlsx is not a readable zip archive"),
        ("a.doc", "x", r"its suffix is '\.doc'\. Allowed: \.csv, \.tsv, \.jsonl, \.ndjson, \.json, \.txt"),
    ],
)
def test_bad_file_is_explained_without_its_texts(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read_table(write(tmp_path / name, content))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".txt", ".parquet"])
def test_a_table_is_the_same_part_by_part(tmp_path: Path, suffix: str) -> None:
    texts = ["one", 'a "quoted"\r\ntext' if suffix != ".txt" else "plain", "été 🎬\u2028", "", "last"]
    path = tmp_path / f"in{suffix}"
    if suffix == ".txt":
        path.write_text("\n".join(texts), encoding="utf-8")
    else:
        write_table(path, {"text": texts, "row": list(range(5))})
    whole = read_table(path)
    parts = list(stream_table(path, most_rows=2))
    assert [len(part) for part in parts] == [2, 2, 1]
    assert {name: [value for part in parts for value in part.columns[name]] for name in whole.columns} == whole.columns


def test_a_part_of_a_jsonl_file_without_keys_is_rows_without_values(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"text": "a"}\n{}\n{}\n')
    assert [part.columns for part in stream_table(path, most_rows=2)] == [{"text": ["a", None]}, {"text": [None]}]


def test_a_part_ends_after_so_many_characters(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    write_table(path, {"text": ["x" * 60, "y" * 60, "z", "z", "z"]})
    assert [len(part) for part in stream_table(path, most_rows=3, most_characters=100)] == [2, 3]


def test_notes_of_a_file_come_once_with_the_part_in_which_they_are_known(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text;label\na, b;1\n\ntext;label\nc;2\nd;3\n")
    parts = list(stream_table(path, most_rows=1))
    assert [part.columns["text"] for part in parts] == [["a, b"], ["c"], ["d"]]
    assert [part.notes for part in parts] == [
        ("a.csv: read with delimiter ';'.",),
        (),
        ("a.csv: line 4 repeats the header; left out.",),
    ]
    assert read_table(path).notes == (*parts[0].notes, *parts[2].notes)


def test_faults_keep_their_place_over_parts(tmp_path: Path) -> None:
    rows = [f"row {row},{row % 2}" + (",more" if row in {4_000, 4_097, 9_000} else "") for row in range(10_000)]
    table = read_table(write(tmp_path / "a.csv", "\n".join(["text,label", *rows])))
    assert table.faults == dict.fromkeys((4_000, 4_097, 9_000), "3 fields instead of 2")
    assert [table.columns["text"][row] for row in (4_000, 4_001, 4_097)] == [None, "row 4001", None]
    assert len(table) == 10_000


def test_columns_that_come_later_are_empty_before(tmp_path: Path) -> None:
    lines = [json.dumps({"text": "a"} if row < 5_000 else {"text": "b", "stars": row}) for row in range(5_001)]
    table = read_table(write(tmp_path / "a.jsonl", "\n".join(lines)))
    assert table.columns["stars"] == [None] * 5_000 + [5_000]


def test_parquet_without_rows_is_refused_and_columns_of_the_same_name_are_told_apart(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="has no rows"):
        read_table(tmp_path / "a.parquet")
    pq.write_table(pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], ["text", "text"]), tmp_path / "b.parquet")
    assert read_table(tmp_path / "b.parquet").columns == {"text (column 1)": ["a"], "text (column 2)": ["b"]}


@pytest.mark.parametrize("suffix", [".feather", ".arrow"])
def test_arrow_files_are_read(tmp_path: Path, suffix: str) -> None:
    table = pa.table({"text": ["a", None, "c"], "label": pa.array([0, 1, 1], pa.int8())})
    if suffix == ".feather":
        feather.write_feather(table, tmp_path / "a.feather")
    else:
        with pa.ipc.new_stream(tmp_path / "a.arrow", table.schema) as stream:
            stream.write_table(table)
    assert read_table(tmp_path / f"a{suffix}").columns == {"text": ["a", None, "c"], "label": [0, 1, 1]}


def test_missing_file_is_named_with_its_nearest_neighbour(tmp_path: Path) -> None:
    write(tmp_path / "reviews.csv", "x")
    with pytest.raises(DataError, match=r"There is no file .*reviws\.csv\. Did you mean .*reviews\.csv\?"):
        read_table(tmp_path / "reviws.csv")
    with pytest.raises(DataError, match=r"There is no file .*a\.csv\.$"):
        read_table(tmp_path / "absent" / "a.csv")


def test_folder_and_unreadable_file_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"is a folder without a folder of \.txt files for each class"):
        read_table(tmp_path)
    path = write(tmp_path / "a.csv", "x")

    def refuse(self: Path, *_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)  # tests may run as root, who may read anything
    with pytest.raises(DataError, match=r"a\.csv cannot be read: Permission denied"):
        read_table(path)


def test_parquet_without_pyarrow_gives_the_pip_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"reading parquet files needs.*\n  pip install .*\[train\]'"):
        read_table(write(tmp_path / "a.parquet", "x"))


def test_missing_column_lists_those_there() -> None:
    check_columns(["text", "label"], {"text": "--text-column"}, "a.csv")
    with pytest.raises(
        DataError, match=r"a\.csv has no column 'text'\. Its columns: \['review', 'label'\].*--text-col"
    ):
        check_columns(["review", "label"], {"text": "--text-column"}, "a.csv")
    with pytest.raises(DataError, match=r"a\.csv has several columns 'text', told apart by their place. Its columns: "):
        check_columns(["text (column 1)", "text (column 2)"], {"text": "--text-column"}, "a.csv")


@pytest.mark.parametrize(("there", "meant"), [("Text", "Text"), (" text ", "' text '"), ("TEXT ", "'TEXT '")])
def test_column_that_differs_in_case_or_blanks_is_offered(there: str, meant: str) -> None:
    with pytest.raises(DataError, match=rf"has no column 'text'\..* Did you mean --text-column {meant}\?$"):
        check_columns(["label", there], {"text": "--text-column"}, "a.csv")


COLUMNS: dict[str, Any] = {
    "text": ["a, b", 'say "c"', "tab\tline\nend", "lone\rreturn", "é\u2028"],
    "score": np.asarray([0.5, 0.25, 1.0, 0.0, 0.125], dtype=np.float32),
}


@pytest.mark.parametrize(
    ("present", "hint"),
    [
        (["a", "b"], "Texts come in pairs: give --text-column twice, for the first text of each pair and the second."),
        (["question", "Answer"], "Did you mean --text-column question --text-column Answer?"),
    ],
)
def test_missing_columns_of_pairs_are_named_twice(present: list[str], hint: str) -> None:
    with pytest.raises(DataError) as raised:
        check_columns(present, dict.fromkeys(("question", "answer"), "--text-column"), "qa.csv")
    assert str(raised.value).endswith(hint)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".ndjson", ".parquet"])
def test_what_is_written_is_read_back(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / "new" / f"out{suffix}"
    write_table(path, COLUMNS)
    table = read_table(path)
    assert table.columns["text"] == COLUMNS["text"]
    assert [float(str(score)) for score in table.columns["score"]] == [0.5, 0.25, 1.0, 0.0, 0.125]
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_csv_is_quoted_only_where_needed(tmp_path: Path) -> None:
    write_table(tmp_path / "a.csv", {"text": ["fine", "a, b"], "extra": [None, {"k": [1]}]})
    assert (tmp_path / "a.csv").read_bytes() == b'text,extra\nfine,\n"a, b","{""k"": [1]}"\n'


def test_jsonl_is_valid_whatever_the_values(tmp_path: Path) -> None:
    values: list[object] = [float("nan"), datetime.date(2020, 1, 2), "half \ud800 pair", {"k": 1}]
    write_table(tmp_path / "a.jsonl", {"x": values})
    lines = (tmp_path / "a.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["x"] for line in lines] == [None, "2020-01-02", "half \ud800 pair", {"k": 1}]


@pytest.mark.parametrize("values", [["secret", 1], ["secret \ud800"], [2**70]])
def test_column_that_parquet_cannot_hold_is_named(tmp_path: Path, values: list[object]) -> None:
    with pytest.raises(UserInputError, match=r"Column 'extra' does not fit into a parquet file.*\.jsonl") as caught:
        write_table(tmp_path / "a.parquet", {"text": ["a"] * len(values), "extra": values})
    assert "secret" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_output_of_another_kind_or_place_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserInputError, match=r"out\.txt cannot be written: its suffix is '\.txt'\. Allowed: \.csv"):
        write_table(tmp_path / "out.txt", {"text": ["a"]})
    write(tmp_path / "file", "x")
    with pytest.raises(UserInputError, match=r"out\.csv cannot be written"):
        write_table(tmp_path / "file" / "out.csv", {"text": ["a"]})


def test_a_full_disk_is_a_fault_of_the_machine(small_disk: Callable[[str], Path]) -> None:
    with pytest.raises(EnvironmentUnfitError, match=r"No space is left|grows beyond"):
        write_table(small_disk("64k") / "out.csv", {"text": ["a" * 100_000]})


def test_columns_of_different_length_are_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="columns differ in length"):
        write_table(tmp_path / "a.csv", {"text": ["a"], "label": ["b", "c"]})


def write_types(path: Path) -> pa.Table:
    """A table of types that Python lacks, of 3,000 rows: more than one part."""
    rows = range(3000)
    moments = [1_577_836_800_123_456_789 + row for row in rows]
    columns = {
        "text": pa.array([f"text {row}" for row in rows], pa.large_string()),
        "kind": pa.array(["ab"[row % 2] for row in rows]).dictionary_encode(),
        "moment": pa.array(moments, pa.timestamp("ns", "Europe/Berlin")),
        "span": pa.array(moments, pa.duration("ns")),
        "time": pa.array([row * 1001 for row in rows], pa.time64("ns")),
        "price": pa.array([Decimal("1.10")] * len(rows), pa.decimal128(20, 2)),
        "small": pa.array([row % 100 for row in rows], pa.int8()),
        "hash": pa.array([1 if row < 2000 else 2**63 + row for row in rows], pa.uint64()),
        "half": pa.array([np.float16(0.5)] * len(rows), pa.float16()),
        "map": pa.array([[("a", row)] for row in rows], pa.map_(pa.string(), pa.int64())),
        "deep": pa.array([{"at": [moments[row]]} for row in rows], pa.struct([("at", pa.list_(pa.timestamp("ns")))])),
        "raw": pa.array([b"\x00\xff"] * len(rows), pa.binary(2)),
    }
    table = pa.table(columns)
    pq.write_table(table, path)
    return table


@pytest.mark.parametrize("suffix", [".parquet", ".feather"])
def test_columns_of_arrow_types_keep_them_and_have_values_of_python(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    table = write_types(tmp_path / "a.parquet")
    if suffix == ".feather":
        feather.write_feather(table, path)
    parts = list(stream_table(path, most_rows=700))
    assert len(parts) > 2
    for name in table.column_names:
        arrays = [part.columns[name].array for part in parts]
        assert pa.chunked_array(arrays).cast(table[name].type).equals(table[name]), name
        assert all(array.type.equals(table[name].type) for array in arrays), name
    first = {name: values[1] for name, values in parts[0].columns.items()}
    assert first["moment"] == "2020-01-01 01:00:00.123456790+0100"
    assert (first["time"], first["span"]) == ("00:00:00.000001001", "1577836800123456790 ns")
    assert (first["small"], first["price"], first["map"]) == (1, Decimal("1.10"), [("a", 1)])
    assert read_table(path).columns["hash"][-1] == 2**63 + 2999


def test_rows_of_a_column_are_chosen_with_its_type() -> None:
    column = ArrowColumn(pa.array([5, 6, 7], pa.int8()))
    for rows, values in (([0, 2], [5, 7]), ([], []), ([None, None], [None, None]), ([1, None], [6, None])):
        chosen = select(column, rows)
        assert isinstance(chosen, ArrowColumn)
        assert (list(chosen), str(chosen.array.type)) == (values, "int8")
    assert select(["a", "b"], [1, None]) == ["b", None]


def test_long_texts_end_a_part_of_parquet(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["x" * 100] * 10, "id": list(range(10))}), tmp_path / "a.parquet")
    parts = list(stream_table(tmp_path / "a.parquet", most_characters=250))
    assert [len(part) for part in parts] == [3, 3, 3, 1]
    assert [row for part in parts for row in part.columns["id"]] == list(range(10))
