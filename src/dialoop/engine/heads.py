"""From texts to what a head reads, and from its logits to what is told; needs no torch."""

from __future__ import annotations

import math
from collections.abc import Sequence

from dialoop.chat.pairs import PairTexts, history_text
from dialoop.engine.reader import Reader
from dialoop.errors import ContextLengthError
from dialoop.types import Classified, Conversation


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
