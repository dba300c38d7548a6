"""Prompt templates: files, typed variables, and the turns that they make."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialoop.chat.prompt import Prompt
from dialoop.config.prompts import PromptSettings, parse_prompt
from dialoop.errors import ConfigError, RenderError, RequestError
from dialoop.store.prompts import shipped
from dialoop.types import Conversation, Message

SORT = """
name = "sort"

[variables.text]
from = "last"

[variables.labels]
kind = "list"
default = ["a", "b"]

[wording.en]
system = "Sort: {{ labels | join(', ') }}"
user = "Text: {{ text }}"

[wording.zh]
system = "分类：{{ labels | join('、') }}"
user = "文字：{{ text }}"

[[examples]]
language = "en"
messages = [{ role = "user", content = "first" }, { role = "assistant", content = "a" }]
"""


def prompt(text: str = SORT) -> Prompt:
    return Prompt(parse_prompt(text, "sort.toml"))


def said(*turns: tuple[str, str]) -> Conversation:
    return Conversation(tuple(Message(role, content) for role, content in turns))  # type: ignore[arg-type]


def turns(asked: Conversation) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in asked.messages]


def test_system_examples_and_question_come_in_this_order() -> None:
    assert turns(prompt().ask(said(("user", "second")))) == [
        ("system", "Sort: a, b"),
        ("user", "Text: first"),
        ("assistant", "a"),
        ("user", "Text: second"),
    ]


def test_each_language_has_its_words_and_examples_and_the_first_stands_in() -> None:
    assert turns(prompt().ask(said(("user", "二")), language="zh")) == [
        ("system", "分类：a、b"),
        ("user", "文字：二"),
    ]
    other = prompt().ask(said(("user", "dos")), language="es")
    assert turns(other)[0] == ("system", "Sort: a, b")


def test_what_is_said_before_the_question_stays_and_system_messages_join() -> None:
    history = said(("system", "Be kind."), ("user", "hi"), ("assistant", "hello"), ("user", "now"))
    assert turns(prompt().ask(history, examples=())) == [
        ("system", "Sort: a, b\n\nBe kind."),
        ("user", "hi"),
        ("assistant", "hello"),
        ("user", "Text: now"),
    ]


def test_a_whole_dialogue_becomes_one_question_and_so_do_examples() -> None:
    guide = Prompt(shipped()["dialogue"].settings)
    example = said(("user", "Hi"), ("assistant", "Hello!"))
    asked = guide.ask(said(("user", "A"), ("assistant", "B"), ("user", "C")), examples=[example])
    assert turns(asked) == [
        ("user", "Given the dialogue history:\nUser: Hi\nanswer:"),
        ("assistant", "Hello!"),
        ("user", "Given the dialogue history:\nUser: A\nAssistant: B\nUser: C\nanswer:"),
    ]


def test_a_value_that_is_given_is_taken_before_what_is_asked() -> None:
    asked = prompt().ask(said(("user", "more")), {"text": "given"}, examples=())
    assert turns(asked)[1:] == [("user", "Text: given"), ("user", "more")]


@given(st.text(max_size=80))
def test_values_are_never_read_as_templates(text: str) -> None:
    asked = prompt().ask(values={"text": "{{ labels }}{% raw %}" + text}, examples=())
    assert turns(asked)[1] == ("user", ("Text: {{ labels }}{% raw %}" + text).strip())


READ: list[tuple[str, Any, Any]] = [
    ("integer", "3", 3),
    ("integer", 3, 3),
    ("number", "2.5", 2.5),
    ("boolean", "true", True),
    ("list", "a\n\n b ", ["a", "b"]),
    ("list", '["a", "b"]', ["a", "b"]),
    ("object", '{"a": 1}', {"a": 1}),
    ("text", {"type": "input_text", "text": "x"}, "x"),
]


def with_kind(kind: str, more: str = "") -> Prompt:
    return prompt(f'name = "x"\n[variables.v]\nkind = "{kind}"\n{more}\n[wording.en]\nuser = "{{{{ v }}}}"')


@pytest.mark.parametrize(("kind", "value", "wanted"), READ)
def test_values_are_read_as_what_the_variable_is(kind: str, value: Any, wanted: Any) -> None:
    assert with_kind(kind).read({"v": value}) == {"v": wanted}


@pytest.mark.parametrize(
    ("kind", "value"),
    [("integer", "x"), ("integer", True), ("integer", 2.5), ("boolean", 1), ("text", 3), ("list", [1]),
     ("list", "[1"), ("object", "3"), ("dialogue", [{"role": "user"}]), ("dialogue", "hi")],
)  # fmt: skip
def test_a_value_of_another_kind_is_refused_by_name(kind: str, value: Any) -> None:
    with pytest.raises(RequestError, match="expected") as caught:
        with_kind(kind).read({"v": value})
    assert caught.value.param == "prompt.variables.v"


def test_choices_unknown_and_missing_values_are_told() -> None:
    with pytest.raises(RequestError, match="known: en, zh"):
        with_kind("text", 'choices = ["en", "zh"]').read({"v": "quite another"})
    with pytest.raises(RequestError, match="did you mean 'labels'"):
        prompt().ask(said(("user", "x")), {"label": "a"})
    with pytest.raises(RequestError, match=r"prompt\.variables\.v is missing"):
        with_kind("text").ask()
    with pytest.raises(RequestError, match="none came") as caught:
        prompt().ask()
    assert caught.value.param == "messages"


BAD = [
    (SORT.replace("{{ text }}", "{{ txt }}", 1), "did you mean 'text'"),
    (SORT.replace('user = "Text: {{ text }}"', 'user = "Text"'), "does not read 'text'"),
    (SORT.replace("{{ text }}", "{{ text", 1), "not a Jinja template"),
    (SORT + '\n[variables.idle]\nkind = "text"', "reads variable 'idle' nowhere"),
    (SORT.replace('from = "last"', 'from = "last"\nkind = "list"'), "set kind to 'text'"),
    (SORT.replace('name = "sort"', 'name = "sort"\nmodl = "x"'), "did you mean 'model'"),
    (SORT.replace('"assistant", content = "a"', '"user", content = "a"'), "the assistant's as the last"),
    (SORT.replace("[variables.labels]", "[variables.Labels]"), "cannot name a variable"),
    ("name = ", "not TOML"),
]


@pytest.mark.parametrize(("text", "words"), BAD, ids=[words for _, words in BAD])
def test_a_file_that_cannot_work_is_refused_with_the_place(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        prompt(text)


@pytest.mark.parametrize(
    "source", ["{{ v.__class__ }}", "{{ 'a' * 10**9 }}", "{% for i in range(10**8) %}{% endfor %}"]
)
def test_the_sandbox_holds(source: str) -> None:
    bad = prompt(f'name = "x"\n[variables.v]\n[wording.en]\nuser = "{source}{{{{ v }}}}"')
    with pytest.raises(RenderError, match=r"wording\.en\.user"):
        bad.ask(values={"v": "x"})


TEXTS = st.text(st.characters(blacklist_categories=("Cs",)), max_size=30)


@given(TEXTS, TEXTS, st.lists(st.tuples(TEXTS, TEXTS), max_size=3), st.floats(0, 2))
def test_a_template_survives_its_file(
    system: str, help_: str, shown: list[tuple[str, str]], temperature: float
) -> None:
    settings = PromptSettings.model_validate(
        {
            "name": "x", "variables": {"v": {"help": help_, "default": "d"}},
            "wording": {"zh": {"system": system, "user": "{{ v }}"}, "en": {"user": "{{ v }}"}},
            "examples": [
                {"messages": [{"role": "user", "content": a}, {"role": "assistant", "content": b}]}
                for a, b in shown
            ],
            "parameters": {"temperature": temperature, "stop": ["\n"]},
        }
    )  # fmt: skip
    again = parse_prompt(settings.toml(), "x.toml")
    assert (again, again.hash, list(again.wording)) == (settings, settings.hash, ["zh", "en"])


@pytest.mark.parametrize("name", sorted(shipped()))
def test_every_shipped_prompt_speaks_both_languages(name: str) -> None:
    found = Prompt(shipped()[name].settings)
    values: dict[str, Any] = {"extract": {"fields": ["price"]}, "question": {"passage": "P"}}.get(name, {})
    asked = [turns(found.ask(said(("user", "Where?")), values, language=each)) for each in ("en", "zh")]
    assert found.languages == ("en", "zh")
    assert asked[0] != asked[1] or name == "translate"
    assert all(any("Where?" in content for _, content in each) for each in asked)
