"""Build docs/ into site/: run the tutorials, put what they give below their cells, and check every link.

Run it through `make docs`, which runs the tutorials that changed, or `make test-docs`, which runs all of them.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat

ROOT = Path(__file__).resolve().parent.parent
DOCS, SITE, STAGE = ROOT / "docs", ROOT / "site", ROOT / "build" / "docs"
NOTEBOOKS, EXECUTED = ROOT / "build" / "tutorials", ROOT / "build" / "executed"
"""Where tutorials run, and where they are kept once they have."""

BESIDE = ("CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")
"""Pages of the root that the site has, too."""

ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",  # tutorials run beside each other
    "PYTHONWARNINGS": "ignore:IProgress not found",  # tqdm's, where there are no ipywidgets
}


def convert_tutorials(*, fresh: bool) -> list[Path]:
    """Write a notebook for each tutorial that has not run since it changed, and return these."""
    import jupytext

    if fresh:
        shutil.rmtree(EXECUTED, ignore_errors=True)
    shutil.rmtree(NOTEBOOKS, ignore_errors=True)
    NOTEBOOKS.mkdir(parents=True)
    written = []
    for page in sorted((DOCS / "tutorials").glob("*.md")):
        path, executed = NOTEBOOKS / f"{page.stem}.ipynb", EXECUTED / f"{page.stem}.ipynb"
        if not executed.exists() or executed.stat().st_mtime < page.stat().st_mtime:
            notebook = jupytext.read(page)
            notebook.metadata["kernelspec"] = {"name": "python3", "language": "python", "display_name": "Python"}
            nbformat.write(notebook, path)
            written.append(path)
    return written


def execute(notebooks: list[Path]) -> None:
    """Run notebooks by nbmake, as many at a time as there are cores, and keep what they give.

    Args:
        notebooks: Those to run.

    Raises:
        SystemExit: A cell failed.
    """
    environment = {name: value for name, value in os.environ.items() if name != "LORAFIT_DATA"} | ENVIRONMENT
    command = [sys.executable, "-m", "pytest", "-q", "-c", os.devnull, "-p", "no:cacheprovider", "--durations=0"]
    command += ["-n", "auto", "--dist", "worksteal", "--nbmake", "--overwrite", "--nbmake-timeout=600"]
    ended = subprocess.run([*command, *map(str, notebooks)], check=False, env=environment, cwd=NOTEBOOKS)
    if ended.returncode:
        raise SystemExit(ended.returncode)
    EXECUTED.mkdir(exist_ok=True)
    for path in notebooks:
        path.rename(EXECUTED / path.name)


def render_notebook(path: Path) -> str:
    """Return a notebook as Markdown, each cell with what it gave."""
    parts = []
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "markdown":
            parts.append(cell.source)
        else:
            parts += [f"```python\n{cell.source}\n```", *map(render_output, cell.outputs)]
    return "\n\n".join(parts).replace(f"{NOTEBOOKS}{os.sep}", "") + "\n"


def render_output(output: nbformat.NotebookNode) -> str:
    """Return one output of a cell as Markdown: a plot, HTML, or text."""
    data = output.get("data", {})
    if "image/png" in data:
        return f'<img alt="What the cell above draws" src="data:image/png;base64,{"".join(data["image/png"].split())}">'
    if "text/html" in data:
        page = re.sub(r"<style scoped>.*?</style>", "", data["text/html"], flags=re.DOTALL)
        page = re.sub(r'<table border="1" class="dataframe">', "<table>", page)
        return '<div class="output">' + re.sub(r"\n\s*\n", "\n", page).strip() + "</div>"
    text = output.get("text") or data["text/plain"]
    return f'<div class="output"><pre>{escape(text.rstrip())}</pre></div>'


def stage() -> None:
    """Put all pages into one folder: those of docs/, tutorials with what they give, and those of the root.

    Links between pages are turned to where their targets are now.
    """
    shutil.rmtree(STAGE, ignore_errors=True)
    shutil.copytree(DOCS, STAGE)
    places = {path: STAGE / path.relative_to(DOCS) for path in DOCS.rglob("*.md")}
    places |= {ROOT / name: STAGE / name.lower() for name in BESIDE}
    for source, target in places.items():
        executed = EXECUTED / f"{source.stem}.ipynb"
        is_tutorial = source.parent == DOCS / "tutorials"
        text = render_notebook(executed) if is_tutorial else source.read_text(encoding="utf-8")
        target.write_text(_turn_links(text, source, places), encoding="utf-8")


def _turn_links(text: str, source: Path, places: dict[Path, Path]) -> str:
    def turn(match: re.Match[str]) -> str:
        target = (source.parent / match[1]).resolve()
        return f"]({os.path.relpath(places[target], places[source].parent)}" if target in places else match[0]

    return re.sub(r"\]\(([\w./-]+\.md)", turn, text)


class Page(HTMLParser):
    """What a page of the site has and asks for.

    Attributes:
        anchors: Ids of its elements.
        links: Addresses that it leads to.
        parts: Addresses of what the browser fetches with it.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors, self.links, self.parts = set[str](), list[str](), list[str]()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take the anchors and addresses of an element."""
        found = dict(attrs)
        self.anchors |= {name for name in (found.get("id"), found.get("name") if tag == "a" else None) if name}
        for name in ("href", "src"):
            if (address := found.get(name)) and not address.startswith("data:"):
                (self.links if tag == "a" else self.parts).append(address)


def find_broken_links() -> Iterator[str]:
    """Yield the links of the built site that lead nowhere, and what its pages would fetch from elsewhere."""
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in SITE.rglob("*.html") if path.name != "404.html"}
    for path, page in pages.items():
        for address in (*page.links, *page.parts):
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                if address in page.parts:
                    yield f"{path.relative_to(SITE)} fetches {address}"
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            anchor = unquote(parts.fragment)
            if not target.is_file() or (anchor and target in pages and anchor not in pages[target].anchors):
                yield f"{path.relative_to(SITE)} leads to {address}"


def main() -> None:
    """Run, build and check."""
    parser = argparse.ArgumentParser(description="Build the docs into site/.")
    parser.add_argument("--fresh", action="store_true", help="run all tutorials, not only those that changed")
    if changed := convert_tutorials(fresh=parser.parse_args().fresh):
        execute(changed)
    stage()
    subprocess.run([sys.executable, "-m", "zensical", "build", "--clean", "--strict"], check=True, cwd=ROOT)
    if broken := sorted(set(find_broken_links())):
        raise SystemExit("\n".join(["Broken links:", *broken]))


if __name__ == "__main__":
    main()
