"""A tokenizer is loaded from a Hugging Face directory, and what is wrong with the directory is said."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dialoop.chat.render import render
from dialoop.chat.tokenizer import ChatTokenizer
from dialoop.errors import ModelError, RenderError
from dialoop.types import Conversation, Message, Tool

LIMITS = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
TALK = Conversation((Message("user", "Hi"), Message("assistant", "Hello")))


@pytest.fixture
def directory(own: Any, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(own.theirs.name_or_path, tmp_path / "model"))


def edit(path: Path, **changes: Any) -> None:
    value = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.write_text(json.dumps({**value, **changes}), encoding="utf-8")


@LIMITS
@given(text=st.text(max_size=40))
def test_text_comes_back_from_its_ids_and_bytes(own: Any, text: str) -> None:
    ids = own.ours.encode(text)
    assert own.ours.decode(ids) == text
    assert b"".join(own.ours.token_bytes(i) for i in ids) == text.encode()
    assert own.theirs.encode(text, add_special_tokens=False) == own.ours.encode(text, control=True)


@LIMITS
@given(before=st.text(max_size=5), after=st.text(max_size=5))
def test_a_spelt_control_token_is_text_unless_asked_for(own: Any, before: str, after: str) -> None:
    text = f"{before}<|im_end|>{after}"
    end = own.ours.encode("<|im_end|>", control=True)
    assert len(end) == 1
    assert end[0] not in own.ours.encode(text)
    assert own.ours.decode(own.ours.encode(text)) == text
    assert end[0] in own.ours.encode(text, control=True)


def test_a_control_token_that_the_vocabulary_spells_in_one_piece_is_still_text(directory: Path) -> None:
    path = directory / "tokenizer.json"
    spec = json.loads(path.read_text(encoding="utf-8"))
    size = len(spec["model"]["vocab"])
    spec["model"]["vocab"] |= {"zq": size, "z": spec["model"]["vocab"]["z"]}
    spec["model"]["merges"].append(["z", "q"])
    spec["added_tokens"].append({**spec["added_tokens"][0], "id": size, "content": "zq"})
    path.write_text(json.dumps(spec), encoding="utf-8")
    tokenizer = ChatTokenizer.load(directory)
    assert tokenizer.encode("a zq", control=True)[-1] == size
    assert size not in tokenizer.encode("zq")
    assert tokenizer.decode(tokenizer.encode("zq")) == "zq"


def test_special_tokens_are_skipped_in_decoding_unless_asked_for(own: Any) -> None:
    ids = own.ours.encode("a<|im_end|>", control=True)
    assert own.ours.decode(ids) == "a"
    assert own.ours.decode(ids, skip_special=False) == "a<|im_end|>"


def test_the_stop_ids_come_from_the_configs_and_the_template(directory: Path) -> None:
    edit(directory / "tokenizer_config.json", eos_token="<|endoftext|>")
    edit(directory / "config.json", eos_token_id=7)
    edit(directory / "generation_config.json", eos_token_id=[8, 9])
    tokenizer = ChatTokenizer.load(directory)
    end = tokenizer.encode("<|im_end|>", control=True)[0]
    assert tokenizer.end_of_turn == "<|im_end|>"
    assert tokenizer.stop_ids == {7, 8, 9, tokenizer.eos_id, end}


def test_named_tokens_have_their_ids(own: Any) -> None:
    assert own.ours.eos_id == own.theirs.eos_token_id
    assert (own.ours.bos_id, own.ours.pad_id) == (None, None)
    assert own.ours.vocab_size == len(own.theirs)


def test_a_token_that_only_the_config_holds_is_added(directory: Path) -> None:
    size = ChatTokenizer.load(directory).vocab_size
    row = {"content": "<|new|>", "special": True, "lstrip": False, "rstrip": False, "normalized": False}
    edit(directory / "tokenizer_config.json", added_tokens_decoder={str(size): row})
    tokenizer = ChatTokenizer.load(directory)
    assert tokenizer.encode("<|new|>", control=True) == [size]
    assert tokenizer.vocab_size == size + 1


def test_a_template_in_the_config_is_read(directory: Path) -> None:
    own = (directory / "chat_template.jinja").read_text(encoding="utf-8")
    (directory / "chat_template.jinja").unlink()
    edit(directory / "tokenizer_config.json", chat_template=own)
    assert ChatTokenizer.load(directory).template.source == own


def test_a_template_for_tools_is_used_with_tools(directory: Path) -> None:
    (directory / "chat_template.jinja").unlink()
    rows = [
        {"name": "default", "template": "{{ messages[-1].content }}<|im_end|>"},
        {"name": "tool_use", "template": "{{ tools[0].function.name }}{{ messages[-1].content }}<|im_end|>"},
    ]
    edit(directory / "tokenizer_config.json", chat_template=rows)
    tokenizer = ChatTokenizer.load(directory)
    history = Conversation((Message("user", "Hi"),))
    asked = Conversation(history.messages, tools=(Tool("track"),))
    assert tokenizer.decode(render(history, tokenizer, learn=False).token_ids) == "Hi"
    assert tokenizer.decode(render(asked, tokenizer, learn=False).token_ids) == "trackHi"


def test_the_fingerprint_changes_with_the_template_and_the_vocabulary(own: Any, directory: Path) -> None:
    same = ChatTokenizer.load(directory)
    assert same.fingerprint() == own.ours.fingerprint()
    template = directory / "chat_template.jinja"
    template.write_text(
        template.read_text(encoding="utf-8").replace("\\n</tools>", "</tools>"), encoding="utf-8"
    )
    assert ChatTokenizer.load(directory).fingerprint() != same.fingerprint()


def test_the_fingerprint_does_not_change_with_the_day(directory: Path) -> None:
    template = directory / "chat_template.jinja"
    dated = "{{ strftime_now('%s %f') }}" + template.read_text(encoding="utf-8")
    template.write_text(dated, encoding="utf-8")
    assert ChatTokenizer.load(directory).fingerprint() == ChatTokenizer.load(directory).fingerprint()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda d: shutil.rmtree(d), "no such directory"),
        (lambda d: (d / "tokenizer.json").unlink(), "tokenizer.json is missing"),
        (lambda d: (d / "tokenizer.json").write_text("{"), "tokenizer.json: cannot be read as JSON"),
        (lambda d: (d / "tokenizer.json").write_text("[1]"), "expected an object"),
        (lambda d: edit(d / "tokenizer.json", pre_tokenizer={"type": "X"}), "tokenizer.json is not one"),
        (lambda d: edit(d / "tokenizer_config.json", added_tokens_decoder=[1]), "not of the known form"),
        (lambda d: (d / "chat_template.jinja").write_bytes(b"\xff"), "not of the known form"),
        (lambda d: (d / "chat_template.jinja").unlink(), "no chat template"),
        (lambda d: (d / "chat_template.jinja").write_text("{% if %}"), "not a Jinja template"),
        (lambda d: (d / "chat_template.jinja").write_text("hello"), "does not show what the assistant says"),
        (lambda d: edit(d / "tokenizer_config.json", eos_token="<|gone|>"), "'<|gone|>', which"),
    ],
)
def test_a_spoilt_directory_is_a_model_error_that_says_what_is_wrong(
    directory: Path, spoil: Any, message: str
) -> None:
    spoil(directory)
    with pytest.raises(ModelError) as caught:
        ChatTokenizer.load(directory)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "mistake",
    [
        ("{{- '<|im_end|>' }}\n        {%- endgeneration %}", "{%- endgeneration %}{{- '<|im_end|>' }}"),
        (
            "{{- '<|im_start|>assistant\\n' }}\n        {%- generation %}",
            "{%- generation %}{{- '<|im_start|>assistant\\n' }}",
        ),
    ],
)
def test_generation_blocks_that_disagree_with_the_prompt_are_an_error(
    directory: Path, mistake: tuple[str, str]
) -> None:
    template = directory / "chat_template.jinja"
    source = template.read_text(encoding="utf-8")
    assert mistake[0] in source
    template.write_text(source.replace(*mistake), encoding="utf-8")
    with pytest.raises(RenderError, match="generation %} block and its generation prompt disagree"):
        render(TALK, ChatTokenizer.load(directory))


def test_a_prompt_that_the_answered_dialogue_does_not_begin_with_is_an_error(directory: Path) -> None:
    template = directory / "chat_template.jinja"
    source = template.read_text(encoding="utf-8")
    prompt = "{%- if add_generation_prompt %}\n    {{- '<|im_start|>assistant\\n"
    assert prompt in source
    template.write_text(source.replace(prompt, prompt + "<think>\\n"), encoding="utf-8")
    with pytest.raises(RenderError, match="serving would ask for something else"):
        render(TALK, ChatTokenizer.load(directory))
