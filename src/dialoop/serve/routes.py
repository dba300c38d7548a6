"""Which scopes each route needs; what is not listed needs `admin`."""

from __future__ import annotations

OPEN_PATHS = frozenset({"/health", "/ready"})
"""Served to everyone: probes have no key, and the answers say one word."""

Needed = frozenset[str]
ANY: Needed = frozenset()
_INFERENCE, _DATA, _JOBS = frozenset({"inference"}), frozenset({"data"}), frozenset({"jobs"})
_ADMIN = frozenset({"admin"})

_BY_PREFIX: tuple[tuple[str, Needed], ...] = (
    ("/v1/chat/completions", _INFERENCE),
    ("/v1/completions", _INFERENCE),
    ("/v1/responses", _INFERENCE),
    ("/v1/embeddings", _INFERENCE),
    ("/v1/moderations", _INFERENCE),
    ("/v1/feedback", _INFERENCE),
    ("/v1/score", _INFERENCE),
    ("/v1/rerank", _INFERENCE),
    ("/v1/classify", _INFERENCE),
    ("/score", _INFERENCE),
    ("/rerank", _INFERENCE),
    ("/classify", _INFERENCE),
    ("/tokenize", _INFERENCE),
    ("/detokenize", _INFERENCE),
    ("/v1/batches", _INFERENCE | _DATA),
    ("/v1/files", _DATA),
    ("/v1/uploads", _DATA),
    ("/v1/fine_tuning", _JOBS),
    ("/v1/evals", _JOBS),
    ("/metrics", frozenset({"metrics"})),
    ("/v1/models", ANY),
    ("/version", ANY),
    ("/openapi.json", ANY),
)

_KEPT = ("/v1/chat/completions", "/v1/responses")
"""Posted to, they ask a model; what they keep, and all below, is data."""


def scopes_for(method: str, path: str) -> Needed:
    """What a key must be for to send such a request."""
    if path.startswith("/v1/models/") and method == "DELETE":
        return _ADMIN
    for kept in _KEPT:
        if path.startswith(f"{kept}/") or (path == kept and method in ("GET", "HEAD")):
            return _DATA
    for prefix, needed in _BY_PREFIX:
        if path == prefix or path.startswith(f"{prefix}/"):
            return needed
    return _ADMIN


def asks_a_model(method: str, path: str) -> bool:
    """Whether such a request is counted by the rate limit, and needs one of the places for open ones."""
    return method == "POST" and path != "/v1/feedback" and scopes_for(method, path) == _INFERENCE
