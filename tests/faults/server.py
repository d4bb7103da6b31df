"""Runs `lorafit` commands in processes of their own that need not import the libraries first: they are forked.

Run as a script: each line of the input is a request in JSON, each line of the output its answer. `{"start": …}` forks a
process that calls `lorafit.cli.main` with the words and returns its id; `{"poll": pid}` returns its status when it has
ended, else None. The process that forks computes nothing, so that no thread of a library is alive at a fork.

What lorafit itself starts, the process in which plain libraries open a saved model, is forked in the same way, by a
helper that each command has of its own and that ends with it.
"""

import contextlib
import gc
import importlib
import json
import multiprocessing
import os
import resource
import signal
import sys
import time
import traceback
import types
from pathlib import Path
from typing import Any

HEAVY = (
    "accelerate",
    "alembic",
    "datasets",
    "matplotlib.backends.backend_svg",
    "matplotlib.pyplot",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "optuna",
    "pandas",
    "peft",
    "pyarrow.parquet",
    "scipy.optimize",
    "scipy.stats",
    "sklearn.feature_extraction.text",
    "sklearn.linear_model",
    "sqlalchemy.dialects.sqlite",
    "torch._dynamo",
    "torch.onnx._internal.exporter._core",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.distilbert.modeling_distilbert",
    "transformers.trainer",
)
"""What commands import when they need it; what is not installed is left out."""

EVENTS = frozenset(
    {"open", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.link", "os.truncate", "subprocess.Popen"}
)
"""What a command does to the disk: the moments at which a kill by count may come."""


def import_all() -> types.ModuleType:
    """Import the libraries, all of lorafit, and the module that opens what was saved; return that."""
    import lorafit

    root = Path(lorafit.__file__).parent
    for name in HEAVY:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    for path in sorted(root.rglob("*.py")):
        name = ".".join(path.relative_to(root.parent).with_suffix("").parts).removesuffix(".__init__")
        if path.name != "__main__.py" and path.parent.name != "runtimes":
            importlib.import_module(name)
    sys.path.append(str(root / "models" / "runtimes"))
    return importlib.import_module("plain")


def fork_helper(plain: types.ModuleType) -> None:
    """Let this process's saved models be opened by processes that its helper forks, one for each."""
    from lorafit.errors import LorafitError
    from lorafit.runs import saving

    here, there = multiprocessing.Pipe()
    if os.fork() == 0:
        here.close()
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        with contextlib.suppress(EOFError, OSError):
            while True:
                request = there.recv()
                if os.fork() == 0:
                    try:
                        there.send((plain.compute_plain_logits(Path(request[0]), request[1]), None))
                    except BaseException:  # noqa: BLE001 - whatever it is, the command is told
                        there.send((None, traceback.format_exc()))
                    os._exit(0)
                os.wait()
        os._exit(0)
    there.close()

    def compute_plain_logits(folder: Path, texts: Any) -> list[list[float]]:  # noqa: ANN401
        here.send((str(folder), list(texts)))
        logits, error = here.recv()
        if error is not None:
            tail = "\n".join(error.strip().splitlines()[-5:])
            raise LorafitError(f"A fresh process with plain PEFT cannot load what was just written:\n{tail}")
        return logits

    own = saving.compute_plain_logits
    for module in [module for name, module in sys.modules.items() if name.startswith("lorafit.")]:
        if getattr(module, "compute_plain_logits", None) is own:
            module.compute_plain_logits = compute_plain_logits


def kill_at(count: int, log: str | None) -> None:
    """Kill this process when it is about to do its disk event of this number; write down how many there were."""
    seen, main = 0, os.getpid()

    def hear(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        if event not in EVENTS or os.getpid() != main:
            return
        seen += 1
        if seen == count:
            os.kill(main, signal.SIGKILL)

    sys.addaudithook(hear)
    if log is not None:
        import atexit

        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT, 0o600)
        atexit.register(lambda: os.write(descriptor, str(seen).encode()))


def run(request: dict[str, Any], plain: types.ModuleType) -> int:
    """Run one command in this forked process, and return its exit code."""
    os.setsid()
    os.chdir(request["cwd"])
    os.environ.update(request["env"])
    for name in request["without"]:
        os.environ.pop(name, None)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(request[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
    if request["stdin"] is not None:
        os.dup2(os.open(request["stdin"], os.O_RDONLY), 0)
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        signal.signal(getattr(signal, name), signal.default_int_handler if name == "SIGINT" else signal.SIG_DFL)
    fork_helper(plain)
    for name, limit in request["limits"].items():
        taken = 0
        if name == "RLIMIT_AS":  # what it may take in addition to what it began with
            taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(getattr(resource, name), (taken + limit, taken + limit))
    if request["events"] is not None or request["kill_at"]:
        kill_at(request["kill_at"], request["events"])
    from lorafit.cli import main

    sys.argv = ["lorafit", *request["words"]]
    try:
        main(request["words"])
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:  # noqa: BLE001 - as the interpreter shows it
        traceback.print_exc()
        return 1
    return 0


def flush() -> None:
    """End as the interpreter does, without the cleanup of the process that was forked from."""
    import atexit

    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()


def poll(pid: int, grace: float = 0.0) -> dict[str, Any] | None:
    """Return how a process ended, or None if it is at work."""
    found, status, usage = os.wait4(pid, os.WNOHANG)
    if not found:
        return None
    return {
        "status": os.waitstatus_to_exitcode(status),
        "seconds": usage.ru_utime + usage.ru_stime,
        "memory": usage.ru_maxrss * 1024,
    }


def serve() -> None:
    """Answer requests until the input ends."""
    replies = os.fdopen(os.dup(1), "w")
    plain = import_all()
    gc.collect()
    gc.freeze()  # a collection in a forked process would copy the memory of all objects
    print(json.dumps("ready"), file=replies, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        if "poll" in request:
            print(json.dumps(poll(request["poll"])), file=replies, flush=True)
            continue
        began = time.time()
        pid = os.fork()
        if pid == 0:
            code = 70
            try:
                code = run(request["start"], plain)
                flush()
            finally:
                os._exit(code)
        print(json.dumps({"pid": pid, "began": began}), file=replies, flush=True)


if __name__ == "__main__":
    serve()
