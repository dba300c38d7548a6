"""CoNLL's column files: a word a line, its tag in one of the columns, an empty line after each sentence."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from dialoop.data.text_io import Reject

DOCUMENT = "-DOCSTART-"


def conll_rows(
    lines: Iterable[tuple[int, str]], columns: Mapping[str, str], reject: Reject
) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line, {tokens, tags, doc}) of each sentence. columns: numbers from 0, of `tokens` (0) and `tags` (the
    last). A sentence with a line of fewer columns is rejected.
    """
    word, tag = int(columns.get("tokens", 0)), int(columns.get("tags", -1))
    document, first = 0, 1
    held: list[list[str]] = []
    for number, text in [*lines, (0, "")]:
        fields = text.split("\t") if "\t" in text else text.split()
        if fields and fields[0] == DOCUMENT:
            document += 1
        elif fields:
            first = first if held else number
            held.append(fields)
        elif held:
            yield from _sentence(held, word, tag, document, first, reject)
            held = []


def _sentence(
    held: list[list[str]], word: int, tag: int, document: int, first: int, reject: Reject
) -> Iterator[tuple[int, dict[str, Any]]]:
    wanted = max(word + 1, tag + 1, -word, -tag, 2)
    if any(len(fields) < wanted for fields in held):
        reject(first, f"a word of this sentence has fewer than {wanted} columns")
        return
    row = {"tokens": [fields[word] for fields in held], "tags": [fields[tag] for fields in held]}
    yield first, row | {"doc": document}
