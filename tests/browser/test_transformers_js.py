"""An export in a browser: the page of the documentation opens it with transformers.js and says what lorafit says."""

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import lorafit
from lorafit.config import load_config
from lorafit.training.pipeline import Run

pytestmark = pytest.mark.browser

MODULES = Path(__file__).with_name("node_modules")
GUIDE = Path(__file__).parents[2] / "docs" / "how-to" / "export-a-model.md"
(PAGE,) = re.findall(r"^```html\n(.*?)^```$", GUIDE.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
(TEXTS,) = re.findall(r"const texts = (\[.*\]);", PAGE)
SHOWN = "document.querySelector('#answers').textContent"
AWKWARD = ["Café, naïve; 100 % 好 film!\n\tIt's <b>unputdownable</b> &amp; O.K. 🎬", "superb " * 60]
"""Accents, signs, markup and a text much longer than the others."""

PATIENCE_SECONDS = 60
NO_GPU = "No available adapters."
"""Chromium's warning where WebAssembly asks for a GPU and there is none."""

FORMS = {
    # A value that differs in its last digit may be rounded to another whole number. Scores of 300 real reviews differed
    # by up to 0.055 for that; in fp32 by 1.3e-7.
    "int8": ("onnx-int8", "model_quantized.onnx", "q8", 0.08),
    "fp32": ("onnx", "model.onnx", "fp32", 1e-5),
}
"""Folder, model file, what transformers.js calls it, and how far a score may be from lorafit's."""


class Handler(SimpleHTTPRequestHandler):
    """Serves a folder without a word."""

    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture(scope="module")
def trained(word_reviews: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    config = load_config(
        overrides=[
            f"data.source={word_reviews}",
            "data.test_fraction=0.2",
            "data.validation_fraction=0.4",
            "model.name=builtin:distil-minilm",
            "model.max_length=128",
            "training.batch_size=16",
            "training.max_steps=20",
            "training.learning_rate=1e-3",
            "training.threads=1",
            "evaluation.report=false",
            "evaluation.baselines=false",
        ]
    )
    return lorafit.train(config, output=tmp_path_factory.mktemp("runs") / "imdb")


@pytest.fixture(scope="module")
def site(trained: Run, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A folder that is served, with the run in it as it is, and its address."""
    assert MODULES.is_dir(), "transformers.js is not installed: `make test-browser` installs it"
    folder = tmp_path_factory.mktemp("site")
    (folder / "favicon.ico").touch()
    (folder / "runs").symlink_to(trained.path.parent)
    (folder / "node_modules").symlink_to(MODULES)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("form", FORMS)
def test_the_page_of_the_guide_says_what_lorafit_says(
    chromium: Any,  # noqa: ANN401 - of the conftest
    trained: Run,
    site: tuple[Path, str],
    form: str,
) -> None:
    root, address = site
    folder, file, dtype, near = FORMS[form]
    export = lorafit.export(trained.path, int8=form == "int8")
    assert export.path == trained.path / folder
    (graph,) = export.path.rglob(file)
    assert graph.stat().st_size <= (25_000_000 if form == "int8" else 100_000_000), "a page loads it"
    texts = json.loads(TEXTS) + AWKWARD
    page = put(PAGE, TEXTS, json.dumps(texts))
    page = put(put(page, '"onnx-int8"', f'"{folder}"'), '"q8"', f'"{dtype}"')
    (root / f"{form}.html").write_text(page, encoding="utf-8")
    chromium.open(f"{address}/{form}.html", width=800)
    wait_for(lambda: chromium.evaluate(SHOWN) or find_faults(chromium))
    assert find_faults(chromium) == []
    answers = json.loads(chromium.evaluate(SHOWN))

    expected = lorafit.load(export.path, raw=True).predict(texts)
    assert {one.label for one in expected} == {"neg", "pos"}
    assert min(one.score for one in expected) > 0.5 + near, "no label hangs on rounding"
    assert [one["label"] for one in answers] == [one.label for one in expected]
    assert [one["score"] for one in answers] == pytest.approx([one.score for one in expected], abs=near)

    asked = set(chromium.recall().requests)
    assert f"{address}/runs/imdb/{folder}/{file}" in asked
    assert {one for one in asked if not one.startswith(f"{address}/")} == set(), "nothing from elsewhere"


def test_a_model_from_elsewhere_would_be_noticed(chromium: Any, site: tuple[Path, str]) -> None:  # noqa: ANN401
    root, address = site
    page = put(PAGE, "env.allowRemoteModels = false", 'env.remoteHost = "https://example.invalid/"')
    (root / "elsewhere.html").write_text(put(page, '"onnx-int8"', '"missing"'), encoding="utf-8")
    chromium.open(f"{address}/elsewhere.html", width=800)
    assert wait_for(lambda: find_faults(chromium))
    asked = [one for one in chromium.recall().requests if not one.startswith(f"{address}/")]
    assert asked
    assert all(one.startswith("https://example.invalid/missing/") for one in asked)


def put(page: str, old: str, new: str) -> str:
    assert page.count(old) == 1
    return page.replace(old, new)


def find_faults(chromium: Any) -> list[str]:  # noqa: ANN401 - of the conftest
    chromium.evaluate("0")  # takes what the browser has to say
    return [one for one in chromium.recall().complaints if NO_GPU not in one]


def wait_for(look: Callable[[], Any]) -> Any:  # noqa: ANN401 - whatever it sees
    """Return what `look` sees once it sees something."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (seen := look()):
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.1)
    return seen
