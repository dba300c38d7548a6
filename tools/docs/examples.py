# ruff: noqa: E501  (rows are easier to read unbroken)
"""A request for each parameter that works, and one that is refused; tests send them all."""

from __future__ import annotations

from typing import Any

_TOOL = {
    "type": "function",
    "function": {"name": "track", "parameters": {"type": "object", "properties": {}}},
}
_FUNCTION = {"name": "track"}
_HI = [{"role": "user", "content": "Hi"}]
_SCHEMA = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
_OPEN = [*_HI, {"role": "assistant", "content": "Hello"}]

Fields = dict[str, Any]
CHAT: dict[str, tuple[Fields, Fields]] = {
    "model": ({"model": "dialoop-base"}, {"model": 4}),
    "messages": ({"messages": _HI}, {"messages": []}),
    "prompt": ({"prompt": {"id": "translate", "variables": {"into": "en"}}}, {"prompt": {"id": "translat"}}),
    "temperature": ({"temperature": 0.7}, {"temperature": 2.1}),
    "top_p": ({"top_p": 0.9}, {"top_p": 1.01}),
    "max_completion_tokens": ({"max_completion_tokens": 8}, {"max_completion_tokens": 0}),
    "max_tokens": ({"max_tokens": 8}, {"max_tokens": 0}),
    "stop": ({"stop": ["\n", "。"]}, {"stop": ["a", "b", "c", "d", "e"]}),
    "seed": ({"seed": 7}, {"seed": 1.5}),
    "n": ({"n": 2}, {"n": 129}),
    "best_of": ({"best_of": 2}, {"best_of": 1, "n": 2}),
    "presence_penalty": ({"presence_penalty": 0.5}, {"presence_penalty": 2.1}),
    "frequency_penalty": ({"frequency_penalty": 0.5}, {"frequency_penalty": -2.1}),
    "logit_bias": ({"logit_bias": {"42": -100}}, {"logit_bias": {"42": 101}}),
    "logprobs": ({"logprobs": True}, {"logprobs": 3}),
    "top_logprobs": ({"logprobs": True, "top_logprobs": 2}, {"top_logprobs": 2}),
    "logprobs_mode": ({"logprobs": True, "logprobs_mode": "processed_logprobs"}, {"logprobs_mode": "raw"}),
    "prompt_logprobs": ({"prompt_logprobs": 1}, {"prompt_logprobs": 21}),
    "tools": ({"tools": [_TOOL]}, {"tools": [_TOOL, _TOOL]}),
    "tool_choice": ({"tools": [_TOOL], "tool_choice": "required"}, {"tool_choice": "required"}),
    "parallel_tool_calls": ({"tools": [_TOOL], "parallel_tool_calls": False}, {"parallel_tool_calls": 1}),
    "functions": ({"functions": [_FUNCTION]}, {"functions": [_FUNCTION], "tools": [_TOOL]}),
    "function_call": (
        {"functions": [_FUNCTION], "function_call": {"name": "track"}},
        {"functions": [_FUNCTION], "function_call": {"name": "trek"}},
    ),
    "reasoning_effort": ({"reasoning_effort": "low"}, {"reasoning_effort": "huge"}),
    "verbosity": ({"verbosity": "low"}, {"verbosity": "none"}),
    "chat_template_kwargs": (
        {"chat_template_kwargs": {"enable_thinking": False}}, {"chat_template_kwargs": {"shout": True}},
    ),
    "add_generation_prompt": ({"add_generation_prompt": False}, {"add_generation_prompt": 0}),
    "continue_final_message": ({"messages": _OPEN, "continue_final_message": True}, {"continue_final_message": True}),
    "documents": ({"documents": []}, {"documents": [{"text": "Returns take 30 days."}]}),
    "echo": ({"messages": _OPEN, "continue_final_message": True, "echo": True}, {"echo": 1}),
    "response_format": ({"response_format": {"type": "json_object"}}, {"response_format": {"type": "json_schema"}}),
    "structured_outputs": ({"structured_outputs": {"choice": ["yes", "no"]}}, {"structured_outputs": {"regex": "[a-"}}),
    "guided_json": ({"guided_json": _SCHEMA}, {"guided_json": {"type": "objekt"}}),
    "guided_regex": ({"guided_regex": "[A-C]{3}"}, {"guided_regex": "[a-"}),
    "guided_choice": ({"guided_choice": ["yes", "no"]}, {"guided_choice": []}),
    "guided_grammar": ({"guided_grammar": 'start: "yes" | "no"'}, {"guided_grammar": "start: nothing"}),
    "stream": ({"stream": True}, {"stream": "yes"}),
    "stream_options": ({"stream": True, "stream_options": {"include_usage": True}}, {"stream_options": {}}),
    "prediction": ({"prediction": {"type": "content", "content": "Hello"}}, {"prediction": {"type": "content"}}),
    "priority": ({"priority": -1}, {"priority": 9}),
    "metadata": ({"metadata": {"shop": "42"}}, {"metadata": {"shop": 42}}),
    "store": ({"store": False}, {"store": 1}),
    "user": ({"user": "u-1"}, {"user": 1}),
    "moderation": (
        {"moderation": {"model": "omni-moderation-latest", "policy": {"output": {"mode": "block"}}}},
        {"moderation": {"model": "omni-moderation-latest", "policy": {"output": {"mode": "mask"}}}},
    ),
    "safety_identifier": ({"safety_identifier": "u-1"}, {"safety_identifier": "x" * 65}),
    "service_tier": ({"service_tier": "flex"}, {"service_tier": "gold"}),
    "prompt_cache_key": ({"prompt_cache_key": "shop"}, {"prompt_cache_key": 1}),
    "prompt_cache_options": ({"prompt_cache_options": {"ttl": "1h"}}, {"prompt_cache_options": "1h"}),
    "prompt_cache_retention": ({"prompt_cache_retention": "24h"}, {"prompt_cache_retention": "1y"}),
    "top_k": ({"top_k": 20}, {"top_k": -2}),
    "min_p": ({"min_p": 0.05}, {"min_p": 1.1}),
    "typical_p": ({"typical_p": 0.9}, {"typical_p": 0}),
    "repetition_penalty": ({"repetition_penalty": 1.1}, {"repetition_penalty": 0}),
    "min_tokens": ({"min_tokens": 2}, {"min_tokens": -1}),
    "ignore_eos": ({"ignore_eos": True}, {"ignore_eos": 1}),
    "stop_token_ids": ({"stop_token_ids": [42]}, {"stop_token_ids": [-1]}),
    "include_stop_str_in_output": (
        {"stop": "o", "include_stop_str_in_output": True}, {"include_stop_str_in_output": 1},
    ),
    "bad_words": ({"bad_words": ["refund"]}, {"bad_words": [""]}),
    "allowed_token_ids": ({"allowed_token_ids": [42, 43]}, {"allowed_token_ids": []}),
    "return_token_ids": ({"return_token_ids": True}, {"return_token_ids": 1}),
    "audio": ({"audio": None}, {"audio": {"voice": "alloy", "format": "wav"}}),
    "modalities": ({"modalities": ["text"]}, {"modalities": ["audio"]}),
    "web_search_options": ({"web_search_options": None}, {"web_search_options": {}}),
    "chat_template": ({"chat_template": None}, {"chat_template": "{{ messages }}"}),
}  # fmt: skip
TEXT: dict[str, tuple[Fields, Fields]] = {
    "prompt": ({"prompt": "Hello"}, {"prompt": []}),
    "max_tokens": ({"max_tokens": 4}, {"max_tokens": 0}),
    "logprobs": ({"logprobs": 2}, {"logprobs": 6}),
    "echo": ({"echo": True, "logprobs": 1, "max_tokens": 0}, {"echo": 1}),
    "suffix": ({"suffix": ""}, {"suffix": "."}),
}
"""Of /v1/completions, where it differs."""
_TRACK = {"type": "function", "name": "track", "parameters": {"type": "object", "properties": {}}}
_ITEM = {"role": "user", "content": "Hi"}
RESPONSE: dict[str, tuple[Fields, Fields]] = {
    "model": ({"model": "dialoop-base"}, {"model": 4}),
    "input": ({"input": [_ITEM]}, {"input": [{"role": "user"}]}),
    "instructions": ({"instructions": "Be brief."}, {"instructions": 4}),
    "previous_response_id": ({"previous_response_id": None}, {"previous_response_id": "resp_none"}),
    "max_output_tokens": ({"max_output_tokens": 16}, {"max_output_tokens": 0}),
    "temperature": ({"temperature": 0.7}, {"temperature": 2.1}),
    "top_p": ({"top_p": 0.9}, {"top_p": 1.01}),
    "text": ({"text": {"format": {"type": "json_object"}}}, {"text": {"format": {"type": "json_schema"}}}),
    "tools": ({"tools": [_TRACK]}, {"tools": [{"type": "web_search"}]}),
    "tool_choice": ({"tools": [_TRACK], "tool_choice": {"type": "function", "name": "track"}}, {"tool_choice": "required"}),
    "parallel_tool_calls": ({"tools": [_TRACK], "parallel_tool_calls": False}, {"parallel_tool_calls": 1}),
    "reasoning": ({"reasoning": {"effort": "low"}}, {"reasoning": {"effort": "huge"}}),
    "include": ({"include": ["message.output_text.logprobs"]}, {"include": ["logprobs"]}),
    "top_logprobs": ({"include": ["message.output_text.logprobs"], "top_logprobs": 2}, {"top_logprobs": 2}),
    "truncation": ({"truncation": "auto"}, {"truncation": "middle"}),
    "stream": ({"stream": True}, {"stream": "yes"}),
    "stream_options": ({"stream": True, "stream_options": {"include_obfuscation": True}}, {"stream_options": {}}),
    "store": ({"store": False}, {"store": 1}),
    "metadata": ({"metadata": {"shop": "42"}}, {"metadata": {"shop": 42}}),
    "moderation": (
        {"moderation": {"model": "omni-moderation-latest", "policy": {"output": {"mode": "block"}}}},
        {"moderation": {"model": "omni-moderation-latest", "policy": {"output": {"mode": "mask"}}}},
    ),
    "max_tool_calls": ({"max_tool_calls": 1}, {"max_tool_calls": 0}),
    "user": ({"user": "u-1"}, {"user": 1}),
    "safety_identifier": ({"safety_identifier": "u-1"}, {"safety_identifier": "x" * 129}),
    "service_tier": ({"service_tier": "flex"}, {"service_tier": "gold"}),
    "prompt_cache_key": ({"prompt_cache_key": "shop"}, {"prompt_cache_key": 1}),
    "prompt_cache_options": ({"prompt_cache_options": {"ttl": "30m"}}, {"prompt_cache_options": "30m"}),
    "prompt_cache_retention": ({"prompt_cache_retention": "24h"}, {"prompt_cache_retention": "1y"}),
    "background": ({"background": False}, {"background": True}),
    "background_options": ({"background_options": None}, {"background_options": {"completion_window": "2h"}}),
    "conversation": ({"conversation": None}, {"conversation": "conv_1"}),
    "context_management": ({"context_management": []}, {"context_management": [{"type": "compaction"}]}),
    "prompt": ({"prompt": {"id": "dialogue"}}, {"prompt": {"id": "dialog", "version": "x"}}),
    "image": ({"image": None}, {"image": {"context_compression": "auto"}}),
    "access_programs": ({"access_programs": None}, {"access_programs": {"cyber": "standard"}}),
}  # fmt: skip
"""Of /v1/responses."""
