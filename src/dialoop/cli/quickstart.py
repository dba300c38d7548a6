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
    """Sample dialogues in, a better model served: clean, score, tune with LoRA, score again, register."""
    import shutil
    import time

    from rich.console import Console

    from dialoop.cli.tune import run_watched, show_result
    from dialoop.config import TuneRecipe, load_recipe

    console = Console()
    started = time.monotonic()
    recipe = load_recipe(find_recipe("quickstart"), TuneRecipe, set_ or ())
    console.print(
        "dialoop-base answers a fictional shop's customers in English and Chinese, learns from the shop's "
        f"own dialogues, and answers again. Store: {context.obj}",
        soft_wrap=True,
    )
    finished = run_watched(recipe, context.obj, context.obj / "runs" / recipe.name, console)
    show_result(console, finished)
    if finished.version is not None:
        out.mkdir(parents=True, exist_ok=True)
        report = Path(shutil.copy(finished.folder / "report.html", out)).resolve()
        console.print(f"Done in {time.monotonic() - started:.0f} s. Open {report}", soft_wrap=True)
        typer.echo(next_steps(finished.version.name, context.obj))


def next_steps(name: str, home: Path) -> str:
    """The line that serves the model, and a curl and an SDK snippet that work as pasted in a shell."""
    import shlex
    import sys

    from dialoop.cli.app import DEFAULT_HOME

    program = _shown(Path(sys.argv[0])) if Path(sys.argv[0]).is_absolute() else sys.argv[0]
    store = [] if home == Path(DEFAULT_HOME).expanduser() else ["--home", str(home)]
    return f"""
Serve it:

{shlex.join([program, *store, "serve", name])}

Then, in another terminal:

curl http://127.0.0.1:8000/v1/chat/completions -H 'Content-Type: application/json' \\
  -d '{{"model": "{name}", "temperature": 0,
       "messages": [{{"role": "user", "content": "Where is my order A48213?"}}]}}'

{shlex.quote(_shown(Path(sys.executable)))} - <<'PYTHON'
from openai import OpenAI
client = OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="none")
messages = [{{"role": "user", "content": "我的订单SY604821什么时候发货？"}}]
answer = client.chat.completions.create(model="{name}", messages=messages, temperature=0)
print(answer.choices[0].message.content)
PYTHON
"""


def _shown(path: Path) -> str:
    """`path` as a person here would type it; links are kept, since a venv's python is one."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
