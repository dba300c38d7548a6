"""`dialoop models`: the registered versions, their lineage, and their export to other tools."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dialoop.cli.tables import day, print_json, print_table
from dialoop.errors import ConfigError

if TYPE_CHECKING:
    from dialoop.store.registry import ModelVersion, Store

app = typer.Typer(help="List, show, export and remove models.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="NAME for the newest version, or NAME@VERSION.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead.")]


class Form(StrEnum):
    """What an export writes."""

    merged = "merged"
    gguf = "gguf"
    adapter = "adapter"


class Dtype(StrEnum):
    """How an export stores its matrices."""

    f32 = "f32"
    f16 = "f16"
    bf16 = "bf16"
    q8_0 = "q8_0"


@app.command("list")
def list_models(context: typer.Context, as_json: AsJson = False) -> None:
    """The models in the store, the newest version of each name first."""
    from dialoop.store.shipped import SHIPPED, shipped_directory

    with _store(context) as store:
        versions, strays = store.models.list(), store.models.strays()
    shipped = shipped_directory()
    if as_json:
        print_json([_plain(version) for version in versions])
        return
    rows = [
        (v.ref, v.kind, v.base or "-", _short(v.data_hash), day(v.created), headline(v.metrics))
        for v in versions
    ]
    if (shipped / "config.json").is_file():
        rows.append((SHIPPED, "shipped", "-", "-", "-", ""))
    print_table(("model", "kind", "base", "data", "created (UTC)", "metric"), rows)
    for path in strays:
        typer.echo(f"{path}: no record describes it, remove it if you do not need it", err=True)


@app.command("show")
def show(context: typer.Context, name: Name, as_json: AsJson = False) -> None:
    """One model: where it comes from, its files and how it scored; a directory has its files alone."""
    with _store(context) as store:
        chain = store.models.lineage(name)
    version = chain[0]
    if isinstance(version, str):
        _show_directory(version, as_json)
        return
    if as_json:
        print_json(
            {**_plain(version), "lineage": [link if isinstance(link, str) else link.ref for link in chain]}
        )
        return
    _print_lineage(chain)
    facts = {
        "path": version.path,
        "state": version.state,
        "run": version.run_id or "-",
        "code": version.code_version,
        "template": _short(version.template_hash),
    }
    print_table(("what", "value"), [(key, str(value)) for key, value in facts.items()])
    print_table(("metric", "value"), [(key, _number(value)) for key, value in flat(version.metrics).items()])
    print_table(("file", "sha256"), sorted(version.files.items()))


@app.command("export")
def export(
    context: typer.Context,
    name: Annotated[
        str, typer.Argument(help="A registered model, dialoop-base, or the path of a directory.")
    ],
    to: Annotated[
        Path, typer.Option("--to", help="Directory to write; for gguf also a path ending in .gguf.")
    ],
    form: Annotated[Form, typer.Option("--as", help="What to write.")] = Form.merged,
    dtype: Annotated[
        Dtype | None, typer.Option(help="merged: the base's own unless given; gguf: f16.")
    ] = None,
) -> None:
    """Write a model for other tools: a merged Hugging Face directory, a GGUF file, or the PEFT adapter."""
    from dialoop.models.export import export_adapter, export_merged

    with _store(context) as store:
        ref, card = store.models.resolve(name), _card(store, name)
    if form is Form.gguf:
        _export_gguf(ref, to, dtype or Dtype.f16)
        return
    if form is Form.adapter:
        if dtype is not None:
            raise ConfigError(
                f"--dtype {dtype} does not go with --as adapter, which is copied as it is: leave it out"
            )
        written = export_adapter(ref, to, card=card)
    else:
        written = export_merged(ref, to, dtype=_torch_dtype(dtype), card=card)
    typer.echo(f"{written}: {ref.name} as {form}, {_size(written)}")


@app.command("rm")
def remove(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="NAME@VERSION.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove one version and its files; its number is not used again."""
    with _store(context) as store:
        version = store.models.get(name)
        if not yes:
            typer.confirm(f"Remove {version.ref} and its {len(version.files)} files?", abort=True)
        store.models.remove(name)
    typer.echo(f"{version.ref}: removed")


def _show_directory(name: str, as_json: bool) -> None:
    """A model that is not in the store has its files alone."""
    from dialoop.store.shipped import SHIPPED, shipped_directory

    folder = shipped_directory() if name == SHIPPED else Path(name).expanduser()
    files = {
        p.relative_to(folder).as_posix(): p.stat().st_size for p in sorted(folder.rglob("*")) if p.is_file()
    }
    if as_json:
        print_json({"name": name, "path": str(folder), "sizes": files})
        return
    typer.echo(f"{name}: not in the store, {folder}")
    print_table(("file", "bytes"), [(file, str(size)) for file, size in files.items()])


def _store(context: typer.Context) -> Store:
    from dialoop.store.registry import Store

    return Store.open(context.obj)


def _export_gguf(ref: Any, to: Path, dtype: Dtype) -> None:
    from dialoop.models.gguf import export_gguf

    out = to if to.suffix == ".gguf" else to / f"{ref.name.replace('@', '-').rpartition('/')[2]}-{dtype}.gguf"
    written = export_gguf(ref, out, dtype=dtype.value)
    tensors = ", ".join(f"{count} {kind}" for kind, count in sorted(written.tensors.items()))
    typer.echo(f"{written.path}: {ref.name} as gguf, {_megabytes(written.size)}, tensors: {tensors}")


def _torch_dtype(dtype: Dtype | None) -> Any:
    if dtype is None:
        return None
    if dtype is Dtype.q8_0:
        raise ConfigError("--dtype q8_0 exists in GGUF files only: use --as gguf, or --dtype bf16")
    import torch

    return {Dtype.f32: torch.float32, Dtype.f16: torch.float16, Dtype.bf16: torch.bfloat16}[dtype]


def _card(store: Store, name: str) -> dict[str, object]:
    """Lineage for the model card of a registered model. Raises ConfigError where its files changed."""
    if store.models.resolve(name).name not in {version.ref for version in store.models.list()}:
        return {}
    version = store.models.get(name)
    changed = store.models.verify(name)
    if changed:
        raise ConfigError(
            f"{version.path}: {changed[0]} is not what was registered as {version.ref}: restore it first"
        )
    scores = {key: _number(value) for key, value in flat(version.metrics).items()}
    return {
        "base": Path(version.base or "-").name,
        "data": version.data_hash or "-",
        "run": version.run_id or "-",
        "registered": day(version.created),
        **scores,
    }


def headline(metrics: Mapping[str, Any]) -> str:
    """What the list shows: BLEU before and after, else a test score, else the first number."""
    if changes := _changes(metrics):
        return changes
    numbers = {key: value for key, value in flat(metrics).items() if isinstance(value, int | float)}
    for wanted in ("headline", "bleu", "chrf", "perplexity", "valid_loss", "loss"):
        for key, value in numbers.items():
            if key.rpartition(".")[2] == wanted:
                return f"{key} {_number(value)}"
    return next((f"{key} {_number(value)}" for key, value in numbers.items()), "")


def _changes(metrics: Mapping[str, Any]) -> str:
    """`BLEU en 0.6 → 7.6, zh 0.3 → 8.4` of a tuning report's summary, or nothing."""
    languages = metrics.get("metrics")
    if not isinstance(languages, Mapping):
        return ""
    scores = {language: rows["BLEU"] for language, rows in languages.items() if "BLEU" in rows}
    shown = [f"{lang} {_number(bleu['before'])} → {_number(bleu['after'])}" for lang, bleu in scores.items()]
    return f"BLEU {', '.join(shown)}" if shown else ""


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as dotted keys."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


def _plain(version: ModelVersion) -> dict[str, Any]:
    return {**asdict(version), "path": str(version.path)}


def _print_lineage(chain: tuple[Any, ...]) -> None:
    """The base first, each model that was made from it one step to the right."""
    for depth, link in enumerate(reversed(chain)):
        stem = f"{'   ' * (depth - 1)}└─ " if depth else ""
        if isinstance(link, str):
            typer.echo(f"{stem}{link}")
        else:
            data = f", data {_short(link.data_hash)}" if link.data_hash else ""
            prompt = f", prompt {link.prompt}" if link.prompt else ""
            gone = ", removed" if link.state == "removed" else ""
            typer.echo(f"{stem}{link.ref} ({link.kind}{data}{prompt}, {day(link.created)}{gone})")


def _short(digest: str | None) -> str:
    return digest[:12] if digest else "-"


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _size(folder: Path) -> str:
    return _megabytes(sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()))


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
