"""A token bucket: so much a minute, as much at once, and debts that are paid before the next."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Bucket:
    """Holds `limit` at most and is filled up in a minute, steadily; times are of one monotonic clock."""

    limit: int
    level: float
    at: float

    @classmethod
    def full(cls, limit: int, now: float) -> Bucket:
        """A bucket that nothing was taken from."""
        return cls(limit, float(limit), now)

    def left(self, now: float) -> float:
        """What may be taken; less than 0 = owed."""
        if now > self.at:
            self.level = min(float(self.limit), self.level + (now - self.at) * self.limit / 60)
            self.at = now
        return self.level

    def has(self, amount: float, now: float) -> bool:
        """Whether `amount` may be taken; more than the limit may be, from a full bucket."""
        return self.left(now) >= min(amount, self.limit)

    def take(self, amount: float, now: float) -> None:
        """Take `amount`, into debt where there is less; a negative amount is given back."""
        self.level = min(float(self.limit), self.left(now) - amount)

    def wait(self, amount: float, now: float) -> float:
        """Seconds until `amount` may be taken, if nobody takes any meanwhile."""
        return max(0.0, min(amount, self.limit) - self.left(now)) * 60 / self.limit
