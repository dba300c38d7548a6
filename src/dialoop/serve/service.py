"""What a server tells of itself: its models, its health and its version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from dialoop import __version__
from dialoop.config.trials import TrialSettings
from dialoop.errors import UnknownModelError
from dialoop.serve.admission import Doors
from dialoop.serve.reply import model_to_openai
from dialoop.types import Catalogue, Condition, Engine, Health, Served


def catalogue_routes(catalogue: Catalogue, trials: Mapping[str, TrialSettings]) -> APIRouter:
    """The routes over the models. trials: are asked as models are, those whose arms are all served."""
    router = APIRouter(prefix="/v1/models")

    def served_now() -> dict[str, Served]:
        found = {each.name: each for each in catalogue.models()}
        for name, trial in trials.items():
            arms = [found[arm.model] for arm in trial.arms if arm.model in found]
            if len(arms) == len(trial.arms):
                found[name] = replace(arms[0], name=name, context=min(each.context for each in arms))
        return found

    @router.get("")
    async def list_models() -> dict[str, Any]:
        """The served models."""
        return {"object": "list", "data": [model_to_openai(served) for served in served_now().values()]}

    @router.get("/{model:path}")
    async def retrieve_model(model: str) -> dict[str, Any]:
        """One served model."""
        served = served_now()
        if model not in served:
            raise UnknownModelError(model, served)
        return model_to_openai(served[model])

    return router


def service_routes(engine: Engine, doors: Doors) -> APIRouter:
    """The routes that tell whether to send work here."""
    router = APIRouter()

    def condition() -> Condition:
        return engine.health() if isinstance(engine, Health) else "ok"

    @router.get("/health")
    async def health() -> JSONResponse:
        """200 while the engine can answer, 503 while it is starting or has failed."""
        return _said(condition())

    @router.get("/ready")
    async def ready() -> JSONResponse:
        """200 while new work is taken, 503 where the engine cannot answer or the server is ending."""
        return _said("draining" if doors.draining else condition())

    @router.get("/version")
    async def version() -> dict[str, str]:
        """The version of dialoop."""
        return {"version": __version__}

    return router


def _said(status: str) -> JSONResponse:
    return JSONResponse({"status": status}, 200 if status == "ok" else 503)
