"""Cleaning: a stream of conversations through the chosen steps, everything counted.

Row by row up to the duplicates; those go by batch, the near ones over a file of parked rows, so that
memory stays bounded however long the stream.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import get_args

from dialoop.config import CleanSettings, CleanStep
from dialoop.data.contrast import supervised
from dialoop.data.exact import SeenKeys, content_key
from dialoop.data.language import language_of
from dialoop.data.markup import is_about_code, plain
from dialoop.data.order import in_bounds, in_order
from dialoop.data.pii import Numbering, find, mask_conversation
from dialoop.data.quality import flags_of
from dialoop.data.spill import BATCH, Spill, batches, scratch_folder
from dialoop.data.tally import CleaningReport, Tally
from dialoop.data.unicode import normalise
from dialoop.data.vault import Vault
from dialoop.errors import RejectsError
from dialoop.types import Conversation, Message

Row = tuple[str, Conversation]
Step = Callable[[str, Conversation], Conversation | None]
Progress = Callable[[int], None]


def clean(
    conversations: Iterable[Conversation],
    settings: CleanSettings,
    *,
    scratch: Path,
    tally: Tally | None = None,
    vault: Vault | None = None,
    on_progress: Progress | None = None,
) -> Iterator[Conversation]:
    """What is left of `conversations`, in their order.

    scratch: folder for parked rows and signatures; emptied again.  tally: takes the counts.
    vault: takes what masked values stood for.  on_progress: told the rows read so far.
    """
    tally = Tally() if tally is None else tally
    rows = _kept(_named(conversations, settings, tally, on_progress), row_steps(settings, tally, vault))
    if "exact" in settings.steps:
        rows = _without_exact(rows, tally)
    if "near" in settings.steps:
        rows = _without_near(rows, settings, scratch, tally)
    for _, conversation in rows:
        tally.kept += 1
        yield conversation


def check_rejects(report: CleaningReport, max_share: float) -> None:
    """Raises RejectsError where more than `max_share` of the rows were rejected."""
    if report.reject_share > max_share:
        raise RejectsError(
            f"{report.rejected} of {report.rows + report.unreadable} rows were rejected "
            f"({report.reject_share:.1%}), at most {max_share:.1%} may be: look at the rejects, "
            f"mend the file or its --format and --column, or raise max_reject_share"
        )


def _named(
    conversations: Iterable[Conversation], settings: CleanSettings, tally: Tally, on_progress: Progress | None
) -> Iterator[Row]:
    """Each conversation with its id, or its position where it has none or the id is personal data."""
    hide = "pii" in settings.steps
    for number, conversation in enumerate(conversations, 1):
        tally.rows = number
        name = conversation.metadata.get("id")
        usable = isinstance(name, str | int) and not (hide and find(str(name)))
        yield (str(name) if usable else f"#{number}"), conversation
        if on_progress is not None and number % BATCH == 0:
            on_progress(number)


def _kept(rows: Iterable[Row], steps: list[tuple[str, Step]]) -> Iterator[Row]:
    for name, conversation in rows:
        current: Conversation | None = conversation
        for _, step in steps:
            current = step(name, current) if current is not None else None
        if current is not None:
            yield name, current


def row_steps(settings: CleanSettings, tally: Tally, vault: Vault | None = None) -> list[tuple[str, Step]]:
    """The chosen steps that look at one row at a time, in the fixed order."""
    numbering = Numbering("R")
    made: dict[CleanStep, Step] = {
        "unicode": lambda name, c: _unicode(name, c, tally),
        "html": lambda name, c: _html(name, c, tally),
        "roles": lambda name, c: _roles(name, c, tally),
        "turns": lambda name, c: _turns(name, c, tally, settings),
        "language": lambda name, c: _language(name, c, tally, settings),
        "quality": lambda name, c: _quality(name, c, tally, settings),
        "pii": lambda name, c: _pii(name, c, tally, vault, numbering),
    }
    return [(step, made[step]) for step in get_args(CleanStep) if step in settings.steps and step in made]


def _unicode(name: str, conversation: Conversation, tally: Tally) -> Conversation:
    tally.saw("unicode")
    return _mapped(name, conversation, tally, "unicode", _normal_message)


def _normal_message(message: Message) -> tuple[Message, tuple[str, ...]]:
    content, reasons = normalise(message.content)
    reasoning = message.reasoning
    if reasoning:
        reasoning, more = normalise(reasoning)
        reasons += more
    return (replace(message, content=content, reasoning=reasoning) if reasons else message), reasons


def _html(name: str, conversation: Conversation, tally: Tally) -> Conversation:
    """Tags stay in every turn of a conversation that talks about code."""
    tally.saw("html")
    tagged = any("<" in m.content or "&" in m.content for m in conversation.messages)
    keep_tags = tagged and is_about_code("\n".join(m.content for m in conversation.messages))

    def stripped(message: Message) -> tuple[Message, tuple[str, ...]]:
        if message.role not in ("user", "assistant"):
            return message, ()
        content, reasons = plain(message.content, keep_tags=keep_tags)
        return (replace(message, content=content) if reasons else message), reasons

    return _mapped(name, conversation, tally, "html", stripped)


def _mapped(
    name: str,
    conversation: Conversation,
    tally: Tally,
    step: str,
    change: Callable[[Message], tuple[Message, tuple[str, ...]]],
) -> Conversation:
    """`change` over every message; a conversation that it leaves alone is handed on as it is."""
    messages: list[Message] = []
    reasons: list[str] = []
    for message in conversation.messages:
        after, why = change(message)
        messages.append(after)
        reasons += why
    if not reasons:
        return conversation
    tally.note(step, "changed", name, tuple(dict.fromkeys(reasons)))
    return replace(conversation, messages=tuple(messages))


def _roles(name: str, conversation: Conversation, tally: Tally) -> Conversation | None:
    tally.saw("roles")
    return _noted(name, tally, "roles", *in_order(conversation))


def _turns(
    name: str, conversation: Conversation, tally: Tally, settings: CleanSettings
) -> Conversation | None:
    tally.saw("turns")
    return _noted(name, tally, "turns", *in_bounds(conversation, settings.max_turn_chars, settings.max_turns))


def _noted(
    name: str, tally: Tally, step: str, after: Conversation | None, reasons: tuple[str, ...]
) -> Conversation | None:
    if reasons:
        tally.note(step, "removed" if after is None else "changed", name, reasons)
    return after


def _language(
    name: str, conversation: Conversation, tally: Tally, settings: CleanSettings
) -> Conversation | None:
    """Sets `language` where it is missing; says where the given one disagrees with the text."""
    tally.saw("language")
    found = language_of(supervised(conversation))
    given = conversation.metadata.get("language")
    tally.label(found)
    if given is None:
        conversation = replace(conversation, metadata={**conversation.metadata, "language": found})
    elif found != "other" and str(given)[:2].lower() != found:
        tally.note("language", "flagged", name, ("language disagrees",))
    if settings.languages and found not in settings.languages:
        tally.note("language", "removed", name, ("language not wanted",))
        return None
    return conversation


def _quality(
    name: str, conversation: Conversation, tally: Tally, settings: CleanSettings
) -> Conversation | None:
    tally.saw("quality")
    flags = flags_of(supervised(conversation))
    if not flags:
        return conversation
    if any(flag in settings.drop_flags for flag in flags):
        tally.note("quality", "removed", name, flags)
        return None
    tally.note("quality", "flagged", name, flags)
    return replace(conversation, metadata={**conversation.metadata, "flags": list(flags)})


def _pii(
    name: str, conversation: Conversation, tally: Tally, vault: Vault | None, run: Numbering
) -> Conversation:
    tally.saw("pii")
    masked = mask_conversation(conversation, run)
    if not masked.mapping:
        return conversation
    tally.note("pii", "changed", name, tuple(kind for kind, n in masked.kinds for _ in range(n)))
    if vault is not None:
        vault.put(name, masked.mapping)
    return masked.conversation


def _without_exact(rows: Iterable[Row], tally: Tally) -> Iterator[Row]:
    seen = SeenKeys()
    for batch in batches(rows, 8 * BATCH):
        tally.saw("exact", len(batch))
        new = seen.first_seen([content_key(conversation) for _, conversation in batch])
        for row, is_new in zip(batch, new.tolist(), strict=True):
            if is_new:
                yield row
            else:
                tally.note("exact", "removed", row[0], ("duplicate",))


def _without_near(rows: Iterable[Row], settings: CleanSettings, scratch: Path, tally: Tally) -> Iterator[Row]:
    """Parks the rows, finds the twins among their signatures, then hands on the first of each family."""
    from dialoop.data.near import NearIndex

    with ExitStack() as stack:
        folder = Path(stack.enter_context(scratch_folder(scratch, "near-")))
        parked = stack.enter_context(Spill(folder / "rows"))
        index = stack.enter_context(
            NearIndex(folder, threshold=settings.near_threshold, permutations=settings.near_permutations)
        )
        for batch in batches(rows):
            tally.saw("near", len(batch))
            index.append([conversation for _, conversation in batch])
            parked.append(batch)
        twins = iter(index.twins() >= 0)
        for name, conversation in chain.from_iterable(parked.read()):
            if next(twins):
                tally.note("near", "removed", name, ("near-duplicate",))
            else:
                yield name, conversation
