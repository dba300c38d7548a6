"""Training speed on a CPU: our attention, allocator setting and step beside torch's and transformers' own.

    python bench/train.py attention [--rounds 7]
    python bench/train.py allocator [--rounds 3]
    python bench/train.py step [--rounds 5] [--length 512]
    python bench/train.py peers [--method lora] [--peers dialoop,trl-packing-bf16] [--updates 3] [--rounds 2]
    python bench/train.py losses [--model small] [--updates 7]
    python bench/train.py growth [--rounds 3] [--out bench]

Contestants alternate inside one run (A B A B); medians and ratios are printed, and GFLOP/s for the step
(6 x weights x tokens, attention not counted). `allocator` starts a process for each measurement.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F
from train_growth import growth
from train_peers import CONTESTANTS, SHAPES, losses, peers

HEADS, SIZE, TOKENS = 6, 64, 4096
PRODUCT = """
import sys, time, torch
if sys.argv[1] == "kept":
    from dialoop.models.allocator import keep_freed_memory
    keep_freed_memory()
x, w = torch.randn(8192, 384).bfloat16(), torch.randn(2048, 384).bfloat16()
times = []
for _ in range(25):
    start = time.perf_counter()
    torch.nn.functional.linear(x, w)
    times.append(time.perf_counter() - start)
print(sorted(times[5:])[10])
"""


def alternate(contestants: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each call, contestants in turn, after one uncounted round."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for round_ in range(rounds + 1):
        for name, work in contestants.items():
            start = time.perf_counter()
            work()
            if round_:
                times[name].append(time.perf_counter() - start)
    return times


def show(title: str, times: Mapping[str, list[float]], ours: str) -> None:
    """Medians, and the median of the ratios round by round."""
    print(f"\n{title}\n\n| contestant | median ms | min ms | its time / ours |\n|---|---:|---:|---:|")
    for name, values in times.items():
        ratio = median(theirs / mine for theirs, mine in zip(values, times[ours], strict=True))
        print(f"| {name} | {1e3 * median(values):.1f} | {1e3 * min(values):.1f} | {ratio:.2f} |")


def attention(rounds: int) -> None:
    from dialoop.models.allocator import keep_freed_memory
    from dialoop.models.attention import packed_attention

    keep_freed_memory()
    for length in (128, 256, 512, 2048):
        q, k, v = (torch.randn(TOKENS, HEADS, SIZE).bfloat16().requires_grad_() for _ in range(3))
        gradient = torch.randn(TOKENS, HEADS, SIZE).bfloat16()

        def ours(q=q, k=k, v=v, gradient=gradient, length=length) -> None:
            packed_attention(q, k, v, [length] * (TOKENS // length), SIZE**-0.5).backward(gradient)

        def torchs(q=q, k=k, v=v, gradient=gradient, length=length) -> None:
            rows = [x.view(-1, length, HEADS, SIZE).transpose(1, 2) for x in (q, k, v)]
            out = F.scaled_dot_product_attention(*rows, is_causal=True)
            out.transpose(1, 2).reshape(TOKENS, HEADS, SIZE).backward(gradient)

        title = f"Attention forward and backward, bf16, {TOKENS} tokens as sequences of {length}"
        show(title, alternate({"dialoop": ours, "torch SDPA": torchs}, rounds), "dialoop")


def allocator(rounds: int) -> None:
    def measure(setting: str) -> float:
        run = [sys.executable, "-c", PRODUCT, setting]
        return float(subprocess.run(run, capture_output=True, text=True, check=True).stdout)

    times: dict[str, list[float]] = {"freed memory kept": [], "glibc default": []}
    for _ in range(rounds):
        times["freed memory kept"].append(measure("kept"))
        times["glibc default"].append(measure("default"))
    show("bf16 product of 8,192 x 384 and 384 x 2,048, one process each", times, "freed memory kept")


def step(rounds: int, length: int) -> None:
    from transformers import AutoModelForCausalLM

    from dialoop.config import ArchitectureSettings
    from dialoop.models.allocator import keep_freed_memory
    from dialoop.models.decoder import Decoder, write_decoder
    from dialoop.train.loss import cross_entropy

    keep_freed_memory()
    shape, vocabulary = ArchitectureSettings(), 10240
    decoder = Decoder(shape, vocabulary).bfloat16()
    with tempfile.TemporaryDirectory() as folder:
        write_decoder(decoder, Path(folder), eos_id=1, pad_id=0)
        peer = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    ids = torch.randint(0, vocabulary, (TOKENS // length, length))
    ones = torch.ones(TOKENS)

    def ours() -> None:
        flat = ids.ravel()
        hidden = decoder(flat, [length] * len(ids))
        cross_entropy(hidden, decoder.head, flat.roll(-1), ones).backward()

    def theirs() -> None:
        peer(input_ids=ids, labels=ids, use_cache=False).loss.backward()

    times = alternate({"dialoop": ours, "transformers (SDPA)": theirs}, rounds)
    show(
        f"Forward and backward of the base's shape, {TOKENS} tokens as sequences of {length}",
        times,
        "dialoop",
    )
    weights = sum(p.numel() for p in decoder.parameters())
    for name, values in times.items():
        speed = TOKENS / median(values)
        print(f"{name}: {6 * weights * speed / 1e9:.0f} GFLOP/s, {speed:.0f} tokens/s")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["attention", "allocator", "step", "peers", "losses", "growth"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--model", choices=SHAPES, default="C", help="of peers and losses")
    parser.add_argument("--method", choices=["lora", "full"], default="lora", help="of peers")
    parser.add_argument("--peers", type=_names, default=[*CONTESTANTS], help="comma-separated")
    parser.add_argument("--updates", type=int, default=3, help="that count, after one that does not")
    parser.add_argument("--batch-tokens", type=int, default=1024, help="of a forward pass of dialoop")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of every peer")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "dialoop-bench-train",
                        help="where models and rows are kept")  # fmt: skip
    parser.add_argument("--out", type=Path, default=Path(), help="where growth writes its plots")
    given = parser.parse_args()
    if given.what in ("peers", "losses", "growth"):
        {"peers": peers, "losses": losses, "growth": growth}[given.what](given)
        return
    print(f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    match given.what:
        case "attention":
            attention(given.rounds)
        case "allocator":
            allocator(given.rounds)
        case "step":
            step(given.rounds, given.length)


def _names(text: str) -> list[str]:
    names = text.split(",")
    if strangers := [name for name in names if name not in CONTESTANTS]:
        raise argparse.ArgumentTypeError(f"{', '.join(strangers)}: choose from {', '.join(CONTESTANTS)}")
    return names


if __name__ == "__main__":
    main()
