"""What an upstream is: where it lies, what it speaks, and how long it is waited for."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from dialoop.config import Settings
from dialoop.errors import ConfigError, echo

UpstreamKind = Literal["openai", "vllm", "llama.cpp", "ollama", "dialoop"]
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
# Printable ASCII: whatever else an HTTP library refuses, it would repeat in its error.
_KEY = re.compile(r"[!-~]{1,4096}")


class Upstream(Settings):
    """A server that speaks OpenAI's API. Its key comes from the environment and from nowhere else."""

    url: str
    """Its base URL, `/v1` included."""
    kind: UpstreamKind | None = None
    """What it is, which says what it takes; None = as its list of models tells, else `openai`."""
    key_env: str | None = Field(None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """The environment variable that holds its key; None = DIALOOP_UPSTREAM_NAME_KEY, which may be unset."""
    weight: float = Field(1.0, gt=0)
    """Its share of the requests for a model that others serve as well."""
    models: Mapping[str, str] = Field(default_factory=dict)
    """The name we serve = the name it serves; empty = all of its models under its own names."""
    context: int = Field(0, ge=0)
    """Tokens that its models hold where it does not tell; 0 = not known."""
    connect_seconds: float = Field(5.0, gt=0)
    """Longest wait for a connection."""
    first_token_seconds: float = Field(300.0, gt=0)
    """Longest wait for the beginning of an answer."""
    between_tokens_seconds: float = Field(60.0, gt=0)
    """Longest silence inside an answer."""
    failures: int = Field(5, ge=1)
    """So many failures in a row and it is left alone for a while."""
    rest_seconds: float = Field(10.0, gt=0)
    """For how long; then one request tries it."""

    @field_validator("url")
    @classmethod
    def _plain_url(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ValueError("expected a URL such as http://127.0.0.1:8000/v1")
        if parts.username or parts.password:
            raise ValueError("a URL holds no key: export it as an environment variable instead")
        return url.rstrip("/")


def key_variable(name: str, upstream: Upstream) -> str:
    """The environment variable that holds the upstream's key."""
    return upstream.key_env or f"DIALOOP_UPSTREAM_{re.sub(r'[^A-Za-z0-9]', '_', name).upper()}_KEY"


def key_of(name: str, upstream: Upstream) -> str | None:
    """The upstream's key. Raises ConfigError where one was named and is not there, or cannot be sent."""
    variable = key_variable(name, upstream)
    key = os.environ.get(variable, "").strip()
    if not key and upstream.key_env:
        raise ConfigError(f"upstream {name}: {variable} is not set: export it with the upstream's key")
    if key and not _KEY.fullmatch(key):
        raise ConfigError(f"upstream {name}: {variable} holds characters that no key has: export it anew")
    return key or None


def upstream_from(flag: str) -> tuple[str, Upstream]:
    """NAME=URL as a name and an upstream. Raises ConfigError."""
    from dialoop.config import validate

    name, separator, url = flag.partition("=")
    if not separator:
        raise ConfigError(f"--upstream {echo(flag)}: expected NAME=URL, such as gpu=http://127.0.0.1:8000/v1")
    return check_name(name), validate(Upstream, {"url": url}, f"--upstream {name}")


def check_name(name: str) -> str:
    """`name`, if it can name an upstream. Raises ConfigError."""
    if not NAME.fullmatch(name):
        raise ConfigError(f"upstream {echo(name)}: expected letters, digits, dots and dashes: rename it")
    return name
