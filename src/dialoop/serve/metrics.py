"""What Prometheus reads: our names, and beside them vLLM's, so that its dashboards work unchanged."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress

from fastapi import APIRouter
from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from starlette.responses import Response

from dialoop.errors import RequestError
from dialoop.types import Delta, Engine, Occupancy, Occupied, Usage

OURS, VLLM = "dialoop_", "vllm:"
ALIASED = (
    "num_requests_running", "num_requests_waiting", "kv_cache_usage_perc", "prefix_cache_queries",
    "prefix_cache_hits", "num_preemptions", "prompt_tokens", "generation_tokens", "request_success",
    "time_to_first_token_seconds", "inter_token_latency_seconds", "request_time_per_output_token_seconds",
    "e2e_request_latency_seconds", "request_prompt_tokens", "request_generation_tokens",
)  # fmt: skip
"""Series that vLLM has under the same name after its own prefix."""
_OLD = {"inter_token_latency_seconds": "time_per_output_token_seconds"}
"""And the name that it had before."""

_SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
_FIRST = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
_BETWEEN = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
_TOKENS = tuple(4.0**n for n in range(10))
LOOK_SECONDS = 2.0
"""How long an engine may take to tell how busy it is."""


class Metrics:
    """One server's counters; belongs to its event loop."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._prompt = self._counter("prompt_tokens", "Tokens of prompts.", "model")
        self._generated = self._counter("generation_tokens", "Tokens of answers.", "model")
        self._ended = self._counter(
            "request_success", "Answers, by how they ended.", "model", "finished_reason"
        )
        self._by_prompt = self._counter(
            "prompt_requests", "Answers that a registered prompt was put around.",
            "project", "prompt", "version", "model",
        )  # fmt: skip
        self._first = self._histogram(
            "time_to_first_token_seconds", "To the first piece of an answer.", _FIRST
        )
        self._between = self._histogram("inter_token_latency_seconds", "From piece to piece.", _BETWEEN)
        self._each = self._histogram(
            "request_time_per_output_token_seconds", "After the first, by request.", _BETWEEN
        )
        self._whole = self._histogram("e2e_request_latency_seconds", "Of a whole request.", _SECONDS)
        self._prompts = self._histogram("request_prompt_tokens", "Of one prompt.", _TOKENS)
        self._answers = self._histogram("request_generation_tokens", "Of one request's answers.", _TOKENS)
        # The names of prometheus-fastapi-instrumentator, which vLLM's dashboards use.
        self.http = Counter(
            "http_requests", "Requests.", ("handler", "method", "status"), registry=self.registry
        )
        self.http_seconds = Histogram(
            "http_request_duration_seconds", "Of a request, to the end of its answer.", ("handler", "method"),
            buckets=_SECONDS, registry=self.registry,
        )  # fmt: skip

    def began(self, model: str) -> Timing:
        """A request to `model` has begun."""
        return Timing(self, model)

    def prompted(self, project: str, prompt: str, version: int, model: str) -> None:
        """An answer to what a registered prompt asks has begun."""
        self._by_prompt.labels(project, prompt, str(version), model).inc()

    def first(self, model: str, seconds: float) -> None:
        """A first piece has come."""
        self._first.labels(model).observe(seconds)

    def between(self, model: str, seconds: float) -> None:
        """A further piece has come."""
        self._between.labels(model).observe(seconds)

    def ended(self, model: str, reason: str, usage: Usage, seconds: float) -> None:
        """A request has ended, whole or not."""
        self._ended.labels(model, reason).inc()
        self._prompt.labels(model).inc(usage.prompt_tokens)
        self._generated.labels(model).inc(usage.completion_tokens)
        self._whole.labels(model).observe(seconds)
        self._prompts.labels(model).observe(usage.prompt_tokens)
        self._answers.labels(model).observe(usage.completion_tokens)

    def paced(self, model: str, seconds: float) -> None:
        """An answer took so long for each token after its first piece."""
        self._each.labels(model).observe(seconds)

    def text(self, busy: Iterable[Occupancy]) -> bytes:
        """All series in Prometheus' text format."""
        return generate_latest(_Exposed(self.registry, tuple(busy)))

    def _counter(self, name: str, told: str, *labels: str) -> Counter:
        return Counter(OURS + name, told, labels, registry=self.registry)

    def _histogram(self, name: str, told: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(OURS + name, told, ("model",), buckets=buckets, registry=self.registry)


class Timing:
    """One request to a model, from its beginning on."""

    def __init__(self, metrics: Metrics, model: str) -> None:
        self._metrics, self._model = metrics, model
        self._begun = time.monotonic()
        self._first = self._last = 0.0
        self._reason = ""
        self.pieces = 0

    def saw(self, delta: Delta) -> None:
        """A piece has come."""
        now = time.monotonic()
        if self._first:
            self._metrics.between(self._model, now - self._last)
        else:
            self._first = now
            self._metrics.first(self._model, now - self._begun)
        self._last = now
        self._reason = delta.finish_reason or self._reason
        self.pieces += 1

    def ended(self, usage: Usage, error: BaseException | None, *, whole: bool) -> None:
        """It has ended, whole, by a hang-up or by an error; one that was refused counts not."""
        if isinstance(error, RequestError) and not self._first:
            return
        reason = (self._reason or "stop") if whole else "error" if isinstance(error, Exception) else "abort"
        self._metrics.ended(self._model, reason, usage, time.monotonic() - self._begun)
        if usage.completion_tokens > 1 and self._first:
            self._metrics.paced(self._model, (self._last - self._first) / (usage.completion_tokens - 1))


class _Exposed:
    """A registry's series and the engine's, each with its aliases."""

    def __init__(self, registry: CollectorRegistry, busy: tuple[Occupancy, ...]) -> None:
        self._registry, self._busy = registry, busy

    def collect(self) -> Iterator[Metric]:
        """As a collector of prometheus_client."""
        for metric in (*self._registry.collect(), *_engine_series(self._busy)):
            metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
            yield metric
            name = metric.name.removeprefix(OURS)
            if metric.name != name and name in ALIASED:
                yield from (_alias(metric, other) for other in (name, *filter(None, [_OLD.get(name)])))


def _alias(metric: Metric, name: str) -> Metric:
    alias = Metric(VLLM + name, metric.documentation, metric.type)
    for sample in metric.samples:
        labels = {("model_name" if key == "model" else key): value for key, value in sample.labels.items()}
        suffix = sample.name.removeprefix(metric.name)
        alias.add_sample(alias.name + suffix, {**labels, "engine": "0"}, sample.value)
    return alias


def _engine_series(busy: tuple[Occupancy, ...]) -> Iterator[Metric]:
    gauges = {
        "num_requests_running": ("Answers being made.", "running"),
        "num_requests_waiting": ("Answers that wait for their turn.", "waiting"),
        "kv_cache_usage_perc": ("Blocks of keys and values in use, 1 = all.", "cache_used"),
    }
    counters = {
        "prefix_cache_queries": ("Tokens of prompts looked up in the cache.", "cache_queries"),
        "prefix_cache_hits": ("Tokens of prompts found there.", "cache_hits"),
        "num_preemptions": ("Answers that gave their blocks up.", "preemptions"),
    }
    for kind, table in ((GaugeMetricFamily, gauges), (CounterMetricFamily, counters)):
        for name, (told, field) in table.items():
            family = kind(OURS + name, told, labels=["model"])
            for each in busy:
                family.add_metric([each.model], getattr(each, field))
            yield family


def metrics_routes(engine: Engine, metrics: Metrics) -> APIRouter:
    """GET /metrics."""
    router = APIRouter()

    @router.get("/metrics", response_class=Response)
    async def read_metrics() -> Response:
        """All series, in Prometheus' text format; without those of the engine where it does not answer."""
        busy: tuple[Occupancy, ...] = ()
        if isinstance(engine, Occupied):
            with suppress(RequestError, TimeoutError):
                busy = await asyncio.wait_for(engine.occupancy(), LOOK_SECONDS)
        return Response(metrics.text(busy), media_type=CONTENT_TYPE_LATEST)

    return router
