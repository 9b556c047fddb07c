"""Assignment of samples to prototypes that uses all prototypes alike."""

import torch
import torch.distributed as dist
from lightly.utils.dist import world_size
from torch import Tensor

from ssl_framework.nn.precision import widen


@torch.no_grad()
def sinkhorn(scores: Tensor, epsilon: float, iterations: int = 3) -> Tensor:
    """Sinkhorn-Knopp over the samples of all processes.

    Caron et al., 2020, https://arxiv.org/abs/2006.09882, section 3.1 and appendix A, listing 1.

    Args:
        scores: ``(B, K)`` how much each sample of this process likes each prototype; B may differ between processes, and be 0.
        epsilon: the smaller, the closer to one prototype a sample.
        iterations: of normalising prototypes, then samples.

    Returns:
        ``(B, K)``, float32 or wider. Each row sums to 1; over all processes the columns would sum to the same number after many
        iterations.
    """
    logits = widen(scores) / epsilon
    top = logits.max() if len(logits) else logits.new_tensor(-torch.inf)
    if world_size() > 1:
        dist.all_reduce(top, op=dist.ReduceOp.MAX)
    q = (logits - top).exp()  # the shift falls out; without it a large score overflows
    for _ in range(iterations):
        load = q.sum(dim=0)  # (K,)
        if world_size() > 1:
            dist.all_reduce(load)
        q = q / load.clamp(min=torch.finfo(q.dtype).tiny)
        q = q / q.sum(dim=1, keepdim=True).clamp(min=torch.finfo(q.dtype).tiny)
    return q
