"""Pre-training: tokenizer, tokens, stages, and a Hugging Face directory at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from dialoop.chat.tokenizer import ChatTokenizer
from dialoop.config import ArchitectureSettings, OptimSettings, PretrainRecipe
from dialoop.config.encoders import EncoderSettings
from dialoop.errors import TrainError
from dialoop.models.allocator import keep_freed_memory
from dialoop.models.decoder import Decoder, write_decoder
from dialoop.models.load import default_device, default_dtype
from dialoop.train.batch import Batch
from dialoop.train.belonging import claim
from dialoop.train.corpus import StagesPlan, Tokens, plain_text, rows, tokenise
from dialoop.train.loop import Progress, Result, train
from dialoop.train.loss import cross_entropy
from dialoop.train.objective import tensors
from dialoop.train.optim import Optimizer
from dialoop.train.vocabulary import train_tokenizer, write_tokenizer

if TYPE_CHECKING:
    from dialoop.train.pretrain_encoder import EncoderPretraining

SETTINGS = OptimSettings.model_validate({"weight_decay": 0.1, "betas": (0.9, 0.95), "clip": 1.0})


@dataclass(frozen=True, slots=True)
class Pretraining:
    """A recipe made ready in its run directory: `run()` trains, resumes and writes the model."""

    recipe: PretrainRecipe
    folder: Path
    tokenizer: ChatTokenizer
    sources: Mapping[str, Tokens]
    decoder: Decoder
    plan: StagesPlan

    def run(self, on_progress: Callable[[Progress], None]) -> Result:
        """Train to the end of the plan; the model lies in `folder/model` then."""
        matrices = frozenset(n for n, p in self.decoder.named_parameters() if p.ndim == 2 and "layers" in n)
        optimizer = Optimizer(dict(self.decoder.named_parameters()), SETTINGS, muon=matrices)
        result = train(
            self._loss, optimizer, self.plan, self.folder,
            checkpoint_every=self.recipe.checkpoint_every, on_progress=on_progress,
        )  # fmt: skip
        self.write(self.folder / "model")
        return result

    def _loss(self, batch: Batch) -> Tensor:
        ids, targets, weights = tensors(batch, self.decoder.head.device)
        return cross_entropy(self.decoder(ids, batch.lengths), self.decoder.head, targets, weights)

    def write(self, folder: Path) -> None:
        """The weights as they are now, with the tokenizer, as a Hugging Face directory."""
        stop, end = self.tokenizer.eos_id, self.tokenizer.pad_id
        if stop is None or end is None:
            raise TrainError("the tokenizer has no end-of-turn or no end-of-text token: train it anew")
        write_decoder(self.decoder, folder, eos_id=stop, pad_id=end)
        for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
            (folder / name).write_bytes((self.folder / "tokenizer" / name).read_bytes())


def prepare(
    recipe: PretrainRecipe, folder: Path, on_note: Callable[[str], None] = lambda note: None
) -> Pretraining | EncoderPretraining:
    """Train or reuse the tokenizer, tokenise the sources, make the model."""
    from dialoop.train.pretrain_encoder import prepare_encoder

    keep_freed_memory()
    # Stages may be changed.
    kept = {"sources", "tokenizer", "architecture", "held_out", "seed"}
    claim(folder, recipe.model_dump(mode="json", include=kept))
    shape = recipe.architecture
    if isinstance(shape, EncoderSettings):
        return prepare_encoder(recipe, shape, folder, on_note)
    return _prepare_decoder(recipe, shape, folder, on_note)


def _prepare_decoder(
    recipe: PretrainRecipe, shape: ArchitectureSettings, folder: Path, on_note: Callable[[str], None]
) -> Pretraining:
    if not (folder / "tokenizer" / "chat_template.jinja").is_file():
        on_note(f"learning {recipe.tokenizer.vocab_size} vocabulary entries")
        tokenizer = train_tokenizer(sample(recipe), recipe.tokenizer.vocab_size)
        template = files("dialoop.assets").joinpath("dialoop-base", "chat_template.jinja")
        write_tokenizer(tokenizer, template.read_text(encoding="utf-8"), shape.context, folder / "tokenizer")
    loaded = ChatTokenizer.load(folder / "tokenizer")
    sources = {}
    for name, source in recipe.sources.items():
        sources[name] = tokenise(name, source, loaded, folder / "tokens", recipe.held_out)
        on_note(f"{name}: {len(sources[name].offsets) - 1:,} documents, {len(sources[name].tokens):,} tokens")
    decoder = Decoder(shape, loaded.vocab_size, seed=recipe.seed).to(default_device(), default_dtype())
    return Pretraining(recipe, folder, loaded, sources, decoder, StagesPlan(recipe, sources))


def sample(recipe: PretrainRecipe) -> Iterator[str]:
    """About `sample_bytes` of text: every source gives the same share, rows spread over the whole file."""
    names = recipe.tokenizer.sources or tuple(recipe.sources)
    share = recipe.tokenizer.sample_bytes // len(names)
    for source in (recipe.sources[name] for name in names):
        size = sum(len(plain_text(row, source).encode()) for row in rows(source))
        every = max(size // share, 1)
        for row in islice(rows(source), 0, None, every):
            yield plain_text(row, source)
