# ruff: noqa: E501  (templates and dialogues are easier to read unbroken)
"""Chat templates run in a sandbox, as transformers runs them, and what they do wrong is a RenderError."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from dialoop.chat.template import ChatTemplate
from dialoop.errors import ModelError, RenderError
from dialoop.types import Message

ROWS = [
    {"role": "user", "content": " <b>Grüße</b> & 你好 \n"},
    {"role": "assistant", "content": "ok", "extra": {"b": [1, 2.5, None, True], "a": "é\"'"}},
]
SOURCES = {
    "json": "{{ messages[1].extra | tojson }}{{ messages[1].extra | tojson(indent=2) }}{{ messages | tojson(sort_keys=true) }}",
    "blocks": "{% for m in messages %}\n  {% if m.role == 'user' %}\n    {{ m.content }}\n  {% endif %}\n{% endfor %}\nend\n",
    "loop controls": "{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}{{ m.content }}{% break %}{% endfor %}",
    "namespace": "{% set ns = namespace(a=1, b='x') %}{% set ns.a = ns.a + 1 %}{{ ns.a }}{{ ns.b }}",
    "dict": "{{ dict(a=1, b=2) | tojson }}{{ dict.fromkeys(['x']) | tojson }}",
    "generation": "{% for m in messages %}{% if m.role == 'assistant' %}{%- generation -%} {{ m.content }} {%- endgeneration %}"
    "{% else %}\n{{ m.content }}{% endif %}{% endfor %}",
    "macro": "{% macro show(m) %}[{{ m.role }}]{{ m.content | trim }}{% endmacro %}{% for m in messages %}{{ show(m) }}{% endfor %}",
    "undefined": "{{ nothing }}{{ messages[0].missing is defined }}{{ tools is none }}{{ documents is none }}{{ bos_token }}",
    "methods": "{{ messages[0].content.strip().split(' ')[-1].upper() }}{{ messages[0].get('x', 'y') }}{{ 'a' * 3 }}{{ 2 ** 5 }}",
}


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES.keys())
def test_a_template_renders_as_in_transformers(source: str) -> None:
    expected, _ = render_jinja_template([ROWS], chat_template=source, bos_token="<s>")
    assert ChatTemplate(source, {"bos_token": "<s>"}).render(ROWS) == expected[0]


def test_the_day_is_that_of_the_clock_or_as_given() -> None:
    template = ChatTemplate("{{ strftime_now('%Y') }}")
    assert template.render(ROWS) in {str(datetime.now().year), str(datetime.now().year - 1)}
    assert template.render(ROWS, strftime_now=datetime(1999, 1, 1).strftime) == "1999"


def test_further_variables_reach_the_template() -> None:
    assert ChatTemplate("{{ enable_thinking }}").render(ROWS, enable_thinking=False) == "False"


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages[0].missing.deeper }}",
        "{{ 1 / 0 }}",
        "{{ messages.append(1) }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ cycler.__init__.__globals__ }}",
        "{% set ns = namespace() %}{% set ns._x = 1 %}",
        "{% include 'x' %}",
        "{{ 'a' * 99999999999 }}",
        "{{ 9 ** 99999999 }}",
        "{% for a in range(99999) %}{{ 'x' * 9999 }}{% endfor %}",
        "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}",
        "{{ raise_exception('Only users may speak') }}",
    ],
)
def test_what_a_template_does_wrong_is_a_render_error(source: str) -> None:
    with pytest.raises(RenderError, match="refuses the conversation"):
        ChatTemplate(source).render(ROWS)


def test_the_words_of_a_template_are_kept_and_content_is_not() -> None:
    with pytest.raises(RenderError, match="Only users may speak"):
        ChatTemplate("{{ raise_exception('Only users may speak') }}").render(ROWS)
    secret = "the number of my card is 4111 1111 1111 1111 and the date on it is 12/31"
    with pytest.raises(RenderError) as caught:
        ChatTemplate("{{ raise_exception(messages[0].content) }}").render([Message("user", secret)])
    assert "4111" not in str(caught.value)


def test_a_source_that_is_no_template_is_a_model_error_with_its_line() -> None:
    with pytest.raises(ModelError, match="shop, line 2: not a Jinja template"):
        ChatTemplate("{% for m in messages %}\n{% endif %}", where="shop")


@pytest.mark.parametrize("content", ["\ufdd0", "\ufdd1\ufdd2", "a\ufdd3Ab\ufdd3", "\ufdd3\ufdd3A"])
def test_noncharacters_in_a_text_come_out_as_they_went_in(content: str) -> None:
    template = ChatTemplate(
        "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}|{% endfor %}"
    )
    rows: list[Any] = [{"role": "assistant", "content": content}, Message("assistant", content)]
    assert template.render(rows) == f"{content}|{content}|"
