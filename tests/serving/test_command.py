"""`lorafit serve` as it is typed, in a process of its own."""

import http.client
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

import lorafit
from lorafit.cli import main


@contextmanager
def running(*words: str) -> Iterator[tuple["subprocess.Popen[str]", int]]:
    """Run the command until the block ends, and give the process and its port."""
    process = subprocess.Popen(
        [sys.executable, "-m", "lorafit", "serve", *words, "--port", "0"], stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if found := re.match(r"http://127\.0\.0\.1:(\d+)", line):
                break
        else:
            raise AssertionError("the server does not say where it listens")
        yield process, int(found[1])
    finally:
        process.kill()
        process.communicate()


def write(turn: int) -> str:
    """Return a text."""
    return f"{('superb', 'awful')[turn % 2]} film hours {turn}"


def ask(port: int, turn: int) -> tuple[int, str]:
    """Ask for a prediction, and return the status and the label."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    headers = {"content-type": "application/json"}
    connection.request("POST", "/predict", json.dumps({"inputs": write(turn)}), headers)
    answer = connection.getresponse()
    content = json.loads(answer.read())
    connection.close()
    return answer.status, content[0]["label"] if answer.status == 200 else ""


@pytest.mark.slow  # that a server ends so is tested with every one that runs in a test
def test_what_was_taken_is_answered_when_the_server_is_told_to_end(adapters: dict[str, Path]) -> None:
    expected = [one.label for one in lorafit.load(adapters["tone"], precision="fp32").predict(map(write, range(400)))]
    words = (f"tone={adapters['tone']}", "--warmup-tokens", "8", "--precision", "fp32")
    with running(*words) as (process, port):
        assert ask(port, 0) == (200, expected[0])
        with ThreadPoolExecutor(16) as pool:
            asked = [pool.submit(ask, port, turn) for turn in range(400)]
            while not any(one.done() for one in asked):
                pass
            process.send_signal(signal.SIGTERM)
            told: dict[int, tuple[int, str]] = {}
            for turn, one in enumerate(asked):
                with suppress(ConnectionRefusedError):  # it takes no more
                    told[turn] = one.result()
        assert process.wait(timeout=30) == 128 + signal.SIGTERM
        assert told
        assert told == {turn: (200, expected[turn]) for turn in told}
        assert process.stderr is not None
        lines = [json.loads(line) for line in process.stderr.read().splitlines() if line.startswith("{")]
        assert len([line for line in lines if line["path"] == "/predict"]) == len(told) + 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["serve"], "Name a run or an export"),
        (["serve", "none"], "none"),
        (["serve", "--host", "0.0.0.0", "none"], "--api-keys FILE"),  # noqa: S104 - it is refused
        (["serve", "--api-keys", "none", "none"], "cannot be read"),
    ],
)
def test_mistakes_are_told_in_one_message(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2
    assert said in capsys.readouterr().err


def read_measure(port: int, name: str) -> float:
    """Return a measure, summed over its labels."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/metrics")
    lines = connection.getresponse().read().decode().splitlines()
    connection.close()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.partition("{")[0].split(" ")[0] == name)


def find_workers(process: "subprocess.Popen[str]") -> list[int]:
    """Return the numbers of the processes that a process began."""
    return [int(one) for one in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def test_several_processes_answer_together(adapters: dict[str, Path]) -> None:
    expected = [one.label for one in lorafit.load(adapters["tone"], precision="fp32").predict(map(write, range(60)))]
    words = (f"tone={adapters['tone']}", "--warmup-tokens", "8", "--precision", "fp32", "--workers", "2", "--quiet")
    with running(*words) as (process, port):
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(lambda turn: ask(port, turn), range(60))) == [(200, label) for label in expected]
        assert read_measure(port, "lorafit_texts_total") == 60
        assert read_measure(port, "lorafit_requests_total") >= 60
        assert read_measure(port, "lorafit_models") == 1
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("DELETE", "/adapters/tone")
        answer = connection.getresponse()
        assert (answer.status, b"--workers" in answer.read()) == (409, True)
        connection.close()
        assert len(workers := find_workers(process)) == 2
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 128 + signal.SIGTERM
        assert not any(Path(f"/proc/{one}").exists() for one in workers)


@pytest.mark.slow
def test_workers_end_with_the_first_process(adapters: dict[str, Path]) -> None:
    words = (f"tone={adapters['tone']}", "--warmup-tokens", "0", "--precision", "fp32", "--workers", "2", "--quiet")
    with running(*words) as (process, _):
        workers = find_workers(process)
        process.kill()
        until = time.monotonic() + 60
        while any(Path(f"/proc/{one}").exists() for one in workers):
            assert time.monotonic() < until, "a worker stays"
            time.sleep(0.05)


def test_workers_that_cannot_work_are_not_begun_again(tmp_path: Path) -> None:
    words = ["serve", f"none={tmp_path}", "--workers", "2", "--port", "0"]
    told = subprocess.run([sys.executable, "-m", "lorafit", *words], capture_output=True, text=True, check=False)
    assert told.returncode == 2
    assert "is not a complete run folder" in told.stderr
    assert "One of 2 workers has failed, with status 1." in told.stderr
    assert "Traceback" not in told.stderr
