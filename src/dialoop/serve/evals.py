"""/v1/evals: what answers are to be."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from starlette.responses import JSONResponse

from dialoop.serve.body import read_json
from dialoop.serve.caller import caller_of
from dialoop.serve.eval_wire import (
    CreateEval,
    UpdateEval,
    eval_to_openai,
    graders_of,
)
from dialoop.serve.fine_tuning_wire import parse
from dialoop.serve.paging import ListQuery, page_to_openai
from dialoop.serve.typed_body import described
from dialoop.store.evals import Evals
from dialoop.store.registry import Store
from dialoop.types import Catalogue


class EvalsQuery(ListQuery):
    """The query of the evaluations."""

    order: Literal["asc", "desc"] = "asc"
    """By time of making."""
    order_by: Literal["created_at"] = "created_at"
    """There is no other order here."""


def eval_routes(catalogue: Catalogue, store: Store, *, max_body_bytes: int, body_seconds: float) -> APIRouter:
    """The routes. Each caller sees the evaluations of its project."""
    router = APIRouter(prefix="/v1/evals")

    def mine(request: Request) -> Evals:
        return store.of(caller_of(request).project).evals

    async def read(request: Request) -> dict[str, Any]:
        return await read_json(request, max_bytes=max_body_bytes, seconds=body_seconds)

    @router.post("", openapi_extra=described(CreateEval), status_code=201)
    async def create_eval(request: Request) -> JSONResponse:
        """Say what answers are to be: graders, and the form of the rows."""
        asked = parse(CreateEval, await read(request))
        graders = graders_of(asked.testing_criteria, catalogue.models())
        made = await asyncio.to_thread(
            mine(request).create, asked.name or "eval", asked.data_source_config.told(),
            [grader.model_dump(exclude_none=True) for grader in graders], asked.metadata,
        )  # fmt: skip
        return JSONResponse(eval_to_openai(made), 201)

    @router.get("")
    async def list_evals(request: Request, query: Annotated[EvalsQuery, Query()]) -> dict[str, Any]:
        """The project's evaluations."""
        return page_to_openai(await asyncio.to_thread(mine(request).list, query.window), eval_to_openai)

    @router.get("/{eval_id}")
    async def retrieve_eval(request: Request, eval_id: str) -> dict[str, Any]:
        """One evaluation."""
        return eval_to_openai(await asyncio.to_thread(mine(request).get, eval_id))

    @router.post("/{eval_id}", openapi_extra=described(UpdateEval))
    async def update_eval(request: Request, eval_id: str) -> dict[str, Any]:
        """Change the name or the metadata of an evaluation."""
        given = parse(UpdateEval, await read(request)).model_dump(exclude_unset=True)
        return eval_to_openai(await asyncio.to_thread(lambda: mine(request).update(eval_id, **given)))

    @router.delete("/{eval_id}")
    async def delete_eval(request: Request, eval_id: str) -> dict[str, Any]:
        """Delete an evaluation, its runs and their items."""
        await asyncio.to_thread(mine(request).delete, eval_id)
        return {"object": "eval.deleted", "deleted": True, "eval_id": eval_id}

    return router
