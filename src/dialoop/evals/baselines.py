"""What a head must beat: the commonest class, and a logistic regression over words."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

from dialoop.evals.words import words
from dialoop.types import Labelled

TERMS = 50_000


def majority(train: Sequence[Labelled], count: int) -> list[str]:
    """The commonest class of the training rows, `count` times."""
    (label, _), *_ = Counter(row.label for row in train).most_common(1)
    return [label] * count


def terms(text: str) -> list[str]:
    """Words and pairs of neighbouring ones; a Chinese character is a word."""
    found = words(text)
    return found + [f"{a} {b}" for a, b in pairwise(found)]


def tfidf_regression(train: Sequence[Labelled], texts: Sequence[str], *, strength: float = 10.0) -> list[str]:
    """Classes by logistic regression over TF-IDF of `terms`. strength: inverse of the L2 penalty."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    vectors = TfidfVectorizer(analyzer=terms, sublinear_tf=True, max_features=TERMS)
    fitted = vectors.fit_transform([row.text for row in train])
    model = LogisticRegression(C=strength, max_iter=300)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(fitted, [row.label for row in train])
    return [str(label) for label in model.predict(vectors.transform(list(texts)))]


def tfidf_ranking(
    train: Sequence[str], queries: Sequence[str], candidates: Sequence[Sequence[str]]
) -> list[int]:
    """For each query the candidate that is most alike, by the cosine of TF-IDF learnt on `train`."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectors = TfidfVectorizer(analyzer=terms, sublinear_tf=True, max_features=TERMS).fit(train)
    asked = vectors.transform(list(queries))
    found = []
    for i, texts in enumerate(candidates):
        alike = (vectors.transform(list(texts)) @ asked[i].T).toarray().ravel()
        found.append(int(alike.argmax()))
    return found


def memorised_tags(train: Sequence[tuple[Sequence[str], Sequence[str]]]) -> dict[str, str]:
    """The commonest tag of every word of the training rows."""
    seen: dict[str, Counter[str]] = {}
    for tokens, tags in train:
        for token, tag in zip(tokens, tags, strict=True):
            seen.setdefault(token, Counter())[tag] += 1
    return {token: counts.most_common(1)[0][0] for token, counts in seen.items()}
