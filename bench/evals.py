"""Metrics over many pairs: ours beside rouge-score and sacrebleu used the plain way, on one core.

    $ DIALOOP_DATA=... python bench/evals.py --pairs 100000 --beside 5000 --rounds 3

Ours are timed over all pairs; beside the plain way, which takes minutes, over the first of them. Both sides
get the same answers and references, real dialogue turns with a part of their words exchanged; rounds
alternate. Peers' numbers are compared with ours: where they differ the script fails.
`evaluate` is no contestant of its own: its `rouge` and `sacrebleu` call the same two libraries, and it
downloads their scripts.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import sacrebleu
from rouge_score.rouge_scorer import RougeScorer

from dialoop.evals.metrics import bleu, chrf, rouge
from dialoop.evals.suites import REPLY
from dialoop.evals.words import forget_words, words

SETS = (
    ("en", "multiwoz21/valid.jsonl.gz"),
    ("zh", "crosswoz/valid.jsonl.gz"),
    ("en", "bitext-support/chat_train.jsonl.gz"),
)
Numbers = dict[str, float]


class Tokens:
    """Our tokens for rouge-score, whose own leave no Chinese."""

    def tokenize(self, text: str) -> list[str]:
        return words(text)


def replies(path: Path, wanted: int) -> list[str]:
    """Assistant turns, repeated from the start where there are too few."""
    found: list[str] = []
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            found += [m["content"] for m in json.loads(line)["messages"] if m["role"] == "assistant"]
            if len(found) >= wanted:
                break
    return (found * (wanted // max(len(found), 1) + 1))[:wanted]


def worsened(text: str, language: str, generator: random.Random) -> str:
    """Three of ten words, or characters, exchanged for others of the same text."""
    joint = "" if language == "zh" else " "
    parts = list(text) if language == "zh" else text.split()
    return joint.join(p if generator.random() < 0.7 else generator.choice(parts) for p in parts)


def ours(said: list[str], right: list[str], language: str) -> Numbers:
    """BLEU, chrF and three ROUGE."""
    forget_words()
    metrics = (bleu(language), chrf(), rouge("rouge1"), rouge("rouge2"), rouge("rougeL"))
    return {metric.name: metric.value(said, right) for metric in metrics}


def plain(said: list[str], right: list[str], language: str) -> Numbers:
    """The same by the libraries' own front doors."""
    kinds = {"rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeL": "ROUGE-L"}
    scorer = RougeScorer(list(kinds), tokenizer=Tokens())
    found = [scorer.score(r, s) for s, r in zip(said, right, strict=True)]
    rouges = {name: 100 * float(np.mean([f[kind].fmeasure for f in found])) for kind, name in kinds.items()}
    tokenize = "zh" if language == "zh" else "13a"
    return {
        "BLEU": sacrebleu.corpus_bleu(said, [right], tokenize=tokenize).score,
        "chrF": sacrebleu.corpus_chrf(said, [right]).score,
        **rouges,
    }


def whole_suite(said: list[str], right: list[str], language: str) -> Numbers:
    """Every metric of text that a report shows."""
    forget_words()
    shown = [m for m in REPLY.metrics(language, right) if m.reads == "text"]
    return {metric.name: metric.value(said, right) for metric in shown}


def timed(work: Callable[[], Numbers]) -> tuple[float, Numbers]:
    """CPU seconds, which other work on the machine does not lengthen, and what came of it."""
    begun = time.process_time()
    found = work()
    return time.process_time() - begun, found


def main() -> None:
    """Print a table a language."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=100_000)
    parser.add_argument("--beside", type=int, default=5_000, help="pairs that the plain way gets too")
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    print(
        "| language | words a reference | pairs | five metrics, CPU s | whole suite, CPU s | pairs beside | "
        "ours, CPU s | plain, CPU s | ratio |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    for language, file in SETS:
        path = Path(os.environ["DIALOOP_DATA"]) / file
        print(line(language, path, asked.pairs, asked.beside, asked.rounds), flush=True)


def line(language: str, path: Path, pairs: int, beside: int, rounds: int) -> str:
    """A row of the table: medians of the rounds."""
    generator = random.Random(0)
    right = replies(path, pairs)
    said = [worsened(text, language, generator) for text in right]
    five, _ = timed(lambda: ours(said, right, language))
    suite, _ = timed(lambda: whole_suite(said, right, language))
    length = np.mean([len(words(text)) for text in right[:beside]])
    said, right = said[:beside], right[:beside]
    mine, theirs = [], []
    for _ in range(rounds):
        seconds, numbers = timed(lambda: ours(said, right, language))
        mine.append(seconds)
        seconds, others = timed(lambda: plain(said, right, language))
        theirs.append(seconds)
        assert all(abs(numbers[name] - others[name]) < 1e-6 for name in others), (numbers, others)
    a, b = float(np.median(mine)), float(np.median(theirs))
    return (
        f"| {language} | {length:.1f} | {pairs:,} | {five:.1f} | {suite:.1f} | {beside:,} | {a:.2f} | "
        f"{b:.1f} | {b / a:.1f} |"
    )


if __name__ == "__main__":
    main()
