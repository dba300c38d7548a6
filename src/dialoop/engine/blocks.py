"""Key-value blocks: who holds which, and which hold the beginning of a prompt that may come again.

Pure bookkeeping (Kwon et al. 2023, arXiv:2309.06180): blocks are numbers, the tensors lie elsewhere.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from hashlib import blake2b


class Blocks:
    """`count` blocks of `size` tokens each; block 0 to count - 1.

    A block is free, held by one or more sequences, or idle: held by none, and kept for the prefix it holds
    until its room is needed, the longest unused first.
    """

    def __init__(self, count: int, size: int) -> None:
        self.size = size
        self._free = list(range(count - 1, -1, -1))
        self._holders = [0] * count
        self._key: dict[int, bytes] = {}
        self._of_key: dict[bytes, int] = {}
        self._idle: OrderedDict[int, None] = OrderedDict()

    @property
    def available(self) -> int:
        """Blocks that `take` can give."""
        return len(self._free) + len(self._idle)

    @property
    def used(self) -> float:
        """The share of blocks that sequences hold."""
        return 1 - self.available / len(self._holders)

    def take(self, count: int) -> list[int]:
        """`count` blocks for one holder. Raises ValueError where so many are not available."""
        if count > self.available:
            raise ValueError(f"{count} blocks wanted, {self.available} available")
        taken = [self._free.pop() if self._free else self._evict() for _ in range(count)]
        for block in taken:
            self._holders[block] = 1
        return taken

    def known(self, keys: Iterable[bytes]) -> list[int]:
        """The blocks that hold the longest run of `keys` from the first; nothing is taken yet."""
        found: list[int] = []
        for key in keys:
            block = self._of_key.get(key)
            if block is None:
                break
            found.append(block)
        return found

    def hold(self, blocks: Sequence[int]) -> None:
        """One more holder for each of these known blocks."""
        for block in blocks:
            self._holders[block] += 1
            self._idle.pop(block, None)

    def idle(self, blocks: Sequence[int]) -> int:
        """How many of these blocks are held by none: holding them makes as many fewer available."""
        return sum(block in self._idle for block in blocks)

    def publish(self, block: int, key: bytes) -> None:
        """A held block is full and computed: it can be found by `key`. The first of a key stays its own."""
        if key not in self._of_key and block not in self._key:
            self._of_key[key] = block
            self._key[block] = key

    def release(self, blocks: Sequence[int]) -> None:
        """One holder fewer; the last of a sequence's blocks are the first to be given away."""
        for block in reversed(blocks):
            self._holders[block] -= 1
            if self._holders[block]:
                continue
            if block in self._key:
                self._idle[block] = None
            else:
                self._free.append(block)

    def _evict(self) -> int:
        block, _ = self._idle.popitem(last=False)
        del self._of_key[self._key.pop(block)]
        return block


def extend_keys(keys: list[bytes], tokens: Sequence[int], size: int, owner: str = "") -> None:
    """Give `keys` the key of each full block of `tokens`: equal where the block and all before it are.

    owner: what else decides the values, such as an adapter's name.
    """
    for start in range(len(keys) * size, len(tokens) - size + 1, size):
        digest = blake2b(keys[-1] if keys else owner.encode(), digest_size=16)
        digest.update(array("q", tokens[start : start + size]).tobytes())
        keys.append(digest.digest())
