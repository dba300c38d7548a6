"""Rows as the Chinese benchmark CLUE has them (Xu et al. 2020, arXiv:2004.05986), as questions with options.

AFQMC, CMNLI, OCNLI, TNEWS, IFLYTEK, CSL, CLUEWSC2020 and C3, from files that the user has. The options lie in
the metadata, but for TNEWS and IFLYTEK: there every label of the file is one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from dialoop.errors import DataError
from dialoop.types import Conversation, Message

INFERENCE = MappingProxyType({"entailment": "蕴含", "neutral": "中立", "contradiction": "矛盾"})
YES = MappingProxyType({"0": "否", "1": "是", "false": "否", "true": "是"})
_DESCRIBED = ("label_desc", "label_des")


def is_clue(row: object) -> bool:
    """Whether a row has the keys of one of the tasks."""
    if isinstance(row, list):
        return len(row) >= 2 and _is_reading(row[0], row[1])
    if not isinstance(row, Mapping):
        return False
    pair = {"sentence1", "sentence2"} <= row.keys()
    described = "sentence" in row and any(key in row for key in _DESCRIBED)
    return pair or described or {"abst", "keyword"} <= row.keys() or _is_schema(row)


def _is_schema(row: Mapping[str, Any]) -> bool:
    return isinstance(row.get("target"), Mapping) and {"span1_text", "span2_text"} <= row["target"].keys()


def _is_reading(passages: object, questions: object) -> bool:
    return (
        isinstance(passages, list)
        and all(isinstance(each, str) for each in passages)
        and isinstance(questions, list)
        and bool(questions)
        and all(isinstance(each, Mapping) and "choice" in each for each in questions)
    )


def clue_items(row: Any) -> tuple[Conversation, ...]:
    """A conversation for each question. Raises DataError where the label is missing or unknown."""
    if isinstance(row, list):
        passage = "\n".join(row[0])
        return tuple(_read(passage, question) for question in row[1])
    label = row.get("label")
    if label is None or not isinstance(label, str | int):
        raise DataError("no label: files of CLUE's test splits have none, take the development split")
    if "sentence" in row:
        described = next(str(row[key]) for key in _DESCRIBED if key in row)
        return (_asked(f"{row['sentence']}\n\n这段文字属于哪一类？", described, ()),)
    if "sentence1" in row:
        return (_pair(str(row["sentence1"]), str(row["sentence2"]), str(label)),)
    if "abst" in row:
        keywords = "、".join(map(str, row["keyword"]))
        asked = f"摘要：{row['abst']}\n关键词：{keywords}\n\n这些关键词都出自该论文吗？"
    else:
        spans = row["target"]
        asked = f"{row.get('text')}\n\n其中“{spans['span2_text']}”指的是“{spans['span1_text']}”吗？"
    return (_asked(asked, _known(YES, str(label).lower()), ("否", "是")),)


def _pair(first: str, second: str, label: str) -> Conversation:
    if label in YES:
        return _asked(f"句子一：{first}\n句子二：{second}\n\n两句话的意思相同吗？", YES[label], ("否", "是"))
    asked = f"前提：{first}\n假设：{second}\n\n前提与假设是什么关系？"
    return _asked(asked, _known(INFERENCE, label), tuple(INFERENCE.values()))


def _known(words: Mapping[str, str], label: str) -> str:
    if label not in words:
        raise DataError(f"the label is none of {', '.join(words)}: pairs without agreement are left out")
    return words[label]


def _read(passage: str, question: Mapping[str, Any]) -> Conversation:
    options, answer = question["choice"], question.get("answer")
    if not isinstance(answer, str) or answer not in options:
        raise DataError("the answer is none of the choices: files of CLUE's test splits have none")
    return _asked(f"{passage}\n\n{question.get('question', '')}", answer, options)


def _asked(text: str, answer: str, options: Sequence[str]) -> Conversation:
    metadata: dict[str, Any] = {"language": "zh"}
    if options:
        metadata["options"] = list(options)
    return Conversation((Message("user", text), Message("assistant", answer)), metadata=metadata)
