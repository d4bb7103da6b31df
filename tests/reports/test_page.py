import functools
import itertools
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lorafit.errors import MissingExtraError, RunError, UserInputError
from lorafit.inference.mistakes import ExplainedMistake, MistakesRecord, SpanContribution
from lorafit.reports.contents import Texts, read_run
from lorafit.reports.page import render_report, write_report
from lorafit.runs.folder import RunLayout
from lorafit.runs.records import DataRecord, HardwareRecord, RunRecord
from lorafit.system.progress import Silent
from lorafit.tasks.evaluation import FEW_ROWS, describe_changed_rows, find_mistakes
from lorafit.tasks.label_spellings import clean_name
from lorafit.tasks.records import MetricsRecord
from lorafit.tasks.registry import TASKS

WriteRun = Callable[..., Path]
TakeApart = Callable[[str], Any]
SignRun = Callable[[Path], None]
FILE = '<img src=x onerror=alert(1)> | ](x) "it\'s"\n&amp; \N{RIGHT-TO-LEFT OVERRIDE}'
"""A hostile name for a file."""

HOSTILE = f"</title></svg></style></main><script>alert(2)</script><!-- ]]> $x$ {FILE}"
NAME = clean_name(HOSTILE)
"""A hostile name for a label, as it is read."""

LABELS = {
    "single_label": (NAME, f"{NAME} 2", "a'b\"c&amp;d"),
    "multi_label": (NAME, f"{NAME} 2", "a'b\"c&amp;d"),
    "regression": ("value",),
    "ordinal": ("1", "2", "3"),
}
SECTIONS = {
    "single_label": ("labels", "confidence"),
    "multi_label": ("labels", "confidence"),
    "regression": ("predictions", "confidence"),
    "ordinal": ("labels", "confidence"),
}
BARE = {"before": False, "baselines": False, "calibration": False, "history": False}


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def explain_mistakes(run: Path) -> None:
    """Write `mistakes.json` with some words of each mistake."""
    contents = read_run(run)
    words = [SpanContribution(start=start, end=start + 3, contribution=2.0 - start) for start in (0, 4)]
    mistakes = [
        ExplainedMistake(row_id=row, label=contents.task.label_names[0], words=words, beats_chance=False)
        for row in contents.row_ids[find_mistakes(contents.task, contents.y, contents.after)].tolist()
    ]
    MistakesRecord(mistakes=mistakes).write(RunLayout(run).mistakes)


def make_hostile(run: Path) -> None:
    """Put markup into everything in a record that comes from outside."""
    layout = RunLayout(run)
    record = RunRecord.read(layout.record)
    data = DataRecord.model_validate({**record.data.model_dump(), "notes": [HOSTILE, FILE]})
    changed = {**record.hardware.model_dump(), "cpu": HOSTILE, "precision_reason": HOSTILE}
    hardware = HardwareRecord.model_validate(changed)
    files = {**record.files, HOSTILE: HOSTILE}
    changes = {"data": data, "hardware": hardware, "versions": {HOSTILE: HOSTILE}, "files": files}
    record.model_copy(update=changes).write(layout.record)


@pytest.fixture(scope="session")
def hostile_page(
    write_run_in: WriteRun, sign_run: SignRun, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], str]:
    """Gives the report of a run of a task in which every name is markup, and a slice is weak."""

    def write(task: str) -> str:
        columns = {HOSTILE: [HOSTILE, "a|b", "[c](d)"], "other": ["a", "b"]}
        texts = (HOSTILE + " {0} {1} " + "word " * 200).format
        folder = tmp_path_factory.mktemp(task)
        run = write_run_in(
            folder, task, name=FILE, labels=LABELS[task], rows=FEW_ROWS - 1, columns=columns, texts=texts
        )
        metrics = MetricsRecord.read(RunLayout(run).metrics)
        weak = [one.model_copy(update={"adjusted_p_value": 0.001}) for one in metrics.slices]
        metrics.model_copy(update={"slices": weak}).write(RunLayout(run).metrics)
        sign_run(run)
        explain_mistakes(run)
        sign_run(run)
        make_hostile(run)
        page = read(write_report(run))
        assert str(folder) not in page, "folders of files are not shown"
        return page

    return functools.cache(write)


@pytest.mark.parametrize("task", TASKS)
def test_nothing_from_outside_becomes_an_element(
    hostile_page: Callable[[str], str], take_apart: TakeApart, task: str
) -> None:
    page = hostile_page(task)
    parts = take_apart(page)
    assert parts.open == []
    assert parts.named("script", "img", "iframe", "image", "foreignobject", "object", "embed") == []
    attributes = [pair for _, found in parts.elements for pair in found.items()]
    assert [name for name, _ in attributes if name.startswith("on") or name in {"src", "xlink:href"}] == []
    assert {str(value)[0] for name, value in attributes if name == "href" and value != "data:,"} == {"#"}
    assert (len(parts.named("title")), len(parts.named("style")), len(parts.named("main"))) == (1, 1, 1)
    assert "\N{RIGHT-TO-LEFT OVERRIDE}" not in page
    assert parts.text.count("<script>alert(2)</script>") > 20


@pytest.mark.parametrize("task", TASKS)
def test_texts_are_shown_and_cut(hostile_page: Callable[[str], str], take_apart: TakeApart, task: str) -> None:
    page = hostile_page(task)
    parts = take_apart(page)
    shown = [attributes for attributes in parts.named("p") if attributes.get("class") == "text"]
    assert 7 <= len(shown) == len(parts.named("li")) - len(parts.named("a")) - len(weak_items(page)) - 2
    assert "word " * 20 in page
    assert "word " * 100 not in page


def weak_items(page: str) -> list[str]:
    return page.partition("Shown to be worse than all rows together")[2].partition("</ul>")[0].split("<li>")[1:]


@pytest.mark.parametrize("task", TASKS)
def test_report_opens_with_the_verdict_and_holds_every_part(
    hostile_page: Callable[[str], str], take_apart: TakeApart, task: str
) -> None:
    page = hostile_page(task)
    assert '</h1>\n<p class="lead">Better than before: ' in page
    assert "99 rows are few: the intervals are wide." in page
    parts = take_apart(page)
    sections = [attributes["id"] for attributes in parts.named("section")]
    assert [attributes["href"] for attributes in parts.named("a")] == [f"#{name}" for name in sections]
    assert sections == [
        *("comparison", "samples", "training", *SECTIONS[task], "slices", "mistakes"),
        *("data", "method", "cost", "reproduction"),
    ]
    ids = [attributes["id"] for _, attributes in parts.elements if "id" in attributes]
    assert len(ids) == len(set(ids)), "every id stands for one element"
    for words in ("95 % confidence intervals over the test rows", "lorafit reproduce", "What the metrics mean"):
        assert words in parts.text
    assert len(weak_items(page)) == 6


@pytest.mark.parametrize("task", TASKS)
def test_every_comparison_has_its_test_and_calibration_its_sentences(
    written_run: Callable[[str], Path], take_apart: TakeApart, task: str
) -> None:
    contents = read_run(written_run(task))
    scores = contents.metrics.calibration
    assert scores is not None
    text = " ".join(take_apart(render_report(contents, Texts(None, "Because."), {})).text.split())
    for model, comparison in contents.comparisons.items():
        assert f"{model}{describe_changed_rows(contents.task, comparison)}" in text, (
            "name and value are apart on the page"
        )
    for sentence in contents.task.describe_calibration(scores):
        assert sentence.split(": ", 1)[1] in text


@pytest.mark.parametrize("task", TASKS)
def test_every_figure_has_words_and_a_table(
    hostile_page: Callable[[str], str], take_apart: TakeApart, task: str
) -> None:
    parts = take_apart(hostile_page(task))
    figures = parts.named("svg")
    assert len(figures) == len(parts.named("figure")) == parts.text.count("The figure as a table")
    assert len(figures) >= 7
    assert [figure for figure in figures if figure["role"] != "img" or not figure["aria-label"]] == []
    regions = [attributes for attributes in parts.named("div") if attributes.get("role") == "region"]
    assert len(regions) == len(parts.named("table"))
    assert [region for region in regions if not region["aria-label"]] == []
    levels = [int(tag[1]) for tag, _ in parts.elements if tag in {"h1", "h2", "h3"}]
    assert levels[0] == 1
    assert [pair for pair in itertools.pairwise(levels) if pair[1] > pair[0] + 1] == []


@pytest.mark.parametrize("task", TASKS)
def test_words_behind_mistakes_are_marked(hostile_page: Callable[[str], str], take_apart: TakeApart, task: str) -> None:
    parts = take_apart(hostile_page(task))
    marks = [attributes["class"] for attributes in parts.named("mark")]
    assert marks == ["for", "against"] * (len(marks) // 2)
    assert len(marks) > 2
    assert "not shown to matter more than other words" in parts.text


NAMES = ["1", "2", "中文", "🎬", "e\u0301", "$\\frac{1}{2}$", "_hidden", "x" * 500]


@pytest.mark.parametrize(
    ("task", "wishes"),
    [
        *((task, {"rows": 1}) for task in TASKS),
        *((task, {"rows": 10, **BARE}) for task in TASKS),
        ("single_label", {"after": np.full((60, 2), 0.5), "history": False}),
        ("single_label", {"after": np.eye(2)[np.arange(60) % 2], "history": False}),
        ("single_label", {"labels": ["a", "b", "c"], "rows": 2, "history": False}),
        ("single_label", {"labels": NAMES, "rows": 90, "history": False}),
        ("multi_label", {"y": np.zeros((20, 3), dtype=np.int64), "history": False}),
        ("regression", {"y": np.zeros(20), "history": False}),
        ("regression", {"y": 1e9 * np.arange(20), "history": False}),
    ],
)
def test_unusual_runs_give_a_page(
    write_run: WriteRun, take_apart: TakeApart, task: str, wishes: dict[str, Any]
) -> None:
    run = write_run(task, **wishes)
    page = read(write_report(run))
    assert take_apart(page).open == []
    assert "nan" not in page.replace("nance", "").lower().split()
    assert ">nan" not in page
    rows = MetricsRecord.read(RunLayout(run).metrics).rows
    assert ("1 row is very little: the intervals are wide." in page) == (rows == 1)
    if not wishes.get("before", True):
        assert "the model before training was not measured.</p>" in page
        assert read_run(run).task.wording.uncalibrated in page


def test_of_many_rows_it_is_not_said_that_they_are_few(write_run: WriteRun) -> None:
    assert "intervals are wide" not in read(write_report(write_run(rows=FEW_ROWS, **BARE)))


@pytest.mark.slow
def test_two_hundred_labels_stay_readable(write_run: WriteRun, take_apart: TakeApart) -> None:
    wishes = {"before": False, "baselines": False, "flags": {"evaluation.bootstrap_samples": 100}}
    path = write_report(write_run(labels=[f"label {number}" for number in range(200)], rows=600, **wishes))
    parts = take_apart(read(path))
    assert "Scores of each label after training (200)" in parts.text
    assert "Labels taken for each other most often" in parts.text
    assert "Confusion matrix" not in parts.text
    assert path.stat().st_size < 500_000


@pytest.mark.slow
def test_a_large_run_gives_a_small_file_soon(write_run: WriteRun) -> None:
    run = write_run(rows=20_000, baselines=False, flags={"evaluation.bootstrap_samples": 100})
    began = time.process_time()
    path = write_report(run)
    assert time.process_time() - began < 10
    assert path.stat().st_size < 500_000


def test_texts_are_left_out_when_that_is_asked_for(written_run: Callable[[str], Path], tmp_path: Path) -> None:
    page = read(write_report(written_run("ordinal"), texts=False, output=tmp_path / "page.html"))
    assert " film " not in page
    assert page.count("Texts are left out, as was asked for.") == 2
    assert page.count(", true label <b>") > 6


def test_output_and_plots_go_where_they_are_asked_for(write_run: WriteRun, tmp_path: Path) -> None:
    run = write_run("regression", rows=30, **BARE)
    output, plots = tmp_path / "pages" / "a.html", tmp_path / "plots"
    assert write_report(run, output=output, plots=plots) == output
    assert not RunLayout(run).report.exists()
    names = ("mae", "predicted", "slice1")
    assert {path.name for path in plots.iterdir()} == {f"{name}.{form}" for name in names for form in ("png", "svg")}
    first = read(output)
    assert write_report(run) == RunLayout(run).report
    assert read(RunLayout(run).report) == first, "the same run gives the same page"


def test_places_that_cannot_be_written_are_refused(written_run: Callable[[str], Path], tmp_path: Path) -> None:
    run = written_run("single_label")
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(UserInputError, match="is a folder; --output takes a file"):
        write_report(run, output=tmp_path)
    with pytest.raises(UserInputError, match="is a file"):
        write_report(run, output=file / "report.html")
    with pytest.raises(UserInputError, match="is a file"):
        write_report(run, plots=file)
    assert not RunLayout(run).report.exists()


class Lines(Silent):
    """A progress that keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def test_who_makes_the_page_is_told_why_there_are_no_texts(write_run: WriteRun, tmp_path: Path) -> None:
    run, progress = write_run(y=[0, 1], after=[[0.1, 0.9]] * 2, **BARE), Lines()
    (tmp_path / "run-test.jsonl").unlink()
    page = read(write_report(run, progress=progress))
    assert page.count("Texts are left out: the data could not be read again.") == 2
    assert str(tmp_path) not in page
    (line,) = progress.lines
    assert str(tmp_path / "run-test.jsonl") in line


def test_without_matplotlib_nothing_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"pip install .*\[report\]'"):
        write_report(tmp_path)
    monkeypatch.undo()
    with pytest.raises(RunError):
        write_report(tmp_path)


def test_no_model_library_is_imported(write_run: WriteRun) -> None:
    code = (
        "import sys; from lorafit.reports.page import write_report; write_report(sys.argv[1]);"
        "print({'torch', 'transformers', 'peft'} & set(sys.modules))"
    )
    run = write_run(rows=10, **BARE)
    command = [sys.executable, "-W", "error", "-c", code, str(run)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "set()\n", "")


def test_label_that_is_never_predicted_is_said_at_the_top(write_run: WriteRun) -> None:
    labels, y = ["fraud", "ok"], [0] + [1] * 19
    run = write_run(labels=labels, y=y, after=[[0.1, 0.9]] * 20, before=[[0.9, 0.1]] * 20, calibration=False)
    page = write_report(run).read_text(encoding="utf-8")
    lead = page[: page.index("<nav")]
    assert "Not shown to be better than always answering &#39;ok&#39;, though better than before" in lead
    assert "&#39;fraud&#39; is never predicted (recall 0 of 1). Look at F1 (macro) and MCC" in lead
    assert "--class-weights balanced" in lead
    assert "Probabilities are" not in page
    assert "unknown tokens" in page


def test_page_says_what_probabilities_of_a_balanced_run_are(write_run: WriteRun) -> None:
    run = write_run(labels=["fraud", "ok"], y=[0] + [1] * 19, after=[[0.1, 0.9]] * 20, calibration=False)
    layout = RunLayout(run)
    record = RunRecord.read(layout.record)
    record.model_copy(update={"balancing": ["training.class_weights=balanced"]}).write(layout.record)
    page = write_report(run).read_text(encoding="utf-8")
    assert "<p>Trained with training.class_weights=balanced: probabilities are those of the re-weighted" in page
    assert "--class-weights balanced" not in page, "it was used already"
