"""What models with a head learn on public data, beside what they must beat.

    python bench/quality.py tags --encoder MODEL       names in CoNLL-2003, beside a CRF of hand-made features
    python bench/quality.py classes --encoder MODEL    five sets, beside TF-IDF + logistic regression
    python bench/quality.py answers --encoder MODEL    which of ten answers fits, beside BM25 and P(A|H)

MODEL is the directory of an encoder of one's own (`dialoop pretrain encoder`, then runs/encoder/model below
the home); the decoder is the shipped base. --sets and --ways take a part: comma-separated names.

Each contestant is taught by its recipe and asked on test rows once; its answers are kept below --work, so
the same command goes on where it was stopped, and a training resumes. Intervals are 95 %: Wilson's of shares,
and of a difference the paired bootstrap's over the same rows (documents and dialogues whole); p is McNemar's
exact one where rows stand alone. Test rows choose nothing: epochs and rates are the recipes', and the best
weights are those of validation rows cut from the training part.

The CRF is python-crfsuite's: `pip install python-crfsuite`, for this bench alone.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from quality_answers import ANSWERS, answers
from quality_classes import CLASSES, classes
from quality_tags import tags
from quality_work import WAYS, Bench

COMMANDS = {each.__name__: each for each in (tags, classes, answers)}
SETS = {"tags": ("conll2003",), "classes": CLASSES, "answers": ANSWERS}


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=COMMANDS)
    parser.add_argument("--encoder", type=Path, help="directory of a pre-trained encoder")
    parser.add_argument("--work", type=Path, default=Path("runs/quality"), help="where everything is kept")
    parser.add_argument("--sets", type=_names, help="of this command; all unless given")
    parser.add_argument("--ways", type=_names, default=list(WAYS), help=", ".join(WAYS))
    parser.add_argument("--set", action="append", default=[], help="override a field of the recipes")
    given = parser.parse_args()
    sets = given.sets or SETS[given.what]
    for name, known in ((sets, SETS[given.what]), (given.ways, tuple(WAYS))):
        if strange := set(name) - set(known):
            parser.error(f"{', '.join(sorted(strange))}: give some of {', '.join(known)}")
    COMMANDS[given.what](Bench(given.work, given.encoder, tuple(given.ways), tuple(given.set)), sets)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


if __name__ == "__main__":
    main()
