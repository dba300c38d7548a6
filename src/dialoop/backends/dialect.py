"""What each kind of upstream takes of a request, and in which words. What it cannot do is refused.

Read in vLLM 0.32, llama.cpp (2026-10), Ollama 0.40 and OpenAI's document of 2026-08.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from dialoop.backends.upstream import UpstreamKind
from dialoop.chat.wire import message_to_openai, tool_to_openai
from dialoop.errors import RequestError, UnsupportedError
from dialoop.types import ChatRequest, Grammar, Message, Sampling

_USUAL = Sampling()
_OPENAI = frozenset({
    "temperature", "top_p", "max_tokens", "stop", "seed", "n", "presence_penalty", "frequency_penalty",
    "logit_bias", "logprobs", "grammar",
})  # fmt: skip
_PARAMS = {"grammar": "response_format"}


@dataclass(frozen=True, slots=True)
class Dialect:
    """One kind of upstream.

    takes: fields of Sampling.  names: its word for a field, where it is not ours.  stated: fields that are
    always sent, since its own defaults are other ones.  fixed: sent with every request.
    whole: fields that it knows in answers that are not streamed alone.  grammars: kinds that it can keep to.
    developer: it knows that role.  seeds: how many it tells apart.
    """

    takes: frozenset[str]
    names: Mapping[str, str] = field(default_factory=dict)
    stated: tuple[str, ...] = ()
    fixed: Mapping[str, Any] = field(default_factory=dict)
    whole: frozenset[str] = frozenset()
    grammars: tuple[str, ...] = ("json_schema",)
    developer: bool = False
    reasoning: bool = True
    seeds: int = 2**64


DIALECTS: Mapping[UpstreamKind, Dialect] = {
    "openai": Dialect(
        _OPENAI, names={"max_tokens": "max_completion_tokens"}, developer=True, reasoning=False
    ),
    "vllm": Dialect(
        _OPENAI | {"top_k", "min_p", "repetition_penalty", "stop_token_ids", "min_tokens", "ignore_eos",
                   "prompt_logprobs"},
        stated=("temperature", "top_p", "top_k", "min_p", "repetition_penalty"),
        whole=frozenset({"prompt_logprobs"}),
        grammars=("json_schema", "choice", "regex", "lark"),
    ),
    "llama.cpp": Dialect(
        _OPENAI | {"top_k", "min_p", "typical_p", "repetition_penalty", "ignore_eos"},
        names={"repetition_penalty": "repeat_penalty"},
        stated=("temperature", "top_p", "top_k", "min_p", "typical_p", "repetition_penalty"),
        # Our order of the filters, and penalties over the whole of the text.
        fixed={
            "samplers": ["penalties", "temperature", "top_k", "top_p", "min_p", "typ_p"],
            "repeat_last_n": -1,
        },
        grammars=("json_schema", "choice"),
        seeds=2**32 - 1,
    ),
    "ollama": Dialect(_OPENAI - {"n", "logit_bias"}, stated=("temperature", "top_p")),
    "dialoop": Dialect(
        frozenset(each.name for each in fields(Sampling)),
        whole=frozenset({"best_of", "prompt_logprobs"}),
        grammars=("json_schema", "choice", "regex", "lark"),
        developer=True,
    ),
}  # fmt: skip


def body_of(request: ChatRequest, model: str, kind: UpstreamKind) -> dict[str, Any]:
    """The body of POST /chat/completions at an upstream. Raises UnsupportedError for what it cannot do."""
    dialect, asked = DIALECTS[kind], request.sampling
    if asked.made == asked.n:
        asked = replace(asked, best_of=None)
    changed = [each.name for each in fields(Sampling) if _said(asked, each.name)]
    for name in changed:
        _check(name, asked, kind)
    streamed = dialect.whole.isdisjoint(changed)
    conversation = request.conversation
    return {
        "model": model,
        "messages": [_message(each, i, kind) for i, each in enumerate(conversation.messages)],
        **({"tools": [tool_to_openai(tool) for tool in conversation.tools]} if conversation.tools else {}),
        **_sampling(asked, changed, kind),
        **dialect.fixed,
        "stream": streamed,
        **({"stream_options": {"include_usage": True}} if streamed else {}),
    }


def _said(asked: Sampling, name: str) -> bool:
    return bool(getattr(asked, name) != getattr(_USUAL, name))


def _check(name: str, asked: Sampling, kind: UpstreamKind) -> None:
    dialect = DIALECTS[kind]
    if name not in dialect.takes:
        raise _lacks(_PARAMS.get(name, name), kind)
    grammar = asked.grammar
    if name == "grammar" and grammar is not None and grammar.kind not in dialect.grammars:
        raise UnsupportedError(
            f"structured_outputs: an upstream of kind {kind} keeps to {' or '.join(dialect.grammars)} only, "
            f"not to {grammar.kind}: ask for one of these, or another model",
            param="structured_outputs",
        )


def _lacks(param: str, kind: UpstreamKind) -> UnsupportedError:
    return UnsupportedError(
        f"{param}: this model lies at an upstream of kind {kind}, which does not know it: leave it out, or "
        f"ask another model",
        param=param,
    )


def _message(message: Message, index: int, kind: UpstreamKind) -> dict[str, Any]:
    dialect = DIALECTS[kind]
    if message.reasoning and not dialect.reasoning:
        raise _lacks(f"messages[{index}].reasoning_content", kind)
    role = "system" if message.role == "developer" and not dialect.developer else message.role
    return message_to_openai(replace(message, role=role, weight=None))


def _sampling(asked: Sampling, changed: list[str], kind: UpstreamKind) -> dict[str, Any]:
    dialect = DIALECTS[kind]
    asked, named = _as_it_can(asked, kind), dict.fromkeys((*dialect.stated, *changed))
    written: dict[str, Any] = {}
    for name in named:
        write = _WRITERS.get(name)
        written |= write(asked, kind) if write else {dialect.names.get(name, name): getattr(asked, name)}
    return written


def _as_it_can(asked: Sampling, kind: UpstreamKind) -> Sampling:
    """The same distribution, in numbers that an upstream takes.

    vLLM takes neither a top_p of 0 nor several answers at temperature 0; both are a top_k of 1.
    """
    if kind not in ("vllm", "llama.cpp"):
        return asked
    if asked.top_p == 0 or (asked.temperature == 0 and asked.made > 1):
        return replace(asked, temperature=asked.temperature or 1.0, top_p=asked.top_p or 1.0, top_k=1)
    return asked


def _seed(asked: Sampling, kind: UpstreamKind) -> dict[str, Any]:
    assert asked.seed is not None
    seeds = DIALECTS[kind].seeds
    return {"seed": asked.seed if seeds == 2**64 else asked.seed % seeds}


def _logprobs(asked: Sampling, kind: UpstreamKind) -> dict[str, Any]:
    """llama.cpp tells none at all for 0."""
    return {"logprobs": True, "top_logprobs": max(asked.logprobs or 0, 1 if kind == "llama.cpp" else 0)}


def _format(asked: Sampling, kind: UpstreamKind) -> dict[str, Any]:
    grammar = asked.grammar
    assert grammar is not None
    if grammar.kind == "json_schema":
        return _json_format(json.loads(grammar.text))
    if kind == "llama.cpp":
        return {"grammar": _gbnf(grammar)}
    name = "grammar" if grammar.kind == "lark" else grammar.kind
    return {
        "structured_outputs": {name: json.loads(grammar.text) if grammar.kind == "choice" else grammar.text}
    }


def _json_format(schema: Mapping[str, Any]) -> dict[str, Any]:
    if schema == {"type": "object"}:
        return {"response_format": {"type": "json_object"}}
    told = {"name": "answer", "schema": schema, "strict": True}
    return {"response_format": {"type": "json_schema", "json_schema": told}}


def _gbnf(grammar: Grammar) -> str:
    """One of the choices, in llama.cpp's own grammar; JSON's escapes are its escapes."""
    choices = json.loads(grammar.text)
    if not all(choice.isprintable() for choice in choices):
        raise RequestError(
            "structured_outputs.choice holds control characters, which llama.cpp's grammars do not: "
            "leave them out",
            param="structured_outputs",
        )
    return "root ::= " + " | ".join(json.dumps(choice, ensure_ascii=False) for choice in choices)


_WRITERS: Mapping[str, Any] = {
    "stop": lambda asked, kind: {"stop": list(asked.stop)},
    "seed": _seed,
    "logit_bias": lambda asked, kind: {"logit_bias": {str(t): bias for t, bias in asked.logit_bias}},
    "stop_token_ids": lambda asked, kind: {"stop_token_ids": list(asked.stop_token_ids)},
    "logprobs": _logprobs,
    "processed_logprobs": lambda asked, kind: {"logprobs_mode": "processed_logprobs"},
    "grammar": _format,
}
