"""L-BFGS on many convex problems at once, each with its own step length; what is solved is computed no further."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

Objective = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""``(p, ...)`` points and the ``(p,)`` numbers of their problems to ``(p,)`` values and gradients of the points' shape."""

Solve = Callable[[Tensor, Tensor], Tensor]
"""``(p, ...)`` gradients and the ``(p,)`` numbers of their problems to these, times the inverse of a guess of the Hessian."""

_HALVINGS = 25
_PATIENCE = 15  # steps without a smaller value or gradient, after which rounding is all that moves


class Minimum(NamedTuple):
    """Where the search ended.

    Attributes:
        points: ``(P, ...)``.
        reached: ``(P,)`` whether the gradient is as small as was asked; else the steps or the digits ran out.
        steps: taken by the slowest problem.
    """

    points: Tensor
    reached: Tensor
    steps: int


class _Place(NamedTuple):
    """Points with what is known there, p problems each."""

    point: Tensor
    value: Tensor
    grad: Tensor


def minimise(
    objective: Objective,
    start: Tensor,
    precondition: Solve,
    *,
    max_steps: int,
    tolerance: float,
    rounding: float = 1e-15,
    memory: int = 10,
) -> Minimum:
    """L-BFGS (Nocedal and Wright 2006, algorithm 7.4) with backtracking, from a preconditioned gradient.

    Args:
        objective: P independent convex problems.
        start: ``(P, ...)``. Its dtype is that of the points, which the objective may compute less exactly.
        precondition: multiplies by a guess of the inverse Hessian. The better the guess, the fewer steps.
        max_steps: at most.
        tolerance: of the largest entry of a gradient.
        rounding: relative error of values. Where they differ by less, slopes decide.
        memory: pairs kept.
    """
    points, reached = start.clone(), torch.zeros(len(start), dtype=torch.bool, device=start.device)
    alive = torch.arange(len(start), device=start.device)
    here = _Place(start, *objective(start, alive))
    pairs: list[tuple[Tensor, Tensor]] = []
    best, lowest = torch.full_like(here.value, torch.inf), torch.full_like(here.value, torch.inf)
    waited = torch.zeros_like(alive)
    stuck = torch.zeros_like(reached)
    for step in range(max_steps):
        size = _size(here.grad)
        waited = torch.where((size < best) | (here.value < lowest - rounding * lowest.abs()), 0, waited + 1)
        best, lowest = torch.minimum(best, size), torch.minimum(lowest, here.value)
        ends = (size <= tolerance) | (waited > _PATIENCE) | stuck
        if bool(ends.any()):
            points[alive[ends]], reached[alive[ends]] = here.point[ends], size[ends] <= tolerance
            stays = ~ends
            alive, best, lowest, waited = alive[stays], best[stays], lowest[stays], waited[stays]
            here = _Place(*(part[stays] for part in here))
            pairs = [(s[stays], y[stays]) for s, y in pairs]
        if len(alive) == 0:
            return Minimum(points, reached, step)
        new, stuck = _search(objective, here, -_times_inverse(here.grad, pairs, precondition, alive), alive, rounding)
        pairs = [*pairs[-memory + 1 :], (new.point - here.point, new.grad - here.grad)]
        here = new
    points[alive], reached[alive] = here.point, _size(here.grad) <= tolerance
    return Minimum(points, reached, max_steps)


def _search(objective: Objective, here: _Place, direction: Tensor, alive: Tensor, rounding: float) -> tuple[_Place, Tensor]:
    """Halve each problem's step until it is good; those for which none is stay where they are, and are named stuck.

    A step is good if the value falls enough (Armijo), or where rounding hides that, if the slope along it does: the
    approximate Wolfe condition of Hager and Zhang (2005, https://doi.org/10.1137/030601880).
    """
    slope = _dot(here.grad, direction)
    new = _Place(here.point.clone(), here.value.clone(), here.grad.clone())
    length = 1.0
    trying = torch.arange(len(alive), device=alive.device)
    for _ in range(_HALVINGS):
        point = here.point[trying] + length * direction[trying]
        value, grad = objective(point, alive[trying])
        old, fall = here.value[trying], slope[trying]
        flat = (value <= old + rounding * old.abs()) & (_dot(grad, direction[trying]) <= -0.8 * fall)
        good = (value <= old + 1e-4 * length * fall) | flat
        for all_, tried in zip(new, (point, value, grad), strict=True):
            all_[trying[good]] = tried[good]
        trying = trying[~good]
        if len(trying) == 0:
            break
        length /= 2
    stuck = torch.zeros(len(alive), dtype=torch.bool, device=alive.device)
    stuck[trying] = True
    return new, stuck


def _times_inverse(grad: Tensor, pairs: list[tuple[Tensor, Tensor]], precondition: Solve, alive: Tensor) -> Tensor:
    """Two-loop recursion; a pair without curvature counts for nothing."""
    q, gamma = grad, torch.ones_like(_dot(grad, grad))
    kept: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    for s, y in reversed(pairs):
        sy, yy = _dot(s, y), _dot(y, y)
        curved = sy > torch.finfo(sy.dtype).eps * yy
        rho = torch.where(curved, 1 / torch.where(curved, sy, 1), 0)
        alpha = rho * _dot(s, q)
        q = q - _spread(alpha, q) * y
        kept.append((s, y, rho, alpha))
    if pairs:  # the newest pair says how far the guess of the Hessian is from it
        s, y = pairs[-1]
        sy, scale = _dot(s, y), _dot(y, precondition(y, alive))
        gamma = torch.where((sy > 0) & (scale > 0), sy / scale.clamp(min=torch.finfo(scale.dtype).tiny), gamma)
    r = _spread(gamma, q) * precondition(q, alive)
    for s, y, rho, alpha in reversed(kept):
        r = r + _spread(alpha - rho * _dot(y, r), r) * s
    return r


def _size(grad: Tensor) -> Tensor:
    return grad.flatten(1).abs().amax(dim=1)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).flatten(1).sum(dim=1)


def _spread(per_problem: Tensor, like: Tensor) -> Tensor:
    return per_problem.view(-1, *[1] * (like.ndim - 1))
