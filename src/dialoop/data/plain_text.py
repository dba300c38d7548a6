"""Plain text: labelled questions and answers or transcripts, and documents."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from dialoop.data.text_io import MAX_ROW_BYTES, Reject
from dialoop.types import Conversation, Document, Message, Role

Lines = Iterator[tuple[int, str]]

# fmt: off
_QUESTION_LABELS = frozenset({"q", "question", "问", "问题", "提问", "問", "問題", "提問"})
LABELS: Mapping[Role, tuple[str, ...]] = {
    "user": (
        "Q", "Question", "User", "Human", "Customer", "Client", "Caller",
        "问", "问题", "提问", "用户", "客户", "顾客", "买家", "访客",
        "問", "問題", "提問", "用戶", "客戶", "顧客", "買家", "訪客",
    ),
    "assistant": (
        "A", "Answer", "Assistant", "Agent", "Bot", "AI", "Support",
        "答", "答案", "回答", "回复", "客服", "助手", "助理", "坐席", "机器人", "卖家",
        "回覆", "機器人", "賣家",
    ),
    "system": ("System", "系统", "系統"),
}
# fmt: on
_CLOCK = r"(?:[\[(（【]?\d[\d\-/:. T年月日时分秒]{0,30}[\])）】]?\s+)?"
_RULE = re.compile(r"\s*(?:-{3,}|={3,}|\*{3,}|#{3,})\s*$")


def labels_of(sample: str) -> dict[str, str]:
    """user, assistant (and system) -> the labels that the text uses, joined by `|`; empty for other text."""
    pattern, roles = _pattern({role: "|".join(names) for role, names in LABELS.items()})
    filled = [line for line in sample.splitlines() if line.strip()]
    found = [match for line in filled if (match := pattern.match(line))]
    counts = Counter(match.group("label").lower() for match in found)
    used = {role: [name for name in counts if roles[name] == role] for role in LABELS}
    if not used["user"] or not used["assistant"]:
        return {}
    if len(found) < len(filled) / 10 and not pattern.match(filled[0]):
        return {}
    return {role: "|".join(_frequent(names, counts)) for role, names in used.items() if names}


def _frequent(names: list[str], counts: Mapping[str, int]) -> list[str]:
    """Rare labels beside a frequent one are words at the start of a line."""
    most = max(counts[name] for name in names)
    return [name for name in names if counts[name] * 10 >= most]


def _pattern(labels: Mapping[str, str]) -> tuple[re.Pattern[str], dict[str, Role]]:
    roles: dict[str, Role] = {
        name.strip().lower(): role
        for role in LABELS
        for name in labels.get(role, "").split("|")
        if name.strip()
    }
    names = "|".join(sorted(map(re.escape, roles), key=len, reverse=True))
    label = rf"(?:\*\*)?(?P<label>{names})\s?\d*(?:\*\*)?\s?[:：](?:\*\*)?"
    return re.compile(rf"\s*{_CLOCK}{label}\s?(?P<text>.*)", re.I), roles


@dataclass
class _Transcript:
    """The conversation being read, and how many characters it holds."""

    line: int
    turns: list[tuple[Role, list[str]]] = field(default_factory=list)
    size: int = 0

    def has(self, role: Role) -> bool:
        return any(speaker == role for speaker, _ in self.turns)

    def add(self, text: str) -> None:
        self.size += len(text)
        self.turns[-1][1].append(text)

    def fault(self) -> str | None:
        if self.size > MAX_ROW_BYTES:
            return f"longer than {MAX_ROW_BYTES >> 20} MiB without a blank line between conversations"
        if not self.has("user"):
            return "an answer without a question"
        return None if self.has("assistant") else "a question without an answer"

    def conversation(self) -> Conversation:
        return Conversation(tuple(Message(role, "\n".join(texts).strip()) for role, texts in self.turns))


def transcripts(lines: Lines, labels: Mapping[str, str], reject: Reject) -> Iterator[Conversation]:
    """Conversations of labelled lines; unlabelled lines go on with the turn before them.

    A conversation ends at a rule (`---`), at a blank line before a question that follows an answer, and
    with question-and-answer labels at every new question.
    """
    for transcript in _split(lines, labels, reject):
        if fault := transcript.fault():
            reject(transcript.line, fault)
        else:
            yield transcript.conversation()


def _split(lines: Lines, labels: Mapping[str, str], reject: Reject) -> Iterator[_Transcript]:
    pattern, roles = _pattern(labels)
    current: _Transcript | None = None
    blank = False
    for number, line in lines:
        if not line.strip() or _RULE.match(line):
            blank = True
            if line.strip() and current:
                yield current
                current = None
            elif current and current.size <= MAX_ROW_BYTES:
                current.add("")
            continue
        match = pattern.match(line)
        label = match.group("label").lower() if match else ""
        if match and (current is None or _begins(current, roles[label], label, blank)):
            if current:
                yield current
            current = _Transcript(number)
        if current is None:
            reject(number, "text before the first label")
        elif match:
            current.turns.append((roles[label], []))
            current.add(match.group("text"))
        elif current.size <= MAX_ROW_BYTES:
            current.add(line)
        blank = False
    if current:
        yield current


def _begins(current: _Transcript, role: Role, label: str, blank: bool) -> bool:
    """Whether a turn of this role starts the next conversation."""
    if role == "assistant" or not current.turns:
        return False
    if label in _QUESTION_LABELS:
        return True
    return blank and current.has("assistant")


def documents(lines: Lines, by_blocks: bool, reject: Reject) -> Iterator[Document]:
    """A document for every block between blank lines, or for every line."""
    block: list[str] = []
    start = size = 0
    for number, line in lines:
        if line.strip():
            start = start if block else number
            size += len(line)
            if size <= MAX_ROW_BYTES:
                block.append(line)
            if by_blocks:
                continue
        if block:
            yield from _document(block, start, size, reject)
        block, size = [], 0
    if block:
        yield from _document(block, start, size, reject)


def _document(block: list[str], line: int, size: int, reject: Reject) -> Iterator[Document]:
    if size > MAX_ROW_BYTES:
        reject(line, f"longer than {MAX_ROW_BYTES >> 20} MiB without a blank line")
    else:
        yield Document("\n".join(block))
