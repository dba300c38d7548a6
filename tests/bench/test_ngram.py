"""The n-gram yardstick against the formulas, written out with dictionaries."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.ngram import train

BEGIN = -1
Gram = tuple[int, ...]


class Reference:
    """Interpolated modified Kneser-Ney by its definition: slow, and written without looking at arrays."""

    def __init__(self, documents: Sequence[Sequence[int]], vocabulary: int, order: int) -> None:
        self.vocabulary, self.order = vocabulary, order
        raw: Counter[Gram] = Counter()
        preceding: defaultdict[Gram, set[int]] = defaultdict(set)
        for document in documents:
            text = [BEGIN, *document]
            for end in range(1, len(text)):
                for start in range(max(0, end - order + 1), end + 1):
                    raw[tuple(text[start : end + 1])] += 1
                for start in range(max(1, end - order + 2), end + 1):
                    preceding[tuple(text[start : end + 1])].add(text[start - 1])
        exact = {gram for gram in raw if len(gram) == order or gram[0] == BEGIN}
        self.count = {g: raw[g] if g in exact else len(preceding[g]) for g in raw}
        self.discount = {n: self.discounts(n) for n in range(1, order + 1)}
        self.followers: defaultdict[Gram, list[int]] = defaultdict(list)
        for gram in self.count:
            self.followers[gram[:-1]].append(gram[-1])

    def discounts(self, n: int) -> dict[int, float]:
        of_count = Counter(count for gram, count in self.count.items() if len(gram) == n)
        n1, n2, n3, n4 = (of_count[k] for k in (1, 2, 3, 4))
        if min(n1, n2, n3, n4) > 0:
            y = n1 / (n1 + 2 * n2)
            found = {1: 1 - 2 * y * n2 / n1, 2: 2 - 3 * y * n3 / n2, 3: 3 - 4 * y * n4 / n3}
            if all(0 < d <= k for k, d in found.items()):
                return found
        return {1: 0.5, 2: 1.0, 3: 1.5}

    def probability(self, word: int, context: Gram) -> float:
        lower = self.probability(word, context[1:]) if context else 1 / self.vocabulary
        counts = {w: self.count[(*context, w)] for w in self.followers[context]}
        if not counts:
            return lower
        discount = self.discount[len(context) + 1]
        total = sum(counts.values())
        own = max(counts[word] - discount[min(counts[word], 3)], 0) / total if word in counts else 0.0
        return own + sum(discount[min(c, 3)] for c in counts.values()) / total * lower

    def logs(self, document: Sequence[int]) -> list[float]:
        text = [BEGIN, *document]
        starts = [max(0, end - self.order + 1) for end in range(1, len(text))]
        return [math.log(self.probability(text[e], tuple(text[s:e]))) for e, s in enumerate(starts, 1)]


def some_documents(vocabulary: int, count: int, length: int, seed: int) -> list[np.ndarray]:
    """Text with habits: a token mostly follows from the two before it."""
    rng = np.random.default_rng(seed)
    documents = []
    for _ in range(count):
        text = [int(rng.integers(vocabulary)), int(rng.integers(vocabulary))]
        while len(text) < length:
            habit = (3 * text[-1] + text[-2]) % vocabulary
            text.append(habit if rng.random() < 0.7 else int(rng.zipf(1.5)) % vocabulary)
        documents.append(np.asarray(text[: int(rng.integers(0, length + 1))], np.uint16))
    return documents


@pytest.mark.parametrize("order", [1, 2, 3, 5])
@pytest.mark.parametrize("vocabulary", [4, 40])
def test_every_probability_is_that_of_the_formulas(order: int, vocabulary: int) -> None:
    documents = some_documents(vocabulary, 40, 30, seed=1)
    model = train(documents, vocabulary, order)
    reference = Reference([d.tolist() for d in documents], vocabulary, order)
    for document in [*documents[:10], *some_documents(vocabulary, 10, 20, seed=2)]:
        found = model.log_probabilities([document])[0]
        np.testing.assert_allclose(found, reference.logs(document.tolist()), rtol=1e-10)


def test_the_discounts_of_a_large_enough_text_come_from_its_counts_of_counts() -> None:
    documents = some_documents(40, 200, 40, seed=3)
    reference = Reference([d.tolist() for d in documents], 40, 5)
    estimated = [level.discounts for level in train(documents, 40).levels]
    assert estimated == [pytest.approx(tuple(reference.discount[n].values())) for n in range(1, 6)]
    assert (0.5, 1.0, 1.5) not in estimated[1:]


TEXTS = st.lists(st.lists(st.integers(0, 4), max_size=12), max_size=8)


@settings(max_examples=60, deadline=None)
@given(texts=TEXTS, context=st.lists(st.integers(0, 6), max_size=6), order=st.integers(1, 5))
def test_the_probabilities_after_any_context_sum_to_one(
    texts: list[list[int]], context: list[int], order: int
) -> None:
    model = train([np.asarray(text, np.uint16) for text in texts], 7, order)
    endings = [np.asarray([*context, word], np.uint16) for word in range(7)]
    total = sum(math.exp(logs[-1]) for logs in model.log_probabilities(endings))
    assert total == pytest.approx(1, abs=1e-9)


def test_no_ngram_crosses_the_beginning_of_a_document() -> None:
    apart = [np.asarray([1, 2, 3, 4]), np.asarray([5, 6, 7, 8])]
    model = train(apart, 10)
    swapped = train(apart[::-1], 10)
    text = [np.asarray([1, 2, 3, 4, 5, 6, 7, 8])]
    np.testing.assert_array_equal(model.log_probabilities(text)[0], swapped.log_probabilities(text)[0])
    across = model.log_probabilities(text)[0][4]
    assert across == pytest.approx(model.log_probabilities([np.asarray([9, 5])])[0][1])


def test_documents_scored_together_score_as_each_alone() -> None:
    model = train(some_documents(12, 30, 20, seed=4), 12)
    several = some_documents(12, 9, 15, seed=5)
    together = model.log_probabilities(several)
    assert [len(logs) for logs in together] == [len(document) for document in several]
    for document, logs in zip(several, together, strict=True):
        np.testing.assert_array_equal(logs, model.log_probabilities([document])[0])


def test_a_token_outside_the_vocabulary_is_refused() -> None:
    with pytest.raises(ValueError, match=r"0\.\.9"):
        train([np.asarray([3, 10])], 10)
