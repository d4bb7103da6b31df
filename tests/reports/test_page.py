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
from lorafit.evidence import Estimate, MetricsRecord, SliceScores
from lorafit.reports.page import write_report
from lorafit.runs.folder import RunLayout
from lorafit.runs.records import RunRecord

BuildRun = Callable[..., Path]
TakeApart = Callable[[str], Any]
ATTACK = "</title><img src=x onerror=\"alert('1')\">"
SCRIPT = '"><script>alert(2)</script></svg></style></main><!-- ]]> $x$ \N{RIGHT-TO-LEFT OVERRIDE}'


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def test_report_opens_with_the_verdict_and_holds_every_part(build_run: BuildRun, take_apart: TakeApart) -> None:
    run = build_run(rows=400)
    path = write_report(run)
    assert path == RunLayout(run).report
    page = read(path)
    assert "<h1>reviews.csv: LoRA on m</h1>\n" in page
    assert '</h1>\n<p class="lead">Better than before: it gets ' in page
    parts = take_apart(page)
    links = [attributes["href"] for attributes in parts.named("a")]
    ids = [attributes["id"] for _, attributes in parts.elements if "id" in attributes]
    assert links == [f"#{attributes['id']}" for attributes in parts.named("section")]
    assert len(links) == 11
    assert len(ids) == len(set(ids)), "every id stands for one element"
    assert parts.open == []


def test_every_figure_has_words_and_a_table(build_run: BuildRun, take_apart: TakeApart) -> None:
    parts = take_apart(read(write_report(build_run(rows=100))))
    figures = parts.named("svg")
    assert len(figures) == len(parts.named("figure")) == 10
    assert [figure for figure in figures if figure["role"] != "img" or not figure["aria-label"]] == []
    assert parts.text.count("The figure as a table") == 10
    regions = [attributes for attributes in parts.named("div") if attributes.get("role") == "region"]
    assert len(regions) == len(parts.named("table"))
    assert [region for region in regions if not region["aria-label"]] == []
    levels = [int(tag[1]) for tag, _ in parts.elements if tag in {"h1", "h2", "h3"}]
    assert levels[0] == 1
    assert [pair for pair in itertools.pairwise(levels) if pair[1] > pair[0] + 1] == []


def test_nothing_from_outside_becomes_an_element(build_run: BuildRun, take_apart: TakeApart) -> None:
    names = [ATTACK, SCRIPT, "a'b\"c&amp;d"]
    run = build_run(names=names, texts="{1} {0} <script>alert(3)</script><!--".format)
    layout = RunLayout(run)
    record = RunRecord.read(layout.record)
    data = record.data.model_copy(update={"source": f"/data/{ATTACK}.csv", "notes": [SCRIPT, ATTACK]})
    hardware = record.hardware.model_copy(update={"cpu": SCRIPT, "precision_reason": ATTACK})
    changes = {"data": data, "hardware": hardware, "versions": {ATTACK: SCRIPT}, "files": {SCRIPT: ATTACK}}
    record.model_copy(update=changes).write(layout.record)
    metrics = MetricsRecord.read(layout.metrics)
    value = Estimate(value=0.5, low=0.4, high=0.6)
    sliced = [SliceScores(column=SCRIPT, value=ATTACK, rows=5, accuracy=value, difference=None)]
    metrics.model_copy(update={"slices": sliced}).write(layout.metrics)

    page = read(write_report(run))
    parts = take_apart(page)
    assert parts.named("script", "img", "iframe", "image", "foreignobject", "object", "embed") == []
    attributes = [pair for _, found in parts.elements for pair in found.items()]
    assert [name for name, _ in attributes if name.startswith("on") or name in {"src", "xlink:href"}] == []
    assert {str(value)[0] for name, value in attributes if name == "href" and value != "data:,"} == {"#"}
    assert (len(parts.named("title")), len(parts.named("style")), len(parts.named("main"))) == (1, 1, 1)
    shown = [attributes for attributes in parts.named("p") if attributes.get("class") == "text"]
    assert parts.text.count("<script>alert(3)</script>") == len(shown) > 6
    assert "\N{RIGHT-TO-LEFT OVERRIDE}" not in page
    assert parts.open == []


@pytest.mark.parametrize(
    "wishes",
    [
        {"rows": 10},
        {"rows": 1},
        {"rows": 10, "baseline": False, "cheap": False, "calibrated": False, "history": False},
        {"predict": lambda labels, _: np.tile([3.0, 1.0], (len(labels), 1))},
        {"predict": lambda labels, _: np.zeros((len(labels), 2))},
        {"predict": lambda labels, _: 50.0 * np.eye(2)[labels]},
        {"names": ["a", "b", "c"], "rows": 2},
        {"names": ["a", "b", "c"], "rows": 1},
        {"names": ["1", "2", "中文", "🎬", "e\u0301", "$\\frac{1}{2}$", "_hidden", "x" * 500], "rows": 90},
    ],
    ids=["ten rows", "one row", "bare", "constant", "flat", "perfect", "one missing", "two missing", "names"],
)
def test_unusual_runs_give_a_page(build_run: BuildRun, take_apart: TakeApart, wishes: dict[str, object]) -> None:
    page = read(write_report(build_run(**wishes)))
    assert take_apart(page).open == []
    assert "nan" not in page.replace("nance", "").lower().split()
    assert ">nan" not in page


def test_two_hundred_classes_stay_readable(build_run: BuildRun, take_apart: TakeApart) -> None:
    path = write_report(build_run(names=[f"class {number}" for number in range(200)], rows=1000))
    parts = take_apart(read(path))
    assert "Classes taken for each other most often" in parts.text
    assert "Confusion matrix" not in parts.text
    assert path.stat().st_size < 500_000


def test_a_large_run_gives_a_small_file_soon(build_run: BuildRun, tmp_path: Path) -> None:
    run = build_run(rows=25_000, texts=lambda row, name: f"{name} film {row} {'word ' * 230}")
    began = time.process_time()
    path = write_report(run, plots=tmp_path / "plots")
    assert time.process_time() - began < 10
    assert path.stat().st_size < 3_000_000


def test_texts_are_left_out_when_that_is_asked_for(build_run: BuildRun) -> None:
    run = build_run()
    assert " film " in read(write_report(run))
    page = read(write_report(run, texts=False))
    assert " film " not in page
    assert page.count("Texts are left out, as was asked for.") == 2


def test_output_and_figures_go_where_they_are_asked_for(build_run: BuildRun, tmp_path: Path) -> None:
    run = build_run()
    output, plots = tmp_path / "pages" / "a.html", tmp_path / "plots"
    assert write_report(run, output=output, plots=plots) == output
    assert not RunLayout(run).report.exists()
    assert {path.suffix for path in plots.iterdir()} == {".png", ".svg"}
    assert len(list(plots.iterdir())) == 20
    first = read(output)
    write_report(run, output=output)
    assert read(output) == first, "the same run gives the same page"


def test_places_that_cannot_be_written_are_refused(build_run: BuildRun, tmp_path: Path) -> None:
    run = build_run()
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(UserInputError, match="is a folder; --output takes a file"):
        write_report(run, output=tmp_path)
    with pytest.raises(UserInputError, match="is a file"):
        write_report(run, output=file / "report.html")
    with pytest.raises(UserInputError, match="is a file"):
        write_report(run, plots=file)
    assert not RunLayout(run).report.exists()


class Lines:
    """A progress that keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def start(self, stage: str, **_: object) -> None:
        """Ignore it."""

    def update(self, done: int, **_: float) -> None:
        """Ignore it."""

    def finish(self, note: str = "") -> None:
        """Ignore it."""

    def say(self, line: str) -> None:
        self.lines.append(line)


def test_who_makes_the_page_is_told_why_there_are_no_texts(build_run: BuildRun, tmp_path: Path) -> None:
    run, progress = build_run(), Lines()
    (tmp_path / "test.csv").unlink()
    page = read(write_report(run, progress=progress))  # type: ignore[arg-type]
    assert "Texts are left out: the data could not be read again." in page
    assert str(tmp_path) not in page
    (line,) = progress.lines
    assert str(tmp_path / "test.csv") in line


def test_without_matplotlib_nothing_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'lorafit\[report\]'"):
        write_report(tmp_path)
    monkeypatch.undo()
    with pytest.raises(RunError):
        write_report(tmp_path)


def test_no_model_library_is_imported(build_run: BuildRun) -> None:
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('torch', 'transformers', 'peft')));"
        "from lorafit.reports.page import write_report; write_report(sys.argv[1])"
    )
    answer = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(build_run())], capture_output=True, text=True, check=False
    )
    assert (answer.returncode, answer.stderr) == (0, "")
