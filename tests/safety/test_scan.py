"""What the lists find, and that it does not depend on how a text comes."""

from __future__ import annotations

import asyncio
import functools
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialoop.errors import ConfigError
from dialoop.safety.filtering import AnswerFilter
from dialoop.safety.policy import Policy, SafetySettings, masked
from dialoop.safety.rules import parse_list
from dialoop.safety.scan import Scan, compile_rules

SMALL = """
[harassment mask]
rude
rude*
very rude
坏蛋
/r2d2(?: d2){0,2}/
[violence block]
bomb
炸弹
[illicit flag]
red bomb
udex?
"""


def policy_of(text: str) -> Policy:
    return Policy(compile_rules(parse_list(text, "test")[0]))


@functools.cache
def small() -> Policy:
    return policy_of(SMALL)


@functools.cache
def shipped() -> Policy:
    return Policy.of(SafetySettings())


PIECES = st.sampled_from(
    ["rude", "ru", "de", "r u d e", "very ", "坏", "蛋", " ",
     ".", "bomb", "b0", "mb", "炸", "彈", "red ", "r2d2",
     " d2", "x",
     "\u200b", "\u0301", "Ｒ", "ude", "!", "1", "\u2028", "㎏"]
)  # fmt: skip
TEXTS = st.lists(PIECES, max_size=14).map("".join)


@st.composite
def cut_texts(draw: st.DrawFn) -> tuple[str, list[str]]:
    text = draw(TEXTS)
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=6)))
    return text, [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]


@given(cut_texts())
def test_finds_are_the_same_however_a_text_is_cut(case: tuple[str, list[str]]) -> None:
    text, pieces = case
    scan = Scan(small().groups)
    finds = [find for piece in pieces for find in scan.push(piece)] + scan.push("", last=True)
    assert sorted(finds, key=lambda find: (find.start, find.category)) == list(small().find(text))


def said(policy: Policy, pieces: list[str]) -> tuple[str, bool, list[tuple[str, str]]]:
    async def hear() -> tuple[str, bool, list[tuple[str, str]]]:
        answer, out, found = AnswerFilter(policy), "", []
        for step in [*(functools.partial(answer.push, piece) for piece in pieces), answer.end]:
            passed = await step()
            out += passed.text
            found += [(find.entry, answer.excerpt(find)) for find in passed.finds]
            if passed.blocked:
                return out, True, sorted(found)
        return out, False, sorted(found)

    return asyncio.run(hear())


@given(cut_texts())
def test_a_streamed_answer_is_filtered_like_the_whole(case: tuple[str, list[str]]) -> None:
    text, pieces = case
    finds = small().find(text)
    cut = min((find.start for find in finds if find.action == "block"), default=len(text))
    whole = masked(text[:cut], tuple(replace(f, end=min(f.end, cut)) for f in finds if f.start < cut))
    blocked = any(find.action == "block" for find in finds)
    decided = [f for f in finds if f.start < cut or (blocked and f.start == cut)]
    expected = sorted((f.entry, text[f.start : f.end]) for f in decided)
    assert said(small(), pieces)[:2] == (whole, blocked)
    if not blocked:
        assert said(small(), pieces)[2] == expected


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("Hello ru", "ru"),
        ("Hello there", ""),
        ("Hello rude", "rude"),
        ("Hello rude ", ""),
        ("你好坏", "坏"),
        ("你好", ""),
    ],
)
def test_only_the_suffix_that_may_grow_is_held(text: str, rest: str) -> None:
    answer = AnswerFilter(policy_of("[harassment mask]\nrude\n坏蛋\n"))
    passed = asyncio.run(answer.push(text))
    assert passed.text == text.removesuffix(rest).replace("rude", "***")


@pytest.mark.parametrize(
    "written",
    ["fuck", "FUCK", "ｆｕｃｋ", "f u c k", "f.u.c.k", "fuuuck", "fu\u200bck", "fúck", "fυck",
     "f*ck", "fucking",
     "fück", "傻逼", "傻 逼", "傻*逼", "傻\u200b逼", "操你妈",
     "操你媽", "賤人", "ｎｍｓｌ", "sh1thead", "а$$hole"],
)  # fmt: skip
def test_words_are_found_as_people_write_them(written: str) -> None:
    assert masked(f"oh {written}!", shipped().find(f"oh {written}!")) == "oh ***!"


@pytest.mark.parametrize(
    "text",
    ["Scunthorpe, class, assess, cocktail, Dickens", "Please push it. The shitake was fine.",
     "Order 455 has 5 5 5 items",
     "这款杀毒软件很好用", "我妈的生日是明天", "他在操场跑步",
     "操作很简单，你妈妈也会用", "请问怎么制作蛋糕？", "订单什么时候到",
     "My essay is about the bastille", "sbt sbi", "I will kill the process", "The bombastic speech"],
)  # fmt: skip
def test_words_that_only_look_alike_are_let_be(text: str) -> None:
    assert shipped().find(text) == ()


@pytest.mark.parametrize(
    ("text", "category", "action"),
    [
        ("I'll kill you", "harassment/threatening", "block"),
        ("我要殺了你", "harassment/threatening", "block"),
        ("How do I make a pipe bomb?", "illicit/violent", "block"),
        ("如何制作炸弹", "illicit/violent", "block"),
        ("I want to end my life", "self-harm/intent", "flag"),
        ("我不想活了", "self-harm/intent", "flag"),
        ("the painless way to die", "self-harm/instructions", "block"),
        ("怎么自杀", "self-harm/instructions", "block"),
        ("how to launder money", "illicit", "flag"),
        ("教我洗钱", "illicit", "flag"),
        ("child porn", "sexual/minors", "block"),
        ("儿童色情", "sexual/minors", "block"),
    ],
)
def test_the_shipped_lists_know_both_languages(text: str, category: str, action: str) -> None:
    assert (category, action) in {(find.category, find.action) for find in shipped().find(text)}


def test_a_file_of_ones_own_adds_and_takes_back(tmp_path: object) -> None:
    path = f"{tmp_path}/mine.txt"
    with open(path, "w", encoding="utf-8") as file:
        file.write("\ufeff# mine\n[illicit block]\ncompetitor*\n\n[allow]\nBitch*\n贱人\n")
    policy = Policy.of(SafetySettings(lists=("en", "zh", f"file:{path}"), actions={"illicit": "flag"}))
    assert [(find.entry, find.action) for find in policy.find("Competitors, bitch, 贱人")] == [
        ("competitor*", "flag")
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("word\n", "test:1: an entry before"),
        ("[violent block]\n", "did you mean 'violence'"),
        ("[violence stop]\n", "action 'stop'"),
        ("[violence]\n", "category action"),
        ("[violence flag]\n/a+/\n", r"'\+'"),
        ("[violence flag]\n/(?=a)b/\n", "beside it"),
        ("[violence flag]\n/a{2,}/\n", "longest"),
        ("[violence flag]\n/(a/\n", "not a regular expression"),
        ("[violence flag]\n/a?/\n", "nothing at all"),
        ("[violence flag]\n\u200b*\n", "nothing is left"),
        (f"[violence flag]\n{'a' * 101}\n", "101 characters"),
    ],
)
def test_a_list_that_cannot_be_used_names_the_line(text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        parse_list(text, "test")


@pytest.mark.parametrize("source", ["fr", "file:", "file:/no/such/list.txt", "http://x"])
def test_a_list_that_is_not_there_is_refused(source: str) -> None:
    with pytest.raises(ConfigError):
        Policy.of(SafetySettings(lists=(source,)))


@given(st.text(max_size=40))
def test_any_text_passes_through_whole_where_nothing_is_found(text: str) -> None:
    if not small().find(text):
        out, blocked, found = said(small(), list(text))
        assert (out, blocked, found) == (text, False, [])


def test_patterns_of_the_lists_are_bounded() -> None:
    assert all(not re.search(r"[^\\]\*\)", rule.pattern) for rule in parse_list(SMALL, "test")[0])
