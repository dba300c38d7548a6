"""Instructions that a model proposes, from questions and their right answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

from dialoop.errors import DialoopError
from dialoop.prompting.selection import asked_text
from dialoop.types import ChatRequest, Conversation, Engine, Message, Sampling, fold

SHOWN = 6
LONGEST = 600
_ASKED = MappingProxyType(
    {
        "en": (
            "Below are messages and the right answers to them. Write one instruction that would make an "
            "assistant answer such messages right. Write the instruction and nothing else.",
            "Message", "Answer", "The instruction so far: {system}", "Instruction:",
        ),
        "zh": (
            "下面是一些消息和正确的回答。请写一条指令，让助手能正确回答这类消息。只写指令，不要多说。",
            "消息", "回答", "现在的指令：{system}", "指令：",
        ),
    }
)  # fmt: skip


def proposed(
    engine: Engine,
    model: str,
    language: str,
    system: str,
    examples: Sequence[Conversation],
    count: int,
    kept: Path,
    seed: int = 0,
) -> list[str]:
    """Up to `count` different instructions, as `kept` has them from an earlier call; the engine is closed.

    Template code in what is proposed is taken out: it comes from a model. Raises DialoopError where none
    could be asked for.
    """
    if kept.is_file():
        asyncio.run(engine.aclose())
        return [str(each) for each in json.loads(kept.read_text(encoding="utf-8"))]
    asked = _question(language, system, examples)
    found = asyncio.run(_all(engine, model, asked, count, seed))
    texts = list(dict.fromkeys(text for each in found if (text := _plain(each))))
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps(texts, ensure_ascii=False, indent=1), encoding="utf-8")
    return texts


def _question(language: str, system: str, examples: Sequence[Conversation]) -> Conversation:
    wanted, message, answer, so_far, last = _ASKED["zh" if language == "zh" else "en"]
    shown = [
        f"{message}: {asked_text(each.history)[:300]}\n{answer}: {each.answer[:300]}"
        for each in examples[:SHOWN]
    ]
    parts = [wanted, *shown, *([so_far.format(system=system)] if system else []), last]
    return Conversation((Message("user", "\n\n".join(parts)),))


async def _all(engine: Engine, model: str, asked: Conversation, count: int, seed: int) -> list[str]:
    async def one(number: int) -> str:
        sampling = Sampling(temperature=0.9, top_p=0.95, max_tokens=160, seed=seed + number)
        deltas = cast(Any, engine.chat(ChatRequest(model, asked, sampling)))
        async with aclosing(deltas):
            (answer,) = await fold(deltas)
        return answer.text

    try:
        found = await asyncio.gather(*map(one, range(count)), return_exceptions=True)
    finally:
        await engine.aclose()
    failures = [each for each in found if isinstance(each, BaseException)]
    if failures and (len(failures) == len(found) or not isinstance(failures[0], DialoopError)):
        raise failures[0]
    return [each for each in found if isinstance(each, str)]


def _plain(text: str) -> str:
    for code in ("{{", "}}", "{%", "%}", "{#", "#}"):
        text = text.replace(code, "")
    return " ".join(text.split())[:LONGEST].strip('"“” ')
