"""LlamaIndex: an answer, a stream, a tool called and answered, a form filled in, vectors, a search."""

from __future__ import annotations

from typing import Any

from desk import QUESTION, TEXTS, Ticket, days_left
from llama_index.core import Document, VectorStoreIndex
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.embeddings.openai_like import OpenAILikeEmbedding
from llama_index.llms.openai_like import OpenAILike
from server import KEY, MODEL, URL, show

SERVER: dict[str, Any] = {"api_base": URL, "api_key": KEY}
HISTORY = [ChatMessage(role="user", content=QUESTION)]


def main() -> None:
    chat = OpenAILike(
        **SERVER, model=MODEL, temperature=0, max_tokens=64, context_window=2048, is_chat_model=True,
        is_function_calling_model=True, should_use_structured_outputs=True,
    )  # fmt: skip
    show("chat", chat.chat(HISTORY).message.content)
    show("stream", [chunk.delta or "" for chunk in chat.stream_chat(HISTORY)])

    days = FunctionTool.from_defaults(days_left)
    called = chat.chat_with_tools([days], chat_history=HISTORY, tool_required=True)
    calls = chat.get_tool_calls_from_response(called)
    results = [
        ChatMessage(
            role="tool",
            content=days(**call.tool_kwargs).content,
            additional_kwargs={"tool_call_id": call.tool_id},
        )
        for call in calls
    ]
    show("calls", [[call.tool_name, call.tool_kwargs] for call in calls])
    show("answered", chat.chat([*HISTORY, called.message, *results]).message.content)

    show("json_schema", chat.as_structured_llm(Ticket).chat(HISTORY).raw.model_dump())

    vectors = OpenAILikeEmbedding(**SERVER, model_name=MODEL)
    show("vectors", vectors.get_text_embedding_batch(TEXTS))
    index = VectorStoreIndex.from_documents([Document(text=text) for text in TEXTS], embed_model=vectors)
    show("found", [node.text for node in index.as_retriever(similarity_top_k=1).retrieve(TEXTS[1])])


if __name__ == "__main__":
    main()
