"""POST /v1/load_lora_adapter and /v1/unload_lora_adapter, as vLLM has them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, TypeVar

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from starlette.responses import Response

from dialoop.errors import ModelError, RequestError, StoreError, UnknownModelError, UnsupportedError, echo
from dialoop.serve.body import read_json
from dialoop.serve.errors import HttpError
from dialoop.serve.typed_body import described, parsed
from dialoop.types import Engine, Load, ModelRef

B = TypeVar("B", bound=BaseModel)
FILES = ("adapter_config.json", "adapter_model.safetensors")
AdapterName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@:-]{0,127}$")]


class LoadBody(BaseModel):
    """The body of POST /v1/load_lora_adapter."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)

    lora_name: AdapterName
    """The model name that it is served under."""
    lora_path: str = Field(min_length=1, max_length=4096)
    """A PEFT directory on the server, below one of those that it was started with."""
    load_inplace: bool = False
    """Replace the adapter of that name."""
    pinned: bool = False
    """Never leave memory."""


class UnloadBody(BaseModel):
    """The body of POST /v1/unload_lora_adapter."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)

    lora_name: str
    """A served adapter."""
    lora_int_id: int | None = None
    """vLLM's number of it; not used."""


@dataclass(frozen=True, slots=True)
class AdapterFolders:
    """Where adapters may lie. resolve: a directory -> the adapter and its base; raises StoreError."""

    roots: tuple[Path, ...]
    resolve: Callable[[Path], ModelRef]

    def find(self, given: str) -> Path:
        """The directory, links followed. Raises HttpError where it or a file of it lies outside the roots."""
        try:
            folder = Path(given).resolve()
            files = [(folder / name).resolve() for name in FILES]
        except (OSError, ValueError, RuntimeError):
            raise _outside() from None
        if not all(any(path.is_relative_to(root) for root in self._real()) for path in (folder, *files)):
            raise _outside()
        if not folder.is_dir():
            raise HttpError(404, "lora_path: there is no such directory", param="lora_path")
        return folder

    def _real(self) -> list[Path]:
        return [root.resolve() for root in self.roots]


def _outside() -> HttpError:
    return HttpError(
        400, "lora_path lies outside the directories that adapters are loaded from: see --adapter-dir",
        param="lora_path",
    )  # fmt: skip


def adapter_routes(
    engine: Engine, folders: AdapterFolders | None, *, max_body_bytes: int, body_seconds: float
) -> APIRouter:
    """The routes; without `folders` they refuse: whoever has a key could take adapters away from others."""
    router = APIRouter()

    async def read(request: Request, model: type[B]) -> tuple[Load, AdapterFolders, B]:
        if folders is None:
            raise HttpError(403, "no adapters are loaded over HTTP here: start the server with --adapter-dir")
        if not isinstance(engine, Load):
            raise UnsupportedError("this engine loads no adapters")
        body = await read_json(request, max_bytes=max_body_bytes, seconds=body_seconds)
        return engine, folders, parsed(model, body)

    @router.post("/v1/load_lora_adapter", openapi_extra=described(LoadBody), response_class=PlainTextResponse)
    async def load_lora_adapter(request: Request) -> Response:
        """Serve a LoRA adapter of a served base under a name of its own."""
        loading, allowed, asked = await read(request, LoadBody)
        taken = any(each.name == asked.lora_name for each in engine.models())
        if taken and not asked.load_inplace:
            raise RequestError(
                f"lora_name = {echo(asked.lora_name)} is served already: set load_inplace to replace it",
                param="lora_name",
            )
        try:
            ref = await asyncio.to_thread(_ref, asked, allowed)
            await loading.load(ref, pinned=asked.pinned)
        except (ModelError, StoreError) as error:
            raise HttpError(400, str(error), param="lora_path") from None
        return PlainTextResponse(f"Success: LoRA adapter '{asked.lora_name}' added successfully.")

    @router.post(
        "/v1/unload_lora_adapter", openapi_extra=described(UnloadBody), response_class=PlainTextResponse
    )
    async def unload_lora_adapter(request: Request) -> Response:
        """Serve an adapter no longer; answers that have begun are finished."""
        loading, _, asked = await read(request, UnloadBody)
        try:
            await loading.unload(asked.lora_name)
        except UnknownModelError:
            served = [each.name for each in engine.models()]
            raise UnknownModelError(asked.lora_name, served, param="lora_name") from None
        return PlainTextResponse(f"Success: LoRA adapter '{asked.lora_name}' removed successfully.")

    return router


def _ref(asked: LoadBody, folders: AdapterFolders) -> ModelRef:
    return replace(folders.resolve(folders.find(asked.lora_path)), name=asked.lora_name)
