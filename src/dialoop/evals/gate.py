"""May the new model take the place of the old one? A policy over what a comparison found.

A rule of what must not fall is met where the 95 % interval leaves room for no larger fall: where too few
cases leave it open, the gate stays shut. All rules must be met, so that none needs a correction for their
number (an intersection-union test: Berger 1982).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from dialoop.config.gate import CostRule, GainRule, GatePolicy, KeepRule
from dialoop.evals.compare import Comparison, cases_for
from dialoop.evals.cost import Cost
from dialoop.evals.evidence import Evidence
from dialoop.evals.messages import ReportLanguage, language_name, named, say
from dialoop.evals.report import Row


@dataclass(frozen=True, slots=True)
class Check:
    """One rule and whether it is met. values: fill the message `key`."""

    passed: bool
    key: str
    values: tuple[tuple[str, object], ...]
    metric: str = ""
    language: str = ""

    def words(self, language: ReportLanguage = "en") -> str:
        """What was found, as a sentence."""
        where = {"metric": named(self.metric, language), "code": language_name(self.language, language)}
        told = {key: named(str(value), language) if key == "what" else value for key, value in self.values}
        return say(self.key, language, **where, **told)


@dataclass(frozen=True, slots=True)
class Decision:
    """Every rule's check, in the policy's order."""

    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether every rule is met."""
        return all(check.passed for check in self.checks)

    @property
    def reasons(self) -> tuple[Check, ...]:
        """What keeps the gate shut."""
        return tuple(check for check in self.checks if not check.passed)


def decide(policy: GatePolicy, evidence: Evidence) -> Decision:
    """Raises EvalError for a rule about what the evidence does not hold."""
    kept = [_kept(rule, row) for rule in policy.must_not_fall for row in _rows(rule, evidence)]
    gained = [_gained(rule, row) for rule in policy.must_gain for row in _rows(rule, evidence)]
    return Decision((*kept, *gained, *_costs(policy.cost, evidence), *_leak(policy.max_leaked, evidence)))


def _rows(rule: KeepRule | GainRule, evidence: Evidence) -> tuple[Row, ...]:
    return evidence.changes(rule.set, rule.metric, rule.language)


def _kept(rule: KeepRule, row: Row) -> Check:
    low, _ = _goodness(row.change)
    if low >= -rule.by:
        return _check(True, "gate_kept", rule, row)
    fell = _goodness(row.change)[1] < -rule.by
    return _check(False, "gate_fell" if fell else "gate_may_fall", rule, row, -rule.by)


def _gained(rule: GainRule, row: Row) -> Check:
    low, high = _goodness(row.change)
    if low > rule.by:
        return _check(True, "gate_gained", rule, row)
    return _check(False, "gate_gained_not" if high <= rule.by else "gate_may_gain", rule, row, rule.by)


def _goodness(change: Comparison) -> tuple[float, float]:
    """The interval with better upwards; without one, all is possible."""
    if math.isnan(change.low):
        return -math.inf, math.inf
    return (-change.high, -change.low) if change.higher_is_better is False else (change.low, change.high)


def _check(passed: bool, key: str, rule: KeepRule | GainRule, row: Row, bound: float | None = None) -> Check:
    change = row.change
    needed = None if bound is None else cases_for(change, bound)
    key = f"{key}_needed" if needed and key in ("gate_may_fall", "gate_may_gain") else key
    values = {
        "set": rule.set, "delta": change.signed(change.delta), "interval": change.interval,
        "by": change.number(rule.by), "cases": change.cases, "needed": needed,
    }  # fmt: skip
    return Check(passed, key, tuple(values.items()), change.metric, row.language)


def _costs(rule: CostRule, evidence: Evidence) -> Iterator[Check]:
    for name, found in _measured(evidence.before, evidence.after).items():
        limit = getattr(rule, name)
        if limit is None:
            continue
        if found is None:
            yield Check(False, "gate_cost_unknown", (("what", name),))
        else:
            values = (("what", name), ("found", f"{found:.3g}"), ("limit", f"{limit:.3g}"))
            yield Check(found <= limit, "gate_cost" if found <= limit else "gate_costs_more", values)


def _measured(before: Cost | None, after: Cost | None) -> dict[str, float | None]:
    """What `CostRule` bounds, by the names of its fields."""
    if after is None:
        return dict.fromkeys(CostRule.model_fields)
    return {
        "median_seconds": after.median_seconds,
        "p95_seconds": after.p95_seconds,
        "times_slower": None if before is None else after.median_seconds / before.median_seconds,
        "memory_mb": after.weight_bytes / 1e6,
    }


def _leak(limit: float | None, evidence: Evidence) -> Iterator[Check]:
    if limit is None:
        return
    if evidence.leaked is None:
        yield Check(False, "gate_leak_unknown", ())
        return
    values = (("found", f"{100 * evidence.leaked:.1f}"), ("limit", f"{100 * limit:.1f}"))
    passed = evidence.leaked <= limit
    yield Check(passed, "gate_leak" if passed else "gate_leaks", values)
