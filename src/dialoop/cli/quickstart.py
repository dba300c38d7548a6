"""`dialoop quickstart`: the whole path on the shipped samples, in minutes on two cores."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dialoop.cli.recipes import Set, find_recipe


def quickstart(
    context: typer.Context,
    set_: Set = None,
    out: Annotated[Path, typer.Option(help="Folder for report.html.")] = Path("."),
) -> None:
    """Sample dialogues in, a better model served: clean, score, fine-tune with LoRA, score again, register."""
    import shutil
    import time

    from rich.console import Console

    from dialoop.cli.tune import run_watched, show_result
    from dialoop.config import TuneRecipe, load_recipe

    console = Console()
    started = time.monotonic()
    recipe = load_recipe(find_recipe("quickstart"), TuneRecipe, set_ or ())
    console.print(
        f"dialoop-base answers a fictional shop's customers in English and Chinese, learns from the shop's own "
        f"dialogues, and answers again. Store: {context.obj}",
        soft_wrap=True,
    )
    finished = run_watched(recipe, context.obj, context.obj / "runs" / recipe.name, console)
    report = finished.folder / "report.html"
    if finished.report is not None:
        out.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(report, out / "report.html")
    show_result(console, context.obj, finished, recipe)
    if finished.version is not None:
        console.print(f"Done in {time.monotonic() - started:.0f} s. Open {(out / 'report.html').resolve()}", soft_wrap=True)
        typer.echo(next_steps(finished.version.name, context.obj))


def next_steps(name: str, home: Path) -> str:
    """The line that serves the model, and a curl and an SDK snippet that work as pasted."""
    import shlex
    import sys

    program = Path(sys.argv[0])
    command = program if program.name == "dialoop" else Path("dialoop")
    shown = command.resolve().relative_to(Path.cwd()) if command.resolve().is_relative_to(Path.cwd()) else command
    serve = shlex.join([str(shown), "--home", str(home), "serve", name])
    return f"""
Serve it:
  {serve}

Then, in another terminal:
  curl http://127.0.0.1:8000/v1/chat/completions -H 'Content-Type: application/json' \\
    -d '{{"model": "{name}", "messages": [{{"role": "user", "content": "Where is my order A48213?"}}]}}'

  from openai import OpenAI
  client = OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="none")
  answer = client.chat.completions.create(
      model="{name}", messages=[{{"role": "user", "content": "我的订单SY604821什么时候发货？"}}])
  print(answer.choices[0].message.content)
"""
