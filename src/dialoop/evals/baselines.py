"""What a head must beat: the commonest class, and a logistic regression over words."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Sequence

from dialoop.evals.nearest import K1, B, features
from dialoop.types import Labelled

TERMS = 50_000


def majority(train: Sequence[Labelled], count: int) -> list[str]:
    """The commonest class of the training rows, `count` times."""
    (label, _), *_ = Counter(row.label for row in train).most_common(1)
    return [label] * count


def tfidf_regression(train: Sequence[Labelled], texts: Sequence[str], *, strength: float = 10.0) -> list[str]:
    """Classes by logistic regression over TF-IDF of `features`. strength: inverse of the L2 penalty."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    vectors = TfidfVectorizer(analyzer=features, sublinear_tf=True, max_features=TERMS)
    fitted = vectors.fit_transform([row.text for row in train])
    model = LogisticRegression(C=strength, max_iter=300)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(fitted, [row.label for row in train])
    return [str(label) for label in model.predict(vectors.transform(list(texts)))]


def bm25_ranking(
    train: Sequence[str], queries: Sequence[str], candidates: Sequence[Sequence[str]]
) -> list[list[float]]:
    """How much each candidate is about its query, by BM25 with the rarities of terms in `train`."""
    seen = Counter(term for text in train for term in set(features(text)))
    longest = sum(len(features(text)) for text in train) / max(len(train), 1)

    def score(query: set[str], text: str) -> float:
        counts = Counter(features(text))
        norm = K1 * (1 - B + B * counts.total() / max(longest, 1))
        return sum(
            math.log1p((len(train) - seen[term] + 0.5) / (seen[term] + 0.5)) * n * (K1 + 1) / (n + norm)
            for term, n in counts.items()
            if term in query
        )

    asked = (set(features(query)) for query in queries)
    return [[score(query, text) for text in texts] for query, texts in zip(asked, candidates, strict=True)]


def memorised_tags(train: Sequence[tuple[Sequence[str], Sequence[str]]]) -> dict[str, str]:
    """The commonest tag of every word of the training rows."""
    seen: dict[str, Counter[str]] = {}
    for tokens, tags in train:
        for token, tag in zip(tokens, tags, strict=True):
            seen.setdefault(token, Counter())[tag] += 1
    return {token: counts.most_common(1)[0][0] for token, counts in seen.items()}
