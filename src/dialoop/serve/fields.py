"""The fields of completion requests: honoured, accepted as hints, and refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
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
        "role": {"enum": ["developer", "system", "user", "assistant", "tool", "function"]},
        "content": {"anyOf": [{"type": "string"}, {"type": "array", "items": _TEXT_PART}, {"type": "null"}]},
        "name": {"type": "string"},
        "tool_calls": {"type": "array", "items": {"type": "object"}},
        "tool_call_id": {"type": "string"},
        "refusal": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "reasoning_content": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "reasoning": {"anyOf": [{"type": "string"}, {"type": "null"}]},
    },
}
TokenId = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,9}$")]
Metadata = Annotated[
    dict[Annotated[str, StringConstraints(max_length=64)], Annotated[str, StringConstraints(max_length=512)]],
    Field(max_length=16),
]
"""Up to 16 keys of at most 64 characters, with values of at most 512."""
StopString = Annotated[str, StringConstraints(min_length=1, max_length=500)]


_TOOL_CHOICE = {"anyOf": [{"enum": ["none", "auto", "required"]}, {"type": "object"}, {"type": "null"}]}
_FUNCTION_CALL = {"anyOf": [{"enum": ["none", "auto"]}, {"type": "object"}, {"type": "null"}]}


class StreamOptions(BaseModel):
    """What a stream tells besides the text."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)

    include_usage: bool = False
    """One more chunk before `[DONE]` with the usage and no choices."""
    include_obfuscation: bool = False
    """Pad each chunk, so that its size tells little of its text."""


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


class Prediction(BaseModel):
    """What the answer may look like."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)

    type: Literal["content"]
    """Always content."""
    content: (
        str
        | Annotated[list[Any], Field(min_length=1), WithJsonSchema({"type": "array", "items": _TEXT_PART})]
    )
    """The text, or its text parts."""


class ModerationMode(BaseModel):
    """What is done about what is flagged."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)

    mode: Literal["score", "block"]
    """Tell it, or also refuse the request (input) or end the answer there (output)."""


class ModerationModes(BaseModel):
    """For each side; absent = score."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)

    input: ModerationMode | None = None
    """The messages of users and tools."""
    output: ModerationMode | None = None
    """The answers, their thoughts and the arguments of their calls."""


class ModerationWish(BaseModel):
    """How a chat is moderated beside what the server does anyway."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)

    model: str
    """As for /v1/moderations: OpenAI's names mean our word lists."""
    policy: ModerationModes | None = None
    """Score or block; absent = score both sides."""


class PromptReference(BaseModel):
    """A prompt of the server's, and the values of its variables."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)

    id: str = Field(min_length=1, max_length=128)
    """Its name, NAME@VERSION, or the id of a version: see `dialoop prompts list`."""
    version: Annotated[str, StringConstraints(pattern=r"^[0-9]{1,9}$")] | None = None
    """Of the name; absent = the one that was promoted."""
    variables: dict[str, Any] = Field({}, max_length=128)
    """Texts, or what the variables are: numbers, lists, objects, dialogues; also parts of type input_text."""
    language: str | None = Field(None, max_length=64)
    """Of its wording, such as zh; absent = the language of what is asked."""


class SamplingBody(BaseModel):
    """What chat and text completions share; null means absent."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True, allow_inf_nan=False)

    model: str
    """A served model: see /v1/models."""
    temperature: float = Field(1.0, ge=0, le=2)
    """0 always takes the most probable token."""
    top_p: float = Field(1.0, ge=0, le=1)
    """Draw from the fewest most probable tokens that together hold this much; 0 keeps one."""
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
    include_stop_str_in_output: bool = False
    """The stop string that ends the answer is its last text."""
    bad_words: list[Annotated[str, StringConstraints(min_length=1, max_length=100)]] = Field(
        [], max_length=64
    )
    """Texts that are not written, as the tokenizer cuts them at a word's beginning or by themselves."""
    allowed_token_ids: (
        Annotated[list[Annotated[int, Field(ge=0, le=MAX_TOKENS)]], Field(min_length=1)] | None
    ) = None
    """No other tokens are drawn, those that end an answer included."""
    return_token_ids: bool = False
    """Tell the token ids of the prompt and of the answers."""
    response_format: ResponseFormat | None = None
    """What the answer must be: text, a JSON object, or JSON of a schema."""
    structured_outputs: StructuredOutputs | None = None
    """The same and more: a regular expression, a choice, a grammar."""
    guided_json: dict[str, Any] | None = None
    """An older name of structured_outputs.json."""
    guided_regex: str | None = Field(None, max_length=10_000)
    """An older name of structured_outputs.regex."""
    guided_choice: (
        Annotated[list[Annotated[str, StringConstraints(min_length=1)]], Field(min_length=1)] | None
    ) = None
    """An older name of structured_outputs.choice."""
    guided_grammar: str | None = Field(None, max_length=100_000)
    """An older name of structured_outputs.grammar."""
    stream: bool = False
    """Send the answer as server-sent events while it is made."""
    stream_options: StreamOptions | None = None
    """Only with stream."""
    prediction: Prediction | None = None
    """What the answer may look like: where it does, several tokens come in a step. It changes no answer."""
    priority: int = Field(0, ge=-8, le=8)
    """Lower goes first: each step lets 64 later requests pass."""
    user: str | None = None
    """An end user's id: a trial gives the same user the same arm; without effect elsewhere."""


class ChatBody(SamplingBody):
    """The body of POST /v1/chat/completions; null means absent."""

    messages: Annotated[list[Any], WithJsonSchema({"type": "array", "minItems": 1, "items": _MESSAGE})]
    """The history, oldest first. Content is text or text parts. With a prompt, none need come."""
    prompt: PromptReference | None = None
    """A prompt of the server's: its turns come before the messages, or around them where it asks for them."""
    max_completion_tokens: int | None = Field(None, ge=1, le=MAX_TOKENS)
    """Longest answer in tokens, thoughts included; absent = to the end of the context."""
    max_tokens: int | None = Field(None, ge=1, le=MAX_TOKENS)
    """The older name of max_completion_tokens."""
    logprobs: bool = False
    """Tell each token's log-probability."""
    top_logprobs: int | None = Field(None, ge=0, le=20)
    """Tell so many best tokens in each place; only with logprobs."""
    tools: list[Annotated[Any, WithJsonSchema({"type": "object"})]] = Field([], max_length=128)
    """What may be called: functions with JSON Schema parameters, and custom tools of text or a regex."""
    tool_choice: Annotated[Any, WithJsonSchema(_TOOL_CHOICE)] = None
    """none, auto, required, one by name, or allowed_tools; required calls come at once, in their schema."""
    parallel_tool_calls: bool = True
    """false = at most one call."""
    functions: list[Annotated[Any, WithJsonSchema({"type": "object"})]] = Field([], max_length=128)
    """The older form of tools; answered with function_call."""
    function_call: Annotated[Any, WithJsonSchema(_FUNCTION_CALL)] = None
    """The older form of tool_choice: none, auto or {name}."""
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    """Given to templates that read reasoning_effort, enable_thinking or thinking; a hint to other models."""
    verbosity: Literal["low", "medium", "high"] | None = None
    """Given to templates that read verbosity; a hint to other models."""
    chat_template_kwargs: dict[Annotated[str, StringConstraints(max_length=64)], Any] = Field(
        {}, max_length=32
    )
    """Values of variables that the model's template reads; 400 for others."""
    add_generation_prompt: bool | None = None
    """false = the prompt does not open an answer."""
    continue_final_message: bool = False
    """The answer goes on where the last message, the assistant's, ends."""
    documents: list[dict[str, Any]] = Field([], max_length=1024)
    """Given to templates that show documents; 400 for others."""
    echo: bool = False
    """Where the last message is the assistant's, begin the answer with its text."""
    store: bool = False
    """Keep the messages, the parameters and the answer: GET /v1/chat/completions lists them."""
    metadata: Metadata = Field({})
    """Up to 16 pairs of text, kept with a stored completion, to find it by, and told with the answer."""
    moderation: ModerationWish | None = None
    """Tell which categories messages and answers fall into, by the server's word lists, or block them."""
    safety_identifier: str | None = Field(None, max_length=64)
    """As `user`, and before it."""
    service_tier: Literal["auto", "default", "flex", "scale", "priority", "fast"] | None = None
    """Hint: there is one tier, `default`, which the answer names."""
    prompt_cache_key: str | None = None
    """Hint: not used; prompts that begin alike share their computed beginning anyway."""
    prompt_cache_options: dict[str, Any] | None = None
    """Hint: not used."""
    prompt_cache_retention: Literal["in_memory", "24h"] | None = None
    """Hint: not used."""


_IDS = {"type": "array", "items": {"type": "integer"}, "minItems": 1}
_PROMPT = {
    "anyOf": [
        {"type": "string"}, {"type": "array", "items": {"type": "string"}},
        _IDS, {"type": "array", "items": _IDS},
    ]
}  # fmt: skip


class CompletionBody(SamplingBody):
    """The body of POST /v1/completions; null means absent."""

    prompt: Annotated[Any, WithJsonSchema(_PROMPT)]
    """A text, texts, or the token ids of one or of several. Control tokens that a text spells are such."""
    max_tokens: int = Field(16, ge=0, le=MAX_TOKENS)
    """Longest answer in tokens; 0 = the prompt is only read."""
    logprobs: int | None = Field(None, ge=0, le=5)
    """Tell each token's log-probability, that of the stop token included, and so many of the best in its
    place; with echo the prompt's too."""
    echo: bool = False
    """Begin each answer with its prompt."""
    suffix: Literal[""] | None = None
    """Refused: no served model fills in a middle."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A field that clients know and that is not served. neutral: values that ask for nothing."""

    why: str
    neutral: tuple[Any, ...] = ()

    def allows(self, value: Any) -> bool:
        """Whether `value` asks for nothing; false is not 0."""
        return any(
            value == neutral and isinstance(value, bool) == isinstance(neutral, bool)
            for neutral in self.neutral
        )


REFUSED: Mapping[str, Refused] = {
    "audio": Refused("answers are text"),
    "modalities": Refused("answers are text", (["text"],)),
    "web_search_options": Refused("there is no web search here, offer a tool that searches"),
    "chat_template": Refused("a template is code, which no request may bring; serve the model with it"),
}
"""Of chat completions."""


def body_schema(body: type[BaseModel], refused: Mapping[str, Refused]) -> dict[str, Any]:
    """The JSON Schema of a body for the OpenAPI document, refused fields included."""
    schema = schema_of(body)
    for name, each in refused.items():
        values = [*each.neutral, None]
        schema["properties"][name] = {"enum": values, "description": f"Refused: {each.why}."}
    return schema


def schema_of(body: type[BaseModel]) -> dict[str, Any]:
    """The JSON Schema of a body, which refers to `body_definitions`."""
    schema = _schema(body)
    schema.pop("$defs", None)
    return schema


def body_definitions(*bodies: type[BaseModel]) -> dict[str, Any]:
    """The schemas that those of `bodies` refer to, by name."""
    return {name: each for body in bodies for name, each in _schema(body).get("$defs", {}).items()}


def _schema(body: type[BaseModel]) -> dict[str, Any]:
    return body.model_json_schema(ref_template="#/components/schemas/{model}")
