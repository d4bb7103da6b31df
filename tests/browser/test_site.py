"""The site of docs/, as `make docs` has built it, in a real browser."""

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.browser

SITE = Path(__file__).parent.parent.parent / "site"
OVERFLOW = "[document.documentElement.scrollWidth, innerWidth]"


class Quiet(SimpleHTTPRequestHandler):
    """A server of files that writes no log."""

    def log_message(self, *args: object) -> None:
        """Write nothing."""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Where the site is served."""
    assert (SITE / "index.html").is_file(), "There is no site: `make docs` builds it"
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(SITE)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("width", [390, 1280])
def test_pages_fit_are_quiet_and_ask_nobody_else(chromium: Any, address: str, width: int) -> None:  # noqa: ANN401 - of the conftest
    pages = sorted(path.parent.relative_to(SITE).as_posix() for path in SITE.rglob("index.html"))
    assert len(pages) > 30
    for page in pages:
        visit = chromium.open(f"{address}{page}/".replace("/./", "/"), width=width)
        assert visit.complaints == [], page
        assert [url for url in visit.requests if not url.startswith((address, "data:"))] == [], page
        needed, there = chromium.evaluate(OVERFLOW)
        assert there == width
        assert needed <= width, page


@pytest.mark.parametrize(("scheme", "dark"), [("light", False), ("dark", True)])
def test_page_is_as_light_as_its_reader_wants(chromium: Any, address: str, scheme: str, dark: bool) -> None:  # noqa: ANN401 - of the conftest
    chromium.open(address, width=1280, scheme=scheme)
    background = "getComputedStyle(document.body).backgroundColor.match(/[\\d.]+/g).slice(0, 3).map(Number)"
    assert (max(chromium.evaluate(background)) < 100) is dark


def wait_for(chromium: Any, expression: str) -> Any:  # noqa: ANN401 - of the conftest, and of the page
    """Return what an expression gives once that is true; after 20 seconds whatever it gives."""
    return chromium.evaluate(f"""
        new Promise(done => {{
            const began = performance.now();
            const timer = setInterval(() => {{
                const value = {expression};
                if (value || performance.now() - began > 20000) {{ clearInterval(timer); done(value); }}
            }}, 50);
        }})
    """)


@pytest.mark.parametrize("width", [390, 1280])
def test_search_finds_a_page(chromium: Any, address: str, width: int) -> None:  # noqa: ANN401 - of the conftest
    chromium.open(address, width=width)
    chromium.evaluate("document.querySelector('.md-search__button').click()")
    root = "document.activeElement.shadowRoot"  # the search is a tree of its own, which has the focus
    assert wait_for(chromium, f"Boolean({root})")
    chromium.send("Input.insertText", text="conformal set")
    found = wait_for(chromium, f"[...{root}.querySelectorAll('a')].map(link => link.href).join(' ')")
    assert "how-to/trust-the-confidence/" in found
    visit = chromium.recall()
    assert visit.complaints == []
    assert [url for url in visit.requests if not url.startswith((address, "data:", "blob:"))] == []
