"""Bodies that hypothesis makes: nonsense, and dialogues that are nearly right."""

from __future__ import annotations

from hypothesis import strategies as st

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
FIELDS = [
    "messages", "model", "temperature", "stop", "n", "stream", "stream_options", "tools", "role", "seed",
    "tool_choice", "functions", "function_call", "response_format", "prediction", "metadata", "documents",
    "chat_template_kwargs", "guided_json", "logit_bias",
]  # fmt: skip
MESSAGE_KEYS = ("role", "content", "tool_calls", "name", "tool_call_id", "function_call", "reasoning_content")
ROLE = st.sampled_from(["system", "developer", "user", "assistant", "tool", "function"])
said = st.text() | st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": st.text()}), min_size=1)
call = st.fixed_dictionaries(
    {"id": st.text(), "type": st.just("function")},
    optional={
        "function": st.fixed_dictionaries(
            {"name": st.text()}, optional={"arguments": st.text() | json_values}
        )
    },
)
likely = st.fixed_dictionaries(
    {"role": ROLE},
    optional={
        "content": said | st.none(), "tool_calls": st.lists(call, max_size=2), "tool_call_id": st.text(),
        "name": st.text(), "reasoning": st.text(), "refusal": st.text() | st.none(),
    },
)  # fmt: skip
messages = st.lists(
    likely | st.fixed_dictionaries({}, optional=dict.fromkeys(MESSAGE_KEYS, json_values)) | json_values,
    max_size=3,
)
