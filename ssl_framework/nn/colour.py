"""Colour apart from lightness: CIE Lab, its bins, and how much a rare colour counts."""

import torch
from torch import Tensor

from ssl_framework.nn.distributed import mean_over_processes
from ssl_framework.nn.follower import Follower

_TO_XYZ = ((0.4124564, 0.3575761, 0.1804375), (0.2126729, 0.7151522, 0.0721750), (0.0193339, 0.1191920, 0.9503041))
_LINEAR_BELOW = 6 / 29  # of the cube root: below it CIE's curve is a line
_STEPS = 64  # a side of the cube of colours that are tried; 256 find no bin more


def lab(rgb: Tensor) -> Tensor:
    """CIE Lab under daylight (D65) of sRGB: IEC 61966-2-1 for the curve and the matrix, CIE 15:2004 for Lab.

    Args:
        rgb: ``(..., 3, H, W)`` floats in [0, 1].

    Returns:
        ``(..., 3, H, W)``: lightness in [0, 100]; a, from green to red, and b, from blue to yellow, in about [-110, 100]. Greys
        have a = b = 0.
    """
    linear = torch.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    matrix = torch.tensor(_TO_XYZ, dtype=rgb.dtype, device=rgb.device)
    matrix = matrix / matrix.sum(1, keepdim=True)  # white has X = Y = Z = 1
    xyz = (matrix[..., None, None] * linear.unsqueeze(-4)).sum(-3)  # no matrix product: autocast would round it
    root = torch.where(xyz > _LINEAR_BELOW**3, xyz.clamp(min=1e-6) ** (1 / 3), xyz / (3 * _LINEAR_BELOW**2) + 4 / 29)
    x, y, z = root.unbind(-3)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=-3)


def colour_bins(grid: float = 10.0) -> Tensor:
    """Centres of the bins of a grid of ab that some sRGB colour falls into.

    A grid of 10 has 261. Zhang et al., 2016, https://arxiv.org/abs/1603.08511, section 2.1, keep 313, which their code reads
    from a file. How these were found is not said; no reading of "in gamut" gives as many: 229 centres are colours themselves.

    Args:
        grid: side of a bin.

    Returns:
        ``(Q, 2)`` float64, ordered by a, then b.

    Raises:
        ValueError: the grid is not positive.
    """
    if grid <= 0:
        raise ValueError(f"grid={grid}: the side of a bin of colours is positive, 10 in the paper.")
    steps = torch.linspace(0, 1, _STEPS, dtype=torch.float64)
    cube = torch.cartesian_prod(steps, steps, steps).T[:, None]  # (3, 1, 64^3)
    a, b = (lab(cube)[1:, 0] / grid).round().long()
    row = 1 + 2 * int(b.abs().max())
    code = torch.unique(a * row + b + row // 2)  # one number a bin: sorted in a tenth of the time of pairs
    return grid * torch.stack([code.div(row, rounding_mode="floor"), code % row - row // 2], dim=1).double()


def nearest_bins(ab: Tensor, bins: Tensor, neighbours: int, sigma: float) -> tuple[Tensor, Tensor]:
    """Colours as distributions over bins: the nearest ones, weighted by a Gaussian of their distance (section 2.1).

    Args:
        ab: ``(..., 2)``.
        bins: ``(Q, 2)`` centres.
        neighbours: bins that have a share, ``K``; 1 is one label a colour.
        sigma: standard deviation of the Gaussian, in units of ab.

    Returns:
        ``(..., K)`` bins, the nearest first, and ``(..., K)`` their shares, which sum to 1.
    """
    square = (ab[..., :1] - bins[:, 0]).square() + (ab[..., 1:] - bins[:, 1]).square()  # (..., Q)
    near, index = square.topk(neighbours, largest=False)
    return index, (-near / (2 * sigma**2)).softmax(-1)


class ColourWeights(Follower):
    """How much a colour counts: the rarer it is in the training data, the more (section 2.2 of the paper).

    The paper counts ImageNet's colours beforehand. Here the distribution is the mean over all steps so far, of all processes:
    it is that of the data that are trained on, whatever they are, and needs no pass before the first. It begins uniform.

    Args:
        bins: ``(Q, 2)`` centres of the bins.
        sigma: standard deviation of the Gaussian that smooths the distribution, in units of ab.
        uniform_share: lambda, of the uniform distribution in the mixture whose inverse is the weight; 1: all weigh the same.

    Raises:
        ValueError: the share is not in (0, 1]; at 0 a colour that was never seen would weigh infinitely much.
    """

    def __init__(self, bins: Tensor, sigma: float, uniform_share: float) -> None:
        super().__init__()
        if not 0.0 < uniform_share <= 1.0:
            raise ValueError(f"uniform_share={uniform_share} must lie above 0 and not above 1; the paper has 0.5.")
        self.uniform_share = uniform_share
        kernel = (-torch.cdist(bins, bins).square() / (2 * sigma**2)).exp()
        self.kernel: Tensor
        self.value: Tensor
        self.steps: Tensor
        self.register_buffer("kernel", (kernel / kernel.sum(0)).to(torch.get_default_dtype()), persistent=False)
        self.register_buffer("value", torch.full((len(bins),), 1 / len(bins)))
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self._staged: list[Tensor] = []

    def forward(self, index: Tensor) -> Tensor:
        """Weights of bins of any shape. Over the smoothed distribution their mean is 1."""
        smooth = (self.kernel * self.value).sum(1)  # (Q,), which sums to 1
        weights = 1 / ((1 - self.uniform_share) * smooth + self.uniform_share / len(smooth))
        return (weights / (weights * smooth).sum())[index]

    def stage(self, index: Tensor) -> None:
        """Remember which bins were there until the optimiser has moved. In evaluation nothing is remembered."""
        if self.training:
            counts = torch.zeros_like(self.value).index_add_(0, index.flatten(), self.value.new_ones(index.numel()))
            self._staged.append(counts / index.numel())

    @torch.no_grad()
    def follow(self, progress: float) -> None:
        """Take what was staged into the mean; every step counts the same."""
        if not self._staged:
            return
        mean = mean_over_processes(torch.stack(self._staged).mean(0))
        self._staged.clear()
        self.steps += 1
        self.value += (mean - self.value) / self.steps
