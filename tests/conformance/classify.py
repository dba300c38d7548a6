"""What every engine that classifies does. Subclass ClassifyConformance and give it the fixture."""

from __future__ import annotations

import asyncio

import pytest

from dialoop.errors import ContextLengthError, RequestError, UnknownModelError, UnsupportedError
from dialoop.types import Classify

TEXTS = ("Where is my order?", "我想退货。", "Thank you!", "x")


class ClassifyConformance:
    """`engine` serves `classes`, which tells three classes apart, and `bert`, which has no head."""

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

    async def test_what_cannot_be_classified_is_refused(self, engine: Classify) -> None:
        with pytest.raises(UnknownModelError):
            await engine.classify("no-such-model", TEXTS)
        with pytest.raises(UnsupportedError):
            await engine.classify("bert", TEXTS)
        with pytest.raises(ContextLengthError):
            await engine.classify("classes", ["word " * 500])
        with pytest.raises(RequestError):
            await engine.classify("classes", [""])
