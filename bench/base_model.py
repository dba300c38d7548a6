"""Judge the shipped base model against its bars, and publish every answer it gave.

    python bench/base_model.py --run runs/base --model src/dialoop/assets/dialoop-base --out docs/base-model

--run is the directory of `dialoop pretrain`: its tokens, held-out rows and number of updates are read, and
nothing is written there. Bars: held-out bits per byte below a modified Kneser-Ney 5-gram of the documents
that the run saw, in each language; late positions no worse than early ones; greedy answers to the prompts in
bench/prompts end, keep the language and do not loop. The exit status is 0 whether or not they are met.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ngram
import numpy as np
import torch
from base_page import (
    HERE,
    MAX_ANSWER,
    WINDOW,
    Answer,
    Bar,
    Language,
    bars_of,
    made,
    page,
    summary,
    write_answers,
    write_curve,
)
from numpy.typing import NDArray

from dialoop.chat.render import render_prompt
from dialoop.chat.tokenizer import ChatTokenizer
from dialoop.config import PretrainRecipe, TextSource, load_recipe
from dialoop.engine.generate import generate
from dialoop.engine.loaded import open_model
from dialoop.evals.loops import answers_in, loops
from dialoop.models.load import load_model
from dialoop.models.packed import PackedBody
from dialoop.train.corpus import StagesPlan, plain_text, tokenise
from dialoop.train.loop import read_journal
from dialoop.types import Conversation, Message, ModelRef, Sampling

LANGUAGES: tuple[Language, ...] = ("en", "zh")
BATCH_TOKENS, RESAMPLES = 4096, 2000
EARLY, LATE = (256, 512), (1024, 2048)
# Prompts that ask for an answer in the other language, and which one: none of the present ones does.
ASKS_FOR: Mapping[str, Language] = {}
Ids = NDArray[np.integer]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Seen:
    """What a run saw. documents: each distinct one once."""

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


def seen_by(run: Path, recipe: PretrainRecipe, tokenizer: ChatTokenizer, steps: int) -> Seen:
    """The documents of the stages that the first `steps` updates reached, and the tokens that were read.

    A stage that ended before it had read all of its documents gives them all, in the 5-gram's favour.
    """
    missing = [name for name in recipe.sources if not (run / "tokens" / f"{name}.npz").is_file()]
    if missing:
        raise SystemExit(f"{run}/tokens lacks {', '.join(missing)}: give the directory of `dialoop pretrain`")
    folder = run / "tokens"
    sources = {n: tokenise(n, s, tokenizer, folder, recipe.held_out) for n, s in recipe.sources.items()}
    plan = StagesPlan(recipe, sources)
    distinct: dict[bytes, Ids] = {}
    left = done = min(steps, plan.steps)
    for stage in plan.stages:
        if left > 0:
            for index in range(len(stage.documents)):
                document = stage.document(index)[0].astype(np.uint16)
                distinct.setdefault(document.tobytes(), document)
        left -= stage.steps
    tokens = next(row["tokens"] for row in read_journal(run / "metrics.jsonl") if row["step"] == done)
    return Seen(done, plan.steps, int(tokens), list(distinct.values()))


def held_out_rows(run: Path, name: str, source: TextSource, max_bytes: int) -> list[str]:
    """The source's held-out texts: as many as `max_bytes` of UTF-8 hold (one at least), evenly chosen."""
    lines = (run / "tokens" / f"{name}.held_out.jsonl").read_text(encoding="utf-8").split("\n")
    texts = [plain_text(json.loads(line), source) for line in lines if line]
    for count in range(len(texts), 0, -1):
        chosen = [texts[i] for i in np.linspace(0, len(texts) - 1, count).astype(int)]
        if count == 1 or sum(len(text.encode()) for text in chosen) <= max_bytes:
            return chosen
    return []


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
    windows = [ids[i : i + WINDOW] for ids in documents for i in range(0, len(ids), WINDOW)]
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
    parts = [(hidden[i : i + 1024], ids[i + 1 : i + 1025]) for i in range(0, len(ids) - 1, 1024)]
    entropy = torch.nn.functional.cross_entropy
    losses = [entropy(body.logits(h[: len(t)]).float(), t, reduction="none") for h, t in parts]
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


def steps_of(run: Path) -> int:
    """Updates that the run has made."""
    return int(json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["step"])


def judge(
    arguments: argparse.Namespace, note: Callable[[str], None]
) -> tuple[dict[str, Any], dict[Language, list[Answer]], list[Bar]]:
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
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--run", type=Path, required=True, help="directory of `dialoop pretrain`")
    parser.add_argument("--model", type=Path, required=True, help="the model's Hugging Face directory")
    parser.add_argument("--recipe", type=Path, default=Path("recipes/base.toml"), help="the run's recipe")
    parser.add_argument("--out", type=Path, default=Path("docs/base-model"), help="where the pages go")
    parser.add_argument("--max-bytes", type=int, default=1_000_000, help="held-out bytes scored of a source")
    parser.add_argument("--steps", type=int, help="updates the model has seen; default: all of the run's")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    start = time.monotonic()
    report, answers, bars = judge(
        arguments, lambda words: print(f"{time.monotonic() - start:5.0f} s  {words}", flush=True)
    )
    arguments.out.mkdir(parents=True, exist_ok=True)
    for language, given in answers.items():
        write_answers(arguments.out / f"answers.{language}.md", language, given)
    write_curve(arguments.run / "metrics.jsonl", arguments.out)
    (arguments.out / "bars.md").write_text(page(report, bars), encoding="utf-8")
    record = {"bars": [asdict(bar) for bar in bars], **report}
    text = json.dumps(record, indent=1, ensure_ascii=False, default=float)
    (arguments.out / "bars.json").write_text(text, encoding="utf-8")
    for bar in bars:
        print(f"{'met   ' if bar.met else 'FAILED'}  {bar.name}: {bar.measured} (wanted: {bar.wanted})")


if __name__ == "__main__":
    main()
