"""What every engine that classifies does. Subclass ClassifyConformance and give it the fixture."""

from __future__ import annotations

import asyncio

import pytest

from dialoop.data.spans import repaired
from dialoop.errors import ContextLengthError, RequestError, UnknownModelError, UnsupportedError
from dialoop.types import Classify

TEXTS = ("Where is my order?", "我想退货。", "Thank you!", "x")


class ClassifyConformance:
    """`engine` serves `classes`, which tells three classes apart, `tags`, which tags words, and `bert`, which
    has no head.
    """

    async def test_every_text_gets_a_class_and_a_distribution_in_its_place(self, engine: Classify) -> None:
        found = await engine.classify("classes", TEXTS)
        assert len(found.rows) == len(TEXTS)
        assert found.prompt_tokens > 0
        labels = {each.probabilities.index(max(each.probabilities)): each.label for each in found.rows}
        for each in found.rows:
            assert sum(each.probabilities) == pytest.approx(1)
            assert len(each.probabilities) == 3
            assert each.label == labels[each.probabilities.index(max(each.probabilities))]

    async def test_a_text_is_classified_alone_as_among_others(self, engine: Classify) -> None:
        together = (await engine.classify("classes", TEXTS)).rows
        alone = [(await engine.classify("classes", [text])).rows[0] for text in TEXTS]
        for one, other in zip(together, alone, strict=True):
            assert one.label == other.label
            assert one.probabilities == pytest.approx(other.probabilities, abs=1e-5)

    async def test_many_requests_at_once_do_not_mix(self, engine: Classify) -> None:
        found = await asyncio.gather(*(engine.classify("classes", [text]) for text in TEXTS * 3))
        assert [each.rows[0].label for each in found[: len(TEXTS)]] * 3 == [
            each.rows[0].label for each in found
        ]

    async def test_no_texts_have_no_classes(self, engine: Classify) -> None:
        assert (await engine.classify("classes", [])).rows == ()

    async def test_token_ids_are_taken_as_they_are(self, engine: Classify) -> None:
        found = await engine.classify("classes", [[2, 40, 3], [2, 41, 42, 3]])
        assert found.prompt_tokens == 7

    async def test_words_get_tags_in_strict_iob2_and_their_probabilities(self, engine: Classify) -> None:
        found = await engine.classify("tags", [["Anna", "called", "Smith"], "Paris is large", ["北京"]])
        assert (found.rows, len(found.tags)) == ((), 3)
        assert [len(each.labels) for each in found.tags] == [3, 3, 1]
        assert [each.places for each in found.tags] == [(), ((0, 5), (6, 8), (9, 14)), ()]
        assert found.tags[1].words == ("Paris", "is", "large")
        for each in found.tags:
            assert all(0 < share <= 1 for share in each.probabilities)
            assert repaired(each.labels) == each.labels

    async def test_what_cannot_be_classified_is_refused(self, engine: Classify) -> None:
        with pytest.raises(UnknownModelError):
            await engine.classify("no-such-model", TEXTS)
        with pytest.raises(UnsupportedError):
            await engine.classify("bert", TEXTS)
        with pytest.raises(ContextLengthError):
            await engine.classify("classes", ["word " * 500])
        for model, text in (("classes", ""), ("tags", ""), ("classes", ["a", "b"]), ("tags", [3, 4])):
            with pytest.raises(RequestError):
                await engine.classify(model, [text])
