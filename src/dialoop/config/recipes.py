"""The jobs that a recipe can name, and the settings of each of their tables."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from dialoop.config.encoders import EncoderSettings
from dialoop.config.methods import LoraMethod, MethodSettings
from dialoop.config.mixing import MixSettings
from dialoop.config.objectives import ObjectiveSettings, PreferenceObjective, SftObjective
from dialoop.config.row_prompt import RowPrompt
from dialoop.config.search import SearchSettings
from dialoop.config.settings import Settings
from dialoop.config.shared import HoldingBack, LoopSettings, MadeFromAnother, ModelName
from dialoop.config.tracking import TrackingSettings
from dialoop.errors import echo, nearest

MaskKind = Literal["assistant", "last", "all"]
DataFormat = Literal["openai", "sharegpt", "alpaca", "pairs", "preference", "table", "qa", "text", "clue"]
CleanStep = Literal["unicode", "html", "roles", "turns", "language", "quality", "pii", "exact", "near"]


class CleanSettings(Settings):
    """Which cleaning steps run, and their bounds."""

    steps: tuple[CleanStep, ...] = (
        "unicode",
        "html",
        "roles",
        "turns",
        "language",
        "quality",
        "exact",
        "near",
    )
    """In this order, whatever the order given. `pii` is on by choice."""
    max_turn_chars: int = Field(8000, gt=0)
    """A longer turn rejects its conversation."""
    max_turns: int = Field(200, gt=0)
    """A conversation with more turns is rejected."""
    languages: tuple[str, ...] = ()
    """Keep these languages only (`en`, `zh`, `other`); empty keeps all."""
    drop_flags: tuple[str, ...] = ()
    """Quality flags that remove a row, such as `repetition`; the others only mark it."""
    near_threshold: float = Field(0.85, gt=0, le=1)
    """Estimated Jaccard similarity from which two conversations are near-duplicates."""
    near_permutations: int = Field(128, ge=16)
    """MinHash permutations (Broder 1997)."""
    max_reject_share: float = Field(0.05, ge=0, le=1)
    """A run that rejects a larger share exits non-zero after writing what was good."""


class SplitSettings(Settings):
    """A deterministic split by conversation group, so that near-twins never straddle it."""

    group_by: tuple[str, ...] = ("scenario", "template", "customer")
    """The first of these metadata keys that all rows have names the group; else the content does."""
    valid: float = Field(0.05, ge=0, lt=1)
    """Share of validation rows."""
    test: float = Field(0.1, ge=0, lt=1)
    """Share of test rows."""
    seed: int = 0
    """Changes which groups fall where."""


class DataSettings(Settings):
    """Where dialogues come from and what happens to them before training."""

    sources: tuple[str, ...] = Field(min_length=1)
    """`sample:en`, `sample:zh`, `sample:preference` or `file:PATH`; variables such as `${DIALOOP_DATA}` are
    expanded."""
    test_sources: tuple[str, ...] = ()
    """A given test split; then none is cut from `sources`."""
    format: DataFormat | None = None
    """The format of the files; None detects it."""
    encoding: str | None = None
    """The encoding of the files, a codec of Python such as `gb18030`; None detects it."""
    columns: dict[str, str] = Field({})
    """For tables: our field (`user`, `assistant`, `system`, `conversation`, `role`, `content`) = column."""
    clean: CleanSettings = CleanSettings()
    """Cleaning."""
    split: SplitSettings = SplitSettings()
    """Splitting."""
    mix: MixSettings = MixSettings()
    """How much of what each epoch takes, and in which order."""
    limit: int | None = Field(None, gt=0)
    """Read at most this many conversations of each source."""
    prompt: RowPrompt | None = None
    """The prompt template that rows are put into; `prompt = "NAME"` is short for its table."""

    @field_validator("prompt", mode="before")
    @classmethod
    def _by_name(cls, prompt: Any) -> Any:
        return {"name": prompt} if isinstance(prompt, str) else prompt

    @model_validator(mode="after")
    def _weights_are_of_sources(self) -> DataSettings:
        for name in self.mix.weights:
            if name not in self.sources:
                raise ValueError(f"mix.weights names {echo(name)}, no source{nearest(name, self.sources)}")
        return self


class OptimSettings(Settings):
    """AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101) with warm-up and decay."""

    learning_rate: float = Field(1e-3, gt=0)
    """Peak learning rate."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """Decay after the warm-up."""
    warmup: float = Field(0.05, ge=0, lt=1)
    """Share of the updates that warm up linearly."""
    final: float = Field(0.1, ge=0, le=1)
    """Share of the peak rate that the decay ends at."""
    weight_decay: float = Field(0.01, ge=0)
    """Decoupled weight decay, on matrices only."""
    betas: tuple[float, float] = (0.9, 0.99)
    """Decay rates of the moments."""
    clip: float = Field(1.0, gt=0)
    """The gradient norm is clipped to this."""


class TrainSettings(LoopSettings):
    """The loop."""

    epochs: float = Field(3.0, gt=0)
    """Passes over the training rows."""
    batch_tokens: int = Field(4096, ge=64)
    """Tokens of one forward pass; rows are packed into it without padding."""
    packing: bool = True
    """Several rows in one forward pass, none seeing another; False = one row each."""
    batch_rows: int | None = Field(None, ge=1)
    """Rows of one update, in as many forward passes as they need; None = as many as `accumulate` hold."""
    accumulate: int = Field(1, ge=1)
    """Forward passes of one update; the loss is the mean over all their supervised tokens."""
    max_length: int = Field(1024, ge=16)
    """Longer rows lose their oldest turns; counted and shown."""
    mask: MaskKind = "assistant"
    """Which tokens are learnt: every assistant turn, the last one, or all."""
    validations: int = Field(0, ge=0)
    """Validations, evenly over the run; 0 = as `eval_every` says."""
    parallel: Literal["replicate", "shard"] = "replicate"
    """How several processes hold the model: each all of it, or (FSDP2) a part of every layer."""


class RegularisationSettings(HoldingBack):
    """What keeps a model from learning its rows by heart; validation is without any of it."""

    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """Share of each target that is spread over the vocabulary (Szegedy et al. 2016, arXiv:1512.00567)."""
    neftune: float = Field(0.0, ge=0)
    """Noise on embeddings, this over the root of length x width (Jain et al. 2023, arXiv:2310.05914);
    0 = none, 5 to 15 in the paper."""


class EvalSettings(Settings):
    """How the model is judged before and after."""

    max_cases: int = Field(200, ge=1)
    """Test turns that are answered, evenly over the languages; all are used for perplexity."""
    max_tokens: int = Field(96, ge=1)
    """Longest answer."""
    batch_size: int = Field(32, ge=1)
    """Answers generated side by side."""
    resamples: int = Field(2000, ge=100)
    """Paired bootstrap resamples (Koehn 2004)."""
    seed: int = 0
    """Of the bootstrap and of the choice of cases."""


class TuneRecipe(MadeFromAnother):
    """Fine-tune a base model on dialogues and compare it with what it was."""

    usual_method: ClassVar[str] = "lora"

    kind: Literal["tune"] = "tune"
    """Names the job."""
    base: str = "dialoop-base"
    """A registered model, or the path of a Hugging Face directory."""
    data: DataSettings
    """Dialogues."""
    method: MethodSettings = LoraMethod()
    """What is trained."""
    objective: ObjectiveSettings = SftObjective()
    """What it is to learn."""
    optim: OptimSettings = OptimSettings()
    """How it is trained."""
    train: TrainSettings = TrainSettings()
    """For how long."""
    regularisation: RegularisationSettings = RegularisationSettings()
    """What holds it back."""
    eval: EvalSettings = EvalSettings()
    """How it is judged."""
    search: SearchSettings | None = None
    """What `dialoop search` varies; tuning itself takes no notice."""
    tracking: TrackingSettings = TrackingSettings()
    """Where the course of training is told besides the run directory and the store."""

    @model_validator(mode="after")
    def _can_be_shared_out(self) -> Self:
        """Keys from outside a layer leave the other processes waiting."""
        soft = self.method.kind in ("prompt", "prefix", "p-tuning-v2", "continue")
        if self.train.parallel == "shard" and soft:
            raise ValueError(
                'train.parallel = "shard" goes with methods that change layers, not '
                f'with {self.method.kind}: take "replicate"'
            )
        return self

    @model_validator(mode="after")
    def _prompt_fits(self) -> Self:
        """What a prompt says is read, never learnt; and two answers are no class."""
        prompt = self.data.prompt
        if prompt is not None and self.train.mask == "all":
            raise ValueError(
                'train.mask = "all" learns the words of data.prompt too: take "assistant" or "last"'
            )
        if (
            prompt is not None
            and prompt.task == "classification"
            and isinstance(self.objective, PreferenceObjective)
        ):
            raise ValueError(
                f'data.prompt.task = "classification" has one right label a row, and the objective '
                f"{self.objective.kind} learns from two answers: take the objective sft or distill"
            )
        return self

    @field_validator("regularisation")
    @classmethod
    def _fits_the_objective(
        cls, held: RegularisationSettings, info: ValidationInfo
    ) -> RegularisationSettings:
        kind = getattr(info.data.get("objective"), "kind", "sft")
        if kind != "sft" and (held.label_smoothing or held.r_drop):
            raise ValueError(f"label_smoothing and r_drop go with the objective sft, not with {kind}")
        return held


class TokenizerSettings(Settings):
    """Byte-level BPE with Qwen2's pre-tokenizer expression."""

    vocab_size: int = Field(10240, ge=300)
    """Entries, special tokens included."""
    sample_bytes: int = Field(40_000_000, ge=1000)
    """Bytes of text that the merges are learnt from, the same share of every source."""
    sources: tuple[str, ...] = ()
    """Keys of `[sources]` to learn from; empty takes all."""


class ArchitectureSettings(Settings):
    """A Qwen3 or Llama decoder."""

    family: Literal["llama", "qwen3"] = "qwen3"
    """Architecture of the Hugging Face configuration."""
    hidden: int = Field(384, multiple_of=64)
    """Width."""
    layers: int = Field(6, ge=1)
    """Blocks."""
    heads: int = Field(6, ge=1)
    """Query heads; head size is 64."""
    kv_heads: int = Field(2, ge=1)
    """Key and value heads."""
    mlp: int = Field(1024, ge=1)
    """Width of the gated feed-forward."""
    context: int = Field(2048, ge=128)
    """Positions."""
    rope_theta: float = Field(10000.0, gt=0)
    """Base of the rotary angles."""


class TextSource(Settings):
    """One source of pre-training text or conversations."""

    path: str
    """A JSONL file, gzipped or not; variables such as `${DIALOOP_DATA}` are expanded."""
    as_: Literal["text", "chat", "parallel", "words"] = Field("text", alias="as")
    """`text`: rows with a `text`; `chat`: rows with `messages`; `parallel`: rows with `en` and `zh`; `words`:
    rows with `tokens`, written with spaces between those of languages that have them."""
    language: Literal["en", "zh", "mixed"] = "mixed"
    """For the report by language."""
    repeat: float = Field(1.0, gt=0)
    """How often the source is seen in one pass."""
    licences: tuple[str, ...] = ()
    """Keep rows with these `licence` values only; empty keeps all."""


class Stage(Settings):
    """A stretch of pre-training at one sequence length and mix of sources."""

    name: str
    """Shown in the log."""
    sources: tuple[str, ...] = Field(min_length=1)
    """Keys of `[sources]`."""
    tokens: int = Field(gt=0)
    """Tokens trained in this stage."""
    length: int = Field(512, ge=32)
    """Sequence length."""
    batch_tokens: int = Field(16384, ge=32)
    """Tokens of one update."""
    learning_rate: float = Field(3e-3, gt=0)
    """Rate at the start of the stage."""
    warmup: int = Field(0, ge=0)
    """Updates over which the rate rises to `learning_rate` from nothing."""
    final: float = Field(0.1, ge=0, le=1)
    """Share of `learning_rate` that the stage ends at, linearly."""
    mask: Literal["all", "assistant"] = "all"
    """Which tokens of conversations are learnt; plain text is learnt whole. `assistant` keeps every
    conversation or document apart, cut at `length`; `all` runs them end to end."""
    repeat: dict[str, float] = Field({})
    """How often a source is seen in one pass of this stage, where it differs from the source's own."""


class PretrainRecipe(Settings):
    """Train a tokenizer and a decoder from plain text, then from conversations; or an encoder from text."""

    kind: Literal["pretrain"] = "pretrain"
    """Names the job."""
    name: ModelName
    """The new model's name."""
    sources: dict[str, TextSource]
    """Named sources."""
    tokenizer: TokenizerSettings = TokenizerSettings()
    """Vocabulary."""
    architecture: Annotated[ArchitectureSettings | EncoderSettings, Field(discriminator="family")] = (
        ArchitectureSettings()
    )
    """Shape: of a decoder, or of an encoder with `family = "modernbert"`."""
    stages: tuple[Stage, ...] = Field(min_length=1)
    """In order."""
    micro_batch: int = Field(4096, ge=32)
    """Tokens of one forward pass."""
    checkpoint_every: int = Field(20, ge=1)
    """Updates between checkpoints."""
    held_out: float = Field(0.005, gt=0, lt=1)
    """Share of the documents of every source that is never trained on."""
    seed: int = 0
    """Of initial weights and order."""

    @field_validator("architecture", mode="before")
    @classmethod
    def _default_family(cls, shape: Any) -> Any:
        """A table without a family is the default one's."""
        return {"family": "qwen3", **shape} if isinstance(shape, dict) else shape


Recipe = Annotated[TuneRecipe | PretrainRecipe, Field(discriminator="kind")]
