"""Conversation -> token ids and loss weights: the one function that training and serving both call.

The ids of a conversation begin with exactly the ids that serving makes of its history: each answer is
tokenised from its own start, and a turn whose prompt would read differently in serving is refused.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from dialoop.chat.encode import Encoded, Part
from dialoop.chat.marks import Marked
from dialoop.chat.tokenizer import ChatTokenizer
from dialoop.chat.turns import Drawn, Pen, Turn
from dialoop.chat.words import in_words
from dialoop.config import MaskKind
from dialoop.errors import RenderError
from dialoop.types import Conversation, Message, Prompting

_PLAIN = Prompting()


@dataclass(frozen=True, slots=True)
class Rendered:
    """token_ids: (T,).  loss_mask: (T,) weight of each token as a target; 0 = context only."""

    token_ids: tuple[int, ...]
    loss_mask: tuple[float, ...]

    @property
    def size(self) -> int:
        """T."""
        return len(self.token_ids)


def render(
    conversation: Conversation,
    tokenizer: ChatTokenizer,
    *,
    mask: MaskKind = "assistant",
    add_generation_prompt: bool = False,
    learn: bool = True,
    prompting: Prompting = _PLAIN,
) -> Rendered:
    """The tokens of a conversation and what is learnt of them.

    mask: every assistant turn, the last one, or all tokens; `Message.weight` scales an assistant turn.
    Tools that the template does not show are written in words, and messages are counted with those.
    learn=False: nothing is learnt, as in serving. Raises RenderError where the template refuses the
    conversation, where a learnt turn reads differently in serving, or where nothing would be learnt.
    """
    conversation = in_words(
        conversation, tokenizer.template_for(conversation.tools), system=tokenizer.takes_system
    )
    pen = Pen.of(conversation, tokenizer, prompting)
    weights = _turn_weights(conversation, pen.answers, mask) if learn else {}
    _check_reasoning(conversation, weights, pen)
    drawn = _draw(pen, weights, add_generation_prompt)
    parts = _parts(drawn, tokenizer)
    encoded = tokenizer.encode_parts([part for _, part in parts])
    if not learn:
        return Rendered(tuple(encoded.ids), (0.0,) * len(encoded.ids))
    firsts = {start: first for (start, _), first in zip(parts, encoded.firsts, strict=True)}
    loss_mask = _loss_mask(encoded, drawn, firsts, weights, 1.0 if mask == "all" else 0.0)
    if not any(loss_mask):
        raise RenderError(_nothing_learnt(conversation, pen.answers, mask))
    return Rendered(tuple(encoded.ids), loss_mask)


def render_prompt(
    history: Conversation, tokenizer: ChatTokenizer, prompting: Prompting = _PLAIN
) -> tuple[int, ...]:
    """The ids that a model is asked to continue: the history and, unless told otherwise, the generation
    prompt.
    """
    opened = prompting.answering and not prompting.continued
    return render(
        history, tokenizer, add_generation_prompt=opened, learn=False, prompting=prompting
    ).token_ids


def _turn_weights(conversation: Conversation, answers: Sequence[int], mask: MaskKind) -> dict[int, float]:
    """Weight by message index of the assistant turns whose place in the text must be known."""
    for i, message in enumerate(conversation.messages):
        if message.weight and message.role != "assistant":
            raise RenderError(
                f"messages[{i}].weight is {message.weight:g} on a {message.role} turn: only assistant turns "
                f"are learnt by weight; remove it, or train with mask='all'"
            )
    if mask == "all":
        given = {i: conversation.messages[i].weight for i in answers}
        return {i: weight for i, weight in given.items() if weight is not None}
    chosen = answers[-1:] if mask == "last" else answers
    weights = {i: _weight(conversation.messages[i]) for i in chosen}
    return {i: weight for i, weight in weights.items() if weight}


def _check_reasoning(conversation: Conversation, weights: Mapping[int, float], pen: Pen) -> None:
    """A learnt turn must not lose its reasoning; in a history it may be left out."""
    lost = [i for i in weights if conversation.messages[i].reasoning]
    if lost and not pen.template.shows("reasoning_content", "thinking"):
        raise RenderError(
            f"messages[{lost[0]}].reasoning_content: {pen.template.where} does not show reasoning, which "
            f"would not be learnt: write it into the content, or leave it out"
        )


def _weight(message: Message) -> float:
    return 1.0 if message.weight is None else message.weight


def _draw(pen: Pen, weights: Mapping[int, float], prompt: bool) -> Drawn:
    """The text, the cuts at its answers, and the place of each turn that has a weight."""
    whole = pen.draw(prompt=prompt)
    if len(whole.spans) == len(pen.answers):
        turns = [Turn(i, start, end) for i, (start, end) in zip(pen.answers, whole.spans, strict=True)]
        _verify(pen, [turn for turn in turns if turn.index in weights], whole.text)
        cuts = [turn.start for turn in turns]
    else:
        cuts, turns = _unmarked(pen, whole, weights)
    learnt = tuple(turn for turn in turns if turn.index in weights)
    return Drawn(whole.text, whole.breaks, (*cuts, len(whole.text)), learnt)


def _unmarked(pen: Pen, whole: Marked, weights: Mapping[int, float]) -> tuple[list[int], list[Turn]]:
    """Cuts and turns without `{% generation %}`: by rendering each prompt, in known shapes by the headers."""
    found, shape = pen.find_turns(whole), pen.shape(weights)
    if found is not None and shape in pen.tokenizer.verified:
        return [turn.start for turn in found], found
    starts = {i: pen.start(i, whole.text) for i in pen.answers}
    turns = [_turn(pen, i, starts[i], whole.text) for i in weights]
    cuts = [start for start in starts.values() if start is not None]
    agreed = found is not None and [turn.start for turn in found] == list(starts.values())
    if agreed and [turn for turn in found or [] if turn.index in weights] == turns:
        pen.tokenizer.remember(shape)
    return cuts, turns


def _turn(pen: Pen, index: int, start: int | None, text: str) -> Turn:
    """Where a turn lies, by the difference between its prompt and its answer. Raises RenderError."""
    end = pen.end(index, text)
    if start is not None and end is not None and end >= start:
        return Turn(index, start, end)
    where = pen.template.where
    if index == 0:
        raise RenderError(
            f"messages[0] is an assistant turn and {where} has no prompt for it: give it weight 0, or put a "
            f"turn before it"
        )
    if index == pen.answers[-1]:
        raise RenderError(
            f"messages[{index}]: {where} writes the history otherwise once it is answered, so that serving "
            f"would ask for something else: mend the template, or leave this conversation out"
        )
    raise RenderError(
        f"messages[{index}]: {where} writes this turn otherwise once later turns follow, so that serving "
        f"would never see what is learnt: train with mask='last', or give the turn weight 0"
    )


def _verify(pen: Pen, turns: Sequence[Turn], text: str) -> None:
    """Check `{% generation %}` blocks against the difference of renderings, once per shape of dialogue."""
    shape = pen.shape({turn.index for turn in turns})
    if not turns or shape in pen.tokenizer.verified:
        return
    for turn in turns:
        other = _turn(pen, turn.index, pen.start(turn.index, text), text)
        marked, written = text[turn.start : turn.end], text[other.start : other.end]
        if turn.start != other.start or marked.rstrip() != written.rstrip():
            raise RenderError(
                f"{pen.template.where}: its {{% generation %}} block and its generation prompt disagree "
                f"about messages[{turn.index}] ({turn.start}:{turn.end} marked, {other.start}:{other.end} "
                f"answered): the block must begin where the prompt ends and hold the end of the turn"
            )
    pen.tokenizer.remember(shape)


def _parts(drawn: Drawn, tokenizer: ChatTokenizer) -> list[tuple[int, Part]]:
    """The text in parts with their offsets: cut where answers begin and around spelt control tokens."""
    spelt = _spelt(drawn, tokenizer) if drawn.breaks else {}
    places = sorted({0, *drawn.cuts, *spelt, *spelt.values()})
    stretches = [(start, end) for start, end in pairwise(places) if start < end]
    return [(start, Part(drawn.text[start:end], plain=start in spelt)) for start, end in stretches]


def _spelt(drawn: Drawn, tokenizer: ChatTokenizer) -> dict[int, int]:
    """start -> end of the control tokens that a message spells out."""
    found: dict[int, int] = {}
    for match in tokenizer.control_pattern.finditer(drawn.text):
        start, end = match.span()
        i = bisect_right(drawn.breaks, start)
        if i < len(drawn.breaks) and drawn.breaks[i] < end:
            found[start] = end
    return found


def _loss_mask(
    encoded: Encoded, drawn: Drawn, firsts: Mapping[int, int], weights: Mapping[int, float], default: float
) -> tuple[float, ...]:
    """The weight of each token; firsts: offset of a part -> its first token."""
    loss_mask = [default] * len(encoded.ids)
    for turn in drawn.turns:
        first = firsts.get(turn.start, len(encoded.ids))
        last = bisect_left(encoded.starts, turn.end, lo=first)
        loss_mask[first:last] = [weights[turn.index]] * (last - first)
    return tuple(loss_mask)


def _nothing_learnt(conversation: Conversation, answers: Sequence[int], mask: MaskKind) -> str:
    if not answers:
        return f"nothing to learn with mask={mask!r}: the conversation has no assistant turn; add an answer"
    if all(conversation.messages[i].weight == 0 for i in answers):
        return "nothing to learn: every assistant turn has weight 0; give one a weight, or leave the row out"
    return f"nothing to learn with mask={mask!r}: the turns it chooses are empty or have weight 0"
