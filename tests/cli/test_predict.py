import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest

import lorafit
from lorafit.cli import main
from lorafit.data.tables import read_table
from lorafit.data.writing import write_table
from lorafit.inference.job_parts import JobRecord, PartRecord
from lorafit.inference.predictor import Predictor

Call = Callable[..., Any]
TEXTS = ["superb great film", "dull boring\nstory", "lovely été 🎬"]


@pytest.fixture(scope="module")
def predictor(trained: Path) -> Predictor:
    return lorafit.load(trained)


def test_words_are_answered_line_by_line(call: Call, trained: Path, predictor: Predictor) -> None:
    answer = call("predict", trained, *TEXTS, "--runtime", "torch")
    assert answer.code == 0
    expected = [
        f"{prediction.label}  {prediction.score:6.1%}  {' '.join(text.split())}"
        for text, prediction in zip(TEXTS, predictor.predict(TEXTS), strict=True)
    ]
    assert answer.out.splitlines() == expected
    assert "\x1b" not in answer.out + answer.err


def test_one_text_needs_no_progress(call: Call, trained: Path) -> None:
    answer = call("predict", trained, "superb")
    assert answer.err == ""
    assert len(answer.out.splitlines()) == 1


def test_json_has_one_object_a_text(call: Call, trained: Path, predictor: Predictor) -> None:
    lines = call("predict", trained, *TEXTS, "--json", "--runtime", "torch").out.splitlines()
    expected = predictor.predict(TEXTS)
    for line, text, prediction in zip(lines, TEXTS, expected, strict=True):
        assert json.loads(line) == {
            "text": text,
            "label": prediction.label,
            "score": pytest.approx(prediction.score, abs=1e-6),
            "scores": pytest.approx(prediction.scores, abs=1e-6),
            "abstain": None,
            "conformal_set": None,
            "typicality": None,
            "atypical": None,
        }
    assert "été 🎬" in lines[2]


def test_standard_input_is_read_line_by_line(call: Call, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("superb great film\n\ndull film\n"))
    answer = call("predict", trained)
    assert answer.code == 2
    assert "standard input: cannot predict 1 of 3 rows: an empty text (row 2). Leave these rows out with" in answer.err
    monkeypatch.setattr(sys, "stdin", io.StringIO("superb great film\n\ndull film\n"))
    answer = call("predict", trained, "--bad-rows", "drop")
    assert [line.split("  ")[-1] for line in answer.out.splitlines()] == ["superb great film", "dull film"]
    assert "left out: 1 of 3 rows: an empty text (row 2)" in answer.err
    monkeypatch.setattr(sys, "stdin", io.StringIO("superb great film\n\ndull film\n"))
    answer = call("predict", trained, "--bad-rows", "keep")
    assert answer.out.splitlines()[1] == "no prediction: an empty text"
    assert len(answer.out.splitlines()) == 3
    assert "without a prediction: 1 of 3 rows: an empty text (row 2)" in answer.err


def test_a_file_is_answered_in_a_file(call: Call, trained: Path, reviews: Path, tmp_path: Path) -> None:
    output = tmp_path / "answers.parquet"
    answer = call("predict", trained, "--file", reviews, "--output", output)
    assert answer.code == 0
    assert answer.out == ""
    assert f"120 predictions written to {output}" in answer.err
    written, given = read_table(output).columns, read_table(reviews).columns
    assert list(written) == [
        "text", "label", "predicted_label", "score", "probability_neg", "probability_pos"
    ]  # fmt: skip
    assert {name: written[name] for name in given} == given


def test_a_file_without_output_is_answered_on_standard_output(call: Call, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "new.txt").write_text("superb\ndull\n")
    answer = call("predict", trained, "--file", tmp_path / "new.txt", "--text-column", "review")
    assert answer.code == 0
    assert [line.split()[-1] for line in answer.out.splitlines()] == ["superb", "dull"]


def test_an_output_is_replaced_only_with_overwrite(call: Call, trained: Path, tmp_path: Path) -> None:
    output = tmp_path / "answers.csv"
    output.write_text("precious")
    assert call("predict", trained, "fine", "--output", output).code == 2
    assert output.read_text() == "precious"
    assert call("predict", trained, "fine", "--output", output, "--overwrite").code == 0
    assert read_table(output).columns["text"] == ["fine"]


def test_a_stopped_job_goes_on_and_formulas_are_disarmed(call: Call, trained: Path, tmp_path: Path) -> None:
    file, output = tmp_path / "new.csv", tmp_path / "answers.csv"
    file.write_text("text\nsuperb\n=1+1 film\n")
    parts = tmp_path / ".answers.csv.parts"
    assert call("predict", trained, "--file", file, "--output", output, "--csv-safe").code == 0
    assert read_table(output).columns["text"] == ["superb", "'=1+1 film"]
    parts.mkdir()
    JobRecord(settings={}).write(parts / "job.json")
    PartRecord(first=0, end=1, rows=1, predicted=1, digest="").write(parts / "000000000000.json")
    answer = call("predict", trained, "--file", file, "--output", output, "--overwrite", "--resume")
    assert answer.code == 2
    assert "other values for: the model, the texts, the format" in answer.err
    assert call("predict", trained, "--file", file, "--output", output, "--overwrite").code == 0
    assert read_table(output).columns["text"] == ["superb", "=1+1 film"]
    assert not parts.exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("fine", "--resume"), "--resume needs the --file and --output of the job it resumes"),
        (("fine", "--csv-safe"), "--csv-safe is for csv and tsv files: name one with --output"),
        (("fine", "--csv-safe", "--output", "a.jsonl"), "--csv-safe is for csv and tsv files; a.jsonl is another kind"),
        (("fine", "--file", "new.csv"), "Give texts or --file, not both"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    call: Call, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    answer = call("predict", trained, *words)
    assert answer.code == 2
    assert message in answer.err


def test_quiet_says_nothing_beside_the_answers(call: Call, trained: Path, tmp_path: Path) -> None:
    answer = call("predict", trained, *TEXTS, "--quiet")
    assert (answer.err, len(answer.out.splitlines())) == ("", 3)
    answer = call("predict", trained, *TEXTS, "--quiet", "--output", tmp_path / "answers.csv")
    assert (answer.code, answer.out, answer.err) == (0, "", "")


def test_a_reader_that_goes_away_is_no_error_and_a_narrow_encoding_none_either(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "many.txt").write_text("superb ✓ film\n" * 3000, encoding="utf-8")
    command = f"{sys.executable} -m lorafit predict {trained} --file {tmp_path / 'many.txt'} --quiet | head -n 1"
    child = subprocess.run(
        ["bash", "-c", f"PYTHONIOENCODING=ascii {command}"], capture_output=True, text=True, check=False
    )
    assert child.stderr == ""
    assert child.stdout.endswith("superb \\u2713 film\n")
    assert child.stdout.count("\n") == 1


def test_bad_rows_are_left_out_or_kept_as_asked(call: Call, trained: Path, tmp_path: Path) -> None:
    file, output = tmp_path / "new.csv", tmp_path / "answers.jsonl"
    file.write_text("id,text\n1,superb\n2,\n3,one,too many\n4,dull\n")
    answer = call("predict", trained, "--file", file)
    assert answer.code == 2
    assert "new.csv: cannot predict 2 of 4 rows: an empty text (row 2); 3 fields instead of 2 (row 3)" in answer.err
    answer = call("predict", trained, "--file", file, "--output", output, "--bad-rows", "drop")
    assert answer.code == 0
    assert "2 predictions written to" in answer.err
    assert f"2 rows left out: {output}.left_out.csv" in answer.err
    assert read_table(output).columns["id"] == ["1", "4"]
    assert read_table(tmp_path / "answers.jsonl.left_out.csv").columns["row"] == ["2", "3"]
    answer = call("predict", trained, "--file", file, "--output", output, "--bad-rows", "keep", "--overwrite")
    assert answer.code == 0
    kept = read_table(output).columns
    assert kept["id"] == ["1", "2", None, "4"]
    assert kept["fault"] == [None, "an empty text", "3 fields instead of 2", None]
    assert [label is None for label in kept["label"]] == [False, True, True, False]


def test_how_a_file_is_written_is_told_by_options(call: Call, trained: Path, tmp_path: Path) -> None:
    file, output = tmp_path / "new.csv", tmp_path / "answers.csv"
    file.write_text('1|"superb film|a\n2|dull "boring|b\n', encoding="utf-16")
    words = ["--delimiter", "|", "--no-header", "--quoting", "none", "--encoding", "utf-16", "--text-column", "2"]
    assert call("predict", trained, "--file", file, *words, "--output", output).code == 0
    assert read_table(output).columns["2"] == ['"superb film', 'dull "boring']
    answer = call("predict", trained, "fine", "--quoting", "some", "--delimiter", "ab")
    assert answer.code == 2
    assert re.search(r"'standard' or 'none', got 'some' \(--quoting\)", answer.err)
    assert re.search(r"at most 1 character, got 'ab' \(--delimiter\)", answer.err)


def test_the_column_of_training_is_taken_where_the_file_has_it(call: Call, trained: Path, tmp_path: Path) -> None:
    run = shutil.copytree(trained, tmp_path / "run")
    settings = (run / "config.yaml").read_text().replace("text_column: text", "text_column: review")
    (run / "config.yaml").write_text(settings)
    (tmp_path / "new.csv").write_text("review,title\nsuperb,x\n")
    answer = call("predict", run, "--file", tmp_path / "new.csv", "--accept-altered")
    assert (answer.code, answer.out.split()[-1:]) == (0, ["superb"]), answer.err
    answer = call("predict", run, "fine", "--text-column", "a", "--text-column", "b", "--accept-altered")
    assert (answer.code, answer.err.splitlines()[-1]) == (2, "The model takes single texts: give --text-column once.")


def test_a_text_may_begin_with_a_dash(call: Call, trained: Path) -> None:
    answer = call("predict", trained, "-5 stars, never again", "--quiet", "- superb")
    assert answer.code == 0
    assert [line.split("  ")[-1] for line in answer.out.splitlines()] == ["-5 stars, never again", "- superb"]
    answer = call("predict", trained, "--fiel", "new.csv")
    assert answer.code == 2
    assert "--file" in answer.err


@pytest.fixture(scope="module")
def trained_on_pairs(settings: list[str], shared_folder: Callable[[str, Callable[[Path], object]], Path]) -> Path:
    """A run that takes pairs."""

    def train(folder: Path) -> None:
        rows = [f"fine {row},{('dull', 'superb')[row % 2]} {row},{'ab'[row % 2]}" for row in range(60)]
        (folder / "pairs.csv").write_text("\n".join(["premise,claim,label", *rows]))
        words = ["--text-column", "premise", "--text-column", "claim", "--set", "training.max_steps=1", "--quiet"]
        with redirect_stdout(io.StringIO()), pytest.raises(SystemExit):
            main(["train", str(folder / "pairs.csv"), *settings, *words, "--output", str(folder / "run")])

    return shared_folder("pairs", train) / "run"


def test_pairs_are_two_words_two_columns_or_lines_with_a_tab(
    call: Call, trained_on_pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = lorafit.load(trained_on_pairs, runtime="auto").predict([("fine 1", "-5 superb")])[0]
    line = f"{expected.cells()[0]}  {expected.cells()[1]}  fine 1 | -5 superb"
    answer = call("predict", trained_on_pairs, "fine 1", "-5 superb")
    assert (answer.code, answer.out.strip()) == (0, line)
    monkeypatch.setattr(sys, "stdin", io.StringIO("fine 1\t-5 superb\n"))
    assert call("predict", trained_on_pairs).out.strip() == line
    (tmp_path / "new.csv").write_text("id,claim,premise\n1,-5 superb,fine 1\n")
    assert call("predict", trained_on_pairs, "--file", tmp_path / "new.csv").out.strip() == line
    (tmp_path / "new.csv").write_text("id,b,a\n1,-5 superb,fine 1\n")
    words = ["--text-column", "a", "--text-column", "b"]
    assert call("predict", trained_on_pairs, "--file", tmp_path / "new.csv", *words).out.strip() == line
    for given, message in (
        (["--text-column", "a", "fine"], "The model takes pairs: give --text-column twice."),
        ([*words, *words, "fine"], "--text-column was given 4 times"),
        (["fine"], "give both texts of one pair, got 1 text"),
    ):
        answer = call("predict", trained_on_pairs, *given)
        assert (answer.code, message in answer.err) == (2, True)


def test_a_pair_is_explained(call: Call, trained_on_pairs: Path) -> None:
    answer = call("explain", trained_on_pairs, "fine film 1", "-5 superb", "--json")
    assert answer.code == 0, answer.err
    assert json.loads(answer.out)["text"] == "fine film 1\n-5 superb"
    answer = call("explain", trained_on_pairs, "fine")
    assert (answer.code, "give both texts of one pair, got 1 text" in answer.err) == (2, True)


def test_the_name_of_a_file_is_refused_with_what_to_type(
    call: Call, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "new.csv").write_text("id,text\n1,superb\n")
    for words in (["new.csv"], ["superb", "new.csv", "--output", "out.csv"]):
        answer = call("predict", trained, *words)
        assert (answer.code, answer.out) == (2, "")
        assert "new.csv is a file, not a text. For the texts in it: lorafit predict RUN --file new.csv." in answer.err
        assert "For its name as a text: echo new.csv | lorafit predict RUN" in answer.err
    assert call("explain", trained, "new.csv").code == 2
    assert call("predict", trained, "--file", "new.csv").out.split()[-1] == "superb"
    monkeypatch.setattr(sys, "stdin", io.StringIO("new.csv\n"))
    assert call("predict", trained).out.split()[-1] == "new.csv"


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        ("id;text\n1;superb\n2;dull\n", "csv"),
        ('{"text": "superb"}\n{"text": "dull"}\n', "jsonl"),
        ("superb\r\ndull", None),
    ],
)
@pytest.mark.parametrize("words", [[], ["--file", "-"]])
def test_a_table_is_known_on_standard_input(
    call: Call, trained: Path, monkeypatch: pytest.MonkeyPatch, content: str, kind: str | None, words: list[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content.encode()), encoding="ascii"))
    answer = call("predict", trained, "--json", *words)
    assert answer.code == 0, answer.err
    assert [json.loads(line)["text"] for line in answer.out.splitlines()] == ["superb", "dull"]
    assert ("standard input: read as" in answer.err) == (kind is not None)
    if kind is not None:
        assert f"standard input: read as {kind}, as it begins like such a table." in answer.err


def test_rows_stay_as_many_and_in_order_on_every_way_in(
    call: Call, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["superb", "", "dull", "  ", "\u200b", "lovely"]
    lines = "".join(f"{text}\n" for text in texts)
    (tmp_path / "in.txt").write_text(lines)
    write_table(tmp_path / "in.parquet", {"text": [*texts[:1], None, *texts[2:]]})
    write_table(tmp_path / "in.jsonl", {"text": [*texts[:4], float("nan"), texts[5]]})
    ways = [["--file", tmp_path / f"in.{kind}"] for kind in ("txt", "parquet", "jsonl")]
    for way in (texts, [], *ways):
        monkeypatch.setattr(sys, "stdin", io.StringIO(lines))
        answer = call("predict", trained, "--bad-rows", "keep", "--json", *way)
        assert answer.code == 0, answer.err
        rows = [json.loads(line) for line in answer.out.splitlines()]
        assert [row["label"] is None for row in rows] == [False, True, False, True, True, False], way
        assert [row["fault"] is None for row in rows] == [row["label"] is not None for row in rows]
        output = tmp_path / "out.parquet"
        monkeypatch.setattr(sys, "stdin", io.StringIO(lines))
        answer = call("predict", trained, "--bad-rows", "keep", "--output", output, "--overwrite", *way)
        assert answer.code == 0, answer.err
        assert f"6 rows written to {output}\n3 rows without a prediction\n" in answer.err
        assert read_table(output).columns["label"] == [row["label"] for row in rows]


def test_pairs_stay_as_many_and_in_order(call: Call, trained_on_pairs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("fine 1\tsuperb\nno tab\nfine 2\tdull\n"))
    answer = call("predict", trained_on_pairs, "--bad-rows", "keep", "--json")
    rows = [json.loads(line) for line in answer.out.splitlines()]
    assert [(row["text"], row["text_pair"], row["fault"]) for row in rows] == [
        ("fine 1", "superb", None), ("no tab", None, "no text"), ("fine 2", "dull", None)
    ]  # fmt: skip
    assert rows[1]["label"] is None


def test_a_byte_order_mark_goes_back(call: Call, trained: Path, tmp_path: Path) -> None:
    for encoding, kind, marked in (("utf-8-sig", "csv", True), ("utf-16", "tsv", True), ("utf-8", "csv", False)):
        (tmp_path / f"in.{kind}").write_text("text\nEine schöne Überraschung\n", encoding=encoding)
        for suffix in ("csv", "tsv", "jsonl"):
            output = tmp_path / f"out.{suffix}"
            assert call("predict", trained, "--file", tmp_path / f"in.{kind}", "-o", output, "--overwrite").code == 0
            is_marked = output.read_bytes().startswith(b"\xef\xbb\xbf")
            assert is_marked == (marked and suffix != "jsonl")
            assert next(iter(read_table(output).columns["text"])) == "Eine schöne Überraschung"
