"""How far `dialoop tune --dry-run` is from the run that follows, in time and memory; a process for each.

    python bench/estimate.py quickstart [--limit 200] [--set train.epochs=1]

The run trains only, as the estimate tells of training only. Ratios are estimate / run, wanted 0.75 to 1.25.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path


def measure(what: str, recipe: str, overrides: list[str]) -> dict[str, float]:
    """Seconds and bytes, told or spent, in a fresh process."""
    given = [sys.executable, __file__, recipe, "--child", what, *(f"--set={each}" for each in overrides)]
    done = subprocess.run(given, capture_output=True, text=True, check=True)
    told: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return told


def child(what: str, recipe: str, overrides: list[str]) -> None:
    from dialoop.cli.recipes import find_recipe
    from dialoop.config import TuneRecipe, load_recipe
    from dialoop.data.dataset import load_dataset
    from dialoop.store.registry import Store
    from dialoop.train.estimate import estimate
    from dialoop.train.peak import forget_peak, peak_bytes
    from dialoop.train.tune import tune

    loaded = load_recipe(find_recipe(recipe), TuneRecipe, overrides)
    with tempfile.TemporaryDirectory() as place, Store.open(Path(place) / "home") as store:
        base = store.models.resolve(loaded.base)
        dataset = load_dataset(loaded.data, scratch=Path(place))
        if what == "estimate":
            told = asdict(estimate(loaded, base, dataset.train, dataset.valid))
            print(json.dumps({key: told[key] for key in ("seconds", "memory", "steps", "tokens")}))
            return
        forget_peak()
        started = time.perf_counter()
        tuned = tune(loaded, base, dataset.train, dataset.valid, Path(place) / "run")
        seconds = time.perf_counter() - started
        print(json.dumps({
            "seconds": seconds, "memory": peak_bytes(), "steps": tuned.result.step,
            "tokens": tuned.result.tokens,
        }))  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe")
    parser.add_argument("--limit", type=int, default=200)
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    parser.add_argument("--child", choices=("estimate", "run"))
    given = parser.parse_args()
    if given.child:
        child(given.child, given.recipe, given.overrides)
        return
    overrides = [f"data.limit={given.limit}", *given.overrides]
    told, spent = (measure(what, given.recipe, overrides) for what in ("estimate", "run"))
    print("| measure | estimate | run | ratio |\n|---|---:|---:|---:|")
    for key, unit in (("tokens", 1), ("steps", 1), ("seconds", 1), ("memory", 1e6)):
        print(
            f"| {key} | {told[key] / unit:,.1f} | {spent[key] / unit:,.1f} | {told[key] / spent[key]:.2f} |"
        )


if __name__ == "__main__":
    main()
