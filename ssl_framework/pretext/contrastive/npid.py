"""NPID: Wu et al., 2018, https://arxiv.org/abs/1805.01978."""

import math
from typing import Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_framework.nn import Follower, MemoryBank, mean_over_processes, require_key, require_positive, widen
from ssl_framework.pretext.base import Card, PretextModule, Training
from ssl_framework.types import Encoder, Step, Views


class NPID(PretextModule):
    """Every sample is a class of its own, told apart from others by a memory of what was last said of them.

    Wu et al., 2018, https://arxiv.org/abs/1805.01978, non-parametric instance discrimination. All samples of a step have the
    same negatives; the proximal term of equation 9 is the momentum of the memory, as in the official code.

    Args:
        encoder: any.
        projection_dim: of a vector; 128 in the paper (section 4.2).
        negatives: samples drawn from the memory; 4096 (section 4.2).
        momentum: of the memory; 0.5 (official code, main.py).
        temperature: of the cosine similarities; 0.07 (section 4.2).
        training: see `PretextModule`.
    """

    card = Card(
        family="contrastive",
        group="instance",
        target="identity of the sample",
        prevents_collapse="negatives of a memory bank",
        judged_by="linear probe",
        paper="https://arxiv.org/abs/1805.01978",
        views=1,
    )

    def __init__(
        self,
        encoder: Encoder,
        projection_dim: int = 128,
        negatives: int = 4096,
        momentum: float = 0.5,
        temperature: float = 0.07,
        **training: Unpack[Training],
    ) -> None:
        super().__init__(encoder, **training)
        require_positive(temperature=temperature, negatives=negatives)
        self.negatives, self.temperature = negatives, temperature
        self.projector = nn.Linear(encoder.embed_dim, projection_dim)
        self.bank = MemoryBank(projection_dim, momentum)
        self.constant = Constant()

    def forward(self, views: Views) -> Step:
        """Equations 5 to 8; where samples have no place in the memory, in validation, their own vectors stand in."""
        x, index, key = views.global_crops[0], views.index, require_key(views.key, "Negatives")
        if index is None:
            raise ValueError("NPID keeps a vector of every sample, and Views.index is None: give Views(..., index=...).")
        h = self.encoder(x).pooled  # (B, D)
        z = F.normalize(widen(self.projector(h)), dim=1)  # (B, P)
        with torch.autocast(z.device.type, enabled=False):
            remembered = self.bank.look_up(index) if self.training else z.detach()  # (B, P)
            own = (z * remembered).sum(dim=1, keepdim=True) / self.temperature  # (B, 1)
            others = z @ self.bank.draw(key, self.negatives)[1].T / self.temperature  # (B, M)
            samples = len(self.bank.rows)
            loss = contrast(own, others, self.constant(others) + math.log(samples), samples)
        self.bank.stage(index, z)
        return Step(loss, embedding=h, projection=z)


class Constant(Follower):
    """The logarithm of the mean exponential score, from the first batch on (section 3.2: Z is a constant)."""

    def __init__(self) -> None:
        super().__init__()
        self.value: Tensor
        self.register_buffer("value", torch.tensor(torch.nan))
        self._staged: list[Tensor] = []

    @torch.no_grad()
    def forward(self, scores: Tensor) -> Tensor:
        """``(B, M)`` to ``()``."""
        estimate = mean_over_processes(scores.double().exp().mean()).log()
        if self.training:
            self._staged.append(estimate)
        return torch.where(self.value.isnan(), estimate.to(self.value.dtype), self.value)

    @torch.no_grad()
    def follow(self, progress: float) -> None:
        """Keep the first estimate."""
        if self._staged:
            first = torch.stack(self._staged).mean().to(self.value.dtype)
            self.value.copy_(torch.where(self.value.isnan(), first, self.value))
            self._staged.clear()

    def settled(self, progress: float) -> bool:
        """The first estimate stays."""
        return True


def contrast(own: Tensor, others: Tensor, constant: Tensor, samples: int) -> Tensor:
    """Noise-contrastive estimation against uniform noise (equation 7).

    Args:
        own: ``(B, 1)`` scores of the right samples.
        others: ``(B, M)`` scores of samples from the noise.
        constant: ``()`` logarithm of Z.
        samples: how many the noise draws from.
    """
    odds = math.log(others.shape[1] / samples)  # of the noise: M samples, each with the probability 1 / N
    right = F.softplus(odds - (own - constant)).sum(dim=1)
    wrong = F.softplus((others - constant) - odds).sum(dim=1)
    return (right + wrong).mean()
