"""`dialoop prompts`: templates by name and version, in the store and as plain files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dialoop.cli import prompted
from dialoop.cli.projects import DEFAULT_PROJECT, Project, open_project
from dialoop.cli.tables import day, print_json, print_table
from dialoop.cli.values import SetValue, values_of
from dialoop.errors import ConfigError

if TYPE_CHECKING:
    from dialoop.store.prompts import PromptVersion
    from dialoop.types import Conversation

app = typer.Typer(help="List, show, compare, render, add, promote and export prompts.", no_args_is_help=True)
app.command("eval")(prompted.evaluate)
app.command("optimise")(prompted.optimise)
app.command("optimize", hidden=True)(prompted.optimise)

Ref = Annotated[str, typer.Argument(help="NAME for what it means now, or NAME@VERSION.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead.")]


@app.command("list")
def list_prompts(context: typer.Context, project: Project = DEFAULT_PROJECT, as_json: AsJson = False) -> None:
    """The prompts of the store, and those that are shipped as version 0; * is what the name means."""
    with open_project(context.obj, project) as store:
        versions = store.prompts.list()
        meant = {store.prompts.get(each.name).ref for each in versions}
    if as_json:
        print_json([_plain(each) | {"meant": each.ref in meant} for each in versions])
        return
    rows = [
        (
            each.ref, "*" if each.ref in meant else "", ", ".join(each.settings.wording),
            ", ".join(each.settings.variables) or "-", each.parent or "-",
            day(each.created) if each.created else "shipped", each.settings.description,
        )
        for each in versions
    ]  # fmt: skip
    print_table(("prompt", "", "languages", "variables", "from", "added (UTC)", "what for"), rows)


@app.command("show")
def show(
    context: typer.Context, ref: Ref, project: Project = DEFAULT_PROJECT, as_json: AsJson = False
) -> None:
    """One prompt: where it comes from, what it asks for, its file, and why it was made."""
    found = _get(context, project, ref)
    if as_json:
        print_json(_plain(found))
        return
    facts = {
        "prompt": found.ref, "id": found.id, "hash": found.hash[:12], "from": found.parent or "-",
        "added": day(found.created) if found.created else "shipped",
        "promoted": day(found.promoted) if found.promoted else "-",
    }  # fmt: skip
    print_table(("what", "value"), list(facts.items()))
    typer.echo()
    typer.echo(found.source.rstrip())
    if found.evidence:
        typer.echo("\nevidence")
        print_json(found.evidence)


@app.command("diff")
def diff(
    context: typer.Context,
    before: Ref,
    after: Annotated[str, typer.Argument(help="The other one.")],
    project: Project = DEFAULT_PROJECT,
) -> None:
    """The lines that differ between two prompts; exits with 1 where there are any."""
    import difflib

    first, second = (_get(context, project, ref) for ref in (before, after))
    old, new = (each.settings.toml().splitlines() for each in (first, second))
    found = list(difflib.unified_diff(old, new, first.ref, second.ref, lineterm=""))
    typer.echo("\n".join(found) if found else f"{first.ref} and {second.ref} say the same")
    raise typer.Exit(1 if found else 0)


@app.command("render")
def render(
    context: typer.Context,
    ref: Ref,
    user: Annotated[
        str | None, typer.Option("--user", help="What a user says, put to the prompt or after it.")
    ] = None,
    messages: Annotated[
        Path | None, typer.Option(help="A dialogue instead: a JSON list of messages, or an object with them.")
    ] = None,
    values: SetValue = None,
    language: Annotated[str | None, typer.Option(help="Of the wording; the question's unless given.")] = None,
    model: Annotated[
        str | None, typer.Option(help="Show the text and the tokens that this model reads, not messages.")
    ] = None,
    project: Project = DEFAULT_PROJECT,
    as_json: AsJson = False,
) -> None:
    """What a model is asked, byte for byte as it is when the prompt is served."""
    from dialoop.chat.prompt import Prompt
    from dialoop.chat.wire import message_to_openai
    from dialoop.data.language import spoken

    prompt, given = Prompt(_get(context, project, ref).settings), values_of(values or [])
    history = _history(user, messages)
    asked = prompt.ask(history, given, language=language or spoken(history, given))
    if model is not None:
        _print_text(context.obj, model, asked)
    elif as_json:
        print_json([message_to_openai(message) for message in asked.messages])
    else:
        for message in asked.messages:
            typer.echo(f"[{message.role}]\n{message.content}\n")


@app.command("add")
def add(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="A TOML file, such as `dialoop prompts export` writes.")],
    parent: Annotated[str | None, typer.Option(help="NAME@VERSION that it was made from.")] = None,
    project: Project = DEFAULT_PROJECT,
) -> None:
    """Add a file as the next version of the prompt that it names."""
    from dialoop.chat.prompt import Prompt
    from dialoop.config.prompts import read_prompt

    settings, source = read_prompt(file)
    Prompt(settings)
    beside = file.with_suffix(".evidence.json")
    with open_project(context.obj, project) as store:
        if parent is not None:
            parent = store.prompts.get(parent).ref
        if settings.soft is not None:
            store.models.resolve(settings.soft)
        known = {each.ref for each in store.prompts.list()}
        evidence = json.loads(beside.read_text(encoding="utf-8")) if beside.is_file() else None
        found = store.prompts.add(source, parent=parent, evidence=evidence)
    typer.echo(f"{found.ref}: {'says the same already' if found.ref in known else 'added'}")


@app.command("promote")
def promote(context: typer.Context, ref: Ref, project: Project = DEFAULT_PROJECT) -> None:
    """Let the name mean this version; to go back, promote the one before."""
    with open_project(context.obj, project) as store:
        name = store.prompts.get(ref).name
        before, found = store.prompts.get(name), store.prompts.promote(ref)
    typer.echo(f"{name} means {found.ref} (before: {before.ref})")


@app.command("export")
def export(
    context: typer.Context,
    ref: Ref,
    to: Annotated[Path, typer.Option("--to", help="Folder to write to.")],
    project: Project = DEFAULT_PROJECT,
) -> None:
    """Write a prompt as a plain file, and what speaks for it beside it."""
    found = _get(context, project, ref)
    for path in write_prompt(found, to):
        typer.echo(f"{path}: {found.ref}")


def write_prompt(found: PromptVersion, to: Path) -> tuple[Path, ...]:
    """The files that were written. Raises ConfigError."""
    path = to / f"{found.name}.toml"
    told = {path: found.source}
    if found.evidence:
        text = json.dumps(found.evidence, ensure_ascii=False, indent=2)
        told[path.with_suffix(".evidence.json")] = f"{text}\n"
    for each, text in told.items():
        try:
            to.mkdir(parents=True, exist_ok=True)
            each.write_text(text, encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"{each}: {error.strerror}: choose another folder") from error
    return tuple(told)


def _get(context: typer.Context, project: str, ref: str) -> PromptVersion:
    with open_project(context.obj, project) as store:
        return store.prompts.get(ref)


def _plain(version: PromptVersion) -> dict[str, Any]:
    from dataclasses import asdict

    told = version.settings.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return {**asdict(version), "ref": version.ref, "template": told}


def _history(user: str | None, path: Path | None) -> Conversation:
    from dialoop.chat.wire import conversation_from_openai
    from dialoop.types import Conversation, Message

    if path is None:
        return Conversation(() if user is None else (Message("user", user),))
    if user is not None:
        raise ConfigError("--user came with --messages: give one of them")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read as JSON ({error}): give a list of messages") from error
    return conversation_from_openai({"messages": found} if isinstance(found, list) else found)


def _print_text(home: Path, model: str, asked: Conversation) -> None:
    from dialoop.chat.render import render_prompt
    from dialoop.chat.tokenizer import ChatTokenizer
    from dialoop.store.registry import Store

    with Store.open(home) as store:
        ref = store.models.resolve(model)
    tokenizer = ChatTokenizer.load(ref.base)
    ids = render_prompt(asked, tokenizer)
    typer.echo(tokenizer.decode(ids, skip_special=False))
    typer.echo(f"{len(ids)} tokens of {ref.name}", err=True)
