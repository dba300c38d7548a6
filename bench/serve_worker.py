"""One contestant of bench/serve.py in a process of its own, run by that contestant's own Python.

    python -P bench/serve_worker.py '{"engine": "vllm", "model": "DIRECTORY", "threads": 2, ...}'

It loads the model, says so in one line of JSON, and then answers each line of JSON on its standard input with
one on its standard output: {"do": "generate", ...} calls the method of that name. Seconds are measured here,
around the call alone. Nothing of dialoop is imported unless dialoop is the contestant.

`generate` takes prompts, [{"messages": [...], "ids": [...]}, ...] of equal lengths, and tells how many tokens
each answer has, greedy and with the end of text ignored. dialoop gets the messages, as an application hands
them over, so that its time holds rendering, tokenising and detokenising; its peers get the token ids.
"""

from __future__ import annotations

import asyncio
import ctypes
import itertools
import json
import os
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

Prompt = dict[str, Any]


class Dialoop:
    """The engine of `dialoop serve`, its models in a child process.

    adapters: PEFT directories over one base, by the names that `models` of a call may use.
    """

    def __init__(
        self, model: str, weights: str, rows: int, context: int, adapters: dict[str, str], **_: Any
    ) -> None:
        from dialoop.engine.process import ProcessEngine
        from dialoop.types import ModelRef

        refs = [ModelRef("base", Path(model))]
        refs += [ModelRef(name, Path(model), Path(folder)) for name, folder in adapters.items()]
        precision = "int8" if weights == "int8" else None
        compiled = weights == "compiled"
        self._engine = ProcessEngine(
            refs, context=context, precision=precision, max_rows=rows, compiled=compiled
        )
        self._loop = asyncio.new_event_loop()
        self.about = f"dialoop {version('dialoop')}, torch {version('torch')}, {weights} weights"

    def generate(self, prompts: list[Prompt], tokens: int, models: list[str]) -> dict[str, Any]:
        """models: who answers, in turn."""
        return self._loop.run_until_complete(self._answers(prompts, tokens, models))

    async def _answers(self, prompts: list[Prompt], tokens: int, models: list[str]) -> dict[str, Any]:
        from dialoop.types import ChatRequest, Sampling, fold

        sampling = Sampling(temperature=0, max_tokens=tokens, ignore_eos=True)
        requests = [
            ChatRequest(model, _conversation(prompt), sampling)
            for prompt, model in zip(prompts, itertools.cycle(models), strict=False)
        ]
        answers = await asyncio.gather(*(fold(self._engine.chat(request)) for request in requests))
        usages = [answer.usage for (answer,) in answers]
        return {
            "tokens": [usage.completion_tokens for usage in usages],
            "cached": sum(usage.cached_tokens for usage in usages),
        }

    def score(self, prompts: list[Prompt], answers: list[str]) -> dict[str, Any]:
        """All `answers` scored on each prompt, one call a prompt."""

        async def scores() -> list[Any]:
            return [await self._engine.score("base", _conversation(p), answers) for p in prompts]

        found = self._loop.run_until_complete(scores())
        return {"tokens": [len(scored.logprobs) for answers in found for scored in answers]}


def _conversation(prompt: Prompt) -> Any:
    from dialoop.types import Conversation, Message

    return Conversation(tuple(Message(m["role"], m["content"]) for m in prompt["messages"]))


class LlamaCpp:
    """llama.cpp's own C interface: all prompts in one batch, then a token of each sequence a step."""

    def __init__(self, model: str, rows: int, context: int, threads: int, **_: Any) -> None:
        import llama_cpp as llama

        self._llama, self._steps = llama, 2048
        llama.llama_backend_init()
        weights = llama.llama_model_default_params()
        weights.n_gpu_layers = 0
        self._model = llama.llama_model_load_from_file(model.encode(), weights)
        given = llama.llama_context_default_params()
        given.n_ctx, given.n_seq_max = rows * context, rows
        given.n_batch, given.n_ubatch = self._steps, 512
        given.n_threads = given.n_threads_batch = threads
        self._context = llama.llama_init_from_model(self._model, given)
        if not self._context:
            raise SystemExit(f"llama.cpp cannot make a context of {rows} x {context} tokens")
        self._size = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(self._model))
        self._make_batch()
        kind = Path(model).stem.rpartition("-")[2]
        self.about = f"llama-cpp-python {version('llama-cpp-python')}, {kind} weights"

    def _make_batch(self) -> None:
        """A llama_batch whose columns are arrays: filling it token by token would take time."""
        import numpy as np

        view, steps = np.ctypeslib.as_array, (self._steps,)
        batch = self._batch = self._llama.llama_batch_init(self._steps, 0, 1)
        self._sequence = np.zeros(steps, dtype=np.int32)
        pointers = ctypes.cast(batch.seq_id, ctypes.POINTER(ctypes.c_size_t))
        view(pointers, steps)[:] = self._sequence.ctypes.data + 4 * np.arange(self._steps)
        view(batch.n_seq_id, steps)[:] = 1
        self._columns = [view(batch.token, steps), view(batch.pos, steps), self._sequence]
        self._wanted = view(batch.logits, steps)

    def generate(self, prompts: list[Prompt], tokens: int, **_: Any) -> dict[str, Any]:
        import numpy as np

        self._llama.llama_memory_clear(self._llama.llama_get_memory(self._context), False)
        lengths = [len(p["ids"]) for p in prompts]
        ids = np.concatenate([p["ids"] for p in prompts])
        places = np.concatenate([np.arange(n) for n in lengths])
        last, counts = self._read(ids, places, np.repeat(np.arange(len(prompts)), lengths)), 1
        sequences, ends = np.arange(len(prompts)), np.array(lengths)
        while counts < tokens:
            last = self._read(last, ends + counts - 1, sequences)
            counts += 1
        return {"tokens": [counts] * len(prompts)}

    def _read(self, ids: Any, places: Any, sequences: Any) -> list[int]:
        """The best tokens after each sequence's last one among these."""
        import numpy as np

        ends = np.append(np.diff(sequences) != 0, True)
        best: list[int] = []
        for start in range(0, len(ids), self._steps):
            part = slice(start, start + self._steps)
            size = self._batch.n_tokens = len(sequences[part])
            for column, values in zip(self._columns, (ids, places, sequences), strict=True):
                column[:size] = values[part]
            self._wanted[:size] = ends[part]
            if self._llama.llama_decode(self._context, self._batch):
                raise RuntimeError("llama_decode failed")
            best += map(self._best, np.flatnonzero(ends[part]).tolist())
        return best

    def _best(self, row: int) -> int:
        import numpy as np

        logits = self._llama.llama_get_logits_ith(self._context, row)
        return int(np.ctypeslib.as_array(logits, shape=(self._size,)).argmax())


class OpenVino:
    """OpenVINO GenAI's continuous batching, over optimum-intel's export (made at the first start)."""

    def __init__(self, model: str, weights: str, rows: int, context: int, threads: int, **_: Any) -> None:
        import openvino
        import openvino_genai

        self._genai, self._tensor = openvino_genai, openvino.Tensor
        folder = self._exported(Path(model), weights)
        native = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        scheduler = openvino_genai.SchedulerConfig()
        scheduler.max_num_seqs, scheduler.max_num_batched_tokens = rows, 2048
        scheduler.num_kv_blocks = -(-rows * context // 32) + rows  # blocks of 32 tokens
        properties = {
            "INFERENCE_PRECISION_HINT": "bf16" if native else "f32",
            "INFERENCE_NUM_THREADS": threads,
        }
        self._pipeline = openvino_genai.ContinuousBatchingPipeline(folder, scheduler, "CPU", properties)
        arithmetic = properties["INFERENCE_PRECISION_HINT"]
        self.about = (
            f"openvino-genai {version('openvino-genai')}, {weights} weights, {arithmetic} inference precision"
        )

    @staticmethod
    def _exported(model: Path, weights: str) -> Path:
        out = model.with_name(f"{model.name}-openvino-{weights}")
        if not (out / "openvino_detokenizer.xml").exists():
            # Without a format the weights stay bf16 in the file, as they are in the model's.
            how = ["--weight-format", "int8"] if weights == "int8" else []
            export = [str(Path(sys.executable).with_name("optimum-cli")), "export", "openvino"]
            task = ["--model", str(model), "--task", "text-generation-with-past"]
            subprocess.run([*export, *task, *how, str(out)], check=True)
        return out

    def generate(self, prompts: list[Prompt], tokens: int, **_: Any) -> dict[str, Any]:
        import numpy as np

        config = self._genai.GenerationConfig(
            max_new_tokens=tokens, do_sample=False, ignore_eos=True, eos_token_id=-1
        )
        inputs = [self._tensor(np.array([p["ids"]], dtype=np.int64)) for p in prompts]
        results = self._pipeline.generate(inputs, [config] * len(inputs))
        return {"tokens": [len(result.m_generation_ids[0]) for result in results]}


class Vllm:
    """vLLM's offline LLM, its engine in this process."""

    def __init__(self, model: str, rows: int, context: int, threads: int, **_: Any) -> None:
        os.environ |= {
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_NO_USAGE_STATS": "1",
            "VLLM_CPU_KVCACHE_SPACE": os.environ.get("VLLM_CPU_KVCACHE_SPACE", "2"),
            "VLLM_CPU_OMP_THREADS_BIND": f"0-{threads - 1}",
            "VLLM_CACHE_ROOT": f"{model}-vllm-cache",
        }  # fmt: skip
        import vllm

        self._vllm = vllm
        self._llm = vllm.LLM(model, dtype="bfloat16", max_model_len=context, max_num_seqs=rows)
        name = "vllm-cpu" if _installed("vllm-cpu") else "vllm"
        self.about = f"{name} {version(name)}, {self._llm.llm_engine.model_config.dtype} weights"

    def generate(self, prompts: list[Prompt], tokens: int, **_: Any) -> dict[str, Any]:
        sampling = self._vllm.SamplingParams(
            temperature=0, max_tokens=tokens, ignore_eos=True, detokenize=False
        )
        inputs = [{"prompt_token_ids": p["ids"]} for p in prompts]
        answers = self._llm.generate(inputs, sampling, use_tqdm=False)
        return {"tokens": [len(answer.outputs[0].token_ids) for answer in answers]}


class Transformers:
    """transformers' generate over one batch."""

    def __init__(self, model: str, weights: str, **_: Any) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        dtype = {"bf16": torch.bfloat16, "fp32": torch.float32}[weights]
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self._model = AutoModelForCausalLM.from_pretrained(model, dtype=dtype).to(device).eval()
        self._model.generation_config.eos_token_id = None
        self.about = f"transformers {version('transformers')}, torch {torch.__version__}, {weights} weights"

    def generate(self, prompts: list[Prompt], tokens: int, **_: Any) -> dict[str, Any]:
        import torch

        ids = torch.tensor([p["ids"] for p in prompts], device=self._model.device)
        with torch.inference_mode():
            out = self._model.generate(
                ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=tokens
            )
        return {"tokens": [out.shape[1] - ids.shape[1]] * len(prompts)}


class Limits:
    """What this machine can do at most: how fast torch reads memory, and multiplies a model's matrices.

    linears: (out, in) of one layer's matrices.  head: of the output matrix.
    """

    def __init__(self, layers: int, linears: list[list[int]], head: list[int], **_: Any) -> None:
        import torch

        self._dtypes = {"fp32": torch.float32}
        native = torch.cpu.get_capabilities()
        if native.get("avx512_bf16") or native.get("amx_bf16"):
            self._dtypes["bf16"] = torch.bfloat16
        self._shapes = [shape for _ in range(layers) for shape in linears]
        self._head = head
        self._memory = torch.ones(2**16, 2**12)  # 1 GiB, more than any cache holds
        self.about = f"torch {torch.__version__}, {torch.get_num_threads()} threads"

    def bandwidth(self) -> dict[str, Any]:
        """Bytes a second of the best of three ways to read, each the best of five."""
        import torch

        vector = torch.ones(self._memory.shape[1])
        ways = {
            "sum": self._memory.sum, "max": self._memory.amax,
            "matrix x vector": lambda: self._memory.mv(vector),
        }  # fmt: skip
        size = self._memory.numel() * self._memory.element_size()
        return {"rates": {name: size / min(_timed(way) for _ in range(5)) for name, way in ways.items()}}

    def linears(self, tokens: int) -> dict[str, Any]:
        """Tokens a second through the matrices alone, the output one for each 128th token, by type."""
        return {
            "rates": {name: tokens / self._through(dtype, tokens) for name, dtype in self._dtypes.items()}
        }

    def _through(self, dtype: Any, tokens: int) -> float:
        import torch
        from torch.nn.functional import linear

        matrices = [torch.ones(shape, dtype=dtype) for shape in self._shapes]
        inputs = {size: torch.ones(tokens, size, dtype=dtype) for size in {m.shape[1] for m in matrices}}
        head = torch.ones(self._head, dtype=dtype)
        ends = torch.ones(-(-tokens // 128), self._head[1], dtype=dtype)

        def whole() -> None:
            for matrix in matrices:
                linear(inputs[matrix.shape[1]], matrix)
            linear(ends, head)

        with torch.inference_mode():
            return min(_timed(whole) for _ in range(2))


def _timed(work: Any) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _installed(name: str) -> bool:
    try:
        return bool(version(name))
    except ImportError:
        return False


ENGINES = {
    "dialoop": Dialoop, "llama.cpp": LlamaCpp, "openvino": OpenVino, "vllm": Vllm,
    "transformers": Transformers, "limits": Limits,
}  # fmt: skip


def main() -> None:
    """Load, say so, answer until the input ends."""
    given = json.loads(sys.argv[1])
    answers = os.fdopen(os.dup(1), "w")  # what libraries print goes to the log
    os.dup2(2, 1)
    worker: Any = ENGINES[given.pop("engine")](**given)
    print(json.dumps({"about": worker.about}), file=answers, flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        method = getattr(worker, command.pop("do"))
        start = time.perf_counter()
        found = method(**command)
        seconds = time.perf_counter() - start
        print(json.dumps({"seconds": seconds, **found}), file=answers, flush=True)


if __name__ == "__main__":
    main()
