# ruff: noqa: E501  (rows are easier to read unbroken)
"""How other servers treat each parameter. Y works, P partly, N missing, S ignored in silence, E refused.

Facts of 2026: vLLM 0.32.0, llama.cpp's server, transformers serve 5.23.0 (started on a CPU or their source read),
Ollama fb307609 (source read). `?` where nobody looked.
"""

from __future__ import annotations

PEERS = ("vLLM", "llama.cpp", "transformers serve", "Ollama")

_OWN = "N N N N"
BY_PARAMETER: dict[str, str] = {
    "messages": "Y Y Y Y",
    "model": "Y S P Y",
    "temperature": "Y P P Y",
    "top_p": "P Y P Y",
    "max_completion_tokens": "Y Y Y S",
    "max_tokens": "Y Y Y Y",
    "stop": "Y P P Y",
    "seed": "Y Y P Y",
    "n": "P P S N",
    "best_of": "N N N N",
    "presence_penalty": "Y Y S Y",
    "frequency_penalty": "Y Y P Y",
    "logit_bias": "P P P N",
    "logprobs": "Y P S P",
    "top_logprobs": "Y P S P",
    "logprobs_mode": "Y N N N",
    "prompt_logprobs": "Y N N N",
    "tools": "P Y P Y",
    "tool_choice": "P P S S",
    "parallel_tool_calls": "Y Y S N",
    "functions": "N N N N",
    "function_call": "N N N N",
    "response_format": "Y P S P",
    "structured_outputs": "Y P N N",
    "guided_json": "P N N N",
    "guided_regex": "P N N N",
    "guided_choice": "P N N N",
    "guided_grammar": "P N N N",
    "stream": "Y Y P Y",
    "stream_options": "P P P Y",
    "store": "S S S S",
    "metadata": "S S S S",
    "prediction": "S S S S",
    "reasoning_effort": "Y Y S Y",
    "verbosity": "S S S S",
    "service_tier": "S S S S",
    "user": "S S S S",
    "safety_identifier": "S S S S",
    "prompt_cache_key": "S S S S",
    "prompt_cache_options": "S S S S",
    "prompt_cache_retention": "S S S S",
    "audio": "S S S S",
    "modalities": "S S S S",
    "moderation": "S S S S",
    "web_search_options": "S S S S",
    "chat_template": "P N N N",
    "top_k": "Y Y ? Y",
    "min_p": "Y Y ? Y",
    "typical_p": "N Y ? N",
    "repetition_penalty": "Y P ? N",
    "min_tokens": "Y N N N",
    "ignore_eos": "Y Y N N",
    "stop_token_ids": "Y N N N",
    "include_stop_str_in_output": "Y N N N",
    "bad_words": "Y N N N",
    "allowed_token_ids": "Y N N N",
    "return_token_ids": "Y P N N",
    "chat_template_kwargs": "Y Y N N",
    "add_generation_prompt": "Y N N N",
    "continue_final_message": "Y P N N",
    "documents": "Y N N N",
    "echo": "Y N N N",
    "priority": "Y N N N",
    "prompt": "Y Y ? P",
    "suffix": "N N N Y",
}
_Y, _NONE = "Y Y Y Y", "N N N N"
BY_ROUTE: dict[str, str] = {
    "/v1/chat/completions/": _NONE,
    "GET /v1/chat/completions": _NONE,
    "POST /v1/chat/completions": _Y,
    "POST /v1/responses": "Y Y Y Y",
    "/v1/completions": "Y Y ? P",
    "/v1/responses": "P P P P",
    "GET /v1/models/": "N N N Y",
    "DELETE /v1/models/": _NONE,
    "GET /v1/models": "Y Y P Y",
    "/v1/embeddings": "Y Y N Y",
    "/v1/moderations": _NONE,
    "/v1/batches": _NONE,
    "/v1/files": _NONE,
    "/v1/uploads": _NONE,
    "/v1/fine_tuning": _NONE,
    "/v1/evals": _NONE,
    "/v1/score": "P N N N",
    "/score": "P N N N",
    "/v1/rerank": "Y Y N N",
    "/rerank": "Y Y N N",
    "/v1/classify": "? N N N",
    "/classify": "Y N N N",
    "/tokenize": "Y P N N",
    "/detokenize": "Y P N N",
    "/v1/load_lora_adapter": "Y P N N",
    "/v1/unload_lora_adapter": "Y P N N",
    "/health": "Y Y ? ?",
    "/ready": "? ? ? ?",
    "/metrics": "Y Y ? ?",
    "/version": "Y N ? P",
}
"""By the beginning of `METHOD /path` or of `/path`; the first that fits."""
NOTES: dict[str, str] = {
    "model": "llama.cpp answers under any name",
    "temperature": "llama.cpp clamps in silence; transformers serve does not draw",
    "top_p": "vLLM refuses 0",
    "n": "vLLM refuses n > 1 at temperature 0; llama.cpp counts one answer in the usage",
    "stop": "llama.cpp takes more than 4; transformers serve leaves the stop text in",
    "seed": "transformers serve sets the seed of the whole process",
    "logit_bias": "vLLM takes values above 100; llama.cpp drops bad ids; transformers serve answers 500",
    "max_completion_tokens": "Ollama's answers run on",
    "response_format": "llama.cpp: numeric ranges for integers alone",
    "tools": "vLLM needs a flag a model; custom tools: refused by vLLM, 500 from llama.cpp",
    "tool_choice": "llama.cpp: text before a required call, a named one is taken as auto; allowed_tools: nobody",
    "stream_options": "vLLM lacks `usage: null` elsewhere; llama.cpp tells it twice at n = 2",
}


def peers_of_route(method: str, path: str) -> list[str] | None:
    """A letter a peer; None for a route that is not listed."""
    told = f"{method} {path}"
    found = (row for start, row in BY_ROUTE.items() if told.startswith(start) or path.startswith(start))
    return next((row.split() for row in found), None)


def peers_of(parameter: str) -> list[str]:
    """A letter a peer; ? where nothing is known."""
    return BY_PARAMETER.get(parameter, "? ? ? ?").split()
