"""A linear-chain conditional random field over tags (Lafferty, McCallum and Pereira 2001)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Crf(nn.Module):
    """Scores of sequences of tags: emissions, and what the tags say of one another.

    transitions[i, j]: of tag j after tag i; first, last: of a tag at either end. All 0 at first, which is a
    softmax of each word by itself.
    """

    def __init__(self, tags: int) -> None:
        super().__init__()
        self.transitions = nn.Parameter(torch.zeros(tags, tags))
        self.first = nn.Parameter(torch.zeros(tags))
        self.last = nn.Parameter(torch.zeros(tags))

    def loss(self, emissions: Tensor, tags: Tensor, mask: Tensor) -> Tensor:
        """(N,): -log P(tags | emissions). emissions: (N, L, K); tags: (N, L) int64; mask: (N, L), true first.

        Every row has a word at least.
        """
        return self._log_partition(emissions, mask) - self._score(emissions, tags, mask)

    def _score(self, emissions: Tensor, tags: Tensor, mask: Tensor) -> Tensor:
        """(N,): of the given tags."""
        at_words = emissions.gather(2, tags[..., None]).squeeze(2).mul(mask).sum(1)
        between = self.transitions[tags[:, :-1], tags[:, 1:]].mul(mask[:, 1:]).sum(1)
        ends = tags.gather(1, mask.sum(1, keepdim=True) - 1).squeeze(1)
        return at_words + between + self.first[tags[:, 0]] + self.last[ends]

    def _log_partition(self, emissions: Tensor, mask: Tensor) -> Tensor:
        """(N,): the log of the sum over all sequences, by the forward algorithm."""
        alpha = self.first + emissions[:, 0]
        for t in range(1, emissions.shape[1]):
            step = torch.logsumexp(alpha[:, :, None] + self.transitions, dim=1) + emissions[:, t]
            alpha = torch.where(mask[:, t, None], step, alpha)
        return torch.logsumexp(alpha + self.last, dim=1)

    @torch.no_grad()
    def marginals(self, emissions: Tensor) -> Tensor:
        """(L, K): P(tag at word | emissions) of one sequence, by forward and backward sums."""
        alpha, beta = [self.first + emissions[0]], list[Tensor]([self.last])
        for each in emissions[1:]:
            alpha.append(torch.logsumexp(alpha[-1][:, None] + self.transitions, dim=0) + each)
        for each in emissions[1:].flip(0):
            beta.append(torch.logsumexp(self.transitions + each + beta[-1], dim=1))
        return (torch.stack(alpha) + torch.stack(beta[::-1])).softmax(-1)

    @torch.no_grad()
    def best(self, emissions: Tensor) -> list[int]:
        """The likeliest tags of one sequence (Viterbi 1967). emissions: (L, K)."""
        score, back = self.first + emissions[0], []
        for each in emissions[1:]:
            found = (score[:, None] + self.transitions).max(0)
            score = found.values + each
            back.append(found.indices)
        path = [int((score + self.last).argmax())]
        for indices in reversed(back):
            path.append(int(indices[path[-1]]))
        return path[::-1]
