"""LangChain: an answer, a stream, a tool called and answered, a form filled in, vectors."""

from __future__ import annotations

from typing import Any

from desk import QUESTION, TEXTS, Ticket, days_left
from langchain_core.messages import BaseMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from server import KEY, MODEL, URL, show

SERVER: dict[str, Any] = {"base_url": URL, "api_key": KEY, "model": MODEL}


def main() -> None:
    chat = ChatOpenAI(**SERVER, temperature=0, max_completion_tokens=64)
    show("chat", chat.invoke(QUESTION).text)
    show("stream", [chunk.text for chunk in chat.stream(QUESTION)])

    days = tool(days_left)
    history: list[BaseMessage] = [HumanMessage(QUESTION)]
    called = chat.bind_tools([days], tool_choice="required").invoke(history)
    results = [ToolMessage(days.invoke(call["args"]), tool_call_id=call["id"]) for call in called.tool_calls]
    show("calls", [[call["name"], call["args"]] for call in called.tool_calls])
    show("answered", chat.invoke([*history, called, *results]).text)

    for method in ("json_schema", "function_calling"):
        show(method, chat.with_structured_output(Ticket, method=method).invoke(QUESTION).model_dump())

    # Unless told otherwise LangChain cuts texts into OpenAI's tokens, which are others than the model's.
    vectors = OpenAIEmbeddings(**SERVER, check_embedding_ctx_length=False)
    show("vectors", vectors.embed_documents(TEXTS))


if __name__ == "__main__":
    main()
