"""Rows a second and peak memory of data cleaning, side by side with `datasets` and polars.

    python bench/data.py duplicates [--rows 300000] [--rounds 3] [--file FILE]
    python bench/data.py every-step [--megabytes 500] [--file FILE]

`duplicates`: exact duplicates and over-long rows out, in turns A B C A B C, each run a process of its own;
medians and ratios. Set BENCH_PYTHON_DATASETS to a Python that has `datasets` for that column.
`every-step`: all nine steps over one generated file; peak memory of the process.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

MAX_CHARS = 400
ENGLISH = [
    "parcel", "order", "refund", "delivery", "invoice", "address", "customer", "morning", "payment", "card",
    "warehouse", "broken", "screen", "return", "label", "courier", "street", "window", "exchange",
    "voucher", "account", "password", "email", "colour", "size", "larger", "smaller", "shipping", "free",
    "express", "support", "agent", "manager", "complaint", "thank", "welcome", "happy", "later", "tomorrow",
    "weekend", "holiday", "the", "a", "my", "your", "is", "was", "will", "can", "please", "when", "where",
    "how", "much", "many", "to", "from", "with", "for", "and", "but", "not", "yes", "we", "you", "it",
    "they", "this", "that",
]  # fmt: skip
CHINESE = (
    "订单退款快递发票地址客户早上付款银行卡仓库破损屏幕退货标签街道窗口换货优惠券"
    "账户密码邮箱颜色尺码大小运费免费加急支持客服经理投诉谢谢欢迎开心稍后明天周末假期我的你是在了和有请问什么时候哪里怎么多少可以不能好的"
)

PEERS = {
    "dialoop": """
from pathlib import Path
from dialoop.config import CleanSettings
from dialoop.data.cleaning import Input, clean_files
settings = CleanSettings(steps=("turns", "exact"), max_turn_chars=LIMIT, max_reject_share=1.0)
rows = clean_files(Input((Path(SOURCE),)), settings, Path(TARGET)).report.kept
""",
    "polars": """
import polars as pl
turns = pl.col("messages")
short = turns.list.eval(pl.element().struct.field("content").str.len_chars() <= LIMIT).list.all()
turn = pl.element().struct
key = turns.list.eval(turn.field("role") + pl.lit("\\x1f") + turn.field("content"))
frame = (pl.scan_ndjson(SOURCE).filter(short).with_columns(key.list.join("\\x1f").alias("key"))
         .unique("key", keep="first", maintain_order=True).drop("key").collect(engine="streaming"))
frame.write_ndjson(TARGET)
rows = len(frame)
""",
    "datasets": """
import hashlib
from datasets import load_dataset
found = load_dataset("json", data_files=SOURCE, split="train", cache_dir=TARGET + ".cache")
seen = set()
def keep(row):
    if any(len(m["content"]) > LIMIT for m in row["messages"]):
        return False
    text = "\\x1f".join(m["role"] + "\\x1f" + m["content"] for m in row["messages"])
    key = hashlib.blake2b(text.encode()).digest()
    if key in seen:
        return False
    seen.add(key)
    return True
kept = found.filter(keep)
kept.to_json(TARGET, force_ascii=False)
rows = len(kept)
""",
    "every-step": """
from pathlib import Path
from typing import get_args
from dialoop.config import CleanSettings, CleanStep
from dialoop.data.cleaning import Input, clean_files
settings = CleanSettings(steps=get_args(CleanStep), max_reject_share=1.0)
report = clean_files(Input((Path(SOURCE),)), settings, Path(TARGET)).report
rows = report.kept
""",
}
_RUNNER = """
import json, os, resource, sys, time
SOURCE, TARGET, LIMIT = sys.argv[1], sys.argv[2], int(sys.argv[3])
start, cpu = time.perf_counter(), time.process_time()
{body}
unit = 1 if sys.platform == "darwin" else 1024
print(json.dumps({{"seconds": time.perf_counter() - start, "cpu": time.process_time() - cpu, "rows": rows,
                  "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}}))
"""


def generated(rng: random.Random) -> Iterator[str]:
    """Endless JSON lines: half English and half Chinese, a tenth exact copies, a tenth near ones."""
    recent: list[dict[str, Any]] = []
    while True:
        draw = rng.random()
        if recent and draw < 0.1:
            row = rng.choice(recent)
        elif recent and draw < 0.2:
            row = near_copy(rng.choice(recent), rng)
        else:
            row = fresh(rng)
            recent.append(row)
            del recent[:-2000]
        yield json.dumps(row, ensure_ascii=False) + "\n"


def fresh(rng: random.Random) -> dict[str, Any]:
    turns = [
        {"role": "assistant" if i % 2 else "user", "content": sentence(rng, i % 2 == 1)}
        for i in range(2 * rng.randint(1, 4))
    ]
    return {"messages": turns}


def sentence(rng: random.Random, answer: bool) -> str:
    size = rng.randint(12, 60) if answer else rng.randint(4, 20)
    if rng.random() < 0.5:
        text = " ".join(rng.choices(ENGLISH, k=size))
    else:
        text = "".join(rng.choices(CHINESE, k=2 * size))
    extra = rng.random()
    if extra < 0.03:
        return f"<p>{text}</p> mail me at user{rng.randrange(10**6)}@example.com"
    return f"{text} {13000000000 + rng.randrange(10**9)}" if extra < 0.05 else text


def near_copy(row: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    turns = [dict(turn) for turn in row["messages"]]
    turns[-1]["content"] += f" {rng.randrange(10)}"
    return {"messages": turns}


def write_rows(path: Path, *, rows: int | None = None, size: int | None = None) -> int:
    """Rows until there are `rows` of them or `size` bytes; the number written."""
    written = count = 0
    with path.open("w", encoding="utf-8") as file:
        for line in generated(random.Random(7)):
            file.write(line)
            count += 1
            written += len(line.encode())
            if count == rows or (size is not None and written >= size):
                return count
    return count


def measure(peer: str, source: Path, folder: Path) -> dict[str, float]:
    """Seconds, CPU seconds, rows kept and peak bytes of one process."""
    python = os.environ.get("BENCH_PYTHON_DATASETS", "") if peer == "datasets" else sys.executable
    with tempfile.TemporaryDirectory(dir=folder) as target:
        command = [
            python,
            "-c",
            _RUNNER.format(body=PEERS[peer]),
            str(source),
            f"{target}/out",
            str(MAX_CHARS),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{peer} failed:\n{done.stderr[-2000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def compare(source: Path, folder: Path, rounds: int) -> None:
    """Every peer in turn, `rounds` times; medians and ratios to dialoop."""
    peers = ["dialoop", "polars"] + ["datasets"] * ("BENCH_PYTHON_DATASETS" in os.environ)
    rows = sum(1 for _ in source.open("rb"))
    runs: dict[str, list[dict[str, float]]] = {peer: [] for peer in peers}
    for _ in range(rounds):
        for peer in peers:
            runs[peer].append(measure(peer, source, folder))
    own = median(run["cpu"] for run in runs["dialoop"])
    print(f"{rows} rows, {source.stat().st_size / 1e6:.0f} MB, {rounds} rounds, medians")
    print("| | rows/s | rows/CPU s | peak MB | rows kept | CPU time / dialoop's |")
    print("|---|---:|---:|---:|---:|---:|")
    for peer, found in runs.items():
        seconds, cpu, peak = (median(run[key] for run in found) for key in ("seconds", "cpu", "peak"))
        kept = int(found[0]["rows"])
        speeds = f"{rows / seconds:.0f} | {rows / cpu:.0f}"
        print(f"| {peer} | {speeds} | {peak / 1e6:.0f} | {kept} | {cpu / own:.2f} |")


def every_step(source: Path, folder: Path) -> None:
    """One run with all steps on."""
    rows = sum(1 for _ in source.open("rb"))
    found = measure("every-step", source, folder)
    print(
        f"{rows} rows, {source.stat().st_size / 1e6:.0f} MB: {found['rows']:.0f} kept, "
        f"{rows / found['seconds']:.0f} rows/s, {rows / found['cpu']:.0f} rows/CPU s, "
        f"peak {found['peak'] / 1e6:.0f} MB"
    )


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["duplicates", "every-step"])
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument("--megabytes", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--file", type=Path)
    arguments = parser.parse_args()
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        time.strftime("%F"),
    )
    with tempfile.TemporaryDirectory(prefix="dialoop-bench-") as name:
        folder = Path(name)
        source = arguments.file or folder / "rows.jsonl"
        if arguments.what == "duplicates":
            if not arguments.file:
                write_rows(source, rows=arguments.rows)
            compare(source, folder, arguments.rounds)
        else:
            if not arguments.file:
                write_rows(source, size=arguments.megabytes * 1_000_000)
            every_step(source, folder)


if __name__ == "__main__":
    main()
