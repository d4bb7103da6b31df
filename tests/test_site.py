"""The site of docs/: every page has its place, tutorials are shown with what they gave, and broken links are found."""

import importlib.util
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import nbformat
import pytest

import lorafit

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
SETTINGS = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture
def builder() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_docs", ROOT / "scripts" / "build_docs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def list_pages(entry: object) -> Iterator[str]:
    """Yield the pages of an entry of the navigation, which is a page, a list, or a title with one of these."""
    if isinstance(entry, str):
        yield entry
    else:
        for part in entry.values() if isinstance(entry, dict) else entry:
            yield from list_pages(part)


def test_every_page_has_one_place_and_stands_under_its_kind(builder: ModuleType) -> None:
    listed = list(list_pages(SETTINGS["nav"]))
    written = [path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")]
    assert sorted(listed) == sorted([*written, *map(str.lower, builder.BESIDE)])
    kinds = {
        "Tutorials": "tutorials",
        "How-to guides": "how-to",
        "Explanation": "explanation",
        "Reference": "reference",
    }
    for title, folder in kinds.items():
        (pages,) = (entry[title] for entry in SETTINGS["nav"] if title in entry)
        assert {page.partition("/")[0] for page in list_pages(pages)} == {folder}


def test_front_page_leads_to_every_page() -> None:
    front = set(re.findall(r"\]\(([\w/-]+\.md)", (DOCS / "index.md").read_text(encoding="utf-8")))
    assert front == {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")} - {"index.md"}


def test_every_public_name_is_in_the_reference() -> None:
    page = (DOCS / "reference" / "python.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^::: lorafit\.(\w+)$", page, flags=re.MULTILINE)) == [
        name for name in lorafit.__all__ if name != "__version__"
    ]


@pytest.mark.parametrize(
    ("name", "last"), [("sentiment-with-lora", "plot("), ("predict-with-confidence", "def predict(")]
)
def test_classic_takes_no_more_lines_than_its_page_says(name: str, last: str) -> None:
    page = (DOCS / "tutorials" / f"{name}.md").read_text(encoding="utf-8")
    cells = re.findall(r"^```python\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)
    end = next(number for number, cell in enumerate(cells, start=1) if last in cell)
    assert "in 20 lines" in " ".join(page.split())
    assert len([line for cell in cells[:end] for line in cell.splitlines() if line.strip()]) <= 20


def test_page_shows_what_cells_gave(builder: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builder, "NOTEBOOKS", tmp_path)
    cell = nbformat.v4.new_code_cell("run")
    table = '<style scoped>th { color: red }</style>\n\n<table border="1" class="dataframe"><tr><td>1</td></tr></table>'
    cell.outputs = [
        nbformat.v4.new_output("stream", text=f"a < b in {tmp_path}/runs/a\n"),
        nbformat.v4.new_output("execute_result", {"text/plain": "a table", "text/html": table}),
        nbformat.v4.new_output("display_data", {"text/plain": "a plot", "image/png": "aGk=\n"}),
    ]
    path = tmp_path / "page.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# Title"), cell]), path)
    assert builder.render_notebook(path).split("\n\n") == [
        "# Title",
        "```python\nrun\n```",
        '<div class="output"><pre>a &lt; b in runs/a</pre></div>',
        '<div class="output"><table><tr><td>1</td></tr></table></div>',
        '<img alt="What the cell above draws" src="data:image/png;base64,aGk=">\n',
    ]


def test_links_follow_pages_to_their_places(
    builder: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(builder, "STAGE", tmp_path / "stage")
    monkeypatch.setattr(builder, "render_notebook", lambda path: f"# {path.stem}\n")  # they are not run here
    builder.stage()
    written = {path.relative_to(tmp_path / "stage").as_posix() for path in (tmp_path / "stage").rglob("*.md")}
    assert written == set(list_pages(SETTINGS["nav"]))
    page = (tmp_path / "stage" / "explanation" / "architecture.md").read_text(encoding="utf-8")
    assert "[How](../contributing.md#add-a-task)" in page
    assert "](how-to/serve-a-model.md)" in (tmp_path / "stage" / "changelog.md").read_text(encoding="utf-8")


def test_broken_links_are_found(builder: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builder, "SITE", tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "index.html").write_text(
        '<h1 id="top"></h1><a href="a/">there</a><a href="a/#part">there</a><a href="#top">there</a>'
        '<a href="https://example.org/">elsewhere</a><img src="data:image/png;base64,aGk=">'
    )
    (tmp_path / "a" / "index.html").write_text(
        '<p id="part"></p><a href="..">there</a><a href="../index.html#top"></a>'
    )
    assert list(builder.find_broken_links()) == []
    (tmp_path / "a" / "index.html").write_text(
        '<a href="../b/"></a><a href="..#none"></a><script src="https://example.org/x.js"></script><img src="x.png">'
    )
    assert set(builder.find_broken_links()) == {
        "a/index.html fetches https://example.org/x.js",
        "a/index.html leads to ../b/",
        "a/index.html leads to ..#none",
        "a/index.html leads to x.png",
        "index.html leads to a/#part",
    }
