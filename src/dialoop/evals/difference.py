"""Which words of an answer stand in the reference too, in the same order."""

from __future__ import annotations

from difflib import SequenceMatcher

from dialoop.evals.words import pieces


def marked(answer: str, reference: str) -> tuple[tuple[str, bool], ...]:
    """`answer` in runs of (text, stands in the reference); the runs join to `answer`. Case is ignored."""
    parts = pieces(answer)
    matcher = SequenceMatcher(
        None, [p.lower() for p in parts], [p.lower() for p in pieces(reference)], autojunk=False
    )
    common = [False] * len(parts)
    for start, _, size in matcher.get_matching_blocks():
        common[start : start + size] = [True] * size
    return _runs(
        [(part, shared and any(map(str.isalnum, part))) for part, shared in zip(parts, common, strict=True)]
    )


def _runs(parts: list[tuple[str, bool]]) -> tuple[tuple[str, bool], ...]:
    """Neighbours of one kind joined; space between two marked words is marked with them."""
    runs: list[tuple[str, bool]] = []
    for i, (part, shared) in enumerate(parts):
        between = part.isspace() and 0 < i < len(parts) - 1 and parts[i - 1][1] and parts[i + 1][1]
        kind = shared or between
        if runs and runs[-1][1] == kind:
            runs[-1] = (runs[-1][0] + part, kind)
        else:
            runs.append((part, kind))
    return tuple(runs)
