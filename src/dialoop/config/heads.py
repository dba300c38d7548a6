"""Recipes of models with a head: classes of texts, answers that fit, tags of words."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from dialoop.config.methods import ContinueMethod, FullMethod, MethodSettings
from dialoop.config.recipes import CleanSettings, CleanStep, OptimSettings, SplitSettings
from dialoop.config.settings import Settings
from dialoop.config.shared import HoldingBack, LoopSettings, MadeFromAnother


class HeadCleanSettings(CleanSettings):
    """Cleaning of rows that are no dialogues; tagged words are not changed, only duplicates removed."""

    steps: tuple[CleanStep, ...] = ("unicode", "html", "language", "exact")
    """In this order, whatever the order given. `roles` and `turns` are for dialogues alone."""


class HeadDataSettings(Settings):
    """Where rows come from and what happens to them before training."""

    sources: tuple[str, ...] = Field(min_length=1)
    """`sample:en`, `sample:zh` or `file:PATH`; `${DIALOOP_DATA}` and other variables are expanded."""
    test_sources: tuple[str, ...] = ()
    """A given test split; then none is cut from `sources`."""
    columns: dict[str, str] = Field({})
    """Our field = column: `text` and `label`; `tokens` and `tags`; `history`, `answer` and `fits`. A column
    inside another is written with a point, as in `metadata.intent`."""
    clean: HeadCleanSettings = HeadCleanSettings()
    """Cleaning."""
    split: SplitSettings = SplitSettings()
    """Splitting; without a group that all rows name, near-duplicates stay together."""
    limit: int | None = Field(None, gt=0)
    """Read at most this many rows of each source."""


class HeadTrainSettings(LoopSettings):
    """The loop, over rows of about the same length."""

    epochs: float = Field(5.0, gt=0)
    """Passes over the training rows."""
    batch_rows: int = Field(32, ge=1)
    """Rows of one update."""
    batch_tokens: int = Field(4096, ge=16)
    """Tokens of one forward pass, padding included; an update takes as many passes as it needs."""
    max_length: int = Field(256, ge=8)
    """Longer rows are cut, a history at its beginning; counted and shown."""
    best_by: Literal["accuracy", "loss"] = "accuracy"
    """Whose weights are kept: of the validation with the highest accuracy, of equals the lowest loss; or of
    that with the lowest loss, whose probabilities are the most honest."""


class HeadRegularisationSettings(HoldingBack):
    """What keeps a head from learning its rows by heart; validation is without any of it."""

    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """Share of each target that is spread over the classes (Szegedy et al. 2016, arXiv:1512.00567)."""
    class_weights: Literal["none", "balanced"] = "none"
    """`balanced`: a row counts by how rare its class is, rows / (classes x rows of the class)."""
    dropout: float | None = Field(None, ge=0, lt=1)
    """Share of the hidden values that the layers which have a dropout leave out; None = as the base's
    config.json says, which is nothing for an encoder of one's own. Most decoders have no such layer."""


class _HeadRecipe(MadeFromAnother):
    usual_method: ClassVar[str] = "full"

    base: str = "dialoop-base"
    """A registered model, or the path of a Hugging Face directory: a decoder or a BERT-style encoder."""
    data: HeadDataSettings
    """Rows."""
    method: MethodSettings = FullMethod()
    """What is trained besides the head."""
    optim: OptimSettings = OptimSettings(learning_rate=3e-4)
    """How it is trained."""
    train: HeadTrainSettings = HeadTrainSettings()
    """For how long."""
    regularisation: HeadRegularisationSettings = HeadRegularisationSettings()
    """What holds it back."""

    @field_validator("method")
    @classmethod
    def _writes_a_whole_model(cls, method: MethodSettings) -> MethodSettings:
        if isinstance(method, ContinueMethod):
            raise ValueError(
                "continue writes an adapter, and a head is written with all that it stands on: take full or "
                "lora, which begin at the adapter as it is"
            )
        return method


class ClassifyRecipe(_HeadRecipe):
    """Teach a model the classes of texts."""

    kind: Literal["classify"] = "classify"
    """Names the job."""


class PairRecipe(_HeadRecipe):
    """Teach a model P(answer fits history)."""

    kind: Literal["pair"] = "pair"
    """Names the job."""
    loss: Literal["binary", "in-batch"] = "binary"
    """`binary`: cross-entropy of fits or not, for each answer; `in-batch`: of which answer fits, among the
    right one and others of the same update (Henderson et al. 2017, arXiv:1705.00652)."""
    negatives: int = Field(3, ge=0)
    """Answers of other rows of the update beside each right one; rows that say themselves what does not fit
    need none."""
    candidates: int = Field(10, ge=2)
    """Answers to choose from when the model is judged."""
    max_cases: int = Field(500, ge=1)
    """Test rows that are judged so, drawn by the seed of `train`."""

    @model_validator(mode="after")
    def _held_back_as_pairs_can(self) -> PairRecipe:
        held = self.regularisation
        if held.class_weights != "none" or (self.loss == "in-batch" and held.label_smoothing):
            raise ValueError(
                "class_weights are not for pairs, nor label_smoothing for in-batch: set negatives instead"
            )
        return self


class TagRecipe(_HeadRecipe):
    """Teach a model the tags of words, such as names of people and places."""

    kind: Literal["tag"] = "tag"
    """Names the job."""
    crf: bool = False
    """Score whole sequences of tags by a linear-chain CRF (Lafferty et al. 2001) over the head's scores."""

    @model_validator(mode="after")
    def _held_back_as_chains_can(self) -> TagRecipe:
        held = self.regularisation
        if self.crf and (held.class_weights != "none" or held.label_smoothing or held.r_drop):
            raise ValueError(
                "class_weights, label_smoothing and r_drop go with single words, not with crf: leave one out"
            )
        return self


HeadRecipe = Annotated[ClassifyRecipe | PairRecipe | TagRecipe, Field(discriminator="kind")]
AnyHeadRecipe = ClassifyRecipe | PairRecipe | TagRecipe
