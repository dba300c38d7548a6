"""Charts as PNG files, in the light colours of the reports."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path

import resvg_py
from markupsafe import Markup

from dialoop.evals.words import is_han, is_kana

SCALE = 2
FONTS = "'DejaVu Sans','Liberation Sans','Noto Sans','Noto Sans CJK SC',Arial,Helvetica,sans-serif"
"""The first that the system has; a chart on a system without any has no words."""
_ROOT = re.compile(r":root\s*\{(.*?)\}", re.DOTALL)


CHINESE_FONTS = re.compile(
    r"noto.*(cjk|sans-?sc)|sourcehan|wqy|msyh|simhei|simsun|pingfang|droidsansfallback|arphic|uming|ukai",
    re.I,
)
"""Names of font files that hold Chinese."""
_TEXT = re.compile(r"(<text[^>]*>)([^<]*)(</text>)")


@cache
def chinese_font() -> bool:
    """Whether the system has a font for Chinese."""
    places = (
        "/usr/share/fonts", "/usr/local/share/fonts", "~/.fonts", "~/.local/share/fonts",
        "/System/Library/Fonts", "/Library/Fonts", "~/Library/Fonts",
    )  # fmt: skip
    files_ = (
        name for place in places for _, _, names in os.walk(os.path.expanduser(place)) for name in names
    )
    return any(CHINESE_FONTS.search(name) for name in files_)


def style() -> str:
    """The reports' style sheet."""
    return (files("dialoop") / "assets" / "report" / "report.css").read_text(encoding="utf-8")


def write_png(charts: Sequence[Markup], path: Path) -> Path:
    """The charts below each other, as one picture. Without a font for Chinese its names become numbers."""
    charts = charts if chinese_font() else _numbered(charts)
    sizes = [tuple(map(float, re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', chart)[0])) for chart in charts]
    width, places, height = max(w for w, _ in sizes), [], 0.0
    for _, tall in sizes:
        places.append(height)
        height += tall + 14
    inside = Markup("").join(
        Markup('<g transform="translate(0 {})">{}</g>').format(
            y, Markup(re.sub(r"^<svg[^>]*>|</svg>$", "", c))
        )
        for y, c in zip(places, charts, strict=True)
    )
    whole = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}">{inside}</svg>'
    drawn = resvg_py.svg_to_bytes(
        svg_string=whole, style_sheet=_flat_style(), background="#ffffff", width=round(width * SCALE)
    )
    draft = path.with_name(f".{path.name}")
    draft.write_bytes(bytes(drawn))
    os.replace(draft, path)
    return path


def _numbered(charts: Sequence[Markup]) -> list[Markup]:
    """Each Chinese text as `[1]`, `[2]`: better than boxes; the page beside the picture has them in full."""
    known: dict[str, int] = {}

    def plain(found: re.Match[str]) -> str:
        opening, text, closing = found.groups()
        if any(is_han(letter) or is_kana(letter) for letter in text):
            text = f"[{known.setdefault(text, len(known) + 1)}]"
        return f"{opening}{text}{closing}"

    return [Markup(_TEXT.sub(plain, chart)) for chart in charts]


def _flat_style() -> str:
    """The rules for charts with the light colours written out: the renderer knows no variables."""
    sheet = style()
    first = _ROOT.search(sheet)
    colours = dict(re.findall(r"--([\w-]+):\s*([^;]+);", first.group(1) if first else ""))
    rules = re.findall(r"\.chart (\.[^{}]+)\{([^{}]*)\}", sheet)
    flat = "".join(f"{name} {{{body}}}" for name, body in rules)
    return f"text {{ font-family: {FONTS}; }}" + re.sub(r"var\(--([\w-]+)\)", lambda m: colours[m[1]], flat)
