"""The pages that publish how the base model did: bars.md, and every answer."""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

Language = Literal["en", "zh"]
HERE = Path(__file__).resolve().parent
WINDOW, LONG_ENOUGH = 2048, 30
MAX_ANSWER, GOOD_SHARE = 128, 0.95


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar: what was measured, in words, and whether it is met."""

    name: str
    measured: str
    wanted: str
    met: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """A greedy answer and its flags; asked: the language that it should be in."""

    prompt: str
    text: str
    asked: Language
    ended: bool
    in_language: bool
    loop: bool
    trained_on: bool

    @property
    def good(self) -> bool:
        return self.ended and self.in_language


def bars_of(tables: Mapping[str, Any], answers: Mapping[Language, Sequence[Answer]]) -> list[Bar]:
    """Every bar of the base model."""
    bars = []
    for row in tables["languages"]:
        name = f"{row['of']}: held-out bits per byte below the 5-gram's"
        words = f"{row['model']:.3f} against {row['ngram']:.3f}, {_signed(row['difference'])}"
        bars.append(Bar(name, words, "below 0", bool(row["model"] < row["ngram"])))
    if tables["positions"]:
        row = tables["positions"][0]
        words = f"{row['late']:.3f} against {row['early']:.3f} nats a token, {_signed(row['difference'])}"
        met = bool(row["late"] <= row["early"])
        bars.append(Bar("positions 1,024-2,048 no worse than 256-512", words, "at most 0", met))
    for language, given in answers.items():
        good, looping = sum(a.good for a in given), sum(a.loop for a in given)
        words = f"{good} of {len(given)}"
        name = f"{language}: answers that end within {MAX_ANSWER} tokens and are in the language asked for"
        bars.append(Bar(name, words, f"at least {GOOD_SHARE:.0%}", good >= GOOD_SHARE * len(given)))
        bars.append(Bar(f"{language}: no answer loops", f"{looping} of {len(given)}", "0", looping == 0))
        known = sum(a.trained_on for a in given)
        bars.append(Bar(f"{language}: the prompts are unseen", f"{known} stand in the data", "0", known == 0))
    return bars


def _signed(difference: tuple[float, float, float]) -> str:
    return "{:+.3f} [{:+.3f}, {:+.3f}]".format(*difference)


def table(head: str, rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; head: its column names between `|`."""
    columns = head.split("|")
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(str(cell).strip() for cell in line) + " |" for line in lines)


def page(report: Mapping[str, Any], bars: Sequence[Bar]) -> str:
    """bars.md."""
    bits = [_bits_row(row) for row in (*report["languages"], *report["sources"])]
    places = [
        (r["of"], r["documents"], f"{r['early']:.3f}", f"{r['late']:.3f}", _signed(r["difference"]))
        for r in report["positions"]
    ]
    met = [(b.name, b.measured, b.wanted, "yes" if b.met else "**no**") for b in bars]
    few = report["positions"][0]["documents"] if report["positions"] else 0
    return f"""# The base model against its bars

{table("bar|measured|wanted|met", met)}

{report["seen"]}

{report["made"]}

## Bits per byte of held-out text

Natural logs / ln 2 / UTF-8 bytes of the predicted tokens, summed over documents. Windows of {WINDOW:,}
tokens, each read afresh by the model, all tokens but a window's first predicted. The 5-gram (interpolated
modified Kneser-Ney over the same token ids) predicts the same tokens and may look back across a window's
beginning. It is trained on the distinct documents that the run saw, each counted once; of conversations it
learns every token, the model in its last stage only the answers. Brackets: 95 % bootstrap intervals over
documents. A language is its sources of plain text; `mixed` rows are parallel text, English above Chinese in
one document, and belong to no language's bar; conversations are judged by the answers below.

{report["limit"]}

{table("held-out text|documents|bytes|tokens|model|5-gram|model - 5-gram", bits)}

## Nats a token by position

Held-out documents longer than {WINDOW:,} tokens, all their full windows, mean over documents.
{f"Only {few} documents are that long, so that the interval is wide." if few < LONG_ENOUGH else ""}

{table("documents|number|positions 256-512|1,024-2,048|difference", places)}

## Answers

Greedy, at most {MAX_ANSWER} tokens, each prompt the only turn of its dialogue; 100 prompts a language, all
answers in `answers.en.md` and `answers.zh.md`. {report["exceptions"]}

{table("prompts|number|end|in the language|both|loop|empty|stand in the data", report["answers"])}

"Stand in the data": the user turn of the prompt, token for token, is in a document that the run saw. They are
marked in the pages of answers.
"""


def _bits_row(row: Mapping[str, Any]) -> tuple[str, ...]:
    numbers = f"{row['documents']:,}", f"{row['bytes']:,}", f"{row['tokens']:,}"
    return row["of"], *numbers, f"{row['model']:.3f}", f"{row['ngram']:.3f}", _signed(row["difference"])


def write_answers(path: Path, language: Language, answers: Sequence[Answer]) -> None:
    """Prompt, answer and flags of every answer."""
    parts = [f"# Answers to the prompts in bench/prompts/{language}.txt\n"]
    for number, answer in enumerate(answers, 1):
        flags = {
            "does not end": not answer.ended, "not in the language asked for": not answer.in_language,
            "loops": answer.loop, "empty": not answer.text,
            "the prompt stands in the data": answer.trained_on,
        }  # fmt: skip
        raised = ", ".join(name for name, is_so in flags.items() if is_so) or "fine"
        quoted = "\n".join(f"> {line}".rstrip() for line in (answer.text or " ").splitlines())
        parts.append(f"**{number}. {answer.prompt}** ({raised})\n\n{quoted}\n")
    path.write_text("\n".join(parts), encoding="utf-8")


def summary(language: Language, given: Sequence[Answer]) -> tuple[object, ...]:
    """A row of the table of answers."""
    flags = [(a.ended, a.in_language, a.good, a.loop, not a.text, a.trained_on) for a in given]
    return (language, len(given), *(sum(column) for column in zip(*flags, strict=True)))


def made(arguments: argparse.Namespace) -> str:
    """Command, commit, machine and day; paths by their last names alone."""
    commit = _output("git", "describe", "--always", "--dirty")
    names = (line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name"))
    cpu = next(names, "CPU")
    weights = hashlib.sha256((arguments.model / "model.safetensors").read_bytes()).hexdigest()[:16]
    given = {key.replace("_", "-"): value for key, value in vars(arguments).items() if value is not None}
    options = " ".join(f"--{key} {'/'.join(Path(str(value)).parts[-2:])}" for key, value in given.items())
    return (
        f"`python bench/base_model.py {options}`; commit {commit}; weights' sha256 {weights}...; {cpu}, "
        f"{arguments.threads} of {os.cpu_count()} cores, torch {version('torch')}, "
        f"Python {platform.python_version()}; {time.strftime('%F')}."
    )


def _output(*command: str) -> str:
    return subprocess.run(command, cwd=HERE, capture_output=True, text=True).stdout.strip() or "unknown"


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).is_file() else []


def write_curve(metrics: Path, out: Path) -> None:
    """The run's rows as metrics.jsonl, and its loss by update as curve.svg."""
    from dialoop.evals.plot import Line, line_chart, series
    from dialoop.train.loop import read_journal

    (out / "metrics.jsonl").write_bytes(metrics.read_bytes())
    chart = line_chart([Line("train", series(read_journal(metrics), "loss"))], "loss by update")
    style = "<style>polyline{fill:none;stroke:#2a6fb0} line{stroke:#ccc} text{font:11px sans-serif}</style>"
    opening, _, rest = str(chart).partition(">")
    text = f'{opening} xmlns="http://www.w3.org/2000/svg" width="840">{style}{rest}\n'
    (out / "curve.svg").write_text(text, encoding="utf-8")
