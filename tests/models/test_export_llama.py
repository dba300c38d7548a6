"""llama.cpp and vLLM compute what transformers computes. Slow: they live in environments of their own.

DIALOOP_LLAMA_PYTHON: a Python that has llama-cpp-python. DIALOOP_VLLM_PYTHON: a Python that has vllm.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import unicodedata
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer

from dialoop.models.export import export_adapter, export_merged
from dialoop.models.gguf import GgufType, export_gguf
from dialoop.models.load import load_model
from dialoop.store.shipped import SHIPPED, shipped_directory
from dialoop.types import ModelRef
from tests.models.test_load import IDS, logits
from tests.tiny import make_tiny_model

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

# The cache is f32 too, or its f16 rounding would be the largest difference.
LLAMA = """
import json, sys
import llama_cpp
asked = json.load(open(sys.argv[1]))
model = llama_cpp.Llama(sys.argv[2], n_ctx=256, logits_all=True, verbose=False, type_k=0, type_v=0)
answer = {"eos": model.token_eos()}
if asked["ids"]:
    model.eval(asked["ids"])
    answer["logits"] = model.scores[: len(asked["ids"])].tolist()
answer["tokens"] = [model.tokenize(t.encode(), add_bos=False, special=True) for t in asked["texts"]]
print("ANSWER" + json.dumps(answer))
"""

VLLM = """
import json, sys
from vllm import LLM, SamplingParams
from vllm.lora.request import LoRARequest
base, adapter, ids = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
model = LLM(base, dtype="float32", enforce_eager=True, max_model_len=128, enable_lora=bool(adapter),
            gpu_memory_utilization=0.2)
request = LoRARequest("tuned", 1, adapter) if adapter else None
greedy = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True)
done = model.generate({"prompt_token_ids": ids}, greedy, lora_request=request)
print("ANSWER" + json.dumps(list(done[0].outputs[0].token_ids)))
"""

PIECES = (
    "the order", "refund", " don't", " WE'LL", "shipped ", "naïve", "Straße", "退货", "订单号", "您好，",
    "快递！", "（元）", "🙂", "👩‍👩‍👧", "🇨🇳", "👍🏽", "0", "42", " 2024-02-29", "１２３", "٣", "½", "\n",
    "\r\n", "\n\n  ", "\t", "   ", " ", "\u3000", "def f(x):\n    return x", '{"a": [1]}', "a.b()->c;", "//",
    "<br/>", "...",
    "https://x.cn/?q=1", "——", "「」", "日本語", "한국어", "Привет", "עברית", "ไทย", "e\u0301", "\u200b", "_",
    "$9.99", "%", "'S", "'re", "<|im_end|>", "<|im_start|>",
)  # fmt: skip


def mixed_strings(count: int) -> list[str]:
    """Strings of up to 12 pieces, in NFC: llama.cpp does not normalise."""
    drawn = random.Random(7)
    texts = ("".join(drawn.choices(PIECES, k=drawn.randint(1, 12))) for _ in range(count))
    return [unicodedata.normalize("NFC", text) for text in texts]


def python(variable: str) -> str:
    found = os.environ.get(variable)
    if not found:
        pytest.skip(f"{variable} is not set: give the Python of an environment that has the tool")
    return found


def ask(command: list[str]) -> Any:
    outside = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=outside)
    lines = [line for line in done.stdout.splitlines() if line.startswith("ANSWER")]
    assert lines, done.stderr[-2000:]
    return json.loads(lines[0].removeprefix("ANSWER"))


def ask_llama(folder: Path, model: Path, ids: list[int], texts: list[str]) -> dict[str, Any]:
    question = folder / "question.json"
    question.write_text(json.dumps({"ids": ids, "texts": texts}))
    answer: dict[str, Any] = ask([python("DIALOOP_LLAMA_PYTHON"), "-c", LLAMA, str(question), str(model)])
    return answer


TYPES: list[tuple[GgufType, float]] = [("f32", 2e-3), ("f16", 2e-2), ("bf16", 0.15), ("q8_0", 0.6)]


@pytest.mark.parametrize("family", ["qwen3", "llama"])
@pytest.mark.parametrize(("dtype", "tolerance"), TYPES)
def test_llama_cpp_computes_the_same_logits(
    tmp_path: Path, family: str, dtype: GgufType, tolerance: float
) -> None:
    """Logits of the tiny model reach 5.6; the tolerances are absolute."""
    ref = ModelRef("tiny", make_tiny_model(tmp_path / "model", family=family, heads=4, kv_heads=2))
    export_gguf(ref, tmp_path / "m.gguf", dtype=dtype)
    answer = ask_llama(tmp_path, tmp_path / "m.gguf", IDS[0].tolist(), [])
    torch.testing.assert_close(torch.tensor(answer["logits"]), logits(ref)[0], atol=tolerance, rtol=0)


def test_llama_cpp_computes_the_same_logits_for_a_merged_adapter(tuned: ModelRef, tmp_path: Path) -> None:
    export_gguf(tuned, tmp_path / "m.gguf", dtype="f32")
    answer = ask_llama(tmp_path, tmp_path / "m.gguf", IDS[0].tolist(), [])
    torch.testing.assert_close(torch.tensor(answer["logits"]), logits(tuned)[0], atol=2e-3, rtol=0)


@pytest.mark.parametrize("model", ["tiny", SHIPPED])
def test_llama_cpp_cuts_ten_thousand_mixed_strings_into_the_same_tokens(tmp_path: Path, model: str) -> None:
    folder = shipped_directory()
    if model == "tiny":
        folder = make_tiny_model(tmp_path / "model", vocab_size=700)
    elif not (folder / "config.json").is_file():
        pytest.skip(f"this package has no {SHIPPED}")
    export_gguf(ModelRef(model, folder), tmp_path / "m.gguf", dtype="f16")
    texts = mixed_strings(10_000)
    answer = ask_llama(tmp_path, tmp_path / "m.gguf", [], texts)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    wanted = [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
    differing = [
        text for text, ours, theirs in zip(texts, wanted, answer["tokens"], strict=True) if ours != theirs
    ]
    assert differing == []
    assert answer["eos"] == tokenizer.token_to_id("<|im_end|>")


def greedy(ref: ModelRef) -> list[int]:
    model: Any = load_model(ref, dtype=torch.float32, device="cpu", merge=True)
    ids = IDS
    with torch.no_grad():
        for _ in range(8):
            ids = torch.cat([ids, model(ids).logits[:, -1:].argmax(-1)], dim=1)
    return [int(i) for i in ids[0, IDS.shape[1] :]]


@pytest.mark.parametrize("form", ["merged", "adapter"])
def test_vllm_answers_the_same_from_a_merged_directory_and_from_an_adapter(
    tuned: ModelRef, tmp_path: Path, form: str
) -> None:
    runner = python("DIALOOP_VLLM_PYTHON")
    base, adapter = str(tuned.base), str(export_adapter(tuned, tmp_path / "out"))
    if form == "merged":
        base, adapter = str(export_merged(tuned, tmp_path / "merged")), ""
    assert ask([runner, "-c", VLLM, base, adapter, json.dumps(IDS[0].tolist())]) == greedy(tuned)
