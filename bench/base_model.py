"""Judge the shipped base model against its bars, and publish every answer it gave.

    python bench/base_model.py --run runs/base --model src/dialoop/assets/dialoop-base --out docs/base-model

--run is the directory of `dialoop pretrain`: its tokens, held-out rows and number of updates are read, and
nothing is written there. Bars: held-out bits per byte below a modified Kneser-Ney 5-gram of the documents
that the run saw, in each language; late positions no worse than early ones; greedy answers to the prompts in
bench/prompts end, keep the language and do not loop. The exit status is 0 whether or not they are met.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import ngram
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from dialoop.chat.render import render_prompt
from dialoop.chat.tokenizer import ChatTokenizer
from dialoop.config import PretrainRecipe, TextSource, load_recipe
from dialoop.engine.generate import generate
from dialoop.engine.loaded import open_model
from dialoop.evals.loops import answers_in, loops
from dialoop.models.load import load_model
from dialoop.models.packed import PackedBody
from dialoop.train.corpus import StagePlan, StagesPlan, plain_text, tokenise
from dialoop.types import Conversation, Message, ModelRef, Sampling

Language = Literal["en", "zh"]
LANGUAGES: tuple[Language, ...] = ("en", "zh")
HERE = Path(__file__).resolve().parent
WINDOW, BATCH_TOKENS, LONG_ENOUGH = 2048, 4096, 30
EARLY, LATE = (256, 512), (1024, 2048)
MAX_ANSWER, GOOD_SHARE, RESAMPLES = 128, 0.95, 2000
# Prompts that ask for an answer in the other language, and which one: none of the present ones does.
ASKS_FOR: Mapping[str, Language] = {}
Ids = NDArray[np.integer]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar: what was measured, in words, and whether it is met."""

    name: str
    measured: str
    wanted: str
    met: bool


@dataclass(frozen=True, slots=True)
class Seen:
    """What a run saw. documents: each distinct one once, cut where the run's last update cut it."""

    steps: int
    planned_steps: int
    tokens: int
    documents: list[Ids]


@dataclass(frozen=True, slots=True)
class HeldOut:
    """A document never trained on. model, counts: nats of each predicted token, window after window."""

    source: str
    language: str
    ids: Ids
    model: Floats
    counts: Floats
    size: int

    def windows(self) -> Iterator[tuple[int, Floats]]:
        """(tokens of a window, the model's nats for all but its first)."""
        start = 0
        for length in _window_lengths(len(self.ids)):
            yield length, self.model[start : start + length - 1]
            start += length - 1


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


def seen_by(run: Path, recipe: PretrainRecipe, tokenizer: ChatTokenizer, steps: int) -> Seen:
    """The documents in the batches of the first `steps` updates of the recipe's plan."""
    missing = [name for name in recipe.sources if not (run / "tokens" / f"{name}.npz").is_file()]
    if missing:
        raise SystemExit(f"{run}/tokens lacks {', '.join(missing)}: give the directory of `dialoop pretrain`")
    folder = run / "tokens"
    sources = {n: tokenise(n, s, tokenizer, folder, recipe.held_out) for n, s in recipe.sources.items()}
    plan = StagesPlan(recipe, sources)
    distinct: dict[bytes, Ids] = {}
    tokens, left = 0, min(steps, plan.steps)
    for stage in plan.stages:
        for document in _shown(stage, min(left, stage.steps), tokenizer.pad_id):
            tokens += len(document)
            distinct.setdefault(document.tobytes(), document)
        left -= min(left, stage.steps)
    return Seen(min(steps, plan.steps), plan.steps, tokens, list(distinct.values()))


def _shown(stage: StagePlan, steps: int, end: int | None) -> Iterator[Ids]:
    """Documents as the stage's batches hold them; running text begins anew with each epoch."""
    if stage.stage.mask == "assistant":
        for step in range(steps):
            for batch in stage.batches(step):
                yield from np.split(batch.token_ids.astype(np.uint16), np.cumsum(batch.lengths)[:-1])
        return
    per_epoch = (stage.tokens - 1) // stage.stage.batch_tokens
    for first in range(0, steps, per_epoch):
        batches = [b for s in range(first, min(first + per_epoch, steps)) for b in stage.batches(s)]
        text = np.concatenate([*(b.token_ids for b in batches), batches[-1].targets[-1:]]).astype(np.uint16)
        pieces = np.split(text, np.flatnonzero(text == end) + 1)
        yield from (piece for piece in pieces if len(piece))


def held_out_rows(run: Path, name: str, source: TextSource, max_bytes: int) -> list[str]:
    """The source's held-out texts, at most `max_bytes` of UTF-8, evenly chosen."""
    lines = (run / "tokens" / f"{name}.held_out.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [plain_text(json.loads(line), source) for line in lines if line]
    total = sum(len(text.encode()) for text in texts)
    count = max(1, int(len(texts) * min(1.0, max_bytes / max(total, 1))))
    return [texts[i] for i in np.linspace(0, len(texts) - 1, count).astype(int)] if texts else []


def score(
    run: Path,
    recipe: PretrainRecipe,
    model: Path,
    tokenizer: ChatTokenizer,
    counts: ngram.KneserNey,
    max_bytes: int,
) -> list[HeldOut]:
    """Held-out documents of every `text` and `parallel` source, by the model and by the n-grams."""
    sources = {name: source for name, source in recipe.sources.items() if source.as_ != "chat"}
    found = [
        (name, np.asarray(tokenizer.encode(text), np.uint16))
        for name, source in sources.items()
        for text in held_out_rows(run, name, source, max_bytes)
    ]
    found = [(name, ids) for name, ids in found if len(ids) > 1]
    documents = [ids for _, ids in found]
    sizes = np.asarray([len(tokenizer.token_bytes(i)) for i in range(tokenizer.vocab_size)])
    by_model, by_counts = _model_nats(model, documents), counts.log_probabilities(documents)
    scored = []
    for (name, ids), own, other in zip(found, by_model, by_counts, strict=True):
        predicted = np.arange(len(ids)) % WINDOW != 0
        size = int(sizes[ids[predicted]].sum())
        scored.append(HeldOut(name, recipe.sources[name].language, ids, own, -other[predicted], size))
    return scored


def _window_lengths(length: int) -> list[int]:
    return [min(WINDOW, length - start) for start in range(0, length, WINDOW)]


@torch.no_grad()
def _model_nats(model: Path, documents: Sequence[Ids]) -> list[Floats]:
    """Of each document: nats of all tokens but the first of each window of WINDOW, each window fresh."""
    body = PackedBody(load_model(ModelRef("base", model)))
    windows = [w for ids in documents for w in np.split(ids, range(WINDOW, len(ids), WINDOW))]
    nats: dict[int, Floats] = {}
    batch: list[int] = []
    for number in sorted(range(len(windows)), key=lambda n: len(windows[n])):
        if sum(len(windows[n]) for n in batch) + len(windows[number]) > BATCH_TOKENS:
            nats |= _batch_nats(body, windows, batch)
            batch = []
        batch.append(number)
    nats |= _batch_nats(body, windows, batch)
    ends = np.cumsum([len(_window_lengths(len(ids))) for ids in documents])
    owned = np.split(np.arange(len(windows)), ends[:-1])
    return [np.concatenate([nats[n] for n in part]) for part in owned]


def _batch_nats(body: PackedBody, windows: Sequence[Ids], batch: Sequence[int]) -> dict[int, Floats]:
    if not batch:
        return {}
    lengths = [len(windows[n]) for n in batch]
    ids = torch.from_numpy(np.concatenate([windows[n] for n in batch]).astype(np.int64)).to(body.head.device)
    hidden = body.hidden(ids, lengths)
    parts = zip(hidden[:-1].split(1024), ids[1:].split(1024), strict=True)
    losses = [F.cross_entropy(body.logits(h).float(), t, reduction="none") for h, t in parts]
    flat = np.append(torch.cat(losses).double().cpu().numpy(), 0.0)
    ends = np.cumsum(lengths)
    return {n: flat[end - length : end - 1] for n, length, end in zip(batch, lengths, ends, strict=True)}


def interval(numerators: Floats, denominators: Floats | None = None) -> tuple[float, float, float]:
    """Sum of numerators / sum of denominators (or count) with its 95 % bootstrap interval over documents."""
    weights = np.ones(len(numerators)) if denominators is None else denominators
    drawn = np.random.default_rng(0).integers(0, len(numerators), (RESAMPLES, len(numerators)))
    ratios = numerators[drawn].sum(1) / weights[drawn].sum(1)
    low, high = np.percentile(ratios, [2.5, 97.5])
    return float(numerators.sum() / weights.sum()), float(low), float(high)


def bits_per_byte(name: str, documents: Sequence[HeldOut]) -> dict[str, Any]:
    """A row of the table; difference: model - n-gram with its 95 % interval over documents."""
    sizes = np.asarray([d.size for d in documents], float)
    own = np.asarray([d.model.sum() for d in documents]) / np.log(2)
    other = np.asarray([d.counts.sum() for d in documents]) / np.log(2)
    difference = interval(own - other, sizes)
    return {
        "of": name, "documents": len(documents), "bytes": int(sizes.sum()),
        "tokens": sum(len(d.model) for d in documents),
        "model": own.sum() / sizes.sum(), "ngram": other.sum() / sizes.sum(), "difference": difference,
    }  # fmt: skip


def positions(name: str, documents: Sequence[HeldOut]) -> dict[str, Any] | None:
    """Nats a token early and late in the full windows of documents longer than one; None: there is none."""
    pairs = []
    for document in (d for d in documents if len(d.ids) > WINDOW):
        full = [nats for length, nats in document.windows() if length == WINDOW]
        if full:
            pairs.append([np.mean([w[a - 1 : b - 1].mean() for w in full]) for a, b in (EARLY, LATE)])
    if not pairs:
        return None
    early, late = np.asarray(pairs).T
    return {
        "of": name, "documents": len(pairs), "early": early.mean(), "late": late.mean(),
        "difference": interval(late - early),
    }  # fmt: skip


def answer_all(model: Path, seen: Seen, language: Language, prompts: Sequence[str]) -> list[Answer]:
    """Greedy answers through the chat template, each prompt the only turn of its dialogue."""
    loaded = open_model(ModelRef("dialoop-base", model))
    asked = [render_prompt(Conversation((Message("user", p),)), loaded.tokenizer) for p in prompts]
    known = _turns_among(seen.documents, asked, loaded.tokenizer)
    greedy = Sampling(temperature=0)
    found = generate(loaded.model, loaded.tokenizer, asked, greedy, batch_size=50, max_tokens=MAX_ANSWER)
    return [
        _judged(prompt, answer.text, answer.finish_reason == "stop", language, trained_on)
        for prompt, answer, trained_on in zip(prompts, found, known, strict=True)
    ]


def _judged(prompt: str, text: str, ended: bool, language: Language, trained_on: bool) -> Answer:
    asked = ASKS_FOR.get(prompt, language)
    return Answer(prompt, text.strip(), asked, ended, answers_in(text, asked), loops(text), trained_on)


def _turns_among(
    documents: Iterable[Ids], prompts: Sequence[Sequence[int]], tokenizer: ChatTokenizer
) -> list[bool]:
    """Of each prompt: whether its user turn, token for token, stands in a document that the run saw."""
    (start,) = tokenizer.encode("<|im_start|>", control=True)
    with_turns = [document for document in documents if (document == start).any()]
    turns = {turn.tobytes() for turn in _turns(np.concatenate([*with_turns, [0]]), start)}
    return [_turns(np.asarray(prompt), start)[-2].tobytes() in turns for prompt in prompts]


def _turns(ids: Ids, start: int) -> list[Ids]:
    return np.split(ids.astype(np.uint16), np.flatnonzero(ids == start))


def bars_of(tables: Mapping[str, Any], answers: Mapping[Language, Sequence[Answer]]) -> list[Bar]:
    """Every bar of the base model."""
    bars = []
    for row in tables["languages"]:
        name = f"{row['of']}: held-out bits per byte below the 5-gram's"
        words = f"{row['model']:.3f} against {row['ngram']:.3f}, {_signed(row['difference'])}"
        bars.append(Bar(name, words, "below 0", row["model"] < row["ngram"]))
    if tables["positions"]:
        row = tables["positions"][0]
        words = f"{row['late']:.3f} against {row['early']:.3f} nats a token, {_signed(row['difference'])}"
        bars.append(Bar("positions 1,024-2,048 no worse than 256-512", words, "at most 0", row["late"] <= row["early"]))
    for language, given in answers.items():
        good, looping = sum(a.good for a in given), sum(a.loop for a in given)
        words = f"{good} of {len(given)}"
        name = f"{language}: answers end within {MAX_ANSWER} tokens in the language asked for"
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
    bits = [
        (r["of"], r["documents"], f"{r['bytes']:,}", f"{r['tokens']:,}", f"{r['model']:.3f}", f"{r['ngram']:.3f}",
         _signed(r["difference"]))
        for r in (*report["languages"], *report["sources"])
    ]  # fmt: skip
    places = [
        (r["of"], r["documents"], f"{r['early']:.3f}", f"{r['late']:.3f}", _signed(r["difference"]))
        for r in report["positions"]
    ]
    few = report["positions"][0]["documents"] if report["positions"] else 0
    return f"""# The base model against its bars

{table("bar|measured|wanted|met", [(b.name, b.measured, b.wanted, "yes" if b.met else "**no**") for b in bars])}

{report["seen"]}

{report["made"]}

## Bits per byte of held-out text

Natural logs / ln 2 / UTF-8 bytes of the predicted tokens, summed over documents. Windows of {WINDOW:,} tokens,
each read afresh by the model, all tokens but a window's first predicted. The 5-gram (interpolated modified
Kneser-Ney over the same token ids) predicts the same tokens and may look back across a window's beginning. It
is trained on the distinct documents that the run saw, each counted once; of conversations it learns every token,
the model in its last stage only the answers. Brackets: 95 % bootstrap intervals over documents. A language is
its sources of plain text; `mixed` rows are parallel text, English above Chinese in one document, and belong to
no language's bar; conversations are judged by the answers below. {report["limit"]}

{table("held-out text|documents|bytes|tokens|model|5-gram|model - 5-gram", bits)}

## Nats a token by position

Held-out documents longer than {WINDOW:,} tokens, all their full windows, mean over documents.
{f"Only {few} documents are that long, so that the interval is wide." if few < LONG_ENOUGH else ""}

{table("documents|number|positions 256-512|1,024-2,048|difference", places)}

## Answers

Greedy, at most {MAX_ANSWER} tokens, each prompt the only turn of its dialogue; 100 prompts a language, all
answers in `answers.en.md` and `answers.zh.md`. {report["exceptions"]}

{table("prompts|number|end by themselves|in the language|both|loop|empty|turn stands in the data", report["answers"])}
"""


def write_answers(path: Path, language: Language, answers: Sequence[Answer]) -> None:
    """Prompt, answer and flags of every answer."""
    parts = [f"# Answers to the prompts in bench/prompts/{language}.txt\n"]
    for number, answer in enumerate(answers, 1):
        flags = {
            "does not end": not answer.ended, "not in the language asked for": not answer.in_language,
            "loops": answer.loop, "empty": not answer.text, "the prompt stands in the data": answer.trained_on,
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
    cpu = next((x.split(":")[1].strip() for x in _lines("/proc/cpuinfo") if x.startswith("model name")), "CPU")
    weights = hashlib.sha256((arguments.model / "model.safetensors").read_bytes()).hexdigest()[:16]
    options = " ".join(f"--{k} {'/'.join(Path(str(v)).parts[-2:])}" for k, v in vars(arguments).items() if v)
    return (
        f"`python bench/base_model.py {options.replace('_', '-')}`; commit {commit}; weights' sha256 {weights}...; "
        f"{cpu}, {torch.get_num_threads()} of {os.cpu_count()} cores, torch {torch.__version__}, "
        f"Python {platform.python_version()}; {time.strftime('%F')}."
    )


def _output(*command: str) -> str:
    return subprocess.run(command, cwd=HERE, capture_output=True, text=True).stdout.strip() or "unknown"


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).is_file() else []


def steps_of(run: Path) -> int:
    """Updates that the run has made."""
    return int(json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["step"])


def judge(arguments: argparse.Namespace, note: Any) -> tuple[dict[str, Any], dict[Language, list[Answer]], list[Bar]]:
    """Everything measured, in order."""
    recipe = load_recipe(arguments.recipe, PretrainRecipe)
    tokenizer = ChatTokenizer.load(arguments.model)
    seen = seen_by(arguments.run, recipe, tokenizer, arguments.steps or steps_of(arguments.run))
    size = sum(map(len, seen.documents))
    words = (
        f"The run made {seen.steps:,} of {seen.planned_steps:,} updates and saw {seen.tokens:,} tokens; "
        f"{len(seen.documents):,} distinct documents with {size:,} tokens, which the 5-gram is trained on."
    )
    note(words)
    counts = ngram.train(seen.documents, tokenizer.vocab_size)
    note("counted the n-grams")
    scored = score(arguments.run, recipe, arguments.model, tokenizer, counts, arguments.max_bytes)
    note(f"scored {sum(len(d.model) for d in scored):,} held-out tokens")
    tables = tables_of(scored)
    answers = {}
    for language in LANGUAGES:
        prompts = (HERE / "prompts" / f"{language}.txt").read_text(encoding="utf-8").splitlines()
        answers[language] = answer_all(arguments.model, seen, language, [p for p in prompts if p])
        note(f"{language}: {len(answers[language])} answers")
    report = tables | {
        "seen": words, "made": made(arguments),
        "limit": f"At most {arguments.max_bytes:,} bytes of a source are scored, documents evenly chosen.",
        "exceptions": "No prompt asks for an answer in the other language."
        if not ASKS_FOR else f"Judged by the language they ask for: {', '.join(ASKS_FOR)}.",
        "answers": [summary(language, given) for language, given in answers.items()],
    }  # fmt: skip
    return report, answers, bars_of(tables, answers)


def tables_of(scored: Sequence[HeldOut]) -> dict[str, Any]:
    """Bits per byte by language and by source, nats by position."""
    by_language = {n: [d for d in scored if d.language == n] for n in LANGUAGES}
    names = dict.fromkeys(d.source for d in scored)
    by_source = {n: [d for d in scored if d.source == n] for n in names}
    plain = [d for d in scored if d.language in LANGUAGES]
    everywhere = [positions("all", plain), *(positions(n, ds) for n, ds in by_language.items())]
    return {
        "languages": [bits_per_byte(name, documents) for name, documents in by_language.items() if documents],
        "sources": [bits_per_byte(f"{ds[0].language}: {name}", ds) for name, ds in by_source.items()],
        "positions": [row for row in everywhere if row],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="directory of `dialoop pretrain`")
    parser.add_argument("--model", type=Path, required=True, help="the model's Hugging Face directory")
    parser.add_argument("--recipe", type=Path, default=Path("recipes/base.toml"), help="the run's recipe")
    parser.add_argument("--out", type=Path, default=Path("docs/base-model"), help="where the pages go")
    parser.add_argument("--max-bytes", type=int, default=1_000_000, help="held-out bytes scored of a source")
    parser.add_argument("--steps", type=int, help="updates that the model has seen; default: all of the run's")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    start = time.monotonic()
    report, answers, bars = judge(arguments, lambda words: print(f"{time.monotonic() - start:5.0f} s  {words}", flush=True))
    arguments.out.mkdir(parents=True, exist_ok=True)
    for language, given in answers.items():
        write_answers(arguments.out / f"answers.{language}.md", language, given)
    (arguments.out / "bars.md").write_text(page(report, bars), encoding="utf-8")
    record = {"bars": [asdict(bar) for bar in bars], **report}
    (arguments.out / "bars.json").write_text(json.dumps(record, indent=1, ensure_ascii=False), encoding="utf-8")
    for bar in bars:
        print(f"{'met   ' if bar.met else 'FAILED'}  {bar.name}: {bar.measured} (wanted: {bar.wanted})")


if __name__ == "__main__":
    main()
