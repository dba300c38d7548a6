"""Rows computed rather than written: sums, calendars, counting, orderings, codes, dates, times."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence

Row = Mapping[str, str]

NUMBER_WORDS = (
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
    "twenty",
)
NUMBER_SIGNS = (
    "零",
    "一",
    "二",
    "三",
    "四",
    "五",
    "六",
    "七",
    "八",
    "九",
    "十",
    "十一",
    "十二",
    "十三",
    "十四",
    "十五",
    "十六",
    "十七",
    "十八",
    "十九",
    "二十",
)
MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
ZH_DAYS = [f"星期{sign}" for sign in "一二三四五六日"]
ZH_MONTHS = [f"{sign}月" for sign in NUMBER_SIGNS[1:13]]


def _cycle(items: Sequence[str]) -> list[Row]:
    size = len(items)
    return [
        {"this": item, "next": items[(at + 1) % size], "before": items[at - 1], "rank": str(at + 1)}
        for at, item in enumerate(items)
    ]


def _sums(words: Sequence[str]) -> list[Row]:
    return [
        {"x": str(x), "y": str(y), "z": str(x + y), "xw": words[x], "yw": words[y], "zw": words[x + y]}
        for x in range(21)
        for y in range(21 - x)
    ]


def _counts(words: Sequence[str], comma: str) -> list[Row]:
    return [
        {
            "x": str(low),
            "y": str(high),
            "up": comma.join(map(str, range(low, high + 1))),
            "down": comma.join(map(str, range(high, low - 1, -1))),
            "words": comma.join(words[low : high + 1]),
        }
        for low in range(1, 16)
        for high in range(low + 2, min(low + 10, 21))
    ]


def _compare() -> list[Row]:
    pairs = ((x, y) for x in range(1, 100, 3) for y in range(2, 100, 5) if x != y)
    return [{"x": str(x), "y": str(y), "big": str(max(x, y)), "small": str(min(x, y))} for x, y in pairs]


def ordering(items: Iterable[str]) -> list[Row]:
    """Turn names listed from the smallest to the largest into rows a, b, big, small (both orders)."""
    names = list(items)
    pairs = [(low, high) for at, low in enumerate(names) for high in names[at + 2 :]]
    rows: list[Row] = []
    for low, high in pairs:
        rows.append({"a": low, "b": high, "big": high, "small": low})
        rows.append({"a": high, "b": low, "big": high, "small": low})
    return rows


def computed_tables(language: str) -> dict[str, list[Row]]:
    """Return the computed tables of `en` or `zh` by name."""
    chinese = language == "zh"
    words = NUMBER_SIGNS if chinese else NUMBER_WORDS
    return {
        "sums": _sums(words),
        "counts": _counts(words, "，" if chinese else ", "),
        "numbers": _compare(),
        "days": _cycle(ZH_DAYS if chinese else DAYS),
        "months": _cycle(ZH_MONTHS if chinese else MONTHS),
    }


def _codes(rng: random.Random) -> list[str]:
    letters = "ABCDEFGHJKLMNPQRSTUVWXYZ"
    shapes = ("LLDDD", "LDDDD", "DDDD", "LLDDDD", "LDDLD", "DDDDDD", "L-DDD", "LL-DD", "DDLD")
    pick = {"L": letters, "D": "0123456789"}
    return ["".join(rng.choice(pick.get(mark, mark)) for mark in rng.choice(shapes)) for _ in range(3000)]


def _times(language: str) -> list[str]:
    if language == "en":
        quarters = ("00", "15", "30", "45", "10", "20", "40", "50")
        spoken = [f"{hour} o'clock" for hour in range(1, 13)]
        spoken += [f"half past {word}" for word in NUMBER_WORDS[1:13]]
        mornings = [f"{hour}:{quarter} am" for hour in range(6, 12) for quarter in quarters]
        evenings = [f"{hour}:{quarter} pm" for hour in range(1, 11) for quarter in quarters]
        return mornings + evenings + spoken + [f"{hour} am" for hour in range(6, 12)]
    spans = {"上午": range(8, 12), "下午": range(1, 6), "晚上": range(6, 11), "早上": range(6, 9)}
    ends = ("点", "点半", "点一刻", "点二十")
    signs = [str(hour) for hour in range(13)]
    return [
        f"{span}{hour}{end}"
        for span, hours in spans.items()
        for h in hours
        for hour in (signs[h], NUMBER_SIGNS[h].replace("二", "两") if h == 2 else NUMBER_SIGNS[h])
        for end in ends
    ]


def _dates(language: str) -> list[str]:
    if language == "en":
        return [f"{day} {month}" for month in MONTHS for day in range(1, 29)] + [
            f"{month} {day}" for month in MONTHS for day in range(1, 29)
        ]
    return [f"{month}月{day}{end}" for month in range(1, 13) for day in range(1, 29) for end in "日号"]


def computed_pools(language: str) -> dict[str, list[str]]:
    """Return the computed slot pools of `en` or `zh`; the same on every call."""
    rng = random.Random(7)
    phones = [f"{rng.randrange(200, 999)} {rng.randrange(1000, 9999)}" for _ in range(1500)]
    return {
        "code": _codes(rng),
        "phone": phones,
        "time": _times(language),
        "date": _dates(language),
        "num": [str(number) for number in range(2, 100)],
        "room": [str(floor * 100 + door) for floor in range(1, 9) for door in range(1, 30)],
        "n": [str(number) for number in range(2, 13)],
        "day": list(DAYS) if language == "en" else [f"周{sign}" for sign in "一二三四五六日"],
        "month": list(MONTHS) if language == "en" else list(ZH_MONTHS),
        "year": [str(year) for year in range(1850, 2020)],
        "age": [str(age) for age in range(18, 81)],
    }
