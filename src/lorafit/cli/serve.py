"""`lorafit serve`: answer over HTTP."""

import os
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Literal

import typer

from lorafit.cli.options import Quiet, accepts_altered, takes_base, takes_threads
from lorafit.system.text import disarm


@takes_base
@takes_threads
@accepts_altered
def serve(
    models: Annotated[
        list[str] | None, typer.Argument(help="Runs and exports: FOLDER, or NAME=FOLDER.", metavar="MODEL")
    ] = None,
    *,
    adapters_dir: Annotated[
        Path | None,
        typer.Option("--adapters-dir", metavar="DIR", help="Folder of more models, opened when they are asked for."),
    ] = None,
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Its port; 0 takes a free one.")] = 8080,
    api_keys: Annotated[
        Path | None,
        typer.Option("--api-keys", metavar="FILE", help="API keys, one a line [those in LORAFIT_API_KEYS]."),
    ] = None,
    rate_limit: Annotated[
        int | None, typer.Option("--rate-limit", metavar="N", min=1, help="Requests a key may make a minute.")
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option("--allow-host", metavar="NAME", help="Name that requests may be for, too (repeatable)."),
    ] = None,
    precision: Annotated[
        Literal["auto", "fp32", "bf16"],
        typer.Option("--precision", help="Of runs: bf16 is quicker where the CPU has it, and what auto takes there."),
    ] = "auto",
    max_adapters: Annotated[
        int, typer.Option("--max-adapters", metavar="N", min=1, help="Most models that are open.")
    ] = 100,
    max_texts: Annotated[int, typer.Option("--max-texts", metavar="N", min=1, help="Most texts a request.")] = 1024,
    batch_tokens: Annotated[
        int, typer.Option("--batch-tokens", metavar="N", min=1, help="Most tokens computed at a time.")
    ] = 4096,
    max_wait: Annotated[
        float,
        typer.Option("--max-wait", metavar="SECONDS", min=0, help="Requests that would wait longer are refused."),
    ] = 2.0,
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="SECONDS", min=0.001, help="Longest time until an answer.")
    ] = 30.0,
    cache: Annotated[int, typer.Option("--cache", metavar="N", min=0, help="Answers to keep in memory.")] = 0,
    warmup_tokens: Annotated[
        int, typer.Option("--warmup-tokens", metavar="N", min=0, help="Length of texts computed before it is ready.")
    ] = 128,
    workers: Annotated[
        int, typer.Option("--workers", metavar="N", min=1, help="Processes that answer; each opens all models.")
    ] = 1,
    quiet: Quiet = False,
) -> None:
    """Serve models over HTTP.

    LoRA adapters on one base share it. Speaks the dialects of Text Embeddings Inference, vLLM, Infinity and the Open
    Inference Protocol, and has a page to try the models.
    """
    from tempfile import TemporaryDirectory

    with TemporaryDirectory(prefix="lorafit-measures-") if workers > 1 else nullcontext() as shared:
        if shared is not None:  # read when prometheus_client is imported
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = shared
        from lorafit.system.extras import EXTRAS, require

        for package in EXTRAS["serve"]:
            require(package, extra="serve", purpose="lorafit serve")
        from lorafit.serving.gates import logging_to, read_keys
        from lorafit.serving.server import Access, Plan, listen_at, name_models, open_server
        from lorafit.serving.service import Limits

        plan = Plan(
            models=name_models(models or []),
            adapters_dir=adapters_dir,
            host=host,
            port=port,
            most=max_adapters,
            precision=precision,
            access=Access(read_keys(api_keys), rate_limit, tuple(allow_host or ())),
            limits=Limits(texts=max_texts, batch_tokens=batch_tokens, wait=max_wait, seconds=timeout, cache=cache),
            warm_up_tokens=warmup_tokens,
            workers=workers,
        )
        listening = listen_at(plan)

        def run(number: int) -> None:
            serving = open_server(plan, listening, say=_say if number == 0 else lambda _: None)
            if number == 0:
                _say(f"{serving.address}  (Ctrl-C ends)")
            with nullcontext() if quiet else logging_to(sys.stderr):
                serving.run()

        if workers == 1:
            run(0)
        else:
            from lorafit.serving.workers import run_workers
            from lorafit.system.hardware import choose_threads, use_threads

            with use_threads(max(1, choose_threads() // workers)):
                run_workers(run, workers, leave=listening.close)
    from lorafit.errors import StoppedError

    raise StoppedError("Ended; every request that was taken is answered.")


def _say(line: str) -> None:
    sys.stderr.write(f"{disarm(line)}\n")
