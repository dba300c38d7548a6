"""From texts to what a head reads, and from its logits to what is told; needs no torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

from dialoop.chat.pairs import PairTexts, history_text
from dialoop.data.spans import repaired
from dialoop.data.word_ids import WordIds, split_words
from dialoop.engine.reader import Reader, Text
from dialoop.errors import ContextLengthError, RequestError
from dialoop.types import Classifiable, Classified, Conversation, WordTags


def fitting_ids(history: Conversation, answers: Sequence[str], reader: Reader) -> list[list[int]]:
    """The history with each of the answers. Raises ContextLengthError: nothing is cut off."""
    pairs, text = PairTexts(reader.tokenizer, reader.context), history_text(history)
    found = []
    for answer in answers:
        ids, cut = pairs.ids(text, answer)
        if cut:
            raise ContextLengthError(pairs.length(text, answer), reader.context, param="messages")
        found.append(ids)
    return found


def whole_texts(texts: Sequence[Classifiable]) -> list[Text]:
    """Raises RequestError for words, which only a tagger reads."""
    for i, text in enumerate(texts):
        if not isinstance(text, str) and any(isinstance(each, str) for each in text):
            raise RequestError(f"input[{i}] is a list of words: this model reads whole texts", param="input")
    return cast(list[Text], list(texts))


def words_of(texts: Sequence[Classifiable]) -> list[WordTags]:
    """What is to be tagged, without its tags. Raises RequestError where there are no words."""
    found = []
    for i, text in enumerate(texts):
        if isinstance(text, str):
            places = tuple(split_words(text))
            words = tuple(text[start:end] for start, end in places)
        else:
            places, words = (), tuple(word for word in text if isinstance(word, str))
        if not words or not all(words) or (not places and len(words) != len(text)):
            raise RequestError(
                f"input[{i}] is no text and no list of words: a model that tags words reads these",
                param="input",
            )
        found.append(WordTags(words, (), (), places))
    return found


def word_ids(sentences: Sequence[WordTags], reader: Reader) -> tuple[list[list[int]], list[list[int]]]:
    """Token ids, and the places of the words' first. Raises ContextLengthError: nothing is cut off."""
    spell = WordIds(reader.tokenizer)
    rows = [spell.ids(each.words) for each in sentences]
    for i, (ids, _) in enumerate(rows):
        if len(ids) > reader.context:
            raise ContextLengthError(len(ids), reader.context, what=f"input[{i}]", param="input")
    return [ids for ids, _ in rows], [places for _, places in rows]


def tagged(
    sentence: WordTags, found: tuple[Sequence[int], Sequence[float]], labels: Sequence[str]
) -> WordTags:
    """The sentence with its tags, a span that nothing begins made to begin."""
    numbers, shares = found
    return replace(sentence, labels=repaired([labels[i] for i in numbers]), probabilities=tuple(shares))


def classified(logits: Sequence[float], labels: Sequence[str]) -> Classified:
    """The softmax of the logits; of a scorer's one number, the logistic function."""
    if len(logits) == 1:
        return Classified(labels[0], (math.exp(log_sigmoid(logits[0])),))
    highest = max(logits)
    weights = [math.exp(each - highest) for each in logits]
    total = sum(weights)
    best = max(range(len(logits)), key=logits.__getitem__)
    return Classified(labels[best], tuple(each / total for each in weights))


def log_sigmoid(x: float) -> float:
    """log(1 / (1 + exp(-x))), without overflow."""
    return -math.log1p(math.exp(-x)) if x > 0 else x - math.log1p(math.exp(x))
