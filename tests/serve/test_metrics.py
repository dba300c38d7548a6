"""/metrics: our names and vLLM's."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from dialoop.backends.echo import EchoEngine
from dialoop.serve.metrics import ALIASED, Metrics
from dialoop.serve.watched import watched
from dialoop.store.registry import Store
from dialoop.types import Embed, Engine, Health, Load, Occupied, Score
from tests.engine.children import child_engine
from tests.serve.running import serving
from tests.serve.test_connection import BODY, CHAT, PatientEngine

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def read(url: str, headers: dict[str, str] | None = None) -> Samples:
    """Each series and its value."""
    answer = httpx.get(f"{url}/metrics", headers=headers, timeout=60)
    families = text_string_to_metric_families(answer.raise_for_status().text)
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def at(samples: Samples, name: str, **labels: str) -> float | None:
    return samples.get((name, frozenset(labels.items())))


def test_a_chat_is_counted_under_both_names() -> None:
    with serving(EchoEngine()) as url:
        for stream in (False, True):
            httpx.post(url + CHAT, json={**BODY, "stream": stream})
        httpx.post(url + CHAT, json={**BODY, "model": "no-such"})
        httpx.get(f"{url}/made/up")
        seen = read(url)
    for name, labels in (("dialoop_", {"model": "echo"}), ("vllm:", {"model_name": "echo", "engine": "0"})):
        assert at(seen, f"{name}request_success_total", finished_reason="stop", **labels) == 2
        assert at(seen, f"{name}prompt_tokens_total", **labels) == 4
        assert at(seen, f"{name}generation_tokens_total", **labels) == 4
        for series in ("time_to_first_token_seconds", "e2e_request_latency_seconds", "request_prompt_tokens"):
            assert at(seen, f"{name}{series}_count", **labels) == 2
        assert at(seen, f"{name}inter_token_latency_seconds_count", **labels) == 2
    assert at(seen, "vllm:time_per_output_token_seconds_count", model_name="echo", engine="0") == 2
    assert at(seen, "http_requests_total", handler=CHAT, method="POST", status="2xx") == 2
    assert at(seen, "http_requests_total", handler=CHAT, method="POST", status="4xx") == 1
    assert at(seen, "http_requests_total", handler="none", method="GET", status="4xx") == 1
    assert not any("no-such" in str(labels) or "made" in str(labels) for _, labels in seen)
    assert at(seen, "process_open_fds")


def test_an_answer_that_is_broken_off_counts_as_abort_with_what_it_used() -> None:
    engine = PatientEngine("Well")
    with serving(engine) as url:
        with httpx.stream("POST", url + CHAT, json={**BODY, "stream": True}, timeout=60):
            assert engine.begun.wait(60)
        assert engine.left.wait(60)
        seen = read(url)
    assert at(seen, "dialoop_request_success_total", model="echo", finished_reason="abort") == 1
    assert at(seen, "dialoop_generation_tokens_total", model="echo") == 1


def test_a_process_tells_how_busy_its_model_is() -> None:
    with child_engine() as engine, serving(engine) as url:
        question = "a long question that fills a block of keys and values, " * 3
        body = {"model": "tiny", "messages": [{"role": "user", "content": question}], "max_tokens": 4}
        for _ in range(2):
            assert httpx.post(url + CHAT, json=body, timeout=240).status_code == 200
        seen = read(url)
        labels = {"model_name": "tiny", "engine": "0"}
        queries = at(seen, "vllm:prefix_cache_queries_total", **labels)
        hits = at(seen, "vllm:prefix_cache_hits_total", **labels)
        assert queries
        assert hits
        assert 0 < hits < queries
        assert queries == at(seen, "vllm:prompt_tokens_total", **labels)
        for gauge in ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc"):
            assert at(seen, f"vllm:{gauge}", **labels) == at(seen, f"dialoop_{gauge}", model="tiny") == 0
        assert at(seen, "vllm:num_preemptions_total", **labels) == 0
        names = {name for name, _ in seen}
        assert all(any(name.startswith(f"vllm:{each}") for name in names) for each in ALIASED)


class Embedding(EchoEngine):
    """Embeds, too."""

    async def embed(self, model: str, texts: object, **options: object) -> object:
        return ()


@pytest.mark.parametrize(("engine", "able"), [(EchoEngine(), False), (Embedding(), True)])
def test_what_is_watched_can_do_what_it_could(engine: EchoEngine, able: bool) -> None:
    around = watched(engine, Metrics())
    assert isinstance(around, Engine)
    assert isinstance(around, Embed) == able
    assert not any(isinstance(around, kind) for kind in (Score, Load, Health, Occupied))
    assert around.models() == engine.models()


def test_answers_are_counted_by_the_registered_prompt_that_asked(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    store.prompts.add('name = "short"\n[wording.en]\nsystem = "Be short."\n')
    with serving(EchoEngine(), store=store) as url:
        for prompt in (
            {"id": "short"},
            {"id": "short", "version": "1"},
            {"id": "assistant"},
            {"id": "made-up"},
        ):
            httpx.post(url + CHAT, json={**BODY, "prompt": prompt})
        asked = {"model": "echo", "input": "Hi", "prompt": {"id": "short"}, "stream": True}
        httpx.post(f"{url}/v1/responses", json=asked)
        httpx.post(url + CHAT, json={**BODY, "model": "no-such", "prompt": {"id": "short"}})
        httpx.post(url + CHAT, json=BODY)
        seen = read(url)
    found = {
        (labels["prompt"], labels["version"], labels["model"]): value
        for (name, pairs), value in seen.items()
        if name == "dialoop_prompt_requests_total" and (labels := dict(pairs))
    }
    assert found == {("short", "1", "echo"): 3, ("assistant", "0", "echo"): 1}
