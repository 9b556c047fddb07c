"""Linear classifiers for many penalties at once: logistic regression by L-BFGS, ridge in closed form."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ssl_framework.probes.lbfgs import Minimum, minimise
from ssl_framework.probes.scaling import check, strengths

SMALL = 2_000_000
"""Numbers in the features, up to which float64 takes no time."""

COARSE = 1e-5
"""Largest entry of the gradient up to which float32 is followed."""

_SCORES = 4_000_000  # numbers held at once
_DENSE = 100_000_000  # numbers of the preconditioner; beyond it is a diagonal: penalties times squares of widths grow fast
_ROWS = 4096  # read at once; they stay in the cache between the two products


def logistic(
    train_x: Tensor,
    train_y: Tensor,
    penalties: Sequence[float],
    *,
    num_classes: int,
    max_steps: int = 500,
    tolerance: float = 1e-7,
) -> Tensor:
    """Multinomial logistic regression for all penalties at once, by full-batch L-BFGS.

    Minimises ``mean cross entropy + penalty / 2 * |W|^2``; the bias is free. scikit-learn's ``C`` is ``1 / (penalty * N)``.

    The search is preconditioned by the Hessian at zero weights, which is the covariance of the features over ``C``; by its
    diagonal alone where that matrix, for all penalties, would take more than 100 million numbers. More than `SMALL`
    numbers in float64 are read as float32 until the gradient is below `COARSE`; what is left is done in float64.

    Args:
        train_x: ``(N, D)``, standardised, float32 or float64. Only float64 reaches the default tolerance for certain.
        train_y: ``(N,)``.
        penalties: ``P`` positive numbers.
        num_classes: ``C``.
        max_steps: where the weakest penalties are cut off on separable data, whose accuracy no longer moves.
        tolerance: of the largest entry of the gradient. At 1e-7 the accuracy agrees with scikit-learn's for every penalty.

    Returns:
        ``(P, D + 1, C)`` weights in the dtype of `train_x`, the bias in the last row; scores are ``x @ w[:, :-1] + w[:, -1:]``.

    Raises:
        ValueError: as in `fit_probe`.
    """
    check("train", train_x, train_y)
    strength = strengths(penalties, train_x.new_empty(0, dtype=torch.float64))
    wide = len(train_x) < train_x.shape[1]
    # weights lie in the span of the samples: with fewer of them than features, N numbers say it all
    basis, x = _span(train_x) if wide else (None, train_x)
    coarse = x.dtype == torch.float64 and x.numel() > SMALL
    first = _CrossEntropy(x.float() if coarse else x, train_y, strength, num_classes)
    start = strength.new_zeros(len(strength), x.shape[1] + 1, num_classes)
    target = max(tolerance, COARSE) if coarse else tolerance
    found = first.minimise(start, max_steps, target)
    if coarse and found.steps < max_steps and (target > tolerance or not bool(found.reached.all())):
        found = _refined(found, first, x, max_steps, tolerance)
    points = found.points.to(x.dtype)
    return points if basis is None else torch.cat([basis @ points[:, :-1], points[:, -1:]], dim=1)


def ridge(train_x: Tensor, train_y: Tensor, penalties: Sequence[float], *, num_classes: int) -> Tensor:
    """Least squares on one-hot labels for all penalties, in closed form from one eigendecomposition, in float64.

    Minimises ``mean squared error + penalty * |W|^2``; the bias is free. scikit-learn's ``alpha`` is ``penalty * N``.

    Args:
        train_x: ``(N, D)``, standardised.
        train_y: ``(N,)``.
        penalties: ``P`` positive numbers.
        num_classes: ``C``.

    Returns:
        ``(P, D + 1, C)`` weights as `logistic`, in the dtype of `train_x`.

    Raises:
        ValueError: as in `fit_probe`.
    """
    check("train", train_x, train_y)
    strength = strengths(penalties, train_x).double()
    n, d = train_x.shape
    x = train_x.double()
    y = F.one_hot(train_y, num_classes).double()
    x_mean, y_mean = x.mean(dim=0), y.mean(dim=0)
    x, y = x - x_mean, y - y_mean
    values, vectors = torch.linalg.eigh((x.T @ x if d <= n else x @ x.T) / n)
    target = x.T @ y / n if d <= n else y / n
    solved = vectors @ ((vectors.T @ target) / (values.clamp(min=0)[:, None] + strength[:, None, None]))  # (P, D or N, C)
    weights = solved if d <= n else x.T @ solved
    bias = y_mean - x_mean @ weights  # (P, C)
    return torch.cat([weights, bias[:, None]], dim=1).to(train_x.dtype)


class _CrossEntropy:
    """Value and gradient of the penalised cross entropy at weights ``(p, D + 1, C)``, and a guess of its Hessian.

    Args:
        x: ``(N, D)``; its dtype is that of the large products. Sums over samples are float64.
        y: ``(N,)``.
        strength: ``(P,)`` float64, penalties.
        num_classes: ``C``.
        factors: `precondition`'s, if they are known.
    """

    def __init__(self, x: Tensor, y: Tensor, strength: Tensor, num_classes: int, factors: Tensor | None = None) -> None:
        self.x, self.y, self.strength, self.num_classes = x, y, strength, num_classes
        self.factors = self._factors() if factors is None else factors  # (P, D + 1, D + 1), or (P, D + 1) of a diagonal

    def __call__(self, points: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
        """``(p,)`` values and ``(p, D + 1, C)`` gradients for the penalties `which`."""
        p, _, c = points.shape
        rows = min(_ROWS, max(1, _SCORES // (p * c)))
        turned = points.transpose(1, 2).flatten(0, 1)  # (p * C, D + 1)
        weights, bias = turned[:, :-1].to(self.x.dtype), turned[:, -1:].to(self.x.dtype)
        loss, slope = points.new_zeros(p), torch.zeros_like(turned)
        for x, y in zip(self.x.split(rows), self.y.split(rows), strict=True):
            log_p = torch.addmm(bias, weights, x.T).view(p, c, -1).log_softmax(dim=1)  # (p, C, rows)
            truth = y.expand(p, 1, -1)
            loss -= log_p.gather(1, truth).sum(dim=(1, 2), dtype=loss.dtype)
            excess = log_p.exp_().scatter_add_(1, truth, -torch.ones_like(log_p[:, :1]))  # predicted minus true probability
            slope[:, :-1] += excess.flatten(0, 1) @ x
            slope[:, -1] += excess.sum(dim=2, dtype=slope.dtype).flatten()
        shrink = self._shrink(which)[:, :, None]  # (p, D + 1, 1)
        n = len(self.x)
        value = loss / n + (shrink * points**2).sum(dim=(1, 2)) / 2
        return value, slope.view(p, c, -1).transpose(1, 2) / n + shrink * points

    def minimise(self, start: Tensor, max_steps: int, tolerance: float) -> Minimum:
        """Search from ``(P, D + 1, C)`` weights, as exactly as the features' dtype allows."""
        rounding = 4 * torch.finfo(self.x.dtype).eps
        return minimise(self, start, self.precondition, max_steps=max_steps, tolerance=tolerance, rounding=rounding)

    def precondition(self, grad: Tensor, which: Tensor) -> Tensor:
        """``(p, D + 1, C)`` gradients times the inverse of the Hessian at zero, the same for every class."""
        factors = self.factors[which]
        return grad / factors[..., None] if factors.ndim == 2 else torch.cholesky_solve(grad, factors)

    def _factors(self) -> Tensor:
        x, d = self.x, self.x.shape[1]
        shrink = self._shrink(torch.arange(len(self.strength), device=x.device))
        if len(shrink) * (d + 1) ** 2 > _DENSE:
            squares = torch.linalg.vector_norm(x, dim=0).to(shrink).square() / len(x)  # (D,)
            squares = torch.cat([squares, squares.new_ones(1)])
            return shrink + squares / self.num_classes + torch.finfo(x.dtype).eps * squares.sum()
        moment = self.strength.new_ones(d + 1, d + 1)  # of the features and the constant one
        moment[:d, :d] = x.T @ x / len(x)
        moment[:d, d] = moment[d, :d] = x.mean(dim=0)
        rounding = torch.finfo(x.dtype).eps * moment.trace()  # as much as the product may be off
        return torch.linalg.cholesky(moment / self.num_classes + torch.diag_embed(shrink + rounding))

    def _shrink(self, which: Tensor) -> Tensor:
        """``(p, D + 1)``: the penalty of each weight, none on the bias."""
        shrink = self.strength[which, None].expand(-1, self.x.shape[1] + 1).clone()
        shrink[:, -1] = 0
        return shrink


def _refined(found: Minimum, first: _CrossEntropy, x: Tensor, max_steps: int, tolerance: float) -> Minimum:
    """Go on from float32 in the dtype of `x`."""
    fine = _CrossEntropy(x, first.y, first.strength, first.num_classes, first.factors)
    return fine.minimise(found.points, max_steps - found.steps, tolerance)


def _span(x: Tensor) -> tuple[Tensor, Tensor]:
    """An orthonormal basis ``(D, N)`` of the span of N samples, and these in it, ``(N, N)``."""
    basis, turned = torch.linalg.qr(x.T)
    return basis, turned.T.contiguous()
