"""The engine's speed side by side with its peers, in ratios of one run.

    python bench/serve.py offline --model A [--peers dialoop,llama.cpp-bf16,...] [--rounds 3]
    python bench/serve.py http --model A        16 streaming clients, beside llama-server
    python bench/serve.py prefix --model A      a shared system prompt of 1,000 tokens, or one for each client
    python bench/serve.py adapters --model A    eight LoRA adapters in one batch, or the base alone
    python bench/serve.py score --model A       50 candidates on one history, or one by one
    python bench/serve.py growth --model A      throughput by sequences and by context, drawn to --out
    python bench/serve.py limits --model A      what the machine's memory and torch's matrices allow

Models: A = Qwen2-0.5B's shape, B = 10 million parameters, random bf16 weights, made and converted once under
--folder. Prompts have exactly 128 tokens and were never asked before, answers 64: greedy, end of text
ignored, counted. Every contestant is a process that has loaded its model; they work in turns (A B C A B C)
after one round that does not count, one at a time, with the same threads. A ratio is the median of the
rounds' ratios, with the least and the most.

Two times are taken of each batch of N prompts of P tokens: S(1) of answers of one token and S(T) of answers
of T, on different prompts. Prefill is N P / S(1) tokens a second, and decode N (T - 1) / (S(T) - S(1)): any
contestant can be measured so, whatever it tells of itself. The limits are decode's if each bf16 weight were
read once a step at the best rate measured, and prefill's if there were nothing but the matrix products.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

from serve_growth import growth
from serve_http import http
from serve_models import SHAPES
from serve_offline import Bench, limits, offline
from serve_peers import CONTESTANTS
from serve_ways import adapters, prefix, score

COMMANDS = {each.__name__: each for each in (offline, http, prefix, adapters, score, growth, limits)}


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=COMMANDS)
    parser.add_argument("--model", choices=SHAPES, default="A")
    parser.add_argument("--peers", type=_names, help="of offline (all) and growth (dialoop); comma-separated")
    parser.add_argument("--rounds", type=int, default=3, help="that count")
    parser.add_argument("--seconds", type=float, default=1.0, help="least length of a turn's measurement")
    parser.add_argument("--tokens", type=int, default=64, help="of an answer")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of every contestant")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "dialoop-bench-serve",
                        help="where models, conversions and logs are kept (A: about 7 GB)")  # fmt: skip
    parser.add_argument("--out", type=Path, default=Path(), help="where growth writes its plots")
    given = parser.parse_args()
    COMMANDS[given.what](Bench(given))


def _names(text: str) -> list[str]:
    names = text.split(",")
    if strangers := [name for name in names if name not in CONTESTANTS]:
        raise argparse.ArgumentTypeError(f"{', '.join(strangers)}: choose from {', '.join(CONTESTANTS)}")
    return names


if __name__ == "__main__":
    main()
