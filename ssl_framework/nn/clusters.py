"""Clusters of all samples, found anew at the end of every pass over the data."""

from dataclasses import asdict, dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ssl_framework.nn.bank import MemoryBank
from ssl_framework.nn.distributed import take_from_first


@dataclass
class _Count:
    """Samples seen since the beginning, passes over the data that they made, and how many were seen at the last clustering."""

    seen: int = 0
    passes: int = 0
    clustered: int = 0


class Clusters(MemoryBank):
    """Several clusterings of what was last said of every sample, by spherical k-means, each from other starting points.

    DeepCluster v2: Caron et al., 2020, https://arxiv.org/abs/2006.09882; official code, main_deepclusterv2.py. When
    as many samples were seen as there are, all are clustered anew. The official code looks at all samples before it trains;
    here the first pass trains as well: what was seen so far is clustered after the first step, and whenever it has doubled, and
    the label of a sample is the centroid that is nearest now. Random centroids would not do: all samples run to the same few.
    Every process clusters the same rows; a GPU adds them up in any order, so all take the centroids of the first process.

    Args:
        dim: width ``P`` of an embedding.
        count: clusters ``K`` of each clustering.
        clusterings: how many.
        iterations: of k-means; 10 in the official code.
    """

    def __init__(self, dim: int, count: int, clusterings: int, iterations: int = 10) -> None:
        super().__init__(dim, momentum=0.0)
        if count < 2 or clusterings < 1:
            raise ValueError(f"prototypes={count} in clusterings={clusterings}: give two clusters or more, in one or more.")
        self.iterations = iterations
        self.count = _Count()  # of the host: to read it from a GPU would make every step wait
        self.centroids: Tensor
        self.register_buffer("centroids", F.normalize(torch.randn(clusterings, count, dim), dim=-1))

    def labels(self, index: Tensor, z: Tensor) -> Tensor:
        """Clusters ``(clusterings, B)`` of samples: of what was said of them in the pass before, or now if there was none.

        In validation samples are others than those remembered: what is said now stands in.

        Args:
            index: ``(B,)`` samples.
            z: ``(B, P)`` unit vectors that the encoder says now.
        """
        said = z.detach().to(self.rows.dtype)  # (B, P)
        if self.training:
            remembered = self.look_up(index)  # zeros if nothing was said of a sample
            said = torch.where(remembered.any(dim=1, keepdim=True), remembered, said) if self.count.passes else said
        with torch.autocast(z.device.type, enabled=False):  # in half precision neighbours tie
            return torch.einsum("bp,ckp->cbk", said, self.centroids).argmax(dim=-1)

    @torch.no_grad()
    def follow(self, progress: float) -> None:
        """Take in what was staged, and cluster if that ends a pass, or has doubled what is known in the first."""
        new = sum(len(index) for index, _ in self._staged)
        super().follow(progress)
        if not new:
            return
        count = self.count
        count.seen += new
        ended = count.seen >= len(self.rows) * (count.passes + 1)
        if ended or (count.passes == 0 and count.seen >= 2 * count.clustered):
            count.passes += ended
            count.clustered = count.seen
            rows = self.rows[self.rows.any(dim=1)]
            for c in range(len(self.centroids)):
                self.centroids[c] = spherical_k_means(rows, self._starts(rows, c), self.iterations)
            take_from_first(self.centroids)

    def get_extra_state(self) -> dict[str, int]:
        """What a checkpoint keeps besides tensors."""
        return asdict(self.count)

    def set_extra_state(self, state: dict[str, int]) -> None:
        """Go on from a checkpoint."""
        self.count = _Count(**state)

    def _fresh(self, index: Tensor) -> Tensor:
        """Zeros: samples that nothing was said of are not clustered."""
        return torch.zeros(len(index), self.dim)

    def _starts(self, rows: Tensor, clustering: int) -> Tensor:
        """Those of ``(N, P)`` rows that a clustering begins with: others in each, and each time; the same on every process."""
        generator = torch.Generator().manual_seed(1000 * self.count.clustered + clustering)
        count = self.centroids.shape[1]
        chosen = torch.randperm(len(rows), generator=generator)[:count]
        if len(chosen) < count:  # fewer samples than clusters: some begin at the same place
            chosen = chosen.repeat(-(-count // len(chosen)))[:count]
        return rows[chosen.to(rows.device)]


def spherical_k_means(rows: Tensor, starts: Tensor, iterations: int) -> Tensor:
    """Centroids of unit vectors by cosine; one that no sample is nearest to stays where it is.

    Args:
        rows: ``(N, P)`` unit vectors.
        starts: ``(K, P)``.
        iterations: of assigning and averaging.

    Returns:
        ``(K, P)`` unit vectors.
    """
    centroids = starts.clone()
    for _ in range(iterations):
        nearest = torch.cat([(part @ centroids.T).argmax(dim=1) for part in rows.split(8192)])  # (N,)
        sums = torch.zeros_like(centroids).index_add_(0, nearest, rows)
        filled = torch.bincount(nearest, minlength=len(centroids))[:, None] > 0
        centroids = torch.where(filled, F.normalize(sums, dim=1), centroids)
    return centroids
