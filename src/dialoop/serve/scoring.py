"""POST /v1/score, /v1/rerank and /v1/classify: how well texts fit one another."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal, cast

from fastapi import APIRouter
from pydantic import Field, StringConstraints, WithJsonSchema

from dialoop.data.spans import spans
from dialoop.errors import RequestError, UnsupportedError
from dialoop.serve.bodies import Body, add_route
from dialoop.serve.wire import parse_chat
from dialoop.store.identity import new_id
from dialoop.types import (
    Classifiable,
    Classification,
    Classify,
    Conversation,
    Embed,
    Engine,
    Message,
    Score,
    Scored,
    WordTags,
)

MAX_TEXTS = 1024
"""Of one request."""
Text = Annotated[str, StringConstraints(min_length=1)]
Texts = Annotated[list[Text], Field(min_length=1, max_length=MAX_TEXTS)]
_MESSAGES = WithJsonSchema({"type": "array", "minItems": 1, "items": {"type": "object"}})


class ScoreBody(Body):
    """The body of POST /v1/score: a history and answers to it."""

    model: str
    """A served decoder, or a scorer, whose score is P(answer fits history): see /v1/models."""
    text_1: Text | None = None
    """The user's turn that is answered."""
    messages: Annotated[list[Any], _MESSAGES] | None = None
    """A whole history instead."""
    text_2: Text | Texts
    """An answer, or several."""
    user: str | None = None
    """Hint: an end user's id; not used."""


class RerankBody(Body):
    """The body of POST /v1/rerank, in Jina's and Cohere's shape."""

    model: str
    """A served model: an encoder compares vectors, a decoder tells how probable each answer is, a scorer how
    well it fits."""
    query: Text
    """What is asked."""
    documents: Annotated[list[Any], Field(min_length=1, max_length=MAX_TEXTS)]
    """Texts, or objects with a text."""
    top_n: int | None = Field(None, ge=1)
    """So many of the best are told; absent = all."""
    return_documents: bool = True
    """Repeat the texts."""
    method: Literal["auto", "embedding", "likelihood"] = "auto"
    """Cosine of vectors; mean token probability as an answer; auto = by the kind of model."""


class ClassifyBody(Body):
    """The body of POST /v1/classify."""

    model: str
    """A served model with a head: see /v1/models."""
    input: Text | Texts | None = None
    """A text, or several. A model that tags words cuts them into words itself."""
    words: Texts | Annotated[list[Texts], Field(min_length=1, max_length=MAX_TEXTS)] | None = None
    """For a model that tags words: those of a sentence, or of several, in the place of `input`."""
    user: str | None = None
    """Hint: an end user's id; not used."""


def scoring_routes(engine: Engine, **bounds: Any) -> APIRouter:
    """The routes over `engine`, which may be able to do none of it. bounds: as for `add_route`."""
    router = APIRouter()

    async def score(asked: ScoreBody) -> dict[str, Any]:
        """P(answer | history) of each answer: the mean probability of its tokens, as the geometric mean."""
        answers = [asked.text_2] if isinstance(asked.text_2, str) else asked.text_2
        found = await _scorer(engine).score(asked.model, _history(asked), answers)
        return _scores(asked.model, found)

    async def rerank(asked: RerankBody) -> dict[str, Any]:
        """Documents in the order of how well they fit a query, the best first."""
        texts = _documents(asked.documents)
        if _method(engine, asked) == "embedding":
            scores, tokens = await _by_embedding(engine, asked, texts)
        else:
            scores, tokens = await _by_likelihood(engine, asked, texts)
        return _reranked(asked, texts, scores, tokens)

    async def classify(asked: ClassifyBody) -> dict[str, Any]:
        """The classes of texts, or the tags of their words, by a model with a head."""
        if not isinstance(engine, Classify):
            raise UnsupportedError("this engine has no head that classifies: ask for a choice in a chat")
        texts = _classifiable(asked)
        found = await engine.classify(asked.model, texts)
        rows = _tags(found, texts) if found.tags else _classes(found)
        return {
            "id": new_id("classify"), "object": "list", "created": int(time.time()), "model": asked.model,
            "data": rows, "usage": _usage(found.prompt_tokens),
        }  # fmt: skip

    add_route(router, ("/v1/score", "/score"), ScoreBody, score, **bounds)
    add_route(router, ("/v1/rerank", "/rerank"), RerankBody, rerank, **bounds)
    add_route(router, ("/v1/classify", "/classify"), ClassifyBody, classify, **bounds)
    return router


def _scorer(engine: object) -> Score:
    if not isinstance(engine, Score):
        raise UnsupportedError("this engine scores no answers: serve a model with one that does")
    return engine


def _history(asked: ScoreBody) -> Conversation:
    if (asked.text_1 is None) == (asked.messages is None):
        raise RequestError("expected either text_1 or messages: send one of them", param="text_1")
    if asked.text_1 is not None:
        return Conversation((Message("user", asked.text_1),))
    return parse_chat({"model": asked.model, "messages": asked.messages}).request.conversation


def probability(scored: Scored) -> float:
    """The geometric mean of the tokens' probabilities: answers of any length can be compared."""
    return math.exp(scored.total / len(scored.logprobs))


def _scores(model: str, found: Sequence[Scored]) -> dict[str, Any]:
    rows = [
        {
            "index": i, "object": "score", "score": probability(each), "logprob": each.total,
            "tokens": len(each.logprobs),
        }
        for i, each in enumerate(found)
    ]  # fmt: skip
    return {
        "id": new_id("score"),
        "object": "list",
        "created": int(time.time()),
        "model": model,
        "data": rows,
        "usage": _usage(sum(each.read for each in found)),
    }


def _classifiable(asked: ClassifyBody) -> list[Classifiable]:
    if (asked.input is None) == (asked.words is None):
        raise RequestError("expected either input or words: send one of them", param="input")
    if asked.words is None:
        return [asked.input] if isinstance(asked.input, str) else list(asked.input or ())
    one = isinstance(asked.words[0], str)
    return [cast(list[str], asked.words)] if one else cast(list[Classifiable], asked.words)


def _classes(found: Classification) -> list[dict[str, Any]]:
    """In the shape of vLLM's."""
    return [
        {
            "index": i, "label": each.label, "probs": list(each.probabilities),
            "num_classes": len(each.probabilities),
        }
        for i, each in enumerate(found.rows)
    ]  # fmt: skip


def _tags(found: Classification, texts: Sequence[Classifiable]) -> list[dict[str, Any]]:
    """The words with their tags, and the spans in the shape of transformers' pipeline."""
    return [
        {
            "index": i, "words": list(each.words), "labels": list(each.labels),
            "scores": list(each.probabilities), "spans": list(_spans(each, text)),
        }
        for i, (each, text) in enumerate(zip(found.tags, texts, strict=True))
    ]  # fmt: skip


def _spans(tagged: WordTags, text: Classifiable) -> Iterator[dict[str, Any]]:
    """start, end: in the characters of a text, null where words were given; words: the first, and the one
    after the last.
    """
    for span in sorted(spans(tagged.labels)):
        inside = slice(span.start, span.stop)
        shares, places = tagged.probabilities[inside], tagged.places[inside]
        start, end = (places[0][0], places[-1][1]) if places else (None, None)
        told = text[start:end] if isinstance(text, str) else " ".join(tagged.words[inside])
        yield {
            "entity_group": span.label, "score": sum(shares) / len(shares), "word": told, "start": start,
            "end": end, "words": [span.start, span.stop],
        }  # fmt: skip


def _usage(tokens: int) -> dict[str, int]:
    return {"prompt_tokens": tokens, "total_tokens": tokens}


def _documents(given: Sequence[Any]) -> list[str]:
    return [_document(each, i) for i, each in enumerate(given)]


def _document(given: Any, i: int) -> str:
    text = given.get("text") if isinstance(given, dict) else given
    if not isinstance(text, str) or not text:
        raise RequestError(f"documents[{i}] is no text and has none: give some text", param="documents")
    return text


def _method(engine: Engine, asked: RerankBody) -> str:
    if asked.method != "auto":
        return asked.method
    kinds = {served.name: served.kind for served in engine.models()}
    return "embedding" if kinds.get(asked.model) == "encoder" else "likelihood"


async def _by_embedding(engine: Engine, asked: RerankBody, texts: list[str]) -> tuple[list[float], int]:
    if not isinstance(engine, Embed):
        raise UnsupportedError("this engine does not embed: serve a model with one that does")
    found = await engine.embed(asked.model, [asked.query, *texts])
    query, *others = found.vectors
    return [sum(a * b for a, b in zip(query, each, strict=True)) for each in others], found.prompt_tokens


async def _by_likelihood(engine: Engine, asked: RerankBody, texts: list[str]) -> tuple[list[float], int]:
    history = Conversation((Message("user", asked.query),))
    found = await _scorer(engine).score(asked.model, history, texts)
    return [probability(each) for each in found], sum(each.read for each in found)


def _reranked(asked: RerankBody, texts: list[str], scores: list[float], tokens: int) -> dict[str, Any]:
    order = sorted(range(len(texts)), key=lambda i: (-scores[i], i))[: asked.top_n]
    results = [
        {"index": i, "relevance_score": scores[i]}
        | ({"document": {"text": texts[i]}} if asked.return_documents else {})
        for i in order
    ]
    return {"id": new_id("rerank"), "model": asked.model, "results": results, "usage": _usage(tokens)}
