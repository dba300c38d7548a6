"""What an engine is asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dialoop.types.dialogue import Conversation
from dialoop.types.tools import Grammar, ToolChoice


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is drawn, in this order (OpenAI's and vLLM's names).

    logit_bias: (token id, added to its logit).  repetition_penalty: logits of tokens in the prompt or the
    answer are divided by it where positive, else multiplied (Keskar et al. 2019, arXiv:1909.05858).
    presence_penalty, frequency_penalty: taken off once, and once for each time the token stands in the
    answer.  temperature: 0 = argmax, and nothing below counts.  top_k: 0 = all.  top_p: nucleus of Holtzman
    et al. 2020, arXiv:1904.09751.  min_p: share of the best token's probability, Nguyen et al. 2024,
    arXiv:2407.01082.  typical_p: Meister et al. 2022, arXiv:2202.00666.  Each filter sees what the one
    before it left, renormalised.

    max_tokens: None = to the end of the context; 0 = the prompt alone is read.  min_tokens: nothing ends the
    answer before.
    grammar: tokens that break it are not drawn, whatever else is asked for.
    bad_words: texts whose tokens are never completed.  allowed_token_ids: no others are drawn, () = all may.
    ignore_eos: the model's own stop tokens end nothing.  include_stop: a stop string that ends the answer is
    its last text.  token_ids: deltas tell theirs.  logprobs: None = not told, k = told with the k best
    tokens beside each.  processed_logprobs: of the distribution drawn from, not of the model's own.

    best_of: answers made, of which the `n` with the highest log-probability per token are given, best first,
    once all have ended; None or no more than `n` = all that are made.
    prompt_logprobs: None = not told, k = each token of the prompt and the k best in its place, by the model's
    own distribution.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    n: int = 1
    top_k: int = 0
    min_p: float = 0.0
    typical_p: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    min_tokens: int = 0
    ignore_eos: bool = False
    logprobs: int | None = None
    processed_logprobs: bool = False
    grammar: Grammar | None = None
    best_of: int | None = None
    prompt_logprobs: int | None = None
    bad_words: tuple[str, ...] = ()
    allowed_token_ids: tuple[int, ...] = ()
    include_stop: bool = False
    token_ids: bool = False

    @property
    def made(self) -> int:
        """Answers that are made."""
        return max(self.n, self.best_of or 0)


@dataclass(frozen=True, slots=True)
class Prompting:
    """How a history becomes a prompt.

    variables: further ones of the chat template (vLLM's chat_template_kwargs).  wishes: the same, given to
    templates that read them and not to others.  answering: the prompt opens an answer.
    continued: the last message, the assistant's, goes on where it ends.  documents: for templates that show
    them.
    """

    variables: Mapping[str, Any] = field(default_factory=dict)
    wishes: Mapping[str, Any] = field(default_factory=dict)
    answering: bool = True
    continued: bool = False
    documents: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """P(answer | history): the model's name, the history, and how to draw from it.

    prediction: what the answer may look like; it changes the speed and nothing else.
    priority: lower goes first.
    """

    model: str
    conversation: Conversation
    sampling: Sampling = Sampling()
    choice: ToolChoice = field(default_factory=ToolChoice)
    prompting: Prompting = Prompting()
    prediction: str = ""
    priority: int = 0


@dataclass(frozen=True, slots=True)
class CompleteRequest:
    """How a text, or token ids, go on: no dialogue, no template."""

    model: str
    prompt: str | tuple[int, ...]
    sampling: Sampling = Sampling()
    prediction: str = ""
    priority: int = 0
