"""`dialoop gate`: may the new model take the place of the old one?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dialoop.errors import ConfigError

if TYPE_CHECKING:
    from dialoop.config import GatePolicy
    from dialoop.evals.evidence import Evidence


def gate(
    context: typer.Context,
    policy: Annotated[Path, typer.Argument(help="A TOML file with rules.")],
    report: Annotated[
        Path | None, typer.Option(help="report.json of `dialoop eval --compare`: nothing is asked anew.")
    ] = None,
    compare: Annotated[
        tuple[str, str] | None,
        typer.Option(metavar="BEFORE AFTER", help="Ask these two models on the policy's own sets."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead.")] = False,
) -> None:
    """Exit with 0 where every rule of POLICY is met, with 1 and the reasons where one is not."""
    from dialoop.cli.tables import print_json
    from dialoop.config import GatePolicy, load_recipe
    from dialoop.evals.gate import decide
    from dialoop.evals.messages import say

    rules = load_recipe(policy, GatePolicy)
    evidence = _evidence(rules, report, compare, context.obj)
    decision = decide(rules, evidence)
    before, after = (name or "?" for name in evidence.names)
    verdict = say("gate_open" if decision.passed else "gate_shut", "en", before=before, after=after)
    if as_json:
        checks = [{"passed": check.passed, "reason": check.words()} for check in decision.checks]
        print_json({"passed": decision.passed, "verdict": verdict, "checks": checks})
    else:
        typer.echo(verdict)
        for check in decision.checks:
            typer.echo(f"{'pass' if check.passed else 'FAIL'}  {check.words()}")
    raise typer.Exit(0 if decision.passed else 1)


def _evidence(
    rules: GatePolicy, report: Path | None, compare: tuple[str, str] | None, home: Path
) -> Evidence:
    from dialoop.evals.evidence import read_evidence

    if (report is None) == (compare is None):
        raise ConfigError("give --report report.json, or --compare BEFORE AFTER: one of the two")
    return read_evidence(report) if report is not None else _compared(rules, compare or ("", ""), home)


def _compared(rules: GatePolicy, names: tuple[str, str], home: Path) -> Evidence:
    from rich.console import Console

    from dialoop.cli.watching import TerminalWatch
    from dialoop.evals.evidence import evidence_of
    from dialoop.jobs.comparing import Comparing, compare_models

    watch = TerminalWatch(Console(stderr=True), 1)
    try:
        return evidence_of(compare_models(Comparing(*names, rules.sets), home, watch.done))
    finally:
        watch.close()
