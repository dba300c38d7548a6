"""What holds for every file: nothing is lost, nothing but DataError is raised."""

from __future__ import annotations

import csv
import gzip
import json
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dialoop.data.sources import Item, Rejected, read, write_openai
from dialoop.errors import DataError
from dialoop.types import Conversation, Message, Tool, ToolCall

text = st.text(max_size=12)
word = st.text(min_size=1, max_size=8)
plain_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=5,
)
calls = st.lists(st.builds(ToolCall, word, word, text), max_size=2).map(tuple)
weights = st.none() | st.floats(0, 10)
messages = st.one_of(
    st.builds(
        Message, st.sampled_from(["system", "developer", "user"]), text, st.none() | word, weight=weights
    ),
    st.builds(
        Message, st.just("assistant"), text, tool_calls=calls, weight=weights, reasoning=st.none() | word
    ),
    st.builds(Message, st.just("tool"), text, tool_call_id=word),
)
tools = st.builds(Tool, word, text, st.dictionaries(word, plain_json, max_size=2), st.booleans())
conversation_values = st.builds(
    Conversation,
    st.lists(messages, min_size=1, max_size=4).map(tuple),
    st.lists(tools, max_size=2).map(tuple),
    st.dictionaries(text, plain_json, max_size=3),
)


def read_all(path: Path, **options: Any) -> tuple[list[Item], list[Rejected]]:
    rejects: list[Rejected] = []
    return list(read(path, on_reject=rejects.append, **options)), rejects


@settings(max_examples=80, deadline=None)
@given(st.lists(conversation_values, min_size=1, max_size=3), st.sampled_from(["a.jsonl", "a.jsonl.gz"]))
def test_written_conversations_read_back_equal(conversations: list[Conversation], name: str) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / name
        assert write_openai(path, conversations) == len(conversations)
        assert read_all(path) == (conversations, [])


@settings(max_examples=80, deadline=None)
@given(
    st.binary(max_size=200) | st.text(max_size=100).map(str.encode),
    st.sampled_from(["a", "a.jsonl", "a.json", "a.csv", "a.tsv", "a.txt", "a.xlsx", "a.parquet", "a.gz"]),
    st.sampled_from(
        [
            b"",
            b"\xff\xfe",
            b"\xef\xbb\xbf",
            b"PK\x03\x04",
            b"PAR1",
            b"[",
            b'[{"a":',
            b"Q: a\nA: ",
            b"\x1f\x8b",
        ]
    ),
    st.booleans(),
)
def test_random_bytes_raise_nothing_but_data_errors(
    data: bytes, name: str, head: bytes, packed: bool
) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(gzip.compress(head + data) if packed else head + data)
        try:
            items, rejects = read_all(path)
        except DataError as error:
            items, rejects, said = [], [], str(error)
        else:
            said = name
    assert name in said
    assert all(reject.line >= 1 and reject.reason for reject in rejects)
    assert items or rejects or said != name


rows = st.one_of(
    plain_json,
    st.fixed_dictionaries(
        {"messages": st.lists(st.fixed_dictionaries({"role": text, "content": plain_json}), max_size=2)}
    ),
    st.fixed_dictionaries({"prompt": plain_json, "completion": plain_json}),
    st.fixed_dictionaries({"instruction": plain_json, "output": plain_json, "history": plain_json}),
    st.fixed_dictionaries({"conversations": plain_json, "tools": plain_json}),
    st.fixed_dictionaries({"prompt": plain_json, "chosen": plain_json, "rejected": plain_json}),
)
FIRST = [
    {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]},
    {"conversations": [{"from": "human", "value": "q"}]},
    {"instruction": "i", "output": "o"},
    {"prompt": "p", "completion": "c"},
    {"prompt": "p", "chosen": "c", "rejected": "r"},
    {"text": "t"},
]


@settings(max_examples=80, deadline=None)
@given(st.sampled_from(FIRST), st.lists(rows, max_size=6), st.booleans())
def test_every_row_of_json_is_either_read_or_rejected(first: Any, others: list[Any], listed: bool) -> None:
    every = [first] * (len(others) + 1) + others
    with TemporaryDirectory() as folder:
        path = Path(folder) / ("a.json" if listed else "a.jsonl")
        lines = [json.dumps(row, ensure_ascii=False) for row in every]
        path.write_text("[\n" + ",\n".join(lines) + "\n]" if listed else "\n".join(lines), encoding="utf-8")
        items, rejects = read_all(path)
    assert len(items) + len(rejects) == len(every)
    assert len({reject.line for reject in rejects}) == len(rejects)


cell = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8).filter(str.strip)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(cell, cell), min_size=1, max_size=5))
def test_every_row_of_a_table_is_read_as_it_was_written(pairs: list[tuple[str, str]]) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "a.csv"
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("question", "answer"), *pairs])
        items, rejects = read_all(path)
    assert rejects == []
    assert items == [
        Conversation((Message("user", asked), Message("assistant", said))) for asked, said in pairs
    ]


COUNTS = {
    "llamafactory.alpaca_en_demo.json": 999,
    "llamafactory.alpaca_zh_demo.json": 1000,
    "llamafactory.glaive_toolcall_en_demo.json": 300,
    "llamafactory.glaive_toolcall_zh_demo.json": 300,
    "llamafactory.identity.json": 91,
    "llamafactory.dpo_en_demo.json": 300,
    "llamafactory.dpo_zh_demo.json": 300,
    "llamafactory.kto_en_demo.json": 300,
    "llamafactory.c4_demo.jsonl": 300,
    "llamafactory.wiki_demo.txt": 30,
    "llamafactory.v1_sft_demo.jsonl": 500,
    "llamafactory.v1_dpo_demo.jsonl": 10,
    "llamafactory.reason_tool_use_demo_50.jsonl": 50,
    "self_instruct.seed_tasks.jsonl": 175,
    "self_instruct.user_oriented_instructions.jsonl": 252,
    "belle.zh_seed_tasks.jsonl": 175,
    "fastchat.dummy_conversation.json": 500,
    "fastchat.mt_bench_question.jsonl": 80,
    "axolotl.alpaca.json": 2,
    "axolotl.sharegpt_conversation.json": 1,
    "disc_fin.consulting_part.json": 100,
    "disc_fin.task_part.json": 100,
    "disc_fin.computing_part.json": 100,
    "disc_fin.retrieval_part.json": 100,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", COUNTS)
def test_every_record_of_other_tools_files_loads(name: str, shared_data: Path) -> None:
    items, rejects = read_all(shared_data / "peer-formats" / f"{name}.gz")
    assert rejects == []
    assert len(items) == COUNTS[name]


@pytest.mark.slow
def test_the_registry_among_them_is_refused_by_name(shared_data: Path) -> None:
    with pytest.raises(DataError, match="registry of 104 data sets"):
        read_all(shared_data / "peer-formats" / "llamafactory.dataset_info.json.gz")


@pytest.fixture(scope="module")
def shared_data() -> Path:
    folder = os.environ.get("DIALOOP_DATA")
    if not folder:
        pytest.skip("set DIALOOP_DATA to the folder of data sets")
    return Path(folder)
