"""What a model with a head makes of rows: classes, tags, or how well answers fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from dialoop.chat.pairs import PairTexts
from dialoop.chat.plain import TextTokenizer
from dialoop.data.spans import repaired
from dialoop.models.crf import Crf
from dialoop.models.head_config import labels_of
from dialoop.models.heads import Headed, load_crf, load_headed, scores_of
from dialoop.models.load import default_device
from dialoop.train.head_rows import cut_text, tagged_rows
from dialoop.types import Tagged


@dataclass(frozen=True, slots=True)
class Answering:
    """A trained head with its tokenizer. max_length: tokens that are read of a row."""

    headed: Headed
    tokenizer: TextTokenizer
    labels: tuple[str, ...]
    max_length: int
    crf: Crf | None = None

    @classmethod
    def load(cls, folder: Path, max_length: int) -> Answering:
        """Raises ModelError."""
        exact = torch.float32 if default_device() == "cpu" else None
        headed = Headed(load_headed(folder, dtype=exact), folder)
        return cls(headed, TextTokenizer(folder), labels_of(folder), max_length, load_crf(folder))

    def labels_for(self, texts: Sequence[str]) -> list[str]:
        """The likeliest class of each text."""
        return self.likeliest(self.log_probabilities(texts))

    def log_probabilities(self, texts: Sequence[str]) -> list[tuple[float, ...]]:
        """Of every class, in the order of `labels`, for each text."""
        ids = [cut_text(self.tokenizer, text, self.max_length)[0] for text in texts]
        return [
            tuple(scores.cpu().double().log_softmax(-1).tolist()) for scores in scores_of(self.headed, ids)
        ]

    def likeliest(self, found: Sequence[Sequence[float]]) -> list[str]:
        """The class of each row of `log_probabilities`."""
        return [self.labels[max(range(len(row)), key=row.__getitem__)] for row in found]

    def fits(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """P(answer fits history) of each."""
        spell = PairTexts(self.tokenizer, self.max_length)
        ids = [spell.ids(history, answer)[0] for history, answer in pairs]
        return [float(torch.sigmoid(scores[0])) for scores in scores_of(self.headed, ids)]

    def tags_for(self, sentences: Sequence[Sequence[str]]) -> tuple[list[tuple[str, ...]], int]:
        """Tags in strict IOB2, O for words beyond `max_length`; and how many sentences have such."""
        rows = [Tagged(tuple(tokens), ("O",) * len(tokens)) for tokens in sentences]
        made = tagged_rows(rows, self.labels, self.tokenizer, self.max_length)
        found = []
        for row, scores in zip(
            made.rows, scores_of(self.headed, [r.token_ids for r in made.rows]), strict=True
        ):
            words = scores[list(row.places)]
            best = words.argmax(-1).tolist() if self.crf is None or not len(words) else self.crf.best(words)
            tags = [self.labels[i] for i in best] + ["O"] * (row.words - len(best))
            found.append(repaired(tags))
        return found, made.cut
