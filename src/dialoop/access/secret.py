"""The text of an API key: made once, shown once, kept as a hash."""

from __future__ import annotations

import hashlib
import re
import secrets
import string

_ALPHABET = string.ascii_letters + string.digits
_LENGTH = 48
"""Characters after `sk-`: 285 bits, so that a plain hash is enough."""
_SHAPE = re.compile(rf"sk-[A-Za-z0-9]{{{_LENGTH}}}")
PREFIX = len("sk-") + 8
"""Characters that are kept and shown; the rest holds 238 bits."""


def new_secret() -> str:
    """A new key."""
    return "sk-" + "".join(secrets.choice(_ALPHABET) for _ in range(_LENGTH))


def well_formed(secret: str) -> bool:
    """Whether `new_secret` can have made it; what it cannot is looked up nowhere."""
    return _SHAPE.fullmatch(secret) is not None


def digest_of(secret: str) -> str:
    """SHA-256, in hexadecimal digits."""
    return hashlib.sha256(secret.encode()).hexdigest()


def matches(secret: str, digest: str) -> bool:
    """Compared in a time that tells nothing of where they differ."""
    return secrets.compare_digest(digest_of(secret), digest)
