"""Our answers -> OpenAI's bodies and chunks of chat completions."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dialoop.chat.wire import call_to_openai
from dialoop.store.identity import new_id
from dialoop.types import Answer, CallDelta, Delta, RankedLogprob, Served, TokenLogprob, ToolCall, Usage

PADDED = 32
"""Bytes to a multiple of which a chunk's text is padded where that is asked for."""


@dataclass(frozen=True, slots=True)
class Reply:
    """The identity of one response; makes its body or its chunks.

    logprobs, token_ids: they were asked for.  echo: what each answer begins with.  older: calls are told as
    `function_call`.  metadata: of the request.  padded: chunks hide the size of their text.
    """

    model: str
    logprobs: bool = False
    echo: str = ""
    older: bool = False
    token_ids: bool = False
    metadata: Mapping[str, str] = field(default_factory=dict)
    padded: bool = False
    id: str = field(default_factory=lambda: new_id("chatcmpl"))
    created: int = field(default_factory=lambda: int(time.time()))

    def completion(self, answers: tuple[Answer, ...]) -> dict[str, Any]:
        """The body of a response that is not streamed."""
        told = prompt_to_openai(answers[0].prompt_logprobs)
        return {
            **self._head("chat.completion"),
            "choices": [self._choice(index, answer) for index, answer in enumerate(answers)],
            "usage": usage_to_openai(answers[0].usage),
            **({"metadata": dict(self.metadata)} if self.metadata else {}),
            **({"prompt_logprobs": told} if told else {}),
            **({"prompt_token_ids": list(answers[0].prompt_ids)} if self.token_ids else {}),
        }

    def _choice(self, index: int, answer: Answer) -> dict[str, Any]:
        return {
            "index": index,
            "message": self.message(answer),
            "logprobs": self._told(answer.logprobs),
            "finish_reason": self._reason(answer.finish_reason),
            **({"token_ids": list(answer.token_ids)} if self.token_ids else {}),
        }

    def message(self, answer: Answer) -> dict[str, Any]:
        """The assistant's message; content is null where an answer calls and says nothing."""
        text = self.echo + answer.text
        said = None if answer.calls and not text else text
        return {
            "role": "assistant", "content": said, "refusal": None, "annotations": [],
            **_thoughts(answer.reasoning), **self._calls(answer.calls),
        }  # fmt: skip

    def _calls(self, calls: tuple[ToolCall, ...]) -> dict[str, Any]:
        if not calls:
            return {}
        if self.older:
            return {"function_call": {"name": calls[0].name, "arguments": calls[0].arguments}}
        return {"tool_calls": [call_to_openai(call) for call in calls]}

    def _reason(self, reason: str | None) -> str | None:
        return "function_call" if self.older and reason == "tool_calls" else reason

    def opening(self, index: int, delta: Delta) -> dict[str, Any]:
        """The first chunk of an answer, whose first delta is `delta`: its role, and what it begins with."""
        chunk = self._chunk(index, {"role": "assistant", "content": self.echo, "refusal": None}, None)
        return chunk | ({"prompt_token_ids": list(delta.prompt_ids)} if delta.prompt_ids else {})

    def chunks(self, delta: Delta) -> list[dict[str, Any]]:
        """What a delta thinks, says and calls, and its end: a chunk each."""
        parts: list[dict[str, Any]] = []
        if delta.reasoning:
            parts.append(_thoughts(delta.reasoning))
        if delta.text:
            parts.append({"content": delta.text})
        if delta.calls:
            parts.append(self._call_deltas(delta.calls))
        if not parts and (delta.logprobs or delta.token_ids):
            parts.append({"content": ""})
        chunks = [self._chunk(delta.index, part, None) for part in parts]
        if chunks:
            choice = chunks[0]["choices"][0]
            choice["logprobs"] = self._told(delta.logprobs) if delta.logprobs else None
            choice |= {"token_ids": list(delta.token_ids)} if self.token_ids else {}
        end = [self._chunk(delta.index, {}, self._reason(delta.finish_reason))] if delta.finish_reason else []
        return chunks + end

    def _call_deltas(self, calls: tuple[CallDelta, ...]) -> dict[str, Any]:
        if self.older:
            names = [{"name": each.name} for each in calls if each.name]
            return {
                "function_call": {
                    **(names[0] if names else {}),
                    "arguments": "".join(c.arguments for c in calls),
                }
            }
        return {"tool_calls": [_call_delta(each) for each in calls]}

    def usage(self, usage: Usage) -> dict[str, Any]:
        """The last chunk of a stream with include_usage."""
        return {**self._head("chat.completion.chunk"), "choices": [], "usage": usage_to_openai(usage)}

    def _chunk(self, index: int, delta: Mapping[str, Any], finish_reason: str | None) -> dict[str, Any]:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return {**self._head("chat.completion.chunk"), "choices": [choice], **self._padding(delta)}

    def _padding(self, delta: Mapping[str, Any]) -> dict[str, str]:
        if not self.padded:
            return {}
        missing = -len(str(delta).encode()) % PADDED
        return {"obfuscation": secrets.token_hex(PADDED)[:missing]}

    def _told(self, logprobs: tuple[TokenLogprob, ...]) -> dict[str, Any] | None:
        if not self.logprobs:
            return None
        content = [
            {**_token(each), "top_logprobs": [_token(other) for other in each.top]} for each in logprobs
        ]
        return {"content": content, "refusal": None}

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "service_tier": "default",
            "system_fingerprint": None,
        }


def _thoughts(reasoning: str) -> dict[str, str]:
    """Under both names that clients look for."""
    return {"reasoning_content": reasoning, "reasoning": reasoning} if reasoning else {}


def _call_delta(piece: CallDelta) -> dict[str, Any]:
    body = {"input" if piece.kind == "custom" else "arguments": piece.arguments}
    if piece.id is None:
        return {"index": piece.index, piece.kind: body}
    return {
        "index": piece.index,
        "id": piece.id,
        "type": piece.kind,
        piece.kind: {"name": piece.name, **body},
    }


def _token(told: TokenLogprob) -> dict[str, Any]:
    """OpenAI's floor for what is next to impossible is -9999."""
    text = told.data.decode("utf-8", "replace")
    return {"token": text, "logprob": max(told.logprob, -9999.0), "bytes": list(told.data)}


def prompt_to_openai(places: tuple[tuple[RankedLogprob, ...], ...]) -> list[dict[str, Any] | None]:
    """vLLM's extension: for each token of the prompt {token id: {logprob, rank, decoded_token}}."""
    return [{str(each.token_id): _ranked(each) for each in place} or None for place in places]


def _ranked(each: RankedLogprob) -> dict[str, Any]:
    text = each.data.decode("utf-8", "replace")
    return {"logprob": max(each.logprob, -9999.0), "rank": each.rank, "decoded_token": text}


def usage_to_openai(usage: Usage) -> dict[str, Any]:
    """Usage with OpenAI's detail objects."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning_tokens,
            "audio_tokens": 0,
            "accepted_prediction_tokens": usage.accepted_tokens,
            "rejected_prediction_tokens": usage.rejected_tokens,
        },
    }


def model_to_openai(served: Served) -> dict[str, Any]:
    """A row of /v1/models; max_model_len is vLLM's extension."""
    return {
        "id": served.name,
        "object": "model",
        "created": served.created,
        "owned_by": served.owner,
        "max_model_len": served.context or None,
    }
