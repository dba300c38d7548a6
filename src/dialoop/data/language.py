"""Which language a text is in, by scripts and function words: `en`, `zh` or `other`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from dialoop.types import Conversation, Language

SAMPLE_CHARS = 1000


def _of(*ranges: tuple[int, int]) -> re.Pattern[str]:
    return re.compile("[" + "".join(f"{chr(low)}-{chr(high)}" for low, high in ranges) + "]+")


# Built from code points, so that no line holds characters that look alike.
_HAN = _of((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0x20000, 0x3FFFF))
_KANA = _of((0x3040, 0x30FF), (0xFF66, 0xFF9D))
_OTHER_SCRIPT = _of((0x0370, 0x1CFF), (0xAC00, 0xD7AF))
_WORD = re.compile("[A-Za-z\u00c0-\u024f\u1e00-\u1eff]+(?:['’][A-Za-z]+)?")

_PROFILES = (
    "the be to of and a in that have i it for not on with he as you do at this but his by from they "
    "we say her she or an will my one all would there their what so up out if about who get which go "
    "me when make can like time no just him know take into your good some could them see other than "
    "then now look only come its over think also back after use how our was were is are am been had "
    "has did does don't i'm it's please thanks thank hi hello yes ok okay sorry help need want order "
    "where why any more here",
    "der die das und ist nicht ich sie es ein eine zu den mit auf für von dem wie kann mein wir bitte "
    "danke haben",
    "le la les de des et est pas je vous un une que pour dans sur mon avec ce qui votre merci bonjour "
    "il elle",
    "el la los las de y que no es un una por para con mi su se como está gracias hola quiero pero cómo puedo",
    "o a os as de e que não é um uma por para com meu seu se como está obrigado olá quero mas posso",
    "il la le di e che non è un una per con mio si come sono grazie ciao vorrei ma posso del della",
    "de het een en is niet ik je van dat op te voor met mijn u kan hoe wat bedankt",
    "yang dan di saya tidak ini itu untuk dengan apa bisa anda dari ke ada terima kasih bagaimana",
    "w i nie na się jest to z do że jak mój proszę dziękuję czy dzień co",
    "och att det är inte jag en ett som på för med av hur kan min tack hej vad har",
    "bir ve bu için ne ben değil ile nasıl var mı çok da de teşekkürler merhaba",
    "là và của không tôi có được cho một bạn này với như xin cảm ơn chào",
)
"""Function words; English first."""


def _by_word() -> dict[str, tuple[int, ...]]:
    table: dict[str, tuple[int, ...]] = {}
    for number, profile in enumerate(_PROFILES):
        for word in profile.split():
            table[word] = (*table.get(word, ()), number)
    return table


_LANGUAGES_OF = _by_word()


def detect(text: str) -> Language:
    """The language of `text`: Chinese by Han without kana, English by its function words."""
    sample = text[:SAMPLE_CHARS]
    words = _WORD.findall(sample)
    if sample.isascii():
        return _latin(words)
    han = _letters(_HAN, sample)
    kana = _letters(_KANA, sample)
    foreign = _letters(_OTHER_SCRIPT, sample)
    if foreign > max(han, 3 * len(words)) or kana > 0.1 * (han + kana):
        return "other" if foreign + kana > len(words) else _latin(words)
    return "zh" if han and han >= len(words) else _latin(words)


def _letters(script: re.Pattern[str], text: str) -> int:
    return sum(map(len, script.findall(text)))


def _latin(words: list[str]) -> Language:
    """English unless another language's function words or accents weigh more."""
    if not words:
        return "other"
    counts = [0] * len(_PROFILES)
    lowered = " ".join(words).lower().replace("’", "'").split(" ")
    for numbers in filter(None, map(_LANGUAGES_OF.get, lowered)):
        for number in numbers:
            counts[number] += 1
    english, foreign = counts[0], max(counts[1:])
    accented = len(words) - sum(map(str.isascii, words))
    if english >= foreign + accented:
        return "en"
    return "en" if english > foreign and accented < 0.15 * len(words) else "other"


def spoken(conversation: Conversation, values: Mapping[str, object] | None = None) -> Language | None:
    """The language of the user's turns, or where there are none of the texts in `values`; None = no text."""
    said = [message.content for message in conversation.messages if message.role == "user"]
    text = "\n".join(said) or "\n".join(each for each in (values or {}).values() if isinstance(each, str))
    return detect(text) if text.strip() else None


def is_han(char: str) -> bool:
    """Whether it is a Chinese character."""
    return _HAN.fullmatch(char) is not None


def touches(left: str, right: str) -> bool:
    """Whether no space stands between two words: where a Chinese one is beside it."""
    return is_han(left[-1:]) or is_han(right[:1])


def spaced(words: Sequence[str]) -> str:
    """Words as running text, with spaces where they stand."""
    return "".join(
        word if not i or touches(words[i - 1], word) else f" {word}" for i, word in enumerate(words)
    )


def language_of(conversation: Conversation) -> Language:
    """The language of what the user and the assistant say."""
    parts: list[str] = []
    size = 0
    for message in conversation.messages:
        if message.role in ("user", "assistant"):
            parts.append(message.content)
            size += len(message.content)
            if size > SAMPLE_CHARS:
                break
    return detect("\n".join(parts))
