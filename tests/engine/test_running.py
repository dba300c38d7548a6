"""Continuous batching of real architectures, against transformers' own forward of each whole sequence."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    Gemma2Config,
    GemmaConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    Phi3Config,
    Qwen2Config,
    Qwen3Config,
)

from dialoop.engine.row import Row
from dialoop.engine.runner import runner_of
from dialoop.engine.running import Running, StepError
from dialoop.types import Sampling, TokenLogprob

VOCABULARY, CONTEXT, LENGTH = 97, 96, 24
SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "max_position_embeddings": CONTEXT, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2, "initializer_range": 0.3,
}  # fmt: skip
GROUPED = {**SHAPE, "num_key_value_heads": 2, "head_dim": 8}
GPT2 = {
    "vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": CONTEXT,
    "initializer_range": 0.3, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
CONFIGS = {
    "llama": LlamaConfig(**SHAPE),
    "llama with grouped heads": LlamaConfig(**GROUPED),
    "qwen2": Qwen2Config(**SHAPE, num_key_value_heads=2),
    "qwen3": Qwen3Config(**GROUPED),
    "mistral with a sliding window": MistralConfig(**GROUPED, sliding_window=8),
    "gemma": GemmaConfig(**GROUPED),
    "gemma2 with soft caps and windows": Gemma2Config(
        **GROUPED, sliding_window=8, attn_logit_softcapping=5.0
    ),
    "phi3": Phi3Config(**SHAPE, num_key_value_heads=2),
    "gpt2": GPT2Config(**GPT2),
    "mixtral": MixtralConfig(**GROUPED, num_local_experts=4, num_experts_per_tok=2),
}


class Numbers:
    """A vocabulary of numbers without a stop token."""

    stop_ids: frozenset[int] = frozenset()

    def decode(self, ids: Any, /) -> str:
        return " ".join(map(str, ids))

    def token_bytes(self, token_id: int, /) -> bytes:
        return str(token_id).encode()


def model_of(config: Any) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


def prompts(count: int) -> list[list[int]]:
    """Of several lengths, some beginning alike."""
    dice = random.Random(3)
    alike = [dice.randrange(3, VOCABULARY) for _ in range(40)]
    fresh = [[dice.randrange(3, VOCABULARY) for _ in range(dice.randint(1, 50))] for _ in range(count)]
    return [alike[: dice.randint(20, 40)] + own[:8] if i % 3 else own for i, own in enumerate(fresh)]


def rows_of(asked: list[list[int]], **sampling: Any) -> list[Row]:
    greedy = Sampling(**{"temperature": 0.0, "logprobs": 0, **sampling})
    return [Row(prompt, greedy, i, vocabulary=Numbers(), limit=LENGTH) for i, prompt in enumerate(asked)]


def finish(running: Running, rows: list[Row]) -> dict[Row, tuple[TokenLogprob, ...]]:
    for row in rows:
        running.add(row)
    while running.rows:
        running.advance()
    return {row: row.take_logprobs() for row in rows}


@torch.no_grad()
def check(model: Any, row: Row, told: tuple[TokenLogprob, ...], within: float = 1e-4) -> None:
    """Every token is the best one or `within` of it, every log-probability `within` the reference's."""
    ids = torch.tensor([[*row.prompt, *row.tokens]])
    logits = model(ids, use_cache=False).logits[0, len(row.prompt) - 1 : -1]
    logs = logits.log_softmax(-1)
    chosen = torch.tensor(row.tokens)
    picked = logs.gather(1, chosen[:, None]).squeeze(1)
    assert len(row.tokens) == LENGTH
    assert bool((logs.amax(-1) - picked <= within).all())
    torch.testing.assert_close(torch.tensor([t.logprob for t in told]), picked, atol=within, rtol=within)


@pytest.fixture(autouse=True)
def untouched_memory_is_not_a_number() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("name", CONFIGS)
def test_chunks_neighbours_and_shared_prefixes_change_no_logit(name: str) -> None:
    model = model_of(CONFIGS[name])
    assert runner_of(model, 4).shares
    running = Running(model, max_rows=3, step_tokens=11, context=CONTEXT, cache_tokens=600)
    told = finish(running, rows_of(prompts(7)))
    for row, logprobs in told.items():
        check(model, row, logprobs)
    assert any(row.cached >= 16 for row in told)


@pytest.mark.parametrize("name", ["llama", "mistral with a sliding window"])
def test_sequences_that_gave_their_blocks_up_go_on_alike(name: str) -> None:
    model = model_of(CONFIGS[name])
    running = Running(model, max_rows=5, step_tokens=64, context=CONTEXT, cache_tokens=1)
    for row, logprobs in finish(running, rows_of(prompts(6))).items():
        check(model, row, logprobs)
    assert running.preemptions > 0


def test_an_architecture_that_attends_in_its_own_way_is_read_one_by_one() -> None:
    config = BloomConfig(vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=4, initializer_range=0.3)
    config.max_position_embeddings = CONTEXT
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    assert not runner_of(model, 4).shares
    running = Running(model, max_rows=3, step_tokens=11, context=CONTEXT, cache_tokens=600)
    for row, logprobs in finish(running, rows_of(prompts(5))).items():
        check(model, row, logprobs)


def test_a_prompt_asked_again_is_found_and_answered_alike() -> None:
    model = model_of(CONFIGS["qwen3"])
    running = Running(model, max_rows=4, step_tokens=64, context=CONTEXT, cache_tokens=600)
    asked = [[*range(3, 60)]]
    (first,) = finish(running, rows_of(asked))
    (again,) = finish(running, rows_of(asked))
    assert (first.cached, again.cached) == (0, 48)
    assert first.tokens == again.tokens


def test_an_answer_given_up_leaves_its_room_to_others() -> None:
    model = model_of(CONFIGS["llama"])
    running = Running(model, max_rows=1, step_tokens=64, context=CONTEXT, cache_tokens=1)
    gone, kept = rows_of([[5] * 30, [6] * 30])
    running.add(gone)
    running.add(kept)
    running.advance()
    running.drop(lambda row: row is gone)
    assert running.rows == [kept]
    while running.rows:
        running.advance()
    assert len(kept.tokens) == LENGTH


def test_a_step_that_fails_names_its_rows_and_lets_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(CONFIGS["llama"])
    running = Running(model, max_rows=1, step_tokens=64, context=CONTEXT, cache_tokens=100)
    first, second = rows_of([[5] * 30, [6] * 30])
    running.add(first)
    running.add(second)
    with monkeypatch.context() as patch:
        patch.setattr(
            model.get_input_embeddings(), "forward", lambda *a, **k: (_ for _ in ()).throw(RuntimeError("x"))
        )
        with pytest.raises(StepError) as caught:
            running.advance()
    assert caught.value.rows == [first]
    finish(running, [])
    assert len(second.tokens) == LENGTH
    assert model.config._attn_implementation == "sdpa"
