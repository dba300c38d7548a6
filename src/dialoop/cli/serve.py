"""`dialoop serve`: models over OpenAI's HTTP API."""

from __future__ import annotations

import json
import logging
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dialoop.cli.named import adapter_folders, moderator, resolve, served_name

if TYPE_CHECKING:
    from dialoop.types import Served

SHIPPED = "dialoop-base"
TUNED_ROWS = 8
"""Answers side by side of a fine-tuned whole model, whose memory is beside that of the served ones."""


def serve(
    context: typer.Context,
    model: Annotated[
        list[str] | None,
        typer.Argument(
            help=f"Registered models or directories; unless given, {SHIPPED}, or none beside upstreams.",
            show_default=False,
        ),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; others than loopback need a key.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8000,
    api_key: Annotated[
        str | None,
        typer.Option(
            envvar="DIALOOP_API_KEY", show_envvar=True, help="A key that may do all; see also dialoop keys."
        ),
    ] = None,
    max_model_len: Annotated[
        int | None, typer.Option(min=1, help="Context in tokens; the model's own unless given.")
    ] = None,
    precision: Annotated[
        Literal["float32", "half", "int8"] | None,
        typer.Option(help="Of the weights; 16 bits unless given, or 32 where the files hold as many."),
    ] = None,
    max_rows: Annotated[int, typer.Option(min=1, help="Answers decoded side by side, by model.")] = 32,
    max_open: Annotated[int, typer.Option(min=1, help="Requests running and waiting; more get a 429.")] = 256,
    speculate: Annotated[
        bool, typer.Option(help="Say several tokens a step where an answer repeats its prompt; same answers.")
    ] = True,
    compile: Annotated[
        bool,
        typer.Option(
            "--compile",
            help="Compile the layers of small models at the start, which takes most of a minute and a C++ "
            "compiler: they answer somewhat faster.",
        ),
    ] = False,
    cors_origin: Annotated[
        list[str] | None,
        typer.Option(help="Let web pages of this origin ask from a browser; may be repeated, '*' = all."),
    ] = None,
    log_requests: Annotated[
        bool, typer.Option(help="A line of JSON on standard error for each request, without what it said.")
    ] = False,
    max_body_bytes: Annotated[int, typer.Option(min=1024, help="Longest request body.")] = 8 * 2**20,
    max_file_bytes: Annotated[int, typer.Option(min=1024, help="Longest uploaded file.")] = 512 * 2**20,
    batch_rows: Annotated[
        int, typer.Option(min=1, help="Requests of batches side by side; fewer while clients wait.")
    ] = 8,
    adapter_dir: Annotated[
        list[Path] | None,
        typer.Option(help="Let requests load adapters from here and the home, and unload them."),
    ] = None,
    max_tuned: Annotated[
        int, typer.Option(min=1, help="Fine-tuned whole models in memory at a time, each in a process.")
    ] = 2,
    adapter_memory: Annotated[
        int, typer.Option(min=1, help="MiB, by model, of adapters that requests loaded without pinning them.")
    ] = 1024,
    upstream: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=URL of an OpenAI-compatible server whose models are served as well; its key is in "
            "DIALOOP_UPSTREAM_NAME_KEY. More in HOME/dialoop.toml.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Serve models over OpenAI's HTTP API until Ctrl-C or SIGTERM; open answers are finished first.

    The models run in a process of their own, which is started again should it end.
    """
    from dialoop.cli.site import check_trials, gateway, read_site, upstreams_of
    from dialoop.serve.server import Server, bind, check_origins, hosts_for, url_of
    from dialoop.store.registry import Store

    with Store.open(context.obj) as store:
        keyed = bool(api_key) or store.key_book.any()
        hosts, origins = hosts_for(host, keyed), cors_origin or []
        check_origins(origins, keyed)
        listening = bind(host, port)
    with listening:
        from dialoop.cli.tuned import with_tuning
        from dialoop.engine.process import ProcessEngine
        from dialoop.serve.app import make_app

        site, store = read_site(context.obj), Store.open(context.obj)
        upstreams = upstreams_of(site, upstream or [])
        names, reading = model or ([] if upstreams else [SHIPPED]), moderator(context.obj, site.safety)
        refs = resolve(context.obj, list(dict.fromkeys([*names, *reading])))
        start = partial(
            ProcessEngine, context=max_model_len, precision=precision, speculate=speculate,
            compiled=compile, adapter_memory=adapter_memory * 2**20,
            max_open=max_open * (2 if reading else 1),  # whoever holds a place may ask the moderator too
        )  # fmt: skip
        engine, tuning = None, None
        if refs:
            engine, tuning = with_tuning(
                start(refs, max_rows=max_rows), store, refs,
                lambda ref: start([ref], max_rows=min(max_rows, TUNED_ROWS)), limit=max_tuned,
            )  # fmt: skip
        serving = engine if engine is not None and not upstreams else gateway(upstreams, engine)
        check_trials(site, [each.name for each in serving.models()])
        app = make_app(
            serving, api_key=api_key or None, hosts=hosts, max_body_bytes=max_body_bytes,
            adapters=adapter_folders(context.obj, adapter_dir) if adapter_dir else None,
            store=store, max_open=max_open, cors_origins=origins, log_requests=log_requests,
            max_file_bytes=max_file_bytes, batch_rows=batch_rows, tuning=tuning, safety=site.safety,
            retention=site.retention, classifier="".join(map(served_name, reading)),
            trials=site.trials,
        )  # fmt: skip
        if log_requests:
            _log_to_stderr()
        typer.echo(greeting(url_of(listening), serving.models(), keyed))
        Server(app).run(sockets=[listening])


def _log_to_stderr() -> None:
    log = logging.getLogger("dialoop.requests")
    log.addHandler(logging.StreamHandler())
    log.setLevel(logging.INFO)
    log.propagate = False


def greeting(url: str, served: tuple[Served, ...], keyed: bool) -> str:
    """One line with the address, and a command to paste."""
    if not served:
        return f"Serving on {url}/v1; no model has been heard of yet"
    names = ", ".join(
        f"{each.name} ({each.context} tokens)" if each.context else each.name for each in served
    )
    body: dict[str, object] = {"model": served[0].name}
    if served[0].kind == "encoder":
        route, body["input"] = "embeddings", "Hello!"
    elif served[0].kind in ("classifier", "tagger"):
        route, body["input"] = "classify", "Hello!"
    elif served[0].kind == "scorer":
        route, body["query"], body["documents"] = "rerank", "Hello!", ["Hi!", "No."]
    else:
        route, body["messages"] = "chat/completions", [{"role": "user", "content": "Hello!"}]
    key = ' -H "Authorization: Bearer $DIALOOP_API_KEY"' if keyed else ""
    return (
        f"Serving {names} on {url}/v1\n"
        f"curl {url}/v1/{route} -H 'Content-Type: application/json'{key} -d '{json.dumps(body)}'"
    )
