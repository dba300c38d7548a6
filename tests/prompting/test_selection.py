"""Examples before a question: near, unlike each other, of every class, within a budget; no leaks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics.pairwise import cosine_similarity

from dialoop.config.prompts import FewShotSettings
from dialoop.errors import ConfigError, EvalError
from dialoop.evals.task import Case, cases
from dialoop.prompting.leakage import apart
from dialoop.prompting.selection import Pool
from dialoop.types import Conversation, Message

SAID = [
    ("my card was stolen", "card"),
    ("my card was lost today", "card"),
    ("the card is broken", "card"),
    ("where is my parcel", "parcel"),
    ("the parcel came late", "parcel"),
    ("我的卡丢了", "卡"),
]


def example(text: str, answer: str) -> Conversation:
    return Conversation((Message("user", text), Message("assistant", answer)), metadata={"intent": answer})


def asked(text: str) -> Conversation:
    return Conversation((Message("user", text),))


POOL = Pool(tuple(example(*each) for each in SAID))


def chosen(
    question: str, pool: Pool = POOL, vector: list[float] | None = None, **settings: object
) -> list[str]:
    found = pool.chosen(
        FewShotSettings(**settings),  # type: ignore[arg-type]
        asked(question),
        None if vector is None else np.array(vector, dtype=np.float32),
    )
    return [each.messages[0].content for each in found]


def test_bm25_shows_the_nearest_last_in_both_languages() -> None:
    assert chosen("my card was lost", select="bm25", count=2) == [SAID[0][0], SAID[1][0]]
    assert chosen("my card was lost", select="bm25", count=2, order="nearest_first") == [
        SAID[1][0],
        SAID[0][0],
    ]
    assert chosen("卡丢了怎么办", select="bm25", count=1) == [SAID[5][0]]


def test_random_shows_every_question_the_same_and_another_seed_others() -> None:
    first = chosen("my card", select="random", count=3)
    assert first == chosen("where is it", select="random", count=3)
    assert {tuple(chosen("x", select="random", count=3, seed=seed)) for seed in range(9)} > {tuple(first)}


def test_balanced_shows_each_class_before_the_second_of_any() -> None:
    found = chosen("my card was lost today", select="balanced", count=3, order="nearest_first")
    assert [dict(SAID)[each] for each in found[:1]] == ["card"]
    assert {dict(SAID)[each] for each in found} == {"card", "parcel", "卡"}


def test_mmr_is_nearness_at_one_end_and_unlikeness_at_the_other() -> None:
    twin = Pool((*POOL.examples[:2], example("my card was lost today!", "card"), *POOL.examples[3:]))
    mmr: dict[str, Any] = {"select": "mmr", "count": 2, "order": "nearest_first"}
    near = chosen("my card was lost today", twin, **mmr, diversity=0)
    assert near == ["my card was lost today", "my card was lost today!"]
    unlike = chosen("my card was lost today", twin, **mmr, diversity=0.7)
    assert unlike[0] == "my card was lost today"
    assert unlike[1] != "my card was lost today!"


def test_vectors_are_compared_by_their_cosine_and_asked_for() -> None:
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(6, 4)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    pool, question = Pool(POOL.examples, vectors), generator.normal(size=4)
    wanted = np.argsort(-cosine_similarity([question], vectors)[0])[:3]
    found = chosen("x", pool, list(question), select="embeddings", count=3, order="nearest_first")
    assert found == [SAID[i][0] for i in wanted]
    with pytest.raises(ConfigError, match="select by bm25"):
        chosen("x", select="embeddings", count=1)


@given(
    st.sampled_from(["all", "random", "bm25", "mmr", "balanced"]),
    st.integers(1, 8),
    st.integers(0, 60),
    st.sampled_from(["nearest_last", "nearest_first", "given"]),
)
def test_no_choice_shows_one_twice_too_many_or_more_than_fits(
    select: str, count: int, room: int, order: str
) -> None:
    def size(some: object) -> int:
        return sum(len(each.messages[0].content) for each in some)  # type: ignore[attr-defined]

    settings = FewShotSettings(select=select, count=count, order=order)  # type: ignore[arg-type]
    found = POOL.chosen(settings, asked("my card"), None, lambda some: size(some) <= room)
    assert size(found) <= room
    assert len({id(each) for each in found}) == len(found)
    assert len(found) <= (len(SAID) if select == "all" else count)


def cases_of(*rows: Conversation) -> tuple[Case, ...]:
    return cases(rows)


def test_an_example_that_asks_what_a_case_asks_is_refused_or_left_out() -> None:
    case = cases_of(example("My card was STOLEN!", "card"), example("where is my parcel", "other"))
    with pytest.raises(EvalError, match="1 examples ask what a test case asks"):
        apart(POOL.examples, case)
    kept, found = apart(POOL.examples, case, drop=True)
    assert SAID[3][0] not in [each.messages[0].content for each in kept]
    assert len(kept) == len(SAID) - len(found.places)


def test_an_example_of_a_cases_scenario_is_one_too() -> None:
    rows = [
        Conversation(each.messages, metadata={"scenario": name})
        for each, name in zip(POOL.examples, "aabbcc", strict=True)
    ]
    case = cases_of(Conversation(example("quite another thing", "x").messages, metadata={"scenario": "b"}))
    kept, found = apart(rows, case, drop=True)
    assert found.grouped == (2, 3)
    assert len(kept) == 4
