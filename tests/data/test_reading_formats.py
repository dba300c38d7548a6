"""Each format that other tools write, in small samples of our own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dialoop.data.sources import Item, Rejected, conversations, detect, read
from dialoop.errors import ConfigError, DataError
from dialoop.types import Conversation, Document, Message, Preference, Tool, ToolCall


def write_rows(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def read_all(path: Path, **options: Any) -> tuple[list[Item], list[Rejected]]:
    rejects: list[Rejected] = []
    return list(read(path, on_reject=rejects.append, **options)), rejects


def only(path: Path, **options: Any) -> Item:
    items, rejects = read_all(path, **options)
    assert rejects == []
    assert len(items) == 1
    return items[0]


def exchange(question: str, answer: str, **metadata: Any) -> Conversation:
    return Conversation((Message("user", question), Message("assistant", answer)), metadata=metadata)


def test_openai_rows_keep_tools_weights_names_parts_and_other_keys(tmp_path: Path) -> None:
    tool = {
        "type": "function",
        "function": {"name": "track", "parameters": {"type": "object"}, "strict": True},
    }
    call = {"id": "c1", "type": "function", "function": {"name": "track", "arguments": '{"order": 7}'}}
    parts = [{"type": "text", "text": "Where is it?"}, {"type": "text", "text": "Order 7."}]
    row = {
        "id": "d1", "intent": "track_order", "metadata": {"scenario": "late"}, "tools": [tool],
        "messages": [
            {"role": "user", "name": "ann", "content": parts},
            {"role": "assistant", "content": None, "tool_calls": [call], "weight": 0},
            {"role": "tool", "tool_call_id": "c1", "content": "on its way"},
            {"role": "assistant", "content": "It is on its way.", "weight": 1, "reasoning_content": "say it"},
        ],
    }  # fmt: skip
    assert only(write_rows(tmp_path / "a.jsonl", [row])) == Conversation(
        messages=(
            Message("user", "Where is it?\nOrder 7.", name="ann"),
            Message("assistant", tool_calls=(ToolCall("c1", "track", '{"order": 7}'),), weight=0.0),
            Message("tool", "on its way", tool_call_id="c1"),
            Message("assistant", "It is on its way.", weight=1.0, reasoning="say it"),
        ),
        tools=(Tool("track", parameters={"type": "object"}, strict=True),),
        metadata={"id": "d1", "intent": "track_order", "scenario": "late"},
    )


def test_sharegpt_calls_and_observations_become_tool_calls_and_tool_turns(tmp_path: Path) -> None:
    row = {
        "system": "Be brief.",
        "tools": '[{"name": "weather", "description": "d", "parameters": {}}]',
        "conversations": [
            {"from": "human", "value": "天气？"},
            {"from": "function_call", "value": '{"name": "weather", "arguments": {"city": "北京"}}'},
            {"from": "observation", "value": '{"sky": "clear"}'},
            {"from": "gpt", "value": "晴。"},
        ],
    }
    assert only(write_rows(tmp_path / "a.jsonl", [row])) == Conversation(
        messages=(
            Message("system", "Be brief."),
            Message("user", "天气？"),
            Message("assistant", tool_calls=(ToolCall("call_0", "weather", '{"city": "北京"}'),)),
            Message("tool", '{"sky": "clear"}', tool_call_id="call_0"),
            Message("assistant", "晴。"),
        ),
        tools=(Tool("weather", "d"),),
    )


@pytest.mark.parametrize(
    "row",
    [
        {"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]},
        {"conversations": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]},
        {"conversation": [{"human": "hi", "assistant": "hello"}]},
        [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}],
        {"instruction": "hi", "input": "", "output": "hello"},
        {"instruction": "", "input": "hi", "output": "hello"},
        {"instruction": "hi", "instances": [{"input": "", "output": "hello"}]},
        {"prompt": "hi", "completion": "hello"},
        {"query": "hi", "response": "hello"},
        {"question": "hi", "answer": "hello"},
        {"问题": "hi", "答案": "hello"},
        {
            "prompt": [{"role": "user", "content": "hi"}],
            "completion": [{"role": "assistant", "content": "hello"}],
        },
    ],
)
def test_an_exchange_reads_the_same_from_every_format(tmp_path: Path, row: Any) -> None:
    assert only(write_rows(tmp_path / "rows.jsonl", [row, row][:1])) == exchange("hi", "hello")


def test_alpaca_rows_join_instruction_and_input_after_system_and_history(tmp_path: Path) -> None:
    row = {
        "instruction": "Sum up:", "input": "long text", "output": "short", "system": "S",
        "history": [["q1", "a1"]], "task": "sum",
    }  # fmt: skip
    roles = [
        ("system", "S"),
        ("user", "q1"),
        ("assistant", "a1"),
        ("user", "Sum up:\nlong text"),
        ("assistant", "short"),
    ]
    item = only(write_rows(tmp_path / "a.jsonl", [row]))
    assert isinstance(item, Conversation)
    assert [(m.role, m.content) for m in item.messages] == roles
    assert item.metadata == {"task": "sum"}


def test_each_instance_of_a_seed_task_is_a_conversation(tmp_path: Path) -> None:
    instances = [{"input": "a", "output": "1"}, {"input": "b", "output": "2"}]
    items, _ = read_all(write_rows(tmp_path / "a.jsonl", [{"instruction": "Do:", "instances": instances}]))
    assert items == [exchange("Do:\na", "1"), exchange("Do:\nb", "2")]


def test_a_multiple_choice_question_shows_its_options_and_the_chosen_text(tmp_path: Path) -> None:
    row = {"question": "哪个？", "options": {"A": "红", "B": "蓝"}, "answer": "B", "group": "g"}
    assert only(write_rows(tmp_path / "a.jsonl", [row])) == exchange(
        "哪个？\nA. 红\nB. 蓝", "B. 蓝", group="g", options=["A. 红", "B. 蓝"]
    )


GOOD_PARTS, BAD_PARTS = [{"type": "text", "value": "good"}], [{"type": "text", "value": "bad"}]
QUESTION = [{"role": "user", "content": "q"}]
GOOD, BAD = Message("assistant", "good"), Message("assistant", "bad")


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "q", "chosen": "good", "rejected": "bad"},
        {"instruction": "q", "input": "", "chosen": "good", "rejected": "bad"},
        {"conversations": [{"from": "human", "value": "q"}], "chosen": {"from": "gpt", "value": "good"},
         "rejected": {"from": "gpt", "value": "bad"}},
        {"prompt": QUESTION, "chosen": [{"role": "assistant", "content": "good"}],
         "rejected": [{"role": "assistant", "content": "bad"}]},
        {"prompt": "q", "chosen": [*QUESTION, {"role": "assistant", "content": "good"}],
         "rejected": [*QUESTION, {"role": "assistant", "content": "bad"}]},
        {"chosen_messages": [*QUESTION, {"role": "assistant", "content": GOOD_PARTS}],
         "rejected_messages": [*QUESTION, {"role": "assistant", "content": BAD_PARTS}]},
        {"input": {"messages": QUESTION}, "preferred_output": [{"role": "assistant", "content": "good"}],
         "non_preferred_output": [{"role": "assistant", "content": "bad"}]},
        {"chosen": "\n\nHuman: q\n\nAssistant: good", "rejected": "\n\nHuman: q\n\nAssistant: bad"},
    ],
)  # fmt: skip
def test_a_preference_reads_the_same_from_every_shape(tmp_path: Path, row: Any) -> None:
    path = write_rows(tmp_path / "a.jsonl", [row])
    assert detect(path).format == "preference"
    assert only(path) == Preference(Conversation((Message("user", "q"),)), GOOD, BAD)


@pytest.mark.parametrize("key", ["label", "kto_tag"])
def test_a_kto_flag_becomes_the_label(tmp_path: Path, key: str) -> None:
    row = {"messages": [*QUESTION, {"role": "assistant", "content": "good"}], key: False}
    assert only(write_rows(tmp_path / "a.jsonl", [row])) == exchange("q", "good", label=False)


def test_a_list_of_questions_is_a_history_without_answers(tmp_path: Path) -> None:
    item = only(write_rows(tmp_path / "a.jsonl", [{"question_id": 1, "turns": ["first?", "second?"]}]))
    assert isinstance(item, Conversation)
    assert item.answer_index is None
    assert [m.content for m in item.messages] == ["first?", "second?"]


def test_parts_with_reasoning_and_calls_are_told_apart(tmp_path: Path) -> None:
    parts = [
        {"type": "reasoning", "value": "hm"},
        {"type": "tool_call", "value": '{"name": "f", "arguments": {}}'},
        {"type": "text", "value": "wait"},
    ]
    row = {"messages": [*QUESTION, {"role": "assistant", "content": parts, "loss_weight": 1.0}]}
    item = only(write_rows(tmp_path / "a.jsonl", [row]))
    assert isinstance(item, Conversation)
    assert item.messages[1] == Message(
        "assistant", "wait", tool_calls=(ToolCall("call_0", "f", "{}"),), weight=1.0, reasoning="hm"
    )


def test_an_image_rejects_the_row_and_names_the_part(tmp_path: Path) -> None:
    parts = [{"type": "image_url", "image_url": {"url": "secret.png"}}]
    bad = {"messages": [{"role": "user", "content": parts}]}
    good = {"messages": [*QUESTION, {"role": "assistant", "content": "a"}]}
    items, rejects = read_all(write_rows(tmp_path / "a.jsonl", [good, bad]))
    assert items == [exchange("q", "a")]
    assert [(r.line, r.file) for r in rejects] == [(2, str(tmp_path / "a.jsonl"))]
    assert "image_url" in rejects[0].reason
    assert "secret" not in rejects[0].reason


def test_keys_of_turns_that_are_not_read_are_stated(tmp_path: Path) -> None:
    row = {
        "messages": [
            {"role": "user", "content": "q", "audio_path": "x"},
            {"role": "assistant", "content": "a"},
        ]
    }
    assert "'audio_path'" in str(detect(write_rows(tmp_path / "a.jsonl", [row])))


def test_rows_with_text_alone_are_documents(tmp_path: Path) -> None:
    items, _ = read_all(
        write_rows(tmp_path / "a.jsonl", [{"text": "one", "licence": "MIT"}, {"text": "two"}])
    )
    assert items == [Document("one", {"licence": "MIT"}), Document("two")]


def test_conversations_keep_the_chosen_answer_and_reject_documents() -> None:
    rejects: list[Rejected] = []
    items: list[Item] = [
        Document("text"),
        Preference(Conversation((Message("user", "q"),)), GOOD, BAD),
        exchange("a", "b"),
    ]
    assert list(conversations(items, rejects.append, "x")) == [exchange("q", "good"), exchange("a", "b")]
    assert [(r.file, r.line) for r in rejects] == [("x", 1)]


def test_a_misspelt_key_is_named_with_the_right_one(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [{"mesages": QUESTION}])
    with pytest.raises(DataError, match=r"a\.jsonl: line 1: .*'mesages'; did you mean 'messages'\?"):
        detect(path)


def test_a_misspelt_key_in_one_row_rejects_that_row(tmp_path: Path) -> None:
    good = {"messages": [*QUESTION, {"role": "assistant", "content": "a"}]}
    items, rejects = read_all(write_rows(tmp_path / "a.jsonl", [good, {"mesages": QUESTION}, good]))
    assert len(items) == 2
    assert rejects[0].line == 2
    assert "did you mean 'messages'" in rejects[0].reason


def test_an_unknown_role_is_named_but_content_never(tmp_path: Path) -> None:
    good = {"messages": [*QUESTION, {"role": "assistant", "content": "a"}]}
    bad = {"messages": [{"role": "asistant", "content": "private words"}]}
    _, rejects = read_all(write_rows(tmp_path / "a.jsonl", [good, bad]))
    assert "'asistant'" in rejects[0].reason
    assert "did you mean 'assistant'" in rejects[0].reason
    assert "private" not in rejects[0].reason


def test_a_registry_of_data_sets_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "dataset_info.json"
    path.write_text(
        json.dumps({"identity": {"file_name": "identity.json"}, "x": {"hf_hub_url": "a/b"}}, indent=2)
    )
    with pytest.raises(DataError, match=r"registry of 2 data sets.*messages"):
        detect(path)


def test_the_format_can_be_overridden(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [{"text": "t", "prompt": "q", "completion": "a"}])
    assert detect(path).format == "pairs"
    assert only(path, format="text") == Document("t", {"prompt": "q", "completion": "a"})


def test_columns_name_the_two_sides_of_rows_that_say_it_otherwise(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [{"en": "Hello.", "zh": "你好。", "file": "f"}])
    assert only(path, columns={"user": "en", "assistant": "zh"}) == exchange("Hello.", "你好。", file="f")


def test_a_column_that_does_not_exist_is_an_error_with_the_nearest(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [{"english": "Hello.", "zh": "你好。"}])
    with pytest.raises(ConfigError, match="did you mean 'english'"):
        detect(path, columns={"user": "englisch", "assistant": "zh"})
    with pytest.raises(ConfigError, match="did you mean 'user'"):
        detect(path, columns={"usr": "english", "assistant": "zh"})
