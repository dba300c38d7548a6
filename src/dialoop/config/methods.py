"""Tuning methods: which weights of a model are trained, and which are added to it.

What PEFT has is written as a PEFT directory; what it has not is written in the same two files.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from dialoop.config.settings import Settings

BasePrecision = Literal["loaded", "int8", "nf4"]
Placement = Literal["houlsby", "pfeiffer", "parallel"]
PromptInit = Literal["vocabulary", "text", "random"]


class FullMethod(Settings):
    """Every weight is trained; fp32 master weights."""

    kind: Literal["full"] = "full"
    """Names the method."""


class FreezeMethod(Settings):
    """The embeddings and the first layers are frozen, the rest is trained."""

    kind: Literal["freeze"] = "freeze"
    """Names the method."""
    layers: int = Field(ge=1)
    """Layers that are frozen, from the input up; no gradient is computed below the first trained one."""


class _FrozenBase(Settings):
    """Of methods that train what they add, and leave the base as it is."""

    base_precision: BasePrecision = "loaded"
    """How the frozen matrices are held while training: as loaded, in `int8` with a scale a row, or in 4 bits
    (`nf4`, Dettmers et al. 2023, arXiv:2305.14314). What is written fits the base as it is on disk."""


class LoraMethod(_FrozenBase):
    """Low-rank adapters (Hu et al. 2021, arXiv:2106.09685)."""

    kind: Literal["lora"] = "lora"
    """Names the method."""
    rank: int = Field(16, ge=1)
    """Rank of the update."""
    alpha: float = Field(32.0, gt=0)
    """The update is scaled by alpha / rank."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout on the adapter's input."""
    targets: tuple[str, ...] | Literal["all-linear"] = "all-linear"
    """Names of the linear layers that get an adapter."""
    rslora: bool = False
    """Scale by alpha / sqrt(rank) (Kalajdzievski 2023, arXiv:2312.03732): higher ranks learn as fast."""
    dora: bool = False
    """Learn lengths of a matrix's rows apart from their directions (Liu et al. 2024, arXiv:2402.09353)."""


class IA3Method(_FrozenBase):
    """Learnt scales of keys, values and feed-forward inputs (Liu et al. 2022, arXiv:2205.05638)."""

    kind: Literal["ia3"] = "ia3"
    """Names the method."""
    targets: tuple[str, ...] = ()
    """Linear layers whose outputs are scaled; empty takes those that PEFT knows for the architecture."""
    feedforward: tuple[str, ...] = ()
    """Those whose inputs are scaled instead."""


class BottleneckMethod(_FrozenBase):
    """Adapters of two small matrices with a nonlinearity between, inside each layer."""

    kind: Literal["bottleneck"] = "bottleneck"
    """Names the method."""
    size: int = Field(64, ge=1)
    """Width of the bottleneck."""
    placement: Placement = "pfeiffer"
    """`houlsby`: after attention and after the feed-forward (Houlsby et al. 2019, arXiv:1902.00751);
    `pfeiffer`: after the feed-forward only (Pfeiffer et al. 2020, arXiv:2005.00247); `parallel`: beside the
    feed-forward, from its input (He et al. 2021, arXiv:2110.04366)."""
    activation: Literal["relu", "gelu", "silu"] = "relu"
    """The nonlinearity."""
    scale: float | None = Field(None, gt=0)
    """Factor of what an adapter adds; None = 1, and 4 for `parallel` as in its paper."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout on the adapter's input."""


class BitFitMethod(_FrozenBase):
    """The model's own biases are trained (Ben Zaken et al. 2021, arXiv:2106.10199)."""

    kind: Literal["bitfit"] = "bitfit"
    """Names the method."""
    norms: bool | None = None
    """Train the norms' weights too; None = where the model has no biases, as Llama's kind has none."""


class PromptMethod(_FrozenBase):
    """Learnt embeddings before every text (Lester et al. 2021, arXiv:2104.08691)."""

    kind: Literal["prompt"] = "prompt"
    """Names the method."""
    tokens: int = Field(20, ge=1)
    """Virtual tokens; each takes a place of the context."""
    init: PromptInit = "vocabulary"
    """Where they begin: at embeddings of tokens drawn from the vocabulary, of `text`, or at random."""
    text: str = ""
    """For `init = "text"`, repeated or cut to `tokens`."""

    @model_validator(mode="after")
    def _text_is_there(self) -> PromptMethod:
        if (self.init == "text") != bool(self.text):
            raise ValueError('init = "text" and text go together: give both, or neither')
        return self


class PrefixMethod(_FrozenBase):
    """Learnt keys and values before every text, in every layer, made by a small network while training
    (Li and Liang 2021, arXiv:2101.00190)."""

    kind: Literal["prefix"] = "prefix"
    """Names the method."""
    tokens: int = Field(20, ge=1)
    """Virtual tokens; each takes a place of the context."""
    hidden: int = Field(512, ge=1)
    """Width of the network that makes the prefix; it is not written."""


class PTuningV2Method(_FrozenBase):
    """Learnt keys and values before every text, in every layer, themselves the parameters
    (Liu et al. 2021, arXiv:2110.07602)."""

    kind: Literal["p-tuning-v2"] = "p-tuning-v2"
    """Names the method."""
    tokens: int = Field(20, ge=1)
    """Virtual tokens; each takes a place of the context."""


class ContinueMethod(_FrozenBase):
    """The adapter that the recipe's base is, trained on in its own shape; what is written takes its place on
    the model below it."""

    kind: Literal["continue"] = "continue"
    """Names the method."""


AddingMethod = (
    LoraMethod
    | IA3Method
    | BottleneckMethod
    | BitFitMethod
    | PromptMethod
    | PrefixMethod
    | PTuningV2Method
    | ContinueMethod
)
"""Methods that leave the base's matrices as they are."""
MethodSettings = Annotated[AddingMethod | FullMethod | FreezeMethod, Field(discriminator="kind")]
