"""LiteLLM: an answer, a stream, a tool called and answered, a form filled in, vectors, a text, a ranking."""

from __future__ import annotations

import json
from typing import Any

import litellm
from desk import QUESTION, TEXTS, Ticket, days_left
from server import KEY, MODEL, URL, show

SERVER: dict[str, Any] = {"api_base": URL, "api_key": KEY}
CHAT = {**SERVER, "model": f"openai/{MODEL}", "temperature": 0, "max_completion_tokens": 64}
HISTORY: list[Any] = [{"role": "user", "content": QUESTION}]
TOOL = {
    "type": "function",
    "function": {
        "name": "days_left",
        "description": days_left.__doc__,
        "parameters": {
            "type": "object",
            "properties": {"order": {"enum": ["A48213", "B10042"]}},
            "required": ["order"],
            "additionalProperties": False,
        },
    },
}


def main() -> None:
    show("chat", said(HISTORY).content)
    chunks = litellm.completion(**CHAT, messages=HISTORY, stream=True)
    show("stream", [chunk.choices[0].delta.content or "" for chunk in chunks])

    called = said(HISTORY, tools=[TOOL], tool_choice="required")
    calls = [(call.id, call.function.name, json.loads(call.function.arguments)) for call in called.tool_calls]
    results = [
        {"role": "tool", "tool_call_id": call, "content": str(days_left(**given))} for call, _, given in calls
    ]
    show("calls", [[name, given] for _, name, given in calls])
    show("answered", said([*HISTORY, called, *results]).content)

    form = said(HISTORY, response_format=Ticket).content
    show("json_schema", Ticket.model_validate_json(form).model_dump())

    found = litellm.embedding(**SERVER, model=f"openai/{MODEL}", input=TEXTS)
    show("vectors", [row["embedding"] for row in found.data])
    going_on = litellm.text_completion(
        **SERVER, model=f"text-completion-openai/{MODEL}", prompt="Hello", max_tokens=8, temperature=0
    )
    show("text", going_on.choices[0].text)
    # Its name for servers with the routes that vLLM has beside OpenAI's.
    ranked = litellm.rerank(
        **SERVER, model=f"hosted_vllm/{MODEL}", query=QUESTION, documents=["It ships today", "Bye"]
    )
    show("ranking", [row["index"] for row in ranked.results])


def said(history: list[Any], **fields: Any) -> Any:
    """The message of the answer."""
    return litellm.completion(**CHAT, messages=history, **fields).choices[0].message


if __name__ == "__main__":
    main()
