"""The fields of a chat completion request: honoured, accepted as hints, and not honoured yet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, WithJsonSchema

INT64 = 2**63
MAX_TOKENS = 2**31 - 1

_TEXT_PART = {
    "type": "object",
    "required": ["type", "text"],
    "properties": {"type": {"const": "text"}, "text": {"type": "string"}},
}
_MESSAGE = {
    "type": "object",
    "required": ["role"],
    "properties": {
        "role": {"enum": ["developer", "system", "user", "assistant", "tool"]},
        "content": {"anyOf": [{"type": "string"}, {"type": "array", "items": _TEXT_PART}, {"type": "null"}]},
        "name": {"type": "string"},
        "tool_calls": {"type": "array", "items": {"type": "object"}},
        "tool_call_id": {"type": "string"},
        "refusal": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "reasoning_content": {"anyOf": [{"type": "string"}, {"type": "null"}]},
    },
}
TokenId = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,9}$")]
Metadata = Annotated[
    dict[Annotated[str, StringConstraints(max_length=64)], Annotated[str, StringConstraints(max_length=512)]],
    Field(max_length=16),
]
"""Up to 16 keys of at most 64 characters, with values of at most 512."""
StopString = Annotated[str, StringConstraints(min_length=1, max_length=500)]


class StreamOptions(BaseModel):
    """What a stream tells besides the text."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)

    include_usage: bool = False
    """One more chunk before `[DONE]` with the usage and no choices."""
    include_obfuscation: Literal[False] = False
    """Not supported yet by this engine: only false."""


class JsonSchemaFormat(BaseModel):
    """The schema that an answer keeps to, strict or not."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)

    name: Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    """A name for it."""
    description: str | None = None
    """What it is for; not used."""
    schema_: dict[str, Any] = Field({}, alias="schema")
    """JSON Schema."""
    strict: bool | None = None
    """The schema is always kept to."""


class ResponseFormat(BaseModel):
    """What an answer must be."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)

    type: Literal["text", "json_object", "json_schema"]
    """Any text, a JSON object, or JSON that the schema allows."""
    json_schema: JsonSchemaFormat | None = None
    """Only with json_schema."""


class StructuredOutputs(BaseModel):
    """What an answer must be, in vLLM's words: one of these."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)

    json_: dict[str, Any] | None = Field(None, alias="json")
    """JSON Schema."""
    json_object: bool = False
    """Any JSON object."""
    regex: str | None = Field(None, max_length=10_000)
    """A regular expression that matches the whole answer."""
    choice: Annotated[list[Annotated[str, StringConstraints(min_length=1)]], Field(min_length=1)] | None = (
        None
    )
    """The answers to choose from."""
    grammar: str | None = Field(None, max_length=100_000)
    """A Lark grammar."""


class ChatBody(BaseModel):
    """The body of POST /v1/chat/completions; null means absent."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True, allow_inf_nan=False)

    model: str
    """A served model: see /v1/models."""
    messages: Annotated[
        list[Any], Field(min_length=1), WithJsonSchema({"type": "array", "minItems": 1, "items": _MESSAGE})
    ]
    """The history, oldest first. Content is text or text parts."""
    temperature: float = Field(1.0, ge=0, le=2)
    """0 always takes the most probable token."""
    top_p: float = Field(1.0, ge=0, le=1)
    """Draw from the fewest most probable tokens that together hold this much; 0 keeps one."""
    max_completion_tokens: int | None = Field(None, ge=1, le=MAX_TOKENS)
    """Longest answer in tokens; absent = to the end of the context."""
    max_tokens: int | None = Field(None, ge=1, le=MAX_TOKENS)
    """The older name of max_completion_tokens."""
    stop: StopString | Annotated[list[StopString], Field(max_length=4)] | None = None
    """Up to 4 strings; the answer ends before the first that would appear."""
    seed: int | None = Field(None, ge=-INT64, lt=INT64)
    """The same seed gives the same answer to the same request."""
    n: int = Field(1, ge=1, le=128)
    """Answers to give."""
    best_of: int | None = Field(None, ge=1, le=128)
    """Answers to make; the n with the highest log-probability per token are given. Not with stream."""
    presence_penalty: float = Field(0.0, ge=-2, le=2)
    """Taken off the logit of every token that the answer holds."""
    frequency_penalty: float = Field(0.0, ge=-2, le=2)
    """Taken off the logit of a token for each time that the answer holds it."""
    logit_bias: dict[TokenId, Annotated[float, Field(ge=-100, le=100)]] = Field({}, max_length=1024)
    """Token id -> added to its logit, -100 to 100."""
    logprobs: bool = False
    """Tell each token's log-probability."""
    top_logprobs: int | None = Field(None, ge=0, le=20)
    """Tell so many best tokens in each place; only with logprobs."""
    logprobs_mode: Literal["raw_logprobs", "processed_logprobs"] = "raw_logprobs"
    """The model's own log-probabilities, or those drawn from: after bias, penalties, temperature, filters."""
    prompt_logprobs: int | None = Field(None, ge=0, le=20)
    """Tell each token of the prompt and so many of the best in its place. Not with stream."""
    top_k: int = Field(0, ge=-1, le=MAX_TOKENS)
    """Draw from the k most probable tokens; 0 and -1 = from all."""
    min_p: float = Field(0.0, ge=0, le=1)
    """Draw from tokens at least this share as probable as the best."""
    typical_p: float = Field(1.0, gt=0, le=1)
    """Draw from the fewest tokens of typical surprise that together hold this much."""
    repetition_penalty: float = Field(1.0, gt=0, le=100)
    """Divides the positive logits of tokens in the prompt or the answer, multiplies the negative ones."""
    min_tokens: int = Field(0, ge=0, le=MAX_TOKENS)
    """Nothing ends the answer before it has so many tokens."""
    ignore_eos: bool = False
    """The model's own stop tokens do not end the answer."""
    stop_token_ids: list[Annotated[int, Field(ge=0, le=MAX_TOKENS)]] = Field([], max_length=64)
    """Tokens that end the answer and are not shown."""
    echo: bool = False
    """Where the last message is the assistant's, begin the answer with its text."""
    response_format: ResponseFormat | None = None
    """What the answer must be: text, a JSON object, or JSON of a schema."""
    structured_outputs: StructuredOutputs | None = None
    """The same and more: a regular expression, a choice, a grammar."""
    stream: bool = False
    """Send the answer as server-sent events while it is made."""
    stream_options: StreamOptions | None = None
    """Only with stream."""
    store: bool = False
    """Keep the messages, the parameters and the answer: GET /v1/chat/completions lists them."""
    metadata: Metadata = Field({})
    """Kept with a stored completion, to find it by."""
    user: str | None = None
    """Hint: an end user's id; not used."""
    safety_identifier: str | None = Field(None, max_length=64)
    """Hint: an end user's id; not used."""
    service_tier: Literal["auto", "default", "flex", "scale", "priority", "fast"] | None = None
    """Hint: there is one tier, `default`, which the answer names."""
    prompt_cache_key: str | None = None
    """Hint: not used."""
    prompt_cache_options: dict[str, Any] | None = None
    """Hint: not used."""
    prompt_cache_retention: Literal["in_memory", "24h"] | None = None
    """Hint: not used."""
    prediction: dict[str, Any] | None = None
    """Hint: not used; it may speed up an answer and never changes it."""


NESTED: Mapping[str, type[BaseModel]] = {
    "stream_options": StreamOptions,
    "response_format": ResponseFormat,
    "structured_outputs": StructuredOutputs,
}
"""Fields that are objects with fields of their own."""

NOT_HONOURED_YET: Mapping[str, tuple[Any, ...]] = {
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True,),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "reasoning_effort": ("medium",),
    "verbosity": ("medium",),
    "modalities": (["text"],),
    "audio": (),
    "moderation": (),
    "web_search_options": (),
    "bad_words": ([],),
    "allowed_token_ids": (),
    "include_stop_str_in_output": (False,),
    "guided_json": (),
    "guided_regex": (),
    "guided_choice": (),
    "guided_grammar": (),
    "return_token_ids": (False,),
    "chat_template": (),
    "chat_template_kwargs": ({},),
    "add_generation_prompt": (True,),
    "continue_final_message": (False,),
    "documents": ([],),
    "priority": (0,),
}
"""Fields that clients know and this engine does not, and the values of each that ask for nothing."""


def is_neutral(name: str, value: Any) -> bool:
    """Whether `value` of a field that is not honoured asks for nothing; false is not 0."""
    return any(
        value == neutral and isinstance(value, bool) == isinstance(neutral, bool)
        for neutral in NOT_HONOURED_YET[name]
    )


def body_schema() -> dict[str, Any]:
    """The JSON Schema of the body for the OpenAPI document, fields that are not honoured included."""
    schema = _schema()
    schema.pop("$defs")
    for name, neutral in NOT_HONOURED_YET.items():
        values = [*neutral, None]
        schema["properties"][name] = {"enum": values, "description": "Not supported yet by this engine."}
    return schema


def body_definitions() -> dict[str, Any]:
    """The schemas that `body_schema` refers to, by name."""
    return dict(_schema()["$defs"])


def _schema() -> dict[str, Any]:
    return ChatBody.model_json_schema(ref_template="#/components/schemas/{model}")
