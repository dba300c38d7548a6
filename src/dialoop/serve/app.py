"""The HTTP server over an engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from types import MappingProxyType
from typing import Any

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from dialoop import __version__
from dialoop.access.account import RATE_HEADERS
from dialoop.access.keyring import Keyring
from dialoop.access.ledger import Ledger
from dialoop.config.trials import TrialSettings
from dialoop.safety.moderated import Moderated
from dialoop.safety.policy import Policy, SafetySettings
from dialoop.serve.adapters import AdapterFolders, adapter_routes
from dialoop.serve.admission import Admission, Doors
from dialoop.serve.background import Work, working
from dialoop.serve.chat import chat_routes
from dialoop.serve.completions import completion_routes
from dialoop.serve.data import add_data
from dialoop.serve.embeddings import embedding_routes
from dialoop.serve.errors import CatchAll, install
from dialoop.serve.fields import ChatBody, CompletionBody, body_definitions
from dialoop.serve.fine_tuning import Tuning
from dialoop.serve.guard import Guard, Locks
from dialoop.serve.house import Retention
from dialoop.serve.idempotency import Idempotency
from dialoop.serve.inside import Inside
from dialoop.serve.judged import Judged
from dialoop.serve.keeper import Keeper
from dialoop.serve.learning import add_learning
from dialoop.serve.metrics import Metrics, metrics_routes
from dialoop.serve.moderation import moderation_routes, recorder
from dialoop.serve.multipart import OVERHEAD_BYTES
from dialoop.serve.observe import Observer
from dialoop.serve.prompts import PromptShelf
from dialoop.serve.responses.fields import ResponseBody
from dialoop.serve.responses.routes import response_routes
from dialoop.serve.scoring import scoring_routes
from dialoop.serve.service import catalogue_routes, service_routes
from dialoop.serve.tokens import token_routes
from dialoop.serve.trials import Trials, feedback_routes
from dialoop.serve.watched import watched
from dialoop.store.registry import Store
from dialoop.store.replies import Replies
from dialoop.types import Engine


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
    max_open: int | None = None,
    cors_origins: Sequence[str] = (),
    log_requests: bool = False,
    safety: SafetySettings = SafetySettings(),  # noqa: B008
    batch_rows: int = 8,
    tuning: Tuning | None = None,
    retention: Retention = Retention(),  # noqa: B008
    classifier: str = "",
    trials: Mapping[str, TrialSettings] = MappingProxyType({}),
) -> FastAPI:
    """An ASGI app that serves `engine` and closes it at shutdown.

    api_key: opens everything; with one, or with keys in the store, every request but those of OPEN_PATHS must
    bring one.  hosts: Host names accepted as long as no key is asked for, None = any.
    max_body_bytes, body_seconds: a longer or slower body is refused.  adapters: where they may be loaded from
    by request, None = nowhere.  store: where requests keep data and keys lie; closed at shutdown, None = they
    keep none.  max_file_bytes: a longer file is refused.  batch_rows: requests of batches that are under way
    at once.  tuning: trains what requests ask for; None = they are refused.
    max_open: requests to models that may be open, None = as many as the engine allows.
    cors_origins: web pages that may ask from a browser, "*" = all.  log_requests: a line for each request.
    safety: the moderation filter.  classifier: the name by which `engine` serves the model of it, if it has
    one.  retention: how long what the store keeps stays.  trials: names whose requests go to one of several
    arms.
    """
    metrics, doors = Metrics(), Doors(max_open)
    ledger = None if store is None else Ledger(store.key_book)
    keeper = None if store is None else Keeper(store)
    works: list[Work] = []
    policy = Policy.of(safety, engine, classifier=classifier)
    engine = watched(engine, metrics)
    app = FastAPI(
        title="dialoop", version=__version__, docs_url=None, redoc_url=None, redirect_slashes=False,
        lifespan=partial(_lifespan, works, engine, ledger, keeper, store),
    )  # fmt: skip
    bounds: dict[str, Any] = {"max_body_bytes": max_body_bytes, "body_seconds": body_seconds}
    chat = Moderated(engine, policy, recorder(store)) if safety.on else engine
    judge = partial(Judged, chat, policy, record=recorder(store))
    prompts, on_trial = PromptShelf(store, engine, metrics), Trials(trials)
    for router in (
        chat_routes(chat, keeper, judge=judge, prompts=prompts, trials=on_trial, **bounds),
        response_routes(chat, keeper, judge=judge, prompts=prompts, trials=on_trial, **bounds),
        completion_routes(chat, trials=on_trial, **bounds),
        moderation_routes(policy, **bounds),
        token_routes(engine, **bounds),
        scoring_routes(engine, **bounds),
        embedding_routes(engine, **bounds),
        adapter_routes(engine, adapters, **bounds),
        catalogue_routes(engine, trials),
        service_routes(engine, doors),
        metrics_routes(engine, metrics),
    ):
        app.include_router(router)
    if store is not None and keeper is not None:
        inside = Inside(app, ledger)
        works += add_data(
            app, inside, lambda: doors.open, engine, store, keeper, max_file_bytes=max_file_bytes,
            batch_rows=batch_rows, retention=retention, **bounds,
        )  # fmt: skip
        app.include_router(feedback_routes(on_trial, store, **bounds))
        works += add_learning(app, inside, engine, store, tuning, **bounds)
    _describe(app, body_definitions(ChatBody, CompletionBody, ResponseBody))
    install(app)
    # The last that is added is the first that a request comes to.
    if store is not None:
        longest = max(max_body_bytes, max_file_bytes + OVERHEAD_BYTES)
        replies = partial(_replies, store)
        app.add_middleware(Idempotency, replies=replies, max_bytes=longest, seconds=body_seconds)
    app.add_middleware(Admission, doors=doors)
    app.add_middleware(Guard, locks=_locks(api_key, hosts, store, ledger))
    app.add_middleware(CatchAll)
    app.add_middleware(Observer, metrics=metrics, logged=log_requests)
    if cors_origins:
        _allow_browsers(app, cors_origins)
    app.state.doors, app.state.ledger = doors, ledger
    return app


@asynccontextmanager
async def _lifespan(
    works: Sequence[Work],
    engine: Engine,
    ledger: Ledger | None,
    keeper: Keeper | None,
    store: Store | None,
    _app: FastAPI,
) -> AsyncGenerator[None, None]:
    """Work beside the requests while the server runs; at its end all is closed, the store last."""
    writing = asyncio.create_task(ledger.write_regularly()) if ledger else None
    async with working(works):
        yield
    await engine.aclose()
    if keeper is not None:
        await asyncio.to_thread(keeper.close)
    if ledger and writing:
        writing.cancel()
        with suppress(asyncio.CancelledError):
            await writing
        await ledger.write()
    if store is not None:
        store.close()


def _replies(store: Store, project: str) -> Replies:
    return store.of(project).replies


def _locks(
    api_key: str | None, hosts: Collection[str] | None, store: Store | None, ledger: Ledger | None
) -> Locks:
    keyring = Keyring(store.key_book) if store else None
    return Locks(api_key, hosts, store.project if store else "", keyring, ledger)


def _allow_browsers(app: FastAPI, origins: Sequence[str]) -> None:
    app.add_middleware(
        CORSMiddleware, allow_origins=list(origins), allow_methods=["*"], allow_headers=["*"], max_age=600,
        expose_headers=["x-request-id", "retry-after", "x-should-retry", *RATE_HEADERS],
    )  # fmt: skip


def _describe(app: FastAPI, definitions: Mapping[str, Any]) -> None:
    """Add to the OpenAPI document the key, and the schemas that bodies refer to and FastAPI has not seen."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        document = plain()
        parts = document.setdefault("components", {})
        parts.setdefault("schemas", {}).update(definitions)
        parts["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"key": []}]
        return document

    app.openapi = openapi  # type: ignore[method-assign]
