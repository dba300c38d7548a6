"""One row of each format to conversations, preferences or documents."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dialoop.config import DataFormat
from dialoop.data.clue import clue_items, is_clue
from dialoop.data.columns import guess
from dialoop.data.turns import close_key, messages_of, text_of, tools_of
from dialoop.errors import DataError, echo
from dialoop.types import Conversation, Document, Message, Preference

Item = Conversation | Preference | Document
Row = Mapping[str, Any]

TURN_KEYS = ("messages", "conversations", "conversation", "dialogue", "dialog", "turns", "chat")
ANSWER_KEYS = ("output", "response", "answer", "completion")
TEXT_KEYS = ("text", "content", "document", "body", "正文", "内容", "文本")
PREFERENCE_KEYS = (
    ("chosen", "rejected"),
    ("chosen_messages", "rejected_messages"),
    ("preferred_output", "non_preferred_output"),
    ("chosen_response", "rejected_response"),
)
_PAIR_KEYS = ("prompt", "completion", "question", "answer", "query", "response")
EXAMPLES: Mapping[DataFormat, str] = {
    "openai": '{"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}',
    "sharegpt": '{"conversations": [{"from": "human", "value": "..."}, {"from": "gpt", "value": "..."}]}',
    "alpaca": '{"instruction": "...", "input": "", "output": "..."}',
    "pairs": '{"prompt": "...", "completion": "..."}',
    "preference": '{"prompt": "...", "chosen": "...", "rejected": "..."}',
    "table": "columns user and assistant (a row is an exchange), or conversation, role, content (a message)",
    "qa": "lines such as 'Q: ...' and 'A: ...'",
    "text": '{"text": "..."}, or plain text',
    "clue": '{"sentence1": "...", "sentence2": "...", "label": "1"}, or another of CLUE\'s tasks',
}
KNOWN_KEYS = (
    *TURN_KEYS, "instruction", "input", *ANSWER_KEYS, "prompt", "question", "query", "history", "system",
    "tools", "text", *(key for pair in PREFERENCE_KEYS for key in pair),
)  # fmt: skip


def shape_of(row: object) -> DataFormat | None:
    """The format that a row's keys tell, or None."""
    if is_clue(row):
        return "clue"
    if isinstance(row, list):
        row = {"messages": row}
    if not isinstance(row, dict):
        return None
    if any(good in row and bad in row for good, bad in PREFERENCE_KEYS):
        return "preference"
    if key := turns_key(row):
        return _turns_shape(key, row[key])
    if "instruction" in row and ("instances" in row or any(key in row for key in ANSWER_KEYS)):
        return "alpaca"
    columns = guess(row)
    if columns:
        return "table" if "role" in columns else "pairs"
    return "text" if any(isinstance(row.get(key), str) for key in TEXT_KEYS) else None


def turns_key(row: Row) -> str | None:
    """The key that holds a list of turns, in a list or as JSON text of one."""
    for key in TURN_KEYS:
        value = row.get(key)
        if isinstance(value, list) or (isinstance(value, str) and value.lstrip().startswith("[{")):
            return key
    return None


def _turns_shape(key: str, turns: object) -> DataFormat:
    first = turns[0] if isinstance(turns, list) and turns else None
    if isinstance(first, dict):
        return "sharegpt" if "from" in first or "role" not in first else "openai"
    return "openai" if key == "messages" else "sharegpt"


def items_of(row: object, format: DataFormat, columns: Mapping[str, str]) -> Sequence[Item]:
    """What one row holds, at least one item. Raises DataError with the reason, without content.

    columns: our field -> key of the row, for pairs; guessed from each row where it has other keys.
    """
    if format == "clue":
        if not is_clue(row):
            raise DataError(f"the row has the keys of no task of CLUE: expected {EXAMPLES[format]}")
        return clue_items(row)
    if isinstance(row, list):
        row = {"messages": row}
    if not isinstance(row, dict):
        raise DataError(f"the row is {echo(row)}, not an object such as {EXAMPLES[format]}")
    match format:
        case "openai" | "sharegpt":
            return (_turns(row),)
        case "alpaca":
            return _alpaca(row)
        case "pairs" | "table":
            return (_pair(row, columns),)
        case "preference":
            return (_preference(row),)
        case "text" | "qa":
            return (_document(row),)


def missing(row: Row, wanted: Iterable[str], format: DataFormat) -> DataError:
    """What to say where none of `wanted` is in `row`: the key probably meant, else the form."""
    wanted = tuple(wanted)
    if meant := close_key({key: None for key in row if key not in KNOWN_KEYS}, wanted):
        return DataError(f"no {wanted[0]!r}{meant}")
    keys = ", ".join(echo(key) for key in list(row)[:8])
    other = shape_of(row)
    looks = f"; it looks like {other}" if other not in (None, format) else ""
    return DataError(f"no {wanted[0]!r} among the keys {keys}{looks}: expected {EXAMPLES[format]}")


def _metadata(row: Row, used: Iterable[str]) -> dict[str, Any]:
    """Every other key, and the members of a `metadata` object, which win."""
    rest = {key: value for key, value in row.items() if key not in used and value is not None}
    if "kto_tag" in rest:
        rest["label"] = rest.pop("kto_tag")
    own = rest.pop("metadata", {})
    return {**rest, **own} if isinstance(own, dict) else {**rest, "metadata": own}


def _turns(row: Row) -> Conversation:
    key = turns_key(row)
    if key is None:
        raise missing(row, TURN_KEYS, "openai" if "from" not in row else "sharegpt")
    messages = (*_system(row), *_turn_messages(row[key]))
    metadata = _metadata(row, (key, "tools", "functions", "system"))
    return Conversation(messages, tools_of(row.get("tools", row.get("functions"))), metadata)


def _turn_messages(turns: object) -> tuple[Message, ...]:
    """Messages of a list of turns; bare strings are questions that nobody has answered yet."""
    if isinstance(turns, str):
        turns = parsed_cell(turns)
    if isinstance(turns, list) and turns and all(isinstance(turn, str) for turn in turns):
        return tuple(Message("user", turn) for turn in turns)
    return messages_of(turns)


def parsed_cell(text: str) -> object:
    """JSON text in a table's cell. Raises DataError."""
    from dialoop.data.json_rows import parse

    try:
        return parse(text)
    except ValueError as error:
        raise DataError(str(error)) from error


def _system(row: Row) -> tuple[Message, ...]:
    text = row.get("system")
    if text is not None and not isinstance(text, str):
        raise DataError(f"'system' is {echo(text)}, not a string")
    return (Message("system", text),) if text else ()


def _history(row: Row) -> tuple[Message, ...]:
    """Earlier exchanges: [[question, answer], ...], or turns."""
    history = row.get("history")
    if history in (None, "", []):
        return ()
    if isinstance(history, str):
        history = parsed_cell(history)
    if not isinstance(history, list):
        raise DataError(f"'history' is {echo(history)}, not a list of [question, answer]")
    if all(isinstance(turn, dict) for turn in history):
        return messages_of(history)
    messages: list[Message] = []
    for number, pair in enumerate(history, 1):
        if not isinstance(pair, list) or len(pair) != 2:
            raise DataError(f"'history' {number} is {echo(pair)}, not [question, answer]")
        messages += (Message("user", text_of(pair[0])), Message("assistant", text_of(pair[1])))
    return tuple(messages)


def _alpaca(row: Row) -> Sequence[Item]:
    instruction = row.get("instruction")
    if not isinstance(instruction, str):
        raise missing(row, ("instruction",), "alpaca")
    metadata = _metadata(
        row, ("instruction", "input", *ANSWER_KEYS, "system", "history", "instances", "tools")
    )
    before = (*_system(row), *_history(row))
    instances = row.get("instances", [row])
    if not isinstance(instances, list) or not instances:
        raise DataError(f"'instances' is {echo(instances)}, not a list with at least one input and output")
    tools = tools_of(row.get("tools"))
    return [Conversation((*before, *_task(instruction, one)), tools, metadata) for one in instances]


def _task(instruction: str, instance: object) -> tuple[Message, Message]:
    if not isinstance(instance, dict):
        raise DataError(f"an instance is {echo(instance)}, not an object with input and output")
    answer = next((instance[key] for key in ANSWER_KEYS if key in instance), None)
    if answer is None:
        raise missing(instance, ANSWER_KEYS, "alpaca")
    given = text_of(instance.get("input"))
    asked = f"{instruction}\n{given}" if given and instruction else instruction or given
    return Message("user", asked), Message("assistant", text_of(answer))


def _pair(row: Row, columns: Mapping[str, str]) -> Conversation:
    if not all(columns.get(field) in row for field in ("user", "assistant")):
        wanted = [columns[field] for field in ("user", "assistant") if field in columns]
        columns = guess(row)
        if "user" not in columns or "assistant" not in columns:
            raise missing(row, wanted or _PAIR_KEYS, "pairs")
    return exchange(row, columns)


def exchange(row: Row, columns: Mapping[str, str]) -> Conversation:
    """One question with its answer; what the row holds beside them becomes metadata."""
    asked, answered = row.get(columns["user"]), row.get(columns["assistant"])
    system = row.get(columns["system"]) if "system" in columns else None
    options, context = row.get("options"), row.get("context")
    used = {*columns.values(), "history", "tools"}
    if isinstance(options, dict) and isinstance(answered, str) and answered in options:
        asked, answered, listed = _choice(asked, options, answered)
        row = {**row, "options": listed}
    if isinstance(context, str) and isinstance(asked, str):
        asked, used = f"{context}\n\n{asked}", {*used, "context"}
    before = (*_system({"system": system}), *_history(row))
    messages = (*before, *_side(asked, "user"), *_side(answered, "assistant"))
    return Conversation(messages, tools_of(row.get("tools")), _metadata(row, used))


def _choice(asked: object, options: Mapping[str, Any], answered: str) -> tuple[str, str, list[str]]:
    """A question with its options below it, the letter and text of the right one, and those of all."""
    listed = {letter: f"{letter}. {text_of(text)}" for letter, text in options.items()}
    together = "\n".join(listed.values())
    return f"{text_of(asked)}\n{together}", listed[answered], list(listed.values())


def _side(value: object, role: str) -> tuple[Message, ...]:
    """A string, a list of answers of which the first counts, or messages."""
    if isinstance(value, list) and value and all(isinstance(turn, dict) for turn in value):
        return messages_of(value)
    if isinstance(value, list) and value and isinstance(value[0], str):
        value = value[0]
    if value is None:
        raise DataError(f"the {role}'s side is empty")
    return (Message("user" if role == "user" else "assistant", text_of(value)),)


def _preference(row: Row) -> Preference:
    keys = next(((good, bad) for good, bad in PREFERENCE_KEYS if good in row and bad in row), None)
    if keys is None:
        raise missing(row, [key for pair in PREFERENCE_KEYS for key in pair], "preference")
    before, used, tools = _asked(row)
    chosen, rejected = _answers(row[keys[0]]), _answers(row[keys[1]])
    shared = 0
    while shared < min(len(chosen), len(rejected)) - 1 and chosen[shared] == rejected[shared]:
        shared += 1
    if len(chosen) != shared + 1 or len(rejected) != shared + 1:
        raise DataError("'chosen' and 'rejected' differ in more than their last turn")
    if not before or chosen[:shared][: len(before)] == before:
        before = ()
    history = Conversation((*before, *chosen[:shared]), tools_of(tools), _metadata(row, (*keys, *used)))
    if not history.messages:
        raise DataError(f"a preference without a question: expected {EXAMPLES['preference']}")
    return Preference(history, chosen[-1], rejected[-1])


def _asked(row: Row) -> tuple[tuple[Message, ...], tuple[str, ...], object]:
    """(messages before the answers, the keys that they came from, the tools)."""
    inner = row.get("input")
    if isinstance(inner, dict) and "messages" in inner:
        return messages_of(inner["messages"]), ("input",), inner.get("tools")
    before = (*_system(row), *_history(row))
    used = ("system", "history", "tools")
    if key := turns_key(row):
        return (*before, *_turn_messages(row[key])), (*used, key), row.get("tools")
    if "instruction" in row:
        task = _task(text_of(row["instruction"]), {"input": row.get("input"), "output": ""})[:1]
        return (*before, *task), (*used, "instruction", "input"), row.get("tools")
    key = next((key for key in ("prompt", "question", "query", "input") if key in row), None)
    if key is None:
        return before, used, row.get("tools")
    return (*before, *_side(row[key], "user")), (*used, key), row.get("tools")


_HH_TURN = re.compile(r"\n\n(Human|Assistant): ?")


def _answers(value: object) -> tuple[Message, ...]:
    """One answer as text or message, or the conversation that ends with it."""
    if isinstance(value, dict):
        return messages_of([value])
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return messages_of(value)
    if isinstance(value, str) and value.startswith("\n\nHuman:"):
        parts = _HH_TURN.split(value)[1:]
        turns = zip(parts[::2], parts[1::2], strict=True)
        return messages_of([{"role": role, "content": text} for role, text in turns])
    return _side(value, "assistant")


def _document(row: Row) -> Document:
    key = next((key for key in TEXT_KEYS if isinstance(row.get(key), str)), None)
    if key is None:
        raise missing(row, TEXT_KEYS, "text")
    return Document(row[key], _metadata(row, (key,)))
