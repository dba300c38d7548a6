"""Self-contained pages in English and Chinese: what all of them share, and how they are filled."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup, escape

from dialoop.evals.messages import REPORT_LANGUAGES, ReportLanguage
from dialoop.evals.png import style


def filled(template: str, language: ReportLanguage = "en", /, **values: Any) -> str:
    """The page of a template; `language` is what it shows first. What came from outside is escaped."""
    folder = files("dialoop") / "assets" / "report"
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        loader=FunctionLoader(lambda file: (folder / file).read_text(encoding="utf-8")),
    )  # fmt: skip
    return environment.get_template(template).render(language=language, style=Markup(style()), **values)


def both(message: Callable[[ReportLanguage], str]) -> Markup:
    """A message in both languages, of which the style sheet shows one."""
    spans = (
        Markup('<span lang="{}" class="{}">{}</span>').format(code, code, message(code))
        for code in REPORT_LANGUAGES
    )
    return Markup("").join(spans)


def same_or_both(message: Callable[[ReportLanguage], str]) -> Markup:
    """`both`, or the text once where it is the same."""
    texts = {message(code) for code in REPORT_LANGUAGES}
    return escape(texts.pop()) if len(texts) == 1 else both(message)
