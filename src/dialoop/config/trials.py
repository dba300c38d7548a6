"""Trials: a name whose requests go to one of several arms, the same user always to the same."""

from __future__ import annotations

import json
from hashlib import sha256

from pydantic import Field, model_validator

from dialoop.config.settings import Settings

_SLOTS = 2**52


class ArmSettings(Settings):
    """One of the ways in which a trial's requests are answered."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")
    """What reports call it."""
    model: str
    """Who answers."""
    prompt: str | None = None
    """A prompt of the store's that stands around the messages: NAME or NAME@VERSION."""
    weight: float = Field(1.0, gt=0)
    """Its share of the users, beside the others'."""


class TrialSettings(Settings):
    """Arms that are compared on the users of a server; the first is the control."""

    arms: tuple[ArmSettings, ...] = Field(min_length=2)
    """Users without a name are answered by the first and do not count."""
    rating: str = Field("rating", min_length=1, max_length=64)
    """The rating that decides, as feedback names it."""

    @model_validator(mode="after")
    def _told_apart(self) -> TrialSettings:
        names = [arm.name for arm in self.arms]
        if len(set(names)) != len(names):
            raise ValueError("two arms have one name: name each of its own")
        return self

    @property
    def plan(self) -> str:
        """sha256 of the arms: what was rated under others is no part of the trial."""
        told = [arm.model_dump(mode="json") for arm in self.arms]
        return sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()

    def arm_of(self, trial: str, subject: str) -> ArmSettings:
        """The same for the same subject, whatever was asked before. trial: its name."""
        digest = sha256(f"{trial}\0{subject}".encode()).digest()
        place = (int.from_bytes(digest[:8], "big") % _SLOTS) / _SLOTS * sum(arm.weight for arm in self.arms)
        for arm in self.arms:
            place -= arm.weight
            if place < 0:
                return arm
        return self.arms[-1]


def subject_of(trial: str, user: str) -> str:
    """A user's pseudonym in one trial: the name itself is not kept."""
    return sha256(f"dialoop\0{trial}\0{user}".encode()).hexdigest()[:32]
