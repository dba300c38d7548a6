"""Which column or key holds what: names in English and Chinese."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from dialoop.errors import ConfigError, echo, nearest

# fmt: off
KNOWN_NAMES: Mapping[str, tuple[str, ...]] = {
    "user": (
        "user", "question", "query", "prompt", "instruction", "human", "customer", "client", "ask", "q",
        "request", "user message", "customer message", "inquiry", "input",
        "问题", "提问", "问", "用户", "客户", "顾客", "买家", "用户问题", "客户问题", "标准问题", "标准问",
        "问句", "咨询内容", "咨询", "客户消息", "用户消息", "指令", "输入",
        "問題", "提問", "用戶", "客戶", "顧客", "買家", "用戶問題", "客戶問題",
    ),
    "assistant": (
        "assistant", "answer", "response", "completion", "reply", "bot", "agent", "gpt", "a", "answers",
        "output", "agent message", "assistant message",
        "答案", "回答", "答", "客服", "助手", "回复", "答复", "标准答案", "标准回答", "回复内容", "客服回复",
        "客服消息", "机器人", "坐席", "输出",
        "回覆", "答覆", "客服回覆", "機器人",
    ),
    "system": ("system", "system prompt", "系统", "系统提示", "系统提示词"),
    "conversation": (
        "conversation", "conversation id", "conv id", "session", "session id", "dialogue id", "dialog id",
        "chat id", "thread id", "ticket", "ticket id", "case id", "call id",
        "会话id", "会话", "会话编号", "对话id", "对话", "对话编号", "会话号", "工单号", "工单", "工单编号",
        "會話id", "會話", "對話id", "對話", "工單號",
    ),
    "role": (
        "role", "speaker", "sender", "from", "author", "sender type", "speaker role", "participant", "party",
        "角色", "发送者", "发送方", "说话人", "发言人", "身份", "发送人", "消息来源",
        "發送者", "說話人", "發言人",
    ),
    "content": (
        "content", "message", "text", "utterance", "body", "value", "msg", "message text",
        "内容", "消息", "消息内容", "文本", "发言", "发言内容", "聊天内容", "对话内容", "话术",
        "內容", "訊息", "訊息內容", "發言",
    ),
    "order": (
        "order", "turn", "turn id", "turn number", "index", "seq", "sequence", "message index", "no",
        "序号", "轮次", "顺序", "轮数", "序號", "順序",
    ),
    "time": (
        "time", "timestamp", "created at", "datetime", "date", "sent at", "created", "send time",
        "时间", "发送时间", "日期", "消息时间", "创建时间", "时间戳", "時間", "發送時間",
    ),
}
# fmt: on
FIELDS = tuple(KNOWN_NAMES)
_EXCHANGE = ("user", "assistant", "system")
_MESSAGES = ("conversation", "role", "content", "order", "time")


def normal(name: str) -> str:
    """A column name without case, marks and runs of spaces."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name.strip().lstrip("\ufeff"))
    return re.sub(r"[\s_\-./]+", " ", words).strip().lower()


def guess(names: Iterable[str]) -> dict[str, str]:
    """Our field -> column, for one exchange or one message a row; empty where neither can be told.

    A table with a speaker and a text is one message a row, even where a column is called `customer`.
    """
    names = list(names)
    found = {field: column for field in FIELDS if (column := _first(names, KNOWN_NAMES[field]))}
    messages = {field: found[field] for field in _MESSAGES if field in found}
    exchange = {field: found[field] for field in _EXCHANGE if field in found}
    if "role" in messages and "content" in messages:
        return messages
    if "user" in exchange and "assistant" in exchange:
        return exchange
    return {}


def _first(names: list[str], known: tuple[str, ...]) -> str | None:
    """The column whose name comes first in `known`."""
    by_name: dict[str, str] = {}
    for name in names:
        by_name.setdefault(normal(name), name)
        by_name.setdefault(normal(name).replace(" ", ""), name)
    keys = (key for word in known for key in (word, word.replace(" ", "")))
    return next((by_name[key] for key in keys if key in by_name), None)


def checked(columns: Mapping[str, str], names: Iterable[str], where: str) -> dict[str, str]:
    """The user's mapping. Raises ConfigError for a field or a column that does not exist."""
    names = list(names)
    for field, column in columns.items():
        if field not in (*FIELDS, "sheet"):
            raise ConfigError(f"{where}: columns: unknown field {echo(field)}{nearest(field, FIELDS)}")
        if field != "sheet" and column not in names:
            raise ConfigError(f"{where}: columns: there is no column {echo(column)}{nearest(column, names)}")
    fields = {field: column for field, column in columns.items() if field != "sheet"}
    if fields and not ({"user", "assistant"} <= fields.keys() or {"role", "content"} <= fields.keys()):
        raise ConfigError(
            f"{where}: columns: {', '.join(sorted(fields))} are not enough: "
            "give user and assistant (one exchange a row), or role and content (one message a row)"
        )
    return fields
