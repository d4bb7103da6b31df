"""The page of a server in a real browser."""

import json
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lorafit.serving.server import Access, Plan, Serving, listen_at, open_server

if TYPE_CHECKING:
    from tests.browser.conftest import Chromium

pytestmark = pytest.mark.browser

KEY = "a-key-of-a-caller-1"
EVIL = "<img src=x onerror=alert(1)><script>alert(2)</script>"


@contextmanager
def running(models: dict[str, Path], **options: Any) -> Iterator[Serving]:
    """Serve inside the block."""
    plan = Plan(models, port=0, warm_up_tokens=0, **options)
    serving = open_server(plan, listen_at(plan))
    thread = threading.Thread(target=serving.run)
    thread.start()
    try:
        yield serving
    finally:
        serving.server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def runs(
    trained_of: Callable[[str], Path], train_run: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Runs of three kinds, one with a report, one with labels that are markup."""
    folder = tmp_path_factory.mktemp("evil")
    rows = [
        {"text": f"{word} film {row}", "label": label}
        for row in range(60)
        for word, label in (("awful", EVIL), ("lovely", "good"))
    ]
    (folder / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    evil = train_run("single_label", f"data.source={folder / 'own.jsonl'}", "evaluation.report=true", folder=folder)
    return {
        "tone": trained_of("single_label"),
        "kinds": trained_of("multi_label"),
        "points": trained_of("regression"),
        "evil": evil,
    }


@pytest.fixture(scope="module")
def served(runs: dict[str, Path]) -> Iterator[Serving]:
    with running(runs) as serving:
        yield serving


def wait_for(chromium: "Chromium", expression: str) -> Any:  # noqa: ANN401 - whatever the page gives
    """Wait until an expression is true in the page, and return it."""
    until = time.monotonic() + 20
    while not (value := chromium.evaluate(expression)):
        assert time.monotonic() < until, expression
        time.sleep(0.05)
    return value


def open_page(chromium: "Chromium", served: Serving, *, width: int = 1280, scheme: str = "light") -> None:
    """Open the page, and wait until it knows the models."""
    chromium.open(f"{served.address}/", width=width, scheme=scheme)
    wait_for(chromium, "document.querySelectorAll('#model option').length > 0")


def ask(chromium: "Chromium", text: str, model: str, other: str = "") -> None:
    """Type texts and press the button."""
    chromium.evaluate(
        f"""(() => {{
            document.getElementById('model').value = {json.dumps(model)};
            document.getElementById('model').dispatchEvent(new Event('change'));
            document.getElementById('other').value = {json.dumps(other)};
            document.getElementById('texts').value = {json.dumps(text)};
            document.getElementById('answers').replaceChildren();
            document.querySelector('#ask button').click();
        }})()"""
    )
    wait_for(chromium, f"document.querySelectorAll('.answer').length === {len(text.splitlines())}")


def test_texts_are_answered_side_by_side(chromium: "Chromium", served: Serving) -> None:
    open_page(chromium, served)
    ask(chromium, "superb film\nawful film", "tone", "kinds")
    said = chromium.evaluate("[...document.querySelectorAll('.verdict')].map((one) => one.textContent)")
    assert len(said) == 4
    assert said[0].startswith("pos")
    assert said[2].startswith("neg")
    bars = ".answer:first-child .sides > div:first-child meter"
    assert chromium.evaluate(f"document.querySelectorAll('{bars}').length") == 2
    ask(chromium, "superb film", "points")
    assert float(chromium.evaluate("document.querySelector('.verdict').textContent")) > 60
    wait_for(chromium, "document.querySelectorAll('#history li').length === 2")
    chromium.evaluate("document.querySelector('#history li:last-child button').click()")
    wait_for(chromium, "document.querySelectorAll('.answer').length === 2")
    chromium.evaluate("document.getElementById('forget').click()")
    assert chromium.evaluate("document.querySelectorAll('#history li').length") == 0
    visit = chromium.recall()
    assert visit.complaints == []
    assert all(address.startswith(served.address) for address in visit.requests if not address.startswith("data:"))


def press(chromium: "Chromium", key: str, code: int, *, modifiers: int = 0, text: str = "") -> None:
    """Press and release a key."""
    typed = {"text": text} if text else {}
    named = {"key": key, "code": key, "windowsVirtualKeyCode": code, "modifiers": modifiers}
    chromium.send("Input.dispatchKeyEvent", type="keyDown", **named, **typed)
    chromium.send("Input.dispatchKeyEvent", type="keyUp", **named)


def tab_to(chromium: "Chromium", expression: str) -> None:
    """Press Tab until an expression about `document.activeElement`, called `it`, is true."""
    for _ in range(40):
        if chromium.evaluate(f"((it) => Boolean({expression}))(document.activeElement)"):
            return
        press(chromium, "Tab", 9)
    raise AssertionError(f"Tab leads nowhere where {expression}")


def test_the_page_is_used_by_keyboard_alone(chromium: "Chromium", served: Serving) -> None:
    open_page(chromium, served)
    tab_to(chromium, "it.id === 'model'")
    press(chromium, "t", 84, text="t")
    assert chromium.evaluate("document.getElementById('model').value") == "tone"
    tab_to(chromium, "it.id === 'texts'")
    chromium.send("Input.insertText", text="superb film hours 1")
    press(chromium, "Enter", 13, modifiers=2)
    wait_for(chromium, "document.querySelectorAll('.answer').length === 1")
    tab_to(chromium, "(it.ariaLabel || '').startsWith('Which words? tone: superb film')")
    press(chromium, "Enter", 13, text="\r")
    wait_for(chromium, "document.activeElement.querySelectorAll('mark').length >= 4")
    heard = chromium.evaluate("document.querySelector('mark + .unseen').textContent")
    assert re.fullmatch(r" \([+\u2212]\d\.\d\d (for|against) (pos|neg)\)", heard)
    tab_to(chromium, "it.closest('#history')")
    press(chromium, "Enter", 13, text="\r")
    wait_for(chromium, "document.querySelectorAll('mark').length === 0")
    assert chromium.evaluate("document.activeElement.id") == "texts"
    assert chromium.recall().complaints == []


def test_models_are_opened_when_they_are_asked_for(chromium: "Chromium", runs: dict[str, Path], tmp_path: Path) -> None:
    for name in ("tone", "evil"):
        shutil.copytree(runs[name], tmp_path / name)
    with running({}, adapters_dir=tmp_path) as served:
        open_page(chromium, served)
        assert chromium.evaluate("document.getElementById('state').textContent").startswith("0 open, 2 waiting")
        ask(chromium, "superb\tfilm", "tone")
        assert chromium.evaluate("document.querySelector('.answer p').textContent") == "superb\tfilm", "no pair"
        ask(chromium, "awful film", "evil")
        wait_for(chromium, "document.querySelectorAll('#links .report').length === 1")
        assert chromium.recall().complaints == []


def test_words_are_marked(chromium: "Chromium", served: Serving) -> None:
    open_page(chromium, served)
    ask(chromium, "superb film hours 1", "tone")
    chromium.evaluate("document.querySelector('.small button').click()")
    wait_for(chromium, "document.querySelectorAll('mark').length >= 4")
    marked = chromium.evaluate("[...document.querySelectorAll('mark')].map((one) => one.textContent)")
    assert marked == ["superb", "film", "hours", "1"]
    assert chromium.evaluate("document.querySelectorAll('mark.s4').length") >= 1
    assert chromium.recall().complaints == []


def test_a_file_is_labelled(chromium: "Chromium", served: Serving) -> None:
    open_page(chromium, served)
    source = '\ufeffid,text\r\n1,"superb film, with a ""quote"""\r\n2,\r\n=3,awful film\r\n4,\u200b\r\n'
    script = """(async () => {
        const at = (id) => document.getElementById(id);
        const wait = async (is) => { while (!is()) await new Promise((go) => setTimeout(go, 20)); };
        const dataTransfer = new DataTransfer();
        dataTransfer.items.add(new File([SOURCE], 'reviews.csv', { type: 'text/csv' }));
        at('drop').dispatchEvent(new DragEvent('drop', { dataTransfer, bubbles: true, cancelable: true }));
        at('model').value = 'tone';
        let blob = null;
        const make = URL.createObjectURL;
        URL.createObjectURL = (one) => { blob = one; return make.call(URL, one); };
        await wait(() => !at('run').disabled);
        const column = at('column').selectedOptions[0].textContent;
        at('run').click();
        await wait(() => !at('download').hidden);
        return [column, at('file-state').textContent, await blob.text()];
    })()"""
    told = chromium.evaluate(script.replace("SOURCE", json.dumps(source)))
    assert told[:2] == ["text", "2 rows labelled, 1 without a text, 1 refused"]
    header, first, second, third, fourth = told[2].splitlines()
    assert header == "id,text,predicted,predicted_score,score_neg,score_pos"
    assert first.startswith('1,"superb film, with a ""quote""",pos,0.')
    assert second == "2,,,,,"
    assert third.startswith("'=3,awful film,neg,0.")
    assert fourth == "4,\u200b,,,,"


def test_nothing_that_comes_from_people_is_run(chromium: "Chromium", served: Serving) -> None:
    open_page(chromium, served)
    ask(chromium, f"awful film {EVIL}", "evil")
    assert chromium.evaluate("document.querySelector('.verdict').textContent") == EVIL
    assert chromium.evaluate("document.querySelectorAll('#answers img, #answers script').length") == 0
    chromium.evaluate("document.querySelector('.small button').click()")
    wait_for(chromium, "document.querySelectorAll('mark').length >= 2")
    assert chromium.evaluate("document.querySelectorAll('main img, main script').length") == 0
    blocked = chromium.evaluate(
        """(() => { const one = document.createElement('script'); one.textContent = 'window.ran = true';
        document.body.append(one); return window.ran !== true; })()"""
    )
    assert blocked
    assert any("Content Security Policy" in text for text in chromium.recall().complaints)


def test_the_report_is_shown_under_a_policy_of_its_own(
    chromium: "Chromium", served: Serving, runs: dict[str, Path]
) -> None:
    open_page(chromium, served)
    ask(chromium, "awful film", "evil")
    link = wait_for(
        chromium, "document.querySelector('#links .report') && document.querySelector('#links .report').href"
    )
    assert link == f"{served.address}/reports/evil"
    card = chromium.evaluate("document.querySelector('#links .card').href")
    assert card == f"{served.address}/cards/evil"
    chromium.open(link, width=1280)
    assert chromium.evaluate("getComputedStyle(document.body).maxWidth") != "none"
    assert chromium.recall().complaints == []
    assert (runs["evil"] / "report.html").is_file()
    chromium.open(card, width=1280)
    assert "<" in chromium.evaluate("document.body.textContent"), "its labels are markup, and shown as they are"
    assert chromium.evaluate("document.querySelectorAll('script, img').length") == 0


def test_a_key_is_asked_for_where_one_is_needed(chromium: "Chromium", runs: dict[str, Path]) -> None:
    with running({"tone": runs["tone"]}, access=Access((KEY,))) as serving:
        chromium.open(f"{serving.address}/", width=1280)
        wait_for(chromium, "!document.getElementById('fault').hidden")
        chromium.evaluate(
            f"""(() => {{ document.getElementById('key').value = {json.dumps(KEY)};
            document.querySelector('#key-form button').click(); }})()"""
        )
        wait_for(chromium, "document.querySelectorAll('#model option').length > 0")
        ask(chromium, "superb film", "tone")
        assert chromium.evaluate("document.getElementById('fault').hidden")


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_a_phone_and_the_night(
    chromium: "Chromium", served: Serving, tmp_path: Path, width: int, scheme: str
) -> None:
    open_page(chromium, served, width=width, scheme=scheme)
    ask(chromium, "superb film\n" + "long " * 60 + "x" * 300, "tone", "kinds")
    assert chromium.evaluate("document.documentElement.scrollWidth") <= width
    dark = chromium.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(21, 24, 27)"
    assert dark == (scheme == "dark")
    chromium.photograph(tmp_path / f"{width}-{scheme}.png")
    assert (tmp_path / f"{width}-{scheme}.png").stat().st_size > 5000
    assert chromium.recall().complaints == []


def test_every_control_has_a_name_and_can_be_reached(chromium: "Chromium", served: Serving) -> None:
    open_page(chromium, served)
    nameless = chromium.evaluate(
        """[...document.querySelectorAll('button, select, textarea, input, progress, meter')]
        .filter((one) => !one.hidden && !(one.labels && one.labels.length) && !one.textContent.trim() && !one.ariaLabel)
        .map((one) => one.id)"""
    )
    assert nameless == []
    assert chromium.evaluate("document.querySelectorAll('[tabindex]:not([tabindex=\"0\"])').length") == 0
