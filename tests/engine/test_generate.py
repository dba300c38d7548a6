"""Batched generation, against transformers' own."""

from __future__ import annotations

import functools
import random
from collections.abc import Sequence

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

from dialoop.engine.generate import Generated, generate
from dialoop.errors import ContextLengthError
from dialoop.types import Sampling
from tests.tiny import CONTEXT, tiny_model

GREEDY = Sampling(temperature=0)


class Words:
    """The tiny tokenizer as generation sees one."""

    def __init__(self, stop_ids: frozenset[int]) -> None:
        self.stop_ids = stop_ids
        self._tokenizer = Tokenizer.from_file(str(tiny_model() / "tokenizer.json"))

    def decode(self, ids: Sequence[int], /) -> str:
        return self._tokenizer.decode(list(ids))

    def token_bytes(self, token_id: int, /) -> bytes:
        return self.decode([token_id]).encode()


@functools.cache
def model() -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained(tiny_model()).eval()


def prompts(count: int, longest: int = 60) -> list[list[int]]:
    dice = random.Random(7)
    return [[dice.randrange(3, 400) for _ in range(dice.randint(1, longest))] for _ in range(count)]


def reference(prompt: list[int], max_tokens: int, stop_ids: frozenset[int]) -> tuple[int, ...]:
    output = model().generate(  # type: ignore[operator]
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt)),
        do_sample=False,
        max_new_tokens=max_tokens,
        eos_token_id=sorted(stop_ids),
        pad_token_id=0,
    )
    return tuple(output[0, len(prompt) :].tolist())


@pytest.mark.parametrize("batch_size", [1, 5, 16])
def test_greedy_answers_equal_those_of_transformers_row_by_row(batch_size: int) -> None:
    stops = frozenset(range(3, 30))  # many stop tokens, so that rows leave the batch at different steps
    answers = generate(model(), Words(stops), prompts(16), GREEDY, batch_size=batch_size, max_tokens=24)
    assert [a.token_ids for a in answers] == [reference(p, 24, stops) for p in prompts(16)]
    assert {a.finish_reason for a in answers} == {"stop", "length"}


def test_the_text_is_the_decoded_tokens_without_the_stop_token() -> None:
    words = Words(frozenset(range(3, 60)))
    for answer in generate(model(), words, prompts(12), GREEDY, batch_size=4, max_tokens=24):
        stopped = answer.token_ids[-1] in words.stop_ids
        assert stopped == (answer.finish_reason == "stop")
        assert answer.text == words.decode(answer.token_ids[: -1 if stopped else None])


def test_drawn_answers_depend_on_the_seed_and_not_on_the_batch() -> None:
    def drawn(seed: int, batch_size: int) -> list[Generated]:
        sampling = Sampling(temperature=0.9, top_p=0.95, seed=seed)
        return generate(
            model(), Words(frozenset()), prompts(9), sampling, batch_size=batch_size, max_tokens=12
        )

    assert drawn(1, 9) == drawn(1, 2) == drawn(1, 1)
    assert drawn(1, 9) != drawn(2, 9)


def test_a_stop_string_ends_a_row() -> None:
    plain = generate(model(), Words(frozenset()), prompts(1), GREEDY, batch_size=1, max_tokens=20)[0]
    stop = plain.text[5:8]
    cut = generate(
        model(),
        Words(frozenset()),
        prompts(1),
        Sampling(temperature=0, stop=(stop,)),
        batch_size=1,
        max_tokens=20,
    )[0]
    assert cut.text == plain.text[: plain.text.find(stop)]
    assert cut.finish_reason == "stop"
    assert len(cut.token_ids) < len(plain.token_ids)


def test_progress_counts_up_to_all_prompts_and_tells_each_answer() -> None:
    seen: list[tuple[int, int]] = []
    answers: dict[int, Generated] = {}
    found = generate(
        model(),
        Words(frozenset(range(3, 99))),
        prompts(7),
        GREEDY,
        batch_size=3,
        max_tokens=9,
        on_progress=lambda done, total: seen.append((done, total)),
        on_answer=answers.__setitem__,
    )
    assert [answers[i] for i in range(7)] == found
    assert seen == sorted(set(seen))
    assert seen[-1] == (7, 7)


def test_a_prompt_that_fills_the_context_is_answered_with_one_token() -> None:
    full = [5] * CONTEXT
    answer = generate(model(), Words(frozenset()), [full], GREEDY, batch_size=1, max_tokens=9)[0]
    assert len(answer.token_ids) == 1


def test_a_prompt_that_does_not_fit_is_refused_with_both_numbers() -> None:
    with pytest.raises(ContextLengthError, match=f"{CONTEXT + 1} tokens.* {CONTEXT}"):
        generate(model(), Words(frozenset()), [[5] * (CONTEXT + 1)], GREEDY, batch_size=1, max_tokens=9)


def test_no_prompts_give_no_answers() -> None:
    assert generate(model(), Words(frozenset()), [], GREEDY, batch_size=4, max_tokens=9) == []


def test_a_model_in_training_mode_is_given_back_in_training_mode() -> None:
    own = AutoModelForCausalLM.from_pretrained(tiny_model()).train()
    generate(own, Words(frozenset()), prompts(1), GREEDY, batch_size=1, max_tokens=2)
    assert own.training


@pytest.mark.filterwarnings(
    "ignore:.is_gradient_checkpointing.:FutureWarning"
)  # peft asks transformers for it
def test_a_peft_model_answers_as_its_merged_self() -> None:
    own = AutoModelForCausalLM.from_pretrained(tiny_model())
    adapted = get_peft_model(
        own, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
    ).eval()
    words = Words(frozenset())
    answers = generate(adapted, words, prompts(6), GREEDY, batch_size=3, max_tokens=8)
    merged = adapted.merge_and_unload()
    assert answers == generate(merged, words, prompts(6), GREEDY, batch_size=6, max_tokens=8)
    assert answers != generate(model(), words, prompts(6), GREEDY, batch_size=6, max_tokens=8)
