# ruff: noqa: RUF001 - texts in many scripts
from pathlib import Path

import pytest

from lorafit.config import FormatConfig
from lorafit.data.tables import read_table
from lorafit.errors import DataError

TEXTS = {
    "cp1252": [
        "Die Bestellung war schnell und günstig – „bakery“",
        "Un café très agréable, mais c’est cher",
        "A £477 voucher",
    ],
    "latin1": ["Qué película más aburrida, el guión es pésimo", "Niño pequeño y mañana fría"],
    "gb18030": ["酒店环境不错，服务态度也很好，下次还会来", "手机用了两天就坏了，客服不理人"],
    "shift_jis": ["この映画はとても面白かったです", "商品が壊れていました。残念です"],
    "euc_kr": ["이 영화는 정말 재미있었습니다", "배송이 너무 늦고 제품이 고장났어요"],
    "koi8_r": ["Этот фильм был очень интересным", "Товар пришёл сломанным и поздно"],
    "cp1251": ["Этот фильм был очень интересным", "Товар пришёл сломанным и поздно"],
    "utf-16": ["naïve 東京 👎", "plain"],
}


def write(path: Path, lines: list[str], encoding: str) -> Path:
    path.write_bytes("\n".join(lines).encode(encoding))
    return path


@pytest.mark.parametrize("suffix", [".csv", ".txt", ".jsonl"])
@pytest.mark.parametrize("encoding", TEXTS)
def test_encoding_is_found_and_told(tmp_path: Path, encoding: str, suffix: str) -> None:
    texts = TEXTS[encoding] * 5
    lines = {
        ".csv": ["text,label", *(f'"{text}",{row}' for row, text in enumerate(texts))],
        ".txt": texts,
        ".jsonl": [f'{{"text": "{text}"}}' for text in texts],
    }[suffix]
    table = read_table(write(tmp_path / f"a{suffix}", lines, encoding))
    assert table.columns["text"] == texts
    assert not table.faults
    names = {"latin1": "cp1252", "shift_jis": "cp932", "euc_kr": "cp949"}  # what contains them
    told = "as utf-16" if encoding == "utf-16" else f"as {names.get(encoding, encoding)} (confidence "
    assert table.notes[0].startswith(f"a{suffix}: read {told}")


def test_an_encoding_that_fits_as_well_is_named(tmp_path: Path) -> None:
    table = read_table(write(tmp_path / "a.txt", ["plain", "naïve café"], "cp1252"))
    assert table.notes == ("a.txt: read as cp1252 (confidence 1.00; also possible: cp1250, by --encoding).",)


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("texts", [["plain", "naïve"], ["非常失望", "不错"]])
def test_utf16_without_a_mark_is_found(tmp_path: Path, encoding: str, texts: list[str]) -> None:
    table = read_table(write(tmp_path / "a.csv", ["text,label", *(f"{text},1" for text in texts)], encoding))
    assert table.columns["text"] == texts
    assert table.notes == (f"a.csv: read as {encoding}.",)


@pytest.mark.parametrize("place", [5, 6])
def test_utf8_with_a_stray_nul_is_no_utf16(tmp_path: Path, place: int) -> None:
    text = "zornaly tepti"
    table = read_table(write(tmp_path / "a.csv", ["text", text[:place] + "\0" + text[place:], "abc"], "utf-8"))
    assert table.notes == ()
    assert len(table.columns["text"]) == 2
    assert table.columns["text"][1] == "abc"


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("text", ["очень плохо", "πολύ κακό", "बहुत बुरा", "とても悪い 1", "סרט גרוע"])
def test_utf16_of_other_scripts_is_no_utf8_with_nuls(tmp_path: Path, encoding: str, text: str) -> None:
    assert read_table(write(tmp_path / "a.csv", ["text", text * 3, text], encoding)).columns["text"] == [text * 3, text]


def test_utf8_with_bad_bytes_stays_utf8_and_their_rows_are_bad(tmp_path: Path) -> None:
    lines = ["text,label", "naïve 👎,a", "東京,b", "caf\udce9,a", "plain,b"]
    path = tmp_path / "a.csv"
    path.write_bytes("\n".join(lines).encode("utf-8", "surrogateescape"))
    table = read_table(path)
    assert table.columns == {"text": ["naïve 👎", "東京", None, "plain"], "label": ["a", "b", None, "b"]}
    assert table.faults == {2: "bytes that are not UTF-8"}
    assert table.notes == ()
    replaced = read_table(path, FormatConfig(encoding_errors="replace"))
    assert replaced.columns["text"][2] == "caf\N{REPLACEMENT CHARACTER}"
    assert not replaced.faults


def test_bad_bytes_are_found_in_every_kind_of_text_file(tmp_path: Path) -> None:
    for name, content in {
        "a.txt": b"na\xc3\xafve\nb\xff\nplain",
        "a.jsonl": b'{"text": "na\xc3\xafve"}\n{"text": "b\xff"}\n{"text": "plain"}',
        "a.json": b'[{"text": "na\xc3\xafve"}, \n{"text": "b\xff"}, {"text": "plain"}]',
        "a.label": b"x na\xc3\xafve\nx b\xff\nx plain",
        "b.txt": b"__label__x na\xc3\xafve\n__label__x b\xff\n__label__y plain",
    }.items():
        (tmp_path / name).write_bytes(content)
        table = read_table(tmp_path / name)
        assert table.columns["text"] == ["naïve", None, "plain"], name
        assert table.faults == {1: "bytes that are not UTF-8"}, name


def test_bytes_that_another_encoding_does_not_have_make_a_bad_row(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("text,label\n酒店环境不错,1\n".encode("gb18030") * 1 + b"bad \xff,1\n")
    table = read_table(path, FormatConfig(encoding="gb18030"))
    assert table.columns["text"] == ["酒店环境不错", None]
    assert table.faults == {1: "bytes that are not gb18030"}


def test_stray_bytes_in_ascii_are_bad_rows_where_nothing_fits(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"text,label\n" + b"plain,1\n" * 100 + b"\xff\xfe\x00\x81\x8d,1\n")
    table = read_table(path)
    assert len(table) == 101
    assert table.faults == {100: "bytes that are not UTF-8"} or "read as" in table.notes[0]


def test_a_byte_far_into_a_file_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"text,label\n" + b"plain text,1\n" * 100_000 + "schöne Grüße,2\n".encode("cp1252"))
    table = read_table(path)
    assert table.columns["text"][-1] == "schöne Grüße"


def test_one_long_line_is_judged_by_its_first_characters(tmp_path: Path) -> None:
    texts = TEXTS["gb18030"]
    rows = ", ".join(f'{{"text": "{"plain " * 20}{texts[row % 2] if row > 500 else ""}"}}' for row in range(40_000))
    for encoding in ("utf-8", "gb18030"):
        (tmp_path / "a.json").write_bytes(f"[{rows}]".encode(encoding))
        table = read_table(tmp_path / "a.json")
        assert str(table.columns["text"][-1]).endswith(texts[1])
        assert len(table.notes) == (encoding == "gb18030")


def test_noise_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(bytes(range(128, 256)) * 500)
    with pytest.raises(DataError, match=r"is not UTF-8, and no encoding was found that fits.*--encoding cp1252"):
        read_table(path)


@pytest.mark.parametrize("name", ["nonsense", "base64", "idna", "undefined"])
def test_unknown_encoding_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=rf"--encoding {name}: there is no such encoding"):
        read_table(write(tmp_path / "a.csv", ["text,label", "a,1"], "utf-8"), FormatConfig(encoding=name))


def test_a_given_encoding_is_taken_without_a_word(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", ["text,label", "Ł477,1"], "cp1250")
    table = read_table(path, FormatConfig(encoding="cp1250"))
    assert table.columns["text"] == ["Ł477"]
    assert table.notes == ()
    path = write(tmp_path / "b.csv", ["\ufefftext,label", "é,1"], "utf-16-le")
    assert list(read_table(path, FormatConfig(encoding="utf-16-le")).columns) == ["text", "label"]
