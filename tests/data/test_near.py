"""Near-duplicates: signatures agree with exact set similarity, twins are found, in Chinese too."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from dialoop.config import CleanSettings
from dialoop.data.clean import clean
from dialoop.data.leak import leaks, near_free
from dialoop.data.near import NearIndex, band_width, shingles, signatures, similarity
from dialoop.types import Conversation, Message

WORDS = [
    "parcel", "order", "refund", "delivery", "invoice", "address", "customer", "morning", "payment", "card",
    "warehouse", "broken", "screen", "return", "label", "courier", "street", "window", "exchange",
    "voucher", "account", "password", "email", "colour", "size", "larger", "smaller", "shipping", "free",
    "express", "support", "agent", "manager", "complaint", "thank", "welcome", "happy", "later", "tomorrow",
    "weekend", "holiday",
]  # fmt: skip
HAN = [chr(point) for point in range(0x4E00, 0x5000)]


def chat(question: str, answer: str, **metadata: object) -> Conversation:
    return Conversation((Message("user", question), Message("assistant", answer)), metadata=metadata)


def english(rng: random.Random, words: int = 60) -> list[str]:
    return [rng.choice(WORDS) + str(rng.randrange(50)) for _ in range(words)]


def jaccard(a: str, b: str) -> float:
    flat, offsets = shingles([a, b])
    first, second = (set(flat[int(s) : int(e)].tolist()) for s, e in pairwise(offsets))
    return len(first & second) / len(first | second)


def test_estimated_similarity_agrees_with_the_exact_one() -> None:
    rng = random.Random(1)
    errors = []
    for _ in range(150):
        words = english(rng)
        other = [word if rng.random() > 0.08 else "changed" for word in words]
        a, b = " ".join(words), " ".join(other)
        low = signatures([a, b], 256).astype(np.uint8)
        errors.append(float(similarity(low[:1], low[1:])[0]) - jaccard(a, b))
    assert abs(np.mean(errors)) < 0.02
    assert np.std(errors) < 0.05


@pytest.mark.parametrize(("threshold", "width"), [(0.95, 16), (0.85, 8), (0.7, 4), (0.5, 3)])
def test_bands_get_narrower_as_the_threshold_falls(threshold: float, width: int) -> None:
    assert band_width(threshold, 128) == width


def test_pairs_at_a_low_threshold_are_found_too() -> None:
    rng = random.Random(8)
    train = [chat("q", " ".join(english(rng))) for _ in range(40)]
    half = [chat("q", " ".join([*row.messages[1].content.split()[:45], *english(rng, 15)])) for row in train]
    assert leaks(train, half, threshold=0.85).share == 0
    assert leaks(train, half, threshold=0.5).share > 0.9


def test_equal_texts_have_equal_signatures_and_others_do_not() -> None:
    signed = signatures(["hello there, how are you", "hello there, how are you", "完全不同的一句话"], 128)
    assert np.array_equal(signed[0], signed[1])
    assert (signed[0] == signed[2]).mean() < 0.05


@pytest.mark.parametrize("text", ["", "a", "好"])
def test_a_very_short_text_has_a_signature(text: str) -> None:
    assert np.array_equal(signatures([text], 128), signatures([text], 128))
    assert signatures([text, "a longer text"], 128).shape == (2, 128)


def twins(rows: Sequence[Conversation], folder: Path, threshold: float = 0.8) -> list[int]:
    with NearIndex(folder, threshold=threshold, permutations=128) as index:
        for start in range(0, len(rows), 50):
            index.append(rows[start : start + 50])
        return index.twins().tolist()


def test_a_row_with_one_word_changed_is_a_twin_of_the_first(tmp_path: Path) -> None:
    rng = random.Random(2)
    rows = [chat("tell me", " ".join(english(rng))) for _ in range(80)]
    words = rows[7].messages[1].content.split()
    words[30] = "different"
    rows.append(chat("Tell  me", " ".join(words)))
    assert twins(rows, tmp_path) == [-1] * 80 + [7]


def test_a_chinese_row_with_two_characters_changed_is_a_twin(tmp_path: Path) -> None:
    rng = random.Random(3)
    texts = ["".join(rng.choice(HAN) for _ in range(70)) for _ in range(80)]
    changed = texts[11][:20] + "甲" + texts[11][21:50] + "乙" + texts[11][51:]
    rows = [chat("请说", text) for text in [*texts, changed]]
    assert twins(rows, tmp_path, 0.75) == [-1] * 80 + [11]


def test_a_whole_family_keeps_its_first_row_only(tmp_path: Path) -> None:
    rng = random.Random(4)
    base = english(rng, 120)
    rows = [chat("q", " ".join([*base[:i], "x", *base[i + 1 :]])) for i in range(100)]
    found = twins(rows, tmp_path, 0.75)
    assert found[0] == -1
    assert all(0 <= twin < i for i, twin in enumerate(found) if i)


def test_recall_over_many_twins_at_high_similarity_is_near_one(tmp_path: Path) -> None:
    rng = random.Random(5)
    rows, expected = [], []
    for i in range(200):
        words = english(rng, 100)
        rows.append(chat("q", " ".join(words)))
        rows.append(chat("q", " ".join([*words[:50], "other", *words[51:]])))
        expected += [-1, 2 * i]
    found = twins(rows, tmp_path, 0.85)
    assert sum(a == b for a, b in zip(found, expected, strict=True)) >= 398


def test_chains_of_twins_share_a_cluster_but_the_far_end_is_kept(tmp_path: Path) -> None:
    base = english(random.Random(6), 100)
    chain = [" ".join(["new"] * (4 * i) + base[4 * i :]) for i in range(10)]
    with NearIndex(tmp_path, threshold=0.85, permutations=256) as index:
        index.append([chat("q", text) for text in chain])
        assert index.clusters().tolist() == [0] * 10
    assert jaccard(chain[0], chain[9]) < 0.7


def test_cleaning_removes_near_duplicates_and_says_so(tmp_path: Path) -> None:
    text = "Your parcel left our warehouse this morning and will reach you within three working days, surely."
    rows = [
        chat("Where is my parcel?", text, id="first"),
        chat(
            "Can I pay by card?",
            "Yes, we take every common credit and debit card, and bank transfers.",
            id="else",
        ),
        chat("where is my parcel", text, id="twin"),
    ]
    kept = list(clean(rows, CleanSettings(steps=("near",)), scratch=tmp_path))
    assert [c.metadata["id"] for c in kept] == ["first", "else"]


def test_parked_rows_come_back_as_they_were(tmp_path: Path) -> None:
    from dialoop.types import Tool, ToolCall

    row = Conversation(
        (
            Message("system", "sys", name="n"),
            Message("user", "question 你好", weight=0.5),
            Message("assistant", "", tool_calls=(ToolCall("1", "f", "{}"),), reasoning="because"),
            Message("tool", "r", tool_call_id="1"),
        ),
        (Tool("f", "does", {"type": "object"}, True),),
        {"id": 7, "nested": {"a": [1, None, True]}},
    )
    assert list(clean([row], CleanSettings(steps=("near",)), scratch=tmp_path)) == [row]


def test_leaks_are_found_exact_and_near(tmp_path: Path) -> None:
    rng = random.Random(7)
    train = [chat("q", " ".join(english(rng))) for _ in range(60)]
    near = train[3].messages[1].content.split()
    near[5] = "swapped"
    test = [train[9], chat("q", " ".join(near)), chat("q", " ".join(english(rng)))]
    report = leaks(train, test, threshold=0.8)
    assert (report.exact, report.near, report.twins) == ((0,), (1,), (3,))
    assert report.share == pytest.approx(2 / 3)
    assert near_free(test, train, threshold=0.8) == [test[2]]


def test_nothing_leaks_from_an_empty_train() -> None:
    assert leaks([], [chat("a", "b")]).share == 0
    assert leaks([chat("a", "b")], []).rows == 0
