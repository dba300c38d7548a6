"""A prompt template around cases that are asked and around rows that are learnt: the same words for both."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dialoop.chat.prompt import Prompt
from dialoop.config.prompts import PromptSettings
from dialoop.errors import ConfigError
from dialoop.evals.task import Case, origin
from dialoop.jobs.judging import Ask, as_it_is
from dialoop.prompting.selection import Pool, asked_text
from dialoop.types import Conversation, Message

MOST_LISTED = 30
"""Labels that a prompt lists by itself."""


@dataclass(frozen=True, slots=True)
class Wording:
    """A prompt: its name, and what it makes of a case.

    bare: the same without its examples.
    examples: that it may show; one that gives a case away is refused.
    opens: all turns of a dialogue are asked after the same opening, so that one row can hold them all.
    soft: a registered model whose learnt prompt opens the text, and which answers.
    """

    name: str
    ask: Ask = as_it_is
    bare: Ask = as_it_is
    examples: tuple[Conversation, ...] = ()
    opens: bool = True
    soft: str | None = None


PLAIN = Wording("none")


def wording(name: str, settings: PromptSettings, values: Mapping[str, Any]) -> Wording:
    """values: of variables; a row's metadata give others, and a case's options the `labels` if they are few.

    Raises ConfigError for a template whose examples depend on a model.
    """
    if settings.few_shot.needs_vectors or settings.few_shot.max_tokens is not None:
        raise ConfigError(
            f"prompt {name} chooses its examples by vectors or a bound of tokens: ask it with "
            f"`dialoop prompts eval`, or set few_shot to bm25, random or balanced by words"
        )
    prompt = Prompt(settings)
    pools = {code: Pool(prompt.examples(code)) for code in prompt.languages}

    def asked(case: Case, examples: Sequence[Conversation]) -> Conversation:
        told = {**prompt.values_in(case.history.metadata), **values}
        if "labels" in settings.variables and 0 < len(case.options) <= MOST_LISTED:
            told.setdefault("labels", list(case.options))
        return prompt.ask(case.history, told, language=case.language, examples=examples)

    def bare(case: Case) -> Conversation:
        return asked(case, ())

    def ask(case: Case) -> Conversation:
        pool, text = pools[prompt.language_for(case.language)], asked_text(case.history)
        chosen = pool.chosen(settings.few_shot, case.history)
        return asked(case, [each for each in chosen if asked_text(each.history) != text])

    examples = tuple(each for code in prompt.languages for each in pools[code].examples)
    opens = not (prompt.reads_dialogue or settings.few_shot.depends_on_question)
    return Wording(name, ask, bare, examples, opens, settings.soft)


def learnt_rows(worded: Wording, row: Conversation, options: tuple[str, ...] = ()) -> Iterator[Conversation]:
    """The dialogue as it is asked, with its answers: one row, or one for each answer that follows a user.

    options: that answers are chosen from.  Answers inside the prompt are not learnt.
    """
    language, group = origin(row, 0)

    def asked(history: Conversation) -> Conversation:
        return worded.ask(Case(history, "", language, group, "", 0, options))

    if worded.opens:
        whole = asked(row)
        own = sum(turn.role not in ("system", "developer") for turn in row.messages)
        at = len(whole.messages) - own
        yield replace(whole, messages=(*_unlearnt(whole.messages[:at]), *whole.messages[at:]))
        return
    for at, turn in enumerate(row.messages):
        before = row.messages[:at]
        if turn.role == "assistant" and turn.weight != 0 and any(each.role == "user" for each in before):
            question = asked(replace(row, messages=before))
            yield replace(question, messages=(*_unlearnt(question.messages), turn))


def _unlearnt(turns: Sequence[Message]) -> list[Message]:
    return [replace(turn, weight=0.0) if turn.role == "assistant" else turn for turn in turns]
