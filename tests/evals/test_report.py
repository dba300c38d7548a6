"""The before/after report as value, page, JSON, Markdown and terminal table."""

from __future__ import annotations

import dataclasses
import io
import json
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from dialoop.errors import EvalError
from dialoop.evals.cost import Cost
from dialoop.evals.difference import marked
from dialoop.evals.headline import advice, findings, headline
from dialoop.evals.html import page
from dialoop.evals.markdown import markdown
from dialoop.evals.plot import ticks
from dialoop.evals.report import Identity, Report, Retained, build
from dialoop.evals.task import Case, Outcome
from dialoop.evals.written import as_json, table, write
from dialoop.types import Conversation, Message

HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(2)> {{ 7*7 }} & | ' + "`x`"
CURVES = [
    {"step": s, "loss": 3 / s, "learning_rate": 1e-3 / s, "grad_norm": 1.0, "valid_loss": None}
    for s in range(1, 30)
]
ENGLISH = ["your parcel number {} will come tomorrow", "the refund for order {} was sent today"]
CHINESE = ["您的第{}号包裹明天送达", "第{}号订单的退款今天已经提交"]


def case(i: int, language: str, text: str = "", intent: str = "") -> Case:
    reference = text or (ENGLISH if language == "en" else CHINESE)[i % 2].format(i)
    history = Conversation(
        (Message("user", f"question {i}"),), metadata={"intent": intent or ("parcel", "refund")[i % 2]}
    )
    return Case(history, reference, language, f"{language}-{i // 2}", f"{language}-{i}/0", i % 3)


CASES = tuple(case(i, language) for language in ("en", "zh") for i in range(20))


def weak(c: Case) -> str:
    return c.reference[: len(c.reference) // 3] + (" something else" if c.language == "en" else "别的话")


def strong(c: Case) -> str:
    return c.reference.replace("1", "2")


def outcomes(answer: Sequence[str], loss: float, cases: Sequence[Case] = CASES) -> list[Outcome]:
    pairs = zip(cases, answer, strict=True)
    return [
        Outcome(c, a, -loss * len(c.reference) - 0.1 * (i % 4), len(c.reference))
        for i, (c, a) in enumerate(pairs)
    ]


def made(
    nearest: str = "weak",
    cases: Sequence[Case] = CASES,
    identity: Identity | None = None,
    swapped: bool = False,
) -> Report:
    bad, good = outcomes([*map(weak, cases)], 2.0, cases), outcomes([*map(strong, cases)], 1.0, cases)
    sides = {"weak": bad, "perfect": outcomes([c.reference for c in cases], 1.0, cases)}
    before, after = (good, bad) if swapped else (bad, good)
    return build(before, after, nearest=sides.get(nearest), identity=identity, curves=CURVES, resamples=400)


@pytest.fixture(scope="module")
def report() -> Report:
    return made()


class Balanced(HTMLParser):
    """Collects attributes, text and tags that were never closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.tags: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes.extend((name, value or "") for name, value in attrs)
        if tag not in ("meta", "input"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def parsed(html: str) -> Balanced:
    parser = Balanced()
    parser.feed(html)
    parser.close()
    assert parser.open == []
    return parser


def test_every_language_has_its_rows_and_bleu_is_never_mixed(report: Report) -> None:
    assert report.languages == ("en", "zh", "all")
    assert [row.change.metric for row in report.of("zh")][:2] == ["BLEU", "chrF"]
    assert "BLEU" not in {row.change.metric for row in report.of("all")}
    assert "|tok:zh|" in report.of("zh")[0].change.signature
    assert all(row.nearest is None for row in report.rows if row.change.metric == "perplexity")


def test_the_headline_is_plain_where_the_model_is_better_and_beats_its_neighbour(report: Report) -> None:
    text = headline(report)
    assert text.startswith("The tuned model is better than the model before. It beats the nearest-neighbour")
    assert text.endswith("Take the tuned model: nothing is shown to be lost.")
    assert headline(report, "zh").startswith("微调后的模型 优于 之前的模型。它优于最近邻基线")
    assert re.search(r"English: better: BLEU \+\d+\.\d \[.*better: perplexity −", findings(report)[0])


def test_the_headline_says_so_when_the_nearest_neighbour_is_not_beaten() -> None:
    lost = made("perfect")
    assert "It does not beat the nearest-neighbour baseline" in headline(lost)
    assert re.search(r"Chinese BLEU \d+\.\d against 100\.0", headline(lost))
    assert "没有胜过最近邻基线" in page(lost)
    assert "It does not beat the nearest-neighbour baseline" in markdown(lost).splitlines()[0]


def test_the_headline_says_so_when_the_model_got_worse_and_is_silent_of_a_baseline_that_is_not_there() -> (
    None
):
    identity = Identity(base="shop@1", model="shop@2")
    text = headline(made("none", identity=identity, swapped=True))
    assert text == "shop@2 is worse than shop@1. Keep shop@1."


def test_advice_minds_what_is_forgotten_what_leaked_and_what_it_takes(report: Report) -> None:
    lost = Retained("general", made(swapped=True))
    cost = Cost(12, 1.0, 2.0, 10.0, 1000)
    slow = dataclasses.replace(cost, median_seconds=3.0)
    minded = dataclasses.replace(report, retained=(lost,), costs=(cost, slow), leaked=0.2)
    assert advice(report) == "Take the tuned model: nothing is shown to be lost."
    text = advice(minded)
    assert text.startswith("Weigh what the tuned model gains")
    assert "20 % of the test dialogues repeat" in text
    assert text.endswith("It takes 3.0 times as long to answer.")
    few = made(cases=CASES[:1])
    assert advice(few).startswith("Keep the model before until more speaks for the tuned model")


def test_equal_models_are_called_equal() -> None:
    same = outcomes([*map(strong, CASES)], 1.0)
    assert headline(build(same, same, resamples=100)).startswith(
        "The tuned model answers as the model before does."
    )


def test_slices_come_worst_first_by_language_intent_turn_and_length(report: Report) -> None:
    deltas = [part.change.delta for part in report.slices]
    assert deltas == sorted(deltas)
    assert {part.key for part in report.slices} == {"language", "intent", "turn", "length"}
    assert {part.value for part in report.slices if part.key == "turn"} == {"1", "2", "3"}


def test_gains_and_losses_are_the_largest_one_a_group_and_of_both_languages() -> None:
    before, after = [*map(weak, CASES)], [*map(strong, CASES)]
    before[4], after[4] = CASES[4].reference, ""
    mixed = build(outcomes(before, 1), outcomes(after, 1), resamples=100, examples=4)
    assert [side.case.id for side in mixed.losses] == ["en-4/0"]
    assert mixed.losses[0].gain == -100
    assert len({side.case.group for side in mixed.gains}) == 4
    assert {side.case.language for side in mixed.gains} == {"en", "zh"}


def test_the_page_loads_nothing_and_runs_nothing(report: Report) -> None:
    html = page(report)
    found = parsed(html)
    assert found.tags.isdisjoint({"script", "link", "img", "iframe", "object", "base"})
    assert {name for name, _ in found.attributes}.isdisjoint({"src", "href", "srcset", "action"})
    assert not re.search(r"https?:|url\(|@import", html)


def test_the_page_speaks_both_languages_and_opens_in_the_one_asked_for(report: Report) -> None:
    english, chinese = page(report, "en"), page(report, "zh")
    assert 'id="show-en" checked' in english
    assert 'id="show-zh" checked' in chinese
    assert 'lang="zh"' in chinese.splitlines()[1]
    for html in (english, chinese):
        assert "Slices, worst first" in html
        assert "分项对比（最差在前）" in html


def test_text_from_outside_stays_text_on_the_page_and_in_markdown() -> None:
    identity = Identity(
        *[HOSTILE] * 5, seeds={HOSTILE: 1}, command=HOSTILE, more={HOSTILE: HOSTILE, "better": HOSTILE}
    )
    hostile = [case(i, "en", f"{HOSTILE} {i}", HOSTILE) for i in range(3)]
    hostile[0] = dataclasses.replace(hostile[0], id=HOSTILE, language=HOSTILE)
    evil = made(cases=hostile, identity=identity)
    found = parsed(page(evil))
    assert found.tags.isdisjoint({"script", "img"})
    assert not [name for name, _ in found.attributes if name.startswith("on")]
    assert found.text.count("alert(1)") > 5
    assert "{{ 7*7 }}" in found.text
    assert not re.search(r"(?<!\\)<(script|img)", markdown(evil))


def test_training_curves_are_drawn_and_their_absence_is_said(report: Report) -> None:
    assert page(report).count("<polyline") == 3
    assert "No training rows were given." in page(dataclasses.replace(report, curves=()))


def test_a_curve_with_holes_draws_what_is_finite(report: Report) -> None:
    rows = ({"step": 1, "loss": 2.0}, {"step": 2, "loss": float("nan")}, {"step": 3, "valid_loss": 1.0})
    html = page(dataclasses.replace(report, curves=rows))
    assert "nan" not in html
    assert html.count('class="dot') == 2


def test_the_three_files_are_written_and_json_has_no_nan(tmp_path: Path) -> None:
    lone = [CASES[0]]
    paths = write(made(cases=lone), tmp_path / "out", "zh")
    text = paths.json.read_text(encoding="utf-8")
    found = json.loads(text, parse_constant=lambda name: pytest.fail(name))
    assert found["schema"] == "dialoop.report/1"
    assert found["rows"][0]["change"]["low"] is None
    assert found["answers"][0]["case"]["reference"] == lone[0].reference
    assert paths.markdown.read_text(encoding="utf-8").startswith("# ")
    assert paths.html.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_json_keeps_every_number_of_the_table(report: Report) -> None:
    rows = as_json(report)["rows"]
    assert [row["change"]["after"] for row in rows] == [row.change.after for row in report.rows]
    assert as_json(report)["headline"]["en"] == headline(report)


@pytest.mark.parametrize(("language", "word"), [("en", "better"), ("zh", "更好")])
def test_the_terminal_table_shows_before_after_and_intervals(
    report: Report, language: str, word: str
) -> None:
    stream = io.StringIO()
    table(report, Console(file=stream, width=160), language)  # type: ignore[arg-type]
    row = next(line for line in stream.getvalue().splitlines() if "ROUGE-L" in line and "[" in line)
    change = next(r.change for r in report.rows if r.change.metric == "ROUGE-L")
    assert change.number(change.before) in row
    assert change.interval in row
    assert word in row


def test_outcomes_of_other_cases_are_refused() -> None:
    with pytest.raises(EvalError, match="not of the same distinct cases"):
        build(outcomes([*map(weak, CASES)], 1), outcomes([*map(weak, CASES[:5])], 1, CASES[:5]))


def test_cases_without_answers_are_refused() -> None:
    silent = [Outcome(c, None, -1.0, 1) for c in CASES]
    with pytest.raises(EvalError, match="no case has an answer"):
        build(silent, silent)


def test_cases_that_were_only_scored_count_for_perplexity_alone() -> None:
    before, after = outcomes([*map(weak, CASES)], 2.0), outcomes([*map(strong, CASES)], 1.0)
    quiet = [dataclasses.replace(o, answer=None) for o in after[5:]]
    found = build([*before[:5], *before[5:]], [*after[:5], *quiet], resamples=100)
    assert (found.cases, found.scored) == (5, 40)
    assert {row.change.cases for row in found.of("en") if row.change.metric == "perplexity"} == {20}


@given(st.text(), st.text())
def test_marked_runs_join_to_the_answer(answer: str, reference: str) -> None:
    assert "".join(text for text, _ in marked(answer, reference)) == answer


def test_marked_words_stand_in_the_reference() -> None:
    assert marked("Your parcel is lost", "your Parcel is here") == (
        ("Your parcel is", True),
        (" lost", False),
    )
    assert [t for t, hit in marked("明天会送达", "后天送达") if hit] == ["天", "送达"]


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_ticks_cover_the_data_in_even_steps(low: float, width: float) -> None:
    found = ticks(low, low + width, 5)
    assert found[0] <= low + 1e-6 * max(width, abs(low))
    assert found[-1] >= low + width - 1e-6 * max(width, abs(low))
    assert 2 <= len(found) <= 12
