"""The routes of the server."""

import asyncio
import base64
import hashlib
import html
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from importlib.resources import files
from typing import Annotated, Any, Final, Literal, TypeVar

from fastapi import FastAPI, Path, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from lorafit import __version__
from lorafit.errors import LorafitError, RunError, UserInputError
from lorafit.serving import dialects
from lorafit.serving.batching import OverloadedError
from lorafit.serving.dialects import (
    Asked,
    ClassifyRequest,
    ExplainRequest,
    InferRequest,
    PredictionsRequest,
    TeiRequest,
)
from lorafit.serving.service import Service, TokenlessError, TooMuchError
from lorafit.serving.shelf import OccupiedError, UnknownModelError

T = TypeVar("T")

_PAGE: Final = {"index.html": "text/html", "app.js": "text/javascript", "style.css": "text/css"}
_STRICT: Final = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_PAGE_POLICY: Final = f"{_STRICT}; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:"
_STYLE: Final = re.compile(r"<style>(.*?)</style>", re.DOTALL)
_STYLED: Final = re.compile(r'\sstyle="([^"]*)"')

_AnyName = Annotated[str, Path(max_length=128)]

_FAULTS: Final[tuple[tuple[type[Exception], int, str], ...]] = (
    (UnknownModelError, 404, "not_found"),
    (OccupiedError, 409, "conflict"),
    (TooMuchError, 413, "validation"),
    (TokenlessError, 422, "tokenless"),
    (OverloadedError, 429, "overloaded"),
    (TimeoutError, 504, "timeout"),
    (RunError, 424, "backend"),
    (UserInputError, 422, "validation"),
    (LorafitError, 424, "backend"),
)
"""Status and kind of errors; the first that fits counts."""


class Fault(BaseModel):
    """What went wrong, as Text Embeddings Inference says it."""

    error: str
    error_type: str


class LoadRequest(Asked):
    """An adapter to open: its folder below `--adapters-dir`, and what it shall be called."""

    name: Annotated[str, Field(max_length=64)]
    path: Annotated[str | None, Field(max_length=1024, description="From --adapters-dir; the name if left out.")] = None


class LoraRequest(Asked):
    """vLLM's words for the same."""

    lora_name: Annotated[str, Field(max_length=64)]
    lora_path: Annotated[str | None, Field(max_length=1024)] = None


_FAULT: Final = {"application/json": {"schema": {"$ref": f"#/components/schemas/{Fault.__name__}"}}}
"""The content of a fault, whatever else a route answers with."""

_NOT_READY: Final[dict[int | str, dict[str, Any]]] = {503: {"model": Fault, "description": "not ready"}}

_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    status: {"content": _FAULT, "description": meaning}
    for status, meaning in {
        401: "no such API key",
        403: "a host or a site that may not ask",
        404: "no such model",
        408: "the request came too slowly",
        409: "a name that is taken, no room for more models, or a model that stays",
        413: "too many texts, or too long ones",
        422: "not what the route takes",
        424: "the model failed",
        429: "too much waits; ask again after Retry-After",
        504: "no answer in time",
    }.items()
}


def build_app(service: Service, *, is_alone: bool = True) -> FastAPI:
    """Build the application.

    Args:
        service: What answers; it is stopped when the application ends.
        is_alone: Whether no other process answers at the address: models are opened and put away by request only then.

    Returns:
        The application, without the gate before it.
    """

    @asynccontextmanager
    async def live(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(service.stop)

    app = FastAPI(
        title="lorafit",
        version=__version__,
        description="Text classifiers: many adapters on one base, with calibrated scores.",
        lifespan=live,
        docs_url=None,
        redoc_url=None,
        responses=_RESPONSES,
    )
    _add_answers(app, service)
    _add_tensors(app, service)
    _add_adapters(app, service, is_alone=is_alone)
    _add_state(app, service)
    _add_page(app, service)
    for kind in (LorafitError, TooMuchError, OverloadedError, TimeoutError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, _tell_fault)
    return app


def _add_answers(app: FastAPI, service: Service) -> None:
    @app.post("/predict", tags=["Text Embeddings Inference"])
    async def predict(asked: TeiRequest, request: Request) -> list[Any]:
        """Answer as Text Embeddings Inference: labels with scores, the highest first."""
        texts, batch = asked.read()
        answers = await _while_there(request, service.ask(asked.model, texts))
        return dialects.tell_tei(answers, raw=asked.raw_scores, batch=batch)

    @app.post("/classify", tags=["vLLM", "Infinity"])
    async def classify(asked: ClassifyRequest, request: Request) -> dict[str, Any]:
        """Answer as vLLM, or as Infinity where `raw_scores` is there."""
        answers = await _while_there(request, service.ask(asked.model, asked.read()))
        if asked.raw_scores is None:
            return dialects.tell_vllm(answers)
        return dialects.tell_infinity(answers, raw=asked.raw_scores)

    @app.post("/infinity/classify", tags=["Infinity"])
    async def classify_as_infinity(asked: ClassifyRequest, request: Request) -> dict[str, Any]:
        """Answer as Infinity."""
        answers = await _while_there(request, service.ask(asked.model, asked.read()))
        return dialects.tell_infinity(answers, raw=bool(asked.raw_scores))

    @app.post("/predictions", tags=["lorafit"])
    async def predictions(asked: PredictionsRequest, request: Request) -> dict[str, Any]:
        """Answer with all that the model knows: label, calibrated score, conformal set, abstention, typicality."""
        answers = await _while_there(request, service.ask(asked.model, asked.read()))
        return dialects.tell_predictions(answers, raw=asked.raw_scores, top_k=asked.top_k)

    @app.post("/explanations", tags=["lorafit"])
    async def explanations(asked: ExplainRequest, request: Request) -> dict[str, Any]:
        """Say which words of one text a prediction rests on."""
        told = await _while_there(request, service.explain(asked.model, asked.read(), asked.label))
        return dialects.tell_explanation(*told)


def _add_tensors(app: FastAPI, service: Service) -> None:
    tag: Any = ["Open Inference Protocol"]

    @app.get("/v2", tags=tag)
    def server() -> dict[str, Any]:
        """Say which server this is."""
        return {"name": "lorafit", "version": __version__, "extensions": []}

    @app.get("/v2/health/live", tags=tag)
    def live() -> dict[str, bool]:
        """Say that it lives."""
        return {"live": True}

    @app.get("/v2/health/ready", tags=tag, responses=_NOT_READY)
    def ready() -> dict[str, bool]:
        """Say whether it takes requests."""
        _require_ready(service)
        return {"ready": True}

    @app.get("/v2/models/{name}", tags=tag)
    async def metadata(name: _AnyName) -> dict[str, Any]:
        """Describe the tensors of a model."""
        return dialects.describe_tensors(await service.find(name))

    @app.get("/v2/models/{name}/ready", tags=tag)
    def model_ready(name: _AnyName) -> dict[str, Any]:
        """Say that a model is open."""
        found = service.shelf.find_open(name)
        if found is None:
            raise UnknownModelError("No model of that name is open.")
        return {"name": found.name, "ready": True}

    @app.post("/v2/models/{name}/infer", tags=tag)
    async def infer(name: _AnyName, asked: InferRequest, request: Request) -> dict[str, Any]:
        """Answer tensors of texts."""
        return dialects.tell_infer(await _while_there(request, service.ask(name, asked.read())), asked)


def _add_adapters(app: FastAPI, service: Service, *, is_alone: bool) -> None:
    shelf = service.shelf

    def require_alone() -> None:
        if not is_alone:
            raise OccupiedError(
                "With --workers every process has its own models: they are named when the server starts, or lie in "
                "--adapters-dir and are opened when they are asked for."
            )

    async def open_one(name: str, path: str | None) -> dict[str, Any]:
        require_alone()
        folder = shelf.locate(name if path is None else path)
        return dialects.describe_model(await service.open(partial(shelf.open, name, folder)))

    async def close_one(name: str) -> None:
        require_alone()
        await service.open(partial(shelf.close, name))

    @app.get("/adapters", tags=["lorafit"])
    def list_adapters() -> dict[str, Any]:
        """List the models that are open, and those that wait to be asked for."""
        return {"adapters": [dialects.describe_model(one) for one in shelf], "waiting": shelf.list_waiting()}

    @app.get("/adapters/{name}", tags=["lorafit"])
    async def describe(name: _AnyName) -> dict[str, Any]:
        """Describe a model; one that waits to be asked for is opened."""
        return dialects.describe_model(await service.find(name))

    @app.post("/adapters", tags=["lorafit"], status_code=201)
    async def load(asked: LoadRequest) -> dict[str, Any]:
        """Open a model of `--adapters-dir`."""
        return await open_one(asked.name, asked.path)

    @app.delete("/adapters/{name}", tags=["lorafit"], status_code=204)
    async def unload(name: _AnyName) -> None:
        """Put a model away."""
        await close_one(name)

    _add_loras(app, open_one, close_one)


def _add_loras(
    app: FastAPI,
    open_one: Callable[[str, str | None], Awaitable[object]],
    close_one: Callable[[str], Awaitable[None]],
) -> None:
    @app.post("/v1/load_lora_adapter", tags=["vLLM"], response_class=PlainTextResponse)
    async def load_lora(asked: LoraRequest) -> str:
        """Open a model of `--adapters-dir`."""
        await open_one(asked.lora_name, asked.lora_path)
        return f"Success: LoRA adapter '{asked.lora_name}' added successfully."

    @app.post("/v1/unload_lora_adapter", tags=["vLLM"], response_class=PlainTextResponse)
    async def unload_lora(asked: LoraRequest) -> str:
        """Put a model away."""
        await close_one(asked.lora_name)
        return f"Success: LoRA adapter '{asked.lora_name}' removed successfully."


def _add_state(app: FastAPI, service: Service) -> None:
    @app.get("/health", tags=["Text Embeddings Inference"], responses=_NOT_READY, response_class=Response)
    def health() -> Response:
        """Answer 200 while it takes requests."""
        _require_ready(service)
        return Response()

    @app.get("/info", tags=["Text Embeddings Inference"])
    def info() -> dict[str, Any]:
        """Say what is served, as Text Embeddings Inference does of its one model."""
        limits, first = service.limits, next(iter(service.shelf), None)
        told: dict[str, Any] = {
            "version": __version__,
            "max_client_batch_size": limits.texts,
            "max_batch_tokens": limits.batch_tokens,
            "auto_truncate": True,
        }
        if first is None:
            return told
        names = first.predictor.task.label_names
        id2label = {str(index): name for index, name in enumerate(names)}
        kind = {"classifier": {"id2label": id2label, "label2id": {name: index for index, name in enumerate(names)}}}
        return {
            "model_id": first.name,
            "model_sha": first.digest,
            "model_dtype": first.predictor.runtime.precision,
            "model_type": kind,
            "max_input_length": first.predictor.max_length,
            **told,
        }

    @app.get("/metrics", tags=["Text Embeddings Inference"], response_class=PlainTextResponse)
    def metrics() -> Response:
        """Return measures as Prometheus reads them."""
        told = service.measures.write(waiting=service.waiting, models=[one.name for one in service.shelf])
        return Response(told, media_type="text/plain; version=0.0.4; charset=utf-8")


def _add_page(app: FastAPI, service: Service) -> None:
    page = {name: files("lorafit.serving").joinpath("page", name).read_bytes() for name in _PAGE}

    @app.get("/", include_in_schema=False)
    def index() -> Response:
        return _give(page["index.html"], _PAGE["index.html"], _PAGE_POLICY)

    @app.get("/page/{name}", include_in_schema=False)
    def part(name: _AnyName) -> Response:
        if name not in page:
            raise HTTPException(404)
        return _give(page[name], _PAGE[name], _PAGE_POLICY)

    async def read(name: str, what: Literal["report", "card"]) -> str:
        served = await service.find(name)
        path = served.report if what == "report" else served.card
        if path is None:
            raise UnknownModelError(f"That model has no {what}.")
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeError):
            raise UnknownModelError(f"The {what} of that model cannot be read.") from None

    @app.get("/reports/{name}", tags=["lorafit"], response_class=HTMLResponse)
    async def report(name: _AnyName) -> Response:
        """Return the report of a model."""
        text = await read(name, "report")
        return _give(text.encode(), "text/html", f"{_STRICT}; style-src {_allow_styles(text)}; img-src data:")

    @app.get("/cards/{name}", tags=["lorafit"], response_class=PlainTextResponse)
    async def card(name: _AnyName) -> Response:
        """Return the model card of a model, as Markdown."""
        return _give((await read(name, "card")).encode(), "text/plain", _STRICT)


def _allow_styles(page: str) -> str:
    """Return the source list of a policy that allows the styles of a page, of elements and attributes, and no other."""
    styles = {*_STYLE.findall(page), *map(html.unescape, _STYLED.findall(page))}
    hashes = (base64.b64encode(hashlib.sha256(style.encode()).digest()).decode() for style in sorted(styles))
    return " ".join(["'unsafe-hashes'", *(f"'sha256-{one}'" for one in hashes)])


def _give(content: bytes, kind: str, policy: str) -> Response:
    headers = {"content-security-policy": policy, "cache-control": "no-cache"}
    return Response(content, media_type=f"{kind}; charset=utf-8", headers=headers)


def _require_ready(service: Service) -> None:
    if not service.is_ready or service.is_ending:
        raise HTTPException(503, "The server is not ready.")


async def _while_there(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Await an answer, and give it up when the client has gone."""

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    answer, gone = asyncio.ensure_future(work), asyncio.ensure_future(watch())
    try:
        await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise HTTPException(499, "The client has gone.")
        return answer.result()
    finally:
        for awaited in (answer, gone):
            awaited.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await awaited


async def _tell_fault(_: Request, error: Exception) -> Response:
    status, kind = next(
        ((status, kind) for what, status, kind in _FAULTS if isinstance(error, what)), (500, "internal")
    )
    message, headers = str(error), dict[str, str]()
    if isinstance(error, HTTPException):
        status, kind, message = error.status_code, "http", str(error.detail)
        if status == 400:  # FastAPI's own, of bytes that it cannot decode
            status, kind, message = 422, "validation", "The body is no JSON in UTF-8."
        headers = dict(error.headers or {})
    elif isinstance(error, RequestValidationError):
        status, kind, message = 422, "validation", _describe_validation(error)
    elif isinstance(error, TimeoutError):
        message = "There was no answer in time."
    elif isinstance(error, OverloadedError):
        headers = {"retry-after": str(error.seconds)}
    return JSONResponse({"error": message, "error_type": kind}, status, headers)


def _describe_validation(error: RequestValidationError) -> str:
    """Say what is wrong with a request without repeating any of it."""
    said: list[str] = []
    for one in error.errors()[:3]:
        detail: Mapping[str, Any] = one
        where = ".".join(str(part) for part in detail["loc"] if part != "body")
        said.append(f"{where}: {detail['msg']}" if where else str(detail["msg"]))
    return "; ".join(said)
