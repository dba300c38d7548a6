"""Names in news: a tagger beside a CRF over the usual hand-made features."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from quality_work import WAYS, Bench, show

from dialoop.data.spans import repaired
from dialoop.evals.baselines import memorised_tags
from dialoop.evals.classes import class_report, span_report
from dialoop.evals.compare import compare
from dialoop.evals.spans import span_f1

CRF = "CRF, hand-made features"
TOKEN_BAR, SPAN_BAR = 0.95, 5.0
HEADER = (
    "contestant",
    "token micro F1",
    "macro",
    "weighted",
    "span precision",
    "recall",
    "span F1",
    "against the CRF, 95 %",
)
Tags = Sequence[Sequence[str]]


def tags(bench: Bench, sets: Sequence[str]) -> None:
    """Teach, ask and print, the whole reports of each head at the end."""
    for name in sets:
        dataset = bench.rows(name)
        print(f"{name}: {len(dataset.train)} sentences to train on, {len(dataset.valid)} to validate, "
              f"{len(dataset.test)} to test")  # fmt: skip
        gold = [row.tags for row in dataset.test]
        found = _contestants(bench, name, dataset)
        groups = [str(row.metadata.get("doc")) for row in dataset.test]
        words = sum(len(each) for each in gold)
        show(
            f"{name}, {words:,} words",
            HEADER,
            [_row(each, said, gold, found[CRF], groups) for each, said in found.items()],
        )
        for way in bench.ways:
            _verdict(WAYS[way].title, found[WAYS[way].title], found[CRF], gold)


def _contestants(bench: Bench, name: str, dataset: Any) -> dict[str, Tags]:
    sentences = [row.tokens for row in dataset.test]
    known = memorised_tags([(row.tokens, row.tags) for row in dataset.train])
    found: dict[str, Tags] = {
        "each word's commonest tag": [repaired([known.get(t, "O") for t in tokens]) for tokens in sentences],
        CRF: bench.kept(name, "crf", lambda: {"answers": crf(dataset.train, sentences)})["answers"],
    }
    for way in bench.ways:

        def ask(way: str = way) -> dict[str, Any]:
            model, told = bench.taught(name, way, dataset)
            return {"answers": model.tags_for(sentences)[0], **told}

        found[WAYS[way].title] = bench.kept(name, way, ask)["answers"]
    return found


def _row(name: str, said: Tags, gold: Tags, first: Tags, groups: Sequence[str]) -> list[str]:
    metric = span_f1()
    words, whole = class_report(_flat(gold), _flat(said)), span_report(gold, said).average("micro")
    change = compare(metric, metric.cases(first, gold), metric.cases(said, gold), groups=groups)
    return [
        name, *(f"{words.average(kind).f1:.3f}" for kind in ("micro", "macro", "weighted")),
        *(f"{100 * value:.1f}" for value in (whole.precision, whole.recall, whole.f1)),
        "" if said is first else f"{change.signed(change.delta)} {change.interval}",
    ]  # fmt: skip


def _verdict(name: str, said: Tags, first: Tags, gold: Tags) -> None:
    words = class_report(_flat(gold), _flat(said))
    behind = 100 * (
        span_report(gold, first).average("micro").f1 - span_report(gold, said).average("micro").f1
    )
    micro = words.average("micro").f1
    print(f"\n{name}: token micro F1 {micro:.4f}, {_met(micro >= TOKEN_BAR)} (bar {TOKEN_BAR}); span F1 "
          f"{behind:.1f} points below the CRF's, {_met(behind <= SPAN_BAR)} (bar {SPAN_BAR:g})")  # fmt: skip
    print(f"\nWords:\n\n{words.to_text()}\nWhole spans, strict:\n\n{span_report(gold, said).to_text()}")


def _met(is_met: bool) -> str:
    return "met" if is_met else "missed"


def _flat(sentences: Tags) -> list[str]:
    return [tag for each in sentences for tag in each]


def crf(train: Sequence[Any], sentences: Tags) -> list[tuple[str, ...]]:
    """Tags by python-crfsuite, L-BFGS with elastic-net penalties as its own NER example has them."""
    try:
        import pycrfsuite
    except ImportError as error:
        raise SystemExit("python-crfsuite is missing: pip install python-crfsuite") from error
    trainer = pycrfsuite.Trainer(verbose=False)
    for row in train:
        trainer.append(list(features(row.tokens)), row.tags)
    trainer.set_params({
        "c1": 0.1, "c2": 0.05, "max_iterations": 150, "feature.possible_transitions": True,
        "feature.minfreq": 2,
    })  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "crf")
        trainer.train(path)
        tagger = pycrfsuite.Tagger()
        tagger.open(path)
        return [repaired(tagger.tag(list(features(tokens)))) for tokens in sentences]


def features(tokens: Sequence[str]) -> Iterator[list[str]]:
    """Of each word: itself, its ends, its shape; the words around it, and pairs of them."""
    for i in range(len(tokens)):
        found = ["bias"]
        for distance in (-2, -1, 0, 1, 2):
            found += _seen(tokens, i + distance, f"{distance}:", near=abs(distance) < 2)
        found += [f"{a}{b}={_lower(tokens, i + a)}|{_lower(tokens, i + b)}" for a, b in ((-1, 0), (0, 1))]
        word = tokens[i]
        found += [f"prefix={word[:n]}" for n in (1, 2, 3, 4) if len(word) >= n]
        found += [f"suffix={word[-n:]}" for n in (1, 2, 3, 4) if len(word) >= n]
        yield found


def _seen(tokens: Sequence[str], place: int, name: str, *, near: bool) -> list[str]:
    if not 0 <= place < len(tokens):
        return [f"{name}none"]
    word = tokens[place]
    plain = [f"{name}lower={word.lower()}", f"{name}shape={_shape(word, short=True)}"]
    return [*plain, f"{name}word={word}", f"{name}long={_shape(word)}"] if near else plain


def _lower(tokens: Sequence[str], place: int) -> str:
    return tokens[place].lower() if 0 <= place < len(tokens) else ""


def _shape(word: str, *, short: bool = False) -> str:
    """`Xxxx-dd`; short: runs once, `Xx-d`."""
    kinds = [
        "X" if c.isupper() else "x" if c.islower() else "d" if c.isdigit() else "c" if c.isalpha() else c
        for c in word
    ]
    return "".join(k for i, k in enumerate(kinds) if not short or not i or kinds[i - 1] != k)
