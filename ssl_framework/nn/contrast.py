"""Which of many keys belongs to the query?"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_framework.nn.distributed import gather, own_rows


class InfoNCE(nn.Module):
    """Cross entropy of the positive key among given negatives.

    Van den Oord et al., 2018, https://arxiv.org/abs/1807.03748, equation 4; with a queue He et al., 2020,
    https://arxiv.org/abs/1911.05722, equation 1.

    Args:
        temperature: of the cosine similarities.
    """

    def __init__(self, temperature: float) -> None:
        super().__init__()
        require_positive(temperature=temperature)
        self.temperature = temperature

    def forward(self, query: Tensor, positive: Tensor, negatives: Tensor) -> Tensor:
        """Compare, by cosine.

        Args:
            query: ``(B, P)``.
            positive: ``(B, P)``, the key of each query.
            negatives: ``(K, P)``, the same for all.

        Returns:
            ``()``, the mean over queries.
        """
        query, positive, negatives = (F.normalize(x, dim=1) for x in (query, positive, negatives))
        own = (query * positive).sum(dim=1, keepdim=True)  # (B, 1)
        logits = torch.cat([own, query @ negatives.T], dim=1) / self.temperature  # (B, 1 + K)
        return F.cross_entropy(logits, logits.new_zeros(len(logits), dtype=torch.int64))


class InBatch(nn.Module):
    """Cross entropy of the own key among the keys of the batch of all processes.

    Chen, Xie and He, 2021, https://arxiv.org/abs/2104.02057, algorithm 1, without its factor.

    Args:
        temperature: of the cosine similarities.
    """

    def __init__(self, temperature: float) -> None:
        super().__init__()
        require_positive(temperature=temperature)
        self.temperature = temperature

    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        """``(B, P)`` twice to ``()``, the mean over queries."""
        keys = gather(F.normalize(key, dim=1))  # (W * B, P)
        rows = own_rows(len(query))
        own = torch.arange(rows.start, rows.stop, device=query.device)
        return F.cross_entropy(F.normalize(query, dim=1) @ keys.T / self.temperature, own)


class Relation(nn.Module):
    """Cross entropy between two distributions over other samples: Zheng et al., 2021, https://arxiv.org/abs/2107.09282, eq. 5.

    Args:
        temperature: of the student's cosine similarities.
        teacher_temperature: of the teacher's.
    """

    def __init__(self, temperature: float, teacher_temperature: float) -> None:
        super().__init__()
        require_positive(temperature=temperature)
        require_positive(teacher_temperature=teacher_temperature)
        self.temperature, self.teacher_temperature = temperature, teacher_temperature

    def forward(self, student: Tensor, teacher: Tensor, others: Tensor) -> Tensor:
        """``(B, P)`` twice and ``(K, P)`` to ``()``; nothing flows back to the teacher."""
        student, teacher, others = (F.normalize(x, dim=1) for x in (student, teacher.detach(), others))
        target = (teacher @ others.T / self.teacher_temperature).softmax(dim=1)
        return F.cross_entropy(student @ others.T / self.temperature, target)


def require_positive(**numbers: float) -> None:
    """Refuse what would divide by zero, turn the loss around, or leave nothing to compare with.

    Raises:
        ValueError: one is not positive; the message names it.
    """
    for name, value in numbers.items():
        if not value > 0:
            raise ValueError(f"{name}={value} must be positive.")
