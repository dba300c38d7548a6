# ruff: noqa: E501  (templates and dialogues are easier to read unbroken)
"""Ten public template styles written anew, each with a small byte-level BPE trained in the test run."""

from __future__ import annotations

import importlib.resources
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from dialoop.chat.tokenizer import ChatTokenizer
from dialoop.types import Conversation, Message, Tool, ToolCall

QWEN2_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
CORPUS = [
    "Hello, where is my order? It ships today and arrives tomorrow. Thank you very much!\n\nBye.",
    "你好,我的订单在哪里?今天发货,明天到达。非常感谢!再见。",
    '{"name": "track", "arguments": {"order": 42}}\n<tool_call>\nassistant\nuser\nsystem [INST] [/INST] USER: ASSISTANT:',
] * 20

CHATML = """\
{%- for message in messages -%}
{%- if message.role == 'assistant' -%}
{{ '<|im_start|>assistant\\n' }}{% generation %}{{ message.content + '<|im_end|>' }}{% endgeneration %}{{ '\\n' }}
{%- else -%}
{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}
"""

LLAMA2 = """\
{%- if messages[0].role == 'system' -%}
{%- set rows = messages[1:] -%}{%- set system = '<<SYS>>\\n' + messages[0].content + '\\n<</SYS>>\\n\\n' -%}
{%- else -%}{%- set rows = messages -%}{%- set system = '' -%}{%- endif -%}
{%- for message in rows -%}
{%- if (message.role == 'user') != (loop.index0 % 2 == 0) -%}
{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}
{%- endif -%}
{%- if message.role == 'user' -%}
{{ bos_token + '[INST] ' + (system if loop.first else '') + message.content.strip() + ' [/INST]' }}
{%- else -%}
{% generation %}{{ ' ' + message.content.strip() + ' ' + eos_token }}{% endgeneration %}
{%- endif -%}
{%- endfor -%}
"""

LLAMA3 = """\
{{- bos_token -}}
{%- for message in messages -%}
{{ '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' }}
{%- if message.role == 'assistant' -%}
{% generation %}{{ message.content | trim + '<|eot_id|>' }}{% endgeneration %}
{%- else -%}
{{ message.content | trim + '<|eot_id|>' }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif -%}
"""

MISTRAL = """\
{{- bos_token -}}
{%- set ns = namespace(last=0) -%}
{%- for message in messages -%}{%- if message.role == 'user' -%}{%- set ns.last = loop.index0 -%}{%- endif -%}{%- endfor -%}
{%- for message in messages -%}
{%- if message.role == 'user' -%}
{%- if tools and loop.index0 == ns.last -%}{{ '[AVAILABLE_TOOLS] ' + (tools | tojson) + '[/AVAILABLE_TOOLS]' }}{%- endif -%}
{{ '[INST] ' + message.content + '[/INST]' }}
{%- elif message.role == 'tool' -%}
{{ '[TOOL_RESULTS] {"content": ' + (message.content | tojson) + '}[/TOOL_RESULTS]' }}
{%- elif message.role == 'assistant' and message.tool_calls -%}
{% generation %}{{ '[TOOL_CALLS] ' }}{%- for call in message.tool_calls -%}{{ call.function | tojson }}{%- endfor -%}{{ eos_token }}{% endgeneration %}
{%- elif message.role == 'assistant' -%}
{% generation %}{{ ' ' + message.content | trim + eos_token }}{% endgeneration %}
{%- else -%}
{{ raise_exception('Only user, tool and assistant roles are supported') }}
{%- endif -%}
{%- endfor -%}
"""

GEMMA = """\
{{- bos_token -}}
{%- for message in messages -%}
{%- if message.role == 'system' -%}{{ raise_exception('System role not supported') }}{%- endif -%}
{%- if message.role == 'assistant' -%}
{{ '<start_of_turn>model\\n' }}{% generation %}{{ message.content | trim + '<end_of_turn>' }}{% endgeneration %}{{ '\\n' }}
{%- else -%}
{{ '<start_of_turn>user\\n' + message.content | trim + '<end_of_turn>\\n' }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<start_of_turn>model\\n' }}{%- endif -%}
"""

PHI3 = """\
{%- for message in messages -%}
{%- if message.role == 'assistant' -%}
{{ '<|assistant|>\\n' }}{% generation %}{{ message.content + '<|end|>' }}{% endgeneration %}{{ '\\n' }}
{%- else -%}
{{ '<|' + message.role + '|>\\n' + message.content + '<|end|>\\n' }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|assistant|>\\n' }}{%- else -%}{{ eos_token }}{%- endif -%}
"""

ZEPHYR = """\
{%- for message in messages -%}
{%- if message.role == 'assistant' -%}
{{ '<|assistant|>\\n' }}{% generation %}{{ message.content + eos_token }}{% endgeneration %}{{ '\\n' }}
{%- else -%}
{{ '<|' + message.role + '|>\\n' + message.content + eos_token + '\\n' }}
{%- endif -%}
{%- if loop.last and add_generation_prompt -%}{{ '<|assistant|>\\n' }}{%- endif -%}
{%- endfor -%}
"""

VICUNA = """\
{{- bos_token -}}
{%- for message in messages -%}
{%- if message.role == 'system' -%}{{ message.content + '\\n\\n' }}
{%- elif message.role == 'user' -%}{{ 'USER: ' + message.content.strip() + '\\n' }}
{%- else -%}{{ 'ASSISTANT:' }}{% generation %}{{ ' ' + message.content.strip() + eos_token }}{% endgeneration %}{{ '\\n' }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ 'ASSISTANT:' }}{%- endif -%}
"""

DEEPSEEK = """\
{{- bos_token -}}
{%- for message in messages -%}
{%- if message.role == 'system' -%}{{ message.content }}
{%- elif message.role == 'user' -%}{{ '<｜User｜>' + message.content }}
{%- else -%}{{ '<｜Assistant｜>' }}{% generation %}{{ message.content + eos_token }}{% endgeneration %}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<｜Assistant｜>' }}{%- endif -%}
"""

QWEN_TOOLS = """\
{%- if tools -%}
{{ '<|im_start|>system\\n' + (messages[0].content if messages[0].role == 'system' else 'You are helpful.') }}
{{- '\\n\\n# Tools\\n\\n<tools>' }}
{%- for tool in tools -%}{{ '\\n' + tool | tojson }}{%- endfor -%}
{{ '\\n</tools><|im_end|>\\n' }}
{%- elif messages[0].role != 'system' -%}
{{ '<|im_start|>system\\nYou are helpful.<|im_end|>\\n' }}
{%- endif -%}
{%- for message in messages -%}
{%- if message.role == 'tool' -%}
{%- if loop.first or messages[loop.index0 - 1].role != 'tool' -%}{{ '<|im_start|>user' }}{%- endif -%}
{{ '\\n<tool_response>\\n' + message.content + '\\n</tool_response>' }}
{%- if loop.last or messages[loop.index0 + 1].role != 'tool' -%}{{ '<|im_end|>\\n' }}{%- endif -%}
{%- elif message.role == 'assistant' -%}
{{ '<|im_start|>assistant\\n' }}{% generation %}{{ message.content }}
{%- for call in message.tool_calls or [] -%}
{{ '\\n' if message.content or not loop.first else '' }}{{ '<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' + call.function.arguments | tojson + '}\\n</tool_call>' }}
{%- endfor -%}
{{ '<|im_end|>' }}{% endgeneration %}{{ '\\n' }}
{%- elif not (tools and loop.first and message.role == 'system') -%}
{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}
"""

THINKING = """\
{%- set ns = namespace(last=0) -%}
{%- for message in messages -%}{%- if message.role == 'user' -%}{%- set ns.last = loop.index0 -%}{%- endif -%}{%- endfor -%}
{%- for message in messages -%}
{%- if message.role == 'assistant' -%}
{%- set thought = message.reasoning_content or '' -%}{%- set text = message.content -%}
{%- if '</think>' in text -%}
{%- set thought = text.split('</think>')[0].split('<think>')[-1].strip('\\n') -%}
{%- set text = text.split('</think>')[-1].lstrip('\\n') -%}
{%- endif -%}
{{ '<|im_start|>assistant\\n' }}{% generation %}
{%- if loop.index0 > ns.last and thought -%}{{ '<think>\\n' + thought + '\\n</think>\\n\\n' }}{%- endif -%}
{{ text + '<|im_end|>' }}{% endgeneration %}{{ '\\n' }}
{%- else -%}
{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}
"""


@dataclass(frozen=True)
class Style:
    """source: with `{% generation %}`.  special: control tokens.  bos, eos: named ones; rstrip: eat what follows."""

    name: str
    source: str
    special: tuple[str, ...]
    eos: str
    bos: str | None = None
    system: bool = True
    calls: bool = False
    rstrip: bool = False
    tags: tuple[str, ...] = ()


IM = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")
STYLES = (
    Style("chatml", CHATML, IM, "<|im_end|>"),
    Style("llama2", LLAMA2, (), "</s>", "<s>"),
    Style(
        "llama3",
        LLAMA3,
        ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        "<|end_of_text|>",
        bos="<|begin_of_text|>",
    ),
    Style(
        "mistral",
        MISTRAL,
        (
            "[INST]",
            "[/INST]",
            "[AVAILABLE_TOOLS]",
            "[/AVAILABLE_TOOLS]",
            "[TOOL_CALLS]",
            "[TOOL_RESULTS]",
            "[/TOOL_RESULTS]",
        ),
        "</s>",
        "<s>",
        system=False,
        calls=True,
    ),
    Style("gemma", GEMMA, ("<start_of_turn>", "<end_of_turn>"), "<eos>", "<bos>", system=False),
    Style("phi3", PHI3, ("<|user|>", "<|assistant|>", "<|system|>", "<|end|>"), "<|endoftext|>", rstrip=True),
    Style("zephyr", ZEPHYR, (), "</s>", "<s>"),
    Style("vicuna", VICUNA, (), "</s>", "<s>"),
    Style(
        "deepseek",
        DEEPSEEK,
        ("<｜User｜>", "<｜Assistant｜>"),
        "<｜end▁of▁sentence｜>",
        "<｜begin▁of▁sentence｜>",
    ),
    Style("qwen_tools", QWEN_TOOLS, IM, "<|im_end|>", calls=True, tags=("<tool_call>", "</tool_call>")),
)
OWN = importlib.resources.files("dialoop.assets") / "dialoop-base" / "chat_template.jinja"


def byte_level(special: tuple[str, ...]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(QWEN2_WORDS), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    options = {"special_tokens": list(special), "initial_alphabet": pre_tokenizers.ByteLevel.alphabet()}
    trainer = trainers.BpeTrainer(vocab_size=700, show_progress=False, **options)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def spaces_as_pieces(special: tuple[str, ...]) -> Tokenizer:
    """As SentencePiece models do: a space is a piece, and one is put before the first word."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=True)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    pieces = ["<unk>", *special, *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(
        vocab_size=900, special_tokens=pieces, show_progress=False, max_token_length=12
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    return tokenizer


def save(
    directory: Path,
    style: Style,
    tokenizer: Callable[[tuple[str, ...]], Tokenizer] = byte_level,
    source: str = "",
) -> Path:
    """A Hugging Face directory of a style."""
    named = tuple(token for token in (style.bos, style.eos) if token and token not in style.special)
    built = tokenizer((*named, *style.special))
    if style.rstrip:
        built.add_special_tokens(
            [AddedToken(token, rstrip=True, normalized=False) for token in style.special]
        )
    built.add_tokens([AddedToken(tag, normalized=False) for tag in style.tags])
    fast = PreTrainedTokenizerFast(tokenizer_object=built, bos_token=style.bos, eos_token=style.eos)
    fast.chat_template = source or style.source
    fast.save_pretrained(directory)
    return directory


def without_generation(source: str) -> str:
    return source.replace("{% generation %}", "").replace("{% endgeneration %}", "")


@dataclass(frozen=True)
class Pair:
    """The same directory, loaded by dialoop and by transformers."""

    style: Style
    ours: ChatTokenizer
    theirs: Any
    marked: bool


@pytest.fixture(scope="session", params=[(s, m) for s in STYLES for m in (True, False)],
                ids=lambda p: f"{p[0].name}-{'marked' if p[1] else 'unmarked'}")  # fmt: skip
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    style, marked = request.param
    source = style.source if marked else without_generation(style.source)
    directory = save(tmp_path_factory.mktemp(style.name), style, source=source)
    return Pair(
        style, ChatTokenizer.load(directory), PreTrainedTokenizerFast.from_pretrained(directory), marked
    )


@pytest.fixture(scope="session")
def own(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """The template of dialoop-base."""
    style = Style("own", OWN.read_text(encoding="utf-8"), IM, "<|im_end|>", calls=True)
    directory = save(tmp_path_factory.mktemp("own"), style)
    return Pair(
        style, ChatTokenizer.load(directory), PreTrainedTokenizerFast.from_pretrained(directory), True
    )


@pytest.fixture(scope="session")
def thinking(tmp_path_factory: pytest.TempPathFactory) -> ChatTokenizer:
    """A template that drops earlier reasoning, unmarked."""
    style = Style("thinking", without_generation(THINKING), IM, "<|im_end|>", tags=("<think>", "</think>"))
    return ChatTokenizer.load(save(tmp_path_factory.mktemp("thinking"), style))


@pytest.fixture(scope="session")
def thinking_marked(tmp_path_factory: pytest.TempPathFactory) -> ChatTokenizer:
    """The same with `{% generation %}`."""
    style = Style("thinking", THINKING, IM, "<|im_end|>", tags=("<think>", "</think>"))
    return ChatTokenizer.load(save(tmp_path_factory.mktemp("thinking_marked"), style))


@pytest.fixture(scope="session")
def spaced(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """Llama 2's template on a tokenizer that puts a space before the first word."""
    style = next(s for s in STYLES if s.name == "llama2")
    directory = save(tmp_path_factory.mktemp("spaced"), style, spaces_as_pieces)
    return Pair(
        style, ChatTokenizer.load(directory), PreTrainedTokenizerFast.from_pretrained(directory), True
    )


TRACK = Tool("track", "Find a parcel", {"type": "object", "properties": {"order": {"type": "integer"}}})
DIALOGUES = {
    "one turn": [("user", "Where is my order?"), ("assistant", "It ships today.")],
    "many turns": [
        ("user", "Hello!"), ("assistant", "Hi. How can I help?"),
        ("user", "Order 42 is late :("), ("assistant", "I am sorry. It arrives tomorrow, I promise."),
        ("user", "Thanks"), ("assistant", "Bye"),
    ],
    "system": [("system", "Be brief.\nBe kind."), ("user", "Refund?"), ("assistant", "Yes, in 3 days.")],
    "Chinese": [("user", "你好,我的订单在哪里?"), ("assistant", "今天发货,明天到达。"), ("user", "谢谢"), ("assistant", "再见!")],
    "emoji": [("user", "👩‍👩‍👧‍👦 love it 🇨🇳"), ("assistant", "🙂🙂 great é\u0301 𝒳")],
    "code": [("user", "a < b && c > d\n\n\tx = {'k': \"v\"}"), ("assistant", "```py\nx = 1\n```\n\n- one\n- two")],
    "ends with the user": [("user", "Hi"), ("assistant", "Hello"), ("user", "Order 7?")],
}  # fmt: skip


def dialogue(turns: list[tuple[str, str]]) -> Conversation:
    return Conversation(tuple(Message(role, content) for role, content in turns))  # type: ignore[arg-type]


@pytest.fixture(params=list(DIALOGUES))
def plain(request: pytest.FixtureRequest, pair: Pair) -> Conversation:
    """A plain dialogue that the style can hold."""
    if request.param == "system" and not pair.style.system:
        pytest.skip("the style has no system turn")
    return dialogue(DIALOGUES[request.param])


@pytest.fixture
def with_call() -> Conversation:
    """Two calls in one turn, their results, an answer."""
    calls = (
        ToolCall("callabc01", "track", '{"order": 42}'),
        ToolCall("callabc02", "track", '{"order": 7, "注": "急"}'),
    )
    return Conversation(
        (
            Message("user", "Where are 42 and 7?"),
            Message("assistant", "", tool_calls=calls),
            Message("tool", "on its way", tool_call_id="callabc01"),
            Message("tool", '{"状态": "lost"}', tool_call_id="callabc02"),
            Message("assistant", "42 is on its way, 7 is lost."),
        ),
        tools=(TRACK,),
    )
