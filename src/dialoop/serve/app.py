"""The HTTP server over an engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection, Mapping
from contextlib import asynccontextmanager
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.responses import JSONResponse

from dialoop import __version__
from dialoop.errors import UnknownModelError
from dialoop.serve.adapters import AdapterFolders, adapter_routes
from dialoop.serve.background import Work, working
from dialoop.serve.caller import Acting
from dialoop.serve.chat import chat_routes
from dialoop.serve.data import add_data
from dialoop.serve.embeddings import embedding_routes
from dialoop.serve.errors import install
from dialoop.serve.fields import body_definitions
from dialoop.serve.fine_tuning import Tuning
from dialoop.serve.guard import Guard
from dialoop.serve.keeper import Keeper
from dialoop.serve.learning import add_learning
from dialoop.serve.wire import model_to_openai
from dialoop.store.registry import Store
from dialoop.types import Catalogue, Condition, Engine, Health


def make_app(
    engine: Engine,
    *,
    api_key: str | None = None,
    hosts: Collection[str] | None = None,
    max_body_bytes: int = 8 * 2**20,
    body_seconds: float = 30.0,
    adapters: AdapterFolders | None = None,
    store: Store | None = None,
    max_file_bytes: int = 512 * 2**20,
    batch_rows: int = 8,
    tuning: Tuning | None = None,
) -> FastAPI:
    """An ASGI app that serves `engine` and closes it at shutdown.

    api_key: asked of every request but /health; None = no key.  hosts: accepted Host names, None = any.
    max_body_bytes, body_seconds: a longer or slower body is refused.  adapters: where they may be loaded from
    by request, None = nowhere.  store: where requests keep data; closed at shutdown, None = they keep none.
    max_file_bytes: a longer file is refused.  batch_rows: requests of batches that are under way at once.
    tuning: trains what requests ask for; None = they are refused.
    """

    works: list[Work] = []

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None, None]:
        async with working(works):
            yield
        await engine.aclose()
        if keeper is not None:
            await asyncio.to_thread(keeper.close)
        if store is not None:
            store.close()

    app = FastAPI(
        title="dialoop", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None,
        redirect_slashes=False,
    )  # fmt: skip
    bounds: dict[str, Any] = {"max_body_bytes": max_body_bytes, "body_seconds": body_seconds}
    keeper = None if store is None else Keeper(store)
    app.include_router(chat_routes(engine, keeper, **bounds))
    app.include_router(embedding_routes(engine, **bounds))
    app.include_router(adapter_routes(engine, adapters, **bounds))
    app.include_router(_catalogue_routes(engine))
    app.include_router(_service_routes(engine))
    if store is not None and keeper is not None:
        works += add_data(
            app, engine, store, keeper, max_file_bytes=max_file_bytes, batch_rows=batch_rows, **bounds
        )
        works += add_learning(app, engine, store, tuning, **bounds)
    _describe(app, body_definitions())
    install(app)
    app.add_middleware(Acting)
    app.add_middleware(Guard, api_key=api_key, hosts=hosts, project=store.project if store else "")
    return app


def _catalogue_routes(catalogue: Catalogue) -> APIRouter:
    router = APIRouter(prefix="/v1/models")

    @router.get("")
    async def list_models() -> dict[str, Any]:
        """The served models."""
        return {"object": "list", "data": [model_to_openai(served) for served in catalogue.models()]}

    @router.get("/{model:path}")
    async def retrieve_model(model: str) -> dict[str, Any]:
        """One served model."""
        served = {each.name: each for each in catalogue.models()}
        if model not in served:
            raise UnknownModelError(model, served)
        return model_to_openai(served[model])

    return router


def _service_routes(engine: Engine) -> APIRouter:
    router = APIRouter()

    @router.get("/health")
    async def health() -> JSONResponse:
        """200 while the engine can answer, 503 while it is starting or has failed."""
        status: Condition = engine.health() if isinstance(engine, Health) else "ok"
        return JSONResponse({"status": status}, 200 if status == "ok" else 503)

    @router.get("/version")
    async def version() -> dict[str, str]:
        """The version of dialoop."""
        return {"version": __version__}

    return router


def _describe(app: FastAPI, definitions: Mapping[str, Any]) -> None:
    """Add the schemas that bodies refer to and FastAPI has not seen to the OpenAPI document."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        document = plain()
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        schemas.update(definitions)
        return document

    app.openapi = openapi  # type: ignore[method-assign]
