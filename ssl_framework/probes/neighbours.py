"""Nearest neighbours: the classes of the samples that an encoder finds most alike."""

import torch
from torch import Tensor
from torch.nn import functional as F

from ssl_framework.probes.scaling import check

_BLOCK = 64  # columns of which the maximum is taken first


def knn(
    train_x: Tensor,
    train_y: Tensor,
    test_x: Tensor,
    *,
    num_classes: int,
    k: int = 20,
    temperature: float = 0.07,
    chunk: int = 1024,
) -> Tensor:
    """Weighted nearest neighbours by cosine similarity (Wu et al. 2018, https://arxiv.org/abs/1805.01978, section 3.4).

    Args:
        train_x: ``(N, D)``.
        train_y: ``(N,)``.
        test_x: ``(M, D)``.
        num_classes: ``C``; every label is below.
        k: neighbours that vote, at most all. DINO takes 20.
        temperature: a neighbour at similarity ``s`` has the weight ``exp(s / temperature)``. Wu et al. take 0.07.
        chunk: test samples that are compared at once; bounds memory to ``chunk * N`` numbers.

    Returns:
        ``(M,)`` predicted classes.

    Raises:
        ValueError: a split is empty or holds NaN, labels do not fit, or a number is not positive.
    """
    check("train", train_x, train_y)
    if k < 1 or temperature <= 0:
        raise ValueError(f"k = {k} and temperature = {temperature} must be positive: papers take 20 and 0.07")
    if int(train_y.max()) >= num_classes:
        raise ValueError(f"label {int(train_y.max())} does not fit num_classes = {num_classes}: give the number of classes")
    bank = F.normalize(train_x.float(), dim=1)
    k = min(k, len(bank))
    table = bank.new_empty(min(chunk, len(test_x)), len(bank))  # written over: fresh memory costs page faults
    predicted: list[Tensor] = [train_y.new_empty(0)]
    for part in test_x.float().split(chunk):
        compared = torch.mm(F.normalize(part, dim=1), bank.T, out=table[: len(part)])
        similarity, neighbour = largest(compared, k)
        weight = torch.exp((similarity - 1) / temperature)  # the shift by 1 keeps small temperatures finite
        votes = weight.new_zeros(len(part), num_classes).scatter_add_(1, train_y[neighbour], weight)
        predicted.append(votes.argmax(dim=1))
    return torch.cat(predicted)


def largest(rows: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest numbers of each row, and where they stand, in descending order: `torch.topk` in half its time on a CPU.

    The k largest lie in the k blocks with the largest maxima, so one pass for the maxima leaves few numbers to be sorted.

    Args:
        rows: ``(B, N)``.
        k: from 1 to N.

    Returns:
        Values and columns, ``(B, k)`` each. Of equal numbers at the end, any may be taken.
    """
    count = rows.shape[1] // _BLOCK
    if count < 2 * k:
        return rows.topk(k, dim=1)
    blocks = rows[:, : count * _BLOCK].unflatten(1, (count, _BLOCK))
    best = blocks.amax(dim=2).topk(k, dim=1).indices  # (B, k)
    columns = (best[:, :, None] * _BLOCK + torch.arange(_BLOCK, device=rows.device)).flatten(1)  # (B, k * _BLOCK)
    rest = torch.arange(count * _BLOCK, rows.shape[1], device=rows.device).expand(len(rows), -1)
    columns = torch.cat([columns, rest], dim=1)
    values, places = rows.gather(1, columns).topk(k, dim=1)
    return values, columns.gather(1, places)
