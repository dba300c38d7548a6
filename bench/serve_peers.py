"""Who takes part in bench/serve.py, and their processes: loaded once, working in turns, one at a time."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from serve_models import SHAPES, Prompt, gguf_of

from dialoop.models.allocator import in_huge_pages

T = TypeVar("T")
Figures = dict[str, float]
"""What a turn found, by its name."""
Runs = Mapping[str, Mapping[str, Sequence[float]]]
"""By contestant and figure: the value of each round."""
WORKER = Path(__file__).with_name("serve_worker.py")
PATIENCE = 1800.0
"""Seconds that a contestant may take to load, compile or answer."""
REST = 0.5
"""Seconds between two contestants' turns: longer than any thread pool spins for new work after its last.
Pools keep their own waiting policy while they work; to make them sleep at once would slow them down."""


@dataclass(frozen=True, slots=True)
class Contestant:
    """engine: the worker's.  weights: as what it keeps them.  python: the variable that names its Python."""

    name: str
    engine: str
    weights: str
    python: str = ""

    @property
    def interpreter(self) -> str:
        """Its Python, "" where the variable is not set."""
        return os.environ.get(self.python, "") if self.python else sys.executable


CONTESTANTS = {
    each.name: each
    for each in (
        Contestant("dialoop", "dialoop", "bf16"),
        Contestant("dialoop-compiled", "dialoop", "compiled"),
        Contestant("dialoop-int8", "dialoop", "int8"),
        Contestant("llama.cpp-bf16", "llama.cpp", "bf16", "BENCH_PYTHON_LLAMA"),
        Contestant("llama.cpp-q8_0", "llama.cpp", "q8_0", "BENCH_PYTHON_LLAMA"),
        Contestant("openvino-bf16", "openvino", "bf16", "BENCH_PYTHON_OPENVINO"),
        Contestant("openvino-int8", "openvino", "int8", "BENCH_PYTHON_OPENVINO"),
        Contestant("vllm-bf16", "vllm", "bf16", "BENCH_PYTHON_VLLM"),
        Contestant("transformers-bf16", "transformers", "bf16"),
        Contestant("transformers-fp32", "transformers", "fp32"),
    )
}
LIMITS = Contestant("limits", "limits", "")


class PeerError(Exception):
    """A contestant cannot take part, or did not do what it was asked; it takes no further part."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What all contestants of a run are given alike. context: the longest prompt and answer, in tokens."""

    model: Path
    threads: int
    rows: int
    context: int
    adapters: Mapping[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """Ours, with the run's threads and huge pages; nobody goes to the network."""
        threads = {name: str(self.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        quiet = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        return in_huge_pages({**os.environ, **threads, **quiet})

    def log(self, name: str) -> Path:
        """What a process of this name says beside its answers."""
        return self.model.with_name(f"{self.model.name}-{name.replace(' ', '-')}.log")


class Process:
    """A contestant's process, whatever it speaks. burnt: the most it used of a processor while it waited."""

    def __init__(self, name: str, log: Path) -> None:
        self.name, self.about, self.burnt = name, "", 0.0
        self._log = log

    def _start(self, command: Sequence[str], environment: Mapping[str, str], *, listen: bool = True) -> None:
        """listen: its standard output is read by `_line`, not written to the log."""
        with self._log.open("wb") as log:
            out = subprocess.PIPE if listen else log
            try:
                self._process = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=out, stderr=log, env=environment
                )
            except OSError as error:
                raise PeerError(f"cannot be run: {error}") from None

    def _line(self) -> bytes:
        """What it says next. Raises PeerError where it ends instead, or takes too long."""
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], PATIENCE)[0]:
            raise PeerError(f"no answer within {PATIENCE:.0f} s, see {self._log}")
        line = self._process.stdout.readline()
        if not line:
            raise PeerError(self._last_words())
        return line

    def _last_words(self) -> str:
        code = self._process.wait()
        lines = self._log.read_text(encoding="utf-8", errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "nothing")
        return f"ended with {code}, its last words: {last[:200]} ({self._log})"

    def processor_seconds(self) -> float:
        """Processor time so far, of its children too; 0 where the system does not tell (no /proc)."""
        ticks = 0
        for process in self._family():
            with suppress(OSError):
                user, system = (process / "stat").read_text().rpartition(")")[2].split()[11:13]
                ticks += int(user) + int(system)
        return ticks / os.sysconf("SC_CLK_TCK")

    def resident(self) -> float:
        """GB of memory in use, pages shared with its children once; NaN where the system does not tell."""
        kilobytes = float("nan")
        for process in self._family():
            with suppress(OSError):
                lines = (process / "smaps_rollup").read_text().splitlines()
                share = sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
                kilobytes = share if kilobytes != kilobytes else kilobytes + share
        return kilobytes * 1024 / 1e9

    def _family(self) -> list[Path]:
        """Its directory in /proc, and those of its children and theirs."""
        found = [Path(f"/proc/{self._process.pid}")]
        for process in found:
            with suppress(OSError):
                for thread in (process / "task").iterdir():
                    found += [Path(f"/proc/{pid}") for pid in (thread / "children").read_text().split()]
        return found

    def close(self) -> None:
        """End the process: as it likes best, by SIGTERM, by force."""
        self._end()
        for end in (self._process.terminate, self._process.kill):
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                end()
        self._process.wait()

    def _end(self) -> None:
        """The end of its input."""
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()


class Live(Process):
    """A worker that has loaded its model. Raises PeerError where it does not come up."""

    def __init__(self, name: str, contestant: Contestant, setting: Setting) -> None:
        super().__init__(name, setting.log(name))
        if not contestant.interpreter:
            raise PeerError(f"missing: set {contestant.python} to a Python that has it (bench/README.md)")
        command = [contestant.interpreter, "-P", str(WORKER), json.dumps(_given(contestant, setting))]
        self._start(command, setting.environment)
        try:
            self.about = str(json.loads(self._line())["about"])
        except BaseException:
            self.close()
            raise

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """The reply to a command, `seconds` in it. Raises PeerError."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **arguments}).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise PeerError(self._last_words()) from None
        reply: dict[str, Any] = json.loads(self._line())
        return reply

    def generate(self, prompts: Sequence[Prompt], tokens: int, *models: str) -> float:
        """Seconds of answers of exactly `tokens` tokens, by these models in turn. Raises PeerError."""
        sent = [prompt.sent() for prompt in prompts]
        reply = self.ask("generate", prompts=sent, tokens=tokens, models=models or ("base",))
        if reply["tokens"] != [tokens] * len(prompts):
            raise PeerError(f"asked for {len(prompts)} answers of {tokens} tokens, gave {reply['tokens']}")
        return float(reply["seconds"])


def _given(contestant: Contestant, setting: Setting) -> dict[str, Any]:
    """The worker's argument."""
    if contestant is LIMITS:
        shape = SHAPES[setting.model.name]
        head = (shape.vocabulary, shape.hidden)
        return {"engine": "limits", "layers": shape.layers, "linears": shape.linears, "head": head}
    gguf = contestant.engine == "llama.cpp"
    return {
        "engine": contestant.engine,
        "model": str(gguf_of(setting.model, contestant.weights) if gguf else setting.model),
        "weights": contestant.weights,
        "threads": setting.threads,
        "rows": setting.rows,
        "context": setting.context,
        "adapters": dict(setting.adapters),
    }


class Contest:
    """The contestants of a run; one that fails leaves, and `reasons` says why."""

    def __init__(self, starts: Mapping[str, Callable[[], Process]]) -> None:
        self.live: dict[str, Process] = {}
        self.reasons: dict[str, str] = {}
        self._starts = starts

    def __enter__(self) -> Contest:
        for name, start in self._starts.items():
            print(f"starting {name}", file=sys.stderr, flush=True)
            try:
                self.live[name] = start()
            except PeerError as error:
                self.reasons[name] = str(error)
            except BaseException:
                self.__exit__()
                raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.live.values():
            process.close()

    def turns(self, work: Callable[[Any], T]) -> dict[str, T]:
        """What `work` finds of each contestant in turn; what the others burn meanwhile is kept."""
        found: dict[str, T] = {}
        for peer in list(self.live.values()):
            time.sleep(REST)
            others = [(other, other.processor_seconds()) for other in self.live.values() if other is not peer]
            start = time.perf_counter()
            try:
                found[peer.name] = work(peer)
            except PeerError as error:
                self.reasons[peer.name] = str(error)
                self.live.pop(peer.name).close()
            seconds = max(time.perf_counter() - start, 0.5)  # processor time is told in hundredths
            for other, before in others:
                other.burnt = max(other.burnt, (other.processor_seconds() - before) / seconds)
        return found

    def rounds(self, count: int, *works: Callable[[Any], Figures]) -> Runs:
        """Every work in turns, `count` times after one that does not count; of those that stayed."""
        runs: dict[str, dict[str, list[float]]] = {}
        for round_ in range(count + 1):
            for work in works:
                found = self.turns(work)
                for name, what, value in _flat(found) if round_ else ():
                    runs.setdefault(name, {}).setdefault(what, []).append(value)
            print(f"round {round_} of {count}", file=sys.stderr, flush=True)
        return {name: runs[name] for name in self.live if name in runs}


def _flat(found: Mapping[str, Figures]) -> Iterator[tuple[str, str, float]]:
    return ((name, what, value) for name, figures in found.items() for what, value in figures.items())
