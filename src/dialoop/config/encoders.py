"""The shape of an encoder that is pre-trained from nothing."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from dialoop.config.settings import Settings


class EncoderSettings(Settings):
    """A ModernBERT (Warner et al. 2024, arXiv:2412.13663), learnt by filling in masked tokens."""

    family: Literal["modernbert"] = "modernbert"
    """Architecture of the Hugging Face configuration."""
    hidden: int = Field(256, multiple_of=64)
    """Width."""
    layers: int = Field(6, ge=1)
    """Blocks; every third sees the whole text, the others the words around."""
    heads: int = Field(4, ge=1)
    """Heads of attention."""
    mlp: int = Field(384, ge=1)
    """Width of the gated feed-forward."""
    context: int = Field(512, ge=32)
    """Positions."""
    masked: float = Field(0.3, gt=0, lt=1)
    """Share of tokens that are to be filled in (Wettig et al. 2022, arXiv:2202.08005). Of these, 8 in 10 are
    hidden, 1 is another token and 1 is left as it is (Devlin et al. 2018, arXiv:1810.04805)."""
