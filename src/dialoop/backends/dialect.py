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
_PARAMS = {
    "grammar": "response_format", "include_stop": "include_stop_str_in_output",
    "token_ids": "return_token_ids",
}  # fmt: skip
_TEMPLATE = frozenset({
    "chat_template_kwargs", "add_generation_prompt", "continue_final_message", "reasoning_effort",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Dialect:
    """One kind of upstream.

    takes: fields of Sampling.  names: its word for a field, where it is not ours.  stated: fields that are
    always sent, since its own defaults are other ones.  fixed: sent with every request.
    whole: fields that it knows in answers that are not streamed alone.  grammars: kinds that it can keep to.
    developer: it knows that role.  reasoning: it takes back what a model thought.  seeds: how many it tells
    apart.  extras: what it takes of a request besides, in its own words.
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
    extras: frozenset[str] = frozenset()


DIALECTS: Mapping[UpstreamKind, Dialect] = {
    "openai": Dialect(
        _OPENAI, names={"max_tokens": "max_completion_tokens"}, developer=True, reasoning=False,
        extras=frozenset({"required", "named", "custom", "parallel_tool_calls", "prediction",
                          "reasoning_effort", "verbosity"}),
    ),
    "vllm": Dialect(
        _OPENAI | {"top_k", "min_p", "repetition_penalty", "stop_token_ids", "min_tokens", "ignore_eos",
                   "prompt_logprobs", "bad_words", "allowed_token_ids", "include_stop", "token_ids"},
        names={"include_stop": "include_stop_str_in_output", "token_ids": "return_token_ids"},
        extras=_TEMPLATE | {"required", "named", "parallel_tool_calls", "documents", "priority"},
        stated=("temperature", "top_p", "top_k", "min_p", "repetition_penalty"),
        whole=frozenset({"prompt_logprobs"}),
        grammars=("json_schema", "choice", "regex", "lark"),
    ),
    # llama.cpp counts one answer of several in its usage, so that it is asked for one alone.
    "llama.cpp": Dialect(
        (_OPENAI - {"n"}) | {"top_k", "min_p", "typical_p", "repetition_penalty", "ignore_eos"},
        names={"repetition_penalty": "repeat_penalty"},
        stated=("temperature", "top_p", "top_k", "min_p", "typical_p", "repetition_penalty"),
        # Our order of the filters, and penalties over all that a context usually holds: it refuses -1.
        fixed={
            "samplers": ["penalties", "temperature", "top_k", "top_p", "min_p", "typ_p"],
            "repeat_last_n": 32768,
        },
        grammars=("json_schema", "choice"),
        seeds=2**32 - 1,
        # A named tool means `auto` to it: the one tool, and it must be called.
        extras=_TEMPLATE | {"required", "parallel_tool_calls"},
    ),
    "ollama": Dialect(
        _OPENAI - {"n", "logit_bias"}, stated=("temperature", "top_p"), extras=frozenset({"reasoning_effort"})
    ),
    "dialoop": Dialect(
        frozenset(each.name for each in fields(Sampling)),
        names={"include_stop": "include_stop_str_in_output", "token_ids": "return_token_ids"},
        extras=_TEMPLATE | {"required", "named", "custom", "parallel_tool_calls", "documents", "priority",
                            "prediction", "verbosity"},
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
        **_tools(request, kind),
        **_prompting(request, kind),
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


def _tools(request: ChatRequest, kind: UpstreamKind) -> dict[str, Any]:
    """Where only some may be called, only those are offered: not every upstream has a word for it."""
    tools, choice, extras = request.conversation.tools, request.choice, DIALECTS[kind].extras
    if not tools:
        return {}
    if choice.names:
        tools = tuple(tool for tool in tools if tool.name in choice.names)
    if any(tool.kind == "custom" for tool in tools) and "custom" not in extras:
        raise _lacks("tools", kind)
    told: dict[str, Any] = {"tools": [tool_to_openai(tool) for tool in tools]}
    if choice.mode == "required" and "required" not in extras:
        raise _lacks("tool_choice", kind)
    if choice.mode == "required" and len(choice.names) == 1 and "named" in extras:
        told["tool_choice"] = {"type": tools[0].kind, tools[0].kind: {"name": tools[0].name}}
    elif choice.mode != "auto":
        told["tool_choice"] = choice.mode
    if not choice.parallel:
        if "parallel_tool_calls" not in extras:
            raise _lacks("parallel_tool_calls", kind)
        told["parallel_tool_calls"] = False
    return told


def _prompting(request: ChatRequest, kind: UpstreamKind) -> dict[str, Any]:
    """How the prompt is made, and the like. A prediction changes the speed alone: some go without."""
    how, extras = request.prompting, DIALECTS[kind].extras
    wishes = dict(how.wishes)
    told: dict[str, Any] = {
        name: wishes.pop(name, None) for name in ("reasoning_effort", "verbosity") if name in extras
    }
    # What else follows from the effort is for templates: whoever knows the effort itself has no need of it.
    template = "chat_template_kwargs" in extras and "verbosity" not in extras
    told |= {
        "reasoning_effort": told.get("reasoning_effort") or wishes.get("reasoning_effort"),
        "verbosity": told.get("verbosity") or (None if template else wishes.get("verbosity")),
        "chat_template_kwargs": {**(wishes if template else {}), **how.variables} or None,
        "add_generation_prompt": None if how.answering and not how.continued else False,
        "continue_final_message": how.continued or None,
        "documents": list(how.documents) or None,
        "priority": request.priority or None,
    }
    told = {name: value for name, value in told.items() if value is not None}
    for name in told.keys() - extras:
        raise _lacks(name, kind)
    if request.prediction and "prediction" in extras:
        told["prediction"] = {"type": "content", "content": request.prediction}
    return told


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


def _logit_bias(asked: Sampling, kind: UpstreamKind) -> dict[str, Any]:
    """llama.cpp may take the keys of an object for texts; pairs are ids to it."""
    pairs = [[token, bias] for token, bias in asked.logit_bias]
    return {"logit_bias": pairs if kind == "llama.cpp" else {str(token): bias for token, bias in pairs}}


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
    "logit_bias": _logit_bias,
    "stop_token_ids": lambda asked, kind: {"stop_token_ids": list(asked.stop_token_ids)},
    "bad_words": lambda asked, kind: {"bad_words": list(asked.bad_words)},
    "allowed_token_ids": lambda asked, kind: {"allowed_token_ids": list(asked.allowed_token_ids)},
    "logprobs": _logprobs,
    "processed_logprobs": lambda asked, kind: {"logprobs_mode": "processed_logprobs"},
    "grammar": _format,
}
