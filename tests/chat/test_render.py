"""The render against transformers, and against itself: what is learnt is what serving asks for."""

from __future__ import annotations

import json
from dataclasses import astuple, replace
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from dialoop.chat.parse import CallParser
from dialoop.chat.render import Rendered, render, render_prompt
from dialoop.chat.tokenizer import ChatTokenizer
from dialoop.errors import RenderError, RequestError
from dialoop.types import CallDelta, Conversation, Delta, Message, Prompting, calls_of

HEADERS = [
    "<|im_start|>assistant\n", "<|assistant|>\n", "<｜Assistant｜>", "<start_of_turn>model\n",
    "<|start_header_id|>assistant<|end_header_id|>\n\n",
]  # fmt: skip
SPELT = [
    "<|im_end|>", "<|im_start|>system\n", "</s>", "<s>", "[/INST]", "<|eot_id|>", "<end_of_turn>",
    "<｜User｜>", "<|end|>", "<tool_call>", "\ufdd0", "\ufdd3A", "\ufdd1\ufdd2", *HEADERS,
]  # fmt: skip
words = st.sampled_from(["order 42", "你好", "🙂", "ok", "\n", " ", "\t", "  1", ".", "Ünï", *SPELT])
texts = st.one_of(st.lists(words, max_size=6).map("".join), st.text(max_size=20))
LIMITS = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def dialogues(draw: Any, system: bool = True) -> Conversation:
    turns = [Message("system", draw(texts))] if system and draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 3))):
        turns += [Message("user", draw(texts)), Message("assistant", draw(texts))]
    return Conversation(tuple(turns))


def as_transformers(conversation: Conversation) -> list[dict[str, Any]]:
    rows = []
    for message in conversation.messages:
        row: dict[str, Any] = {"role": message.role, "content": message.content}
        if message.tool_calls:
            row["tool_calls"] = [
                {
                    "id": c.id,
                    "type": "function",
                    "function": {"name": c.name, "arguments": json.loads(c.arguments)},
                }
                for c in message.tool_calls
            ]
        rows.append(row)
    return rows


def tools_of(conversation: Conversation) -> list[dict[str, Any]] | None:
    return [
        {
            "type": "function",
            "function": {"name": t.name, "description": t.description, "parameters": t.parameters},
        }
        for t in conversation.tools
    ] or None


def reference(theirs: Any, conversation: Conversation, prompt: bool = False, mask: bool = False) -> Any:
    return theirs.apply_chat_template(
        as_transformers(conversation), tools=tools_of(conversation), add_generation_prompt=prompt,
        tokenize=True, return_dict=True, return_assistant_tokens_mask=mask,
    )  # fmt: skip


def learnt_text(tokenizer: ChatTokenizer, rendered: Rendered) -> str:
    ids = [i for i, weight in zip(rendered.token_ids, rendered.loss_mask, strict=True) if weight]
    return tokenizer.decode(ids, skip_special=False)


def test_the_ids_are_those_of_transformers(pair: Any, plain: Conversation) -> None:
    expected = reference(pair.theirs, plain)["input_ids"]
    assert list(render(plain, pair.ours).token_ids) == expected


def test_the_prompt_is_that_of_transformers(pair: Any, plain: Conversation) -> None:
    history = plain.history
    assert (
        list(render_prompt(history, pair.ours)) == reference(pair.theirs, history, prompt=True)["input_ids"]
    )


def test_the_mask_is_that_of_the_generation_blocks(pair: Any, plain: Conversation) -> None:
    if not pair.marked:
        pytest.skip("transformers has a mask for marked templates alone")
    expected = reference(pair.theirs, plain, mask=True)["assistant_masks"]
    assert list(render(plain, pair.ours).loss_mask) == expected


def test_an_unmarked_template_learns_what_the_marked_one_does(pair: Any, plain: Conversation) -> None:
    answers = [m.content for m in plain.messages if m.role == "assistant"]
    rendered = render(plain, pair.ours)
    text = learnt_text(pair.ours, rendered)
    end = pair.ours.end_of_turn
    assert [part.strip() for part in text.split(end)] == [*answers, ""]


def test_calls_and_their_results_are_those_of_transformers(pair: Any, with_call: Conversation) -> None:
    if not pair.style.calls:
        pytest.skip("the style has no calls")
    rendered = render(with_call, pair.ours)
    assert list(rendered.token_ids) == reference(pair.theirs, with_call)["input_ids"]
    if pair.marked:
        assert list(rendered.loss_mask) == reference(pair.theirs, with_call, mask=True)["assistant_masks"]
    learnt = learnt_text(pair.ours, rendered)
    assert "42 is on its way, 7 is lost." in learnt
    assert "状态" not in learnt


@LIMITS
@given(data=st.data())
def test_training_begins_with_exactly_what_serving_asks(pair: Any, data: st.DataObject) -> None:
    conversation = data.draw(dialogues(system=pair.style.system))
    rendered = render(conversation, pair.ours)
    for i, message in enumerate(conversation.messages):
        if message.role == "assistant":
            history = replace(conversation, messages=conversation.messages[:i])
            prompt = render_prompt(history, pair.ours)
            assert rendered.token_ids[: len(prompt)] == prompt
            assert rendered.loss_mask[len(prompt)] == 1.0
            assert rendered.loss_mask[len(prompt) - 1] == 0.0


@LIMITS
@given(data=st.data())
def test_a_spelt_control_token_is_plain_text(pair: Any, data: st.DataObject) -> None:
    conversation = data.draw(dialogues(system=pair.style.system))
    quiet = replace(
        conversation, messages=tuple(replace(message, content="x") for message in conversation.messages)
    )
    tokens = (*pair.style.special, pair.style.eos, *filter(None, [pair.style.bos]))
    control = {pair.ours.encode(token, control=True)[0] for token in tokens}

    def controls(c: Conversation) -> list[int]:
        return [i for i in render(c, pair.ours).token_ids if i in control]

    assert controls(conversation) == controls(quiet)


@LIMITS
@given(data=st.data())
def test_no_character_of_a_message_is_lost_or_changed(pair: Any, data: st.DataObject) -> None:
    content = data.draw(texts)
    assume(content == content.strip())
    conversation = Conversation((Message("user", content), Message("assistant", "ok")))
    text = pair.ours.decode(render(conversation, pair.ours).token_ids, skip_special=False)
    assert content in text
    if not pair.style.rstrip:
        assert text == pair.ours.template.render(conversation.messages)


@LIMITS
@given(data=st.data())
def test_plain_dialogues_of_any_words_are_those_of_transformers(pair: Any, data: st.DataObject) -> None:
    plain_words = st.lists(
        st.sampled_from(["order 42", "你好", " 🙂", " ok\n", ", ", "!", " 1"]), max_size=5
    ).map("".join)
    turns: list[Message] = []
    for _ in range(data.draw(st.integers(1, 3))):
        turns += [
            Message("user", "A" + data.draw(plain_words)),
            Message("assistant", "好" + data.draw(plain_words)),
        ]
    conversation = Conversation(tuple(turns))
    assert (
        list(render(conversation, pair.ours).token_ids) == reference(pair.theirs, conversation)["input_ids"]
    )


def test_the_end_of_the_turn_carries_loss(pair: Any) -> None:
    conversation = Conversation((Message("user", "Hi"), Message("assistant", "Hello")))
    rendered = render(conversation, pair.ours)
    learnt = [i for i, weight in zip(rendered.token_ids, rendered.loss_mask, strict=True) if weight]
    assert learnt[-1] in pair.ours.stop_ids


def test_the_shipped_template_equals_transformers_with_tools(own: Any, with_call: Conversation) -> None:
    rendered = render(with_call, own.ours)
    expected = reference(own.theirs, with_call, mask=True)
    assert list(rendered.token_ids) == expected["input_ids"]
    assert list(rendered.loss_mask) == expected["assistant_masks"]


def test_the_shipped_template_reads_as_documented(own: Any, with_call: Conversation) -> None:
    text = own.ours.template.render((Message("system", "Be kind."), *with_call.messages[:3]), with_call.tools)
    assert text.startswith("<|im_start|>system\nBe kind.\n\n# Tools\n")
    assert '"name": "track", "description": "Find a parcel"' in text
    assert (
        '<|im_start|>assistant\n<tool_call>\n{"name": "track", "arguments": {"order": 42}}\n</tool_call>\n'
        '<tool_call>\n{"name": "track", "arguments": {"order": 7, "注": "急"}}\n</tool_call><|im_end|>\n'
        "<|im_start|>tool\non its way<|im_end|>\n"
    ) in text


def test_the_shipped_template_has_no_system_turn_of_its_own(own: Any) -> None:
    assert own.ours.template.render([Message("user", "Hi")]) == "<|im_start|>user\nHi<|im_end|>\n"


@LIMITS
@given(data=st.data())
def test_the_shipped_template_learns_what_it_serves(own: Any, data: st.DataObject) -> None:
    conversation = data.draw(dialogues())
    prompt = render_prompt(conversation.history, own.ours)
    rendered = render(conversation, own.ours, mask="last")
    assert rendered.token_ids[: len(prompt)] == prompt
    assert set(rendered.loss_mask[: len(prompt)]) == {0.0}


@LIMITS
@given(data=st.data())
def test_a_tokenizer_that_puts_a_space_first_learns_what_it_serves(spaced: Any, data: st.DataObject) -> None:
    conversation = data.draw(dialogues())
    rendered = render(conversation, spaced.ours)
    for i, message in enumerate(conversation.messages):
        if message.role == "assistant":
            prompt = render_prompt(replace(conversation, messages=conversation.messages[:i]), spaced.ours)
            assert rendered.token_ids[: len(prompt)] == prompt
            assert rendered.loss_mask[len(prompt)] == 1.0


def test_a_tokenizer_that_puts_a_space_first_equals_transformers(spaced: Any) -> None:
    conversation = Conversation(
        (Message("user", "Where is 你好 my order?"), Message("assistant", "It ships today."),
         Message("user", "Thanks"), Message("assistant", "再见"))
    )  # fmt: skip
    expected = reference(spaced.theirs, conversation, mask=True)
    rendered = render(conversation, spaced.ours)
    assert list(rendered.token_ids) == expected["input_ids"]
    assert list(rendered.loss_mask) == expected["assistant_masks"]


def test_the_last_mask_learns_the_last_answer_alone(pair: Any) -> None:
    conversation = Conversation(
        (
            Message("user", "a"),
            Message("assistant", "first"),
            Message("user", "b"),
            Message("assistant", "second"),
        )
    )
    text = learnt_text(pair.ours, render(conversation, pair.ours, mask="last"))
    assert text.strip().startswith("second")
    assert "first" not in text


def test_the_mask_of_all_learns_every_token(pair: Any) -> None:
    conversation = Conversation((Message("user", "a"), Message("assistant", "b")))
    assert set(render(conversation, pair.ours, mask="all").loss_mask) == {1.0}


def test_a_weight_scales_its_turn_and_zero_silences_it(pair: Any) -> None:
    conversation = Conversation(
        (Message("user", "a"), Message("assistant", "no", weight=0), Message("user", "b"),
         Message("assistant", "half", weight=0.5), Message("user", "c"), Message("assistant", "full"))
    )  # fmt: skip
    rendered = render(conversation, pair.ours)
    assert set(rendered.loss_mask) == {0.0, 0.5, 1.0}
    assert "no" not in learnt_text(pair.ours, rendered)
    assert set(render(conversation, pair.ours, mask="all").loss_mask) == {0.0, 0.5, 1.0}


def test_serving_learns_nothing_and_does_not_mind(pair: Any) -> None:
    rendered = render(
        Conversation((Message("user", "a"),)), pair.ours, add_generation_prompt=True, learn=False
    )
    assert rendered.loss_mask == (0.0,) * len(rendered.token_ids)


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ((Message("user", "a"),), "no assistant turn"),
        ((Message("user", "a"), Message("assistant", "b", weight=0)), "weight 0"),
    ],
)
def test_nothing_to_learn_is_an_error(pair: Any, messages: tuple[Message, ...], reason: str) -> None:
    with pytest.raises(RenderError, match=reason):
        render(Conversation(messages), pair.ours)


def test_the_last_mask_with_a_silenced_last_turn_is_an_error(own: Any) -> None:
    turns = (
        Message("user", "a"),
        Message("assistant", "b"),
        Message("user", "c"),
        Message("assistant", "d", weight=0),
    )
    with pytest.raises(RenderError, match="nothing to learn with mask='last'"):
        render(Conversation(turns), own.ours, mask="last")


def test_a_weight_on_a_user_turn_is_an_error(own: Any) -> None:
    with pytest.raises(RenderError, match=r"messages\[0\].weight is 1 on a user turn"):
        render(Conversation((Message("user", "a", weight=1), Message("assistant", "b"))), own.ours)


THOUGHTS = Conversation(
    (Message("user", "1+1?"), Message("assistant", "2", reasoning="add"), Message("user", "2+2?"),
     Message("assistant", "<think>\nadd again\n</think>\n\n4"))
)  # fmt: skip


@pytest.mark.parametrize("name", ["thinking", "thinking_marked"])
def test_a_template_that_drops_earlier_thoughts_says_that_the_last_mask_mends_it(
    name: str, request: pytest.FixtureRequest
) -> None:
    tokenizer = request.getfixturevalue(name)
    with pytest.raises(RenderError, match=r"messages\[1\].*mask='last'"):
        render(THOUGHTS, tokenizer)
    rendered = render(THOUGHTS, tokenizer, mask="last")
    prompt = render_prompt(THOUGHTS.history, tokenizer)
    assert rendered.token_ids[: len(prompt)] == prompt
    assert learnt_text(tokenizer, rendered) == "<think>\nadd again\n</think>\n\n4<|im_end|>"


@pytest.mark.parametrize("name", ["thinking", "thinking_marked"])
def test_the_tags_of_a_thought_are_tokens_and_a_users_are_text(
    name: str, request: pytest.FixtureRequest
) -> None:
    tokenizer = request.getfixturevalue(name)
    tag = tokenizer.encode("<think>", control=True)
    assert len(tag) == 1
    asked = Conversation((Message("user", "say <think>"), Message("assistant", "no")))
    assert tag[0] not in render(asked, tokenizer).token_ids
    assert tag[0] in render(THOUGHTS, tokenizer, mask="last").token_ids


def test_thoughts_without_later_turns_are_learnt(thinking: ChatTokenizer) -> None:
    first = replace(THOUGHTS, messages=THOUGHTS.messages[:2])
    assert learnt_text(thinking, render(first, thinking)) == "<think>\nadd\n</think>\n\n2<|im_end|>"


def test_reasoning_that_a_template_cannot_show_is_not_lost_in_silence(pair: Any) -> None:
    thought = Conversation((Message("user", "1+1?"), Message("assistant", "2", reasoning="add")))
    with pytest.raises(RenderError, match=r"messages\[1\].reasoning_content.*does not show reasoning"):
        render(thought, pair.ours)
    asked = replace(thought, messages=(*thought.messages, Message("user", "2+2?")))
    assert render_prompt(asked, pair.ours)


def test_the_shipped_template_learns_the_reasoning_before_the_answer(own: Any) -> None:
    thought = Conversation((Message("user", "1+1?"), Message("assistant", "2", reasoning="add")))
    assert learnt_text(own.ours, render(thought, own.ours)) == "<think>\nadd\n</think>\n\n2<|im_end|>"


def test_an_error_names_no_path(pair: Any) -> None:
    with pytest.raises(RenderError) as caught:
        render(Conversation((Message("user", "a"), Message("assistant", "b", reasoning="c"))), pair.ours)
    assert pair.theirs.name_or_path not in str(caught.value)


def test_tools_shown_at_the_last_user_turn_need_the_last_mask(pair: Any, with_call: Conversation) -> None:
    if pair.style.name != "mistral":
        pytest.skip("Mistral's way")
    longer = replace(
        with_call, messages=(*with_call.messages, Message("user", "ok"), Message("assistant", "Bye"))
    )
    with pytest.raises(RenderError, match="mask='last'"):
        render(longer, pair.ours)
    rendered = render(longer, pair.ours, mask="last")
    prompt = render_prompt(longer.history, pair.ours)
    assert rendered.token_ids[: len(prompt)] == prompt


def test_tools_that_a_template_cannot_show_are_told_in_words(pair: Any, with_call: Conversation) -> None:
    if pair.style.calls:
        pytest.skip("the style has tools")
    rendered = render(with_call, pair.ours, mask="last")
    text = pair.ours.decode(rendered.token_ids, skip_special=False)
    for told in (
        "# Tools",
        '"name": "track"',
        "<tool_call>",
        "<tool_response>\non its way\n</tool_response>",
    ):
        assert told in text
    assert rendered.token_ids[: len(prompt := render_prompt(with_call.history, pair.ours))] == prompt


def test_a_model_learns_calls_as_the_parser_reads_them(pair: Any, with_call: Conversation) -> None:
    upto = next(i for i, m in enumerate(with_call.messages) if m.tool_calls) + 1
    rendered = render(replace(with_call, messages=with_call.messages[:upto]), pair.ours, mask="last")
    learnt = [i for i, weight in zip(*astuple(rendered), strict=True) if weight]
    parser = CallParser(pair.ours.call_style, with_call.tools)
    text = pair.ours.decode(learnt, skip_special=False).removesuffix(pair.ours.end_of_turn or "")
    pieces = parser.push(text) + parser.flush()
    calls = calls_of([Delta(calls=tuple(each for each in pieces if isinstance(each, CallDelta)))])
    asked = with_call.messages[upto - 1].tool_calls
    assert [(c.name, json.loads(c.arguments)) for c in calls] == [
        (c.name, json.loads(c.arguments)) for c in asked
    ]


@pytest.mark.parametrize("said", ["Well, ", "Well", "<|im_end|>"])
def test_a_continued_message_is_the_beginning_of_an_answer(own: Any, pair: Any, said: str) -> None:
    history = (Message("user", "Hi"), Message("assistant", said))
    for ours in (own.ours, pair.ours):
        opened = render_prompt(Conversation(history[:1]), ours)
        continued = render_prompt(Conversation(history), ours, Prompting(continued=True))
        assert continued[: len(opened)] == opened
        assert ours.decode(continued[len(opened) :], skip_special=False).strip() == said.strip()
    with pytest.raises(RequestError, match="continue_final_message"):
        render_prompt(Conversation(history[:1]), own.ours, Prompting(continued=True))


def test_variables_that_a_template_does_not_read_are_an_error(own: Any) -> None:
    history = Conversation((Message("user", "Hi"),))
    plain = render_prompt(history, own.ours)
    for neutral in (
        Prompting(variables={"enable_thinking": False}),
        Prompting(wishes={"reasoning_effort": "low"}),
    ):
        assert render_prompt(history, own.ours, neutral) == plain
    for name in ("enable_thinking", "messages", "add_generation_prompt", "strftime_now"):
        with pytest.raises(RequestError, match=name):
            render_prompt(history, own.ours, Prompting(variables={name: True}))
    assert len(render_prompt(history, own.ours, Prompting(answering=False))) < len(plain)


def test_what_a_template_refuses_is_an_error_in_its_words(pair: Any) -> None:
    if pair.style.name != "gemma":
        pytest.skip("Gemma's way")
    with pytest.raises(RenderError, match="System role not supported"):
        render_prompt(Conversation((Message("system", "a"), Message("user", "b"))), pair.ours)


def test_an_agent_that_speaks_first_is_learnt_where_the_template_has_a_prompt_for_it(own: Any) -> None:
    greeting = Conversation(
        (Message("assistant", "Welcome!"), Message("user", "Hi"), Message("assistant", "Hello"))
    )
    assert learnt_text(own.ours, render(greeting, own.ours)) == "Welcome!<|im_end|>Hello<|im_end|>"


def test_a_developer_turn_is_a_system_turn_where_the_template_knows_no_other(own: Any, pair: Any) -> None:
    developer = Conversation((Message("developer", "Be kind."), Message("user", "Hi")))
    system = Conversation((Message("system", "Be kind."), Message("user", "Hi")))
    assert render_prompt(developer, own.ours) == render_prompt(system, own.ours)
    if pair.style.system:
        assert render_prompt(developer, pair.ours) == render_prompt(system, pair.ours)
