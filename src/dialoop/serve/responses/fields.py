"""The fields of a request for a response: range, default, and what each does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, WithJsonSchema

from dialoop.serve.fields import MAX_TOKENS, Metadata, ModerationWish, PromptReference, Refused
from dialoop.serve.responses.items import Input, Item, Nested

Include = Literal[
    "message.output_text.logprobs", "reasoning.encrypted_content", "file_search_call.results",
    "web_search_call.results", "web_search_call.action.sources", "message.input_image.image_url",
    "computer_call_output.output.image_url", "code_interpreter_call.outputs",
]  # fmt: skip
LOGPROBS: Include = "message.output_text.logprobs"

_TOOL = {
    "type": "object",
    "required": ["type", "name"],
    "properties": {
        "type": {"enum": ["function", "custom"]},
        "name": {"type": "string"},
        "description": {"type": "string"},
        "parameters": {"type": "object"},
        "strict": {"type": "boolean"},
        "format": {"type": "object"},
    },
}
_CHOICE = {"anyOf": [{"enum": ["none", "auto", "required"]}, {"type": "object"}, {"type": "null"}]}


class TextFormat(Nested):
    """What the text must be; the other fields are a json_schema's."""

    type: Literal["text", "json_object", "json_schema"]
    """Any text, a JSON object, or JSON that the schema allows."""
    name: Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9_-]{1,64}$")] | None = None
    """A name for the schema."""
    description: str | None = None
    """What it is for; not used."""
    schema_: dict[str, Any] | None = Field(None, alias="schema")
    """JSON Schema."""
    strict: bool | None = None
    """The schema is always kept to."""


class TextConfig(Nested):
    """What the text of an answer is like."""

    format: TextFormat = TextFormat(type="text")
    """What it must be: text, a JSON object, or JSON of a schema."""
    verbosity: Literal["low", "medium", "high"] | None = None
    """Given to templates that read verbosity; a hint to other models."""


class ReasoningConfig(Nested):
    """How much is thought before the answer."""

    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    """Given to templates that read reasoning_effort, enable_thinking or thinking; a hint to other models."""
    summary: Literal["auto", "concise", "detailed"] | None = None
    """Hint: thoughts are told whole."""
    generate_summary: Literal["auto", "concise", "detailed"] | None = None
    """Hint: the older name of summary."""
    context: Literal["auto", "current_turn", "all_turns"] | None = None
    """Hint: the template decides which thoughts it shows."""
    mode: str | None = Field(None, max_length=64)
    """Hint: not used."""


class PaddingOptions(Nested):
    """What a stream of a response tells besides."""

    include_obfuscation: bool = False
    """Pad each piece of text, so that its size tells little of it."""


class ResponseBody(Nested):
    """The body of POST /v1/responses; null means absent."""

    model: str
    """A served model: see /v1/models."""
    input: Input
    """A user's text, or items: messages of all roles, calls, what calls came to, and thoughts. With a prompt,
    none need come."""
    prompt: PromptReference | None = None
    """A prompt of the server's: its turns come before the input, or around it where it asks for it. Not
    handed on to a response that goes on from this one."""
    instructions: str | None = None
    """A system message before all others; not handed on to a response that goes on from this one."""
    previous_response_id: str | None = Field(None, min_length=1, max_length=128)
    """Go on from a stored response: its input, its answer and those before it come first."""
    max_output_tokens: int | None = Field(None, ge=1, le=MAX_TOKENS)
    """Longest answer in tokens, thoughts included; absent = to the context's end. OpenAI takes 16 or more."""
    temperature: float = Field(1.0, ge=0, le=2)
    """0 always takes the most probable token."""
    top_p: float = Field(1.0, ge=0, le=1)
    """Draw from the fewest most probable tokens that together hold this much; 0 keeps one."""
    text: TextConfig = TextConfig()
    """What the text of the answer is like."""
    tools: list[Annotated[Any, WithJsonSchema(_TOOL)]] = Field([], max_length=128)
    """What may be called: functions, and custom tools of text or a regex. Built-in tools are refused."""
    tool_choice: Annotated[Any, WithJsonSchema(_CHOICE)] = None
    """none, auto, required, one by name, or allowed_tools; required calls come at once, in their schema."""
    parallel_tool_calls: bool = True
    """false = at most one call."""
    reasoning: ReasoningConfig = ReasoningConfig()
    """How much the model is to think before it answers."""
    include: list[Include] = Field([], max_length=16)
    """`message.output_text.logprobs` tells log-probabilities; what the others name is never held back."""
    top_logprobs: int = Field(0, ge=0, le=20)
    """Tell so many best tokens in each place; only with `message.output_text.logprobs` included."""
    truncation: Literal["auto", "disabled"] = "disabled"
    """auto = where the context is too short, the oldest turns are left out; disabled = 400."""
    stream: bool = False
    """Send events while the answer is made."""
    stream_options: PaddingOptions | None = None
    """Only with stream."""
    store: bool = True
    """Keep the response, to be read and gone on from; false where the server keeps no data."""
    metadata: Metadata = Field({})
    """Up to 16 pairs of text, kept and told with the response."""
    moderation: ModerationWish | None = None
    """Tell which categories input and answer fall into, by the server's word lists, or block them."""
    max_tool_calls: int | None = Field(None, ge=1, le=MAX_TOKENS)
    """Hint: it bounds built-in tools, of which there are none."""
    user: str | None = None
    """An end user's id: a trial gives the same user the same arm; without effect elsewhere."""
    safety_identifier: str | None = Field(None, max_length=128)
    """As `user`, and before it."""
    service_tier: (
        Literal["auto", "default", "flex", "scale", "priority", "fast", "ultrafast"] | None
    ) = None  # fmt: skip
    """Hint: there is one tier, `default`, which the answer names."""
    prompt_cache_key: str | None = None
    """Hint: not used; prompts that begin alike share their computed beginning anyway."""
    prompt_cache_options: dict[str, Any] | None = None
    """Hint: not used."""
    prompt_cache_retention: Literal["in_memory", "24h"] | None = None
    """Hint: not used."""

    @property
    def said(self) -> str | list[Item]:
        """The input; nothing where a prompt says it all."""
        return [] if self.input == "" and self.prompt is not None else self.input


REFUSED: Mapping[str, Refused] = {
    "background": Refused("an answer is made while its request is open; /v1/batches answers later", (False,)),
    "background_options": Refused("nothing is answered in the background"),
    "conversation": Refused("conversations are not kept apart, go on from previous_response_id"),
    "context_management": Refused("nothing is compacted, set truncation to auto", ([],)),
    "image": Refused("messages hold text only"),
    "access_programs": Refused("there are no such programs here"),
}
"""Of responses."""
