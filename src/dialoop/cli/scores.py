"""One model's scores on the terminal."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from dialoop.evals.scores import Scores

MOST_CLASSES, MOST_MISTAKEN = 30, 5


def show_scores(console: Console, found: Scores) -> None:
    """The metrics; of a classification also its report, and what was most often taken for something else."""
    from rich.table import Table

    from dialoop.evals.messages import say

    shown = Table("language", "metric", "value", "95 %", "cases", "signature")
    for row in found.scores:
        shown.add_row(
            row.language, row.metric, f"{row.value:.{row.digits}f}", row.interval, str(row.cases),
            row.signature,
        )  # fmt: skip
    console.print(shown)
    if found.shortened:
        told = say("shortened", "en", shortened=found.shortened, cases=len(found.answers))
        console.print(told, highlight=False)
    if found.classes is None:
        return
    if len(found.classes.classes) <= MOST_CLASSES:
        console.print(found.classes.to_text(), highlight=False, markup=False)
    mistaken = Counter(pair for pair in found.answers if pair[0] != pair[1]).most_common(MOST_MISTAKEN)
    for (right, said), times in mistaken:
        console.print(f"{times} x {right} taken for {said}", highlight=False, markup=False)
