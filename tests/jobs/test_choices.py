"""Answers to choose from are scored as the whole dialogues would be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dialoop.engine.loaded import LoadedModel, open_model
from dialoop.engine.score import log_likelihoods
from dialoop.jobs.choices import Choices
from dialoop.types import Conversation, Message, ModelRef, Pair
from tests.tiny import make_tiny_model


def test_a_decoder_scores_answers_as_it_would_score_the_dialogues(tmp_path: Path) -> None:
    ref = ModelRef("tiny", make_tiny_model(tmp_path, context=128))
    histories = [
        Conversation((Message("user", "Where is my parcel?"),)),
        Conversation((Message("user", "你好"), Message("assistant", "您好"), Message("user", "几点开门？"))),
    ]
    offered = (("At six.", "On its way, since Monday."), ("九点", "不知道"))
    rows = tuple(Pair(h, answers[-1], True) for h, answers in zip(histories, offered, strict=True))
    found = Choices(rows, offered).by_likelihood(ref)

    loaded = open_model(ref, precision="float32")
    assert isinstance(loaded, LoadedModel)
    whole = [
        replace(history, messages=(*history.messages, Message("assistant", answer)))
        for history, answers in zip(histories, offered, strict=True)
        for answer in answers
    ]
    wanted = [total / tokens for total, tokens in log_likelihoods(loaded.model, loaded.tokenizer, whole)]
    assert [score for row in found for score in row] == pytest.approx(wanted, abs=1e-4)
    assert len(set(wanted)) == 4
