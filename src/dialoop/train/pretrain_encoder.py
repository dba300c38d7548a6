"""Pre-training of an encoder: tokenizer, tokens, masked windows, and a Hugging Face directory at the end."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dialoop.chat.plain import TextTokenizer
from dialoop.config import PretrainRecipe
from dialoop.config.encoders import EncoderSettings
from dialoop.errors import TrainError
from dialoop.models.encoder import attend_for_training
from dialoop.models.load import default_device, default_dtype
from dialoop.train.batch import Batch
from dialoop.train.corpus import StagesPlan, tokenise
from dialoop.train.loop import Progress, Result, train
from dialoop.train.loss import cross_entropy
from dialoop.train.masking import MaskedPlan, Specials
from dialoop.train.objective import tensors
from dialoop.train.optim import Optimizer
from dialoop.train.pretrain import SETTINGS, sample
from dialoop.train.vocabulary import ENCODER_SPECIAL, train_tokenizer, write_encoder_tokenizer

FILES = ("tokenizer.json", "tokenizer_config.json")


@dataclass(frozen=True, slots=True)
class EncoderPretraining:
    """As `dialoop.train.pretrain.Pretraining`, of an encoder."""

    recipe: PretrainRecipe
    folder: Path
    encoder: Any
    plan: MaskedPlan

    def run(self, on_progress: Callable[[Progress], None]) -> Result:
        """Train to the end of the plan; the model lies in `folder/model` then."""
        named = dict(self.encoder.named_parameters())
        matrices = frozenset(name for name, weight in named.items() if weight.ndim == 2 and "layers" in name)
        self.encoder.train()
        result = train(
            self.loss, Optimizer(named, SETTINGS, muon=matrices), self.plan, self.folder,
            checkpoint_every=self.recipe.checkpoint_every, on_progress=on_progress,
        )  # fmt: skip
        self.write(self.folder / "model")
        return result

    def loss(self, batch: Batch) -> Tensor:
        """Summed over the tokens that were to be filled in; the output matrix sees no others."""
        ids, targets, weights = tensors(batch, self.encoder.device)
        places = weights.nonzero().squeeze(1)
        states = self.encoder.model(input_ids=ids.view(len(batch.lengths), -1)).last_hidden_state
        filled = self.encoder.head(states.flatten(0, 1)[places])
        return cross_entropy(filled, self.encoder.decoder.weight, targets[places], weights[places])

    def write(self, folder: Path) -> None:
        """The weights as they are now, with the tokenizer."""
        self.encoder.save_pretrained(folder)
        for name in FILES:
            (folder / name).write_bytes((self.folder / "tokenizer" / name).read_bytes())


def prepare_encoder(
    recipe: PretrainRecipe, shape: EncoderSettings, folder: Path, on_note: Callable[[str], None]
) -> EncoderPretraining:
    """Train or reuse the tokenizer, tokenise the sources, make the encoder."""
    _check(recipe, shape)
    if not (folder / "tokenizer" / FILES[-1]).is_file():
        on_note(f"learning {recipe.tokenizer.vocab_size} vocabulary entries")
        learnt = train_tokenizer(sample(recipe), recipe.tokenizer.vocab_size, special=ENCODER_SPECIAL)
        write_encoder_tokenizer(learnt, shape.context, folder / "tokenizer")
    tokenizer = TextTokenizer(folder / "tokenizer")
    sources = {}
    for name, source in recipe.sources.items():
        sources[name] = tokenise(name, source, tokenizer, folder / "tokens", recipe.held_out)
        on_note(f"{name}: {len(sources[name].offsets) - 1:,} documents, {len(sources[name].tokens):,} tokens")
    specials = _specials(folder / "tokenizer" / "tokenizer.json")
    torch.manual_seed(recipe.seed)
    encoder = _modern_bert(shape, tokenizer.vocab_size, specials).to(default_device(), default_dtype())
    attend_for_training(encoder, max(stage.length for stage in recipe.stages))
    plain = tokenizer.vocab_size - len(ENCODER_SPECIAL)
    plan = MaskedPlan(
        StagesPlan(recipe, sources), Specials(*specials[:3]), shape.masked, plain, recipe.seed
    )  # fmt: skip
    return EncoderPretraining(recipe, folder, encoder, plan)


def _check(recipe: PretrainRecipe, shape: EncoderSettings) -> None:
    for stage in recipe.stages:
        if stage.mask != "all" or stage.length > shape.context:
            raise TrainError(
                f"stage {stage.name!r}: an encoder learns all of its text, in windows of at most "
                f"{shape.context} tokens: leave mask out, and lower length"
            )


def _specials(path: Path) -> tuple[int, ...]:
    """[CLS], [SEP], [MASK], [PAD]."""
    added = json.loads(path.read_text(encoding="utf-8"))["added_tokens"]
    ids = {token["content"]: int(token["id"]) for token in added}
    return tuple(ids[token] for token in ENCODER_SPECIAL)


def _modern_bert(shape: EncoderSettings, vocabulary: int, specials: tuple[int, ...]) -> Any:
    from transformers import ModernBertConfig, ModernBertForMaskedLM

    first, last, _, pad = specials
    config = ModernBertConfig(
        vocab_size=vocabulary, hidden_size=shape.hidden, intermediate_size=shape.mlp,
        num_hidden_layers=shape.layers, num_attention_heads=shape.heads, classifier_pooling="mean",
        max_position_embeddings=shape.context, decoder_bias=False, pad_token_id=pad, bos_token_id=first,
        eos_token_id=last, cls_token_id=first, sep_token_id=last,
    )  # fmt: skip
    return ModernBertForMaskedLM(config)
