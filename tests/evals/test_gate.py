"""The gate: what it lets through, what it holds back and why, from reports and from their files."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from dialoop.config import GatePolicy, validate
from dialoop.errors import ConfigError, EvalError
from dialoop.evals.cost import Cost, cost_of
from dialoop.evals.evidence import Evidence, evidence_of, read_evidence
from dialoop.evals.gate import Decision, decide
from dialoop.evals.report import Report, Retained, build
from dialoop.evals.task import Case, Outcome
from dialoop.evals.written import write
from dialoop.types import Conversation, Message

SENTENCE = "your parcel number has left our house today and will be with you again rather soon"
WORDS = SENTENCE.split()
SLOW, FAST = Cost(8, 2.0, 3.0, 20.0, 4_000_000), Cost(8, 1.0, 1.5, 40.0, 4_000_000)


def outcomes(kept: float, cases: int, seed: int = 0) -> list[Outcome]:
    """Answers in which about so many words stand as in the reference."""
    generator = np.random.default_rng(seed)
    found = []
    for i in range(cases):
        reference = " ".join(WORDS[: 6 + i % 7])
        said = " ".join(w if generator.random() < kept else "other" for w in reference.split())
        history = Conversation((Message("user", f"question {i}"),))
        case = Case(history, reference, "en", f"g{i}", f"{i}/0", 0)
        found.append(Outcome(case, said, -2.0 * (2 - kept) * 10, 10))
    return found


def report(
    before: float, after: float, cases: int = 60, *, retained: Sequence[Retained] = (), costs: bool = True
) -> Report:
    return build(
        outcomes(before, cases, 1), outcomes(after, cases, 2), resamples=400, retained=retained,
        costs=(SLOW, FAST) if costs else (None, None), leaked=0.01,
    )  # fmt: skip


def decided(policy: dict[str, object], found: Report) -> Decision:
    return decide(validate(GatePolicy, policy, "policy"), evidence_of(found))


GAIN = {"must_gain": [{"metric": "ROUGE-L"}]}


def test_a_better_model_that_kept_the_rest_passes() -> None:
    found = report(0.4, 0.8, retained=[Retained("general", report(0.6, 0.6, 400))])
    policy = {
        **GAIN, "must_not_fall": [{"set": "general", "metric": "ROUGE-L", "by": 5.0}],
        "cost": {"median_seconds": 1.5, "times_slower": 1.0, "memory_mb": 4.0}, "max_leaked": 0.05,
    }  # fmt: skip
    decision = decided(policy, found)
    assert decision.passed
    assert not decision.reasons
    assert [check.key for check in decision.checks] == [
        "gate_kept", "gate_gained", "gate_cost", "gate_cost", "gate_cost", "gate_leak",
    ]  # fmt: skip


def test_a_model_that_forgot_is_held_back_with_the_reason_in_both_languages() -> None:
    found = report(0.4, 0.8, retained=[Retained("general", report(0.8, 0.4))])
    decision = decided({"must_not_fall": [{"set": "general", "metric": "ROUGE-L", "by": 2.0}]}, found)
    assert not decision.passed
    assert "general, English: ROUGE-L got worse by more than 2.0: −" in decision.reasons[0].words()
    assert "general，英文：ROUGE-L 变差超过 2.0" in decision.reasons[0].words("zh")


def test_too_few_cases_keep_the_gate_shut_and_say_how_many_would_do() -> None:
    decision = decided({"must_not_fall": [{"metric": "ROUGE-L", "by": 3.0}]}, report(0.6, 0.62, 12))
    assert not decision.passed
    words = decision.reasons[0].words()
    assert "may be worse by more than 3.0" in words
    assert "with 12 cases; about " in words


def test_enough_cases_open_the_same_gate() -> None:
    assert decided({"must_not_fall": [{"metric": "ROUGE-L", "by": 3.0}]}, report(0.6, 0.62, 1200)).passed


def test_less_perplexity_is_a_gain_and_more_a_fall() -> None:
    better, worse = report(0.4, 0.8), report(0.8, 0.4)
    gain, keep = {"must_gain": [{"metric": "perplexity"}]}, {"must_not_fall": [{"metric": "perplexity"}]}
    assert decided(gain, better).passed
    assert decided(keep, better).passed
    assert not decided(gain, worse).passed
    assert not decided(keep, worse).passed


def test_a_slow_model_is_held_back() -> None:
    decision = decided({**GAIN, "cost": {"p95_seconds": 1.0}}, report(0.4, 0.8))
    assert [check.words() for check in decision.reasons] == ["seconds an answer (95 %) is 1.5, more than 1"]


def test_what_was_not_measured_keeps_the_gate_shut() -> None:
    found = report(0.4, 0.8, costs=False)
    reasons = decided({**GAIN, "cost": {"times_slower": 1.1}}, found).reasons
    assert [check.key for check in reasons] == ["gate_cost_unknown"]
    unknown = decide(
        validate(GatePolicy, {**GAIN, "max_leaked": 0.0}, "policy"), Evidence({"test": found.rows})
    )
    assert [check.key for check in unknown.reasons] == ["gate_leak_unknown"]


def test_a_report_on_disk_decides_as_the_report_itself(tmp_path: Path) -> None:
    found = report(0.4, 0.8, retained=[Retained("general", report(0.6, 0.5, 1))])
    policy = {**GAIN, "must_not_fall": [{"set": "general", "metric": "BLEU"}], "cost": {"p95_seconds": 2.0}}
    kept = read_evidence(write(found, tmp_path).json)
    assert decide(validate(GatePolicy, policy, "policy"), kept) == decided(policy, found)


def test_a_file_that_is_no_report_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(EvalError, match="no report of this version"):
        read_evidence(tmp_path / "other.json")


@pytest.mark.parametrize(("rule", "words"), [
    ({"metric": "ROUGE-l"}, "did you mean 'ROUGE-L'"),
    ({"metric": "ROUGE-L", "set": "genral"}, "no set 'genral'"),
    ({"metric": "ROUGE-L", "language": "zh"}, "no ROUGE-L of language zh"),
])  # fmt: skip
def test_rules_about_what_the_report_does_not_hold_are_errors(rule: dict[str, object], words: str) -> None:
    with pytest.raises(EvalError, match=words):
        decided({"must_gain": [rule]}, report(0.4, 0.8, 10))


def test_a_policy_without_a_rule_is_refused() -> None:
    with pytest.raises(ConfigError, match="needs a rule"):
        validate(GatePolicy, {"cost": {"p95_seconds": 1.0}}, "policy")


@pytest.mark.parametrize("name", ["evaluation.md", "evaluation.zh.md"])
def test_the_documented_policy_is_one(name: str) -> None:
    text = (Path(__file__).parents[2] / "docs" / name).read_text(encoding="utf-8")
    (block,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    policy = validate(GatePolicy, tomllib.loads(block), name)
    assert policy.must_not_fall[0].set in policy.sets


def test_costs_are_medians_and_tails() -> None:
    cost = cost_of([1.0, 2.0, 3.0], [10, 20, 30], 5)
    assert (cost.median_seconds, cost.tokens_per_second) == (2.0, 10.0)
    assert cost.p95_seconds == pytest.approx(2.9)
    with pytest.raises(EvalError, match="0 times of 0 answers"):
        cost_of([], [], 5)
