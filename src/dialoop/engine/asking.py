"""What a request becomes before a core answers it: token ids, and how its answers are told."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

from dialoop.chat.callgrammar import Spelt, call_grammar
from dialoop.chat.parse import CallParser, Said
from dialoop.chat.render import render_prompt
from dialoop.chat.think import ThinkParser
from dialoop.chat.tokenizer import ChatTokenizer
from dialoop.errors import ContextLengthError, RequestError
from dialoop.types import (
    CallDelta,
    ChatRequest,
    CompleteRequest,
    Conversation,
    Delta,
    Sampling,
    Tool,
)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request in token ids.

    prediction, shown: as for `Answering`.  tools: that answers may call.  reasons: answers may think first.
    thinking: the prompt ends within what is thought.
    """

    prompt: tuple[int, ...]
    sampling: Sampling
    prediction: tuple[int, ...] = ()
    shown: frozenset[int] = frozenset()
    tools: tuple[Tool, ...] = ()
    reasons: bool = False
    thinking: bool = False


def asked_to_chat(request: ChatRequest, tokenizer: ChatTokenizer, context: int) -> Asked:
    """Raises RenderError, ContextLengthError or RequestError."""
    conversation, sampling = _offered(request), request.sampling
    prompt = prompt_of(request, tokenizer)
    _check(prompt, sampling, context, tokenizer.vocab_size)
    style, shown = tokenizer.call_style, frozenset[int]()
    if conversation.tools:
        if style.opener and (marker := tokenizer.special_id(style.opener)) is not None:
            shown = frozenset({marker})
        grammar = call_grammar(style, conversation.tools, request.choice, sampling.grammar, _spelt(tokenizer))
        sampling = replace(sampling, grammar=grammar)
    # What is bound from its first token on has no room for thoughts.
    bound = request.sampling.grammar is not None or (conversation.tools and request.choice.mode == "required")
    reasons = not bound and tokenizer.template.shows("</think>")
    opened = reasons and tokenizer.decode(prompt[-16:]).rstrip().endswith("<think>")
    names = request.choice.names
    tools = tuple(tool for tool in conversation.tools if not names or tool.name in names)
    predicted = tuple(tokenizer.encode(request.prediction))
    return Asked(prompt, sampling, predicted, shown, tools, reasons, opened)


def asked_to_complete(request: CompleteRequest, tokenizer: ChatTokenizer, context: int) -> Asked:
    """Raises ContextLengthError or RequestError."""
    text = request.prompt
    prompt = tokenizer.encode_text(text) if isinstance(text, str) else tuple(text)
    if not prompt:
        raise RequestError("prompt is empty: give some text", param="prompt")
    check_ids("prompt", prompt, tokenizer.vocab_size)
    _check(prompt, request.sampling, context, tokenizer.vocab_size, param="prompt")
    return Asked(prompt, request.sampling, tuple(tokenizer.encode(request.prediction)))


def prompt_of(request: ChatRequest, tokenizer: ChatTokenizer) -> tuple[int, ...]:
    """The ids that a model is asked to continue. Raises RenderError or RequestError."""
    return render_prompt(_offered(request), tokenizer, request.prompting)


def _offered(request: ChatRequest) -> Conversation:
    """Tools that may not be called are not shown."""
    return replace(request.conversation, tools=()) if request.choice.mode == "none" else request.conversation


def _spelt(tokenizer: ChatTokenizer) -> Spelt:
    def spelt(marker: str) -> str:
        token = tokenizer.special_id(marker)
        return json.dumps(marker) if token is None else f"<[{token}]>"

    return spelt


def _check(
    prompt: Sequence[int], sampling: Sampling, context: int, vocabulary: int, param: str = "messages"
) -> None:
    check_length(prompt, context, param)
    check_ids("logit_bias", [token for token, _ in sampling.logit_bias], vocabulary)
    check_ids("stop_token_ids", sampling.stop_token_ids, vocabulary)
    check_ids("allowed_token_ids", sampling.allowed_token_ids, vocabulary)


def check_length(ids: Sequence[int], context: int, param: str = "messages") -> None:
    """Raises ContextLengthError."""
    if len(ids) > context:
        raise ContextLengthError(len(ids), context, param=param)


def check_ids(field: str, ids: Sequence[int], vocabulary: int) -> None:
    """Raises RequestError where a request names a token that the model does not have."""
    strange = next((token for token in ids if not 0 <= token < vocabulary), None)
    if strange is not None:
        raise RequestError(
            f"{field}: token {strange} does not exist: the model's tokens are 0 to {vocabulary - 1}",
            param=field,
        )


class Telling:
    """Turns a core's deltas of one request into what is thought, said and called."""

    def __init__(self, asked: Asked, request: ChatRequest, tokenizer: ChatTokenizer) -> None:
        self._asked = asked
        self._request = request
        self._style = tokenizer.call_style
        self._thoughts: dict[int, ThinkParser] = {}
        self._calls: dict[int, CallParser] = {}
        self._tokenizer = tokenizer
        self._thought: dict[int, str] = {}

    def told(self, delta: Delta) -> Delta | None:
        """None where nothing of it is certain yet."""
        if not (self._asked.tools or self._asked.reasons):
            return delta
        reasoning, text = self._split(delta)
        text, calls = self._called(delta, text)
        parser = self._calls.get(delta.index)
        reason, usage = delta.finish_reason, delta.usage
        if reason == "stop" and parser and parser.calls and not self._named:
            reason = "tool_calls"
        if usage is not None and self._thought:
            # Counted as the thoughts would be encoded; the model may have cut them otherwise.
            tokens = sum(len(self._tokenizer.encode(thought)) for thought in self._thought.values())
            usage = replace(usage, reasoning_tokens=min(tokens, usage.completion_tokens))
        new = replace(delta, text=text, reasoning=reasoning, calls=calls, finish_reason=reason, usage=usage)
        told = (text, reasoning, calls, reason, new.logprobs, new.token_ids)
        return new if any(told) or new.prompt_logprobs or new.prompt_ids else None

    @property
    def _named(self) -> bool:
        """A call that was asked for by name ends with `stop`, as at OpenAI."""
        choice = self._request.choice
        return choice.mode == "required" and len(choice.names) == 1 and not choice.parallel

    def _split(self, delta: Delta) -> tuple[str, str]:
        if not self._asked.reasons:
            return "", delta.text
        parser = self._thoughts.setdefault(delta.index, ThinkParser(inside=self._asked.thinking))
        reasoning, text = parser.push(delta.text)
        if delta.finish_reason is not None:
            last = parser.flush()
            reasoning, text = reasoning + last[0], text + last[1]
        if reasoning:
            self._thought[delta.index] = self._thought.get(delta.index, "") + reasoning
        return reasoning, text

    def _called(self, delta: Delta, text: str) -> tuple[str, tuple[CallDelta, ...]]:
        if not self._asked.tools:
            return text, ()
        parser = self._calls.setdefault(delta.index, CallParser(self._style, self._asked.tools))
        pieces = parser.push(text) + (parser.flush() if delta.finish_reason else [])
        calls = [each for each in pieces if isinstance(each, CallDelta)]
        if not self._request.choice.parallel:
            calls = [each for each in calls if each.index == 0]
        return "".join(each.text for each in pieces if isinstance(each, Said)), tuple(calls)
