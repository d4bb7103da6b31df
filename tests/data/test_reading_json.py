import json
from pathlib import Path

import pytest

from lorafit.data.tables import read_table, stream_table
from lorafit.errors import DataError

ROWS = [{"text": "a", "label": 1}, {"text": "b", "label": 2}]
COLUMNS = {"text": ["a", "b"], "label": [1, 2]}


def write(path: Path, content: str) -> Path:
    path.write_text(content, encoding="utf-8")
    return path


DOCUMENTS = {
    "lines": "\n".join(map(json.dumps, ROWS)),
    "list": json.dumps(ROWS),
    "indented list": json.dumps(ROWS, indent=1),
    "columns": json.dumps(COLUMNS),
    "indented columns": json.dumps(COLUMNS, indent=1),
    "one list of rows": json.dumps({"version": "1", "data": ROWS}, indent=1),
    "pandas columns": json.dumps({"text": {"0": "a", "1": "b"}, "label": {"0": 1, "1": 2}}),
    "pandas split": json.dumps({"columns": ["text", "label"], "index": [0, 1], "data": [["a", 1], ["b", 2]]}),
    "rows by id": json.dumps({"r0": ROWS[0], "r1": ROWS[1]}),
}


@pytest.mark.parametrize("form", DOCUMENTS)
def test_every_form_of_json_is_read(tmp_path: Path, form: str) -> None:
    table = read_table(write(tmp_path / "a.json", "\n " + DOCUMENTS[form]))
    assert table.columns == COLUMNS
    assert table.notes == (("a.json: its rows are the list under 'data'.",) if form == "one list of rows" else ())


@pytest.mark.parametrize("suffix", [".jsonl", ".ndjson"])
@pytest.mark.parametrize("form", ["lines", "list", "indented list"])
def test_a_list_is_read_though_lines_are_promised(tmp_path: Path, form: str, suffix: str) -> None:
    assert read_table(write(tmp_path / f"a{suffix}", DOCUMENTS[form])).columns == COLUMNS


def test_columns_by_row_number_keep_rows_that_the_first_lacks(tmp_path: Path) -> None:
    columns = {"label": {"0": 1, "2": 3}, "text": {"0": "a", "1": "b", "2": "c"}}
    table = read_table(write(tmp_path / "a.json", json.dumps(columns)))
    assert table.columns == {"label": [1, 3, None], "text": ["a", "c", "b"]}


def test_one_object_is_one_row(tmp_path: Path) -> None:
    for name in ("a.json", "a.jsonl"):
        assert read_table(write(tmp_path / name, '{"text": "a", "labels": ["x"]}')).columns == {
            "text": ["a"],
            "labels": [["x"]],
        }


def test_nested_values_stay_as_they_are(tmp_path: Path) -> None:
    rows = [{"text": "a", "cats": {"x": 1, "y": 0}}, {"text": "b", "cats": [[1], {"k": None}]}]
    for name, content in {"a.json": json.dumps(rows), "a.jsonl": "\n".join(map(json.dumps, rows))}.items():
        assert read_table(write(tmp_path / name, content)).columns["cats"] == [row["cats"] for row in rows]


def test_lines_that_hold_no_object_are_bad_rows(tmp_path: Path) -> None:
    lines = ['{"text": "a"}', '{"text": "secret', '["secret"]', "", "7", "{'text': 'x'}", '{"text": "b"}']
    table = read_table(write(tmp_path / "a.jsonl", "\n".join(lines)))
    assert table.columns == {"text": ["a", None, None, None, None, "b"]}
    assert table.faults == {
        1: "not valid JSON (Unterminated string starting at)",
        2: "a JSON list instead of an object",
        3: "a JSON number instead of an object",
        4: "not valid JSON (Expecting property name enclosed in double quotes)",
    }
    assert [part.faults for part in stream_table(tmp_path / "a.jsonl", most_rows=2)] == [
        {1: table.faults[1]},
        {0: table.faults[2], 1: table.faults[3]},
        {0: table.faults[4]},
    ]
    table = read_table(write(tmp_path / "a.json", '[{"text": "a"}, "secret", null]'))
    assert table.faults == {1: "a JSON string instead of an object", 2: "a JSON null instead of an object"}


def test_several_lists_are_not_chosen_from(tmp_path: Path) -> None:
    path = write(tmp_path / "my file.json", json.dumps({"train": ROWS, "test": ROWS}))
    with pytest.raises(DataError, match=r"several lists of rows: \['train', 'test'\].*jq -c .* '.*my file\.json' >"):
        read_table(path)


def test_a_document_too_large_for_memory_gets_the_command_for_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORAFIT_LIMIT_FILE", "10")
    with pytest.raises(
        DataError, match=r"too large for one JSON document; allowed are 10 b.* jq -c '\.\[\]' .*a\.json > "
    ):
        read_table(write(tmp_path / "a.json", json.dumps(ROWS)))
